"""Waits while there is a file named `.gate` beside this one, then marks what is bright."""

import time

from dicom_node import Findings


def load(folder, device):
    def analyse(ct, progress):
        progress(0.5, "waits at the gate")
        while (folder / ".gate").exists():
            time.sleep(0.02)
        marker = ct.array > -500
        return Findings(segments=ct.with_array(marker), measurements={"volume": marker.sum() * ct.voxel_volume / 1000})

    return analyse
