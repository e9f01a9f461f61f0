"""The store path: C-STORE requests from the socket to the door, past pynetdicom, which serves everything else.

On an established association (Sta6 of PS3.8 Table 9-10, acceptor) this owns the socket. It takes each PDV (PS3.8 Annex E) by the state of the message
that it belongs to. The fragments of a data set go from the socket to where the arrival wants them, one behind the other:

| state   | what comes                                  | what is done                                               | next state       |
|---------|---------------------------------------------|------------------------------------------------------------|------------------|
| IDLE    | fragment of a command set                   | kept                                                       | COMMAND, or the  |
|         |                                             |                                                            | last's (below)   |
| COMMAND | fragment of a command set, not the last     | kept                                                       | COMMAND          |
| COMMAND | the last: C-STORE-RQ (PS3.7 9.3.1.1) on an  | an arrival is opened at the door                           | STORE            |
|         | accepted presentation context               |                                                            |                  |
| COMMAND | the last: anything else                     | given to pynetdicom                                        | OTHER, or IDLE   |
|         |                                             |                                                            | without data set |
| STORE   | fragment of a data set                      | written on                                                 | STORE            |
| STORE   | the last fragment                           | made durable; C-STORE-RSP (PS3.7 9.3.1.2) goes out         | IDLE             |
| OTHER   | fragment of a data set                      | given to pynetdicom, until it has the message              | OTHER, then IDLE |
| any     | a fragment of the other kind, or of another | A-ABORT (AA-8, PS3.8 9.3.8), after the answers that are    | –                |
|         | context than its message; a malformed PDU;  | outstanding                                                |                  |
|         | a message that pynetdicom cannot decode     |                                                            |                  |
| any     | A-RELEASE-RQ, A-ABORT, any other PDU        | given to pynetdicom's state machine, after the answers     | –                |
|         |                                             | that are outstanding                                       |                  |
| any     | the connection ends, or a PDU takes too long| Evt17 (AA-4); what had come of a data set is forgotten     | –                |

With an asynchronous operations window (PS3.7 D.3.3.3) above 1, up to so many data sets are made durable side by side, and answered as each is.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from enum import Enum, auto
from functools import partial
from typing import Any, Protocol

from pynetdicom.association import Association
from pynetdicom.pdu_primitives import P_DATA, AsynchronousOperationsWindowNegotiation

from dicom_node.wire import (
    COMMAND,
    LAST,
    P_DATA_TF,
    PDU_HEAD,
    PDV_HEAD,
    Broken,
    Connection,
    Malformed,
    StoreRequest,
    WokenDUL,
    fragments,
    p_data,
    read_command,
    store_request,
    store_response,
)

_PDU_TYPES = range(0x01, 0x08)  # PS3.8 9.3.1
_COMMAND_BYTES = 1 << 16  # of a command set at most
_OTHER_BYTES = 16 << 20  # of a message that pynetdicom takes, which keeps it in memory
_SMALL_BYTES = 1 << 12  # a PDU with a command set is shorter
_LONGEST_PDU_BYTES = 1 << 20  # what the site agrees to is less; some senders exceed it


class Arriving(Protocol):
    """A data set that comes in pieces."""

    def room(self, most_bytes: int) -> memoryview:
        """Return where the next bytes go: so many at most, and at least one."""

    def took(self, count: int) -> None:
        """Go on after so many bytes that were put where `room` said."""

    def write(self, data: memoryview) -> None:
        """Take the next piece by a copy; it is another's after the return."""

    def drop(self) -> None:
        """Forget it."""

    def close(self) -> tuple[int, str]:
        """Make it durable, and return the status and comment to answer with (PS3.4 B.2.3)."""


Open = Callable[[StoreRequest, str], Arriving]  # begins to take a data set, in its transfer syntax


class _State(Enum):
    IDLE = auto()
    COMMAND = auto()
    STORE = auto()
    OTHER = auto()


class StoreDUL(WokenDUL):
    """The upper layer of an association that receives."""

    def __init__(self, association: Association, begin: Open, connection: Connection, window: ThreadPoolExecutor) -> None:
        super().__init__(association)
        self._connection = connection
        self._path = _Path(self, begin, connection, window)

    def _is_transport_event(self) -> bool:
        """Wait for something, as long as the association's thread lives: when it has died nobody answers, and the peer is not to wait for that."""
        if not self.assoc.is_alive():
            self.kill_dul()
            return False
        return super()._is_transport_event()

    def _read_pdu_data(self) -> None:
        """Read one PDU."""
        if self.state_machine.current_state == "Sta6":
            self._path.read()
        else:
            super()._read_pdu_data()

    def idle_timer_expired(self) -> bool:
        """Say whether the peer has been silent for too long; while it waits for us it may."""
        return not self._path.busy and super().idle_timer_expired()

    def run(self) -> None:
        """Run the reactor; when it ends, for whatever reason, forget what had come of a data set, and hang up."""
        try:
            super().run()
        finally:
            self._path.end()
            self._connection.close()


