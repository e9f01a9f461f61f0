"""What becomes of a job, in somebody's transaction: inserted, moved by the one table of transitions, each change with who and why."""

from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, RowMapping, insert, null, update

from dicom_node.domain import JOB_TRANSITIONS, Discontinuation, Job, JobState, Priority, Priors, Rejected, ReportKind, state_seen
from dicom_node.store.journal import Event, note
from dicom_node.store.reporting import born_with, report_of_job, state_facts
from dicom_node.store.tables import job
from dicom_node.store.worklists import workitem

# How long a job lets those of higher priority that came later go first. It is a head start, not a rank: an old LOW job is never passed for ever.
HEAD_START_S = {Priority.HIGH: 0.0, Priority.MEDIUM: 4 * 3600.0, Priority.LOW: 24 * 3600.0}


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


def tell_of(connection: Connection, about: Job, kind: str, who: str, why: str, now: float) -> None:
    """Write into the journal, in the caller's transaction, what became of a job."""
    note(
        connection,
        Event(at=now, study_instance_uid=about.study_instance_uid, job_id=about.id, kind=kind, who=who, why=why, detail={"model": about.model}),
    )
