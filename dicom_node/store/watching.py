"""The tables of what is measured and told, beside those of the walk."""

from sqlalchemy import JSON, BigInteger, Column, Float, Index, Integer, String, Table, Text

from dicom_node.store.columns import Id, Moment, Sentence, metadata

reading = Table(
    "reading",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("event_id", BigInteger, nullable=False),  # the last event that this reader of the journal has passed
)

latency = Table(
    "latency",
    metadata,
    Column("stage", String(32), primary_key=True),
    Column("label", Text, primary_key=True),  # model or destination
    Column("counts", JSON, nullable=False),
    Column("total_s", Float(53), nullable=False),
)

trouble = Table(
    "trouble",
    metadata,
    Column("recipient", Text, primary_key=True),  # who has been told of it, and is to be told of its end
    Column("key", Text, primary_key=True),
    Column("about", String(16), nullable=False),
    Column("says", Sentence, nullable=False),
    Column("since", Moment, nullable=False),
)

message = Table(
    "message",
    metadata,
    Column("id", Id, primary_key=True),
    Column("recipient", Text, nullable=False),
    Column("key", String(64), nullable=False),  # the same at every attempt
    Column("about", String(16), nullable=False),
    Column("facts", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("not_before", Moment, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("ended_at", Moment, index=True),
    Column("reason", Sentence, nullable=False),
    Index("uq_message_recipient_key", "recipient", "key", unique=True),
    Index("ix_message_recipient_state", "recipient", "state"),
    sqlite_autoincrement=True,
)
