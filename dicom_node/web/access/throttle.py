"""How often somebody may try a password: by name, known or not, and by address."""

import ipaddress
import threading
from collections import OrderedDict, deque
from collections.abc import Callable

WINDOW_S = 900.0
PER_NAME, PER_ADDRESS = 10, 50  # failures within the window
_MOST = 10_000  # keys that are remembered; those that were touched longest ago are forgotten


class Throttle:
    """The failures of the last minutes, in memory: who restarts the node has other ways in."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, name: str, address: str) -> float:
        """Count a try as failed, before it is known, and return 0; or how long it has to wait, and count nothing."""
        now = self._clock()
        keys = (("name", name), PER_NAME), (("address", _net(address)), PER_ADDRESS)
        with self._lock:
            if wait := max(self._wait(key, most, now) for key, most in keys):
                return wait
            for key, most in keys:
                self._failures.setdefault(key, deque(maxlen=most)).append(now)
                self._failures.move_to_end(key)
            while len(self._failures) > _MOST:
                self._failures.popitem(last=False)
        return 0.0

    def forgive(self, name: str, address: str) -> None:
        """Forget the failures of a name, and the last of its address: the try succeeded."""
        with self._lock:
            self._failures.pop(("name", name), None)
            if tries := self._failures.get(("address", _net(address))):
                tries.pop()

    def _wait(self, key: tuple[str, str], most: int, now: float) -> float:
        tries = self._failures.get(key, deque())
        while tries and not now - WINDOW_S < tries[0] <= now:  # later than now: the clock was put back
            tries.popleft()
        return tries[-most] + WINDOW_S - now if len(tries) >= most else 0.0


def _net(address: str) -> str:
    """Return what one subscriber has: an IPv4 address, or a /64 of IPv6."""
    try:
        one = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((one, 64), strict=False)) if one.version == 6 else str(one)
