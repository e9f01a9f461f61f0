"""Workitems: each changed by one caller at a time, in one transaction with what watchers are to be told of it.

Where a job performs a workitem, its state, priority and end are the job's, and are read from there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, and_, case, delete, func, or_, select, update

from dicom_node.domain import (
    Attributes,
    DeliveryState,
    Job,
    JobState,
    Priority,
    Readiness,
    ReportKind,
    Result,
    Workitem,
    job_identity,
    state_seen,
)
from dicom_node.store.bell import Bell, Topic
from dicom_node.store.database import Database, insert_unless_there
from dicom_node.store.journal import Event, note
from dicom_node.store.moving import cancel_in, hurry, insert_job, job_of
from dicom_node.store.recording import instances_by_id
from dicom_node.store.reporting import announce, report, state_facts
from dicom_node.store.results import send_also
from dicom_node.store.tables import delivery, job, result
from dicom_node.store.worklists import event_report, subscription, workitem

_begun = and_(job.c.state == JobState.SCHEDULED, job.c.started_at.is_not(None))
STATE = func.coalesce(case((_begun, JobState.IN_PROGRESS.value), else_=job.c.state), workitem.c.state)  # as others see it
PRIORITY = func.coalesce(job.c.priority, workitem.c.priority)
_ENDED = (JobState.COMPLETED, JobState.CANCELED)
_TO_TAKE_UP = (  # of this node's own what nobody has claimed, of another manager's what was claimed there
    workitem.c.job_id.is_(None),
    workitem.c.ended_at.is_(None),
    or_(
        and_(workitem.c.state == JobState.SCHEDULED, workitem.c.manager == ""),
        and_(workitem.c.state == JobState.IN_PROGRESS, workitem.c.manager != ""),
    ),
)
_JOINED = workitem.outerjoin(job, workitem.c.job_id == job.c.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What becomes of a workitem; what is None stays.

    reports: what those who watch it are told, in this order.
    cancel: why its job is to be canceled, in words; for one that a job performs.
    """

    attributes: Attributes | None = None
    state: JobState | None = None
    priority: Priority | None = None
    transaction_uid: str | None = None
    performer: str | None = None
    readiness: Readiness | None = None
    reason: str | None = None
    study_instance_uid: str | None = None
    reports: Sequence[tuple[ReportKind, Mapping[str, Any]]] = ()
    cancel: str = ""
    who: str = ""
    why: str = ""  # for the journal of the study; empty: nothing is written there
    values: Mapping[str, Any] = field(default_factory=dict)


