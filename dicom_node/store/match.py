"""Attribute matching, written down once (PS3.4 C.2.2.2): whoever answers a query asks here whether an entity is meant.

`matches` decides, in Python. `prefilter` says the same to a database as well as SQL can: it may let too much through, never too little, so that
both databases give the same answers. What it looks at are columns that hold what `written` makes of a value. No I/O.
"""

import re
import unicodedata
from calendar import monthrange
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache, partial
from itertools import zip_longest
from typing import Any

from pydicom.datadict import dictionary_VR
from sqlalchemy import Column, ColumnElement, and_, false, func, or_, true

Attributes = Mapping[str, Any]  # keyword -> text, number, or a list of them; of a sequence a list of such mappings
Test = Callable[[Attributes], bool]

# Required keys, of which an entity without a value counts as a match (PS3.4 C.2.2.1.2 and Tables C.6-1 to C.6-5). Patient ID, required in the Study
# Root model, is not among them: who asks for one patient must not be given another's studies.
REQUIRED_KEYS = frozenset({"PatientName", "StudyDate", "StudyTime", "AccessionNumber", "StudyID", "Modality", "SeriesNumber", "InstanceNumber"})
JOINED = frozenset({"ModalitiesInStudy", "SOPClassesInStudy"})  # whose column holds every value, between backslashes
MANY = "\\"  # what a column holds instead of several values, or of one that is malformed: only `matches` can tell

_WILDCARD = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT", ""})  # C.2.2.2.4; "": a keyword that the dictionary lacks
_NUMBERS = frozenset({"DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"})
_ONE_TEXT = frozenset({"LT", "ST", "UR", "UT"})  # in which a backslash is a character like others (PS3.5 6.2)
_LONGEST = 1024  # characters of a value that a pattern may ask for; the ledger keeps no longer ones
_CUT = 64  # characters of a value that a column holds
_PATTERN = 48  # characters of a pattern that SQL is given
_LISTED, _COMPARED = 10_000, 100  # values that it is given of one key, to be equal, or to be compared otherwise
_COMPONENTS = 5  # of a person's name (PS3.5 6.2.1)

_DATE = re.compile(r"([0-9]{4})(\.?)([0-9]{2})\2([0-9]{2})")  # 2024.01.31 is how ACR-NEMA wrote it (PS3.5 Table 6.2-1)
_TIME = re.compile(r"([0-9]{2})(?::?([0-9]{2})(?::?([0-9]{2})(?:\.([0-9]{1,6}))?)?)?")
_MOMENT = re.compile(
    r"([0-9]{4})(?:([0-9]{2})(?:([0-9]{2})(?:([0-9]{2})(?:([0-9]{2})(?:([0-9]{2})(?:\.([0-9]{1,6}))?)?)?)?)?)?(?:([+-])([0-9]{2})([0-9]{2}))?"
)

Span = tuple[str, str]  # the first and the last moment that a value of its precision may mean; texts that are ordered as the moments are


def matches(keys: Attributes, attributes: Attributes, *, required: Collection[str] = REQUIRED_KEYS) -> bool:
    """Say whether an entity with these attributes is what all keys ask for.

    Of several values in a key any may match (C.2.2.2.2 for UIDs; C.2.2.2.8 for others), and of several in the entity too. A key without a value,
    or one that is `*`, matches everything (C.2.2.2.3). Only names are compared without regard to case and accents.
    """
    return matcher(keys, required=required)(attributes)


def matcher(keys: Attributes, *, required: Collection[str] = REQUIRED_KEYS) -> Test:
    """Return `matches` for many entities that the same keys are compared with."""
    tests = [_test(keyword, wanted, required) for keyword, wanted in keys.items()]
    asked = [test for test in tests if test is not None]
    return lambda attributes: all(test(attributes) for test in asked)


def alternatives(keyword: str, wanted: Any) -> tuple[str, ...]:
    """Return the values of a key, any of which may match; none when it matches everything."""
    vr = vr_of(keyword)
    given = wanted if isinstance(wanted, list | tuple) else [wanted]
    texts = ["" if one is None else str(one) for one in given]
    parts = [part for text in texts for part in ([text] if vr in _ONE_TEXT else text.split("\\"))]
    trimmed = tuple(dict.fromkeys(part for text in parts if (part := text.strip(" \0"))))
    return () if any(_is_star(vr, one) for one in trimmed) else trimmed


