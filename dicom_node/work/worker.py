"""Who works: claims one job after another, puts its series together, and lets the model's own process analyse it.

Then it says the findings in DICOM, checks every object, and records results and deliveries in one commit. Whatever goes wrong ends in the
ledger, with its reason.
"""

import contextlib
import os
import platform
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import structlog

from dicom_node.analyse import Pool
from dicom_node.config import Model, Site
from dicom_node.domain import (
    REJECTION,
    Assembled,
    Canceled,
    Findings,
    Job,
    ModelFailed,
    NodeError,
    Reference,
    Rejected,
    Result,
    Transient,
    Unsuitable,
    cause_of,
    fault,
)
from dicom_node.picture import summary
from dicom_node.report import Draft, Run, build, reading, rejection, settled, warm
from dicom_node.schedule import retry_at
from dicom_node.store import Store, Topic
from dicom_node.work.reading import Steps, assembled, known_of
from dicom_node.work.verifying import Verifying
from dicom_node.work.writing import write_draft

log = structlog.get_logger()

_SEEN_EVERY_S = 5.0
_REST_AT_LEAST_S = 0.01  # a job that is due and could not be claimed is being claimed by another worker


@dataclass(slots=True)
class _Running:
    """A job under way, as the heart sees it."""

    job: Job
    progress: float = 0.0
    note: str = ""
    stop: bool = False  # a person, or a newer job, asked for it
    lost: bool = False  # the ledger gave the job to somebody else

    @property
    def canceled(self) -> bool:
        return self.stop or self.lost


