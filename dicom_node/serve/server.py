"""The listening process: builds the rooms that listen, send and decide, joins them, and owns nothing. It never reaches torch.

What arrives goes through `receive` into the ledger; the clock asks `assemble` whether a study is whole and `route` what to make of it;
`deliver` sends what the analysing process made. That process is started and kept alive from here.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import structlog

from dicom_node.config import Site
from dicom_node.deliver import Committer, Deliverer
from dicom_node.notify import Raiser, Tellers
from dicom_node.query.counting import Ask, Counting
from dicom_node.query.fetching import Fetching
from dicom_node.receive import Reporter, recovered
from dicom_node.schedule import Ticks, retire, take_back
from dicom_node.serve.bringing import bringing
from dicom_node.serve.joining import managing, receiver, seeking, taking, without_ours
from dicom_node.serve.judging import Judge, Witnesses
from dicom_node.serve.performing import Performing
from dicom_node.serve.requesting import Requesting
from dicom_node.store import Store
from dicom_node.worklist import Hl7Listener, Inquirer, Notifier, Pulling, Reporting

log = structlog.get_logger()

_TAKE_BACK_EVERY_S = 2.0
_RETIRE_EVERY_S = 600.0
_BACK_AFTER_S = 1.0  # a process that ended is started again; doubles while it does not last
_BACK_AFTER_MAX_S = 60.0
_LASTS_S = 10.0
_GRACE_S = 10.0


class _Going(Protocol):
    """What goes on in threads of its own."""

    @property
    def alive(self) -> bool: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...


class Server:
    """The node as it listens."""

    def __init__(
        self,
        site: Site,
        store: Store,
        *,
        work_command: Sequence[str] = (),
        receive_command: Sequence[str] = (),
        web_command: Sequence[str] = (),
        clock: Callable[[], float] = time.time,
        count: Ask | None = None,
    ) -> None:
        """Build it; count: asks a remote how many instances of a study it has."""
        self._site = site
        self._store = store
        self._clock = clock
        self._receiver = receiver(site, store, clock)
        self._counting = Counting(without_ours(count, store), clock) if count is not None else None
        manager = managing(site, store, clock)
        self._fetching = Fetching(site.config, store, clock, take=taking(site.config, store, clock), bring=bringing(site, store, clock))
        self._going: tuple[_Going, ...] = (
            Judge(site, store, clock, Witnesses(counting=self._counting, presence=self._receiver.presence)),
            Deliverer(site.config, store, clock=clock),
            Committer(site.config, store, clock),
            Reporter(site.config, store, clock),
            Notifier(site.config, store, clock),
            Inquirer(site.config, store, clock),
            Reporting(site.config, manager, store, clock),
            Performing(site, store, manager, clock),
            Pulling(site.config, manager, store, clock),
            self._fetching,
            *([Hl7Listener(site.config, Requesting(manager, store, clock).request, clock)] if site.config.hl7.port is not None else []),
            *([Tellers(site.config, store, clock)] if site.config.notify else []),
            *([Raiser(site.config, store, manager.reading, clock)] if site.config.triage else []),
            *([seeking(site, store, clock)] if any(rule.priors for rule in site.config.rules) else []),
        )
        self._ticks = Ticks()
        self._work = _Kept("analysing", work_command) if work_command and site.config.work.start else None
        self._web = _Kept("web", web_command) if web_command and site.config.web.start else None
        self._receive_command = receive_command
        self._receivers: list[_Kept] = []  # beside this process, on the same port

    @property
    def _beside(self) -> tuple["_Kept", ...]:
        """The processes that do what this one must not wait for."""
        return tuple(process for process in (self._work, self._web) if process is not None)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._receiver.port

    @property
    def healthy(self) -> bool:
        """Whether every thread that has to go on goes on; when not, the process is better started anew, which loses nothing."""
        return all(one.alive for one in self._going)

    def start(self) -> None:
        """Put in order what a crash left, then listen, decide, send, and start the analysing process.

        Raises
        ------
        ConfigError: the port cannot be listened on.
        """
        moved, recorded, removed = self._store.instances.sweep(recovered)
        buried = self._store.studies.bury()
        taken = take_back(self._store, self._site.config.work, self._clock())
        log.info("swept", moved=moved, recorded=recorded, unacknowledged=removed, buried=buried, taken_back=taken)
        self._receiver.start()
        self._start_receivers()
        for one in self._going:
            one.start()
        for process in self._beside:
            process.start()
        self._ticks.every(_TAKE_BACK_EVERY_S, lambda: take_back(self._store, self._site.config.work, self._clock()), "leases")
        self._ticks.every(_RETIRE_EVERY_S, self._retire, "retention")
        self._ticks.start()
        node = self._site.config.node
        log.info(
            "serving", ae_title=node.ae_title, host=node.host, port=self.port, models=sorted(self._site.models), rules=len(self._site.config.rules)
        )

    def stop(self) -> None:
        """Take no more associations, let those under way finish, and end."""
        self._fetching.stop()  # before those who receive what it asked for
        for process in self._receivers:
            process.close()
        self._receiver.stop(_GRACE_S)
        for process in self._receivers:
            process.stop()
        for process in self._beside:
            process.stop()
        for one in self._going:
            if one is not self._fetching:
                one.stop()
        if self._counting is not None:
            self._counting.stop()
        self._ticks.stop()
        log.info("stopped")

    def _retire(self) -> None:
        config = self._site.config
        retire(self._store, config.node.retain_days, self._clock(), config.committing)

    def _start_receivers(self) -> None:
        """Start the processes that receive beside this one: the kernel shares connections out among those that listen on the port."""
        if self._receive_command:
            command = [*self._receive_command, "--port", str(self.port)]
            self._receivers = [_Kept("receiving", command) for _ in range(self._site.config.node.receivers - 1)]
        for process in self._receivers:
            process.start()


class _Kept:
    """A process that is started again when it ends, and that ends when this one does: its standard input closes."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self._name = name
        self._command = list(command)
        self._process: subprocess.Popen[Any] | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=name, daemon=True)

    def start(self) -> None:
        self._spawn()
        self._thread.start()

    def close(self) -> None:
        """Ask it to end, and go on."""
        self._stopping.set()
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        self.close()
        process = self._process
        if process is not None:
            try:
                process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._thread.join()

    def _spawn(self) -> None:
        self._process = subprocess.Popen([sys.executable, "-m", "dicom_node", *self._command], stdin=subprocess.PIPE)

    def _keep(self) -> None:
        back_after_s = _BACK_AFTER_S
        while not self._stopping.is_set():
            began = time.monotonic()
            code = self._process.wait() if self._process is not None else None
            lasted = time.monotonic() - began > _LASTS_S
            back_after_s = _BACK_AFTER_S if lasted else back_after_s
            if self._stopping.wait(back_after_s):
                return
            back_after_s = min(2 * back_after_s, _BACK_AFTER_MAX_S)
            log.error(f"the {self._name} process ended and is started again", code=code)
            try:
                self._spawn()
            except OSError as error:
                self._process = None
                log.error(f"the {self._name} process cannot be started; it is tried again", reason=error.strerror)
