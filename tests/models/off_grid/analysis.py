"""It forgets to bring its mask back to the input's grid."""

import numpy as np
from highdicom import Volume

from dicom_node import Findings


def load(folder, device):
    def analyse(ct):
        coarse = Volume(ct.array[::2, ::2, ::2] > 0, ct.affine @ np.diag([2, 2, 2, 1]), coordinate_system="PATIENT")
        return Findings(segments=coarse, measurements={"volume": 1.0})

    return analyse
