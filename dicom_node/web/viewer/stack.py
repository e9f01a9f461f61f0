"""A series as a stack of slices, in the order in which they are looked through."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import groupby
from typing import Any

import numpy as np
from pydicom import Dataset

from dicom_node.store import Stored
from dicom_node.web.context import Context
from dicom_node.web.rendering.kinds import kind_of
from dicom_node.web.rendering.place import Plane, plane
from dicom_node.web.rendering.segments import Under
from dicom_node.web.rendering.source import opened

_MOST_SLICES = 8192
_PLACED = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slice:
    """One picture of a stack: an image, or a frame of one."""

    sop_instance_uid: str
    frame: int  # from 1
    number: int  # Instance Number
    version: str  # of its file: whoever keeps the picture need not ask again
    rows: int
    columns: int
    plane: Plane | None

    @property
    def aspect(self) -> float:
        """How much higher than wide a pixel is."""
        return self.plane.spacing_mm[0] / self.plane.spacing_mm[1] if self.plane else 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Stack:
    """The slices of one series."""

    series_instance_uid: str
    modality: str
    frame_of_reference_uid: str
    slices: tuple[Slice, ...]

    @cached_property
    def places(self) -> Mapping[tuple[str, int], int]:
        """SOP Instance UID and frame number (0: the first that there is) → slice, from 0."""
        first = {(one.sop_instance_uid, 0): index for index, one in reversed([*enumerate(self.slices)])}
        return first | {(one.sop_instance_uid, one.frame): index for index, one in enumerate(self.slices)}

    def under(self, one: Slice) -> Under:
        """Return a slice as what segments are laid over."""
        return Under(
            sop_instance_uid=one.sop_instance_uid,
            frame=one.frame,
            rows=one.rows,
            columns=one.columns,
            plane=one.plane,
            frame_of_reference_uid=self.frame_of_reference_uid,
        )

    def nearest(self, point_mm: Any, like: Plane | None = None) -> int | None:
        """Return the slice, from 0, on which a point of the patient is, None where it is between or beyond them; like: of those parallel to it."""
        planes = [(index, one.plane) for index, one in enumerate(self.slices) if one.plane is not None]
        planes = [(index, found) for index, found in planes if like is None or found.is_parallel(like)]
        away = [(found.distance_mm(point_mm), found.thickness_mm, index) for index, found in planes]
        best = min(away, default=None)
        return best[2] if best and best[0] <= (best[1] or 1.0) / 2 + 1e-3 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A series as a list shows it."""

    series_instance_uid: str
    modality: str
    description: str
    number: int
    objects: int
    kind: str  # images, segments, report, or other
    made_here: bool  # by an analysis of this node


def listed(context: Context, study: str, objects: Sequence[Stored]) -> list[Listed]:
    """Return the series of a study, images first, each kind in the order of their numbers."""
    known = {str(one["SeriesInstanceUID"]): one for one in context.store.holdings.find("SERIES", {"StudyInstanceUID": study})}
    found = []
    for uid, group in groupby(sorted(objects, key=lambda one: one.series_instance_uid), key=lambda one: one.series_instance_uid):
        some, keys = [*group], known.get(uid, {})
        found.append(
            Listed(
                series_instance_uid=uid,
                modality=str(keys.get("Modality") or ""),
                description=str(keys.get("SeriesDescription") or ""),
                number=_integer(keys.get("SeriesNumber")),
                objects=len(some),
                kind=kind_of(some[0].sop_class_uid),
                made_here=some[0].path.startswith("results/"),
            )
        )
    kinds = ("images", "segments", "report", "other")
    return sorted(found, key=lambda one: (kinds.index(one.kind), one.number, one.series_instance_uid))


