"""The threads that take work from other managers' worklists: this node as an IHE AIW-I Task Performer, pull and triggered pull (50.4.2).

Each looks through one worklist, and claims what is this node's. Who is told of events looks at once when there is something new, and looks through
all of it when it was out of touch, for events are not sent twice. A manager that cannot be reached is asked later, and nothing is given up for that.
"""

import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from pydicom import Dataset

from dicom_node.config import NodeConfig, Remote
from dicom_node.domain import Channel, ConfigError, EventReport, JobState, NodeError, PeerUnavailable, Refused, Rejected, ReportKind, Workitem, fault
from dicom_node.store import Listener, Store, Topic
from dicom_node.worklist.ups.asking import DimseManager, ForeignManager
from dicom_node.worklist.ups.asking_web import WebManager
from dicom_node.worklist.ups.attributes import hidden, model_of, priority_of, readiness_of, start_of, study_of
from dicom_node.worklist.ups.manager import Manager
from dicom_node.worklist.ups.mirroring import Mirror
from dicom_node.worklist.ups.suiting import codes, declined, may_be_new, uids
from dicom_node.worklist.waits import unreached_s

_LOOK_S = 0.1  # at least, between two looks: the bell rings for every change of a workitem
_SUBSCRIBE_EVERY_S = 3600.0  # a manager that has forgotten its subscribers does not say so
_REMEMBERED = 10_000  # steps that were declined, so that it is told once why
_HEARD_AT_ONCE = 200

_log = structlog.get_logger()


