"""What watchers are to be told of workitems, written in the transaction of the change it tells of: so a slow watcher keeps nobody waiting.

A report is a row for each watcher. Of an event that nobody watches there is none.
"""

import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import JSON, Connection, bindparam, func, insert, literal, select

from dicom_node.domain import FILTERED_SUBSCRIPTION, GLOBAL_SUBSCRIPTION, Job, Readiness, ReportKind, Workitem, derived_uid, state_seen
from dicom_node.store.worklists import event_report, subscription, workitem

_BEGIN_TO_WATCH = 7105732  # PostgreSQL: whoever begins to watch waits until changes under way have ended; SQLite has one writer at a time anyway
_WAITS_AT_MOST_S = 2.0  # for them, on a node that changes without pause: what is then not told, a search tells
_LOOKS_EVERY_S = 0.01


def alongside(connection: Connection) -> None:
    """Let whoever begins to watch wait for the end of this transaction: it reports to those who watch already."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock_shared(_BEGIN_TO_WATCH)))


def alone(connection: Connection) -> None:
    """Wait until no transaction is under way that reports, so that each change is either seen or told; to be asked before anything is read or locked.

    It stands in no queue: who waited for a place in one while others wait for rows would stop both.
    """
    until = time.monotonic() + _WAITS_AT_MOST_S
    while connection.dialect.name == "postgresql" and time.monotonic() < until:
        if connection.execute(select(func.pg_try_advisory_xact_lock(_BEGIN_TO_WATCH))).scalar():
            return
        time.sleep(_LOOKS_EVERY_S)


def workitem_uid(of: Job) -> str:
    """Return the UID of the workitem that a job is born with: the same job, the same UID."""
    return derived_uid("workitem", of.identity)


def report(connection: Connection, uid: str, kind: ReportKind, facts: Mapping[str, Any], now: float) -> None:
    """Record for all who watch a workitem that something happened to it."""
    _report(connection, kind, facts, now, subscription.c.workitem_uid == uid)


def report_of_job(connection: Connection, job_id: int, kind: ReportKind, facts: Mapping[str, Any], now: float) -> None:
    """Record for all who watch the workitems of a job that something happened to it."""
    items = select(workitem.c.uid).where(workitem.c.job_id == job_id)
    _report(connection, kind, facts, now, subscription.c.workitem_uid.in_(items))


def is_watched(connection: Connection, job_id: int) -> bool:
    """Say whether somebody watches a workitem of a job."""
    items = select(workitem.c.uid).where(workitem.c.job_id == job_id)
    return connection.execute(select(subscription.c.id).where(subscription.c.workitem_uid.in_(items)).limit(1)).first() is not None


def _report(connection: Connection, kind: ReportKind, facts: Mapping[str, Any], now: float, *watched: Any) -> None:
    alongside(connection)
    said = bindparam("said", dict(facts), JSON)
    rows = select(
        subscription.c.receiver, subscription.c.channel, subscription.c.workitem_uid, literal(int(kind)), said, literal(now), literal(0), literal(0.0)
    ).where(*watched)
    columns = ["receiver", "channel", "workitem_uid", "kind", "facts", "at", "attempts", "not_before"]
    connection.execute(insert(event_report).from_select(columns, rows.order_by(subscription.c.id), include_defaults=False))


def announce(connection: Connection, uid: str, facts: Mapping[str, Any], now: float) -> None:
    """Subscribe to a new workitem those who watch all, with a report, and leave word for whoever compares it with filters (PS3.4 CC.2.3.3)."""
    alongside(connection)
    everybody = select(
        subscription.c.receiver,
        subscription.c.channel,
        literal(uid),
        subscription.c.deletion_lock,
        bindparam("k", {}, JSON),
        subscription.c.owner,
        literal(now),
    )
    columns = ["receiver", "channel", "workitem_uid", "deletion_lock", "keys", "owner", "created_at"]
    all_of = everybody.where(subscription.c.workitem_uid == GLOBAL_SUBSCRIPTION).order_by(subscription.c.id)
    connection.execute(insert(subscription).from_select(columns, all_of, include_defaults=False))
    report(connection, uid, ReportKind.STATE, facts, now)
    filtered = select(subscription.c.id).where(subscription.c.workitem_uid == FILTERED_SUBSCRIPTION).limit(1)
    if connection.execute(filtered).first() is not None:
        word = {"receiver": "", "channel": "", "workitem_uid": uid, "kind": int(ReportKind.STATE), "facts": dict(facts), "at": now, "not_before": 0.0}
        connection.execute(insert(event_report).values(**word))


def born_with(connection: Connection, made: Job, requester: str = "") -> None:
    """Give a new job its workitem."""
    uid, now = workitem_uid(made), made.created_at
    said = {"uid": uid, "job_id": made.id, "state": None, "priority": int(made.priority), "attributes": {}, "performer": ""}
    said |= {"study_instance_uid": made.study_instance_uid, "requester": requester, "transaction_uid": "", "manager": "", "reason": ""}
    moments = {"not_before": 0.0, "scheduled_at": max(now, made.not_before), "created_at": now, "changed_at": now}
    connection.execute(insert(workitem).values(**said, **moments, readiness=Readiness.READY))
    announce(connection, uid, state_facts(made), now)


def state_facts(of: Job | Workitem) -> dict[str, Any]:
    """Return what a state report says (PS3.4 Table CC.2.4-1)."""
    performs = of.job if isinstance(of, Workitem) else of
    if performs is not None:
        ended = {"discontinuation": performs.discontinuation, "cause": performs.cause, "reason": performs.reason} if performs.discontinuation else {}
        return {"state": state_seen(performs), "readiness": Readiness.READY, **ended}
    readiness = of.readiness if isinstance(of, Workitem) else Readiness.READY
    return {"state": of.state, "readiness": readiness, **({"reason": of.reason} if of.reason else {})}
