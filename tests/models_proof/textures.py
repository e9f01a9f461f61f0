"""Regions of two textures with the same mean and the same spread, which only the texture tells apart: fine noise, and coarse noise."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

MEAN_HU, SPREAD_HU = 40.0, 25.0
SPACING_MM = (2.0, 1.0, 1.0)


def noise(rng: np.random.Generator, shape: Sequence[int], correlation_voxels: float) -> NDArray[np.float64]:
    """Return smoothed noise of exactly the mean and the standard deviation, HU."""
    x = ndimage.gaussian_filter(rng.normal(size=tuple(shape)), correlation_voxels)
    return MEAN_HU + SPREAD_HU * (x - x.mean()) / x.std()


def image(rng: np.random.Generator, coarse: Sequence[bool], *, fine_voxels: float = 0.5, coarse_voxels: float = 0.58) -> tuple[NDArray, NDArray]:
    """Return stored values of a CT (HU + 1024) and the numbers of its regions, (slice, row, column): one box for each texture, in a row."""
    stored = np.rint(1024 + rng.normal(0, 5, (10, 24, 18 * len(coarse))))
    regions = np.zeros(stored.shape, np.uint8)
    for number, is_coarse in enumerate(coarse, start=1):
        size = rng.integers((5, 10, 10), (8, 15, 15))
        box = (slice(1, 1 + size[0]), slice(4, 4 + size[1]), slice(18 * (number - 1) + 2, 18 * (number - 1) + 2 + size[2]))
        stored[box] = np.rint(1024 + noise(rng, size, coarse_voxels if is_coarse else fine_voxels))
        regions[box] = number
    return stored.astype(np.int16), regions
