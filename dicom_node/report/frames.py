"""The frames of a segmentation, or of a map, as the bytes they are written in: their functional groups, their pixels, the images they lie on.

A segmentation of twenty organs has some 1500 frames, which differ in four values. Built as data sets and written by pydicom they take a second;
joined from their parts they take some milliseconds. Whatever is said once for the whole object is highdicom's, and a test holds these bytes to
those that it would write (PS3.3 C.7.6.16, C.8.20.2; PS3.5 7.1 and 7.5, in Explicit VR Little Endian).
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from highdicom.spatial import get_normal_vector, get_volume_positions
from pydicom.dataelem import RawDataElement
from pydicom.sr.codedict import Code
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import DS

from dicom_node.report.grid import Plane

SEGMENTED = Code("113076", "DCM", "Segmentation")  # CID 7203
_PURPOSE = Code("121322", "DCM", "Source image for image processing operation")  # CID 7202
_ITEM = struct.Struct("<HHI")  # tag, length
_SHORT, _LONG = struct.Struct("<HH2sH"), struct.Struct("<HH2sHI")  # tag, VR, length; after a VR of bytes or items two bytes are reserved
_PAD = {b"UI": b"\0", b"OB": b"\0"}  # of a value of odd length; a space in texts (PS3.5 6.2)
_AT_ONCE = 8  # frames: together they fill whole bytes, whatever their size


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One frame of a segmentation."""

    plane: Plane
    place: int  # of its plane among those of the object, from 1, from one end of the volume to the other
    segment: int | None = None  # the number in the object; none: a label map, which shows all segments in one frame, or no segmentation


def in_space(shown: Sequence[Plane]) -> list[Plane]:
    """Return planes in the order in which frames stand, along the normal of their images; of two in one place the first."""
    normal = get_normal_vector(shown[0].orientation, index_convention="DR")
    distances = np.array([plane.position_mm for plane in shown]) @ normal
    return [shown[index] for index in np.unique(distances, return_index=True)[1]]


def spacing_mm(shown: Sequence[Plane], *, sort: bool = True) -> float | None:
    """Return the distance between planes that are as far from one another all along; None where they are not, or not in order without `sort`."""
    spacing, _ = get_volume_positions(image_positions=[plane.position_mm for plane in shown], image_orientation=shown[0].orientation, sort=sort)
    return spacing


# ----------------------------------------------------------------------------------------------------------------- groups


def functional_groups(frames: Sequence[Frame], derivation: Code = SEGMENTED) -> RawDataElement:
    """Return the Per-frame Functional Groups Sequence: derivation image, frame content, plane position and segment (PS3.3 C.7.6.16.2)."""
    planes = {id(frame.plane): frame.plane for frame in frames}
    parts = {key: (_derivation(plane, derivation), _position(plane)) for key, plane in planes.items()}
    segments = {number: _identification(number) for number in {frame.segment for frame in frames}}
    items = []
    for frame in frames:
        derived, position = parts[id(frame.plane)]
        items.append(_item(derived, _content(frame), position, segments[frame.segment]))
    return _raw("PerFrameFunctionalGroupsSequence", b"".join(items))


def references(shown: Iterable[Plane]) -> bytes:
    """Return the images under these planes as items that refer to them, each image once (PS3.3 10.8)."""
    named = {plane.sop_instance_uid: plane.sop_class_uid for plane in shown}
    return b"".join(_item(_uid(0x00081150, sop_class), _uid(0x00081155, instance)) for instance, sop_class in named.items())


def source_images(shown: Iterable[Plane]) -> RawDataElement:
    """Return the Source Image Sequence (PS3.3 C.7.6.1)."""
    return _raw("SourceImageSequence", references(shown))


def referenced_series(shown: Iterable[Plane], series_instance_uid: str) -> RawDataElement:
    """Return the Referenced Series Sequence (PS3.3 C.12.2)."""
    instances = _element(0x0008114A, b"SQ", references(shown))
    return _raw("ReferencedSeriesSequence", _item(instances, _uid(0x0020000E, series_instance_uid)))


def _derivation(plane: Plane, how: Code) -> bytes:
    number = b"" if plane.frame_number is None else _element(0x00081160, b"IS", str(plane.frame_number).encode())
    source = _item(
        _uid(0x00081150, plane.sop_class_uid),
        _uid(0x00081155, plane.sop_instance_uid),
        number,
        _element(0x0028135A, b"CS", b"YES"),  # Spatial Locations Preserved
        _element(0x0040A170, b"SQ", _code(_PURPOSE)),
    )
    derived = _item(_element(0x00082112, b"SQ", source), _element(0x00089215, b"SQ", _code(how)))
    return _element(0x00089124, b"SQ", derived)


