"""Exact reads and whole writes on a connected socket, plain or TLS, each with an end in time.

A plain socket waits in the kernel: SO_RCVTIMEO and SO_SNDTIMEO bound each call, and MSG_WAITALL makes one call of what would be hundreds.
TCP_QUICKACK is armed again after every read, because the kernel disarms it: a sender that leaves Nagle's algorithm on, as most do, holds a
message's last piece back until the one before is acknowledged, and a delayed acknowledgement costs it 40 ms each time.
"""

import contextlib
import select
import socket
import ssl
import struct
import time

_QUICKACK = getattr(socket, "TCP_QUICKACK", None)  # Linux
_PIECES = 1024  # of one system call (IOV_MAX)


class Broken(ConnectionError):
    """The peer has gone, or was silent for too long in the middle of something."""


class Connection:
    """A socket whose owner reads and writes it alone.

    timeout_s: how long one read or write may take; a read that trickles in may take twice that.

    Raises
    ------
    Broken: the socket was closed already.
    """

    def __init__(self, sock: socket.socket, timeout_s: float) -> None:
        self.socket = sock
        self._timeout_s = timeout_s
        self._tls = isinstance(sock, ssl.SSLSocket)
        self._poll, self._talk = select.poll(), select.poll()
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._bound()
            self._poll.register(sock, select.POLLIN)
            self._talk.register(sock, select.POLLIN | select.POLLOUT)
        except (OSError, ValueError) as error:  # ValueError: it has no descriptor any more
            raise Broken(f"closed before it was used: {type(error).__name__}") from error
        self._flags = 0 if self._tls else socket.MSG_WAITALL

    def _bound(self) -> None:
        """Give every call of the socket an end in time."""
        if self._tls:
            self.socket.settimeout(self._timeout_s)
            return
        self.socket.settimeout(None)
        bound = struct.pack("@ll", int(self._timeout_s), int(self._timeout_s % 1 * 1e6))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, bound)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, bound)

    @property
    def encrypted(self) -> bool:
        """Whether it is TLS."""
        return self._tls

    @property
    def pending(self) -> bool:
        """Whether bytes were received that no poll of the socket shows."""
        return isinstance(self.socket, ssl.SSLSocket) and bool(self.socket.pending())

    def has_news(self, wait_s: float = 0.0) -> bool:
        """Wait so long at most for something to read, the end of the connection included, and say whether there is."""
        return self.pending or bool(self._poll.poll(max(wait_s, 0.0) * 1000))

    def read(self, into: memoryview) -> None:
        """Fill a buffer.

        Raises
        ------
        Broken: the connection ended, or the buffer was not full in time.
        """
        got = self._read(into) if len(into) else 0  # a read of nothing would wait for something
        if got < len(into):
            self._read_on(into, got)

    def read_both(self, first: memoryview, second: memoryview) -> None:
        """Fill two buffers, in one call where the kernel fills them.

        Raises
        ------
        Broken: as `read`.
        """
        got = 0
        if not self._tls:
            try:
                got = self.socket.recvmsg_into((first, second), 0, self._flags)[0]
                self._acknowledge_at_once()
            except OSError as error:
                raise Broken(f"nothing to read: {type(error).__name__}") from error
            if not got:
                raise Broken("the peer closed the connection")
        if got < len(first):
            self.read(first[got:])
            got = len(first)
        if got < len(first) + len(second):
            self.read(second[got - len(first) :])

    def _acknowledge_at_once(self) -> None:
        if _QUICKACK is not None:
            self.socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    def _read(self, into: memoryview) -> int:
        try:
            got = self.socket.recv_into(into, len(into), self._flags)
            self._acknowledge_at_once()
        except OSError as error:  # BlockingIOError and TimeoutError too: nothing came in time; or another thread has closed it
            raise Broken(f"nothing to read: {type(error).__name__}") from error
        if not got and len(into):
            raise Broken("the peer closed the connection")
        return got

    def _read_on(self, into: memoryview, got: int) -> None:
        until = time.monotonic() + self._timeout_s
        while got < len(into):
            if time.monotonic() > until:
                raise Broken("the peer was too slow")
            got += self._read(into[got:])

    def close(self) -> None:
        """Hang up, if that was not done before."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self.socket.close()

    def write(self, data: bytes | memoryview) -> None:
        """Send all of it.

        Raises
        ------
        Broken: the connection ended, or the peer did not take it in time.
        """
        try:
            self.socket.sendall(data)
        except OSError as error:
            raise Broken(f"not sent: {type(error).__name__}") from error

    def push(self, pieces: list[bytes | memoryview]) -> bool:
        """Send pieces of memory in their order, without a copy, and take them out of the list; say whether all were sent.

        If not, the peer has stopped taking them and has said something instead, which is to be read before going on. A plain socket's alone.

        Raises
        ------
        Broken: the connection ended, the peer did not take anything in time, or the memory cannot be read.
        """
        while pieces:
            try:
                sent = self.socket.sendmsg(pieces[:_PIECES], (), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                raise Broken(f"not sent: {error.strerror or type(error).__name__}") from error
            _take_off(pieces, sent)
            if not pieces:
                break
            events = self._talk.poll(self._timeout_s * 1000)
            if not events:
                raise Broken("the peer took nothing in time")
            if events[0][1] & (select.POLLIN | select.POLLOUT) == select.POLLIN:
                return False
        return True


def _take_off(pieces: list[bytes | memoryview], sent: int) -> None:
    whole = 0
    while sent and sent >= len(pieces[whole]):
        sent -= len(pieces[whole])
        whole += 1
        if whole == len(pieces):
            break
    del pieces[:whole]
    if sent:
        pieces[0] = memoryview(pieces[0])[sent:]
