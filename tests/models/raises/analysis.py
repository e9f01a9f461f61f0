"""It raises, below its own code."""

import numpy as np


def load(folder, device):
    def analyse(ct):
        return np.linalg.inv(np.zeros((2, 2)))

    return analyse
