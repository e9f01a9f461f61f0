"""Fluid, grey and white matter within a brain on T1-weighted MR: the probability of each in every voxel.

The shading of the coils is taken out (N4). Then Bayes' rule: the probability of a tissue, given a voxel's brightness, is how often that tissue is so
bright times how probable it was before, which is what the neighbours say (a hidden Markov random field, solved as a mean field). The tissues'
brightnesses are learnt in the same rounds.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from dicom_node.domain import Unsuitable

Mask = NDArray[np.bool_]
Image = NDArray[np.float32]
Bytes = NDArray[np.uint8]  # probabilities, 255 being 1
Progress = Callable[[float, str], None]
Box = tuple[slice, slice, slice]

FLUID, GREY, WHITE = 0, 1, 2  # in order of brightness on T1; as segments they count from 1
TISSUES = 3

SHADING_MM = 4.0  # grid on which the shading, which varies over centimetres, is estimated
SHADING_ROUNDS = (50,)  # of N4, on one level: one cubic piece over the head, as smooth as a coil sees it; finer ones follow the anatomy
DARKEST = 0.05  # of the brightest: a logarithm is taken
EXTREME = (0.1, 99.9)  # percentiles of the brain's brightness beyond which a value counts as the limit: vessels, dura, errors
BINS = 256  # of the histogram from which the first guess is made
NARROWEST = 0.01  # of the brain's brightest: no image is less noisy
NEIGHBOURS = 3.0  # how much the six neighbours weigh: if all agree, the odds of their tissue grow by e to this power
PURITY = 12  # power of the neighbours' agreement by which a voxel counts when brightness is learnt
ROUNDS = 30
SETTLED = 0.0005  # of the brain's volume: a round that moves less is the last
SLAB = 16  # planes worked on at a time, to bound the memory
APART = 1.5  # standard deviations between grey and white matter, below which nothing tells them apart
SHELL_MM = 3.0  # outermost layer of the brain, where fluid lies and white matter does not
NO_CONTRAST = "Grey and white matter are equally bright, or the image is too noisy to tell them apart."
WANTED = "Send a 3-D T1-weighted series of the whole head, without fat or fluid suppression."


@dataclass(frozen=True, slots=True)
class Brightness:
    """How bright each tissue is (mean), and how far a voxel of any tissue strays from that (standard deviation).

    One deviation for all, since noise is the same everywhere: with one for each, that of the fluid, which is mixed with cortex in every sulcus,
    grows until it swallows the cortex.
    """

    mean: NDArray[np.float32]  # by tissue
    sd: float

    def likelihood(self, values: Image) -> Image:
        """Return how often each tissue is so bright, up to a factor: (tissue, ...)."""
        mean = self.mean.reshape(TISSUES, *(1,) * values.ndim)
        within = np.clip(values, self.mean[FLUID], self.mean[WHITE])  # beyond both ends nothing is gained, and numbers stay in range
        return np.exp(-0.5 * ((within - mean) / self.sd) ** 2)


def tissues(image: Any, brain: Mask, spacing_mm: tuple[float, ...], progress: Progress = lambda fraction, sentence: None) -> tuple[Box, Bytes]:
    """Return the box about the brain, and within it the probabilities of fluid, grey and white matter: (tissue, ...), 255 being 1.

    image: T1-weighted, in any unit and orientation; brain: a mask on its grid.

    Raises
    ------
    Unsuitable: there is no brain, or the brightnesses are not those of T1.
    """
    box = box_about(brain)
    inside = brain[box]
    progress(0.3, "evening out the shading")
    even = unshaded(clean(image[box], inside), inside, spacing_mm)
    progress(0.5, "telling the tissues apart")
    probable, brightness = _settled(even, inside, spacing_mm, progress)
    progress(0.9, "measuring")
    _check_contrast(probable, brightness, inside, spacing_mm)
    return box, probable


def box_about(brain: Mask) -> Box:
    """Return the smallest box about the brain, a voxel larger on each side where the image goes on."""
    if not brain.any():
        raise Unsuitable("No brain was found in this volume.", hint=WANTED)
    ends = [np.flatnonzero(brain.any(axis=tuple({0, 1, 2} - {axis})))[[0, -1]] for axis in range(3)]
    x, y, z = (slice(max(0, int(first) - 1), int(last) + 2) for first, last in ends)
    return x, y, z


# ------------------------------------------------------------------------------------------------------------ brightness


def clean(image: Any, inside: Mask, *, cut: bool = True) -> Image:
    """Return brightness from 0 to 1: no signal is 0, the brain's brightest is 1; what is no number is 0.

    Brightness in MR is a magnitude, and shading multiplies it; an image below 0 was shifted, and is shifted back as far as can be told.
    cut: what is brighter than one voxel of the brain in a thousand counts as 1; else it keeps its brightness, above 1.

    Raises
    ------
    Unsuitable: the brain is equally bright throughout.
    """
    image = np.nan_to_num(image.astype(np.float32), nan=0, posinf=0, neginf=0)
    low, high = np.percentile(image[inside], EXTREME)
    zero = min(0.0, low)
    if not low < high:
        raise Unsuitable("The brain is equally bright throughout: this is no image of it.", hint=WANTED)
    np.clip(image, low, high if cut else None, out=image)
    image -= zero
    image /= high - zero
    return image


def unshaded(image: Image, inside: Mask, spacing_mm: tuple[float, ...]) -> Image:
    """Return the image without the slow change of brightness that coils leave (N4), estimated on a coarse grid."""
    fine, mask = _itk(np.clip(image, DARKEST, 1), spacing_mm), _itk(inside.astype(np.float32), spacing_mm)
    factors = [max(1, min(round(SHADING_MM / mm), n)) for mm, n in zip(fine.GetSpacing(), fine.GetSize(), strict=True)]
    coarse = sitk.BinShrink(fine, factors)
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations(SHADING_ROUNDS)
    n4.Execute(coarse, sitk.BinShrink(mask, factors) > 0.99)
    field = sitk.Resample(n4.GetLogBiasFieldAsImage(coarse), fine, sitk.Transform(), sitk.sitkLinear, 0.0, sitk.sitkFloat32, True)
    shading = np.exp(sitk.GetArrayFromImage(field))
    return np.asarray(image / shading, np.float32)


def _itk(array: Any, spacing_mm: tuple[float, ...]) -> Any:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing_mm[::-1])
    return image


def _guess(values: Image) -> Brightness:
    """Return the brightness of three tissues from the histogram alone."""
    counts, edges = np.histogram(values, BINS)
    centres = (edges[1:] + edges[:-1]) / 2
    owner = np.searchsorted(_thresholds(counts / counts.sum(), centres), centres)  # 0, 1, 2 for each bin
    belongs = np.eye(TISSUES)[owner].T * counts  # (tissue, bin)
    return _brightness(np.array([belongs.sum(axis=1), belongs @ centres, belongs @ centres**2]))


def _thresholds(share: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the two brightnesses that part a histogram into three with the least variance within (Otsu 1979, for two thresholds)."""
    number, total = np.append(0, np.cumsum(share)), np.append(0, np.cumsum(share * centres))
    first, second = np.triu_indices(len(share) + 1, k=1)  # bins before `first` are dark, those from `second` on are bright
    parts = ((0, first), (first, second), (second, -1))
    between = np.zeros(len(first))
    for start, end in parts:
        mass = number[end] - number[start]
        between += (total[end] - total[start]) ** 2 / np.maximum(mass, 1e-12)
    best = between.argmax()
    return np.array([centres[first[best]], centres[min(second[best], len(centres) - 1)]]) - np.ptp(centres) / len(centres) / 2


