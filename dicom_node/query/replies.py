"""The responses to one C-FIND, C-MOVE or C-GET, from the association's own thread onto its socket.

Pending responses of a C-FIND are gathered and sent together; between two of them it is asked whether the peer has cancelled (PS3.7 9.3.2.3)
or gone. Where pynetdicom's own upper layer runs the association, it is given the same PDUs.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from pynetdicom.association import Association
from pynetdicom.pdu_primitives import P_DATA

from dicom_node.wire import COMMAND, PDU_HEAD, Broken, Connection, WokenDUL, fragments, p_data, query_response
from dicom_node.wire.message import Counters

_GATHERED_BYTES, _GATHERED_S = 1 << 15, 0.1  # so much, or for so long
_SILENT_AT_MOST_S = 1.0  # while a sub-operation is under way
_TELL_EVERY_S = 0.1  # how the sub-operations stand, which costs a quarter of the time that a small object takes
_PENDING = 0xFF00
_TURN_S = 0.002  # in which pynetdicom's upper layer turns


@dataclass(slots=True, kw_only=True)
class Replies:
    """Answers one request."""

    association: Association
    kind: int  # Command Field (0000,0100) of the responses
    context_id: int
    sop_class_uid: str
    message_id: int
    timeout_s: float
    _gathered: bytearray = field(default_factory=bytearray)
    _sent_at: float = 0.0  # on the monotonic clock
    _told_at: float = 0.0  # how the sub-operations stand
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _standing: Counters = ()

    @property
    def cancelled(self) -> bool:
        """Whether the peer has cancelled this request."""
        return self.message_id in self.association.dimse.cancel_req

    @property
    def gone(self) -> bool:
        """Whether the peer has aborted, or the connection has ended."""
        return not self.association.is_established or bool(self.association.acse.is_aborted())

    def gather(self, status: int, data: bytes) -> None:
        """Add a pending response to those that go out together.

        Raises
        ------
        Broken: the peer takes nothing more.
        """
        self._gathered += self._pdus(status, data)
        if len(self._gathered) > _GATHERED_BYTES or time.monotonic() - self._sent_at > _GATHERED_S:
            self.flush()
            self._let_hear()

    def say(self, status: int, data: bytes = b"", *, comment: str = "", counters: Counters = ()) -> None:
        """Send a response, after those that were gathered.

        Raises
        ------
        Broken: the peer takes nothing more.
        """
        with self._lock:
            self._standing = counters
            self._gathered += self._pdus(status, data, comment, counters)
            self.flush()

    def tell(self, counters: Counters) -> None:
        """Say how the sub-operations stand, at first and then some times a second: a pending response for each is allowed and not required (C.4.2.3).

        Raises
        ------
        Broken: the peer takes nothing more.
        """
        self._standing, now = counters, time.monotonic()
        if now - self._told_at >= _TELL_EVERY_S:
            self._told_at = now
            self.say(_PENDING, counters=counters)

    @contextlib.contextmanager
    def repeating(self, counters: Counters) -> Iterator[None]:
        """While the block lasts, say anew how the sub-operations stand whenever nothing was said for a second: the peer may be waiting for that.

        counters: how they stand at the beginning.
        """
        self._standing, self._sent_at, done = counters, time.monotonic(), threading.Event()
        repeater = threading.Thread(target=self._repeat, args=(done,), name="pending", daemon=True)
        repeater.start()
        try:
            yield
        finally:
            done.set()
            repeater.join()

    def _repeat(self, done: threading.Event) -> None:
        with contextlib.suppress(Broken, OSError):  # whoever carries out the sub-operations finds that the peer has gone
            while not done.wait(self._sent_at + _SILENT_AT_MOST_S - time.monotonic()):
                with self._lock:
                    if not done.is_set() and time.monotonic() >= self._sent_at + _SILENT_AT_MOST_S:
                        self.say(_PENDING, counters=self._standing)

    def flush(self) -> None:
        """Send what was gathered.

        Raises
        ------
        Broken: the peer takes nothing more.
        """
        pdus, self._gathered, self._sent_at = bytes(self._gathered), bytearray(), time.monotonic()
        dul = self.association.dul
        if not isinstance(dul, WokenDUL):
            self._by_library(pdus)
        elif pdus:
            transport = dul.socket
            if transport is None or transport.socket is None or self.gone:
                raise Broken("the association has ended")
            with dul.sending:
                Connection(transport.socket, self.timeout_s).write(pdus)

    def _let_hear(self) -> None:
        """Let pynetdicom's upper layer look for what the peer says, which it does only when it has nothing to send."""
        dul = self.association.dul
        if not isinstance(dul, WokenDUL):
            while not dul.to_provider_queue.empty() and not self.gone:
                time.sleep(_TURN_S)
            time.sleep(_TURN_S)

    def _by_library(self, pdus: bytes) -> None:
        if self.gone:
            raise Broken("the association has ended")
        at = 0
        while at < len(pdus):
            end = at + PDU_HEAD.size + PDU_HEAD.unpack_from(pdus, at)[1]
            for context_id, control, data in fragments(memoryview(pdus)[at + PDU_HEAD.size : end]):
                primitive = P_DATA()
                primitive.presentation_data_value_list = [[context_id, bytes([control]) + bytes(data)]]  # no tuple
                self.association.dul.send_pdu(primitive)
            at = end

    def _pdus(self, status: int, data: bytes, comment: str = "", counters: Counters = ()) -> bytes:
        command = query_response(self.kind, self.sop_class_uid, self.message_id, status, has_data=bool(data), comment=comment, counters=counters)
        longest = self.association.dimse.maximum_pdu_size
        return p_data(self.context_id, COMMAND, command, longest) + (p_data(self.context_id, 0, data, longest) if data else b"")
