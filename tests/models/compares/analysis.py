"""How many voxels more are above 0 than on the earlier series; without one, nothing to compare with is a change of 0."""

from dicom_node import Findings


def load(folder, device):
    def analyse(ct, before):
        now, earlier = (0.0 if one is None else float((one.array > 0).sum() * one.voxel_volume / 1000) for one in (ct, before))
        return Findings(measurements={"change": 0.0 if before is None else now - earlier})

    return analyse
