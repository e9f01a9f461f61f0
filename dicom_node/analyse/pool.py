"""Warm processes, one for each model build and device, and the watch over what they do.

A process that failed in any way is never used again; the next job gets a fresh one. A spare, with the libraries that every model needs
already imported, waits to take its place.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import structlog
from highdicom import Volume

from dicom_node.analyse import wire
from dicom_node.analyse.contract import settle
from dicom_node.analyse.process import Process
from dicom_node.analyse.weights import require_weights
from dicom_node.config import Model
from dicom_node.domain import Canceled, Findings, ModelFailed, Progress, Transient, Unsuitable

_LOOK_EVERY_S = 0.2  # at the clock, the memory and whether the job was canceled
_LEAK_SHARE = 0.25  # of the memory limit: a process that has grown by so much since its first job is replaced
_LEAVE_S = 5.0  # so long a closing pool waits for a thread to notice that its process is gone
_log = structlog.get_logger()


@dataclass(slots=True)
class _Seat:
    """The place of one model on one device; one job at a time sits in it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    process: Process | None = None
    at_rest_mb: float | None = None  # after its first job
    jobs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What one call of `run` asks for."""

    model: Model
    device: str
    timeout_s: float
    memory_mb: int
    progress: Progress
    canceled: Callable[[], bool]


class Pool:
    """Runs analyses in processes of their own; safe to call from several threads.

    threads: for each process's numerical libraries; 0: as many as there are processors.
    spare: whether to keep one process ready beside those at work, so that a model starts, and restarts, without the half second of imports.
    """

    def __init__(self, threads: int = 0, *, spare: bool = True) -> None:
        self._threads = threads or _processors()
        self._seats: dict[tuple[str, str], _Seat] = {}
        self._lock = threading.Lock()
        self._closed = False
        # Linux ends a process with the thread that started it (PR_SET_PDEATHSIG): this one lives as long as the pool.
        self._launcher = ThreadPoolExecutor(max_workers=1, thread_name_prefix="launcher")
        self._keeps_spare = spare
        self._spare: Future[Process] | None = self._launch() if spare else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(
        self,
        model: Model,
        device: str,
        inputs: Mapping[str, Volume],
        *,
        timeout_s: float,
        memory_mb: int,
        progress: Progress,
        canceled: Callable[[], bool],
    ) -> Findings:
        """Run one analysis and return its findings, settled against the manifest.

        The model sees arrays (float32, slice × row × column) and affines (patient coordinates, LPS) and nothing else. `timeout_s` is for the
        analysis; loading the model may take as long again. Jobs of one model on one device wait for each other.

        Raises
        ------
        Unsuitable: the model declines the input.
        ModelFailed: the model raised, hung, overran its memory, died, or returned what its manifest does not describe.
        Canceled: `canceled` said so while the job waited or ran.
        Transient: the pool was closed.
        """
        require_weights(model)
        job = _Job(model=model, device=device, timeout_s=timeout_s, memory_mb=memory_mb, progress=progress, canceled=canceled)
        with self._lock:
            seat = self._seats.setdefault((model.build, device), _Seat())
        with _taken(seat, canceled):
            try:
                found = self._analyse(seat, job, inputs)
            except Unsuitable:
                raise
            except BaseException as error:
                self._vacate(seat, str(error) or type(error).__name__)
                if self._closed:
                    raise Transient("the analysis was stopped because the node is stopping") from error
                raise
            self._renew_leaking(seat, job)
        return settle(found, model.manifest, inputs)

    def close(self) -> None:
        """End every process; analyses that still run raise Transient."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            seats, spare = tuple(self._seats.values()), self._spare
        for seat in seats:
            process = seat.process
            if process is not None:
                process.kill()  # whoever waits for it sees it die, and leaves the seat
            if seat.lock.acquire(timeout=_LEAVE_S):
                self._vacate(seat, "the node is stopping")
                seat.lock.release()
        if spare is not None and spare.exception() is None:
            spare.result().stop()
        self._launcher.shutdown()

    # ------------------------------------------------------------------------------------------------------ processes

    def _launch(self) -> Future[Process]:
        return self._launcher.submit(Process, self._threads)

    def _fresh(self) -> Process:
        """Return a process without a model: the spare, if it lives; and start the next spare."""
        with self._lock:
            if self._closed:
                raise Transient("the node is stopping")
            spare, self._spare = self._spare or self._launch(), None
            try:
                process = spare.result()
                if process.dead:
                    process.stop()
                    process = self._launch().result()
            except OSError as error:
                raise Transient(f"no process could be started for the model: {error.strerror}", hint="Look at this machine's limits.") from error
            self._spare = self._launch() if self._keeps_spare else None
        return process

    def _vacate(self, seat: _Seat, why: str) -> None:
        if seat.process is not None:
            seat.process.stop()
            _log.info("model_process_ended", pid=seat.process.pid, why=why, jobs=seat.jobs)
        seat.process, seat.at_rest_mb, seat.jobs = None, None, 0

    def _renew_leaking(self, seat: _Seat, job: _Job) -> None:
        """Replace a process that keeps more and more memory, before a job has to die of it."""
        if seat.process is None:
            return
        seat.jobs += 1
        used_mb = seat.process.used_mb()
        seat.at_rest_mb = used_mb if seat.at_rest_mb is None else seat.at_rest_mb
        if used_mb > job.memory_mb or used_mb - seat.at_rest_mb > _LEAK_SHARE * job.memory_mb:
            self._vacate(seat, f"keeps {used_mb:.0f} MB after its job, {seat.at_rest_mb:.0f} MB after its first")

    # ------------------------------------------------------------------------------------------------------- analysing

    def _analyse(self, seat: _Seat, job: _Job, inputs: Mapping[str, Volume]) -> Findings:
        if seat.process is not None and seat.process.dead:
            self._vacate(seat, "died while idle")
        if seat.process is None:
            seat.process = self._fresh()
            seat.process.name(model=job.model.name)
            self._load(seat.process, job)
        process, number = seat.process, seat.jobs + 1
        process.name(model=job.model.name)
        file, described = wire.pack({name: volume.with_array(np.asarray(volume.array, np.float32)) for name, volume in inputs.items()})
        try:
            process.send({"job": number, "inputs": described}, file)
        except EOFError:
            raise _died(process, job) from None
        finally:
            os.close(file)
        return _findings(_answer(process, job, number, "done"))

    def _load(self, process: Process, job: _Job) -> None:
        model, began = job.model, time.monotonic()
        asked = {
            "name": model.name,
            "folder": str(model.folder),
            "weights": str(model.weights_folder),
            "device": job.device,
            "threads": self._threads,
            "libraries": model.manifest.resources.libraries,
            "bf16": model.manifest.resources.bf16,
        }
        try:
            process.send(asked)
        except EOFError:
            raise _died(process, job) from None
        said = _answer(process, job, 0, "loaded").said
        _log.info(
            "model_loaded", model=model.name, device=job.device, pid=process.pid, took_s=round(time.monotonic() - began, 3), bf16=said.get("bf16")
        )


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _taken(seat: _Seat, canceled: Callable[[], bool]) -> Iterator[None]:
    while not seat.lock.acquire(timeout=_LOOK_EVERY_S):
        if canceled():
            raise Canceled("the job was canceled while it waited for its model")
    try:
        yield
    finally:
        seat.lock.release()


