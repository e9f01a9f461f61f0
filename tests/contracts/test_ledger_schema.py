"""The ledger's tables, its migrations, and what is asked of every connection."""

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, make_url, text

from dicom_node.domain import ConfigError, JobState, Priority, Transient
from dicom_node.store import Database, Holdings, Workitems, database
from dicom_node.store.columns import metadata
from dicom_node.store.reporting import workitem_uid

ROWS = {  # of a study that was analysed
    "study": dict(
        **{"study_instance_uid": "1.2.3", "state": "COMPLETE", "revision": 1, "changes": 1, "first_received_at": 1.0, "last_received_at": 1.0},
        **{"look_at": 1.0, "completed_at": 2.0, "why": "x"},
    ),
    "instance": dict(
        **{"id": 1, "sop_instance_uid": "1.2.3.1.1", "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2", "transfer_syntax_uid": "1.2.840.10008.1.2"},
        **{"study_instance_uid": "1.2.3", "series_instance_uid": "1.2.3.1", "path": "p", "size_bytes": 1, "digest": "d", "calling_ae": "CT"},
        **{"received_at": 1.0, "header": '{"PatientID": "P1", "Modality": "CT"}', "version": 1, "current": True},
    ),
    "job": dict(
        **{"id": 1, "identity": "i", "study_instance_uid": "1.2.3", "revision": 1, "model": "m", "model_version": "1", "device_uid": "1.5"},
        **{"repeat": 0, "inputs": '{"ct": [1]}', "why": "w", "deliver": "[]", "priority": 1, "due": 1.0, "state": "COMPLETED", "attempts": 1},
        **{"created_at": 1.0, "not_before": 0.0, "worker": "w", "progress": 1.0, "note": "", "reason": "", "cancel_requested": False},
    ),
    "result": dict(
        **{"id": 1, "job_id": 1, "kind": "SR", "sop_class_uid": "1.2.840.10008.5.1.4.1.1.88.34", "sop_instance_uid": "1.2.3.9.1"},
        **{"series_instance_uid": "1.2.3.9", "study_instance_uid": "1.2.3", "transfer_syntax_uid": "1.2.840.10008.1.2.1", "path": "r"},
        **{"digest": "d", "problem": ""},
    ),
}
MIGRATIONS = Path(database.__file__).parent / "migrations"


@pytest.fixture
def opened(address):
    ledger = Database(address)
    yield ledger
    ledger.close()


def test_the_program_knows_its_newest_migration():
    """HEAD is compared at every start without loading Alembic."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    newest = max(path.stem for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))
    assert ScriptDirectory.from_config(config).get_heads() == [database.HEAD] == [newest.partition("_")[0]]


def test_a_migrated_ledger_is_what_the_program_expects(opened):
    """Alembic finds nothing to change."""
    opened.upgrade()
    with opened.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []


def test_a_migrated_ledger_is_the_same_to_the_letter(opened, backend):
    """Alembic does not compare everything: the catalogue of the database does."""
    opened.upgrade()
    with opened.write() as connection:
        connection.execute(text("DROP TABLE alembic_version"))
        migrated = catalogue(connection, backend)
        metadata.drop_all(connection)
        metadata.create_all(connection)
        assert catalogue(connection, backend) == migrated


def test_a_ledger_with_studies_and_results_is_brought_up_to_date(address):
    """What it holds stays, and can be queried; 0007 is the first that sites have run."""
    old = Database(address)
    with old.write() as connection:
        database._migrate(connection, "0007")
        for table, said in ROWS.items():
            names = ", ".join(said)
            connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({', '.join(f':{name}' for name in said)})"), said)  # noqa: S608
    old.upgrade()
    archive = SimpleNamespace(path=Path)
    holdings = Holdings(old, archive, SimpleNamespace(bring_files=lambda _paths: None))
    (found,) = holdings.find("STUDY", {"PatientID": "P1", "NumberOfStudyRelatedInstances": ""})
    (image,) = holdings.find("IMAGE", {"SOPInstanceUID": "1.2.3.1.1"})
    workitems = Workitems(old, SimpleNamespace(ring=lambda _topic: None))
    (item,) = workitems.of_job(1)
    with old.read() as connection:
        kept = connection.execute(text("SELECT job.priors, job.priors_state, result.header FROM job JOIN result ON result.job_id = job.id")).one()
    old.close()
    assert (found["StudyInstanceUID"], found["NumberOfStudyRelatedInstances"], image["SOPClassUID"]) == ("1.2.3", 2, "1.2.840.10008.5.1.4.1.1.2")
    assert (kept.priors, kept.priors_state, str(kept.header)) == (None, "", "{}")
    # Every job becomes a workitem, of the UID that it would have been born with, and in the state that the job is in.
    assert (item.uid, item.state, item.study_instance_uid, item.priority) == (workitem_uid(item.job), JobState.COMPLETED, "1.2.3", Priority.MEDIUM)
    assert (item.transaction_uid, item.manager, item.attributes, item.created_at) == ("", "", {}, 1.0)


def test_a_ledger_of_a_newer_program_is_left_alone(opened):
    """An old program must not write what the new one cannot read."""
    opened.upgrade()
    opened.upgrade()
    with opened.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigError, match="the ledger is of version 9999"):
        opened.upgrade()


def test_a_migration_that_fails_leaves_the_ledger_as_it_was(opened, monkeypatch):
    """Tables are changed in one transaction."""

    def half(connection):
        connection.execute(text("CREATE TABLE half (id INTEGER)"))
        connection.execute(text("CREATE TABLE half (id INTEGER)"))

    monkeypatch.setattr(database, "_migrate", half)
    with pytest.raises(Transient, match="could not be brought up to date"):
        opened.upgrade()
    monkeypatch.undo()
    opened.upgrade()
    with opened.read() as connection:
        assert not opened.engine.dialect.has_table(connection, "half")


def test_every_connection_flushes_what_it_commits(opened, backend):
    """SQLite: WAL, synchronous FULL, foreign keys; PostgreSQL: synchronous_commit, READ COMMITTED."""
    opened.upgrade()
    connections = [opened.engine.connect() for _ in range(12)]  # more than the pool keeps
    asked = (
        {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30000}
        if backend == "sqlite"
        else {"synchronous_commit": "on", "transaction_isolation": "read committed"}
    )
    verb = "PRAGMA" if backend == "sqlite" else "SHOW"
    for connection in connections:
        assert {name: connection.exec_driver_sql(f"{verb} {name}").scalar() for name in asked} == asked
    for connection in connections:
        connection.close()


def test_a_server_that_does_not_flush_is_asked_to(postgres):
    """synchronous_commit = off is somebody's idea of speed: the node has given its word."""
    url = make_url(postgres).set(drivername="postgresql+psycopg").update_query_dict({"options": "-csynchronous_commit=off"})
    plain = create_engine(url)
    with plain.connect() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "off"
    plain.dispose()
    ledger = Database(url.render_as_string(hide_password=False))
    for _ in range(2):
        with ledger.read() as connection:
            assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
    ledger.close()


