"""Instances: from bytes on disk to a row in the ledger. `record` returns only after the commit; commits are grouped over associations."""

import contextlib
import queue
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from sqlalchemy import Connection, RowMapping, bindparam, insert, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from dicom_node.domain import Instance, NodeError, StudyState, Transient
from dicom_node.store.archive import Archive, settled_name
from dicom_node.store.database import Database, insert_unless_there
from dicom_node.store.journal import Event, note
from dicom_node.store.tables import instance, quarantine, study

_GROUP = 256  # rows of one commit at most


class Recorded(Enum):
    """What became of an instance."""

    NEW = "new"
    IDENTICAL = "identical"  # these bytes were there already: no new work
    NEW_VERSION = "new version"  # the UID was there with other content: both are kept, this one is current


_Waiting = tuple[Instance, "Future[Recorded]"]


class Intake:
    """Takes received instances into the ledger, in groups.

    One thread writes: it takes every instance that waits, flushes the folder, commits once, and then lets their associations answer.
    """

    def __init__(self, database: Database, archive: Archive) -> None:
        self._database = database
        self._archive = archive
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def record(self, received: Instance, *, timeout_s: float = 60.0) -> Recorded:
        """Commit the row of an instance whose bytes are flushed, and move the file to its place.

        The file is the intake's from here on, whatever becomes of it: the caller does not remove it.

        Raises
        ------
        Transient: the ledger did not take it in time; the instance may be sent again.
        """
        outcome: Future[Recorded] = Future()
        with self._lock:
            self._start()
            self._waiting.put((received, outcome))
        try:
            return outcome.result(timeout_s)
        except TimeoutError as error:
            if outcome.cancel():  # else its commit is under way: it may get its row after all, and its file must be there
                self._archive.discard(received.path)
            raise Transient(f"the ledger did not take an instance within {timeout_s:g} s", hint="Look at the disk and the database.") from error

    def holds(self, study_instance_uid: str, sop_instance_uid: str, digest: str) -> bool:
        """Say whether exactly this content is recorded, and its file is there."""
        same = instance.c.study_instance_uid == study_instance_uid, instance.c.sop_instance_uid == sop_instance_uid, instance.c.digest == digest
        with self._database.read() as connection:
            path = connection.execute(select(instance.c.path).where(*same)).scalar()
        return path is not None and self._archive.path(path).exists()

    def sweep(self) -> tuple[int, int]:
        """Put in order what a crash left in `incoming`: return how many files were moved to their place, and how many had no row.

        A file without a row was never acknowledged: its sender was told nothing, or a failure, and sends it again. While another process
        receives or imports, such a file may be on its way to its row, and stays.
        """
        moved, removed = 0, 0
        with self._archive.alone() as alone:
            for file in sorted(path for path in self._archive.incoming.iterdir() if path.is_file()):
                name = settled_name(file.name)
                if self._has_row(name):
                    self._archive.settle(name)
                    moved += 1
                elif alone:
                    file.unlink(missing_ok=True)
                    removed += 1
        return moved, removed

    def _has_row(self, name: str) -> bool:
        with self._database.read() as connection:
            return connection.execute(select(instance.c.id).where(instance.c.path == name)).first() is not None

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
        if thread:
            thread.join()

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
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
            group = [one for one in group if one[1].set_running_or_notify_cancel()]  # whoever gave up waiting has told its peer so
            if group:
                self._commit(group)

    def _commit(self, group: Sequence[_Waiting]) -> None:
        try:
            self._archive.flush_incoming()
            with self._database.write() as connection:
                outcomes = record_group(connection, [received for received, _ in group])
        except Exception as error:  # the outermost loop of this thread: whatever it was, the associations that wait must hear of it
            self._failed(group, error)
            return
        for (received, outcome), (recorded, kept) in zip(group, outcomes, strict=True):
            try:
                self._settle(received, recorded, kept)
            except NodeError as error:
                outcome.set_exception(error)
            else:
                outcome.set_result(recorded)

    def _failed(self, group: Sequence[_Waiting], error: Exception) -> None:
        if len(group) > 1 and not _of_everyone(error):  # one of them is at fault: the others are not to suffer for it
            for one in group:
                self._commit([one])
            return
        for received, outcome in group:
            with contextlib.suppress(NodeError):  # a commit may have failed after it took effect; who cannot ask leaves it to the sweep
                if not self._has_row(received.path):
                    self._archive.discard(received.path)
            outcome.set_exception(error if isinstance(error, NodeError) else Transient(f"the ledger failed: {type(error).__name__}"))

    def _settle(self, received: Instance, recorded: Recorded, kept: str) -> None:
        """Move a recorded instance to its place; of an identical one keep what is there, or this when that file is gone."""
        if recorded is Recorded.IDENTICAL and self._archive.path(kept).exists():
            self._archive.discard(received.path)
            return
        if recorded is Recorded.IDENTICAL:
            self._archive.stand_in(received.path, kept)
        with contextlib.suppress(OSError):  # it is safe where it is, `Archive.path` finds it there, and the next start's sweep moves it
            self._archive.settle(kept)


