"""What a RIS is asked about a study, and which of its answers is the study's order: decided without a socket, a row or the clock.

The keys of Study Instance UID and accession number are optional (PS3.4 Table K.6-1): who does not support them answers with other orders, too. So
every answer is compared again here. Of several orders none is taken, and none that contradicts the images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from pydicom import Dataset

from dicom_node.domain import Order, OrderState, Subject, is_uid
from dicom_node.worklist.answering import plain
from dicom_node.worklist.mwl import STEP

_WILD = frozenset("*?\\")
_ID, _TEXT = 16, 64  # characters


class By(StrEnum):
    """What a study is sought by, in the order in which it is tried."""

    STUDY = "its Study Instance UID"
    ACCESSION = "its accession number"
    PATIENT = "patient, modality and date"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One entry of a worklist, as far as it is needed."""

    order: Order
    patient_id: str
    modality: str
    date: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What comes of the answers to one question."""

    state: OrderState
    why: str
    order: Order | None = None


def questions(subject: Subject) -> tuple[tuple[By, Dataset], ...]:
    """Return the identifiers to ask with, in their order; the next is needed where the one before found nothing."""
    asked = [(By.STUDY, identifier(StudyInstanceUID=subject.study_instance_uid))]
    if _is_plain(subject.accession_number):
        asked.append((By.ACCESSION, identifier(AccessionNumber=subject.accession_number)))
    elif _is_plain(subject.patient_id) and subject.modality and subject.study_date:
        step = {"Modality": subject.modality, "ScheduledProcedureStepStartDate": subject.study_date}
        asked.append((By.PATIENT, identifier(step, PatientID=subject.patient_id)))
    return tuple(asked)


def _is_plain(value: str) -> bool:
    return bool(value) and _WILD.isdisjoint(value)


def identifier(of_step: dict[str, str] | None = None, **keys: str) -> Dataset:
    """Return a worklist query for what is needed of an order (PS3.4 K.4.1.1.3); no name is asked for."""
    asked, step, code = Dataset(), Dataset(), Dataset()
    for keyword in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning"):
        setattr(code, keyword, "")
    for keyword in ("ScheduledProcedureStepID", "ScheduledStationAETitle", "Modality", "ScheduledProcedureStepStartDate"):
        setattr(step, keyword, (of_step or {}).get(keyword, ""))
    for keyword in _KEYS:
        setattr(asked, keyword, keys.get(keyword, ""))
    if not all(value.isascii() for value in keys.values()):
        asked.SpecificCharacterSet = "ISO_IR 192"
    asked.RequestedProcedureCodeSequence = [code]
    asked.ScheduledProcedureStepSequence = [step]
    return asked


_KEYS = (
    *("AccessionNumber", "PatientID", "StudyInstanceUID", "RequestedProcedureID", "RequestedProcedureDescription", "ReasonForTheRequestedProcedure"),
    *("PlacerOrderNumberImagingServiceRequest", "FillerOrderNumberImagingServiceRequest"),
)


def read(answer: Dataset) -> Found | None:
    """Return what an answer says of an order; None when it says none that can be used.

    Raises
    ------
    Exception: whatever pydicom raises on bytes that anybody may send.
    """
    answer.decode()
    said = plain(answer)
    step = (said.get(STEP) or [{}])[0]
    order = Order(
        study_instance_uid=uid if is_uid(uid := _said(said, "StudyInstanceUID", _TEXT)) else "",
        accession_number=_said(said, "AccessionNumber", _ID),
        requested_procedure_id=_said(said, "RequestedProcedureID", _ID),
        requested_procedure_description=_said(said, "RequestedProcedureDescription", _TEXT),
        requested_procedure_code=_code(said),
        reason=_said(said, "ReasonForTheRequestedProcedure", _TEXT),
        scheduled_procedure_step_id=_said(step, "ScheduledProcedureStepID", _ID),
        placer_order_number=_said(said, "PlacerOrderNumberImagingServiceRequest", _TEXT),
        filler_order_number=_said(said, "FillerOrderNumberImagingServiceRequest", _TEXT),
    )
    if not order.study_instance_uid or not (order.accession_number or order.requested_procedure_id):
        return None
    date = _said(step, "ScheduledProcedureStepStartDate", _ID)
    return Found(order=order, patient_id=_said(said, "PatientID", _TEXT), modality=_said(step, "Modality", _ID), date=date)


def _code(said: dict[str, Any]) -> tuple[str, str, str] | None:
    item = (said.get("RequestedProcedureCodeSequence") or [{}])[0]
    value, scheme, meaning = _said(item, "CodeValue", _ID), _said(item, "CodingSchemeDesignator", _ID), _said(item, "CodeMeaning", _TEXT)
    return (value, scheme, meaning) if value and scheme and meaning else None


def _said(said: Any, keyword: str, longest: int) -> str:
    """Return a text; empty where it is longer than its VR allows or has control characters: half an accession number is none."""
    value = said.get(keyword) if isinstance(said, dict) else None
    text = value.strip() if isinstance(value, str) else ""
    return text if len(text) <= longest and text.isprintable() and "\\" not in text else ""


def is_meant(by: By, found: Found, subject: Subject) -> bool:
    """Say whether an answer has what was asked for."""
    if by is By.STUDY:
        return found.order.study_instance_uid == subject.study_instance_uid
    if by is By.ACCESSION:
        return found.order.accession_number == subject.accession_number
    return (found.patient_id, found.modality, found.date) == (subject.patient_id, subject.modality, subject.study_date)


def choose(by: By, answers: Sequence[Found], subject: Subject, is_here: Callable[[str], bool]) -> Decision:
    """Return what the answers that are meant come to.

    is_here: whether a study came, too: then an order that foresees it is its own, not this study's.
    """
    contradictions = [_contradiction(one, subject, is_here) for one in answers]
    left = [one.order for one, why in zip(answers, contradictions, strict=True) if not why]
    if not left and answers and by is not By.PATIENT:  # a patient may have other orders on that day
        return Decision(state=OrderState.CONTRADICTED, why=f"the order that was found by {by} is not used: {next(filter(None, contradictions))}")
    distinct = {(one.accession_number, one.requested_procedure_id, one.study_instance_uid): one for one in reversed(left)}
    if len(distinct) > 1:
        return Decision(state=OrderState.AMBIGUOUS, why=f"{len(distinct)} orders were found by {by}; none is used")
    if not distinct:
        return Decision(state=OrderState.NONE, why="no order was found")
    (order,) = distinct.values()
    steps = {one.scheduled_procedure_step_id for one in left}
    order = order if len(steps) == 1 else replace(order, scheduled_procedure_step_id="")
    return Decision(state=OrderState.KNOWN, why=f"it was found by {by}", order=order)


def _contradiction(found: Found, subject: Subject, is_here: Callable[[str], bool]) -> str:
    if found.patient_id and subject.patient_id and found.patient_id != subject.patient_id:
        return "it is another patient's"
    if subject.accession_number and found.order.accession_number and found.order.accession_number != subject.accession_number:
        return "it has another accession number than the images"
    foreseen = found.order.study_instance_uid
    return "it is another study's, which is here too" if foreseen != subject.study_instance_uid and is_here(foreseen) else ""
