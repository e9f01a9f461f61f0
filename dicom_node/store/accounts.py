"""The tables of who may use the node by HTTP, beside those of the walk."""

from sqlalchemy import JSON, Boolean, Column, ForeignKey, String, Table, Text

from dicom_node.store.columns import Id, Key, Moment, Sentence, metadata

person = Table(
    "person",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", Key, nullable=False, unique=True),
    Column("role", String(16), nullable=False),
    Column("password", Text, nullable=False),  # its argon2id hash; empty: none
    Column("disabled", Boolean, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("seen_at", Moment),
    sqlite_autoincrement=True,  # what is on record of one is not another's
)

access_token = Table(
    "access_token",
    metadata,
    Column("digest", Key, primary_key=True),  # SHA-256 of what was shown once
    Column("person_id", Id, ForeignKey("person.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("scopes", JSON, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
)

web_session = Table(
    "web_session",
    metadata,
    Column("digest", Key, primary_key=True),  # SHA-256 of what the cookie holds
    Column("person_id", Id, ForeignKey("person.id", ondelete="CASCADE"), index=True),  # none: one of the identity provider's
    Column("name", Sentence, nullable=False, index=True),
    Column("role", String(16), nullable=False),  # as it was at log-in; of a person of this node's, that of now counts
    Column("created_at", Moment, nullable=False),
    Column("seen_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
)
