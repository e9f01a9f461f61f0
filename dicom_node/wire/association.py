"""A pynetdicom association whose two threads wait for events instead of sleeping a millisecond a turn.

pynetdicom 3.0 runs an association in two threads, each of which looks for work, sleeps 1 ms, and looks again; so no peer gets more than about 385
answers a second, and two hundred idle associations keep a processor busy. Both loops are left as they are. What they call in each turn is
replaced by something that waits until there is something to do:

* `WokenDUL._is_transport_event`, the DUL's look at its socket, waits for the socket, for a primitive to send, or for the ARTIM timer;
* `Gate`, in the place of the event that pauses the association's reactor, lets it turn only when the DUL has news for it, and once a second
  for its time-outs.

Whoever wants the socket for a while takes it with `WokenDUL.hold`, and gives what he read and does not understand to `WokenDUL.hand_over`.

This rests on names that pynetdicom does not promise; `is_known_library` says whether they are there, and without them the stock path is taken.
"""

import itertools
import os
import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pynetdicom
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.timer import Timer

_KNOWN = ("3.0.2", "3.0.3", "3.0.4")  # the versions that the tests ran with
_ENDING_S = 0.01
_BY_USER, _BY_PROVIDER = 0, 2  # sources of an A-ABORT (PS3.8 Table 9-26)
_NO_REASON, _REASONS = 0, (0, 1, 2, 4, 5, 6)  # of a provider's
_LET_GO_BYTES = 1 << 16  # at once
_MOMENT_MS = 5
_TURN_S = 1.0  # at least so often each loop looks for itself
_SOON_S, _SOON_TURNS = 0.05, 20  # in a pause, at first


def is_known_library() -> bool:
    """Say whether pynetdicom is one whose inner shape this file relies on."""
    names = ("_is_transport_event", "_read_pdu_data", "_decode_pdu", "_process_recv_primitive", "stop_dul", "kill_dul", "send_pdu", "run_reactor")
    return pynetdicom.__version__ in _KNOWN and all(hasattr(DULServiceProvider, name) for name in names)


class SteadyTimer(Timer):
    """A timer that expires only while it runs, by a clock that nobody sets.

    pynetdicom's own goes by the time of day. If it is stopped late, it has expired for ever: the event that this makes (Evt18) ends the thread of the
    upper layer in a state that does not know it (PS3.8 Table 9-10), Sta3 above all, in which the request to associate waits for its answer.
    """

    def start(self) -> None:
        """Begin, or begin again."""
        self._start_time: float | None = time.monotonic()
        self._end_time: float | None = None

    def stop(self) -> None:
        """Run no more."""
        self._end_time = time.monotonic()

    @property
    def running(self) -> bool:
        """Whether it was started, and not stopped since."""
        return self._start_time is not None and self._end_time is None

    @property
    def remaining(self) -> float:
        """The seconds until it expires; below 0 when it has."""
        if self.timeout is None:
            return 1.0
        started = self._start_time if self.running else None
        return self.timeout if started is None else self.timeout - (time.monotonic() - started)


def judge_by_artim(association: Association) -> None:
    """Let an acceptor that has not started wait for its request until its upper layer ends the wait: when the ARTIM timer expires (PS3.8 9.1.5).

    pynetdicom's association gives up by a clock of its own. If the request comes at that very moment, the upper layer waits for its answer (Sta3),
    the association for the upper layer's end, and the peer for ever.
    """
    dul = association.dul
    dul.artim_timer, dul._idle_timer = SteadyTimer(dul.artim_timer.timeout), SteadyTimer(dul._idle_timer.timeout)
    dul.receive_pdu = partial(_receive, dul, dul.receive_pdu)


def _receive(dul: DULServiceProvider, receive: Any, wait: bool = False, timeout: float | None = None) -> Any:
    """Return what the upper layer says next; of the request, none: it has ended, or says so."""
    if not wait or dul.assoc.requestor.primitive is not None:
        return receive(wait, timeout)
    news = dul.to_user_queue.not_empty
    with news:
        while dul.is_alive() and not dul.to_user_queue.queue:
            news.wait(_TURN_S)
    return receive(wait=False)


