"""A retrieval: one study that is fetched from one remote, and where that stands."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class RetrievalState(StrEnum):
    """Where a retrieval stands."""

    WAITING = "WAITING"  # to be fetched, now or after `not_before`
    RUNNING = "RUNNING"  # somebody holds its lease
    COMPLETED = "COMPLETED"  # the node holds all that the remote says it has
    FAILED = "FAILED"  # given up; `reason` says why
    CANCELED = "CANCELED"  # a person canceled it

    @property
    def has_ended(self) -> bool:
        """Whether nothing more comes of it."""
        return not RETRIEVAL_TRANSITIONS[self]


RETRIEVAL_TRANSITIONS: Mapping[RetrievalState, frozenset[RetrievalState]] = {
    RetrievalState.WAITING: frozenset({RetrievalState.RUNNING, RetrievalState.FAILED, RetrievalState.CANCELED}),  # FAILED: its deadline has passed
    RetrievalState.RUNNING: frozenset({RetrievalState.WAITING, RetrievalState.COMPLETED, RetrievalState.FAILED, RetrievalState.CANCELED}),
    RetrievalState.COMPLETED: frozenset(),
    RetrievalState.FAILED: frozenset(),
    RetrievalState.CANCELED: frozenset(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval:
    """One study on its way from one remote to the node."""

    remote: str  # its name
    study_instance_uid: str
    who: str  # asked first: a person, a rule's name, or "notice"
    why: str
    requested_at: float
    wanted_for: tuple[str, ...] = ()  # Study Instance UIDs of the studies that wait for it
    by_person: bool = False  # whether a person asked: then at once, whatever `retrieve_hours` says
    deadline: float | None = None  # after it nobody wants it any more
    state: RetrievalState = RetrievalState.WAITING
    attempts: int = 0
    not_before: float = 0.0
    lease_until: float | None = None
    holder: str = ""
    reason: str = ""  # of the last failure
    expected: int | None = None  # instances that the remote says it has; None: it was not asked yet, or did not say
    held: int = 0  # of these, as many as the node holds
    failed: int = 0  # sub-operations that failed, as the remote counted them last
    ended_at: float | None = None
    id: int = 0
