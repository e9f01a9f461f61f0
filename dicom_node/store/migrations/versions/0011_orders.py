"""What others say is to be had."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


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


def downgrade() -> None:
    op.drop_table("notice")