class Workitems:
    """The workitems of the ledger."""

    def __init__(self, database: Database, bell: Bell) -> None:
        self._database = database
        self._bell = bell

    def create(self, item: Workitem, *, now: float, why: str = "") -> bool:
        """Record a new workitem, and subscribe to it those who watch all; False when there is one of this UID."""
        with self._database.write() as connection:
            if not create_in(connection, item, now=now, why=why):
                return False
        self._ring()
        return True

    def get(self, uid: str) -> Workitem | None:
        """Return a workitem; None when there is none of this UID."""
        with self._database.read() as connection:
            return _one(connection, workitem.c.uid == uid)

    def of_job(self, job_id: int) -> tuple[Workitem, ...]:
        """Return the workitems that a job performs."""
        with self._database.read() as connection:
            return _all(connection, _select().where(workitem.c.job_id == job_id).order_by(workitem.c.id))

    def change(self, uid: str, decide: Callable[[Workitem], Change], *, now: float) -> Workitem | None:
        """Let a workitem become what is decided of it as it stands, while nobody else changes it; None when there is none.

        What `decide` raises goes through, and nothing has changed.
        """
        with self._database.write() as connection:
            changed = change_in(connection, uid, decide, now=now)
        if changed is None:
            return None
        self._ring()
        return changed

    def page(self, *conditions: Any, after: int = 0, limit: int = 200) -> tuple[tuple[int, Workitem], ...]:
        """Return the next workitems of this node that meet SQL conditions, with their numbers, in the order in which they came."""
        wanted = _select().where(workitem.c.id > after, workitem.c.manager == "", *conditions).order_by(workitem.c.id).limit(limit)
        with self._database.read() as connection:
            return tuple((row["number"], _workitem(row)) for row in connection.execute(wanted).mappings())

    def newest(
        self, *, limit: int = 50, before: int = 0, state: JobState | None = None, tags: Sequence[str] = ()
    ) -> tuple[tuple[int, Workitem], ...]:
        """Return workitems with their numbers, newest first; before: only those of lower numbers.

        tags: of the attributes that come with them; others, such as inputs that name thousands of instances, stay where they are.
        """
        wanted = _select_some(tags).order_by(workitem.c.id.desc()).limit(limit)
        wanted = wanted.where(workitem.c.id < before) if before else wanted
        wanted = wanted.where(STATE.in_([state])) if state is not None else wanted
        with self._database.read() as connection:
            return tuple((row["number"], _workitem(_with_some(row, tags))) for row in connection.execute(wanted).mappings())

    def counts(self) -> dict[str, int]:
        """Return how many workitems are in each state."""
        with self._database.read() as connection:
            rows = connection.execute(select(STATE, func.count()).select_from(_JOINED).group_by(STATE))
            return {state: number for state, number in rows}

    # ----------------------------------------------------------------------------------------------- of those performed here

    def waiting(self, *, now: float, limit: int = 50) -> tuple[Workitem, ...]:
        """Return the workitems that nobody has taken up yet, or that this node has claimed and not begun, as far as they are due.

        Who has waited longest comes first: however many wait for their inputs, each has its turn.
        """
        wanted = _select().where(*_TO_TAKE_UP, workitem.c.not_before <= now).order_by(workitem.c.not_before, workitem.c.id).limit(limit)
        with self._database.read() as connection:
            return _all(connection, wanted)

    def next_due(self) -> float | None:
        """Return when the next workitem that nobody has taken up is to be looked at; None when there is none."""
        due = select(func.min(workitem.c.not_before)).where(*_TO_TAKE_UP)
        with self._database.read() as connection:
            found: float | None = connection.execute(due).scalar()
            return found

    def put_off(self, seen: Workitem, *, until: float) -> None:
        """Look at a workitem again later; at once if it has changed since it was seen."""
        same = workitem.c.uid == seen.uid, workitem.c.changed_at == seen.changed_at
        with self._database.write() as connection:
            connection.execute(update(workitem).where(*same).values(not_before=until))

    def take_up(self, uid: str, wanted: Job, *, now: float) -> Job | None:
        """Let a job perform a workitem, from now on; None when somebody else has taken it meanwhile.

        Where the same analysis of the same inputs is under way, or was done, that job is it, and its results go also where this one's were to go.
        One that came to nothing is done anew.
        """
        with self._database.write() as connection:
            found = locked(connection, uid)
            if found is None or found.job is not None or found.has_ended or (found.is_claimed and not found.manager):
                return None
            performs = _existing(connection, wanted) or insert_job(connection, _anew(connection, wanted), is_born=False)
            send_also(connection, performs.id, wanted.deliver, now=now)
            # It is kept as long as the study that its job is of, whatever other studies it names.
            joined = {"job_id": performs.id, "state": None, "readiness": Readiness.READY, "study_instance_uid": performs.study_instance_uid}
            connection.execute(update(workitem).where(workitem.c.uid == uid).values(**joined, changed_at=now))
            _report_joined(connection, found, performs, now)
            _note(connection, found, "workitem taken up", "node", f"job {performs.id} performs it", now, performs.id)
        self._bell.ring(Topic.JOBS)
        self._ring()
        return performs

    def mirrored(self) -> tuple[tuple[Workitem, str], ...]:
        """Return the workitems of other managers that this node has not brought to their end there, each with what was last told."""
        unsettled = workitem.c.manager > "", workitem.c.ended_at.is_(None)
        wanted = _select(workitem.c.performer).where(*unsettled).order_by(workitem.c.manager, workitem.c.id)
        with self._database.read() as connection:
            return tuple((_workitem(row), row["performer"]) for row in connection.execute(wanted).mappings())

    def settle(self, uid: str, *, now: float, reason: str = "") -> None:
        """Record that a workitem of another manager has come to its end there; reason: why it came to nothing here."""
        with self._database.write() as connection:
            found = locked(connection, uid)
            if found is None or found.ended_at is not None:
                return
            # One that no job performs any more, and that did not end by this node, has come to nothing here.
            open_states = and_(workitem.c.job_id.is_(None), workitem.c.state.in_([JobState.SCHEDULED, JobState.IN_PROGRESS]))
            state = case((open_states, JobState.CANCELED.value), else_=workitem.c.state)
            values = {"ended_at": now, "changed_at": now, "state": state, **({"reason": reason} if reason else {})}
            connection.execute(update(workitem).where(workitem.c.uid == uid).values(**values))
            _note(connection, found, "workitem settled", "node", reason or f"{found.manager} knows how it ended", now)

    # ------------------------------------------------------------------------------------------------------------ the clock

    def prune(self, *, before: float) -> int:
        """Remove workitems without a job that ended before a moment, unless a subscriber locks them (PS3.4 CC.2.3.3); return how many."""
        locked = select(subscription.c.id).where(subscription.c.workitem_uid == workitem.c.uid, subscription.c.deletion_lock)
        old = workitem.c.job_id.is_(None), workitem.c.ended_at < before, ~locked.exists()
        with self._database.write() as connection:
            uids = list(connection.execute(select(workitem.c.uid).where(*old).limit(500)).scalars())
            forget_workitems(connection, uids)
        return len(uids)

    def outputs(self, uid: str) -> tuple[tuple[Result, tuple[str, ...]], ...]:
        """Return what the job of a workitem made, each with the names of the destinations that it goes to."""
        return tuple((one, tuple(to)) for one, to in self.whereabouts(uid))

    def whereabouts(self, uid: str) -> tuple[tuple[Result, Mapping[str, DeliveryState]], ...]:
        """Return what the job of a workitem made, each with the destinations that it goes to, and how far it came."""
        wanted = select(result).join(workitem, workitem.c.job_id == result.c.job_id).where(workitem.c.uid == uid).order_by(result.c.id)
        with self._database.read() as connection:
            made = [Result(**row) for row in connection.execute(wanted).mappings()]
            to = (
                select(delivery.c.result_id, delivery.c.destination, delivery.c.state)
                .where(delivery.c.result_id.in_([one.id for one in made]))
                .order_by(delivery.c.id)
            )
            sent: dict[int, dict[str, DeliveryState]] = {}
            for key, destination, state in connection.execute(to):
                sent.setdefault(key, {})[destination] = DeliveryState(state)
        return tuple((one, sent.get(one.id, {})) for one in made)

    def _ring(self) -> None:
        self._bell.ring(Topic.WORKITEMS)


