"""Words only: values that cannot be wrong once built.

The nouns of the node, the tables of states, and the tree of errors. Nothing here reads a file, a socket or the clock.

    NodeError
    ├── ConfigError       the site's or a model's file says something that cannot run
    ├── Refused           a peer's request is answered with a DIMSE status
    ├── Unsuitable        the analysis declines this input, in a sentence for a radiographer
    ├── Transient         try again later
    │   └── PeerUnavailable   a remote application entity does not answer
    ├── Canceled          a person asked for the job to stop
    ├── Rejected          a person must look: the same attempt would fail again
    └── ModelFailed       the model's own process raised, hung, overran its memory or died
"""

import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from functools import cached_property
from hashlib import sha256
from typing import Any

# ---------------------------------------------------------------------------------------------------------------- errors


class NodeError(Exception):
    """Something went wrong that somebody can act on; `hint` is the next thing to do."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(NodeError):
    """Raised while configuration is read: the place, the value and the rule it breaks are in the message."""


class Refused(NodeError):
    """Raised when a peer's request cannot be granted; `status` is the DIMSE status it is answered with (PS3.7 Annex C)."""

    def __init__(self, message: str, *, status: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class Unsuitable(NodeError):
    """Raised by an analysis, or while its input is prepared, when the input does not suit; the message is shown to a person."""


class Transient(NodeError):
    """Raised when the same attempt may succeed later."""


class PeerUnavailable(Transient):
    """Raised when a remote application entity cannot be reached or does not answer in time."""


class Canceled(NodeError):
    """Raised in the course of a job when a person asked for it to stop."""


class Rejected(NodeError):
    """Raised when the same attempt would fail again: a person must look."""


class ModelFailed(NodeError):
    """Raised when a model's process raised, hung, overran its memory or died."""


def fault(error: BaseException) -> str:
    """Return what to tell of an error: its sentence if it is one of this tree; else its kind and place, for its text may quote a header."""
    if isinstance(error, NodeError):
        return str(error)
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}" if trace else "an unknown place"
    return f"unexpected {type(error).__name__} at {place}; this is a fault of the program"


# ------------------------------------------------------------------------------------------------------------------ UIDs

_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*")
_NAMESPACE = uuid.UUID("5b4b54f6-5f5a-5c0a-9d6c-2f8f6f2d6f01")  # of every UID that this program derives


def is_uid(text: str) -> bool:
    """Say whether a text is a UID by PS3.5 §9.1: digits and dots, no leading zero in a component, at most 64 characters."""
    return 0 < len(text) <= 64 and _UID.fullmatch(text) is not None


def derived_uid(*parts: object) -> str:
    """Return the UID (2.25, PS3.5 B.2) that belongs to these parts: the same parts give the same UID, always and everywhere."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, chr(0).join(str(part) for part in parts)).int}"


IMPLEMENTATION_CLASS_UID = derived_uid("implementation")  # PS3.7 D.3.3.2: the same in associations and in files
IMPLEMENTATION_VERSION_NAME = "DICOM_NODE_0.1"


# --------------------------------------------------------------------------------------------------- application entities

_AE_TITLE = re.compile(r"[\x20-\x5b\x5d-\x7e]{1,16}")  # the default repertoire without backslash and control characters


def is_ae_title(text: str) -> bool:
    """Say whether a text is an AE title by PS3.5 Table 6.2-1: 1-16 characters, no backslash, not only spaces."""
    return _AE_TITLE.fullmatch(text) is not None and bool(text.strip())


@dataclass(frozen=True, slots=True)
class AE:
    """An application entity's address, written `TITLE@host:port`."""

    title: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "AE":
        """Read `TITLE@host:port`; an IPv6 host stands in brackets.

        Raises
        ------
        ValueError: the text is not an address of this form; the message says which part is wrong.
        """
        title, at, address = text.rpartition("@")
        host, colon, port = address.rpartition(":")
        if not (at and colon and host):
            raise ValueError(f"'{text}' is not TITLE@host:port")
        if not is_ae_title(title):
            raise ValueError(f"'{title}' is not an AE title: 1 to 16 characters, no backslash")
        if not port.isdecimal() or not 0 < int(port) < 65536:
            raise ValueError(f"'{port}' is not a port: 1 to 65535")
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if not bare or re.search(r"[\s\[\]/]", bare):
            raise ValueError(f"'{host}' is not a host")
        return cls(title.strip(), bare, int(port))

    def __str__(self) -> str:
        """Write the address as it is parsed."""
        return f"{self.title}@{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


# --------------------------------------------------------------------------------------------------- what was received

