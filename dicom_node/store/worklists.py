"""The tables of workitems, their subscribers, and what these are to be told."""

from sqlalchemy import JSON, Boolean, Column, ForeignKey, Index, Integer, String, Table, Text, text

from dicom_node.store.columns import Ae, Id, Moment, Sentence, Uid, metadata

workitem = Table(
    "workitem",
    metadata,
    Column("id", Id, primary_key=True),
    Column("uid", Uid, nullable=False, unique=True),
    Column("job_id", Id, ForeignKey("job.id", ondelete="CASCADE")),  # that performs it: its state is then the job's
    Column("state", String(16)),  # none: the job's
    Column("priority", Integer, nullable=False),  # of one that no job performs
    Column("attributes", JSON, nullable=False),
    Column("study_instance_uid", String(64), nullable=False, index=True),
    Column("requester", Sentence, nullable=False),
    Column("performer", Sentence, nullable=False),
    Column("transaction_uid", String(64), nullable=False),
    Column("manager", Text, nullable=False),
    Column("readiness", String(16), nullable=False),
    Column("not_before", Moment, nullable=False),  # when this node looks at it again, as a performer
    Column("scheduled_at", Moment, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("changed_at", Moment, nullable=False),
    Column("ended_at", Moment),
    Column("reason", Sentence, nullable=False),
    Index("ix_workitem_manager", "manager"),
    Index("ix_workitem_job_id", "job_id", "ended_at", "not_before"),  # those that no job performs, and nobody has ended, by when they are due
    sqlite_autoincrement=True,  # a query goes from page to page by number
)

subscription = Table(
    "subscription",
    metadata,
    Column("id", Id, primary_key=True),
    Column("receiver", Ae, nullable=False),
    Column("channel", String(8), nullable=False),
    Column("workitem_uid", Uid, nullable=False, index=True),
    Column("deletion_lock", Boolean, nullable=False),
    Column("keys", JSON, nullable=False),
    Column("owner", Sentence, nullable=False),  # the account that made it over HTTP; empty: an application entity did
    Column("created_at", Moment, nullable=False),
    Index("uq_subscription_receiver_workitem", "receiver", "workitem_uid", unique=True),
    sqlite_autoincrement=True,
)

event_report = Table(
    "event_report",
    metadata,
    Column("id", Id, primary_key=True),
    Column("receiver", Ae, nullable=False),  # empty: it is to be found out who wants to hear of a new workitem
    Column("channel", String(8), nullable=False),
    Column("workitem_uid", Uid, nullable=False, index=True),
    Column("kind", Integer, nullable=False),
    Column("facts", JSON, nullable=False),
    Column("at", Moment, nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("not_before", Moment, nullable=False),
    Index("ix_event_report_receiver", "receiver", "id"),
    sqlite_autoincrement=True,
)
