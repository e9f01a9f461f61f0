"""It tells what it sees: its environment, its standard input, its input's attributes."""

import os
import sys

from dicom_node import Findings


def load(folder, device):
    def analyse(ct):
        seen = (
            f"password {os.environ.get('DICOM_NODE_PASSWORD')}",
            f"threads {os.environ['OMP_NUM_THREADS']}",
            f"offline {os.environ['HF_HUB_OFFLINE']}",
            f"stdin {sys.stdin.read()!r}",
            f"frame of reference {ct.frame_of_reference_uid}",
            f"{ct.array.dtype} {ct.array.shape}",
            f"device {device}",
            f"pid {os.getpid()}",
        )
        return Findings(segments=ct.with_array(ct.array > 0), measurements={"volume": 1.0}, notes=seen)

    return analyse
