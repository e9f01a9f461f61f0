"""Workitems as requesters and performers write them, and the table of what becomes of them: from PS3.4 Annex CC, not from the program."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset
from pydicom.uid import generate_uid

STATES = (None, "SCHEDULED", "IN PROGRESS", "COMPLETED", "CANCELED")

# PS3.4 Table CC.1.1-2, a row for each event: what is answered in each of `STATES`. Before a claim every Transaction UID is the right one.
ANSWERS: dict[tuple[str, str], tuple[int, int, int, int, int]] = {
    ("create", "right"): (0x0000, 0x0111, 0x0111, 0x0111, 0x0111),
    ("IN PROGRESS", "right"): (0xC307, 0x0000, 0xC302, 0xC300, 0xC300),
    ("IN PROGRESS", "wrong"): (0xC307, 0xC301, 0xC301, 0xC301, 0xC301),
    ("IN PROGRESS", "absent"): (0xC307, 0xC301, 0xC301, 0xC301, 0xC301),
    ("SCHEDULED", "right"): (0xC307, 0xC303, 0xC303, 0xC303, 0xC303),
    ("SCHEDULED", "wrong"): (0xC307, 0xC303, 0xC303, 0xC303, 0xC303),
    ("SCHEDULED", "absent"): (0xC307, 0xC303, 0xC303, 0xC303, 0xC303),
    ("COMPLETED", "right"): (0xC307, 0xC310, 0x0000, 0xB306, 0xC300),
    ("COMPLETED", "wrong"): (0xC307, 0xC301, 0xC301, 0xC301, 0xC301),
    ("COMPLETED", "absent"): (0xC307, 0xC301, 0xC301, 0xC301, 0xC301),
    ("CANCELED", "right"): (0xC307, 0xC310, 0x0000, 0xC300, 0xB304),
    ("CANCELED", "wrong"): (0xC307, 0xC301, 0xC301, 0xC301, 0xC301),
    ("CANCELED", "absent"): (0xC307, 0xC301, 0xC301, 0xC301, 0xC301),
    ("request cancel", "absent"): (0xC307, 0x0000, 0x0000, 0xC311, 0xB304),
}


@dataclass(frozen=True)
class Cell:
    """What somebody asks of a workitem in a state, with what Transaction UID, what is answered, and the state after it."""

    wish: str
    given: str
    state: str | None
    status: int
    then: str | None

    def __str__(self) -> str:
        """Name the test."""
        return f"{self.wish}, {self.given} UID, of {self.state or 'none'}"


def _cells() -> Iterator[Cell]:
    for (wish, given), answers in ANSWERS.items():
        for state, status in zip(STATES, answers, strict=True):
            if state == "SCHEDULED" and given == "wrong" and wish != "SCHEDULED":
                continue
            then = state if status else _after(wish, state)
            yield Cell(wish, given, state, status, then)


def cells() -> tuple[Cell, ...]:
    """Return every cell of the table; a step that nobody has claimed has no wrong Transaction UID."""
    return tuple(_cells())


def _after(wish: str, state: str | None) -> str | None:
    if wish == "create":
        return "SCHEDULED"
    if wish == "request cancel":
        return "CANCELED" if state == "SCHEDULED" else state  # of one in progress the performer decides
    return wish


def step(**said: Any) -> Dataset:
    """Return a whole request for a step (PS3.4 Table CC.2.5-3); said: what is otherwise; None: not there."""
    one = Dataset()
    one.SpecificCharacterSet = "ISO_IR 192"
    one.TransactionUID = ""
    one.ProcedureStepState = "SCHEDULED"
    one.ScheduledProcedureStepPriority = "MEDIUM"
    one.ProcedureStepLabel = "Lungs"
    one.WorklistLabel = "AI"
    one.ScheduledProcedureStepStartDateTime = "20260110101500"
    one.InputReadinessState = "READY"
    one.ScheduledWorkitemCodeSequence = [code("lung-ct")]
    one.CommentsOnTheScheduledProcedureStep = ""
    one.InputInformationSequence = [given()]
    one.PatientName, one.PatientID, one.PatientBirthDate, one.PatientSex, one.AdmissionID = "Doe^Jane", "P1", "19700101", "F", ""
    one.IssuerOfPatientID = ""
    one.StudyInstanceUID = "1.2.3"
    for keyword in (
        *("ScheduledProcessingParametersSequence", "ScheduledStationNameCodeSequence", "ScheduledStationClassCodeSequence"),
        *("ScheduledStationGeographicLocationCodeSequence", "ReferencedRequestSequence"),
        *("ProcedureStepProgressInformationSequence", "UnifiedProcedureStepPerformedProcedureSequence"),
    ):
        setattr(one, keyword, [])
    return but(one, **said)


def but(one: Dataset, **said: Any) -> Dataset:
    """Return a data set in which attributes are otherwise; None: not there."""
    for keyword, value in said.items():
        if value is not None:
            setattr(one, keyword, value)
        elif keyword in one:
            delattr(one, keyword)
    return one


def code(value: str, scheme: str = "99SITE", meaning: str = "") -> Dataset:
    """Return a coded term."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning or value
    return item


