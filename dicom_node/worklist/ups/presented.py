"""A workitem as others see it: what was said of it from outside, and, where a job of this node performs it, what the job says. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydicom import Dataset

from dicom_node.config import Model
from dicom_node.domain import Header, Instance, Job, JobState, Readiness, Result, Workitem
from dicom_node.store.reporting import state_facts
from dicom_node.worklist.ups.attributes import SOP_CLASS, coded, dataset_of, discontinue, moment
from dicom_node.worklist.ups.events import progressed
from dicom_node.worklist.ups.reasons import reason_of

OWN_SCHEME = "99DICOMNODE"  # of the codes that name this node's analyses and stations

_OF_PATIENT = ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex")
_EMPTY = (
    *("ScheduledProcessingParametersSequence", "ScheduledStationClassCodeSequence", "ScheduledStationGeographicLocationCodeSequence"),
    *("CommentsOnTheScheduledProcedureStep", "AdmissionID"),
)
INPUTS, PERFORMED = "InputInformationSequence", "UnifiedProcedureStepPerformedProcedureSequence"


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """This node, as a workitem names it."""

    ae_title: str
    worklist_label: str
    retrieve_url: str = ""  # of WADO-RS: the address of the service; empty: the web is not reached by others
    contact_url: str = ""  # of a job's page, to which its number is added

    @property
    def code(self) -> Dataset:
        """Its Station Name Code."""
        return coded(self.ae_title, OWN_SCHEME, self.ae_title)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the ledger holds for a job that performs a workitem."""

    header: Header = field(default_factory=dict, repr=False)  # of its first input
    inputs: Sequence[Instance] = ()
    outputs: Sequence[tuple[Result, Sequence[str]]] = ()  # with the AE titles that have them


def presented(item: Workitem, station: Station, evidence: Evidence, models: Mapping[str, Model]) -> Dataset:
    """Return a workitem as a data set, complete but for what is shown to nobody."""
    said = dataset_of(item.attributes)
    said.SOPClassUID, said.SOPInstanceUID = SOP_CLASS, item.uid
    said.ProcedureStepState, said.ScheduledProcedureStepPriority = item.state.value, item.priority.name
    said.InputReadinessState = item.readiness.value
    if "ScheduledProcedureStepModificationDateTime" not in said:
        said.ScheduledProcedureStepModificationDateTime = moment(item.changed_at)
    if item.job is not None:
        _add_job(said, item, item.job, station, evidence, models.get(item.job.model))
    if item.job is None and item.state is JobState.CANCELED and "ProcedureStepProgressInformationSequence" not in said:
        said.ProcedureStepProgressInformationSequence = [_canceled({"reason": item.reason}, item.ended_at)]
    return said


def _add_job(said: Dataset, item: Workitem, job: Job, station: Station, evidence: Evidence, model: Model | None) -> None:
    """Put in what a job says, where nobody else has said it; progress and what was performed are always the job's."""
    _default(said, "ProcedureStepLabel", f"{job.model} {job.model_version}"[:64])
    _default(said, "WorklistLabel", station.worklist_label)
    _default(said, "ScheduledProcedureStepStartDateTime", moment(item.scheduled_at))
    _default(said, "ScheduledWorkitemCodeSequence", [workitem_code(job.model, model)])
    _default(said, "ScheduledStationNameCodeSequence", [station.code])
    _default(said, "StudyInstanceUID", job.study_instance_uid)
    for keyword in _OF_PATIENT:
        _default(said, keyword, evidence.header.get(keyword) or "")
    said.SpecificCharacterSet = "ISO_IR 192"  # requesters, images and this node may each have had another one
    _default(said, "ReferencedRequestSequence", [_request(job, evidence.header)])
    if not said.get(INPUTS) and evidence.inputs:
        said.InputInformationSequence = information(((one, ()) for one in evidence.inputs), station)
    for keyword in _EMPTY:
        if keyword not in said:
            setattr(said, keyword, [] if keyword.endswith("Sequence") else "")
    said.InputReadinessState = Readiness.INCOMPLETE.value if job.priors and job.state is JobState.SCHEDULED and not job.attempts else "READY"
    said.ProcedureStepProgressInformationSequence = progress_of(job, item.state, station)
    said.UnifiedProcedureStepPerformedProcedureSequence = performed(said, job, station, evidence) if job.started_at else []


