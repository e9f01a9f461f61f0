"""Frames of an image, found in its file without reading the others (PS3.18 10.4.1.1.5): as they are stored, or decoded where nothing was lost."""

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from dicom_node.coding.frames import LOSSLESS
from dicom_node.coding.pixels import ALLOCATED, COLUMNS, FRAMES, KEPT, LENGTHS, OFFSETS, PHOTOMETRIC, ROWS, SAMPLES, UNREADABLE, Frames
from dicom_node.domain import Unsuitable
from dicom_node.web.dicomweb.accept import ANY, Choice, MediaType
from dicom_node.web.dicomweb.elements import ITEM, PIXEL_DATA, SEQUENCE_END, UNDEFINED, Elements, Readable, Unreadable
from dicom_node.web.dicomweb.objects import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT
from dicom_node.web.dicomweb.parts import AT_ONCE_BYTES, Bytes

OCTETS = "application/octet-stream"
_PLAIN = (EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED)
_JPEG, _JP2, _JPX, _JPHC, _MPEG, _MP4 = "image/jpeg", "image/jp2", "image/jpx", "image/jphc", "video/mpeg", "video/mp4"
_1_2_4 = "1.2.840.10008.1.2.4"
CODED: Mapping[str, str] = {  # transfer syntax -> media type (PS3.18 Tables 8.7.3-2 and 8.7.3-4)
    "1.2.840.10008.1.2.5": "image/dicom-rle",
    **{f"{_1_2_4}.{number}": _JPEG for number in (50, 51, 57, 70)},
    **{f"{_1_2_4}.{number}": "image/jls" for number in (80, 81)},
    **{f"{_1_2_4}.{number}": _JP2 for number in (90, 91)},
    **{f"{_1_2_4}.{number}": _JPX for number in (92, 93)},
    **{f"{_1_2_4}.{number}": _JPHC for number in (201, 202, 203)},
    **{f"{_1_2_4}.{number}": "image/jxl" for number in (110, 111, 112)},
    **{f"{_1_2_4}.{number}": _MPEG for number in (100, 101)},
    **{f"{_1_2_4}.{number}": _MP4 for number in (102, 103, 104, 105, 106, 107, 108)},
}
_WANTED = KEPT | {OFFSETS, LENGTHS}
_PIXELS = {PIXEL_DATA: 0, 0x7FE00008: 32, 0x7FE00009: 64}  # bits of a sample, where its element says
_SMALL_BYTES = 64
_OFFSETS_BYTES = 1 << 24  # of a table of two million frames
_FRAGMENTS = 1 << 22
_DECODED_BYTES = 32 << 20  # of frames that are decoded at a time
_END_OF_IMAGE = b"\xff\xd9"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where in a data set its frames are."""

    kept: Mapping[int, bytes]  # what the header says of pixels
    number: int  # of frames
    start: int = 0  # of pixels that are not coded
    length: int = 0
    frame_bits: int = 0
    begins: Sequence[int] = ()  # of each fragment of coded ones
    lengths: Sequence[int] = ()
    firsts: Sequence[int] = ()  # of each frame: its first fragment; one more for the end

    @property
    def is_coded(self) -> bool:
        """Whether its frames are fragments (PS3.5 A.4)."""
        return self.start == 0

    def ranges(self, number: int) -> list[tuple[int, int]]:
        """Return where a frame's bytes begin and how many there are, piece by piece; frames are counted from 1.

        Raises
        ------
        LookupError: there is no such frame.
        """
        if not 1 <= number <= self.number:
            raise LookupError("no such frame")
        if self.is_coded:
            return [(self.begins[at], self.lengths[at]) for at in range(self.firsts[number - 1], self.firsts[number])]
        first, last = (number - 1) * self.frame_bits // 8, -(-number * self.frame_bits // 8)
        if last > self.length:
            raise LookupError("its pixels are cut short")
        return [(self.start + first, last - first)]


def layout(elements: Elements, transfer_syntax_uid: str) -> Layout | None:
    """Return where an image's frames are; None where it has none.

    Raises
    ------
    Unreadable: they cannot be told apart.
    """
    kept: dict[int, bytes] = {}
    for tag, _, start, length in elements.within(0, elements.size, elements.implicit):
        if tag in _PIXELS:
            if length != UNDEFINED:
                return _plain(kept, start, min(length, elements.size - start), _PIXELS[tag])
            found = Layout(kept=kept, number=_count(kept))
            return _coded(elements, found, start, transfer_syntax_uid)
        if tag in _WANTED and length <= (_OFFSETS_BYTES if tag in (OFFSETS, LENGTHS) else _SMALL_BYTES):
            kept[tag] = elements.value(start, length)
    return None


def _plain(kept: Mapping[int, bytes], start: int, length: int, bits: int) -> Layout:
    rows, columns, samples = (int.from_bytes(kept.get(tag, b"")[:2], "little") for tag in (ROWS, COLUMNS, SAMPLES))
    bits = bits or int.from_bytes(kept.get(ALLOCATED, b"")[:2], "little")
    if kept.get(PHOTOMETRIC, b"").strip(b" \0") in (b"YBR_FULL_422", b"YBR_PARTIAL_422"):
        samples = 2  # two pixels share their colours (PS3.3 C.7.6.3.1.2)
    if not rows * columns * bits:
        raise Unreadable("an image without a description of its pixels")
    return Layout(kept=kept, number=_count(kept), start=start, length=length, frame_bits=rows * columns * max(samples, 1) * bits)


def _count(kept: Mapping[int, bytes]) -> int:
    said = kept.get(FRAMES, b"").strip(b" \0")
    return int(said) if said.isdigit() and int(said) else 1


def _coded(elements: Elements, found: Layout, start: int, transfer_syntax_uid: str) -> Layout:
    """Find the fragments, and which of them are a frame's (PS3.5 A.4)."""
    begins, lengths = array("Q"), array("Q")
    at, table = start, b""
    for number in range(_FRAGMENTS):
        tag, _, content, length = elements.head(at, False)
        if tag == SEQUENCE_END:
            break
        if tag != ITEM or content + length > elements.size:
            raise Unreadable("its fragments are cut short")
        if number == 0:
            table = elements.value(content, length) if length <= _OFFSETS_BYTES else b""
        else:
            begins.append(content)
            lengths.append(length)
        at = content + length
    else:
        raise Unreadable("too many fragments")
    found = replace(found, begins=begins, lengths=lengths)
    offsets = _table(found.kept.get(OFFSETS, b""), 8) or _table(table, 4)
    firsts = _firsts(elements, found, offsets, transfer_syntax_uid)
    return replace(found, firsts=firsts, number=len(firsts) - 1)


