"""Deliveries: each result on its way to each destination, and how each destination is doing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import Connection, RowMapping, func, select, tuple_, update

from dicom_node.domain import DELIVERY_TRANSITIONS, Delivery, DeliveryState, Rejected, Result
from dicom_node.store.announcing import announce_also
from dicom_node.store.bell import Bell, Topic, ringing
from dicom_node.store.database import Database, insert_unless_there
from dicom_node.store.journal import Event, note
from dicom_node.store.tables import delivery, destination, result

_AT_ONCE = 1000  # rows that one statement changes


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """How a destination is doing: after failures in a row nothing is sent to it before `not_before`."""

    name: str
    failures: int = 0
    not_before: float = 0.0
    succeeded_at: float | None = None
    reason: str = ""


class Deliveries:
    """The deliveries of the ledger."""

    def __init__(self, database: Database, bell: Bell) -> None:
        self._database = database
        self._bell = bell

    def claim(self, name: str, who: str, *, now: float, lease_s: float, limit: int = 64) -> tuple[Delivery, ...]:
        """Take the deliveries to one destination that are due, oldest first; exactly one claimant gets each."""
        due = delivery.c.destination == name, delivery.c.state == DeliveryState.PENDING, delivery.c.not_before <= now
        with self._database.read() as connection:  # who finds nothing takes no lock
            if connection.execute(select(delivery.c.id).where(*due).limit(1)).first() is None:
                return ()
        with self._database.write() as connection:
            found = deliveries_of(connection, *due, limit=limit, lock="skip")
            taken = {"lease_until": now + lease_s, "sender": who}
            return change(connection, found, DeliveryState.SENDING, who=who, why="its turn", now=now, **taken)

    def next_due(self, name: str) -> float | None:
        """Return when the next delivery to one destination may be sent, None when none waits."""
        waits = delivery.c.destination == name, delivery.c.state == DeliveryState.PENDING
        with self._database.read() as connection:
            due: float | None = connection.execute(select(func.min(delivery.c.not_before)).where(*waits)).scalar()
            return due

    def renew(self, held: Sequence[Delivery], who: str, *, now: float, lease_s: float) -> int:
        """Keep the lease of deliveries that are still being sent; return how many of them are still this sender's."""
        with self._database.write() as connection:
            return int(connection.execute(update(delivery).where(*_held(held, who)).values(lease_until=now + lease_s)).rowcount)

    def sent(self, one: Delivery, who: str, *, now: float, status: int, reason: str = "") -> bool:
        """Record that the destination answered success, or a warning, which is kept; False when the lease was lost."""
        why = reason or "success"
        return self._move(one, who, DeliveryState.SENT, now=now, why=why, sent_at=now, status=status, reason=reason, attempts=one.attempts + 1)

    def put_off(self, one: Delivery, who: str, *, now: float, until: float, reason: str, status: int | None = None, counts: bool = True) -> bool:
        """Record a failure and when to try again; `counts` is False when the peer was not reached and the attempt says nothing of the object."""
        attempts = one.attempts + 1 if counts else one.attempts
        return self._move(one, who, DeliveryState.PENDING, now=now, why=reason, not_before=until, reason=reason, status=status, attempts=attempts)

    def give_up(self, one: Delivery, who: str, *, now: float, reason: str, status: int | None = None) -> bool:
        """Record that it is not tried any more: a dead letter, until a person replays it."""
        return self._move(one, who, DeliveryState.DEAD, now=now, why=reason, reason=reason, status=status, attempts=one.attempts + 1)

    def _move(self, one: Delivery, who: str, to: DeliveryState, *, now: float, why: str, **values: Any) -> bool:
        with self._database.write() as connection:
            held = deliveries_of(connection, *_held((one,), who), lock="wait")
            return bool(change(connection, held, to, who=who, why=why, now=now, **values))

    def take_back(self, now: float) -> int:
        """Make deliveries whose sender has been silent beyond its lease due again; return how many. The same bytes are sent again."""
        with ringing(self._bell, Topic.DELIVERIES, self._database) as connection:
            silent = deliveries_of(connection, delivery.c.state == DeliveryState.SENDING, delivery.c.lease_until < now, lock="skip")
            why = "its sender was silent beyond its lease"
            return len(change(connection, silent, DeliveryState.PENDING, who="clock", why=why, now=now, not_before=now))

    def replay(self, *, who: str, now: float, delivery_id: int | None = None, job_id: int | None = None, name: str | None = None) -> int:
        """Make dead or canceled deliveries due again: one, those of a job, or all of a destination; return how many.

        One that is named by its number may have been sent, too: the destination may have lost it since, or not have committed itself.
        """
        ended = (DeliveryState.DEAD, DeliveryState.CANCELED, *([DeliveryState.SENT] if delivery_id is not None else []))
        return self._by_person(ended, DeliveryState.PENDING, delivery_id, job_id, name, who=who, why="a person asked for it again", now=now)

    def cancel(self, delivery_id: int, *, who: str, now: float) -> None:
        """Cancel a delivery that waits.

        Raises
        ------
        Rejected: there is no such delivery, or it does not wait.
        """
        waiting = (DeliveryState.PENDING, DeliveryState.DEAD)
        if not self._by_person(waiting, DeliveryState.CANCELED, delivery_id, None, None, who=who, why="a person canceled it", now=now):
            raise Rejected(f"delivery {delivery_id} does not wait, or does not exist", hint="dicom-node deliveries lists them.")

    def _by_person(
        self,
        states: Sequence[DeliveryState],
        to: DeliveryState,
        delivery_id: int | None,
        job_id: int | None,
        name: str | None,
        *,
        who: str,
        why: str,
        now: float,
    ) -> int:
        conditions: list[Any] = [delivery.c.state.in_(states)]
        conditions += [delivery.c.id == delivery_id] if delivery_id is not None else []
        conditions += [delivery.c.destination == name] if name is not None else []
        conditions += [delivery.c.result_id.in_(select(result.c.id).where(result.c.job_id == job_id))] if job_id is not None else []
        values = {"not_before": now, "attempts": 0} if to is DeliveryState.PENDING else {}
        with ringing(self._bell, Topic.DELIVERIES, self._database) as connection:
            found = deliveries_of(connection, *conditions, lock="wait")
            return len(change(connection, found, to, who=who, why=why, now=now, **values))

    def send(self, job_id: int, name: str, *, who: str, now: float) -> int:
        """Queue a job's valid results for one more destination; return how many deliveries are new."""
        with ringing(self._bell, Topic.DELIVERIES, self._database) as connection:
            wanted = select(result.c.id, result.c.study_instance_uid).where(result.c.job_id == job_id, result.c.problem == "")
            rows = connection.execute(wanted.order_by(result.c.id)).all()
            fixed = {"destination": name, "state": DeliveryState.PENDING, "attempts": 0, "sender": "", "reason": ""}
            fixed |= {"created_at": now, "not_before": now}
            new = sum(insert_unless_there(connection, delivery, result_id=row.id, **fixed) for row in rows)
            if new:
                why = f"{new} results to {name}"
                note(connection, Event(at=now, study_instance_uid=rows[0].study_instance_uid, job_id=job_id, kind="queued", who=who, why=why))
                announce_also(connection, job_id, name, now)
            return new

    def list(
        self,
        *,
        limit: int = 50,
        state: DeliveryState | None = None,
        name: str = "",
        job_id: int | None = None,
        study_instance_uid: str = "",
        delivery_id: int | None = None,
        before: tuple[float, int] | None = None,
    ) -> tuple[Delivery, ...]:
        """Return deliveries, newest first; before: only those that come after that one in this order, by its time and number."""
        conditions = [] if state is None else [delivery.c.state == state]
        conditions += [delivery.c.destination == name] if name else []
        conditions += [result.c.job_id == job_id] if job_id is not None else []
        conditions += [result.c.study_instance_uid == study_instance_uid] if study_instance_uid else []
        conditions += [delivery.c.id == delivery_id] if delivery_id is not None else []
        conditions += [tuple_(delivery.c.created_at, delivery.c.id) < before] if before is not None else []
        with self._database.read() as connection:
            return deliveries_of(connection, *conditions, newest_first=True, limit=limit)

    def there(self, study_instance_uid: str, destination: str) -> int:
        """Return how many results of a study a destination has taken."""
        taken = delivery.c.destination == destination, delivery.c.state.in_([DeliveryState.SENT, DeliveryState.COMMITTED])
        joined = select(func.count()).select_from(result).join(delivery, delivery.c.result_id == result.c.id)
        with self._database.read() as connection:
            return connection.execute(joined.where(result.c.study_instance_uid == study_instance_uid, *taken)).scalar_one()

    def counts(self) -> dict[str, dict[str, int]]:
        """Return, for each destination, how many deliveries are in each state."""
        found: dict[str, dict[str, int]] = {}
        grouped = select(delivery.c.destination, delivery.c.state, func.count()).group_by(delivery.c.destination, delivery.c.state)
        with self._database.read() as connection:
            for name, state, number in connection.execute(grouped):
                found.setdefault(name, {})[state] = number
        return found

    # -------------------------------------------------------------------------------------------------------- destinations

    def destination(self, name: str) -> Destination:
        """Return how a destination is doing."""
        with self._database.read() as connection:
            row = connection.execute(select(destination).where(destination.c.name == name)).mappings().first()
            return Destination(**row) if row else Destination(name=name)

    def unreachable(self, name: str, *, until: float, reason: str) -> None:
        """Open the circuit: nothing is sent to this destination before `until`."""
        self._destination(name, {"failures": destination.c.failures + 1, "not_before": until, "reason": reason}, {"failures": 1})

    def try_now(self, name: str) -> None:
        """Let a destination whose circuit is open be tried at once, because a person asked: what failed stays on record."""
        with ringing(self._bell, Topic.DELIVERIES, self._database) as connection:
            connection.execute(update(destination).where(destination.c.name == name).values(not_before=0.0))

    def reached(self, name: str, *, now: float) -> None:
        """Close the circuit: the destination answered."""
        self._destination(name, {"failures": 0, "not_before": 0.0, "succeeded_at": now, "reason": ""}, {})
        self._bell.ring(Topic.DELIVERIES)  # what waited for the circuit

    def _destination(self, name: str, values: dict[str, Any], first: dict[str, Any]) -> None:
        with self._database.write() as connection:
            if not insert_unless_there(connection, destination, name=name, **(values | first)):
                connection.execute(update(destination).where(destination.c.name == name).values(**values))


