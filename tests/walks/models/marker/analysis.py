"""Marks what is bright, and tells its volume and its centre in the patient (LPS, mm)."""

import numpy as np

from dicom_node import Findings, Unsuitable


def load(folder, device):
    def analyse(ct):
        marker = ct.array > -500
        if not marker.any():
            raise Unsuitable("The marker is not in the images.")
        left, posterior, superior, _ = ct.affine @ [*np.argwhere(marker).mean(axis=0), 1]
        measured = {"volume": marker.sum() * ct.voxel_volume / 1000, "left": left, "posterior": posterior, "superior": superior}
        return Findings(segments=ct.with_array(marker), measurements=measured)

    return analyse