def create_in(connection: Connection, item: Workitem, *, now: float, why: str = "") -> bool:
    """Record a new workitem in the caller's transaction, as `Workitems.create` does."""
    said = {"state": item.state, "priority": int(item.priority), "attributes": dict(item.attributes), "transaction_uid": item.transaction_uid}
    said |= {name: getattr(item, name) for name in ("study_instance_uid", "requester", "performer", "manager", "reason", "scheduled_at")}
    said |= {"readiness": item.readiness, "not_before": now, "created_at": now, "changed_at": now}
    if not insert_unless_there(connection, workitem, uid=item.uid, **said):
        return False
    if not item.manager:
        announce(connection, item.uid, state_facts(item), now)
    _note(connection, item, "workitem created", item.requester or "node", why or "it was asked for", now)
    return True


def change_in(connection: Connection, uid: str, decide: Callable[[Workitem], Change | None], *, now: float) -> Workitem | None:
    """Change a workitem in the caller's transaction, as `Workitems.change` does; what is decided to be None changes nothing."""
    found = locked(connection, uid)
    if found is None:
        return None
    change = decide(found)
    if change is None:
        return found
    _apply(connection, found, change, now)
    return _one(connection, workitem.c.uid == uid)


def look_at_waiting(connection: Connection, study_instance_uid: str, now: float) -> None:
    """Let the workitems that wait for a study be looked at now, in the caller's transaction, whatever a look before that found."""
    waits = workitem.c.study_instance_uid == study_instance_uid, *_TO_TAKE_UP
    connection.execute(update(workitem).where(*waits).values(not_before=now, changed_at=now))