def given(study: str = "1.2.3", **said: Any) -> Dataset:
    """Return an item of the inputs (PS3.4 Table CC.2.5-2c)."""
    item = Dataset()
    item.TypeOfInstances, item.StudyInstanceUID, item.SeriesInstanceUID = "DICOM", study, f"{study}.1"
    reference, way = Dataset(), Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", f"{study}.1.1"
    way.RetrieveAETitle = "PACS"
    item.ReferencedSOPSequence, item.DICOMRetrievalSequence = [reference], [way]
    return but(item, **said)


def performed(**said: Any) -> Dataset:
    """Return what a step that is COMPLETED says of what was done (PS3.4 Table CC.2.5-3, column of the final state)."""
    item = Dataset()
    item.PerformedStationNameCodeSequence, item.PerformedWorkitemCodeSequence = [code("STATION")], [code("lung-ct")]
    item.PerformedProcedureStepStartDateTime, item.PerformedProcedureStepEndDateTime = "20260110101500", "20260110101600"
    item.OutputInformationSequence = [given("1.2.3", SeriesInstanceUID="1.2.3.9")]
    return but(item, **said)


def progress(**said: Any) -> Dataset:
    """Return how far a step is."""
    item = Dataset()
    item.ProcedureStepProgress, item.ProcedureStepProgressDescription = "50", "half of it"
    return but(item, **said)


def setting(transaction_uid: str | None = None, **said: Any) -> Dataset:
    """Return the modification list of an N-SET."""
    return but(Dataset(), TransactionUID=transaction_uid, **said)


def finishing(to: str, transaction_uid: str) -> Dataset:
    """Return the modification list that says what a final state requires."""
    if to == "COMPLETED":
        return setting(transaction_uid, UnifiedProcedureStepPerformedProcedureSequence=[performed()])
    reason = [code("110513", "DCM", "Discontinued for unspecified reason")]
    return setting(transaction_uid, ProcedureStepProgressInformationSequence=[progress(ProcedureStepDiscontinuationReasonCodeSequence=reason)])


def becoming(state: str | None, transaction_uid: str | None = None) -> Dataset:
    """Return the information of the action that changes the state (PS3.4 Table CC.2.1-1)."""
    return but(Dataset(), ProcedureStepState=state, TransactionUID=transaction_uid)


def transaction() -> str:
    """Return a new Transaction UID."""
    return str(generate_uid())


def elements(said: Dataset) -> Iterator[Any]:
    """Return the elements of a data set at every depth."""
    for element in said:
        yield element
        for item in element.value if element.VR == "SQ" else ():
            yield from elements(item)


def unspoken(said: Iterable[Dataset | None], secrets: Iterable[str]) -> None:
    """See that nobody is told a Transaction UID: not in its attribute, at whatever depth, nor anywhere else (PS3.4 CC.2.7)."""
    hidden = [one for one in secrets if one]
    for one in said:
        for element in elements(one or Dataset()):
            assert element.keyword != "TransactionUID" or not element.value, "a Transaction UID is told"
            assert not any(secret in str(element.value) for secret in hidden if element.VR != "SQ"), f"a Transaction UID is told by {element.tag}"