# What the ledger keeps of each instance's header: identity, and what selecting a series asks for most.
# A rule may ask for any other keyword: it is then read from the file of the series' first instance.
HEADER_KEYWORDS = (
    "SpecificCharacterSet",
    "ImageType",
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyDate",
    "SeriesDate",
    "StudyTime",
    "SeriesTime",
    "AcquisitionTime",
    "AccessionNumber",
    "Modality",
    "PresentationIntentType",
    "Manufacturer",
    "StudyDescription",
    "SeriesDescription",
    "ManufacturerModelName",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "ContrastBolusAgent",
    "BodyPartExamined",
    "ScanningSequence",
    "SequenceVariant",
    "MRAcquisitionType",
    "SequenceName",
    "SliceThickness",
    "KVP",
    "RepetitionTime",
    "EchoTime",
    "InversionTime",
    "MagneticFieldStrength",
    "SpacingBetweenSlices",
    "ProtocolName",
    "GantryDetectorTilt",
    "ConvolutionKernel",
    "PatientPosition",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "StudyID",
    "SeriesNumber",
    "AcquisitionNumber",
    "InstanceNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "FrameOfReferenceUID",
    "Laterality",
    "TemporalPositionIdentifier",
    "NumberOfTemporalPositions",
    "ImagesInAcquisition",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "PixelSpacing",
    "BurnedInAnnotation",
)

# Modalities of objects that say something about images rather than being images: never an analysis' input unless a rule asks.
DERIVED_MODALITIES = frozenset({"SEG", "SR", "KO", "PR", "REG", "RTSTRUCT", "RTPLAN", "RTDOSE", "RWV", "DOC", "PLAN", "AU", "SMR"})

Header = Mapping[str, Any]  # DICOM keyword -> str, int, float or a list of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One received SOP Instance: one version of its bytes, kept as they came."""

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    study_instance_uid: str
    series_instance_uid: str
    path: str  # below the archive, with forward slashes
    size_bytes: int  # of the file
    digest: str  # SHA-256 of the data set as it was received, in hexadecimal
    calling_ae: str
    received_at: float  # seconds since the epoch
    header: Header
    id: int = 0  # the ledger's, once recorded
    version: int = 1  # counts up when the same UID arrives with other content


@dataclass(frozen=True, kw_only=True)
class Series:
    """The current instances of one series, in order of InstanceNumber then UID."""

    series_instance_uid: str
    instances: tuple[Instance, ...]
    more: Header = field(default_factory=dict)  # keywords beyond HEADER_KEYWORDS that were asked for, read from one file

    @cached_property
    def header(self) -> Header:
        """What the series' images have in common: of each keyword its most frequent value, of a tie the first."""
        common = {keyword: _most_frequent(i.header.get(keyword) for i in self.instances) for keyword in HEADER_KEYWORDS}
        return {keyword: value for keyword, value in common.items() if value is not None} | dict(self.more)

    @property
    def derived(self) -> bool:
        """Whether this is something made from images (a segmentation, a report, a reformat) rather than acquired."""
        image_type = self.header.get("ImageType") or []
        first = image_type[0] if isinstance(image_type, list | tuple) and image_type else image_type
        return str(self.header.get("Modality")) in DERIVED_MODALITIES or first == "DERIVED"


@dataclass(frozen=True, kw_only=True)
class Study:
    """The current instances of one study, as rules and selection see it."""

    study_instance_uid: str
    instances: tuple[Instance, ...]
    revision: int = 0  # how often it was judged complete
    changes: int = 0  # how often its content changed
    first_received_at: float = 0.0
    last_received_at: float = 0.0
    more: Mapping[str, Header] = field(default_factory=dict)  # series UID -> keywords beyond HEADER_KEYWORDS

    @cached_property
    def series(self) -> tuple[Series, ...]:
        """The study's series, in order of SeriesNumber then UID."""
        groups: dict[str, list[Instance]] = {}
        for instance in self.instances:
            groups.setdefault(instance.series_instance_uid, []).append(instance)
        found = [
            Series(series_instance_uid=uid, instances=tuple(sorted(members, key=_instance_order)), more=self.more.get(uid, {}))
            for uid, members in groups.items()
        ]
        return tuple(sorted(found, key=lambda s: (_number(s.header.get("SeriesNumber")), s.series_instance_uid)))

    @property
    def patients(self) -> frozenset[tuple[str, str]]:
        """The patient identities (PatientID, IssuerOfPatientID) that the instances name: more than one is a conflict."""
        return frozenset((str(i.header.get("PatientID") or ""), str(i.header.get("IssuerOfPatientID") or "")) for i in self.instances)


def _most_frequent(values: Iterable[Any]) -> Any:
    counts: dict[str, list[Any]] = {}
    for value in values:
        if value is not None:
            counts.setdefault(repr(value), [value, 0])[1] += 1
    return max(counts.values(), key=lambda pair: pair[1])[0] if counts else None


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("inf")


def _instance_order(instance: Instance) -> tuple[float, str]:
    return _number(instance.header.get("InstanceNumber")), instance.sop_instance_uid


# --------------------------------------------------------------------------------------------------------------- states


