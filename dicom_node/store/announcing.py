"""The rows of announcements, in somebody's transaction: made when a job has ended, and when its results are sent elsewhere later."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, select

from dicom_node.domain import AnnouncementState, derived_uid
from dicom_node.store.database import unless_there
from dicom_node.store.tables import announcement, job


def announce(connection: Connection, job_id: int, remotes: Iterable[str], holders: Iterable[str], now: float) -> int:
    """Record that remotes are to be told of a job's results at destinations; return how many announcements are new."""
    found = connection.execute(select(job.c.identity, job.c.study_instance_uid).where(job.c.id == job_id)).one()
    fixed = {"job_id": job_id, "study_instance_uid": found.study_instance_uid, "state": AnnouncementState.PENDING}
    fixed |= {"created_at": now, "not_before": now, "attempts": 0, "reason": ""}
    places = list(holders)
    rows: list[dict[str, Any]] = [
        fixed | {"remote": remote, "holder": holder, "sop_instance_uid": derived_uid("notification", remote, found.identity, holder)}
        for remote in remotes
        for holder in places
    ]
    if not rows:
        return 0
    return connection.execute(unless_there(connection, announcement), rows, execution_options={"preserve_rowcount": True}).rowcount


def announce_also(connection: Connection, job_id: int, holder: str, now: float) -> None:
    """Let all who are told of a job's results hear of one more destination."""
    told = select(announcement.c.remote).where(announcement.c.job_id == job_id).distinct().order_by(announcement.c.remote)
    announce(connection, job_id, connection.execute(told).scalars().all(), (holder,), now)
