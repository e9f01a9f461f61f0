"""What becomes of a retrieval by what an archive said, and by what is here; when it is tried again, and when it may be. No I/O.

An archive that says success and sent nothing is not believed, and one that says failure and sent everything is not blamed.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256

from dicom_node.query.retrieving import Fetched
from dicom_node.query.scu import Contents

UNKNOWN_DESTINATION = 0xA801  # PS3.4 Table C.4-2
_NEVER = frozenset({0x0122, 0x0124, 0xA900})  # not supported, not authorised, the identifier does not match
_JITTER = 0.25
_MAX_DOUBLINGS = 30
_MEANINGS: Mapping[int, str] = {
    0x0000: "success",
    0x0122: "SOP class not supported",
    0x0124: "not authorised: have the node allowed to retrieve there",
    0xA701: "out of resources, it cannot count the matches",
    0xA702: "out of resources, it cannot send",
    0xA801: "it does not know the node as a move destination: have the node's AE title, host and port entered there",
    0xA900: "the identifier does not match its SOP class",
    0xB000: "some could not be sent",
    0xFE00: "cancelled",
}


class Next(StrEnum):
    """What is done next."""

    END = "END"  # all is here
    AGAIN = "AGAIN"  # it is tried again, later and later
    SLOWLY = "SLOWLY"  # it is tried again once somebody may have put right what a person has to
    NEVER = "NEVER"  # the same would happen again


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How much of a study is here."""

    expected: int | None  # instances that the remote says it has
    held: int  # of these
    missing_series: tuple[str, ...] = ()  # of which something is missing, where the remote names its instances

    @property
    def is_whole(self) -> bool:
        """Whether all is here that the remote says it has."""
        return self.expected is not None and self.held >= self.expected > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an attempt came to."""

    next: Next
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How patiently archives are asked."""

    attempts: int = 8  # that fail before it is given up
    backoff_s: float = 15.0  # before the second; doubles
    backoff_max_s: float = 3600.0
    slow_s: float = 900.0  # before the second, where a person has to do something at the archive
    circuit_max_s: float = 300.0  # between attempts to reach an archive that does not answer
    keep_trying_s: float = 86400.0  # to reach it, where the wish has no deadline
    settle_s: float = 3.0  # after the last response and the last instance: an archive may say success while it is still sending
    lease_s: float = 60.0
    beat_s: float = 1.0


def standing(there: Contents, here: frozenset[str], counted: int) -> Standing:
    """Compare what a remote says it has with what is here.

    here: UIDs of all instances that are here.
    counted: as many as count where the remote names none.
    """
    if not there.instances:
        return Standing(expected=there.number, held=counted if there.number is None else min(counted, there.number))
    missing = [series for instance, series in there.instances.items() if instance not in here]
    return Standing(expected=len(there.instances), held=len(there.instances) - len(missing), missing_series=tuple(dict.fromkeys(missing)))


def series_to_ask(there: Contents, now: Standing) -> tuple[str, ...]:
    """Return the series that are asked for; none: the whole study."""
    is_part = now.held > 0 and len(now.missing_series) < len(frozenset(there.instances.values()))
    return now.missing_series if is_part else ()


def outcome(fetched: Fetched, now: Standing) -> Outcome:
    """Say what becomes of a retrieval after an attempt."""
    if now.is_whole:
        return Outcome(next=Next.END, why=f"all {now.expected} instances are here")
    said = fetched.why or f"it answered {_told(fetched)}"
    if now.expected is None and fetched.status == 0x0000 and fetched.completed and now.held:
        return Outcome(next=Next.END, why=f"{said} after {fetched.completed} instances; it does not say how many there are")
    here = f"{now.held} of {now.expected} instances are here" if now.expected is not None else f"{now.held} instances are here"
    if fetched.status == UNKNOWN_DESTINATION:
        return Outcome(next=Next.SLOWLY, why=said)
    return Outcome(next=Next.NEVER if fetched.status in _NEVER else Next.AGAIN, why=f"{said}; {here}")


def _told(fetched: Fetched) -> str:
    status = fetched.status or 0
    meaning = _MEANINGS.get(status, "it could not do it" if status >> 12 == 0xC else "")
    failed = f", {fetched.failed} sub-operations failed" if fetched.failed else ""
    comment = f' ("{fetched.comment}")' if fetched.comment else ""
    return f"{status:04X}" + (f": {meaning}" if meaning else "") + failed + comment


def wait_s(attempt: int, first_s: float, max_s: float, key: object) -> float:
    """Return how long to wait after the attempt of this number, from 1: doubling up to `max_s`, less up to a quarter that the key chooses."""
    whole = min(max_s, first_s * 2.0 ** min(max(attempt - 1, 0), _MAX_DOUBLINGS))
    chosen = int.from_bytes(sha256(f"{key} {attempt}".encode()).digest()[:4]) / 2**32
    return whole * (1.0 - _JITTER * chosen)


def may_fetch(hours: Sequence[str], at: float) -> bool:
    """Say whether the node may fetch by itself at this moment: in one of these spans of the day, local time; without any always."""
    local = time.localtime(at)
    minute = local.tm_hour * 60 + local.tm_min
    return not hours or any(_is_in(minute, *map(_minute, span.split("-"))) for span in hours)


def _is_in(minute: int, first: int, last: int) -> bool:
    return first <= minute < last if first < last else minute >= first or minute < last


def _minute(text: str) -> int:
    hour, minute = text.split(":")
    return int(hour) * 60 + int(minute)
