"""What to ask a destination to keep, and what its report means: decided here, without a socket, a file or the clock."""

import uuid
from collections.abc import Iterable, Mapping
from enum import StrEnum

from dicom_node.config import Deliver
from dicom_node.deliver.decisions import backoff_s
from dicom_node.domain import Commitment, Delivery, DeliveryState, Fate, Refused
from dicom_node.wire.commitment import INVALID_ARGUMENT, Said

AT_ONCE = 256  # results of one request


class Remedy(StrEnum):
    """What helps against a Failure Reason (0008,1197)."""

    SEND = "send"  # the destination lacks the object, or has lost it: the same bytes go out again
    ASK = "ask"  # nothing is wrong with the object: it is asked for again, under another Transaction UID
    LOOK = "look"  # the destination would say the same again: a person must look


# PS3.3 C.14.1.1
_FAILURES: Mapping[int, tuple[str, Remedy]] = {
    0x0110: ("processing failure", Remedy.SEND),
    0x0112: ("no such object instance", Remedy.SEND),
    0x0213: ("resource limitation", Remedy.SEND),
    0x0122: ("referenced SOP class not supported", Remedy.LOOK),
    0x0119: ("class and instance conflict", Remedy.LOOK),
    0x0131: ("duplicate transaction UID", Remedy.ASK),
}
_UNKNOWN = ("a reason that PS3.3 does not name", Remedy.SEND)  # it counts, so that it ends


def fresh_transaction_uid() -> str:
    """Return a UID that was never used (PS3.5 B.2): a transaction is no object, and a second request about the same objects is another."""
    return f"2.25.{uuid.uuid4().int}"


def lot(due: Iterable[tuple[Delivery, int]], most: int = AT_ONCE) -> tuple[tuple[Delivery, ...], int]:
    """Return the deliveries of the next request, and how often they were asked about before: of those that are due, the first and its like."""
    found = list(due)
    times = found[0][1]
    return tuple(one for one, before in found if before == times)[:most], times


def check(one: Commitment, said: Said) -> dict[str, int]:
    """Return what a report says of each instance by its UID.

    Raises
    ------
    Refused: it does not speak of exactly those that were asked for (PS3.4 J.3.3.1.1).
    """
    if {(item.sop_class_uid, item.sop_instance_uid) for item in one.items} != set(said.outcomes):
        raise Refused("it does not list exactly the instances that were asked for", status=INVALID_ARGUMENT)
    return {instance: outcome for (_, instance), outcome in said.outcomes.items()}


def fate(one: Delivery, outcome: int, destination: str, wanted: Deliver, now: float) -> Fate:
    """Return what becomes of a delivery by its outcome: 0, or a Failure Reason."""
    if outcome == 0:
        return Fate(to=DeliveryState.COMMITTED)
    meaning, remedy = _FAILURES.get(outcome, _UNKNOWN)
    sentence = f"{destination} does not commit itself to it: {outcome:04X} ({meaning})"
    later = now + backoff_s(one.attempts, wanted.backoff_s, wanted.backoff_max_s, one.id)
    if remedy is Remedy.ASK:
        return Fate(to=DeliveryState.SENT, reason=sentence, not_before=later)
    if remedy is Remedy.LOOK:
        return Fate(to=DeliveryState.DEAD, reason=f"{sentence}; look at the object and at the destination's own log")
    if one.attempts >= wanted.attempts:
        return Fate(to=DeliveryState.DEAD, reason=f"{sentence}; given up after it was sent {one.attempts} times")
    return Fate(to=DeliveryState.PENDING, reason=f"{sentence}; it is sent again", not_before=later)


def unanswered(one: Commitment, why: str, wanted: Deliver) -> str:
    """Return the sentence for a request that brought nothing: whether it is asked again is in it."""
    said = f"{one.peer} {why} (request {one.attempts} of {wanted.commit_attempts})"
    return said if one.attempts < wanted.commit_attempts else f"{said}; it is not asked again: ask its administrator whether it keeps the object"


def ask_again_at(one: Commitment, wanted: Deliver, now: float) -> float:
    """Return when a destination may be asked again about what a request brought nothing of."""
    return now + backoff_s(one.attempts, wanted.backoff_s, wanted.backoff_max_s, one.transaction_uid)
