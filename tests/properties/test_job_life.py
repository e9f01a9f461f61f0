"""A job's life, whatever happens in whatever order: by the table, in one pair of hands, and final when it has ended."""

import shutil
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dicom_node.domain import JOB_TRANSITIONS, Discontinuation, Job, JobState, Priority
from dicom_node.store import Store
from tests.contracts.arrange import LEASE_S, NOW, STUDY, arrive, job_of, result_of

MODELS = ("lung-ct", "spleen-ct")
ENDED = (JobState.COMPLETED, JobState.CANCELED)
TOLD = {JobState.SCHEDULED: "scheduled", JobState.IN_PROGRESS: "claimed", JobState.COMPLETED: "completed", JobState.CANCELED: "canceled"}

workers = st.sampled_from(["worker-1", "worker-2"])
choice = st.integers(min_value=0, max_value=99)


class JobLife(RuleBasedStateMachine):
    """Workers, the clock, people and late instances act on one study's jobs; after each step the ledger is what may have become of it."""

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dicom-node-job-life-"))
        self.store = Store.open(self.folder)
        self.now = NOW
        self.before: dict[int, Job] = {}
        self.holder: dict[int, Job] = {}  # the handle that holds each job's lease
        self.handles: list[Job] = []  # every handle that was ever given out
        self.told: Counter[int] = Counter()  # how many changes of state each job has seen
        self.instances = 0

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.folder)

    # ------------------------------------------------------------------------------------------------------ what happens

    @rule(priority=st.sampled_from(Priority), models=st.sets(st.sampled_from(MODELS), min_size=1))
    def study_grows(self, priority, models) -> None:
        self.instances += 1
        arrive(self.store, self.instances, at=self.now)
        seen = self.store.studies.view(STUDY)
        wanted = [job_of(seen, model, at=self.now, priority=priority) for model in sorted(models)]
        made = self.store.studies.complete(seen, why="quiet", jobs=wanted, detail={}, now=self.now, max_reruns=99)
        assert {job.model for job in made} == models
        for job in made:
            earlier = [one for one in self.before.values() if one.model == job.model]
            assert job.predecessor_id == max((one.id for one in earlier), default=None)

    @rule(seconds=st.sampled_from([0.5, LEASE_S / 2, LEASE_S + 1, 30 * 3600.0]))
    def time_passes(self, seconds) -> None:
        self.now += seconds

    @rule(who=workers, models=st.sets(st.sampled_from(MODELS), min_size=1))
    def claim(self, who, models) -> None:
        claimed = self.store.jobs.claim(who, sorted(models), now=self.now, lease_s=LEASE_S)
        could = [job for job in self.before.values() if job.state is JobState.SCHEDULED and job.model in models and job.not_before <= self.now]
        assert (claimed is None) == (not could)
        if claimed:
            assert claimed.id in {job.id for job in could}
            assert claimed.id not in self.holder, "never two holders"
            self.holder[claimed.id] = claimed
            self.handles.append(claimed)

    @precondition(lambda self: getattr(self, "handles", None))
    @rule(which=choice, progress=st.floats(0, 1))
    def beat(self, which, progress) -> None:
        handle = self.handle(which)
        answer = self.store.jobs.beat(handle, now=self.now, lease_s=LEASE_S, progress=progress, note="")
        assert (answer is None) == (not self.holds(handle))
        assert answer is None or answer == self.before[handle.id].cancel_requested

    @precondition(lambda self: getattr(self, "handles", None))
    @rule(which=choice, how=st.sampled_from(["complete", "decline", "fail", "fail for good", "release", "stop", "reject"]))
    def end_attempt(self, which, how) -> None:
        handle = self.handle(which)
        jobs, held = self.store.jobs, self.holds(handle)
        if how == "complete":
            done = jobs.complete(handle, [result_of(self.store, handle)], now=self.now, why="made SEG")
        elif how == "reject":
            done = jobs.reject(handle, [result_of(self.store, handle, problem="invalid")], now=self.now, why="invalid")
        elif how == "decline":
            done = jobs.decline(handle, now=self.now, why="too few slices")
        elif how == "release":
            done = jobs.release(handle, now=self.now, why="the worker was stopped")
        elif how == "stop":
            done = jobs.stop(handle, now=self.now)
        else:
            done = jobs.fail(handle, now=self.now, why="out of memory", retry_at=self.now + 10 if how == "fail" else None)
        assert done == held
        if done:
            del self.holder[handle.id]

    @rule(again=st.booleans())
    def leases_end(self, again) -> None:
        silent = self.store.jobs.expired(self.now)
        assert {job.id for job in silent} == {job.id for job in self.before.values() if (job.lease_until or self.now) < self.now}
        for job in silent:
            assert self.store.jobs.take_back(job, now=self.now, why="silent", retry_at=self.now if again else None)
            del self.holder[job.id]

    @precondition(lambda self: any(job.state not in ENDED for job in getattr(self, "before", {}).values()))
    @rule(which=choice)
    def person_cancels(self, which) -> None:
        job = self.some([job for job in self.before.values() if job.state not in ENDED], which)
        self.store.jobs.cancel(job.id, who="anna", why="wrong patient", now=self.now)

    @precondition(lambda self: any(job.state in ENDED for job in getattr(self, "before", {}).values()))
    @rule(which=choice)
    def person_asks_again(self, which) -> None:
        old = self.some([job for job in self.before.values() if job.state in ENDED], which)
        made = self.store.jobs.again(old.id, who="anna", now=self.now)
        assert made.predecessor_id == old.id
        assert made.identity not in {job.identity for job in self.before.values()}

    # -------------------------------------------------------------------------------------------------------- what holds

    @invariant()
    def every_change_is_by_the_table_and_told(self) -> None:
        if not hasattr(self, "store"):
            return
        jobs = {job.id: job for job in self.store.jobs.list(limit=1000)}
        assert set(self.before) <= set(jobs)
        for number, job in jobs.items():
            before = self.before.get(number)
            if before is None or before.state is not job.state:
                assert before is None or job.state in JOB_TRANSITIONS[before.state]
                self.told[number] += 1
            if before is not None and before.state in ENDED:
                assert job == before, "final is final"
            self.is_whole(job)
        self.before = jobs
        events = [event for event in self.store.journal.of_study(STUDY) if event.job_id and event.kind.split(" (")[0] in TOLD.values()]
        assert Counter(event.job_id for event in events) == self.told
        assert all(event.who and event.why for event in events)

    def is_whole(self, job: Job) -> None:
        """Nothing in a job contradicts its state."""
        assert (job.state is JobState.IN_PROGRESS) == (job.lease_until is not None) == (job.id in self.holder)
        assert (job.state in ENDED) == (job.ended_at is not None)
        assert (job.state is JobState.CANCELED) == (job.discontinuation is not None and (job.state is not JobState.IN_PROGRESS))
        assert job.state is JobState.IN_PROGRESS or job.state in ENDED or not job.cancel_requested
        assert job.discontinuation is not Discontinuation.SUPERSEDED or job.reason
        assert job.attempts >= (job.state is JobState.IN_PROGRESS)
        assert bool(self.store.jobs.results(job.id)) == (job.state is JobState.COMPLETED or job.discontinuation is Discontinuation.INVALID)

    # ------------------------------------------------------------------------------------------------------------ helping

    def handle(self, which: int) -> Job:
        return self.some(self.handles, which)

    def holds(self, handle: Job) -> bool:
        return self.holder.get(handle.id) == handle

    def some(self, among: list[Job], which: int) -> Job:
        return sorted(among, key=lambda job: (job.id, job.attempts))[-1 - which % min(len(among), 4)]


JobLife.TestCase.settings = settings(max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))
TestJobLife = JobLife.TestCase
