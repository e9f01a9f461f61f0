"""Stored values out of files: never more memory than the file has bytes for, and a sentence when a file is not what its header says.

A frame in colour is given as red, green and blue. Uncompressed pixels are read by several threads, each through one buffer of a frame.
Compressed ones are decoded in processes of their own (`coding.decoders`).
"""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.assemble.headers import SEND_AGAIN, Frame, Image, opened
from dicom_node.coding.decoders import DECODERS, Coded, cores
from dicom_node.coding.frames import PLUGINS, fits
from dicom_node.coding.unreadable import UNREADABLE
from dicom_node.domain import Cause, Unsuitable

_NATIVE = {ImplicitVRLittleEndian: "<", ExplicitVRLittleEndian: "<", DeflatedExplicitVRLittleEndian: "<", ExplicitVRBigEndian: ">"}

_COLOURS = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT"})  # that are read, of 8 bits
_FLOATS = {0x0008: "f4", 0x0009: "f8"}  # element of group 7FE0 -> type, for Float and Double Float Pixel Data
_LONG_VRS = (b"OB", b"OW", b"OF", b"OD", b"UN")
_UNDEFINED = 0xFFFFFFFF
_WIDEST_BYTES = 4  # of a decoded pixel
_CODED_MOST, _CODED_BESIDES_BYTES = 8, 2**20  # bytes of a pixel, and of what is beside them, that a coded frame has at most
_PARTS_EACH = 4  # that a thread reads: the last to end is then not far behind
_PART_PIXELS = 2**21  # fewer are not worth another thread

Array = np.ndarray[Any, Any]
Take = Callable[[Image, int, Array], None]  # image, index of the frame, stored values (row, column), of colours (row, column, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Element:
    """Where in a file the pixels are, and as what."""

    value_at: int
    size_bytes: int  # that the file has for it
    frame_bytes: int  # of a frame that is not compressed
    dtype: np.dtype[Any]
    shift_left: int = 0  # what brings the highest stored bit to the top
    shift_right: int = 0  # what then brings the lowest stored bit to the bottom


def check(image: Image, *, colour: bool = False) -> None:
    """Refuse an image whose pixels could not be read, before any memory is set aside for them.

    colour: whether one in colour is taken.

    Raises
    ------
    Unsuitable: colour that is not taken or not of 8 bits, an odd number of bits, a transfer syntax without decoder, or fewer bytes than the
        header declares.
    """
    cause = Cause.FORMAT
    try:
        if not colour and not str(image.value("PhotometricInterpretation")).startswith("MONOCHROME"):
            cause = Cause.TYPES
            raise ValueError("they are in colour")
        element = _element(image)
    except UNREADABLE as error:
        said = f"the pixels of {image.name} are not as its header says: {_plain(error)}"
        raise Unsuitable(said, hint=SEND_AGAIN, cause=cause) from error
    if image.transfer_syntax_uid in _NATIVE:
        declared = image.frames * element.frame_bytes
        if element.size_bytes < declared:
            said = f"{image.name} is cut short: {element.size_bytes} of {declared} bytes of pixels are there"
            raise Unsuitable(said, hint=SEND_AGAIN, cause=Cause.FORMAT)
    elif image.transfer_syntax_uid not in PLUGINS:
        raise Unsuitable(
            f"{image.name} is encoded as {UID(image.transfer_syntax_uid).name}, which cannot be read here",
            hint="Have the sender send it uncompressed.",
            cause=Cause.FORMAT,
        )


