"""The rows of results and of their deliveries, in somebody's transaction."""

from collections.abc import Collection

from sqlalchemy import Connection, insert, select

from dicom_node.domain import REJECTION, VERIFIED, DeliveryState, JobState, Result
from dicom_node.store.tables import delivery, job, result


def insert_result(connection: Connection, one: Result, destinations: Collection[str] = (), *, now: float = 0.0) -> None:
    """Record a result, and that it goes to these destinations."""
    key = connection.execute(insert(result).values(**{c.name: getattr(one, c.name) for c in result.columns if c.name != "id"})).inserted_primary_key
    fixed = {"state": DeliveryState.PENDING, "attempts": 0, "sender": "", "reason": "", "created_at": now, "not_before": now}
    for destination in destinations:
        connection.execute(insert(delivery).values(result_id=int(key[0]) if key else 0, destination=destination, **fixed))


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
