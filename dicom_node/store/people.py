"""People and programs that may use the node by HTTP: rows without a secret, only what a secret can be compared with."""

import hashlib
import secrets
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from dicom_node.domain import PERSON_ROLES, SCOPES, Account, Bearer, Rejected, Transient, is_person_name
from dicom_node.store.accounts import access_token, person, web_session
from dicom_node.store.database import Database, insert_unless_there
from dicom_node.store.journal import Event, note

TOKEN_PREFIX = "dn1_"  # noqa: S105 — so that a token that was lost in a file is recognised for what it is
_SEEN_EVERY_S = 60.0
_ANYBODY = select(person.c.id).where(person.c.role != "service").limit(1)
_LIST_HINT = "dicom-node people lists them."


class People:
    """The people of the ledger. Every change ends what it makes untrue: sessions, tokens."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._any: tuple[int | None, bool] = None, True  # what `any` found, and as of which of `Database.commits`

    def add(self, name: str, role: str, *, password: str = "", who: str, now: float) -> None:
        """Add a person, or a service. password: its hash; a person without one cannot log in.

        Raises
        ------
        Rejected: the name is taken or is none, or there is no such role.
        """
        if not is_person_name(name):
            raise Rejected("a name has 1 to 64 of a-z, 0-9, '.', '_' and '-', begins with a letter or digit, and is not 'local'", hint=_LIST_HINT)
        _known(role)
        values = {"role": role, "password": password, "disabled": False, "created_at": now}
        with self._database.write() as connection:
            if connection.execute(select(person.c.id).where(person.c.name == name)).first():
                raise Rejected(f"{name} is there already", hint=_LIST_HINT)
            if not insert_unless_there(connection, person, name=name, **values):
                raise Rejected(f"{name} is there already", hint=_LIST_HINT)
            _note(connection, "person added", name, who, f"as {role}", now)

    def set_role(self, name: str, role: str, *, who: str, now: float) -> None:
        """Give a person another role; sessions go on with it. A service stays one, and a person does not become one.

        Raises
        ------
        Rejected: there is no such person or role, or it is of the other kind.
        """
        _known(role)
        with self._database.write() as connection:
            one = _of(connection, name)
            if (one["role"] == "service") != (role == "service"):
                raise Rejected(f"{name} is {one['role']} and does not become {role}", hint="Add another name for it.")
            connection.execute(update(person).where(person.c.id == one["id"]).values(role=role))
            _note(connection, "role changed", name, who, f"{one['role']} to {role}", now)

    def set_disabled(self, name: str, disabled: bool, *, who: str, now: float) -> None:
        """Let a person in no more, or again. Its sessions end.

        Raises
        ------
        Rejected: there is no such person.
        """
        with self._database.write() as connection:
            one = _of(connection, name)
            connection.execute(update(person).where(person.c.id == one["id"]).values(disabled=disabled))
            connection.execute(delete(web_session).where(web_session.c.person_id == one["id"]))
            _note(connection, "person disabled" if disabled else "person enabled", name, who, "sessions ended", now)

    def set_password(self, name: str, password: str, *, who: str, now: float) -> None:
        """Set a person's password, of which only the hash comes here. Its sessions end.

        Raises
        ------
        Rejected: there is no such person, or it is a service.
        """
        with self._database.write() as connection:
            one = _of(connection, name)
            if one["role"] == "service":
                raise Rejected(f"{name} is a service, which has no password", hint=f"dicom-node people token {name} makes it a token.")
            connection.execute(update(person).where(person.c.id == one["id"]).values(password=password))
            connection.execute(delete(web_session).where(web_session.c.person_id == one["id"]))
            _note(connection, "password changed", name, who, "sessions ended", now)

    def rehash(self, name: str, old: str, new: str) -> None:
        """Keep a better hash of the same password; nothing when it was changed in between."""
        with self._database.write() as connection:
            connection.execute(update(person).where(person.c.name == name, person.c.password == old).values(password=new))

    def password(self, name: str) -> str:
        """Return the hash of a person who may log in; "" for everybody else."""
        may = person.c.name == name, person.c.disabled.is_(False), person.c.role != "service"
        with self._database.read() as connection:
            return connection.execute(select(person.c.password).where(*may)).scalar() or ""

    def any(self) -> bool:
        """Say whether a person is known, even one that is disabled; services do not count."""
        known = self.remembered()
        if known is None:
            commits = self._database.commits()
            with self._database.read() as connection:
                known = connection.execute(_ANYBODY).first() is not None
            self._any = commits, known
        return known

    def remembered(self) -> bool | None:
        """Return what `any` found, if nobody has committed since; else None. It is quick enough for an event loop."""
        commits, known = self._any
        return known if commits is not None and commits == self._database.commits() else None

    def list(self, *, now: float) -> tuple[Account, ...]:
        """Return everybody, by name."""
        valid = (access_token.c.person_id == person.c.id) & (access_token.c.expires_at > now)
        tokens = select(func.count()).select_from(access_token).where(valid).correlate(person).scalar_subquery()
        columns = person.c.name, person.c.role, person.c.disabled, person.c.password, person.c.created_at, person.c.seen_at
        with self._database.read() as connection:
            rows = connection.execute(select(*columns, tokens.label("tokens")).order_by(person.c.name)).mappings()
            return tuple(
                Account(
                    name=row["name"],
                    role=row["role"],
                    disabled=row["disabled"],
                    has_password=bool(row["password"]),
                    tokens=row["tokens"],
                    created_at=row["created_at"],
                    seen_at=row["seen_at"],
                )
                for row in rows
            )

    # -------------------------------------------------------------------------------------------------------- tokens

    def token(self, name: str, scopes: Collection[str], *, expires_at: float, who: str, now: float) -> str:
        """Make a service a token and return it: this is the only time that anybody sees it.

        Raises
        ------
        Rejected: there is no such service, it is disabled, or there is no such scope.
        """
        if not scopes or not set(scopes) <= set(SCOPES):
            raise Rejected(f"a token has one or more of the scopes {', '.join(SCOPES)}", hint="Give --scope for each.")
        made = TOKEN_PREFIX + secrets.token_urlsafe(32)
        with self._database.write() as connection:
            one = _of(connection, name)
            if one["role"] != "service" or one["disabled"]:
                raise Rejected(f"{name} is no service that may have a token", hint="dicom-node people add NAME --role service")
            connection.execute(delete(access_token).where(access_token.c.person_id == one["id"], access_token.c.expires_at <= now))
            values = {"digest": digest(made), "person_id": one["id"], "scopes": sorted(set(scopes)), "created_at": now, "expires_at": expires_at}
            connection.execute(insert(access_token).values(**values))
            _note(connection, "token made", name, who, ", ".join(sorted(set(scopes))), now)
        return made

    def revoke(self, name: str, *, who: str, now: float) -> int:
        """Make every token of a service worthless, and say how many there were.

        Raises
        ------
        Rejected: there is no such service.
        """
        with self._database.write() as connection:
            one = _of(connection, name)
            count = connection.execute(delete(access_token).where(access_token.c.person_id == one["id"])).rowcount
            _note(connection, "tokens revoked", name, who, f"{count} tokens", now)
        return count

    def bearer(self, token: str, *, now: float) -> Bearer | None:
        """Return who shows a token, None when it is worthless."""
        shown = access_token.c.digest == digest(token), access_token.c.expires_at > now, person.c.disabled.is_(False)
        columns = person.c.id, person.c.name, person.c.role, person.c.seen_at, access_token.c.scopes
        with self._database.read() as connection:
            row = connection.execute(select(*columns).join(access_token, access_token.c.person_id == person.c.id).where(*shown)).mappings().first()
        if row is None:
            return None
        if now - (row["seen_at"] or 0.0) > _SEEN_EVERY_S:
            with suppress(Transient), self._database.write(relaxed=True) as connection:  # a busy ledger makes a listing old, no more
                connection.execute(update(person).where(person.c.id == row["id"]).values(seen_at=now))
        return Bearer(name=row["name"], role=row["role"], scopes=frozenset(row["scopes"]))


def digest(secret: str) -> str:
    """Return what the ledger keeps of a secret that is too long to be guessed."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def _known(role: str) -> None:
    if role not in PERSON_ROLES:
        raise Rejected(f"there is no such role: {', '.join(PERSON_ROLES)}", hint="Give one of them with --role.")


def _of(connection: Connection, name: str) -> Any:
    row = connection.execute(select(person).where(person.c.name == name).with_for_update()).mappings().first()
    if row is None:
        raise Rejected("nobody has that name", hint=_LIST_HINT)
    return row


def _note(connection: Connection, kind: str, name: str, who: str, why: str, now: float) -> None:
    note(connection, Event(at=now, study_instance_uid="", kind=kind, who=who, why=f"{name}: {why}", detail={"person": name}))
