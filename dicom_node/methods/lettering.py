"""Text that is drawn into pixels: rows of small strokes, brighter than nearly all there is in the image.

What a program draws stands in lines, letter beside letter of like height, as anatomy and metal do not. Dark text on a bright ground is not found.
Letters are looked for, not read: what they say is not known here, and is not kept.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicom_node.methods.recognition import PIXELS, Evidence

HEIGHT = (5, 60)  # pixels of a letter; smaller ones cannot be read
WIDEST = 1.6  # times its height
INK = 0.15, 0.95  # of its box that a letter covers
LETTERS = 5  # in one row, that make it a line
GAP = 2.0  # heights between neighbours of a line
LEVEL = 0.25  # of a height, that the feet of neighbours may differ by
MOST_INK = 0.05  # of an image; more is a saturated region, not text
_FOUND = {"burned-in": 0.9, "none": 0.003}  # how often lines of letters are found where text is drawn, and where none is (0 of 484 real slices)


def letters_in_line(plane: NDArray[Any]) -> int:
    """Return how many letters stand in lines of at least `LETTERS` in one image (row, column).

    They are drawn at the highest value or, with smoothed edges, above the middle between it and what nearly all of the image stays below.
    """
    finite = plane[np.isfinite(plane)]
    if not finite.size or finite.min() == finite.max():
        return 0
    highest = float(finite.max())
    middle = (float(np.percentile(finite, 100 * (1 - MOST_INK))) + highest) / 2
    return max(_letters(plane >= level) for level in {highest, middle})


def _letters(ink: NDArray[np.bool_]) -> int:
    if not 0 < np.count_nonzero(ink) <= MOST_INK * ink.size:
        return 0
    pieces, _ = ndimage.label(ink, structure=np.ones((3, 3), int))
    boxes = [box for number, box in enumerate(ndimage.find_objects(pieces), 1) if _is_letter(pieces[box] == number)]
    return sum(len(line) for line in _lines(boxes) if len(line) >= LETTERS)


def lettering_evidence(planes: Sequence[NDArray[Any]]) -> Evidence | None:
    """Return whether text is drawn into any of some images (row, column)."""
    if not planes:
        return None
    found = max(letters_in_line(plane) for plane in planes)
    said = f"{found} shapes like letters stand in lines" if found else "no lines of letters were seen"
    likelihood = {name: often if found else 1 - often for name, often in _FOUND.items()}
    return Evidence(facet="annotation", source=PIXELS, said=said, likelihood=likelihood)


def _is_letter(strokes: NDArray[np.bool_]) -> bool:
    height, width = strokes.shape
    # An I or a 1 is narrow and fills its box.
    return HEIGHT[0] <= height <= HEIGHT[1] and width <= WIDEST * height and (INK[0] <= strokes.mean() <= INK[1] or width * 2 < height)


def _lines(boxes: Sequence[tuple[slice, slice]]) -> list[list[tuple[slice, slice]]]:
    """Part letters into lines: neighbours from left to right, of like height, on one level."""
    lines: list[list[tuple[slice, slice]]] = []
    for box in sorted(boxes, key=lambda one: one[1].start):
        line = next((one for one in lines if _follows(one[-1], box)), None)
        if line is None:
            lines.append([box])
        else:
            line.append(box)
    return lines


def _follows(last: tuple[slice, slice], box: tuple[slice, slice]) -> bool:
    height = max(last[0].stop - last[0].start, box[0].stop - box[0].start)
    lower = min(last[0].stop - last[0].start, box[0].stop - box[0].start)
    gap = box[1].start - last[1].stop
    return abs(last[0].stop - box[0].stop) <= LEVEL * height + 1 and lower * 2 >= height and -1 <= gap <= GAP * height
