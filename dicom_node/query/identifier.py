"""The identifier of a C-FIND, C-MOVE or C-GET: read and checked, and the data sets that answer it written; no I/O (PS3.4 C.2.2 and C.4).

What does not fit the SOP class is refused with a status and a sentence: a level that the information model lacks, a unique key of a higher level
that is missing although relational queries were not agreed to (PS3.4 C.4.1.2.1), a retrieval that does not say what is wanted.
"""

import contextlib
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from pydicom import DataElement, Dataset
from pydicom.tag import BaseTag, Tag
from pynetdicom.dsutils import decode

from dicom_node.store import UNIQUE_KEYS, Level

DOES_NOT_FIT = 0xA900  # PS3.4 Tables C.4-1, C.4-2 and C.4-3: the identifier does not match the SOP class
MOST_BYTES = 1 << 20  # of an identifier: one that lists thousands of UIDs is shorter
PATIENT_ROOT, STUDY_ROOT = tuple(Level), (Level.STUDY, Level.SERIES, Level.IMAGE)  # the levels of each information model (PS3.4 C.6)

_TOLD = frozenset({"SpecificCharacterSet", "QueryRetrieveLevel", "RetrieveAETitle"})  # said of a response, not matched
_NOT_MATCHED = _TOLD | {"TimezoneOffsetFromUTC"}  # of a request it says what its times mean (PS3.4 C.4.1.1.3.1)
_ROOT_TAGS = tuple(Tag(keyword) for keyword in ("SpecificCharacterSet", "QueryRetrieveLevel", "RetrieveAETitle"))
_BY_CHARACTER_SET = frozenset({"SH", "LO", "ST", "LT", "UC", "UT", "PN"})  # PS3.5 6.1.2.2
_UTF_8 = "ISO_IR 192"
_CHARACTER_SETS = {_UTF_8: "utf-8", "GB18030": "gb18030", "GBK": "gbk"} | {  # those without escape sequences (PS3.3 C.12.1.1.2)
    f"ISO_IR {number}": f"iso8859_{part}"
    for number, part in ((100, 1), (101, 2), (109, 3), (110, 4), (144, 5), (127, 6), (126, 7), (138, 8), (148, 9), (203, 15), (166, 11))
}
_TO_CHINESE = "\x1b$)A"  # ISO 2022 IR 58: the escape sequence that pydicom leaves in the text
_NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d"}
_LONG = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})  # PS3.5 Table 7.1-1
_SHORT_BYTES = 0xFFFE  # of a value whose length has two bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a request is not carried out."""

    status: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What is asked for: a level, what has to match, and, of a C-FIND, which keys its responses are to have."""

    level: Level
    keys: Mapping[str, str]  # keyword -> what it has to match, several values parted by backslashes; empty: everything
    wanted: tuple[tuple[BaseTag, str, str], ...] = ()  # tag, VR and keyword; a keyword that is empty is a private attribute's
    character_set: str = ""  # that the request is written in, of several none that this names


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """A transfer syntax, as far as a data set without pixels is concerned (PS3.5 Annex A)."""

    implicit: bool
    little: bool = True

    @classmethod
    def of(cls, transfer_syntax_uid: str) -> "Encoding":
        """Return that of an uncompressed transfer syntax."""
        return cls(implicit=transfer_syntax_uid == "1.2.840.10008.1.2", little=transfer_syntax_uid != "1.2.840.10008.1.2.2")


def read(identifier: bytes, encoding: Encoding) -> Dataset | Refusal:
    """Return the data set that an identifier is, every value of it readable."""
    if len(identifier) > MOST_BYTES:
        return Refusal(status=DOES_NOT_FIT, why="the identifier is too long")
    try:
        dataset = decode(BytesIO(identifier), encoding.implicit, encoding.little)
        dataset.decode()
        for element in dataset:
            _ = element.value
    except Exception:  # whatever pydicom raises on bytes that anybody may send: they are no data set
        return Refusal(status=DOES_NOT_FIT, why="the identifier cannot be read")
    return dataset


def query(dataset: Dataset, levels: tuple[Level, ...], *, relational: bool = False) -> Query | Refusal:
    """Return what a C-FIND identifier asks for (PS3.4 C.4.1.1.3).

    levels: of the information model.
    relational: whether relational queries were agreed to: then no key of a higher level has to be there.
    """
    level = _level(dataset, levels)
    if isinstance(level, Refusal):
        return level
    wanted = tuple((one.tag, one.VR.split(" ", maxsplit=1)[0], one.keyword) for one in dataset if one.keyword not in _TOLD and one.tag.element)
    keys = {one.keyword: _text(one) for one in dataset if one.keyword and one.keyword not in _NOT_MATCHED and one.tag.element and one.VR != "SQ"}
    missing = None if relational else _missing(keys, levels[: levels.index(level)])
    return missing or Query(level=level, keys=keys, wanted=wanted, character_set=str(dataset.get("SpecificCharacterSet") or ""))


def retrieval(dataset: Dataset, levels: tuple[Level, ...], *, relational: bool = False) -> Query | Refusal:
    """Return what a C-MOVE or C-GET identifier asks for: its unique keys; others, which it should not have, mean nothing (PS3.4 C.4.2.1.4.1)."""
    level = _level(dataset, levels)
    if isinstance(level, Refusal):
        return level
    upto = levels[: levels.index(level) + 1]
    keys = {UNIQUE_KEYS[one]: _text(dataset[UNIQUE_KEYS[one]]) for one in upto if UNIQUE_KEYS[one] in dataset}
    missing = None if relational else _missing(keys, upto[:-1])
    if missing:
        return missing
    own = keys.get(UNIQUE_KEYS[level], "")
    if not own or "*" in own or "?" in own or (level is Level.PATIENT and "\\" in own):
        return Refusal(status=DOES_NOT_FIT, why=f"{UNIQUE_KEYS[level]} does not say what is wanted")
    return Query(level=level, keys={keyword: value for keyword, value in keys.items() if value})


def response(asked: Query, found: Mapping[str, Any], ae_title: str, encoding: Encoding) -> tuple[bytes, bool]:
    """Return the data set of a pending C-FIND response, and whether every key that was asked for is supported (PS3.4 C.4.1.1.3.2).

    found: keyword -> value of every key that is supported; what is not in it is not in the response either.
    """
    elements = {tag: (vr, _as_text(found[keyword])) for tag, vr, keyword in asked.wanted if keyword in found}
    character_set, level, retrieve_ae = _ROOT_TAGS
    elements |= {level: ("CS", str(asked.level)), retrieve_ae: ("AE", ae_title)}
    texts = "".join(value for _, value in elements.values() if not value.isascii())
    if texts:
        elements[character_set] = ("CS", _character_set(asked.character_set, texts))
    codec = _CHARACTER_SETS[elements[character_set][1]] if texts else "ascii"
    return encode(elements, encoding, codec), all(keyword in found for _, _, keyword in asked.wanted)


def _character_set(asked: str, texts: str) -> str:
    """Return that of the request where it has every character, else the one that has all."""
    with contextlib.suppress(LookupError, UnicodeEncodeError):
        texts.encode(_CHARACTER_SETS[asked])
        return asked
    return _UTF_8


def failed_list(uids: Iterable[str], encoding: Encoding) -> bytes:
    """Return the data set that names failed sub-operations (PS3.4 C.4.2.1.4.2), as many of them as one value takes."""
    value = ""
    for uid in uids:
        if len(value) + len(uid) + 1 > _SHORT_BYTES:
            break
        value = f"{value}\\{uid}" if value else uid
    return encode({Tag("FailedSOPInstanceUIDList"): ("UI", value)}, encoding)


def encode(elements: Mapping[BaseTag, tuple[str, str]], encoding: Encoding, codec: str = "ascii") -> bytes:
    """Return the bytes of a flat data set: tag -> VR and value, several parted by backslashes; texts by one of Python's codecs."""
    order = "<" if encoding.little else ">"
    return b"".join(_element(tag, vr, _raw(vr, value, order, codec), order, encoding.implicit) for tag, (vr, value) in sorted(elements.items()))


