"""What a search asks for, read from its address (PS3.18 8.3.4 and 10.6.1): decided here, searched elsewhere.

A parameter that is neither known nor an attribute is refused: whoever misspells PatientID must not be given everybody's studies. An attribute
that the ledger does not match is ignored, and the answer says so.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydicom.datadict import dictionary_has_tag, keyword_for_tag, tag_for_keyword

from dicom_node.store import ATTRIBUTES, Level, span_asked
from dicom_node.store.match import alternatives, vr_of

MOST_RESULTS = 5_000  # of one answer: who wants more asks for the next page
_MOST_PARAMETERS = 1_000
_MOST_OFFSET = 1 << 40

_TAG = re.compile(r"[0-9A-Fa-f]{8}")
_WHOLE = re.compile(r"[0-9]{1,12}")
_UID = re.compile(r"[0-9.]{1,64}")
_NUMBER = re.compile(r"[+-]?[0-9]{1,12}")
_OTHERS = frozenset({"accept", "charset"})  # 8.3.3: they choose the representation
_SWITCHES = {  # those that are not supported -> what is said then (8.3.4.1 to 8.3.4.3)
    "fuzzymatching": "The fuzzymatching parameter is not supported. Only literal matching has been performed.",
    "emptyvaluematching": "The emptyvaluematching parameter is not supported. Only literal matching has been performed.",
    "multiplevaluematching": "",  # it is always done
}

_STUDY = (
    *("StudyDate", "StudyTime", "AccessionNumber", "InstanceAvailability", "ModalitiesInStudy", "ReferringPhysicianName", "PatientName"),
    *("PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID", "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances"),
)
_SERIES = ("Modality", "SeriesInstanceUID", "SeriesNumber", "NumberOfSeriesRelatedInstances")
_IMAGE = ("SOPClassUID", "SOPInstanceUID", "InstanceNumber", "InstanceAvailability")
_IF_KNOWN = {  # of each level, what is told only where it is known
    Level.STUDY: ("TimezoneOffsetFromUTC",),
    Level.SERIES: ("SeriesDescription", "TimezoneOffsetFromUTC"),
    Level.IMAGE: ("Rows", "Columns", "BitsAllocated", "NumberOfFrames", "TimezoneOffsetFromUTC"),
}
_ABOVE = {  # of each level, what is told of those above it where the address names none (10.6.3.3)
    Level.STUDY: (),
    Level.SERIES: _STUDY,
    Level.IMAGE: (*_STUDY, *_SERIES),
}
_OWN = {Level.STUDY: _STUDY, Level.SERIES: _SERIES, Level.IMAGE: _IMAGE}


class Malformed(Exception):
    """Raised when an address is no search; the message says why, without what was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """One search."""

    level: Level
    keys: dict[str, str]  # keyword -> what it has to match
    told: tuple[str, ...]  # keywords that are told in any case
    if_known: tuple[str, ...]  # keywords that are told where there is a value
    limit: int
    offset: int
    warnings: tuple[str, ...]

    def told_of(self, found: dict[str, object]) -> dict[str, object]:
        """Return what is told of something that was found."""
        there = {keyword: found[keyword] for keyword in self.told if keyword in found}
        return there | {keyword: found[keyword] for keyword in self.if_known if found.get(keyword, "") not in ("", None)}


def criteria(level: Level, above: dict[str, str], parameters: Sequence[tuple[str, str]]) -> Criteria:
    """Read a search.

    above: the unique keys that the address's path has. parameters: of its query, in their order.

    Raises
    ------
    Malformed: it is none.
    """
    if not all(_UID.fullmatch(uid) for uid in above.values()):
        raise Malformed("the path has something that is no UID")
    said, keys, unmatched = read(parameters), dict(above), list[str]()
    for path, value in said.attributes:
        _read_key(level, path, value, keys, unmatched)
    told, if_known = _told(level, above, keys, said.included)
    ignored = (not_matched(unmatched),) if unmatched else ()
    return Criteria(
        level=level,
        keys=keys,
        told=told,
        if_known=if_known,
        limit=min(said.limit, MOST_RESULTS),
        offset=said.offset,
        warnings=(*said.warnings, *ignored),
    )


