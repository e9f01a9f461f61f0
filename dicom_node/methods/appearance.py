"""What a few slices look like, as evidence of what they show: how wide and long the body is, how much air it holds, where its bone lies.

Each feature has a physical meaning and, for each class, where it lies in adults: a middle and a spread, judged from anatomy and not fitted to images.
A class that a feature does not speak of may have any value of it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

from dicom_node.domain import FACETS
from dicom_node.methods.recognition import PIXELS, Evidence, stating

Planes = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

ROOM_HU = -930.0  # the air about the patient lies below, lung above as a rule
BODY_HU = -400.0  # half way from air to soft tissue
LUNG_HU = -500.0  # in the body, below: lung or gas
LUNG_SHARE = 0.1  # of a slice's body: more is a slice through lung
BONE_HU = 250.0
SHELL_MM = 28.0  # below the skin: the skull lies within it, of the trunk only parts of some ribs do
DIRECTIONS = 36  # about the middle of a slice, in which bone is looked for
SMALLEST_MM = 40.0  # a body that is thinner tells nothing
WIDE_MM = 250.0  # a body that is cut and fills less may be an ear or a sinus, whose air is no lung
TOUCHES = 0.1  # of the body's outline at the edge of the image: more is a body that was cut, of unknown width
HEAD_MM = (120.0, 220.0)  # a slice that is narrower or wider is not one through a head
BRAIN_MM = 25.0  # below the skin lie brain and the fluid in it, as a rule
FEW = 100  # pixels, of which no percentile is taken
_ANYTHING = 0.1  # of each density is that of anything at all: anatomy has exceptions, parts of the body are imaged, features depend on one another
_ANY_SIZE = 1 / math.log(2000 / 20)  # per factor e

# Class -> its middle and spread. Widths and lengths in mm, spreads as factors; shares from 0 to 1, spreads as differences.
WIDTH_MM: Mapping[str, tuple[float, float]] = {  # of a circle as large as the axial cross-section
    "head": (165, 1.18),
    "neck": (125, 1.2),
    "chest": (300, 1.2),
    "heart": (300, 1.2),
    "abdomen": (290, 1.22),
    "pelvis": (320, 1.2),
    "trunk": (300, 1.2),
    "spine": (290, 1.3),
    "upper-limb": (90, 1.5),
    "lower-limb": (130, 1.45),
    "whole-body": (240, 1.4),
}
LENGTH_MM: Mapping[str, tuple[float, float]] = {  # of what was imaged, along the body
    "head": (190, 1.35),
    "neck": (220, 1.4),
    "chest": (320, 1.25),
    "heart": (150, 1.35),
    "abdomen": (350, 1.5),
    "pelvis": (250, 1.4),
    "trunk": (620, 1.25),
    "whole-body": (1200, 1.4),
}
LUNG_SLICES: Mapping[str, tuple[float, float]] = {  # the share of slices through lung
    "head": (0.0, 0.06),
    "neck": (0.1, 0.12),
    "chest": (0.75, 0.2),
    "heart": (0.95, 0.15),
    "abdomen": (0.1, 0.12),
    "pelvis": (0.0, 0.05),
    "trunk": (0.42, 0.15),
    "upper-limb": (0.0, 0.1),
    "lower-limb": (0.0, 0.05),
    "whole-body": (0.22, 0.12),
}
SKULL: Mapping[str, tuple[float, float]] = {  # the share of directions with bone below the skin, in the slices where it is highest
    "head": (0.95, 0.12),
    "neck": (0.2, 0.15),
    "chest": (0.45, 0.2),
    "heart": (0.45, 0.2),
    "abdomen": (0.35, 0.2),
    "pelvis": (0.4, 0.2),
    "trunk": (0.45, 0.2),
    "spine": (0.35, 0.25),
    "upper-limb": (0.4, 0.3),
    "lower-limb": (0.4, 0.3),
    "whole-body": (0.7, 0.3),
}
# How often fluid is brighter than the brain, see `brightness_evidence`; of other sequences it may be either.
_BRIGHT_FLUID: Mapping[str, float] = {"T2": 0.9, "STIR": 0.9, "ADC": 0.9, "T1": 0.03, "FLAIR": 0.03}
_BRIGHT, _DARK = 1.25, 0.8  # above and below, one of both tails is clearly the longer


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What was measured on some axial slices."""

    width_mm: float | None  # None: the body reaches the edge of the image
    lung_slices: float | None = None  # None: the values are not HU, or a small part of a body fills the image
    skull: float | None = None  # None: the values are not HU, or the skin is not seen
    length_mm: float | None = None


