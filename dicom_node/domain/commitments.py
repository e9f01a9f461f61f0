"""Storage commitment (PS3.4 Annex J): who promises whom to keep what, and where that stands."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from dicom_node.domain.states import DeliveryState


class CommitmentRole(StrEnum):
    """What the node is in a transaction."""

    SCU = "SCU"  # it asks a destination to keep results
    SCP = "SCP"  # it is asked to keep what it received


class CommitmentState(StrEnum):
    """Where a transaction stands."""

    ASKED = "ASKED"  # SCU: its report is awaited
    REFUSED = "REFUSED"  # SCU: the destination did not take the request
    OVERDUE = "OVERDUE"  # SCU: no report came in time; it is asked for under another transaction
    ACCEPTED = "ACCEPTED"  # SCP: it is to be checked and reported
    REPORTED = "REPORTED"  # SCU: the report came; SCP: the peer took the report
    UNREPORTED = "UNREPORTED"  # SCP: the peer did not take the report in time


COMMITMENT_TRANSITIONS: Mapping[CommitmentState, frozenset[CommitmentState]] = {
    CommitmentState.ASKED: frozenset({CommitmentState.REPORTED, CommitmentState.REFUSED, CommitmentState.OVERDUE}),
    CommitmentState.REFUSED: frozenset({CommitmentState.REPORTED}),  # what comes late is believed all the same
    CommitmentState.OVERDUE: frozenset({CommitmentState.REPORTED}),
    CommitmentState.ACCEPTED: frozenset({CommitmentState.REPORTED, CommitmentState.UNREPORTED}),
    CommitmentState.REPORTED: frozenset({CommitmentState.ACCEPTED}),  # SCP: the same request again, because its answer was lost
    CommitmentState.UNREPORTED: frozenset({CommitmentState.ACCEPTED}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentItem:
    """One SOP Instance of a transaction."""

    sop_class_uid: str
    sop_instance_uid: str
    delivery_id: int | None = None  # SCU
    outcome: int | None = None  # 0: it is kept; else the Failure Reason (0008,1197); None: not known yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment:
    """One transaction."""

    role: CommitmentRole
    transaction_uid: str
    peer: str  # name of the remote
    ae_title: str  # of the remote
    state: CommitmentState
    requested_at: float
    deadline: float  # SCU: until then its report is awaited; SCP: until then its report is tried
    attempts: int = 0  # SCU: which request for these items it is; SCP: reports that were tried
    not_before: float = 0.0
    lease_until: float | None = None
    holder: str = ""
    reason: str = ""
    items: tuple[CommitmentItem, ...] = ()
    id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What becomes of a delivery by what its destination reports of it."""

    to: DeliveryState
    reason: str = ""
    not_before: float = 0.0
