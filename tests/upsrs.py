"""Workitems as a client of UPS-RS writes them, and its requests, by hand."""

import json
from typing import Any

from pydicom import Dataset
from pydicom.uid import generate_uid

from dicom_node.domain import JobState

RIGHT, WRONG = "2.25.777000777000777001", "2.25.777000777000777002"  # Transaction UIDs
DICOM_JSON = {"Content-Type": "application/dicom+json"}
MARKED = "MARKED_7"


def code(value: str, scheme: str = "99TEST", meaning: str = "") -> Dataset:
    """Return a coded term."""
    one = Dataset()
    one.CodeValue, one.CodingSchemeDesignator, one.CodeMeaning = value, scheme, meaning or value
    return one


def wanted(**said: Any) -> Dataset:
    """Return a new workitem with all that it must say; said: what is otherwise, None: left out."""
    one = Dataset()
    one.ProcedureStepState, one.ScheduledProcedureStepPriority, one.ProcedureStepLabel = "SCHEDULED", "MEDIUM", "Count the ribs"
    one.ScheduledProcedureStepStartDateTime, one.InputReadinessState = "20260110101500", "READY"
    one.WorklistLabel = "Ribs"
    one.ScheduledWorkitemCodeSequence = [code("RIBS")]
    one.ScheduledStationNameCodeSequence = [code("RIBCOUNTER")]
    one.PatientName, one.PatientID, one.PatientBirthDate, one.PatientSex = "Marked^Ada", MARKED, "19500102", "F"
    one.StudyInstanceUID = "1.2.3.4"
    for keyword, value in said.items():
        if value is None:
            del one[keyword]
        else:
            setattr(one, keyword, value)
    return one


def whole() -> Dataset:
    """Return a new workitem to which nothing has to be added."""
    empty = {
        **dict.fromkeys(("ScheduledProcessingParametersSequence", "ScheduledStationClassCodeSequence", "InputInformationSequence"), []),
        **dict.fromkeys(("ScheduledStationGeographicLocationCodeSequence", "ReferencedRequestSequence"), []),
        **dict.fromkeys(("ProcedureStepProgressInformationSequence", "UnifiedProcedureStepPerformedProcedureSequence"), []),
        **dict.fromkeys(("CommentsOnTheScheduledProcedureStep", "AdmissionID", "TransactionUID"), ""),
    }
    return wanted(**empty)


def asked_state(state: str, transaction: str = "") -> Dataset:
    """Return what changes a state."""
    one = Dataset()
    one.ProcedureStepState = state
    if transaction:
        one.TransactionUID = transaction
    return one


def performed() -> Dataset:
    """Return what a workitem must say before it is completed."""
    step = Dataset()
    step.PerformedStationNameCodeSequence, step.PerformedWorkitemCodeSequence = [code("RIBCOUNTER")], [code("RIBS")]
    step.PerformedProcedureStepStartDateTime, step.PerformedProcedureStepEndDateTime = "20260110101600", "20260110101700"
    step.OutputInformationSequence = []
    one = Dataset()
    one.UnifiedProcedureStepPerformedProcedureSequence = [step]
    return one


def discontinued() -> Dataset:
    """Return what a workitem must say before it is canceled."""
    progress = Dataset()
    progress.ProcedureStepDiscontinuationReasonCodeSequence = [code("110501", "DCM", "Equipment failure")]
    progress.ReasonForCancellation = "the machine is on fire"
    one = Dataset()
    one.ProcedureStepProgressInformationSequence = [progress]
    return one


def progressed(percent: int) -> Dataset:
    """Return how far a workitem is."""
    progress = Dataset()
    progress.ProcedureStepProgress, progress.ProcedureStepProgressDescription = str(percent), "ribs are counted"
    one = Dataset()
    one.ProcedureStepProgressInformationSequence = [progress]
    return one


def body(said: Dataset) -> bytes:
    """Return a data set as JSON."""
    return json.dumps([said.to_json_dict()]).encode()


class Client:
    """Asks for workitems; http: a client of HTTP with `request`."""

    def __init__(self, http: Any, **headers: str) -> None:
        self.http = http
        self.headers = headers
        self.heard: list[str] = []  # every answer, whole

    def ask(self, method: str, path: str, said: Dataset | bytes | None = None, **headers: str) -> Any:
        """Ask, and remember the answer."""
        content = said if isinstance(said, bytes) or said is None else body(said)
        given = {**(DICOM_JSON if content is not None else {}), **self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        answer = self.http.request(method, f"/dicom-web{path}", content=content, headers=given)
        self.heard.append(f"{answer.headers}{answer.text}")
        return answer

    def create(self, said: Dataset | None = None) -> str:
        """Create a workitem, and return its UID."""
        uid = str(generate_uid())
        answer = self.ask("POST", f"/workitems?{uid}", said or whole())
        assert answer.status_code == 201, answer.text
        return uid

    def state(self, uid: str, state: str, transaction: str = RIGHT) -> Any:
        """Ask for another state."""
        return self.ask("PUT", f"/workitems/{uid}/state", asked_state(state, transaction))

    def update(self, uid: str, said: Dataset, transaction: str = RIGHT) -> Any:
        """Change what a workitem says."""
        return self.ask("POST", f"/workitems/{uid}" + (f"?{transaction}" if transaction else ""), said)

    def get(self, uid: str) -> Dataset:
        """Return a workitem."""
        answer = self.ask("GET", f"/workitems/{uid}", Accept="application/dicom+json")
        assert answer.status_code == 200, answer.text
        (one,) = answer.json()
        return Dataset.from_json(one)

    def brought_to(self, state: JobState | None) -> str:
        """Return the UID of a workitem in a state; of none where the state is None."""
        if state is None:
            return "1.2.3.999"
        uid = self.create()
        if state is not JobState.SCHEDULED:
            assert self.state(uid, "IN PROGRESS").status_code == 200
        if state is JobState.COMPLETED:
            assert self.update(uid, performed()).status_code == 200
            assert self.state(uid, "COMPLETED").status_code == 200
        if state is JobState.CANCELED:
            assert self.update(uid, discontinued()).status_code == 200
            assert self.state(uid, "CANCELED").status_code == 200
        return uid
