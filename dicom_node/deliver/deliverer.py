"""The sending threads: one for each association that a destination allows, and one that keeps their leases.

A delivery is claimed, sent, and its outcome recorded right after the response; whatever happens between those two is repaired by the lease: it
ends, the delivery is due again, and the same bytes go out again. Two circuits keep a destination from being hammered: what it refuses backs off
by itself, and a destination that cannot be reached is probed by one association with one object until it answers.
"""

import hashlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian
from pynetdicom.association import Association

from dicom_node.config import NodeConfig, Remote
from dicom_node.deliver.decisions import (
    PROBE_AT_LEAST_EVERY_S,
    Share,
    Verdict,
    answer,
    backoff_s,
    choose,
    not_accepted,
    shares,
    verdict,
)
from dicom_node.domain import Delivery, DeliveryState, PeerUnavailable, Transient
from dicom_node.guard import credentials
from dicom_node.store import Listener, Store, Topic
from dicom_node.wire import Context, peer

_AT_ONCE = 32  # deliveries that one association takes
_REST_AT_LEAST_S = 0.01  # a delivery that is due and could not be claimed is being claimed by another sender

_log = structlog.get_logger()


class Deliverer:
    """Sends what is due to every remote that may receive, with never more associations at once than it allows, across all its threads.

    The limit is kept within one process: of several processes on one ledger, one should deliver.

    Raises
    ------
    ConfigError: a certificate or a passcode that a remote is called with cannot be read.
    """

    def __init__(self, config: NodeConfig, store: Store, clock: Callable[[], float] = time.time, *, lease_s: float = 30.0) -> None:
        self._store = store
        self._clock = clock
        self._lease_s = lease_s
        self._listener: Listener | None = None
        self._stopping = threading.Event()
        token = f"{socket.gethostname()[:32]}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._slots = [
            _Slot(_Owner(config, store, clock, lease_s, self._stopping), name, remote, number, f"{token}/{name[:20]}/{number}")
            for name, remote in config.remotes.items()
            if "receive" in remote.may
            for number in range(remote.associations)
        ]
        self._threads: list[threading.Thread] = []
        for slot in self._slots:
            slot.check()

    def start(self) -> None:
        """Start sending; what a crash left half sent is taken up again as soon as its lease has ended.

        Raises
        ------
        Transient: the ledger does not answer.
        """
        self._store.deliveries.take_back(self._clock())
        self._tell_of_orphans()
        self._threads = [threading.Thread(target=slot.run, name=slot.who, daemon=True) for slot in self._slots]
        self._listener = self._store.bell.listen(Topic.DELIVERIES)
        self._threads.append(threading.Thread(target=self._keep, args=(self._listener,), name="delivery leases", daemon=True))
        for thread in self._threads:
            thread.start()

    def stop(self, patience_s: float = 10.0) -> None:
        """Let each association finish the object it is sending, put the others back, and end; what takes longer than the patience is cut off."""
        self._stopping.set()
        if self._listener is not None:
            self._listener.wake()
        self.wake()
        until = time.monotonic() + patience_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        for slot in self._slots:
            slot.cut()
        for thread in self._threads:
            thread.join(patience_s)

    def wake(self) -> None:
        """Look for deliveries now: somebody knows that there are new ones."""
        for slot in self._slots:
            slot.woken.set()

    @property
    def alive(self) -> bool:
        """Whether every thread that was started still runs."""
        return bool(self._threads) and all(thread.is_alive() for thread in self._threads)

    def _keep(self, listener: Listener) -> None:
        """Wake the senders when the bell rings; renew the leases of what is being sent, and make due again what others left behind."""
        beat_at = time.monotonic() + self._lease_s / 3
        while not self._stopping.is_set():
            if listener.wait(beat_at - time.monotonic()):
                self.wake()
            if time.monotonic() < beat_at:
                continue
            beat_at = time.monotonic() + self._lease_s / 3
            try:
                for slot in self._slots:
                    slot.renew()
                if self._store.deliveries.take_back(self._clock()):
                    self.wake()
            except Transient as error:  # the ledger is tried again at the next beat; until then leases may end, and objects be sent twice
                _log.warning("deliver.ledger_failed", why=str(error))
        listener.close()

    def _tell_of_orphans(self) -> None:
        known = {slot.name for slot in self._slots}
        for name, counts in self._store.deliveries.counts().items():
            if name not in known and counts.get(DeliveryState.PENDING):
                _log.warning("deliver.nobody_sends", destination=name, waiting=counts[DeliveryState.PENDING], why="no such remote may receive")


