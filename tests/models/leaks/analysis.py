"""It keeps something of every job, and measures how many jobs it has seen."""

import numpy as np

from dicom_node import Findings

held = []


def load(folder, device):
    def analyse(ct):
        held.append(np.ones(2**22))
        return Findings(segments=ct.with_array(ct.array > 0), measurements={"volume": len(held)})

    return analyse
