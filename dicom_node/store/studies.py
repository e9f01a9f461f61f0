"""Studies: what was received, seen whole. "The study is complete" and "its jobs exist" are one commit."""

import math
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, and_, delete, func, or_, select, tuple_, update

from dicom_node.config import Late
from dicom_node.domain import DeliveryState, Discontinuation, Job, JobState, Rejected, Study, StudyState, Transient
from dicom_node.store.archive import Archive
from dicom_node.store.bell import Bell, Topic, ringing
from dicom_node.store.database import Database, unless_there
from dicom_node.store.feedback import forget_of_study, unwritten
from dicom_node.store.journal import Event, note
from dicom_node.store.moving import ask_to_stop, insert_job, job_of, move
from dicom_node.store.recording import instance_of
from dicom_node.store.results import send_also
from dicom_node.store.tables import (
    delivery,
    event,
    instance,
    job,
    notice,
    procedure_step,
    quarantine,
    result,
    series_entry,
    study,
    study_entry,
    study_order,
    tombstone,
)
from dicom_node.store.workitems import forget_workitems_of_study, kept_by_watchers, look_at_waiting
from dicom_node.store.worklists import workitem

_SUPERSEDE: Mapping[str, Late] = {}  # of every job


class Studies:
    """The studies of the ledger."""

    def __init__(self, database: Database, archive: Archive, bell: Bell) -> None:
        self._database = database
        self._archive = archive
        self._bell = bell

    def due(self, now: float, limit: int = 200) -> tuple[str, ...]:
        """Return the open studies that are to be judged now, longest waiting first."""
        wanted = (
            select(study.c.study_instance_uid).where(study.c.state == StudyState.OPEN, study.c.look_at <= now).order_by(study.c.look_at).limit(limit)
        )
        with self._database.read() as connection:
            return tuple(connection.execute(wanted).scalars())

    def next_due(self) -> float | None:
        """Return when the next open study is to be judged, None when none is open."""
        wanted = select(study.c.look_at).where(study.c.state == StudyState.OPEN).order_by(study.c.look_at).limit(1)
        with self._database.read() as connection:
            due: float | None = connection.execute(wanted).scalar()
            return due

    def view(self, study_instance_uid: str) -> Study | None:
        """Return a study with its current instances, but for those that a rejection note hides, or None when the ledger does not know it."""
        with self._database.read() as connection:
            row = connection.execute(select(study).where(study.c.study_instance_uid == study_instance_uid)).mappings().first()
            if row is None:
                return None
            current = instance.c.study_instance_uid == study_instance_uid, instance.c.current
            instances = tuple(instance_of(r) for r in connection.execute(select(instance).where(*current, ~instance.c.hidden)).mappings())
            hidden = frozenset(connection.execute(select(instance.c.sop_instance_uid).where(*current, instance.c.hidden)).scalars())
        return Study(
            study_instance_uid=study_instance_uid,
            instances=instances,
            revision=row["revision"],
            changes=row["changes"],
            first_received_at=row["first_received_at"],
            last_received_at=row["last_received_at"],
            rejected=hidden,
        )

    def state(self, study_instance_uid: str) -> StudyState | None:
        """Return where a study stands; None when the ledger does not know it."""
        with self._database.read() as connection:
            found = connection.execute(select(study.c.state).where(study.c.study_instance_uid == study_instance_uid)).scalar()
        return StudyState(found) if found else None

    def look_again(self, study_instance_uid: str, at: float) -> None:
        """Put off judging a study until `at`."""
        with self._database.write() as connection:
            connection.execute(update(study).where(study.c.study_instance_uid == study_instance_uid).values(look_at=at))

    def complete(
        self,
        seen: Study,
        *,
        why: str,
        jobs: Sequence[Job],
        detail: Mapping[str, Any],
        now: float,
        max_reruns: int = 5,
        late: Mapping[str, Late] = _SUPERSEDE,
    ) -> tuple[Job, ...] | None:
        """Judge a study complete and create its jobs, in one commit; return the jobs that are new.

        A job whose identity exists is not made again. A new job of a model names as its predecessor the latest job of that model on the study that
        is no longer among those asked for; of these the unfinished are superseded. `late` says of a job, by its identity, what it is to earlier
        ones instead: nothing ("rerun"), or that it is not made where one was ("ignore"). Returns None, having changed nothing, when the study changed
        since it was seen.
        """
        uid = seen.study_instance_uid
        same = study.c.changes == seen.changes, study.c.first_received_at == seen.first_received_at  # it may have been purged, and sent again
        guard = update(study).where(study.c.study_instance_uid == uid, study.c.state == StudyState.OPEN, *same)
        revision = seen.revision + 1
        with ringing(self._bell, Topic.JOBS, self._database) as connection:
            values = {"state": StudyState.COMPLETE, "revision": revision, "completed_at": now, "why": why, "indexed": -1}
            if connection.execute(guard.values(**values)).rowcount == 0:
                return None
            note(connection, Event(at=now, study_instance_uid=uid, kind="complete", who="node", why=why, detail={"revision": revision, **detail}))
            wanted = {one.identity for one in jobs}
            new = [_add(connection, one, wanted, revision, now, max_reruns, late.get(one.identity)) for one in jobs]
            look_at_waiting(connection, uid, now)
            return tuple(made for made in new if made is not None)

    def hide(self, seen: Study, sop_instance_uids: Collection[str], *, who: str, why: str, now: float) -> int:
        """Hide instances that a rejection note names: nothing is made of them, and they stay on disk. Return how many were not hidden yet."""
        uids = sorted({one.sop_instance_uid for one in seen.instances} & set(sop_instance_uids))
        same = instance.c.study_instance_uid == seen.study_instance_uid, instance.c.current, ~instance.c.hidden
        with self._database.write() as connection:
            known = connection.execute(select(study.c.state).where(study.c.study_instance_uid == seen.study_instance_uid).with_for_update()).first()
            number = 0
            for start in range(0, len(uids) if known else 0, 500):
                wanted = update(instance).where(*same, instance.c.sop_instance_uid.in_(uids[start : start + 500]))
                number += connection.execute(wanted.values(hidden=True)).rowcount
            if number:
                changed = update(study).where(study.c.study_instance_uid == seen.study_instance_uid)
                connection.execute(changed.values(changes=study.c.changes + number, indexed=-1))
                said = Event(at=now, study_instance_uid=seen.study_instance_uid, kind="rejected", who=who, why=why, detail={"instances": number})
                note(connection, said)
            return number

    def hold(self, seen: Study, *, why: str, now: float) -> None:
        """Hold a study whose instances name more than one patient: nothing runs on it until a person has looked."""
        with self._database.write() as connection:
            same = study.c.study_instance_uid == seen.study_instance_uid, study.c.changes == seen.changes, study.c.state == StudyState.OPEN
            if connection.execute(update(study).where(*same).values(state=StudyState.CONFLICT, why=why, indexed=-1)).rowcount:
                note(connection, Event(at=now, study_instance_uid=seen.study_instance_uid, kind="held", who="node", why=why))

    def reopen(self, study_instance_uid: str, *, who: str, why: str, now: float) -> None:
        """Let a study be judged again, because a person asked for it: the rules changed, or what held it was put right.

        Raises
        ------
        Rejected: there is no such study, or it is open.
        """
        with ringing(self._bell, Topic.STUDIES, self._database) as connection:
            same = study.c.study_instance_uid == study_instance_uid, study.c.state != StudyState.OPEN
            if not connection.execute(update(study).where(*same).values(state=StudyState.OPEN, look_at=now)).rowcount:
                raise Rejected(f"study {study_instance_uid} is open already, or not here", hint="dicom-node studies lists them.")
            note(connection, Event(at=now, study_instance_uid=study_instance_uid, kind="reopened", who=who, why=why))

    def list(
        self,
        *,
        limit: int = 50,
        state: StudyState | None = None,
        since: float = 0.0,
        study_instance_uid: str = "",
        before: tuple[float, str] | None = None,
    ) -> tuple[dict[str, Any], ...]:
        """Return rows about studies, most recent first: with counts of instances, series, jobs and deliveries.

        since: only those that received something since then. before: only those that come after that one in this order, by its time and UID.
        """
        told = (column for column in study.c if column is not study.c.indexed)
        order = study.c.last_received_at, study.c.study_instance_uid
        wanted = select(*told).order_by(*(column.desc() for column in order)).limit(limit)
        conditions: list[Any] = [] if state is None else [study.c.state == state]
        conditions += [study.c.last_received_at >= since] if since else []
        conditions += [study.c.study_instance_uid == study_instance_uid] if study_instance_uid else []
        conditions += [tuple_(*order) < before] if before is not None else []
        wanted = wanted.where(*conditions)
        with self._database.read() as connection:
            rows = [dict(row) for row in connection.execute(wanted).mappings()]
            uids = [row["study_instance_uid"] for row in rows]
            images = _images(connection, uids)
            jobs = _states(connection, select(job.c.study_instance_uid, job.c.state, func.count()).where(job.c.study_instance_uid.in_(uids)), job)
            joined = select(result.c.study_instance_uid, delivery.c.state, func.count()).join(delivery, delivery.c.result_id == result.c.id)
            sent = _states(connection, joined.where(result.c.study_instance_uid.in_(uids)), result, delivery)
        none = {"instances": 0, "series": 0}
        counts = (images.get(uid, none) | {"jobs": jobs.get(uid, {}), "deliveries": sent.get(uid, {})} for uid in uids)
        return tuple(row | counted for row, counted in zip(rows, counts, strict=True))

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

    def older_than(self, moment: float, limit: int = 100, committing: Collection[str] = (), *, ended_after: float = math.inf) -> tuple[str, ...]:
        """Return complete studies that received nothing since `moment`, with no job, delivery or verified report still to be done, oldest first.

        committing: destinations that are asked to keep what they took: until they have said so, it stays here.
        ended_after: studies with a job that ended since then stay, whatever their age.

        What a person has to look at (a held study, a dead letter) does not go by itself.
        """
        of_study = study.c.study_instance_uid
        unfinished = select(job.c.id).where(job.c.study_instance_uid == of_study, job.c.state.in_([JobState.SCHEDULED, JobState.IN_PROGRESS]))
        uncommitted = and_(delivery.c.state == DeliveryState.SENT, delivery.c.destination.in_(sorted(committing)))
        unsent = (
            select(delivery.c.id)
            .join(result, delivery.c.result_id == result.c.id)
            .where(result.c.study_instance_uid == of_study)
            .where(or_(delivery.c.state.in_([DeliveryState.PENDING, DeliveryState.SENDING, DeliveryState.DEAD]), uncommitted))
        )
        old = study.c.last_received_at < moment, study.c.state == StudyState.COMPLETE, ~unfinished.exists(), ~unsent.exists(), ~unwritten(of_study)
        kept = kept_by_watchers(of_study, ended_after=ended_after)
        with self._database.read() as connection:
            return tuple(connection.execute(select(of_study).where(*old, ~kept).order_by(study.c.last_received_at).limit(limit)).scalars())

    def purge(self, study_instance_uid: str, *, who: str, why: str, now: float | None = None) -> int:
        """Remove a study: its rows in one commit, then its files; return how many files. The journal keeps that it was here.

        now: when, in seconds since the epoch; without it, the clock is read.

        Raises
        ------
        Transient: a file could not be removed; the study is gone all the same, and the file goes at the next start.
        """
        at = time.time() if now is None else now
        with self._database.write() as connection:
            paths = _forget(connection, study_instance_uid, at)
            if paths is not None:
                gone = Event(at=at, study_instance_uid=study_instance_uid, kind="purged", who=who, why=why, detail={"files": len(paths)})
                note(connection, gone)  # before the others go, so that the number of the newest is not given again
                kept = select(func.max(event.c.id)).where(event.c.study_instance_uid == study_instance_uid).scalar_subquery()
                connection.execute(delete(event).where(event.c.study_instance_uid == study_instance_uid, event.c.id < kept))
        return self.bury()

    def purge_quarantine(self, before: float) -> int:
        """Remove what came into quarantine before a moment, rows first and then files; return how many. Results go with their study, not here."""
        old = quarantine.c.at < before, quarantine.c.job_id.is_(None)
        with self._database.write() as connection:
            paths = list(connection.execute(select(quarantine.c.path).where(*old)).scalars())
            if paths:
                connection.execute(unless_there(connection, tombstone), [{"path": path} for path in paths])
                connection.execute(delete(quarantine).where(*old))
        self.bury()
        return len(paths)

    def bury(self) -> int:
        """Unlink the files whose rows are gone; what a crash left of it is done at the next start. Return how many.

        Raises
        ------
        Transient: a file could not be removed; the others are.
        """
        # An analysis made since then may have written the same result, or the same picture, again.
        same = (
            select(result.c.id).where(result.c.path == tombstone.c.path).exists(),
            select(job.c.id).where(job.c.picture == tombstone.c.path).exists(),
        )
        with self._database.read() as connection:
            again = set(connection.execute(select(tombstone.c.path).where(or_(*same))).scalars())
            paths = list(connection.execute(select(tombstone.c.path)).scalars())
        buried, failures = [], []
        for path in paths:
            try:
                if path not in again:
                    self._archive.remove(path)
                buried.append(path)
            except Transient as error:
                failures.append(error)
        if buried:
            with self._database.write() as connection:
                for start in range(0, len(buried), 500):
                    connection.execute(delete(tombstone).where(tombstone.c.path.in_(buried[start : start + 500])))
        if failures:
            raise failures[0]
        return len(buried)


