"""The one place where a database is opened: PRAGMAs, isolation, migrations."""

import contextlib
import json
import logging
import math
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from sqlalchemy import URL, Connection, Engine, Table, Update, create_engine, event, inspect, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from dicom_node.domain import ConfigError, Transient
from dicom_node.store.commits import Commits

HEAD = "0017"  # the newest migration; a test holds it to the folder
_ADVISORY_LOCK = 7105731  # PostgreSQL: one process migrates at a time
_BUSY_TIMEOUT_S = 30  # of SQLite: how long a transaction waits for another's to end
_RELAXED_BUSY_TIMEOUT_S = 5  # the same, while a sender waits for its answer, and may send again
_RETURNING_SINCE = (3, 35)  # of SQLite: a claim is one statement with RETURNING
_ADDRESS_HINT = "Leave node.database empty for SQLite in the storage folder, or write postgresql://user@host/name."


class Database:
    """SQLite in WAL mode, every commit flushed; or PostgreSQL, READ COMMITTED.

    `write()` opens a transaction that holds the write lock from its first statement (SQLite: BEGIN IMMEDIATE), so that what was read in it
    still holds when it commits; on PostgreSQL the statements that decide lock the rows they read, in the order study, job, result, delivery.

    Raises
    ------
    ConfigError: the address is none, the driver is missing, or SQLite is too old.
    """

    def __init__(self, address: str) -> None:
        url = _url(address)
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self.engine = _sqlite(url) if self.is_sqlite else _postgresql(url)
        self._relaxed = _sqlite(url, relaxed=True) if self.is_sqlite else self.engine
        self._plain: sqlite3.Connection | None = None  # for `add`
        self._adding = threading.Lock()
        self._commits = Commits(self.engine) if self.is_sqlite else None

    @contextmanager
    def write(self, *, relaxed: bool = False) -> Iterator[Connection]:
        """Open a transaction that writes.

        relaxed: on SQLite a power cut may take it until `harden`, or a transaction that is not relaxed, has ended after it; for what can be
        made again from files. PostgreSQL knows no difference.

        Raises
        ------
        Transient: the database did not take it; nothing of it is kept.
        """
        engine = self._relaxed if relaxed else self.engine
        with _taken(), engine.connect().execution_options(writes=True) as connection, connection.begin():
            yield connection

    def add(self, addition: "Addition", rows: Sequence[Mapping[str, Any]], totals: Sequence[Mapping[str, Any]]) -> bool:
        """Insert rows and what they change elsewhere in one relaxed transaction, if all of them fit; else change nothing, and say so.

        totals: the parameters of the addition's update, one for each row that it is to change.
        On SQLite it goes past SQLAlchemy, and in one statement: each received image pays for it.

        Raises
        ------
        Transient: the database did not take it; nothing of it is kept.
        """
        with _taken():
            if not self.is_sqlite:
                return self._add_by_core(addition, rows, totals)
            try:
                with self._adding:
                    self._plain_connection(addition).execute(addition.sqlite_insert(rows), addition.sqlite_values(rows)).close()
            except sqlite3.IntegrityError:
                return False
            return True

    def _plain_connection(self, addition: "Addition") -> sqlite3.Connection:
        if self._plain is None:
            pooled = self._relaxed.raw_connection()
            pooled.detach()
            self._plain = cast(sqlite3.Connection, pooled.dbapi_connection)
            self._plain.execute(addition.trigger).close()
        return self._plain

    def _add_by_core(self, addition: "Addition", rows: Sequence[Mapping[str, Any]], totals: Sequence[Mapping[str, Any]]) -> bool:
        with self.engine.connect().execution_options(writes=True) as connection, connection.begin() as transaction:
            for statement, values in ((addition.update, totals), (unless_there(connection, addition.table), rows)):
                changed = connection.execute(statement, list(values), execution_options={"preserve_rowcount": True}).rowcount
                if changed != len(values):
                    transaction.rollback()
                    return False
        return True

    def harden(self) -> None:
        """Make durable what relaxed transactions committed until now.

        The write-ahead log is flushed as a file: SQLite's own checkpoint may find nothing to do while a reader looks at an older state. What
        the log no longer holds is in the database file, flushed before the log began anew. No lock of SQLite's is on this file.

        Raises
        ------
        Transient: the disk did not flush.
        """
        log = f"{self.engine.url.database}-wal"
        if not self.is_sqlite or not os.path.exists(log):
            return
        try:
            with open(log, "rb", buffering=0) as file:
                os.fsync(file.fileno())
        except OSError as error:
            raise Transient(f"the ledger was not flushed: {error.strerror}", hint="Look at the disk.") from error

    def checkpoint(self) -> None:
        """Bring SQLite's write-ahead log back to a small size; relaxed transactions leave that to whoever has time.

        Raises
        ------
        Transient: the database did not take it.
        """
        if self.is_sqlite:
            with _taken(), contextlib.closing(self.engine.raw_connection()) as connection:
                connection.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

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

    def commits(self) -> int | None:
        """Return a number that is another one as soon as anybody has committed, in whichever process; None when the database does not say.

        PostgreSQL does not. What is read after it was asked for holds for as long as it stays the same.
        """
        return self._commits.number() if self._commits else None

    def version(self) -> str | None:
        """Return the ledger's version, None when it has no tables yet.

        Raises
        ------
        Transient: the database does not answer.
        """
        with self.read() as connection:
            return _version(connection)

    def upgrade(self) -> None:
        """Bring the tables to this program's version, in one transaction; several processes may call it at once.

        Raises
        ------
        ConfigError: the ledger was written by a newer program.
        Transient: the database does not answer.
        """
        with self.read() as connection:
            if _version(connection) == HEAD:
                return
        with self._migrating() as connection:
            if not self.is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
            found = _version(connection)  # again: another process may have been first
            if found is not None and found > HEAD:
                raise ConfigError(f"the ledger is of version {found}, this program knows {HEAD}", hint="Install the newer program again.")
            if found != HEAD:
                _migrate(connection)

    @contextmanager
    def _migrating(self) -> Iterator[Connection]:
        """Open a transaction that writes, on a connection of its own: SQLite rebuilds tables, which must not cascade into their children."""
        try:
            with self.engine.connect().execution_options(writes=True, migrates=True) as connection:
                connection.detach()  # closed afterwards, so that no later transaction finds its foreign keys unguarded
                with connection.begin():
                    yield connection
                    if self.is_sqlite and connection.exec_driver_sql("PRAGMA foreign_key_check").first():
                        raise ConfigError("a migration would leave rows without their parents; the ledger is as it was", hint="Report this.")
        except SQLAlchemyError as error:
            raise Transient(f"the ledger could not be brought up to date: {_cause(error)}", hint="Look at the disk and the database.") from error

    def close(self) -> None:
        """Close every connection."""
        with self._adding:
            if self._plain is not None:
                self._plain.close()
                self._plain = None
        if self._commits:
            self._commits.close()
        self._relaxed.dispose()
        self.engine.dispose()


