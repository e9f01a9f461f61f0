"""How long the steps of a walk took, how far who reads the journal has come, what is wrong now, and what people are told of it."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


# Longer than others, for it lists columns, one after another.
def upgrade() -> None:
    op.create_table("reading", sa.Column("name", sa.String(32), primary_key=True), sa.Column("event_id", sa.BigInteger(), nullable=False))
    op.create_table(
        "latency",
        sa.Column("stage", sa.String(32), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.Column("total_s", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("stage", "label"),
    )
    op.create_table(
        "trouble",
        sa.Column("recipient", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("about", sa.String(16), nullable=False),
        sa.Column("says", sa.Text(), nullable=False),
        sa.Column("since", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("recipient", "key"),
    )
    op.create_table(
        "message",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("recipient", sa.Text(), nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("about", sa.String(16), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.Float(53), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("ended_at", sa.Float(53)),
        sa.Column("reason", sa.Text(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("uq_message_recipient_key", "message", ["recipient", "key"], unique=True)
    op.create_index("ix_message_recipient_state", "message", ["recipient", "state"])
    op.create_index("ix_message_ended_at", "message", ["ended_at"])


def downgrade() -> None:
    for table in ("message", "trouble", "latency", "reading"):
        op.drop_table(table)
