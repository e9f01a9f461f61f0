"""What queries ask for: studies and series by their attributes."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_UID = sa.String(64)
_KEY = sa.String(64)


def upgrade() -> None:
    op.add_column("result", sa.Column("header", sa.JSON(), nullable=False, server_default=sa.text("'{}'")))  # for the rows that there are
    with op.batch_alter_table("result", table_kwargs={"sqlite_autoincrement": True}) as result:
        result.alter_column("header", server_default=None)
    op.add_column("study", sa.Column("indexed", sa.Integer(), nullable=False, server_default=sa.text("-1")))
    stale = sa.text("indexed < 0")
    op.create_index("ix_study_to_index", "study", ["study_instance_uid"], sqlite_where=stale, postgresql_where=stale)
    op.create_index("ix_instance_sop_instance_uid", "instance", ["sop_instance_uid"])
    _studies()
    _series()


def downgrade() -> None:
    op.drop_table("series_entry")
    op.drop_table("study_entry")
    op.drop_index("ix_instance_sop_instance_uid", "instance")
    op.drop_index("ix_study_to_index", "study")
    op.drop_column("study", "indexed")
    op.drop_column("result", "header")


def _studies() -> None:
    op.create_table(
        "study_entry",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("study_instance_uid", _UID, nullable=False),
        sa.Column("patient_id", _KEY, nullable=False),
        sa.Column("issuer_of_patient_id", _KEY, nullable=False),
        sa.Column("patient_name", sa.Text(), nullable=False),
        sa.Column("patient_birth_date", _KEY, nullable=False),
        sa.Column("patient_sex", _KEY, nullable=False),
        sa.Column("study_date", _KEY, nullable=False),
        sa.Column("study_time", _KEY, nullable=False),
        sa.Column("accession_number", _KEY, nullable=False),
        sa.Column("study_id", _KEY, nullable=False),
        sa.Column("referring_physician_name", sa.Text(), nullable=False),
        sa.Column("study_description", _KEY, nullable=False),
        sa.Column("modalities_in_study", sa.Text(), nullable=False),
        sa.Column("sop_classes_in_study", sa.Text(), nullable=False),
        sa.Column("series", sa.Integer(), nullable=False),
        sa.Column("instances", sa.Integer(), nullable=False),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.UniqueConstraint("study_instance_uid", name="uq_study_entry_study_instance_uid"),
        sqlite_autoincrement=True,
    )
    for key in ("patient_id", "study_date", "accession_number"):
        op.create_index(f"ix_study_entry_{key}", "study_entry", [key])


def _series() -> None:
    op.create_table(
        "series_entry",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("study_instance_uid", _UID, nullable=False),
        sa.Column("series_instance_uid", _UID, nullable=False),
        sa.Column("modality", _KEY, nullable=False),
        sa.Column("series_description", _KEY, nullable=False),
        sa.Column("body_part_examined", _KEY, nullable=False),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("uq_series_entry_series", "series_entry", ["study_instance_uid", "series_instance_uid"], unique=True)
    op.create_index("ix_series_entry_series_instance_uid", "series_entry", ["series_instance_uid"])
