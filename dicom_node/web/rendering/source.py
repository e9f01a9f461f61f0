"""A file opened for its pixels: its header, and one frame's stored values at a time."""

import io
import struct
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.encaps import get_frame
from pydicom.filereader import read_dataset
from pydicom.pixels import get_decoder
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.coding.decoders import DECODERS, Coded
from dicom_node.coding.frames import PLUGINS, fits
from dicom_node.coding.unreadable import UNREADABLE
from dicom_node.domain import Unsuitable
from dicom_node.wire.message import Malformed
from dicom_node.wire.part10 import StoredFile

Array = np.ndarray[Any, Any]
_Read = TypeVar("_Read")

_NATIVE = {ImplicitVRLittleEndian: "<", ExplicitVRLittleEndian: "<", DeflatedExplicitVRLittleEndian: "<", ExplicitVRBigEndian: ">"}
_COLOURS = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT"})
_PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})  # Float, Double Float and Pixel Data
_FLOATS = {0x7FE00008: "f4", 0x7FE00009: "f8"}
_LONG_VRS = (b"OB", b"OW", b"OF", b"OD", b"UN")
_UNDEFINED = 0xFFFFFFFF
_INFLATED_BYTES = 2**28  # of a deflated file
_DEFERRED_BYTES = 2**24  # of one element: a longer one is not read before it is asked for
_HEADER_BYTES = 2**25  # of a header, without pixels; in memory it is some 25 times as much
_CACHED_AT_MOST = 16
_CACHED_BYTES = 2**23  # of headers that are kept for the next picture
MOST_PIXELS = 2**26  # of a frame
_CODED_MOST, _CODED_BESIDES_BYTES = 8, 2**20  # bytes of a sample, and of what is beside them, that a coded frame has at most
_DECODED_BYTES = 4  # of a sample
_MOST_FRAMES = 65536
_LOOKED_AT = (
    *("SOPClassUID", "SOPInstanceUID", "Modality", "SeriesDescription", "FrameOfReferenceUID", "ValueType", "ContentSequence", "VerificationFlag"),
    *("CompletionFlag", "PatientName", "PatientID", "PatientBirthDate", "StudyDate", "InstanceNumber", "Rows", "Columns", "SamplesPerPixel"),
    *("NumberOfFrames", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PhotometricInterpretation", "SegmentationType"),
    *("RepresentativeFrameNumber", "FrameTime", "RecommendedDisplayFrameRate", "CineRate"),
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """One file: its header without pixels, and where in it the pixels are."""

    path: Path
    header: Dataset
    transfer_syntax_uid: str
    pixels_at: int = -1  # of the value; in a deflated file, after inflating. Below 0: it has no pixels
    size_bytes: int = 0  # of the value
    header_bytes: int = 0  # before it
    floats: str = ""  # the type of Float and Double Float Pixel Data

    @property
    def is_image(self) -> bool:
        """Whether it has pixels."""
        return self.pixels_at >= 0

    @property
    def rows(self) -> int:
        """Rows (0028,0010)."""
        return _integer(self.header, "Rows")

    @property
    def columns(self) -> int:
        """Columns (0028,0011)."""
        return _integer(self.header, "Columns")

    @property
    def samples(self) -> int:
        """Samples per Pixel (0028,0002)."""
        return _integer(self.header, "SamplesPerPixel") or 1

    @property
    def frames(self) -> int:
        """How many there are."""
        return min(max(_integer(self.header, "NumberOfFrames"), 1), _MOST_FRAMES) if self.is_image else 0

    @property
    def allocated(self) -> int:
        """Bits Allocated (0028,0100)."""
        return _integer(self.header, "BitsAllocated")

    @property
    def stored(self) -> int:
        """Bits Stored (0028,0101)."""
        return _integer(self.header, "BitsStored") or self.allocated


class Lately(Generic[_Read]):
    """What was read of files lately, kept for the next picture as long as their headers together are not long."""

    def __init__(self, read: Callable[[Path], _Read], header_bytes: Callable[[_Read], int]) -> None:
        self._read = read
        self._header_bytes = header_bytes
        self._lock = threading.Lock()
        self._kept: dict[Path, _Read] = {}  # the one that was asked for last is the last

    def __call__(self, path: Path) -> _Read:
        """Return what is read of a file, whose content never changes; whatever prevents it is raised each time."""
        with self._lock:
            known = self._kept.pop(path, None)
            if known is not None:
                self._kept[path] = known
                return known
        found = self._read(path)
        with self._lock:
            self._kept[path] = found
            left = _CACHED_BYTES - sum(map(self._header_bytes, self._kept.values()))
            while (left < 0 or len(self._kept) > _CACHED_AT_MOST) and len(self._kept) > 1:
                left += self._header_bytes(self._kept.pop(next(iter(self._kept))))
        return found


class _Header(io.BufferedReader):
    """A file that is read for its header, of which so much is in memory and no more."""

    _left = _HEADER_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        self._left -= size if size is not None and size >= 0 else _HEADER_BYTES + 1
        if self._left < 0:
            raise ValueError("a header longer than is read")
        return super().read(size)


def _opened(path: Path) -> Source:
    """Read the header of a file."""
    try:
        with StoredFile(path) as file:
            syntax = file.meta.transfer_syntax_uid
            data_set_at = file.meta.data_set_at
        with io.FileIO(str(path)) as raw, _Header(raw) as file:
            if syntax != DeflatedExplicitVRLittleEndian:
                return _located(file, path, dcmread(file, stop_before_pixels=True, defer_size=_DEFERRED_BYTES), syntax)
        with path.open("rb") as whole, _Header(_inflated(whole, data_set_at)) as inflated:
            header = read_dataset(inflated, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, vr, length: tag in _PIXELS)
            return _located(inflated, path, header, syntax)
    except FileNotFoundError:
        raise
    except (*UNREADABLE, Malformed) as error:
        raise Unsuitable("an object cannot be read", hint="Have it sent again.") from error


opened = Lately(_opened, lambda source: source.header_bytes)
"""Read the header of a file.

Raises
------
Unsuitable: it cannot be understood.
FileNotFoundError: it is gone.
"""


def stored(source: Source, index: int) -> Array:
    """Return the stored values of a frame (row, column); in colour red, green and blue (row, column, 3).

    index: from 0.

    Raises
    ------
    Unsuitable: they cannot be read or decoded.
    FileNotFoundError: the file is gone.
    """
    refused = Unsuitable(f"its pixels cannot be shown ({UID(source.transfer_syntax_uid).name})", hint="Retrieve the object itself.")
    try:
        _check(source, index)
        if source.transfer_syntax_uid in _NATIVE:
            return _native(source, index)
        return _decoded(source, index, refused)
    except FileNotFoundError:
        raise
    except UNREADABLE as error:
        raise refused from error


def _integer(header: Dataset, keyword: str) -> int:
    """Return a number of a header, 0 where it has none, or something that is none."""
    value = header.get(keyword)
    return value if isinstance(value, int) else 0


def _located(file: BinaryIO, path: Path, header: Dataset, syntax: str) -> Source:
    """Find the value of the element that the file is at, if that holds pixels (PS3.5 7.1)."""
    at, head = file.tell(), file.read(12)
    unread = (one for one in header._dict.values() if isinstance(one, RawDataElement) and one.value is None)  # elements() would read them
    if any(one.length > _HEADER_BYTES and one.VR in (None, "SQ", "UN") for one in unread):
        raise ValueError("a sequence longer than is read")
    for keyword in _LOOKED_AT:
        header.get(keyword)  # what cannot be understood is met here, and nowhere after
    order = _NATIVE.get(UID(syntax), "<")
    tag = 0 if len(head) < 8 else struct.unpack(f"{order}HH", head[:4])[0] << 16 | struct.unpack(f"{order}HH", head[:4])[1]
    if tag not in _PIXELS:
        return Source(path=path, header=header, transfer_syntax_uid=syntax, header_bytes=at)
    if syntax == ImplicitVRLittleEndian:
        at, length = at + 8, struct.unpack("<I", head[4:8])[0]
    elif head[4:6] in _LONG_VRS:
        at, length = at + 12, struct.unpack(f"{order}I", head[8:12])[0]
    else:
        raise ValueError("pixel data of an unknown kind")
    there = file.seek(0, io.SEEK_END) - at
    size = there if length == _UNDEFINED else min(length, there)
    floats = _FLOATS.get(tag, "")
    return Source(path=path, header=header, transfer_syntax_uid=syntax, pixels_at=at, size_bytes=size, header_bytes=at, floats=floats)


def _inflated(file: BinaryIO, data_set_at: int) -> io.BytesIO:
    """Inflate a deflated data set (PS3.5 A.5)."""
    file.seek(data_set_at)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    data = inflater.decompress(file.read(), _INFLATED_BYTES)
    if inflater.unconsumed_tail:
        raise ValueError("it inflates to more than is allowed")
    return io.BytesIO(data)


def _check(source: Source, index: int) -> None:
    if not source.is_image or not 0 <= index < source.frames:
        raise ValueError("no such frame")
    samples, bits = source.samples, source.allocated
    if min(source.rows, source.columns) < 1 or samples not in (1, 3) or bits not in (1, 8, 16, 32, 64):
        raise ValueError("pixels of a kind that is not shown")
    if source.rows * source.columns * samples > MOST_PIXELS:
        raise ValueError("a frame larger than is shown")
    if samples == 3 and (str(source.header.PhotometricInterpretation) not in _COLOURS or bits not in (8, 16)):
        raise ValueError("pixels in a colour space that is not shown")


def _native(source: Source, index: int) -> Array:
    """Read a frame that is not compressed."""
    if source.allocated == 1:
        return _bits(source, index)
    count, order = source.rows * source.columns, _NATIVE[UID(source.transfer_syntax_uid)]
    if source.samples == 3:
        halved = source.header.PhotometricInterpretation == "YBR_FULL_422"  # two pixels share their differences (PS3.3 C.7.6.3.1.2)
        size = count * (2 if halved else 3) * (source.allocated // 8)
        data = _read(source, index * size, size)
        return get_decoder(ExplicitVRLittleEndian).as_array(data, index=0, **_options(source))[0]
    dtype = np.dtype(order + (source.floats or f"{'i' if source.header.get('PixelRepresentation') else 'u'}{source.allocated // 8}"))
    size = count * dtype.itemsize
    values = np.frombuffer(_read(source, index * size, size), dtype).reshape(source.rows, source.columns)
    return values if source.floats else _used(source, values)


def _used(source: Source, values: Array) -> Array:
    """Clear the bits beside those that are used: old overlays may occupy them."""
    high = int(source.header.get("HighBit", source.stored - 1))
    left, right = source.allocated - 1 - high, source.allocated - source.stored
    if not 0 <= left <= right < source.allocated:
        raise ValueError("bits that are not there")
    return values if not right else np.right_shift(np.left_shift(values, left), right)


def _bits(source: Source, index: int) -> Array:
    """Return a frame of one bit a pixel: frames follow one another without a gap, the first pixel lowest (PS3.5 8.1.1, 8.2)."""
    count = source.rows * source.columns
    first = index * count
    start, end = first // 8, -(-(first + count) // 8)
    unpacked = np.unpackbits(np.frombuffer(_read(source, start, end - start), np.uint8), bitorder="little")
    return unpacked[first - start * 8 :][:count].reshape(source.rows, source.columns)


def _read(source: Source, at: int, size: int) -> bytes:
    if at + size > source.size_bytes:
        raise EOFError("cut short")
    with source.path.open("rb") as file:
        whole: BinaryIO = file
        if source.transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
            with StoredFile(source.path) as one:
                whole = _inflated(file, one.meta.data_set_at)
        whole.seek(source.pixels_at + at)
        data = whole.read(size)
    if len(data) != size:
        raise EOFError("cut short")
    return data


class _Fragments(io.BufferedReader):
    """A file that is read for a coded frame: what is longer than one can be is not read."""

    def __init__(self, raw: io.FileIO, most_bytes: int) -> None:
        super().__init__(raw)
        self._most_bytes = most_bytes

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= self._most_bytes:
            raise ValueError("more bytes than a frame has")
        return super().read(size)


def _decoded(source: Source, index: int, refused: Unsuitable) -> Array:
    """Have a coded frame decoded, in a process of its own."""
    if source.transfer_syntax_uid not in PLUGINS or source.allocated not in (8, 16, 32):
        raise ValueError("no decoder")
    offsets = source.header.get("ExtendedOffsetTable"), source.header.get("ExtendedOffsetTableLengths")
    room_bytes = source.rows * source.columns * source.samples * _DECODED_BYTES
    most_bytes = source.rows * source.columns * source.samples * _CODED_MOST + _CODED_BESIDES_BYTES
    if source.frames == 1 and source.size_bytes > most_bytes + _CODED_BESIDES_BYTES:
        raise ValueError("more bytes than a frame has")
    with io.FileIO(str(source.path)) as raw, _Fragments(raw, most_bytes) as file:
        file.seek(source.pixels_at)
        data = get_frame(file, index, number_of_frames=source.frames, extended_offsets=offsets if all(offsets) else None)
    fits(data, source.transfer_syntax_uid, source.rows, source.columns, source.allocated // 8)
    kept: list[Array] = []
    coded = Coded(
        data=data,
        rows=source.rows,
        columns=source.columns,
        samples=source.samples,
        transfer_syntax_uid=source.transfer_syntax_uid,
        plugins=PLUGINS[source.transfer_syntax_uid],
        options=_options(source),
        refused=refused,
        take=lambda values: kept.append(values.copy()),
    )
    DECODERS.decode(iter([coded]), count=1, frame_bytes=room_bytes, coded_bytes=max(len(data), room_bytes) + _CODED_BESIDES_BYTES)
    return kept[0]


def _options(source: Source) -> dict[str, Any]:
    """Return what pydicom's decoders ask of a header, for one frame."""
    planar = int(source.header.get("PlanarConfiguration") or 0)
    return {
        "rows": source.rows,
        "columns": source.columns,
        "number_of_frames": 1,
        "samples_per_pixel": source.samples,
        "bits_allocated": source.allocated,
        "bits_stored": source.stored,
        "pixel_representation": int(source.header.get("PixelRepresentation") or 0),
        "photometric_interpretation": str(source.header.PhotometricInterpretation),
        "pixel_keyword": "PixelData",
        **({} if source.samples == 1 else {"planar_configuration": planar}),
    }
