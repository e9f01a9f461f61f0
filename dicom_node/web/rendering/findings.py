"""What a report by TID 1500 found, as rows of a list: each with what it lies on, so that a viewer can go there (PS3.16 TID 1410, 1411, 1501)."""

from collections.abc import Iterator
from dataclasses import dataclass

from pydicom import Dataset

from dicom_node.coding.unreadable import UNREADABLE
from dicom_node.domain import Unsuitable
from dicom_node.web.rendering.document import code, coordinates, meaning, number

_GROUP, _EVALUATIONS = "125007", "C0034375"  # Measurement Group; Qualitative Evaluations
_SITES, _SIDES = ("363698007", "G-C0E3"), ("272741003", "G-C171")  # as SNOMED CT writes them now and SNOMED RT did
_FINDING, _TRACKING, _DERIVATION = "121071", "112039", "121401"
_OF_A_GROUP = frozenset({_FINDING, "276214006", *_SITES, "370129005", "G-C036", "130400"})  # they describe a group; other codes are answers
_DEEPEST, _MOST_ROWS, _MOST_MARKS, _MOST_POINTS = 16, 2000, 500, 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A shape on an image, or in space."""

    kind: str  # POINT, MULTIPOINT, POLYLINE, CIRCLE, ELLIPSE, POLYGON
    points: tuple[float, ...]  # column and row, the corner of the first pixel being 0, 0 (PS3.3 C.18.6); in space x, y, z in mm
    in_space: bool
    sop_instance_uid: str  # of the image; in space, the frame of reference
    frame: int  # from 1; 0: any


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One number or answer."""

    label: str
    value: str
    site: str
    group: str  # what the group is tracked by
    segment: tuple[str, int] | None  # of which segmentation
    marks: tuple[Mark, ...]


def rows(header: Dataset) -> list[Row]:
    """Return the measurements and the answers of a report, in its order.

    Raises
    ------
    Unsuitable: it cannot be understood.
    """
    try:
        found = []
        for row in _found(header, 0):
            found.append(row)
            if len(found) == _MOST_ROWS:
                break
        return found
    except UNREADABLE as error:
        raise Unsuitable("a report cannot be understood", hint="Retrieve the object itself.") from error


def _found(node: Dataset, depth: int) -> Iterator[Row]:
    for item in node.get("ContentSequence") or () if depth < _DEEPEST else ():
        if item.get("ValueType") != "CONTAINER":
            continue
        if code(item) == _GROUP:
            yield from _of_group(item)
        elif code(item) == _EVALUATIONS:
            yield from (_row(child, item, (), None) for child in _children(item) if child.get("ValueType") == "CODE")
        else:
            yield from _found(item, depth + 1)


def _of_group(group: Dataset) -> Iterator[Row]:
    marks, segment = tuple(_marks(group)), _segment(group)
    said = False
    for item in _children(group):
        kind = item.get("ValueType")
        if kind == "NUM" or (kind == "CODE" and code(item) not in _OF_A_GROUP):
            said = True
            yield _row(item, group, marks, segment)
    if not said and marks:
        name = _text(group, _TRACKING) or _meaning(group, _FINDING)
        yield Row(label=name, value="", site=_site(group), group=name, segment=segment, marks=marks)


def _row(item: Dataset, group: Dataset, marks: tuple[Mark, ...], segment: tuple[str, int] | None) -> Row:
    derivation = _meaning(item, _DERIVATION)
    label = meaning(item, "ConceptNameCodeSequence")
    return Row(
        label=f"{label} ({derivation})" if derivation else label,
        value=number(item) if item.get("ValueType") == "NUM" else meaning(item, "ConceptCodeSequence"),
        site=_site(item) or _site(group) or _meaning(group, _FINDING),
        group=_text(group, _TRACKING),
        segment=segment,
        marks=(*marks, *_marks(item)),
    )


def _segment(group: Dataset) -> tuple[str, int] | None:
    for item in _children(group):
        for one in item.get("ReferencedSOPSequence") or ():
            numbers = coordinates(one, "ReferencedSegmentNumber")
            if numbers:
                return str(one.ReferencedSOPInstanceUID), int(numbers[0])
    return None


def _marks(node: Dataset) -> Iterator[Mark]:
    """Give the shapes of an item: in a group its planar regions, below a number what it was measured along."""
    for item in [*_children(node)][:_MOST_MARKS]:
        points = tuple(coordinates(item)[:_MOST_POINTS])
        kind = str(item.get("GraphicType") or "")
        if item.get("ValueType") == "SCOORD3D":
            frame_of_reference = str(item.get("ReferencedFrameOfReferenceUID") or "")
            yield Mark(kind=kind, points=points, in_space=True, sop_instance_uid=frame_of_reference, frame=0)
        elif item.get("ValueType") == "SCOORD":
            for one in (one for child in _children(item) for one in child.get("ReferencedSOPSequence") or ()):
                number = int((coordinates(one, "ReferencedFrameNumber") or [0])[0])
                yield Mark(kind=kind, points=points, in_space=False, sop_instance_uid=str(one.ReferencedSOPInstanceUID), frame=number)


def _site(node: Dataset) -> str:
    for item in _children(node):
        if code(item) in _SITES:
            side = _meaning(item, *_SIDES)
            return f"{meaning(item, 'ConceptCodeSequence')} ({side})" if side else meaning(item, "ConceptCodeSequence")
    return ""


def _children(node: Dataset) -> Iterator[Dataset]:
    return iter(node.get("ContentSequence") or ())


def _meaning(node: Dataset, *codes: str) -> str:
    return next((meaning(item, "ConceptCodeSequence") for item in _children(node) if code(item) in codes and item.get("ValueType") == "CODE"), "")


def _text(node: Dataset, wanted: str) -> str:
    return next((str(item.get("TextValue") or "") for item in _children(node) if code(item) == wanted), "")
