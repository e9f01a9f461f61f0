"""What a status of DIMSE is over HTTP: one table for all that is asked of workitems (PS3.18 11.4 to 11.12). Pure.

Editions of PS3.18 differ in where they say 400 and where 409. Here 400 is for who can mend the request (a Transaction UID that is missing or wrong,
a step that has ended and is to be updated: Tables 11.6.3-1 and 11.7.3-1), and 409 for what the state of the step does not allow.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Asked(StrEnum):
    """What is asked."""

    CREATE = "create"
    RETRIEVE = "retrieve"
    UPDATE = "update"
    STATE = "change state"
    CANCEL = "request cancellation"
    SUBSCRIBE = "subscribe"
    UNSUBSCRIBE = "unsubscribe"
    SUSPEND = "suspend"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is answered: the status of HTTP, and the text of a Warning."""

    code: int
    warning: str = ""


MISSING, INCORRECT = "The Transaction UID is missing.", "The Transaction UID is incorrect."
INCONSISTENT = "The submitted request is inconsistent with the state of the UPS Instance."
_ALREADY = "The UPS is already in the requested state of"

_DONE: Mapping[Asked, int] = {Asked.CREATE: 201, Asked.CANCEL: 202, Asked.SUBSCRIBE: 201}
_EVERYWHERE: Mapping[int, Outcome] = {
    0x0111: Outcome(409),  # there is such a step already
    0x0124: Outcome(409, INCONSISTENT),  # this node performs it itself
    0x0213: Outcome(503),  # there are too many
    0xC307: Outcome(404),
}
_OF: Mapping[tuple[Asked, int], Outcome] = {
    (Asked.CREATE, 0xB300): Outcome(201, "The Workitem was created with modifications."),
    (Asked.UPDATE, 0xC300): Outcome(400, INCONSISTENT),
    (Asked.UPDATE, 0xC310): Outcome(409, INCONSISTENT),
    (Asked.STATE, 0xC300): Outcome(409, INCONSISTENT),
    (Asked.STATE, 0xC302): Outcome(409, INCONSISTENT),
    (Asked.STATE, 0xC303): Outcome(400, INCONSISTENT),
    (Asked.STATE, 0xC304): Outcome(409, INCONSISTENT),
    (Asked.STATE, 0xC310): Outcome(409, INCONSISTENT),
    (Asked.STATE, 0xB304): Outcome(200, f"{_ALREADY} CANCELED."),
    (Asked.STATE, 0xB306): Outcome(200, f"{_ALREADY} COMPLETED."),
    (Asked.CANCEL, 0xB304): Outcome(409, f"{_ALREADY} CANCELED."),
    (Asked.CANCEL, 0xC311): Outcome(409, "The UPS is already COMPLETED."),
}
_WRONG_TRANSACTION = 0xC301


def outcome(asked: Asked, status: int, *, has_transaction: bool = False) -> Outcome:
    """Return what a status is answered as; has_transaction: whether the request had a Transaction UID."""
    if status == 0x0000:
        return Outcome(_DONE.get(asked, 200))
    if status == _WRONG_TRANSACTION:
        return Outcome(400, INCORRECT if has_transaction else MISSING)
    return _OF.get((asked, status)) or _EVERYWHERE.get(status) or Outcome(400)
