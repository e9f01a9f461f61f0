"""Marks what is bright; one analysis in seven ends its own process, as the system's out-of-memory killer would."""

import os
import signal

from dicom_node import Findings


def load(folder, device):
    def analyse(ct):
        if os.urandom(1)[0] < 37:
            os.kill(os.getpid(), signal.SIGKILL)
        bright = ct.array > -500
        return Findings(segments=ct.with_array(bright), measurements={"volume": bright.sum() * ct.voxel_volume / 1000})

    return analyse
