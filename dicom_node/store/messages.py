"""Messages: what is to be told whom, and which troubles somebody was told of. What was decided is told, at least once, whatever ends the process."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping, delete, func, select, update

from dicom_node.domain import MESSAGE_TRANSITIONS, Message, MessageState, Trouble
from dicom_node.store.database import Database, insert_unless_there, unless_there
from dicom_node.store.journal import Event, note
from dicom_node.store.lending import lend
from dicom_node.store.reading import begun, pass_on, read_on
from dicom_node.store.watching import message, trouble

_KEPT_S = 30 * 86400.0  # after its end


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What came of one look: what is told, what began, what ended. after, upto: the events of the journal that were looked at."""

    messages: tuple[Message, ...] = ()
    began: tuple[Trouble, ...] = ()
    ended: tuple[str, ...] = ()  # keys of troubles
    after: int = 0
    upto: int = 0


class _Late(Exception):
    """Another process has decided about the same trouble: nothing of this decision is kept."""


class Messages:
    """The messages of the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def news(self, reader: str, *, limit: int = 500) -> tuple[int, tuple[Event, ...]]:
        """Return how far a reader of the journal has come, and the events behind that; a new one begins behind what has happened until now."""
        after = begun(self._database, reader)
        return after, read_on(self._database, after, limit=limit)

    def troubles(self, recipient: str) -> tuple[Trouble, ...]:
        """Return what a recipient was told of that has not ended."""
        wanted = select(trouble).where(trouble.c.recipient == recipient).order_by(trouble.c.key)
        with self._database.read() as connection:
            rows = connection.execute(wanted).mappings()
            return tuple(Trouble(**{key: value for key, value in row.items() if key != "recipient"}) for row in rows)

    def decide(self, recipient: str, reader: str, decided: Decision, *, now: float) -> bool:
        """Record what is to be told, with how far the journal was read, in one commit; False when another process was first, and nothing changed."""
        with suppress(_Late), self._database.write() as connection:
            if decided.upto != decided.after and not pass_on(connection, reader, after=decided.after, upto=decided.upto):
                return False
            for one in decided.began:
                values = {"key": one.key, "about": one.about, "says": one.says, "since": one.since}
                if not insert_unless_there(connection, trouble, recipient=recipient, **values):
                    raise _Late
            for key in decided.ended:
                if not connection.execute(delete(trouble).where(trouble.c.recipient == recipient, trouble.c.key == key)).rowcount:
                    raise _Late
            for told in decided.messages:
                connection.execute(unless_there(connection, message).values(**_row(told)))
            connection.execute(delete(message).where(message.c.ended_at < now - _KEPT_S))
            return True
        return False

    def claim(self, recipient: str, *, now: float, lease_s: float) -> Message | None:
        """Take the message of a recipient that is due, oldest first; exactly one claimant gets each, and another once the lease is over."""
        due = message.c.recipient == recipient, message.c.state == MessageState.PENDING, message.c.not_before <= now
        wanted = select(message.c.id).where(*due).order_by(message.c.id).limit(1)
        found = lend(self._database, message, wanted, until=now + lease_s)
        return None if found is None else _message(found)

    def told(self, one: Message, *, now: float) -> bool:
        """Record that the other side took it; False when that was on record."""
        return self._end(one, MessageState.TOLD, kind="told", why=f"told of: {one.about}", now=now)

    def drop(self, one: Message, *, now: float, reason: str) -> bool:
        """Record that it is not tried any more; False when it had ended."""
        return self._end(one, MessageState.DROPPED, kind="not told", why=reason, now=now, reason=reason)

    def put_off(self, one: Message, *, until: float, reason: str) -> None:
        """Record a failure and when to try again."""
        same = message.c.id == one.id, message.c.state == MessageState.PENDING
        with self._database.write() as connection:
            connection.execute(update(message).where(*same).values(not_before=until, reason=reason, attempts=one.attempts + 1))

    def list(self, *, recipient: str = "", limit: int = 50) -> tuple[Message, ...]:
        """Return messages, newest first."""
        conditions: Iterable[Any] = [message.c.recipient == recipient] if recipient else []
        with self._database.read() as connection:
            rows = connection.execute(select(message).where(*conditions).order_by(message.c.id.desc()).limit(limit)).mappings()
            return tuple(map(_message, rows))

    def counts(self) -> dict[str, dict[str, int]]:
        """Return, for each recipient, how many messages are in each state."""
        grouped = select(message.c.recipient, message.c.state, func.count()).group_by(message.c.recipient, message.c.state)
        found: dict[str, dict[str, int]] = {}
        with self._database.read() as connection:
            for name, state, number in connection.execute(grouped):
                found.setdefault(name, {})[state] = number
        return found

    def _end(self, one: Message, to: MessageState, *, kind: str, why: str, now: float, **values: Any) -> bool:
        """Change the state, by the table, and write who and why."""
        before = [state for state, after in MESSAGE_TRANSITIONS.items() if to in after]
        ends = update(message).where(message.c.id == one.id, message.c.state.in_(before))
        with self._database.write() as connection:
            fresh = {"state": to, "attempts": one.attempts + 1, "ended_at": now, "reason": ""} | values
            if connection.execute(ends.values(**fresh)).rowcount == 0:
                return False
            of, job_id = str(one.facts.get("study_instance_uid") or ""), one.facts.get("job_id")
            detail = {"message": one.key, "about": one.about}
            note(connection, Event(at=now, study_instance_uid=of, job_id=job_id, kind=kind, who=one.recipient, why=why, detail=detail))
            return True


def _row(one: Message) -> dict[str, Any]:
    return {c.name: getattr(one, c.name) for c in message.columns if c.name not in ("id", "facts")} | {"facts": dict(one.facts)}


def _message(row: RowMapping) -> Message:
    return Message(**{**row, "state": MessageState(row["state"])})