def _forget(connection: Connection, of_study: str, now: float) -> list[str] | None:
    """Remove every row of a study, leave a tombstone for each of its files, and return their names; None when nothing is known of it."""
    known = connection.execute(select(study.c.state).where(study.c.study_instance_uid == of_study).with_for_update()).first()
    connection.execute(select(job.c.id).where(job.c.study_instance_uid == of_study).order_by(job.c.id).with_for_update()).all()
    files = ((instance, instance.c.path), (result, result.c.path), (quarantine, quarantine.c.path), (job, job.c.picture))
    named = (select(file).where(table.c.study_instance_uid == of_study) for table, file in files)
    paths = sorted({path for wanted in named for path in connection.execute(wanted).scalars()} - {""})
    if paths:
        connection.execute(unless_there(connection, tombstone), [{"path": path} for path in paths])
    forget_of_study(connection, of_study)
    forget_workitems_of_study(connection, of_study, now)
    results = select(result.c.id).where(result.c.study_instance_uid == of_study)
    connection.execute(delete(delivery).where(delivery.c.result_id.in_(results)))
    for table in (result, job, quarantine, instance, study, procedure_step, notice, study_order, study_entry, series_entry):
        connection.execute(delete(table).where(table.c.study_instance_uid == of_study))
    return paths if known or paths else None