class StudyState(StrEnum):
    """Where a study stands."""

    OPEN = "OPEN"  # instances may still come
    COMPLETE = "COMPLETE"  # judged whole; its jobs exist
    CONFLICT = "CONFLICT"  # held until a person has looked: its instances name more than one patient, or it cannot be judged


class JobState(StrEnum):
    """Where a job stands: the Procedure Step States of a UPS workitem (PS3.4 Table CC.1.1-2)."""

    SCHEDULED = "SCHEDULED"  # waits for a worker
    IN_PROGRESS = "IN PROGRESS"  # a worker holds its lease
    COMPLETED = "COMPLETED"  # its results are recorded
    CANCELED = "CANCELED"  # ended without results; `discontinuation` says which way, `reason` why


class Discontinuation(StrEnum):
    """Why a job was CANCELED."""

    DECLINED = "declined"  # the analysis said that the input does not suit
    FAILED = "failed"  # every attempt failed
    INVALID = "invalid"  # a result did not pass the check and is in quarantine
    STOPPED = "stopped"  # a person canceled it
    SUPERSEDED = "superseded"  # the study grew; a newer job takes its place


class DeliveryState(StrEnum):
    """Where one result stands on its way to one destination."""

    PENDING = "PENDING"  # to be sent, now or after `not_before`
    SENDING = "SENDING"  # an association holds its lease
    SENT = "SENT"  # the destination answered success or warning
    COMMITTED = "COMMITTED"  # the destination took responsibility (storage commitment)
    DEAD = "DEAD"  # given up: a person may replay it
    CANCELED = "CANCELED"  # a person canceled it


JOB_TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    JobState.SCHEDULED: frozenset({JobState.IN_PROGRESS, JobState.CANCELED}),
    JobState.IN_PROGRESS: frozenset({JobState.SCHEDULED, JobState.COMPLETED, JobState.CANCELED}),
    JobState.COMPLETED: frozenset(),
    JobState.CANCELED: frozenset(),
}

DELIVERY_TRANSITIONS: Mapping[DeliveryState, frozenset[DeliveryState]] = {
    DeliveryState.PENDING: frozenset({DeliveryState.SENDING, DeliveryState.CANCELED}),
    DeliveryState.SENDING: frozenset({DeliveryState.PENDING, DeliveryState.SENT, DeliveryState.DEAD}),
    DeliveryState.SENT: frozenset({DeliveryState.COMMITTED}),
    DeliveryState.COMMITTED: frozenset(),
    DeliveryState.DEAD: frozenset({DeliveryState.PENDING, DeliveryState.CANCELED}),
    DeliveryState.CANCELED: frozenset({DeliveryState.PENDING}),
}


class Priority(IntEnum):
    """How urgent a job is; the names are those of Scheduled Procedure Step Priority (0074,1200)."""

    LOW = 0
    MEDIUM = 1
    HIGH = 2


# ----------------------------------------------------------------------------------------------------------------- jobs


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
    cancel_requested: bool = False
    started_at: float | None = None
    ended_at: float | None = None
    predecessor_id: int | None = None  # the job of the same model on this study that this one replaces


def job_identity(inputs: Mapping[str, Iterable[Instance]], device_uid: str, repeat: int = 0) -> str:
    """Return the name of one analysis: the same content, model build and repeat give the same name, in whatever order it came."""
    lines = [f"{name}\t{i.sop_instance_uid}\t{i.digest}" for name, instances in inputs.items() for i in instances]
    return sha256("\n".join([device_uid, str(repeat), *sorted(lines)]).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One DICOM object that a job made."""

    job_id: int
    kind: str  # "SEG", "SR"
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    path: str  # below the archive
    digest: str  # SHA-256 of the file
    transfer_syntax_uid: str = "1.2.840.10008.1.2.1"
    problem: str = ""  # why it is in quarantine; empty when it passed the check
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


# ------------------------------------------------------------------------------------------------------------- findings


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What an analysis concluded, before any encoding; the model's manifest says what each name and number means.

    segments: a volume on the input's grid, or a lossless view of it: boolean for one segment, else segment numbers (0 is background).
    measurements: name -> value in the manifest's unit, for a measurement of several segments a mapping segment number -> value;
        None where the segment is empty and nothing can be measured.
    evaluations: name -> one of the answers that the manifest lists for it.
    notes: sentences for the reader, such as a doubt about the input.
    """

    segments: Any = None  # highdicom.Volume (slice, row, column)
    measurements: Mapping[str, float | None | Mapping[int, float | None]] = field(default_factory=dict)
    evaluations: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembled:
    """One series put together for an analysis."""

    volume: Any  # highdicom.Volume (slice, row, column), float32, in HU or the unit that the images state
    sources: tuple[Any, ...]  # pydicom Datasets without pixels: the slices in the volume's order, or the one multi-frame instance
    notes: tuple[str, ...] = ()  # what was noticed on the way: a localizer left out, the kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A pointer to a DICOM object elsewhere."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str


Progress = Callable[[float, str], None]  # fraction done from 0 to 1, and what is being done
