"""The noise of an image, told from where it varies least: in small windows of tissue, most of which hold no edge.

Nothing has a unit here: Hounsfield units and the arbitrary ones of MR take the same road.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Image = NDArray[np.float32]  # (row, column)
Mask = NDArray[np.bool_]  # (row, column)

WINDOW = 7  # pixels across where a variance is taken
FEW = 200  # windows, of which no noise is told
BINS, BIN_SD = 100, 2.0  # of the histogram of standard deviations up to twice their median, and how far it is smoothed
_COMMONEST = (1 - 2 / WINDOW**2) ** -0.5  # the commonest standard deviation of so many pixels is a little below the true one


def tissue(plane: Image) -> Mask:
    """Return where the window about a pixel holds nothing but what is brighter than the slice's mean: neither air nor padding.

    plane: (row, column), in whatever unit. What lies outside the slice counts as dark.
    """
    bright = (plane > plane.mean()).astype(np.uint8)
    return np.asarray(ndimage.minimum_filter(bright, WINDOW, mode="constant"), bool)


def variance(plane: Image) -> NDArray[np.float64]:
    """Return the variance of the window about each pixel, in the square of the image's unit.

    plane: (row, column), in whatever unit; beyond its edge it is mirrored.
    """
    exact = plane.astype(np.float64) - float(plane.mean())
    mean = ndimage.uniform_filter(exact, WINDOW)
    return np.maximum(ndimage.uniform_filter(np.square(exact, out=exact), WINDOW) - np.square(mean, out=mean), 0)


def noise_sd(variances: NDArray[np.float64], where: Mask) -> float:
    """Return the noise: the commonest standard deviation of a window. Not a number where there are too few windows.

    variances: as `variance` gives them. where: the pixels whose windows count, as a rule `tissue`.
    """
    sd = np.sqrt(variances[where])
    if sd.size < FEW:
        return float("nan")
    high = 2 * float(np.median(sd))
    if high <= 0:
        return 0.0
    counts = np.bincount(np.minimum(sd * (BINS / high), BINS).astype(np.intp), minlength=BINS)[:BINS]
    best = int(ndimage.gaussian_filter1d(counts.astype(float), BIN_SD).argmax())
    return (best + 0.5) / BINS * high * _COMMONEST
