"""How far who reads the journal has come: each event is read by each reader once, by whatever process, across restarts.

On PostgreSQL numbers are given before they are committed: a reader waits for who writes at that moment, so that no event of a lower number
comes after it has passed.
"""

from sqlalchemy import Connection, func, select, text, update

from dicom_node.store.database import Database, insert_unless_there
from dicom_node.store.journal import Event
from dicom_node.store.tables import event
from dicom_node.store.watching import reading


def begun(database: Database, name: str) -> int:
    """Return the number of the last event that a reader has passed; one that is new begins behind what has happened until now."""
    wanted = select(reading.c.event_id).where(reading.c.name == name)
    with database.read() as connection:
        found = connection.execute(wanted).scalar()
    if found is not None:
        return int(found)
    with database.write() as connection:
        last = connection.execute(select(func.max(event.c.id))).scalar() or 0
        insert_unless_there(connection, reading, name=name, event_id=last)
        return int(connection.execute(wanted).scalar_one())


def read_on(database: Database, after: int, *, limit: int) -> tuple[Event, ...]:
    """Return the events behind a number, oldest first; none of a lower number comes later."""
    wanted = select(event).where(event.c.id > after).order_by(event.c.id).limit(limit)
    with database.read() as connection:
        found = tuple(Event(**dict(row)) for row in connection.execute(wanted).mappings())
    if database.is_sqlite or not found:
        return found
    with database.write() as connection:
        connection.execute(text("LOCK TABLE event IN SHARE MODE"))
        return tuple(Event(**dict(row)) for row in connection.execute(wanted).mappings())


def pass_on(connection: Connection, name: str, *, after: int, upto: int) -> bool:
    """Record, in the caller's transaction, that a reader has passed events; False when another process of its name was first."""
    same = reading.c.name == name, reading.c.event_id == after
    return bool(connection.execute(update(reading).where(*same).values(event_id=upto)).rowcount)
