"""How many data sets are made durable at once, and whose turn it is: each sender's in its turn, however many associations it has."""

import threading
from collections import deque

from dicom_node.domain import Transient


class Turnstile:
    """Lets so many pass at once; the others wait by sender, and senders take turns."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._lock = threading.Lock()
        self._waiting: dict[str, deque[threading.Lock]] = {}  # sender → its waiting; the first sender is the next

    def turn(self, sender: str, timeout_s: float) -> "Turn":
        """Return what waits for a turn, and holds its place, for the length of a `with` block."""
        return Turn(self, sender, timeout_s)

    def enter(self, sender: str, timeout_s: float) -> None:
        """Wait for a place and take it.

        Raises
        ------
        Transient: none came in time: the disk is slower than the senders.
        """
        mine = self._line_up(sender)
        if mine is not None and not mine.acquire(timeout=timeout_s) and self._step_out(sender, mine):
            raise Transient(f"the disk took no data set for {timeout_s:g} s", hint="The disk is slower than what is sent: look at it.")

    def leave(self) -> None:
        """Give the place to the first of the next sender, who then is the last of all senders."""
        with self._lock:
            if not self._waiting:
                self._free += 1
                return
            sender = next(iter(self._waiting))
            line = self._waiting.pop(sender)
            line.popleft().release()
            if line:
                self._waiting[sender] = line

    def _line_up(self, sender: str) -> "threading.Lock | None":
        """Take a free place, or return what is released when there is one."""
        with self._lock:
            if self._free:
                self._free -= 1
                return None
            mine = threading.Lock()
            mine.acquire()
            self._waiting.setdefault(sender, deque()).append(mine)
            return mine

    def _step_out(self, sender: str, mine: threading.Lock) -> bool:
        """Wait no longer; say no when the turn came at this very moment."""
        with self._lock:
            line = self._waiting.get(sender)
            if line is None or mine not in line:
                return False
            line.remove(mine)
            if not line:
                del self._waiting[sender]
            return True


class Turn:
    """A place at the turnstile."""

    __slots__ = ("_sender", "_timeout_s", "_turnstile")

    def __init__(self, turnstile: Turnstile, sender: str, timeout_s: float) -> None:
        self._turnstile = turnstile
        self._sender = sender
        self._timeout_s = timeout_s

    def __enter__(self) -> None:
        self._turnstile.enter(self._sender, self._timeout_s)

    def __exit__(self, *_: object) -> None:
        self._turnstile.leave()
