"""What this node asks of another Task Manager over HTTP (UPS-RS, PS3.18 chapter 11), and the channel by which it is told (8.10.4).

The bearer token goes to nobody but the host that the site names.
"""

import contextlib
import json
import threading
from collections.abc import Callable, Iterable, Mapping
from email.message import Message
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import structlog
from pydicom import Dataset
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from dicom_node.config import Remote
from dicom_node.domain import GLOBAL_SUBSCRIPTION, JobState, PeerUnavailable, Readiness, Rejected, ReportKind, fault, is_uid
from dicom_node.guard.web import WebLine
from dicom_node.worklist.ups.asking import ANSWERS_MAX, RETURNED, Answer, Verdict, readable
from dicom_node.worklist.ups.suiting import Coded

Hear = Callable[[str, ReportKind, Mapping[str, Any]], None]

_JSON = "application/dicom+json"
_BYTES_MAX = 16 << 20  # of an answer
_MESSAGE_BYTES = 1 << 20  # of an event
_PAGE = 200
_GONE = frozenset({404, 410})
_INCLUDED = (*RETURNED, "ProcedureStepState", "InputReadinessState", "ScheduledWorkitemCodeSequence", "ScheduledStationNameCodeSequence")

_log = structlog.get_logger()


class WebManager:
    """One that is asked over HTTP."""

    def __init__(self, name: str, remote: Remote, ae_title: str, hear: Hear, lost: Callable[[], None]) -> None:
        """Know where it is; hear: is given each event; lost: is called when no more come."""
        self._name = name
        self._remote = remote
        self._ae_title = ae_title
        self._hear = hear
        self._lost = lost
        self._line = WebLine(name, remote)
        self._channel: _Channel | None = None

    @property
    def listens(self) -> bool:
        """Whether the websocket is open."""
        return self._channel is not None and self._channel.is_open

    def search(self, codes: Iterable[Coded]) -> tuple[Dataset, ...]:
        """Ask once for each code, page by page."""
        found: dict[str, Dataset] = {}
        for value, scheme in codes:
            asked = {
                "ProcedureStepState": JobState.SCHEDULED.value,
                "InputReadinessState": Readiness.READY.value,
                "ScheduledWorkitemCodeSequence.CodeValue": value,
                "ScheduledWorkitemCodeSequence.CodingSchemeDesignator": scheme,
            }
            for one in self._pages(asked):
                found.setdefault(str(one.get("SOPInstanceUID") or ""), one)
        return tuple(one for uid, one in found.items() if is_uid(uid))

    def get(self, uid: str) -> Dataset | None:
        """Retrieve the step."""
        status, _, body = self._ask("GET", f"/workitems/{uid}")
        if status in _GONE:
            return None
        self._demand(status, "a step")
        said = self._read(body)
        return said[0] if said else None

    def update(self, uid: str, transaction_uid: str, said: Dataset) -> Answer:
        """Post what changes."""
        return self._answer(*self._ask("POST", f"/workitems/{uid}?{transaction_uid}", said))

    def change_state(self, uid: str, transaction_uid: str, to: JobState) -> Answer:
        """Put the state."""
        said = Dataset()
        said.ProcedureStepState, said.TransactionUID = to.value, transaction_uid
        return self._answer(*self._ask("PUT", f"/workitems/{uid}/state", said))

    def subscribe(self) -> None:
        """Ask for all events, and open the channel that the answer names."""
        where = f"/workitems/{GLOBAL_SUBSCRIPTION}/subscribers/{quote(self._ae_title)}"
        status, headers, _ = self._ask("POST", f"{where}?deletionlock=false")
        if status == 409:  # this AE title was subscribed before, by DIMSE
            self._ask("DELETE", where)
            status, headers, _ = self._ask("POST", f"{where}?deletionlock=false")
        if status not in (200, 201):
            raise Rejected(f"{self._name} answered a subscription with {status}", hint='Have it allowed there, or set tasks = "pull".')
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()
        self._channel = self._opened(headers.get("Content-Location", ""))

    def close(self) -> None:
        """End the connection; the websocket stays."""
        self._line.close()

    def cut(self) -> None:
        """End both."""
        self._line.cut()
        if self._channel is not None:
            self._channel.close()

    # ------------------------------------------------------------------------------------------------------------- requests

    def _pages(self, asked: Mapping[str, str]) -> list[Dataset]:
        found: list[Dataset] = []
        while len(found) < ANSWERS_MAX:
            said = {**asked, "includefield": ",".join(_INCLUDED), "limit": _PAGE, "offset": len(found)}
            status, _, body = self._ask("GET", f"/workitems?{urlencode(said)}")
            if status == 204:
                break
            self._demand(status, "its worklist")
            page = self._read(body)
            found += page
            if len(page) < _PAGE:
                break
        return found[:ANSWERS_MAX]

    def _ask(self, method: str, path: str, said: Dataset | None = None) -> tuple[int, Message, bytes]:
        """Ask, and return status, headers and body.

        Raises
        ------
        PeerUnavailable: no answer comes, or it says that it cannot now.
        """
        body = json.dumps([said.to_json_dict()]).encode() if said is not None else None
        return self._line.ask(method, path, accept=_JSON, most_bytes=_BYTES_MAX, body=body, kind=_JSON if body else "")

    def _demand(self, status: int, what: str) -> None:
        if status not in (200, 206):
            raise PeerUnavailable(f"{self._name} answered {status} when it was asked for {what}", hint="Look at its own log.")

    def _read(self, body: bytes) -> list[Dataset]:
        """Return the data sets of an answer, of one or of a list (PS3.18 F.2).

        Raises
        ------
        PeerUnavailable: it is none.
        """
        try:
            said = json.loads(body or b"[]")
            read = [Dataset.from_json(one, bulk_data_uri_handler=_no_bulk) for one in (said if isinstance(said, list) else [said])]
        except Exception as error:  # whatever pydicom raises on what anybody may send: it is no data set
            raise PeerUnavailable(f"{self._name} answered with what cannot be read", hint="Its maker has to look.") from error
        return [readable(one, self._name) for one in read]

    @staticmethod
    def _answer(status: int, headers: Message, body: bytes) -> Answer:
        """Return what an answer comes to; which of the refusals it is, is told by a warning (PS3.18 11.6.3.2, 11.7.3.2)."""
        warning = (str(headers.get("Warning") or "") + body[:1000].decode(errors="replace")).lower()
        verdict = Verdict.REFUSED
        if status in range(200, 300) or "already in the requested state" in warning:
            verdict = Verdict.DONE
        elif status in _GONE:
            verdict = Verdict.GONE
        elif status in (400, 403, 409) and "transaction uid" in warning:
            verdict = Verdict.NOT_OURS
        return Answer(verdict=verdict, said=str(status))

    # ----------------------------------------------------------------------------------------------------------- the channel

    def _opened(self, where: str) -> "_Channel":
        """Open the channel of events.

        Raises
        ------
        Rejected: the answer names none, or one that is less safe than the manager itself.
        PeerUnavailable: it cannot be opened.
        """
        there = urlsplit(where)
        if there.scheme not in ("ws", "wss") or not there.hostname:
            raise Rejected(f"{self._name} names no websocket for its events", hint='Look at its own log, or set tasks = "pull".')
        if self._line.address.scheme == "https" and there.scheme == "ws":
            raise Rejected(f"{self._name} is asked over https, and names a websocket without TLS", hint="Correct the address that it gives.")
        token = self._line.token() if there.hostname == self._line.address.hostname else {}
        opening = connect(
            where,
            ssl=self._line.tls() if there.scheme == "wss" else None,
            additional_headers=token,
            user_agent_header="dicom-node",
            open_timeout=self._remote.timeout_s,
            close_timeout=1.0,
            max_size=_MESSAGE_BYTES,
            proxy=None,
            legacy=False,
        )
        held = contextlib.ExitStack()
        try:
            line = held.enter_context(opening)
        except (OSError, WebSocketException, ValueError) as error:
            raise PeerUnavailable(f"{self._name} does not open its websocket: {type(error).__name__}", hint="Look at its own log.") from error
        return _Channel(self._name, held, line, self._hear, self._lost)