@lru_cache(1024)
def vr_of(keyword: str) -> str:
    """Return the VR of a keyword, the first where there are several; empty when the dictionary does not know it."""
    try:
        return str(dictionary_VR(keyword)).partition(" ")[0]
    except (KeyError, ValueError):
        return ""


def _is_star(vr: str, wanted: str) -> bool:
    return not wanted.strip("*") or (vr == "PN" and not fold_name(wanted)) or (vr in _SPANS and wanted == "-")


def _is_sequence(wanted: Any) -> bool:
    return isinstance(wanted, Mapping) or (isinstance(wanted, list | tuple) and any(isinstance(one, Mapping) for one in wanted))


def _test(keyword: str, wanted: Any, required: Collection[str]) -> Test | None:
    """Return how one key is compared; None when it matches everything."""
    if _is_sequence(wanted):
        return _sequence_test(keyword, wanted, required)
    asked, vr = alternatives(keyword, wanted), vr_of(keyword)
    if not asked:
        return None
    compare, exact, if_empty = _COMPARISONS.get(vr, _text_matches), frozenset(asked), keyword in required

    def test(attributes: Attributes) -> bool:
        held, offset = _values(attributes.get(keyword)), str(attributes.get("TimezoneOffsetFromUTC") or "")
        if not held:
            return if_empty
        return not exact.isdisjoint(held) or (vr != "UI" and any(compare(vr, one, value, offset) for one in asked for value in held))

    return test


def _sequence_test(keyword: str, wanted: Any, required: Collection[str]) -> Test | None:
    """Return how a sequence is compared: one of its items has to be what the key's item asks for (C.2.2.2.6)."""
    item = wanted if isinstance(wanted, Mapping) else next(one for one in wanted if isinstance(one, Mapping))
    if all(_test(inner, value, required) is None for inner, value in item.items()):
        return None
    inside = matcher(item, required=required)

    def test(attributes: Attributes) -> bool:
        value = attributes.get(keyword)
        items = value if isinstance(value, list | tuple) else [value]
        return any(inside(one) for one in items if isinstance(one, Mapping))

    return test


def _values(value: Any) -> list[str]:
    """Return the values of an attribute without their padding; those that are empty are none."""
    given = value if isinstance(value, list | tuple) else [value]
    return [text for one in given if one is not None and (text := str(one).strip(" \0"))]


# ----------------------------------------------------------------------------------------------------------------- texts


def _text_matches(vr: str, wanted: str, value: str, _offset: str) -> bool:
    """Compare by single value, or by wildcard where the VR allows it (C.2.2.2.1 and C.2.2.2.4)."""
    return wanted == value or (vr in _WILDCARD and _has_wildcard(wanted) and _globbed(wanted, value))


def _number_matches(_vr: str, wanted: str, value: str, _offset: str) -> bool:
    try:
        return float(wanted) == float(value)
    except ValueError:
        return wanted == value


def _name_matches(_vr: str, wanted: str, value: str, _offset: str) -> bool:
    """Compare names by their component groups: one that is asked for alone may be any of the name's, several stand at their places."""
    asked, groups = fold_name(wanted).split("="), fold_name(value).split("=")
    if len(asked) == 1:
        return any(_group_matches(asked[0], group) for group in groups)
    return all(_group_matches(one, group) for one, group in zip_longest(asked, groups, fillvalue="") if one)


def _group_matches(wanted: str, group: str) -> bool:
    if not _has_wildcard(wanted):
        return wanted == group
    whole = group + "^" * (_COMPONENTS - 1 - group.count("^"))  # DOE^* means a Doe without a first name, too
    return _globbed(wanted, group) or _globbed(wanted, whole)


def _has_wildcard(text: str) -> bool:
    return "*" in text or "?" in text


def _globbed(pattern: str, text: str) -> bool:
    expression = _expression(pattern)
    return expression is not None and expression.fullmatch(text) is not None


@lru_cache(256)
def _expression(pattern: str) -> re.Pattern[str] | None:
    """Return `*` and `?` as an expression that never looks at a stretch of text twice; None when no value is as long as it asks for."""
    if len(pattern.replace("*", "")) > _LONGEST:
        return None
    first, *others = ("".join("." if sign == "?" else re.escape(sign) for sign in part) for part in pattern.split("*"))
    middle = "".join(f"(?>.*?{part})" for part in others[:-1] if part)
    return re.compile(first + middle + (f".*{others[-1]}" if others else ""), re.DOTALL)


def fold(text: str) -> str:
    """Return a text without case and accents."""
    plain = (sign for sign in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(sign))
    return unicodedata.normalize("NFC", "".join(plain).casefold())


