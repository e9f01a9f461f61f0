"""Instances: from bytes on disk to a row in the ledger. `record` returns only after the commit; commits are grouped over associations.

The promise is the flushed file with its receipt (`archive.Draft`); its row is committed before Success, but on SQLite not flushed with it: one
flush an image. So a row may be lost by a power cut, never by the end of a process; and it is made again from the file, which stays in
`incoming` until its row is durable too.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, RowMapping, bindparam, case, insert, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from dicom_node.domain import Instance, NodeError, StudyState, Transient
from dicom_node.store.archive import Archive
from dicom_node.store.bell import Bell, Topic
from dicom_node.store.database import Database, Prepared, insert_unless_there
from dicom_node.store.journal import Event, note
from dicom_node.store.tables import instance, quarantine, study

_GROUP = 256  # rows of one commit at most
_SETTLE_EVERY_S = 0.25
_STOCK_EVERY_S = 0.02
_LOW_STOCK = 48  # empty files
_CHECKPOINT_EVERY = 2000  # instances: about 10 MB of write-ahead log


class Recorded(Enum):
    """What became of an instance."""

    NEW = "new"
    IDENTICAL = "identical"  # these bytes were there already: no new work
    NEW_VERSION = "new version"  # the UID was there with other content: both are kept, this one is current


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
        self._keeper = _Keeper(database, archive)

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
        names = [one.path for one in received]
        waiting = [name for name in names if self._archive.waits(name)]
        if waiting:
            with _flushing():
                self._database.harden()
            for name in waiting:
                self._archive.settle(name)
        return [self._archive.path(name) for name in names]

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


@contextlib.contextmanager
def _flushing() -> Iterator[None]:
    """Say of a ledger that was not flushed that it is tried again."""
    try:
        yield
    except OSError as error:
        raise Transient(f"the ledger was not flushed: {error.strerror}", hint="Look at the disk.") from error


class _Keeper:
    """The thread that does what no association waits for."""

    def __init__(self, database: Database, archive: Archive) -> None:
        self._database = database
        self._archive = archive
        self._recorded: deque[str] = deque()  # names of files in `incoming` whose rows are committed
        self._since_checkpoint = 0
        self._settle_at = 0.0
        self._settling = threading.Lock()
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, name: str) -> None:
        """Take over the file of a committed row."""
        self._recorded.append(name)
        if self._thread is None or not self._thread.is_alive():
            self._start()
        if not self._news.is_set():
            self._news.set()

    def settle(self) -> None:
        """Make every committed row durable, then move their files to their places."""
        with self._settling:
            names = [self._recorded.popleft() for _ in range(len(self._recorded))]
            if not names:
                return
            try:
                with _flushing():
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
            thread, self._thread = self._thread, None
            self._stopping.set()
            self._news.set()
        if thread is not None:
            thread.join()
        with contextlib.suppress(NodeError):  # the files are safe in `incoming`, and the next start's sweep goes on from there
            self.settle()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._stopping.clear()
                self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._news.wait()
            self._news.clear()
            while self._recorded and not self._stopping.wait(_STOCK_EVERY_S):
                with contextlib.suppress(NodeError):  # what could not be done now is done at the next turn, or at the next start
                    self._turn()

    def _turn(self) -> None:
        if self._archive.stocked < _LOW_STOCK:
            self._archive.stock_up()
        if time.monotonic() >= self._settle_at:
            self._settle_at = time.monotonic() + _SETTLE_EVERY_S
            self.settle()


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


def record_group(database: Database, group: Sequence[Instance]) -> tuple[list[tuple[Recorded, str]], bool]:
    """Record instances in one transaction; return of each what it is and the name of the file that is kept.

    The second value says whether a study may have to be looked at sooner than it stood in the ledger.
    Most groups bring new instances to studies that are open: two statements do, and when they do not fit, nothing of them is kept.
    """
    if database.change_all([(_ADD, _additions(group)), (_INSERT, [{**_row(one), "version": 1, "current": True} for one in group])]):
        return [(Recorded.NEW, one.path) for one in group], False
    with database.write(relaxed=True) as connection:
        before = _locked_studies(connection, group)
        coming = _Coming(known=_known(connection, group))
        outcomes = [coming.take(one) for one in group]
        coming.write(connection, before)
    return outcomes, True


def _additions(group: Sequence[Instance]) -> list[dict[str, Any]]:
    """Return for each study, in the order in which rows are locked, how many instances come to it and when the last of them came."""
    found: dict[str, dict[str, Any]] = {}
    for one in sorted(group, key=lambda received: received.study_instance_uid):
        row = found.setdefault(one.study_instance_uid, {"of_study": one.study_instance_uid, "more": 0, "last": one.received_at})
        row["more"] += 1
        row["last"] = max(row["last"], one.received_at)
    return list(found.values())


_ADD = Prepared(
    update(study)
    .where(study.c.study_instance_uid == bindparam("of_study"), study.c.state == StudyState.OPEN)
    .values(
        changes=study.c.changes + bindparam("more"),
        last_received_at=case((study.c.last_received_at > bindparam("last"), study.c.last_received_at), else_=bindparam("last")),
    )
)
_INSERT = Prepared(insert(instance), unless_there=instance)


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


_COLUMNS = tuple(c.name for c in instance.columns if c.name not in ("id", "version", "current", "header"))


def _row(received: Instance) -> dict[str, Any]:
    row = {column: getattr(received, column) for column in _COLUMNS}
    row["header"] = dict(received.header)
    return row


def _said(received: Instance, kind: str, why: str) -> Event:
    return Event(at=received.received_at, study_instance_uid=received.study_instance_uid, kind=kind, who=received.calling_ae, why=why)
