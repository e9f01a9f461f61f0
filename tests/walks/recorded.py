"""Conversations of real senders, kept as they came, and played again to a receiver: the client's side is said, the server's is listened to.

A recording says nothing of time: before each piece the client had heard so many whole PDUs, and the player waits until it has heard as many.
"""

import contextlib
import fcntl
import os
import select
import socket
import stat
import struct
import sys
import termios
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Self

PATIENCE_S = 20.0  # for what must come; nothing waits so long unless something is wrong
_ACCEPTED, _ABORTED = 0x02, 0x07  # PDU types (PS3.8 9.3.1)
_MAXIMUM_LENGTH = b"\x51\x00\x00\x04"  # the item that says how long a PDU may be (PS3.8 D.1)


class End(Enum):
    """How the client left."""

    CLOSED = "closed"  # with a FIN; of a client that waits for the server to close first, too
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class Turn:
    """What a client sent after it had heard `after` PDUs, piece by piece."""

    after: int
    pieces: tuple[bytes, ...]

    @property
    def content(self) -> bytes:
        """The bytes of all pieces."""
        return b"".join(self.pieces)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One connection, from the client's side."""

    turns: tuple[Turn, ...]
    answers: int  # PDUs that the server said in all
    end: End = End.CLOSED
    said: bytes = b""  # by the server, where it was a real conversation

    @classmethod
    def of(cls, *turns: tuple[int, bytes], answers: int, end: End = End.CLOSED) -> Self:
        """Write a recording by hand: (PDUs heard before, bytes)."""
        return cls(turns=tuple(Turn(after, (content,)) for after, content in turns), answers=answers, end=end)

    @property
    def size_bytes(self) -> int:
        """What the client sends in all."""
        return sum(len(turn.content) for turn in self.turns)

    def cut_off(self, size_bytes: int, *, end: End, last: bytes = b"") -> "Recording":
        """Return the same conversation, left by the client when it has said so many bytes and these last ones; it waits for no answer any more."""
        turns: list[Turn] = []
        for turn in self.turns:
            if size_bytes <= 0:
                break
            turns.append(Turn(turn.after, (turn.content[:size_bytes],)))
            size_bytes -= len(turn.content)
        after = turns[-1].after if turns else 0
        return Recording(turns=(*turns, Turn(after, (last,))) if last else tuple(turns), answers=after, end=end)


def pdus(stream: bytes) -> list[bytes]:
    """Part a stream into PDUs (PS3.8 9.3.1); what is left at the end, half a PDU, is one too."""
    parts, start = [], 0
    while start < len(stream):
        end = start + 6 + int.from_bytes(stream[start + 2 : start + 6], "big")
        parts.append(stream[start:end])
        start = end
    return parts


def whole_pdus(stream: bytes) -> int:
    """Count the PDUs that have come whole."""
    parts = pdus(stream)
    return len(parts) - bool(parts and (len(parts[-1]) < 6 or len(parts[-1]) < 6 + int.from_bytes(parts[-1][2:6], "big")))


# --------------------------------------------------------------------------------------------------------------- record


class Recorder:
    """A proxy between senders and a receiver. What it passes on it passes on unchanged, but for the PDU length that the receiver agrees to."""

    def __init__(self, to_port: int) -> None:
        self.pdu_bytes = 131072  # what senders are told that the receiver takes at most
        self._to_port = to_port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._done: list[Recording] = []
        self._lines: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._accept, name="recorder", daemon=True)

    @property
    def port(self) -> int:
        """Where senders find it."""
        return int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def take(self) -> list[Recording]:
        """Return every conversation since the last time, the senders being done."""
        for line in self._lines:
            line.join(PATIENCE_S)
            assert not line.is_alive(), "a sender or the receiver keeps its connection open"
        taken, self._done, self._lines = self._done, [], []
        return taken

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # it was closed
                return
            line = threading.Thread(target=self._pass_on, args=(client,), name="recorder line", daemon=True)
            self._lines.append(line)
            line.start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._to_port)) as server:
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._done.append(_Listened(client, server, self.pdu_bytes).to_the_end())


@dataclass(slots=True)
class _Listened:
    """A connection under way."""

    client: socket.socket
    server: socket.socket
    pdu_bytes: int
    turns: list[tuple[int, list[bytes]]] = field(default_factory=list)
    heard: bytearray = field(default_factory=bytearray)

    def to_the_end(self) -> Recording:
        end, open_ends = End.CLOSED, {self.client, self.server}
        while open_ends:
            for one in select.select(list(open_ends), [], [], PATIENCE_S)[0]:
                other = self.server if one is self.client else self.client
                try:
                    piece = one.recv(1 << 18)
                except ConnectionResetError:
                    piece, end = b"", End.RESET if one is self.client else end
                with contextlib.suppress(OSError):  # the other has gone already
                    if piece:
                        other.sendall(self._said(one, piece))
                    else:
                        other.shutdown(socket.SHUT_WR)
                if not piece:
                    open_ends.discard(one)
                if end is End.RESET:
                    open_ends.discard(self.client)
        turns = tuple(Turn(after, tuple(pieces)) for after, pieces in self.turns)
        said = bytes(self.heard)
        return Recording(turns=turns, answers=whole_pdus(said), end=end, said=said)

    def _said(self, who: socket.socket, piece: bytes) -> bytes:
        if who is self.server:
            self.heard += piece
            return self._agreed(piece)
        after = whole_pdus(bytes(self.heard))
        if not self.turns or self.turns[-1][0] != after:
            self.turns.append((after, []))
        self.turns[-1][1].append(piece)
        return piece

    def _agreed(self, piece: bytes) -> bytes:
        place = piece.find(_MAXIMUM_LENGTH)
        if piece[0] != _ACCEPTED or place < 0:
            return piece
        return piece[: place + 4] + self.pdu_bytes.to_bytes(4, "big") + piece[place + 8 :]