def take_all(wanted: Mapping[Image, Sequence[int]], take: Take) -> None:
    """Hand the stored values (row, column) of the wanted frames of some images to `take`, in no certain order and from several threads at once.

    Of an image in colour they are red, green and blue (row, column, 3). An array lives until `take` returns.

    Raises
    ------
    Unsuitable: of the images whose pixels cannot be read or decoded, the first; and whatever `take` raises of that kind.
    """
    coded = {image: indices for image, indices in wanted.items() if image.transfer_syntax_uid not in _NATIVE}
    inflated = [image for image in wanted if image.transfer_syntax_uid == DeflatedExplicitVRLittleEndian]
    parts = _parts([(image, index) for image, indices in wanted.items() if image not in coded and image not in inflated for index in indices])
    if len(parts) > 1:
        _in_threads(parts, take)
    else:
        for part in parts:
            _take_part(part, take)
    for image in inflated:  # one after the other: each is in memory as a whole
        _take_part([(image, index) for index in wanted[image]], take)
    if coded:
        _take_coded(coded, take)


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
    kept: list[Array] = []
    take_all({frame.image: [frame.index]}, lambda image, index, stored: kept.append(stored.copy()))
    return kept[0]


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
        dtype = np.dtype(order + _FLOATS[element])
        return _Element(value_at=value_at, size_bytes=size, frame_bytes=image.rows * image.columns * dtype.itemsize, dtype=dtype)
    if not little and head[4:6] == b"OW" and image.value("BitsAllocated") == 8:
        raise ValueError("bytes in words of big-endian order")
    return (_integers if image.samples == 1 else _colours)(image, value_at, size, order)


def _integers(image: Image, value_at: int, size: int, order: str) -> _Element:
    allocated, stored = int(image.value("BitsAllocated")), int(image.value("BitsStored"))
    stated = image.value("HighBit")
    high = stored - 1 if stated is None else int(stated)
    if allocated not in (8, 16, 32) or not 0 < stored <= high + 1 <= allocated:
        raise ValueError(f"{stored} bits stored in {allocated}")
    dtype = np.dtype(f"{order}{'i' if image.value('PixelRepresentation') else 'u'}{allocated // 8}")
    frame_bytes = image.rows * image.columns * dtype.itemsize
    shifts = {"shift_left": allocated - 1 - high, "shift_right": allocated - stored}
    return _Element(value_at=value_at, size_bytes=size, frame_bytes=frame_bytes, dtype=dtype, **shifts)


def _colours(image: Image, value_at: int, size: int, order: str) -> _Element:
    space, bits = str(image.value("PhotometricInterpretation")), (image.value("BitsAllocated"), image.value("BitsStored"))
    if image.samples != 3 or space not in _COLOURS or bits != (8, 8) or image.value("PixelRepresentation"):
        raise ValueError(f"{image.samples} samples of {bits[1]} bits in the colour space {space}")
    samples = 2 if space == "YBR_FULL_422" else 3  # of a pixel: both differences of two neighbours stand once (PS3.3 C.7.6.3.1.2)
    return _Element(value_at=value_at, size_bytes=size, frame_bytes=image.rows * image.columns * samples, dtype=np.dtype("u1"))


