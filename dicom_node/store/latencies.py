"""How long each step of a study's walk took, counted as it happens and kept in the ledger: the counts survive a restart and never fall.

Whoever asks for them counts what the journal has gained since, a bounded number of events at once, in the transaction that keeps the counts: of
several processes exactly one counts each event.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, select, update

from dicom_node.store.database import Database, insert_unless_there
from dicom_node.store.journal import Event
from dicom_node.store.reading import begun, pass_on, read_on
from dicom_node.store.tables import delivery, job, study
from dicom_node.store.watching import latency

BOUNDS_S = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14400.0, 86400.0)
_READER = "latencies"
_AT_ONCE = 1000  # events of one transaction
_ROUNDS = 5  # of one look: what is left is counted at the next
_IDS = 500  # of one question


class Stage(StrEnum):
    """A step of the walk, from one moment to another."""

    COMPLETE = "received_to_complete"  # from the last instance until the study was judged whole
    STARTED = "complete_to_started"  # until a worker began, the first time
    ENDED = "started_to_ended"  # of the attempt that completed the job; by model
    DELIVERED = "ended_to_delivered"  # until a destination took a result; by destination
    COMMITTED = "delivered_to_committed"  # until it committed itself to it; by destination


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """How often something took how long. counts: for each of BOUNDS_S how many took that or less and more than the bound before; then the rest."""

    stage: Stage
    label: str  # model, or destination; empty: neither
    counts: tuple[int, ...]
    total_s: float


@dataclass(frozen=True, slots=True)
class _Took:
    stage: Stage
    label: str
    seconds: float


class Latencies:
    """The latencies of the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def look(self) -> tuple[Histogram, ...]:
        """Count what has happened since the last look, and return the counts.

        Raises
        ------
        Transient: the ledger does not answer.
        """
        for _ in range(_ROUNDS):
            if not self._advance():
                break
        with self._database.read() as connection:
            rows = connection.execute(select(latency).order_by(latency.c.stage, latency.c.label)).mappings()
            return tuple(
                Histogram(stage=Stage(row["stage"]), label=row["label"], counts=tuple(row["counts"]), total_s=row["total_s"]) for row in rows
            )

    def _advance(self) -> bool:
        """Count one portion; say whether there may be more."""
        after = begun(self._database, _READER)
        events = read_on(self._database, after, limit=_AT_ONCE)
        if not events:
            return False
        with self._database.write() as connection:
            if pass_on(connection, _READER, after=after, upto=events[-1].id):
                _count(connection, _measured(connection, events))
        return len(events) == _AT_ONCE


def counted(counts: Sequence[int], seconds: Iterable[float]) -> list[int]:
    """Return counts with what took so long added."""
    fresh = list(counts) or [0] * (len(BOUNDS_S) + 1)
    for one in seconds:
        fresh[bisect_left(BOUNDS_S, one)] += 1
    return fresh


def _count(connection: Connection, found: Iterable[_Took]) -> None:
    taken: dict[tuple[str, str], list[float]] = {}
    for one in found:
        taken.setdefault((one.stage, one.label), []).append(one.seconds)
    for (stage, label), seconds in sorted(taken.items()):
        same = latency.c.stage == stage, latency.c.label == label
        insert_unless_there(connection, latency, stage=stage, label=label, counts=counted((), ()), total_s=0.0)
        row = connection.execute(select(latency.c.counts, latency.c.total_s).where(*same).with_for_update()).one()
        fresh = {"counts": counted(row.counts, seconds), "total_s": row.total_s + sum(seconds)}
        connection.execute(update(latency).where(*same).values(**fresh))


def _measured(connection: Connection, events: Sequence[Event]) -> Iterable[_Took]:
    """Give what each event ends a step of, with how long that took; of what was purged since, nothing is known."""
    jobs = _rows(connection, job, {e.job_id for e in events if e.job_id is not None}, ("created_at", "started_at", "ended_at", "model"))
    sent = _rows(connection, delivery, {_delivery(e) for e in events if e.kind == "delivery committed"}, ("sent_at",))
    last = _rows(connection, study, {e.study_instance_uid for e in events if e.kind == "complete"}, ("last_received_at",))
    for one in events:
        of_job = jobs.get(one.job_id, {})
        if one.kind == "complete":
            yield from _took(Stage.COMPLETE, "", last.get(one.study_instance_uid, {}).get("last_received_at"), one.at)
        elif one.kind == "claimed" and one.why == "attempt 1":
            yield from _took(Stage.STARTED, "", of_job.get("created_at"), one.at)
        elif one.kind == "completed":
            yield from _took(Stage.ENDED, of_job.get("model", ""), of_job.get("started_at"), one.at)
        elif one.kind == "delivery sent":
            yield from _took(Stage.DELIVERED, _destination(one), of_job.get("ended_at"), one.at)
        elif one.kind == "delivery committed":
            yield from _took(Stage.COMMITTED, _destination(one), sent.get(_delivery(one), {}).get("sent_at"), one.at)


def _took(stage: Stage, label: str, since: float | None, at: float) -> Iterable[_Took]:
    if since is not None and at >= since:  # not of what has gone on since: a study that grew again meanwhile
        yield _Took(stage, label, at - since)


def _rows(connection: Connection, table: Any, keys: Iterable[Any], columns: Sequence[str]) -> Mapping[Any, Mapping[str, Any]]:
    (key,) = table.primary_key.columns
    wanted = sorted(one for one in keys if one)
    found: dict[Any, Mapping[str, Any]] = {}
    for start in range(0, len(wanted), _IDS):
        some = select(key, *(table.c[name] for name in columns)).where(key.in_(wanted[start : start + _IDS]))
        found |= {row[key.name]: dict(row) for row in connection.execute(some).mappings()}
    return found


def _delivery(one: Event) -> int:
    return int((one.detail or {}).get("delivery") or 0)


def _destination(one: Event) -> str:
    return str((one.detail or {}).get("destination") or "")
