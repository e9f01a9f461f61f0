"""Stored values out of files: never more memory than the file has bytes for, and a sentence when a file is not what its header says.

Uncompressed pixels are read straight into place. Compressed ones are decoded by named plug-ins of pydicom, none of them under the GPL.
"""

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from dicom_node.assemble.headers import SEND_AGAIN, UNREADABLE, Frame, Image, opened
from dicom_node.domain import Unsuitable

_NATIVE = {ImplicitVRLittleEndian: "<", ExplicitVRLittleEndian: "<", DeflatedExplicitVRLittleEndian: "<", ExplicitVRBigEndian: ">"}

# Transfer syntax -> pydicom's plug-ins for it, best first.
_PLUGINS: dict[str, tuple[str, ...]] = {
    JPEGBaseline8Bit: ("pillow", "gdcm"),
    JPEGExtended12Bit: ("pillow", "gdcm"),
    JPEGLossless: ("gdcm",),
    JPEGLosslessSV1: ("gdcm",),
    JPEGLSLossless: ("pyjpegls", "gdcm"),
    JPEGLSNearLossless: ("pyjpegls", "gdcm"),
    JPEG2000Lossless: ("pylibjpeg", "gdcm"),
    JPEG2000: ("pylibjpeg", "gdcm"),
    HTJ2KLossless: ("pylibjpeg",),
    HTJ2KLosslessRPCL: ("pylibjpeg",),
    HTJ2K: ("pylibjpeg",),
    RLELossless: ("pylibjpeg", "pydicom"),
}

_FLOATS = {0x0008: "f4", 0x0009: "f8"}  # element of group 7FE0 -> type, for Float and Double Float Pixel Data
_LONG_VRS = (b"OB", b"OW", b"OF", b"OD", b"UN")
_UNDEFINED = 0xFFFFFFFF
_END_OF_IMAGE = b"\xff\xd9"
_RLE_EXPANDS = 64  # at most: two bytes become 128 (PS3.5 G.3.1)

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Element:
    """Where in a file the pixels are, and as what."""

    value_at: int
    size_bytes: int  # that the file has for it
    dtype: np.dtype[Any]
    shift_left: int = 0  # what brings the highest stored bit to the top
    shift_right: int = 0  # what then brings the lowest stored bit to the bottom


def check(image: Image) -> None:
    """Refuse an image whose pixels could not be read, before any memory is set aside for them.

    Raises
    ------
    Unsuitable: colour, an odd number of bits, a transfer syntax without decoder, or fewer bytes than the header declares.
    """
    try:
        element = _element(image)
    except UNREADABLE as error:
        raise Unsuitable(f"the pixels of {image.name} are not as its header says: {_plain(error)}", hint=SEND_AGAIN) from error
    if image.transfer_syntax_uid in _NATIVE:
        declared = image.frames * image.rows * image.columns * element.dtype.itemsize
        if element.size_bytes < declared:
            raise Unsuitable(f"{image.name} is cut short: {element.size_bytes} of {declared} bytes of pixels are there", hint=SEND_AGAIN)
    elif image.transfer_syntax_uid not in _PLUGINS:
        raise Unsuitable(
            f"{image.name} is encoded as {UID(image.transfer_syntax_uid).name}, which cannot be read here",
            hint="Have the sender send it uncompressed.",
        )


def stored_values(image: Image, wanted: Sequence[int]) -> Iterator[tuple[int, Array]]:
    """Yield (index, stored values (row, column)) of the wanted frames of one image, in stored order; an array lives until the next is asked for.

    Raises
    ------
    Unsuitable: the pixels cannot be decoded.
    """
    left = set(wanted)
    try:
        with opened(image.path) as file:
            element = _element(image)
            frames = _native(image, element, file, left) if image.transfer_syntax_uid in _NATIVE else _decoded(image, element, file, left)
            for index, stored in frames:
                left.discard(index)
                yield index, stored
    except UNREADABLE as error:
        raise Unsuitable(
            f"{image.name} cannot be decoded ({UID(image.transfer_syntax_uid).name})",
            hint=f"{SEND_AGAIN} If that does not help, send it uncompressed.",
        ) from error
    if left:
        raise Unsuitable(f"{image.name} is cut short: {len(left)} of its frames are missing", hint=SEND_AGAIN)


def same_pixels(frames: Sequence[Frame]) -> bool:
    """Say whether some slices hold the same stored values, with the same rescale."""
    group = "PixelValueTransformationSequence"
    if len({tuple(map(str, (frame.get("RescaleSlope", group), frame.get("RescaleIntercept", group)))) for frame in frames}) > 1:
        return False
    first, *others = frames
    expected = _one(first)
    return all(np.array_equal(expected, _one(other)) for other in others)


def _one(frame: Frame) -> Array:
    check(frame.image)
    return next(stored.copy() for _, stored in stored_values(frame.image, [frame.index]))


# -------------------------------------------------------------------------------------------------------- uncompressed


def _element(image: Image) -> _Element:
    """Read the head of the element that holds the pixels (PS3.5 §7.1), and of the header what they are (PS3.3 C.7.6.3)."""
    head = image.pixels_head
    implicit, little = image.header.original_encoding
    order = "<" if little else ">"
    element = struct.unpack(f"{order}HH", head[:4])[1]
    if implicit:
        value_at, length = image.pixels_at + 8, struct.unpack(f"{order}I", head[4:8])[0]
    elif head[4:6] in _LONG_VRS:
        value_at, length = image.pixels_at + 12, struct.unpack(f"{order}I", head[8:12])[0]
    else:
        raise ValueError("pixel data of an unknown kind")
    size = image.size_bytes - value_at if length == _UNDEFINED else min(length, image.size_bytes - value_at)
    if element in _FLOATS:
        return _Element(value_at=value_at, size_bytes=size, dtype=np.dtype(order + _FLOATS[element]))
    return _integers(image, value_at, size, order)