def _content(frame: Frame) -> bytes:
    index = (frame.place,) if frame.segment is None else (frame.segment, frame.place)
    return _element(0x00209111, b"SQ", _item(_element(0x00209157, b"UL", struct.pack(f"<{len(index)}I", *index))))


def _position(plane: Plane) -> bytes:
    numbers = "\\".join(str(DS(number, auto_format=True)) for number in plane.position_mm)
    return _element(0x00209113, b"SQ", _item(_element(0x00200032, b"DS", numbers.encode())))


def _identification(segment: int | None) -> bytes:
    return b"" if segment is None else _element(0x0062000A, b"SQ", _item(_element(0x0062000B, b"US", struct.pack("<H", segment))))


def _code(code: Code) -> bytes:
    texts = (0x00080100, b"SH", code.value), (0x00080102, b"SH", code.scheme_designator), (0x00080104, b"LO", code.meaning)
    return _item(*(_element(tag, vr, text.encode()) for tag, vr, text in texts))


def _uid(tag: int, uid: str) -> bytes:
    return _element(tag, b"UI", uid.encode())


def _element(tag: int, vr: bytes, value: bytes) -> bytes:
    value += _PAD.get(vr, b" ") * (len(value) % 2)
    group, number = tag >> 16, tag & 0xFFFF
    head = _LONG.pack(group, number, vr, 0, len(value)) if vr == b"SQ" else _SHORT.pack(group, number, vr, len(value))
    return head + value


def _item(*elements: bytes) -> bytes:
    content = b"".join(elements)
    return _ITEM.pack(0xFFFE, 0xE000, len(content)) + content


def _raw(keyword: str, items: bytes) -> RawDataElement:
    """Return a sequence that is written as it stands, and decoded only where somebody looks into it."""
    return RawDataElement(BaseTag(Tag(keyword)), "SQ", len(items), items, 0, False, True)


# ----------------------------------------------------------------------------------------------------------------- pixels


def packed(labels: np.ndarray, frames: Sequence[Frame], numbers: Sequence[int]) -> BytesIO:
    """Return one bit for each voxel of BINARY frames, frame after frame without a gap, the first voxel lowest (PS3.5 8.1.1, 8.2).

    The bytes come in a buffer, which pydicom writes as it is: of bytes it would make two more copies.

    labels: (slice, row, column), segment numbers of the manifest. numbers: segment number in the object, less 1 -> in the manifest.
    """
    data = BytesIO()
    mask = np.empty((_AT_ONCE, labels[0].size), bool)
    for start in range(0, len(frames), _AT_ONCE):
        some = frames[start : start + _AT_ONCE]
        for frame, voxels in zip(some, mask, strict=False):
            np.equal(labels[frame.plane.slice_index].reshape(-1), numbers[(frame.segment or 0) - 1], out=voxels)
        data.write(np.packbits(mask[: len(some)], bitorder="little").data)
    return _even(data)


def labelled(labels: np.ndarray, frames: Sequence[Frame], numbers: Sequence[int]) -> BytesIO:
    """Return the segment number of each voxel of LABELMAP frames, in one byte, or two where there are more than 255 segments.

    labels, numbers: as for `packed`.
    """
    table = np.zeros(int(labels.max()) + 1, "<u1" if len(numbers) < 256 else "<u2")
    table[list(numbers)] = range(1, len(numbers) + 1)
    data = BytesIO()
    for frame in frames:
        data.write(table[labels[frame.plane.slice_index]].data)
    return _even(data)


def graded(fractions: np.ndarray, frames: Sequence[Frame], numbers: Sequence[int]) -> BytesIO:
    """Return the fraction of each voxel of FRACTIONAL frames in one byte (PS3.3 C.8.20.2.3).

    fractions: (segment, slice, row, column), 255 being 1.0. numbers: as for `packed`.
    """
    data = BytesIO()
    for frame in frames:
        data.write(np.ascontiguousarray(fractions[numbers[(frame.segment or 0) - 1] - 1, frame.plane.slice_index]).data)
    return _even(data)


def _even(data: BytesIO) -> BytesIO:
    """Return what was written, padded with a null to an even length (PS3.5 8.1.1)."""
    data.write(b"\0" * (data.tell() % 2))
    data.seek(0)
    return data
