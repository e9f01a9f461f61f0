"""Requesters: what asks for an analysis from outside DICOM becomes a workitem like any other, and is performed, shown and canceled as one."""

import re
from collections.abc import Callable

import structlog
from pydicom import Dataset

from dicom_node.domain import Asked, OrderAct, Readiness, Refused
from dicom_node.store import Store
from dicom_node.worklist.ups import Manager
from dicom_node.worklist.ups.attributes import coded, moment
from dicom_node.worklist.ups.presented import OWN_SCHEME
from dicom_node.worklist.ups.states import DUPLICATE, NO_SUCH_WORKITEM

log = structlog.get_logger()

_LOCAL_SCHEMES = frozenset({"", "L", "LOCAL"})  # what HL7 calls a code of the house


class Requesting:
    """Makes a workitem of an order that came by HL7 v2."""

    def __init__(self, manager: Manager, store: Store, clock: Callable[[], float]) -> None:
        self._manager = manager
        self._store = store
        self._clock = clock

    def request(self, asked: Asked) -> str:
        """Create, change or cancel the workitem of an order; return its UID, empty where the order is for nothing that this node does.

        The same order has the same UID, so that a message that is sent again changes nothing.

        Raises
        ------
        Refused: it cannot be done; the order was completed already.
        """
        if asked.act is OrderAct.STATUS:
            return ""
        if asked.act is OrderAct.CANCEL:
            return self._cancel(asked)
        said = self._item(asked)
        if self._manager.model_of(said) is None:
            log.info("requests.not_for_us", order=asked.key, service=asked.service[0])
            return ""
        try:
            self._manager.create(said, uid=asked.key, requester=_name(asked))
        except Refused as refused:
            if refused.status != DUPLICATE:
                raise
            if asked.act is OrderAct.CHANGE:
                self._change(asked, said)
        return asked.key

    def _cancel(self, asked: Asked) -> str:
        said = Dataset()
        said.ReasonForCancellation = f"{_name(asked)} has canceled the order"
        try:
            self._manager.ask_to_cancel(asked.key, said, who=_name(asked))
        except Refused as refused:
            if refused.status != NO_SUCH_WORKITEM:  # of an order that was for nothing that this node does there is none
                raise
            return ""
        return asked.key

    def _change(self, asked: Asked, said: Dataset) -> None:
        """Change the priority of a step that waits; one that has begun goes on as it is."""
        found = self._store.workitems.get(asked.key)
        if found is not None and not found.is_claimed and not found.has_ended:
            change = Dataset()
            change.ScheduledProcedureStepPriority = said.ScheduledProcedureStepPriority
            self._manager.set(asked.key, change, who=_name(asked))

    def _item(self, asked: Asked) -> Dataset:
        """Return the workitem that an order asks for: its images may not be here yet, and it waits for them."""
        value, scheme, meaning = asked.service
        request = Dataset()
        request.AccessionNumber, request.StudyInstanceUID = asked.accession_number, asked.study_instance_uid
        request.RequestedProcedureID, request.RequestedProcedureDescription = asked.requested_procedure_id, meaning[:64]
        request.RequestedProcedureCodeSequence = []
        request.PlacerOrderNumberImagingServiceRequest = asked.placer_order_number
        request.FillerOrderNumberImagingServiceRequest = asked.filler_order_number
        request.ReasonForTheRequestedProcedure = re.sub(r"[\x00-\x1f\\]", " ", asked.reason)[:64]
        said = Dataset()
        said.SpecificCharacterSet = "ISO_IR 192"
        said.ProcedureStepState, said.ScheduledProcedureStepPriority = "SCHEDULED", asked.priority.name
        said.ProcedureStepLabel, said.InputReadinessState = (meaning or value)[:64], Readiness.UNAVAILABLE.value
        said.ScheduledProcedureStepStartDateTime = moment(self._clock())
        said.ScheduledWorkitemCodeSequence = [coded(value, OWN_SCHEME if scheme.upper() in _LOCAL_SCHEMES else scheme, meaning or value)]
        said.PatientID, said.IssuerOfPatientID = asked.patient_id, asked.issuer_of_patient_id
        said.StudyInstanceUID = asked.study_instance_uid
        said.ReferencedRequestSequence = [request]
        return said


def _name(asked: Asked) -> str:
    """Return who asks: the sending application and facility."""
    return f"HL7 {asked.application}@{asked.facility}"
