"""What a person wants to see at a glance: how far the day's studies came, lists that are searched page by page, how long models take."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, exists, false, func, or_, select, true

from dicom_node.domain import Delivery, DeliveryState, Job, JobState, RetrievalState, Stuck, StudyState, stuck
from dicom_node.store.database import Database
from dicom_node.store.deliveries import deliveries_of
from dicom_node.store.indexing import STUDY_COLUMNS
from dicom_node.store.match import prefilter
from dicom_node.store.moving import job_of
from dicom_node.store.tables import delivery, destination, event, instance, job, quarantine, result, retrieval, study, study_entry
from dicom_node.store.worklists import event_report, subscription

_MANY = 1000  # rows that are looked at for what is stuck, and runs that a model's times are told by


class Step(StrEnum):
    """How far a study came."""

    RECEIVED = "received"  # an instance is here
    COMPLETE = "complete"  # judged whole
    MATCHED = "matched"  # a rule asked for a job
    RUNNING = "running"  # a worker began
    DELIVERED = "delivered"  # a destination took a result
    COMMITTED = "committed"  # a destination committed itself to a result


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How many studies came to a step, and how many wait for the next one."""

    step: Step
    reached: int
    waiting: int
    since: float | None  # the study that waits for longest, by its first instance


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Which studies are listed.

    text: end of a Study Instance UID, or an accession number, in which `*` stands for anything.
    study_dates: first and last, YYYYMMDD, of which one may be empty.
    received_since: seconds since the epoch.
    step: that they came to; waiting: and wait there.
    uids: only these; None: any.
    """

    text: str = ""
    study_dates: tuple[str, str] = ("", "")
    received_since: float = 0.0
    state: StudyState | None = None
    model: str = ""
    step: Step | None = None
    waiting: bool = False
    uids: tuple[str, ...] | None = None


_OF_STUDY = study.c.study_instance_uid


class Overview:
    """Reads the ledger for a person; it changes nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def funnel(self, since: float, committing: Sequence[str] = ()) -> tuple[Standing, ...]:
        """Return how far the studies came to which something came since then; committing: destinations that are asked to commit themselves."""
        came = study.c.last_received_at >= since
        found = []
        with self._database.read() as connection:
            for step in Step:
                reached = connection.execute(select(func.count()).select_from(study).where(came, _reached(step))).scalar_one()
                waits = select(func.count(), func.min(study.c.first_received_at)).select_from(study).where(came, _waits(step, committing))
                number, oldest = connection.execute(waits).one()
                found.append(Standing(step=step, reached=reached, waiting=number, since=oldest))
        return tuple(found)

    def studies(self, wanted: Listing, *, limit: int, offset: int = 0, committing: Sequence[str] = ()) -> tuple[dict[str, Any], ...]:
        """Return rows about studies, most recent first: state, times, what the index says of them, and what was made of them.

        The index is as new as its last refresh (`Holdings.refresh`).
        """
        columns = [column for column in study.c if column is not study.c.indexed]
        told = [study_entry.c.attributes, study_entry.c.modalities_in_study, study_entry.c.series, study_entry.c.instances]
        rows = select(*columns, *told).outerjoin(study_entry, study_entry.c.study_instance_uid == _OF_STUDY)
        rows = rows.where(*_listed(wanted, committing)).order_by(study.c.last_received_at.desc(), _OF_STUDY)
        with self._database.read() as connection:
            found = [dict(row) for row in connection.execute(rows.limit(limit).offset(offset)).mappings()]
            uids = [row["study_instance_uid"] for row in found]
            jobs = _by_study(connection, select(job.c.study_instance_uid, job.c.state, func.count()).where(job.c.study_instance_uid.in_(uids)), job)
            joined = select(result.c.study_instance_uid, delivery.c.state, func.count()).join(delivery, delivery.c.result_id == result.c.id)
            sent = _by_study(connection, joined.where(result.c.study_instance_uid.in_(uids)), result, delivery)
        none: dict[str, int] = {}
        return tuple(row | {"jobs": jobs.get(uid, none), "deliveries": sent.get(uid, none)} for row, uid in zip(found, uids, strict=True))

    def count(self, wanted: Listing, committing: Sequence[str] = ()) -> int:
        """Return how many studies are listed."""
        joined = study.outerjoin(study_entry, study_entry.c.study_instance_uid == _OF_STUDY)
        with self._database.read() as connection:
            return connection.execute(select(func.count()).select_from(joined).where(*_listed(wanted, committing))).scalar_one()

    def entry(self, study_instance_uid: str) -> dict[str, Any]:
        """Return what the ledger says of one study as a whole; empty when it does not know it."""
        found = self.studies(Listing(uids=(study_instance_uid,)), limit=1)
        return found[0] if found else {}

    def jobs(self, *, limit: int, offset: int = 0, state: JobState | None = None, model: str = "") -> tuple[Job, ...]:
        """Return jobs, newest first."""
        conditions = [*([job.c.state == state] if state else []), *([job.c.model == model] if model else [])]
        wanted = select(job).where(*conditions).order_by(job.c.id.desc()).limit(limit).offset(offset)
        with self._database.read() as connection:
            return tuple(job_of(row) for row in connection.execute(wanted).mappings())

    def deliveries(self, *, limit: int, offset: int = 0, state: DeliveryState | None = None, name: str = "") -> tuple[Delivery, ...]:
        """Return deliveries, newest first."""
        conditions = [*([delivery.c.state == state] if state else []), *([delivery.c.destination == name] if name else [])]
        page = select(delivery.c.id).where(*conditions).order_by(delivery.c.id.desc()).limit(limit).offset(offset)
        with self._database.read() as connection:  # numbers first: not all deliveries are sorted with their results for the page at the top
            return deliveries_of(connection, delivery.c.id.in_(list(connection.execute(page).scalars())), newest_first=True)

    def stuck(self, now: float) -> tuple[Stuck, ...]:
        """Return what waits longer than it should."""
        with self._database.read() as connection:
            unfinished = select(job).where(job.c.state.in_([JobState.SCHEDULED, JobState.IN_PROGRESS])).order_by(job.c.id).limit(_MANY)
            jobs = [job_of(row) for row in connection.execute(unfinished).mappings()]
            dead = deliveries_of(connection, delivery.c.state == DeliveryState.DEAD, newest_first=True, limit=_MANY)
            held = select(study).where(study.c.state == StudyState.CONFLICT).order_by(study.c.last_received_at.desc()).limit(_MANY)
            return stuck(jobs, dead, [dict(row) for row in connection.execute(held).mappings()], now)

    def runs(self, model: str) -> tuple[tuple[float, ...], dict[str, int]]:
        """Return how long a model's latest completed runs took, in seconds, shortest first; and how many jobs ended in which way."""
        of_model = job.c.model == model
        ended = of_model, job.c.state == JobState.COMPLETED, job.c.started_at.is_not(None), job.c.ended_at.is_not(None)
        times = select(job.c.ended_at - job.c.started_at).where(*ended).order_by(job.c.id.desc()).limit(_MANY)
        ways = select(job.c.state, job.c.discontinuation, func.count()).where(of_model).group_by(job.c.state, job.c.discontinuation)
        with self._database.read() as connection:
            seconds = tuple(sorted(float(one) for one in connection.execute(times).scalars()))
            return seconds, {str(why or state): number for state, why, number in connection.execute(ways)}

    def held(self) -> dict[str, Any]:
        """Return how much is kept: instances with their bytes, results, studies, what is in quarantine, and the oldest study's last instance."""
        with self._database.read() as connection:
            instances, size_bytes = connection.execute(select(func.count(), func.sum(instance.c.size_bytes))).one()
            return {
                "instances": instances,
                "size_bytes": int(size_bytes or 0),
                "results": connection.execute(select(func.count()).select_from(result)).scalar_one(),
                "quarantined": connection.execute(select(func.count()).select_from(quarantine)).scalar_one(),
                "oldest": connection.execute(select(func.min(study.c.last_received_at))).scalar(),
            }

    def pulse(self) -> tuple[Any, ...]:
        """Return a value that is another whenever something has changed that a page shows."""
        asked: tuple[Any, ...] = (
            select(event.c.id, event.c.at).order_by(event.c.id.desc()).limit(1),
            select(func.sum(job.c.progress), func.count()).where(job.c.state == JobState.IN_PROGRESS),
            select(func.sum(study.c.changes), func.count()).where(study.c.state == StudyState.OPEN),
            select(func.sum(retrieval.c.held), func.count()).where(retrieval.c.ended_at.is_(None), retrieval.c.state == RetrievalState.RUNNING),
            select(func.max(quarantine.c.id)),
            select(func.sum(destination.c.failures), func.max(destination.c.succeeded_at)),
            select(func.max(subscription.c.id), func.count()),
            select(func.max(event_report.c.id), func.count()),
        )
        with self._database.read() as connection:
            return tuple(tuple(connection.execute(one).first() or ()) for one in asked)


