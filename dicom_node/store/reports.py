"""The structured reports that jobs made, a page at a time: what of them the ledger knows."""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import select

from dicom_node.domain import JobState
from dicom_node.store.database import Database
from dicom_node.store.tables import job, result

_PAGE = 256  # reports are asked for at a time: between pages nobody is kept waiting


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One structured report that passed the check, and the job that made it."""

    path: str  # below the archive
    job_id: int
    model: str
    model_version: str
    device_uid: str
    ended_at: float


def reports(database: Database, *, study_instance_uid: str = "", model: str = "", since: float = 0.0) -> Iterator[Report]:
    """Give the reports of completed jobs, newest first; of one study, of one model, of jobs that ended at `since` or later."""
    columns = job.c.model, job.c.model_version, job.c.device_uid, job.c.ended_at
    wanted = select(result.c.id, result.c.path, result.c.job_id, *columns).join(job, job.c.id == result.c.job_id)
    wanted = wanted.where(result.c.kind == "SR", result.c.problem == "", job.c.state == JobState.COMPLETED, job.c.ended_at >= since)
    wanted = wanted.where(result.c.study_instance_uid == study_instance_uid) if study_instance_uid else wanted
    wanted = wanted.where(job.c.model == model) if model else wanted
    below: int | None = None
    while True:
        page = wanted if below is None else wanted.where(result.c.id < below)
        with database.read() as connection:
            rows = connection.execute(page.order_by(result.c.id.desc()).limit(_PAGE)).mappings().all()
        for row in rows:
            yield Report(**{name: value for name, value in row.items() if name != "id"})
        if len(rows) < _PAGE:
            return
        below = rows[-1]["id"]