# ----------------------------------------------------------------------------------------------------------------- play

Cut = Callable[[Turn], Iterable[bytes]]


def as_recorded(turn: Turn) -> Iterable[bytes]:
    """Send the pieces that the sender's system sent."""
    return turn.pieces


def whole(turn: Turn) -> Iterable[bytes]:
    """Send at once whatever the client says before it waits."""
    return (turn.content,)


def single_bytes(turn: Turn) -> Iterable[bytes]:
    """Send each byte alone."""
    return (turn.content[place : place + 1] for place in range(len(turn.content)))


def through_headers(turn: Turn) -> Iterable[bytes]:
    """Send the 12 bytes of each PDU's header and first PDV's header one by one, and the rest in three."""
    for pdu in pdus(turn.content):
        rest = pdu[12:]
        third = len(rest) // 3 + 1
        yield from (pdu[place : place + 1] for place in range(min(12, len(pdu))))
        yield from (rest[place : place + third] for place in range(0, len(rest), third))


def at(places: Sequence[float]) -> Cut:
    """Cut each turn at these places, as fractions of it."""

    def cut(turn: Turn) -> Iterable[bytes]:
        content = turn.content
        ends = sorted({int(place * len(content)) for place in places} | {0, len(content)})
        return (content[start:end] for start, end in zip(ends, ends[1:], strict=False))

    return cut


def play(recording: Recording, port: int, cut: Cut = as_recorded, *, apart: bool = True) -> bytes:
    """Say a client's side to a receiver in this process, and return all that it said.

    apart: send each piece only after the receiver has read the one before, so that it reads them apart.
    """
    said = bytearray()
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reads = _other_end(line) if apart else None
        for turn in recording.turns:
            _hear(line, said, turn.after)
            for piece in cut(turn):
                if not _say(line, piece):
                    break
                _until_read(reads)
        _hear(line, said, recording.answers)
        if recording.end is End.RESET:
            reset(line)
        else:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_WR)
            _hear(line, said, None)
    return bytes(said)


def reset(line: socket.socket) -> None:
    """Leave without a word: what has not been read is lost (RST)."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    line.close()


def _say(line: socket.socket, piece: bytes) -> bool:
    try:
        line.sendall(piece)
    except (BrokenPipeError, ConnectionResetError):
        return False  # the server has hung up: what it said before is still to be heard
    return True


def _hear(line: socket.socket, said: bytearray, count: int | None) -> None:
    """Listen until so many PDUs have been heard in all, or the server aborts or hangs up; none: until it hangs up."""
    while not _heard(bytes(said), count):
        try:
            heard = line.recv(1 << 16)
        except ConnectionResetError:
            return
        except TimeoutError as error:
            wanted = "the end of the connection" if count is None else f"PDU {count}"
            heard_so_far = [pdu.hex() for pdu in pdus(bytes(said))]
            raise AssertionError(f"{wanted} did not come within {PATIENCE_S:g} s; heard so far: {heard_so_far}\n{_stacks()}") from error
        if not heard:
            return
        said += heard


def _heard(said: bytes, count: int | None) -> bool:
    parts = pdus(said)[: whole_pdus(said)]
    return count is not None and (len(parts) >= count or (bool(parts) and parts[-1][0] == _ABORTED))


def _stacks() -> str:
    """Say where every thread of this process is."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sys._current_frames().items()
    return "\n".join(f"{names.get(ident)}:\n{''.join(traceback.format_stack(frame, 8))}" for ident, frame in frames)


def _other_end(line: socket.socket) -> int | None:
    """Return the descriptor by which this process reads what is sent on a line; none: the receiver has not accepted it, or has hung up already."""
    ends = line.getpeername(), line.getsockname()
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        for descriptor in _sockets():
            with contextlib.suppress(OSError):
                other = socket.socket(fileno=descriptor)  # whose it is, closes it
                try:
                    if other.family == socket.AF_INET and (other.getsockname(), other.getpeername()) == ends:
                        return descriptor
                finally:
                    other.detach()
        if select.select([line], [], [], 0.001)[0]:
            return None
    raise AssertionError(f"the receiver does not accept connections\n{_stacks()}")


def _sockets() -> Iterator[int]:
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if os.readlink(entry).startswith("socket:"):
                yield int(entry.name)


def _until_read(descriptor: int | None) -> None:
    """Wait until the receiver has read everything, or has closed its end, by whose number there may be something else then."""
    waiting = bytearray(4)
    until = time.monotonic() + PATIENCE_S
    while descriptor is not None and time.monotonic() < until:
        try:
            fcntl.ioctl(descriptor, termios.FIONREAD, waiting)
            is_socket = stat.S_ISSOCK(os.fstat(descriptor).st_mode)
        except OSError:
            return
        if not any(waiting) or not is_socket:
            return
        time.sleep(0)  # lets the receiver's thread have the interpreter
    assert descriptor is None, f"what was said is not read\n{_stacks()}"