@dataclass(frozen=True, slots=True)
class _Owner:
    config: NodeConfig
    store: Store
    clock: Callable[[], float]
    lease_s: float
    stopping: threading.Event


class _Slot:
    """One association at a time with one destination."""

    def __init__(self, owner: _Owner, name: str, remote: Remote, number: int, who: str) -> None:
        self._owner = owner
        self._deliveries = owner.store.deliveries
        self._remote = remote
        self._number = number
        self._left: list[Delivery] = []  # claimed, and their outcome not yet recorded
        self._association: Association | None = None
        self._answered = False  # whether the present association has brought an answer
        self.name = name
        self.who = who
        self.woken = threading.Event()

    def check(self) -> None:
        """Read what the destination is called with, so that it is known to be readable.

        Raises
        ------
        ConfigError: it is not.
        """
        credentials(self._owner.config.node, self._remote)

    # ------------------------------------------------------------------------------------------------ called by its thread

    def run(self) -> None:
        """Send until the node stops."""
        while not self._owner.stopping.is_set():
            self.woken.clear()
            try:
                rest_s = 0.0 if self.turn() else self._rest_s()
            except Transient as error:  # the ledger: what was claimed is due again when its lease ends
                _log.error("deliver.ledger_failed", destination=self.name, why=str(error))
                rest_s = self._owner.config.deliver.poll_s
            if rest_s:
                self.woken.wait(rest_s)

    def _rest_s(self) -> float:
        """Return how long nothing is to be sent from here, if nobody wakes this thread.

        Raises
        ------
        Transient: the ledger does not answer.
        """
        longest_s, state = self._owner.config.deliver.poll_s, self._deliveries.destination(self.name)
        due = self._deliveries.next_due(self.name)
        if due is None or (state.failures and self._number > 0):
            return longest_s
        return min(max(max(due, state.not_before) - self._owner.clock(), _REST_AT_LEAST_S), longest_s)

    def turn(self) -> bool:
        """Send what is due, as much as one association takes; say whether there was anything.

        Raises
        ------
        Transient: the ledger does not answer.
        """
        state = self._deliveries.destination(self.name)
        now = self._owner.clock()
        probing = state.failures > 0
        if now < state.not_before or (probing and self._number > 0):
            return False
        limit = 1 if probing else _AT_ONCE
        held = self._deliveries.claim(self.name, self.who, now=now, lease_s=self._owner.lease_s, limit=limit)
        self._left = list(held)
        try:
            for share in shares(held, deflate=self._remote.deflate):
                self._send_share(share)
            if self._left:
                self._put_back("the node stops", self._owner.clock())
        except PeerUnavailable as error:
            self._unreachable(error)
        finally:
            self._left = []
        return bool(held)

    def _send_share(self, share: Share) -> None:
        if self._owner.stopping.is_set():
            return
        node, timeout_s = self._owner.config.node, self._remote.timeout_s
        self._answered = False
        association = peer.associate(
            self._remote.ae,
            node.ae_title,
            share.contexts,
            timeout_s=timeout_s,
            max_pdu_bytes=node.max_pdu_bytes,
            fast=node.store_path == "fast",
            credentials=credentials(node, self._remote),
        )
        self._association = association
        accepted = peer.accepted(association)
        try:
            for number, one in enumerate(share.deliveries, 1):
                if self._owner.stopping.is_set():
                    return
                self._send(association, accepted, one, number)
        finally:
            self._association = None
            peer.close(association)

    def _send(self, association: Association, accepted: frozenset[Context], one: Delivery, number: int) -> None:
        """Send one object, or find that it cannot be sent, and record which.

        Raises
        ------
        PeerUnavailable: no answer came; that is recorded of this object, and the association is at its end.
        """
        syntax = choose(one.result, accepted)
        if syntax is None:
            self._reached()
            self._give_up(one, not_accepted(self.name, one.result, peer.refused(association)))
            return
        path = self._owner.store.archive.path(one.result.path)
        started = time.monotonic()
        try:
            with path.open("rb") as file:
                whole = hashlib.file_digest(file, "sha256").hexdigest() == one.result.digest
            if not whole:
                self._give_up(one, "the file on disk is not what the job made (its SHA-256 differs), and was not sent; run the analysis again")
                return
            said = peer.store(association, path, one.result, syntax, message_id=number, timeout_s=self._remote.timeout_s)
        except (OSError, ValueError) as error:
            why = (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__
            self._give_up(one, f"the file on disk cannot be sent: {why}; look at the disk, or run the analysis again")
            return
        if said is None:
            raise self._unanswered(one)
        self._reached()
        self._record(one, said, syntax, time.monotonic() - started)

    # --------------------------------------------------------------------------------------------------------- outcomes

    def _record(self, one: Delivery, said: peer.Answer, syntax: str, seconds: float) -> None:
        sentence = answer(self.name, said.status, said.comment)
        decided = verdict(said.status)
        if decided is Verdict.DEAD:
            self._give_up(one, f"{sentence}; look at the object and at the destination's own log", said.status)
        elif decided is Verdict.LATER:
            self._again(one, sentence, said.status)
        else:
            reason = sentence if decided is Verdict.SENT_WITH_WARNING else ""
            if syntax != one.result.transfer_syntax_uid:
                why = "as is wished for this destination" if syntax == DeflatedExplicitVRLittleEndian else "the only one accepted"
                reason = f"{reason}; encoded anew as {UID(syntax).name}, {why}".removeprefix("; ")
            kept = self._deliveries.sent(one, self.who, now=self._owner.clock(), status=said.status, reason=reason)
            self._done(one, "sent" if kept else "lease_lost", status=f"{said.status:04X}", seconds=round(seconds, 3))

    def _again(self, one: Delivery, sentence: str, status: int | None = None) -> None:
        """Put an object off after a failure that counts, or give it up when it has had its attempts."""
        wanted = self._owner.config.deliver
        attempt = one.attempts + 1
        if attempt >= wanted.attempts:
            self._give_up(one, f"{sentence}; given up after {attempt} attempts", status)
            return
        now = self._owner.clock()
        until = now + backoff_s(attempt, wanted.backoff_s, wanted.backoff_max_s, one.id)
        self._deliveries.put_off(one, self.who, now=now, until=until, reason=sentence, status=status)
        self._done(one, "put_off", attempt=attempt, again_in_s=round(until - now, 1))

    def _give_up(self, one: Delivery, sentence: str, status: int | None = None) -> None:
        self._deliveries.give_up(one, self.who, now=self._owner.clock(), reason=sentence, status=status)
        self._done(one, "given_up", status=None if status is None else f"{status:04X}")

    def _put_back(self, reason: str, until: float) -> None:
        """Put back what was not tried: it says nothing of the objects, and does not count."""
        now = self._owner.clock()
        for one in tuple(self._left):
            self._deliveries.put_off(one, self.who, now=now, until=until, reason=reason, counts=False)
            self._done(one, "put_back")

    def _done(self, one: Delivery, outcome: str, **more: object) -> None:
        self._left.remove(one)
        of = one.result
        _log.info(f"deliver.{outcome}", study=of.study_instance_uid, job=of.job_id, delivery=one.id, kind=of.kind, to=self.name, **more)

    # ------------------------------------------------------------------------------------------------------- the circuit

    def _reached(self) -> None:
        """Close the circuit, once for an association: an answer came over it."""
        if not self._answered:
            self._answered = True
            self._deliveries.reached(self.name, now=self._owner.clock())

    def _unanswered(self, one: Delivery) -> PeerUnavailable:
        """Record that an object got no answer, which counts: it may be what the destination cannot bear, and must not block those behind it."""
        if self._owner.stopping.is_set():
            return PeerUnavailable("the node stopped before the answer came")
        error = PeerUnavailable(
            f"{self.name} ended the association, or was silent, instead of answering an object", hint="Look at the destination's own log."
        )
        self._again(one, str(error))
        return error

    def _unreachable(self, error: PeerUnavailable) -> None:
        """Open the circuit, unless another association of this node has just done so, and put back what is left."""
        now = self._owner.clock()
        state = self._deliveries.destination(self.name)
        until = state.not_before
        if not self._owner.stopping.is_set() and not (state.failures and now < until):
            wanted = self._owner.config.deliver
            longest = min(wanted.backoff_max_s, PROBE_AT_LEAST_EVERY_S)
            until = now + backoff_s(state.failures + 1, wanted.backoff_s, longest, self.name)
            self._deliveries.unreachable(self.name, until=until, reason=f"{error}. {error.hint}".strip())
            _log.warning("deliver.unreachable", to=self.name, why=str(error), failures=state.failures + 1, again_in_s=round(until - now, 1))
        self._put_back(str(error), until)

    # -------------------------------------------------------------------------------------------- called by other threads

    def renew(self) -> None:
        """Keep the lease of what is being sent.

        Raises
        ------
        Transient: the ledger does not answer.
        """
        held = tuple(self._left)
        if held:
            self._deliveries.renew(held, self.who, now=self._owner.clock(), lease_s=self._owner.lease_s)

    def cut(self) -> None:
        """End the connection, if there is one, so that its thread stops waiting."""
        association = self._association
        if association is not None:
            peer.cut(association)
