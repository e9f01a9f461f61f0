"""What is to be told: a pure decision over what the ledger says and what the recipient knows already."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from dicom_node.config import Deliver, Notify
from dicom_node.domain import DeliveryState, Message, Trouble
from dicom_node.store import Event

BURST_S = 3600.0  # what comes into quarantine within so long of the last is the same trouble
WORKER_S = 60.0  # no worker is missed before
_MOST_AT_ONCE = 10  # jobs of one look that are told one by one
_FAILED = {"canceled (failed)": "every attempt failed", "canceled (invalid)": "a result did not pass the check"}
_LATER_MAX_S = 3600.0
_MAX_DOUBLINGS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """How the node is doing. sent: of each destination and state how many deliveries, and when the oldest was queued."""

    now: float
    up_s: float  # since this process began to look
    free_mb: int
    reserve_mb: int
    works_here: bool
    workers_alive: int
    quarantined: int  # within BURST_S
    destinations: Sequence[Mapping[str, Any]]
    sent: Mapping[tuple[str, str], tuple[int, float | None]]


def wrong(seen: Seen, wanted: Notify) -> tuple[Trouble, ...]:
    """Return what is wrong now, of what a recipient wants to know."""
    found = [*_house(seen), *_dead(seen), *_down(seen, wanted.down_after_s)]
    return tuple(one for one in found if one.about in wanted.about)


def _house(seen: Seen) -> Iterable[Trouble]:
    if seen.free_mb < seen.reserve_mb:
        yield Trouble(about="disk", key="disk", says=f"{seen.free_mb} MB are free, below the reserve of {seen.reserve_mb} MB: nothing is received")
    if seen.works_here and not seen.workers_alive and seen.up_s > WORKER_S:
        yield Trouble(about="worker", key="worker", says="no analysing process was seen recently: jobs wait")
    if seen.quarantined:
        yield Trouble(about="quarantine", key="quarantine", says="objects that cannot be used came into quarantine: dicom-node show quarantine")


def _dead(seen: Seen) -> Iterable[Trouble]:
    for (name, state), (number, _) in sorted(seen.sent.items()):
        if state == DeliveryState.DEAD and number:
            said = f"deliveries to {name} were given up ({number} now): dicom-node deliveries --state DEAD"
            yield Trouble(about="delivery", key=f"delivery:{name}", says=said)


def _down(seen: Seen, down_after_s: float) -> Iterable[Trouble]:
    """Name destinations that something waits for and that were not reached for long."""
    for one in seen.destinations:
        _, oldest = seen.sent.get((one["name"], DeliveryState.PENDING), (0, None))
        if not one["failures"] or oldest is None:
            continue
        since = max(oldest, one["succeeded_at"] or 0.0)
        if seen.now - since >= down_after_s:
            said = f"{one['name']} was not reached for {(seen.now - since) / 60:.0f} minutes: {one['reason']}"
            yield Trouble(about="destination", key=f"destination:{one['name']}", says=said)


def turns(recipient: str, found: Sequence[Trouble], known: Sequence[Trouble], now: float) -> tuple[list[Message], list[Trouble], list[str]]:
    """Return what is told of troubles that began and that ended, those that began, and the keys of those that ended."""
    is_known, is_there = {one.key: one for one in known}, {one.key for one in found}
    began = [Trouble(about=one.about, key=one.key, says=one.says, since=now) for one in found if one.key not in is_known]
    over = [one for one in known if one.key not in is_there]
    messages = [_of_trouble(recipient, one, "began", now) for one in began]
    messages += [_of_trouble(recipient, one, "ended", now) for one in over]
    return messages, began, [one.key for one in over]


def _of_trouble(recipient: str, one: Trouble, what: str, now: float) -> Message:
    says = one.says if what == "began" else f"it is over: {one.says}"
    facts = {"what": what, "says": says, "key": one.key, "since": one.since, "at": now}
    return message(recipient, one.about, f"{one.key} {one.since!r} {what}", facts, now)


def failures(recipient: str, events: Sequence[Event], now: float) -> list[Message]:
    """Return what is told of jobs that failed for good; of many at once the first ones, and how many more there are."""
    failed = [one for one in events if one.kind in _FAILED]
    found = [_of_job(recipient, one, now) for one in failed[:_MOST_AT_ONCE]]
    more = failed[_MOST_AT_ONCE:]
    if more:
        facts = {"what": "happened", "says": f"{len(more)} more jobs failed: dicom-node jobs --state CANCELED", "at": now}
        found.append(message(recipient, "job", f"jobs {more[0].id}-{more[-1].id}", facts, now))
    return found


def _of_job(recipient: str, one: Event, now: float) -> Message:
    model = str((one.detail or {}).get("model", ""))
    facts = {"what": "happened", "says": f"job {one.job_id} ({model}) ended without results: {_FAILED[one.kind]}; {one.why}", "at": one.at}
    facts |= {"job_id": one.job_id, "model": model, "study_instance_uid": one.study_instance_uid}
    return message(recipient, "job", f"event {one.id}", facts, now)


def message(recipient: str, about: str, key: str, facts: Mapping[str, Any], now: float) -> Message:
    """Return a message whose key says what it is about, so that the same is not told twice."""
    name = sha256(f"{recipient}\n{about}\n{key}".encode()).hexdigest()
    return Message(recipient=recipient, key=name, about=about, facts={"about": about, **facts}, created_at=now)


def later_s(attempt: int, wanted: Deliver) -> float:
    """Return how long to wait after the attempt of this number, from 1."""
    return float(min(_LATER_MAX_S, wanted.backoff_s * 2.0 ** min(max(attempt - 1, 0), _MAX_DOUBLINGS)))
