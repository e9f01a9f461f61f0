"""The states of a Unified Procedure Step: one table, and one pure function that reads it (PS3.4 Table CC.1.1-2).

Both transports, DIMSE and HTTP, ask here; so do the tests, which go through every cell.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum

from dicom_node.domain import JobState

SUCCESS = 0x0000
DUPLICATE = 0x0111
ALREADY_CANCELED = 0xB304
ALREADY_COMPLETED = 0xB306
MAY_NO_LONGER_BE_UPDATED = 0xC300
WRONG_TRANSACTION = 0xC301
ALREADY_IN_PROGRESS = 0xC302
NOT_BY_N_CREATE = 0xC303  # the state may become SCHEDULED by N-CREATE alone
NOT_READY_TO_END = 0xC304  # what the final state requires is not there
NO_SUCH_WORKITEM = 0xC307
NOT_IN_PROGRESS = 0xC310
ALREADY_COMPLETED_ON_CANCEL = 0xC311


class Wish(StrEnum):
    """What somebody asks of a workitem."""

    CREATE = "create"
    CLAIM = "IN PROGRESS"
    UNDO = "SCHEDULED"
    COMPLETE = "COMPLETED"
    CANCEL = "CANCELED"
    ASK_TO_CANCEL = "request cancel"


class Effect(Enum):
    """What the manager does, if anything."""

    NONE = "none"
    CREATE = "create"
    CLAIM = "claim"  # record the Transaction UID, report
    COMPLETE = "complete"  # if what the final state requires is there
    CANCEL = "cancel"  # the same
    CANCEL_UNCLAIMED = "cancel unclaimed"  # through IN PROGRESS to CANCELED, both reported
    TELL_PERFORMER = "tell performer"  # who decides


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a wish comes to: the status that it is answered with, and what is done."""

    status: int
    effect: Effect = Effect.NONE


_NONE, _SCHEDULED, _RUNNING, _COMPLETED, _CANCELED = None, JobState.SCHEDULED, JobState.IN_PROGRESS, JobState.COMPLETED, JobState.CANCELED
_STATES = (_NONE, _SCHEDULED, _RUNNING, _COMPLETED, _CANCELED)


def _row(*cells: Outcome | int) -> dict[JobState | None, Outcome]:
    return {state: cell if isinstance(cell, Outcome) else Outcome(cell) for state, cell in zip(_STATES, cells, strict=True)}


# (wish, whether the right Transaction UID was given) -> state -> outcome. Before a claim any Transaction UID is the right one.
TABLE: Mapping[tuple[Wish, bool], Mapping[JobState | None, Outcome]] = {
    (Wish.CREATE, False): _row(Outcome(SUCCESS, Effect.CREATE), DUPLICATE, DUPLICATE, DUPLICATE, DUPLICATE),
    (Wish.CLAIM, True): _row(0xC307, Outcome(SUCCESS, Effect.CLAIM), ALREADY_IN_PROGRESS, MAY_NO_LONGER_BE_UPDATED, MAY_NO_LONGER_BE_UPDATED),
    (Wish.CLAIM, False): _row(0xC307, 0xC301, 0xC301, 0xC301, 0xC301),
    (Wish.UNDO, True): _row(0xC307, 0xC303, 0xC303, 0xC303, 0xC303),
    (Wish.UNDO, False): _row(0xC307, 0xC303, 0xC303, 0xC303, 0xC303),
    (Wish.COMPLETE, True): _row(0xC307, NOT_IN_PROGRESS, Outcome(SUCCESS, Effect.COMPLETE), ALREADY_COMPLETED, MAY_NO_LONGER_BE_UPDATED),
    (Wish.COMPLETE, False): _row(0xC307, 0xC301, 0xC301, 0xC301, 0xC301),
    (Wish.CANCEL, True): _row(0xC307, NOT_IN_PROGRESS, Outcome(SUCCESS, Effect.CANCEL), MAY_NO_LONGER_BE_UPDATED, ALREADY_CANCELED),
    (Wish.CANCEL, False): _row(0xC307, 0xC301, 0xC301, 0xC301, 0xC301),
    (Wish.ASK_TO_CANCEL, False): _row(
        0xC307,
        Outcome(SUCCESS, Effect.CANCEL_UNCLAIMED),
        Outcome(SUCCESS, Effect.TELL_PERFORMER),
        ALREADY_COMPLETED_ON_CANCEL,
        ALREADY_CANCELED,
    ),
}


def decide(wish: Wish, state: JobState | None, *, given: str = "", held: str = "") -> Outcome:
    """Return what a wish comes to in a state; None: there is no such workitem.

    given: the Transaction UID of the request; empty: none. held: the one that the workitem was claimed with.
    """
    return TABLE[wish, _is_right(wish, given, held)][state]


def may_be_set(state: JobState, *, given: str, held: str) -> int:
    """Return the status of an N-SET (PS3.4 CC.2.6.3): on a step that waits it has no Transaction UID, in progress it has the claim's."""
    if state in (JobState.COMPLETED, JobState.CANCELED):
        return MAY_NO_LONGER_BE_UPDATED
    if state is JobState.SCHEDULED:
        return NOT_IN_PROGRESS if given else SUCCESS
    return SUCCESS if given and given == held else WRONG_TRANSACTION


def _is_right(wish: Wish, given: str, held: str) -> bool:
    if wish in (Wish.CREATE, Wish.ASK_TO_CANCEL):
        return False
    return bool(given) and (not held or given == held)
