"""CT or MR images with clearer detail, slice by slice: what is structure is lifted off its background, what is noise is left as it is.

The root of all methods but one is `image = a * image + (1 - a) * background` with a smooth background: above 1 the factor sharpens, at 1 it
changes nothing. Here it is a map: near 1 where a neighbourhood varies no more than noise does, and high where it varies more.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicom_node import Findings, Unsuitable

Image = NDArray[np.float32]  # (row, column)
Mask = NDArray[np.bool_]
Progress = Callable[[float, str], None]

METHOD = "adaptive"  # a name in METHODS, at the end of this file: the one that is used; the tests prove all of them

BACKGROUND_SD = 2.0  # pixels: of the Gaussian that makes the background
AMOUNT = 2.0  # the factor is up to 1 more than this
DOUBT = 1.5  # a neighbourhood's variance counts as structure as far as it is above so many times that of the noise
OVERSHOOT = 0.1  # of what a neighbourhood spans: so far may a value leave it, no further
NEIGHBOURHOOD = 7  # pixels across
TILES, LEVELS, STEEPEST = 8, 256, 2.0  # a side of the slice; grey levels; how steep a tile's curve may be (equalisation)
ENDS = (0.5, 99.5)  # percentiles of a slice between which it is equalised; what lies outside stays as it is

FEW = 200  # windows, of which no noise is told
BINS, BIN_SD = 100, 2.0  # of the histogram of standard deviations up to twice their median, and how far it is smoothed
COMMONEST = (1 - 2 / NEIGHBOURHOOD**2) ** -0.5  # the commonest standard deviation of so many pixels is a little below the true one
STEEP = 99.0  # percentile of the gradient that stands for a slice's edges
SMALL = 32  # pixels: a smaller slice holds no background
WANTED = "Send an original CT or MR series."


def load(folder: Path, device: str) -> Callable[..., Findings]:
    """Return the analysis; it needs neither files nor an accelerator."""
    return analyse


def analyse(images: Any, progress: Progress = lambda fraction, sentence: None) -> Findings:
    """Return the images with clearer detail, and what that did to edges and to noise.

    images: a volume (slice, row, column) in whatever unit.

    Raises
    ------
    Unsuitable: the volume is empty or too small.
    """
    before = _clean(images.array)
    after = np.empty_like(before)
    gains = []  # of each slice: edges and noise after, relative to before
    for index, plane in enumerate(before):
        tissue = _tissue(plane)
        sd = _noise(plane, tissue)
        after[index] = METHODS[METHOD](plane, sd)
        gains.append((_ratio(_edges(after[index]), _edges(plane)), _ratio(_noise(after[index], tissue), sd)))
        progress(0.02 + 0.95 * (index + 1) / len(before), f"slice {index + 1} of {len(before)}")
    edges, noise = (100 * (float(np.median(of_all)) - 1) for of_all in zip(*gains, strict=True))
    return Findings(
        images={"enhanced": images.with_array(after)},
        measurements={"edge_gain": edges, "noise_gain": noise},
        notes=(f"Method: {METHOD}, in the plane of each slice. The values are for looking at, not for measuring.",),
    )


def _clean(array: Any) -> NDArray[np.float32]:
    """Return float32 without what is no number.

    Raises
    ------
    Unsuitable: the slices are too small, or all pixels are alike.
    """
    if min(array.shape[1:]) < SMALL:
        raise Unsuitable(f"The slices are {array.shape[1]} x {array.shape[2]} pixels, too few to tell detail from background.", hint=WANTED)
    values = np.nan_to_num(array.astype(np.float32, copy=False), posinf=0, neginf=0)
    if values.min() == values.max():
        raise Unsuitable("The volume is empty: all its pixels are alike.", hint=WANTED)
    return values


# --------------------------------------------------------------------------------------------------- edges and the noise


def _ratio(after: float, before: float) -> float:
    return after / before if before > 0 else 1.0


def _edges(plane: Image) -> float:
    """Return how steep the steepest hundredth of a slice is, per pixel."""
    return float(np.percentile(np.hypot(*np.gradient(plane)), STEEP))


def _tissue(plane: Image) -> Mask:
    """Return where the window about a pixel holds nothing but what is brighter than the slice's mean: neither air nor padding."""
    return np.asarray(ndimage.binary_erosion(plane > plane.mean(), np.ones((NEIGHBOURHOOD, NEIGHBOURHOOD), bool)))


