"""The disk as a power cut may leave it: what was flushed is there, of the rest anything.

What is flushed is learnt by wrapping `os.fsync`: of a file the bytes that it had when the flush began, of a folder the names. SQLite's own
flushes are not seen so; what it makes durable by itself only adds to what is known here, but for its database file, which changes in checkpoints
alone: these are left to `Database.checkpoint`, and no picture is taken within one.
"""

import os
import random
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import event

from dicom_node.store import Store

PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class _Flushed:
    """What is known to be durable at a moment."""

    ledger: bytes
    log: bytes
    files: dict[int, bytes]  # inode → content
    names: frozenset[str]  # in `incoming`


class Disk:
    """Watches the storage folder of a store that runs in this process."""

    def __init__(self, store: Store, die: random.Random) -> None:
        self.root = store.archive.root
        self._store = store
        self._die = die
        self._frozen = threading.RLock()  # held while the log is flushed, a checkpoint runs, or a picture is taken
        self._noting = threading.Lock()
        self._files: dict[int, bytes] = {}
        self._names: frozenset[str] = frozenset()
        self._ledger = self._log = b""

    @contextmanager
    def watched(self) -> Iterator["Disk"]:
        """Note every flush while the block lasts."""
        database, fsync = self._store.database, os.fsync
        event.listen(database.engine, "connect", _no_checkpoints)
        database.engine.dispose()
        checkpoint = database.checkpoint
        database.checkpoint = lambda: self._checkpoint(checkpoint)  # type: ignore[method-assign]
        os.fsync = lambda descriptor: self._fsync(fsync, descriptor)
        try:
            database.checkpoint()
            yield self
        finally:
            os.fsync = fsync

    def _fsync(self, fsync: Callable[[int], None], descriptor: int) -> None:
        status = os.fstat(descriptor)
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if stat.S_ISDIR(status.st_mode):
            names = frozenset(os.listdir(path))
            fsync(descriptor)
            if path == self._store.archive.incoming:
                with self._noting:
                    self._names |= names
        elif path.name == "ledger.sqlite-wal":
            with self._frozen:
                log = path.read_bytes()
                fsync(descriptor)
                self._log = log
        else:
            content = path.read_bytes()  # not by the descriptor, which may want whole pages (O_DIRECT)
            fsync(descriptor)
            with self._noting:
                self._files[status.st_ino] = content

    def _checkpoint(self, checkpoint: Callable[[], None]) -> None:
        with self._frozen, closing(sqlite3.connect(self.root / "ledger.sqlite", timeout=30, isolation_level=None)) as plain:
            plain.execute("BEGIN IMMEDIATE")  # nobody writes between the checkpoint and the note that is taken of it
            log = self._wal()
            checkpoint()  # flushes the log, then writes and flushes the database file
            self._log, self._ledger = log, (self.root / "ledger.sqlite").read_bytes()
            plain.execute("ROLLBACK")

    def _wal(self) -> bytes:
        log = self.root / "ledger.sqlite-wal"
        return log.read_bytes() if log.exists() else b""

    # ------------------------------------------------------------------------------------------------------------ pictures

    def picture(self, place: Path) -> None:
        """Lay down what a power cut at this moment might leave."""
        with self._frozen:
            log = self._wal()  # first: no row is in it whose file is not among those that were flushed
            with self._noting:
                flushed = _Flushed(self._ledger, self._log, dict(self._files), self._names)
            found = self._files_there()
        place.mkdir(parents=True)
        (place / "ledger.sqlite").write_bytes(flushed.ledger)
        (place / "ledger.sqlite-wal").write_bytes(self._torn(flushed.log, log))
        for name, inode, content in found:
            self._lay(place, name, flushed.files.get(inode), content, durable_name=Path(name).name in flushed.names)

    def _files_there(self) -> list[tuple[str, int, bytes]]:
        """Return name, inode and content of each; first `incoming`, so that what is being moved is seen once at least."""
        found: dict[int, tuple[str, int, bytes]] = {}
        for kind in ("incoming", "instances"):
            for folder, _, names in os.walk(self.root / kind):
                for name in names:
                    try:
                        with open(Path(folder) / name, "rb") as file:
                            inode = os.fstat(file.fileno()).st_ino
                            found[inode] = str((Path(folder) / name).relative_to(self.root)), inode, file.read()
                    except FileNotFoundError:  # moved meanwhile
                        continue
        return [*found.values()]

    def _lay(self, place: Path, name: str, flushed: bytes | None, content: bytes, *, durable_name: bool) -> None:
        moved = name.startswith("instances/")
        if not durable_name and not moved and self._die.random() < 0.5:
            return
        if moved and self._die.random() < 0.5:  # moves are never flushed
            name = f"incoming/{Path(name).name}"
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(flushed if flushed == content else self._torn(flushed or b"", content))

    def _torn(self, flushed: bytes, content: bytes) -> bytes:
        """Return what may be there of a file that was written to since its last flush."""
        how = self._die.choice(["flushed", "all", "cut", "zeros", "pages", "pages"])
        if how == "flushed":
            return flushed
        if how == "cut":
            end = self._die.randint(min(len(flushed), len(content)), len(content))
            return content[:end] if content.startswith(flushed) else flushed
        if how == "all":
            return content
        return b"".join(self._page(flushed, content, start, how) for start in range(0, len(content), PAGE_BYTES))

    def _page(self, flushed: bytes, content: bytes, start: int, how: str) -> bytes:
        new, old = content[start : start + PAGE_BYTES], flushed[start : start + PAGE_BYTES]
        if new == old or self._die.random() < 0.5:
            return new
        beyond = how == "zeros" or not old
        return bytes(len(new)) if beyond and not old else old.ljust(len(new), b"\0")


def _no_checkpoints(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA wal_autocheckpoint=0").close()