@dataclass(frozen=True, kw_only=True)
class Addition:
    """Rows of a table that change others as they come.

    trigger: what SQLite does after each, of the one connection that adds; it raises IntegrityError when the row does not fit.
    update: the same for PostgreSQL, by totals.
    """

    table: Table
    trigger: str
    update: Update

    def sqlite_insert(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """Return the statement for so many rows."""
        return _insert_of(self.table.name, tuple(rows[0]), len(rows))

    @staticmethod
    def sqlite_values(rows: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Return its parameters as the driver takes them."""
        return [value.text if type(value) is Spelled else value for row in rows for value in row.values()]


class Spelled(dict[str, Any]):
    """A JSON object that was spelled out when it was known, before anybody waited for it."""

    __slots__ = ("text",)

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.text = _to_json(self)


@lru_cache(256)
def _insert_of(table: str, columns: tuple[str, ...], rows: int) -> str:
    row = f"({', '.join('?' * len(columns))})"
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * rows)}"  # noqa: S608 — the names are those of `tables.py`


@contextmanager
def _taken() -> Iterator[None]:
    """Say of what the database did not take that it is tried again."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise Transient(f"the ledger did not take a change: {_cause(error)}", hint="Look at the disk and the database; it is tried again.") from error


def insert_unless_there(connection: Connection, table: Table, **values: Any) -> bool:
    """Insert a row unless its key is taken, even by another process at this moment; say whether it was inserted."""
    key = next(iter(table.primary_key.columns))
    return connection.execute(unless_there(connection, table).values(**values).returning(key)).first() is not None


def unless_there(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """Return the statement that inserts rows whose keys are not taken, and passes over the others."""
    build = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    return build(table).on_conflict_do_nothing()


# ------------------------------------------------------------------------------------------------------------- opening


def _url(address: str) -> URL:
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):  # not its message: the address may hold a password
        raise ConfigError("node.database is not a database address", hint=_ADDRESS_HINT) from None
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise ConfigError(f"node.database is of kind '{url.get_backend_name()}', which this program does not use", hint=_ADDRESS_HINT)
    return url


def _sqlite(url: URL, *, relaxed: bool = False) -> Engine:
    if sqlite3.sqlite_version_info < _RETURNING_SINCE:
        raise ConfigError(f"Python's SQLite is {sqlite3.sqlite_version}, needed is 3.35", hint="Use a newer Python, or PostgreSQL.")
    engine = create_engine(
        url, connect_args={"timeout": _BUSY_TIMEOUT_S, "check_same_thread": False}, pool_size=8, max_overflow=56, json_serializer=_to_json
    )
    event.listen(engine, "connect", _prepare_relaxed if relaxed else _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions are begun by _begin_sqlite, not guessed by the driver
    connection.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_S * 1000}").close()
    _write_ahead(connection)
    for pragma in ("synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _prepare_relaxed(connection: Any, record: Any) -> None:
    _prepare_sqlite(connection, record)
    # Nobody who waits for a receipt pays for a checkpoint, or waits for long.
    for pragma in ("synchronous=NORMAL", "wal_autocheckpoint=0", f"busy_timeout={_RELAXED_BUSY_TIMEOUT_S * 1000}"):
        connection.execute(f"PRAGMA {pragma}").close()


def _write_ahead(connection: Any) -> None:
    """Switch to WAL; while another process does the same for the first time, SQLite says that it is locked without waiting."""
    until = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
            return
        except sqlite3.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)


def _begin_sqlite(connection: Connection) -> None:
    options = connection.get_execution_options()
    if options.get("migrates"):
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")  # cannot be changed once the transaction has begun
    connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("writes") else "BEGIN")


def _postgresql(url: URL) -> Engine:
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    if "connect_timeout" not in url.query:
        url = url.update_query_dict({"connect_timeout": "10"})  # seconds
    try:
        engine = create_engine(url, isolation_level="READ COMMITTED", pool_pre_ping=True, pool_size=8, max_overflow=24, json_serializer=_to_json)
    except ModuleNotFoundError as error:
        raise ConfigError(f"the database driver {error.name} is not installed", hint="pip install 'dicom-node[postgresql]'") from error
    event.listen(engine, "connect", _prepare_postgresql)
    return engine


def _prepare_postgresql(connection: Any, _record: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SHOW synchronous_commit")
        if cursor.fetchone()[0] == "off":  # the server's default would let it acknowledge what a power cut may take
            cursor.execute("SET SESSION synchronous_commit TO on")
    connection.commit()


def _to_json(value: Any) -> str:
    """Write JSON that both databases take: a number that is none (NaN, infinity) becomes null."""
    try:
        return _encode(value)
    except ValueError:
        return _encode(_finite(value))


_encode = json.JSONEncoder(allow_nan=False).encode


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ----------------------------------------------------------------------------------------------------------- migrating


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def _migrate(connection: Connection, upto: str = "head") -> None:
    logging.getLogger("alembic").setLevel(logging.WARNING)  # its steps are no events of a study's walk; it begins to tell when it is imported
    # Alembic takes 0.2 s to import and is needed once in the life of a ledger.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, upto)


def _cause(error: Exception) -> str:
    """Name the cause without the statement's parameters, which may hold a patient's identity."""
    original = getattr(error, "orig", None)
    return f"{type(original or error).__name__}: {str(original or type(error).__name__).splitlines()[0][:200]}"
