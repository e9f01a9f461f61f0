"""A segmentation as what lies over images: which of its frames belong to an image, and its segments in their colours (PS3.3 A.51, C.8.20)."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset

from dicom_node.coding.unreadable import UNREADABLE
from dicom_node.domain import SEGMENTATIONS, Unsuitable
from dicom_node.web.rendering.colour import PALETTE, Colour, from_lab
from dicom_node.web.rendering.grey import group
from dicom_node.web.rendering.place import Plane, moved, plane
from dicom_node.web.rendering.source import MOST_PIXELS, Lately, Source, opened, stored

Array = np.ndarray[Any, Any]
_MOST_SEGMENTS = 1024  # that are looked at
_NEAR_MM = 0.5  # to a frame whose thickness is not known


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One segment, as a list shows it."""

    number: int
    label: str
    colour: Colour
    kind: str  # what it is said to be
    algorithm: str  # AUTOMATIC, SEMIAUTOMATIC or MANUAL
    tracking_uid: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """One frame, and what it lies on."""

    index: int  # from 0
    segment: int  # 0: all of a label map
    images: frozenset[tuple[str, int]]  # SOP Instance UID and frame number, 0: all of them
    plane: Plane | None

    def is_of(self, sop_instance_uid: str, frame: int, at: Plane | None) -> bool:
        """Say whether it names an image as its source, and lies in that image's plane.

        One that names several was made of all of them, and lies on those that are where it is; of a single one its word counts.
        """
        if {(sop_instance_uid, 0), (sop_instance_uid, frame)}.isdisjoint(self.images):
            return False
        if self.plane is None or at is None:
            return True
        thickest_mm = max(self.plane.thickness_mm, at.thickness_mm, 2 * _NEAR_MM)
        return self.plane.is_parallel(at) and (len(self.images) == 1 or at.distance_mm(self.plane.position_mm) <= thickest_mm / 2)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segmentation:
    """What a Segmentation says of itself."""

    source: Source
    segments: tuple[Segment, ...]
    frames: tuple[Frame, ...]
    frame_of_reference_uid: str
    series: frozenset[str]  # Series Instance UIDs that it refers to

    @property
    def colours(self) -> dict[int, Colour]:
        """Each segment's colour."""
        return {one.number: one.colour for one in self.segments}

    @property
    def is_labelled(self) -> bool:
        """Whether its pixels are segment numbers."""
        return self.source.header.get("SegmentationType") == "LABELMAP"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Under:
    """The image that segments are laid over."""

    sop_instance_uid: str
    frame: int  # from 1
    rows: int
    columns: int
    plane: Plane | None
    frame_of_reference_uid: str


def is_segmentation(header: Dataset) -> bool:
    """Say whether an object is a segmentation."""
    return header.get("SOPClassUID") in SEGMENTATIONS


def _segmentation(path: Path) -> Segmentation:
    """Read what a segmentation says of its frames."""
    source = opened(path)
    header = source.header
    try:
        items = [one for one in header.SegmentSequence[:_MOST_SEGMENTS] if int(one.SegmentNumber)]
        found = Segmentation(
            source=source,
            segments=tuple(_segment(one, place) for place, one in enumerate(items)),
            frames=tuple(_frames(source)),
            frame_of_reference_uid=str(header.get("FrameOfReferenceUID") or ""),
            series=frozenset(str(one.SeriesInstanceUID) for one in header.get("ReferencedSeriesSequence") or ()),
        )
    except UNREADABLE as error:
        raise Unsuitable("a segmentation cannot be understood", hint="Retrieve the object itself.") from error
    return found


segmentation = Lately(_segmentation, lambda given: given.source.header_bytes)
"""Read what a segmentation says of its frames; it is kept for the next slice.

Raises
------
Unsuitable: it cannot be understood.
FileNotFoundError: the file is gone.
"""


def over(given: Segmentation, under: Under) -> tuple[Frame, ...]:
    """Return the frames that lie on an image: those that name it as their source, else those in its plane."""
    named = tuple(one for one in given.frames if one.is_of(under.sop_instance_uid, under.frame, under.plane))
    same_space = given.frame_of_reference_uid and under.frame_of_reference_uid == given.frame_of_reference_uid
    if named or under.plane is None or not same_space:
        return named
    near: dict[int, tuple[float, Frame]] = {}
    for one in given.frames:
        if one.plane is not None and one.plane.is_parallel(under.plane):
            away = under.plane.distance_mm(one.plane.position_mm)
            best = near.get(one.segment)
            if away <= (one.plane.thickness_mm or 2 * _NEAR_MM) / 2 and (best is None or away < best[0]):
                near[one.segment] = (away, one)
    return tuple(one for _, one in near.values())


