"""Warm processes, one for each model build and device, forked from processes that have the models' libraries."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from highdicom import Volume

from dicom_node.analyse.contract import settle
from dicom_node.analyse.forkserver import AVAILABLE, ForkServer, libraries_of
from dicom_node.analyse.process import Process
from dicom_node.analyse.seat import Seat, Task
from dicom_node.analyse.weights import require_weights
from dicom_node.config import Model
from dicom_node.domain import Canceled, Cause, Findings, ModelFailed, Progress, Transient

_LOOK_EVERY_S = 0.2  # at the clock and whether the job was canceled, while libraries are imported


class Pool:
    """Runs analyses in processes of their own; safe to call from several threads.

    threads: for each process's numerical libraries; 0: as many as there are processors.
    """

    def __init__(self, threads: int = 0) -> None:
        self._threads = threads or _processors()
        self._seats: dict[tuple[str, str], Seat] = {}
        self._servers: dict[tuple[str, ...], ForkServer] = {}  # by the libraries that they have
        self._lock = threading.Lock()
        self._closed = False
        # Linux ends a process with the thread that started it (PR_SET_PDEATHSIG): this one lives as long as the pool.
        self._launcher = ThreadPoolExecutor(max_workers=1, thread_name_prefix="launcher")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def expect(self, model: Model) -> None:
        """Begin to import what a model needs, so that its first process, too, starts without the seconds that takes.

        Raises
        ------
        Transient: no process could be started.
        """
        if AVAILABLE:
            self._server(model)

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

        The model sees arrays (slice × row × column, float32, or int16 where the input asks for it) and affines (patient coordinates, LPS) and
        nothing else. `timeout_s` is for the analysis; loading the model may take as long again. Jobs of one model on one device wait for each other.

        Raises
        ------
        Unsuitable: the model declines the input.
        ModelFailed: the model raised, hung, overran its memory, died, or returned what its manifest does not describe.
        Canceled: `canceled` said so while the job waited or ran.
        Transient: the pool was closed.
        """
        require_weights(model)
        task = Task(model=model, device=device, timeout_s=timeout_s, memory_mb=memory_mb, progress=progress, canceled=canceled)
        with self._lock:
            if self._closed:
                raise Transient("the node is stopping")
            seat = self._seats.get((model.build, device)) or self._seats.setdefault((model.build, device), Seat(self._fresh, self._threads))
        with seat.taken(canceled):
            found = seat.analyse(task, inputs)
        return settle(found, model.manifest, inputs)

    def close(self) -> None:
        """End every process; analyses that still run raise Transient."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        for seat in self._seats.values():
            seat.close()
        for server in self._servers.values():
            server.stop()
        self._launcher.shutdown()

    # ------------------------------------------------------------------------------------------------------ processes

    def _fresh(self, task: Task) -> Process:
        """Return a process without a model, forked where that can be."""
        if AVAILABLE and self._ready(server := self._server(task.model), task):
            with contextlib.suppress(EOFError), _limits_of_the_machine():  # it died at this moment; the next process comes from its successor
                return Process.forked(server)
        with _limits_of_the_machine():
            return self._launcher.submit(Process.started, self._threads).result()

    def _server(self, model: Model) -> ForkServer:
        """Return the process that has a model's libraries, or will have them soon."""
        libraries = libraries_of(model.folder, model.manifest.resources.libraries, model.build)
        with self._lock, _limits_of_the_machine():
            if self._closed:
                raise Transient("the node is stopping")
            server = self._servers.get(libraries)
            if server is not None and server.lost:
                server.stop()
                server = None
            if server is None:
                server = self._servers[libraries] = self._launcher.submit(ForkServer, self._threads, libraries).result()
            return server

    def _ready(self, server: ForkServer, task: Task) -> bool:
        """Wait until a server has its libraries, as long as loading the model may take; say whether it can fork."""
        until = time.monotonic() + task.timeout_s
        while (fit := server.fit(_LOOK_EVERY_S)) is None:
            if task.canceled():
                raise Canceled("the job was canceled while the model's libraries were imported")
            if time.monotonic() >= until:
                late = f"the model's libraries were not imported within its {task.timeout_s:g} s"
                raise ModelFailed(late, hint="Raise its timeout_s.", cause=Cause.RESOURCE)
        return fit


@contextlib.contextmanager
def _limits_of_the_machine() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Transient(f"no process could be started for the model: {error.strerror}", hint="Look at this machine's limits.") from error


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