def forget_workitems(connection: Connection, uids: Sequence[str]) -> None:
    """Remove workitems with their subscriptions and reports, in the caller's transaction."""
    for table, column in ((event_report, event_report.c.workitem_uid), (subscription, subscription.c.workitem_uid), (workitem, workitem.c.uid)):
        connection.execute(delete(table).where(column.in_(uids)))


def forget_workitems_of_study(connection: Connection, study_instance_uid: str, now: float) -> None:
    """Remove the workitems that jobs of a study perform, in the caller's transaction; what another manager waits for is canceled, and told it."""
    jobs = select(job.c.id).where(job.c.study_instance_uid == study_instance_uid)
    owed = workitem.c.job_id.in_(jobs), workitem.c.manager > "", workitem.c.ended_at.is_(None)
    canceled = {"job_id": None, "state": JobState.CANCELED, "reason": "its study was removed before it was told how it ended", "changed_at": now}
    connection.execute(update(workitem).where(*owed).values(**canceled))
    forget_workitems(connection, list(connection.execute(select(workitem.c.uid).where(workitem.c.job_id.in_(jobs))).scalars()))


def kept_by_watchers(of_study: Any, *, ended_after: float) -> Any:
    """Return the condition that workitems of a study must be kept.

    Somebody locks one, another manager is still to be told of one, or one ended not long ago (IHE AIW-I 4.85.4.1.3).
    """
    locked = select(subscription.c.id).join(workitem, workitem.c.uid == subscription.c.workitem_uid)
    untold = select(workitem.c.id).where(workitem.c.study_instance_uid == of_study, workitem.c.manager != "", workitem.c.ended_at.is_(None))
    fresh = select(job.c.id).where(job.c.study_instance_uid == of_study, job.c.ended_at > ended_after)
    return or_(locked.where(workitem.c.study_instance_uid == of_study, subscription.c.deletion_lock).exists(), untold.exists(), fresh.exists())


def _select(*more: Any) -> Select[Any]:
    ours = [column.label(f"w_{column.name}") for column in workitem.columns]
    return select(workitem.c.id.label("number"), *ours, *job.columns, *more).select_from(_JOINED)


def _select_some(tags: Sequence[str]) -> Select[Any]:
    """Select workitems with only some of their attributes, which the database takes out of the rest."""
    ours = [column.label(f"w_{column.name}") for column in workitem.columns if column is not workitem.c.attributes]
    some = [workitem.c.attributes[tag].label(f"t_{tag}") for tag in tags]
    return select(workitem.c.id.label("number"), *ours, *some, *job.columns).select_from(_JOINED)


def _with_some(row: RowMapping, tags: Sequence[str]) -> Mapping[Any, Any]:
    return {**row, "w_attributes": {tag: row[f"t_{tag}"] for tag in tags if row[f"t_{tag}"] is not None}}


def brief_workitems(connection: Connection, *conditions: Any, limit: int) -> tuple[tuple[int, Workitem], ...]:
    """Return workitems that meet SQL conditions, with their numbers and without their attributes, in the caller's transaction."""
    wanted = _select_some(()).where(*conditions).order_by(workitem.c.id).limit(limit)
    return tuple((row["number"], _workitem(_with_some(row, ()))) for row in connection.execute(wanted).mappings())


def _all(connection: Connection, wanted: Select[Any]) -> tuple[Workitem, ...]:
    return tuple(_workitem(row) for row in connection.execute(wanted).mappings())


def _one(connection: Connection, *conditions: Any) -> Workitem | None:
    row = connection.execute(_select().where(*conditions)).mappings().first()
    return _workitem(row) if row else None