def stack(context: Context, study: str, series: Listed, objects: Sequence[Stored]) -> Stack:
    """Return the slices of a series of images: from head to feet, from front to back, from left to right; without a place by their numbers.

    objects: those of the study.

    Raises
    ------
    Unsuitable: an image with several frames cannot be read.
    FileNotFoundError: it is gone.
    """
    keys = {"StudyInstanceUID": study, "SeriesInstanceUID": series.series_instance_uid}
    headers = {str(one["SOPInstanceUID"]): one for one in context.store.holdings.find("IMAGE", keys)}
    own = [one for one in objects if one.series_instance_uid == series.series_instance_uid]
    slices: list[Slice] = []
    for one in own:
        header = headers.get(one.sop_instance_uid, {})
        several = _integer(header.get("NumberOfFrames")) > 1
        slices += _frames(context, one, header) if several else [_slice(one, header, 1, plane(_dataset(header)))]
    frames = {str(one.get("FrameOfReferenceUID") or "") for one in headers.values()}
    return Stack(
        series_instance_uid=series.series_instance_uid,
        modality=series.modality,
        frame_of_reference_uid=frames.pop() if len(frames) == 1 else "",
        slices=tuple(_ordered([one for one in slices if one.rows and one.columns][:_MOST_SLICES])),
    )


def version_of(one: Stored) -> str:
    """Return what tells one content of an object from another."""
    return blake2b(one.path.encode(), digest_size=6).hexdigest()


def _frames(context: Context, one: Stored, header: Mapping[str, Any]) -> list[Slice]:
    source = opened(context.store.archive.path(one.path))
    return [_slice(one, header, index + 1, plane(source.header, index)) for index in range(min(source.frames, _MOST_SLICES))]


def _slice(one: Stored, header: Mapping[str, Any], frame: int, at: Plane | None) -> Slice:
    return Slice(
        sop_instance_uid=one.sop_instance_uid,
        frame=frame,
        number=_integer(header.get("InstanceNumber")),
        version=version_of(one),
        rows=_integer(header.get("Rows")),
        columns=_integer(header.get("Columns")),
        plane=at,
    )


def _ordered(slices: Sequence[Slice]) -> list[Slice]:
    first = slices[0].plane if slices else None
    if first is None or not all(one.plane is not None and one.plane.is_parallel(first) for one in slices):
        return sorted(slices, key=lambda one: (one.number, one.sop_instance_uid, one.frame))
    normal = first.normal
    strongest = int(np.argmax(np.abs(normal)))
    forward = normal * np.sign(normal[strongest]) * (1 if strongest == 1 else -1)  # to the feet, to the back, to the right
    away = {id(one): round(float(one.plane.position_mm @ forward), 3) for one in slices if one.plane is not None}
    return sorted(slices, key=lambda one: (away[id(one)], one.number, one.sop_instance_uid, one.frame))


def _dataset(header: Mapping[str, Any]) -> Dataset:
    """Return what the ledger keeps of an image's place as pydicom has it."""
    found = Dataset()
    for keyword in _PLACED:
        value = header.get(keyword)
        if value not in (None, "", []):
            try:
                setattr(found, keyword, value)
            except (TypeError, ValueError):
                continue
    return found


def _integer(value: Any) -> int:
    try:
        return max(int(value or 0), 0)
    except (TypeError, ValueError):
        return 0


def edges(one: Plane | None) -> tuple[str, str, str, str]:
    """Return the letters of the left, top, right and bottom edge (PS3.3 C.7.6.1.1.1: R L A P H F, two where the slice is oblique)."""
    if one is None:
        return "", "", "", ""
    return _letters(-one.along_row), _letters(-one.along_column), _letters(one.along_row), _letters(one.along_column)


def _letters(direction: Any) -> str:
    named = sorted(zip(direction, ("LR", "PA", "HF"), strict=True), key=lambda pair: -abs(pair[0]))
    return "".join(names[0 if part > 0 else 1] for part, names in named[:2] if abs(part) > 0.2)  # less than 12 degrees off is not worth a letter
