"""What the files' headers say: an `Image` for each file, a `Frame` for each slice in it, and no pixel read yet.

Single-frame images and the functional groups of multi-frame ones (PS3.3 C.7.6.16) are told apart here and nowhere after.
"""

import io
import math
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.filereader import read_dataset, read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from dicom_node.assemble.elements import PIXELS, Odd, Reader, Short
from dicom_node.coding.unreadable import UNREADABLE
from dicom_node.domain import Cause, Unsuitable

SEND_AGAIN = "Send the series again from the scanner or the PACS."

_MAX_INFLATED = 2**30  # bytes of one deflated file, once inflated: a few kilobytes can inflate to a thousand times as much
_MAX_FRAMES = 65536  # of one image
_EXACT = 5e-5  # so far direction cosines may be from unit vectors at right angles and be left as they are, as highdicom has them
_ROUNDED = 0.01  # and so far they may be and be mended: written with two digits
_FIRST_BYTES = 16384  # of a file: they hold the header of most single-frame images
_PIXELS_HEAD_BYTES = 12  # tag, VR and length of the element that holds the pixels (PS3.5 §7.1), and a little of its value if they are shorter


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Image:
    """One file: its header without pixels, and where in it the pixels begin."""

    path: Path
    header: Dataset
    reader: Reader  # that all images of the series share
    uid: str
    sop_class_uid: str
    number: int | None  # InstanceNumber
    pixels_at: int  # offset of the element that holds the pixels; in a deflated file, after inflating
    pixels_head: bytes  # how that element begins
    size_bytes: int  # of the file; of a deflated one, after inflating
    single: bool  # whether it is a classic image, whose header itself describes its one slice
    frames: int
    rows: int
    columns: int
    samples: int  # of a pixel: more than one is colour
    transfer_syntax_uid: str

    @property
    def name(self) -> str:
        """What a radiographer would call it: never its path."""
        return "an image without number" if self.number is None else f"image {self.number}"

    def value(self, keyword: str) -> Any:
        """Return an attribute of the header, None without it.

        Raises
        ------
        One of UNREADABLE: its value is not of its type.
        """
        return self.reader.value(self.header, keyword)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """One slice, where it lies, and how it looks from outside."""

    image: Image
    index: int  # in its image, from 0
    position: tuple[float, ...]  # of the first pixel's centre, mm (LPS)
    orientation: tuple[float, ...]  # direction cosines along a row, then along a column
    spacing_mm: tuple[float, ...]  # between rows, between columns

    @property
    def name(self) -> str:
        """What a radiographer would call it."""
        return self.image.name if self.image.single else f"frame {self.index + 1} of {self.image.name}"

    @property
    def normal(self) -> np.ndarray[Any, Any]:
        """The direction in which slices are counted: with rows and columns it makes a right-handed system, as highdicom orders volumes."""
        return np.cross(self.orientation[3:], self.orientation[:3])

    def get(self, keyword: str, *groups: str) -> Any:
        """Return an attribute: of a multi-frame image from the first of these functional groups that has it, else from the header.

        Raises
        ------
        Unsuitable: its value is not of its type.
        """
        try:
            for group in () if self.image.single else groups:
                item = functional_group(self.image.header, self.index, group)
                if item is not None and keyword in item:
                    return item[keyword].value
            return self.image.value(keyword)
        except UNREADABLE as error:
            raise Unsuitable(f"{keyword} of {self.name} cannot be understood", hint=SEND_AGAIN, cause=Cause.FORMAT) from error

    @property
    def image_type(self) -> tuple[str, ...]:
        """Image Type, or Frame Type of a multi-frame image."""
        stated = self.get("FrameType", "CTImageFrameTypeSequence", "MRImageFrameTypeSequence", "PETFrameTypeSequence") or self.get("ImageType") or ()
        return (stated,) if isinstance(stated, str) else tuple(map(str, stated))


