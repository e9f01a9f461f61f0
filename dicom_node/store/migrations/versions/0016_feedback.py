"""What readers say of results, and the verified reports that acceptances ask for."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


# Longer than others, for it lists columns, one after another.
def upgrade() -> None:
    op.create_table(
        "feedback",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("job_id", _ID),
        sa.Column("result_id", _ID),
        sa.Column("study_instance_uid", sa.String(64), nullable=False),
        sa.Column("analysis", sa.String(64), nullable=False),
        sa.Column("model", sa.String(40), nullable=False),
        sa.Column("model_version", sa.String(16), nullable=False),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("commented", sa.Boolean(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_feedback_job_id", ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["result_id"], ["result.id"], name="fk_feedback_result_id", ondelete="SET NULL"),
        sqlite_autoincrement=True,
    )
    for column in ("job_id", "study_instance_uid", "analysis"):
        op.create_index(f"ix_feedback_{column}", "feedback", [column])
    op.create_table(
        "verification",
        sa.Column("feedback_id", _ID, primary_key=True, autoincrement=False),
        sa.Column("job_id", _ID, nullable=False),
        sa.Column("study_instance_uid", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.Float(53), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["feedback_id"], ["feedback.id"], name="fk_verification_feedback_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_verification_job_id", ondelete="CASCADE"),
    )
    op.create_index("ix_verification_job_id", "verification", ["job_id"])
    op.create_index("ix_verification_study_instance_uid", "verification", ["study_instance_uid"])
    op.create_index("ix_verification_state_not_before", "verification", ["state", "not_before"])


def downgrade() -> None:
    op.drop_table("verification")
    op.drop_table("feedback")
