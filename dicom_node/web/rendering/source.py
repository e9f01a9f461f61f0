"""A file opened for its pixels: its header, and one frame's stored values at a time."""

import io
import struct
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.encaps import get_frame
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.pixels import get_decoder
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.coding.decoders import DECODERS, Coded
from dicom_node.coding.frames import PLUGINS, fits
from dicom_node.domain import Unsuitable
from dicom_node.wire.message import Malformed
from dicom_node.wire.part10 import StoredFile

Array = np.ndarray[Any, Any]

# What reading bytes that are not what they claim to be raises, in pydicom and here.
UNREADABLE = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)

_NATIVE = {ImplicitVRLittleEndian: "<", ExplicitVRLittleEndian: "<", DeflatedExplicitVRLittleEndian: "<", ExplicitVRBigEndian: ">"}
_COLOURS = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT"})
_PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})  # Float, Double Float and Pixel Data
_FLOATS = {0x7FE00008: "f4", 0x7FE00009: "f8"}
_LONG_VRS = (b"OB", b"OW", b"OF", b"OD", b"UN")
_UNDEFINED = 0xFFFFFFFF
_INFLATED_BYTES = 2**28  # of a deflated file
_DEFERRED_BYTES = 2**24  # of one element of a header: a longer one is not read
MOST_PIXELS = 2**26  # of a frame
_CODED_BESIDES_BYTES = 2**20
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


@lru_cache(maxsize=16)
def opened(path: Path) -> Source:
    """Read the header of a file.

    Raises
    ------
    Unsuitable: it cannot be understood.
    FileNotFoundError: it is gone.
    """
    try:
        with StoredFile(path) as file:
            syntax = file.meta.transfer_syntax_uid
            data_set_at = file.meta.data_set_at
        with path.open("rb") as file:
            if syntax != DeflatedExplicitVRLittleEndian:
                return _located(file, path, dcmread(file, stop_before_pixels=True, defer_size=_DEFERRED_BYTES), syntax)
            inflated = _inflated(file, data_set_at)
            header = read_dataset(inflated, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, vr, length: tag in _PIXELS)
            return _located(inflated, path, header, syntax)
    except FileNotFoundError:
        raise
    except (*UNREADABLE, Malformed) as error:
        raise Unsuitable("an object cannot be read", hint="Have it sent again.") from error


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
    for keyword in _LOOKED_AT:
        header.get(keyword)  # what cannot be understood is met here, and nowhere after
    order = _NATIVE.get(UID(syntax), "<")
    tag = 0 if len(head) < 8 else struct.unpack(f"{order}HH", head[:4])[0] << 16 | struct.unpack(f"{order}HH", head[:4])[1]
    if tag not in _PIXELS:
        return Source(path=path, header=header, transfer_syntax_uid=syntax)
    if syntax == ImplicitVRLittleEndian:
        at, length = at + 8, struct.unpack("<I", head[4:8])[0]
    elif head[4:6] in _LONG_VRS:
        at, length = at + 12, struct.unpack(f"{order}I", head[8:12])[0]
    else:
        raise ValueError("pixel data of an unknown kind")
    there = file.seek(0, io.SEEK_END) - at
    size = there if length == _UNDEFINED else min(length, there)
    return Source(path=path, header=header, transfer_syntax_uid=syntax, pixels_at=at, size_bytes=size, floats=_FLOATS.get(tag, ""))


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


def _decoded(source: Source, index: int, refused: Unsuitable) -> Array:
    """Have a coded frame decoded, in a process of its own."""
    if source.transfer_syntax_uid not in PLUGINS or source.allocated not in (8, 16, 32):
        raise ValueError("no decoder")
    offsets = source.header.get("ExtendedOffsetTable"), source.header.get("ExtendedOffsetTableLengths")
    with source.path.open("rb") as file:
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
    room_bytes = source.rows * source.columns * source.samples * _DECODED_BYTES
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
