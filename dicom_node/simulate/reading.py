"""What a structured report says, as rows of a table."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

_MEASUREMENT_GROUP, _QUALITATIVE_EVALUATIONS = "125007", "C0034375"
_TRACKING_IDENTIFIER, _TRACKING_UID, _FINDING, _DERIVATION = "112039", "112040", "121071", "121401"
_FINDING_SITE, _LATERALITY = ("363698007", "G-C0E3"), ("272741003", "G-C171")  # as SNOMED CT writes them now and SNOMED RT did
_CATEGORY, _METHOD, _PURPOSE = "276214006", ("370129005", "G-C036"), "130400"
_OF_A_GROUP = (_FINDING, _CATEGORY, *_FINDING_SITE, *_METHOD, _PURPOSE)  # coded items that describe a group (TID 1411, 1501); the others are answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One number or answer in a report."""

    label: str  # the concept, with its derivation in brackets
    value: float | str  # a number, or the meaning of a coded answer
    unit: str  # UCUM; empty for an answer
    site: str  # where it was found, with its side
    tracking_id: str
    tracking_uid: str


def findings(sr: Path) -> list[Finding]:
    """Return the measurements and qualitative evaluations of a report made by TID 1500, in the order in which it gives them."""
    return list(_found(dcmread(sr)))


def _found(node: Dataset) -> Iterator[Finding]:
    for item in node.get("ContentSequence", []):
        concept = _code(item)
        if item.ValueType == "CONTAINER" and concept == _MEASUREMENT_GROUP:
            yield from _of_group(item)
        elif item.ValueType == "CONTAINER" and concept == _QUALITATIVE_EVALUATIONS:
            yield from (_finding(child, item) for child in item.get("ContentSequence", []) if child.ValueType == "CODE")
        elif item.ValueType == "CONTAINER":
            yield from _found(item)


def _of_group(group: Dataset) -> Iterator[Finding]:
    for item in group.get("ContentSequence", []):
        if item.ValueType == "NUM" or (item.ValueType == "CODE" and _code(item) not in _OF_A_GROUP):
            yield _finding(item, group)


def _finding(item: Dataset, group: Dataset) -> Finding:
    derivation = _meaning(item, _DERIVATION)
    label = str(item.ConceptNameCodeSequence[0].CodeMeaning)
    value: float | str
    if item.ValueType == "NUM":
        measured = item.MeasuredValueSequence[0] if item.get("MeasuredValueSequence") else None  # empty when it could not be measured
        value = float(measured.NumericValue) if measured else "not measured"
        unit = str(measured.MeasurementUnitsCodeSequence[0].CodeValue) if measured else ""
    else:
        value, unit = str(item.ConceptCodeSequence[0].CodeMeaning), ""
    return Finding(
        label=f"{label} ({derivation})" if derivation else label,
        value=value,
        unit=unit,
        site=_site(item) or _site(group) or _meaning(group, _FINDING),
        tracking_id=_text(group, _TRACKING_IDENTIFIER, "TextValue"),
        tracking_uid=_text(group, _TRACKING_UID, "UID"),
    )


def _site(node: Dataset) -> str:
    for item in _children(node, *_FINDING_SITE):
        side = _meaning(item, *_LATERALITY)
        return " ".join(filter(None, (str(item.ConceptCodeSequence[0].CodeMeaning), f"({side})" if side else "")))
    return ""


def _children(node: Dataset, *codes: str) -> Iterator[Dataset]:
    return (item for item in node.get("ContentSequence", []) if _code(item) in codes)


def _meaning(node: Dataset, *codes: str) -> str:
    return next((str(item.ConceptCodeSequence[0].CodeMeaning) for item in _children(node, *codes) if item.ValueType == "CODE"), "")


def _text(node: Dataset, code: str, keyword: str) -> str:
    return next((str(item.get(keyword, "")) for item in _children(node, code)), "")


def _code(item: Dataset) -> str:
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].get("CodeValue", "")) if names else ""
