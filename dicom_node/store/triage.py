"""Triage: what a finding raises is raised in the commit that passes the finding in the journal, so that it is done once, whatever ends the process.

A priority is raised, never lowered.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, select

from dicom_node.domain import Attributes, JobState, Priority, Raising, Workitem
from dicom_node.store.bell import Bell, Topic
from dicom_node.store.database import Database
from dicom_node.store.holdings import Holdings
from dicom_node.store.journal import Event, note
from dicom_node.store.match import written
from dicom_node.store.moving import hurry, job_of
from dicom_node.store.reading import begun, pass_on, read_on
from dicom_node.store.tables import event, job, study_entry
from dicom_node.store.workitems import Change, change_in, create_in

RAISED = "raised"  # the kind of the event
_INPUTS, _CHANGED, _PRIORITY = "00404021", "00404010", "00741200"  # as the DICOM JSON Model writes tags
_AT_ONCE = 400  # parameters of one statement

Names = tuple[str, str, str]  # of an order: Study Instance UID, accession number, Patient ID


class Triage:
    """What findings have raised."""

    def __init__(self, database: Database, bell: Bell, holdings: Holdings) -> None:
        self._database = database
        self._bell = bell
        self._holdings = holdings

    def news(self, reader: str, *, limit: int = 500) -> tuple[int, tuple[Event, ...]]:
        """Return how far a reader of the journal has come, and the events behind that; a new one begins behind what has happened until now."""
        after = begun(self._database, reader)
        return after, read_on(self._database, after, limit=limit)

    def act(self, reader: str, wanted: Sequence[tuple[Raising, Workitem | None]], *, after: int, upto: int, now: float) -> tuple[Raising, ...]:
        """Raise what is to be raised, with how far the journal was read, in one commit; return what was new.

        wanted: each with the step that a reader is to find on the worklist, where there is to be one.
        Nothing is done when another process has read so far before.
        """
        with self._database.write() as connection:
            if not pass_on(connection, reader, after=after, upto=upto):
                return ()
            raised = tuple(one for one, step in wanted if _raise(connection, one, step, now))
        if raised:
            self._bell.ring(Topic.WORKITEMS)
            self._bell.ring(Topic.JOBS)
        return raised

    def raised(self, orders: Sequence[Names]) -> list[tuple[str, ...]]:
        """Return for each order the names of the rules that have raised its study, oldest first.

        An order's study is the one that it foresees, or one of its accession number and patient.

        Raises
        ------
        Transient: the ledger does not answer.
        """
        self._holdings.refresh()
        with self._database.read() as connection:
            others = _of_accessions(connection, orders)
            studies = {uid for uid, *_ in orders if uid} | {uid for found in others.values() for uid in found}
            rules = _rules_of(connection, sorted(studies))
        found = []
        for uid, accession, patient in orders:
            names = (name for one in (uid, *others.get(_key(accession, patient), ())) for name in rules.get(one, ()))
            found.append(tuple(dict.fromkeys(names)))
        return found


def _key(accession: str, patient: str) -> tuple[str, str]:
    return written("AccessionNumber", accession), written("PatientID", patient)


def _of_accessions(connection: Connection, orders: Sequence[Names]) -> dict[tuple[str, str], list[str]]:
    """Return the studies that are held of each accession number and patient; who names no patient is meant by nobody."""
    keys = sorted({key for _, accession, patient in orders if all(key := _key(accession, patient))})
    found: dict[tuple[str, str], list[str]] = {}
    columns = study_entry.c.accession_number, study_entry.c.patient_id
    for start in range(0, len(keys), _AT_ONCE):
        part = keys[start : start + _AT_ONCE]
        wanted = select(*columns, study_entry.c.study_instance_uid).where(columns[0].in_([accession for accession, _ in part]))
        for accession, patient, uid in connection.execute(wanted.order_by(study_entry.c.id)):
            found.setdefault((accession, patient), []).append(uid)
    return found


def _rules_of(connection: Connection, studies: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for start in range(0, len(studies), _AT_ONCE):
        same = event.c.study_instance_uid.in_(studies[start : start + _AT_ONCE]), event.c.kind == RAISED
        for uid, detail in connection.execute(select(event.c.study_instance_uid, event.c.detail).where(*same).order_by(event.c.id)):
            found.setdefault(uid, []).append(str((detail or {}).get("rule", "")))
    return found


def _raise(connection: Connection, one: Raising, step: Workitem | None, now: float) -> bool:
    """Raise one study by one rule; say whether anything was raised."""
    is_known = one.rule in _rules_of(connection, [one.study_instance_uid]).get(one.study_instance_uid, ())
    jobs = _hurried(connection, one, now) if one.jobs else ()
    is_placed = step is not None and _placed(connection, one, step, now)
    if is_known and not jobs and not is_placed:
        return False
    did = ["a step for the reader is on the worklist"] if is_placed else []
    did += [f"{len(jobs)} waiting job{'s' if len(jobs) > 1 else ''} of the study go{'' if len(jobs) > 1 else 'es'} first"] if jobs else []
    did += ["worklists of modalities say so"] if one.comments else []
    why = f"'{one.rule}' raises it to {one.priority.name}, for {one.algorithm} found: {'; '.join(one.findings)}"
    detail = {"rule": one.rule, "priority": one.priority.name, "jobs": list(jobs), **({"workitem": one.workitem_uid} if is_placed else {})}
    said = Event(at=now, study_instance_uid=one.study_instance_uid, kind=RAISED, who="node", why=", ".join([why, *did]), detail=detail)
    note(connection, replace(said, job_id=one.job_id))
    return True


def _hurried(connection: Connection, one: Raising, now: float) -> tuple[int, ...]:
    """Let the jobs of a study that wait, and are less urgent, go first; return their numbers."""
    less = job.c.study_instance_uid == one.study_instance_uid, job.c.state == JobState.SCHEDULED, job.c.priority < int(one.priority)
    rows = connection.execute(select(job).where(*less).order_by(job.c.id).with_for_update()).mappings().all()
    for row in rows:
        hurry(connection, job_of(row), one.priority, now)
    return tuple(row["id"] for row in rows)


def _placed(connection: Connection, one: Raising, step: Workitem, now: float) -> bool:
    """Put the reader's step on the worklist, or raise the one that waits there; say whether anything has changed."""
    if create_in(connection, step, now=now, why=f"'{one.rule}' asks a reader to look at what {one.algorithm} found"):
        return True
    changed = False

    def decided(held: Workitem) -> Change | None:
        nonlocal changed
        change = _raised(held, step)
        changed = change is not None
        return change

    change_in(connection, step.uid, decided, now=now)
    return changed


def _raised(held: Workitem, fresh: Workitem) -> Change | None:
    """Return how a step that waits takes in another finding: by the higher priority, and by what there is more to look at; None: not at all."""
    if held.state is not JobState.SCHEDULED:
        return None
    known, more = _inputs(held.attributes), [one for one in _inputs(fresh.attributes) if one not in _inputs(held.attributes)]
    priority = max(held.priority, fresh.priority)
    if not more and priority is held.priority:
        return None
    said = {**held.attributes, _INPUTS: {"vr": "SQ", "Value": [*known, *more]}, _PRIORITY: {"vr": "CS", "Value": [priority.name]}}
    return Change(attributes=said | {_CHANGED: fresh.attributes[_CHANGED]}, priority=Priority(priority))


def _inputs(said: Attributes) -> list[Any]:
    return list(said.get(_INPUTS, {}).get("Value", ()))