def negotiate_window(association: Association, performs: int) -> None:
    """Agree to so many asynchronous operations as a requestor proposes to invoke, up to `performs` (PS3.7 D.3.3.3).

    pynetdicom's own answer is always 1. The answer speaks of the requestor, as its proposal does: what it may invoke, and what it performs.
    """
    acse = association.acse

    def agreed() -> AsynchronousOperationsWindowNegotiation:
        invokes, _ = association.requestor.asynchronous_operations
        item = AsynchronousOperationsWindowNegotiation()
        item.maximum_number_operations_invoked = min(invokes or performs, performs)  # 0: unlimited
        item.maximum_number_operations_performed = 1
        association.performs_at_once = item.maximum_number_operations_invoked
        return item

    acse._check_async_ops = agreed


class _Path:
    """What has come on one association, and what is to be done with what comes next. Only the DUL's thread calls it."""

    def __init__(self, dul: StoreDUL, begin: Open, connection: Connection, window: ThreadPoolExecutor) -> None:
        self._dul = dul
        self._association = dul.assoc
        self._begin = begin
        self._connection = connection
        self._buffer = memoryview(bytearray(_SMALL_BYTES))  # for all but data sets
        self._head = memoryview(bytearray(PDU_HEAD.size))
        self._item_head = memoryview(bytearray(PDV_HEAD.size))
        self._state = _State.IDLE
        self._context_id = 0
        self._command = bytearray()
        self._other_bytes = 0
        self._request: StoreRequest | None = None
        self._arriving: Arriving | None = None
        self._answers = _Answers(connection, window, dul.sending)
        self._reading = False

    @property
    def busy(self) -> bool:
        """Whether something is being read, or an answer of ours is outstanding."""
        return self._reading or self._answers.outstanding

    def read(self) -> None:
        """Read one PDU and do what is to be done with it; go on while a message has begun, or another follows in a moment."""
        self._reading = True
        try:
            self._read_one()
            while self._goes_on():
                self._read_one()
        except Broken:
            self._end_by("Evt17")  # transport connection closed
        except Malformed:
            self._end_by("Evt19")  # unrecognized or invalid PDU
        finally:
            self._reading = False

    def _goes_on(self) -> bool:
        if self._state in (_State.COMMAND, _State.STORE):
            return not self._dul._kill_thread
        return self._state is _State.IDLE and self._dul.goes_on()

    def _end_by(self, event: str) -> None:
        """Let the state machine end the association; what it says then is the last."""
        self._answers.wait()
        self._dul.event_queue.put(event)

    def _read_one(self) -> None:
        self._connection.read(self._head)
        kind, length = PDU_HEAD.unpack(self._head)
        if kind not in _PDU_TYPES:
            raise Malformed("not a PDU")  # what would follow it need not be awaited
        if length > _LONGEST_PDU_BYTES:
            raise Malformed("a PDU longer than any that was agreed to")
        if kind == P_DATA_TF and self._state is _State.STORE and length > PDV_HEAD.size:
            self._read_data(length)
            return
        if length > len(self._buffer):
            self._buffer = memoryview(bytearray(length))
        body = self._buffer[:length]
        self._connection.read(body)
        if kind != P_DATA_TF:
            self._hand_over(body)
            return
        if not length:
            raise Malformed("a P-DATA-TF PDU without a PDV")  # PS3.8 Table 9-22
        for context_id, control, data in fragments(body):
            self._take(context_id, control, data)

    def _read_data(self, length: int) -> None:
        """Read the rest of a P-DATA-TF PDU to where the data set wants it; nearly always it is one PDV."""
        arriving, left = self._arriving, length - PDV_HEAD.size
        if arriving is None:
            raise RuntimeError("a data set without its arrival")
        place = arriving.room(left)
        self._connection.read_both(self._item_head, place)
        item_length, context_id, control = PDV_HEAD.unpack(self._item_head)
        if item_length != length - 4:
            self._take_several(length, place)
            return
        if control & COMMAND or context_id != self._context_id:
            raise Malformed("a fragment of another message")
        arriving.took(len(place))
        left -= len(place)
        while left:
            place = arriving.room(left)
            self._connection.read(place)
            arriving.took(len(place))
            left -= len(place)
        if control & LAST:
            self._answer()

    def _take_several(self, length: int, begun: memoryview) -> None:
        """Take the PDVs of a PDU whose beginning was read."""
        body = memoryview(bytearray(length))
        at = PDV_HEAD.size + len(begun)
        body[: PDV_HEAD.size] = self._item_head
        body[PDV_HEAD.size : at] = begun
        self._connection.read(body[at:])
        for one in fragments(body):
            self._take(*one)

    def end(self) -> None:
        """Forget what had come of a data set, after the answers that are outstanding."""
        self._answers.wait()
        arriving, self._arriving = self._arriving, None
        self._buffer = self._buffer[:0]  # not to be kept until garbage is collected
        if arriving is not None:
            arriving.drop()

    def _hand_over(self, body: memoryview) -> None:
        """Give another PDU than P-DATA-TF to pynetdicom's state machine."""
        self._answers.wait()
        self._state = _State.OTHER  # whatever it is, no message goes on after it
        self._dul.hand_over(bytes(self._head) + bytes(body))

    # -------------------------------------------------------------------------------------------------------- the table

    def _take(self, context_id: int, control: int, data: memoryview) -> None:
        is_command, is_last = bool(control & COMMAND), bool(control & LAST)
        has_command = self._state in (_State.STORE, _State.OTHER)
        if is_command is has_command or (self._state is not _State.IDLE and context_id != self._context_id):
            raise Malformed("a fragment of another message")
        if self._state is _State.STORE:
            self._store_on(data, is_last)
        elif self._state is _State.OTHER:
            self._other(context_id, control, data)
        else:
            self._command_on(context_id, data, is_last)

    def _command_on(self, context_id: int, data: memoryview, is_last: bool) -> None:
        self._state, self._context_id = _State.COMMAND, context_id
        self._command += data
        if len(self._command) > _COMMAND_BYTES:
            raise Malformed("an endless command set")
        if not is_last:
            return
        command, self._command = bytes(self._command), bytearray()
        context = self._association._accepted_cx.get(context_id)
        request = store_request(read_command(command)) if context is not None else None
        if context is None or request is None:
            self._state, self._other_bytes = _State.OTHER, 0
            self._other(context_id, COMMAND | LAST, memoryview(command))
            return
        self._state, self._request = _State.STORE, request
        self._arriving = self._begin(request, str(context.transfer_syntax[0]))

    def _store_on(self, data: memoryview, is_last: bool) -> None:
        if self._arriving is not None:
            self._arriving.write(data)
        if is_last:
            self._answer()

    def _answer(self) -> None:
        arriving, request = self._arriving, self._request
        if arriving is None or request is None:
            raise RuntimeError("a data set without its request")
        self._state, self._arriving, self._request = _State.IDLE, None, None
        self._answers.give(arriving, request, self._context_id, self._association)

    def _other(self, context_id: int, control: int, data: memoryview) -> None:
        self._other_bytes += len(data)
        if self._other_bytes > _OTHER_BYTES:
            raise Malformed("an endless message")
        self._answers.wait()
        primitive = P_DATA()
        primitive.presentation_data_value_list = [[context_id, bytes([control]) + bytes(data)]]  # no tuple
        try:
            self._association.dimse.receive_primitive(primitive)
        except Exception as error:  # whatever pynetdicom's and pydicom's decoders raise on bytes that anybody may send: they are no message
            raise Malformed("not a message") from error
        if self._association.dimse.message is None:
            self._state = _State.IDLE


