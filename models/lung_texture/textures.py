"""Drawn lung: what each class looks like on CT, from densities and sizes that are published or measured by ruler, and from chance.

The classes' parameters are learned from these drawings and from nothing else (`learn.py`); the tests draw others of them, with other seeds.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

Image = NDArray[np.float32]

NORMAL, EMPHYSEMA, GROUND_GLASS, RETICULAR, CONSOLIDATION = range(5)
NAMES = ("normal", "emphysema", "ground_glass", "reticular", "consolidation")

NORMAL_HU = (-890.0, -800.0)  # inflated lung between its vessels
HOLES_HU, HOLES_MM, HOLES = (-1000.0, -970.0), (1.5, 4.0), (0.35, 0.9)  # emphysema: air, half the width of a space, share of the volume
GLASS_HU = (-700.0, -420.0)  # hazy, vessels still to be seen
LINES_HU, LINES_MM, CELLS_MM = (-100.0, 50.0), (1.2, 2.2), (5.0, 10.0)  # thickened septa: density, thickness, from one to the next
BETWEEN_HU = (-880.0, -650.0)
SOLID_HU = (-120.0, 60.0)
VESSELS, VESSEL_MM, VESSEL_HU = (0.01, 0.06), (1.0, 4.0), (0.0, 150.0)  # share of the volume, width, density without or with contrast medium
GRAIN_MM = 0.4  # standard deviation in the plane over which noise is alike
BLUR_MM = 0.5  # standard deviation of the scanner's point spread in the plane


def drawn(kind: int, shape: tuple[int, ...], spacing_mm: tuple[float, ...], rng: np.random.Generator, noise_hu: float, **given: float) -> Image:
    """Return a piece of lung (slice, row, column) of one class in HU, as a scanner with such slices and noise shows it.

    given: `hu`, in the place of a base density drawn by lot; for a reticular piece its mean.
    """
    sharp = _sharp(kind, shape, spacing_mm, rng, given.get("hu"))
    blurred = ndimage.gaussian_filter(sharp, [0.3, *(BLUR_MM / s for s in spacing_mm[1:])])
    return blurred + noise(shape, spacing_mm, rng, noise_hu)


def noise(shape: tuple[int, ...], spacing_mm: tuple[float, ...], rng: np.random.Generator, noise_hu: float) -> Image:
    """Return noise of a standard deviation, of a scanner's grain: neighbouring pixels of a slice are alike."""
    grain = ndimage.gaussian_filter(rng.normal(size=shape), [0, *(GRAIN_MM / s for s in spacing_mm[1:])])
    return (grain * (noise_hu / grain.std())).astype(np.float32)


def _sharp(kind: int, shape: tuple[int, ...], spacing_mm: tuple[float, ...], rng: np.random.Generator, hu: float | None) -> Image:
    ranges = {NORMAL: NORMAL_HU, EMPHYSEMA: NORMAL_HU, GROUND_GLASS: GLASS_HU, RETICULAR: BETWEEN_HU, CONSOLIDATION: SOLID_HU}
    base = rng.uniform(*ranges[kind]) if hu is None else hu
    image = (base + 15 * _field(shape, spacing_mm, 3.0, rng)).astype(np.float32)
    if kind == RETICULAR:
        lines = _septa(shape, spacing_mm, rng)
        lines_hu = rng.uniform(*LINES_HU)
        if hu is not None:  # the mean that is asked for, whatever share the lines have
            image += (hu - lines_hu * lines.mean()) / (1 - lines.mean()) - hu
        image[lines] = lines_hu
    elif kind == EMPHYSEMA:
        field = _field(shape, spacing_mm, rng.uniform(*HOLES_MM), rng)
        image[field < np.quantile(field, rng.uniform(*HOLES))] = rng.uniform(*HOLES_HU)
    if kind != CONSOLIDATION:
        image[_vessels(shape, spacing_mm, rng)] = rng.uniform(*VESSEL_HU)
    return image


def _field(shape: tuple[int, ...], spacing_mm: tuple[float, ...], width_mm: float, rng: np.random.Generator) -> NDArray[Any]:
    """Return a random field of standard deviation 1 that is smooth over a width."""
    field = ndimage.gaussian_filter(rng.normal(size=shape), [width_mm / s for s in spacing_mm])
    return np.asarray((field - field.mean()) / field.std())


def _places_mm(shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> NDArray[np.float64]:
    return np.stack(np.indices(shape), -1).reshape(-1, 3) * np.array(spacing_mm)


def _septa(shape: tuple[int, ...], spacing_mm: tuple[float, ...], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return the walls between cells of random shape (Voronoi's), which fill the piece."""
    size_mm = np.array(shape) * spacing_mm
    cell_mm, thick_mm = rng.uniform(*CELLS_MM), rng.uniform(*LINES_MM)
    margin_mm = 2 * cell_mm
    count = int(np.prod((size_mm + 2 * margin_mm) / cell_mm))
    seeds_mm = rng.uniform(-margin_mm, size_mm + margin_mm, (count, 3))
    near_mm, which = cKDTree(seeds_mm).query(_places_mm(shape, spacing_mm), k=2)
    apart_mm = np.linalg.norm(seeds_mm[which[:, 0]] - seeds_mm[which[:, 1]], axis=1)
    to_wall_mm = (near_mm[:, 1] ** 2 - near_mm[:, 0] ** 2) / (2 * apart_mm)
    return np.asarray((to_wall_mm < thick_mm / 2).reshape(shape))


def _vessels(shape: tuple[int, ...], spacing_mm: tuple[float, ...], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return straight vessels of random course until they have their share of the volume."""
    places_mm, size_mm = _places_mm(shape, spacing_mm), np.array(shape) * spacing_mm
    found, share = np.zeros(len(places_mm), bool), rng.uniform(*VESSELS)
    while found.mean() < share:
        through_mm, course = rng.uniform(0, size_mm), rng.normal(size=3)
        course /= np.linalg.norm(course)
        away_mm = places_mm - through_mm
        across_mm2 = (away_mm**2).sum(1) - (away_mm @ course) ** 2
        found |= across_mm2 < (rng.uniform(*VESSEL_MM) / 2) ** 2
    return found.reshape(shape)
