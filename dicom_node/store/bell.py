"""The bell: who waits for work is told of it, in whatever process it waits.

A ring says "look now" and nothing more; what there is to be done stands in the ledger. So a ring that is lost costs time, never work: whoever
listens looks by itself after a while too. Ringing is for the moment after a commit. It takes microseconds, waits for nobody and never fails.

With SQLite each listener is a datagram socket in `<storage>/bells`, of this user only. With PostgreSQL it is LISTEN and NOTIFY.
"""

import contextlib
import os
import selectors
import socket
import threading
import uuid
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from dicom_node.store.database import Database

log = structlog.get_logger()

_PATH_MAX_BYTES = 100  # of a socket's name; Linux takes 107, others fewer
_FLUSH_S = 2.0  # so long a closing bell waits until its last rings are out
_AGAIN_AFTER_S = 1.0  # before a lost connection to PostgreSQL is opened again


class Topic(StrEnum):
    """What somebody waits for."""

    STUDIES = "studies"  # a study is to be judged, now or at another time than before
    JOBS = "jobs"  # a job may be claimed, now or at another time than before
    DELIVERIES = "deliveries"  # a result may be sent, now or at another time than before
    RETRIEVALS = "retrievals"  # a study may be fetched, now or at another time than before, or its retrieval has ended
    WORKITEMS = "workitems"  # a workitem was asked for or has changed, or there is something to tell those who watch
    FEEDBACK = "feedback"  # a reader has said something: a verified report may be written


class Listener(Protocol):
    """One who waits for a topic, or several; `wait` is for one thread, the rest for any."""

    def wait(self, within_s: float) -> bool:
        """Wait until the bell rings or the time is over; say whether it rang. Rings that came since the last wait count, and count once."""

    def wake(self) -> None:
        """End this listener's wait, or its next one."""

    def close(self) -> None:
        """Listen no more."""


class Bell(Protocol):
    """Rings, and gives ears to those who wait."""

    def ring(self, topic: Topic) -> None:
        """Tell all who wait for a topic to look now."""

    def listen(self, *topics: Topic) -> Listener:
        """Return a new listener of one topic or several; it hears what rings from now on."""

    def close(self) -> None:
        """Send what was rung, and ring no more."""


def bell_of(database: Database, root: Path) -> Bell:
    """Return the bell that every process on this ledger hears."""
    return _SocketBell(root / "bells") if database.is_sqlite else _NotifyBell(database)


@contextlib.contextmanager
def ringing(bell: Bell, topic: Topic, database: Database) -> Iterator[Connection]:
    """Open a transaction that writes, and ring once it is committed.

    Raises
    ------
    Transient: the database did not take it; nothing of it is kept, and nothing rings.
    """
    with database.write() as connection:
        yield connection
    bell.ring(topic)


class _Poke:
    """How a thread of this process ends the wait of another."""

    def __init__(self) -> None:
        self.ear, self._hand = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.ear.setblocking(False)
        self._hand.setblocking(False)

    def wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it is woken already; closed: nobody waits
            self._hand.send(b"!")

    def close(self) -> None:
        self.ear.close()
        self._hand.close()


def _drained(ear: socket.socket) -> None:
    with contextlib.suppress(OSError):  # empty
        while True:
            ear.recv(16)


# ------------------------------------------------------------------------------------------------- sockets on one host


class _SocketBell:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._hand = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._hand.setblocking(False)

    def ring(self, topic: Topic) -> None:
        with contextlib.suppress(OSError):  # no folder: nobody has ever listened here
            for name in os.listdir(self._folder):
                if name.startswith(f"{topic}-"):
                    self._ring(self._folder / name)

    def _ring(self, place: Path) -> None:
        try:
            with _address(place) as address:
                self._hand.sendto(b"!", address)
        except ConnectionRefusedError:  # its process is gone; no name is used twice
            with contextlib.suppress(OSError):
                place.unlink()
        except OSError:  # full: told already, and not yet looked; anything else: it looks by itself after a while
            return

    def listen(self, *topics: Topic) -> Listener:
        return _SocketListener(self._folder, topics)

    def close(self) -> None:
        self._hand.close()


