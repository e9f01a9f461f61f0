"""What a viewer shows of one series: its slices, what lies over them, and what was measured, as values that a page or a script takes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dicom_node.coding.unreadable import UNREADABLE
from dicom_node.domain import Unsuitable
from dicom_node.store import Stored
from dicom_node.web.context import Context
from dicom_node.web.rendering.findings import Mark, Row, rows
from dicom_node.web.rendering.grey import automatic, look
from dicom_node.web.rendering.kinds import kind_of
from dicom_node.web.rendering.segments import Frame, Segment, Segmentation, segmentation
from dicom_node.web.rendering.source import opened, stored
from dicom_node.web.viewer.stack import Listed, Stack, version_of

BANNER = "AI · research use · unverified"
MOST_LAYERS, _MOST_REPORTS = 32, 64
PRESETS = {
    "lung": ("Lung", -600.0, 1500.0),
    "soft": ("Soft tissue", 40.0, 400.0),
    "bone": ("Bone", 400.0, 1800.0),
    "brain": ("Brain", 40.0, 80.0),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layer:
    """A segmentation over the slices of a stack."""

    sop_instance_uid: str
    version: str
    label: str
    says: str  # who found it
    segments: tuple[Segment, ...]
    slices: dict[int, list[int]]  # segment → slices, from 0, on which it is


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shape:
    """A mark on a slice, in its pixels: the corner of the first is 0, 0."""

    kind: str
    points: tuple[tuple[float, float], ...]
    label: str
    slice: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """A row of the list of what was found, and where one sees it."""

    row: Row
    report: str
    slice: int | None  # of this stack, from 0
    series: str  # another series on which it is


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scene:
    """All that is shown of one series."""

    stack: Stack
    layers: tuple[Layer, ...]
    shapes: tuple[Shape, ...]
    found: tuple[Found, ...]
    window: tuple[float, float]  # center and width of the slice in the middle, as its header has them


def scene(context: Context, objects: Sequence[Stored], series: Sequence[Listed], shown: Stack) -> Scene:
    """Return what is shown of a stack; of the study's other objects, what cannot be understood is left out.

    Raises
    ------
    FileNotFoundError: the study was removed meanwhile.
    """
    described = {one.series_instance_uid: one for one in series}
    segmentations = {one.sop_instance_uid: given for one, given in _segmentations(context, objects)}
    layers = []
    for one in objects:
        given = segmentations.get(one.sop_instance_uid)
        slices = on_slices(given, shown) if given else {}
        if given and slices:
            layers.append(_layer(one, given, slices, described[one.series_instance_uid]))
    places = {layer.sop_instance_uid: layer.slices for layer in layers}
    found, shapes = [], []
    for report, row in _reported(context, objects, described):
        marks = [shape for mark in row.marks if (shape := _shape(mark, shown, row.group or row.label)) is not None]
        shapes += marks
        found.append(_found(report, row, marks, places, segmentations, shown))
    unique = {(one.slice, one.kind, one.points): one for one in shapes}
    return Scene(stack=shown, layers=tuple(layers), shapes=tuple(unique.values()), found=tuple(found), window=_window(context, objects, shown))


def on_slices(given: Segmentation, shown: Stack) -> dict[int, list[int]]:
    """Return on which slices each segment is: those that its frames name, else those in whose plane they lie."""
    found: dict[int, set[int]] = {}
    same_space = given.frame_of_reference_uid and given.frame_of_reference_uid == shown.frame_of_reference_uid
    for frame in given.frames:
        named = (shown.places[image] for image in frame.images if image in shown.places)
        places = {place for place in named if frame.is_of((one := shown.slices[place]).sop_instance_uid, one.frame, one.plane)}
        if not places and same_space:
            places = _in_plane(frame, shown)
        for number in (frame.segment,) if frame.segment else given.colours:
            found.setdefault(number, set()).update(places)
    return {number: sorted(places) for number, places in found.items() if places}


def _in_plane(frame: Frame, shown: Stack) -> set[int]:
    if frame.plane is None:
        return set()
    nearest = shown.nearest(frame.plane.position_mm, frame.plane)
    return set() if nearest is None else {nearest}


def _segmentations(context: Context, objects: Sequence[Stored]) -> Iterator[tuple[Stored, Segmentation]]:
    for one in [one for one in objects if kind_of(one.sop_class_uid) == "segments"][-MOST_LAYERS:]:
        try:
            yield one, segmentation(context.store.archive.path(one.path))
        except Unsuitable:
            continue  # the others can be shown


def _layer(one: Stored, given: Segmentation, slices: dict[int, list[int]], series: Listed) -> Layer:
    automatic = any(segment.algorithm != "MANUAL" for segment in given.segments)
    return Layer(
        sop_instance_uid=one.sop_instance_uid,
        version=version_of(one),
        label=str(given.source.header.get("SeriesDescription") or "Segmentation"),
        says=BANNER if series.made_here else "by an algorithm" if automatic else "drawn by hand",
        segments=tuple(segment for segment in given.segments if segment.number in slices),
        slices=slices,
    )


def _reported(context: Context, objects: Sequence[Stored], described: dict[str, Listed]) -> Iterator[tuple[str, Row]]:
    for one in [one for one in objects if kind_of(one.sop_class_uid) == "report"][-_MOST_REPORTS:]:
        try:
            header = opened(context.store.archive.path(one.path)).header
            series = described[one.series_instance_uid]
            says = BANNER if series.made_here else str(header.get("VerificationFlag") or "UNVERIFIED").lower()
            for row in rows(header):
                yield f"{header.get('SeriesDescription') or 'Report'} ({says})", row
        except Unsuitable:
            continue  # the others can be shown


def _found(report: str, row: Row, marks: Sequence[Shape], places: dict[str, Any], known: dict[str, Segmentation], shown: Stack) -> Found:
    """Say where one goes to see a finding: to its first mark here, to the middle of its segment, or to the series that that lies on."""
    if marks:
        return Found(row=row, report=report, slice=marks[0].slice, series="")
    uid, number = row.segment or ("", 0)
    on = places.get(uid, {}).get(number)
    if on:
        return Found(row=row, report=report, slice=on[len(on) // 2], series="")
    elsewhere = sorted(known[uid].series - {shown.series_instance_uid}) if uid in known else []
    return Found(row=row, report=report, slice=None, series=elsewhere[0] if elsewhere else "")


def _shape(mark: Mark, shown: Stack, label: str) -> Shape | None:
    if not np.isfinite(mark.points).all():
        return None
    if not mark.in_space:
        index = shown.places.get((mark.sop_instance_uid, mark.frame))
        points = tuple(zip(mark.points[::2], mark.points[1::2], strict=False))
        return None if index is None or not points else Shape(kind=mark.kind, points=points, label=label, slice=index)
    places = np.array(mark.points[: len(mark.points) // 3 * 3]).reshape(-1, 3)
    if not mark.sop_instance_uid or mark.sop_instance_uid != shown.frame_of_reference_uid or not len(places):
        return None
    index = shown.nearest(places.mean(axis=0))
    on = shown.slices[index].plane if index is not None else None
    if index is None or on is None:
        return None
    down, across = on.pixel(places)  # of pixels' centres
    points = tuple((float(x) + 0.5, float(y) + 0.5) for x, y in zip(across, down, strict=True))
    return Shape(kind=mark.kind, points=points, label=label, slice=index)


def _window(context: Context, objects: Sequence[Stored], shown: Stack) -> tuple[float, float]:
    """Return the window of the slice in the middle, for who goes on from there."""
    middle = shown.slices[len(shown.slices) // 2]
    one = next(one for one in objects if one.sop_instance_uid == middle.sop_instance_uid)
    try:
        source = opened(context.store.archive.path(one.path))
        how = look(source.header, middle.frame - 1)
        if how.windows:
            return how.windows[0].center, how.windows[0].width
        values = stored(source, middle.frame - 1) * how.slope + how.intercept
        found = automatic(values, modality=shown.modality, bits=source.stored if how.slope == 1 else 16)
        return found.center, found.width
    except (Unsuitable, *UNREADABLE):
        return 128.0, 256.0
