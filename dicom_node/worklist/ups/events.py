"""What an event report says (PS3.4 Table CC.2.4-1): from the facts that the ledger keeps to Event Information. Pure."""

from collections.abc import Mapping
from typing import Any

from pydicom import Dataset

from dicom_node.domain import EventReport, ReportKind
from dicom_node.worklist.ups.attributes import coded
from dicom_node.worklist.ups.reasons import reason_of

SOP_CLASS = "1.2.840.10008.5.1.4.34.6.4"  # UPS Event
_REASON_CHARACTERS = 1024


def information(of: EventReport) -> Dataset:
    """Return the Event Information of a report."""
    said = _information(of.kind, of.facts)
    if any(not str(element.value).isascii() for element in said.iterall() if element.VR != "SQ"):
        said.SpecificCharacterSet = "ISO_IR 192"
    return said


def _information(kind: ReportKind, facts: Mapping[str, Any]) -> Dataset:
    match kind:
        case ReportKind.STATE:
            return _state(facts)
        case ReportKind.CANCEL_REQUESTED:
            return _cancel(facts)
        case ReportKind.PROGRESS:
            return progressed(facts)
        case ReportKind.SCP_STATUS:
            said = Dataset()
            said.SCPStatus, said.SubscriptionListStatus = facts["status"], facts["subscriptions"]
            said.UnifiedProcedureStepListStatus = facts["workitems"]
            return said
        case ReportKind.ASSIGNED:
            return Dataset.from_json(dict(facts["attributes"]))


def _state(facts: Mapping[str, Any]) -> Dataset:
    said = Dataset()
    said.InputReadinessState, said.ProcedureStepState = str(facts["readiness"]), str(facts["state"])
    if said.ProcedureStepState == "CANCELED":
        said.ReasonForCancellation = str(facts.get("reason", ""))[:_REASON_CHARACTERS]
        said.ProcedureStepDiscontinuationReasonCodeSequence = [coded(*reason_of(facts))]
    return said


def _cancel(facts: Mapping[str, Any]) -> Dataset:
    said = Dataset()
    said.RequestingAE = str(facts.get("requester", ""))[:16]
    said.ReasonForCancellation = str(facts.get("reason", ""))[:_REASON_CHARACTERS]
    if "code" in facts:
        said.ProcedureStepDiscontinuationReasonCodeSequence = [coded(*reason_of(facts))]
    for keyword, name in (("ContactURI", "contact_uri"), ("ContactDisplayName", "contact_name")):
        if facts.get(name):
            setattr(said, keyword, str(facts[name])[:_REASON_CHARACTERS])
    return said


def progressed(facts: Mapping[str, Any]) -> Dataset:
    """Return how far a step is: per cent, and a sentence."""
    item = Dataset()
    item.ProcedureStepProgress = f"{100 * float(facts['progress']):.0f}"
    item.ProcedureStepProgressDescription = str(facts.get("note", ""))[:_REASON_CHARACTERS]
    if facts.get("contact_uri"):
        contact = Dataset()
        contact.ContactURI = str(facts["contact_uri"])
        item.ProcedureStepCommunicationsURISequence = [contact]
    said = Dataset()
    said.ProcedureStepProgressInformationSequence = [item]
    return said
