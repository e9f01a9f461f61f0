"""Jobs: claimed by lease, changed through one table of transitions, each change in one transaction with who and why."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from dicom_node.domain import (
    Cause,
    Discontinuation,
    Job,
    JobState,
    Rejected,
    ReportKind,
    Result,
    job_identity,
)
from dicom_node.store.bell import Bell, Topic, ringing
from dicom_node.store.database import Database, insert_unless_there
from dicom_node.store.indexing import look_again
from dicom_node.store.moving import cancel_in, insert_job, job_of, move, tell_of
from dicom_node.store.recording import instances_by_id
from dicom_node.store.reporting import is_watched, report_of_job, state_facts
from dicom_node.store.results import insert_result, results_before
from dicom_node.store.tables import job, quarantine, result, worker

_PROGRESS_TOLD = 0.05  # watchers hear of each further part of the work, and of each new sentence


class Jobs:
    """The jobs of the ledger. Whatever a worker reports is taken only while it holds the job's lease for that very attempt."""

    def __init__(self, database: Database, bell: Bell) -> None:
        self._database = database
        self._bell = bell

    # ------------------------------------------------------------------------------------------------------- by workers

    def claim(self, who: str, models: Sequence[str], *, now: float, lease_s: float) -> Job | None:
        """Take the next job of one of these models: by priority, then age; exactly one claimant gets it."""
        waiting = select(job.c.id).where(job.c.state == JobState.SCHEDULED, job.c.not_before <= now, job.c.model.in_(models)).limit(1)
        with self._database.read() as connection:  # who finds nothing takes no lock
            if connection.execute(waiting).first() is None:
                return None
        chosen = waiting.add_columns(job.c.started_at).order_by(job.c.due, job.c.id).with_for_update(skip_locked=True)
        taken = {"state": JobState.IN_PROGRESS, "worker": who, "lease_until": now + lease_s, "attempts": job.c.attempts + 1, "progress": 0.0}
        claim = update(job).values(**taken, started_at=now, note="", reason="").returning(*job.columns)
        with self._database.write() as connection:
            found = connection.execute(chosen).first()
            if found is None:
                return None
            claimed = job_of(connection.execute(claim.where(job.c.id == found.id)).mappings().one())
            tell_of(connection, claimed, "claimed", who, f"attempt {claimed.attempts}", now)
            if found.started_at is None:  # a later attempt goes on with what others see in progress
                report_of_job(connection, claimed.id, ReportKind.STATE, state_facts(claimed), now)
            return claimed

    def next_due(self, models: Sequence[str]) -> float | None:
        """Return when the next job of one of these models may be claimed, None when none waits."""
        waits = job.c.state == JobState.SCHEDULED, job.c.model.in_(models)
        with self._database.read() as connection:
            due: float | None = connection.execute(select(func.min(job.c.not_before)).where(*waits)).scalar()
            return due

    def beat(self, held: Job, *, now: float, lease_s: float, progress: float, note: str) -> bool | None:
        """Renew the lease and report progress; return False to go on, True when the job is to stop, None when the lease is lost."""
        renew = update(job).where(*_held(held)).values(lease_until=now + lease_s, progress=progress, note=note)
        with self._database.write() as connection:
            before = connection.execute(select(job.c.progress, job.c.note).where(*_held(held))).first()
            asked: bool | None = connection.execute(renew.returning(job.c.cancel_requested)).scalar()
            is_news = before is not None and (note != before.note or int(progress / _PROGRESS_TOLD) > int(before.progress / _PROGRESS_TOLD))
            if is_news and is_watched(connection, held.id):
                report_of_job(connection, held.id, ReportKind.PROGRESS, {"progress": progress, "note": note}, now)
            return asked

    def complete(
        self,
        held: Job,
        results: Sequence[Result],
        *,
        now: float,
        why: str,
        only: Mapping[str, Collection[str]] | None = None,
        picture: str = "",
    ) -> bool:
        """Record a job's results and their deliveries, and the job as COMPLETED, in one commit; False when the lease was lost.

        only: of results, by their kind, to which of the job's destinations they go; the others go to all.
        picture: the file that shows them to a person, below the archive; empty: none was drawn.
        """
        with ringing(self._bell, Topic.DELIVERIES, self._database) as connection:
            look_again(connection, held.study_instance_uid)
            current = _still_held(connection, held)
            if current is None:
                return False
            for one in results:
                wanted = (only or {}).get(one.kind, current.deliver)
                insert_result(connection, one, [name for name in current.deliver if name in wanted], now=now)
            # It may have been asked to stop: it was quicker, and what it made counts.
            done = {"progress": 1.0, "note": why, "discontinuation": None, "reason": "", "picture": picture}
            move(connection, current, JobState.COMPLETED, who=held.worker, why=why, now=now, **done)
            return True

    def reject(self, held: Job, results: Sequence[Result], *, now: float, why: str) -> bool:
        """Record results that did not pass the check as quarantined, and the job as CANCELED; nothing of it is delivered."""
        with self._database.write() as connection:
            current = _still_held(connection, held)
            if current is None:
                return False
            for one in results:
                insert_result(connection, one)
                values = {
                    "at": now,
                    "path": one.path,
                    "source": held.model,
                    "job_id": held.id,
                    "reason": one.problem or "another result of the job is invalid",
                }
                uids = {"sop_instance_uid": one.sop_instance_uid, "study_instance_uid": one.study_instance_uid}
                connection.execute(insert(quarantine).values(**values, **uids))
            move(connection, current, JobState.CANCELED, who=held.worker, why=why, now=now, discontinuation=Discontinuation.INVALID)
            return True

    def decline(self, held: Job, *, now: float, why: str, cause: str = "") -> bool:
        """Record that the analysis declined this input: CANCELED, with its sentence."""
        with self._database.write() as connection:
            current = _still_held(connection, held)
            if current is None:
                return False
            move(connection, current, JobState.CANCELED, who=held.worker, why=why, now=now, discontinuation=Discontinuation.DECLINED, cause=cause)
            return True

    def stop(self, held: Job, *, now: float) -> bool:
        """Record that the worker stopped because it was asked to."""
        with self._database.write() as connection:
            current = _still_held(connection, held)
            if current is None:
                return False
            _stopped(connection, current, who=held.worker, why="a person asked for it", now=now)
            return True

    def fail(self, held: Job, *, now: float, why: str, retry_at: float | None, cause: str = "") -> bool:
        """Record that an attempt failed: scheduled again at `retry_at`, or CANCELED when that is None or somebody asked it to stop."""
        with ringing(self._bell, Topic.JOBS, self._database) as connection:
            current = _still_held(connection, held)
            if current is None:
                return False
            _give_back(connection, current, who=held.worker, why=why, now=now, retry_at=retry_at, cause=cause)
            return True

    def release(self, held: Job, *, now: float, why: str) -> bool:
        """Give a job back unfinished because the worker stops: it is SCHEDULED again, and the attempt does not count."""
        with ringing(self._bell, Topic.JOBS, self._database) as connection:
            current = _still_held(connection, held)
            if current is None:
                return False
            _give_back(connection, current, who=held.worker, why=why, now=now, retry_at=now, attempts=current.attempts - 1)
            return True

    def seen(self, who: str, models: Sequence[str], *, started_at: float, now: float) -> None:
        """Record that a worker is alive and which models it runs."""
        values = {"started_at": started_at, "seen_at": now, "models": list(models)}
        with self._database.write() as connection:
            if connection.execute(update(worker).where(worker.c.name == who).values(**values)).rowcount == 0:
                insert_unless_there(connection, worker, name=who, **values)

    def forget(self, who: str) -> None:
        """Record that a worker has ended."""
        with self._database.write() as connection:
            connection.execute(delete(worker).where(worker.c.name == who))

    def workers(self) -> tuple[dict[str, Any], ...]:
        """Return the workers that were seen, latest first."""
        with self._database.read() as connection:
            return tuple(dict(row) for row in connection.execute(select(worker).order_by(worker.c.seen_at.desc())).mappings())

    # -------------------------------------------------------------------------------------------------------- by the clock

    def expired(self, now: float) -> tuple[Job, ...]:
        """Return the jobs whose worker has been silent beyond its lease."""
        return self._select(job.c.state == JobState.IN_PROGRESS, job.c.lease_until < now)

    def take_back(self, silent: Job, *, now: float, why: str, retry_at: float | None) -> bool:
        """Take a job back from a silent worker, to be claimed again at `retry_at`, or CANCELED when that is None."""
        with ringing(self._bell, Topic.JOBS, self._database) as connection:
            current = _still_held(connection, silent)
            if current is None or (current.lease_until or 0.0) >= now:
                return False
            _give_back(connection, current, who="clock", why=why, now=now, retry_at=retry_at, cause=Cause.EQUIPMENT)
            return True

    # ---------------------------------------------------------------------------------------------------------- by people

    def cancel(self, job_id: int, *, who: str, why: str, now: float) -> JobState:
        """Cancel a job: at once while it waits, through its worker while it runs; return its state now.

        Raises
        ------
        Rejected: there is no such job, or it has ended.
        """
        with self._database.write() as connection:
            return cancel_in(connection, _get(connection, job_id, lock=True), who=who, why=why, now=now)

    def again(self, job_id: int, *, who: str, now: float, device_uid: str = "", model_version: str = "") -> Job:
        """Make a new job of the same inputs, with the model's present build; the old one is its predecessor.

        Raises
        ------
        Rejected: there is no such job, it has not ended, or its instances are gone.
        """
        with ringing(self._bell, Topic.JOBS, self._database) as connection:
            old = _get(connection, job_id, lock=True)
            if old.state not in (JobState.COMPLETED, JobState.CANCELED):
                raise Rejected(f"job {job_id} is {old.state}: it has not ended", hint="Wait for it, or cancel it first.")
            made = _repeated(connection, replace(old, device_uid=device_uid or old.device_uid, model_version=model_version or old.model_version), now)
            tell_of(connection, made, "asked for", who, f"again, after job {job_id}", now)
            return made

    def exists(self, job_id: int) -> bool:
        """Say whether there is a job of this number."""
        with self._database.read() as connection:
            return connection.execute(select(job.c.id).where(job.c.id == job_id)).first() is not None

    def get(self, job_id: int) -> Job:
        """Return a job.

        Raises
        ------
        Rejected: there is no such job.
        """
        with self._database.read() as connection:
            return _get(connection, job_id)

    def list(
        self, *, limit: int = 50, state: JobState | None = None, study_instance_uid: str = "", model: str = "", before: int = 0
    ) -> tuple[Job, ...]:
        """Return jobs, newest first; before: only those of lower numbers."""
        conditions = [] if state is None else [job.c.state == state]
        conditions += [job.c.study_instance_uid == study_instance_uid] if study_instance_uid else []
        conditions += [job.c.model == model] if model else []
        conditions += [job.c.id < before] if before else []
        return self._select(*conditions, limit=limit)

    def counts(self) -> dict[str, int]:
        """Return how many jobs are in each state."""
        with self._database.read() as connection:
            return {state: number for state, number in connection.execute(select(job.c.state, func.count()).group_by(job.c.state))}

    def results(self, job_id: int) -> tuple[Result, ...]:
        """Return what a job made."""
        with self._database.read() as connection:
            rows = connection.execute(select(result).where(result.c.job_id == job_id).order_by(result.c.id)).mappings()
            return tuple(Result(**row) for row in rows)

    def predecessors(self, successor: Job) -> tuple[Result, ...]:
        """Return the results of the nearest earlier job in the chain that completed: what this job's results replace."""
        with self._database.read() as connection:
            return results_before(connection, successor.predecessor_id)

    def _select(self, *conditions: Any, limit: int = 1000) -> tuple[Job, ...]:
        with self._database.read() as connection:
            rows = connection.execute(select(job).where(*conditions).order_by(job.c.id.desc()).limit(limit)).mappings()
            return tuple(job_of(row) for row in rows)


