"""What readers say of results: kept as it was said, the latest counts; and the verified reports that acceptances ask for."""

from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, delete, exists, func, insert, not_, select, update

from dicom_node.domain import (
    VERIFICATION_TRANSITIONS,
    VERIFIED,
    Agreement,
    DeliveryState,
    JobState,
    Opinion,
    Rejected,
    Result,
    Verdict,
    Verification,
    VerificationState,
)
from dicom_node.store.bell import Bell, Topic, ringing
from dicom_node.store.database import Database, insert_unless_there
from dicom_node.store.indexing import look_again
from dicom_node.store.journal import Event, note
from dicom_node.store.opinions import feedback, verification
from dicom_node.store.results import insert_result
from dicom_node.store.tables import delivery, job, result

_JUDGED = (Verdict.ACCEPTED, Verdict.REJECTED)


class Feedback:
    """The opinions of the ledger."""

    def __init__(self, database: Database, bell: Bell) -> None:
        self._database = database
        self._bell = bell

    # ------------------------------------------------------------------------------------------------------------ by people

    def say(self, job_id: int, verdict: Verdict, *, who: str, display_name: str, comment: str, now: float, verify: bool) -> Opinion:
        """Record what a reader says of a job's results; of an acceptance also, if `verify`, that the verified report is to be written.

        Whatever was said before stays on record. A verified report that waits to be written is dropped when the result is judged anew. A reader
        who accepts the same report again under the same name, as who clicks twice does, gets no second one.

        Raises
        ------
        Rejected: there is no such job, or it has made nothing.
        """
        with ringing(self._bell, Topic.FEEDBACK, self._database) as connection:
            about = connection.execute(select(job).where(job.c.id == job_id).with_for_update()).mappings().first()
            if about is None or about["state"] != JobState.COMPLETED:
                hint = "Only a job that is COMPLETED has results to speak of."
                raise Rejected(f"there is no job {job_id}" if about is None else f"job {job_id} is {about['state']}", hint=hint)
            report = connection.execute(_report(job_id)).scalar()
            same = {"job_id": job_id, "study_instance_uid": about["study_instance_uid"]}
            said = same | {"verdict": verdict, "comment": comment, "who": who, "display_name": display_name, "at": now, "result_id": report}
            of_model = {"analysis": about["identity"], "model": about["model"], "model_version": about["model_version"]}
            accepts = verdict is Verdict.ACCEPTED and verify
            stands = accepts and report is not None and _stands(connection, job_id, report, who, display_name)
            if verdict in _JUDGED and not stands:
                _drop(connection, job_id, now)
            key = connection.execute(insert(feedback).values(**said, **of_model, commented=bool(comment))).inserted_primary_key
            number = int(key[0]) if key else 0
            if accepts and report is not None and not stands:
                _ask(connection, number, same, now)
            words = f"a reader {verdict.lower()} the results" if verdict in _JUDGED else "a reader commented on the results"
            note(connection, Event(at=now, kind=verdict.lower(), who=who, why=words, detail={"model": about["model"]}, **same))
            return _opinions(connection, feedback.c.id == number)[0]

    def of_job(self, job_id: int) -> tuple[Opinion, ...]:
        """Return what was said of a job's results, oldest first."""
        with self._database.read() as connection:
            return _opinions(connection, feedback.c.job_id == job_id)

    def display_name(self, who: str) -> str:
        """Return how a person was last named in a report, empty when the person has said nothing yet."""
        wanted = select(feedback.c.display_name).where(feedback.c.who == who).order_by(feedback.c.id.desc()).limit(1)
        with self._database.read() as connection:
            return connection.execute(wanted).scalar() or ""

    def agreement(self, model: str = "") -> tuple[Agreement, ...]:
        """Return how often readers agreed with each version of each model, or of one; what was said of purged studies counts, too."""
        of_model = [feedback.c.model == model] if model else []
        latest = select(func.max(feedback.c.id)).where(feedback.c.verdict.in_(_JUDGED)).group_by(feedback.c.analysis)
        judged = func.count().label("jobs")
        version = feedback.c.model, feedback.c.model_version
        by_verdict = select(*version, feedback.c.verdict, judged).where(feedback.c.id.in_(latest), *of_model).group_by(*version, feedback.c.verdict)
        talked = func.count(feedback.c.analysis.distinct())
        commented = select(*version, talked).where(feedback.c.commented, *of_model).group_by(*version)
        counts: dict[tuple[str, str], dict[str, int]] = {}
        with self._database.read() as connection:
            for name, number, verdict, jobs in connection.execute(by_verdict):
                counts.setdefault((name, number), {})[verdict] = jobs
            for name, number, jobs in connection.execute(commented):
                counts.setdefault((name, number), {})[Verdict.COMMENTED] = jobs
        return tuple(
            Agreement(model=name, model_version=number, **{verdict.lower(): found.get(verdict, 0) for verdict in Verdict})
            for (name, number), found in sorted(counts.items())
        )

    # ----------------------------------------------------------------------------------------------------------- by workers

    def claim(self, who: str, *, now: float, lease_s: float) -> Verification | None:
        """Take the next verified report to be written; None when there is none. Whoever is silent beyond the lease loses it."""
        due = verification.c.state == VerificationState.PENDING, verification.c.not_before <= now
        wanted = select(verification.c.feedback_id).where(*due).order_by(verification.c.not_before, verification.c.feedback_id).limit(1)
        with self._database.read() as connection:  # who finds nothing takes no lock
            if connection.execute(wanted).first() is None:
                return None
        chosen = wanted.with_for_update(skip_locked=True).scalar_subquery()
        taken = {"not_before": now + lease_s, "holder": who, "attempts": verification.c.attempts + 1}
        with self._database.write() as connection:
            claim = update(verification).where(verification.c.feedback_id == chosen).values(**taken)
            key = connection.execute(claim.returning(verification.c.feedback_id)).scalar()
            return None if key is None else _verification(connection, key)

    def next_due(self) -> float | None:
        """Return when the next verified report may be written, None when none waits."""
        with self._database.read() as connection:
            waits = select(func.min(verification.c.not_before)).where(verification.c.state == VerificationState.PENDING)
            due: float | None = connection.execute(waits).scalar()
            return due

    def written(self, held: Verification, made: Result, *, now: float) -> bool:
        """Record the verified report as a result of its job, and that it goes where the report went, in one commit; False when the lease was lost."""
        with ringing(self._bell, Topic.DELIVERIES, self._database) as connection:
            look_again(connection, made.study_instance_uid)
            connection.execute(select(job.c.id).where(job.c.id == held.job_id).with_for_update()).all()
            if not _end(connection, held, VerificationState.WRITTEN, reason=""):
                return False
            went = select(delivery.c.destination).where(delivery.c.result_id == held.report.id, delivery.c.state != DeliveryState.CANCELED)
            insert_result(connection, made, connection.execute(went.order_by(delivery.c.id)).scalars().all(), now=now)
            _tell(connection, held, made.study_instance_uid, "verified", "the report was written again as verified by the reader", now)
            return True

    def put_off(self, held: Verification, *, until: float, reason: str) -> None:
        """Record that it could not be written now, and when to try again."""
        with self._database.write() as connection:
            connection.execute(update(verification).where(*_held(held)).values(not_before=until, reason=reason))

    def fail(self, held: Verification, *, now: float, reason: str) -> bool:
        """Record that it cannot be written; False when the lease was lost."""
        with self._database.write() as connection:
            if not _end(connection, held, VerificationState.FAILED, reason=reason):
                return False
            _tell(connection, held, held.report.study_instance_uid, "not verified", reason, now)
            return True


