"""What waits longer than it should: a decision over what the ledger says, the same at a terminal and on a page."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dicom_node.domain.jobs import Delivery, Job
from dicom_node.domain.states import DeliveryState, JobState, StudyState

UNCLAIMED_S = 600.0  # a job that nobody has claimed for so long is stuck
RUNS_S = 3600.0  # as is one that runs for so long


@dataclass(frozen=True, slots=True, kw_only=True)
class Stuck:
    """One thing that waits longer than it should."""

    kind: Literal["job", "delivery", "study"]
    key: str  # number, or Study Instance UID
    what: str
    since: float
    why: str


def stuck(jobs: Iterable[Job], deliveries: Iterable[Delivery], studies: Iterable[Mapping[str, Any]], now: float) -> tuple[Stuck, ...]:
    """Name what waits longer than it should: jobs that nobody claims or that run over an hour, dead letters, held studies.

    studies: rows of the ledger.
    """
    found = [late for job in jobs if (late := _job(job, now)) is not None]
    for one in deliveries:
        if one.state is DeliveryState.DEAD:
            what = f"delivery {one.id} to {one.destination}"
            found.append(Stuck(kind="delivery", key=str(one.id), what=what, since=one.created_at, why=one.reason))
    for row in studies:
        if row["state"] == StudyState.CONFLICT:
            uid = row["study_instance_uid"]
            found.append(Stuck(kind="study", key=uid, what=f"study {uid}", since=row["last_received_at"], why=row["why"]))
    return tuple(found)


def _job(job: Job, now: float) -> Stuck | None:
    what = f"job {job.id} ({job.model})"
    if job.state is JobState.SCHEDULED and now - job.created_at > UNCLAIMED_S:
        return Stuck(kind="job", key=str(job.id), what=what, since=job.created_at, why=job.reason or "no worker has claimed it")
    if job.state is JobState.IN_PROGRESS and now - (job.started_at or now) > RUNS_S:
        return Stuck(kind="job", key=str(job.id), what=what, since=job.started_at or now, why=f"still runs: {job.note}")
    return None