def _give_back(
    connection: Connection, current: Job, *, who: str, why: str, now: float, retry_at: float | None, cause: str = "", **values: Any
) -> None:
    """End an attempt that came to nothing: stopped if that was asked for, else to be claimed again at `retry_at`, else failed for good."""
    if current.cancel_requested:
        _stopped(connection, current, who=who, why=why, now=now)
    elif retry_at is None:
        move(connection, current, JobState.CANCELED, who=who, why=why, now=now, discontinuation=Discontinuation.FAILED, cause=cause)
    else:
        move(connection, current, JobState.SCHEDULED, who=who, why=why, now=now, not_before=retry_at, **values)


def _stopped(connection: Connection, current: Job, *, who: str, why: str, now: float) -> None:
    kind = current.discontinuation or Discontinuation.STOPPED
    move(connection, current, JobState.CANCELED, who=who, why=current.reason or why, now=now, discontinuation=kind)


def _held(held: Job) -> tuple[Any, ...]:
    same_attempt = job.c.worker == held.worker, job.c.attempts == held.attempts, job.c.started_at == held.started_at
    return job.c.id == held.id, job.c.state == JobState.IN_PROGRESS, *same_attempt


def _still_held(connection: Connection, held: Job) -> Job | None:
    row = connection.execute(select(job).where(*_held(held)).with_for_update()).mappings().first()
    return job_of(row) if row else None