class _SocketListener:
    def __init__(self, folder: Path, topics: Sequence[Topic]) -> None:
        self._poke = _Poke()
        self._ears: list[tuple[Path, socket.socket]] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._poke.ear, selectors.EVENT_READ)
        for topic in topics:
            self._open(folder, topic)

    def _open(self, folder: Path, topic: Topic) -> None:
        place, ear = folder / f"{topic}-{uuid.uuid4().hex[:12]}", socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        ear.setblocking(False)
        self._ears.append((place, ear))
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            with _address(place) as address:
                ear.bind(address)
            self._selector.register(ear, selectors.EVENT_READ)
        except OSError as error:  # some shared folders hold no sockets: this one looks by itself after a while
            log.warning("bell not heard", topic=topic, reason=error.strerror or str(error))

    def wait(self, within_s: float) -> bool:
        ready = self._selector.select(max(within_s, 0.0))
        for key, _ in ready:
            _drained(key.fileobj)  # type: ignore[arg-type]  # nothing but sockets was registered
        return bool(ready)

    def wake(self) -> None:
        self._poke.wake()

    def close(self) -> None:
        self._selector.close()
        self._poke.close()
        for place, ear in self._ears:
            ear.close()
            with contextlib.suppress(OSError):  # it was never there, or is gone with its folder
                place.unlink()


@contextlib.contextmanager
def _address(place: Path) -> Iterator[str]:
    """Give the name of a socket as the system takes it: where the path is too long, through an open folder (Linux)."""
    if len(os.fsencode(place)) <= _PATH_MAX_BYTES:
        yield str(place)
        return
    folder = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{place.name}"
    finally:
        os.close(folder)


# --------------------------------------------------------------------------------------------------------- PostgreSQL


class _NotifyBell:
    """Rings from a thread of its own, on a connection of its own: the ringer does not wait for the server, and many rings become one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rung: set[Topic] = set()
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def ring(self, topic: Topic) -> None:
        with self._changed:
            if self._closed:
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._send, name="bell", daemon=True)
                self._thread.start()
            self._rung.add(topic)
            self._changed.notify()

    def _send(self) -> None:
        connection: Any = None
        while rung := self._taken():
            try:
                connection = connection or _dedicated(self._database)
                for topic in sorted(rung):
                    connection.execute("SELECT pg_notify(%s, '')", (_channel(topic),))
            except (OSError, SQLAlchemyError, _errors()):  # those who listen look by themselves after a while
                _close(connection)
                connection = None
        _close(connection)

    def _taken(self) -> set[Topic]:
        """Wait for rings and take them; none when the bell is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._rung or self._closed)
            rung, self._rung = self._rung, set()
            return rung

    def listen(self, *topics: Topic) -> Listener:
        return _NotifyListener(self._database, topics)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(_FLUSH_S)


class _NotifyListener:
    def __init__(self, database: Database, topics: Sequence[Topic]) -> None:
        self._database = database
        self._topics = topics
        self._poke = _Poke()
        self._connection: Any = None
        self._open()

    def wait(self, within_s: float) -> bool:
        if self._connection is None and self._open():
            return True  # what rang while nobody listened was not heard
        if self._connection is None:
            within_s = min(within_s, _AGAIN_AFTER_S)
        with selectors.DefaultSelector() as selector:
            selector.register(self._poke.ear, selectors.EVENT_READ)
            if self._connection is not None:
                selector.register(self._connection.fileno(), selectors.EVENT_READ)
            ready = selector.select(max(within_s, 0.0))
        _drained(self._poke.ear)
        return self._heard() or bool(ready)

    def _heard(self) -> bool:
        """Take what the server sent; a connection that broke is closed, to be opened again at the next wait."""
        rang = False
        try:
            if self._connection is not None:
                self._connection.pgconn.consume_input()
                while self._connection.pgconn.notifies():
                    rang = True
        except _errors():
            self._hang_up()
        return rang

    def _open(self) -> bool:
        try:
            self._connection = _dedicated(self._database)
            for topic in self._topics:
                self._connection.execute(f"LISTEN {_channel(topic)}")
        except (OSError, SQLAlchemyError, _errors()) as error:
            self._hang_up()
            log.warning("bell not heard", topic=", ".join(self._topics), reason=type(error).__name__)
        return self._connection is not None

    def _hang_up(self) -> None:
        _close(self._connection)
        self._connection = None

    def wake(self) -> None:
        self._poke.wake()

    def close(self) -> None:
        self._hang_up()
        self._poke.close()


def _channel(topic: Topic) -> str:
    return f"dicom_node_{topic}"


def _dedicated(database: Database) -> Any:
    """Open a connection of the driver's own, beside the pool, in which every statement is a transaction."""
    dialect = database.engine.dialect
    arguments, options = dialect.create_connect_args(database.engine.url)
    return dialect.connect(*arguments, **{**options, "autocommit": True, "application_name": "dicom_node bell"})


def _close(connection: Any) -> None:
    if connection is not None:
        with contextlib.suppress(_errors()):
            connection.close()


def _errors() -> type[Exception]:
    import psycopg  # of the extra [postgresql]

    return psycopg.Error