class _Channel:
    """An open websocket, and the thread that reads it."""

    def __init__(self, name: str, held: contextlib.ExitStack, line: ClientConnection, hear: Hear, lost: Callable[[], None]) -> None:
        self._name = name
        self._held = held  # what closes it
        self._line = line
        self._hear = hear
        self._lost = lost
        self._is_open = True
        self._thread = threading.Thread(target=self._run, name=f"events of {name}", daemon=True)
        self._thread.start()

    @property
    def is_open(self) -> bool:
        return self._is_open

    def close(self) -> None:
        self._is_open = False
        with contextlib.suppress(OSError, WebSocketException):
            self._line.close()  # so that the thread reads no more
        self._thread.join()

    def _run(self) -> None:
        try:
            for message in self._line:
                self._take(message)
        except Exception as error:  # the outermost frame of this thread: what it misses a search finds
            _log.warning("tasks.channel_lost", of=self._name, why=fault(error))
        with contextlib.suppress(OSError, WebSocketException):
            self._held.close()
        if self._is_open:
            self._is_open = False
            self._lost()

    def _take(self, message: str | bytes) -> None:
        event = event_of(message)
        if event is not None:
            self._hear(*event)
        else:
            _log.warning("tasks.event_unreadable", of=self._name)


def event_of(message: str | bytes) -> tuple[str, ReportKind, dict[str, Any]] | None:
    """Return of an event: the step, its kind, and what it says (PS3.18 11.13); None where it cannot be read."""
    try:
        said = json.loads(message)
        said = said[0] if isinstance(said, list) else said
        uid, kind = str(_first(said, "00001000")), ReportKind(int(str(_first(said, "00001002"))))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
    if not is_uid(uid):
        return None
    texts = {name: _first(said, tag) for name, tag in _TOLD.items()}
    return uid, kind, {name: text[:1024] for name, text in texts.items() if isinstance(text, str)}


_TOLD: Mapping[str, str] = {"state": "00741000", "readiness": "00404041", "reason": "00741238", "status": "00741242"}


def _first(said: Any, tag: str) -> Any:
    values = said.get(tag, {}).get("Value") if isinstance(said.get(tag, {}), dict) else None
    return values[0] if isinstance(values, list) and values else None


def _no_bulk(*_: object) -> None:
    """What is said by reference is not fetched."""