def _noise(plane: Image, tissue: Mask) -> float:
    """Return the commonest standard deviation of a small window in tissue: most windows hold no edge. 0 where there are too few."""
    sd = np.sqrt(_variance(plane))[tissue]
    high = 2 * float(np.median(sd)) if sd.size >= FEW else 0.0
    if high <= 0:
        return 0.0
    counts, ends = np.histogram(sd, BINS, (0, high))
    best = int(ndimage.gaussian_filter1d(counts.astype(float), BIN_SD).argmax())
    return float(ends[best] + ends[best + 1]) / 2 * COMMONEST


def _variance(plane: Image) -> NDArray[np.float64]:
    """Return the variance of each pixel's neighbourhood."""
    exact = plane.astype(np.float64) - float(plane.mean())
    mean = ndimage.uniform_filter(exact, NEIGHBOURHOOD)
    return np.maximum(ndimage.uniform_filter(exact**2, NEIGHBOURHOOD) - mean**2, 0)


# ----------------------------------------------------------------------------------------------------------- the methods


def _mixed(plane: Image, factor: Any) -> Image:
    """Return `a * image + (1 - a) * background`, held within what each neighbourhood spans and a little more: no halo, and nothing cut off."""
    background = ndimage.gaussian_filter(plane, BACKGROUND_SD)
    mixed = background + factor * (plane - background)
    low, high = ndimage.minimum_filter(plane, NEIGHBOURHOOD), ndimage.maximum_filter(plane, NEIGHBOURHOOD)
    margin = OVERSHOOT * (high - low)
    return np.asarray(np.clip(mixed, low - margin, high + margin), np.float32)


def _adaptive(plane: Image, sd: float) -> Image:
    """Sharpen by as much as a neighbourhood's variance is structure and not noise."""
    variance = np.maximum(_variance(plane), np.finfo(np.float32).tiny)
    structure = np.clip(1 - DOUBT * sd**2 / variance, 0, 1)
    return _mixed(plane, (1 + AMOUNT * structure).astype(np.float32))


def _unsharp(plane: Image, sd: float) -> Image:
    """Sharpen everywhere alike: the unsharp mask, noise and all."""
    return _mixed(plane, np.float32(1 + AMOUNT))


def _equalised(plane: Image, sd: float) -> Image:
    """Give each part of the slice the contrast that its grey levels leave room for, bounded (CLAHE; Zuiderveld 1994).

    A pixel's value goes through the curves of the four nearest tiles, and is mixed from them by nearness.
    """
    low, high = np.percentile(plane, ENDS)
    if high <= low:
        return plane
    level = np.clip((plane - low) / (high - low) * (LEVELS - 1), 0, LEVELS - 1)
    curves = _curves(level.astype(np.intp))  # (tile down, tile across, level)
    down, across = (_between(size) for size in plane.shape)
    mixed = np.zeros(plane.shape)
    for tile_down, near_down in down:
        for tile_across, near_across in across:
            rows, columns = tile_down[:, None], tile_across[None, :]
            mixed += near_down[:, None] * near_across[None, :] * curves[rows, columns, level.astype(np.intp)]
    equal = (low + mixed * (high - low)).astype(np.float32)
    return np.where((plane < low) | (plane > high), plane, equal)


def _curves(level: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return for each tile where, from 0 to 1, each grey level goes: its cumulated histogram, no steeper than allowed."""
    tiles = [np.array_split(rows, TILES, axis=1) for rows in np.array_split(level, TILES, axis=0)]
    share = np.array([[np.bincount(tile.ravel(), minlength=LEVELS) / tile.size for tile in row] for row in tiles])
    bounded = np.minimum(share, STEEPEST / LEVELS)
    return np.cumsum(bounded + (1 - bounded.sum(-1, keepdims=True)) / LEVELS, axis=-1)


def _between(size: int) -> list[tuple[NDArray[np.intp], NDArray[np.float64]]]:
    """Return for each pixel along an axis the tile before and the tile after its place, with how near each is."""
    place = (np.arange(size) + 0.5) / size * TILES - 0.5
    before = np.floor(place).astype(np.intp)
    nearness = place - before
    return [(np.clip(before, 0, TILES - 1), 1 - nearness), (np.clip(before + 1, 0, TILES - 1), nearness)]


METHODS: Mapping[str, Callable[[Image, float], Image]] = {"adaptive": _adaptive, "unsharp": _unsharp, "equalised": _equalised}
