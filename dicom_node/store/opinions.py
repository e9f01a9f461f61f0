"""The tables of what readers say, beside those of the walk."""

from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, String, Table

from dicom_node.store.columns import Id, Moment, Sentence, Uid, metadata

feedback = Table(
    "feedback",
    metadata,
    Column("id", Id, primary_key=True),
    Column("job_id", Id, ForeignKey("job.id", ondelete="SET NULL"), index=True),  # none: the study was purged
    Column("result_id", Id, ForeignKey("result.id", ondelete="SET NULL")),  # the report
    Column("study_instance_uid", Uid, nullable=False, index=True),
    Column("analysis", String(64), nullable=False, index=True),  # the job's identity
    Column("model", String(40), nullable=False),
    Column("model_version", String(16), nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("comment", Sentence, nullable=False),
    Column("commented", Boolean, nullable=False),
    Column("who", Sentence, nullable=False),
    Column("display_name", Sentence, nullable=False),
    Column("at", Moment, nullable=False),
    sqlite_autoincrement=True,
)

verification = Table(
    "verification",
    metadata,
    Column("feedback_id", Id, ForeignKey("feedback.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("job_id", Id, ForeignKey("job.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("study_instance_uid", Uid, nullable=False, index=True),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("not_before", Moment, nullable=False),  # while it is held: when the lease ends
    Column("holder", Sentence, nullable=False),
    Column("reason", Sentence, nullable=False),
    Index("ix_verification_state_not_before", "state", "not_before"),
)
