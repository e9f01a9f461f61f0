"""Performed procedure steps: what modalities say that they make, one row for each step and study."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, select, update

from dicom_node.domain import PerformedStep, StepState
from dicom_node.store.bell import Bell, Topic, ringing
from dicom_node.store.database import Database, unless_there
from dicom_node.store.journal import Event, note
from dicom_node.store.tables import procedure_step, study

_KEPT_S = 30 * 86400.0  # a step whose study never came


class Steps:
    """The performed procedure steps of the ledger."""

    def __init__(self, database: Database, bell: Bell) -> None:
        self._database = database
        self._bell = bell

    def begin(self, step: PerformedStep, calling_ae: str, *, now: float) -> bool:
        """Record a step that begins, and let its studies be judged again; False when the ledger has it already."""
        with ringing(self._bell, Topic.STUDIES, self._database) as connection:
            if _rows(connection, step.sop_instance_uid):
                return False
            lonely = ~select(study.c.state).where(study.c.study_instance_uid == procedure_step.c.study_instance_uid).exists()
            connection.execute(delete(procedure_step).where(procedure_step.c.changed_at < now - _KEPT_S, lonely))
            said = _said(step) | {"sop_instance_uid": step.sop_instance_uid, "calling_ae": calling_ae, "created_at": now, "changed_at": now}
            rows = [said | {"study_instance_uid": uid} for uid in step.study_instance_uids]
            made = connection.execute(unless_there(connection, procedure_step), rows, execution_options={"preserve_rowcount": True})
            if made.rowcount == 0:  # another process was quicker
                return False
            _tell(connection, step, calling_ae, now)
        return True

    def change(self, sop_instance_uid: str, decide: Callable[[PerformedStep], PerformedStep], calling_ae: str, *, now: float) -> PerformedStep | None:
        """Let a step become what is decided of it as it stands, and its studies be judged again; None when there is no such step.

        What `decide` raises goes through, and nothing has changed.
        """
        with ringing(self._bell, Topic.STUDIES, self._database) as connection:
            rows = _rows(connection, sop_instance_uid)
            if not rows:
                return None
            step = decide(_step(rows))
            same = procedure_step.c.sop_instance_uid == sop_instance_uid
            connection.execute(update(procedure_step).where(same).values(**_said(step), changed_at=now))
            _tell(connection, step, calling_ae, now)
        return step

    def of_study(self, study_instance_uid: str) -> tuple[PerformedStep, ...]:
        """Return the steps that concern a study, in the order in which they began."""
        wanted = select(procedure_step.c.sop_instance_uid).where(procedure_step.c.study_instance_uid == study_instance_uid)
        with self._database.read() as connection:
            uids = connection.execute(wanted.order_by(procedure_step.c.created_at, procedure_step.c.sop_instance_uid)).scalars().all()
            return tuple(_step(_rows(connection, uid, lock=False)) for uid in uids)


def _rows(connection: Connection, sop_instance_uid: str, *, lock: bool = True) -> list[RowMapping]:
    wanted = select(procedure_step).where(procedure_step.c.sop_instance_uid == sop_instance_uid).order_by(procedure_step.c.study_instance_uid)
    return list(connection.execute(wanted.with_for_update() if lock else wanted).mappings())


def _step(rows: list[RowMapping]) -> PerformedStep:
    row = rows[0]
    return PerformedStep(
        sop_instance_uid=row["sop_instance_uid"],
        study_instance_uids=tuple(one["study_instance_uid"] for one in rows),
        state=StepState(row["state"]),
        modality=row["modality"],
        station=row["station"],
        started=row["started"],
        ended=row["ended"],
        series={uid: tuple(instances) for uid, instances in row["series"].items()},
    )


def _said(step: PerformedStep) -> dict[str, Any]:
    series = {uid: list(instances) for uid, instances in step.series.items()}
    said = {"state": step.state, "modality": step.modality, "station": step.station, "started": step.started, "ended": step.ended}
    return said | {"series": series}


def _tell(connection: Connection, step: PerformedStep, calling_ae: str, now: float) -> None:
    """Write a line into the journal of each study, and let the open ones be judged now."""
    detail = {"step": step.sop_instance_uid, "series": len(step.series), "expected": len(step.expected)}
    why = f"a modality says that its step is {step.state}"
    kind = f"step {step.state.lower()}"
    note(connection, *(Event(at=now, study_instance_uid=uid, kind=kind, who=calling_ae, why=why, detail=detail) for uid in step.study_instance_uids))
    concerned = study.c.study_instance_uid.in_(step.study_instance_uids), study.c.look_at > now
    connection.execute(update(study).where(*concerned).values(look_at=now))
