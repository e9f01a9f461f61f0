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
from skimage.restoration import denoise_tv_chambolle

from dicom_node import Findings, Unsuitable
from dicom_node.methods.noise import Image, noise_sd, tissue, variance
from dicom_node.methods.planes import check, clean
from dicom_node.methods.threads import each

Progress = Callable[[float, str], None]

METHOD = "nlm"  # a name in METHODS, at the end of this file: the one that is used; the tests prove all of them

PATCH, SEARCH = 5, 11  # pixels across what is compared, and across where it is looked for (non-local means)
ROWS = 64  # that are worked on at once (non-local means)
LIKE = 0.8  # in noise SD: how unlike a patch may be, beyond its noise, until it counts a third (non-local means)
TV_WEIGHT, TV_STILL = 1.1, 1e-5  # in noise SD; the relative change of energy at which the projection ends (total variation)
SCALES, KEPT = 4, 3.0  # wavelet scales; coefficients above so many noise SD are kept
DIFFUSION_STEPS, CONDUCTANCE = 10, 3.0  # (curvature anisotropic diffusion); the conductance is in mean gradients
GAUSS_SD = 1.0  # pixels

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
    check(images.array, SMALL, "tell noise from structure")
    progress(0.02, "measuring the noise")
    noise = _noise_of_slices(images.array)
    after = np.empty(images.array.shape, np.float32)
    left = []
    for index, (plane, sd) in enumerate(each(_slice, zip(images.array, noise, strict=True))):
        after[index] = plane
        left.append(sd)
        progress(0.1 + 0.85 * (index + 1) / len(after), f"slice {index + 1} of {len(after)}")
    measured = {"noise_before": float(np.median(noise)), "noise_after": float(np.nanmedian(left))}
    measured["reduction"] = 100 * (1 - measured["noise_after"] / measured["noise_before"])
    return Findings(images={"denoised": images.with_array(after)}, measurements=measured, notes=(f"Method: {METHOD}, in the plane of each slice.",))


def _slice(given: tuple[Any, float]) -> tuple[Image, float]:
    """Return a slice with less noise, and what noise is left where there was tissue before."""
    before, sd = clean(given[0]), given[1]
    after = METHODS[METHOD](before, sd)
    return after, noise_sd(variance(after), tissue(before))


# --------------------------------------------------------------------------------------------------------------- the noise


def _noise_of_slices(volume: Any) -> NDArray[np.float64]:
    """Return the noise of each slice, steadied over its neighbours; a slice that tells of none has that of the volume.

    Raises
    ------
    Unsuitable: no slice shows noise.
    """
    found = np.array(list(each(_noise, volume)))
    if not np.nanmax(found, initial=0.0) > 0:
        raise Unsuitable("No noise was found in this volume: nothing could be taken away.", hint=WANTED)
    return ndimage.median_filter(np.where(found > 0, found, np.nanmedian(found[found > 0])), NEIGHBOURS, mode="nearest")


def _noise(plane: Any) -> float:
    values = clean(plane)
    return noise_sd(variance(values), tissue(values))


# ----------------------------------------------------------------------------------------------------------- the methods


def _non_local_means(plane: Image, sd: float) -> Image:
    """Return the mean of each pixel and those whose surroundings look like its own (Buades, Coll and Morel 2005).

    One shift at a time of some rows that fit into a processor's cache; each difference serves both pixels that it lies between. scikit-image's
    fast mode goes from pixel to pixel instead, and takes nearly twice the time.
    """
    reach, edge = SEARCH // 2, PATCH // 2
    unit = np.float32(LIKE * sd * PATCH)  # in which the squares of a patch add up to what the exponent takes
    padded = np.pad(plane / unit, reach + edge, mode="reflect")
    total, weight, inner = padded.copy(), np.ones_like(padded), (slice(edge, -edge),) * 2
    for top in range(0, len(padded) - 2 * edge, ROWS):
        for down, right in [(d, r) for d in range(reach + 1) for r in range(-reach, reach + 1) if d > 0 or r > 0]:
            bottom, left, end = min(top + ROWS + 2 * edge, len(padded) - down), max(0, -right), padded.shape[1] - max(0, right)
            if bottom - top > 2 * edge:
                here, there = np.s_[top:bottom, left:end], np.s_[top + down : bottom + down, left + right : end + right]
                like = _likeness(padded[here] - padded[there])
                for to, of in ((here, there), (there, here)):
                    weight[to][inner] += like
                    total[to][inner] += like * padded[of][inner]
    total /= weight
    return np.asarray(total[reach + edge : -reach - edge, reach + edge : -reach - edge] * unit)


def _likeness(differences: Image) -> Image:
    """Return from 0 to 1 how much alike two patches are: 1 where they differ by no more than noise."""
    squares = np.square(differences, out=differences)
    squares = _sums(_sums(squares).T).T
    np.subtract(np.float32(2 / LIKE**2), squares, out=squares)
    return np.exp(np.minimum(squares, 0, out=squares), out=squares)


def _sums(values: Image) -> Image:
    """Return the sum of each PATCH rows that follow one another."""
    count = len(values) - PATCH + 1
    total = values[:count] + values[1 : count + 1]
    for shift in range(2, PATCH):
        total += values[shift : shift + count]
    return total


def _total_variation(plane: Image, sd: float) -> Image:
    """Return the image of least variation about the given one (Rudin, Osher and Fatemi 1992, by Chambolle's projection 2004)."""
    return np.asarray(denoise_tv_chambolle(plane, weight=TV_WEIGHT * sd, eps=TV_STILL))


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
