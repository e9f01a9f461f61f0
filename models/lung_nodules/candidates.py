"""Where a nodule may be: blobs of every size within the closed lungs, found by the Laplacian of Gaussian, and what each looks like.

Everything here lies on a grid of cubes of `STEP_MM` cut out about the lungs, axes to the patient's head, back and left. Around the closed lungs the
image is set to the density of lung, so that chest wall, heart and the other lung say nothing and a nodule at the pleura stands alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.feature import peak_local_max

from dicom_node import Unsuitable
from dicom_node.methods.coarse import Image, Labels, Mask, box, clean
from dicom_node.methods.lungs import NO_LUNGS, WANTED
from dicom_node.methods.morphology import closed

Point = NDArray[np.float64]

STEP_MM = 1.25  # finer than the smallest nodule's radius of 2 mm; cubes of 1 mm would double time and memory
CLOSE_MM = 20.0  # closes the lung over a nodule at the pleura but for 3 mm of a mouth of 20 mm; above, it would close over the aorta's bed
CLOSE_FINE_MM = 5.0  # closes it over a small one, on the fine grid
MARGIN_MM = 5.0  # about the lungs
TISSUE_HU = 100.0  # what is denser counts as this: calcium and contrast medium make no blob rounder
FINE_MM, COARSE_MM = (4.0, 5.66), (8.0, 11.3, 16.0, 22.6, 32.0)  # diameters looked for on the grid, and on cubes twice as wide
BALL = 4 * np.pi * 3**1.5 / (2 * np.pi) ** 1.5 * np.exp(-1.5)  # answer of the scaled Laplacian at its best to a ball that is brighter by 1
FAINTEST_HU = 200.0  # above lung, as the filter sees it: a small nodule loses half to the slice's thickness
ROUND = 0.2  # least over greatest curvature: a ball has 1, a vessel or a fold near 0
TOUCH_MM = 2.0  # between the middles of two blobs: closer, they are one


@dataclass(frozen=True, slots=True)
class Field:
    """The image on cubes of STEP_MM: what the filters see; what is inside the closed lungs; where its first cube lies in the scan."""

    hu: Image  # (slice, row, column), lung's density outside of `inside`
    inside: Mask
    lung_hu: float
    start: NDArray[np.intp]  # voxel of the scan in whose middle the first cube's middle lies
    spacing_mm: NDArray[np.float64]  # of the scan

    def in_scan(self, point: Any) -> Point:
        """Return a point of this grid, or several, in voxels of the scan."""
        return self.start + np.asarray(point) * STEP_MM / self.spacing_mm


@dataclass(frozen=True, slots=True)
class _Peak:
    answer: float  # of the filter, in HU
    step_mm: float  # of the grid it was found on
    place: Point  # on that grid
    diameter_mm: float


@dataclass(frozen=True, slots=True)
class Blob:
    """One bright blob: its middle in cubes, its radius, how much denser than lung the filter sees it, its curvatures' ratios."""

    middle: Point
    radius_mm: float
    contrast_hu: float
    least: float  # curvature over the greatest: along a vessel it is 0
    second: float  # across a vessel it is 1, across a fold 0


def field(hu: Any, lungs: Labels, spacing_mm: tuple[float, ...]) -> Field:
    """Return a scan (slice, row, column) about its lungs on cubes, and the lungs closed over vessels and over what bulges into them.

    Raises
    ------
    Unsuitable: there are no lungs.
    """
    where = box(lungs > 0, tuple(int(MARGIN_MM / s) for s in spacing_mm))
    if where is None:
        raise Unsuitable(NO_LUNGS, hint=WANTED)
    start = np.array([side.start for side in where])
    image = _on_cubes(clean(hu[where], TISSUE_HU), spacing_mm, STEP_MM, sitk.sitkLinear)
    inside = _closed(lungs[where], spacing_mm, image.shape)
    lung_hu = float(np.median(image[inside][::16]))
    image[~inside] = lung_hu
    return Field(image, inside, lung_hu, start, np.array(spacing_mm))


def blobs(view: Field) -> list[Blob]:
    """Return the blobs that are neither faint nor long nor flat, the most distinct first."""
    half = halved(view.hu)
    found = [*_peaks(view.hu, view.inside, STEP_MM, FINE_MM), *_peaks(half, halved(view.inside) > 0.5, 2 * STEP_MM, COARSE_MM)]
    found.sort(key=lambda peak: -peak.answer)
    middles = np.array([peak.place if peak.step_mm == STEP_MM else 2 * peak.place + 0.5 for peak in found]).reshape(-1, 3)
    reach = np.array([max(TOUCH_MM, peak.diameter_mm / 2) for peak in found])
    kept: list[Blob] = []
    for number in _apart(middles, reach / STEP_MM):
        peak = found[number]
        least, second = _curvatures(view.hu if peak.step_mm == STEP_MM else half, peak)
        if least > ROUND:
            kept.append(Blob(middles[number], peak.diameter_mm / 2, peak.answer, least, second))
    return kept


def _apart(middles: Point, reach: NDArray[np.float64]) -> Iterator[int]:
    """Yield each place that lies in reach of none yielded before; middles: (place, axis), the most distinct first."""
    if not len(middles):
        return
    near, alone = cKDTree(middles), np.ones(len(middles), bool)
    for number, middle in enumerate(middles):
        if alone[number]:
            alone[near.query_ball_point(middle, reach[number])] = False
            yield number