class Checkpoint(threading.Event):
    """Stands in for `Association._reactor_checkpoint`, at which the association's reactor waits in each turn while it is paused.

    Who pauses it waits here until its turn is over. pynetdicom looks only whether the reactor is at the checkpoint, where it may still seem to be
    when it has just gone on: then it takes the first response of what is asked next, and whoever asked does not hear of it.
    In a pause the association is marked as paused again and again: pynetdicom answers an event report in a thread of its own, which at its end
    marks the association as not paused, whatever its reactor does; who wants to release it then would wait for ever.
    """

    def __init__(self, association: Association) -> None:
        super().__init__()
        self._association = association
        self._turn = threading.Condition()
        self._turning = False
        self.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until there is something to do, and no pause."""
        with self._turn:
            self._turning = False
            self._turn.notify_all()
        self._rest()
        waits_s = itertools.chain(itertools.repeat(_SOON_S, _SOON_TURNS), itertools.repeat(_TURN_S))
        while True:
            while not super().wait(next(waits_s)):
                self._association._is_paused = True
            with self._turn:
                if self.is_set():
                    self._turning = True
                    return True

    def clear(self) -> None:
        """Begin a pause, and wait until the reactor rests: not if it is the reactor that asks, nor longer than the association lives."""
        with self._turn:
            super().clear()
            while self._turning and not self.is_set() and self._association.is_alive() and self._association is not threading.current_thread():
                self._turn.wait(_SOON_S)

    def _rest(self) -> None:
        """Wait until there is something to do: whoever knows when there is puts something here."""


class Gate(Checkpoint):
    """A checkpoint that opens for one turn at a time: when there is news, or once a second."""

    def __init__(self, association: Association) -> None:
        self._news = threading.Event()
        super().__init__(association)

    def tell(self) -> None:
        """Let the reactor turn: there is something for it."""
        self._news.set()

    def set(self) -> None:
        """End a pause, or a wait: the association is being aborted or killed."""
        super().set()
        self._news.set()

    def resume(self) -> None:
        """End a pause of which there is nothing to tell."""
        super().set()

    def _rest(self) -> None:
        self._news.wait(_TURN_S)
        self._news.clear()


class WokenDUL(DULServiceProvider):
    """The upper layer service of one association, asleep until something happens.

    It takes the place of an association's own, before that has started.
    """

    def __init__(self, association: Association) -> None:
        super().__init__(association)
        stock = association.dul
        self.socket, self.event_queue = stock.socket, stock.event_queue
        self.artim_timer, self._idle_timer = SteadyTimer(stock.artim_timer.timeout), SteadyTimer(stock._idle_timer.timeout)
        self._run_loop_delay = 0.0
        self._gate = Gate(association)
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._ringing = threading.Lock()  # a descriptor that was closed may be somebody's file by now
        self._poll = select.poll()
        self._poll.register(self._bell, select.POLLIN)
        self._polled = -1
        self._held = False  # whether the socket is another thread's
        self._reading = threading.Lock()  # held while this thread reads
        self.sending = threading.Lock()  # held while anyone sends what is to stay together
        association._reactor_checkpoint = self._gate
        association.dul = self

    def run(self) -> None:
        """Run the reactor, and give back what it waited with."""
        try:
            super().run()
        finally:
            with self._ringing:
                os.close(self._bell)
                self._bell = -1
            self._gate.tell()

    def send_pdu(self, primitive: Any) -> None:
        """Queue a primitive to be sent, and wake the thread that sends it."""
        super().send_pdu(primitive)
        self._wake()

    def kill_dul(self) -> None:
        """Make the thread end."""
        super().kill_dul()
        self._wake()

    def idle_timer_expired(self) -> bool:
        """Say whether the peer has been silent for too long: it has not if what it said lies unread, while this process was held up."""
        return super().idle_timer_expired() and not self._is_spoken_to()

    def _is_spoken_to(self) -> bool:
        transport, poll = self.socket, select.poll()
        try:
            poll.register(transport.socket, select.POLLIN)
        except (AttributeError, TypeError, ValueError):  # it is closed
            return False
        return bool(poll.poll(0))

    def stop_dul(self) -> bool:
        """End the thread if the association has ended, and wait for it."""
        others = self is not threading.current_thread()
        if others and self.state_machine.current_state != "Sta1":
            self.join(_ENDING_S)  # who calls this would look again after 10 ms, and the thread is about to end
        if self.state_machine.current_state != "Sta1":
            return False
        self.kill_dul()
        if others:
            self.join()
        return True

    def _wake(self) -> None:
        with self._ringing:
            if self._bell >= 0:
                os.eventfd_write(self._bell, 1)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Leave the socket to the caller's thread, and let the association's reactor rest; what is queued to be sent still goes out."""
        self._gate.clear()
        with self._reading:
            self._held = True
        self._wake()
        try:
            yield
        finally:
            self._idle_timer.restart()
            with self._reading:
                self._held = False
            self._gate.resume()
            self._wake()

    def hand_over(self, pdu: bytes) -> None:
        """Take a PDU that somebody else has read, as if it had been read here."""
        try:
            decoded, event = self._decode_pdu(bytearray(pdu))
        except Exception:  # whatever pynetdicom's decoder raises on bytes that anybody may send: they are no PDU
            self.event_queue.put("Evt19")
        else:
            self._recv_pdu.put(decoded)
            self.event_queue.put(event)
        self._wake()

    def _process_recv_primitive(self) -> bool:
        """Queue the next primitive's event, unless the association is only waiting for its connection to close: it came too late then.

        Sta13 of PS3.8 Table 9-10 knows no primitive, and pynetdicom's thread dies of one. A peer brings it about that says something wrong while its
        request to associate, or to release, is being answered.
        """
        if self.state_machine.current_state == "Sta13":
            self.to_provider_queue.queue.clear()
        return bool(super()._process_recv_primitive())

    def _decode_pdu(self, bytestream: bytearray) -> tuple[Any, str]:
        """Decode a PDU, or raise here what would end pynetdicom's thread later, when its state machine makes a primitive of it.

        An A-ABORT is one whatever it says of why, beyond PS3.8 Table 9-26 too.
        """
        pdu, event = super()._decode_pdu(bytestream)
        if event == "Evt16" and (pdu.source != _BY_PROVIDER or pdu.reason_diagnostic not in _REASONS):
            pdu.source = _BY_PROVIDER if pdu.source == _BY_PROVIDER else _BY_USER
            pdu.reason_diagnostic = _NO_REASON
        if event == "Evt6":
            pdu.to_primitive()
        return pdu, event

    def _send(self, pdu: Any) -> None:
        """Send a PDU, but not within what another thread is sending."""
        with self.sending:
            super()._send(pdu)

    def _is_transport_event(self) -> bool:
        """Wait for the socket, a primitive or the ARTIM timer, and read a PDU if one is there; say whether one was read."""
        if not self.to_user_queue.empty() or not self.assoc.dimse.msg_queue.empty():
            self._gate.tell()
        if not self.event_queue.empty():
            return False
        if self.state_machine.current_state == "Sta13":
            self._let_go()
            return True
        with self._reading:
            if self._is_closed():
                self.event_queue.put("Evt17")
                return False
            self._attend(self._descriptor())
            ready = self._holds_bytes()
        ready = ready or self._waits_for_socket()
        with self._reading:
            if ready and not self._held:
                self._read_pdu_data()
                return True
        return False

    def goes_on(self) -> bool:
        """Wait a moment for more from the peer, and say whether it came, and nothing else is to be done first: a turn of the reactor is saved."""
        if self._kill_thread or not self.event_queue.empty() or not self.to_provider_queue.empty():
            return False
        if self._holds_bytes():
            return True
        ready = [descriptor for descriptor, _ in self._poll.poll(_MOMENT_MS)]
        return self._polled in ready and self._bell not in ready

    def _let_go(self) -> None:
        """Read and forget what a peer still says while its connection is closed (Sta13), then close it.

        pynetdicom would read PDUs in it, and answer each piece of nonsense with an A-ABORT of its own. The ARTIM timer ends one that says on.
        """
        transport = self.socket
        if transport is None or transport.socket is None:
            self.event_queue.put("Evt17")
            return
        try:
            more = transport.ready and transport.socket.recv(_LET_GO_BYTES)
        except OSError:
            more = b""
        if not more:
            transport.close()

    def _descriptor(self) -> int:
        """Return the file descriptor to wait for; -1: none, the socket is not connected, or another thread's."""
        transport = self.socket
        if self._held or transport is None or transport.socket is None or not transport._is_connected:
            return -1
        return int(transport.socket.fileno())

    def _is_closed(self) -> bool:
        """Say whether somebody has closed the socket under a connection, of which no poll tells."""
        transport = self.socket
        connected = not self._held and transport is not None and transport.socket is not None and transport._is_connected
        return connected and transport.socket.fileno() < 0 and self.state_machine.current_state != "Sta1"

    def _attend(self, descriptor: int) -> None:
        if descriptor != self._polled:
            if self._polled >= 0:
                self._poll.unregister(self._polled)
            if descriptor >= 0:
                self._poll.register(descriptor, select.POLLIN)
            self._polled = descriptor

    def _holds_bytes(self) -> bool:
        """Say whether TLS has decrypted more than was asked for: no poll shows these bytes."""
        pending = getattr(self.socket.socket, "pending", None) if self._polled >= 0 else None
        return bool(pending and pending())

    def _waits_for_socket(self) -> bool:
        timer = self.artim_timer
        wait_s = min(max(timer.remaining, 0.0) + 0.001, _TURN_S) if timer.running and timer.timeout is not None else _TURN_S
        ready = [descriptor for descriptor, _ in self._poll.poll(wait_s * 1000)]
        if self._bell in ready:
            os.eventfd_read(self._bell)
        return self._polled in ready