def _brightness(sums: NDArray[np.float64]) -> Brightness:
    """Return what sums over each tissue say of its brightness: of voxels, of their brightness, of its square (3, tissue).

    Raises
    ------
    Unsuitable: a tissue has no voxels, or no greater brightness than the one before it.
    """
    number, total, squares = sums
    if not number.min() > 0 or not (np.diff(mean := total / number) > 0).all():
        raise Unsuitable(NO_CONTRAST, hint=WANTED)
    variance = float((squares - number * mean**2).sum() / number.sum())
    return Brightness(mean.astype(np.float32), max(NARROWEST, variance**0.5))


# ------------------------------------------------------------------------------------------------------------ Bayes' rule


def _settled(image: Image, inside: Mask, spacing_mm: tuple[float, ...], progress: Progress) -> tuple[Bytes, Brightness]:
    """Return the probabilities (tissue, ...) and the brightness of each tissue, after rounds of Bayes' rule until little changes.

    A tissue's brightness is learnt where all neighbours are of that tissue too, not where a voxel holds two.
    """
    brightness, reach = _guess(image[inside]), _reach(spacing_mm)
    before, after = (np.zeros((TISSUES, *image.shape), np.uint8) for _ in range(2))
    shares = np.zeros(TISSUES)
    for turn in range(ROUNDS):
        progress(0.5 + 0.4 * turn / ROUNDS, f"telling the tissues apart, round {turn + 1}")
        sums = np.zeros((3, TISSUES))
        for planes, agree in _neighbours(before, reach):
            after[:, planes] = _posterior(image[planes], inside[planes], agree, brightness)
            sums += _sums(after[:, planes] * agree**PURITY if turn else after[:, planes], image[planes])
        before, after = after, before
        brightness = _brightness(sums)
        number = before.sum(axis=(1, 2, 3), dtype=np.float64)
        moved, shares = np.abs(number / number.sum() - shares).max(), number / number.sum()
        if moved < SETTLED:
            break
    return before, brightness


