"""What a job made, drawn for a person."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job", sa.Column("picture", sa.String(200), nullable=False, server_default=sa.text("''")))


def downgrade() -> None:
    op.drop_column("job", "picture")