def workitem_code(name: str, model: Model | None) -> Dataset:
    """Return the Scheduled Workitem Code of a model of this node: its name."""
    return coded(name, OWN_SCHEME, model.manifest.task if model else name)


def _default(said: Dataset, keyword: str, value: Any) -> None:
    if not said.get(keyword):
        setattr(said, keyword, value)


def _request(job: Job, header: Header) -> Dataset:
    item = Dataset()
    item.StudyInstanceUID, item.AccessionNumber = job.study_instance_uid, str(header.get("AccessionNumber") or "")[:16]
    item.RequestedProcedureID = item.RequestedProcedureDescription = ""
    item.RequestedProcedureCodeSequence = []
    return item


class Object(Protocol):
    """An instance that was received, or made."""

    @property
    def sop_class_uid(self) -> str: ...  # noqa: D102 - the attribute's own name says it
    @property
    def sop_instance_uid(self) -> str: ...  # noqa: D102
    @property
    def study_instance_uid(self) -> str: ...  # noqa: D102
    @property
    def series_instance_uid(self) -> str: ...  # noqa: D102


def information(of: Iterable[tuple[Object, Sequence[str]]], station: Station) -> list[Dataset]:
    """Return instances as items of Input or Output Information, one for each series (PS3.4 Table CC.2.5-2c).

    of: each with the titles of the AEs that have it, beside this node.
    """
    items: dict[tuple[str, str, tuple[str, ...]], Dataset] = {}
    for one, titles in of:
        key = one.study_instance_uid, one.series_instance_uid, tuple(titles)
        if key not in items:
            items[key] = _item(*key, station)
        reference = Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = one.sop_class_uid, one.sop_instance_uid
        items[key].ReferencedSOPSequence.append(reference)
    return list(items.values())


def _item(study_instance_uid: str, series_instance_uid: str, titles: Sequence[str], station: Station) -> Dataset:
    item = Dataset()
    item.TypeOfInstances, item.StudyInstanceUID, item.SeriesInstanceUID = "DICOM", study_instance_uid, series_instance_uid
    item.ReferencedSOPSequence = []
    item.DICOMRetrievalSequence = []
    for title in dict.fromkeys((station.ae_title, *titles)):
        way = Dataset()
        way.RetrieveAETitle = title
        item.DICOMRetrievalSequence.append(way)
    if station.retrieve_url:
        way = Dataset()
        way.RetrieveURL = f"{station.retrieve_url}/studies/{study_instance_uid}/series/{series_instance_uid}"
        item.WADORSRetrievalSequence = [way]
    return item


def progress_of(job: Job, state: JobState, station: Station) -> list[Dataset]:
    """Return how far a job is as its step tells it, and why it ended where it was canceled; nothing while it waits."""
    if state is JobState.SCHEDULED:
        return []
    contact = f"{station.contact_url}{job.id}" if station.contact_url else ""
    note = f"the last attempt failed, another one follows: {job.reason}" if job.state is JobState.SCHEDULED and job.reason else job.note
    item = progressed({"progress": job.progress, "note": note, "contact_uri": contact}).ProcedureStepProgressInformationSequence[0]
    if state is JobState.CANCELED:
        item.update(_canceled(state_facts(job), job.ended_at))
    return [item]


def _canceled(facts: Mapping[str, Any], at: float | None) -> Dataset:
    return discontinue(Dataset(), str(facts.get("reason", ""))[:1024], reason_of(facts), moment(at or 0.0))


def performed(said: Dataset, job: Job, station: Station, evidence: Evidence) -> list[Dataset]:
    """Return what a job did, as its step tells it: who, when, and every object that came of it (PS3.4 Table CC.2.5-3)."""
    item = Dataset()
    item.PerformedStationNameCodeSequence = [station.code]
    item.PerformedWorkitemCodeSequence = list(said.ScheduledWorkitemCodeSequence)
    item.PerformedProcedureStepStartDateTime = moment(job.started_at or job.created_at)
    item.PerformedProcedureStepDescription = f"{job.model} {job.model_version}"[:64]
    if job.ended_at:
        item.PerformedProcedureStepEndDateTime = moment(job.ended_at)
    item.OutputInformationSequence = information(((one, titles) for one, titles in evidence.outputs if not one.problem), station)
    return [item]