def _reach(spacing_mm: tuple[float, ...]) -> tuple[float, ...]:
    """Return how much each of two neighbours along each axis counts: the nearer the more, all six together 1."""
    near = np.divide(1, spacing_mm)
    return tuple(float(one) for one in near / near.sum() / 2)


def _neighbours(probable: Bytes, reach: tuple[float, ...]) -> Iterator[tuple[slice, Image]]:
    """Yield slabs of planes and, in each voxel of them, how far the neighbours are of each tissue: from 0, none, to 1, all."""
    length = probable.shape[1]
    for start in range(0, length, SLAB):
        planes = slice(start, min(start + SLAB, length))
        low, high = max(0, start - 1), min(length, planes.stop + 1)
        near: Image = np.pad(probable[:, low:high].astype(np.float32) / 255, ((0, 0), (low - start + 1, planes.stop + 1 - high), (1, 1), (1, 1)))
        agree: Image = reach[0] * (near[:, :-2, 1:-1, 1:-1] + near[:, 2:, 1:-1, 1:-1])
        agree += reach[1] * (near[:, 1:-1, :-2, 1:-1] + near[:, 1:-1, 2:, 1:-1])
        agree += reach[2] * (near[:, 1:-1, 1:-1, :-2] + near[:, 1:-1, 1:-1, 2:])
        yield planes, agree


def _posterior(image: Image, inside: Mask, agree: Image, brightness: Brightness) -> Bytes:
    """Return P(tissue | brightness) = P(brightness | tissue) P(tissue) / sum over the tissues; 0 outside the brain."""
    posterior = brightness.likelihood(image) * np.exp(NEIGHBOURS * agree)
    posterior *= 255 * inside / posterior.sum(axis=0)
    return np.rint(posterior).astype(np.uint8)


def _sums(weight: Any, image: Image) -> NDArray[np.float64]:
    """Return sums over the voxels of a weight, times brightness, times its square: (3, tissue)."""
    each, values = weight.reshape(TISSUES, -1).astype(np.float32), image.reshape(-1)
    return np.array([each.sum(axis=1, dtype=np.float64), each @ values, each @ values**2])


# ----------------------------------------------------------------------------------------------------------------- checks


def _check_contrast(probable: Bytes, brightness: Brightness, inside: Mask, spacing_mm: tuple[float, ...]) -> None:
    """Raise Unsuitable unless white matter is the brightest, grey matter next and fluid darkest, as only their places in the head can tell."""
    if brightness.mean[WHITE] - brightness.mean[GREY] < APART * brightness.sd:
        raise Unsuitable(NO_CONTRAST, hint=WANTED)
    depth = depth_mm(inside, spacing_mm)
    number = np.maximum(probable.sum(axis=(1, 2, 3), dtype=np.float64), 1)
    deep = np.array([float((one * depth).sum(dtype=np.float64)) for one in probable]) / number
    shell = inside & (depth < SHELL_MM)
    outside = np.array([float(one[shell].sum(dtype=np.float64)) for one in probable]) / number
    if deep[WHITE] <= deep[GREY] or outside[FLUID] <= outside[WHITE]:
        raise Unsuitable(
            "The brightest tissue of the brain is not its white matter, or the darkest not the fluid about it: this is no T1-weighted image.",
            hint=WANTED,
        )


def depth_mm(inside: Mask, spacing_mm: tuple[float, ...]) -> Image:
    """Return each voxel's distance from the brain's surface; 0 outside."""
    distance = sitk.SignedMaurerDistanceMap(_itk(inside.astype(np.uint8), spacing_mm), squaredDistance=False, useImageSpacing=True)
    return -sitk.GetArrayFromImage(distance).clip(max=0)
