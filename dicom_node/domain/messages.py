"""What people are told of: that something is wrong, that it is over, or that something was found."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class MessageState(StrEnum):
    """Where a message stands."""

    PENDING = "PENDING"  # it is to be sent, now or after `not_before`
    TOLD = "TOLD"  # the other side took it
    DROPPED = "DROPPED"  # it is not tried any more


MESSAGE_TRANSITIONS: Mapping[MessageState, frozenset[MessageState]] = {
    MessageState.PENDING: frozenset({MessageState.TOLD, MessageState.DROPPED}),
    MessageState.TOLD: frozenset(),
    MessageState.DROPPED: frozenset(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One thing that one recipient is told. facts: what it says; no patient is named in them."""

    recipient: str  # name of an entry of [[notify]]
    key: str  # the same at every attempt, so that the other side knows what it has been told
    about: str
    facts: Mapping[str, Any]
    created_at: float
    state: MessageState = MessageState.PENDING
    attempts: int = 0
    not_before: float = 0.0
    ended_at: float | None = None
    reason: str = ""
    id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Something that is wrong for a while: it is told when it begins, and when it ends."""

    about: str
    key: str  # the same as long as it is the same trouble
    says: str
    since: float = 0.0
