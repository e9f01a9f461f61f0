"""Windows: what a centre and a width show, which values a tissue has, and the window that holds what is to be seen between black and white.

A window is shown as PS3.3 C.11.2.1.2 says: `y = clip((x - (c - 0.5)) / (w - 1) + 0.5)`, black being 0 and white 1.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[Any]
Window = tuple[float, float]  # centre and width

MARGIN = 0.1  # of what a window has to show: so much is left below and above it, that it is neither black nor white


@dataclass(frozen=True, slots=True, kw_only=True)
class Convention:
    """What readers expect of a window: one that lies outside of this would be taken for a fault."""

    center: tuple[float, float]  # from, to
    width: tuple[float, float]


def shown(values: Any, window: Window) -> Array:
    """Return how bright values are through a window (PS3.3 C.11.2.1.2): 0 is black, 1 is white; any shape; a width above 1."""
    center, width = window
    return np.clip((np.asarray(values, np.float64) - (center - 0.5)) / (width - 1) + 0.5, 0, 1)


def ends(window: Window) -> tuple[float, float]:
    """Return the highest value that is black and the lowest that is white."""
    center, width = window
    return center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2


def around(low: float, high: float, convention: Convention | None = None) -> Window:
    """Return the window that shows what lies from one value to another with `MARGIN` beside it, within a convention, and at least 2 wide."""
    center, width = (low + high) / 2 + 0.5, (high - low) * (1 + 2 * MARGIN) + 1
    if convention is not None:
        center, width = float(np.clip(center, *convention.center)), float(np.clip(width, *convention.width))
    return center, max(width, 2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """How often each whole value occurs, smoothed: of CT, in Hounsfield units."""

    first: int  # the value of the first count
    counts: Array  # (value)

    @classmethod
    def of(cls, values: Array, low: int, high: int, smooth: float) -> "Histogram":
        """Count values (any shape) between two whole numbers; smooth: the standard deviation of the Gaussian that the counts are smoothed by."""
        counts = np.histogram(values, bins=high - low, range=(low - 0.5, high - 0.5))[0]
        return cls(first=low, counts=ndimage.gaussian_filter1d(counts.astype(float), smooth, mode="constant"))

    def peak(self, low: float, high: float) -> float:
        """Return the commonest value between two."""
        return self.first + self._from(low) + int(self._between(low, high).argmax())

    def valley(self, low: float, high: float) -> float:
        """Return the rarest value between two: where one tissue ends and the next begins."""
        return self.first + self._from(low) + int(self._between(low, high).argmin())

    def count(self, value: float) -> float:
        """Return how often a value occurs."""
        return float(self.counts[self._from(value)])

    def _from(self, value: float) -> int:
        return int(np.clip(round(value) - self.first, 0, len(self.counts) - 1))

    def _between(self, low: float, high: float) -> Array:
        return self.counts[self._from(low) : max(self._from(high), self._from(low) + 1)]


def foreground(plane: Array, threshold: float) -> NDArray[np.bool_]:
    """Return what is not the air about the patient (row, column): all but what is below a threshold and reaches the edge of the image."""
    labels, count = ndimage.label(plane < threshold)
    at_edge = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    outside = np.zeros(count + 1, bool)
    outside[at_edge] = True
    outside[0] = False
    return ~outside[labels]
