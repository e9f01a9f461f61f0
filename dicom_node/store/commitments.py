"""Storage commitment in the ledger: what destinations were asked to keep, and what the node was asked to keep."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, func, insert, or_, select, update

from dicom_node.domain import (
    COMMITMENT_TRANSITIONS,
    Commitment,
    CommitmentItem,
    CommitmentRole,
    CommitmentState,
    Delivery,
    DeliveryState,
    Fate,
    Instance,
)
from dicom_node.store.bell import Bell, Topic, ringing
from dicom_node.store.database import Database
from dicom_node.store.deliveries import change, deliveries_of
from dicom_node.store.journal import Event, note
from dicom_node.store.recording import instance_of
from dicom_node.store.tables import commitment, commitment_item, delivery, instance

_AT_ONCE = 500  # rows of one statement
_KEPT_S = 90 * 86400.0  # a transaction that has ended, for whoever asks about it
_DUPLICATE = 0x0131  # Failure Reason: duplicate Transaction UID (PS3.3 C.14.1.1)


class Commitments:
    """The storage commitment transactions of the ledger."""

    def __init__(self, database: Database, bell: Bell) -> None:
        self._database = database
        self._bell = bell

    # ------------------------------------------------------------------------------------------------- asked of others

    def due(self, name: str, *, now: float, sent_before: float, attempts: int, limit: int = 1000) -> tuple[tuple[Delivery, int], ...]:
        """Return the deliveries that a destination is to be asked about, oldest first, each with how often it was asked since it was sent last."""
        item, of = commitment_item.c, commitment.c
        of_delivery = select(of.id).join(commitment_item, item.commitment_id == of.id).where(item.delivery_id == delivery.c.id)
        asked = of_delivery.where(of.requested_at >= delivery.c.sent_at).with_only_columns(func.count()).scalar_subquery()
        waits = (
            delivery.c.destination == name,
            delivery.c.state == DeliveryState.SENT,
            delivery.c.sent_at <= sent_before,
            delivery.c.not_before <= now,
            ~of_delivery.where(of.state == CommitmentState.ASKED).exists(),
            asked < attempts,
        )
        with self._database.read() as connection:
            found = deliveries_of(connection, *waits, limit=limit)
            if not found:
                return ()
            counts = select(delivery.c.id, asked).where(delivery.c.id.in_([one.id for one in found[:_AT_ONCE]]))
            times = {key: number for key, number in connection.execute(counts)}
        return tuple((one, times[one.id]) for one in found[:_AT_ONCE])

    def begin(self, wanted: Commitment, deliveries: Sequence[Delivery], *, now: float) -> Commitment | None:
        """Record a request that is about to go out, about those deliveries that are still sent and not asked about; None when none is."""
        item = commitment_item.c
        open_ = select(commitment.c.id).join(commitment_item, item.commitment_id == commitment.c.id).where(item.delivery_id == delivery.c.id)
        still = (
            delivery.c.id.in_([one.id for one in deliveries]),
            delivery.c.state == DeliveryState.SENT,
            ~open_.where(commitment.c.state == CommitmentState.ASKED).exists(),
        )
        with self._database.write() as connection:
            found = deliveries_of(connection, *still, lock="wait")
            if not found:
                return None
            items = tuple(
                CommitmentItem(sop_class_uid=one.result.sop_class_uid, sop_instance_uid=one.result.sop_instance_uid, delivery_id=one.id)
                for one in sorted(found, key=lambda one: one.result.sop_instance_uid)
            )
            made = _insert(connection, replace(wanted, items=items))
            _tell(connection, made, found, "commitment asked", who="node", why=f"{made.peer} is asked to keep them", now=now)
            return made

    def asked(self, one: Commitment, *, deadline: float) -> None:
        """Record that the destination took the request: until then its report is awaited."""
        with self._database.write() as connection:
            same = commitment.c.id == one.id, commitment.c.state == CommitmentState.ASKED
            connection.execute(update(commitment).where(*same).values(deadline=deadline))

    def refused(self, one: Commitment, *, reason: str, until: float, now: float) -> bool:
        """Record that the destination did not take the request; it may be asked again from `until` on."""
        with self._database.write() as connection:
            return self._leave(connection, one.id, CommitmentState.REFUSED, reason, until, now)

    def lapse(self, name: str, *, told: Callable[[Commitment], tuple[str, float]], now: float) -> int:
        """Let the requests end whose report did not come in time; return how many.

        told: what is to be said of one, and when the destination may be asked again.
        """
        late = commitment.c.role == CommitmentRole.SCU, commitment.c.peer == name, commitment.c.deadline < now
        with self._database.read() as connection:
            found = _commitments(connection, *late, commitment.c.state == CommitmentState.ASKED)
        number = 0
        for one in found:
            with self._database.write() as connection:
                number += self._leave(connection, one.id, CommitmentState.OVERDUE, *told(one), now)
        return number

    @staticmethod
    def _leave(connection: Connection, key: int, to: CommitmentState, reason: str, until: float, now: float) -> bool:
        one = _locked(connection, key)
        if one is None or one.state is not CommitmentState.ASKED:
            return False
        _move(connection, one, to, reason=reason)
        found = deliveries_of(connection, _of(one), delivery.c.state == DeliveryState.SENT, lock="wait")
        _say(connection, found, reason, until)
        _tell(connection, one, found, f"commitment {to.lower()}", who=one.peer, why=reason, now=now)
        return True

    def find(self, role: CommitmentRole, transaction_uid: str, ae_title: str) -> Commitment | None:
        """Return the transaction of this UID with an application entity, None when there is none."""
        same = commitment.c.role == role, commitment.c.transaction_uid == transaction_uid, commitment.c.ae_title == ae_title
        with self._database.read() as connection:
            return next(iter(_commitments(connection, *same, limit=1)), None)

    def reported(self, one: Commitment, outcomes: Mapping[str, int], decide: Callable[[Delivery, int], Fate], *, now: float) -> bool:
        """Record a destination's report, and what becomes of each delivery by it, in one commit; False when it was reported before.

        outcomes: SOP Instance UID -> 0, or the Failure Reason.
        """
        with ringing(self._bell, Topic.DELIVERIES, self._database) as connection:
            current = _locked(connection, one.id)
            if current is None or current.state is CommitmentState.REPORTED:
                return False
            failures = sum(1 for outcome in outcomes.values() if outcome)
            _move(connection, current, CommitmentState.REPORTED, reason=f"{failures} of {len(outcomes)} not kept" if failures else "")
            _settle(connection, current, outcomes)
            for sent in deliveries_of(connection, _of(current), delivery.c.state == DeliveryState.SENT, lock="wait"):
                _apply(connection, sent, decide(sent, outcomes[sent.result.sop_instance_uid]), current, now)
            return True

    # ------------------------------------------------------------------------------------------------- asked of the node

    def accept(self, wanted: Commitment) -> Commitment:
        """Record a request of a peer, and return it as it stands.

        The same request again is the same transaction, to be reported again. Another request under the same UID is a transaction that fails: its
        Transaction UID is in use.
        """
        same = commitment.c.transaction_uid == wanted.transaction_uid, commitment.c.ae_title == wanted.ae_title
        ours = commitment.c.role == CommitmentRole.SCP
        with self._database.write() as connection:
            old = commitment.c.requested_at < wanted.requested_at - _KEPT_S, commitment.c.state != CommitmentState.ACCEPTED
            connection.execute(delete(commitment).where(ours, *old))
            found = _commitments(connection, ours, *same)
            names = [_names(one) for one in found]
            if _names(wanted) in names:
                before = found[names.index(_names(wanted))]
                if before.state is not CommitmentState.ACCEPTED:
                    fresh = {"not_before": wanted.not_before, "deadline": wanted.deadline, "attempts": 0}
                    _move(connection, before, CommitmentState.ACCEPTED, reason="asked again", **fresh)
                return before
            if found:
                wanted = replace(wanted, items=tuple(replace(item, outcome=_DUPLICATE) for item in wanted.items))
            return _insert(connection, wanted)

    def waiting(self) -> int:
        """Return how many requests wait for their report."""
        waits = commitment.c.role == CommitmentRole.SCP, commitment.c.state == CommitmentState.ACCEPTED
        with self._database.read() as connection:
            return connection.execute(select(func.count()).select_from(commitment).where(*waits)).scalar_one()

    def claim(self, who: str, *, now: float, lease_s: float, key: int | None = None) -> Commitment | None:
        """Take a request that is to be checked and reported: this one, or the one that waits longest; None when there is none."""
        free = commitment.c.state == CommitmentState.ACCEPTED, or_(commitment.c.lease_until.is_(None), commitment.c.lease_until < now)
        due = commitment.c.role == CommitmentRole.SCP, *free, commitment.c.not_before <= now if key is None else commitment.c.id == key
        wanted = select(commitment.c.id).where(*due).order_by(commitment.c.not_before, commitment.c.id).limit(1)
        with self._database.read() as connection:  # who finds nothing takes no lock
            if connection.execute(wanted).first() is None:
                return None
        with self._database.write() as connection:
            found = connection.execute(wanted.with_for_update(skip_locked=True)).scalar()
            if found is None:
                return None
            connection.execute(update(commitment).where(commitment.c.id == found).values(lease_until=now + lease_s, holder=who))
            return _commitments(connection, commitment.c.id == found)[0]

    def told(self, held: Commitment, who: str, outcomes: Mapping[str, int], studies: Mapping[str, int], *, now: float) -> bool:
        """Record that the peer took the report; False when the lease was lost. studies: how many instances of each study were promised to it."""
        with self._database.write() as connection:
            current = _held(connection, held, who)
            if current is None:
                return False
            _move(connection, current, CommitmentState.REPORTED, reason="", attempts=current.attempts + 1)
            _settle(connection, current, outcomes)
            detail = {"transaction": current.transaction_uid}
            for uid, number in studies.items():
                why = f"{number} of {len(current.items)} instances of a request are kept for it"
                note(connection, Event(at=now, study_instance_uid=uid, kind="commitment given", who=current.ae_title, why=why, detail=detail))
            return True

    def put_off(self, held: Commitment, who: str, *, reason: str, until: float, counts: bool = True) -> bool:
        """Record that the peer did not take the report, and when it is tried again; False when the lease was lost."""
        with self._database.write() as connection:
            current = _held(connection, held, who)
            if current is None:
                return False
            values = {"reason": reason, "not_before": until, "attempts": current.attempts + counts, "lease_until": None, "holder": ""}
            connection.execute(update(commitment).where(commitment.c.id == current.id).values(**values))
            return True

    def give_up(self, held: Commitment, who: str, *, reason: str) -> bool:
        """Record that the report is not tried any more; False when the lease was lost."""
        with self._database.write() as connection:
            current = _held(connection, held, who)
            if current is not None:
                _move(connection, current, CommitmentState.UNREPORTED, reason=reason, attempts=current.attempts + 1)
            return current is not None

    def instances(self, sop_instance_uids: Sequence[str]) -> tuple[Instance, ...]:
        """Return the current instances of these UIDs, in whatever study."""
        found: list[Instance] = []
        uids = list(sop_instance_uids)
        with self._database.read() as connection:
            for start in range(0, len(uids), _AT_ONCE):
                named = instance.c.sop_instance_uid.in_(uids[start : start + _AT_ONCE])
                found += (instance_of(row) for row in connection.execute(select(instance).where(named, instance.c.current)).mappings())
        return tuple(found)

    def list(self, *, role: CommitmentRole | None = None, state: CommitmentState | None = None, limit: int = 50) -> tuple[Commitment, ...]:
        """Return transactions, newest first."""
        conditions = [] if role is None else [commitment.c.role == role]
        conditions += [] if state is None else [commitment.c.state == state]
        with self._database.read() as connection:
            return _commitments(connection, *conditions, limit=limit)


def _insert(connection: Connection, wanted: Commitment) -> Commitment:
    values = {column.name: getattr(wanted, column.name) for column in commitment.columns if column.name != "id"}
    key = connection.execute(insert(commitment).values(**values).returning(commitment.c.id)).scalar_one()
    rows = [
        {column.name: getattr(item, column.name) for column in commitment_item.columns if column.name != "commitment_id"} for item in wanted.items
    ]
    connection.execute(insert(commitment_item), [row | {"commitment_id": key} for row in rows])
    return replace(wanted, id=key)


def _commitments(connection: Connection, *conditions: Any, limit: int | None = None, lock: bool = False) -> tuple[Commitment, ...]:
    wanted = select(commitment).where(*conditions).order_by(commitment.c.requested_at.desc(), commitment.c.id.desc()).limit(limit)
    rows = list(connection.execute(wanted.with_for_update() if lock else wanted).mappings())
    return tuple(_commitment(connection, row) for row in rows)


def _commitment(connection: Connection, row: RowMapping) -> Commitment:
    of = select(commitment_item).where(commitment_item.c.commitment_id == row["id"]).order_by(commitment_item.c.sop_instance_uid)
    items = tuple(
        CommitmentItem(**{name: value for name, value in item.items() if name != "commitment_id"}) for item in connection.execute(of).mappings()
    )
    kept = dict(row) | {"role": CommitmentRole(row["role"]), "state": CommitmentState(row["state"])}
    return Commitment(**kept, items=items)


def _locked(connection: Connection, key: int) -> Commitment | None:
    return next(iter(_commitments(connection, commitment.c.id == key, lock=True)), None)


def _held(connection: Connection, held: Commitment, who: str) -> Commitment | None:
    current = _locked(connection, held.id)
    return current if current is not None and current.state is CommitmentState.ACCEPTED and current.holder == who else None


def _move(connection: Connection, current: Commitment, to: CommitmentState, **values: Any) -> None:
    """Change the state of a transaction, by the table and in the caller's transaction.

    Raises
    ------
    ValueError: the table has no such transition.
    """
    if to not in COMMITMENT_TRANSITIONS[current.state]:
        raise ValueError(f"commitment {current.id} cannot go from {current.state} to {to}")
    fresh = {"state": to, "lease_until": None, "holder": ""} | values
    connection.execute(update(commitment).where(commitment.c.id == current.id).values(**fresh))


def _settle(connection: Connection, one: Commitment, outcomes: Mapping[str, int]) -> None:
    of = commitment_item.c.commitment_id == one.id
    by_outcome: dict[int, list[str]] = {}
    for uid, outcome in outcomes.items():
        by_outcome.setdefault(outcome, []).append(uid)
    for outcome, uids in by_outcome.items():
        for start in range(0, len(uids), _AT_ONCE):
            named = commitment_item.c.sop_instance_uid.in_(uids[start : start + _AT_ONCE])
            connection.execute(update(commitment_item).where(of, named).values(outcome=outcome))


def _apply(connection: Connection, sent: Delivery, fate: Fate, one: Commitment, now: float) -> None:
    if fate.to is DeliveryState.SENT:  # nothing is wrong with the object: it is asked for again
        _say(connection, (sent,), fate.reason, fate.not_before)
        _tell(connection, one, (sent,), "commitment failed", who=one.peer, why=fate.reason, now=now)
        return
    values = {"not_before": fate.not_before} if fate.to is DeliveryState.PENDING else {}
    why = fate.reason or "the destination keeps it"
    change(connection, (sent,), fate.to, who=one.peer, why=why, now=now, reason=fate.reason, **values)


def _say(connection: Connection, found: Sequence[Delivery], reason: str, until: float) -> None:
    if found:
        same = delivery.c.id.in_([one.id for one in found])
        connection.execute(update(delivery).where(same).values(reason=reason, not_before=until))


def _tell(connection: Connection, about: Commitment, found: Sequence[Delivery], kind: str, *, who: str, why: str, now: float) -> None:
    """Write one line of the journal for each job whose results are concerned."""
    jobs: dict[tuple[str, int], int] = {}
    for one in found:
        key = one.result.study_instance_uid, one.result.job_id
        jobs[key] = jobs.get(key, 0) + 1
    for (study, job_id), number in jobs.items():
        detail = {"transaction": about.transaction_uid, "results": number, "destination": about.peer}
        note(connection, Event(at=now, study_instance_uid=study, job_id=job_id, kind=kind, who=who, why=why, detail=detail))


def _of(one: Commitment) -> Any:
    return delivery.c.id.in_([item.delivery_id for item in one.items if item.delivery_id is not None])


def _names(one: Commitment) -> frozenset[tuple[str, str]]:
    return frozenset((item.sop_class_uid, item.sop_instance_uid) for item in one.items)
