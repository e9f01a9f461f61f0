"""What others say of a study's arrival, beside the modality's performed procedure steps: notices of availability, counts."""

from dataclasses import dataclass


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