def _integers(image: Image, value_at: int, size: int, order: str) -> _Element:
    allocated, stored = int(image.value("BitsAllocated")), int(image.value("BitsStored"))
    stated = image.value("HighBit")
    high = stored - 1 if stated is None else int(stated)
    if image.samples != 1 or not str(image.value("PhotometricInterpretation")).startswith("MONOCHROME"):
        raise ValueError("they are in colour")
    if allocated not in (8, 16, 32) or not 0 < stored <= high + 1 <= allocated:
        raise ValueError(f"{stored} bits stored in {allocated}")
    dtype = np.dtype(f"{order}{'i' if image.value('PixelRepresentation') else 'u'}{allocated // 8}")
    return _Element(value_at=value_at, size_bytes=size, dtype=dtype, shift_left=allocated - 1 - high, shift_right=allocated - stored)


def _native(image: Image, element: _Element, file: BinaryIO, wanted: set[int]) -> Iterator[tuple[int, Array]]:
    """Read frames into one buffer that is used again; unused bits, which old overlays may occupy, are cleared."""
    size = image.rows * image.columns * element.dtype.itemsize
    buffer = bytearray(size)
    stored = np.frombuffer(buffer, dtype=element.dtype).reshape(image.rows, image.columns)
    for index in sorted(wanted):
        file.seek(element.value_at + index * size)
        if file.readinto(buffer) != size:  # type: ignore[attr-defined]
            raise EOFError("cut short")
        if element.dtype.itemsize == 1 and element.dtype.byteorder == ">":
            raise ValueError("bytes in words of big-endian order")
        if element.shift_right:
            np.left_shift(stored, element.shift_left, out=stored)
            np.right_shift(stored, element.shift_right, out=stored)
        yield index, stored


# ---------------------------------------------------------------------------------------------------------- compressed


def _decoded(image: Image, element: _Element, file: BinaryIO, wanted: set[int]) -> Iterator[tuple[int, Array]]:
    """Decode the wanted frames one by one; what a plug-in cannot decode is not tried with another, which might make something up."""
    header = image.header
    file.seek(element.value_at)
    offsets = header.get("ExtendedOffsetTable"), header.get("ExtendedOffsetTableLengths")
    options = {
        "rows": image.rows,
        "columns": image.columns,
        "number_of_frames": 1,
        "samples_per_pixel": 1,
        "bits_allocated": int(header.BitsAllocated),
        "bits_stored": int(header.BitsStored),
        "pixel_representation": int(header.PixelRepresentation),
        "photometric_interpretation": str(header.PhotometricInterpretation),
        "pixel_keyword": "PixelData",
    }
    coded_frames = generate_frames(file, number_of_frames=image.frames, extended_offsets=offsets if all(offsets) else None)
    for index, coded in enumerate(coded_frames):
        if index in wanted:
            _fits(image, element, coded)
            yield index, _decode(image.transfer_syntax_uid, encapsulate([coded], has_bot=False), options)


def _decode(transfer_syntax_uid: str, encapsulated: bytes, options: dict[str, Any]) -> Array:
    decoder = get_decoder(transfer_syntax_uid)
    plugin = next((name for name in _PLUGINS[transfer_syntax_uid] if name in decoder.available_plugins), None)
    if plugin is None:
        raise ValueError("no decoder is installed")
    return decoder.as_array(encapsulated, decoding_plugin=plugin, **options)[0]


def _fits(image: Image, element: _Element, coded: bytes) -> None:
    """Refuse a frame whose own idea of its size differs from the header's: a decoder would set memory aside for it."""
    if image.transfer_syntax_uid == RLELossless:
        if len(coded) * _RLE_EXPANDS < image.rows * image.columns * element.dtype.itemsize:
            raise ValueError("too few bytes")
        return
    if _coded_size(coded) != (image.rows, image.columns):
        raise ValueError("coded in another size than the header says")
    # CharLS reads on past the end of a JPEG-LS stream that lacks its end marker, through whatever memory follows.
    if image.transfer_syntax_uid in (JPEGLSLossless, JPEGLSNearLossless) and not coded.rstrip(b"\0").endswith(_END_OF_IMAGE):
        raise ValueError("cut short")


def _coded_size(coded: bytes) -> tuple[int, int]:
    """Return (rows, columns) from a JPEG or JPEG-LS frame header (ISO 10918-1 B.2.2) or a JPEG 2000 SIZ segment (ISO 15444-1 A.5.1)."""
    siz = coded.find(b"\xff\x4f\xff\x51", 0, 1024)
    if siz >= 0:
        columns, rows, left, top = struct.unpack_from(">4I", coded, siz + 8)
        return rows - top, columns - left
    at = 2
    while coded[at] == 0xFF:
        marker, length = coded[at + 1], struct.unpack_from(">H", coded, at + 2)[0]
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            rows, columns = struct.unpack_from(">HH", coded, at + 5)
            return rows, columns
        at += 2 + length
    raise ValueError("no frame header")


def _plain(error: BaseException) -> str:
    """Return what an error of ours says; those of others may quote the header."""
    return str(error) if type(error) is ValueError and error.args and "\n" not in str(error) else "it cannot be understood"
