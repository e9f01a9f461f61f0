"""CT or MR images with clearer detail, slice by slice: what is structure is lifted off its background, what is noise is left as it is.

The root of all methods but one is the unsharp mask, `image = a * image + (1 - a) * background` with a smooth background: above 1 the factor
sharpens, at 1 it changes nothing. Here it is a map: near 1 where a neighbourhood varies no more than noise does, and high where it varies more.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from skimage.exposure import equalize_adapthist
from skimage.filters import unsharp_mask

from dicom_node import Findings
from dicom_node.methods.noise import Image, noise_sd, tissue, variance
from dicom_node.methods.planes import check, clean
from dicom_node.methods.threads import each

Progress = Callable[[float, str], None]

METHOD = "adaptive"  # a name in METHODS, at the end of this file: the one that is used; the tests prove all of them

BACKGROUND_SD = 2.0  # pixels: of the Gaussian that makes the background
AMOUNT = 2.0  # the factor is up to 1 more than this
DOUBT = 1.5  # a neighbourhood's variance counts as structure as far as it is above so many times that of the noise
OVERSHOOT = 0.1  # of what a neighbourhood spans: so far may a value leave it, no further
NEIGHBOURHOOD = 7  # pixels across, that the overshoot is measured in
LEVELS, STEEPEST = 256, 3.0  # grey levels; how steep a tile's curve may be (equalisation)
ENDS = (0.5, 99.5)  # percentiles of a slice between which it is equalised; what lies outside stays as it is

STEEP = 99.0  # percentile of the gradient that stands for a slice's edges
SMALL = 32  # pixels: a smaller slice holds no background


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
    check(images.array, SMALL, "tell detail from background")
    after = np.empty(images.array.shape, np.float32)
    gains = []
    for index, (plane, gain) in enumerate(each(_slice, images.array)):
        after[index] = plane
        gains.append(gain)
        progress(0.02 + 0.95 * (index + 1) / len(after), f"slice {index + 1} of {len(after)}")
    edges, noise = (100 * (float(np.median(of_all)) - 1) for of_all in zip(*gains, strict=True))
    return Findings(
        images={"enhanced": images.with_array(after)},
        measurements={"edge_gain": edges, "noise_gain": noise},
        notes=(f"Method: {METHOD}, in the plane of each slice. The values are for looking at, not for measuring.",),
    )


def _slice(given: Any) -> tuple[Image, tuple[float, float]]:
    """Return a slice with clearer detail, and how steep its edges and how strong its noise are, relative to before."""
    before = clean(given)
    where = tissue(before)
    noise = noise_sd(variance(before), where)
    after = METHODS[METHOD](before, noise)
    return after, (_ratio(_edges(after), _edges(before)), _ratio(noise_sd(variance(after), where), noise))


# ------------------------------------------------------------------------------------------------------ edges and the noise


def _ratio(after: float, before: float) -> float:
    return after / before if before > 0 else 1.0  # so, too, where no noise can be told: it is not a number


def _edges(plane: Image) -> float:
    """Return how steep the steepest hundredth of a slice is, per pixel."""
    return float(np.percentile(np.hypot(*np.gradient(plane)), STEEP))


# ----------------------------------------------------------------------------------------------------------- the methods


def _adaptive(plane: Image, sd: float) -> Image:
    """Sharpen by as much as a neighbourhood's variance is structure and not noise."""
    explained = DOUBT * (sd if sd > 0 else 0.0) ** 2
    structure = np.clip(1 - explained / np.maximum(variance(plane), np.finfo(np.float32).tiny), 0, 1).astype(np.float32)
    return _held(plane, plane + structure * (_sharpened(plane) - plane))


def _unsharp(plane: Image, sd: float) -> Image:
    """Sharpen everywhere alike: the unsharp mask, noise and all."""
    return _held(plane, _sharpened(plane))


def _sharpened(plane: Image, factor: float = 1 + AMOUNT) -> Image:
    """Return `a * image + (1 - a) * background`."""
    return np.asarray(unsharp_mask(plane, BACKGROUND_SD, factor - 1, preserve_range=True))


def _held(plane: Image, sharp: Image) -> Image:
    """Return an image within what each neighbourhood of the given one spans and a little more: no halo, and nothing cut off."""
    low, high = ndimage.minimum_filter(plane, NEIGHBOURHOOD), ndimage.maximum_filter(plane, NEIGHBOURHOOD)
    margin = OVERSHOOT * (high - low)
    return np.clip(sharp, low - margin, high + margin, out=sharp)


def _equalised(plane: Image, sd: float) -> Image:
    """Give each part of the slice the contrast that its grey levels leave room for, bounded (CLAHE; Zuiderveld 1994)."""
    low, high = np.percentile(plane, ENDS)
    if high <= low:
        return plane
    level = np.clip((plane - low) / (high - low), 0, 1)
    equal = low + (high - low) * equalize_adapthist(level, nbins=LEVELS, clip_limit=STEEPEST / LEVELS)
    return np.where((plane < low) | (plane > high), plane, equal.astype(np.float32))


METHODS: Mapping[str, Callable[[Image, float], Image]] = {"adaptive": _adaptive, "unsharp": _unsharp, "equalised": _equalised}
