"""The rows of results and of their deliveries, in somebody's transaction."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, insert, select, update

from dicom_node.domain import REJECTION, VERIFIED, DeliveryState, JobState, Result
from dicom_node.store.database import unless_there
from dicom_node.store.tables import delivery, job, result


def insert_result(connection: Connection, one: Result, destinations: Collection[str] = (), *, now: float = 0.0) -> None:
    """Record a result, and that it goes to these destinations."""
    key = connection.execute(insert(result).values(**{c.name: getattr(one, c.name) for c in result.columns if c.name != "id"})).inserted_primary_key
    for destination in destinations:
        connection.execute(insert(delivery).values(_to_send(int(key[0]) if key else 0, destination, now)))


def send_also(connection: Connection, job_id: int, destinations: Collection[str], *, now: float) -> None:
    """Let what a job makes, or has made, go also to these destinations; where it goes already it is not sent again."""
    row = connection.execute(select(job.c.deliver, job.c.state).where(job.c.id == job_id)).one()
    more = [name for name in dict.fromkeys(destinations) if name not in row.deliver]
    if not more:
        return
    connection.execute(update(job).where(job.c.id == job_id).values(deliver=[*row.deliver, *more]))
    valid = result.c.job_id == job_id, result.c.problem == "", result.c.kind != REJECTION
    for key in connection.execute(select(result.c.id).where(*valid)).scalars().all():
        connection.execute(unless_there(connection, delivery), [_to_send(key, name, now) for name in more])


def _to_send(result_id: int, destination: str, now: float) -> dict[str, Any]:
    fixed = {"state": DeliveryState.PENDING, "attempts": 0, "sender": "", "reason": "", "created_at": now, "not_before": now}
    return {"result_id": result_id, "destination": destination} | fixed


def results_before(connection: Connection, predecessor_id: int | None) -> tuple[Result, ...]:
    """Return the results of the nearest job that completed, from this one back along the chain of predecessors: what a new job's results replace.

    A rejection is none of them, and what a person verified is not replaced by an algorithm.
    """
    while predecessor_id is not None:
        before = connection.execute(select(job.c.state, job.c.predecessor_id).where(job.c.id == predecessor_id)).first()
        if before is None:
            return ()
        if before.state == JobState.COMPLETED:
            valid = result.c.job_id == predecessor_id, result.c.problem == "", result.c.kind.not_in((REJECTION, VERIFIED))
            return tuple(Result(**row) for row in connection.execute(select(result).where(*valid)).mappings())
        predecessor_id = before.predecessor_id
    return ()
