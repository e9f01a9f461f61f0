"""The step by which a reader finds a study that a finding has raised: what was found, by what, and where it is to be had. Pure."""

from collections.abc import Sequence

from pydicom import Dataset

from dicom_node.domain import Header, JobState, Order, Raising, Readiness
from dicom_node.worklist.ups.attributes import coded, moment
from dicom_node.worklist.ups.presented import INPUTS, Station, information

UNVERIFIED = "UNVERIFIED: made by an algorithm, for research use; not for diagnosis."
_COMMENT_CHARACTERS = 10_240  # of an LT
_OF_PATIENT = ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex")


def reading_step(raised: Raising, header: Header, order: Order | None, station: Station, titles: Sequence[str], now: float) -> Dataset:
    """Return a step that asks a reader to look at a study, as an N-CREATE would say it (PS3.4 Table CC.2.5-3).

    header: of an image of the study. titles: of the AEs that get the results, beside this node.
    """
    said = Dataset()
    said.SpecificCharacterSet = "ISO_IR 192"
    said.ProcedureStepState, said.ScheduledProcedureStepPriority = JobState.SCHEDULED.value, raised.priority.name
    said.ProcedureStepLabel, said.InputReadinessState = raised.rule[:64], Readiness.READY.value
    said.ScheduledProcedureStepStartDateTime = moment(now)
    said.ScheduledWorkitemCodeSequence = [coded(*raised.code)] if raised.code is not None else []
    found = f"{raised.algorithm} found: {'; '.join(raised.findings)}. {UNVERIFIED}"
    said.CommentsOnTheScheduledProcedureStep = found[:_COMMENT_CHARACTERS]
    said.StudyInstanceUID = raised.study_instance_uid
    for keyword in _OF_PATIENT:
        setattr(said, keyword, header.get(keyword) or "")
    said.ReferencedRequestSequence = [_request(raised, header, order)]
    setattr(said, INPUTS, information(((one, titles) for one in raised.results), station))
    return said


def _request(raised: Raising, header: Header, order: Order | None) -> Dataset:
    item = Dataset()
    item.StudyInstanceUID = raised.study_instance_uid
    item.AccessionNumber = str(header.get("AccessionNumber") or (order.accession_number if order else ""))[:16]
    item.RequestedProcedureID = (order.requested_procedure_id if order else "")[:16]
    item.RequestedProcedureDescription = (order.requested_procedure_description if order else "")[:64]
    item.RequestedProcedureCodeSequence = [coded(*order.requested_procedure_code)] if order and order.requested_procedure_code else []
    return item