def _of_everyone(error: Exception) -> bool:
    """Say whether a failure is the disk's or the database's, so that trying one by one would only make everybody wait."""
    return isinstance(error, OSError) or isinstance(error.__cause__, OSError | OperationalError | PoolTimeoutError)


def instances_by_id(connection: Connection, ids: Iterable[int]) -> dict[int, Instance]:
    """Return what is there of these instances, in the caller's transaction."""
    found: dict[int, Instance] = {}
    wanted = sorted(set(ids))
    for start in range(0, len(wanted), _GROUP):  # a statement takes only so many parameters
        rows = connection.execute(select(instance).where(instance.c.id.in_(wanted[start : start + _GROUP]))).mappings()
        found.update((row["id"], instance_of(row)) for row in rows)
    return found


def instance_of(row: RowMapping) -> Instance:
    """Build the noun from its row."""
    return Instance(**{column: value for column, value in row.items() if column != "current"})


_Key = tuple[str, str]  # study and SOP instance
_Version = tuple[str, int, str]  # digest, number, path


def record_group(connection: Connection, group: Sequence[Instance]) -> list[tuple[Recorded, str]]:
    """Record instances in the caller's transaction; return of each what it is and the name of the file that is kept."""
    before = _locked_studies(connection, group)
    coming = _Coming(known=_known(connection, group))
    outcomes = [coming.take(one) for one in group]
    coming.write(connection, before)
    return outcomes


def _locked_studies(connection: Connection, group: Sequence[Instance]) -> dict[str, RowMapping]:
    """Return the studies' rows, made if need be, locked until the commit: nobody else records, judges or purges them meanwhile.

    They are locked in the order of their UIDs, so that two receiving processes never wait for each other.
    """
    first = {one.study_instance_uid: one for one in reversed(group)}
    locked = select(study).where(study.c.study_instance_uid.in_(first)).order_by(study.c.study_instance_uid).with_for_update()
    found = {row["study_instance_uid"]: row for row in connection.execute(locked).mappings()}
    if len(found) == len(first):
        return found
    for uid in sorted(set(first) - set(found)):
        at = first[uid].received_at
        fresh = {"state": StudyState.OPEN, "revision": 0, "changes": 0, "first_received_at": at, "last_received_at": at, "look_at": at, "why": ""}
        if insert_unless_there(connection, study, study_instance_uid=uid, **fresh):
            note(connection, _said(first[uid], "first instance", f"received from {first[uid].calling_ae}"))
    return {row["study_instance_uid"]: row for row in connection.execute(locked).mappings()}