def _parts(frames: Sequence[tuple[Image, int]]) -> list[Sequence[tuple[Image, int]]]:
    """Part frames for the threads: few enough that each is worth it, enough that none waits long for another at the end."""
    largest = max((image.rows * image.columns for image, _ in frames), default=0)
    each = max(1, -(-len(frames) // (_PARTS_EACH * cores())), _PART_PIXELS // max(1, largest))
    return [frames[start : start + each] for start in range(0, len(frames), each)]


def _in_threads(parts: Sequence[Sequence[tuple[Image, int]]], take: Take) -> None:
    """Reading and arithmetic let other threads run: there is one for each core."""
    with ThreadPoolExecutor(min(cores(), len(parts)), thread_name_prefix="read") as threads:
        doing = [threads.submit(_take_part, part, take) for part in parts]
        try:
            for one in doing:
                one.result()
        finally:
            threads.shutdown(cancel_futures=True)


def _take_part(frames: Sequence[tuple[Image, int]], take: Take) -> None:
    for image, index, stored in _native(frames):
        take(image, index, stored)


def _native(frames: Sequence[tuple[Image, int]]) -> Iterator[tuple[Image, int, Array]]:
    """Read frames one after another into one buffer that is used again."""
    buffer = bytearray()
    for image, group in groupby(frames, key=lambda frame: frame[0]):
        deflated = image.transfer_syntax_uid == DeflatedExplicitVRLittleEndian
        try:
            element = _element(image)
            if len(buffer) != element.frame_bytes:
                buffer = bytearray(element.frame_bytes)
            stored = np.frombuffer(buffer, element.dtype)
            stored = stored.reshape(image.rows, image.columns) if image.samples == 1 else stored
            with opened(image.path) if deflated else image.path.open("rb", buffering=0) as file:
                for _, index in group:
                    _read_into(buffer, stored, file, element, index)
                    yield image, index, stored if image.samples == 1 else _as_rgb(image, buffer)
        except UNREADABLE as error:
            raise _undecodable(image) from error


def _read_into(buffer: bytearray, stored: Array, file: Any, element: _Element, index: int) -> None:
    """Read one frame; unused bits, which old overlays may occupy, are cleared."""
    file.seek(element.value_at + index * len(buffer))
    if file.readinto(buffer) != len(buffer):
        raise EOFError("cut short")
    if element.shift_right:
        np.left_shift(stored, element.shift_left, out=stored)
        np.right_shift(stored, element.shift_right, out=stored)


def _as_rgb(image: Image, data: bytearray) -> Array:
    """Return one uncompressed frame in colour as red, green and blue (row, column, 3), whatever its colour space and the order of its planes."""
    return get_decoder(ExplicitVRLittleEndian).as_array(bytes(data), index=0, **_options(image))[0]


# ---------------------------------------------------------------------------------------------------------- compressed


def _take_coded(wanted: Mapping[Image, Sequence[int]], take: Take) -> None:
    """Have frames decoded; what a plug-in cannot decode is not tried with another, which might make something up."""
    frame_bytes = max(image.rows * image.columns * _WIDEST_BYTES for image in wanted)
    coded_bytes = max(min(_element(image).size_bytes, _CODED_MOST * image.rows * image.columns + _CODED_BESIDES_BYTES) for image in wanted)
    frames = (frame for image, indices in wanted.items() for frame in _coded(image, set(indices), take))
    DECODERS.decode(frames, count=sum(map(len, wanted.values())), frame_bytes=frame_bytes, coded_bytes=coded_bytes)


def _coded(image: Image, wanted: set[int], take: Take) -> Iterator[Coded]:
    """Yield the wanted frames of one image as they are in the file.

    Raises
    ------
    Unsuitable: they are not there, or are not what the header says.
    """
    left = set(wanted)
    try:
        options, element = _options(image), _element(image)
        offsets = image.value("ExtendedOffsetTable"), image.value("ExtendedOffsetTableLengths")
        with image.path.open("rb") as file:
            file.seek(element.value_at)
            for index, data in enumerate(generate_frames(file, number_of_frames=image.frames, extended_offsets=offsets if all(offsets) else None)):
                if index in left:
                    left.discard(index)
                    fits(data, image.transfer_syntax_uid, image.rows, image.columns, element.dtype.itemsize)
                    yield Coded(
                        data=data,
                        rows=image.rows,
                        columns=image.columns,
                        samples=image.samples,
                        transfer_syntax_uid=image.transfer_syntax_uid,
                        plugins=PLUGINS[image.transfer_syntax_uid],
                        options=options,
                        refused=_undecodable(image),
                        take=partial(take, image, index),
                    )
    except UNREADABLE as error:
        raise _undecodable(image) from error
    if left:
        raise Unsuitable(f"{image.name} is cut short: {len(left)} of its frames are missing", hint=SEND_AGAIN, cause=Cause.FORMAT)


def _options(image: Image) -> dict[str, Any]:
    """Return what pydicom's decoders ask of a header, for one frame."""
    return {
        "rows": image.rows,
        "columns": image.columns,
        "number_of_frames": 1,
        "samples_per_pixel": image.samples,
        "bits_allocated": int(image.value("BitsAllocated")),
        "bits_stored": int(image.value("BitsStored")),
        "pixel_representation": int(image.value("PixelRepresentation")),
        "photometric_interpretation": str(image.value("PhotometricInterpretation")),
        "pixel_keyword": "PixelData",
        **({} if image.samples == 1 else {"planar_configuration": int(image.value("PlanarConfiguration") or 0)}),
    }


def _undecodable(image: Image) -> Unsuitable:
    said = f"{image.name} cannot be decoded ({UID(image.transfer_syntax_uid).name})"
    return Unsuitable(said, hint=f"{SEND_AGAIN} If that does not help, send it uncompressed.", cause=Cause.FORMAT)


def _plain(error: BaseException) -> str:
    """Return what an error of ours says; those of others may quote the header."""
    return str(error) if type(error) is ValueError and error.args and "\n" not in str(error) else "it cannot be understood"
