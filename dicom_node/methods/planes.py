"""Slices that are treated one by one, each in its own plane: made fit for it, or told to be none that it could be done to."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicom_node.domain import Unsuitable

_WANTED = "Send an original CT or MR series."


def clean(plane: Any) -> NDArray[np.float32]:
    """Return a slice (row, column) as float32, with 0 for what is no number."""
    return np.asarray(np.nan_to_num(plane.astype(np.float32, copy=False), posinf=0, neginf=0))


def check(planes: Any, smallest: int, purpose: str) -> None:
    """Look at all slices (slice, row, column) before any work.

    smallest: pixels, of rows and of columns. purpose: continues "too few to …".

    Raises
    ------
    Unsuitable: the slices are too small, or all pixels are alike.
    """
    rows, columns = planes.shape[1:]
    if min(rows, columns) < smallest:
        raise Unsuitable(f"The slices are {rows} x {columns} pixels, too few to {purpose}.", hint=_WANTED)
    if len({float(end) for plane in map(clean, planes) for end in (plane.min(), plane.max())}) == 1:
        raise Unsuitable("The volume is empty: all its pixels are alike.", hint=_WANTED)
