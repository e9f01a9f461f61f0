"""What waits and for how long, how much there is of everything, and how destinations do: a few questions that group rows."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select

from dicom_node.domain import DeliveryState, JobState, RetrievalState, StudyState
from dicom_node.store.database import Database
from dicom_node.store.tables import delivery, destination, instance, job, quarantine, retrieval, study


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """So many rows of a state; oldest: since when the first of them waits, where that means anything."""

    labels: tuple[str, ...]
    number: int
    oldest: float | None = None


class Backlog:
    """Counts the rows of the ledger; it changes nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def studies(self) -> tuple[Group, ...]:
        """Return how many studies are in each state, and since when the first of the open ones had its last instance."""
        return self._groups(study.c.last_received_at, study.c.state)

    def jobs(self) -> tuple[Group, ...]:
        """Return how many jobs of each model are in each state, and when the first of them was made."""
        return self._groups(job.c.created_at, job.c.state, job.c.model)

    def deliveries(self) -> tuple[Group, ...]:
        """Return how many deliveries to each destination are in each state, and when the first of them was queued."""
        return self._groups(delivery.c.created_at, delivery.c.state, delivery.c.destination)

    def retrievals(self) -> tuple[Group, ...]:
        """Return how many retrievals from each remote are in each state, and when the first of them was asked for."""
        return self._groups(retrieval.c.requested_at, retrieval.c.state, retrieval.c.remote)

    def destinations(self) -> tuple[dict[str, Any], ...]:
        """Return how each destination is doing."""
        with self._database.read() as connection:
            return tuple(dict(row) for row in connection.execute(select(destination).order_by(destination.c.name)).mappings())

    def quarantined(self, since: float = 0.0) -> int:
        """Return how much lies in quarantine, or came there since."""
        with self._database.read() as connection:
            return connection.execute(select(func.count()).select_from(quarantine).where(quarantine.c.at >= since)).scalar_one()

    def size_bytes(self) -> int:
        """Return how many bytes the instances have; it goes through all of them."""
        with self._database.read() as connection:
            return int(connection.execute(select(func.sum(instance.c.size_bytes))).scalar() or 0)

    def _groups(self, since: Any, *labels: Any) -> tuple[Group, ...]:
        with self._database.read() as connection:
            rows = connection.execute(select(*labels, func.count(), func.min(since)).group_by(*labels)).all()
            return tuple(Group(labels=tuple(row[:-2]), number=row[-2], oldest=row[-1]) for row in sorted(rows, key=lambda row: tuple(row[:-2])))


WAITING = {
    "study": frozenset({StudyState.OPEN}),
    "job": frozenset({JobState.SCHEDULED, JobState.IN_PROGRESS}),
    "delivery": frozenset({DeliveryState.PENDING, DeliveryState.SENDING}),
    "retrieval": frozenset({RetrievalState.WAITING, RetrievalState.RUNNING}),
}  # states of which an age means something