class _Answers:
    """Makes arrivals durable and answers them: at once, or as many side by side as the association's window allows."""

    def __init__(self, connection: Connection, pool: ThreadPoolExecutor, sending: AbstractContextManager[Any]) -> None:
        self._connection = connection
        self._pool = pool
        self._sending = sending  # keeps pynetdicom's own PDUs, C-ECHO's answers for one, from coming between
        self._window: int | None = None  # what was negotiated is known when the first answer is due
        self._most_pdu_bytes = 0
        self._changed = threading.Condition()
        self._under_way = 0
        self._broken: Broken | None = None

    @property
    def outstanding(self) -> bool:
        """Whether a peer waits for an answer."""
        return self._under_way > 0

    def give(self, arriving: Arriving, request: StoreRequest, context_id: int, association: Association) -> None:
        """Answer a request whose data set is there.

        Raises
        ------
        Broken: the answer, or one before it, did not reach the peer.
        """
        if self._window is None:
            self._window = getattr(association, "performs_at_once", 1)
            self._most_pdu_bytes = association.requestor.maximum_length
        if self._window <= 1:
            self._answer(arriving, request, context_id)
        else:
            self._beside(partial(self._answer, arriving, request, context_id), self._window)

    def _answer(self, arriving: Arriving, request: StoreRequest, context_id: int) -> None:
        status, comment = arriving.close()
        pdus = p_data(context_id, COMMAND, store_response(request, status, comment), self._most_pdu_bytes)
        with self._sending:
            self._connection.write(pdus)

    def wait(self) -> None:
        """Wait until nothing is outstanding."""
        with self._changed:
            self._changed.wait_for(lambda: not self._under_way)

    def _beside(self, answer: Callable[[], None], window: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._under_way < window)
            if self._broken is not None:
                raise self._broken
            self._under_way += 1
        self._pool.submit(self._run, answer)

    def _run(self, answer: Callable[[], Any]) -> None:
        broken = None
        try:
            answer()
        except Broken as error:
            broken = error
        finally:
            with self._changed:
                self._under_way -= 1
                self._broken = broken or self._broken
                self._changed.notify_all()
