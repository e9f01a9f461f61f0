"""Retrievals: each study that is to come from a remote, by one holder at a time, with every outcome on record."""

from collections.abc import Sequence
from typing import Any, Literal

from sqlalchemy import Connection, RowMapping, delete, func, insert, select, tuple_, update

from dicom_node.domain import RETRIEVAL_TRANSITIONS, Rejected, Retrieval, RetrievalState, StudyState
from dicom_node.store.bell import Bell, Topic, ringing
from dicom_node.store.database import Database, unless_there
from dicom_node.store.journal import Event, note
from dicom_node.store.tables import instance, result, retrieval, retrieval_wish, study

_KEPT_S = 90 * 86400.0  # one that has ended, for whoever asks about it
_TIMES = 8  # that a row is asked for which somebody else is just ending


class Retrievals:
    """The retrievals of the ledger. The bell rings (`Topic.RETRIEVALS`) when one may be claimed, and when one has ended."""

    def __init__(self, database: Database, bell: Bell) -> None:
        self._database = database
        self._bell = bell

    def ask(
        self,
        remote: str,
        study_instance_uid: str,
        *,
        who: str,
        why: str,
        now: float,
        wanted_for: str = "",
        by_person: bool = False,
        deadline: float | None = None,
    ) -> Retrieval:
        """Ask for a study of a remote; while one for it goes on that one is returned, with what is new of this wish added to it.

        wanted_for: Study Instance UID of the study that waits for it.
        by_person: a person asked: at once, whatever back-off or hours say.
        deadline: after it nobody wants it; of several wishes the latest counts, and a wish without one has none.

        Raises
        ------
        Transient: the ledger does not answer.
        """
        values = {"who": who, "why": why, "by_person": by_person, "deadline": deadline, "state": RetrievalState.WAITING, "attempts": 0}
        values |= {"not_before": now, "holder": "", "reason": "", "held": 0, "failed": 0, "requested_at": now}
        with ringing(self._bell, Topic.RETRIEVALS, self._database) as connection:
            for _ in range(_TIMES):
                fresh = unless_there(connection, retrieval).values(remote=remote, study_instance_uid=study_instance_uid, **values)
                key = connection.execute(fresh.returning(retrieval.c.id)).scalar()
                going_on = retrieval.c.remote == remote, retrieval.c.study_instance_uid == study_instance_uid, retrieval.c.ended_at.is_(None)
                found = _retrievals(connection, *(going_on if key is None else (retrieval.c.id == key,)), lock="wait")
                if found:
                    break
            else:
                raise Rejected(f"a retrieval of {study_instance_uid} ends again and again while it is asked for", hint="Ask once more.")
            if key is None:
                _add_wish(connection, found[0], wanted_for, by_person, deadline, who, why, now)
            else:
                connection.execute(delete(retrieval).where(retrieval.c.ended_at < now - _KEPT_S))
                _wish(connection, key, wanted_for)
                (made,) = _retrievals(connection, retrieval.c.id == key)
                note(connection, *_told(made, "retrieval asked", who=who, why=why, now=now))
            return _retrievals(connection, retrieval.c.id == found[0].id)[0]

    def claim(self, remote: str, who: str, *, now: float, lease_s: float, persons_only: bool = False) -> Retrieval | None:
        """Take the retrieval of a remote that is due, those that persons asked for first, then the oldest; exactly one claimant gets each.

        persons_only: leave what rules asked for.
        """
        due = *_waiting(remote, persons_only), retrieval.c.not_before <= now
        with self._database.read() as connection:  # who finds nothing takes no lock
            if connection.execute(select(retrieval.c.id).where(*due).limit(1)).first() is None:
                return None
        with self._database.write() as connection:
            for one in _retrievals(connection, *due, limit=1, lock="skip"):
                _change(connection, one, RetrievalState.RUNNING, who=who, why="its turn", now=now, lease_until=now + lease_s, holder=who)
                return _retrievals(connection, retrieval.c.id == one.id)[0]
        return None

    def next_due(self, remote: str, *, persons_only: bool = False) -> float | None:
        """Return when the next retrieval of a remote may be claimed, None when none waits."""
        with self._database.read() as connection:
            due: float | None = connection.execute(select(func.min(retrieval.c.not_before)).where(*_waiting(remote, persons_only))).scalar()
            return due

    def renew(self, one: Retrieval, who: str, *, now: float, lease_s: float, expected: int | None, held: int, failed: int = 0) -> bool:
        """Keep the lease of a retrieval and say how far it is; False when it is not this holder's any more: taken back, or canceled."""
        values = {"lease_until": now + lease_s, "expected": expected, "held": held, "failed": failed}
        with self._database.write() as connection:
            return bool(connection.execute(update(retrieval).where(*_held(one, who)).values(**values)).rowcount)

    def finish(self, one: Retrieval, who: str, *, now: float, expected: int, why: str) -> bool:
        """Record that the node holds all of it; False when the lease was lost."""
        values = {"expected": expected, "held": expected, "failed": 0, "reason": "", "attempts": one.attempts + 1}
        return self._move(one, who, RetrievalState.COMPLETED, now=now, why=why, **values)

    def put_off(
        self, one: Retrieval, who: str, *, now: float, until: float, reason: str, counts: bool = True, expected: int | None = None, held: int = 0
    ) -> bool:
        """Record a failure and when to try again; `counts` is False when the remote was not reached and the attempt says nothing of the study."""
        values = {"not_before": until, "reason": reason, "attempts": one.attempts + counts, "expected": expected, "held": held}
        return self._move(one, who, RetrievalState.WAITING, now=now, why=reason, **values)

    def give_up(self, one: Retrieval, who: str, *, now: float, reason: str, expected: int | None = None, held: int = 0, failed: int = 0) -> bool:
        """Record that it is not tried any more; False when the lease was lost."""
        values = {"reason": reason, "attempts": one.attempts + 1, "expected": expected, "held": held, "failed": failed}
        return self._move(one, who, RetrievalState.FAILED, now=now, why=reason, **values)

    def _move(self, one: Retrieval, who: str, to: RetrievalState, *, now: float, why: str, **values: Any) -> bool:
        with ringing(self._bell, Topic.RETRIEVALS, self._database) as connection:
            found = _retrievals(connection, *_held(one, who), lock="wait")
            for current in found:
                _change(connection, current, to, who=who, why=why, now=now, **values)
            return bool(found)

    def take_back(self, now: float) -> int:
        """Make retrievals whose holder has been silent beyond its lease due again; return how many. That counts as an attempt."""
        with ringing(self._bell, Topic.RETRIEVALS, self._database) as connection:
            silent = _retrievals(connection, retrieval.c.state == RetrievalState.RUNNING, retrieval.c.lease_until < now, lock="skip")
            for one in silent:
                why = "its holder was silent beyond its lease"
                values = {"not_before": now, "attempts": one.attempts + 1, "reason": why}
                _change(connection, one, RetrievalState.WAITING, who="clock", why=why, now=now, **values)
            return len(silent)

    def lapse(self, now: float) -> int:
        """Let those end that wait and are past their deadline; return how many."""
        late = retrieval.c.state == RetrievalState.WAITING, retrieval.c.deadline < now
        with self._database.read() as connection:
            if connection.execute(select(retrieval.c.id).where(*late).limit(1)).first() is None:
                return 0
        with ringing(self._bell, Topic.RETRIEVALS, self._database) as connection:
            found = _retrievals(connection, *late, lock="skip")
            for one in found:
                reason = f"it did not come in time; {one.reason}" if one.reason else "its turn did not come in time"
                _change(connection, one, RetrievalState.FAILED, who="clock", why=reason, now=now, reason=reason)
            return len(found)

    def cancel(self, key: int, *, who: str, now: float) -> None:
        """Cancel a retrieval that waits or runs; who runs it hears of that when it renews its lease.

        Raises
        ------
        Rejected: there is no such retrieval, or it has ended.
        """
        with ringing(self._bell, Topic.RETRIEVALS, self._database) as connection:
            found = _retrievals(connection, retrieval.c.id == key, retrieval.c.ended_at.is_(None), lock="wait")
            if not found:
                raise Rejected(f"retrieval {key} has ended, or does not exist", hint="dicom-node retrievals lists them.")
            why = "a person canceled it"
            _change(connection, found[0], RetrievalState.CANCELED, who=who, why=why, now=now, reason=why)

    def get(self, key: int) -> Retrieval | None:
        """Return a retrieval, None when there is none of this number."""
        with self._database.read() as connection:
            return next(iter(_retrievals(connection, retrieval.c.id == key)), None)

    def here(self, study_instance_uid: str, *, results: bool = True) -> frozenset[str]:
        """Return the SOP Instance UIDs of a study that the node holds; results: the node's own, too, which an archive may have taken."""
        tables = (instance, result) if results else (instance,)
        found: set[str] = set()
        with self._database.read() as connection:
            for table in tables:
                of_study = table.c.study_instance_uid == study_instance_uid
                found |= set(connection.execute(select(table.c.sop_instance_uid).where(of_study).distinct()).scalars())
        return frozenset(found)

    def wanted_for(self, study_instance_uid: str) -> tuple[Retrieval, ...]:
        """Return what was asked for because this study waits for it, newest first."""
        wishes = select(retrieval_wish.c.retrieval_id).where(retrieval_wish.c.study_instance_uid == study_instance_uid)
        with self._database.read() as connection:
            return _retrievals(connection, retrieval.c.id.in_(wishes), newest_first=True)

    def counts(self) -> dict[str, dict[str, int]]:
        """Return, for each remote, how many retrievals are in each state."""
        found: dict[str, dict[str, int]] = {}
        grouped = select(retrieval.c.remote, retrieval.c.state, func.count()).group_by(retrieval.c.remote, retrieval.c.state)
        with self._database.read() as connection:
            for name, state, number in connection.execute(grouped):
                found.setdefault(name, {})[state] = number
        return found

    def list(
        self,
        *,
        limit: int = 50,
        state: RetrievalState | None = None,
        remote: str = "",
        study_instance_uid: str = "",
        before: tuple[float, int] | None = None,
    ) -> tuple[Retrieval, ...]:
        """Return retrievals, newest first; before: only those that come after that one in this order, by its time and number."""
        conditions = [] if state is None else [retrieval.c.state == state]
        conditions += [retrieval.c.remote == remote] if remote else []
        conditions += [retrieval.c.study_instance_uid == study_instance_uid] if study_instance_uid else []
        conditions += [tuple_(retrieval.c.requested_at, retrieval.c.id) < before] if before is not None else []
        with self._database.read() as connection:
            return _retrievals(connection, *conditions, newest_first=True, limit=limit)