def _held(held: Sequence[Delivery], who: str) -> tuple[Any, ...]:
    return delivery.c.id.in_([one.id for one in held]), delivery.c.state == DeliveryState.SENDING, delivery.c.sender == who


def change(
    connection: Connection, found: Sequence[Delivery], to: DeliveryState, *, who: str, why: str, now: float, **values: Any
) -> tuple[Delivery, ...]:
    """Change the state of deliveries, by the table and in the caller's transaction, and write who and why.

    Raises
    ------
    ValueError: the table has no such transition.
    """
    for one in found:
        if to not in DELIVERY_TRANSITIONS[one.state]:
            raise ValueError(f"delivery {one.id} cannot go from {one.state} to {to}")
    fresh = {"state": to, "lease_until": None, "sender": ""} | values
    for start in range(0, len(found), _AT_ONCE):
        some = found[start : start + _AT_ONCE]
        connection.execute(update(delivery).where(delivery.c.id.in_([one.id for one in some])).values(**fresh))
        note(connection, *(_told(one, to, who=who, why=why, now=now) for one in some))
    return tuple(replace(one, state=to) for one in found)


def _told(one: Delivery, to: DeliveryState, *, who: str, why: str, now: float) -> Event:
    of, kind = one.result, f"delivery {to.lower()}"
    detail = {"delivery": one.id, "kind": of.kind, "destination": one.destination}
    return Event(at=now, study_instance_uid=of.study_instance_uid, job_id=of.job_id, kind=kind, who=who, why=why, detail=detail)


