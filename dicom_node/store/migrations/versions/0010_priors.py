"""Which earlier studies of the patient a job waits for, and what came of it."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job", sa.Column("priors", sa.JSON()))
    op.add_column("job", sa.Column("priors_state", sa.String(16), nullable=False, server_default=sa.text("''")))
    seeking = sa.text("priors_state <> ''")
    op.create_index("ix_job_priors_state", "job", ["priors_state"], sqlite_where=seeking, postgresql_where=seeking)


def downgrade() -> None:
    op.drop_index("ix_job_priors_state", "job")
    op.drop_column("job", "priors_state")
    op.drop_column("job", "priors")