@pytest.mark.parametrize(
    "question",
    [
        "SELECT id FROM job WHERE state = 'SCHEDULED' AND not_before <= 1 AND model IN ('a') ORDER BY due, id LIMIT 1",
        "SELECT * FROM study ORDER BY last_received_at DESC LIMIT 50",
        "SELECT * FROM study WHERE state = 'OPEN' AND look_at <= 1 ORDER BY look_at",
        "SELECT * FROM instance WHERE study_instance_uid = '1' AND current = 1",
        "SELECT * FROM delivery WHERE destination = 'a' AND state = 'PENDING'",
        "SELECT * FROM delivery WHERE state = 'SENDING' AND lease_until < 1",
        "SELECT * FROM result WHERE study_instance_uid = '1'",
        "SELECT * FROM event WHERE study_instance_uid = '1'",
        "SELECT * FROM job WHERE predecessor_id = 1",
        "SELECT * FROM workitem WHERE job_id IS NULL AND ended_at IS NULL AND state = 'a' AND not_before <= 1 ORDER BY not_before, id LIMIT 50",
        "SELECT min(not_before) FROM workitem WHERE job_id IS NULL AND ended_at IS NULL AND state = 'a'",
        "SELECT * FROM workitem WHERE manager > '' AND ended_at IS NULL ORDER BY manager, id",
    ],
)
def test_what_is_asked_often_has_an_index(tmp_path, question):
    """A ledger of years is as quick as one of a day."""
    ledger = Database(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    ledger.upgrade()
    with ledger.read() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {question}").first()[3]
    ledger.close()
    assert "USING" in plan and "INDEX" in plan


def test_ledgers_opened_at_once_wait_for_each_other(address):
    """SQLite's first switch to WAL says "locked" without waiting; the node waits all the same."""
    start = threading.Barrier(8)
    failures = []

    def begin() -> None:
        ledger = Database(address)
        start.wait()
        try:
            ledger.upgrade()
        except Transient as error:
            failures.append(error)
        ledger.close()

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.parametrize("address", ["no address", "oracle://host/name", "mysql://u:secret@host/name"])
def test_an_address_that_cannot_be_used_is_refused_without_its_password(address):
    """It goes into a log."""
    with pytest.raises(ConfigError, match=r"node\.database") as caught:
        Database(address)
    assert "secret" not in f"{caught.value} {caught.value.hint}"


def test_a_database_that_does_not_answer_is_tried_again_later(tmp_path):
    """Transient, with the cause and no parameter."""
    (tmp_path / "is a folder").mkdir()
    ledger = Database(f"sqlite:///{tmp_path / 'is a folder'}")
    with pytest.raises(Transient, match="OperationalError: unable to open database file"):
        ledger.upgrade()
    ledger.close()


# ------------------------------------------------------------------------------------------------------------------------


def catalogue(connection, backend):
    """Return every table, column, constraint and index, as the database itself describes them."""
    if backend == "sqlite":
        rows = connection.exec_driver_sql("SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")
        return sorted((kind, name, described(sql)) for kind, name, sql in rows)
    here = "(SELECT oid FROM pg_namespace WHERE nspname = current_schema())"
    questions = (
        "SELECT table_name, column_name, data_type, character_maximum_length, is_nullable, column_default FROM information_schema.columns "
        "WHERE table_schema = current_schema()",
        "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema()",
        f"SELECT conrelid::regclass, conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = {here}",  # noqa: S608
    )
    return [sorted(map(str, connection.execute(text(question)))) for question in questions]


def described(sql):
    """Return what a statement says, in whatever order it says it: a table's columns keep theirs."""
    words = " ".join(sql.replace('"', "").split())  # a table that was made anew by a migration has its name in quotes
    head, _, parts = words.partition("(")
    return head, sorted(part.strip() for part in parts.rstrip(")").split(", "))
