"""What a modality may delete is on the disk, byte by byte: storage commitment as SCP (PS3.4 Annex J).

A request is in the ledger before it is answered. Each instance that it names is then read again from its file and compared with what was
received; the report goes out on the requestor's association if that is still open, else on one of the node's, and again until the peer takes it.
"""

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from weakref import WeakKeyDictionary

import structlog
from pydicom import Dataset
from pydicom.uid import UID_dictionary
from pynetdicom import build_role, evt
from pynetdicom.association import Association
from pynetdicom.dimse_messages import N_ACTION_RSP

from dicom_node.config import NodeConfig
from dicom_node.domain import (
    Commitment,
    CommitmentItem,
    CommitmentRole,
    CommitmentState,
    Instance,
    PeerUnavailable,
    Refused,
    Transient,
    fault,
)
from dicom_node.guard import credentials
from dicom_node.receive.receipt import is_as_received
from dicom_node.store import Store
from dicom_node.wire import UNCOMPRESSED, Service, peer, status_of
from dicom_node.wire import commitment as wire

_OWN_S = 30.0  # so long a request is left to the process that took it, whose association may still be open
_LEASE_S = 600.0  # for reading its files, and for the report
_LINGER_S = 1.0  # a requestor that releases at once has done so by then: a report must not meet its release
_ANSWER_S = 10.0  # to a report on the requestor's association, which may be about to release
_FIRST_S, _LONGEST_S = 10.0, 3600.0  # between reports that were not taken; it doubles
_UNTIL_S = 7 * 86400.0  # a report is tried for so long
_WAITING = 1000  # requests at most that wait for their report
_AT_ONCE = 2
_LOOK_EVERY_S = 2.0

_NO_SUCH_INSTANCE, _CONFLICT, _NOT_SUPPORTED, _DAMAGED = 0x0112, 0x0119, 0x0122, 0x0110  # Failure Reasons (PS3.3 C.14.1.1)

_log = structlog.get_logger()


class Promises:
    """Takes requests from who may `commit`, and reports them on the associations on which they came."""

    def __init__(self, config: NodeConfig, store: Store, clock: Callable[[], float]) -> None:
        self._config = config
        self._store = store
        self._clock = clock
        self._reports = _Reports(config, store, clock)
        self._taken: WeakKeyDictionary[Association, list[int]] = WeakKeyDictionary()  # and not yet answered
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="commitment")  # it has threads when a request comes

    def services(self) -> tuple[Service, ...]:
        """Return what the node answers of storage commitment; nothing where nobody may `commit`."""
        if not any("commit" in remote.may for remote in self._config.remotes.values()):
            return ()
        handlers = ((evt.EVT_N_ACTION, self._on_action), (evt.EVT_DIMSE_SENT, self._on_sent))
        return (Service(abstract_syntaxes=(wire.SOP_CLASS,), handlers=handlers, transfer_syntaxes=UNCOMPRESSED, roles=(True, True)),)

    def _on_action(self, event: evt.Event) -> tuple[Dataset, None]:
        calling_ae = str(event.assoc.requestor.ae_title).strip()
        try:
            one = self._accept(event, calling_ae)
            self._taken.setdefault(event.assoc, []).append(one.id)
            _log.info("receive.commitment_asked", calling_ae=calling_ae, transaction=one.transaction_uid, instances=len(one.items))
            return status_of(0x0000), None
        except Refused as error:
            answer = status_of(error.status, str(error))
        except Transient as error:
            answer = status_of(wire.RESOURCE_LIMITATION, "the ledger does not answer; try again later")
            _log.error("receive.commitment_failed", calling_ae=calling_ae, reason=str(error))
        except Exception as error:  # the outermost frame of a request: whatever a peer sends is answered
            answer = status_of(wire.PROCESSING_FAILURE, "the request could not be processed")
            _log.error("receive.commitment_failed", calling_ae=calling_ae, reason=fault(error))
        _log.warning("receive.commitment_refused", calling_ae=calling_ae, status=f"{answer.Status:04X}", reason=str(answer.ErrorComment))
        return answer, None

    def _accept(self, event: evt.Event, calling_ae: str) -> Commitment:
        request = event.request
        if not self._config.may(calling_ae, "commit"):
            raise Refused("this AE title may not commit here", status=wire.NOT_AUTHORISED)
        if request.RequestedSOPClassUID != wire.SOP_CLASS:
            raise Refused("no such SOP class", status=wire.NO_SUCH_CLASS)
        if request.RequestedSOPInstanceUID != wire.SOP_INSTANCE:
            raise Refused("no such SOP instance", status=wire.NO_SUCH_INSTANCE)
        if request.ActionTypeID != wire.REQUEST:
            raise Refused("no such action", status=wire.NO_SUCH_ACTION)
        asked = wire.read_request(event.action_information)
        if self._store.commitments.waiting() >= _WAITING:
            raise Refused("too many requests wait for their report", status=wire.RESOURCE_LIMITATION)
        return self._store.commitments.accept(self._wanted(asked, calling_ae))

    def _wanted(self, asked: wire.Asked, calling_ae: str) -> Commitment:
        now = self._clock()
        return Commitment(
            role=CommitmentRole.SCP,
            transaction_uid=asked.transaction_uid,
            peer=_name(self._config, calling_ae),
            ae_title=calling_ae,
            state=CommitmentState.ACCEPTED,
            requested_at=now,
            deadline=now + _UNTIL_S,
            not_before=now + _OWN_S,
            items=tuple(CommitmentItem(sop_class_uid=sop_class, sop_instance_uid=instance) for sop_class, instance in asked.named),
        )

    def _on_sent(self, event: evt.Event) -> None:
        """Report what was taken, now that its answer has gone out."""
        if isinstance(event.message, N_ACTION_RSP):
            for key in self._taken.pop(event.assoc, []):
                self._pool.submit(self._report, event.assoc, key)

    def _report(self, association: Association, key: int) -> None:
        try:
            self._reports.report(key, association)
        except Exception as error:  # the outermost frame of a report: it stands in the ledger, and is tried again
            _log.error("receive.commitment_failed", reason=fault(error))