def fold_name(name: str) -> str:
    """Return a person's name without case, accents, padding, and components that are empty at the end."""
    groups = ("^".join(part.strip() for part in fold(group).split("^")).rstrip("^") for group in name.split("="))
    return "=".join(groups).rstrip("=")


# --------------------------------------------------------------------------------------------------------------- moments


def _moment_matches(vr: str, wanted: str, value: str, offset: str) -> bool:
    """Compare dates and times as values, by single value or by range (C.2.2.2.1 and C.2.2.2.5); of partial precision, by what they may mean."""
    asked, held = span_asked(vr, wanted, offset), span(vr, value, offset)
    if asked is None or held is None:
        return wanted == value
    first, last = asked
    return (first is None or held[1] >= first) and (last is None or held[0] <= last)


def span_asked(vr: str, wanted: str, offset: str = "") -> tuple[str | None, str | None] | None:
    """Return the first and the last moment that a key asks for, None at an end that is open; None when it is malformed."""
    if (single := span(vr, wanted, offset)) is not None:
        return single
    for at in (place for place, sign in enumerate(wanted) if sign == "-"):  # that of an offset from UTC parts nothing
        left, right = wanted[:at].strip(), wanted[at + 1 :].strip()
        first, last = span(vr, left, offset), span(vr, right, offset)
        if (first is not None or not left) and (last is not None or not right) and (left or right):
            return first[0] if first else None, last[1] if last else None
    return None


@lru_cache(4096)
def span(vr: str, text: str, offset: str = "") -> Span | None:
    """Return the first and the last moment that a value may mean; None when it is malformed."""
    return _SPANS[vr](text, offset)


def _date_span(text: str, _offset: str) -> Span | None:
    found = _DATE.fullmatch(text)
    return (found[1] + found[3] + found[4],) * 2 if found else None


def _time_span(text: str, _offset: str) -> Span | None:
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    hour, minute, second, fraction = found.groups(default="")
    first = f"{hour}{minute or '00'}{second or '00'}.{fraction:0<6}"
    return first, f"{hour}{minute or '59'}{second or '60'}.{fraction:9<6}"  # 60: a leap second


def _moment_span(text: str, offset: str) -> Span | None:
    found = _MOMENT.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second, fraction, sign, hours, minutes = found.groups(default="")
    try:
        last_day = monthrange(int(year), int(month or 12))[1]
        micros = int(f"{fraction:0<6}"), int(f"{fraction:9<6}")
        first = datetime(int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0), min(int(second or 0), 59), micros[0])
        last = datetime(int(year), int(month or 12), int(day or last_day), int(hour or 23), int(minute or 59), min(int(second or 59), 59), micros[1])
        ahead = _ahead(sign + hours + minutes) if sign else _ahead(offset)
        return (first - ahead).isoformat(timespec="microseconds"), (last - ahead).isoformat(timespec="microseconds")
    except (ValueError, OverflowError):
        return None


def _ahead(offset: str) -> timedelta:
    """Return by how much local time is ahead of UTC, as Timezone Offset From UTC (0008,0201) says it; nothing when it says nothing."""
    found = re.fullmatch(r"([+-])([0-9]{2})([0-9]{2})", offset)
    if found is None:
        return timedelta()
    ahead = timedelta(hours=int(found[2]), minutes=int(found[3]))
    return -ahead if found[1] == "-" else ahead


_SPANS: Mapping[str, Callable[[str, str], Span | None]] = {"DA": _date_span, "TM": _time_span, "DT": _moment_span}
_COMPARISONS: Mapping[str, Callable[[str, str, str, str], bool]] = (
    dict.fromkeys(_SPANS, _moment_matches) | dict.fromkeys(_NUMBERS, _number_matches) | {"PN": _name_matches}
)


# ------------------------------------------------------------------------------------------------------------------- SQL


def written(keyword: str, value: Any) -> str:
    """Return what a column holds of an attribute's value; empty when there is none."""
    held, vr = _values(value), vr_of(keyword)
    if keyword in JOINED:
        return MANY.join(["", *held, ""]) if held else ""
    if len(held) != 1:
        return MANY if held else ""
    if vr == "PN":
        return fold_name(held[0]) or MANY
    if vr in _SPANS:
        found = span(vr, held[0])
        return MANY if found is None else found[0]
    return MANY if held[0].startswith("\\") else held[0][:_CUT]


