"""A row that is due, lent to one of those who ask: whoever does not come back in time loses it to another."""

from typing import Any

from sqlalchemy import RowMapping, Select, Table, select, update

from dicom_node.store.database import Database


def lend(database: Database, table: Table, wanted: Select[Any], *, until: float) -> RowMapping | None:
    """Return the row that is wanted first, which nobody else gets until then; None when there is none.

    table: one with `id` and `not_before`. wanted: selects the `id` of what is due.
    """
    with database.read() as connection:  # who finds nothing takes no lock
        if connection.execute(wanted).first() is None:
            return None
    with database.write() as connection:
        key = connection.execute(wanted.with_for_update(skip_locked=True)).scalar()
        if key is None:
            return None
        connection.execute(update(table).where(table.c.id == key).values(not_before=until))
        return connection.execute(select(table).where(table.c.id == key)).mappings().one()
