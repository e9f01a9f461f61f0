"""Everything above 0 is the spleen; the array is written to, which must not reach the caller."""

from dicom_node import Findings


def load(folder, device):
    def analyse(ct, progress):
        progress(0.5, "half of it")
        spleen = ct.array > 0
        ct.array[:] = 0
        return Findings(segments=ct.with_array(spleen), measurements={"volume": spleen.sum() * ct.voxel_volume / 1000}, notes=("a note",))

    return analyse
