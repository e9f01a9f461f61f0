"""Who watches which workitems, and what each is still to be told: an outbox of rows, in the order in which things happened."""

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import JSON, ColumnElement, Connection, RowMapping, and_, bindparam, delete, func, insert, literal, select, update

from dicom_node.domain import (
    FILTERED_SUBSCRIPTION,
    GLOBAL_SUBSCRIPTION,
    Channel,
    EventReport,
    ReportKind,
    Subscription,
    Workitem,
)
from dicom_node.store.bell import Bell, Topic
from dicom_node.store.database import Database
from dicom_node.store.reporting import alone, state_facts
from dicom_node.store.workitems import brief_workitems, locked
from dicom_node.store.worklists import event_report, subscription, workitem

WORKLISTS = (GLOBAL_SUBSCRIPTION, FILTERED_SUBSCRIPTION)
_OURS = workitem.c.manager == ""
_AT_ONCE = 1_000  # workitems that are told of in one transaction
_MOST_WAITING = 10_000  # reports of one receiver: beyond them the oldest go, and it is told that its list is not whole


class Subscriptions:
    """The subscriptions of the ledger, and the reports that wait."""

    def __init__(self, database: Database, bell: Bell) -> None:
        self._database = database
        self._bell = bell

    def subscribe(self, wanted: Subscription, *, now: float) -> None:
        """Record that somebody watches a workitem, or all of them; who did so already does so as it says now.

        Of one workitem the present state is the first report (PS3.4 CC.2.3.3). Of a subscription to all, with a deletion lock, every workitem that
        there is gets its subscription and a first report; without a lock none is told of what there is. Filtered ones are compared by who knows
        how (`to_compare`, `match`).
        """
        with self._database.write() as connection:
            alone(connection)
            if wanted.workitem_uid in WORKLISTS:
                _put(connection, wanted)
            elif (item := locked(connection, wanted.workitem_uid)) is not None:
                _put(connection, wanted)
                _tell(connection, wanted, [item], now)
            if wanted.workitem_uid == GLOBAL_SUBSCRIPTION:
                _watch(connection, wanted, now, _OURS)
            last = connection.execute(select(func.max(workitem.c.id))).scalar() or 0
        if wanted.workitem_uid == GLOBAL_SUBSCRIPTION and wanted.deletion_lock:
            self._tell_of_all(wanted, last, now)
        self._bell.ring(Topic.WORKITEMS)

    def _tell_of_all(self, wanted: Subscription, last: int, now: float) -> None:
        """Tell a subscriber of every workitem up to a number: some in each transaction, for who receives images waits for each."""
        after = 0
        while True:
            with self._database.write() as connection:
                alone(connection)
                found = brief_workitems(connection, _OURS, workitem.c.id > after, workitem.c.id <= last, limit=_AT_ONCE)
                _tell(connection, wanted, [item for _, item in found], now)
            if len(found) < _AT_ONCE:
                return
            after = found[-1][0]

    def match(self, wanted: Subscription, uids: Collection[str], *, now: float) -> None:
        """Record that workitems are such as a filtered subscription means: its receiver watches them, and is told of them."""
        meant = workitem.c.uid.in_(list(uids))
        with self._database.write() as connection:
            alone(connection)
            same = subscription.c.receiver == wanted.receiver, subscription.c.workitem_uid == wanted.workitem_uid
            if connection.execute(select(subscription.c.id).where(*same)).first() is not None:  # it has not been ended meanwhile
                _watch(connection, wanted, now, meant)
                _tell(connection, wanted, [item for _, item in brief_workitems(connection, meant, limit=len(uids))], now)
        self._bell.ring(Topic.WORKITEMS)

    def unsubscribe(self, receiver: str, uid: str) -> bool:
        """Record that somebody watches no more: one workitem, or any; False when there was nothing to end."""
        same = [subscription.c.receiver == receiver]
        if uid not in WORKLISTS:
            same.append(subscription.c.workitem_uid == uid)
        with self._database.write() as connection:
            ended = connection.execute(delete(subscription).where(*same)).rowcount
            waiting = event_report.c.receiver == receiver, event_report.c.kind != ReportKind.SCP_STATUS, event_report.c.channel != Channel.HEARD
            connection.execute(delete(event_report).where(*waiting, *([] if uid in WORKLISTS else [event_report.c.workitem_uid == uid])))
        return bool(ended)

    def suspend(self, receiver: str) -> bool:
        """Subscribe somebody to no further workitems; what it watches it goes on watching. False when it was not subscribed to them."""
        all_of = subscription.c.receiver == receiver, subscription.c.workitem_uid.in_(WORKLISTS)
        with self._database.write() as connection:
            return bool(connection.execute(delete(subscription).where(*all_of)).rowcount)

    def list(self, *, receiver: str = "", uid: str = "", limit: int = 1000) -> tuple[Subscription, ...]:
        """Return subscriptions, oldest first."""
        conditions = [subscription.c.receiver == receiver] if receiver else []
        conditions += [subscription.c.workitem_uid == uid] if uid else []
        with self._database.read() as connection:
            rows = connection.execute(select(subscription).where(*conditions).order_by(subscription.c.id).limit(limit)).mappings()
            return tuple(_subscription(row) for row in rows)

    def watched(self) -> dict[tuple[str, str], dict[str, int]]:
        """Return of each receiver and channel how many workitems it watches, how many of them it locks, and how many reports wait for it."""
        found: dict[tuple[str, str], dict[str, int]] = {}
        with self._database.read() as connection:
            for name, table, *only in (("workitems", subscription), ("locks", subscription, subscription.c.deletion_lock), ("waiting", event_report)):
                told = table.c.receiver != "", table.c.channel != Channel.HEARD
                counted = select(table.c.receiver, table.c.channel, func.count()).where(*told, *only)
                for receiver, channel, number in connection.execute(counted.group_by(table.c.receiver, table.c.channel)):
                    found.setdefault((receiver, channel), {"workitems": 0, "locks": 0, "waiting": 0})[name] = number
        return found

    # ----------------------------------------------------------------------------------------------------------- the outbox

    def to_compare(self, *, limit: int = 200) -> tuple[tuple[int, str], ...]:
        """Return the new workitems that nobody has compared with the filters yet: the report's number, and the workitem's UID."""
        wanted = select(event_report.c.id, event_report.c.workitem_uid).where(event_report.c.receiver == "")
        with self._database.read() as connection:
            return tuple((key, uid) for key, uid in connection.execute(wanted.order_by(event_report.c.id).limit(limit)))

    def receivers(self, channel: Channel, *, now: float) -> tuple[str, ...]:
        """Return whom something is to be told of by a channel, now; news for one that was put off waits with the rest, in order."""
        waiting = event_report.c.channel == channel, event_report.c.receiver != ""
        due = select(event_report.c.receiver).where(*waiting).group_by(event_report.c.receiver).having(func.max(event_report.c.not_before) <= now)
        with self._database.read() as connection:
            return tuple(connection.execute(due).scalars())

    def waiting(self, receiver: str, channel: Channel, *, after: int = 0, limit: int = 100) -> tuple[EventReport, ...]:
        """Return what a receiver is to be told of, in the order in which it happened."""
        wanted = event_report.c.receiver == receiver, event_report.c.channel == channel, event_report.c.id > after
        with self._database.read() as connection:
            rows = connection.execute(select(event_report).where(*wanted).order_by(event_report.c.id).limit(limit)).mappings()
            return tuple(_report_of(row) for row in rows)

    def told(self, ids: Collection[int]) -> None:
        """Record that reports have reached their receiver, or have been dealt with."""
        with self._database.write() as connection:
            connection.execute(delete(event_report).where(event_report.c.id.in_(list(ids))))

    def hear(self, teller: str, uid: str, kind: ReportKind, facts: Mapping[str, Any], *, now: float) -> bool:
        """Record that another manager, by its AE title, has told this node something; False when too much of it waits here already."""
        said = {
            "receiver": teller,
            "channel": Channel.HEARD,
            "workitem_uid": uid,
            "kind": int(kind),
            "facts": {name: _without_nul(value) for name, value in facts.items()},
            "at": now,
            "not_before": 0.0,
        }
        waiting = select(func.count()).where(event_report.c.receiver == teller, event_report.c.channel == Channel.HEARD)
        with self._database.write() as connection:
            if connection.execute(waiting).scalar_one() >= _MOST_WAITING:
                return False
            connection.execute(insert(event_report).values(**said))
        self._bell.ring(Topic.WORKITEMS)
        return True

    def put_off(self, receiver: str, channel: Channel, *, until: float) -> None:
        """Tell a receiver that was not reached again later: of everything that waits, so that the order stays."""
        waiting = event_report.c.receiver == receiver, event_report.c.channel == channel
        with self._database.write() as connection:
            connection.execute(update(event_report).where(*waiting).values(not_before=until, attempts=event_report.c.attempts + 1))

    def give_up(self, *, before: float, now: float) -> int:
        """Drop reports that nobody took for too long, or that are too many; their receiver is told, when it is reached, that its list is not whole.

        That is an SCP Status Change with COLD START of its lists (PS3.4 Table CC.2.4-1). Return how many were dropped.
        """
        dropped = 0
        counted = select(event_report.c.receiver, event_report.c.channel, func.max(event_report.c.id), func.count(), func.min(event_report.c.at))
        real = event_report.c.receiver != "", event_report.c.kind != ReportKind.SCP_STATUS
        with self._database.write() as connection:
            per_receiver = counted.where(*real).group_by(event_report.c.receiver, event_report.c.channel)
            for receiver, channel, last, number, oldest in connection.execute(per_receiver).all():
                if oldest >= before and number <= _MOST_WAITING:
                    continue
                of = event_report.c.receiver == receiver, event_report.c.channel == channel
                kept = and_(event_report.c.at >= before, event_report.c.id > last - _MOST_WAITING // 2)
                dropped += connection.execute(delete(event_report).where(*of, ~kept)).rowcount
                _status_change(connection, receiver, channel, "COLD START", now)
        return dropped

    def restarted(self, *, now: float) -> int:
        """Leave word for everybody who watches that this node began anew, with all that it knew; return for how many (PS3.4 CC.2.4.3).

        Who is still to hear that its list is not whole hears that, and nothing that would make it think otherwise.
        """
        word = event_report.c.kind == ReportKind.SCP_STATUS
        with self._database.write() as connection:
            watching = connection.execute(select(subscription.c.receiver, subscription.c.channel).distinct()).all()
            connection.execute(delete(event_report).where(word, event_report.c.facts["workitems"].as_string() != "COLD START"))
            connection.execute(
                update(event_report).where(event_report.c.not_before > 0).values(not_before=0.0)
            )  # who was left alone is tried at once
            still = select(event_report.c.receiver, event_report.c.channel).where(word).distinct()
            warned = {(receiver, channel) for receiver, channel in connection.execute(still)}
            for receiver, channel in watching:
                if (receiver, channel) not in warned:
                    _status_change(connection, receiver, channel, "WARM START", now)
        self._bell.ring(Topic.WORKITEMS)
        return len(watching)


def _without_nul(value: Any) -> Any:
    """Return a value as PostgreSQL takes it."""
    return value.replace("\0", " ") if isinstance(value, str) else value


def _put(connection: Connection, wanted: Subscription) -> None:
    same = subscription.c.receiver == wanted.receiver, subscription.c.workitem_uid == wanted.workitem_uid
    said = {"channel": wanted.channel, "deletion_lock": wanted.deletion_lock, "keys": dict(wanted.keys), "owner": wanted.owner}
    if not connection.execute(update(subscription).where(*same).values(**said)).rowcount:
        key = {"receiver": wanted.receiver, "workitem_uid": wanted.workitem_uid, "created_at": wanted.created_at}
        connection.execute(insert(subscription).values(**key, **said))


def _watch(connection: Connection, of_all: Subscription, now: float, meant: ColumnElement[bool]) -> None:
    """Subscribe who watches all, or some, to the workitems that are meant, with the same lock."""
    keys, mine = bindparam("k", {}, JSON), subscription.c.receiver == of_all.receiver
    known = mine, subscription.c.workitem_uid.in_(select(workitem.c.uid).where(meant))
    connection.execute(
        update(subscription).where(*known).values(channel=of_all.channel, deletion_lock=of_all.deletion_lock, owner=of_all.owner, keys={})
    )
    new = select(
        literal(of_all.receiver), literal(of_all.channel), workitem.c.uid, literal(of_all.deletion_lock), keys, literal(of_all.owner), literal(now)
    )
    new = new.where(meant, ~select(subscription.c.id).where(mine, subscription.c.workitem_uid == workitem.c.uid).exists()).order_by(workitem.c.id)
    columns = ["receiver", "channel", "workitem_uid", "deletion_lock", "keys", "owner", "created_at"]
    connection.execute(insert(subscription).from_select(columns, new, include_defaults=False))


def _tell(connection: Connection, to: Subscription, items: Collection[Workitem], now: float) -> None:
    said = {"receiver": to.receiver, "channel": to.channel, "kind": int(ReportKind.STATE), "at": now, "not_before": 0.0}
    if items:
        connection.execute(insert(event_report), [{**said, "workitem_uid": item.uid, "facts": state_facts(item)} for item in items])


def _status_change(connection: Connection, receiver: str, channel: str, lists: str, now: float) -> None:
    facts: Mapping[str, Any] = {"status": "RESTARTED", "subscriptions": "WARM START", "workitems": lists}
    said = {"receiver": receiver, "channel": channel, "workitem_uid": GLOBAL_SUBSCRIPTION, "kind": int(ReportKind.SCP_STATUS), "facts": facts}
    connection.execute(insert(event_report).values(**said, at=now, not_before=0.0))


def _subscription(row: RowMapping) -> Subscription:
    return Subscription(**{name: value for name, value in row.items() if name not in ("id", "channel")}, channel=Channel(row["channel"]))


def _report_of(row: RowMapping) -> EventReport:
    return EventReport(**dict(row) | {"kind": ReportKind(row["kind"]), "channel": Channel(row["channel"])})
