"""What came of the search for the earlier studies that jobs wait for."""

from sqlalchemy import select, update

from dicom_node.domain import Job, JobState, Priors, PriorsState
from dicom_node.store.bell import Bell, Topic, ringing
from dicom_node.store.database import Database
from dicom_node.store.moving import job_of, tell_of
from dicom_node.store.tables import job

_AT_ONCE = 1000


class PriorSearches:
    """The jobs of the ledger that wait for earlier studies. One that was tried without them waits no more."""

    def __init__(self, database: Database, bell: Bell) -> None:
        self._database = database
        self._bell = bell

    def going_on(self) -> tuple[Job, ...]:
        """Return the jobs that wait, oldest first."""
        states = job.c.priors_state.in_([PriorsState.SOUGHT, PriorsState.FETCHING])
        wanted = select(job).where(states, job.c.state == JobState.SCHEDULED, job.c.attempts == 0).order_by(job.c.id).limit(_AT_ONCE)
        with self._database.read() as connection:
            return tuple(job_of(row) for row in connection.execute(wanted).mappings())

    def record(self, waiting: Job, priors: Priors, *, now: float) -> bool:
        """Record what came of a job's search; once that is settled the job may be claimed. False when it waits no more."""
        same = job.c.id == waiting.id, job.c.state == JobState.SCHEDULED, job.c.attempts == 0
        due = {"not_before": now} if priors.state is PriorsState.SETTLED else {}
        with ringing(self._bell, Topic.JOBS, self._database) as connection:
            found = update(job).where(*same).values(priors=priors.as_row(), priors_state=priors.state, **due)
            if not connection.execute(found).rowcount:
                return False
            tell_of(connection, waiting, f"priors {priors.state.lower()}", "node", priors.why, now)
            return True
