"""CT or MR images with less noise, slice by slice, and how much noise there was before and is after.

Everything is measured in units of the noise, which each slice is asked for itself, so that Hounsfield units and the arbitrary ones of MR take
the same road. Slices are treated one by one in their own plane: what lies between two slices is nobody's guess.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from dicom_node import Findings, Unsuitable

Image = NDArray[np.float32]  # (row, column)
Mask = NDArray[np.bool_]
Progress = Callable[[float, str], None]

METHOD = "nlm"  # a name in METHODS, at the end of this file: the one that is used; the tests prove all of them

PATCH, SEARCH = 5, 11  # pixels across what is compared, and across where it is looked for (non-local means)
LIKE = 0.8  # in noise SD: how unlike a patch may be, beyond its noise, until it counts a third (non-local means)
TV_WEIGHT, TV_STEPS = 1.25, 60  # in noise SD; steps of the projection (total variation)
SCALES, KEPT = 4, 3.0  # wavelet scales; coefficients above so many noise SD are kept
DIFFUSION_STEPS, CONDUCTANCE = 10, 3.0  # (curvature anisotropic diffusion); the conductance is in mean gradients
GAUSS_SD = 1.0  # pixels

NOISE_WINDOW = 7  # pixels across where a standard deviation is taken
FEW = 200  # windows, of which no noise is told
_COMMONEST = (1 - 2 / NOISE_WINDOW**2) ** -0.5  # the commonest standard deviation of so many pixels is a little below the true one
BINS, BIN_SD = 100, 2.0  # of the histogram of standard deviations up to twice their median, and how far it is smoothed
NEIGHBOURS = 5  # slices, over whose noise the median is taken
SMALL = 16  # pixels: a smaller slice holds no neighbourhood
WANTED = "Send an original CT or MR series."


def load(folder: Path, device: str) -> Callable[..., Findings]:
    """Return the analysis; it needs neither files nor an accelerator."""
    return analyse


def analyse(images: Any, progress: Progress = lambda fraction, sentence: None) -> Findings:
    """Return the images with less noise, and the noise before and after.

    images: a volume (slice, row, column) in whatever unit.

    Raises
    ------
    Unsuitable: the volume is empty, too small, or shows no noise that could be taken away.
    """
    before = _clean(images.array)
    progress(0.05, "measuring the noise")
    noise = _noise_of_slices(before)
    after = np.empty_like(before)
    for index, (plane, sd) in enumerate(zip(before, noise, strict=True)):
        after[index] = METHODS[METHOD](plane, sd)
        progress(0.1 + 0.8 * (index + 1) / len(before), f"slice {index + 1} of {len(before)}")
    left = np.array([_noise(new, _tissue(old)) for new, old in zip(after, before, strict=True)])
    measured = {"noise_before": float(np.median(noise)), "noise_after": float(np.nanmedian(left))}
    measured["reduction"] = 100 * (1 - measured["noise_after"] / measured["noise_before"])
    return Findings(images={"denoised": images.with_array(after)}, measurements=measured, notes=(f"Method: {METHOD}, in the plane of each slice.",))


def _clean(array: Any) -> NDArray[np.float32]:
    """Return float32 without what is no number.

    Raises
    ------
    Unsuitable: the slices are too small, or all pixels are alike.
    """
    if min(array.shape[1:]) < SMALL:
        raise Unsuitable(f"The slices are {array.shape[1]} x {array.shape[2]} pixels, too few to tell noise from structure.", hint=WANTED)
    values = np.nan_to_num(array.astype(np.float32, copy=False), posinf=0, neginf=0)
    if values.min() == values.max():
        raise Unsuitable("The volume is empty: all its pixels are alike.", hint=WANTED)
    return values


# --------------------------------------------------------------------------------------------------------------- the noise


def _noise_of_slices(volume: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the noise of each slice, steadied over its neighbours; a slice that tells of none has that of the volume.

    Raises
    ------
    Unsuitable: no slice shows noise.
    """
    found = np.array([_noise(plane, _tissue(plane)) for plane in volume])
    if not np.nanmax(found, initial=0.0) > 0:
        raise Unsuitable("No noise was found in this volume: nothing could be taken away.", hint=WANTED)
    return ndimage.median_filter(np.where(found > 0, found, np.nanmedian(found[found > 0])), NEIGHBOURS, mode="nearest")


def _tissue(plane: Image) -> Mask:
    """Return where the window about a pixel holds nothing but what is brighter than the slice's mean: neither air nor padding."""
    return np.asarray(ndimage.binary_erosion(plane > plane.mean(), np.ones((NOISE_WINDOW, NOISE_WINDOW), bool)))


