"""The ledger's tables of the walk. A change here is a migration in `migrations/versions`, and a test holds the two together."""

from sqlalchemy import JSON, BigInteger, Boolean, Column, Float, ForeignKey, Index, Integer, String, Table, Text, false, text

from dicom_node.store.columns import Ae, Id, Key, Moment, Sentence, Uid, metadata

instance = Table(
    "instance",
    metadata,
    Column("id", Id, primary_key=True),
    Column("sop_instance_uid", Uid, nullable=False),
    Column("sop_class_uid", Uid, nullable=False),
    Column("transfer_syntax_uid", Uid, nullable=False),
    Column("study_instance_uid", Uid, nullable=False),
    Column("series_instance_uid", Uid, nullable=False),
    Column("path", String(200), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("calling_ae", Ae, nullable=False),
    Column("received_at", Moment, nullable=False),
    Column("header", JSON, nullable=False),
    Column("version", Integer, nullable=False),
    Column("current", Boolean, nullable=False),
    Column("hidden", Boolean, nullable=False, server_default=false()),  # a rejection note says that it is not to be used
    Index("ix_instance_sop_instance_uid", "sop_instance_uid"),  # storage commitment and retrievals name nothing else
    Index("uq_instance_content", "study_instance_uid", "sop_instance_uid", "digest", unique=True),
    Index(
        "uq_instance_current",
        "study_instance_uid",
        "sop_instance_uid",
        unique=True,
        sqlite_where=text("current = 1"),
        postgresql_where=text("current"),
    ),
    sqlite_autoincrement=True,  # the number of what was purged is not given to something else
)

study = Table(
    "study",
    metadata,
    Column("study_instance_uid", Uid, primary_key=True),
    Column("state", String(16), nullable=False),
    Column("revision", Integer, nullable=False),  # how often it was judged complete
    Column("changes", Integer, nullable=False),  # how often its content changed: the guard of "complete and jobs exist"
    Column("first_received_at", Moment, nullable=False),
    Column("last_received_at", Moment, nullable=False),
    Column("look_at", Moment, nullable=False),  # when to judge it next, while it is OPEN
    Column("completed_at", Moment),
    Column("why", Sentence, nullable=False),
    Column("indexed", Integer, nullable=False, server_default=text("-1")),  # the `changes` that the index has seen; below 0: it has to look
    Index("ix_study_state_look_at", "state", "look_at"),
    Index("ix_study_last_received_at", "last_received_at"),
    Index("ix_study_to_index", "study_instance_uid", sqlite_where=text("indexed < 0"), postgresql_where=text("indexed < 0")),
)

# What queries ask for; each column holds what `match.written` makes of the attribute of its name.
study_entry = Table(
    "study_entry",
    metadata,
    Column("id", Id, primary_key=True),
    Column("study_instance_uid", Uid, nullable=False, unique=True),
    Column("patient_id", Key, nullable=False, index=True),
    Column("issuer_of_patient_id", Key, nullable=False),
    Column("patient_name", Sentence, nullable=False),
    Column("patient_birth_date", Key, nullable=False),
    Column("patient_sex", Key, nullable=False),
    Column("study_date", Key, nullable=False, index=True),
    Column("study_time", Key, nullable=False),
    Column("accession_number", Key, nullable=False, index=True),
    Column("study_id", Key, nullable=False),
    Column("referring_physician_name", Sentence, nullable=False),
    Column("study_description", Key, nullable=False),
    Column("modalities_in_study", Sentence, nullable=False),
    Column("sop_classes_in_study", Sentence, nullable=False),
    Column("series", Integer, nullable=False),  # how many
    Column("instances", Integer, nullable=False),  # how many
    Column("attributes", JSON, nullable=False),  # the attributes as they came
    sqlite_autoincrement=True,  # a query goes from page to page by number
)

series_entry = Table(
    "series_entry",
    metadata,
    Column("id", Id, primary_key=True),
    Column("study_instance_uid", Uid, nullable=False),
    Column("series_instance_uid", Uid, nullable=False, index=True),
    Column("modality", Key, nullable=False),
    Column("series_description", Key, nullable=False),
    Column("body_part_examined", Key, nullable=False),
    Column("attributes", JSON, nullable=False),
    Index("uq_series_entry_series", "study_instance_uid", "series_instance_uid", unique=True),
    sqlite_autoincrement=True,
)

job = Table(
    "job",
    metadata,
    Column("id", Id, primary_key=True),
    Column("identity", String(64), nullable=False, unique=True),
    Column("study_instance_uid", Uid, nullable=False, index=True),
    Column("revision", Integer, nullable=False),
    Column("model", String(40), nullable=False),
    Column("model_version", String(16), nullable=False),
    Column("device_uid", Uid, nullable=False),
    Column("repeat", Integer, nullable=False),
    Column("inputs", JSON, nullable=False),
    Column("why", Sentence, nullable=False),
    Column("deliver", JSON, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("due", Moment, nullable=False),  # the order of claims: creation plus what its priority waits
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("not_before", Moment, nullable=False),
    Column("lease_until", Moment),
    Column("worker", Sentence, nullable=False),
    Column("progress", Float, nullable=False),
    Column("note", Sentence, nullable=False),
    Column("reason", Sentence, nullable=False),
    Column("discontinuation", String(16)),
    Column("cause", String(16), nullable=False, server_default=text("''")),
    Column("cancel_requested", Boolean, nullable=False),
    Column("started_at", Moment),
    Column("ended_at", Moment),
    Column("predecessor_id", Id, ForeignKey("job.id", ondelete="SET NULL"), index=True),
    Column("short", Sentence, nullable=False, server_default=text("''")),  # which images were known to be missing
    Column("priors", JSON),  # which earlier studies it waits for, and what came of it; none: it asks for none
    Column("priors_state", String(16), nullable=False, server_default=text("''")),
    Column("picture", String(200), nullable=False, server_default=text("''")),  # a file below the archive; empty: none was drawn
    Index("ix_job_state_due", "state", "due"),
    Index("ix_job_priors_state", "priors_state", sqlite_where=text("priors_state <> ''"), postgresql_where=text("priors_state <> ''")),
    sqlite_autoincrement=True,  # the number of what was purged is not given to something else
)

result = Table(
    "result",
    metadata,
    Column("id", Id, primary_key=True),
    Column("job_id", Id, ForeignKey("job.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("kind", String(16), nullable=False),
    Column("sop_class_uid", Uid, nullable=False),
    Column("sop_instance_uid", Uid, nullable=False, unique=True),
    Column("series_instance_uid", Uid, nullable=False),
    Column("study_instance_uid", Uid, nullable=False, index=True),
    Column("transfer_syntax_uid", Uid, nullable=False),
    Column("path", String(200), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("problem", Sentence, nullable=False),
    Column("header", JSON, nullable=False),
    sqlite_autoincrement=True,  # the number of what was purged is not given to something else
)

delivery = Table(
    "delivery",
    metadata,
    Column("id", Id, primary_key=True),
    Column("result_id", Id, ForeignKey("result.id", ondelete="CASCADE"), nullable=False),
    Column("destination", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("not_before", Moment, nullable=False),
    Column("lease_until", Moment),
    Column("sender", Sentence, nullable=False),
    Column("sent_at", Moment),
    Column("status", Integer),
    Column("reason", Sentence, nullable=False),
    Index("uq_delivery_result_destination", "result_id", "destination", unique=True),
    Index("ix_delivery_destination_state", "destination", "state"),
    Index("ix_delivery_state_lease_until", "state", "lease_until"),
    sqlite_autoincrement=True,  # the number of what was purged is not given to something else
)

destination = Table(
    "destination",
    metadata,
    Column("name", Text, primary_key=True),
    Column("failures", Integer, nullable=False),  # in a row; above 0 the circuit is open until `not_before`
    Column("not_before", Moment, nullable=False),
    Column("succeeded_at", Moment),
    Column("reason", Sentence, nullable=False),
)

worker = Table(
    "worker",
    metadata,
    Column("name", Text, primary_key=True),
    Column("started_at", Moment, nullable=False),
    Column("seen_at", Moment, nullable=False),
    Column("models", JSON, nullable=False),
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("id", Id, primary_key=True),
    Column("at", Moment, nullable=False),
    Column("path", String(200), nullable=False),
    Column("source", Sentence, nullable=False),  # calling AE, "import", or the model that made it
    Column("sop_instance_uid", String(64), nullable=False),
    Column("study_instance_uid", String(64), nullable=False),
    Column("reason", Sentence, nullable=False),
    Column("job_id", Id),
)

event = Table(
    "event",
    metadata,
    Column("id", Id, primary_key=True),
    Column("at", Moment, nullable=False),
    Column("study_instance_uid", String(64), nullable=False, index=True),
    Column("job_id", Id, index=True),
    Column("kind", String(32), nullable=False),
    Column("who", Sentence, nullable=False),
    Column("why", Sentence, nullable=False),
    Column("detail", JSON),
)

tombstone = Table(
    "tombstone",
    metadata,
    Column("path", String(200), primary_key=True),  # a file whose rows are gone: to be unlinked
)

commitment = Table(
    "commitment",
    metadata,
    Column("id", Id, primary_key=True),
    Column("role", String(3), nullable=False),
    Column("transaction_uid", Uid, nullable=False, index=True),
    Column("peer", Text, nullable=False),
    Column("ae_title", Ae, nullable=False),
    Column("state", String(16), nullable=False),
    Column("requested_at", Moment, nullable=False),
    Column("deadline", Moment, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("not_before", Moment, nullable=False),
    Column("lease_until", Moment),
    Column("holder", Sentence, nullable=False),
    Column("reason", Sentence, nullable=False),
    Index("ix_commitment_role_state", "role", "state"),
    sqlite_autoincrement=True,
)

commitment_item = Table(
    "commitment_item",
    metadata,
    Column("commitment_id", Id, ForeignKey("commitment.id", ondelete="CASCADE"), primary_key=True),
    Column("sop_instance_uid", Uid, primary_key=True),
    Column("sop_class_uid", Uid, nullable=False),
    Column("delivery_id", Id, ForeignKey("delivery.id", ondelete="SET NULL"), index=True),
    Column("outcome", Integer),
)

procedure_step = Table(
    "procedure_step",
    metadata,
    Column("sop_instance_uid", Uid, primary_key=True),
    Column("study_instance_uid", Uid, primary_key=True, index=True),  # a step may concern several: a row each
    Column("state", String(16), nullable=False),
    Column("modality", Sentence, nullable=False),
    Column("station", Sentence, nullable=False),
    Column("started", Sentence, nullable=False),
    Column("ended", Sentence, nullable=False),
    Column("series", JSON, nullable=False),
    Column("calling_ae", Ae, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("changed_at", Moment, nullable=False, index=True),
)

announcement = Table(
    "announcement",
    metadata,
    Column("id", Id, primary_key=True),
    Column("remote", Text, nullable=False),
    Column("job_id", Id, ForeignKey("job.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("study_instance_uid", Uid, nullable=False),
    Column("holder", Text, nullable=False),
    Column("sop_instance_uid", Uid, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("not_before", Moment, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("reason", Sentence, nullable=False),
    Index("uq_announcement_remote_job_holder", "remote", "job_id", "holder", unique=True),
    Index("ix_announcement_remote_state", "remote", "state"),
    sqlite_autoincrement=True,
)

study_order = Table(
    "study_order",
    metadata,
    Column("study_instance_uid", Uid, primary_key=True),
    Column("state", String(16), nullable=False),
    Column("source", Text, nullable=False),  # name of the remote that told of it
    Column("attributes", JSON),
    Column("reason", Sentence, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("not_before", Moment, nullable=False),
    Column("created_at", Moment, nullable=False),
)

notice = Table(
    "notice",
    metadata,
    Column("sop_instance_uid", Uid, primary_key=True),
    Column("study_instance_uid", Uid, nullable=False, index=True),
    Column("series", JSON, nullable=False),
    Column("calling_ae", Ae, nullable=False),
    Column("received_at", Moment, nullable=False, index=True),
)

retrieval = Table(
    "retrieval",
    metadata,
    Column("id", Id, primary_key=True),
    Column("remote", Text, nullable=False),
    Column("study_instance_uid", Uid, nullable=False, index=True),
    Column("who", Sentence, nullable=False),
    Column("why", Sentence, nullable=False),
    Column("by_person", Boolean, nullable=False),
    Column("deadline", Moment),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("not_before", Moment, nullable=False),
    Column("lease_until", Moment),
    Column("holder", Sentence, nullable=False),
    Column("reason", Sentence, nullable=False),
    Column("expected", Integer),
    Column("held", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("requested_at", Moment, nullable=False),
    Column("ended_at", Moment),
    Index(
        "uq_retrieval_going_on",
        "remote",
        "study_instance_uid",
        unique=True,
        sqlite_where=text("ended_at IS NULL"),
        postgresql_where=text("ended_at IS NULL"),
    ),
    Index("ix_retrieval_remote_state", "remote", "state"),
    sqlite_autoincrement=True,
)

retrieval_wish = Table(
    "retrieval_wish",
    metadata,
    Column("retrieval_id", Id, ForeignKey("retrieval.id", ondelete="CASCADE"), primary_key=True),
    Column("study_instance_uid", Uid, primary_key=True, index=True),  # the study that the retrieved one is wanted for
)
