"""What is known of a study's arrival, and what a rejection note hides."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("instance", sa.Column("hidden", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("job", sa.Column("short", sa.Text, nullable=False, server_default=sa.text("''")))


def downgrade() -> None:
    op.drop_column("job", "short")
    op.drop_column("instance", "hidden")
