"""A multipart payload, read piece by piece (RFC 2046 5.1): the pieces may end anywhere, and nothing but the last few bytes of each is kept.

No I/O: whoever has the bytes feeds them, and gets what they mean. Lines end with CR LF. A line that only begins like a delimiter divides nothing.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto

HEADER_BYTES = 16_384  # of a part's header fields
MOST_PARTS = 50_000  # of a payload
_PADDING = 128  # blanks behind a boundary that are looked at

_PARAMETER = re.compile(r';\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))\s*')
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BOUNDARY = re.compile(r"[ -~]{0,69}[!-~]")


class Malformed(Exception):
    """Raised when a payload is no multipart; the message says why, and quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A part begins. headers: the names in small letters."""

    headers: Mapping[str, str]


class Ended:
    """A part has ended."""


Event = Begun | memoryview | Ended  # of a part: that it begins, some of its bytes, and that it has ended


def content_type(text: str) -> tuple[str, dict[str, str]]:
    """Read a Content-Type: the media type in small letters, and its parameters; what cannot be read of it is left out."""
    name, _, rest = text.partition(";")
    parameters: dict[str, str] = {}
    at, rest = 0, f";{rest}"
    while found := _PARAMETER.match(rest, at):
        quoted, plain = found[2], found[3]
        parameters.setdefault(found[1].lower(), plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted))
        at = found.end()
    return name.strip().lower(), parameters


class _State(Enum):
    PREAMBLE = auto()
    HEADERS = auto()
    BLANK = auto()  # the empty line behind a part's header fields, which may be the beginning of the next delimiter: then the part is empty
    BODY = auto()
    EPILOGUE = auto()


class _Line(Enum):
    """What stands behind a boundary."""

    DELIMITER = auto()
    CLOSING = auto()
    DATA = auto()  # it is no delimiter
    UNKNOWN = auto()  # more has to come


class Reader:
    """Reads one payload.

    Raises
    ------
    Malformed: the boundary is none.
    """

    def __init__(self, boundary: str) -> None:
        if not _BOUNDARY.fullmatch(boundary):
            raise Malformed("the boundary is none")
        self._delimiter = b"\r\n--" + boundary.encode()
        self._left = b"\r\n"  # what was fed and means nothing yet; the first delimiter may be the first line
        self._wanted = 0  # from where on the bytes that were fed still mean something
        self._state = _State.PREAMBLE
        self._parts = 0
        self._steps = {
            _State.PREAMBLE: self._outside,
            _State.HEADERS: self._header,
            _State.BLANK: self._blank,
            _State.BODY: self._body,
            _State.EPILOGUE: self._behind,
        }

    def feed(self, data: bytes) -> Iterator[Event]:
        """Give what the next bytes mean.

        Raises
        ------
        Malformed: they are no more of a multipart.
        """
        whole, at = self._left + data, 0
        while at >= 0:
            events: list[Event] = []
            at = self._steps[self._state](whole, at, events)
            yield from events
        self._left = whole[self._wanted :]

    def finish(self) -> None:
        """Say that all has come.

        Raises
        ------
        Malformed: the last delimiter has not.
        """
        if self._state is not _State.EPILOGUE:
            raise Malformed("the payload ends before its last boundary")

    # Each of these goes on from a place, adds what happened, and returns the next place; or, where more has to come, what `_waits` returns.

    def _waits(self, wanted: int) -> int:
        self._wanted = wanted
        return -1

    def _outside(self, whole: bytes, at: int, events: list[Event]) -> int:
        kind, found, after = self._next_delimiter(whole, at)
        return self._waits(found) if kind is _Line.UNKNOWN else self._turn(kind, after)

    def _header(self, whole: bytes, at: int, events: list[Event]) -> int:
        end = at
        if not whole.startswith(b"\r\n", at):
            found = whole.find(b"\r\n\r\n", at, at + HEADER_BYTES + 4)
            if found < 0 and len(whole) - at > HEADER_BYTES + 4:
                raise Malformed("the header of a part is too long")
            if found < 0:
                return self._waits(at)
            end = found + 2
        self._state = _State.BLANK
        events.append(Begun(_fields(whole[at:end])))
        return end

    def _blank(self, whole: bytes, at: int, events: list[Event]) -> int:
        if self._delimiter.startswith(whole[at : at + len(self._delimiter)]):
            kind, after = _line(whole, at + len(self._delimiter)) if len(whole) - at >= len(self._delimiter) else (_Line.UNKNOWN, 0)
            if kind is _Line.UNKNOWN:
                return self._waits(at)
            if kind is not _Line.DATA:
                events.append(Ended())
                return self._turn(kind, after)
        self._state = _State.BODY
        return at + 2

    def _body(self, whole: bytes, at: int, events: list[Event]) -> int:
        kind, found, after = self._next_delimiter(whole, at)
        if found > at:
            events.append(memoryview(whole)[at:found])
        if kind is _Line.UNKNOWN:
            return self._waits(found)
        events.append(Ended())
        return self._turn(kind, after)

    def _behind(self, whole: bytes, at: int, events: list[Event]) -> int:
        return self._waits(len(whole))

    def _turn(self, kind: _Line, after: int) -> int:
        self._parts += kind is _Line.DELIMITER
        if self._parts > MOST_PARTS:
            raise Malformed("there are too many parts")
        self._state = _State.HEADERS if kind is _Line.DELIMITER else _State.EPILOGUE
        return after

    def _next_delimiter(self, whole: bytes, at: int) -> tuple[_Line, int, int]:
        """Return the next delimiter, where it begins and where what follows it does; or up to where there certainly is none."""
        while (found := whole.find(self._delimiter, at)) >= 0:
            kind, after = _line(whole, found + len(self._delimiter))
            if kind is not _Line.DATA:
                return kind, found, after
            at = found + 1
        tail = max(at, len(whole) - len(self._delimiter) + 1)
        begins = whole.find(b"\r", tail)
        return _Line.UNKNOWN, begins if begins >= 0 else len(whole), 0


def _line(whole: bytes, at: int) -> tuple[_Line, int]:
    """Say what stands behind a boundary, and where what follows that begins."""
    if whole[at : at + 2] == b"--":
        return _Line.CLOSING, at + 2
    end = at
    while end < len(whole) and whole[end] in b" \t" and end - at < _PADDING:
        end += 1
    if whole[end : end + 2] == b"\r\n":
        return _Line.DELIMITER, end + 2
    is_short = end == len(whole) or whole[end:] == b"\r" or whole[at:] == b"-"
    return (_Line.UNKNOWN if is_short and end - at < _PADDING else _Line.DATA), 0


def _fields(raw: bytes) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in re.sub(r"\r\n[ \t]+", " ", raw.decode("latin-1")).split("\r\n"):
        name, colon, value = line.partition(":")
        if line and (not colon or not _NAME.fullmatch(name.strip())):
            raise Malformed("a part has a header field that is none")
        if line:
            fields.setdefault(name.strip().lower(), value.strip())
    return fields
