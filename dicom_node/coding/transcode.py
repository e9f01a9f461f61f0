"""A data set written anew without compression, little endian, with explicit or implicit value representations (PS3.5 Annex A): no value changes.

Elements are copied byte by byte, not read and written: a value that breaks the rules of its representation breaks them afterwards, too. Pixels
that were coded without loss are decoded, frame after frame, straight into the file; none are where something was lost.
"""

import os
import struct
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

import numpy as np
from pydicom.datadict import dictionary_has_tag, dictionary_VR, repeater_has_tag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, VR

from dicom_node.coding.frames import LOSSLESS
from dicom_node.coding.pixels import KEPT, LENGTHS, OFFSETS, PHOTOMETRIC, SIGNED, UNREADABLE, Frames, Kept
from dicom_node.domain import Unsuitable

PLAIN = (str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian))  # what is made
SOURCES = frozenset({*PLAIN, str(DeflatedExplicitVRLittleEndian), str(ExplicitVRBigEndian), *LOSSLESS})  # what it is made of

_UNDEFINED = 0xFFFFFFFF  # of a value's length
_SHORT_MOST_BYTES = 0xFFFE  # of a length of 16 bits
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXEL_DATA, _TOTAL = 0x7FE00010, 0x7FE00003
_SMALL_BYTES = 64  # of a value of those that are kept
_NESTED = 16  # sequences within sequences, at most
_AT_ONCE_BYTES = 1 << 20
_INFLATED_BYTES = 1 << 31  # of one deflated data set at most: a few kilobytes can inflate to a thousand times as much

_VRS = frozenset(vr.value.encode() for vr in VR if len(vr.value) == 2)
_LONG = frozenset(vr.value.encode() for vr in EXPLICIT_VR_LENGTH_32)
_WIDTHS = {b"AT": 2, b"OW": 2, b"SS": 2, b"US": 2, b"FL": 4, b"OF": 4, b"OL": 4, b"SL": 4, b"UL": 4} | dict.fromkeys(
    (b"FD", b"OD", b"OV", b"SV", b"UV"), 8
)  # bytes that change places between the two byte orders (PS3.5 7.3); of any other VR none do
_DECODED_AS_RGB = frozenset({"YBR_RCT", "YBR_ICT"})  # decoders undo the colour transform of JPEG 2000 (PS3.5 8.2.4)


@dataclass(frozen=True, slots=True)
class _Form:
    """How elements are written."""

    implicit: bool
    little: bool = True

    @property
    def order(self) -> str:
        return "<" if self.little else ">"


def transcode(path: Path, data_set_at: int, transfer_syntax_uid: str, into: str, out: BinaryIO) -> None:
    """Write the data set of a file, which begins at a position of it, in another transfer syntax.

    transfer_syntax_uid: of the file, one of `SOURCES`. into: one of `PLAIN`.
    out: a file to be written to, which has a descriptor.

    Raises
    ------
    Unsuitable: it is not what its transfer syntax says, or its pixels cannot be decoded.
    OSError: a file cannot be read or written.
    """
    form = _Form(implicit=transfer_syntax_uid == ImplicitVRLittleEndian, little=transfer_syntax_uid != ExplicitVRBigEndian)
    try:
        with path.open("rb") as file:
            file.seek(data_set_at)
            if transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
                with TemporaryFile(dir=path.parent) as inflated:
                    _inflate(file, inflated)
                    _Writer(inflated, transfer_syntax_uid, out, implicit=into == ImplicitVRLittleEndian).write(form)
            else:
                _Writer(file, transfer_syntax_uid, out, implicit=into == ImplicitVRLittleEndian).write(form)
    except UNREADABLE as error:
        said = f"it cannot be read as {UID(transfer_syntax_uid).name}"
        raise Unsuitable(f"{said}: {error}" if type(error) is ValueError and "\n" not in str(error) else said) from error