def _waiting(remote: str, persons_only: bool) -> tuple[Any, ...]:
    of_persons = [retrieval.c.by_person] if persons_only else []
    return retrieval.c.remote == remote, retrieval.c.state == RetrievalState.WAITING, *of_persons


def _held(one: Retrieval, who: str) -> tuple[Any, ...]:
    return retrieval.c.id == one.id, retrieval.c.state == RetrievalState.RUNNING, retrieval.c.holder == who


def _wish(connection: Connection, key: int, study_instance_uid: str) -> None:
    if study_instance_uid:
        connection.execute(insert(retrieval_wish).values(retrieval_id=key, study_instance_uid=study_instance_uid))


def _add_wish(
    connection: Connection, one: Retrieval, wanted_for: str, by_person: bool, deadline: float | None, who: str, why: str, now: float
) -> None:
    """Add to a retrieval what is new of one more wish."""
    is_new = bool(wanted_for) and wanted_for not in one.wanted_for
    later = None if one.deadline is None or deadline is None else max(one.deadline, deadline)
    values: dict[str, Any] = {} if later == one.deadline else {"deadline": later}
    if by_person:
        values |= {} if one.by_person else {"by_person": True}
        values |= {"not_before": now} if one.state is RetrievalState.WAITING and one.not_before > now else {}
    if values:
        connection.execute(update(retrieval).where(retrieval.c.id == one.id).values(**values))
    if is_new:
        _wish(connection, one.id, wanted_for)
    if values or is_new:
        studies = (one.study_instance_uid, *([wanted_for] if is_new else []))
        note(connection, *_events(one, studies, "retrieval asked", who=who, why=f"{why}; it is under way already", now=now))


