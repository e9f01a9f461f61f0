"""Sessions: who is logged in by a browser. They survive a restart; a copy of the ledger lets nobody in."""

import secrets
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update

from dicom_node.domain import Transient
from dicom_node.store.accounts import person, web_session
from dicom_node.store.database import Database
from dicom_node.store.journal import Event, note
from dicom_node.store.people import digest

_SEEN_EVERY_S = 30.0  # a page that is looked at is not a write each time
_MOST = 20  # of one person; the oldest goes


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Somebody who is logged in."""

    name: str
    role: str
    local: bool  # a person of this node's, else one of the identity provider's


class Sessions:
    """The sessions of the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, name: str, *, role: str = "", lasts_s: float, instead_of: str = "", now: float) -> str | None:
        """Log somebody in and return the secret of a new session; None when a person of this node's may no longer.

        role: of one whom the identity provider named; a person of this node's has its own. instead_of: the session that ends.
        """
        secret = secrets.token_urlsafe(32)
        with self._database.write() as connection:
            _sweep(connection, now, instead_of)
            row = None
            if not role:
                may = person.c.name == name, person.c.disabled.is_(False), person.c.role != "service"
                row = connection.execute(select(person.c.id, person.c.role).where(*may).with_for_update()).first()
                if row is None:
                    return None
                connection.execute(update(person).where(person.c.id == row.id).values(seen_at=now))
            values = {"person_id": row.id if row else None, "name": name, "role": row.role if row else role}
            moments = {"created_at": now, "seen_at": now, "expires_at": now + lasts_s}
            connection.execute(insert(web_session).values(digest=digest(secret), **values, **moments))
            _bound(connection, name)
            note(connection, Event(at=now, study_instance_uid="", kind="logged in", who=name, why="by a browser"))
        return secret

    def find(self, secret: str, *, idle_s: float, now: float, by_hand: bool = True) -> Session | None:
        """Return whose session it is, None when it is nobody's, has ended, or its person is disabled.

        by_hand: whether a person asks, which keeps the session going; not a page that looks by itself.
        """
        key = digest(secret)
        columns = web_session.c.name, web_session.c.role, web_session.c.seen_at, web_session.c.person_id, person.c.role.label("role_now")
        wanted = select(*columns, person.c.disabled).outerjoin(person, person.c.id == web_session.c.person_id).where(web_session.c.digest == key)
        with self._database.read() as connection:
            row = connection.execute(wanted.where(web_session.c.expires_at > now, web_session.c.seen_at > now - idle_s)).first()
        if row is None or row.disabled:
            return None
        if by_hand and now - row.seen_at > min(_SEEN_EVERY_S, idle_s / 4):
            with suppress(Transient), self._database.write(relaxed=True) as connection:  # a busy ledger makes it idle for a moment longer, no more
                connection.execute(update(web_session).where(web_session.c.digest == key).values(seen_at=now))
        return Session(name=row.name, role=row.role_now or row.role, local=row.person_id is not None)

    def end(self, secret: str, *, now: float) -> str:
        """Log somebody out and return who it was; "" when it was nobody's session."""
        with self._database.write() as connection:
            name = connection.execute(delete(web_session).where(web_session.c.digest == digest(secret)).returning(web_session.c.name)).scalar()
            if name:
                note(connection, Event(at=now, study_instance_uid="", kind="logged out", who=name, why="by a browser"))
        return name or ""

    def end_all(self, name: str, *, who: str, now: float) -> int:
        """End every session of a name, also of one of the identity provider's; say how many there were."""
        with self._database.write() as connection:
            count = connection.execute(delete(web_session).where(web_session.c.name == name)).rowcount
            if count:
                note(connection, Event(at=now, study_instance_uid="", kind="sessions ended", who=who, why=f"{name}: {count} sessions"))
        return count


def _sweep(connection: Connection, now: float, instead_of: str) -> None:
    connection.execute(delete(web_session).where(web_session.c.expires_at <= now))
    if instead_of:
        connection.execute(delete(web_session).where(web_session.c.digest == digest(instead_of)))


def _bound(connection: Connection, name: str) -> None:
    newest = select(web_session.c.digest).where(web_session.c.name == name).order_by(web_session.c.created_at.desc()).limit(_MOST)
    kept = list(connection.execute(newest).scalars())
    connection.execute(delete(web_session).where(web_session.c.name == name, web_session.c.digest.not_in(kept)))
