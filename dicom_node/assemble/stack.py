"""Which slices make the volume, and in which order: one stack, one phase, evenly spaced, straight; or a sentence that says why not.

Nothing here reads pixels, except to see whether two images at one place are the same. Volumes are right-handed as highdicom makes them:
of an axial series the first slice is the highest.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from dicom_node.assemble.headers import SEND_AGAIN, Frame
from dicom_node.assemble.shape import number
from dicom_node.config import Input
from dicom_node.domain import Cause, Unsuitable

_SAME_PLACE_MM = 0.01  # closer than this along the normal: the same place
_SAME_DIRECTION = 1e-3  # of a direction cosine
_SAME_SPACING = 1e-3  # relative, of pixels
_DOMINANT = 0.75  # the part of a series that one stack must be for the rest to be left out
_EVEN = 0.01  # relative: what differs by less between slices is even, as for highdicom
_ROUNDED = 0.1  # of the spacing: how far a slice may lie from even because positions were written rounded
_FEW = 0.2  # the part of the steps that may be gaps: more of them are uneven spacing
_MAX_IN_A_ROW = 2  # missing slices next to one another that `allow_gaps` tolerates

# What tells several images at one place apart, in the order in which it is tried, with the functional group that holds it.
_MARKS: tuple[tuple[str, str], ...] = (
    ("TemporalPositionIdentifier", ""),
    ("TemporalPositionIndex", "FrameContentSequence"),
    ("AcquisitionNumber", ""),
    ("FrameAcquisitionNumber", "FrameContentSequence"),
    ("EchoNumbers", ""),
    ("EchoTime", ""),
    ("EffectiveEchoTime", "MREchoSequence"),
    ("InversionTime", ""),
    ("DiffusionBValue", "MRDiffusionSequence"),
    ("TriggerTime", ""),
    ("NominalPercentageOfCardiacPhase", "CardiacSynchronizationSequence"),
    ("FrameReferenceTime", ""),
    ("FlipAngle", ""),
    ("ComplexImageComponent", "MRImageFrameTypeSequence"),
    ("ConvolutionKernel", "CTReconstructionSequence"),
    ("KVP", "CTXRayDetailsSequence"),
    ("ReconstructionDiameter", "CTReconstructionSequence"),
    ("SequenceName", ""),
    ("StackID", "FrameContentSequence"),
    ("AcquisitionTime", ""),
)

_Parts = dict[tuple[Hashable, ...], list[Frame]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """The slices of one volume, evenly spaced along their common normal."""

    frames: tuple[Frame | None, ...]  # None: missing, to be interpolated; never the first or the last
    spacing_mm: float
    notes: tuple[str, ...] = ()

    @property
    def present(self) -> tuple[Frame, ...]:
        """The slices that there are, in order."""
        return tuple(frame for frame in self.frames if frame is not None)


def stack(frames: Sequence[Frame], wanted: Input, same_pixels: Callable[[Sequence[Frame]], bool]) -> Stack:
    """Return the one volume that some slices of a series make.

    frames: in an order that does not depend on how they came. same_pixels: says whether images show the same, asked only of those at one place.

    Raises
    ------
    Unsuitable: they make no volume, or more than one with equal right.
    """
    notes: list[str] = []
    kept = _without_localizers(frames, notes)
    kept = _alike(kept, notes)
    distances = _distances(kept)
    kept = _one_phase(kept, distances, same_pixels, notes)
    _one_object(kept)
    _straight(kept, wanted, notes)
    return _spaced(sorted(kept, key=distances.__getitem__), distances, wanted, notes)


# ------------------------------------------------------------------------------------------------------------ one stack


def _without_localizers(frames: Sequence[Frame], notes: list[str]) -> list[Frame]:
    kept = [frame for frame in frames if not {"LOCALIZER", "SCOUT"} & set(frame.image_type)]
    if not kept:
        raise Unsuitable("the series holds only localizers", hint="Choose a series of slices.")
    if any("MOSAIC" in frame.image_type for frame in kept):
        raise Unsuitable(
            "the images are mosaics of many slices each, which are not taken apart", hint="Export the series as Enhanced MR, or slice by slice."
        )
    if len(kept) < len(frames):
        notes.append(f"{_images(len(frames) - len(kept))} left out: localizers")
    return kept


def _alike(frames: list[Frame], notes: list[str]) -> list[Frame]:
    """Keep the slices of one matrix, pixel spacing, direction and frame of reference, if they are clearly the series."""
    groups: list[list[Frame]] = []
    for frame in frames:
        group = next((known for known in groups if _same_grid(known[0], frame)), None)
        if group is None:
            groups.append([frame])
        else:
            group.append(frame)
    largest = max(groups, key=len)
    if len(largest) < len(frames) * _DOMINANT:
        counted = sorted((-len(group), _described(group[0])) for group in groups)
        found = ", ".join(f"{-count} of {described}" for count, described in counted[:4])
        raise Unsuitable(f"the series mixes images that make no common volume: {found}", hint="Send each stack as a series of its own.")
    if len(largest) < len(frames):
        notes.append(f"{_images(len(frames) - len(largest))} left out: other direction, matrix, pixel spacing or frame of reference than the rest")
    return largest


def _same_grid(one: Frame, other: Frame) -> bool:
    a, b = one.image, other.image
    return (
        (a.rows, a.columns) == (b.rows, b.columns)
        and one.get("FrameOfReferenceUID") == other.get("FrameOfReferenceUID")
        and all(math.isclose(p, q, rel_tol=_SAME_SPACING) for p, q in zip(one.spacing_mm, other.spacing_mm, strict=True))
        and all(abs(p - q) <= _SAME_DIRECTION for p, q in zip(one.orientation, other.orientation, strict=True))
    )


def _described(frame: Frame) -> str:
    direction = "xyz"[int(np.argmax(np.abs(frame.normal)))]
    return f"{frame.image.columns} x {frame.image.rows} pixels of {frame.spacing_mm[0]:.3g} mm stacked along {direction}"


# ------------------------------------------------------------------------------------------------------------ one phase


def _one_phase(
    frames: list[Frame], distances: Mapping[Frame, float], same_pixels: Callable[[Sequence[Frame]], bool], notes: list[str]
) -> list[Frame]:
    """Of several images at the same places keep one: of copies any, of phases, echoes and the like the first that covers every place."""
    at = _at_places(frames, distances)
    if len(at) == len(frames) and _explained(frames, distances):
        return frames
    if len(at) < len(frames) and all(len(group) == 1 or same_pixels(group) for group in at):
        notes.append(f"{_images(len(frames) - len(at))} left out: exact copies of others")
        return [group[0] for group in at]
    for names, parts in _splits(frames):
        chosen = next((key for key, part in parts.items() if _covers(part, at, distances)), None)
        if chosen is not None:
            shown = ", ".join(f"{name} {_shown(value)}" for name, value in zip(names, chosen, strict=True))
            notes.append(f"the series holds the same places {len(parts)} times; the images of {shown} are used")
            return parts[chosen]
    crowded = next((group for group in at if len(group) > 1), None)
    if crowded is None:
        return frames
    raise Unsuitable(
        f"{len(crowded)} different images lie at the same place ({_where(crowded[0])}: {', '.join(frame.name for frame in crowded[:3])}), "
        "and nothing in their headers parts them into complete phases",
        hint="Send each phase, echo or reconstruction as a series of its own.",
    )


def _at_places(frames: Sequence[Frame], distances: Mapping[Frame, float]) -> list[list[Frame]]:
    """Part frames by their place along the normal, in order of place; at each place in the order given."""
    groups: list[list[Frame]] = []
    for frame in sorted(frames, key=distances.__getitem__):
        if groups and distances[frame] - distances[groups[-1][-1]] <= _SAME_PLACE_MM:
            groups[-1].append(frame)
        else:
            groups.append([frame])
    rank = {frame: number for number, frame in enumerate(frames)}
    return [sorted(group, key=rank.__getitem__) for group in groups]


def _explained(frames: Sequence[Frame], distances: Mapping[Frame, float]) -> bool:
    """Say whether the spacing of slices at places of their own is even, or even but for missing slices."""
    steps = np.diff(sorted(distances[frame] for frame in frames))
    return len(steps) < 2 or _multiples(steps) is not None


def _covers(part: Sequence[Frame], at: Sequence[Sequence[Frame]], distances: Mapping[Frame, float]) -> bool:
    """Say whether some of the frames make a whole volume: one at each place, or evenly spaced from end to end."""
    own = _at_places(part, distances)
    if len(own) < len(part) or len(own) < 2:
        return len(own) == len(part) == len(at)
    ends = distances[own[0][0]], distances[own[-1][0]]
    spacing_mm = (ends[1] - ends[0]) / (len(own) - 1)
    whole = ends[0] - distances[at[0][0]] < spacing_mm and distances[at[-1][0]] - ends[1] < spacing_mm
    return len(own) == len(at) or (whole and bool(np.ptp(np.diff([distances[group[0]] for group in own])) <= _ROUNDED * spacing_mm))


def _splits(frames: Sequence[Frame]) -> Iterator[tuple[tuple[str, ...], _Parts]]:
    """Yield the ways to part frames by what their headers say, by one attribute or two; the parts of each in order of their values."""
    order = {image: float(number) for number, image in enumerate(dict.fromkeys(frame.image for frame in frames))}
    marks: dict[str, list[Hashable]] = {keyword: [_mark(frame.get(keyword, group)) for frame in frames] for keyword, group in _MARKS}
    marks["ImageType"] = [_image_type_order(frame) for frame in frames]
    marks["multi-frame object"] = ["" if frame.image.single else order[frame.image] for frame in frames]
    telling = [name for name, values in marks.items() if 1 < len(set(values)) < len(frames)]
    for names in [(name,) for name in telling] + list(combinations(telling, 2)):
        parts: _Parts = {}
        for frame, *values in zip(frames, *(marks[name] for name in names), strict=True):
            parts.setdefault(tuple(values), []).append(frame)
        yield names, dict(sorted(parts.items(), key=lambda part: tuple(map(_sortable, part[0]))))


def _one_object(frames: Sequence[Frame]) -> None:
    """Refuse a volume whose frames lie in several multi-frame objects: no segmentation could refer to it."""
    images = {frame.image for frame in frames}
    if len(images) > 1 and any(not image.single for image in images):
        raise Unsuitable(
            f"the slices are spread over {len(images)} objects, some of several frames each", hint="Send the volume as one multi-frame object."
        )


def _mark(value: Any) -> Hashable:
    if value is None or value == "":
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, Iterable):
        return tuple(map(str, value))
    return number(value)


def _image_type_order(frame: Frame) -> Hashable:
    """Image Type such that original magnitude images come first."""
    words = frame.image_type
    return ("ORIGINAL" not in words, "M" not in words and "M_FFE" not in words, *words)


def _sortable(value: Hashable) -> tuple[int, float, str]:
    return (0, value, "") if isinstance(value, float) else (1, 0.0, str(value))


def _shown(value: Hashable) -> str:
    if isinstance(value, tuple):
        return "\\".join(str(part) for part in value if not isinstance(part, bool))
    return f"{value:g}" if isinstance(value, float) else str(value) or "(none)"


# -------------------------------------------------------------------------------------------------- straight and even


def _straight(frames: Sequence[Frame], wanted: Input, notes: list[str]) -> None:
    """Refuse slices that are not stacked along their normal (a tilted gantry), or that are shifted against one another."""
    normal = frames[0].normal
    offsets = np.array([frame.position for frame in frames]) - frames[0].position  # (slice, xyz)
    along = offsets @ normal
    across = offsets - along[:, None] * normal
    extent_mm = float(np.ptp(along))
    if extent_mm < _SAME_PLACE_MM:
        return
    along = along - along.mean()
    across = across - across.mean(axis=0)
    shear = along @ across / (along @ along)  # mm sideways for each mm along the normal
    tilt_deg = math.degrees(math.atan(float(np.linalg.norm(shear))))
    if tilt_deg > wanted.max_tilt_deg:
        raise Unsuitable(
            f"the gantry was tilted: slices are stacked {tilt_deg:.1f} degrees off their normal, at most {wanted.max_tilt_deg:g} is allowed",
            hint="Send a reconstruction without tilt, reformatted at right angles to the slices.",
        )
    shift_mm = float(np.linalg.norm(across - along[:, None] * shear, axis=1).max())
    if shift_mm > min(frames[0].spacing_mm) / 2 + _SAME_PLACE_MM:
        raise Unsuitable(
            f"slices are shifted sideways against one another by up to {shift_mm:.1f} mm", hint="Send a reconstruction with one field of view."
        )
    drift_mm = math.tan(math.radians(tilt_deg)) * extent_mm
    if drift_mm > min(frames[0].spacing_mm) / 2:
        notes.append(f"a tilt of {tilt_deg:.2f} degrees was left as it is: {drift_mm:.1f} mm from the first slice to the last")


def _spaced(ordered: Sequence[Frame], distances: Mapping[Frame, float], wanted: Input, notes: list[str]) -> Stack:
    if len(ordered) == 1:
        spacing_mm = _stated_spacing_mm(ordered[0], notes)
        return Stack(frames=tuple(ordered), spacing_mm=spacing_mm, notes=tuple(notes))
    places = np.array([distances[frame] for frame in ordered])
    steps = np.diff(places)
    multiples = _multiples(steps)
    if multiples is None:
        raise Unsuitable(
            f"slices are not evenly spaced: between {steps.min():.3g} and {steps.max():.3g} mm apart",
            hint="Send a reconstruction with one slice spacing.",
        )
    frames = _with_gaps(ordered, multiples, wanted, notes)
    spacing_mm = float((places[-1] - places[0]) / (len(frames) - 1))
    even = places[0] + spacing_mm * np.concatenate([[0], np.cumsum(multiples)])
    if np.abs(steps - multiples * spacing_mm).max() > _EVEN * spacing_mm:
        off_mm = float(np.abs(places - even).max())
        notes.append(f"slices lie up to {off_mm:.2g} mm from even spacing and are taken as even: their positions were rounded")
    return Stack(frames=frames, spacing_mm=spacing_mm, notes=tuple(notes))


def _multiples(steps: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
    """Return how many spacings each step from slice to slice is (more than one: slices are missing); None when spacing is not even."""
    usual_mm = float(np.sort(steps)[(len(steps) - 1) // 2])
    multiples = np.rint(steps / usual_mm).astype(int)
    if multiples.min() < 1 or np.count_nonzero(multiples > 1) > max(1, _FEW * len(steps)):
        return None
    places = np.concatenate([[0.0], np.cumsum(steps)])
    numbers = np.concatenate([[0], np.cumsum(multiples)])
    spacing_mm = places[-1] / numbers[-1]
    return multiples if np.abs(places - numbers * spacing_mm).max() <= _ROUNDED * spacing_mm else None


def _with_gaps(ordered: Sequence[Frame], multiples: np.ndarray[Any, Any], wanted: Input, notes: list[str]) -> tuple[Frame | None, ...]:
    """Return the slices with None for each that is missing, if any is and the input allows it."""
    wide = [int(index) for index in np.flatnonzero(multiples > 1)]
    if not wide:
        return tuple(ordered)
    said = "; ".join(_gap(int(multiples[index]) - 1, ordered[index], ordered[index + 1]) for index in wide[:3])
    said += f"; {int(multiples.sum()) - len(multiples)} in all" if len(wide) > 1 else ""
    if not wanted.allow_gaps or multiples.max() - 1 > _MAX_IN_A_ROW:
        raise Unsuitable(said, hint=SEND_AGAIN, cause=Cause.INCOMPLETE)
    notes.append(f"{said}: interpolated from the neighbours")
    frames: list[Frame | None] = [ordered[0]]
    for frame, multiple in zip(ordered[1:], multiples, strict=True):
        frames += [None] * (int(multiple) - 1) + [frame]
    return tuple(frames)


def _stated_spacing_mm(frame: Frame, notes: list[str]) -> float:
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        stated = number(frame.get(keyword, "PixelMeasuresSequence"))
        if stated:
            return abs(stated)
    notes.append("a single slice that states no thickness: taken as 1 mm")
    return 1.0


def _distances(frames: Sequence[Frame]) -> dict[Frame, float]:
    """Return how far along the stack's one normal each slice lies, mm."""
    found = np.array([frame.position for frame in frames]) @ frames[0].normal
    return {frame: float(distance) for frame, distance in zip(frames, found, strict=True)}


# ------------------------------------------------------------------------------------------------------------ sentences


def _gap(lost: int, before: Frame, after: Frame) -> str:
    what = "a slice is missing" if lost == 1 else f"{lost} slices are missing"
    return f"{what} between {_where(before)} and {_where(after)}"


def _where(frame: Frame) -> str:
    """Return a slice's place along the patient's axis that is nearest to its normal."""
    axis = int(np.argmax(np.abs(frame.normal)))
    return f"{'xyz'[axis]} = {frame.position[axis]:.1f} mm"


def _images(number: int) -> str:
    return "1 image was" if number == 1 else f"{number} images were"