def _change(connection: Connection, one: Retrieval, to: RetrievalState, *, who: str, why: str, now: float, **values: Any) -> None:
    """Change the state of a retrieval, by the table and in the caller's transaction, and write who and why.

    Raises
    ------
    ValueError: the table has no such transition.
    """
    if to not in RETRIEVAL_TRANSITIONS[one.state]:
        raise ValueError(f"retrieval {one.id} cannot go from {one.state} to {to}")
    fresh = {"state": to, "lease_until": None, "holder": "", "ended_at": now if to.has_ended else None} | values
    connection.execute(update(retrieval).where(retrieval.c.id == one.id).values(**fresh))
    note(connection, *_told(one, f"retrieval {to.lower()}", who=who, why=why, now=now))
    if to.has_ended:
        _look_at(connection, one.study_instance_uid, now)


def _look_at(connection: Connection, study_instance_uid: str, now: float) -> None:
    """Let a study be judged soon that waited because more of it was being fetched; the quiet period still counts."""
    waits = study.c.study_instance_uid == study_instance_uid, study.c.state == StudyState.OPEN, study.c.look_at > now
    connection.execute(update(study).where(*waits).values(look_at=now))


def _told(one: Retrieval, kind: str, *, who: str, why: str, now: float) -> tuple[Event, ...]:
    """Return what is told in the journal of the study, and of those that wait for it."""
    return _events(one, (one.study_instance_uid, *one.wanted_for), kind, who=who, why=why, now=now)


