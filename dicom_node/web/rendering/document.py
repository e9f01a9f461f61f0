"""A structured report, or a key object, as text that a person reads (PS3.3 C.17.3; PS3.18 8.7.4: text/html and text/plain)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

from pydicom import Dataset

from dicom_node.coding.unreadable import UNREADABLE
from dicom_node.domain import Unsuitable

_DEEPEST = 32
_MOST_ITEMS = 20_000
_LONGEST = 4000  # characters of one value
_TEXTS = {"TEXT": "TextValue", "DATETIME": "DateTime", "DATE": "Date", "TIME": "Time", "UIDREF": "UID", "PNAME": "PersonName"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One content item."""

    depth: int  # of containers above it
    name: str
    value: str
    heads: bool  # whether it is a container


def is_document(header: Dataset) -> bool:
    """Say whether an object has a content tree."""
    return "ContentSequence" in header and header.get("ValueType") == "CONTAINER"


def lines(header: Dataset) -> list[Line]:
    """Return the items of a document in their order.

    Raises
    ------
    Unsuitable: they cannot be understood.
    """
    try:
        found = []
        for line in _lines(header, 0):
            found.append(line)
            if len(found) > _MOST_ITEMS:
                raise ValueError("too many items")
        return found
    except UNREADABLE as error:
        raise Unsuitable("a report cannot be understood", hint="Retrieve the object itself.") from error


def as_text(header: Dataset) -> str:
    """Return a document as plain text."""
    head = [f"{name}: {value}" for name, value in _head(header)]
    said = ["  " * line.depth + (line.name if line.heads else f"{line.name}: {line.value}") for line in lines(header)]
    return "\n".join([*head, "", *said, ""])


def as_html(header: Dataset) -> str:
    """Return a document as a page of its own, without script or style."""
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in _head(header))
    listed = lines(header)
    title = escape(listed[0].name if listed else "Report")
    body, depth = [], 0
    for line in listed:
        body.append("<ul>" * (line.depth - depth) + "</ul>" * (depth - line.depth))
        depth = line.depth
        body.append(f"<li><b>{escape(line.name)}</b></li>" if line.heads else f"<li>{escape(line.name)}: {escape(line.value)}</li>")
    said = "".join(body) + "</ul>" * depth
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>'
    return f"{head}<body><h1>{title}</h1><table>{rows}</table><ul>{said}</ul></body></html>"


def _head(header: Dataset) -> Iterator[tuple[str, str]]:
    for name, keyword in (
        ("Patient", "PatientName"),
        ("Patient ID", "PatientID"),
        ("Study date", "StudyDate"),
        ("Description", "SeriesDescription"),
        ("Completion", "CompletionFlag"),
        ("Verification", "VerificationFlag"),
    ):
        if value := header.get(keyword):
            yield name, str(value)[:_LONGEST]


def _lines(node: Dataset, depth: int) -> Iterator[Line]:
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    heads = node.get("ValueType") == "CONTAINER"
    yield Line(depth=depth, name=meaning(node, "ConceptNameCodeSequence") or ("Report" if not depth else ""), value=_value(node), heads=heads)
    for item in node.get("ContentSequence") or ():
        yield from _lines(item, depth + 1)


def _value(item: Dataset) -> str:
    kind = str(item.get("ValueType") or "")
    if kind in _TEXTS:
        return str(item.get(_TEXTS[kind]) or "")[:_LONGEST]
    say = _VALUES.get(kind)
    if say is not None:
        return say(item)
    named = coordinates(item, "ReferencedContentItemIdentifier")  # a reference to another item
    return f"see {'.'.join(f'{one:.0f}' for one in named)}" if named else ""


def _referenced(item: Dataset) -> str:
    named = item.get("ReferencedSOPSequence")
    return str(named[0].get("ReferencedSOPInstanceUID") or "") if named else ""


_UNITS = {"1": "", "[hnsf'U]": "HU"}  # UCUM, as people write it


def _shape(item: Dataset) -> str:
    values = len(coordinates(item)) // (3 if item.ValueType == "SCOORD3D" else 2)
    return f"{str(item.get('GraphicType') or '').lower()} of {values} {'point' if values == 1 else 'points'}"


def number(item: Dataset) -> str:
    """Return a measured number with its unit, or why there is none (PS3.3 C.18.1)."""
    measured = item.get("MeasuredValueSequence")
    if not measured:
        return meaning(item, "NumericValueQualifierCodeSequence") or "not measured"
    unit = measured[0].get("MeasurementUnitsCodeSequence")
    code = str(unit[0].get("CodeValue") or "") if unit else ""
    return f"{measured[0].NumericValue} {_UNITS.get(code, code)}".strip()


def meaning(item: Dataset, keyword: str) -> str:
    """Return the meaning of a code."""
    codes = item.get(keyword)
    return str(codes[0].get("CodeMeaning") or "")[:_LONGEST] if codes else ""


def code(item: Dataset, keyword: str = "ConceptNameCodeSequence") -> str:
    """Return the value of a code."""
    codes = item.get(keyword)
    return str(codes[0].get("CodeValue") or "") if codes else ""


def coordinates(item: Dataset, keyword: str = "GraphicData") -> list[float]:
    """Return numbers, however many there are."""
    value: Any = item.get(keyword)
    if value is None:
        return []
    return [float(one) for one in value] if hasattr(value, "__iter__") and not isinstance(value, str) else [float(value)]


_VALUES: dict[str, Callable[[Dataset], str]] = {
    "NUM": number,
    "CODE": lambda item: meaning(item, "ConceptCodeSequence"),
    **dict.fromkeys(("IMAGE", "COMPOSITE", "WAVEFORM"), _referenced),
    **dict.fromkeys(("SCOORD", "SCOORD3D"), _shape),
}
