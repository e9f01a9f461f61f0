"""A model of two files, both ways of importing the second."""

import other

from dicom_node import Findings

from . import other as same


def load(folder, device, weights):
    assert weights.name == "neighbour"

    def analyse(ct):
        return Findings(segments=ct.with_array(ct.array > 0), measurements={"volume": other.ANSWER + same.ANSWER})

    return analyse
