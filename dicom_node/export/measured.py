"""A report's numbers as rows: each measurement of a TID 1500 tree with all that the tree says of it (PS3.16 TID 300, 1411, 1501)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset

_MEASUREMENT_GROUP = "125007"
_IMAGE_LIBRARY = "111028"
_TRACKING_IDENTIFIER, _TRACKING_UID = "112039", "112040"
_FINDING, _FINDING_SITE, _LATERALITY = "121071", "363698007", "272741003"
_DERIVATION, _METHOD = "121401", "370129005"
_REFERENCED_SEGMENT = "121191"

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table."""

    name: str
    kind: type  # str, int or float; any may be missing
    meaning: str


COLUMNS = (
    Column("study_instance_uid", str, "the study"),
    Column("series_instance_uid", str, "the series of the images that were measured; of several inputs the first"),
    Column("job_id", int, "the job that measured"),
    Column("completed_at", str, "when that job ended, UTC"),
    Column("model", str, "the model's name"),
    Column("model_version", str, "its version"),
    Column("device_uid", str, "its build"),
    Column("segmentation_sop_instance_uid", str, "the segmentation that holds the segment"),
    Column("segment_number", int, "the segment's number in it"),
    Column("segment_label", str, "what the segment is called; of regions that others drew only if that was asked for"),
    Column("tracking_uid", str, "the same region in every report about it"),
    Column("finding_code", str, "what the segment is: code"),
    Column("finding_scheme", str, "its coding scheme"),
    Column("finding_meaning", str, "its meaning"),
    Column("site_code", str, "where it is: code"),
    Column("site_scheme", str, "its coding scheme"),
    Column("site_meaning", str, "its meaning"),
    Column("laterality", str, "the site's side, the code's meaning"),
    Column("concept_code", str, "what was measured: code"),
    Column("concept_scheme", str, "its coding scheme"),
    Column("concept_meaning", str, "its meaning"),
    Column("derivation", str, "how the number was derived, such as Mean: the code's meaning"),
    Column("method", str, "the measurement method: the code's meaning"),
    Column("value", float, "the number, as the report has it; empty where it is undefined"),
    Column("unit", str, "its unit, in UCUM"),
    Column("qualifier", str, "why there is no number: the code's meaning"),
    Column("sop_instance_uid", str, "the report"),
    Column("verification", str, "the report's Verification Flag: UNVERIFIED"),
    Column("use", str, "what it may be used for"),
)


def rows_of(report: Dataset, fixed: Row, *, labels: bool) -> Iterator[Row]:
    """Give a row for each number of a report, in the tree's order; what is not said of it is left out.

    fixed: what every row gets besides. labels: whether what a region is called may be told.
    """
    of_report = fixed | {
        "study_instance_uid": str(report.StudyInstanceUID),
        "series_instance_uid": _measured_series(report),
        "sop_instance_uid": str(report.SOPInstanceUID),
        "verification": str(report.get("VerificationFlag") or ""),
    }
    for group in _groups(report):
        of_group = of_report | _described(group, labels)
        for item in _content(group):
            if item.get("ValueType") == "NUM":
                yield of_group | _number(item)


def _content(item: Dataset) -> Sequence[Dataset]:
    return item.get("ContentSequence") or ()


def _groups(item: Dataset) -> Iterator[Dataset]:
    for child in _content(item):
        if child.get("ValueType") == "CONTAINER":
            if _name(child) == _MEASUREMENT_GROUP:
                yield child
            elif _name(child) != _IMAGE_LIBRARY:
                yield from _groups(child)


def _described(group: Dataset, labels: bool) -> Row:
    """Return what a group says of the region or the site that it is about."""
    said: Row = {}
    for item in _content(group):
        name = _name(item)
        if name == _TRACKING_IDENTIFIER and labels:
            said["segment_label"] = str(item.TextValue)
        elif name == _TRACKING_UID:
            said["tracking_uid"] = str(item.UID)
        elif name == _FINDING:
            said |= _code("finding", item.ConceptCodeSequence[0])
        elif name == _FINDING_SITE:
            said |= _site(item)
        elif name == _REFERENCED_SEGMENT:
            reference = item.ReferencedSOPSequence[0]
            said["segmentation_sop_instance_uid"] = str(reference.ReferencedSOPInstanceUID)
            numbers = reference.get("ReferencedSegmentNumber")
            said["segment_number"] = int(numbers[0] if isinstance(numbers, Sequence) else numbers)
    return said


def _number(item: Dataset) -> Row:
    said = _code("concept", item.ConceptNameCodeSequence[0])
    if item.get("MeasuredValueSequence"):
        measured = item.MeasuredValueSequence[0]
        said |= {"value": float(measured.NumericValue), "unit": str(measured.MeasurementUnitsCodeSequence[0].CodeValue)}
    if item.get("NumericValueQualifierCodeSequence"):
        said["qualifier"] = str(item.NumericValueQualifierCodeSequence[0].CodeMeaning)
    for child in _content(item):
        name = _name(child)
        if name == _DERIVATION:
            said["derivation"] = str(child.ConceptCodeSequence[0].CodeMeaning)
        elif name == _METHOD:
            said["method"] = str(child.ConceptCodeSequence[0].CodeMeaning)
        elif name == _FINDING_SITE:
            said |= _site(child)
    return said


def _site(item: Dataset) -> Row:
    side = next((child.ConceptCodeSequence[0].CodeMeaning for child in _content(item) if _name(child) == _LATERALITY), None)
    return _code("site", item.ConceptCodeSequence[0]) | ({"laterality": str(side)} if side else {})


def _code(prefix: str, code: Dataset) -> Row:
    value = code.get("CodeValue") or code.get("LongCodeValue") or code.get("URNCodeValue")
    told = {"code": value, "scheme": code.get("CodingSchemeDesignator") or "", "meaning": code.CodeMeaning}
    return {f"{prefix}_{name}": str(one) for name, one in told.items()}


def _name(item: Dataset) -> str:
    named = item.get("ConceptNameCodeSequence")
    return str(named[0].get("CodeValue")) if named else ""


def _measured_series(report: Dataset) -> str:
    """Return the series of the first image of the image library (TID 1600), as the evidence names it."""
    library = next((item for item in _content(report) if _name(item) == _IMAGE_LIBRARY), Dataset())
    images = (child for group in _content(library) for child in _content(group) if child.get("ValueType") == "IMAGE")
    first = next((str(image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID) for image in images), "")
    for study in report.get("CurrentRequestedProcedureEvidenceSequence") or ():
        for series in study.ReferencedSeriesSequence:
            if any(one.ReferencedSOPInstanceUID == first for one in series.ReferencedSOPSequence):
                return str(series.SeriesInstanceUID)
    return ""