def overlay(given: Segmentation, under: Under, numbers: Collection[int], *, outline: bool = False) -> Array:
    """Return the segments on an image's pixels as red, green, blue and opacity (row, column, 4).

    Raises
    ------
    Unsuitable: the pixels cannot be read, or the image is larger than is shown.
    FileNotFoundError: the file is gone.
    """
    if not 0 < under.rows * under.columns <= MOST_PIXELS:
        raise Unsuitable("an image is larger than is shown", hint="Retrieve the object itself.")
    try:
        return _overlay(given, under, numbers, outline)
    except FileNotFoundError:
        raise
    except UNREADABLE as error:
        raise Unsuitable("a segmentation cannot be understood", hint="Retrieve the object itself.") from error


def _overlay(given: Segmentation, under: Under, numbers: Collection[int], outline: bool) -> Array:
    found = np.zeros((under.rows, under.columns, 4), np.uint8)
    for one in over(given, under):
        if one.segment and one.segment not in numbers:
            continue
        values = stored(given.source, one.index)
        for number in (one.segment,) if one.segment else sorted(set(np.unique(values).tolist()) & set(numbers)):
            mask = _laid(_inside(given, values, number), one, under)
            mask = mask & ~_eroded(mask) if outline else mask
            found[mask, :3] = given.colours.get(number, PALETTE[0])
            found[mask, 3] = 255
    return found


def coloured(given: Segmentation, index: int) -> Array:
    """Return a frame in the colours of its segments (row, column, 3).

    Raises
    ------
    Unsuitable: the pixels cannot be read.
    """
    values, frame = stored(given.source, index), given.frames[index]
    found = np.zeros((*values.shape, 3), np.uint8)
    highest = max(int(given.source.header.get("MaximumFractionalValue") or 1), 1)
    if frame.segment:
        found[...] = np.rint(np.minimum(values / highest, 1)[..., None] * given.colours.get(frame.segment, PALETTE[0]))
        return found
    for number, colour in given.colours.items():
        found[values == number] = colour
    return found


def _inside(given: Segmentation, values: Array, number: int) -> Array:
    """Say which pixels belong to a segment: of fractions those that are at least a half."""
    if given.is_labelled:
        return values == number
    highest = int(given.source.header.get("MaximumFractionalValue") or 1)
    return values >= highest / 2 if given.source.header.get("SegmentationType") == "FRACTIONAL" else values > 0


def _laid(mask: Array, frame: Frame, under: Under) -> Array:
    if frame.plane is not None and under.plane is not None and frame.plane.is_parallel(under.plane):
        return moved(mask, frame.plane, under.plane, (under.rows, under.columns))
    if mask.shape != (under.rows, under.columns):
        raise Unsuitable("a segmentation does not say where in its image it lies", hint="Retrieve the object itself.")
    return mask


def _eroded(mask: Array) -> Array:
    """Return the pixels whose four neighbours are in the mask, too."""
    padded = np.pad(mask, 1)
    return padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]


def _segment(item: Dataset, place: int) -> Segment:
    lab, kind = item.get("RecommendedDisplayCIELabValue"), item.get("SegmentedPropertyTypeCodeSequence")
    return Segment(
        number=int(item.SegmentNumber),
        label=str(item.get("SegmentLabel") or f"Segment {item.SegmentNumber}"),
        colour=from_lab(lab) if lab is not None and len(lab) == 3 else PALETTE[place % len(PALETTE)],
        kind=str(kind[0].get("CodeMeaning") or "") if kind else "",
        algorithm=str(item.get("SegmentAlgorithmType") or ""),
        tracking_uid=str(item.get("TrackingUID") or ""),
    )


def _frames(source: Source) -> Iterator[Frame]:
    labelled = source.header.get("SegmentationType") == "LABELMAP"
    for index in range(source.frames):
        identified = group(source.header, index, "SegmentIdentificationSequence")
        derivation = group(source.header, index, "DerivationImageSequence")
        images = derivation.get("SourceImageSequence") or () if derivation is not None else ()
        yield Frame(
            index=index,
            segment=0 if labelled or identified is None else int(identified.ReferencedSegmentNumber),
            images=frozenset((str(one.ReferencedSOPInstanceUID), number) for one in images for number in _numbers(one.get("ReferencedFrameNumber"))),
            plane=plane(source.header, index),
        )


def _numbers(value: Any) -> list[int]:
    if value is None or value == "":
        return [0]
    return [int(one) for one in value] if isinstance(value, list | tuple) or hasattr(value, "__iter__") else [int(value)]
