"""The threads that fetch studies from archives: as many for each as it allows at once, and one that keeps their leases.

What is to be fetched stands in the ledger and is claimed there, so a process that is killed loses nothing: the lease ends, and the retrieval is
due again. It is COMPLETED when the node holds every instance that the archive says it has, whatever the archive says of the retrieval itself.
"""

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import structlog

from dicom_node.config import NodeConfig, Remote
from dicom_node.domain import Canceled, NodeError, PeerUnavailable, Retrieval, Transient, fault
from dicom_node.guard import credentials
from dicom_node.guard.web import WebLine
from dicom_node.query import wado
from dicom_node.query.asking import asking
from dicom_node.query.outcomes import Manner, Next, Outcome, Standing, may_fetch, outcome, series_to_ask, standing, wait_s
from dicom_node.query.retrieving import Fetched, Take, Wanted, fetch
from dicom_node.query.scu import Contents
from dicom_node.query.wado import Bring
from dicom_node.store import Listener, Store, Topic

_REST_AT_LEAST_S = 0.01

_log = structlog.get_logger()


class Fetching:
    """Fetches what is due from every remote with `retrieve`.

    The limit of retrievals at once is kept within one process: of several processes on one ledger, one should fetch.

    Raises
    ------
    ConfigError: a certificate or a passcode that a remote is called with cannot be read.
    """

    def __init__(
        self, config: NodeConfig, store: Store, clock: Callable[[], float], *, take: Take, bring: Bring, manner: Manner | None = None
    ) -> None:
        """Build it; take: makes durable what comes by C-GET; bring: what comes by HTTP."""
        self._store = store
        self._clock = clock
        self._manner = manner or Manner()
        self._stopping = threading.Event()
        self._listener: Listener | None = None
        self._threads: list[threading.Thread] = []
        owner = _Owner(config, store, clock, take, bring, self._manner, self._stopping)
        token = f"{socket.gethostname()[:32]}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._slots: list[_Slot] = []
        for name, remote in config.remotes.items():
            if remote.retrieve != "none":
                credentials(config.node, remote)  # so that they are known to be readable
                WebLine(name, remote).token()
                line = _Line()
                self._slots += [_Slot(owner, name, remote, line, f"{token}/{name[:20]}/{number}") for number in range(remote.retrieves_at_once)]

    def start(self) -> None:
        """Start fetching; what a crash left half fetched is taken up again as soon as its lease has ended.

        Raises
        ------
        Transient: the ledger does not answer.
        """
        self._store.retrievals.take_back(self._clock())
        self._listener = self._store.bell.listen(Topic.RETRIEVALS)
        self._threads = [threading.Thread(target=slot.run, name=f"fetch {slot.name}", daemon=True) for slot in self._slots]
        self._threads.append(threading.Thread(target=self._keep, args=(self._listener,), name="retrieval leases", daemon=True))
        for thread in self._threads:
            thread.start()

    def stop(self, patience_s: float = 10.0) -> None:
        """Cancel what is being fetched, put it back, and end; what takes longer than the patience is left to its lease."""
        self._stopping.set()
        if self._listener is not None:
            self._listener.wake()
        self._wake()
        until = time.monotonic() + patience_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    @property
    def alive(self) -> bool:
        """Whether every thread that was started still runs."""
        return all(thread.is_alive() for thread in self._threads)

    def _wake(self) -> None:
        for slot in self._slots:
            slot.woken.set()

    def _keep(self, listener: Listener) -> None:
        """Wake the fetchers when the bell rings; keep the leases of what is being fetched, and end what nobody wants any more."""
        look_at = 0.0
        while not self._stopping.is_set():
            if listener.wait(self._manner.beat_s):
                self._wake()
            try:
                for slot in self._slots:
                    slot.beat()
                if time.monotonic() >= look_at:
                    look_at = time.monotonic() + self._manner.lease_s / 3
                    self._store.retrievals.take_back(self._clock())
                    self._store.retrievals.lapse(self._clock())
            except Transient as error:  # it is tried again at the next beat; until then leases may end, and a study be asked for twice
                _log.warning("fetch.ledger_failed", why=str(error))
        listener.close()


@dataclass(frozen=True, slots=True)
class _Owner:
    config: NodeConfig
    store: Store
    clock: Callable[[], float]
    take: Take
    bring: Bring
    manner: Manner
    stopping: threading.Event