def _images(connection: Connection, uids: Sequence[str]) -> dict[str, dict[str, int]]:
    of_study = instance.c.study_instance_uid
    counted = select(of_study, func.count(), func.count(instance.c.series_instance_uid.distinct())).group_by(of_study)
    rows = connection.execute(counted.where(of_study.in_(uids), instance.c.current, ~instance.c.hidden))
    return {uid: {"instances": instances, "series": series} for uid, instances, series in rows}


def _states(connection: Connection, wanted: Any, of: Any, states: Any = None) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    states = of if states is None else states
    for uid, state, number in connection.execute(wanted.group_by(of.c.study_instance_uid, states.c.state)):
        found.setdefault(uid, {})[state] = number
    return found


def _add(connection: Connection, wanted: Job, standing: Collection[str], revision: int, now: float, max_reruns: int, late: Late | None) -> Job | None:
    """Insert a job unless it is there; standing: the identities of all jobs that the study is to have, which none of them replaces."""
    # What a rule asked for gives way to what it asks for now; what somebody else asked for he gets, of the images that he named.
    of_rule = select(workitem.c.id).where(workitem.c.job_id == job.c.id, workitem.c.requester == "").exists()
    there = connection.execute(select(job.c.id, of_rule.label("of_rule")).where(job.c.identity == wanted.identity).with_for_update()).first()
    if there:
        if not there.of_rule:
            send_also(connection, there.id, wanted.deliver, now=now)
        return None
    earlier = job.c.study_instance_uid == wanted.study_instance_uid, job.c.model == wanted.model, job.c.revision < revision, of_rule
    same = select(job).where(*earlier, job.c.identity.not_in(standing)).order_by(job.c.id.desc()).with_for_update()
    before = [job_of(row) for row in connection.execute(same).mappings()]
    ran = sum(1 for old in before if old.attempts)  # what gave way before anybody worked on it cost nothing
    if ran > max_reruns:
        why = f"{wanted.model} has run {ran} times on this study: it does not run again by itself (node.max_reruns)"
        note(connection, Event(at=now, study_instance_uid=wanted.study_instance_uid, kind="not run", who="node", why=why))
        return None
    if late == "ignore" and any(old.state is not JobState.CANCELED for old in before):
        why = f'{wanted.model} was asked for on this study before: images that come later start nothing (late = "ignore")'
        note(connection, Event(at=now, study_instance_uid=wanted.study_instance_uid, kind="not run", who="node", why=why))
        return None
    replaced = [] if late == "rerun" else before
    made = insert_job(connection, wanted, revision=revision, predecessor_id=replaced[0].id if replaced else None)
    for old in replaced:
        supersede(connection, old, by=made.id, now=now)
    return made


def supersede(connection: Connection, old: Job, *, by: int, now: float) -> None:
    """Let a job that is not finished give way to a newer one on the same study."""
    why = f"the study grew: job {by} takes its place"
    if old.state is JobState.SCHEDULED:
        move(connection, old, JobState.CANCELED, who="node", why=why, now=now, discontinuation=Discontinuation.SUPERSEDED)
    elif old.state is JobState.IN_PROGRESS:
        ask_to_stop(connection, old, Discontinuation.SUPERSEDED, who="node", why=why, now=now)
