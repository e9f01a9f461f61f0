"""Instances: from bytes on disk to a row in the ledger. `record` returns only after the commit; commits are grouped over associations.

The promise is the flushed file with its receipt (`archive.Draft`); its row is committed before Success, but on SQLite not flushed with it: one
flush an image. So a row may be lost by a power cut, never by the end of a process; and it is made again from the file, which stays in
`incoming` until its row is durable too.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select, tuple_
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from dicom_node.domain import Instance, NodeError, Transient
from dicom_node.store.archive import Archive
from dicom_node.store.bell import Bell, Topic
from dicom_node.store.database import Database
from dicom_node.store.journal import Event, note
from dicom_node.store.keeper import Keeper
from dicom_node.store.recording import Recorded, instances_by_id, record_group
from dicom_node.store.tables import instance, quarantine

_GROUP = 32  # rows of one commit at most


class _Waiting:
    """An instance that waits for its commit, and the thread that waits with it."""

    __slots__ = ("_turn", "error", "leads", "outcome", "received")

    def __init__(self, received: Instance) -> None:
        self.received = received
        self.outcome: Recorded | None = None
        self.error: NodeError | None = None
        self.leads = False  # whether it was woken to commit the next group
        self._turn = threading.Lock()
        self._turn.acquire()

    def wait(self, timeout_s: float) -> bool:
        return self._turn.acquire(timeout=timeout_s)

    def wake(self) -> None:
        self._turn.release()


class Intake:
    """Takes received instances into the ledger, in groups.

    Whoever comes while nobody commits becomes the leader: it takes every instance that waits, commits once, and lets their associations
    answer; of those that came meanwhile one leads the next group. No thread stands between an association and its commit.
    A thread of its own does what nobody waits for: it makes rows durable, moves files to their places, and keeps empty files at hand.
    """

    def __init__(self, database: Database, archive: Archive, bell: Bell) -> None:
        self._database = database
        self._archive = archive
        self._bell = bell
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting] = deque()
        self._led = False  # whether somebody commits
        self._keeper = Keeper(database, archive)

    def record(self, received: Instance, *, timeout_s: float = 60.0) -> Recorded:
        """Commit the row of an instance whose bytes are flushed.

        The file is the intake's from here on, whatever becomes of it: the caller does not remove it.

        Raises
        ------
        Transient: the ledger did not take it in time; the instance may be sent again.
        """
        mine = _Waiting(received)
        with self._lock:
            self._waiting.append(mine)
            mine.leads, self._led = not self._led, True
        if not mine.leads and not mine.wait(timeout_s):
            self._give_up(mine, timeout_s)
        if mine.leads:
            self._lead()
        if mine.error is not None:
            raise mine.error
        if mine.outcome is None:
            raise RuntimeError("a commit ended without an outcome")
        return mine.outcome

    def _give_up(self, mine: _Waiting, timeout_s: float) -> None:
        """Stop waiting, unless the turn has come at this very moment; an instance whose commit is under way may get its row after all."""
        with self._lock:
            if mine.outcome is not None or mine.error is not None or mine.leads:
                return
            if mine in self._waiting:
                self._waiting.remove(mine)
                self._archive.discard(mine.received.path)
            mine.error = Transient(f"the ledger did not take an instance within {timeout_s:g} s", hint="Look at the disk and the database.")

    def _lead(self) -> None:
        """Commit what waits, the leader's own among it, and hand the lead on."""
        with self._lock:
            group = [self._waiting.popleft() for _ in range(min(len(self._waiting), _GROUP))]
        try:
            self._commit(group)
        finally:
            with self._lock:
                self._led = bool(self._waiting)
                following = self._waiting[0] if self._waiting else None
                if following is not None:
                    following.leads = True
        if following is not None:
            following.wake()

    def sweep(self, recover: Callable[[Path], Instance | None]) -> tuple[int, int, int]:
        """Put in order what a crash left in `incoming`; return how many files were moved to their place, recorded again, and removed.

        recover: reads an instance out of a file that its receipt shows to be whole, else gives None.
        A whole file without a row was acknowledged before a power cut, or about to be: it gets its row. What is not whole was never
        acknowledged: its sender sends it again. While another process receives or imports, such files may be on their way, and stay.
        """
        moved = recorded = removed = 0
        with self._archive.alone() as alone:
            for file in sorted(path for path in self._archive.incoming.iterdir() if path.is_file()):
                received = recover(file)
                if received is not None and self._has_row(received):
                    self._archive.settle(received.path)
                    moved += 1
                elif alone and received is not None:
                    self.record(received)
                    recorded += 1
                elif alone:
                    file.unlink(missing_ok=True)
                    removed += 1
        self.settle()
        return moved, recorded, removed

    def _has_row(self, received: Instance) -> bool:
        same = instance.c.study_instance_uid == received.study_instance_uid, instance.c.sop_instance_uid == received.sop_instance_uid
        with self._database.read() as connection:
            return connection.execute(select(instance.c.id).where(*same, instance.c.path == received.path)).first() is not None

    def bring(self, received: Iterable[Instance]) -> list[Path]:
        """Return where the files of recorded instances are, and stay: those that wait in `incoming` go to their places first.

        Raises
        ------
        Transient: the disk did not flush.
        """
        return self.bring_files(one.path for one in received)

    def bring_files(self, paths: Iterable[str]) -> list[Path]:
        """Do the same for files of recorded instances by their names.

        Raises
        ------
        Transient: the disk did not flush.
        """
        names = list(paths)
        self.settle_files(names)
        return [self._archive.path(name) for name in names]

    def settle_files(self, names: Iterable[str]) -> None:
        """Let files of recorded instances be at their places, without asking whether they are.

        Raises
        ------
        Transient: the disk did not flush.
        """
        waiting = [name for name in names if self._archive.waits(name)]
        if waiting:
            self._database.harden()
            for name in waiting:
                self._archive.settle(name)

    def by_ids(self, ids: Sequence[int]) -> tuple[Instance, ...]:
        """Return instances by their ids in the ledger, in the order asked; what is no longer there is left out."""
        with self._database.read() as connection:
            found = instances_by_id(connection, ids)
        return tuple(found[i] for i in ids if i in found)

    def quarantine(self, name: str, *, at: float, source: str, reason: str, sop_instance_uid: str = "", study_instance_uid: str = "") -> int:
        """Record a file that lies in quarantine, and return the row's id."""
        with self._database.write() as connection:
            row = insert(quarantine).values(
                at=at, path=name, source=source, reason=reason, sop_instance_uid=sop_instance_uid[:64], study_instance_uid=study_instance_uid[:64]
            )
            key = connection.execute(row).inserted_primary_key
            if study_instance_uid:
                note(connection, Event(at=at, study_instance_uid=study_instance_uid[:64], kind="quarantined", who=source, why=reason))
            return int(key[0]) if key else 0

    def quarantined(self, limit: int = 100, *, before: tuple[float, int] | None = None) -> tuple[dict[str, Any], ...]:
        """Return what lies in quarantine, newest first; before: only what comes after that one in this order, by its time and number."""
        order = quarantine.c.at, quarantine.c.id
        wanted = select(quarantine).order_by(*(column.desc() for column in order)).limit(limit)
        with self._database.read() as connection:
            rows = connection.execute(wanted if before is None else wanted.where(tuple_(*order) < before))
            return tuple(dict(row) for row in rows.mappings())

    def settle(self) -> None:
        """Make durable what was recorded, and move every file to its place; a thread does so four times a second.

        Raises
        ------
        Transient: the disk did not flush.
        """
        self._keeper.settle()

    def close(self) -> None:
        """Settle what there is, and end the thread."""
        self._keeper.close()

    def _commit(self, group: Sequence[_Waiting]) -> None:
        try:
            outcomes, opened = record_group(self._database, [one.received for one in group])
        except Exception as error:  # the outermost frame of a commit: whatever it was, the associations that wait must hear of it
            self._failed(group, error)
            return
        for one, (recorded, kept) in zip(group, outcomes, strict=True):
            try:
                self._keep(one.received, recorded, kept)
            except NodeError as error:
                one.error = error
            one.outcome = recorded
            self._tell(one)
        if opened:
            self._bell.ring(Topic.STUDIES)

    def _failed(self, group: Sequence[_Waiting], error: Exception) -> None:
        if len(group) > 1 and not _of_everyone(error):  # one of them is at fault: the others are not to suffer for it
            for one in group:
                self._commit([one])
            return
        for one in group:
            with contextlib.suppress(NodeError):  # a commit may have failed after it took effect; who cannot ask leaves it to the sweep
                if not self._has_row(one.received):
                    self._archive.discard(one.received.path)
            one.error = error if isinstance(error, NodeError) else Transient(f"the ledger failed: {type(error).__name__}")
            self._tell(one)

    @staticmethod
    def _tell(one: _Waiting) -> None:
        if not one.leads:  # the leader is the one who tells
            one.wake()

    def _keep(self, received: Instance, recorded: Recorded, kept: str) -> None:
        """See to the file of a recorded instance: of an identical one keep what is there, or this when that file is gone."""
        if recorded is Recorded.IDENTICAL and received.path == kept:
            recorded = Recorded.NEW  # its own row: it was recorded before a crash
        if recorded is Recorded.IDENTICAL and self._archive.path(kept).exists():
            self._archive.discard(received.path)
            return
        if recorded is Recorded.IDENTICAL:
            self._archive.stand_in(received.path, kept)
        self._keeper.add(kept)


def _of_everyone(error: Exception) -> bool:
    """Say whether a failure is the disk's or the database's, so that trying one by one would only make everybody wait."""
    return isinstance(error, OSError) or isinstance(error.__cause__, OSError | OperationalError | PoolTimeoutError)