def read(paths: Sequence[Path]) -> tuple[Image, ...]:
    """Read the headers of some files, in order of InstanceNumber then UID, whatever the order of the paths.

    Raises
    ------
    Unsuitable: a file cannot be read as DICOM, or two different files carry the same UID.
    """
    images: dict[str, Image] = {}
    reader = Reader()
    for path in sorted(paths):
        try:
            image = _read_one(path, reader)
        except UNREADABLE as error:
            raise Unsuitable(f"one of the {len(paths)} files of this series cannot be read as DICOM", hint=SEND_AGAIN, cause=Cause.FORMAT) from error
        if image is not None:
            known = images.setdefault(image.uid, image)
            if known is not image and known.path.read_bytes() != path.read_bytes():
                hint = "Ask the sender which of the two is right."
                raise Unsuitable(f"{image.name} came twice with different content under one UID", hint=hint, cause=Cause.FORMAT)
    return tuple(sorted(images.values(), key=_by_number))


def frames_of(image: Image) -> tuple[Frame, ...]:
    """Return an image's slices, in the order in which they are stored; none of an image that is no slice (it states no place).

    Raises
    ------
    Unsuitable: the header contradicts itself or cannot be understood.
    """
    try:
        if image.single:
            return () if image.frames > 1 or "ImagePositionPatient" not in image.header else (_frame(image, 0),)
        if len(image.header.PerFrameFunctionalGroupsSequence) != image.frames:
            described = len(image.header.PerFrameFunctionalGroupsSequence)
            raise Unsuitable(f"{image.name} has {image.frames} frames but describes {described}", hint=SEND_AGAIN, cause=Cause.FORMAT)
        return tuple(_frame(image, index) for index in range(image.frames))
    except UNREADABLE as error:
        raise Unsuitable(
            f"where {image.name} lies in the patient cannot be understood from its header", hint=SEND_AGAIN, cause=Cause.FORMAT
        ) from error


