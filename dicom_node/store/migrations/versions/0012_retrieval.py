"""What is fetched from other archives, and for which study."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "retrieval",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("remote", sa.Text(), nullable=False),
        sa.Column("study_instance_uid", sa.String(64), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("by_person", sa.Boolean(), nullable=False),
        sa.Column("deadline", sa.Float(53)),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.Float(53), nullable=False),
        sa.Column("lease_until", sa.Float(53)),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("expected", sa.Integer()),
        sa.Column("held", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("requested_at", sa.Float(53), nullable=False),
        sa.Column("ended_at", sa.Float(53)),
        sqlite_autoincrement=True,
    )
    going_on = sa.text("ended_at IS NULL")
    key = ["remote", "study_instance_uid"]
    op.create_index("uq_retrieval_going_on", "retrieval", key, unique=True, sqlite_where=going_on, postgresql_where=going_on)
    op.create_index("ix_retrieval_study_instance_uid", "retrieval", ["study_instance_uid"])
    op.create_index("ix_retrieval_remote_state", "retrieval", ["remote", "state"])
    op.create_table(
        "retrieval_wish",
        sa.Column("retrieval_id", _ID, nullable=False),
        sa.Column("study_instance_uid", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("retrieval_id", "study_instance_uid"),
        sa.ForeignKeyConstraint(["retrieval_id"], ["retrieval.id"], name="fk_retrieval_wish_retrieval_id", ondelete="CASCADE"),
    )
    op.create_index("ix_retrieval_wish_study_instance_uid", "retrieval_wish", ["study_instance_uid"])


def downgrade() -> None:
    op.drop_table("retrieval_wish")
    op.drop_table("retrieval")
