"""The elements of a data set that lies in a file, little endian (PS3.5 §7.1), read piece by piece: what is not asked for is passed over, unread."""

import struct
from collections.abc import Iterator
from typing import Protocol

from dicom_node.coding.transcode import implied_vr

UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PIXEL_DATA, PIXEL_REPRESENTATION = 0x7FE00010, 0x00280103

_NESTED = 16  # sequences within sequences, at most
_WINDOW_BYTES = 1 << 16
_ELEMENTS = 1 << 23  # so many heads are looked at: some seconds
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})  # PS3.5 Table 7.1-1
_SHORT = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI"}
    | {b"UL", b"US"}
)
_HEAD, _LENGTH = struct.Struct("<HH2sH").unpack_from, struct.Struct("<I").unpack_from


class Unreadable(ValueError):
    """Raised where elements cannot be told apart."""


class Readable(Protocol):
    """An open file's data set."""

    @property
    def size(self) -> int:
        """Its length in bytes."""

    def read(self, into: memoryview, at: int) -> None:
        """Fill a buffer with its bytes from a position on."""


class Elements:
    """Reads a data set; every position is one in it."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self.size = file.size
        self.signed = False  # as Pixel Representation says, which some implicit value representations depend on
        self._left = _ELEMENTS
        self._data = b""
        self._from = 0  # where `_data` begins
        # By its first element, which devices get right more often than what they agreed to.
        self.implicit = self.value(0, 6)[4:] not in _SHORT | _LONG if self.size >= 8 else True

    @property
    def window(self) -> tuple[bytes, int]:
        """The bytes that are in memory, and where they begin."""
        return self._data, self._from

    def head(self, at: int, implicit: bool) -> tuple[int, bytes, int, int]:
        """Return the tag of the element at a position, its VR (empty: of an item), and where its value begins and how long it is.

        Raises
        ------
        Unreadable: there is none.
        """
        self._left -= 1
        if self._left < 0:
            raise Unreadable("too many elements")
        offset = at - self._from
        if offset < 0 or offset + 12 > len(self._data):
            offset = self._move(at, 8)
        group, element, vr, length = _HEAD(self._data, offset)
        tag = group << 16 | element
        if implicit or group == 0xFFFE:
            (long,) = _LENGTH(self._data, offset + 4)
            return tag, b"" if group == 0xFFFE else implied_vr(tag, signed=self.signed), at + 8, long
        if vr in _SHORT:
            return tag, vr, at + 8, length
        if vr not in _LONG:
            if vr.isalpha() and vr.isupper():
                return tag, implied_vr(tag, signed=self.signed), at + 8, length
            raise Unreadable("an element without a value representation")
        if offset + 12 > len(self._data):
            raise Unreadable("it ends within an element")
        return tag, vr, at + 12, _LENGTH(self._data, offset + 8)[0]

    def value(self, start: int, length: int) -> bytes:
        """Return the bytes of a value, which is not longer than what may be in memory.

        Raises
        ------
        Unreadable: the data set ends before it does.
        """
        offset = start - self._from
        if offset < 0 or offset + length > len(self._data):
            offset = self._move(start, length)
        return self._data[offset : offset + length]

    def items(self, start: int, length: int, implicit: bool) -> Iterator[tuple[int, int]]:
        """Give where the content of each item of a sequence begins, and how long it is.

        Raises
        ------
        Unreadable: there are other things than items in it.
        """
        at, end = start, None if length == UNDEFINED else start + length
        while end is None or at < end:
            tag, _, content, size = self.head(at, implicit)
            if tag == SEQUENCE_END and end is None:
                return
            if tag != ITEM:
                raise Unreadable("something else than items in a sequence")
            yield content, size
            at = self.after_item(content, size, implicit)

    def within(self, start: int, length: int, implicit: bool) -> Iterator[tuple[int, bytes, int, int]]:
        """Give the head of each element from a position on, up to the end of its item or of the data set.

        Raises
        ------
        Unreadable: there is one that cannot be told from the next.
        """
        at, end = start, None if length == UNDEFINED else start + length
        while at < end if end is not None else True:
            tag, vr, value, size = found = self.head(at, implicit)
            if tag == ITEM_END and end is None:
                return
            if tag >> 16 == 0xFFFE:
                raise Unreadable("an item outside of a sequence")
            yield found
            at = self.after(vr, value, size, implicit)

    def after(self, vr: bytes, start: int, length: int, implicit: bool, depth: int = 0) -> int:
        """Return where an element ends."""
        if length != UNDEFINED:
            return start + length
        inner = implicit or vr == b"UN"  # PS3.5 6.2.2, note 2 on UN
        at = start
        while True:
            tag, _, content, size = self.head(at, inner)
            if tag == SEQUENCE_END:
                return content
            if tag != ITEM:
                raise Unreadable("something else than items in a sequence")
            at = self.after_item(content, size, inner, depth)

    def after_item(self, start: int, length: int, implicit: bool, depth: int = 0) -> int:
        """Return where an item ends."""
        if length != UNDEFINED:
            return start + length
        if depth > _NESTED:
            raise Unreadable("too many sequences within sequences")
        at = start
        while True:
            tag, vr, value, size = self.head(at, implicit)
            if tag == ITEM_END:
                return value
            at = self.after(vr, value, size, implicit, depth + 1)

    def _move(self, at: int, needed: int) -> int:
        """Have the bytes from a position on in memory, so many at least, and return where among them they are."""
        if at < 0 or at + needed > self.size:
            raise Unreadable("it ends within an element")
        data = bytearray(min(max(needed, _WINDOW_BYTES), self.size - at))
        self._file.read(memoryview(data), at)
        self._data, self._from = bytes(data), at
        return 0
