"""The threads that tell others which results exist and where: Instance Availability Notification, as SCU (PS3.4 Annex R).

What is to be told stands in the ledger before it is told, under a UID that is the same at every attempt: a remote that has taken it answers that it
knows it already, and that counts as told. A remote that cannot be reached is told later, and that never counts.
"""

import threading
import time
from collections.abc import Callable

import structlog
from pydicom import Dataset
from pynetdicom.association import Association

from dicom_node.config import NodeConfig, Remote
from dicom_node.domain import Announcement, PeerUnavailable, fault
from dicom_node.guard import credentials
from dicom_node.store import Store
from dicom_node.wire import UNCOMPRESSED, Credentials, peer
from dicom_node.worklist import ian
from dicom_node.worklist.waits import later_s, unreached_s

_SINCE_S = 7 * 86400.0  # jobs that ended before are not told of: a remote that is new need not hear of all that there ever was
_MARGIN_S = 30.0  # beyond a peer's time-out: what is not on record as told by then is told again

_log = structlog.get_logger()


class Notifier:
    """Tells every remote with `notify`, one notification at a time each."""

    def __init__(self, config: NodeConfig, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._stopping = threading.Event()
        names = [name for name, remote in config.remotes.items() if remote.notify]
        self._tellers = [_Teller(config, store, clock, name, credentials(config.node, config.remotes[name]), self._stopping) for name in names]
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start telling."""
        self._threads = [threading.Thread(target=one.run, name=f"notification {one.name}", daemon=True) for one in self._tellers]
        for thread in self._threads:
            thread.start()

    def stop(self, patience_s: float = 10.0) -> None:
        """End; a notification under way whose answer takes longer than the patience is cut off, and told again."""
        self._stopping.set()
        until = time.monotonic() + patience_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        for one in self._tellers:
            one.cut()
        for thread in self._threads:
            thread.join(patience_s)

    @property
    def alive(self) -> bool:
        """Whether every thread that was started still runs."""
        return all(thread.is_alive() for thread in self._threads)


class _Teller:
    """Tells one remote, in a thread of its own."""

    def __init__(
        self, config: NodeConfig, store: Store, clock: Callable[[], float], name: str, shown: Credentials, stopping: threading.Event
    ) -> None:
        self._config = config
        self._store = store
        self._clock = clock
        self._credentials = shown
        self._stopping = stopping
        self._failures = 0  # in a row, to reach it
        self._not_before = 0.0
        self._association: Association | None = None
        self.name = name

    @property
    def _remote(self) -> Remote:
        return self._config.remotes[self.name]

    def run(self) -> None:
        """Tell until the node stops."""
        while not self._stopping.is_set():
            try:
                self.turn()
            except PeerUnavailable as error:
                self._unreachable(error)
            except Exception as error:  # the outermost loop of this thread: what is to be told stands in the ledger, and is looked at again
                _log.error("worklist.not_notified", to=self.name, why=fault(error))
            self._stopping.wait(self._config.deliver.poll_s)

    def turn(self) -> None:
        """Tell all that is due.

        Raises
        ------
        PeerUnavailable: the remote cannot be reached, or did not answer.
        Transient: the ledger does not answer.
        """
        now = self._clock()
        self._store.announcements.expect(self.name, since=now - _SINCE_S, now=now)
        one = self._next() if now >= self._not_before else None
        if one is None:
            return
        try:
            association = self._associate()
        except PeerUnavailable as error:
            self._store.announcements.put_off(one, until=now, reason=str(error), counts=False)
            raise
        self._association = association
        try:
            while one is not None:
                self._tell(association, one)
                one = None if self._stopping.is_set() else self._next()
            self._failures = 0
        finally:
            self._association = None
            peer.close(association)

    def _next(self) -> Announcement | None:
        lease_s = self._remote.timeout_s + _MARGIN_S
        return self._store.announcements.claim(self.name, now=self._clock(), lease_s=lease_s, committing=self._config.committing)

    def _associate(self) -> Association:
        node, remote = self._config.node, self._remote
        return peer.associate(
            remote.ae,
            node.ae_title,
            [(ian.SOP_CLASS, syntax) for syntax in UNCOMPRESSED[:2]],
            timeout_s=remote.timeout_s,
            max_pdu_bytes=node.max_pdu_bytes,
            fast=False,
            credentials=self._credentials,
        )

    def _tell(self, association: Association, one: Announcement) -> None:
        """Tell one, and record what came of it.

        Raises
        ------
        PeerUnavailable: no answer came.
        """
        holder = self._config.remotes.get(one.holder)
        if holder is None:
            self._store.announcements.drop(one, now=self._clock(), reason=f"the destination {one.holder} is no longer configured")
            return
        if not association.is_established and not association.accepted_contexts:
            self._refused(one, "does not accept Instance Availability Notification: have it allowed there, or set notify = false")
            return
        titles = (holder.ae.title, *((self._config.node.ae_title,) if "move" in self._remote.may else ()))
        said = ian.notification(one.study_instance_uid, self._store.announcements.results(one), titles)
        try:
            answer, _ = association.send_n_create(said, ian.SOP_CLASS, one.sop_instance_uid)
        except RuntimeError:  # the peer has ended the association
            answer = Dataset()
        if "Status" not in answer:
            self._refused(one, "did not answer a notification")
            raise PeerUnavailable(f"{self.name} did not answer a notification", hint="Look at its own log.")
        if ian.is_taken(int(answer.Status)):
            self._told(one, int(answer.Status))
        else:
            self._refused(one, f"answered a notification with {int(answer.Status):04X}")

    def _told(self, one: Announcement, status: int) -> None:
        why = "it was told where the results are" if status == 0 else f"it answered {status:04X}, and has it"
        if self._store.announcements.told(one, now=self._clock(), why=why):
            _log.info("worklist.notified", to=self.name, study=one.study_instance_uid, job=one.job_id, holder=one.holder, status=f"{status:04X}")

    def _refused(self, one: Announcement, why: str) -> None:
        wanted, now, times = self._config.deliver, self._clock(), one.attempts + 1
        _log.warning("worklist.not_notified", to=self.name, study=one.study_instance_uid, job=one.job_id, why=why, attempt=times)
        if times >= wanted.attempts:
            self._store.announcements.drop(one, now=now, reason=f"{why}; it was tried {times} times")
        else:
            self._store.announcements.put_off(one, until=now + later_s(times, wanted), reason=why)

    def _unreachable(self, error: PeerUnavailable) -> None:
        self._failures += 1
        self._not_before = self._clock() + unreached_s(self._failures, self._config.deliver)
        _log.warning("worklist.not_notified", to=self.name, why=str(error), failures=self._failures)

    def cut(self) -> None:
        """End the connection, if there is one, so that its thread stops waiting."""
        association = self._association
        if association is not None:
            peer.cut(association)
