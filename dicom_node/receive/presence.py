"""Which studies the associations that are open have brought, and when the last of each ended: evidence of whether more is to come.

Kept in memory alone, and of the associations of this process: beside others that receive on the same port it knows its own part.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable

_REMEMBERED = 1000  # studies whose associations have ended, the latest


class Presence:
    """Who is still here."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._brought: dict[int, set[str]] = {}  # an open association → the studies of which it brought something
        self._open: dict[str, int] = {}  # study → how many of them
        self._ended: OrderedDict[str, float] = OrderedDict()

    def brings(self, association: int, study_instance_uid: str) -> None:
        """Note that an association brought something of a study; association: a number that no other has while it is open."""
        with self._lock:
            brought = self._brought.setdefault(association, set())
            if study_instance_uid not in brought:
                brought.add(study_instance_uid)
                self._open[study_instance_uid] = self._open.get(study_instance_uid, 0) + 1

    def leaves(self, association: int) -> None:
        """Note that an association has ended."""
        with self._lock:
            for uid in self._brought.pop(association, ()):
                self._open[uid] -= 1
                if not self._open[uid]:
                    del self._open[uid]
                    self._ended[uid] = self._clock()
                    self._ended.move_to_end(uid)
            while len(self._ended) > _REMEMBERED:
                self._ended.popitem(last=False)

    def ended_at(self, study_instance_uid: str) -> float:
        """Return when the last association that brought some of a study ended: now, while one is open; 0 when that is not known."""
        with self._lock:
            return self._clock() if study_instance_uid in self._open else self._ended.get(study_instance_uid, 0.0)