class Worker:
    """Performs jobs until it is stopped; everything that a job needs afterwards is in the ledger, so it may die at any moment."""

    def __init__(self, site: Site, store: Store, *, clock: Callable[[], float] = time.time) -> None:
        work = site.config.work
        self._site = site
        self._store = store
        self._clock = clock
        self._work = work
        self._threads = work.threads or max(1, (os.cpu_count() or 1) // work.at_once)
        self._pool = Pool(self._threads)
        self._running: dict[int, _Running] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._listener = store.bell.listen(Topic.JOBS)
        self._started_at = clock()
        self._seen_at = 0.0
        self.name = f"{platform.node()[:40]}:{os.getpid()}:{int(self._started_at)}"

    def run(self) -> None:
        """Claim and perform jobs until `stop`."""
        heart = threading.Thread(target=self._beat, name="heart", daemon=True)
        heart.start()
        for name in self._site.config.asked:  # of the others the first job waits for its libraries, and none takes memory for nothing
            with contextlib.suppress(Transient):  # the job that needs it meets it again, and tells of it
                self._pool.expect(self._site.models[name])
        threading.Thread(target=warm, name="warm", daemon=True).start()
        verifying = Verifying(self._site, self._store, self.name, self._clock)
        verifying.start()
        log.info("worker started", worker=self.name, models=sorted(self._site.models), at_once=self._work.at_once, threads=self._threads)
        with ThreadPoolExecutor(self._work.at_once, thread_name_prefix="job") as executor:
            while not self._stopping.is_set():
                job = self._claim()
                if job is None:
                    self._listener.wait(self._rest_s())
                else:
                    executor.submit(self._perform, job)
        verifying.stop()
        heart.join()
        self._listener.close()
        self._pool.close()
        with contextlib.suppress(Transient):
            self._store.jobs.forget(self.name)
        log.info("worker stopped", worker=self.name)

    def stop(self) -> None:
        """Give running jobs back to the ledger and end `run`."""
        self._stopping.set()
        self._listener.wake()

    # --------------------------------------------------------------------------------------------------------------- claims

    def _free(self) -> list[str]:
        """Return the models that may take a job now: none while as many jobs run as may."""
        with self._lock:
            busy = {running.job.model for running in self._running.values()}
            return [name for name in self._site.models if name not in busy] if len(self._running) < self._work.at_once else []

    def _rest_s(self) -> float:
        """Return how long nothing is to be claimed, if no bell rings."""
        due = None
        with contextlib.suppress(Transient):  # the ledger is away: it is asked again after a while
            due = self._store.jobs.next_due(free) if (free := self._free()) else None
        return self._work.poll_s if due is None else min(max(due - self._clock(), _REST_AT_LEAST_S), self._work.poll_s)

    def _claim(self) -> Job | None:
        free = self._free()
        if not free:
            return None
        try:
            job = self._store.jobs.claim(self.name, free, now=self._clock(), lease_s=self._work.lease_s)
        except Transient as error:
            log.error("no job could be claimed", reason=str(error))
            return None
        if job is not None:
            with self._lock:
                self._running[job.id] = _Running(job=job)
        return job

    def _beat(self) -> None:
        interval_s = min(1.0, self._work.lease_s / 4)
        while not (self._stopping.is_set() and not self._running):
            with self._lock:
                running = list(self._running.values())
            with contextlib.suppress(Transient):  # the next beat is the retry; if none comes through in time, the lease ends, as it should
                for one in running:
                    self._renew(one)
                self._show()
            time.sleep(interval_s)

    def _renew(self, one: _Running) -> None:
        answer = self._store.jobs.beat(one.job, now=self._clock(), lease_s=self._work.lease_s, progress=one.progress, note=one.note)
        if answer is None:
            one.lost = True
        elif answer:
            one.stop = True

    def _show(self) -> None:
        now = self._clock()
        if now - self._seen_at >= _SEEN_EVERY_S:
            self._store.jobs.seen(self.name, sorted(self._site.models), started_at=self._started_at, now=now)
            self._seen_at = now

    # ----------------------------------------------------------------------------------------------------------------- a job

    def _perform(self, job: Job) -> None:
        running = self._running[job.id]
        with structlog.contextvars.bound_contextvars(study=job.study_instance_uid, job=job.id, model=job.model):
            try:
                self._analyse_and_report(job, running)
            except Exception as error:  # the outermost loop of this process: whatever it was belongs on record, with the job
                self._record_failure(job, running, error)
            finally:
                with self._lock:
                    del self._running[job.id]
                self._listener.wake()

    def _analyse_and_report(self, job: Job, running: _Running) -> None:
        model = self._site.models[job.model]
        if model.device_uid != job.device_uid:
            self._reschedule(job, model)
            return
        say, steps = _progress(running), Steps()
        say(0.0, "reading the images")
        inputs = assembled(model.manifest, lambda name: self._files_of(job, name), known_of(job))
        model = reading(model, inputs)
        steps.end("read")
        findings = self._analyse(job, model, inputs, running)
        model = settled(model, findings)
        steps.end("model")
        say(0.95, "writing the report")
        run = self._describe(job, model)
        drafts = build(findings, inputs, run)
        if run.predecessors and self._rejecting(job):
            drafts = (*drafts, rejection(run.predecessors, inputs, run))
        steps.end("report")
        results = self._write(job, drafts)
        steps.end("check")
        notes = [*findings.notes, *(note for one in inputs.values() for note in one.notes)]
        picture, trouble = self._draw(job, findings, inputs, model) if not any(one.problem for one in results) else ("", ())
        steps.end("picture")
        if running.canceled:
            raise Canceled("the job was canceled")
        self._record(job, results, [*notes, *trouble], steps, picture)

    def _draw(self, job: Job, findings: Findings, inputs: Mapping[str, Assembled], model: Model) -> tuple[str, tuple[str, ...]]:
        """Draw what was found, for a person who looks at the job; return the file's name, and what went wrong."""
        try:
            png = summary(findings, inputs, model.manifest)
            return (self._store.archive.write_picture(png, job.identity, made_at=job.created_at) if png else ""), ()
        except Exception as error:  # whatever it was: a job whose results are written is not lost for the want of a picture of them
            log.warning("no picture drawn", reason=fault(error))
            return "", (f"warning: no picture could be drawn: {fault(error)}",)

    def _record(self, job: Job, results: tuple[Result, ...], notes: Sequence[str], steps: Steps, picture: str = "") -> None:
        now = self._clock()
        problems = "; ".join(dict.fromkeys(f"{one.kind}: {one.problem}" for one in results if one.problem))  # of a series, what all have alike once
        if problems:
            self._store.jobs.reject(job, results, now=now, why=f"a result is not valid DICOM and is in quarantine: {problems}")
            log.error("results quarantined", problems=problems)
            return
        made = _counted(results)
        why = "; ".join([f"made {made} ({steps})", *notes])
        if self._store.jobs.complete(job, results, now=now, why=why, only={REJECTION: self._rejecting(job)}, picture=picture):
            log.info("job completed", results=made, steps_s=steps.seconds)

    def _rejecting(self, job: Job) -> list[str]:
        """Return the destinations at which results that this job's replace are rejected."""
        remotes = self._site.config.remotes
        return [name for name in job.deliver if name in remotes and remotes[name].reject_superseded]

    def _reschedule(self, job: Job, model: Model) -> None:
        """Let a job that was made for another build of the model give way to one for this build."""
        why = f"the model changed since the job was made: a new job for version {model.manifest.version} takes its place"
        if self._store.jobs.fail(job, now=self._clock(), why=why, retry_at=None):
            self._store.jobs.again(job.id, who=self.name, now=self._clock(), device_uid=model.device_uid, model_version=model.manifest.version)
            log.info("job rescheduled for another build")

    def _files_of(self, job: Job, name: str) -> list[Path]:
        """Return the files of an input; none of an earlier study's that was not found, or has gone since."""
        if name in job.inputs:
            return self._files(job.inputs[name])
        ids = job.priors.inputs.get(name, ()) if job.priors else ()
        with contextlib.suppress(Rejected):
            return self._files(ids)
        return []

    def _files(self, ids: Sequence[int]) -> list[Path]:
        instances = self._store.instances.by_ids(ids)
        if len(instances) < len(ids):
            raise Rejected(f"{len(ids) - len(instances)} of {len(ids)} instances are no longer in the ledger", hint="Send the study again.")
        return self._store.instances.bring(instances)

    def _analyse(self, job: Job, model: Model, inputs: Mapping[str, Assembled], running: _Running) -> Findings:
        choice = self._site.config.models[job.model]
        limits = model.manifest.resources
        return self._pool.run(
            model,
            choice.device,
            {name: one.volume for name, one in inputs.items()},
            timeout_s=choice.timeout_s or limits.timeout_s,
            memory_mb=choice.memory_mb or limits.memory_mb,
            progress=_progress(running, upto=0.95),
            canceled=lambda: running.canceled or self._stopping.is_set(),
        )

    def _describe(self, job: Job, model: Model) -> Run:
        before = tuple(
            Reference(
                sop_class_uid=one.sop_class_uid,
                sop_instance_uid=one.sop_instance_uid,
                series_instance_uid=one.series_instance_uid,
                study_instance_uid=one.study_instance_uid,
            )
            for one in self._store.jobs.predecessors(job)
        )
        config = self._site.config
        return Run(
            identity=job.identity,
            made_at=job.created_at,
            model=model,
            predecessors=before,
            station=config.node.ae_title,
            encoding=config.encoding(job.deliver),
            order=self._store.orders.of_study(job.study_instance_uid),
        )

    def _write(self, job: Job, drafts: tuple[Draft, ...]) -> tuple[Result, ...]:
        return tuple(self._write_one(job, number, draft) for number, draft in enumerate(drafts, 1))

    def _write_one(self, job: Job, number: int, draft: Draft) -> Result:
        return write_draft(
            self._store.archive,
            draft,
            job_id=job.id,
            identity=job.identity,
            name=f"{number}-{draft.kind}",
            study_instance_uid=job.study_instance_uid,
            made_at=job.created_at,
        )

    def _record_failure(self, job: Job, running: _Running, error: Exception) -> None:
        now = self._clock()
        with contextlib.suppress(Transient):  # the ledger is away: the lease ends, and the clock takes the job back
            if isinstance(error, Canceled) or running.canceled:
                self._record_stop(job, running, now)
            elif isinstance(error, Unsuitable):
                self._store.jobs.decline(job, now=now, why=str(error), cause=error.cause)
                log.info("job declined", reason=str(error))
            else:
                final = isinstance(error, NodeError) and not isinstance(error, Transient | ModelFailed)
                again = None if final else retry_at(job, self._work, now)
                why = fault(error)
                self._store.jobs.fail(job, now=now, why=why, retry_at=again, cause=cause_of(error))
                log.error("job failed", reason=why, attempt=job.attempts, retry=again is not None)

    def _record_stop(self, job: Job, running: _Running, now: float) -> None:
        if running.stop:
            self._store.jobs.stop(job, now=now)
        elif not running.lost:
            self._store.jobs.release(job, now=now, why="the worker was stopped")
        log.info("job stopped", lost=running.lost)


def _counted(results: Sequence[Result]) -> str:
    """Say what was made, such as "SEG, 133 DER, SR"."""
    counts = Counter(one.kind for one in results)
    return ", ".join(kind if count == 1 else f"{count} {kind}" for kind, count in counts.items())


def _progress(running: _Running, upto: float = 1.0) -> Callable[[float, str], None]:
    def say(fraction: float, note: str) -> None:
        running.progress, running.note = min(max(fraction, 0.0), 1.0) * upto, note[:200]

    return say
