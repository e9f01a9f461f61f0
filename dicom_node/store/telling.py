"""What a program is told of the node, a study and a job: the same keys by `--json` and by HTTP. No patient is named."""

from typing import TYPE_CHECKING, Any

from dicom_node.config import NodeConfig
from dicom_node.domain import plain

if TYPE_CHECKING:
    from dicom_node.store import Store

ALIVE_S = 20.0  # a worker is alive that was seen this recently
_QUARANTINED = 1000  # beyond it they are not counted one by one


def status(store: "Store", config: NodeConfig, now: float) -> dict[str, Any]:
    """Say how the node is doing: what waits, what is stuck, who works, who is reached."""
    destinations = [store.deliveries.destination(name) for name, remote in config.remotes.items() if "receive" in remote.may]
    return {
        "free_mb": store.archive.free_mb(),
        "reserve_mb": config.node.disk_reserve_mb,
        "studies": store.studies.counts(),
        "jobs": store.jobs.counts(),
        "deliveries": store.deliveries.counts(),
        "retrievals": store.retrievals.counts(),
        "quarantined": len(store.instances.quarantined(limit=_QUARANTINED)),
        "workers": workers(store, now),
        "destinations": plain(destinations),
        "stuck": [{"what": one.what, "since": one.since, "why": one.why} for one in store.overview.stuck(now)],
    }


def workers(store: "Store", now: float) -> list[dict[str, Any]]:
    """Return the workers that were seen, and which of them are alive."""
    return [dict(one) | {"alive": now - one["seen_at"] < ALIVE_S} for one in store.jobs.workers()]


def study_told(store: "Store", study_instance_uid: str) -> dict[str, Any]:
    """Return a study's series, its walk and its jobs; of what is not here any more the journal is left."""
    seen = store.studies.view(study_instance_uid)
    series = [
        {"series_instance_uid": one.series_instance_uid, "instances": len(one.instances), "modality": one.header.get("Modality")}
        for one in (seen.series if seen else ())
    ]
    events, jobs = store.journal.of_study(study_instance_uid), store.jobs.list(study_instance_uid=study_instance_uid)
    return {"study_instance_uid": study_instance_uid, "series": series, "events": plain(events), "jobs": plain(jobs)}


def job_told(store: "Store", job_id: int) -> dict[str, Any]:
    """Return a job with its results, and what became of them.

    Raises
    ------
    Rejected: there is no such job.
    """
    job, results = store.jobs.get(job_id), store.jobs.results(job_id)
    sent, told = store.deliveries.list(job_id=job_id), store.announcements.list(job_id=job_id)
    return {
        "job": plain(job),
        "results": plain(results),
        "deliveries": plain(sent),
        "notifications": plain(told),
        "feedback": plain(store.feedback.of_job(job_id)),
    }
