"""HL7 v2 messages as text: what one says, field by field, and how one is written (HL7 v2.5.1 chapter 2).

hl7apy divides segments into fields and puts messages together. It reads a few hundred of them a second, and takes the square of the time for many
separators: so only the segments that are wanted are read, up to a bound. Escape sequences are read and written here: hl7apy alters those that it
does not know.
"""

import re
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.core import Message, Segment
from hl7apy.exceptions import HL7apyException
from hl7apy.parser import parse_segment

from dicom_node.domain import Unacceptable

VERSION = "2.5.1"  # in which messages are written, and by whose segments all are read: fields have kept their places
UTF_8 = "UNICODE UTF-8"
WRONG_SEQUENCE, MISSING, WRONG_VALUE, NOT_IN_TABLE = 100, 101, 102, 103  # HL7 table 0357
UNKNOWN_TYPE, UNKNOWN_EVENT, UNKNOWN_PROCESSING, UNKNOWN_VERSION, FAILED = 200, 201, 202, 203, 207
_CODECS: Mapping[str, str] = {  # HL7 table 0211
    "ASCII": "ascii",
    **{f"8859/{part}": f"iso8859-{part}" for part in (*range(1, 10), 15)},
    "UNICODE UTF-8": "utf-8",
    "UNICODE": "utf-8",
    "UTF-8": "utf-8",
    **{"ISO IR6": "ascii", "ISO IR14": "shift_jis", "ISO IR87": "iso2022_jp", "ISO IR159": "iso2022_jp_1"},
    **{"GB 18030-2000": "gb18030", "KS X 1001": "euc_kr", "BIG-5": "big5"},
}
_HEAD_BYTES = 4096
_SEPARATORS_MAX = 6000  # of all segments that are read; an order has a hundred
_ENDS = re.compile(r"\r\n|\r|\n")  # segments end with a carriage return; some senders write lines of text
_ROUGH = (HL7apyException, ValueError, LookupError, AttributeError, TypeError)  # what hl7apy raises on what is no segment
_NULL = '""'  # says that there is no value


