"""Workitems: what is to be done, for whom, and who does it (Unified Procedure Step, PS3.4 Annex CC); and who watches."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any

from dicom_node.domain.jobs import Job
from dicom_node.domain.states import JobState, Priority

GLOBAL_SUBSCRIPTION = "1.2.840.10008.5.1.4.34.5"  # the instance that stands for every workitem (PS3.4 CC.2.3.1)
FILTERED_SUBSCRIPTION = "1.2.840.10008.5.1.4.34.5.1"  # the one that stands for those that match

Attributes = Mapping[str, Any]  # in the DICOM JSON Model (PS3.18 Annex F)


class Readiness(StrEnum):
    """Input Readiness State (0040,4041)."""

    INCOMPLETE = "INCOMPLETE"
    UNAVAILABLE = "UNAVAILABLE"
    READY = "READY"


class ReportKind(IntEnum):
    """Event Type ID of a UPS event report (PS3.4 Table CC.2.4-1)."""

    STATE = 1
    CANCEL_REQUESTED = 2
    PROGRESS = 3
    SCP_STATUS = 4
    ASSIGNED = 5


class Channel(StrEnum):
    """How a subscriber is told."""

    DIMSE = "DIMSE"  # N-EVENT-REPORT
    WEB = "WEB"  # a message on its open websocket
    HEARD = "HEARD"  # not at all: it is this node that was told, by the AE that the row names


@dataclass(frozen=True, slots=True, kw_only=True)
class Workitem:
    """One Unified Procedure Step.

    Where a job of this node performs it, state and priority are the job's own; there is no second record of them.
    """

    uid: str
    state: JobState
    priority: Priority
    attributes: Attributes = field(repr=False, hash=False)  # what requesters and performers have said
    study_instance_uid: str = ""
    requester: str = ""  # who asked for it: an AE title, a person, a system; empty: a rule of the site
    performer: str = ""  # who claimed it: an AE title; empty: nobody, or this node
    transaction_uid: str = field(default="", repr=False)  # the claim's key: shown to nobody (PS3.4 CC.2.7)
    manager: str = ""  # the name of the remote whose workitem it is; empty: this node's
    readiness: Readiness = Readiness.READY
    job: Job | None = None  # that performs it
    scheduled_at: float = 0.0
    created_at: float = 0.0
    changed_at: float = 0.0
    ended_at: float | None = None
    reason: str = ""  # why it was not taken up, or why it was canceled, in words

    @property
    def has_ended(self) -> bool:
        """Whether its state is final."""
        return self.state in (JobState.COMPLETED, JobState.CANCELED)

    @property
    def key(self) -> str:
        """The Transaction UID that whoever performs it gives; of what this node performs one that nobody can give, for its lock is a lease."""
        return "\0" if self.job is not None and self.state is not JobState.SCHEDULED else self.transaction_uid

    @property
    def is_claimed(self) -> bool:
        """Whether somebody performs it."""
        return self.state is JobState.IN_PROGRESS


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """Who is told of a workitem's events, or of those of all, or of those that match."""

    receiver: str  # an AE title
    channel: Channel
    workitem_uid: str  # or `GLOBAL_SUBSCRIPTION`, `FILTERED_SUBSCRIPTION`
    deletion_lock: bool = False  # whether the workitem is kept until the subscriber lets go of it
    keys: Attributes = field(default_factory=dict, repr=False, hash=False)  # of a filtered one: what must match
    owner: str = ""  # the account that made it over HTTP; empty: an application entity did
    created_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EventReport:
    """One event that one subscriber is to be told of."""

    receiver: str
    channel: Channel
    workitem_uid: str
    kind: ReportKind
    facts: Mapping[str, Any]
    at: float
    attempts: int = 0
    not_before: float = 0.0
    id: int = 0


def state_seen(job: Job) -> JobState:
    """Return the state of a job as others see it: once begun it is in progress until it ends, also between two attempts (PS3.4 CC.1.1)."""
    return JobState.IN_PROGRESS if job.state is JobState.SCHEDULED and job.started_at is not None else job.state
