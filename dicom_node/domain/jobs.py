"""Jobs, their results, and the results' way to their destinations."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from dicom_node.domain.priors import Priors
from dicom_node.domain.received import Header, Instance
from dicom_node.domain.states import DeliveryState, Discontinuation, JobState, Priority

REJECTION = "REJ"  # the kind of a result that rejects earlier ones


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One analysis of one set of inputs."""

    study_instance_uid: str
    model: str
    model_version: str
    device_uid: str  # of the model's build
    identity: str  # job_identity() of its inputs, build and repeat
    inputs: Mapping[str, tuple[int, ...]]  # the model's input name -> ids of instances in the ledger
    why: str  # which rules asked, which series were chosen and why
    deliver: tuple[str, ...]  # names of remotes
    created_at: float
    priority: Priority = Priority.MEDIUM
    revision: int = 1  # of the study
    repeat: int = 0  # counts re-analyses of the same inputs by the same build
    id: int = 0  # the ledger's, once recorded
    state: JobState = JobState.SCHEDULED
    attempts: int = 0
    not_before: float = 0.0
    lease_until: float | None = None
    worker: str = ""
    progress: float = 0.0  # 0 to 1
    note: str = ""  # what it is doing, or what was noticed
    reason: str = ""  # why the last attempt failed, or why it was canceled
    discontinuation: Discontinuation | None = None
    cause: str = ""  # of a cancellation, a `Cause`; empty: none is known beyond how it ended
    cancel_requested: bool = False
    started_at: float | None = None
    ended_at: float | None = None
    short: str = ""  # which images of the study were known to be missing, in words; empty: none
    priors: Priors | None = None  # earlier studies that it waits for; none: it asks for none
    predecessor_id: int | None = None  # the job of the same model on this study that this one replaces
    picture: str = ""  # what it made, drawn for a person: a PNG file below the archive; empty: there was nothing to draw


def job_identity(inputs: Mapping[str, Iterable[Instance]], device_uid: str, repeat: int = 0) -> str:
    """Return the name of one analysis: the same content, model build and repeat give the same name, in whatever order it came."""
    lines = [f"{name}\t{i.sop_instance_uid}\t{i.digest}" for name, instances in inputs.items() for i in instances]
    return sha256("\n".join([device_uid, str(repeat), *sorted(lines)]).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One DICOM object that a job made."""

    job_id: int
    kind: str  # "SEG", "DER", "PM", "PR", "KO", "SR", "REJ", "VSR"
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    path: str  # below the archive
    digest: str  # SHA-256 of the file
    transfer_syntax_uid: str = "1.2.840.10008.1.2.1"
    problem: str = ""  # why it is in quarantine; empty when it passed the check
    header: Header = field(default_factory=dict, repr=False, hash=False)  # of HEADER_KEYWORDS what it says
    id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One result on its way to one destination."""

    result: Result
    destination: str  # name of a remote
    state: DeliveryState = DeliveryState.PENDING
    attempts: int = 0
    not_before: float = 0.0
    created_at: float = 0.0
    sent_at: float | None = None
    status: int | None = None  # the last DIMSE status
    reason: str = ""
    id: int = 0