def _element(tag: BaseTag, vr: str, raw: bytes, order: str, implicit: bool) -> bytes:
    if implicit:
        return struct.pack(f"{order}HHI", tag.group, tag.element, len(raw)) + raw
    if vr in _LONG:
        return struct.pack(f"{order}HH2sHI", tag.group, tag.element, vr.encode(), 0, len(raw)) + raw
    raw = raw[:_SHORT_BYTES]
    return struct.pack(f"{order}HH2sH", tag.group, tag.element, vr.encode(), len(raw)) + raw


def _raw(vr: str, value: str, order: str, codec: str) -> bytes:
    if not value or vr == "SQ":
        return b""
    if vr in _NUMBERS:
        convert = float if vr in ("FL", "FD") else int
        return b"".join(struct.pack(f"{order}{_NUMBERS[vr]}", convert(one)) for one in value.split("\\"))
    raw = value.encode(codec if vr in _BY_CHARACTER_SET else "ascii", errors="replace")
    return raw + (b"\0" if vr in ("UI", "OB", "UN") else b" ") * (len(raw) % 2)


def _level(dataset: Dataset, levels: tuple[Level, ...]) -> Level | Refusal:
    said = str(dataset.get("QueryRetrieveLevel") or "").strip()
    if said in levels:
        return Level(said)
    why = "the identifier has no Query/Retrieve Level" if not said else "this information model has no such Query/Retrieve Level"
    return Refusal(status=DOES_NOT_FIT, why=why)


def _missing(keys: Mapping[str, str], above: Iterable[Level]) -> Refusal | None:
    """Refuse where a higher level has not exactly one value of its unique key."""
    for level in above:
        value = keys.get(UNIQUE_KEYS[level], "")
        if not value or any(sign in value for sign in "\\*?"):
            return Refusal(status=DOES_NOT_FIT, why=f"one {UNIQUE_KEYS[level]} is needed at this level")
    return None


def _text(element: DataElement) -> str:
    return "" if element.VR == "SQ" else _as_text(element.value).replace(_TO_CHINESE, "")


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str | bytes) or not isinstance(value, Iterable) or hasattr(value, "components"):
        return str(value)
    return "\\".join(str(one) for one in value)
