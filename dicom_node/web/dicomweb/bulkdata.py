"""Large values, each at a URL of its own (PS3.18 10.4.1.1.6), whole or a range of bytes of it (RFC 9110 14)."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dicom_node.web.dicomweb.elements import Elements, Readable
from dicom_node.web.dicomweb.frames import value

_PATH = re.compile(r"[0-9A-Fa-f]{8}(/[1-9][0-9]{0,8}/[0-9A-Fa-f]{8}){0,16}")
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranges:
    """A value, or a part of it: one or more ranges of a data set; its file is open for as long as it goes out."""

    file: Readable
    ranges: tuple[tuple[int, int], ...]  # begin, length
    first: int = 0  # of its bytes, what goes out
    last: int = -1  # with this one; -1: all

    @property
    def whole(self) -> int:
        """The length of the value."""
        return sum(length for _, length in self.ranges)

    @property
    def size(self) -> int:
        """Of what goes out."""
        return (self.whole if self.last < 0 else self.last + 1) - self.first

    @contextmanager
    def open(self) -> Iterator[tuple[int, Iterator[bytes]]]:
        """Lend its bytes."""
        yield self.size, self._pieces()

    def _pieces(self) -> Iterator[bytes]:
        skip, left = self.first, self.size
        for start, length in self.ranges:
            taken = min(max(0, length - skip), left)
            yield from value(self.file, start + skip, taken) if taken else ()
            skip, left = max(0, skip - length), left - taken


def path_of(text: str) -> tuple[tuple[int, int], ...]:
    """Read where a value is: tags, and before each but the first the number of its item, counted from 1.

    Raises
    ------
    ValueError: it says nothing such.
    """
    if not _PATH.fullmatch(text):
        raise ValueError("bulk data are at tags: eight hexadecimal digits, and an item's number between two")
    parts = ["0", *text.split("/")]
    return tuple((int(item), int(tag, 16)) for item, tag in zip(parts[::2], parts[1::2], strict=True))


def find(elements: Elements, path: tuple[tuple[int, int], ...]) -> tuple[int, int] | None:
    """Return where a value begins and how long it is, `UNDEFINED` for one in fragments; None where there is none.

    Raises
    ------
    Unreadable: its data set cannot be read so far.
    """
    start, length, implicit = 0, elements.size, elements.implicit
    for depth, (item, tag) in enumerate(path):
        if depth:
            items = elements.items(start, length, implicit)
            place = next((one for number, one in enumerate(items, 1) if number == item), None)
            if place is None:
                return None
            start, length = place
        found = next((one for one in elements.within(start, length, implicit) if one[0] == tag), None)
        if found is None:
            return None
        _, vr, start, length = found
        implicit = implicit or vr == b"UN"
    return start, length


def range_of(header: str | None, whole: int) -> tuple[int, int] | None:
    """Return the first and the last byte that a client asks for; None for all, also where what it asks is not one range (RFC 9110 14.2).

    Raises
    ------
    LookupError: there are no such bytes (416).
    """
    said = _RANGE.fullmatch((header or "").replace(" ", ""))
    if said is None or not (said[1] or said[2]):
        return None
    if not said[1]:
        first, last = max(0, whole - int(said[2])), whole - 1
    else:
        first, last = int(said[1]), min(int(said[2]) if said[2] else whole - 1, whole - 1)
        if said[2] and int(said[2]) < first:
            return None
    if first > last:
        raise LookupError("there are no such bytes")
    return first, last
