"""The wire: nothing looks an instance up by its path alone, and names that are rolled cost each insert a page of the index somewhere else."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("instance", table_kwargs={"sqlite_autoincrement": True}) as instance:
        instance.drop_constraint("uq_instance_path", type_="unique")


def downgrade() -> None:
    with op.batch_alter_table("instance", table_kwargs={"sqlite_autoincrement": True}) as instance:
        instance.create_unique_constraint("uq_instance_path", ["path"])
