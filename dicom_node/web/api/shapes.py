"""What the API says: a shape for each noun, whose keys are those of `--json`. None of them names a patient."""

from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, Field

from dicom_node.domain import DeliveryState, Discontinuation, JobState, Readiness, RetrievalState, StudyState
from dicom_node.domain.feedback import Verdict, VerificationState

T = TypeVar("T")


class Shape(BaseModel):
    """Something that the API says or takes."""


class Failure(Shape):
    """What went wrong, and what to do next."""

    error: str
    hint: str = ""


class Page(Shape, Generic[T]):
    """A part of a list, newest first."""

    items: list[T]
    next: str | None = Field(default=None, description="The `cursor` of the next part; null: this is the last.")


class ResultShape(Shape):
    """One DICOM object that a job made."""

    id: int
    job_id: int
    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    path: str
    digest: str
    problem: str


class DeliveryShape(Shape):
    """One result on its way to one destination."""

    id: int
    destination: str
    state: DeliveryState
    attempts: int
    created_at: float
    not_before: float
    sent_at: float | None
    status: int | None
    reason: str
    result: ResultShape


class JobShape(Shape):
    """One analysis of one set of inputs."""

    id: int
    identity: str
    study_instance_uid: str
    revision: int
    model: str
    model_version: str
    device_uid: str
    repeat: int
    inputs: dict[str, list[int]]
    why: str
    deliver: list[str]
    priority: int
    state: JobState
    attempts: int
    created_at: float
    not_before: float
    lease_until: float | None
    worker: str
    progress: float
    note: str
    reason: str
    discontinuation: Discontinuation | None
    cause: str
    cancel_requested: bool
    started_at: float | None
    ended_at: float | None
    short: str
    priors: dict[str, Any] | None
    predecessor_id: int | None
    picture: str


class AnnouncementShape(Shape):
    """One notification of availability to one remote."""

    id: int
    remote: str
    job_id: int
    study_instance_uid: str
    holder: str
    sop_instance_uid: str
    state: str
    attempts: int
    not_before: float
    created_at: float
    reason: str


class OpinionShape(Shape):
    """What one reader said of a job's results, without the comment."""

    id: int
    job_id: int
    verdict: Verdict
    who: str
    display_name: str
    at: float
    result_id: int | None
    verification: VerificationState | None
    reason: str


class JobTold(Shape):
    """A job with its results, what became of them, and what readers said of them."""

    job: JobShape
    results: list[ResultShape]
    deliveries: list[DeliveryShape]
    notifications: list[AnnouncementShape]
    feedback: list[OpinionShape]


class RetrievalShape(Shape):
    """One study on its way from a remote to the node."""

    id: int
    remote: str
    study_instance_uid: str
    who: str
    why: str
    by_person: bool
    requested_at: float
    deadline: float | None
    state: RetrievalState
    attempts: int
    not_before: float
    lease_until: float | None
    holder: str
    reason: str
    expected: int | None
    held: int
    failed: int
    ended_at: float | None
    wanted_for: list[str]


class StudyShape(Shape):
    """A study as a row."""

    study_instance_uid: str
    state: StudyState
    revision: int
    changes: int
    first_received_at: float
    last_received_at: float
    look_at: float
    completed_at: float | None
    why: str
    series: int
    instances: int
    jobs: dict[str, int]
    deliveries: dict[str, int]


class SeriesShape(Shape):
    """A series of a study."""

    series_instance_uid: str
    instances: int
    modality: str | None


class EventShape(Shape):
    """One line of the journal."""

    id: int
    at: float
    study_instance_uid: str
    job_id: int | None
    kind: str
    who: str
    why: str
    detail: dict[str, Any] | None


class StudyTold(Shape):
    """A study and its walk."""

    study_instance_uid: str
    series: list[SeriesShape]
    events: list[EventShape]
    jobs: list[JobShape]


class QuarantinedShape(Shape):
    """One file in quarantine."""

    id: int
    at: float
    path: str
    source: str
    sop_instance_uid: str
    study_instance_uid: str
    reason: str
    job_id: int | None


class WorkerShape(Shape):
    """An analysing process."""

    name: str
    started_at: float
    seen_at: float
    models: list[str]
    alive: bool


class DestinationShape(Shape):
    """How a destination is doing."""

    name: str
    failures: int
    not_before: float
    succeeded_at: float | None
    reason: str


class StuckShape(Shape):
    """One thing that waits longer than it should."""

    what: str
    since: float
    why: str


class StatusShape(Shape):
    """How the node is doing."""

    free_mb: int
    reserve_mb: int
    studies: dict[str, int]
    jobs: dict[str, int]
    deliveries: dict[str, dict[str, int]]
    retrievals: dict[str, dict[str, int]]
    quarantined: int
    workers: list[WorkerShape]
    destinations: list[DestinationShape]
    stuck: list[StuckShape]


class ModelShape(Shape):
    """A model of the site."""

    name: str
    version: str
    build: str
    device_uid: str
    device: str
    weights: str
    task: str
    folder: str


class RemoteShape(Shape):
    """A remote application entity, and what it may."""

    name: str
    ae: str
    may: list[str]
    retrieve: str
    tls: bool


class FindingShape(Shape):
    """What one step of trying a remote found."""

    what: str
    ok: bool
    says: str
    hint: str


class Wish(Shape):
    """A study that is to be fetched."""

    remote: str = Field(min_length=1, max_length=64)
    study_instance_uid: str = Field(min_length=1, max_length=64, pattern=r"^[0-9]+(\.[0-9]+)*$")


class WorkitemShape(Shape):
    """One workitem: what was asked for, by whom, and who performs it."""

    uid: str
    state: JobState
    priority: Literal["HIGH", "MEDIUM", "LOW"]
    code: str = Field(description="Scheduled Workitem Code: of an analysis of this node's, the model.")
    meaning: str
    study_instance_uid: str
    requester: str = Field(description="Empty: a rule of the site.")
    performer: str = Field(description="Who claimed it; empty: nobody, or this node.")
    manager: str = Field(description="The remote whose workitem it is; empty: this node's.")
    readiness: Readiness
    job_id: int | None
    scheduled_at: float
    created_at: float
    changed_at: float
    ended_at: float | None
    reason: str


class AnalysisWish(Shape):
    """An analysis that is to be made."""

    model: str = Field(min_length=1, max_length=64)
    priority: Literal["HIGH", "MEDIUM", "LOW"] = "MEDIUM"


class Asked(Shape):
    """The workitem that says so."""

    workitem_uid: str


class State(Shape):
    """The state that something has now."""

    id: int
    state: str


class Number(Shape):
    """How many it were."""

    count: int
