"""Instances: from bytes on disk to a row in the ledger. `record` returns only after the commit; commits are grouped over associations."""

import contextlib
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from enum import Enum
from typing import Any

from sqlalchemy import Connection, RowMapping, and_, insert, select, update

from dicom_node.domain import Instance, NodeError, StudyState, Transient
from dicom_node.store.archive import Archive
from dicom_node.store.database import Database
from dicom_node.store.journal import Event, note
from dicom_node.store.tables import instance, quarantine, study

_GROUP = 256  # rows of one commit at most


class Recorded(Enum):
    """What became of an instance."""

    NEW = "new"
    IDENTICAL = "identical"  # these bytes were there already: no new work
    NEW_VERSION = "new version"  # the UID was there with other content: both are kept, this one is current


class Intake:
    """Takes received instances into the ledger, in groups.

    One thread writes: it takes every instance that waits, flushes the folder, commits once, and then lets their associations answer.
    """

    def __init__(self, database: Database, archive: Archive) -> None:
        self._database = database
        self._archive = archive
        self._waiting: queue.SimpleQueue[tuple[Instance, Future[Recorded]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def record(self, received: Instance, *, timeout_s: float = 60.0) -> Recorded:
        """Commit the row of an instance whose bytes are flushed, and move the file to its place.

        Raises
        ------
        Transient: the ledger did not take it in time; the instance may be sent again.
        """
        outcome: Future[Recorded] = Future()
        self._start()
        self._waiting.put((received, outcome))
        try:
            return outcome.result(timeout_s)
        except TimeoutError as error:
            raise Transient(f"the ledger did not take an instance within {timeout_s:g} s", hint="Look at the disk and the database.") from error

    def holds(self, study_instance_uid: str, sop_instance_uid: str, digest: str) -> bool:
        """Say whether exactly this content is recorded."""
        with self._database.read() as connection:
            found = select(instance.c.id).where(
                instance.c.study_instance_uid == study_instance_uid, instance.c.sop_instance_uid == sop_instance_uid, instance.c.digest == digest
            )
            return connection.execute(found).first() is not None

    def sweep(self) -> tuple[int, int]:
        """Put in order what a crash left in `incoming`: return how many files were moved to their place, and how many had no row.

        A file without a row was never acknowledged: its sender was told nothing, or a failure, and sends it again.
        """
        moved, removed = 0, 0
        for file in sorted(path for path in self._archive.incoming.iterdir() if path.is_file()):
            name = file.name.replace("_", "/")
            if self._has_row(name):
                self._archive.settle(name)
                moved += 1
            else:
                file.unlink(missing_ok=True)
                removed += 1
        return moved, removed

    def _has_row(self, name: str) -> bool:
        with self._database.read() as connection:
            return connection.execute(select(instance.c.id).where(instance.c.path == name)).first() is not None

    def by_ids(self, ids: Sequence[int]) -> tuple[Instance, ...]:
        """Return instances by their ids in the ledger, in the order asked; what is no longer there is left out."""
        found: dict[int, Instance] = {}
        with self._database.read() as connection:
            for start in range(0, len(ids), _GROUP):
                rows = connection.execute(select(instance).where(instance.c.id.in_(ids[start : start + _GROUP]))).mappings()
                found.update((row["id"], instance_of(row)) for row in rows)
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

    def quarantined(self, limit: int = 100) -> tuple[dict[str, Any], ...]:
        """Return what lies in quarantine, newest first."""
        with self._database.read() as connection:
            return tuple(dict(row) for row in connection.execute(select(quarantine).order_by(quarantine.c.at.desc()).limit(limit)).mappings())

    def close(self) -> None:
        """Commit what waits and end the committing thread."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread:
            self._waiting.put(None)
            thread.join()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._commit_groups, name="intake", daemon=True)
                self._thread.start()

    def _commit_groups(self) -> None:
        while (first := self._waiting.get()) is not None:
            group = [first]
            while len(group) < _GROUP and not self._waiting.empty():
                following = self._waiting.get()
                if following is None:
                    self._waiting.put(None)
                    break
                group.append(following)
            self._commit(group)

    def _commit(self, group: list[tuple[Instance, Future[Recorded]]]) -> None:
        try:
            self._archive.flush_incoming()
            with self._database.write() as connection:
                outcomes = [_record(connection, received) for received, _ in group]
        except Exception as error:  # the outermost loop of this thread: whatever it was, the associations that wait must hear of it
            if len(group) > 1:  # one of them may be at fault: the others are not to suffer for it
                for one in group:
                    self._commit([one])
            else:
                group[0][1].set_exception(error if isinstance(error, NodeError) else Transient(f"the ledger failed: {type(error).__name__}"))
            return
        for (received, outcome), recorded in zip(group, outcomes, strict=True):
            self._settle(received, recorded)
            outcome.set_result(recorded)

    def _settle(self, received: Instance, recorded: Recorded) -> None:
        if recorded is Recorded.IDENTICAL:
            self._archive.discard(received.path)
            return
        with contextlib.suppress(OSError):  # it is safe where it is, `Archive.path` finds it there, and the next start's sweep moves it
            self._archive.settle(received.path)


def instance_of(row: RowMapping) -> Instance:
    """Build the noun from its row."""
    return Instance(**{column: value for column, value in row.items() if column != "current"})


def _record(connection: Connection, received: Instance) -> Recorded:
    same_uid = and_(instance.c.study_instance_uid == received.study_instance_uid, instance.c.sop_instance_uid == received.sop_instance_uid)
    known = connection.execute(select(instance.c.digest, instance.c.version).where(same_uid)).all()
    if any(digest == received.digest for digest, _ in known):
        return Recorded.IDENTICAL
    version = 1 + max((number for _, number in known), default=0)
    if known:
        connection.execute(update(instance).where(same_uid).values(current=False))
    connection.execute(insert(instance).values(**_row(received), version=version, current=True))
    _study_changed(connection, received)
    if version == 1:
        return Recorded.NEW
    why = f"instance {received.sop_instance_uid} came again with other content: version {version} is current, the others are kept"
    note(
        connection,
        Event(at=received.received_at, study_instance_uid=received.study_instance_uid, kind="new version", who=received.calling_ae, why=why),
    )
    return Recorded.NEW_VERSION


def _row(received: Instance) -> dict[str, Any]:
    columns = (c.name for c in instance.columns if c.name not in ("id", "version", "current"))
    return {column: dict(received.header) if column == "header" else getattr(received, column) for column in columns}


def _study_changed(connection: Connection, received: Instance) -> None:
    uid, at = received.study_instance_uid, received.received_at
    found = connection.execute(select(study.c.state).where(study.c.study_instance_uid == uid).with_for_update()).scalar()
    if found is None:
        values = {"state": StudyState.OPEN, "revision": 0, "changes": 1, "first_received_at": at, "last_received_at": at, "look_at": at, "why": ""}
        connection.execute(insert(study).values(study_instance_uid=uid, **values))
        note(
            connection,
            Event(at=at, study_instance_uid=uid, kind="first instance", who=received.calling_ae, why=f"received from {received.calling_ae}"),
        )
        return
    values = {"changes": study.c.changes + 1, "last_received_at": at}
    if found != StudyState.OPEN:
        values |= {"state": StudyState.OPEN, "look_at": at}
        note(
            connection,
            Event(at=at, study_instance_uid=uid, kind="reopened", who=received.calling_ae, why="an instance came after the study was judged"),
        )
    connection.execute(update(study).where(study.c.study_instance_uid == uid).values(**values))
