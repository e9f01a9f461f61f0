"""Studies: what was received, seen whole. "The study is complete" and "its jobs exist" are one commit."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, delete, func, insert, or_, select, update

from dicom_node.domain import DeliveryState, Discontinuation, Job, JobState, Study, StudyState
from dicom_node.store.archive import Archive
from dicom_node.store.database import Database
from dicom_node.store.intake import instance_of
from dicom_node.store.jobs import insert_job, job_of, move
from dicom_node.store.journal import Event, note
from dicom_node.store.tables import delivery, event, instance, job, quarantine, result, study, tombstone


class Studies:
    """The studies of the ledger."""

    def __init__(self, database: Database, archive: Archive) -> None:
        self._database = database
        self._archive = archive

    def due(self, now: float, limit: int = 200) -> tuple[str, ...]:
        """Return the open studies that are to be judged now, longest waiting first."""
        wanted = (
            select(study.c.study_instance_uid).where(study.c.state == StudyState.OPEN, study.c.look_at <= now).order_by(study.c.look_at).limit(limit)
        )
        with self._database.read() as connection:
            return tuple(connection.execute(wanted).scalars())

    def view(self, study_instance_uid: str) -> Study | None:
        """Return a study with its current instances, or None when the ledger does not know it."""
        with self._database.read() as connection:
            row = connection.execute(select(study).where(study.c.study_instance_uid == study_instance_uid)).mappings().first()
            if row is None:
                return None
            current = select(instance).where(instance.c.study_instance_uid == study_instance_uid, instance.c.current)
            instances = tuple(instance_of(r) for r in connection.execute(current).mappings())
        return Study(
            study_instance_uid=study_instance_uid,
            instances=instances,
            revision=row["revision"],
            changes=row["changes"],
            first_received_at=row["first_received_at"],
            last_received_at=row["last_received_at"],
        )

    def look_again(self, study_instance_uid: str, at: float) -> None:
        """Put off judging a study until `at`."""
        with self._database.write() as connection:
            connection.execute(update(study).where(study.c.study_instance_uid == study_instance_uid).values(look_at=at))

    def complete(
        self, seen: Study, *, why: str, jobs: Sequence[Job], detail: Mapping[str, Any], now: float, max_reruns: int = 5
    ) -> tuple[Job, ...] | None:
        """Judge a study complete and create its jobs, in one commit; return the jobs that are new.

        A job whose identity exists is not made again. A new job of a model that already worked on the study names that one as its predecessor;
        a predecessor that is not finished is superseded. Returns None, having changed nothing, when the study changed since it was seen.
        """
        uid = seen.study_instance_uid
        guard = update(study).where(study.c.study_instance_uid == uid, study.c.changes == seen.changes, study.c.state == StudyState.OPEN)
        revision = seen.revision + 1
        with self._database.write() as connection:
            values = {"state": StudyState.COMPLETE, "revision": revision, "completed_at": now, "why": why}
            if connection.execute(guard.values(**values)).rowcount == 0:
                return None
            note(connection, Event(at=now, study_instance_uid=uid, kind="complete", who="node", why=why, detail={"revision": revision, **detail}))
            return tuple(made for one in jobs if (made := _add(connection, one, revision, now, max_reruns)) is not None)

    def hold(self, seen: Study, *, why: str, now: float) -> None:
        """Hold a study whose instances name more than one patient: nothing runs on it until a person has looked."""
        with self._database.write() as connection:
            guard = update(study).where(study.c.study_instance_uid == seen.study_instance_uid, study.c.changes == seen.changes)
            if connection.execute(guard.values(state=StudyState.CONFLICT, why=why)).rowcount:
                note(connection, Event(at=now, study_instance_uid=seen.study_instance_uid, kind="held", who="node", why=why))

    def list(self, *, limit: int = 50, state: StudyState | None = None) -> tuple[dict[str, Any], ...]:
        """Return rows about studies for a person, most recent first: with counts of instances, series, jobs and deliveries."""
        counts = (
            select(
                instance.c.study_instance_uid, func.count().label("instances"), func.count(instance.c.series_instance_uid.distinct()).label("series")
            )
            .where(instance.c.current)
            .group_by(instance.c.study_instance_uid)
            .subquery()
        )
        wanted = select(study, counts.c.instances, counts.c.series).outerjoin(counts, counts.c.study_instance_uid == study.c.study_instance_uid)
        if state is not None:
            wanted = wanted.where(study.c.state == state)
        with self._database.read() as connection:
            rows = [dict(row) for row in connection.execute(wanted.order_by(study.c.last_received_at.desc()).limit(limit)).mappings()]
            uids = [row["study_instance_uid"] for row in rows]
            jobs = _states(connection, select(job.c.study_instance_uid, job.c.state, func.count()).where(job.c.study_instance_uid.in_(uids)), job)
            joined = select(result.c.study_instance_uid, delivery.c.state, func.count()).join(delivery, delivery.c.result_id == result.c.id)
            sent = _states(connection, joined.where(result.c.study_instance_uid.in_(uids)), result, delivery)
        return tuple(row | {"jobs": jobs.get(row["study_instance_uid"], {}), "deliveries": sent.get(row["study_instance_uid"], {})} for row in rows)

    def find(self, text: str) -> tuple[str, ...]:
        """Return the UIDs of the studies whose UID is, or ends with, a text that a person typed."""
        with self._database.read() as connection:
            wanted = select(study.c.study_instance_uid).where(
                or_(study.c.study_instance_uid == text, study.c.study_instance_uid.endswith(text, autoescape=True))
            )
            return tuple(connection.execute(wanted.limit(10)).scalars())

    def counts(self) -> dict[str, int]:
        """Return how many studies are in each state."""
        with self._database.read() as connection:
            return {state: number for state, number in connection.execute(select(study.c.state, func.count()).group_by(study.c.state))}

    def older_than(self, moment: float, limit: int = 100) -> tuple[str, ...]:
        """Return finished studies that received nothing since `moment`, with no job or delivery still to be done, oldest first."""
        unfinished_jobs = select(job.c.study_instance_uid).where(job.c.state.in_([JobState.SCHEDULED, JobState.IN_PROGRESS]))
        unsent = (
            select(result.c.study_instance_uid)
            .join(delivery, delivery.c.result_id == result.c.id)
            .where(delivery.c.state.in_([DeliveryState.PENDING, DeliveryState.SENDING, DeliveryState.DEAD]))
        )
        wanted = select(study.c.study_instance_uid).where(
            study.c.last_received_at < moment,
            study.c.state != StudyState.OPEN,
            study.c.study_instance_uid.not_in(unfinished_jobs),
            study.c.study_instance_uid.not_in(unsent),
        )
        with self._database.read() as connection:
            return tuple(connection.execute(wanted.order_by(study.c.last_received_at).limit(limit)).scalars())

    def purge(self, study_instance_uid: str, *, who: str, why: str) -> int:
        """Remove a study: its rows in one commit, then its files; return how many files. The journal keeps that it was here."""
        of_study = study_instance_uid
        with self._database.write() as connection:
            paths = list(connection.execute(select(instance.c.path).where(instance.c.study_instance_uid == of_study)).scalars())
            paths += connection.execute(select(result.c.path).where(result.c.study_instance_uid == of_study)).scalars()
            paths += connection.execute(select(quarantine.c.path).where(quarantine.c.study_instance_uid == of_study)).scalars()
            if paths:
                connection.execute(insert(tombstone), [{"path": path} for path in sorted(set(paths))])
            results = select(result.c.id).where(result.c.study_instance_uid == of_study)
            connection.execute(delete(delivery).where(delivery.c.result_id.in_(results)))
            for table in (result, job, quarantine, instance, study, event):
                connection.execute(delete(table).where(table.c.study_instance_uid == of_study))
            gone = Event(at=time.time(), study_instance_uid=of_study, kind="purged", who=who, why=why, detail={"files": len(set(paths))})
            note(connection, gone)
        return self.bury()

    def bury(self) -> int:
        """Unlink the files whose rows are gone; what a crash left of it is done at the next start. Return how many."""
        with self._database.read() as connection:
            paths = list(connection.execute(select(tombstone.c.path)).scalars())
        for path in paths:
            self._archive.remove(path)
        if paths:
            with self._database.write() as connection:
                for start in range(0, len(paths), 500):
                    connection.execute(delete(tombstone).where(tombstone.c.path.in_(paths[start : start + 500])))
        return len(paths)


def _states(connection: Connection, wanted: Any, of: Any, states: Any = None) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    states = of if states is None else states
    for uid, state, number in connection.execute(wanted.group_by(of.c.study_instance_uid, states.c.state)):
        found.setdefault(uid, {})[state] = number
    return found


def _add(connection: Connection, wanted: Job, revision: int, now: float, max_reruns: int) -> Job | None:
    if connection.execute(select(job.c.id).where(job.c.identity == wanted.identity)).first():
        return None
    same = select(job).where(job.c.study_instance_uid == wanted.study_instance_uid, job.c.model == wanted.model).order_by(job.c.id.desc())
    before = [job_of(row) for row in connection.execute(same).mappings()]
    if len(before) > max_reruns:
        why = f"{wanted.model} has run {len(before)} times on this study: it does not run again by itself (node.max_reruns)"
        note(connection, Event(at=now, study_instance_uid=wanted.study_instance_uid, kind="not run", who="node", why=why))
        return None
    made = insert_job(connection, wanted, revision=revision, predecessor_id=before[0].id if before else None)
    for old in before:
        supersede(connection, old, by=made.id, now=now)
    return made


def supersede(connection: Connection, old: Job, *, by: int, now: float) -> None:
    """Let a job that is not finished give way to a newer one on the same study."""
    why = f"the study grew: job {by} takes its place"
    if old.state is JobState.SCHEDULED:
        move(connection, old, JobState.CANCELED, who="node", why=why, now=now, discontinuation=Discontinuation.SUPERSEDED)
    elif old.state is JobState.IN_PROGRESS:
        connection.execute(
            update(job).where(job.c.id == old.id).values(cancel_requested=True, discontinuation=Discontinuation.SUPERSEDED, reason=why)
        )
