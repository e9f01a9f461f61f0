"""The thread that tells watchers what happened to workitems, by N-EVENT-REPORT (PS3.4 CC.2.4).

What is to be told stands in the ledger, in order. Each watcher is told by a thread of its own, so that a slow one keeps nobody waiting. One that
cannot be reached is told later, in the same order; what nobody took for a day is dropped, and it is told that its list is not whole.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import structlog
from pynetdicom import build_role
from pynetdicom.association import Association

from dicom_node.config import NodeConfig, Remote
from dicom_node.domain import Channel, EventReport, PeerUnavailable, fault
from dicom_node.guard import credentials
from dicom_node.store import Store, Topic, Watch
from dicom_node.wire import UNCOMPRESSED, peer
from dicom_node.worklist.ups.attributes import SOP_CLASS
from dicom_node.worklist.ups.events import SOP_CLASS as EVENT
from dicom_node.worklist.ups.events import information
from dicom_node.worklist.ups.manager import Manager
from dicom_node.worklist.waits import unreached_s

_AT_ONCE = 8  # watchers that are told at the same time
_LOOK_EVERY_S = 1.0  # a claim, or progress, rings no bell
_AT_MOST = 200  # reports over one association
_TURN_S = 5.0  # then it is another watcher's turn, if one waits

_log = structlog.get_logger()


class Reporting(Watch):
    """Tells those who watch by DIMSE, and compares new workitems with the filters of those who watch only some."""

    def __init__(self, config: NodeConfig, manager: Manager, store: Store, clock: Callable[[], float] = time.time) -> None:
        super().__init__(store.bell, Topic.WORKITEMS, name="workitem events", rest_s=_LOOK_EVERY_S)
        self._config = config
        self._manager = manager
        self._store = store
        self._clock = clock
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="watcher")
        self._under_way: dict[str, Future[None]] = {}
        self._associations: dict[str, Association] = {}
        self._failures: dict[str, int] = {}  # in a row, to reach one

    def start(self) -> None:
        """Begin, with word to every watcher that the node has begun anew."""
        self._store.subscriptions.restarted(now=self._clock())
        super().start()

    def stop(self) -> None:
        """End; a report under way whose answer does not come is cut off, and told again."""
        super().stop()
        for association in list(self._associations.values()):
            peer.cut(association)
        self._pool.shutdown(wait=True)

    def failed(self, error: Exception) -> None:
        """Tell that watchers could not be told."""
        _log.error("workitems.not_told", reason=fault(error))

    def take_turn(self) -> float:
        """Compare what is new, and tell whoever is to be told and is not being told."""
        while self._manager.compare():
            pass
        for receiver in self._store.subscriptions.receivers(Channel.DIMSE, now=self._clock()):
            going = self._under_way.get(receiver)
            if going is None or going.done():
                self._under_way[receiver] = self._pool.submit(self._serve, receiver)
        return _LOOK_EVERY_S

    def _serve(self, receiver: str) -> None:
        try:
            self._tell(receiver)
            self._failures.pop(receiver, None)
        except PeerUnavailable as error:
            failures = self._failures[receiver] = self._failures.get(receiver, 0) + 1
            wait_s = unreached_s(failures, self._config.deliver)
            _log.warning("workitems.watcher_unreached", to=receiver, why=str(error), failures=failures)
            self._put_off(receiver, wait_s)
        except Exception as error:  # the outermost frame of this thread: what is to be told stands in the ledger
            _log.error("workitems.not_told", to=receiver, reason=fault(error))

    def _put_off(self, receiver: str, wait_s: float) -> None:
        self._store.subscriptions.put_off(receiver, Channel.DIMSE, until=self._clock() + wait_s)

    def _tell(self, receiver: str) -> None:
        """Tell one watcher what waits for it, in order.

        Raises
        ------
        PeerUnavailable: it cannot be reached, or does not answer.
        """
        waiting = self._store.subscriptions.waiting(receiver, Channel.DIMSE, limit=_AT_MOST)
        remote = next((one for one in self._config.remotes.values() if one.ae.title == receiver), None)
        if remote is None:
            _log.warning("workitems.watcher_unknown", to=receiver, dropped=len(waiting))
            self._store.subscriptions.told([one.id for one in waiting])
            return
        if not waiting:
            return
        association = self._associations[receiver] = self._associate(remote)
        began = time.monotonic()
        try:
            for one in waiting:
                self._tell_one(association, one)
                if time.monotonic() - began > _TURN_S:
                    break
        finally:
            del self._associations[receiver]
            peer.close(association)

    def _associate(self, remote: Remote) -> Association:
        node = self._config.node
        association = peer.associate(
            remote.ae,
            node.ae_title,
            [(EVENT, syntax) for syntax in UNCOMPRESSED[:2]],
            timeout_s=remote.timeout_s,
            max_pdu_bytes=node.max_pdu_bytes,
            fast=False,
            negotiated=[build_role(EVENT, scu_role=False, scp_role=True)],
            credentials=credentials(node, remote),
        )
        if not association.is_established:
            raise PeerUnavailable(f"{remote.ae} does not accept UPS Event", hint="Have it allowed there, or let it end its subscription.")
        return association

    def _tell_one(self, association: Association, one: EventReport) -> None:
        try:
            answer, _ = association.send_n_event_report(information(one), int(one.kind), SOP_CLASS, one.workitem_uid)
        except ValueError as error:  # it takes the context, but not the role
            raise PeerUnavailable("it does not take reports", hint="It must accept UPS Event with this node as SCP.") from error
        except RuntimeError as error:  # the peer has ended the association
            raise PeerUnavailable("it ended the association") from error
        if "Status" not in answer:
            raise PeerUnavailable("it did not answer a report", hint="Look at its own log.")
        self._store.subscriptions.told([one.id])
        _log.info("workitems.told", to=one.receiver, workitem=one.workitem_uid, kind=int(one.kind), status=f"{int(answer.Status):04X}")
