"""The walk of a study: instances, studies, jobs, results, deliveries, and the journal of it all."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_UID = sa.String(64)
_DIGEST = sa.String(64)
_PATH = sa.String(200)
_STATE = sa.String(16)
_MOMENT = sa.Float(53)


def upgrade() -> None:
    _instances()
    _studies()
    _jobs()
    _results()
    _deliveries()
    _processes()
    _quarantine()
    _journal()


def downgrade() -> None:
    for table in ("tombstone", "event", "quarantine", "worker", "destination", "delivery", "result", "job", "study", "instance"):
        op.drop_table(table)


def _instances() -> None:
    op.create_table(
        "instance",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("sop_instance_uid", _UID, nullable=False),
        sa.Column("sop_class_uid", _UID, nullable=False),
        sa.Column("transfer_syntax_uid", _UID, nullable=False),
        sa.Column("study_instance_uid", _UID, nullable=False),
        sa.Column("series_instance_uid", _UID, nullable=False),
        sa.Column("path", _PATH, nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("digest", _DIGEST, nullable=False),
        sa.Column("calling_ae", sa.String(16), nullable=False),
        sa.Column("received_at", _MOMENT, nullable=False),
        sa.Column("header", sa.JSON(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("current", sa.Boolean(), nullable=False),
        sa.UniqueConstraint("path", name="uq_instance_path"),
        sqlite_autoincrement=True,
    )
    key = ["study_instance_uid", "sop_instance_uid"]
    current: dict[str, Any] = {"sqlite_where": sa.text("current = 1"), "postgresql_where": sa.text("current")}
    op.create_index("uq_instance_content", "instance", [*key, "digest"], unique=True)
    op.create_index("uq_instance_current", "instance", key, unique=True, **current)


def _studies() -> None:
    op.create_table(
        "study",
        sa.Column("study_instance_uid", _UID, primary_key=True),
        sa.Column("state", _STATE, nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("changes", sa.Integer(), nullable=False),
        sa.Column("first_received_at", _MOMENT, nullable=False),
        sa.Column("last_received_at", _MOMENT, nullable=False),
        sa.Column("look_at", _MOMENT, nullable=False),
        sa.Column("completed_at", _MOMENT),
        sa.Column("why", sa.Text(), nullable=False),
    )
    op.create_index("ix_study_state_look_at", "study", ["state", "look_at"])
    op.create_index("ix_study_last_received_at", "study", ["last_received_at"])


# As long as the table is wide.
def _jobs() -> None:
    op.create_table(
        "job",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("identity", _DIGEST, nullable=False),
        sa.Column("study_instance_uid", _UID, nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(40), nullable=False),
        sa.Column("model_version", sa.String(16), nullable=False),
        sa.Column("device_uid", _UID, nullable=False),
        sa.Column("repeat", sa.Integer(), nullable=False),
        sa.Column("inputs", sa.JSON(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("deliver", sa.JSON(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("due", _MOMENT, nullable=False),
        sa.Column("state", _STATE, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("not_before", _MOMENT, nullable=False),
        sa.Column("lease_until", _MOMENT),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("progress", sa.Float(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("discontinuation", sa.String(16)),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("started_at", _MOMENT),
        sa.Column("ended_at", _MOMENT),
        sa.Column("predecessor_id", _ID),
        sa.ForeignKeyConstraint(["predecessor_id"], ["job.id"], name="fk_job_predecessor_id", ondelete="SET NULL"),
        sa.UniqueConstraint("identity", name="uq_job_identity"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_job_study_instance_uid", "job", ["study_instance_uid"])
    op.create_index("ix_job_predecessor_id", "job", ["predecessor_id"])
    op.create_index("ix_job_state_due", "job", ["state", "due"])


def _results() -> None:
    op.create_table(
        "result",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("job_id", _ID, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("sop_class_uid", _UID, nullable=False),
        sa.Column("sop_instance_uid", _UID, nullable=False),
        sa.Column("series_instance_uid", _UID, nullable=False),
        sa.Column("study_instance_uid", _UID, nullable=False),
        sa.Column("transfer_syntax_uid", _UID, nullable=False),
        sa.Column("path", _PATH, nullable=False),
        sa.Column("digest", _DIGEST, nullable=False),
        sa.Column("problem", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_result_job_id", ondelete="CASCADE"),
        sa.UniqueConstraint("sop_instance_uid", name="uq_result_sop_instance_uid"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_result_job_id", "result", ["job_id"])
    op.create_index("ix_result_study_instance_uid", "result", ["study_instance_uid"])


def _deliveries() -> None:
    op.create_table(
        "delivery",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("result_id", _ID, nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("state", _STATE, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("not_before", _MOMENT, nullable=False),
        sa.Column("lease_until", _MOMENT),
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("sent_at", _MOMENT),
        sa.Column("status", sa.Integer()),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["result_id"], ["result.id"], name="fk_delivery_result_id", ondelete="CASCADE"),
        sqlite_autoincrement=True,
    )
    op.create_index("uq_delivery_result_destination", "delivery", ["result_id", "destination"], unique=True)
    op.create_index("ix_delivery_destination_state", "delivery", ["destination", "state"])
    op.create_index("ix_delivery_state_lease_until", "delivery", ["state", "lease_until"])


def _processes() -> None:
    op.create_table(
        "destination",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("not_before", _MOMENT, nullable=False),
        sa.Column("succeeded_at", _MOMENT),
        sa.Column("reason", sa.Text(), nullable=False),
    )
    op.create_table(
        "worker",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("started_at", _MOMENT, nullable=False),
        sa.Column("seen_at", _MOMENT, nullable=False),
        sa.Column("models", sa.JSON(), nullable=False),
    )


def _quarantine() -> None:
    op.create_table(
        "quarantine",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("at", _MOMENT, nullable=False),
        sa.Column("path", _PATH, nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("sop_instance_uid", _UID, nullable=False),
        sa.Column("study_instance_uid", _UID, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("job_id", _ID),
    )


def _journal() -> None:
    op.create_table(
        "event",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("at", _MOMENT, nullable=False),
        sa.Column("study_instance_uid", _UID, nullable=False),
        sa.Column("job_id", _ID),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("detail", sa.JSON()),
    )
    op.create_index("ix_event_study_instance_uid", "event", ["study_instance_uid"])
    op.create_index("ix_event_job_id", "event", ["job_id"])
    op.create_table("tombstone", sa.Column("path", _PATH, primary_key=True))