def _events(one: Retrieval, studies: Sequence[str], kind: str, *, who: str, why: str, now: float) -> tuple[Event, ...]:
    detail = {"retrieval": one.id, "remote": one.remote, "study": one.study_instance_uid}
    return tuple(Event(at=now, study_instance_uid=uid, kind=kind, who=who, why=why, detail=detail) for uid in dict.fromkeys(studies))


def _retrievals(
    connection: Connection, *conditions: Any, newest_first: bool = False, limit: int | None = None, lock: Literal["", "wait", "skip"] = ""
) -> tuple[Retrieval, ...]:
    """Return retrievals, those of persons first, then by age; locked until the commit where asked."""
    of = retrieval.c
    order = (of.requested_at.desc(), of.id.desc()) if newest_first else (of.by_person.desc(), of.not_before, of.id)
    wanted = select(retrieval).where(*conditions).order_by(*order).limit(limit)
    if lock:
        wanted = wanted.with_for_update(skip_locked=lock == "skip")
    rows = connection.execute(wanted).mappings().all()
    wishes: dict[int, list[str]] = {}
    if rows:
        named = select(retrieval_wish).where(retrieval_wish.c.retrieval_id.in_([row["id"] for row in rows]))
        for wish in connection.execute(named.order_by(retrieval_wish.c.study_instance_uid)):
            wishes.setdefault(wish.retrieval_id, []).append(wish.study_instance_uid)
    return tuple(_retrieval(row, wishes.get(row["id"], ())) for row in rows)


def _retrieval(row: RowMapping, wanted_for: Sequence[str]) -> Retrieval:
    return Retrieval(**{**row, "state": RetrievalState(row["state"]), "wanted_for": tuple(wanted_for)})
