"""The place of one model on one device: its warm process, what is said to it, and the watch over it.

A process that failed in any way is never used again. A new one is forked, and loads the model, as soon as one is gone, so that the next job finds
it warm; one that dies again and again without finishing a job is given more and more time.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from socket import socketpair
from typing import Any

import structlog
from highdicom import Volume

from dicom_node.analyse import wire
from dicom_node.analyse.process import LACK_OF_MEMORY, Process
from dicom_node.config import Model
from dicom_node.domain import Canceled, Cause, Findings, ModelFailed, NodeError, Progress, Transient, Unsuitable, fault

_LOOK_EVERY_S = 0.2  # at the clock, the memory and whether the job was canceled
_LEAK_SHARE = 0.25  # of the memory limit: a process that has grown by so much since its first job is replaced
_LEAVE_S = 5.0  # so long a closing seat waits for a thread to notice that its process is gone
_REST_MAX_S = 60.0  # between attempts to bring a model back that dies without a job
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What one call of `Pool.run` asks for, beside its images."""

    model: Model
    device: str
    timeout_s: float
    memory_mb: int
    progress: Progress
    canceled: Callable[[], bool]


class Seat:
    """One job at a time sits in it.

    fresh: gives a process without a model, within the task's time.
    threads: of the model's numerical libraries.
    """

    def __init__(self, fresh: Callable[[Task], Process], threads: int) -> None:
        self._fresh = fresh
        self._threads = threads
        self._lock = threading.Lock()
        self._process: Process | None = None
        self._at_rest_mb: float | None = None  # after its first job
        self._jobs = 0
        self._closed = False
        self._loaded: Task | None = None  # what the last process was loaded for
        self._lost = 0  # processes, since a job was done
        self._back_at = 0.0  # not before this moment of the monotonic clock is a process brought back
        self._ear, self._hand = socketpair()
        self._ear.setblocking(False)
        self._keeper = threading.Thread(target=self._keep, name="model keeper", daemon=True)
        self._keeper.start()

    @contextlib.contextmanager
    def taken(self, canceled: Callable[[], bool]) -> Iterator[None]:
        """Wait for the seat, and sit in it.

        Raises
        ------
        Canceled: `canceled` said so while the job waited.
        """
        while not self._lock.acquire(timeout=_LOOK_EVERY_S):
            if canceled():
                raise Canceled("the job was canceled while it waited for its model")
        try:
            yield
        finally:
            self._lock.release()
            self._poke()

    def analyse(self, task: Task, inputs: Mapping[str, Volume]) -> Findings:
        """Let the model analyse, in its warm process or in a new one; whoever calls it sits in the seat.

        Raises
        ------
        Unsuitable, ModelFailed, Canceled, Transient: as `Pool.run`.
        """
        try:
            found = self._analyse(task, inputs)
        except Unsuitable:
            raise
        except BaseException as error:
            self._vacate(str(error) or type(error).__name__)
            if self._closed:
                raise Transient("the analysis was stopped because the node is stopping") from error
            raise
        self._lost = 0
        self._renew_leaking(task)
        return found

    def close(self) -> None:
        """End the process; an analysis that still runs raises Transient."""
        self._closed = True
        process = self._process
        if process is not None:
            process.kill()  # whoever waits for it sees it die, and leaves the seat
        self._poke()
        self._keeper.join(_LEAVE_S)
        if self._lock.acquire(timeout=_LEAVE_S):
            self._vacate("the node is stopping")
            self._lock.release()
        self._ear.close()
        self._hand.close()

    # ------------------------------------------------------------------------------------------------- the process

    def _vacate(self, why: str) -> None:
        if self._process is not None:
            self._process.stop()
            _log.info("model_process_ended", pid=self._process.pid, why=why, jobs=self._jobs)
            self._put_off()
        self._process, self._at_rest_mb, self._jobs = None, None, 0

    def _put_off(self) -> None:
        """Decide when the keeper may bring the model back: at once after a job that was done, else later and later."""
        self._back_at = time.monotonic() + (min(2.0 ** min(self._lost - 1, 30), _REST_MAX_S) if self._lost else 0.0)
        self._lost += 1

    def _renew_leaking(self, task: Task) -> None:
        """Replace a process that keeps more and more memory, before a job has to die of it."""
        if self._process is None:
            return
        self._jobs += 1
        used_mb = self._process.used_mb()
        self._at_rest_mb = used_mb if self._at_rest_mb is None else self._at_rest_mb
        if used_mb > task.memory_mb or used_mb - self._at_rest_mb > _LEAK_SHARE * task.memory_mb:
            self._vacate(f"keeps {used_mb:.0f} MB after its job, {self._at_rest_mb:.0f} MB after its first")

    def _warm(self, task: Task) -> Process:
        """Return the process with the model loaded."""
        if self._process is not None and self._process.dead:
            self._vacate("died while idle")
        if self._process is None:
            self._process = self._fresh(task)
            if self._closed:
                raise Transient("the node is stopping")
            self._process.name(model=task.model.name)
            self._load(self._process, task)
            self._loaded = replace(task, progress=lambda *_: None, canceled=lambda: self._closed)
        return self._process

    # -------------------------------------------------------------------------------------------- the keeper's thread

    def _keep(self) -> None:
        """Bring the model back whenever its process is gone and no job sits here; a job brings it back by itself."""
        while not self._closed:
            process, idle = self._process, not self._lock.locked()
            sentinel = process.sentinel if process is not None and idle else -1
            rest_s = max(0.0, self._back_at - time.monotonic()) if process is None and idle and self._loaded is not None else None
            wait([self._ear, *([sentinel] if sentinel >= 0 else ())], rest_s)
            with contextlib.suppress(BlockingIOError):
                self._ear.recv(64)
            self._restore()

    def _restore(self) -> None:
        task = self._loaded
        if task is None or self._closed or not self._lock.acquire(blocking=False):
            return
        try:
            if self._process is not None and self._process.dead:
                self._vacate("died while idle")
            if self._process is None and time.monotonic() >= self._back_at:
                self._warm(task)
        except Exception as error:  # the outermost frame of this thread's work: whatever it is, the next job meets it again, and tells of it
            _log.warning("model_not_back", model=task.model.name, why=str(error) if isinstance(error, NodeError) else fault(error))
            self._vacate("it could not be brought back")
            self._put_off()
        finally:
            self._lock.release()

    def _poke(self) -> None:
        with contextlib.suppress(OSError):  # closed
            self._hand.send(b"!")

    # ------------------------------------------------------------------------------------------------- the conversation

    def _analyse(self, task: Task, inputs: Mapping[str, Volume]) -> Findings:
        process = self._warm(task)
        number = self._jobs + 1
        process.name(model=task.model.name)
        file, described = wire.pack(inputs)
        try:
            process.send({"job": number, "inputs": described, "without": [n for n in task.model.manifest.priors if n not in inputs]}, file)
        except EOFError:
            raise _died(process, task) from None
        finally:
            os.close(file)
        return _findings(_answer(process, task, number, "done"))

    def _load(self, process: Process, task: Task) -> None:
        model, began = task.model, time.monotonic()
        asked = {
            "name": model.name,
            "folder": str(model.folder),
            "weights": str(model.weights_folder),
            "device": task.device,
            "threads": self._threads,
            "libraries": model.manifest.resources.libraries,
            "bf16": model.manifest.resources.bf16,
            "fractional": model.manifest.fractional is not None,
        }
        try:
            process.send(asked)
        except EOFError:
            raise _died(process, task) from None
        said = _answer(process, task, 0, "loaded").said
        _log.info(
            "model_loaded", model=model.name, device=task.device, pid=process.pid, took_s=round(time.monotonic() - began, 3), bf16=said.get("bf16")
        )


