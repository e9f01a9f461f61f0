"""Storage commitment, asked for and answered."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "commitment",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("role", sa.String(3), nullable=False),
        sa.Column("transaction_uid", sa.String(64), nullable=False),
        sa.Column("peer", sa.Text(), nullable=False),
        sa.Column("ae_title", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("requested_at", sa.Float(53), nullable=False),
        sa.Column("deadline", sa.Float(53), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.Float(53), nullable=False),
        sa.Column("lease_until", sa.Float(53)),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_commitment_transaction_uid", "commitment", ["transaction_uid"])
    op.create_index("ix_commitment_role_state", "commitment", ["role", "state"])
    op.create_table(
        "commitment_item",
        sa.Column("commitment_id", _ID, nullable=False),
        sa.Column("sop_instance_uid", sa.String(64), nullable=False),
        sa.Column("sop_class_uid", sa.String(64), nullable=False),
        sa.Column("delivery_id", _ID),
        sa.Column("outcome", sa.Integer()),
        sa.PrimaryKeyConstraint("commitment_id", "sop_instance_uid"),
        sa.ForeignKeyConstraint(["commitment_id"], ["commitment.id"], name="fk_commitment_item_commitment_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["delivery_id"], ["delivery.id"], name="fk_commitment_item_delivery_id", ondelete="SET NULL"),
    )
    op.create_index("ix_commitment_item_delivery_id", "commitment_item", ["delivery_id"])


def downgrade() -> None:
    op.drop_table("commitment_item")
    op.drop_table("commitment")
