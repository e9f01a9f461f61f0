"""What no association waits for: rows made durable, files moved to their places, empty files kept at hand."""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable

from dicom_node.domain import NodeError, Transient
from dicom_node.store.archive import Archive
from dicom_node.store.database import Database

_SETTLE_EVERY_S = 0.25
_STOCK_EVERY_S = 0.02
_LOW_STOCK = 48  # empty files
_CHECKPOINT_EVERY = 2000  # instances: about 10 MB of write-ahead log


class Keeper:
    """The thread that does what no association waits for."""

    def __init__(self, database: Database, archive: Archive) -> None:
        self._database = database
        self._archive = archive
        self._recorded: deque[str] = deque()  # names of files in `incoming` whose rows are committed
        self._since_checkpoint = 0
        self._settle_at = 0.0
        self._settling = threading.Lock()
        self._lock = threading.Lock()
        self._round: _Round | None = None

    def add(self, name: str) -> None:
        """Take over the file of a committed row."""
        self._recorded.append(name)
        running = self._round
        if running is None or not running.thread.is_alive():
            running = self._begun()
        if not running.news.is_set():
            running.news.set()

    def settle(self) -> None:
        """Make every committed row durable, then move their files to their places."""
        with self._settling:
            names = [self._recorded.popleft() for _ in range(len(self._recorded))]
            if not names:
                return
            try:
                self._database.harden()
            except Transient:
                self._recorded.extendleft(reversed(names))
                raise
            for name in names:
                with contextlib.suppress(OSError):  # it is safe where it is, `Archive.path` finds it there, and the next start's sweep moves it
                    self._archive.settle(name)
            self._since_checkpoint += len(names)
            if self._since_checkpoint >= _CHECKPOINT_EVERY:
                self._since_checkpoint = 0
                self._database.checkpoint()

    def close(self) -> None:
        """Settle what there is and end the thread."""
        with self._lock:
            running, self._round = self._round, None
        if running is not None:
            running.stopping.set()
            running.news.set()
            running.thread.join()
        with contextlib.suppress(NodeError):  # the files are safe in `incoming`, and the next start's sweep goes on from there
            self.settle()

    def _begun(self) -> "_Round":
        with self._lock:
            if self._round is None or not self._round.thread.is_alive():
                self._round = _Round(self._run)
                self._round.thread.start()
            return self._round

    def _run(self, running: "_Round") -> None:
        while not running.stopping.is_set():
            running.news.wait()
            running.news.clear()
            while self._recorded and not running.stopping.wait(_STOCK_EVERY_S):
                with contextlib.suppress(NodeError):  # what could not be done now is done at the next turn, or at the next start
                    self._turn()

    def _turn(self) -> None:
        if self._archive.stocked < _LOW_STOCK:
            self._archive.stock_up()
        if time.monotonic() >= self._settle_at:
            self._settle_at = time.monotonic() + _SETTLE_EVERY_S
            self.settle()


class _Round:
    """The thread between its start and its end, which another may follow before this one has ended; each is told for itself."""

    def __init__(self, run: Callable[["_Round"], None]) -> None:
        self.news = threading.Event()
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=run, args=(self,), name="keeper", daemon=True)