class NotHl7(Exception):
    """Raised when what came has no head by which it could be answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """The characters that divide a message: MSH-1 and MSH-2."""

    field: str = "|"
    component: str = "^"
    repetition: str = "~"
    escape: str = "\\"
    subcomponent: str = "&"

    @property
    def for_library(self) -> dict[str, str]:
        """How hl7apy is told of them. The escape character is withheld from it."""
        taken = {"FIELD": self.field, "COMPONENT": self.component, "REPETITION": self.repetition, "SUBCOMPONENT": self.subcomponent}
        return {"SEGMENT": "\r", "GROUP": "\r", "ESCAPE": "\0", **taken}


_OURS = Marks()


@dataclass(frozen=True, slots=True)
class Part:
    """One segment. fields: by number the repetitions, still escaped."""

    name: str
    fields: Mapping[int, tuple[str, ...]]
    marks: Marks = _OURS

    def value(self, number: int, component: int = 1, subcomponent: int = 1, *, repetition: int = 0) -> str:
        """Return a value as plain text, on one line; empty where there is none. Components count from 1, as the standard counts them."""
        repetitions = self.fields.get(number, ())
        if repetition >= len(repetitions):
            return ""
        whole = _at(repetitions[repetition], self.marks.component, component)
        return _unescaped(_at(whole, self.marks.subcomponent, subcomponent), self.marks)

    def repeats(self, number: int) -> int:
        """Return how many repetitions a field has."""
        return len(self.fields.get(number, ()))

    def again(self, number: int) -> str:
        """Return the first repetition of a field as it is written by our own marks."""
        components = (self.fields.get(number) or ("",))[0].split(self.marks.component)
        parts = ([escaped(_unescaped(one, self.marks)) for one in component.split(self.marks.subcomponent)] for component in components)
        return _OURS.component.join(_OURS.subcomponent.join(one) for one in parts)


# --------------------------------------------------------------------------------------------------------------- reading


def head_of(data: bytes) -> Part:
    """Return the head of a message, its MSH.

    Raises
    ------
    NotHl7: it has none.
    """
    line = _ENDS.split(data.lstrip()[:_HEAD_BYTES].decode("latin-1"), maxsplit=1)[0]
    if not line.startswith("MSH") or len(line) < len("MSH|^~\\&|"):
        raise NotHl7("it does not begin with MSH")
    between, others = line[3], line[4:].partition(line[3])[0]
    if len(others) not in (4, 5) or len({between, *others}) != 1 + len(others) or not all(map(_divides, between + others)):
        raise NotHl7("the characters that divide it are not to be told apart")
    marks = Marks(field=between, component=others[0], repetition=others[1], escape=others[2], subcomponent=others[3])
    if sum(map(line.count, set(between + others))) > _SEPARATORS_MAX:
        raise NotHl7("its head is not to be read")
    try:
        head = _part(line, marks)
        return _part(line.encode("latin-1").decode(_codec(head), "replace"), marks)
    except (Unacceptable, *_ROUGH) as error:
        raise NotHl7("its head is not to be read") from error


def _divides(character: str) -> bool:
    return "!" <= character <= "~" and not character.isalnum()


def _codec(head: Part) -> str:
    """Return the codec of the character set that the head names; of several the last, which adds to the first."""
    named = [_unescaped(one, head.marks).upper() for one in head.fields.get(18, ())]
    return _CODECS.get(named[-1] if named else "", "utf-8")


def parts_of(data: bytes, head: Part, wanted: Collection[str]) -> Iterator[Part]:
    """Give the segments of these names, in their order.

    Raises
    ------
    Unacceptable: they cannot be read.
    """
    marks, separators = head.marks, 0
    for line in _ENDS.split(_text(data, head))[1:]:
        if line[:3] not in wanted:
            continue
        separators += sum(map(line.count, (marks.field, marks.component, marks.repetition, marks.subcomponent)))
        if separators > _SEPARATORS_MAX:
            raise Unacceptable("the message has more fields than are read", field=line[:3], condition=WRONG_VALUE)
        try:
            yield _part(line, marks)
        except _ROUGH as error:
            raise Unacceptable("the segment cannot be read", field=line[:3], condition=WRONG_VALUE) from error


def _text(data: bytes, head: Part) -> str:
    """Decode a message by the character set that it names; of one that names none, UTF-8 where it can be that, else ISO 8859-1."""
    data, named = data.lstrip(), [_unescaped(one, head.marks).upper() for one in head.fields.get(18, ())]
    for one in filter(None, named):
        if one not in _CODECS:
            raise Unacceptable("the character set is not known", field="MSH-18", condition=NOT_IN_TABLE)
    try:
        return data.decode(_codec(head))
    except UnicodeDecodeError as error:
        if not any(named):
            return data.decode("latin-1")
        raise Unacceptable("there are bytes that the character set does not have", field="MSH-18", condition=WRONG_VALUE) from error


def _part(line: str, marks: Marks) -> Part:
    name, known = line[:3], marks.for_library
    if line[3:4] not in ("", marks.field):
        raise ValueError("a segment's name has three characters")
    fields: dict[int, tuple[str, ...]] = {}
    read = parse_segment(line, version=VERSION, encoding_chars=known, validation_level=VALIDATION_LEVEL.TOLERANT)
    for one in read.children:
        number = str(one.name or "").rpartition("_")[2]  # what stands behind the fields that the standard has, has no name
        if number.isdecimal():
            fields[int(number)] = (*fields.get(int(number), ()), one.to_er7(known))
    return Part(name, fields, marks)


def _at(text: str, divider: str, number: int) -> str:
    found = text.split(divider, number)
    return found[number - 1] if number <= len(found) else ""


def _unescaped(text: str, marks: Marks) -> str:
    """Return what escaped text means, on one line (2.7)."""
    if text.strip() == _NULL:
        return ""
    meant = {"F": marks.field, "S": marks.component, "T": marks.subcomponent, "R": marks.repetition, "E": marks.escape}

    def meaning(found: re.Match[str]) -> str:
        code = found[1]
        if code.startswith("X"):
            digits = code[1:]
            return bytes.fromhex(digits).decode("latin-1") if re.fullmatch(r"([0-9A-Fa-f]{2})+", digits) else ""
        return " " if code.startswith(".") else meant.get(code, "")

    mark = re.escape(marks.escape)
    plain = re.sub(f"{mark}([^{mark}]{{1,64}}){mark}", meaning, text)
    return " ".join("".join(one if one.isprintable() else " " for one in plain).split())


# --------------------------------------------------------------------------------------------------------------- writing


def escaped(text: str) -> str:
    """Return text as it stands in a field: what divides is escaped, and it stays on one line."""
    one_line = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    for mark, code in (("\\", "E"), ("|", "F"), ("^", "S"), ("~", "R"), ("&", "T")):
        one_line = one_line.replace(mark, f"\0{code}\0")
    return one_line.replace("\0", "\\")


def joined(*components: str) -> str:
    """Return components, plain text each, as they stand in a field."""
    return "^".join(map(escaped, components)).rstrip("^")


def moment(at: float) -> str:
    """Write a moment as HL7 does, with this machine's distance from UTC (2.A.77)."""
    return time.strftime("%Y%m%d%H%M%S%z", time.localtime(at))


def begun(structure: str, head: Mapping[int, str]) -> Any:
    """Return a message of hl7apy's with its head, to which segments can be added. head: fields, already escaped."""
    made = Message(structure, version=VERSION, validation_level=VALIDATION_LEVEL.TOLERANT)
    fill(made.msh, head)
    return made


def segment(name: str, fields: Mapping[int, str]) -> Any:
    """Return a segment of hl7apy's. fields: already escaped."""
    made = Segment(name, version=VERSION, validation_level=VALIDATION_LEVEL.TOLERANT)
    fill(made, fields)
    return made


def fill(made: Any, fields: Mapping[int, str]) -> None:
    """Give a segment its fields."""
    for number, text in fields.items():
        if text:
            setattr(made, f"{made.name.lower()}_{number}", text)


def written(made: Any) -> bytes:
    """Return a message as it is sent: each segment ended by a carriage return, UTF-8."""
    return f"{made.to_er7()}\r".encode()