def _table(raw: bytes, width: int) -> Sequence[int]:
    return tuple(np.frombuffer(raw[: len(raw) // width * width], f"<u{width}").tolist())


def _firsts(elements: Elements, found: Layout, offsets: Sequence[int], transfer_syntax_uid: str) -> Sequence[int]:
    """Return which fragment each frame begins with, and how many fragments there are."""
    count, begins, lengths = found.number, found.begins, found.lengths
    if count == 1 or CODED.get(transfer_syntax_uid) in (_MPEG, _MP4):
        return (0, len(begins))
    if len(begins) == count:
        return range(count + 1)
    if len(offsets) == count:
        base = begins[0] - 8 if begins else 0  # of the first fragment's item
        firsts = [bisect_left(begins, base + offset + 8) for offset in offsets]
        if all(at < len(begins) and begins[at] == base + offset + 8 for at, offset in zip(firsts, offsets, strict=True)):
            return (*firsts, len(begins))
    ends = [number for number in range(len(begins)) if _ends(elements, begins[number], lengths[number])]
    if len(ends) == count and ends[-1] == len(begins) - 1:
        return (0, *(number + 1 for number in ends))
    raise Unreadable("which fragments are a frame's is not said")


def _ends(elements: Elements, start: int, length: int) -> bool:
    """Say whether an image's code ends with a fragment."""
    return elements.value(start + max(0, length - 4), min(length, 4)).rstrip(b"\0").endswith(_END_OF_IMAGE)


# ------------------------------------------------------------------------------------------------------- representations


def offers(transfer_syntax_uid: str) -> tuple[MediaType, ...]:
    """Return the media types that frames can be had in, the default first (PS3.18 8.7.3.3)."""
    names = [OCTETS] if transfer_syntax_uid in _PLAIN else [OCTETS, CODED.get(transfer_syntax_uid, OCTETS)]
    return tuple(MediaType(name=name, multipart=multipart) for name in dict.fromkeys(names) for multipart in (True, False))


@dataclass(frozen=True, slots=True, kw_only=True)
class Representation:
    """How frames go out."""

    content_type: str
    decoded: bool = False


def representation(transfer_syntax_uid: str, choice: Choice) -> Representation | None:
    """Return how frames go out for a choice; None where they cannot be had so.

    As octets in no transfer syntax, or in Explicit VR Little Endian, they are not coded: where that would take decoding what lost something when it
    was coded, they cannot be had so.
    """
    name, asked = choice.media_type.name, choice.transfer_syntax_uid
    if transfer_syntax_uid in _PLAIN:
        return Representation(content_type=OCTETS) if name == OCTETS and asked in ("", ANY, EXPLICIT) else None
    if name == OCTETS and asked in ("", EXPLICIT):
        return Representation(content_type=OCTETS, decoded=True) if transfer_syntax_uid in LOSSLESS else None
    if name in (OCTETS, CODED.get(transfer_syntax_uid)) and asked in ("", ANY, transfer_syntax_uid):
        return Representation(content_type=f"{name}; transfer-syntax={transfer_syntax_uid}")
    return None


# ------------------------------------------------------------------------------------------------------------------ bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One frame as it is stored, its file open for as long as it goes out."""

    file: Readable
    found: Layout
    number: int

    @property
    def size(self) -> int:
        """Of what goes out."""
        if self.found.is_coded:
            return sum(length for _, length in self.found.ranges(self.number))
        return -(-self.found.frame_bits // 8)

    @contextmanager
    def open(self) -> Iterator[tuple[int, Iterator[bytes]]]:
        """Lend its bytes; one of single bits begins with a byte of its own."""
        bits = self.found.frame_bits
        before = (self.number - 1) * bits % 8
        stored = (part for one in self.found.ranges(self.number) for part in value(self.file, *one))
        yield self.size, self._shifted(before) if before or bits % 8 else stored

    def _shifted(self, before: int) -> Iterator[bytes]:
        ((start, length),) = self.found.ranges(self.number)
        data = bytearray(length)
        self.file.read(memoryview(data), start)
        bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[before : before + self.found.frame_bits]
        yield np.packbits(bits, bitorder="little").tobytes()


def decoded(file: Readable, found: Layout, transfer_syntax_uid: str, numbers: Sequence[int]) -> Iterator[Bytes]:
    """Give frames decoded, some at a time.

    Raises
    ------
    Unsuitable: they cannot be.
    LookupError: there is no such frame.
    """
    try:
        frames = Frames.of({FRAMES: b"1", **{tag: raw for tag, raw in found.kept.items() if tag != FRAMES}}, transfer_syntax_uid)
    except UNREADABLE as error:
        raise Unsuitable(f"its pixels cannot be decoded: {error}") from error
    at_once = max(1, _DECODED_BYTES // frames.frame_bytes)
    for begin in range(0, len(numbers), at_once):
        coded = [b"".join(part for one in found.ranges(number) for part in value(file, *one)) for number in numbers[begin : begin + at_once]]
        yield from (Bytes(data=data) for data in frames.values(coded))


def value(file: Readable, start: int, length: int) -> Iterator[bytes]:
    """Read a part of a data set."""
    while length:
        data = bytearray(min(length, AT_ONCE_BYTES))
        file.read(memoryview(data), start)
        yield bytes(data)
        start += len(data)
        length -= len(data)


def listed(text: str) -> tuple[int, ...]:
    """Read a list of frames, counted from 1.

    Raises
    ------
    ValueError: it is none.
    """
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and len(part) <= 9 for part in parts):
        raise ValueError("frames are numbers with commas between them")
    return tuple(map(int, parts))
