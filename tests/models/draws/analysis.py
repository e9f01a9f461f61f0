"""It draws a number and tells it, with the number of the process that it was forked from."""

import os

import numpy as np

from dicom_node import Findings


def load(folder, device):
    def analyse(ct):
        return Findings(measurements={"volume": np.random.random()}, notes=(f"parent {os.getppid()}", f"pid {os.getpid()}"))

    return analyse
