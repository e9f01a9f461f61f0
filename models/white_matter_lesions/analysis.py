"""Bright spots of the white matter on FLAIR, with a T1-weighted series of the same head: their mask, number, volume and share.

Brain and tissues are drawn on the T1 (`dicom_node.methods.brain_mask`, `brain_tissue`), the FLAIR is brought to it by a rigid motion. A lesion is
what FLAIR shows brighter than grey and white matter are, by a robust measure of their spread, amid white matter. It is drawn on the FLAIR's grid.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicom_node import Findings, Unsuitable
from dicom_node.methods.brain_mask import drawing
from dicom_node.methods.brain_tissue import FLUID, GREY, WHITE, Box, Bytes, box_about, clean, tissues, unshaded
from dicom_node.methods.rigid import itk, resampled, rigid

Mask = NDArray[np.bool_]
Image = NDArray[np.float32]
Progress = Callable[[float, str], None]

THICK_MM = 2.55  # of the T1: see brain-tissue
SURE = 0.9  # share of one tissue from which a voxel counts as that tissue, when its brightness on FLAIR is learnt
ENOUGH_ML = 5.0  # of each tissue, for its brightness to be worth trusting
OUTLIER = 3.0  # robust standard deviations above grey and above white matter: what is brighter is no part of them
MADS = 1.4826  # standard deviations of a normal distribution in one median absolute deviation
SMOOTH_MM = 0.7  # standard deviation of the Gaussian under which outliers are looked for
HALF = 0.5  # of the way from white matter to the lesion's own brightness: there lies the edge, as a blurred edge has it
RIM = 4  # voxels on each side of what is brighter than tissue, as far as which it may grow
SHALLOW_MM = 3.0  # under the brain's surface: what is bright there is cortex, vessel or dura
SMALLEST_MM3 = 14.0  # a ball of 3 mm, the least that is called a lesion in multiple sclerosis
SHELL_MM = 2.0  # about a lesion, in which
AMID = 0.5  # of the voxels have to be white matter
SAME_HEAD_MM, SAME_HEAD_DEG = 40.0, 25.0  # a motion between two series of a study beyond this is an error of the registration
COVERED = 0.9  # of the brain, that the FLAIR has to show
WANTED = "Send a T1-weighted and a FLAIR series of the whole head, both of one study."


@dataclass(frozen=True, slots=True)
class Scene:
    """The FLAIR within its brain, without shading, and what T1 says of each voxel: shares of the tissues, from 0 to 1."""

    flair: Image
    inside: Mask
    shares: Image  # (tissue, slice, row, column)
    spacing_mm: tuple[float, ...]

    @property
    def voxel_mm3(self) -> float:
        """The volume of one voxel."""
        return float(np.prod(self.spacing_mm))


def load(folder: Path, device: str, weights: Path) -> Callable[..., Findings]:
    """Return the analysis; only drawing the brain uses the device."""
    draw = drawing(weights, device)

    def analyse(flair: Any, t1: Any, progress: Progress = lambda fraction, sentence: None) -> Findings:
        """Mark and measure what is bright on FLAIR amid white matter.

        flair, t1: volumes of one head with affines to patient coordinates (LPS), in any orientation and any unit.

        Raises
        ------
        Unsuitable: the T1 is none or shows no whole brain, the FLAIR is none, or they cannot be brought together.
        """
        if max(t1.spacing) > THICK_MM:
            raise Unsuitable(
                f"The slices of the T1 are {max(t1.spacing):.1f} mm apart; 2.5 mm is the most on which tissues are told apart.", hint=WANTED
            )
        ras = t1.to_patient_orientation("RAH")
        brain = draw(ras.array, ras.spacing, lambda fraction, sentence: progress(0.2 * fraction, sentence))
        found = measured(flair, ras, brain.mask, progress)
        return Findings(segments=found.segments, measurements=found.measurements, evaluations=found.evaluations, notes=brain.notes + found.notes)

    return analyse


def measured(flair: Any, t1: Any, brain: Mask, progress: Progress = lambda fraction, sentence: None) -> Findings:
    """Return the lesions within a brain that is known, and the manifest's measurements.

    flair, t1: volumes; brain: a mask on the grid of the T1.

    Raises
    ------
    Unsuitable: one of them is not what it should be, or they cannot be brought together.
    """
    box, probable = tissues(t1.array, brain, tuple(float(s) for s in t1.spacing), lambda fraction, sentence: progress(0.2 + 0.4 * fraction, sentence))
    progress(0.6, "bringing FLAIR and T1 together")
    cut, scene = _scene(flair, t1[box], brain[box], probable)
    progress(0.8, "looking for what is bright")
    mask, count = _lesions(scene)
    progress(0.95, "measuring")
    return Findings(
        segments=cut.with_array(mask),
        measurements=_measure(scene, mask, count),
        evaluations={"lesions": "present" if count else "absent"},
    )


# ----------------------------------------------------------------------------------------------------- both on one grid


def _scene(flair: Any, t1: Any, brain: Mask, probable: Bytes) -> tuple[Any, Scene]:
    """Return the part of the FLAIR that holds the brain, and what T1 says of it, on the grid of the FLAIR."""
    values = np.nan_to_num(flair.array.astype(np.float32), nan=0, posinf=0, neginf=0)
    fixed, moving, within = itk(t1.array, t1.affine), itk(values, flair.affine), itk(brain.astype(np.uint8), t1.affine)
    motion = rigid(fixed, moving, within)
    if motion.shift_mm > SAME_HEAD_MM or motion.turn_deg > SAME_HEAD_DEG:
        raise Unsuitable("The FLAIR and the T1 could not be brought together: they may not be of the same head.", hint=WANTED)
    back = motion.transform.GetInverse()
    inside = resampled(itk(brain.astype(np.float32), t1.affine), moving, back) > HALF
    spacing_mm = tuple(float(s) for s in flair.spacing)
    covered = np.count_nonzero(inside) * np.prod(spacing_mm) / (np.count_nonzero(brain) * np.prod(t1.spacing))
    if covered < COVERED:
        raise Unsuitable(f"The FLAIR shows only {100 * covered:.0f} % of the brain that the T1 shows.", hint=WANTED)
    box = box_about(inside)
    cut, values, inside = flair[box], values[box], inside[box]
    shares = np.stack([resampled(itk(one.astype(np.float32), t1.affine), itk(values, cut.affine), back) / 255 for one in probable])
    return cut, Scene(unshaded(clean(values, inside, cut=False), inside, spacing_mm), inside, shares, spacing_mm)


# ------------------------------------------------------------------------------------------------------------- lesions


def _lesions(scene: Scene) -> tuple[Mask, int]:
    """Return what is brighter than grey and white matter, amid white matter, and how many pieces it has."""
    smooth = _smooth(scene)
    levels = [_level(scene, smooth, tissue) for tissue in (FLUID, GREY, WHITE)]
    _check_flair(levels)
    white = levels[WHITE][0]
    deep = scene.inside & (ndimage.distance_transform_edt(scene.inside, scene.spacing_mm) > SHALLOW_MM)
    bright = deep & (smooth > max(middle + OUTLIER * spread for middle, spread in levels[GREY:]))
    result = np.zeros(bright.shape, bool)
    for core, around in _pieces(bright, (RIM, RIM, RIM)):
        result[around] |= _grown(scene, core, around, white)
    return _kept(scene, result)


def _smooth(scene: Scene) -> Image:
    """Return a Gaussian mean over voxels of the brain alone, so that what lies beside it adds nothing."""
    sigmas = [SMOOTH_MM / mm for mm in scene.spacing_mm]
    total, weight = (ndimage.gaussian_filter(one, sigmas) for one in (np.where(scene.inside, scene.flair, 0), scene.inside.astype(np.float32)))
    return np.asarray(total / np.maximum(weight, 1e-3), np.float32)


def _level(scene: Scene, smooth: Image, tissue: int) -> tuple[float, float]:
    """Return a tissue's brightness on FLAIR and its spread, by median and median absolute deviation: lesions hardly move them.

    Raises
    ------
    Unsuitable: there is too little of the tissue.
    """
    values = smooth[scene.inside & (scene.shares[tissue] > SURE)]
    if values.size * scene.voxel_mm3 < 1000 * ENOUGH_ML:
        raise Unsuitable("The slices of the FLAIR are too thick or too few to learn the brightness of fluid, grey and white matter.", hint=WANTED)
    middle = float(np.median(values))
    return middle, MADS * float(np.median(np.abs(values - middle)))


def _check_flair(levels: list[tuple[float, float]]) -> None:
    (fluid, _), (grey, _), (white, _) = levels
    if not fluid < white < grey:
        raise Unsuitable("Fluid is not the darkest and grey matter not the brightest tissue of the second series: this is no FLAIR.", hint=WANTED)


def _pieces(mask: Mask, margin: tuple[int, ...] = (0, 0, 0)) -> Iterator[tuple[Mask, Box]]:
    """Yield each piece of a mask, where voxels hang together by faces, edges or corners, in its box with a margin, and the box."""
    numbered, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    for number, place in enumerate(ndimage.find_objects(numbered), start=1):
        x, y, z = (slice(max(0, s.start - n), s.stop + n) for s, n in zip(place, margin, strict=True))
        yield numbered[x, y, z] == number, (x, y, z)


def _grown(scene: Scene, core: Mask, around: Box, white: float) -> Mask:
    """Return a piece with its rim, out to half of its own brightness over white matter, where a blurred edge lies."""
    edge = white + HALF * (float(np.median(scene.flair[around][core])) - white)
    reach = scene.inside[around] & (scene.flair[around] > edge)
    return np.asarray(ndimage.binary_propagation(core & reach, np.ones((3, 3, 3)), mask=reach))


def _kept(scene: Scene, found: Mask) -> tuple[Mask, int]:
    """Return the pieces that are large enough and lie amid white matter, and their number."""
    result, count = np.zeros(found.shape, bool), 0
    near_mm = max(SHELL_MM, min(scene.spacing_mm))
    for piece, around in _pieces(found, tuple(int(np.ceil(near_mm / mm)) for mm in scene.spacing_mm)):
        if np.count_nonzero(piece) * scene.voxel_mm3 < SMALLEST_MM3:
            continue
        distance_mm = ndimage.distance_transform_edt(~piece, scene.spacing_mm)
        shell = (distance_mm > 0) & (distance_mm <= near_mm)
        if scene.shares[WHITE][around][shell].mean() >= AMID:
            result[around] |= piece
            count += 1
    return result, count


def _measure(scene: Scene, mask: Mask, count: int) -> dict[str, float | None]:
    """Return the manifest's figures. White matter holds the lesions, which T1 may show as grey."""
    volume_ml = float(np.count_nonzero(mask)) * scene.voxel_mm3 / 1000
    white_ml = float(scene.shares[WHITE][scene.inside & ~mask].sum(dtype=np.float64)) * scene.voxel_mm3 / 1000 + volume_ml
    sizes = [np.count_nonzero(piece) for piece, _ in _pieces(mask)]
    return {
        "count": float(count),
        "volume": volume_ml,
        "largest": float(max(sizes, default=0)) * scene.voxel_mm3 / 1000,
        "share": 100 * volume_ml / white_ml,
        "white_volume": white_ml,
    }