def _known(connection: Connection, group: Sequence[Instance]) -> dict[_Key, list[_Version]]:
    """Return the versions that are recorded already of what comes."""
    columns = instance.c.study_instance_uid, instance.c.sop_instance_uid, instance.c.digest, instance.c.version, instance.c.path
    same = (
        instance.c.study_instance_uid.in_({one.study_instance_uid for one in group}),
        instance.c.sop_instance_uid.in_({one.sop_instance_uid for one in group}),
    )
    found: dict[_Key, list[_Version]] = {}
    for uid, sop_instance_uid, digest, version, path in connection.execute(select(*columns).where(*same)):
        found.setdefault((uid, sop_instance_uid), []).append((digest, version, path))
    return found


@dataclass(slots=True)
class _Coming:
    """What one commit brings."""

    known: dict[_Key, list[_Version]]
    rows: dict[tuple[_Key, int], dict[str, Any]] = field(default_factory=dict)  # by version
    outdated: list[dict[str, str]] = field(default_factory=list)  # instances in the ledger of which another version is current now
    events: list[Event] = field(default_factory=list)

    def take(self, received: Instance) -> tuple[Recorded, str]:
        """Decide what an instance is, and where its bytes are kept."""
        key = received.study_instance_uid, received.sop_instance_uid
        versions = self.known.setdefault(key, [])
        same = next((path for digest, _, path in versions if digest == received.digest), None)
        if same is not None:
            return Recorded.IDENTICAL, same
        version = 1 + max((number for _, number, _ in versions), default=0)
        versions.append((received.digest, version, received.path))
        self.rows[key, version] = _row(received) | {"version": version, "current": True}
        if version == 1:
            return Recorded.NEW, received.path
        if (key, version - 1) in self.rows:
            self.rows[key, version - 1]["current"] = False
        else:
            self.outdated.append({"of_study": key[0], "of_instance": key[1]})
        why = f"instance {received.sop_instance_uid} came again with other content: version {version} is current, the others are kept"
        self.events.append(_said(received, "new version", why))
        return Recorded.NEW_VERSION, received.path

    def write(self, connection: Connection, before: dict[str, RowMapping]) -> None:
        """Insert the rows, and tell their studies."""
        if not self.rows:
            return
        if self.outdated:
            connection.execute(_OUTDATE, self.outdated)
        connection.execute(insert(instance), list(self.rows.values()))
        of_study: dict[str, list[dict[str, Any]]] = {}
        for row in self.rows.values():
            of_study.setdefault(row["study_instance_uid"], []).append(row)
        connection.execute(_CHANGE, [self._changed(before[uid], rows) for uid, rows in sorted(of_study.items())])
        note(connection, *self.events)

    def _changed(self, before: RowMapping, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        uid, at, look_at = before["study_instance_uid"], max(row["received_at"] for row in rows), before["look_at"]
        if before["state"] != StudyState.OPEN:
            look_at = at
            why = "an instance came after the study was judged"
            self.events.append(Event(at=at, study_instance_uid=uid, kind="reopened", who=rows[0]["calling_ae"], why=why))
        last = max(at, before["last_received_at"])
        return {"of_study": uid, "more": len(rows), "new_state": StudyState.OPEN, "new_look_at": look_at, "new_last_received_at": last}


_OUTDATE = (
    update(instance)
    .where(instance.c.study_instance_uid == bindparam("of_study"), instance.c.sop_instance_uid == bindparam("of_instance"), instance.c.current)
    .values(current=False)
)
_CHANGE = (
    update(study)
    .where(study.c.study_instance_uid == bindparam("of_study"))
    .values({"changes": study.c.changes + bindparam("more")} | {name: bindparam(f"new_{name}") for name in ("state", "look_at", "last_received_at")})
)


def _row(received: Instance) -> dict[str, Any]:
    columns = (c.name for c in instance.columns if c.name not in ("id", "version", "current"))
    return {column: dict(received.header) if column == "header" else getattr(received, column) for column in columns}


def _said(received: Instance, kind: str, why: str) -> Event:
    return Event(at=received.received_at, study_instance_uid=received.study_instance_uid, kind=kind, who=received.calling_ae, why=why)
