"""What a report says that somebody wants to be told of: numbers within bounds, and answers (PS3.16 TID 1500)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydicom import Dataset

from dicom_node.config import FindingWanted

_IMAGE_LIBRARY = "111028"


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One number, or one answer, of a report."""

    names: frozenset[str]  # of the concept: meaning and code value, in lower case
    concept: str  # its meaning
    value: float | None = None
    unit: str = ""
    answers: frozenset[str] = frozenset()  # meaning and code value, in lower case
    answer: str = ""  # its meaning


def said_in(report: Dataset) -> Iterator[Said]:
    """Give each number and each coded answer of a report, in the tree's order."""
    for item in report.get("ContentSequence") or ():
        names, concept = _code(item.get("ConceptNameCodeSequence"))
        if _IMAGE_LIBRARY in names:
            continue
        if item.get("ValueType") == "NUM" and item.get("MeasuredValueSequence"):
            measured = item.MeasuredValueSequence[0]
            _, unit = _code(measured.get("MeasurementUnitsCodeSequence"))
            yield Said(names=names, concept=concept, value=float(measured.NumericValue), unit=unit)
        elif item.get("ValueType") == "CODE":
            answers, answer = _code(item.get("ConceptCodeSequence"))
            yield Said(names=names, concept=concept, answers=answers, answer=answer)
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
    code = sequence[0]
    value = str(code.get("CodeValue") or code.get("LongCodeValue") or code.get("URNCodeValue") or "")
    meaning = str(code.get("CodeMeaning") or "")
    return frozenset({value.lower(), meaning.lower()} - {""}), meaning
