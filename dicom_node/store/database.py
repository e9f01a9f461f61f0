"""The one place where a database is opened: PRAGMAs, isolation, migrations."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from dicom_node.domain import ConfigError, Transient

HEAD = "0001"  # the newest migration; a test holds it to the folder
_ADVISORY_LOCK = 7105731  # PostgreSQL: one process migrates at a time


class Database:
    """SQLite in WAL mode, every commit flushed; or PostgreSQL, READ COMMITTED.

    `write()` opens a transaction that holds the write lock from its first statement (SQLite: BEGIN IMMEDIATE), so that what was read in it
    still holds when it commits; on PostgreSQL the statements that decide lock the rows they read.
    """

    def __init__(self, address: str) -> None:
        url = make_url(address)
        if url.drivername == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self.engine = self._engine(url)

    def _engine(self, url: URL) -> Engine:
        try:
            if not self.is_sqlite:
                return create_engine(url, pool_pre_ping=True, pool_size=8, max_overflow=24)
            engine = create_engine(url, connect_args={"timeout": 30.0, "check_same_thread": False}, pool_size=8, max_overflow=56)
        except ModuleNotFoundError as error:
            raise ConfigError(f"the database driver {error.name} is not installed", hint="pip install 'dicom-node[postgresql]'") from error
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction that writes.

        Raises
        ------
        Transient: the database did not take it; nothing of it is kept.
        """
        try:
            with self.engine.connect().execution_options(writes=True) as connection, connection.begin():
                yield connection
        except SQLAlchemyError as error:
            raise Transient(
                f"the ledger did not take a change: {_cause(error)}", hint="Look at the disk and the database; it is tried again."
            ) from error

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a transaction that only reads.

        Raises
        ------
        Transient: the database does not answer.
        """
        try:
            with self.engine.connect() as connection, connection.begin():
                yield connection
        except SQLAlchemyError as error:
            raise Transient(f"the ledger cannot be read: {_cause(error)}", hint="Look at the disk and the database; it is tried again.") from error

    def upgrade(self) -> None:
        """Bring the tables to this program's version; several processes may call it at once.

        Raises
        ------
        ConfigError: the ledger was written by a newer program.
        Transient: the database does not answer.
        """
        with self.write() as connection:
            if not self.is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
            found = _version(connection)
            if found == HEAD:
                return
            if found is not None and found > HEAD:
                raise ConfigError(f"the ledger is of version {found}, this program knows {HEAD}", hint="Install the newer program again.")
            _migrate(connection)

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions are begun by _begin_sqlite, not guessed by the driver
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def _migrate(connection: Connection) -> None:
    # Alembic takes 0.2 s to import and is needed once in the life of a ledger.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _cause(error: SQLAlchemyError) -> str:
    """Name the cause without the statement's parameters, which may hold a patient's identity."""
    original = getattr(error, "orig", None)
    return f"{type(original or error).__name__}: {str(original or type(error).__name__).splitlines()[0][:200]}"
