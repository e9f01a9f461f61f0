"""What others say of a study's arrival: performed procedure steps, notices of availability, counts."""

from dataclasses import dataclass
from enum import StrEnum


class StepState(StrEnum):
    """Performed Procedure Step Status (0040,0252), PS3.3 C.4.14."""

    IN_PROGRESS = "IN PROGRESS"  # images may still be made
    COMPLETED = "COMPLETED"  # it lists all that it made
    DISCONTINUED = "DISCONTINUED"  # it ended early, and lists what it made until then


@dataclass(frozen=True, slots=True, kw_only=True)
class PerformedStep:
    """A modality's performed procedure step on a study, as it told of it last (PS3.4 Annex F)."""

    sop_instance_uid: str  # of the step
    state: StepState
    instances: frozenset[str]  # SOP Instance UIDs, of images and of others, in all its series
    at: float  # when it was told, seconds since the epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """An Instance Availability Notification (PS3.4 Annex R): it says what is to be had, not that this is all."""

    instances: frozenset[str]  # SOP Instance UIDs, without those that are UNAVAILABLE
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How many instances of a study a remote says it has: Number of Study Related Instances (0020,1208)."""

    source: str  # name of the remote
    at: float  # when it was asked
    instances: int | None  # without the node's own results there; None: it did not answer, or does not count