# ------------------------------------------------------------------------------------------------- in somebody's transaction


def forget_of_study(connection: Connection, study_instance_uid: str) -> None:
    """Keep of what readers said of a study's results only what counts for its model: no name, no comment, and of each job the last verdict."""
    of_study = feedback.c.study_instance_uid == study_instance_uid
    connection.execute(delete(verification).where(verification.c.study_instance_uid == study_instance_uid))
    nothing = {"job_id": None, "result_id": None, "study_instance_uid": "", "comment": "", "who": "", "display_name": ""}
    connection.execute(update(feedback).where(of_study).values(**nothing))


def unwritten(study_instance_uid: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition that a verified report of a study is still to be written."""
    return exists().where(verification.c.study_instance_uid == study_instance_uid, verification.c.state == VerificationState.PENDING)


def _report(job_id: int) -> Any:
    valid = result.c.job_id == job_id, result.c.kind == "SR", result.c.problem == ""
    return select(result.c.id).where(*valid).order_by(result.c.id.desc()).limit(1)


def _stands(connection: Connection, job_id: int, report: int, who: str, display_name: str) -> bool:
    """Say whether the last verdict is the same acceptance by the same reader, whose verified report is written, or will be."""
    same = feedback.c.verdict == Verdict.ACCEPTED, feedback.c.who == who, feedback.c.display_name == display_name, feedback.c.result_id == report
    of_job = feedback.c.job_id == job_id, feedback.c.verdict.in_(_JUDGED)
    other = select(func.max(feedback.c.id)).where(*of_job, not_(and_(*same)))
    begun = verification.c.state.in_((VerificationState.PENDING, VerificationState.WRITTEN))
    wanted = select(feedback.c.id).join(verification, verification.c.feedback_id == feedback.c.id).where(*of_job, *same, begun)
    last_other = connection.execute(other).scalar() or 0
    return connection.execute(wanted.where(feedback.c.id > last_other).limit(1)).first() is not None


def _ask(connection: Connection, number: int, of: dict[str, Any], now: float) -> None:
    fixed = {"state": VerificationState.PENDING, "attempts": 0, "not_before": now, "holder": "", "reason": ""}
    insert_unless_there(connection, verification, feedback_id=number, **of, **fixed)


def _drop(connection: Connection, job_id: int, now: float) -> None:
    waits = verification.c.job_id == job_id, verification.c.state == VerificationState.PENDING
    dropped = {"state": VerificationState.DROPPED, "reason": "the result was judged anew before it was written", "not_before": now}
    connection.execute(update(verification).where(*waits).values(**dropped))


def _held(held: Verification) -> tuple[ColumnElement[bool], ...]:
    same = verification.c.feedback_id == held.id, verification.c.holder == held.holder, verification.c.attempts == held.attempts
    return *same, verification.c.state == VerificationState.PENDING


def _end(connection: Connection, held: Verification, to: VerificationState, *, reason: str) -> bool:
    if to not in VERIFICATION_TRANSITIONS[VerificationState.PENDING]:
        raise ValueError(f"a verification cannot become {to}")
    return connection.execute(update(verification).where(*_held(held)).values(state=to, reason=reason)).rowcount > 0


def _tell(connection: Connection, held: Verification, uid: str, kind: str, why: str, now: float) -> None:
    note(connection, Event(at=now, study_instance_uid=uid, job_id=held.job_id, kind=kind, who=held.holder, why=why, detail={"kind": VERIFIED}))


def _verification(connection: Connection, key: int) -> Verification | None:
    said = select(feedback.c.display_name, feedback.c.at, feedback.c.result_id, verification.c.attempts, verification.c.holder, job.c.identity)
    said = said.join(verification, verification.c.feedback_id == feedback.c.id).join(job, job.c.id == feedback.c.job_id)
    row = connection.execute(said.where(feedback.c.id == key)).mappings().one()
    report = connection.execute(select(result).where(result.c.id == row["result_id"])).mappings().one()
    of = Result(**report)
    named = {"observer": row["display_name"], "at": row["at"], "attempts": row["attempts"], "holder": row["holder"], "identity": row["identity"]}
    return Verification(id=key, job_id=of.job_id, report=of, **named)


def _opinions(connection: Connection, *conditions: ColumnElement[bool]) -> tuple[Opinion, ...]:
    told = (*(c for c in feedback.c if c.name in _TOLD), verification.c.state.label("verification"), verification.c.reason)
    wanted = select(*told).outerjoin(verification, verification.c.feedback_id == feedback.c.id).where(*conditions).order_by(feedback.c.id)
    return tuple(map(_opinion, connection.execute(wanted).mappings()))


_TOLD = frozenset({"id", "job_id", "result_id", "verdict", "comment", "who", "display_name", "at"})


def _opinion(row: RowMapping) -> Opinion:
    state = VerificationState(row["verification"]) if row["verification"] else None
    return Opinion(**dict(row) | {"verdict": Verdict(row["verdict"]), "verification": state, "reason": row["reason"] or ""})
