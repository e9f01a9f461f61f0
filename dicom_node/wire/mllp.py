"""Messages on a line as MLLP frames them: a start byte, the message, two end bytes (HL7 v2 Transport Specification, MLLP Release 1)."""

import socket
import ssl
import time

MOST_BYTES = 1 << 20  # of a message
_START, _END = b"\x0b", b"\x1c\r"
_MOST_STRAY_BYTES = 1024  # between messages
_READ_BYTES = 1 << 16


class Unframed(Exception):
    """Raised when what comes is no message within its bounds."""


def framed(message: bytes) -> bytes:
    """Return a message as it goes over the line."""
    return _START + message + _END


class Frames:
    """What has come over a line, cut into messages. Bytes between messages are left out."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._held = bytearray()
        self._looked = 0  # so far there is no end
        self._stray = 0

    def feed(self, data: bytes) -> None:
        """Take what came."""
        self._held += data

    @property
    def is_empty(self) -> bool:
        """Whether nothing of a message is there."""
        return not self._held

    def next(self) -> bytes | None:
        """Return the next message, None when it has not come as a whole.

        Raises
        ------
        Unframed: it is too long, or there is too much between messages.
        """
        self._leave_out(self._held.find(_START))
        end = self._held.find(_END, self._looked)
        if (end if end >= 0 else len(self._held)) > self._most_bytes:
            raise Unframed(f"a message is longer than {self._most_bytes} bytes")
        if end < 0:
            self._looked = max(0, len(self._held) - 1)
            return None
        message = bytes(self._held[1:end])
        del self._held[: end + len(_END)]
        self._looked = 0
        return message

    def _leave_out(self, start: int) -> None:
        """Leave out what stands before the next start."""
        stray = len(self._held) if start < 0 else start
        if stray:
            self._stray += stray
            self._looked = 0
            del self._held[:stray]
        if self._stray > _MOST_STRAY_BYTES:
            raise Unframed("what comes is not framed")


def receive(line: socket.socket, frames: Frames, *, idle_s: float, timeout_s: float) -> bytes | None:
    """Wait for the next message on a line; None when the other side has ended. idle_s: for its first byte; timeout_s: from there on.

    Raises
    ------
    TimeoutError: it did not come in time.
    Unframed: it is no message within its bounds.
    OSError: the line is broken.
    """
    message, until, began = frames.next(), time.monotonic() + idle_s, False
    while message is None:
        if not began and not frames.is_empty:
            began, until = True, time.monotonic() + timeout_s
        left_s = until - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the message takes too long" if began else "nothing came")
        line.settimeout(left_s)
        data = line.recv(_READ_BYTES)
        if not data:
            return None
        frames.feed(data)
        message = frames.next()
    return message


def exchange(host: str, port: int, message: bytes, *, timeout_s: float, context: ssl.SSLContext | None = None) -> bytes | None:
    """Send one message over a line of its own and return the answer; None when the other side ends without one.

    Raises
    ------
    OSError: it is not reached, or does not answer in time.
    Unframed: its answer is no message within its bounds.
    """
    with socket.create_connection((host, port), timeout_s) as plain:
        line = context.wrap_socket(plain, server_hostname=host) if context is not None else plain
        with line:
            line.settimeout(timeout_s)
            line.sendall(framed(message))
            return receive(line, Frames(), idle_s=timeout_s, timeout_s=timeout_s)
