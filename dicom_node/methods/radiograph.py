"""Whether a radiograph of the chest is shown as it should be: lungs darker than what lies between them, the abdomen at the lower end.

These are what a person looks at first; nothing is learnt. Both are soft: a large effusion, or a child held upside down, may look otherwise.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicom_node.methods.recognition import PIXELS, Evidence

# Where, as parts of rows and of columns, in a frontal radiograph of the chest.
_LUNGS = ((0.25, 0.55), (0.18, 0.36)), ((0.25, 0.55), (0.64, 0.82))
_BETWEEN = (0.25, 0.55), (0.44, 0.56)
_UPPER, _LOWER = ((0.0, 0.15), (0.3, 0.7)), ((0.85, 1.0), (0.3, 0.7))
_DIFFERENCE, _SPREAD = 0.25, 0.15  # of brightness, as a share of its range

Image = NDArray[np.floating[Any]]


def frontal_chest_evidence(shown: Image) -> tuple[Evidence, ...]:
    """Return evidence on whether a frontal radiograph of the chest is inverted, and whether it stands on its head.

    shown: (row, column), bright where it is shown bright: MONOCHROME1 is inverted before.
    """
    low, high = np.percentile(shown, (2, 98))
    if not low < high:
        return ()
    lungs, between = (np.mean([_median(shown, *box) for box in boxes]) for boxes in (_LUNGS, (_BETWEEN,)))
    darker = float((between - lungs) / (high - low))
    below = float((_median(shown, *_LOWER) - _median(shown, *_UPPER)) / (high - low)) * (1 if darker >= 0 else -1)
    share = f"{abs(darker):.0%} of the range"
    return (
        _two("photometric", darker, ("plain", "inverted"), f"the lungs are {'darker' if darker >= 0 else 'brighter'} than the middle by {share}"),
        _two("way_up", below, ("upright", "upside-down"), f"the {'lower' if below >= 0 else 'upper'} end is the denser by {abs(below):.0%}"),
    )


def _median(shown: Image, rows: tuple[float, float], columns: tuple[float, float]) -> float:
    height, width = shown.shape
    part = shown[round(rows[0] * height) : max(1, round(rows[1] * height)), round(columns[0] * width) : max(1, round(columns[1] * width))]
    return float(np.median(part))


def _two(facet: str, difference: float, classes: tuple[str, str], said: str) -> Evidence:
    """Return evidence whose difference lies about a middle for one class and about its negative for the other; beyond the middle it says no more."""
    clear = min(max(difference, -_DIFFERENCE), _DIFFERENCE)
    densities = (math.exp(-0.5 * ((clear - middle) / _SPREAD) ** 2) for middle in (_DIFFERENCE, -_DIFFERENCE))
    return Evidence(facet=facet, source=PIXELS, said=said, likelihood=dict(zip(classes, densities, strict=True)))