def deliveries_of(
    connection: Connection,
    *conditions: Any,
    newest_first: bool = False,
    limit: int | None = None,
    offset: int = 0,
    lock: Literal["", "wait", "skip"] = "",
) -> tuple[Delivery, ...]:
    """Return deliveries with their results; locked until the commit, where asked: after a wait for whoever changes them, or without those."""
    of_result = [column.label(f"result_{column.name}") for column in result.columns]
    wanted = select(delivery, *(c for c in of_result if c.name != "result_id")).join(result, result.c.id == delivery.c.result_id).where(*conditions)
    order = (delivery.c.created_at.desc(), delivery.c.id.desc()) if newest_first else (delivery.c.created_at, delivery.c.id)
    wanted = wanted.order_by(*order).limit(limit).offset(offset or None)
    if lock:
        wanted = wanted.with_for_update(of=delivery, skip_locked=lock == "skip")
    return tuple(_delivery(row) for row in connection.execute(wanted).mappings())


def _delivery(row: RowMapping) -> Delivery:
    of = Result(id=row["result_id"], **{c.name: row[f"result_{c.name}"] for c in result.columns if c.name != "id"})
    kept = ("id", "destination", "attempts", "not_before", "created_at", "sent_at", "status", "reason")
    return Delivery(result=of, state=DeliveryState(row["state"]), **{name: row[name] for name in kept})