def _get(connection: Connection, job_id: int, *, lock: bool = False) -> Job:
    wanted = select(job).where(job.c.id == job_id)
    row = connection.execute(wanted.with_for_update() if lock else wanted).mappings().first()
    if row is None:
        raise Rejected(f"there is no job {job_id}", hint="dicom-node jobs lists them.")
    return job_of(row)


def _repeated(connection: Connection, old: Job, now: float) -> Job:
    ids = {i for members in old.inputs.values() for i in members}
    found = instances_by_id(connection, ids)
    if len(found) < len(ids):
        raise Rejected(f"job {old.id} cannot be repeated: {len(ids) - len(found)} of its instances are gone", hint="Send the study again.")
    inputs = {name: [found[i] for i in members] for name, members in old.inputs.items()}
    repeat = old.repeat
    while connection.execute(select(job.c.id).where(job.c.identity == job_identity(inputs, old.device_uid, repeat))).first():
        repeat += 1
    fresh = Job(
        study_instance_uid=old.study_instance_uid,
        model=old.model,
        model_version=old.model_version,
        device_uid=old.device_uid,
        identity=job_identity(inputs, old.device_uid, repeat),
        inputs=old.inputs,
        why=old.why,
        deliver=old.deliver,
        created_at=now,
        priority=old.priority,
        revision=old.revision,
        repeat=repeat,
        not_before=now + old.priors.wait_at_most_s if old.priors else 0.0,
        priors=old.priors.anew() if old.priors else None,
        predecessor_id=old.id,
    )
    return insert_job(connection, fresh)