def features(planes: Planes, spacing_mm: tuple[float, float], *, hu: bool, length_mm: float | None = None) -> Features | None:
    """Measure some axial slices; None where there is no body, or none that is large enough.

    planes: (slice, row, column), in HU where `hu` says so, else of any unit that is low outside the body; spacing_mm: between rows, between columns.
    length_mm: of the whole series along the body, where that is known.
    """
    bodies = [body for body in (_body(plane, hu) for plane in planes) if body is not None]
    area = float(np.prod(spacing_mm))
    widths = [2 * math.sqrt(np.count_nonzero(body) * area / math.pi) for body, _ in bodies]
    if not widths or float(np.median(widths)) < SMALLEST_MM:
        return None
    cut = float(np.median([_at_edge(body) for body, _ in bodies])) > TOUCHES
    width_mm = None if cut else float(np.median(widths))
    if not hu:
        return Features(width_mm=width_mm, length_mm=length_mm)
    lungs = [np.count_nonzero(body & (plane < LUNG_HU)) / np.count_nonzero(body) > LUNG_SHARE for body, plane in bodies]
    if cut:
        wide = planes.shape[2] * spacing_mm[1] >= WIDE_MM
        return Features(width_mm=None, lung_slices=float(np.mean(lungs)) if wide else None, length_mm=length_mm)
    skulls = sorted(_skull(plane, body, spacing_mm) for body, plane in bodies)
    upper = skulls[len(skulls) // 2 :]
    return Features(width_mm=width_mm, lung_slices=float(np.mean(lungs)), skull=float(np.mean(upper)), length_mm=length_mm)


def body_part_evidence(found: Features) -> tuple[Evidence, ...]:
    """Return what the features say of the body part, each as one piece of evidence."""
    return tuple(
        evidence
        for evidence in (
            _sized(found.width_mm, WIDTH_MM, "body {:.0f} mm wide"),
            _sized(found.length_mm, LENGTH_MM, "imaged over {:.0f} mm"),
            _shared(found.lung_slices, LUNG_SLICES, "lung in {:.0%} of the slices"),
            _shared(found.skull, SKULL, "bone below the skin in {:.0%} of the directions"),
        )
        if evidence is not None
    )


def brightness_evidence(planes: Planes, spacing_mm: tuple[float, float]) -> Evidence | None:
    """Return what the brightness of fluid against the brain says of an MR sequence; None where there is no head in the middle slices.

    planes: axial slices of a head from end to end. In the brain fluid is the darkest there is on T1, FLAIR and the like, the brightest on T2: on that
    side values lie farther from the median.
    """
    tails = [tail for plane in planes[len(planes) // 3 : 2 * len(planes) // 3 + 1] if (tail := _tail(plane, spacing_mm)) is not None]
    if not tails:
        return None
    tail = float(np.median(tails))
    if _DARK <= tail <= _BRIGHT:
        return None
    often = {name: _BRIGHT_FLUID.get(name, 0.5) for name in FACETS["sequence"]}
    likelihood = often if tail > _BRIGHT else {name: 1 - share for name, share in often.items()}
    said = f"in the brain the {'bright' if tail > _BRIGHT else 'dark'} lie farther from the median, {max(tail, 1 / tail):.1f} to 1"
    return Evidence(facet="sequence", source=PIXELS, said=said, likelihood=likelihood)


def _tail(plane: Planes, spacing_mm: tuple[float, float]) -> float | None:
    """Return how far the bright values of the brain lie from their median, over how far the dark ones do."""
    found = _body(plane, hu=False)
    if found is None or not HEAD_MM[0] < 2 * math.sqrt(np.count_nonzero(found[0]) * float(np.prod(spacing_mm)) / math.pi) < HEAD_MM[1]:
        return None
    depth_mm = ndimage.distance_transform_edt(np.pad(found[0], 1), sampling=spacing_mm)[1:-1, 1:-1]
    inner = found[1][depth_mm > BRAIN_MM]
    if inner.size < FEW:
        return None
    low, middle, high = (float(value) for value in np.percentile(inner, (3, 50, 97)))
    return (high - middle) / (middle - low) if low < middle < high else None


def hu_evidence(planes: Planes) -> Evidence | None:
    """Return whether values look like Hounsfield units: air and soft tissue lie where they lie on CT and nowhere else."""
    values = planes[np.isfinite(planes)]
    if not values.size:
        return None
    air, soft = float(np.mean((values > -1100) & (values < -850))), float(np.mean((values > -150) & (values < 150)))
    if air < 0.02 or soft < 0.05:
        return None
    return stating("modality", PIXELS, f"{air:.0%} are as dense as air and {soft:.0%} as soft tissue in HU", ["CT"], 0.95)


# ---------------------------------------------------------------------------------------------------------- one slice


def _body(plane: Planes, hu: bool) -> tuple[Mask, Planes] | None:
    """Return the patient in one slice, spaces filled, and the slice; None without one."""
    clean = np.nan_to_num(plane, nan=float(np.nanmin(plane)) if np.isfinite(plane).any() else 0.0)
    if clean.min() == clean.max():
        return None
    solid = clean > (BODY_HU if hu else threshold_otsu(clean) * 0.5)
    pieces, count = ndimage.label(ndimage.binary_opening(solid, iterations=1))
    if not count:
        return None
    largest = pieces == np.bincount(pieces.ravel())[1:].argmax() + 1
    body = ndimage.binary_fill_holes(ndimage.binary_closing(np.pad(largest, 3), iterations=2))[3:-3, 3:-3]
    if hu and _at_edge(body) > TOUCHES:  # the image may end within the lungs, which are the body's nevertheless
        body = ~_outside(ndimage.uniform_filter(clean, 3) < ROOM_HU, largest)
    return body, clean


def _outside(air: Mask, body: Mask) -> Mask:
    """Return what is not the patient: air that reaches the edge of the image, and all that is cut off from the body by it, such as the table."""
    pieces, _ = ndimage.label(air)
    edge = np.unique(np.concatenate([pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]]))
    inside = ~np.isin(pieces, edge[edge > 0])
    parts, _ = ndimage.label(ndimage.binary_opening(inside, iterations=1) | body)
    return parts != np.bincount(parts[body]).argmax()


def _at_edge(body: Mask) -> float:
    """Return the share of a body's outline that lies at the edge of the image."""
    outline = body & ~ndimage.binary_erosion(body, border_value=0)
    edge = np.zeros_like(body)
    edge[[0, -1]] = edge[:, [0, -1]] = True
    return int(np.count_nonzero(outline & edge)) / max(1, int(np.count_nonzero(outline)))


def _skull(plane: Planes, body: Mask, spacing_mm: tuple[float, float]) -> float:
    """Return the share of directions about the body's middle in which bone lies in the shell below the skin."""
    if body.all():
        return 0.0
    depth_mm = ndimage.distance_transform_edt(body, sampling=spacing_mm)  # where the image ends within the body there is no skin
    rows, columns = np.nonzero(body & (depth_mm <= SHELL_MM) & (plane > BONE_HU))
    if not rows.size:
        return 0.0
    middle = np.argwhere(body).mean(axis=0)
    angles = np.arctan2((rows - middle[0]) * spacing_mm[0], (columns - middle[1]) * spacing_mm[1])
    return len(np.unique(((angles + math.pi) / (2 * math.pi) * DIRECTIONS).astype(int) % DIRECTIONS)) / DIRECTIONS


# ------------------------------------------------------------------------------------------------------- likelihoods


def _sized(value: float | None, of: Mapping[str, tuple[float, float]], said: str) -> Evidence | None:
    """Return the evidence of a length, whose densities are log-normal."""
    if value is None or value <= 0:
        return None
    densities = {name: _normal(math.log(value / middle), math.log(factor)) for name, (middle, factor) in of.items()}
    return _evidence(densities, _ANY_SIZE, said.format(value))


def _shared(value: float | None, of: Mapping[str, tuple[float, float]], said: str) -> Evidence | None:
    """Return the evidence of a share, whose densities are normal, cut off at 0 and 1."""
    if value is None:
        return None
    densities = {}
    for name, (middle, spread) in of.items():
        inside = 0.5 * (math.erf((1 - middle) / spread / math.sqrt(2)) - math.erf((0 - middle) / spread / math.sqrt(2)))
        densities[name] = _normal(value - middle, spread) / inside
    return _evidence(densities, 1.0, said.format(value))


def _evidence(densities: Mapping[str, float], anything: float, said: str) -> Evidence:
    """Return evidence for the body part; a class without a density of its own may be anything."""
    likelihood = {name: (1 - _ANYTHING) * densities.get(name, anything) + _ANYTHING * anything for name in FACETS["body_part"]}
    return Evidence(facet="body_part", source=PIXELS, said=said, likelihood=likelihood)


def _normal(off: float, deviation: float) -> float:
    return math.exp(-0.5 * (off / deviation) ** 2) / (deviation * math.sqrt(2 * math.pi))
