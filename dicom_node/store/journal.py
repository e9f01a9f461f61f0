"""The journal: what happened to each study, when, by whom and why. Written in the transaction of the change it tells of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, func, insert, select

from dicom_node.store.database import Database
from dicom_node.store.tables import event


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of the journal."""

    at: float
    study_instance_uid: str
    kind: str
    who: str
    why: str
    job_id: int | None = None
    detail: Mapping[str, Any] | None = None
    id: int = 0


def note(connection: Connection, *events: Event) -> None:
    """Write events in the caller's transaction."""
    if events:
        connection.execute(insert(event), [_values(one) for one in events])


def _values(one: Event) -> dict[str, Any]:
    return {
        "at": one.at,
        "study_instance_uid": one.study_instance_uid,
        "kind": one.kind,
        "who": one.who,
        "why": one.why,
        "job_id": one.job_id,
        "detail": None if one.detail is None else dict(one.detail),
    }


class Journal:
    """Reads the journal, and takes events that belong to no other change."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of_study(self, study_instance_uid: str) -> tuple[Event, ...]:
        """Return a study's events, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(event).where(event.c.study_instance_uid == study_instance_uid).order_by(event.c.at, event.c.id)
            ).mappings()
            return tuple(_event(row) for row in rows)

    def after(self, event_id: int, *, limit: int = 500) -> tuple[Event, ...]:
        """Return events of higher numbers, oldest first."""
        with self._database.read() as connection:
            wanted = select(event).where(event.c.id > event_id).order_by(event.c.id).limit(limit)
            return tuple(_event(row) for row in connection.execute(wanted).mappings())

    def last(self) -> int:
        """Return the number of the newest event, 0 when there is none."""
        with self._database.read() as connection:
            return int(connection.execute(select(func.max(event.c.id))).scalar() or 0)

    def write(self, one: Event) -> None:
        """Write one event that belongs to no other change."""
        with self._database.write() as connection:
            note(connection, one)


def _event(row: RowMapping) -> Event:
    return Event(**dict(row))