@dataclass(slots=True)
class _Line:
    """How it is to reach a remote, for all who fetch from it."""

    failures: int = 0  # in a row
    not_before: float = 0.0


@dataclass(slots=True)
class _Work:
    """A retrieval that is being fetched."""

    one: Retrieval
    there: Contents = field(default_factory=lambda: Contents(number=None))
    held: int = 0
    said: Fetched = field(default_factory=Fetched)
    is_lost: bool = False  # somebody canceled it, or its lease ended

    @property
    def expected(self) -> int | None:
        return len(self.there.instances) or self.there.number


class _Slot:
    """Fetches one study at a time from one remote."""

    def __init__(self, owner: _Owner, name: str, remote: Remote, line: _Line, who: str) -> None:
        self._owner = owner
        self._retrievals = owner.store.retrievals
        self._remote = remote
        self._line = line
        self._work: _Work | None = None
        self.name = name
        self.who = who
        self.woken = threading.Event()

    # ---------------------------------------------------------------------------------------------- called by the keeper

    def beat(self) -> None:
        """Look how much is here of what is being fetched, and keep its lease.

        Raises
        ------
        Transient: the ledger does not answer.
        """
        work = self._work
        if work is None or work.is_lost:
            return
        work.held = self._standing(work).held
        now, lease_s = self._owner.clock(), self._owner.manner.lease_s
        if not self._retrievals.renew(work.one, self.who, now=now, lease_s=lease_s, expected=work.expected, held=work.held, failed=work.said.failed):
            work.is_lost = True

    # ---------------------------------------------------------------------------------------------- called by its thread

    def run(self) -> None:
        """Fetch until the node stops."""
        while not self._owner.stopping.is_set():
            self.woken.clear()
            rest_s = self._owner.config.deliver.poll_s
            try:
                rest_s = 0.0 if self.turn() else self._rest_s()
            except Exception as error:  # the outermost loop of this thread: what was claimed is due again when its lease ends
                _log.error("fetch.failed", remote=self.name, reason=fault(error))
            if rest_s:
                self.woken.wait(rest_s)

    def turn(self) -> bool:
        """Fetch what is due next; say whether there was anything.

        Raises
        ------
        Transient: the ledger does not answer.
        """
        now = self._owner.clock()
        one = self._retrievals.claim(self.name, self.who, now=now, lease_s=self._owner.manner.lease_s, persons_only=self._persons_only(now))
        if one is None:
            return False
        work = self._work = _Work(one)
        try:
            self._fetch(work)
        except Canceled:
            if not work.is_lost:
                self._put_off(work, "the node stops", 0.0, counts=False)
        except PeerUnavailable as error:
            self._unreachable(work, error)
        except Transient as error:
            self._record(work, Outcome(next=Next.AGAIN, why=str(error)))
        except NodeError as error:
            hint = f"; {error.hint}" if error.hint else ""
            self._record(work, Outcome(next=Next.NEVER, why=f"{error}{hint}"))
        finally:
            self._work = None
        return True

    def _persons_only(self, now: float) -> bool:
        """Whether only what persons asked for is fetched now: by the hours, or because the remote does not answer."""
        return now < self._line.not_before or not may_fetch(self._remote.retrieve_hours, now)

    def _rest_s(self) -> float:
        now, longest_s = self._owner.clock(), self._owner.config.deliver.poll_s
        due = self._retrievals.next_due(self.name, persons_only=self._persons_only(now))
        return longest_s if due is None else min(max(due - now, _REST_AT_LEAST_S), longest_s)

    # ---------------------------------------------------------------------------------------------------------- fetching

    def _fetch(self, work: _Work) -> None:
        uid, node = work.one.study_instance_uid, self._owner.config.node
        shown = credentials(node, self._remote)
        with asking(self._remote, node, credentials=shown) as open_:
            work.there = open_.contents(uid)
        self._line.failures, self._line.not_before = 0, 0.0
        now = self._standing(work)
        if now.is_whole:
            self._record(work, Outcome(next=Next.END, why=f"all {now.expected} instances are here already"))
            return
        if work.expected == 0:
            self._record(work, Outcome(next=Next.AGAIN, why="it does not know the study"))
            return
        wanted = Wanted(study_instance_uid=uid, series_instance_uids=series_to_ask(work.there, now), there=work.there)
        started = time.monotonic()
        tend = partial(self._tend, work)
        if self._remote.retrieve == "web":
            work.said = wado.fetch(self._remote, wanted, bring=self._owner.bring, tend=tend)
        else:
            work.said = fetch(self._remote, node, wanted, credentials=shown, take=self._owner.take, tend=tend)
        self._settle(work)
        told = outcome(work.said, self._standing(work))
        if told.next is not Next.END and not self._may_send():
            told = Outcome(next=Next.NEVER, why=f'{told.why}; what it sends is refused: add "send" to the `may` of this remote')
        self._record(work, told, seconds=round(time.monotonic() - started, 3))

    def _may_send(self) -> bool:
        return self._remote.retrieve != "move" or self._owner.config.may(self._remote.ae.title, "send")

    def _standing(self, work: _Work) -> Standing:
        uid, store = work.one.study_instance_uid, self._owner.store
        if work.there.instances:
            return standing(work.there, self._retrievals.here(uid), 0)
        counted = len(self._retrievals.here(uid, results=False)) + store.deliveries.there(uid, self.name)
        return standing(work.there, frozenset(), counted)

    def _tend(self, work: _Work, so_far: Fetched) -> int:
        """Return how many instances are here.

        Raises
        ------
        Canceled: the node stops, or somebody canceled the retrieval.
        """
        work.said = so_far
        if work.is_lost or self._owner.stopping.is_set():
            raise Canceled("it is not wanted any more")
        return work.held

    def _settle(self, work: _Work) -> None:
        """Wait while instances come: the last response may be earlier than they are."""
        if self._remote.retrieve == "web" or work.said.status not in (0x0000, 0xB000):  # what comes by HTTP is here by its end
            return
        quiet_at, before = time.monotonic() + self._owner.manner.settle_s, -1
        while time.monotonic() < quiet_at and not self._owner.stopping.is_set():
            now = self._standing(work)
            if now.is_whole:
                return
            if now.held != before:
                before, quiet_at = now.held, time.monotonic() + self._owner.manner.settle_s
            self._owner.stopping.wait(min(0.2, self._owner.manner.settle_s / 4))

    # ---------------------------------------------------------------------------------------------------------- outcomes

    def _record(self, work: _Work, told: Outcome, **more: object) -> None:
        one, manner, attempt = work.one, self._owner.manner, work.one.attempts + 1
        now, held = self._owner.clock(), self._standing(work).held
        if told.next is Next.END:
            self._retrievals.finish(one, self.who, now=now, expected=work.expected or held, why=told.why)
            self._tell("query.fetched", work, instances=held, attempt=attempt, **more)
        elif told.next is Next.NEVER or attempt >= manner.attempts:
            reason = told.why if told.next is Next.NEVER else f"{told.why}; given up after {attempt} attempts"
            self._retrievals.give_up(one, self.who, now=now, reason=reason, expected=work.expected, held=held, failed=work.said.failed)
            self._tell("query.not_fetched", work, why=reason, attempt=attempt, **more)
        else:
            first_s = manner.slow_s if told.next is Next.SLOWLY else manner.backoff_s
            self._put_off(work, told.why, wait_s(attempt, first_s, max(first_s, manner.backoff_max_s), one.id))

    def _put_off(self, work: _Work, reason: str, for_s: float, *, counts: bool = True) -> None:
        now, held = self._owner.clock(), self._standing(work).held
        until = now + for_s
        self._retrievals.put_off(work.one, self.who, now=now, until=until, reason=reason, counts=counts, expected=work.expected, held=held)
        self._tell("query.put_off", work, why=reason, again_in_s=round(for_s, 1))

    def _unreachable(self, work: _Work, error: PeerUnavailable) -> None:
        """Leave a remote alone that cannot be reached, for longer and longer; that says nothing of the study, and does not count."""
        manner, now = self._owner.manner, self._owner.clock()
        self._line.failures += 1
        for_s = wait_s(self._line.failures, manner.backoff_s, manner.circuit_max_s, self.name)
        self._line.not_before = now + for_s
        if work.one.deadline is None and now - work.one.requested_at > manner.keep_trying_s:
            self._record(work, Outcome(next=Next.NEVER, why=f"{error}; it was tried for {manner.keep_trying_s / 3600:g} hours"))
        else:
            self._put_off(work, f"{error}; {error.hint}" if error.hint else str(error), for_s, counts=False)

    def _tell(self, event: str, work: _Work, **more: object) -> None:
        _log.info(event, study=work.one.study_instance_uid, retrieval=work.one.id, remote=self.name, how=self._remote.retrieve, **more)