def _noise(plane: Image, tissue: Mask) -> float:
    """Return the commonest standard deviation of a small window in tissue: most windows hold no edge. Not a number where there are too few."""
    if np.count_nonzero(tissue) < FEW:
        return float("nan")
    mean = ndimage.uniform_filter(plane.astype(np.float64), NOISE_WINDOW)
    square = ndimage.uniform_filter(np.square(plane, dtype=np.float64), NOISE_WINDOW)
    sd = np.sqrt(np.maximum(square - mean**2, 0))[tissue]
    high = 2 * float(np.median(sd))
    if high <= 0:
        return 0.0
    counts, edges = np.histogram(sd, BINS, (0, high))
    best = int(ndimage.gaussian_filter1d(counts.astype(float), BIN_SD).argmax())
    return float(edges[best] + edges[best + 1]) / 2 * _COMMONEST


# ----------------------------------------------------------------------------------------------------------- the methods


def _non_local_means(plane: Image, sd: float) -> Image:
    """Return the mean of each pixel and those whose surroundings look like its own (Buades, Coll and Morel 2005).

    One shift of the whole slice at a time; each difference serves both pixels that it lies between.
    """
    reach = SEARCH // 2
    padded = np.pad(plane, reach + PATCH // 2, mode="reflect")
    total, weight = padded.copy(), np.ones_like(padded)
    for down, right in [(d, r) for d in range(reach + 1) for r in range(-reach, reach + 1) if d > 0 or r > 0]:
        here = (slice(0, -down or None), slice(max(0, -right), -right if right > 0 else None))
        there = (slice(down, None), slice(max(0, right), right or None if right < 0 else None))
        unlike = ndimage.uniform_filter(np.square(padded[here] - padded[there]), PATCH)
        like = np.exp(-np.maximum(unlike - np.float32(2 * sd**2), 0) / np.float32((LIKE * sd) ** 2))
        total[here] += like * padded[there]
        total[there] += like * padded[here]
        weight[here] += like
        weight[there] += like
    inner = slice(reach + PATCH // 2, -(reach + PATCH // 2))
    return np.asarray(total / weight)[inner, inner]


def _total_variation(plane: Image, sd: float) -> Image:
    """Return the image of least variation about the given one (Rudin, Osher and Fatemi 1992, by Chambolle's projection 2004)."""
    weight = np.float32(TV_WEIGHT * sd)
    dual = np.zeros((2, *plane.shape), np.float32)
    for _ in range(TV_STEPS):
        slope = _gradient(_divergence(dual) - plane / weight)
        dual = (dual + 0.25 * slope) / (1 + 0.25 * np.hypot(*slope))
    return plane - weight * _divergence(dual)


def _gradient(plane: Image) -> NDArray[np.float32]:
    slope = np.zeros((2, *plane.shape), np.float32)
    slope[0, :-1], slope[1, :, :-1] = np.diff(plane, axis=0), np.diff(plane, axis=1)
    return slope


def _divergence(dual: NDArray[np.float32]) -> Image:
    return np.diff(dual[0], axis=0, prepend=np.float32(0)) + np.diff(dual[1], axis=1, prepend=np.float32(0))


def _wavelet(plane: Image, sd: float) -> Image:
    """Return the image without what, on any scale, is no stronger than noise: an undecimated wavelet of cubic splines (the starlet)."""
    kept = np.zeros_like(plane)
    for scale, of_noise in enumerate(_SCALE_SD):
        smooth = _spline(plane, scale)
        detail = plane - smooth
        kept += np.where(np.abs(detail) > KEPT * sd * of_noise, detail, 0)
        plane = smooth
    return kept + plane


def _spline(plane: Image, scale: int) -> Image:
    """Return an image smoothed by a cubic spline whose knots lie 2^scale pixels apart."""
    kernel = np.zeros(4 * 2**scale + 1, np.float32)
    kernel[:: 2**scale] = np.array([1, 4, 6, 4, 1]) / 16
    return np.asarray(ndimage.convolve1d(ndimage.convolve1d(plane, kernel, 0, mode="mirror"), kernel, 1, mode="mirror"))


def _scale_sd() -> tuple[float, ...]:
    """Return the standard deviation of each scale for noise of 1: the length of what becomes of a single pixel."""
    rest = np.zeros((257, 257), np.float32)
    rest[128, 128] = 1
    found = []
    for scale in range(SCALES):
        smooth = _spline(rest, scale)
        found.append(float(np.linalg.norm(rest - smooth)))
        rest = smooth
    return tuple(found)


_SCALE_SD = _scale_sd()


def _diffusion(plane: Image, sd: float) -> Image:
    """Return the image after its values flowed along edges, not across them."""
    flown = sitk.CurvatureAnisotropicDiffusion(sitk.GetImageFromArray(plane), 0.0625, CONDUCTANCE, 1, DIFFUSION_STEPS)
    return np.asarray(sitk.GetArrayFromImage(flown))


METHODS: Mapping[str, Callable[[Image, float], Image]] = {
    "nlm": _non_local_means,
    "tv": _total_variation,
    "wavelet": _wavelet,
    "diffusion": _diffusion,
    "median": lambda plane, sd: ndimage.median_filter(plane, 3),
    "gaussian": lambda plane, sd: ndimage.gaussian_filter(plane, GAUSS_SD),
    "mean": lambda plane, sd: ndimage.uniform_filter(plane, 3),
}
