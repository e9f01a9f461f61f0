"""Points at the brightest voxel."""

import numpy as np

from dicom_node import Findings, Mark, Presentation


def load(folder, device):
    """Return the analysis."""

    def analyse(ct):
        index, row, column = np.unravel_index(ct.array.argmax(), ct.array.shape)
        mask = np.zeros(ct.array.shape, bool)
        mask[index, row, column] = True
        mark = Mark(slice=index, kind="CIRCLE", points=((row, column), (row, column + 2)), text="here")
        return Findings(
            segments=ct.with_array(mask),
            measurements={"volume": {1: 0.5}, "count": np.int64(1)},
            presentations={"lung": None, "marks": Presentation(window=(np.float32(40), 400), marks=(mark,))},
            maps={"heat": ct.with_array(ct.array / np.float32(4096))},
            keys={"best": [index]},
        )

    return analyse
