"""Orders: what is known of the request that a study was made for, one row for each study."""

from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, RowMapping, func, or_, select, update

from dicom_node.domain import DERIVED_MODALITIES, Order, OrderState, Subject
from dicom_node.store.database import Database, insert_unless_there
from dicom_node.store.journal import Event, note
from dicom_node.store.tables import instance, study, study_order

_KIND = {
    OrderState.KNOWN: "order found",
    OrderState.NONE: "no order",
    OrderState.AMBIGUOUS: "order ambiguous",
    OrderState.CONTRADICTED: "order contradicted",
}


class Orders:
    """The orders of the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def due(self, *, now: float, since: float, limit: int = 50) -> tuple[Subject, ...]:
        """Return the studies whose order is to be sought, of those to which something came since then; what came last is first."""
        joined = study.outerjoin(study_order, study_order.c.study_instance_uid == study.c.study_instance_uid)
        waits = or_(study_order.c.state.is_(None), (study_order.c.state == OrderState.WAITING) & (study_order.c.not_before <= now))
        columns = study.c.study_instance_uid, study_order.c.attempts, study_order.c.created_at
        wanted = select(*columns).select_from(joined).where(study.c.last_received_at >= since, waits)
        with self._database.read() as connection:
            rows = connection.execute(wanted.order_by(study.c.last_received_at.desc()).limit(limit)).all()
            return tuple(_subject(connection, uid, attempts or 0, created_at or 0.0) for uid, attempts, created_at in rows)

    def settle(self, study_instance_uid: str, state: OrderState, order: Order | None = None, *, who: str, why: str, now: float) -> bool:
        """Record what was found out; False when that was on record. why: a sentence that names nobody.

        Raises
        ------
        ValueError: the state is not final, or there is an order in another state than KNOWN.
        """
        if state is OrderState.WAITING or (order is not None) != (state is OrderState.KNOWN):
            raise ValueError(f"an order cannot be settled as {state} {'with' if order else 'without'} one")
        said = {"state": state, "source": who, "attributes": asdict(order) if order else None, "reason": why}
        with self._database.write() as connection:
            if not self._say(connection, study_instance_uid, said, now):
                return False
            note(connection, Event(at=now, study_instance_uid=study_instance_uid, kind=_KIND[state], who=who, why=why))
            return True

    def put_off(self, study_instance_uid: str, *, until: float, reason: str, now: float) -> bool:
        """Record that nobody could be asked, and when to try again; False when it was settled."""
        said = {"state": OrderState.WAITING, "source": "", "attributes": None, "reason": reason, "not_before": until}
        with self._database.write() as connection:
            return self._say(connection, study_instance_uid, said, now)

    def of_study(self, study_instance_uid: str) -> Order | None:
        """Return the order of a study, None when none is known."""
        known = study_order.c.study_instance_uid == study_instance_uid, study_order.c.state == OrderState.KNOWN
        with self._database.read() as connection:
            row = connection.execute(select(study_order.c.attributes).where(*known)).scalar()
        return _order(row) if row else None

    def state(self, study_instance_uid: str) -> OrderState | None:
        """Return what is known of a study's order, None when it was not looked for."""
        with self._database.read() as connection:
            found = connection.execute(select(study_order.c.state).where(study_order.c.study_instance_uid == study_instance_uid)).scalar()
        return OrderState(found) if found else None

    def is_here(self, study_instance_uid: str) -> bool:
        """Say whether something of a study came: an order that foresees it is not another study's."""
        with self._database.read() as connection:
            return bool(connection.execute(select(func.count()).where(study.c.study_instance_uid == study_instance_uid)).scalar_one())

    @staticmethod
    def _say(connection: Connection, study_instance_uid: str, said: dict[str, Any], now: float) -> bool:
        fresh = {"attempts": 1, "created_at": now, "not_before": now} | said
        if insert_unless_there(connection, study_order, study_instance_uid=study_instance_uid, **fresh):
            return True
        waiting = study_order.c.study_instance_uid == study_instance_uid, study_order.c.state == OrderState.WAITING
        return connection.execute(update(study_order).where(*waiting).values(**said, attempts=study_order.c.attempts + 1)).rowcount > 0


def _subject(connection: Connection, study_instance_uid: str, attempts: int, since: float) -> Subject:
    """Return what the first of a study's instances says; a modality that made no images is none that an order names."""
    current = instance.c.study_instance_uid == study_instance_uid, instance.c.current
    header = connection.execute(select(instance.c.header).where(*current).order_by(instance.c.id).limit(1)).scalar() or {}
    modality = _text(header.get("Modality"))
    return Subject(
        study_instance_uid=study_instance_uid,
        accession_number=_text(header.get("AccessionNumber")),
        patient_id=_text(header.get("PatientID")),
        modality="" if modality in DERIVED_MODALITIES else modality,
        study_date=_text(header.get("StudyDate")),
        attempts=attempts,
        since=since,
    )


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _order(row: RowMapping | dict[str, Any]) -> Order:
    code = row["requested_procedure_code"]
    return Order(**(dict(row) | {"requested_procedure_code": tuple(code) if code else None}))
