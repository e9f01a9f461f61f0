"""What becomes of received instances in the ledger: new, there already, or another version; a group of them in one transaction."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from sqlalchemy import Connection, RowMapping, bindparam, case, insert, select, update

from dicom_node.domain import Instance, StudyState
from dicom_node.store.database import Addition, Database, Spelled, insert_unless_there
from dicom_node.store.journal import Event, note
from dicom_node.store.tables import instance, study

_AT_ONCE = 256  # parameters of one statement


class Recorded(Enum):
    """What became of an instance."""

    NEW = "new"
    IDENTICAL = "identical"  # these bytes were there already: no new work
    NEW_VERSION = "new version"  # the UID was there with other content: both are kept, this one is current


def instances_by_id(connection: Connection, ids: Iterable[int]) -> dict[int, Instance]:
    """Return what is there of these instances, in the caller's transaction."""
    found: dict[int, Instance] = {}
    wanted = sorted(set(ids))
    for start in range(0, len(wanted), _AT_ONCE):  # a statement takes only so many parameters
        rows = connection.execute(select(instance).where(instance.c.id.in_(wanted[start : start + _AT_ONCE]))).mappings()
        found.update((row["id"], instance_of(row)) for row in rows)
    return found


def instance_of(row: RowMapping) -> Instance:
    """Build the noun from its row."""
    return Instance(**{column: value for column, value in row.items() if column not in ("current", "hidden")})


_Key = tuple[str, str]  # study and SOP instance
_Version = tuple[str, int, str]  # digest, number, path


def record_group(database: Database, group: Sequence[Instance]) -> tuple[list[tuple[Recorded, str]], bool]:
    """Record instances in one transaction; return of each what it is and the name of the file that is kept.

    The second value says whether a study may have to be looked at sooner than it stood in the ledger.
    Most groups bring new instances to studies that are open: two statements do, and when they do not fit, nothing of them is kept.
    """
    if database.add(ADDITION, [row_of(one) for one in group], totals(group)):
        return [(Recorded.NEW, one.path) for one in group], False
    with database.write(relaxed=True) as connection:
        before = _locked_studies(connection, group)
        coming = _Coming(known=_known(connection, group))
        outcomes = [coming.take(one) for one in group]
        coming.write(connection, before)
    return outcomes, True


def totals(group: Sequence[Instance]) -> list[dict[str, Any]]:
    """Return for each study, in the order in which rows are locked, how many instances come to it and when the last of them came."""
    found: dict[str, dict[str, Any]] = {}
    for one in sorted(group, key=lambda received: received.study_instance_uid):
        row = found.setdefault(one.study_instance_uid, {"of_study": one.study_instance_uid, "more": 0, "last": one.received_at})
        row["more"] += 1
        row["last"] = max(row["last"], one.received_at)
    return list(found.values())


ADDITION = Addition(
    table=instance,
    trigger="""CREATE TEMP TRIGGER instance_of_open_study AFTER INSERT ON main.instance BEGIN
        UPDATE study SET changes = changes + 1, last_received_at = max(last_received_at, NEW.received_at)
            WHERE study_instance_uid = NEW.study_instance_uid AND state = 'OPEN';
        SELECT RAISE(ABORT, 'its study is not open') WHERE changes() = 0;
    END""",
    update=update(study)
    .where(study.c.study_instance_uid == bindparam("of_study"), study.c.state == StudyState.OPEN)
    .values(
        changes=study.c.changes + bindparam("more"),
        last_received_at=case((study.c.last_received_at > bindparam("last"), study.c.last_received_at), else_=bindparam("last")),
    ),
)


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
        self.rows[key, version] = row_of(received, version)
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


def row_of(received: Instance, version: int = 1) -> dict[str, Any]:
    """Return the row of an instance that becomes current; the columns are always in the same order."""
    return {
        "sop_instance_uid": received.sop_instance_uid,
        "sop_class_uid": received.sop_class_uid,
        "transfer_syntax_uid": received.transfer_syntax_uid,
        "study_instance_uid": received.study_instance_uid,
        "series_instance_uid": received.series_instance_uid,
        "path": received.path,
        "size_bytes": received.size_bytes,
        "digest": received.digest,
        "calling_ae": received.calling_ae,
        "received_at": received.received_at,
        "header": received.header if isinstance(received.header, Spelled) else Spelled(received.header),
        "version": version,
        "current": True,
    }


def _said(received: Instance, kind: str, why: str) -> Event:
    return Event(at=received.received_at, study_instance_uid=received.study_instance_uid, kind=kind, who=received.calling_ae, why=why)
