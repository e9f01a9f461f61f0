"""It prints far more than a pipe holds."""

import sys

from dicom_node import Findings


def load(folder, device):
    def analyse(ct):
        for _ in range(50_000):
            print("patches and patches and more patches of an image, each with its line, its score and \x1b[31ma colour\x1b[0m")
        sys.stderr.write("x" * 5_000_000)
        return Findings(segments=ct.with_array(ct.array > 0), measurements={"volume": 1.0})

    return analyse
