"""The thread that asks for the order of each study, by Modality Worklist, as SCU (PS3.4 Annex K).

It asks beside everything else: no study and no job waits for it. What it learns is in the ledger for the results that are made afterwards.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import structlog
from pydicom import Dataset
from pynetdicom import _config
from pynetdicom.association import Association

from dicom_node.config import NodeConfig
from dicom_node.domain import OrderState, PeerUnavailable, Subject, fault
from dicom_node.guard import credentials
from dicom_node.store import Listener, Store, Topic
from dicom_node.wire import UNCOMPRESSED, peer
from dicom_node.worklist import mwl
from dicom_node.worklist.requests import By, Decision, Found, choose, is_meant, questions, read
from dicom_node.worklist.waits import unreached_s

_SINCE_S = 86400.0  # of studies to which nothing came for so long nobody is asked any more
_ANSWERS_MAX = 2_000  # of one question: who gives more does not support its key, and is asked to stop
_LOOK_S = 0.2  # at least, between two looks: the bell rings for every image

_NOTHING = Decision(state=OrderState.NONE, why="no order was found")

_log = structlog.get_logger()


class Inquirer:
    """Asks every remote with `orders`, in their order, until one knows."""

    def __init__(self, config: NodeConfig, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._config = config
        self._store = store
        self._clock = clock
        self._credentials = {name: credentials(config.node, remote) for name, remote in config.remotes.items() if remote.orders}
        self._not_before = dict.fromkeys(self._credentials, 0.0)
        self._failures = dict.fromkeys(self._credentials, 0)  # in a row, to reach it
        self._association: Association | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._listener: Listener | None = None

    def start(self) -> None:
        """Start asking, if there is somebody to ask."""
        _config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False  # they name patients
        if self._credentials:
            self._listener = self._store.bell.listen(Topic.STUDIES)
            self._thread = threading.Thread(target=self._run, args=(self._listener,), name="orders", daemon=True)
            self._thread.start()

    def stop(self, patience_s: float = 10.0) -> None:
        """End; a question under way whose answer takes longer than the patience is cut off, and asked again."""
        self._stopping.set()
        if self._thread is None or self._listener is None:
            return
        self._listener.wake()
        self._thread.join(patience_s)
        association = self._association
        if association is not None:
            peer.cut(association)
        self._thread.join(patience_s)
        self._listener.close()

    @property
    def alive(self) -> bool:
        """Whether the thread that was started still runs."""
        return self._thread is None or self._thread.is_alive()

    def _run(self, listener: Listener) -> None:
        while not self._stopping.is_set():
            try:
                self.turn()
            except Exception as error:  # the outermost loop of this thread: what is to be asked stands in the ledger, and is looked at again
                _log.error("worklist.orders_not_asked", why=fault(error))
            self._stopping.wait(_LOOK_S)
            listener.wait(self._config.deliver.poll_s)

    def turn(self) -> None:
        """Ask for the orders that are to be sought.

        Raises
        ------
        Transient: the ledger does not answer.
        """
        now = self._clock()
        for subject in self._store.orders.due(now=now, since=now - _SINCE_S):
            if self._stopping.is_set():
                return
            self._seek(subject)

    def _seek(self, subject: Subject) -> None:
        """Ask one remote after the other for a study's order, and record what came of it."""
        uid, away = subject.study_instance_uid, ""
        for name in self._credentials:
            if self._clock() < self._not_before[name]:
                away = away or f"{name} could not be reached"
                continue
            try:
                decision = self._ask(name, subject)
                self._failures[name] = 0
            except PeerUnavailable as error:
                away = str(error)
                self._unreachable(name, error)
                continue
            if decision.state is not OrderState.NONE:
                self._settle(subject, name, decision)
                return
        now = self._clock()
        if away and (not subject.since or now - subject.since < _SINCE_S):
            until = min(at for name, at in self._not_before.items() if self._failures[name])
            self._store.orders.put_off(uid, until=max(until, now), reason=away, now=now)
        else:
            self._settle(subject, "node", _NOTHING if not away else Decision(state=OrderState.NONE, why=f"nobody could be asked: {away}"))

    def _settle(self, subject: Subject, who: str, decision: Decision) -> None:
        uid = subject.study_instance_uid
        if self._store.orders.settle(uid, decision.state, decision.order, who=who, why=decision.why, now=self._clock()):
            _log.info("worklist.order", study=uid, state=decision.state, of=who, why=decision.why)

    def _unreachable(self, name: str, error: PeerUnavailable) -> None:
        self._failures[name] += 1
        self._not_before[name] = self._clock() + unreached_s(self._failures[name], self._config.deliver)
        _log.warning("worklist.orders_not_asked", of=name, why=str(error), failures=self._failures[name])

    # ------------------------------------------------------------------------------------------------------- one remote

    def _ask(self, name: str, subject: Subject) -> Decision:
        """Ask one remote, by one key after the other until something is found.

        Raises
        ------
        PeerUnavailable: it cannot be reached, does not answer in time, or refuses.
        """
        association = self._associate(name)
        self._association = association
        try:
            for number, (by, identifier) in enumerate(questions(subject), 1):
                found = self._find(name, association, identifier, number, by, subject)
                decision = choose(by, found, subject, self._store.orders.is_here)
                if decision.state is not OrderState.NONE:
                    return decision
            return _NOTHING
        finally:
            self._association = None
            peer.close(association)

    def _associate(self, name: str) -> Association:
        node, remote = self._config.node, self._config.remotes[name]
        association = peer.associate(
            remote.ae,
            node.ae_title,
            [(mwl.SOP_CLASS, syntax) for syntax in UNCOMPRESSED[:2]],
            timeout_s=remote.timeout_s,
            max_pdu_bytes=node.max_pdu_bytes,
            fast=False,
            credentials=self._credentials[name],
        )
        if not association.is_established:
            raise PeerUnavailable(f"{name} does not accept Modality Worklist", hint="Have it allowed there for this node, or set orders = false.")
        return association

    def _find(self, name: str, association: Association, identifier: Dataset, number: int, by: By, subject: Subject) -> list[Found]:
        """Return the answers to one question that are meant; all must have come within the remote's time-out."""
        until = time.monotonic() + self._config.remotes[name].timeout_s
        found: list[Found] = []
        final, answers = None, 0
        for status, answer in _responses(association, identifier, number):
            final, answers = status, answers + (answer is not None)
            if time.monotonic() > until:
                peer.cut(association)
                raise PeerUnavailable(f"{name} did not finish its answer in time", hint="Look at its own log.")
            if answers == _ANSWERS_MAX:
                with contextlib.suppress(RuntimeError):  # the peer has ended the association, which the next response tells
                    association.send_c_cancel(number, query_model=mwl.SOP_CLASS)
            one = _read(answer) if answer is not None and answers <= _ANSWERS_MAX else None
            if one is not None and is_meant(by, one, subject):
                found.append(one)
        if final not in (0x0000, mwl.CANCELLED):
            what = "did not answer" if final is None else f"answered with {final:04X}"
            raise PeerUnavailable(f"{name} {what} when it was asked for an order", hint="Look at its own log.")
        if answers >= _ANSWERS_MAX:
            _log.warning("worklist.too_many_orders", of=name, by=by, answers=answers)
            return []
        return found


def _responses(association: Association, identifier: Dataset, number: int) -> Iterator[tuple[int | None, Dataset | None]]:
    """Give the status and the data set of each response to a C-FIND; the status is None where the association ended."""
    try:
        for status, answer in association.send_c_find(identifier, mwl.SOP_CLASS, msg_id=number):
            yield (int(status.Status) if "Status" in status else None), answer
    except RuntimeError:  # the peer has ended the association
        yield None, None


def _read(answer: Dataset) -> Found | None:
    try:
        return read(answer)
    except Exception as error:  # whatever pydicom raises on bytes that anybody may send: such an answer says nothing
        _log.warning("worklist.order_unreadable", reason=fault(error))
        return None