def functional_group(header: Dataset, index: int, keyword: str) -> Any:
    """Return a functional group's item (a Dataset) of one frame: its own, else the one all frames share (PS3.3 C.7.6.16.1); None without."""
    for group in (header.PerFrameFunctionalGroupsSequence[index], *(header.get("SharedFunctionalGroupsSequence") or ())):
        items = group.get(keyword)
        if items:
            return items[0]
    return None


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a DICOM file for reading; of a deflated one (PS3.5 A.5), its inflated content, so that offsets mean the same."""
    with path.open("rb") as file:
        start = file.read(1024)
        file.seek(0)
        if DeflatedExplicitVRLittleEndian.encode() in start and read_file_meta_info(path).TransferSyntaxUID == DeflatedExplicitVRLittleEndian:
            yield _inflated(path, file)
        else:
            yield file


def _inflated(path: Path, file: BinaryIO) -> BinaryIO:
    """Return File Meta Information as it is and the data set inflated, up to a limit."""
    length = 132 + 12 + int(read_file_meta_info(path).FileMetaInformationGroupLength)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    content = io.BytesIO(file.read(length))
    content.seek(length)
    content.write(inflater.decompress(file.read(), _MAX_INFLATED))
    if inflater.unconsumed_tail:
        raise ValueError("inflates to more than is allowed")
    content.seek(0)
    return content


@dataclass(frozen=True, slots=True, kw_only=True)
class _Head:
    """A header and what the file says next."""

    header: Dataset
    pixels_at: int
    pixels_head: bytes
    size_bytes: int


def _head(path: Path, reader: Reader) -> _Head:
    """Read a file up to its pixels, and no further."""
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(_FIRST_BYTES) or b""
        while True:
            try:
                header, at = reader.header(data, whole=len(data) >= size)
            except Short:
                more = file.read(3 * len(data))
                if not more:
                    return _head_by_pydicom(path)
                data += more
            except Odd:
                return _head_by_pydicom(path)
            else:
                begins = data[at : at + _PIXELS_HEAD_BYTES]
                if len(begins) < _PIXELS_HEAD_BYTES:
                    begins = os.pread(file.fileno(), _PIXELS_HEAD_BYTES, at)
                return _Head(header=header, pixels_at=at, pixels_head=begins, size_bytes=size)


def _head_by_pydicom(path: Path) -> _Head:
    """Read a header that is not plain: deflated, of big-endian order, or of a writer who takes liberties."""
    with opened(path) as file:
        if isinstance(file, io.BytesIO):
            meta = read_file_meta_info(path)
            file.seek(132 + 12 + int(meta.FileMetaInformationGroupLength))
            header = read_dataset(file, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, vr, length: tag in PIXELS)
            header.file_meta = meta
        else:
            header = dcmread(file, stop_before_pixels=True)
        at = file.tell()
        return _Head(header=header, pixels_at=at, pixels_head=file.read(_PIXELS_HEAD_BYTES), size_bytes=file.seek(0, os.SEEK_END))


def _read_one(path: Path, reader: Reader) -> Image | None:
    """Read one header; None when the object holds no pixels."""
    head = _head(path, reader)
    rows, columns, frames, samples, number = (
        reader.value(head.header, keyword) for keyword in ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "InstanceNumber")
    )
    rows, columns = int(rows or 0), int(columns or 0)
    if not head.pixels_head or min(rows, columns) < 1:
        return None
    frames = int(frames or 1)
    if not 0 < frames <= _MAX_FRAMES:
        raise ValueError(f"{frames} frames")
    return Image(
        path=path,
        header=head.header,
        reader=reader,
        uid=reader.uid(head.header, "SOPInstanceUID"),
        sop_class_uid=str(reader.value(head.header, "SOPClassUID") or ""),
        number=None if number is None else int(number),
        pixels_at=head.pixels_at,
        pixels_head=head.pixels_head,
        size_bytes=head.size_bytes,
        single="PerFrameFunctionalGroupsSequence" not in head.header,
        frames=frames,
        rows=rows,
        columns=columns,
        samples=int(samples or 1),
        transfer_syntax_uid=str(reader.value(head.header.file_meta, "TransferSyntaxUID")),
    )


def _frame(image: Image, index: int) -> Frame:
    if image.single:
        position = image.reader.numbers(image.header, "ImagePositionPatient")
        orientation, spacing = image.value("ImageOrientationPatient"), image.value("PixelSpacing")
    else:
        place = functional_group(image.header, index, "PlanePositionSequence")
        plane = functional_group(image.header, index, "PlaneOrientationSequence")
        measures = functional_group(image.header, index, "PixelMeasuresSequence")
        if place is None or plane is None or measures is None:
            raise ValueError("a frame without a place")
        position, orientation, spacing = place.ImagePositionPatient, plane.ImageOrientationPatient, measures.PixelSpacing
    spacing_mm = _numbers(spacing, 2)
    if min(spacing_mm) <= 0:
        raise ValueError("pixels without size")
    return Frame(image=image, index=index, position=_numbers(position, 3), orientation=_directions(_numbers(orientation, 6)), spacing_mm=spacing_mm)


@lru_cache(maxsize=64)
def _directions(cosines: tuple[float, ...]) -> tuple[float, ...]:
    """Return direction cosines as they are if they are two unit vectors at right angles, mended if they were only written with few digits."""
    along_row, along_column = np.array(cosines[:3]), np.array(cosines[3:])
    lengths = np.linalg.norm(along_row), np.linalg.norm(along_column)
    off = max(abs(lengths[0] - 1), abs(lengths[1] - 1), abs(along_row @ along_column))
    if off > _ROUNDED:
        raise ValueError("rows and columns are not at right angles")
    if off <= _EXACT:
        return cosines
    along_row /= lengths[0]
    along_column -= along_row * (along_row @ along_column)
    return (*map(float, along_row), *map(float, along_column / np.linalg.norm(along_column)))


def _numbers(values: Any, count: int) -> tuple[float, ...]:
    found = tuple(float(value) for value in values)
    if len(found) != count or not all(map(math.isfinite, found)):
        raise ValueError(f"{count} numbers expected")
    return found


def _by_number(image: Image) -> tuple[float, str]:
    return float("inf") if image.number is None else image.number, image.uid
