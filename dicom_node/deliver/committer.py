"""The threads that ask destinations to keep what they took (PS3.4 Annex J, as SCU), and what is done with their reports.

A request is in the ledger before it goes out, so that its report is known whenever and wherever it comes: on the same association, which is held
for a while, or on one that the destination requests. A destination that cannot be reached is asked later, and that never counts.
"""

import threading
import time
from collections.abc import Callable
from functools import partial

import structlog
from pydicom import Dataset
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_messages import N_EVENT_REPORT_RSP

from dicom_node.config import NodeConfig, Remote
from dicom_node.deliver import commitment
from dicom_node.deliver.decisions import PROBE_AT_LEAST_EVERY_S, backoff_s, printable
from dicom_node.domain import Commitment, CommitmentRole, CommitmentState, Delivery, PeerUnavailable, Refused, Transient, fault
from dicom_node.guard import credentials
from dicom_node.store import Store
from dicom_node.wire import UNCOMPRESSED, Service, peer
from dicom_node.wire import commitment as wire

_GATHER_S = 1.0  # so long a result waits for others of its job, to be asked for with them
_MARGIN_S = 30.0  # beyond a peer's time-out: a request whose answer is not on record by then was not taken
_LOOK_S = 0.05

_log = structlog.get_logger()


class Committer:
    """Asks every remote with `storage_commitment` to keep what it took, one request at a time each."""

    def __init__(self, config: NodeConfig, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._stopping = threading.Event()
        reports = Reports(config, store, clock)
        self._askers = [_Asker(config, store, clock, reports, name, self._stopping) for name in config.committing]
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start asking."""
        self._threads = [threading.Thread(target=one.run, name=f"commitment {one.name}", daemon=True) for one in self._askers]
        for thread in self._threads:
            thread.start()

    def stop(self, patience_s: float = 10.0) -> None:
        """End; a request under way whose answer takes longer than the patience is cut off, and its report may still come."""
        self._stopping.set()
        until = time.monotonic() + patience_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        for one in self._askers:
            one.cut()
        for thread in self._threads:
            thread.join(patience_s)

    @property
    def alive(self) -> bool:
        """Whether every thread that was started still runs."""
        return all(thread.is_alive() for thread in self._threads)


class Reports:
    """Takes the reports of destinations, on whichever association they come."""

    def __init__(self, config: NodeConfig, store: Store, clock: Callable[[], float]) -> None:
        self._config = config
        self._store = store
        self._clock = clock

    def services(self) -> tuple[Service, ...]:
        """Return what the node answers of this room: reports on associations that destinations request.

        Some propose the SCP role for themselves, some both, some none (PS3.4 J.3.3, PS3.7 D.3.3.4): all are agreed to.
        """
        if not self._config.committing:
            return ()
        handlers = ((evt.EVT_N_EVENT_REPORT, self._on_report),)
        return (Service(abstract_syntaxes=(wire.SOP_CLASS,), handlers=handlers, transfer_syntaxes=UNCOMPRESSED, roles=(True, True)),)

    def _on_report(self, event: evt.Event) -> tuple[int, None]:
        return self.answer(event, str(event.assoc.requestor.ae_title).strip()), None

    def answer(self, event: evt.Event, ae_title: str, heard: Callable[[str], None] | None = None) -> int:
        """Take a report of an application entity, and return the status of the answer; heard: is told of the transaction that it is about."""
        try:
            said = self._read(event)
            self._take(said, ae_title)
            if heard is not None:
                heard(said.transaction_uid)
            return 0x0000
        except Refused as error:
            _log.warning("deliver.report_refused", ae_title=ae_title, status=f"{error.status:04X}", why=str(error))
            return error.status
        except Transient as error:
            _log.error("deliver.report_not_taken", ae_title=ae_title, why=str(error))
        except Exception as error:  # the outermost frame of a request: whatever a peer sends is answered, and what is missing is asked again
            _log.error("deliver.report_not_taken", ae_title=ae_title, why=fault(error))
        return wire.PROCESSING_FAILURE

    @staticmethod
    def _read(event: evt.Event) -> wire.Said:
        request = event.request
        if request.AffectedSOPClassUID != wire.SOP_CLASS:
            raise Refused("no such SOP class", status=wire.NO_SUCH_CLASS)
        if request.AffectedSOPInstanceUID != wire.SOP_INSTANCE:
            raise Refused("no such SOP instance", status=wire.NO_SUCH_INSTANCE)
        return wire.read_report(request.EventTypeID, event.event_information)

    def _take(self, said: wire.Said, ae_title: str) -> None:
        one = self._store.commitments.find(CommitmentRole.SCU, said.transaction_uid, ae_title)
        if one is None:
            raise Refused("no such transaction", status=wire.INVALID_ARGUMENT)
        outcomes = commitment.check(one, said)
        now, wanted = self._clock(), self._config.deliver
        decide = partial(commitment.fate, destination=one.peer, wanted=wanted, now=now)
        if self._store.commitments.reported(one, outcomes, decide, now=now):
            failed = sum(1 for outcome in outcomes.values() if outcome)
            _log.info("deliver.committed", to=one.peer, transaction=one.transaction_uid, results=len(outcomes), failed=failed)


class _Asker:
    """Asks one destination, in a thread of its own."""

    def __init__(self, config: NodeConfig, store: Store, clock: Callable[[], float], reports: Reports, name: str, stopping: threading.Event) -> None:
        self._config = config
        self._store = store
        self._clock = clock
        self._reports = reports
        self._stopping = stopping
        self._failures = 0  # in a row, to reach it
        self._not_before = 0.0
        self._association: Association | None = None
        self.name = name

    @property
    def _remote(self) -> Remote:
        return self._config.remotes[self.name]

    def run(self) -> None:
        """Ask until the node stops."""
        while not self._stopping.is_set():
            rest_s = self._config.deliver.poll_s
            try:
                rest_s = 0.0 if self.turn() else rest_s
            except PeerUnavailable as error:
                self._unreachable(error)
            except Exception as error:  # the outermost loop of this thread: what is to be asked stands in the ledger, and is looked at again
                _log.error("deliver.not_asked", to=self.name, why=fault(error))
            self._stopping.wait(rest_s)

    def turn(self) -> bool:
        """Ask about what is due, as much as one request takes; say whether there was anything.

        Raises
        ------
        PeerUnavailable: the destination cannot be reached, or did not answer.
        Transient: the ledger does not answer.
        """
        wanted, now = self._config.deliver, self._clock()
        self._store.commitments.lapse(self.name, told=self._lapsed, now=now)
        if now < self._not_before:
            return False
        due = self._store.commitments.due(self.name, now=now, sent_before=now - _GATHER_S, attempts=wanted.commit_attempts)
        if not due:
            return False
        deliveries, times = commitment.lot(due)
        self._ask(deliveries, times)
        self._failures = 0
        return True

    def _lapsed(self, one: Commitment) -> tuple[str, float]:
        wanted = self._config.deliver
        why = "did not report in time whether it keeps it"
        return commitment.unanswered(one, why, wanted), commitment.ask_again_at(one, wanted, self._clock())

    def _ask(self, deliveries: tuple[Delivery, ...], times: int) -> None:
        sent, heard = threading.Event(), set[str]()
        association = self._associate(sent, heard)
        self._association = association
        try:
            one = self._begin(deliveries, times)
            if one is None:
                return
            if not association.is_established:
                self._refused(one, "does not accept Storage Commitment: have it allowed there, or set storage_commitment = false")
                return
            self._request(association, one)
            self._hold(association, one, sent, heard)
        finally:
            self._association = None
            peer.close(association)

    def _associate(self, sent: threading.Event, heard: set[str]) -> Association:
        """Request the association; the report may come on it: `heard` then holds its transaction, and `sent` is set after the answer to it."""
        node, remote = self._config.node, self._remote
        title = remote.ae.title

        def on_report(event: evt.Event) -> tuple[int, None]:
            return self._reports.answer(event, title, heard.add), None

        def on_sent(event: evt.Event) -> None:
            if isinstance(event.message, N_EVENT_REPORT_RSP):
                sent.set()

        return peer.associate(
            remote.ae,
            node.ae_title,
            [(wire.SOP_CLASS, syntax) for syntax in UNCOMPRESSED[:2]],
            timeout_s=remote.timeout_s,
            max_pdu_bytes=node.max_pdu_bytes,
            fast=node.store_path == "fast",
            handlers=[(evt.EVT_N_EVENT_REPORT, on_report), (evt.EVT_DIMSE_SENT, on_sent)],
            credentials=credentials(node, remote),
        )

    def _begin(self, deliveries: tuple[Delivery, ...], times: int) -> Commitment | None:
        now = self._clock()
        wanted = Commitment(
            role=CommitmentRole.SCU,
            transaction_uid=commitment.fresh_transaction_uid(),
            peer=self.name,
            ae_title=self._remote.ae.title,
            state=CommitmentState.ASKED,
            requested_at=now,
            deadline=now + self._remote.timeout_s + _MARGIN_S,
            attempts=times + 1,
        )
        return self._store.commitments.begin(wanted, deliveries, now=now)

    def _request(self, association: Association, one: Commitment) -> None:
        """Send the request (N-ACTION, PS3.7 10.1.4), and record the answer.

        Raises
        ------
        PeerUnavailable: none came; the request may have been taken all the same, and its report is awaited for a while.
        """
        named = tuple((item.sop_class_uid, item.sop_instance_uid) for item in one.items)
        asked = wire.request(wire.Asked(transaction_uid=one.transaction_uid, named=named))
        try:
            answer, _ = association.send_n_action(asked, wire.REQUEST, wire.SOP_CLASS, wire.SOP_INSTANCE, msg_id=1)
        except RuntimeError:  # the peer has ended the association
            answer = Dataset()
        if "Status" not in answer:
            raise PeerUnavailable(f"{self.name} did not answer a request for storage commitment", hint="Look at the destination's own log.")
        if answer.Status == 0x0000:
            self._store.commitments.asked(one, deadline=self._clock() + self._config.deliver.commit_after_s)
            _log.info("deliver.commitment_asked", to=self.name, transaction=one.transaction_uid, results=len(one.items))
            return
        comment = printable(str(answer.get("ErrorComment", "")))
        self._refused(one, f"answered a request for storage commitment with {int(answer.Status):04X}" + (f': "{comment}"' if comment else ""))

    def _hold(self, association: Association, one: Commitment, sent: threading.Event, heard: set[str]) -> None:
        """Keep the association open for the report, for so long as the site says."""
        until = time.monotonic() + self._config.deliver.commit_hold_s
        while association.is_established and time.monotonic() < until and not self._stopping.is_set():
            if sent.wait(_LOOK_S):
                sent.clear()
                if one.transaction_uid in heard:
                    return

    def _refused(self, one: Commitment, why: str) -> None:
        wanted, now = self._config.deliver, self._clock()
        sentence = commitment.unanswered(one, why, wanted)
        self._store.commitments.refused(one, reason=sentence, until=commitment.ask_again_at(one, wanted, now), now=now)
        _log.warning("deliver.commitment_refused", to=self.name, transaction=one.transaction_uid, why=sentence)

    def _unreachable(self, error: PeerUnavailable) -> None:
        wanted, now = self._config.deliver, self._clock()
        self._failures += 1
        self._not_before = now + backoff_s(self._failures, wanted.backoff_s, min(wanted.backoff_max_s, PROBE_AT_LEAST_EVERY_S), self.name)
        _log.warning("deliver.not_asked", to=self.name, why=str(error), failures=self._failures)

    def cut(self) -> None:
        """End the connection, if there is one, so that its thread stops waiting."""
        association = self._association
        if association is not None:
            peer.cut(association)