class Reporter:
    """The thread that reports what could not be reported at once: the association was gone, the peer away, or the process ended."""

    def __init__(self, config: NodeConfig, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._reports = _Reports(config, store, clock)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="commitment reports", daemon=True)

    def start(self) -> None:
        """Start reporting."""
        self._thread.start()

    def stop(self, patience_s: float = 10.0) -> None:
        """End; a report under way that takes longer than the patience is cut off, and tried again at the next start."""
        self._stopping.set()
        self._thread.join(patience_s)
        self._reports.cut()
        self._thread.join(patience_s)

    @property
    def alive(self) -> bool:
        """Whether the thread still runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            worked = False
            try:
                worked = self._reports.report()
            except Exception as error:  # the outermost loop of this thread: what is to be reported stands in the ledger
                _log.error("receive.commitment_failed", reason=fault(error))
            self._stopping.wait(0.0 if worked else _LOOK_EVERY_S)


class _Reports:
    """Checks what a request names, and reports it."""

    def __init__(self, config: NodeConfig, store: Store, clock: Callable[[], float]) -> None:
        self._config = config
        self._store = store
        self._clock = clock
        self._who = f"{socket.gethostname()[:32]}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._association: Association | None = None

    def report(self, key: int | None = None, association: Association | None = None) -> bool:
        """Check and report one request, this one or the next that is due; say whether there was any.

        association: on which it came.

        Raises
        ------
        Transient: the ledger or the disk does not answer; it is due again when its lease ends.
        """
        began = time.monotonic()
        held = self._store.commitments.claim(self._who, now=self._clock(), lease_s=_LEASE_S, key=key)
        if held is None:
            return False
        outcomes, studies = self._checked(held.items)
        said = wire.Said(
            transaction_uid=held.transaction_uid,
            outcomes={(item.sop_class_uid, item.sop_instance_uid): outcomes[item.sop_instance_uid] for item in held.items},
        )
        try:
            if association is None or not self._send_on(association, said, began + _LINGER_S):
                self._call(held, said)
        except PeerUnavailable as error:
            self._put_off(held, str(error))
            return True
        failed = sum(1 for outcome in outcomes.values() if outcome)
        self._store.commitments.told(held, self._who, outcomes, studies, now=self._clock())
        _log.info("receive.committed", to=held.ae_title, transaction=held.transaction_uid, instances=len(outcomes), failed=failed)
        return True

    def _checked(self, items: Sequence[CommitmentItem]) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """Return the outcome of each instance, and how many of each study are kept."""
        self._store.instances.settle()  # rows and files are durable from here on
        found: dict[str, list[Instance]] = {}
        for one in self._store.commitments.instances([item.sop_instance_uid for item in items]):
            found.setdefault(one.sop_instance_uid, []).append(one)
        outcomes: dict[str, int] = {}
        studies: dict[str, int] = {}
        for item in items:
            candidates = found.get(item.sop_instance_uid, [])
            outcome = item.outcome or self._outcome(item, candidates)
            outcomes[item.sop_instance_uid] = outcome
            if not outcome:
                study = candidates[0].study_instance_uid
                studies[study] = studies.get(study, 0) + 1
        return outcomes, studies

    def _outcome(self, item: CommitmentItem, candidates: Sequence[Instance]) -> int:
        """Return 0 for an instance that is here as it was received, else the Failure Reason."""
        if not candidates:
            return _NO_SUCH_INSTANCE if _may_be_stored(item.sop_class_uid) else _NOT_SUPPORTED
        if any(one.sop_class_uid != item.sop_class_uid for one in candidates):
            return _CONFLICT
        for one, path in zip(candidates, self._store.instances.bring(candidates), strict=True):
            if not is_as_received(path, one):
                _log.error("receive.damaged", study=one.study_instance_uid, file=one.path)
                return _DAMAGED
        return 0

    def _send_on(self, association: Association, said: wire.Said, not_before: float) -> bool:
        """Report on the requestor's association, unless it has ended by `not_before`; say whether that was done."""
        while association.is_established and time.monotonic() < not_before:
            time.sleep(0.05)
        if not association.is_established:
            return False
        usual, association.dimse_timeout = association.dimse_timeout, _ANSWER_S
        try:
            _send(association, said)
        finally:
            association.dimse_timeout = usual
        return True

    def _call(self, held: Commitment, said: wire.Said) -> None:
        """Report on an association that the node requests, as SCP (PS3.7 D.3.3.4)."""
        node = self._config.node
        remote = self._config.remotes.get(_name(self._config, held.ae_title))
        if remote is None:
            raise PeerUnavailable(f"no remote that may commit has the AE title {held.ae_title}", hint="Enter it again under [remotes].")
        association = self._association = peer.associate(
            remote.ae,
            node.ae_title,
            [(wire.SOP_CLASS, syntax) for syntax in UNCOMPRESSED[:2]],
            timeout_s=remote.timeout_s,
            max_pdu_bytes=node.max_pdu_bytes,
            fast=node.store_path == "fast",
            negotiated=[build_role(wire.SOP_CLASS, scu_role=False, scp_role=True)],
            credentials=credentials(node, remote),
        )
        try:
            if not association.is_established:
                raise PeerUnavailable(f"{remote.ae} did not accept Storage Commitment from the node")
            _send(association, said)
        finally:
            self._association = None
            peer.close(association)

    def _put_off(self, held: Commitment, why: str) -> None:
        now = self._clock()
        if now >= held.deadline:
            reason = f"{why}; given up after {held.attempts + 1} reports"
            self._store.commitments.give_up(held, self._who, reason=reason)
            _log.error("receive.commitment_unreported", to=held.ae_title, transaction=held.transaction_uid, reason=reason)
            return
        wait_s = min(_FIRST_S * 2.0 ** min(held.attempts, 30), _LONGEST_S)
        self._store.commitments.put_off(held, self._who, reason=why, until=now + wait_s)
        _log.warning("receive.commitment_put_off", to=held.ae_title, transaction=held.transaction_uid, reason=why, again_in_s=wait_s)

    def cut(self) -> None:
        """End the connection, if there is one, so that its thread stops waiting."""
        association = self._association
        if association is not None:
            peer.cut(association)


def _send(association: Association, said: wire.Said) -> None:
    """Send a report (N-EVENT-REPORT, PS3.7 10.1.1).

    Raises
    ------
    PeerUnavailable: the peer did not take it.
    """
    event_type, dataset = wire.report(said)
    try:
        answer, _ = association.send_n_event_report(dataset, event_type, wire.SOP_CLASS, wire.SOP_INSTANCE, msg_id=1)
    except RuntimeError:  # the peer has ended the association
        answer = Dataset()
    if "Status" not in answer:
        raise PeerUnavailable("the peer did not answer a report on storage commitment")
    if answer.Status != 0x0000:
        raise PeerUnavailable(f"the peer answered a report on storage commitment with {int(answer.Status):04X}")


def _name(config: NodeConfig, ae_title: str) -> str:
    return next((name for name, remote in config.remotes.items() if remote.ae.title == ae_title and "commit" in remote.may), "")


def _may_be_stored(sop_class_uid: str) -> bool:
    """Say whether a class may be one of objects that are stored: private ones may."""
    name, kind, *_ = UID_dictionary.get(sop_class_uid, ("", ""))
    return not name or (kind == "SOP Class" and "Storage" in name and "Commitment" not in name)
