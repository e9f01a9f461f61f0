"""What a report says that somebody wants to be told of: numbers within bounds, and answers (PS3.16 TID 1500)."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from dicom_node.config import FindingWanted
from dicom_node.domain import Term

_IMAGE_LIBRARY = "111028"
_UNREADABLE = (OSError, InvalidDicomError, EOFError, ValueError, TypeError, LookupError, AttributeError, NotImplementedError, struct.error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One number, or one answer, of a report."""

    names: frozenset[str]  # of the concept: meaning and code value, in lower case
    concept: str  # its meaning
    value: float | None = None
    unit: str = ""
    answers: frozenset[str] = frozenset()  # meaning and code value, in lower case
    answer: str = ""  # its meaning
    terms: tuple[Term, Term] = (("", "", ""), ("", "", ""))  # of the concept, and of the unit or the answer

    @property
    def words(self) -> str:
        """What it says, as a person reads it."""
        return f"{self.concept} {self.value:g} {self.unit}" if self.value is not None else f"{self.concept}: {self.answer}"


def found_in(report: Path, wanted: Sequence[FindingWanted], model: str) -> tuple[Said, ...] | None:
    """Return what a model's report says that somebody wants to know; None when the file cannot be read."""
    try:
        found = tuple(said_in(dcmread(report)))
    except _UNREADABLE:
        return None
    return tuple(said for said in found if any(meets(said, one, model) for one in wanted))


def said_in(report: Dataset) -> Iterator[Said]:
    """Give each number and each coded answer of a report, in the tree's order."""
    for item in report.get("ContentSequence") or ():
        named = item.get("ConceptNameCodeSequence")
        names, concept = _code(named)
        if _IMAGE_LIBRARY in names:
            continue
        if item.get("ValueType") == "NUM" and item.get("MeasuredValueSequence"):
            measured = item.MeasuredValueSequence[0]
            in_unit = measured.get("MeasurementUnitsCodeSequence")
            terms = _term(named), _term(in_unit)
            yield Said(names=names, concept=concept, value=float(measured.NumericValue), unit=_code(in_unit)[1], terms=terms)
        elif item.get("ValueType") == "CODE":
            given = item.get("ConceptCodeSequence")
            answers, answer = _code(given)
            yield Said(names=names, concept=concept, answers=answers, answer=answer, terms=(_term(named), _term(given)))
        yield from said_in(item)


def meets(said: Said, wanted: FindingWanted, model: str) -> bool:
    """Say whether what a model's report says is what somebody wants to be told of."""
    if (wanted.model and wanted.model != model) or wanted.concept.lower() not in said.names:
        return False
    if said.value is not None:
        low = wanted.min is None or said.value >= wanted.min
        return not wanted.answer and low and (wanted.max is None or said.value <= wanted.max)
    return wanted.min is None and wanted.max is None and (not wanted.answer or wanted.answer.lower() in said.answers)


def _code(sequence: Sequence[Dataset] | None) -> tuple[frozenset[str], str]:
    if not sequence:
        return frozenset(), ""
    value, _, meaning = _term(sequence)
    return frozenset({value.lower(), meaning.lower()} - {""}), meaning


def _term(sequence: Sequence[Dataset] | None) -> Term:
    code = sequence[0] if sequence else Dataset()
    value = str(code.get("CodeValue") or code.get("LongCodeValue") or code.get("URNCodeValue") or "")
    return value, str(code.get("CodingSchemeDesignator") or ""), str(code.get("CodeMeaning") or "")