def _on_cubes(array: NDArray[Any], spacing_mm: tuple[float, ...], step_mm: float, how: int, shape: tuple[int, ...] | None = None) -> NDArray[Any]:
    """Return an array on cubes, the first one's middle being the first voxel's; shape: of the result, else as many as fit."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing_mm[::-1])
    size = shape or tuple(int((n - 1) * s / step_mm) + 1 for n, s in zip(array.shape, spacing_mm, strict=True))
    return sitk.GetArrayFromImage(sitk.Resample(image, size[::-1], sitk.Transform(), how, (0, 0, 0), (step_mm,) * 3))


def _closed(lungs: Labels, spacing_mm: tuple[float, ...], shape: tuple[int, ...]) -> Mask:
    """Return both lungs on the grid of cubes, each closed by a ball on cubes twice as wide, and never over the other."""
    step_mm = 2 * STEP_MM
    coarse = _on_cubes(lungs, spacing_mm, step_mm, sitk.sitkNearestNeighbor)
    rim = int(CLOSE_MM / step_mm) + 2
    inside_mm = np.full(coarse.shape, -step_mm, np.float32)
    for side in np.unique(coarse[coarse > 0]):
        near = ndimage.distance_transform_edt(~np.pad(coarse == side, rim), step_mm) <= CLOSE_MM
        deep_mm = ndimage.distance_transform_edt(near, step_mm)[rim:-rim, rim:-rim, rim:-rim] - CLOSE_MM
        np.maximum(inside_mm, np.where((coarse == 0) | (coarse == side), deep_mm, -step_mm), out=inside_mm)
    lung = _on_cubes(lungs, spacing_mm, STEP_MM, sitk.sitkNearestNeighbor) > 0
    lung |= closed(lung, [round(CLOSE_FINE_MM / STEP_MM)] * 3)
    return lung | (_on_cubes(inside_mm, (step_mm,) * 3, STEP_MM, sitk.sitkLinear, shape) > 0)


def halved(array: NDArray[Any]) -> Image:
    """Return the means of blocks of 2 x 2 x 2; an odd last plane is left out."""
    z, y, x = (n // 2 for n in array.shape)
    return array[: 2 * z, : 2 * y, : 2 * x].reshape(z, 2, y, 2, x, 2).mean((1, 3, 5), dtype=np.float32)


def _peaks(hu: Image, inside: Mask, step_mm: float, diameters_mm: tuple[float, ...]) -> Iterator[_Peak]:
    """Yield each place where one of the filters answers more than all of them around."""
    best, which = np.zeros(hu.shape, np.float32), np.zeros(hu.shape, np.uint8)
    for number, diameter_mm in enumerate(diameters_mm):
        sigma = diameter_mm / np.sqrt(12) / step_mm  # a ball of radius r answers most at r / sqrt(3)
        answer = ndimage.gaussian_laplace(hu, sigma, truncate=3.5, mode="nearest") * np.float32(-(sigma**2) / BALL)
        better = answer > best
        best[better], which[better] = answer[better], number
    best[~inside] = 0
    for place in peak_local_max(best, min_distance=1, threshold_abs=FAINTEST_HU, exclude_border=False):
        yield _Peak(float(best[tuple(place)]), step_mm, place.astype(float), diameters_mm[which[tuple(place)]])


_ORDERS = ((2, 0, 0), (0, 2, 0), (0, 0, 2), (1, 1, 0), (1, 0, 1), (0, 1, 1))


def _curvatures(hu: Image, peak: _Peak) -> tuple[float, float]:
    """Return the least and the second curvature over the greatest at a peak, as the filter that found it sees them; negative: not bright."""
    kernels = _kernels(peak.diameter_mm / np.sqrt(12) / peak.step_mm)
    reach = kernels.shape[1] // 2
    sides = [(int(p) - reach, int(p) + reach + 1) for p in peak.place]
    z, y, x = (slice(max(0, first), stop) for first, stop in sides)
    beyond = [(max(0, -first), max(0, stop - n)) for (first, stop), n in zip(sides, hu.shape, strict=True)]
    patch = np.pad(hu[z, y, x], beyond, mode="edge") if np.any(beyond) else hu[z, y, x]
    by_order = np.tensordot(kernels, np.tensordot(kernels, patch @ kernels.T, (1, 1)), (1, 1))  # (slice, row, column)
    zz, yy, xx, zy, zx, yx = (by_order[order] for order in _ORDERS)
    least, second, greatest = np.linalg.eigvalsh(-np.array([[zz, zy, zx], [zy, yy, yx], [zx, yx, xx]]))
    return (float(least / greatest), float(second / greatest)) if greatest > 0 else (-1.0, -1.0)


@cache
def _kernels(sigma: float) -> Image:
    """Return a Gaussian and its first two derivatives, sigma in voxels: (order, place)."""
    reach = int(3.5 * sigma + 0.5)
    away = np.arange(-reach, reach + 1) / sigma
    return (np.exp(-(away**2) / 2) * np.array([np.ones_like(away), away, away**2 - 1])).astype(np.float32)
