"""Orders, what others say is to be had, and what they are told."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "notice",
        sa.Column("sop_instance_uid", sa.String(64), primary_key=True),
        sa.Column("study_instance_uid", sa.String(64), nullable=False),
        sa.Column("series", sa.JSON(), nullable=False),
        sa.Column("calling_ae", sa.String(16), nullable=False),
        sa.Column("received_at", sa.Float(53), nullable=False),
    )
    op.create_index("ix_notice_study_instance_uid", "notice", ["study_instance_uid"])
    op.create_index("ix_notice_received_at", "notice", ["received_at"])
    _announcements()
    _orders()


def downgrade() -> None:
    op.drop_table("study_order")
    op.drop_table("announcement")
    op.drop_table("notice")


def _announcements() -> None:
    op.create_table(
        "announcement",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("remote", sa.Text(), nullable=False),
        sa.Column("job_id", _ID, nullable=False),
        sa.Column("study_instance_uid", sa.String(64), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("sop_instance_uid", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.Float(53), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_announcement_job_id", ondelete="CASCADE"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_announcement_job_id", "announcement", ["job_id"])
    op.create_index("uq_announcement_remote_job_holder", "announcement", ["remote", "job_id", "holder"], unique=True)
    op.create_index("ix_announcement_remote_state", "announcement", ["remote", "state"])


def _orders() -> None:
    op.create_table(
        "study_order",
        sa.Column("study_instance_uid", sa.String(64), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("attributes", sa.JSON()),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.Float(53), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
    )