def _answer(process: Process, job: _Job, number: int, wanted: str) -> wire.Received:
    """Wait for one kind of answer, with an eye on the clock, the memory and the person who may cancel."""
    now = time.monotonic()
    deadline, look_at = now + job.timeout_s, now
    while True:
        try:
            received = process.receive(max(0.0, min(look_at, deadline) - now))
        except EOFError:
            raise _died(process, job) from None
        if received is not None:
            of_this_job = received.said.get("job", 0) == number
            if of_this_job and received.said.get("event") == wanted:
                return received
            if received.file >= 0:
                os.close(received.file)
            if of_this_job:
                _told(received.said, job)
        now = time.monotonic()
        if now >= deadline:
            raise _late(job, loading=wanted == "loaded")
        if now >= look_at:
            look_at = now + _LOOK_EVERY_S
            _look(process, job)


def _told(said: Mapping[str, Any], job: _Job) -> None:
    """Act on a message that is not the one waited for: progress, or the end."""
    match said.get("event"):
        case "progress":
            job.progress(float(said["fraction"]), str(said["sentence"]))
        case "unsuitable":
            raise Unsuitable(str(said["why"]), hint=str(said["hint"]))
        case "failed":
            raise ModelFailed(f"the model {said['why']}", hint="The log has the model's own output, with the traceback if it raised.")


def _look(process: Process, job: _Job) -> None:
    if job.canceled():
        raise Canceled("the job was canceled; the model's process was stopped")
    used_mb = process.used_mb()
    if used_mb > job.memory_mb:
        raise ModelFailed(
            f"the model used {used_mb:.0f} MB, more than its {job.memory_mb} MB; its process was stopped",
            hint=f"Raise memory_mb in [models.{job.model.name}] if this machine has the memory.",
        )


def _late(job: _Job, *, loading: bool) -> ModelFailed:
    did = "was not loaded within" if loading else "did not finish within"
    return ModelFailed(
        f"the model {did} its {job.timeout_s:g} s; its process was stopped",
        hint=f"Raise timeout_s in [models.{job.model.name}], or give the model a faster device.",
    )


def _died(process: Process, job: _Job) -> ModelFailed:
    return ModelFailed(f"the model's process {process.death(job.model.folder)}", hint="The log has the model's last output.")


def _findings(received: wire.Received) -> Findings:
    said: Mapping[str, Any] = received.said["findings"]
    segments = None
    if received.file >= 0:
        try:
            segments = wire.unpack_copied(received.file, received.said["segments"])
        except (ValueError, TypeError, KeyError) as error:
            raise ModelFailed(f"the model's segments cannot be read: {error}") from error
        finally:
            os.close(received.file)
    return Findings(
        segments=segments,
        measurements={name: {n: v for n, v in value} if isinstance(value, list) else value for name, value in said["measurements"].items()},
        evaluations=said["evaluations"],
        notes=tuple(said["notes"]),
    )
