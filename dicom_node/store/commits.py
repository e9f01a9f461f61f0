"""Whether anybody has changed the ledger since: what was read of it before holds until then, and need not be read again."""

import sqlite3
import threading
from typing import cast

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError


class Commits:
    """The commits of a SQLite database, by all processes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._watch: sqlite3.Connection | None = None
        self._watching = threading.Lock()

    def number(self) -> int | None:
        """Return a number that is another one as soon as anybody has committed; None when the database does not say.

        It is read from the memory that SQLite's connections share: it takes microseconds, and waits for nobody.
        """
        try:
            with self._watching:
                if self._watch is None:
                    self._watch = self._connection()
                (number,) = self._watch.execute("PRAGMA data_version").fetchone()
        except (SQLAlchemyError, sqlite3.Error):  # it is told to whoever asks the ledger then
            return None
        return int(number)

    def _connection(self) -> sqlite3.Connection:
        """Return a connection that never writes: its own changes would not be counted."""
        pooled = self._engine.raw_connection()
        pooled.detach()
        connection = cast(sqlite3.Connection, pooled.dbapi_connection)
        connection.execute("PRAGMA busy_timeout=0").close()
        return connection

    def close(self) -> None:
        """Close its connection."""
        with self._watching:
            if self._watch is not None:
                self._watch.close()
                self._watch = None
