"""Announcements: who is told of which results at which destination, and where that stands."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, or_, select, update

from dicom_node.domain import ANNOUNCEMENT_TRANSITIONS, Announcement, AnnouncementState, DeliveryState, JobState, Result
from dicom_node.store.announcing import announce
from dicom_node.store.database import Database
from dicom_node.store.deliveries import deliveries_of
from dicom_node.store.journal import Event, note
from dicom_node.store.lending import lend
from dicom_node.store.tables import announcement, delivery, job, result

_AT_ONCE = 200  # jobs of one transaction


class Announcements:
    """The announcements of the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def expect(self, remote: str, *, since: float, now: float) -> int:
        """Record what a remote is to be told of jobs that have ended since then: of each destination of their results. Return how many are new."""
        known = select(announcement.c.id).where(announcement.c.remote == remote, announcement.c.job_id == job.c.id)
        goes = select(delivery.c.id).join(result, result.c.id == delivery.c.result_id).where(result.c.job_id == job.c.id)
        ended = job.c.state == JobState.COMPLETED, job.c.ended_at >= since, ~known.exists(), goes.exists()
        wanted = select(job.c.id).where(*ended).order_by(job.c.id).limit(_AT_ONCE)
        with self._database.read() as connection:
            if connection.execute(wanted).first() is None:
                return 0
        with self._database.write() as connection:
            found = connection.execute(wanted).scalars().all()
            return sum(announce(connection, job_id, (remote,), _holders(connection, job_id), now) for job_id in found)

    def claim(self, remote: str, *, now: float, lease_s: float, committing: Collection[str]) -> Announcement | None:
        """Take the next that a remote may be told; None when there is none. It may be told once every result of its job is at its destination.

        committing: destinations at which results are only once they have committed themselves to them.
        """
        due = announcement.c.remote == remote, announcement.c.state == AnnouncementState.PENDING, announcement.c.not_before <= now
        wanted = select(announcement.c.id).where(*due, _is_there(committing)).order_by(announcement.c.not_before, announcement.c.id).limit(1)
        found = lend(self._database, announcement, wanted, until=now + lease_s)
        return None if found is None else _announcement(found)

    def results(self, one: Announcement) -> tuple[Result, ...]:
        """Return the results that an announcement is about."""
        there = result.c.job_id == one.job_id, delivery.c.destination == one.holder
        with self._database.read() as connection:
            return tuple(sent.result for sent in deliveries_of(connection, *there))

    def told(self, one: Announcement, *, now: float, why: str) -> bool:
        """Record that the remote took it; False when that was on record."""
        return self._end(one, AnnouncementState.TOLD, kind="notified", why=why, now=now)

    def drop(self, one: Announcement, *, now: float, reason: str) -> bool:
        """Record that it is not tried any more; False when it had ended."""
        return self._end(one, AnnouncementState.DROPPED, kind="not notified", why=reason, now=now, reason=reason)

    def put_off(self, one: Announcement, *, until: float, reason: str, counts: bool = True) -> None:
        """Record a failure and when to try again; `counts` is False when the remote was not reached."""
        values = {"not_before": until, "reason": reason, "attempts": one.attempts + counts}
        with self._database.write() as connection:
            same = announcement.c.id == one.id, announcement.c.state == AnnouncementState.PENDING
            connection.execute(update(announcement).where(*same).values(**values))

    def list(
        self, *, remote: str = "", state: AnnouncementState | None = None, job_id: int | None = None, limit: int = 50
    ) -> tuple[Announcement, ...]:
        """Return announcements, newest first."""
        conditions: list[Any] = [announcement.c.remote == remote] if remote else []
        conditions += [] if job_id is None else [announcement.c.job_id == job_id]
        conditions += [] if state is None else [announcement.c.state == state]
        with self._database.read() as connection:
            wanted = select(announcement).where(*conditions).order_by(announcement.c.id.desc()).limit(limit)
            return tuple(map(_announcement, connection.execute(wanted).mappings()))

    def _end(self, one: Announcement, to: AnnouncementState, *, kind: str, why: str, now: float, **values: Any) -> bool:
        """Change the state, by the table, and write who and why."""
        before = [state for state, after in ANNOUNCEMENT_TRANSITIONS.items() if to in after]
        ends = update(announcement).where(announcement.c.id == one.id, announcement.c.state.in_(before))
        with self._database.write() as connection:
            if connection.execute(ends.values(state=to, attempts=one.attempts + 1, **({"reason": ""} | values))).rowcount == 0:
                return False
            detail = {"notification": one.sop_instance_uid, "holder": one.holder}
            uid = one.study_instance_uid
            note(connection, Event(at=now, study_instance_uid=uid, job_id=one.job_id, kind=kind, who=one.remote, why=why, detail=detail))
            return True


def _holders(connection: Connection, job_id: int) -> list[str]:
    """Return the destinations of a job's results."""
    wanted = select(delivery.c.destination).join(result, result.c.id == delivery.c.result_id).where(result.c.job_id == job_id).distinct()
    return sorted(connection.execute(wanted).scalars())


def _is_there(committing: Collection[str]) -> ColumnElement[bool]:
    """Return the condition that all results of an announcement's job are at its destination, and at least one is."""
    kept = delivery.c.state == DeliveryState.COMMITTED
    there = or_(kept, and_(delivery.c.state == DeliveryState.SENT, delivery.c.destination.not_in(list(committing))))
    of = select(delivery.c.id).join(result, result.c.id == delivery.c.result_id)
    of = of.where(result.c.job_id == announcement.c.job_id, delivery.c.destination == announcement.c.holder)
    return and_(of.where(there).exists(), ~of.where(~there).exists())


def _announcement(row: RowMapping) -> Announcement:
    return Announcement(**dict(row) | {"state": AnnouncementState(row["state"])})
