"""Workitems, their subscribers, and the events that these are to be told of; every job becomes a workitem."""

import sqlalchemy as sa
from alembic import op

from dicom_node.domain import derived_uid

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


# Longer than others, for it lists columns, one after another.
def upgrade() -> None:
    op.add_column("job", sa.Column("cause", sa.String(16), nullable=False, server_default=sa.text("''")))
    op.create_table(
        "workitem",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("uid", sa.String(64), nullable=False),
        sa.Column("job_id", _ID),
        sa.Column("state", sa.String(16)),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.Column("study_instance_uid", sa.String(64), nullable=False),
        sa.Column("requester", sa.Text(), nullable=False),
        sa.Column("performer", sa.Text(), nullable=False),
        sa.Column("transaction_uid", sa.String(64), nullable=False),
        sa.Column("manager", sa.Text(), nullable=False),
        sa.Column("readiness", sa.String(16), nullable=False),
        sa.Column("not_before", sa.Float(53), nullable=False),
        sa.Column("scheduled_at", sa.Float(53), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("changed_at", sa.Float(53), nullable=False),
        sa.Column("ended_at", sa.Float(53)),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_workitem_job_id", ondelete="CASCADE"),
        sa.UniqueConstraint("uid", name="uq_workitem_uid"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_workitem_study_instance_uid", "workitem", ["study_instance_uid"])
    op.create_index("ix_workitem_manager", "workitem", ["manager"])
    op.create_index("ix_workitem_job_id", "workitem", ["job_id", "ended_at", "not_before"])
    op.create_table(
        "subscription",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("receiver", sa.String(16), nullable=False),
        sa.Column("channel", sa.String(8), nullable=False),
        sa.Column("workitem_uid", sa.String(64), nullable=False),
        sa.Column("deletion_lock", sa.Boolean(), nullable=False),
        sa.Column("keys", sa.JSON(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_subscription_workitem_uid", "subscription", ["workitem_uid"])
    op.create_index("uq_subscription_receiver_workitem", "subscription", ["receiver", "workitem_uid"], unique=True)
    op.create_table(
        "event_report",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("receiver", sa.String(16), nullable=False),
        sa.Column("channel", sa.String(8), nullable=False),
        sa.Column("workitem_uid", sa.String(64), nullable=False),
        sa.Column("kind", sa.Integer(), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("not_before", sa.Float(53), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_event_report_workitem_uid", "event_report", ["workitem_uid"])
    op.create_index("ix_event_report_receiver", "event_report", ["receiver", "id"])
    _make_of_jobs(op.get_bind())


def _make_of_jobs(connection: sa.Connection) -> None:
    """Give every job that there is its workitem, under the UID that later ones of its identity would have."""
    job = sa.table("job", *(sa.column(name) for name in ("id", "identity", "study_instance_uid", "priority", "created_at", "ended_at")))
    fixed = {"attributes": {}, "requester": "", "performer": "", "transaction_uid": "", "manager": "", "reason": ""}
    workitem = sa.table(
        "workitem",
        *(sa.column(name) for name in ("uid", "job_id", "priority", "study_instance_uid", "readiness", "not_before")),
        *(sa.column(name) for name in ("scheduled_at", "created_at", "changed_at", "ended_at", *fixed) if name != "attributes"),
        sa.column("attributes", sa.JSON()),
    )
    for row in connection.execute(sa.select(job)).mappings().all():
        moments = {"scheduled_at": row["created_at"], "created_at": row["created_at"], "changed_at": row["created_at"], "ended_at": row["ended_at"]}
        said = {"uid": derived_uid("workitem", row["identity"]), "job_id": row["id"], "priority": row["priority"], "readiness": "READY"}
        values = fixed | said | moments | {"study_instance_uid": row["study_instance_uid"], "not_before": 0.0}
        connection.execute(sa.insert(workitem).values(**values))


def downgrade() -> None:
    op.drop_table("event_report")
    op.drop_table("subscription")
    op.drop_table("workitem")
    op.drop_column("job", "cause")
