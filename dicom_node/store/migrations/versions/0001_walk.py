"""The walk of a study: instances, studies, jobs, results, deliveries, and the journal of it all."""

from alembic import op

from dicom_node.store.tables import metadata

revision = "0001"
down_revision = None


def upgrade() -> None:
    # The first migration is the tables as they stand until the first release; from then on they are written out here and frozen.
    metadata.create_all(op.get_bind())


def downgrade() -> None:
    metadata.drop_all(op.get_bind())
