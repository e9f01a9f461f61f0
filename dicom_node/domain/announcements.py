"""What others are told of the node's results: that they exist, and where (PS3.4 Annex R, as SCU)."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class AnnouncementState(StrEnum):
    """Where an announcement stands."""

    PENDING = "PENDING"  # it is told once all results of its job are where they go
    TOLD = "TOLD"  # the remote took it
    DROPPED = "DROPPED"  # it is not tried any more: a person must look


ANNOUNCEMENT_TRANSITIONS: Mapping[AnnouncementState, frozenset[AnnouncementState]] = {
    AnnouncementState.PENDING: frozenset({AnnouncementState.TOLD, AnnouncementState.DROPPED}),
    AnnouncementState.TOLD: frozenset(),
    AnnouncementState.DROPPED: frozenset(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """One notification of availability: to one remote, of the results of one job at one destination."""

    remote: str  # name of the one who is told
    job_id: int
    study_instance_uid: str
    holder: str  # name of the destination that has them
    sop_instance_uid: str  # the same at every attempt, so that the remote knows what it has been told
    created_at: float
    state: AnnouncementState = AnnouncementState.PENDING
    attempts: int = 0
    not_before: float = 0.0
    reason: str = ""
    id: int = 0
