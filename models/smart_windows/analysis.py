"""Windows of a CT for each kind of tissue in it: from the Hounsfield units that the tissue has in this patient, within what readers expect.

Where fat, soft tissue, air-filled lung, bone and brain lie is read off the histogram of the body and of the cavity of the skull. A window runs
from the darkest to the brightest of what it has to show, with a margin. One whose tissue is not there is not made.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicom_node import Findings, Presentation, Unsuitable
from dicom_node.methods.windows import Convention, Histogram, Window, around

HU = NDArray[np.float32]  # (slice, row, column)
Mask = NDArray[np.bool_]
Progress = Callable[[float, str], None]

# What readers expect of each window, centre and width in HU.
CONVENTIONS: Mapping[str, Convention] = {
    "lung": Convention(center=(-700, -400), width=(1000, 2000)),
    "soft_tissue": Convention(center=(20, 100), width=(300, 500)),
    "bone": Convention(center=(300, 700), width=(1200, 3000)),
    "brain": Convention(center=(30, 50), width=(70, 120)),
    "stroke": Convention(center=(28, 42), width=(30, 50)),
    "subdural": Convention(center=(60, 110), width=(200, 300)),
}

STEP_MM, SLICES = 2.0, 120  # looked at are a pixel in about so many mm, and about so many slices: a histogram needs no more
BODY_HU, BODY_ML, OPENING_MM = -400.0, 100.0, 6.0  # what is above is body; a smaller one is none; what is thinner is table or clothes
LUNG_HU, LUNG_ML = (-950.0, -500.0), 200.0  # between the air of bowel and sinuses, and tissue; less is no lung to look at
FAT_HU, SOFT_HU, BETWEEN_HU = (-140.0, -60.0), (0.0, 120.0), -30.0  # where the commonest fat and soft tissue lie; and between both
FAT_SHARE, DIP = 0.02, 0.8  # of the body: less is no fat to speak of; and how much rarer than both peaks the valley between them is
BONE_HU, BONE_ML = 350.0, 10.0  # above what contrast agent reaches in most vessels; less is no bone to look at
SKULL_HU, CLOSING_MM, CAVITY_ML = 300.0, 8.0, 300.0  # the skull, how wide a gap in it is closed, and how much lies within at least
CAVITY_HU, BRAIN_HU = (-20.0, 120.0), (15.0, 60.0)  # of what lies in the skull; of its commonest tissue, grey and white matter
INNER_TABLE_HU = 200.0  # where the skull begins
SMOOTH_HU, SMOOTH_BRAIN_HU = 5.0, 2.0  # standard deviations by which the histograms are smoothed
LOW, HIGH = 5.0, 95.0  # percentiles that stand for the darkest and the brightest of a tissue, past its noise
WANTED = "Send an original CT series of a patient."


@dataclass(frozen=True, slots=True, kw_only=True)
class Tissues:
    """The Hounsfield units of what is there; None where it is not. Pairs are the darkest and the brightest."""

    fat: tuple[float, float] | None
    soft: tuple[float, float]
    commonest_soft: float
    lung: tuple[float, float] | None
    bone: tuple[float, float] | None
    brain: tuple[float, float] | None
    commonest_brain: float = 0.0
    brain_spread: float = 0.0  # from the darkest to the brightest of grey and white matter


def load(folder: Path, device: str) -> Callable[..., Findings]:
    """Return the analysis; it needs neither files nor an accelerator."""
    return analyse


def analyse(ct: Any, progress: Progress = lambda fraction, sentence: None) -> Findings:
    """Return a window for each kind of tissue that is there, and its centre and width.

    ct: a volume (slice, row, column) in Hounsfield units.

    Raises
    ------
    Unsuitable: no patient is in the images.
    """
    progress(0.05, "looking for the patient")
    hu, spacing_mm = _thinned(ct)
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    body = _body(hu, spacing_mm)
    if body.sum() * voxel_ml < BODY_ML:
        raise Unsuitable("There is no patient in the images, or too little of one.", hint=WANTED)
    progress(0.4, "telling tissues apart")
    tissues = _tissues(hu, body, spacing_mm, voxel_ml)
    made = windows(tissues)
    missing = [name.replace("_", " ") for name, window in made.items() if window is None]
    return Findings(
        presentations={name: None if window is None else Presentation(window=window) for name, window in made.items()},
        measurements={key: value for name, window in made.items() for key, value in _written(name, window)},
        notes=(f"Not in these images, and no window made for it: {', '.join(missing)}.",) if missing else (),
    )


def windows(tissues: Tissues) -> dict[str, Window | None]:
    """Return the window of each name in CONVENTIONS, None where its tissue is not there; whole Hounsfield units."""
    dark = (tissues.fat or tissues.soft)[0]
    spans: dict[str, tuple[float, float] | None] = {
        "lung": tissues.lung and (tissues.lung[0], tissues.commonest_soft),
        "soft_tissue": (dark, tissues.soft[1]),
        "bone": tissues.bone and (dark, tissues.bone[1]),
        "brain": tissues.brain,
        "stroke": tissues.brain and _about(tissues.commonest_brain, tissues.brain_spread),
        "subdural": tissues.brain and (tissues.brain[0], INNER_TABLE_HU),
    }
    made = {name: None if span is None else around(*span, CONVENTIONS[name]) for name, span in spans.items()}
    return {name: None if window is None else (float(round(window[0])), float(round(window[1]))) for name, window in made.items()}


def _about(center: float, spread: float) -> tuple[float, float]:
    return center - spread / 2, center + spread / 2


def _written(name: str, window: Window | None) -> list[tuple[str, float | None]]:
    center, width = window or (None, None)
    return [(f"{name}_center", center), (f"{name}_width", width)]


# ---------------------------------------------------------------------------------------------------------------- the body


def _thinned(ct: Any) -> tuple[HU, tuple[float, ...]]:
    """Return every so many slices, rows and columns, and how far these are apart in mm: values as they are, none mixed."""
    steps = [max(1, -(-ct.array.shape[0] // SLICES)), *(max(1, round(STEP_MM / spacing)) for spacing in ct.spacing[1:])]
    hu = np.nan_to_num(ct.array[:: steps[0], :: steps[1], :: steps[2]].astype(np.float32), nan=-1024.0)
    return hu, tuple(step * spacing for step, spacing in zip(steps, ct.spacing, strict=True))


def _disc(radius_mm: float, spacing_mm: tuple[float, ...]) -> Mask:
    """Return the pixels (1, row, column) within a distance: for what is done slice by slice."""
    rows, columns = (int(radius_mm // spacing) for spacing in spacing_mm[1:])
    down, across = np.mgrid[-rows : rows + 1, -columns : columns + 1]
    return np.asarray(np.hypot(down * spacing_mm[1], across * spacing_mm[2]) <= radius_mm)[None]


def _filled(mask: Mask) -> Mask:
    """Return a mask without holes in its slices."""
    return np.stack([ndimage.binary_fill_holes(plane) for plane in mask])


def _largest(mask: Mask) -> Mask:
    labels, count = ndimage.label(mask)
    return mask if count < 2 else np.asarray(labels == 1 + np.bincount(labels.ravel())[1:].argmax())


def _body(hu: HU, spacing_mm: tuple[float, ...]) -> Mask:
    """Return the patient with what lies within: the largest thing that is no air, thicker than a table top."""
    return _filled(_largest(ndimage.binary_opening(hu > BODY_HU, _disc(OPENING_MM / 2, spacing_mm))))


# ----------------------------------------------------------------------------------------------------------------- tissues


def _tissues(hu: HU, body: Mask, spacing_mm: tuple[float, ...], voxel_ml: float) -> Tissues:
    inside = hu[body]
    histogram = Histogram.of(inside, -1024, 3072, SMOOTH_HU)
    soft_peak = histogram.peak(*SOFT_HU)
    boundary = _end_of_fat(histogram, inside, soft_peak)
    begin = BETWEEN_HU if boundary is None else boundary
    lung = inside[(inside > LUNG_HU[0]) & (inside < LUNG_HU[1])]
    bone = inside[inside > BONE_HU]
    brain = _cavity(hu, body, spacing_mm)
    soft = inside[(inside > begin) & (inside <= BONE_HU)]
    has_brain = brain.size * voxel_ml >= CAVITY_ML
    peak = Histogram.of(brain, -100, 200, SMOOTH_BRAIN_HU).peak(*BRAIN_HU) if has_brain else 0.0
    matter = brain[np.abs(brain - peak) < BRAIN_HU[1] - BRAIN_HU[0]] if has_brain else brain
    return Tissues(
        fat=None if boundary is None else _span(inside[(inside > FAT_HU[0] - 60) & (inside <= boundary)]),
        soft=_span(soft) if soft.size else (soft_peak, soft_peak),
        commonest_soft=soft_peak,
        lung=_span(lung) if lung.size * voxel_ml >= LUNG_ML else None,
        bone=_span(bone) if bone.size * voxel_ml >= BONE_ML else None,
        brain=_span(brain) if has_brain else None,
        commonest_brain=peak,
        brain_spread=float(np.subtract(*np.percentile(matter, (75, 25)))) * 2 if has_brain else 0.0,
    )


def _span(values: NDArray[np.float32]) -> tuple[float, float]:
    low, high = np.percentile(values, (LOW, HIGH))
    return float(low), float(high)


def _end_of_fat(histogram: Histogram, inside: NDArray[np.float32], soft_peak: float) -> float | None:
    """Return where fat ends and soft tissue begins: the rarest value between both; None without fat."""
    if np.mean((inside > FAT_HU[0]) & (inside < FAT_HU[1])) < FAT_SHARE:
        return None
    fat_peak = histogram.peak(*FAT_HU)
    valley = histogram.valley(fat_peak, soft_peak)
    parted = histogram.count(valley) < DIP * min(histogram.count(fat_peak), histogram.count(soft_peak))
    return valley if parted else BETWEEN_HU


def _cavity(hu: HU, body: Mask, spacing_mm: tuple[float, ...]) -> NDArray[np.float32]:
    """Return the Hounsfield units of what the skull encloses, without bone and air: empty where nothing is enclosed."""
    disc = _disc(CLOSING_MM, spacing_mm)
    wall = ndimage.binary_closing(np.pad(hu > SKULL_HU, ((0, 0), (disc.shape[1],) * 2, (disc.shape[2],) * 2)), disc)
    wall = wall[:, disc.shape[1] : -disc.shape[1], disc.shape[2] : -disc.shape[2]]
    within = _filled(wall) & ~wall & body
    within &= (hu > CAVITY_HU[0]) & (hu < CAVITY_HU[1])
    return hu[_largest(ndimage.binary_opening(within, _disc(OPENING_MM, spacing_mm)))] if within.any() else hu[:0].ravel()
