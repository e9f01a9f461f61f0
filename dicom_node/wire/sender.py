"""C-STORE as SCU on an established association: the file's bytes go from the page cache into the socket, past pynetdicom.

The association's DUL is a `WokenDUL`. The caller's thread takes its socket for the first object and keeps it for those that follow, because to
hand it over costs half as much as to send a CT; it sends a request, and reads until the answer is there. One request is outstanding at a time
(PS3.7 D.3.3.3: no asynchronous operations window is proposed).

What a peer says meanwhile that is no answer goes where pynetdicom would have put it: N-EVENT-REPORT-RQ and C-CANCEL-RQ to its queues, and the
wait goes on; A-ABORT, A-RELEASE-RQ and what is no PDU to its state machine, which ends the association. Any other message ends it too, with
A-ABORT, as it does where pynetdicom itself waits for an answer.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

from pynetdicom.association import Association

from dicom_node.wire.association import WokenDUL
from dicom_node.wire.connection import Broken, Connection
from dicom_node.wire.message import (
    COMMAND,
    P_DATA_TF,
    PDU_HEAD,
    Answers,
    Malformed,
    MoveOriginator,
    StoreAnswer,
    StoreRequest,
    data_heads,
    fragment_bytes,
    p_data,
    store_request_command,
)
from dicom_node.wire.part10 import StoredFile

_PDU_BYTES = 1 << 17  # of a peer that takes any length
_LONGEST_PDU_BYTES = 1 << 20  # that is sent, whatever a peer takes, and that is read
_AT_ONCE = 512  # fragments that are handed to the kernel in one call
_END_S = 5.0  # so long an association that has no answer may take to end by itself


class _Ended(Exception):
    """The peer said something that ends the association."""


class StoreSender:
    """Sends objects over one association, which `WokenDUL` runs, from one thread at a time.

    From the first object on the association's socket is this sender's. `give_back` it before the association is used for anything else, or
    released; until then a peer that ends the association is noticed by the next object.

    timeout_s: how long the peer may take nothing, or stop within a PDU.
    """

    def __init__(self, association: Association, timeout_s: float) -> None:
        if not isinstance(association.dul, WokenDUL):
            raise TypeError("the association's DUL is not a WokenDUL")
        self._association = association
        self._dul: WokenDUL = association.dul
        self._timeout_s = timeout_s
        self._held = contextlib.ExitStack()
        self._connection: Connection | None = None
        self._head = memoryview(bytearray(PDU_HEAD.size))
        self._answers = Answers()
        self._contexts = {
            (str(context.abstract_syntax), str(context.transfer_syntax[0])): int(context.context_id)
            for context in reversed(association.accepted_contexts)
            if context.as_scu
        }
        longest = association.dimse.maximum_pdu_size or _PDU_BYTES
        self._most_bytes = fragment_bytes(min(longest, _LONGEST_PDU_BYTES))

    def send(self, file: StoredFile, *, message_id: int, patience_s: float, originator: MoveOriginator | None = None) -> StoreAnswer | None:
        """Send an object by C-STORE (PS3.7 9.1.1) as it lies on disk, and return the answer; None: the association is at its end without one.

        patience_s: how long the answer may take, counted from the first byte sent.

        Raises
        ------
        ValueError: the peer has accepted no presentation context for its SOP class in its transfer syntax.
        """
        meta = file.meta
        context_id = self._contexts.get((meta.sop_class_uid, meta.transfer_syntax_uid))
        if context_id is None:
            raise ValueError(f"no presentation context was accepted for {meta.sop_class_uid} in {meta.transfer_syntax_uid}")
        if not self._association.is_established:
            return None
        request = StoreRequest(message_id=message_id, sop_class_uid=meta.sop_class_uid, sop_instance_uid=meta.sop_instance_uid)
        command = p_data(context_id, COMMAND, store_request_command(request, originator), self._most_bytes + 6)
        try:
            return self._exchange(command, context_id, file, message_id, time.monotonic() + patience_s)
        except Broken:
            self._cut()
            self._end(aborts=False)
        except Malformed:
            self._end(aborts=True)
        except _Ended:
            self._end(aborts=False)
        return None

    def give_back(self) -> None:
        """Let the association have its socket again."""
        self._held.close()
        self._connection = None

    def _exchange(self, command: bytes, context_id: int, file: StoredFile, message_id: int, until: float) -> StoreAnswer:
        """Send the request and return its answer.

        Raises
        ------
        Broken: the connection ended, or the peer took or said nothing in time, within a PDU.
        Malformed: what came is not the answer, or nothing came in time.
        _Ended: the association has ended.
        """
        connection = self._connected()
        while connection.has_news():
            if self._hear(connection):
                raise Malformed("an answer to nothing")
        answers: list[StoreAnswer] = []
        with self._dul.sending:
            try:
                self._say(connection, command, context_id, file, answers)
            except Broken:
                self._hear_out(connection, answers)
                if not answers:
                    raise
                self._cut()  # the next object finds the connection closed
        while not answers:
            if not connection.has_news(until - time.monotonic()):
                raise Malformed("no answer in time")
            answers += self._hear(connection)
        if len(answers) > 1 or answers[0].message_id != message_id:
            raise Malformed("an answer to another request")
        return answers[0]

    def _connected(self) -> Connection:
        """Take the connection, while there is one that data may be sent on (Sta6 of PS3.8 Table 9-10)."""
        if self._connection is None:
            self._held.enter_context(self._dul.hold())
            transport = self._dul.socket
            if self._dul.state_machine.current_state != "Sta6" or transport is None or transport.socket is None:
                raise _Ended
            self._connection = Connection(transport.socket, self._timeout_s)
        return self._connection

    # ----------------------------------------------------------------------------------------------------------- saying

    def _say(self, connection: Connection, command: bytes, context_id: int, file: StoredFile, early: list[StoreAnswer]) -> None:
        """Send command and data set; add the answers that came before the end: a peer may refuse an object that it has not read."""
        if connection.encrypted:
            self._say_encrypted(connection, command, context_id, file)
            return
        for pieces in self._batches(command, context_id, file):
            while not connection.push(pieces):
                try:
                    early += self._hear(connection)
                except _Ended:  # with half a PDU sent there is nothing more to say to this peer
                    self._cut()
                    raise

    def _batches(self, command: bytes, context_id: int, file: StoredFile) -> Iterator[list[bytes | memoryview]]:
        data = file.mapped() if file.size else memoryview(b"")
        pieces: list[bytes | memoryview] = [command]
        for head, at, end in data_heads(context_id, file.size, self._most_bytes):
            pieces += (head, data[at:end]) if end > at else (head,)
            if len(pieces) > 2 * _AT_ONCE:
                yield pieces
                pieces = []
        yield pieces

    def _say_encrypted(self, connection: Connection, command: bytes, context_id: int, file: StoredFile) -> None:
        connection.write(command)
        buffer = memoryview(bytearray(self._most_bytes + 12))
        for head, at, end in data_heads(context_id, file.size, self._most_bytes):
            buffer[:12] = head
            pdu = buffer[: 12 + end - at]
            try:
                file.read(pdu[12:], at)
            except OSError as error:
                raise Broken("the file cannot be read") from error
            connection.write(pdu)

    # ---------------------------------------------------------------------------------------------------------- hearing

    def _hear(self, connection: Connection) -> list[StoreAnswer]:
        """Read one PDU, and return the answers that end in it.

        Raises
        ------
        _Ended: it was another than P-DATA-TF, and the state machine has it.
        Malformed: it has no place here.
        """
        connection.read(self._head)
        kind, length = PDU_HEAD.unpack(self._head)
        if length > _LONGEST_PDU_BYTES:
            raise Malformed("a PDU longer than any that was agreed to")
        body = memoryview(bytearray(length))
        connection.read(body)
        if kind != P_DATA_TF:
            self._dul.hand_over(bytes(self._head) + bytes(body))
            raise _Ended
        answers, beside = self._answers.take(body)
        if beside:
            self._dul.hand_over(PDU_HEAD.pack(P_DATA_TF, len(beside)) + beside)
        return answers

    def _hear_out(self, connection: Connection, answers: list[StoreAnswer]) -> None:
        """Add the answers among what a peer that takes nothing more has said before."""
        with contextlib.suppress(Broken):
            while not answers and connection.has_news():
                answers += self._hear(connection)

    # ----------------------------------------------------------------------------------------------------------- ending

    def _cut(self) -> None:
        """End the connection: within a PDU nothing else can be said."""
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.socket.shutdown(socket.SHUT_RDWR)

    def _end(self, aborts: bool) -> None:
        """Give the socket back, and wait until the association knows that it is at its end; abort it where nothing else ends it."""
        if aborts and self._association.is_established:
            self._association.abort()  # while the socket is ours: what the peer said besides is of no interest
        self.give_back()
        if threading.current_thread() is not self._association:
            self._dul.join(_END_S)
            self._association.join(_END_S)
