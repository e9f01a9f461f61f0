"""Each job is done once, or its reasons are on record.

When a failed attempt is tried again, what the clock does to jobs, deliveries and old studies, and the ticks that do it. The queue is the ledger.
"""

from collections.abc import Callable, Collection
from datetime import UTC, datetime

import structlog
from apscheduler.events import EVENT_JOB_ERROR, JobExecutionEvent
from apscheduler.schedulers.background import BackgroundScheduler

from dicom_node.config import Work
from dicom_node.domain import Job, fault
from dicom_node.store import Store

log = structlog.get_logger()

_BACKOFF_MAX_S = 3600.0
_DAY_S = 86400.0  # so long a workitem that has ended stays at least (IHE AIW-I 4.85.4.1.3), and an event that nobody took


def retry_at(job: Job, work: Work, now: float) -> float | None:
    """Return when a job whose attempt failed is tried again, or None when it has had all its attempts."""
    if job.attempts >= work.attempts:
        return None
    return now + min(work.backoff_s * 2 ** max(job.attempts - 1, 0), _BACKOFF_MAX_S)


def take_back(store: Store, work: Work, now: float) -> int:
    """Take jobs and deliveries back from workers and senders that have been silent beyond their lease; return how many."""
    taken = 0
    for job in store.jobs.expired(now):
        again = retry_at(job, work, now)
        why = f"worker {job.worker} was silent for more than {work.lease_s:g} s in attempt {job.attempts}"
        if store.jobs.take_back(job, now=now, why=why, retry_at=again):
            log.warning("job taken back", job=job.id, model=job.model, attempts=job.attempts, retry=again is not None)
            taken += 1
    return taken + store.deliveries.take_back(now)


def retire(store: Store, retain_days: float, now: float, committing: Collection[str] = ()) -> int:
    """Remove studies that are finished, delivered and older than the site retains, and what is as old in quarantine; return how many studies.

    committing: destinations of which "delivered" means that they have committed themselves.
    """
    old = store.studies.older_than(now - retain_days * _DAY_S, committing=committing, ended_after=now - _DAY_S)
    for study_instance_uid in old:
        files = store.studies.purge(study_instance_uid, who="clock", why=f"older than {retain_days:g} days")
        log.info("study purged", study=study_instance_uid, files=files)
    store.workitems.prune(before=now - max(retain_days, 1.0) * _DAY_S)
    store.subscriptions.give_up(before=now - _DAY_S, now=now)
    dropped = store.studies.purge_quarantine(now - retain_days * _DAY_S)
    if dropped:
        log.info("quarantine purged", files=dropped)
    return len(old)


class Ticks:
    """Calls functions at intervals, each in its turn: one that is late is called once, one that fails is called again at the next tick."""

    def __init__(self) -> None:
        self._scheduler = BackgroundScheduler(timezone=UTC)
        self._scheduler.add_listener(_tell, EVENT_JOB_ERROR)

    def every(self, seconds: float, act: Callable[[], object], name: str) -> None:
        """Call `act` every so many seconds, first at once."""
        self._scheduler.add_job(
            act, "interval", seconds=seconds, id=name, coalesce=True, max_instances=1, misfire_grace_time=None, next_run_time=datetime.now(UTC)
        )

    def start(self) -> None:
        """Begin."""
        self._scheduler.start()

    def stop(self) -> None:
        """End, after the calls that are under way."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=True)


def _tell(failed: JobExecutionEvent) -> None:
    # The next tick is the retry: nothing was lost, since every tick reads what is to be done from the ledger.
    log.error("tick failed", tick=failed.job_id, reason=fault(failed.exception))