def _inflate(file: BinaryIO, into: BinaryIO) -> None:
    inflater, size = zlib.decompressobj(-zlib.MAX_WBITS), 0  # PS3.5 A.5
    while data := inflater.unconsumed_tail or file.read(_AT_ONCE_BYTES):
        size += into.write(inflater.decompress(data, _AT_ONCE_BYTES))
        if size > _INFLATED_BYTES:
            raise ValueError("it inflates to more than is allowed")
        if inflater.eof:
            break
    size += into.write(inflater.flush())
    into.seek(0)


class _Writer:
    """Writes one data set."""

    def __init__(self, file: BinaryIO, transfer_syntax_uid: str, out: BinaryIO, *, implicit: bool) -> None:
        self._file = file
        self._syntax = transfer_syntax_uid
        self._out = out
        self._implicit = implicit
        self._at = file.tell()
        self._size = os.fstat(file.fileno()).st_size

    def write(self, form: _Form) -> None:
        self._elements(self._size, form, {}, 0)

    # ---------------------------------------------------------------------------------------------------------- elements

    def _elements(self, end: int | None, form: _Form, kept: Kept, depth: int) -> None:
        """Copy elements up to a position or, without one, up to the end of their item."""
        while end is None or self._at < end:
            tag, vr, length = self._head(form, kept)
            if tag == _ITEM_END and end is None:
                return
            if tag >> 16 == 0xFFFE:
                raise ValueError("an item outside of a sequence")
            if tag & 0xFFFF == 0:  # the length of a group, retired, which another form would make wrong
                self._skip(length)
            elif tag in (OFFSETS, LENGTHS, _TOTAL):  # of coded frames (PS3.3 C.7.6.3.1.8)
                kept[tag] = self._read(length) if self._syntax in LOSSLESS else self._skip(length)
            elif tag == _PIXEL_DATA and length == _UNDEFINED:
                self._coded(kept)
            elif vr == b"SQ" or length == _UNDEFINED:
                within = form if vr == b"SQ" or form.implicit else _Form(implicit=True, little=form.little)  # PS3.5 6.2.2, note 2 on UN
                self._sequence(tag, length, within, kept, depth + 1)
            else:
                self._value(tag, vr, length, form, kept)
        if self._at != end:
            raise ValueError("an element is longer than what it is in")

    def _head(self, form: _Form, kept: Kept) -> tuple[int, bytes, int]:
        """Read what stands before a value."""
        raw = self._read(8)
        group, element = struct.unpack(f"{form.order}HH", raw[:4])
        tag, vr = group << 16 | element, raw[4:6]
        if form.implicit or group == 0xFFFE:
            vr = b"" if group == 0xFFFE else implied_vr(tag, signed=any(kept.get(SIGNED, b"")))
            return tag, vr, struct.unpack(f"{form.order}I", raw[4:])[0]
        if vr not in _VRS:
            raise ValueError("an element without a value representation")
        if vr in _LONG:
            return tag, vr, struct.unpack(f"{form.order}I", self._read(4))[0]
        return tag, vr, struct.unpack(f"{form.order}H", raw[6:])[0]

    def _sequence(self, tag: int, length: int, form: _Form, kept: Kept, depth: int) -> None:
        if depth > _NESTED:
            raise ValueError("too many sequences within sequences")
        self._say(tag, b"SQ", _UNDEFINED)
        end = None if length == _UNDEFINED else self._at + length
        while end is None or self._at < end:
            group, element, item_length = struct.unpack(f"{form.order}HHI", self._read(8))
            item = group << 16 | element
            if item == _SEQUENCE_END and end is None:
                break
            if item != _ITEM:
                raise ValueError("something else than items in a sequence")
            self._say(_ITEM, b"", _UNDEFINED)
            self._elements(None if item_length == _UNDEFINED else self._at + item_length, form, dict(kept), depth)
            self._say(_ITEM_END, b"", 0)
        self._say(_SEQUENCE_END, b"", 0)

    def _value(self, tag: int, vr: bytes, length: int, form: _Form, kept: Kept) -> None:
        """Copy a value, its bytes in the other order where they were big endian."""
        width = 1 if form.little else _WIDTHS.get(vr, 1)
        if tag in KEPT and length <= _SMALL_BYTES:
            kept[tag] = value = _swapped(self._read(length), width)
            if tag == PHOTOMETRIC:
                value = self._photometric(value)
            self._say(tag, vr, len(value))
            self._out.write(value)
            return
        self._say(tag, vr, length)
        while length:
            part = self._read(min(length, _AT_ONCE_BYTES))
            self._out.write(_swapped(part, width))
            length -= len(part)

    def _photometric(self, value: bytes) -> bytes:
        """Return the colour space as it is once the pixels are decoded."""
        decoded = self._syntax in LOSSLESS and value.strip(b" \0").decode("ascii", "replace") in _DECODED_AS_RGB
        return b"RGB " if decoded else value

    def _say(self, tag: int, vr: bytes, length: int) -> None:
        """Write what stands before a value."""
        group, element = tag >> 16, tag & 0xFFFF
        if self._implicit or not vr:
            self._out.write(struct.pack("<HHI", group, element, length))
        elif vr in _LONG or length > _SHORT_MOST_BYTES:
            self._out.write(struct.pack("<HH2sHI", group, element, vr if vr in _LONG else b"UN", 0, length))  # PS3.5 6.2.2, note 1 on UN
        else:
            self._out.write(struct.pack("<HH2sH", group, element, vr, length))

    def _read(self, size: int) -> bytes:
        if self._at + size > self._size:
            raise ValueError("it is cut short")
        data = self._file.read(size)
        if len(data) != size:
            raise ValueError("it is cut short")
        self._at += size
        return data

    def _skip(self, size: int) -> bytes:
        self._at = self._file.seek(self._at + size)
        return b""

    # ------------------------------------------------------------------------------------------------------------ pixels

    def _coded(self, kept: Kept) -> None:
        """Write coded pixels as what they were before they were coded."""
        if self._syntax not in LOSSLESS:
            raise ValueError("pixels in fragments, which it does not have")
        frames = Frames.of(kept, self._syntax)
        begin, end = self._at, self._end_of_fragments()
        size = frames.number * frames.frame_bytes
        self._say(_PIXEL_DATA, b"OW" if frames.allocated > 8 else b"OB", size + size % 2)
        self._out.flush()
        at = self._out.tell()
        self._file.seek(begin)
        frames.write(self._file, end - begin, self._out.fileno(), at)
        self._out.seek(at + size)
        self._out.write(b"\0" * (size % 2))
        self._at = self._file.seek(end)

    def _end_of_fragments(self) -> int:
        """Read over offset table and fragments (PS3.5 A.4), and return where what follows them begins."""
        while True:
            group, element, length = struct.unpack("<HHI", self._read(8))
            item = group << 16 | element
            if item == _SEQUENCE_END:
                return self._at
            if item != _ITEM or self._at + length > self._size:
                raise ValueError("its fragments are cut short")
            self._skip(length)


def _swapped(data: bytes, width: int) -> bytes:
    if width == 1:
        return data
    if len(data) % width:
        raise ValueError("half a number")
    return np.frombuffer(data, f"u{width}").byteswap().tobytes()


@lru_cache(maxsize=8192)
def implied_vr(tag: int, *, signed: bool) -> bytes:
    """Return the value representation that an implicit one stands for (PS3.5 A.1 and 6.2.2)."""
    if tag >> 16 & 1:
        return b"LO" if 0x0010 <= tag & 0xFFFF <= 0x00FF else b"UN"
    if not (dictionary_has_tag(tag) or repeater_has_tag(tag)):
        return b"UN"
    known = dictionary_VR(tag)
    if "OW" in known:
        return b"OW"
    if known == "US or SS":
        return b"SS" if signed else b"US"
    return known[:2].encode()
