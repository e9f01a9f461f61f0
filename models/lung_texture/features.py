"""What is measured about each place of the lung: a local histogram in four numbers, and the structure that is left when the noise is taken off."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicom_node.methods.coarse import Grid, Image, Mask, clean
from dicom_node.methods.lungs import CLOSE_MM
from dicom_node.methods.morphology import dilated, eroded, opened

NAMES = ("mean", "structure", "low", "aerated")
GRID_MM = 2.0  # of the places
WINDOW_MM = 3.0  # standard deviation of the Gaussian weight of a place's surroundings
GROUND_MM = 2.0  # in the plane, of what lines stand out from: narrow, so that a step between two classes is seen beside the step only
SMOOTH_MM = 1.0  # in the plane, before anything is counted: noise goes, lines of 1 to 2 mm stay
LOW_HU = -950.0  # emphysema; between it and AERATED_HU lung is inflated as it should be
AERATED_HU = -700.0
SOLID_HU = -50.0  # what is denser is a vessel; septa of 1 to 2 mm stay below
THICK_HU = -200.0  # and where all is denser than this and thicker than a vessel, consolidation
RIM_MM = 1.5  # about vessels, where they blur
EDGE_MM = 2.0  # of the lung beside the wall, the heart and the diaphragm, where a voxel is half of each
LEAST_HU = 10.0  # of structure: less is not told from noise
LEAST_WEIGHT = 0.02  # of a window in which nothing may be counted: no answer


@dataclass(frozen=True, slots=True)
class Features:
    """A row of `values` for each place of the grid that lies in the lung: mean in HU, structure as ln(HU), shares as arcsin of the root."""

    values: NDArray[np.float32]  # (place, feature)
    places: Mask  # (slice, row, column) of `grid`
    solid: Mask  # on it: most of the block is as dense as soft tissue and thicker than a vessel, which no window need tell
    grid: Grid


def features(hu: Any, lung: Mask, spacing_mm: tuple[float, ...], noise_hu: float) -> Features:
    """Return the features of each place of the lung.

    hu: (slice, row, column). lung: on the same grid, with all that it encloses. noise_hu: standard deviation of air after the same smoothing.
    Not counted are vessels, which are what is solid and thinner than twice CLOSE_MM, with their rim, and the edge of the lung.
    """
    grid = Grid.about(spacing_mm, GRID_MM)
    smooth = np.stack([smoothed(plane, spacing_mm) for plane in hu])
    fine = Grid.of(spacing_mm, (1, 1, 1))
    thick = opened(lung & (smooth > THICK_HU), fine.radius(CLOSE_MM))
    vessels = dilated(lung & (smooth > SOLID_HU) & ~thick, fine.radius(RIM_MM))
    counted = eroded(lung, fine.radius(EDGE_MM)) & ~vessels
    layers = (np.ones_like(smooth), smooth, _relief(smooth, counted, spacing_mm), smooth < LOW_HU, (smooth >= LOW_HU) & (smooth < AERATED_HU))
    count, total, relief, low, aerated = (_windowed(np.where(counted, layer, 0), grid) for layer in layers)
    places = (_sums(lung, grid) > 0) & (count > LEAST_WEIGHT * np.prod(grid.factors))
    count = count[places]
    mean = total[places] / count
    of_noise_hu = np.sqrt(2 / np.pi) * noise_hu  # the mean of its absolute value
    structure = np.log(np.sqrt(((relief[places] / count) ** 2 - of_noise_hu**2).clip(LEAST_HU**2)))
    shares = (np.arcsin(np.sqrt((one[places] / count).clip(0, 1))) for one in (low, aerated))
    solid = _sums(thick, grid) > np.prod(grid.factors) / 2
    return Features(np.stack((mean, structure, *shares), axis=1).astype(np.float32), places, solid, grid)


def smoothed(plane: Any, spacing_mm: tuple[float, ...]) -> Image:
    """Return one slice (row, column), cleaned, without what is finer than SMOOTH_MM."""
    return ndimage.gaussian_filter(clean(plane, 1024.0), [SMOOTH_MM / s for s in spacing_mm[1:]])


def _relief(smooth: Image, counted: Mask, spacing_mm: tuple[float, ...]) -> Image:
    """Return by how much each voxel differs from what counts about it in its slice."""
    sigmas = [GROUND_MM / s for s in spacing_mm[1:]]
    relief = np.zeros_like(smooth)
    for k in np.flatnonzero(counted.any(axis=(1, 2))):
        here = counted[k].astype(np.float32)
        ground = ndimage.gaussian_filter(smooth[k] * here, sigmas, truncate=3.0) / ndimage.gaussian_filter(here, sigmas, truncate=3.0).clip(1e-3)
        relief[k] = abs(smooth[k] - ground)
    return relief


def _sums(layer: Any, grid: Grid) -> Image:
    """Return the sum of each block."""
    for axis, factor in enumerate(grid.factors):
        layer = np.add.reduceat(layer, np.arange(0, layer.shape[axis], factor), axis=axis, dtype=np.float32)
    return np.asarray(layer)


def _windowed(layer: Any, grid: Grid) -> Image:
    return np.asarray(ndimage.gaussian_filter(_sums(layer, grid), [WINDOW_MM / s for s in grid.spacing_mm], truncate=3.0))