def _answer(process: Process, task: Task, number: int, wanted: str) -> wire.Received:
    """Wait for one kind of answer, with an eye on the clock, the memory and the person who may cancel."""
    now = time.monotonic()
    deadline, look_at = now + task.timeout_s, now
    while True:
        try:
            received = process.receive(max(0.0, min(look_at, deadline) - now))
        except EOFError:
            raise _died(process, task) from None
        if received is not None:
            of_this_job = received.said.get("job", 0) == number
            if of_this_job and received.said.get("event") == wanted:
                return received
            if received.file >= 0:
                os.close(received.file)
            if of_this_job:
                _told(received.said, task)
        now = time.monotonic()
        if now >= deadline:
            raise _late(task, loading=wanted == "loaded")
        if now >= look_at:
            look_at = now + _LOOK_EVERY_S
            _look(process, task)


def _told(said: Mapping[str, Any], task: Task) -> None:
    """Act on a message that is not the one waited for: progress, or the end."""
    match said.get("event"):
        case "progress":
            task.progress(float(said["fraction"]), str(said["sentence"]))
        case "unsuitable":
            raise Unsuitable(str(said["why"]), hint=str(said["hint"]), cause=_cause(said, Cause.TYPES))
        case "failed":
            hint = "The log has the model's own output, with the traceback if it raised."
            raise ModelFailed(f"the model {said['why']}", hint=hint, cause=_cause(said, Cause.EQUIPMENT))