def _listed(wanted: Listing, committing: Sequence[str]) -> list[ColumnElement[bool]]:
    """Return what holds of the studies that are listed."""
    found: list[ColumnElement[bool]] = []
    if wanted.text:
        accession = and_(study_entry.c.accession_number != "", *prefilter({"AccessionNumber": wanted.text}, STUDY_COLUMNS))
        found.append(or_(_OF_STUDY.endswith(wanted.text, autoescape=True), accession))
    if any(wanted.study_dates):
        found += [study_entry.c.study_date != "", *prefilter({"StudyDate": "-".join(wanted.study_dates)}, STUDY_COLUMNS)]
    if wanted.received_since:
        found.append(study.c.last_received_at >= wanted.received_since)
    if wanted.state is not None:
        found.append(study.c.state == wanted.state)
    if wanted.model:
        found.append(exists().where(job.c.study_instance_uid == _OF_STUDY, job.c.model == wanted.model))
    if wanted.step is not None:
        found.append(_waits(wanted.step, committing) if wanted.waiting else _reached(wanted.step))
    if wanted.uids is not None:
        found.append(_OF_STUDY.in_(wanted.uids))
    return found


def _has_job(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists().where(job.c.study_instance_uid == _OF_STUDY, *conditions)


def _plain(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return a column by which no row is looked up: an index of states leads to the rows of all studies, and is gone through anew for each study."""
    return column.concat("")


def _has_delivery(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists().where(result.c.study_instance_uid == _OF_STUDY, delivery.c.result_id == result.c.id, *conditions)


def _reached(step: Step) -> ColumnElement[bool]:
    """Return what holds of a study that came to a step."""
    taken = _plain(delivery.c.state).in_([DeliveryState.SENT, DeliveryState.COMMITTED])
    return {
        Step.RECEIVED: true(),
        Step.COMPLETE: study.c.completed_at.is_not(None),
        Step.MATCHED: _has_job(),
        Step.RUNNING: _has_job(job.c.started_at.is_not(None)),
        Step.DELIVERED: _has_delivery(taken),
        Step.COMMITTED: _has_delivery(_plain(delivery.c.state) == DeliveryState.COMMITTED),
    }[step]


def _waits(step: Step, committing: Sequence[str]) -> ColumnElement[bool]:
    """Return what holds of a study that came to a step and waits for the next one."""
    unsent = _plain(delivery.c.state).in_([DeliveryState.PENDING, DeliveryState.SENDING, DeliveryState.DEAD])
    uncommitted = _plain(delivery.c.state) == DeliveryState.SENT, _plain(delivery.c.destination).in_(sorted(committing))
    return {
        Step.RECEIVED: study.c.state != StudyState.COMPLETE,
        Step.COMPLETE: and_(_plain(study.c.state) == StudyState.COMPLETE, ~_has_job()),
        Step.MATCHED: _has_job(_plain(job.c.state) == JobState.SCHEDULED),
        Step.RUNNING: or_(_has_job(_plain(job.c.state) == JobState.IN_PROGRESS), _has_delivery(unsent)),
        Step.DELIVERED: _has_delivery(*uncommitted),
        Step.COMMITTED: false(),
    }[step]


def _by_study(connection: Connection, wanted: Any, of: Any, states: Any = None) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    of_state = of if states is None else states
    for uid, state, number in connection.execute(wanted.group_by(of.c.study_instance_uid, of_state.c.state)):
        found.setdefault(uid, {})[state] = number
    return found
