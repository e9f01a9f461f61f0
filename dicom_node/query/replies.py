"""The responses to one C-FIND, C-MOVE or C-GET, from the association's own thread onto its socket.

Pending responses of a C-FIND are gathered and sent together; between two of them it is asked whether the peer has cancelled (PS3.7 9.3.2.3)
or gone. Where pynetdicom's own upper layer runs the association, it is given the same PDUs.
"""

from dataclasses import dataclass, field

from pynetdicom.association import Association
from pynetdicom.pdu_primitives import P_DATA

from dicom_node.wire import COMMAND, PDU_HEAD, Broken, Connection, WokenDUL, fragments, p_data, query_response

_GATHERED_BYTES = 1 << 15


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
        if len(self._gathered) > _GATHERED_BYTES:
            self.flush()

    def say(self, status: int, data: bytes = b"", *, comment: str = "", counters: tuple[int | None, ...] = ()) -> None:
        """Send a response, after those that were gathered.

        Raises
        ------
        Broken: the peer takes nothing more.
        """
        self._gathered += self._pdus(status, data, comment, counters)
        self.flush()

    def flush(self) -> None:
        """Send what was gathered.

        Raises
        ------
        Broken: the peer takes nothing more.
        """
        pdus, self._gathered = bytes(self._gathered), bytearray()
        dul = self.association.dul
        if not isinstance(dul, WokenDUL):
            self._by_library(pdus)
        elif pdus:
            transport = dul.socket
            if transport is None or transport.socket is None or self.gone:
                raise Broken("the association has ended")
            with dul.sending:
                Connection(transport.socket, self.timeout_s).write(pdus)

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

    def _pdus(self, status: int, data: bytes, comment: str = "", counters: tuple[int | None, ...] = ()) -> bytes:
        command = query_response(self.kind, self.sop_class_uid, self.message_id, status, has_data=bool(data), comment=comment, counters=counters)
        longest = self.association.dimse.maximum_pdu_size
        return p_data(self.context_id, COMMAND, command, longest) + (p_data(self.context_id, 0, data, longest) if data else b"")
