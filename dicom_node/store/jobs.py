"""Jobs: claimed by lease, changed through one table of transitions, each change in one transaction with who and why."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, func, insert, null, select, update

from dicom_node.domain import (
    JOB_TRANSITIONS,
    Cause,
    Discontinuation,
    Job,
    JobState,
    Priority,
    Priors,
    Rejected,
    ReportKind,
    Result,
    job_identity,
    state_seen,
)
from dicom_node.store.bell import Bell, Topic, ringing
from dicom_node.store.database import Database, insert_unless_there
from dicom_node.store.indexing import look_again
from dicom_node.store.journal import Event, note
from dicom_node.store.recording import instances_by_id
from dicom_node.store.reporting import born_with, is_watched, report_of_job, state_facts
from dicom_node.store.results import insert_result, results_before
from dicom_node.store.tables import job, quarantine, result, worker
from dicom_node.store.worklists import workitem

# How long a job lets those of higher priority that came later go first. It is a head start, not a rank: an old LOW job is never passed for ever.
HEAD_START_S = {Priority.HIGH: 0.0, Priority.MEDIUM: 4 * 3600.0, Priority.LOW: 24 * 3600.0}

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


# ------------------------------------------------------------------------------------------------- in somebody's transaction


def cancel_in(connection: Connection, found: Job, *, who: str, why: str, now: float) -> JobState:
    """Cancel a job that the caller's transaction has locked, as `Jobs.cancel` does.

    Raises
    ------
    Rejected: it has ended.
    """
    if found.state is JobState.SCHEDULED:
        move(connection, found, JobState.CANCELED, who=who, why=why, now=now, discontinuation=Discontinuation.STOPPED)
        return JobState.CANCELED
    if found.state is not JobState.IN_PROGRESS:
        raise Rejected(f"job {found.id} is {found.state}: it has ended", hint="Only a job that waits or runs can be canceled.")
    ask_to_stop(connection, found, Discontinuation.STOPPED, who=who, why=why, now=now)
    return JobState.IN_PROGRESS


def hurry(connection: Connection, found: Job, to: Priority, now: float) -> None:
    """Give a job that waits another priority, in the caller's transaction, which has locked it; that decides its place among the others."""
    connection.execute(update(job).where(job.c.id == found.id).values(priority=int(to), due=found.created_at + HEAD_START_S[to]))
    connection.execute(update(workitem).where(workitem.c.job_id == found.id).values(changed_at=now))


def move(connection: Connection, current: Job, to: JobState, *, who: str, why: str, now: float, **values: Any) -> None:
    """Change a job's state, by the table and in the caller's transaction, and write who and why.

    Raises
    ------
    ValueError: the table has no such transition.
    """
    if to not in JOB_TRANSITIONS[current.state]:
        raise ValueError(f"job {current.id} cannot go from {current.state} to {to}")
    ended = {"ended_at": now} if not JOB_TRANSITIONS[to] else {}
    reason = {} if to is JobState.COMPLETED else {"reason": why}
    connection.execute(update(job).where(job.c.id == current.id).values(state=to, lease_until=None, **reason, **ended, **values))
    how = values.get("discontinuation")
    tell_of(connection, current, f"{to.lower()} ({how})" if how else to.lower(), who, why, now)
    moved = replace(current, state=to, reason=why, discontinuation=how, cause=values.get("cause", current.cause))
    if state_seen(moved) is not state_seen(current):
        report_of_job(connection, current.id, ReportKind.STATE, state_facts(moved), now)


def insert_job(connection: Connection, wanted: Job, *, is_born: bool = True, **values: Any) -> Job:
    """Insert a job as SCHEDULED, in the caller's transaction, and return it with its id.

    is_born: whether its workitem begins with it; else somebody asked for it by one that is there.
    """
    made = replace(wanted, state=JobState.SCHEDULED, deliver=tuple(dict.fromkeys(wanted.deliver)), **values)
    row = {c.name: getattr(made, c.name) for c in job.columns if c.name not in ("id", "due", "priors_state")}
    row |= {"priors": made.priors.as_row(), "priors_state": made.priors.state} if made.priors else {"priors": null()}
    row |= {"inputs": {name: list(ids) for name, ids in made.inputs.items()}, "deliver": list(made.deliver), "priority": int(made.priority)}
    key = connection.execute(insert(job).values(**row, due=made.created_at + HEAD_START_S[made.priority])).inserted_primary_key
    made = replace(made, id=int(key[0]) if key else 0)
    tell_of(connection, made, "scheduled", "node", made.why, made.created_at)
    if is_born:
        born_with(connection, made)
    return made


def ask_to_stop(connection: Connection, running: Job, kind: Discontinuation, *, who: str, why: str, now: float) -> None:
    """Ask the worker of a job that runs to stop, in the caller's transaction; its next beat hears of it. The first who asks is remembered."""
    if not running.cancel_requested:
        asked = {"cancel_requested": True, "discontinuation": kind, "reason": why}
        connection.execute(update(job).where(job.c.id == running.id).values(**asked))
        report_of_job(connection, running.id, ReportKind.CANCEL_REQUESTED, {"requester": who, "reason": why}, now)
    tell_of(connection, running, "cancel requested", who, why, now)


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


def job_of(row: RowMapping | dict[str, Any]) -> Job:
    """Build the noun from its row."""
    values = {column: value for column, value in row.items() if column not in ("due", "priors_state")}
    values["priors"] = Priors.of_row(values["priors"], row["priors_state"]) if values["priors"] else None
    values["inputs"] = {name: tuple(ids) for name, ids in values["inputs"].items()}
    values["deliver"] = tuple(values["deliver"])
    values["priority"] = Priority(values["priority"])
    values["state"] = JobState(values["state"])
    values["discontinuation"] = Discontinuation(values["discontinuation"]) if values["discontinuation"] else None
    return Job(**values)


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


def tell_of(connection: Connection, about: Job, kind: str, who: str, why: str, now: float) -> None:
    """Write into the journal, in the caller's transaction, what became of a job."""
    note(
        connection,
        Event(at=now, study_instance_uid=about.study_instance_uid, job_id=about.id, kind=kind, who=who, why=why, detail={"model": about.model}),
    )