class Pulling:
    """Takes work from every remote with `tasks`, and brings to their end what was taken from any."""

    def __init__(self, config: NodeConfig, ours: Manager, store: Store, clock: Callable[[], float] = time.time) -> None:
        """Build it; ours: this node's own manager, for how it names itself and gives up."""
        self._config = config
        self._store = store
        self._clock = clock
        self._stopping = threading.Event()
        owed = {item.manager for item, _ in store.workitems.mirrored()}
        names = [name for name, remote in config.remotes.items() if remote.tasks != "none" or name in owed]
        self._unknown = owed - set(config.remotes)
        self._pullers = [_Puller(name, config, ours, store, clock, self._stopping) for name in names]
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start looking."""
        self._let_go()
        for one in self._pullers:
            one.listen()
        self._threads = [threading.Thread(target=one.run, name=f"tasks of {one.name}", daemon=True) for one in self._pullers]
        for thread in self._threads:
            thread.start()

    def stop(self, patience_s: float = 10.0) -> None:
        """End; a request under way whose answer takes longer than the patience is cut off, and made again."""
        self._stopping.set()
        for one in self._pullers:
            one.wake()
        until = time.monotonic() + patience_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        for one in self._pullers:
            one.cut()
        for thread in self._threads:
            thread.join(patience_s)
        for one in self._pullers:
            one.close()

    @property
    def alive(self) -> bool:
        """Whether every thread that was started still runs."""
        return all(thread.is_alive() for thread in self._threads)

    def _let_go(self) -> None:
        """Settle what was taken from a manager that is no remote any more: nobody could be told how it ended."""
        for item, _ in self._store.workitems.mirrored():
            if item.manager in self._unknown:
                _log.warning("tasks.manager_unknown", of=item.manager, workitem=item.uid)
                self._store.workitems.settle(item.uid, now=self._clock(), reason=f"its manager {item.manager} is no longer configured")


class _Puller:
    """Takes work from one manager, in a thread of its own."""

    def __init__(self, name: str, config: NodeConfig, ours: Manager, store: Store, clock: Callable[[], float], stopping: threading.Event) -> None:
        self.name = name
        self._config = config
        self._store = store
        self._clock = clock
        self._stopping = stopping
        self._codes = codes(config)
        self._theirs = self._manager()
        self._mirror = Mirror(name, config, ours, store, self._theirs, clock)
        self._listener: Listener | None = None
        self._failures, self._not_before = 0, 0.0  # to reach it, in a row
        self._deaf, self._subscribe_at = 0, 0.0  # subscriptions that failed, in a row; when it is subscribed to (again)
        self._subscribe_not_before = 0.0
        self._search_at = 0.0
        self._is_full = False  # whether the last search left something, for want of hands
        self._new: set[str] = set()  # steps that were heard of
        self._declined: dict[tuple[str, str], None] = {}

    @property
    def _remote(self) -> Remote:
        return self._config.remotes[self.name]

    def _manager(self) -> ForeignManager:
        if self._remote.web_url:
            return WebManager(self.name, self._remote, self._config.node.ae_title, self._hear, self._out_of_touch)
        return DimseManager(self.name, self._config)

    # ------------------------------------------------------------------------------------------------------------ the thread

    def listen(self) -> None:
        """Hear the bell from now on."""
        self._listener = self._store.bell.listen(Topic.WORKITEMS)

    def run(self) -> None:
        """Take turns until the node stops."""
        while not self._stopping.is_set():
            try:
                self.turn()
            except (PeerUnavailable, ConfigError) as error:  # or what it is asked with cannot be read
                self._unreachable(error)
            except Exception as error:  # the outermost loop of this thread: what is to be done stands in the ledger, and is looked at again
                _log.error("tasks.failed", of=self.name, why=fault(error))
            self._stopping.wait(_LOOK_S)
            if self._listener is not None and not self._stopping.is_set():
                self._listener.wait(min(self._config.deliver.poll_s, self._remote.tasks_every_s))

    def wake(self) -> None:
        """End its wait."""
        if self._listener is not None:
            self._listener.wake()

    def cut(self) -> None:
        """End its connections, so that it stops waiting."""
        self._theirs.cut()

    def close(self) -> None:
        """Hear the bell no more."""
        if self._listener is not None:
            self._listener.close()

    def turn(self) -> None:
        """Do what is due: hear, subscribe, tell, check, search, claim.

        Raises
        ------
        PeerUnavailable: the manager cannot be reached, or does not answer.
        Transient: the ledger does not answer.
        """
        self._listen_to_reports()
        if self._clock() < self._not_before:
            return
        try:
            self._subscribe()
            self._tell()
            self._look()
            self._failures = 0
        finally:
            self._theirs.close()

    def _tell(self) -> None:
        is_due = self._clock() >= self._search_at
        for item in self._mirror.items():
            if self._stopping.is_set():
                return
            if is_due or item.uid in self._new:
                self._mirror.check(item)
            current = self._store.workitems.get(item.uid)
            if current is not None and current.ended_at is None:
                self._mirror.tell(current)

    def _unreachable(self, error: NodeError) -> None:
        self._failures += 1
        self._not_before = self._clock() + unreached_s(self._failures, self._config.deliver)
        self._subscribe_at = self._search_at = 0.0  # events may have been missed
        _log.warning("tasks.unreached", of=self.name, why=str(error), hint=error.hint, failures=self._failures)

    # ---------------------------------------------------------------------------------------------------------------- events

    def _hear(self, uid: str, kind: ReportKind, facts: Mapping[str, Any]) -> None:
        """Keep what the channel says, as if it had come over DIMSE."""
        self._store.subscriptions.hear(self._remote.ae.title, uid, kind, facts, now=self._clock())

    def _out_of_touch(self) -> None:
        """Look at once: the channel has closed."""
        self.wake()

    def _listen_to_reports(self) -> None:
        """Take in what was heard; what asks this node to stop is done at once, the rest when the manager is asked."""
        title = self._remote.ae.title
        while heard := self._store.subscriptions.waiting(title, Channel.HEARD, limit=_HEARD_AT_ONCE):
            for one in heard:
                self._take_in(one)
            self._store.subscriptions.told([one.id for one in heard])

    def _take_in(self, one: EventReport) -> None:
        if one.kind is ReportKind.CANCEL_REQUESTED:
            reason = str(one.facts.get("reason") or "")
            self._mirror.stop(one.workitem_uid, f"{self.name} asks for it" + (f": {reason}" if reason else ""))
        elif one.kind is ReportKind.SCP_STATUS:
            self._subscribe_at = self._search_at = 0.0
        elif one.kind is not ReportKind.PROGRESS and (may_be_new(one.facts) or self._store.workitems.get(one.workitem_uid) is not None):
            self._new.add(one.workitem_uid)

    def _subscribe(self) -> None:
        """Subscribe to all events where that is due; then everything is searched, for what happened before was not reported."""
        now = self._clock()
        is_due = now >= self._subscribe_not_before and (now >= self._subscribe_at or not self._theirs.listens)
        if self._remote.tasks != "triggered" or not is_due:
            return
        try:
            self._theirs.subscribe()
        except (Rejected, PeerUnavailable) as error:
            if isinstance(error, PeerUnavailable) and not self._remote.web_url:
                raise
            self._deaf += 1
            self._subscribe_not_before = now + unreached_s(self._deaf, self._config.deliver)
            _log.warning("tasks.not_subscribed", of=self.name, why=str(error), hint=error.hint, failures=self._deaf)
            return
        self._deaf, self._subscribe_not_before = 0, now + self._config.deliver.backoff_s  # one that always closes its channel
        self._subscribe_at, self._search_at = now + _SUBSCRIBE_EVERY_S, 0.0
        _log.info("tasks.subscribed", of=self.name)

    # ----------------------------------------------------------------------------------------------------------- what is new

    def _look(self) -> None:
        """Claim what is this node's: of all that waits where that is due, else of what was heard of; HIGH first, then by its start."""
        if self._remote.tasks == "none":
            return
        now, free = self._clock(), self._free_hands()
        named = sorted(self._new)
        if now >= self._search_at or (self._is_full and free > 0):
            found = uids(self._theirs.search(self._codes))
            self._search_at = now + self._remote.tasks_every_s
            named = list(dict.fromkeys(found + named))
        new = [one for one in named if self._store.workitems.get(one) is None]
        self._is_full = False
        for one in new:
            if self._stopping.is_set():
                return
            if free <= 0:
                self._is_full = True
                break
            free -= self._consider(one)
        self._new.clear()

    def _free_hands(self) -> int:
        """Return how many more steps may be claimed: what waits here others could do."""
        going = [item for item in self._mirror.items() if item.state not in (JobState.COMPLETED, JobState.CANCELED)]
        return 2 * self._config.work.at_once - len(going)

    def _consider(self, uid: str) -> bool:
        """Claim a step if it is this node's; say whether a hand is on it now."""
        said = self._theirs.get(uid)
        if said is None:
            return False
        why = declined(said, self._config, self._store.retrievals.here, self._clock())
        if why:
            self._decline(uid, why)
            return False
        try:
            item = self._written(uid, said)
        except Refused as error:  # it cannot be kept: those behind it are looked at all the same
            self._decline(uid, str(error))
            return False
        if item is not None:
            self._mirror.claim(item)
        return item is not None

    def _decline(self, uid: str, why: str) -> None:
        if (uid, why) in self._declined:
            return
        self._declined[uid, why] = None
        if len(self._declined) > _REMEMBERED:
            del self._declined[next(iter(self._declined))]
        _log.info("tasks.declined", of=self.name, workitem=uid, why=why)

    def _written(self, uid: str, said: Dataset) -> Workitem | None:
        """Write the row of a step that is about to be claimed; None when there is one.

        Raises
        ------
        Refused: it cannot be kept.
        """
        now = self._clock()
        item = Workitem(
            uid=uid,
            state=JobState.SCHEDULED,
            priority=priority_of(said),
            attributes=model_of(hidden(said)),
            study_instance_uid=study_of(said),
            requester=self.name,
            transaction_uid=f"2.25.{uuid.uuid4().int}",  # a key, so it is drawn: who could derive it could end the step
            manager=self.name,
            readiness=readiness_of(said),
            scheduled_at=start_of(said),
        )
        return item if self._store.workitems.create(item, now=now, why=f"{self.name} has work for this node") else None