def locked(connection: Connection, uid: str) -> Workitem | None:
    """Return a workitem whose rows nobody else changes until the commit: the job's first, as everywhere."""
    job_id = connection.execute(select(workitem.c.job_id).where(workitem.c.uid == uid)).scalar()
    while True:
        if job_id is not None:
            connection.execute(select(job.c.id).where(job.c.id == job_id).with_for_update()).all()
        row = connection.execute(select(workitem.c.job_id).where(workitem.c.uid == uid).with_for_update()).first()
        if row is None:
            return None
        if row.job_id == job_id:
            return _one(connection, workitem.c.uid == uid)
        job_id = row.job_id


def _workitem(row: Mapping[Any, Any]) -> Workitem:
    said = {name.removeprefix("w_"): value for name, value in row.items() if name.startswith("w_")}
    performs = job_of({c.name: row[c.name] for c in job.columns}) if said["job_id"] is not None else None
    for name in ("id", "job_id", "not_before"):
        del said[name]
    state = state_seen(performs) if performs else JobState(said["state"])
    priority = performs.priority if performs else Priority(said["priority"])
    ended_at = said["ended_at"] if performs is None or said["manager"] else performs.ended_at
    return Workitem(**said | {"state": state, "priority": priority, "job": performs, "ended_at": ended_at, "readiness": Readiness(said["readiness"])})


def _apply(connection: Connection, found: Workitem, change: Change, now: float) -> None:
    names = ("attributes", "transaction_uid", "performer", "readiness", "reason", "study_instance_uid")
    values = {name: value for name in names if (value := getattr(change, name)) is not None}
    values |= change.values
    if found.job is None:
        values |= {"state": change.state} if change.state is not None else {}
        values |= {"priority": int(change.priority)} if change.priority is not None else {}
        values |= {"ended_at": now} if change.state in _ENDED and not found.manager else {}  # another manager's ends when that was told
        values |= {"not_before": now}
    elif change.priority is not None and found.job.state is JobState.SCHEDULED:
        hurry(connection, found.job, change.priority, now)
    connection.execute(update(workitem).where(workitem.c.uid == found.uid).values(**values, changed_at=now))
    for kind, facts in change.reports:
        report(connection, found.uid, kind, facts, now)
    if change.cancel and found.job is not None:
        cancel_in(connection, found.job, who=change.who, why=change.cancel, now=now)
    if change.why:
        _note(connection, found, f"workitem {change.state.lower()}" if change.state else "workitem changed", change.who, change.why, now)


def _note(connection: Connection, item: Workitem, kind: str, who: str, why: str, now: float, job_id: int | None = None) -> None:
    job_id = job_id or (item.job.id if item.job else None)
    detail = {"workitem": item.uid}
    note(connection, Event(at=now, study_instance_uid=item.study_instance_uid, job_id=job_id, kind=kind, who=who, why=why, detail=detail))


def _report_joined(connection: Connection, found: Workitem, performs: Job, now: float) -> None:
    """Tell watchers what has changed with the job that performs a workitem from now on: its readiness, and each state up to the job's."""
    state = state_seen(performs)
    if found.has_ended or (state is found.state and found.readiness is Readiness.READY):
        return
    if found.state is JobState.SCHEDULED and state in _ENDED:
        report(connection, found.uid, ReportKind.STATE, {"state": JobState.IN_PROGRESS, "readiness": Readiness.READY}, now)
    report(connection, found.uid, ReportKind.STATE, state_facts(performs), now)


def _existing(connection: Connection, wanted: Job) -> Job | None:
    row = connection.execute(select(job).where(job.c.identity == wanted.identity).with_for_update()).mappings().first()
    return job_of(row) if row is not None and row["state"] != JobState.CANCELED else None


def _anew(connection: Connection, wanted: Job) -> Job:
    """Return a job of the first repeat that there is no job of."""
    found = instances_by_id(connection, {i for members in wanted.inputs.values() for i in members})
    inputs = {name: [found[i] for i in members] for name, members in wanted.inputs.items()}
    identity, repeat, before = wanted.identity, wanted.repeat, wanted.predecessor_id
    while (taken := connection.execute(select(job.c.id).where(job.c.identity == identity)).scalar()) is not None:
        repeat, before = repeat + 1, taken
        identity = job_identity(inputs, wanted.device_uid, repeat)
    return replace(wanted, identity=identity, repeat=repeat, predecessor_id=before)