def _cause(said: Mapping[str, Any], otherwise: Cause) -> Cause:
    """Return what the model's process says was in the way, where it says something that is known."""
    return Cause(said["cause"]) if said.get("cause") in tuple(Cause) else otherwise


def _look(process: Process, task: Task) -> None:
    if task.canceled():
        raise Canceled("the job was canceled; the model's process was stopped")
    used_mb = process.used_mb()
    if used_mb > task.memory_mb:
        raise ModelFailed(
            f"the model used {used_mb:.0f} MB, more than its {task.memory_mb} MB; its process was stopped",
            hint=f"Raise memory_mb in [models.{task.model.name}] if this machine has the memory.",
            cause=Cause.RESOURCE,
        )


def _late(task: Task, *, loading: bool) -> ModelFailed:
    did = "was not loaded within" if loading else "did not finish within"
    return ModelFailed(
        f"the model {did} its {task.timeout_s:g} s; its process was stopped",
        hint=f"Raise timeout_s in [models.{task.model.name}], or give the model a faster device.",
        cause=Cause.RESOURCE,
    )


def _died(process: Process, task: Task) -> ModelFailed:
    how = process.death(task.model.folder)
    cause = Cause.RESOURCE if LACK_OF_MEMORY in how else Cause.EQUIPMENT
    return ModelFailed(f"the model's process {how}", hint="The log has the model's last output.", cause=cause)


def _findings(received: wire.Received) -> Findings:
    said: Mapping[str, Any] = received.said["findings"]
    volumes: dict[str, Volume] = {}
    if received.file >= 0:
        try:
            volumes = {name: wire.unpack_copied(received.file, one) for name, one in received.said["volumes"].items()}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ModelFailed(f"the model's segments or images cannot be read: {error}") from error
        finally:
            os.close(received.file)
    try:
        presentations = {name: wire.seen(one) for name, one in said["presentations"].items()}
    except (ValueError, TypeError, KeyError) as error:
        raise ModelFailed(f"the model's presentations cannot be read: {error}") from error
    return Findings(
        segments=volumes.pop(wire.SEGMENTS, None),
        images=_named(wire.IMAGE, volumes),
        maps=_named(wire.MAP, volumes),
        measurements={name: {n: v for n, v in value} if isinstance(value, list) else value for name, value in said["measurements"].items()},
        evaluations=said["evaluations"],
        presentations=presentations,
        keys={name: tuple(indices) for name, indices in said["keys"].items()},
        notes=tuple(said["notes"]),
    )


def _named(kind: str, volumes: Mapping[str, Volume]) -> dict[str, Volume]:
    return {name.removeprefix(kind): volume for name, volume in volumes.items() if name.startswith(kind)}