def not_matched(names: Iterable[str]) -> str:
    """Say that attributes were not compared."""
    return f"The following attributes were not matched: {', '.join(names)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """What the parameters of a search say, whatever is sought."""

    attributes: tuple[tuple[list[str], str], ...]  # keywords, of one within a sequence those of the sequences too; and what is to match
    included: tuple[str, ...]
    limit: int
    offset: int
    warnings: tuple[str, ...]


def read(parameters: Sequence[tuple[str, str]]) -> Parameters:
    """Read the parameters of a search, in their order.

    Raises
    ------
    Malformed: they are none.
    """
    if len(parameters) > _MOST_PARAMETERS:
        raise Malformed("there are too many parameters")
    attributes, included, switches, numbers = list[tuple[list[str], str]](), list[str](), dict[str, str](), dict[str, int]()
    for name, value in parameters:
        if name == "includefield":
            included += value.split(",")
        elif name in ("limit", "offset"):
            _once(name, numbers)
            numbers[name] = _number(name, value)
        elif name in _SWITCHES:
            _once(name, switches)
            switches[name] = _switch(name, value)
        elif name not in _OTHERS:
            attributes.append((path_of(name), value))
    return Parameters(
        attributes=tuple(attributes),
        included=tuple(included),
        limit=numbers.get("limit", MOST_RESULTS),
        offset=numbers.get("offset", 0),
        warnings=tuple(_SWITCHES[name] for name, said in switches.items() if said == "true" and _SWITCHES[name]),
    )


def _read_key(level: Level, path: list[str], value: str, keys: dict[str, str], unmatched: list[str]) -> None:
    keyword = path[0]
    if len(path) > 1 or keyword not in ATTRIBUTES[level]:
        if value:
            unmatched.append(".".join(path))
        return
    wanted = value.replace(",", "\\") if vr_of(keyword) == "UI" else value  # 8.3.4.1; a backslash is what viewers write
    if keyword in keys and keys[keyword] != wanted:
        raise Malformed(f"{keyword} is asked for twice")
    _check(keyword, wanted)
    keys[keyword] = wanted


def path_of(name: str) -> list[str]:
    """Return the keywords of an attribute, of one within a sequence those of the sequences too; a tag without a keyword stands for itself."""
    path = [_keyword(one) for one in name.split(".")]
    if not all(path):
        raise Malformed("a parameter is neither known nor an attribute")
    return path


def _keyword(name: str) -> str:
    if _TAG.fullmatch(name):
        tag = int(name, 16)
        return keyword_for_tag(tag) or name.upper() if dictionary_has_tag(tag) or tag >> 16 & 1 else ""
    return name if tag_for_keyword(name) is not None else ""


def _check(keyword: str, wanted: str) -> None:
    vr = vr_of(keyword)
    for one in alternatives(keyword, wanted):
        if (vr in ("DA", "TM") and span_asked(vr, one) is None) or (vr == "UI" and not _UID.fullmatch(one)):
            raise Malformed(f"{keyword} has a value that is none of its kind")
        if vr in ("IS", "US") and not _NUMBER.fullmatch(one):
            raise Malformed(f"{keyword} has a value that is no number")


def _number(name: str, value: str) -> int:
    if not _WHOLE.fullmatch(value):
        raise Malformed(f"{name} is no number")
    return min(int(value), _MOST_OFFSET)


def _switch(name: str, value: str) -> str:
    if value not in ("true", "false"):
        raise Malformed(f"{name} is neither true nor false")
    return value


def _once(name: str, said: object) -> None:
    if name in said:  # type: ignore[operator]
        raise Malformed(f"{name} is there twice")


def _told(level: Level, above: dict[str, str], keys: dict[str, str], included: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what is told: what the standard requires, what was asked to match, and what was asked for (10.6.3.3)."""
    upper = _ABOVE[level] if not above else _SERIES if level is Level.IMAGE and "SeriesInstanceUID" not in above else ()
    told = [*upper, *_OWN[level], *above, *keys]
    more = list(_IF_KNOWN[level])
    for name in included:
        if name == "all":
            more += ATTRIBUTES[level]
        elif name:
            keyword = path_of(name)[0]
            told += [keyword] if keyword in ATTRIBUTES[level] else []
    return tuple(dict.fromkeys(told)), tuple(dict.fromkeys(more))