def prefilter(keys: Attributes, columns: Mapping[str, Column[Any]], *, required: Collection[str] = REQUIRED_KEYS) -> list[ColumnElement[bool]]:
    """Return conditions on columns, all of which hold for every row whose entity the keys mean; keys without a column have none."""
    there = {keyword: wanted for keyword, wanted in keys.items() if keyword in columns and not _is_sequence(wanted)}
    asked = {keyword: alternatives(keyword, wanted) for keyword, wanted in there.items() if vr_of(keyword) not in _NUMBERS | {"DT"}}
    found = (_condition(keyword, columns[keyword], values, keyword in required) for keyword, values in asked.items() if values)
    return [one for one in found if one is not None]


def doubtful(keys: Attributes, columns: Mapping[str, Column[Any]], *, required: Collection[str] = REQUIRED_KEYS) -> ColumnElement[bool]:
    """Return what holds of every row that `prefilter` lets through and `matches` may not: of the others the database decides alone."""
    doubts: list[ColumnElement[bool]] = []
    for keyword, wanted in keys.items():
        if _is_sequence(wanted):
            doubts.append(true())
        elif asked := alternatives(keyword, wanted):
            doubts.append(_doubt(keyword, columns[keyword], asked, keyword in required) if keyword in columns else true())
    return or_(false(), *doubts)


def _doubt(keyword: str, column: Column[Any], asked: Sequence[str], is_required: bool) -> ColumnElement[bool]:
    vr, most = vr_of(keyword), max(map(len, asked))
    if vr in _NUMBERS | {"PN", "TM", "DT"} or (vr != "DA" and any(map(_has_wildcard, asked))) or len(asked) > _COMPARED:
        return true()
    if keyword in JOINED:  # LIKE may not regard case
        return true() if most > _PATTERN or any(one != one.upper() for one in asked) else column != func.upper(column)
    if vr == "DA":
        nothing = [MANY] if is_required else [MANY, ""]
        return true() if any(span_asked(vr, one) is None for one in asked) else column.in_(nothing)
    return true() if most >= _CUT else column == MANY


def _condition(keyword: str, column: Column[Any], asked: Sequence[str], is_required: bool) -> ColumnElement[bool] | None:
    """Return what has to hold of a column; None where a database would not take so long a list."""
    exact, compare = [MANY] + [""] * is_required, _comparison(keyword, asked)
    if compare is None:
        return column.in_([*(one[:_CUT] for one in asked), *exact]) if len(asked) <= _LISTED else None
    return or_(column.in_(exact), *(compare(column, one) for one in asked)) if len(asked) <= _COMPARED else None


def _comparison(keyword: str, asked: Sequence[str]) -> Callable[[Column[Any], str], ColumnElement[bool]] | None:
    """Return how a column is compared with a value of a key; None where it has to be equal."""
    vr = vr_of(keyword)
    if keyword in JOINED:
        return lambda column, one: column.like(_joined_pattern(one), escape="/")
    if vr == "PN":
        return lambda column, one: column.like(_name_pattern(one), escape="/")
    if vr in _SPANS:
        return partial(_within, vr)
    if vr in _WILDCARD and any(map(_has_wildcard, asked)):
        return lambda column, one: or_(func.length(column) >= _CUT, column.like(_pattern(one), escape="/"))
    return None


def _within(vr: str, column: Column[Any], wanted: str) -> ColumnElement[bool]:
    """Compare the first moment that a value may mean; the last that a time may mean is less than an hour away."""
    asked = span_asked(vr, wanted)
    if asked is None:
        return false()  # a value that it is equal to is malformed as well
    first, last = asked
    ends = [column >= (first if vr == "DA" else first[:2])] if first is not None else []
    ends += [column <= last] if last is not None else []
    return and_(*ends)


def _joined_pattern(wanted: str) -> str:
    return f"%{MANY}{_pattern(wanted)}{MANY}%" if len(wanted) <= _PATTERN else "%"


def _pattern(wanted: str) -> str:
    cut = wanted[:_PATTERN]
    signs = "".join("%" if sign == "*" else "_" if sign == "?" else _escaped(sign) for sign in cut)
    return signs if cut == wanted else f"{signs}%"


def _name_pattern(wanted: str) -> str:
    """Return a pattern that every name has in it: its pieces in their order, wherever they are."""
    group = next(one for one in fold_name(wanted).split("=") if one)
    return f"%{'%'.join(_escaped(piece) for piece in re.split(r'[*?^ ]+', group[:_PATTERN]) if piece)}%"


def _escaped(text: str) -> str:
    return re.sub(r"([/%_])", r"/\1", text)
