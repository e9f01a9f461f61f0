"""Performed procedure steps."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "procedure_step",
        sa.Column("sop_instance_uid", sa.String(64), nullable=False),
        sa.Column("study_instance_uid", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("modality", sa.Text(), nullable=False),
        sa.Column("station", sa.Text(), nullable=False),
        sa.Column("started", sa.Text(), nullable=False),
        sa.Column("ended", sa.Text(), nullable=False),
        sa.Column("series", sa.JSON(), nullable=False),
        sa.Column("calling_ae", sa.String(16), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("changed_at", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("sop_instance_uid", "study_instance_uid"),
    )
    op.create_index("ix_procedure_step_study_instance_uid", "procedure_step", ["study_instance_uid"])
    op.create_index("ix_procedure_step_changed_at", "procedure_step", ["changed_at"])


def downgrade() -> None:
    op.drop_table("procedure_step")
