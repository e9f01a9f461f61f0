"""A Task Manager beside the node, written from PS3.4 Annex CC and PS3.18 chapter 11 and not from the node's code: over DIMSE, and over HTTP."""

import contextlib
import json
import queue
import ssl
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pydicom import Dataset
from pynetdicom import AE as ApplicationEntity
from pynetdicom import build_role, evt
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from dicom_node.domain import AE

PUSH, WATCH, PULL, EVENT, QUERY = (f"1.2.840.10008.5.1.4.34.6.{last}" for last in range(1, 6))
GLOBAL = "1.2.840.10008.5.1.4.34.5"
STATE, CANCEL, PROGRESS, SCP_STATUS = 1, 2, 3, 4


def code(value: str, scheme: str = "99DICOMNODE", meaning: str = "as agreed") -> Dataset:
    """Return a coded term."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def step(study: str, series: str, instances: list[tuple[str, str]], *, source: str = "ARCHIVE", destination: str = "", **more: Any) -> Dataset:
    """Return a step as a requester makes one (PS3.4 Table CC.2.5-3): inputs by class and UID, from where they are had, where results go."""
    said = Dataset()
    said.SpecificCharacterSet = "ISO_IR 100"
    said.SOPClassUID, said.SOPInstanceUID = PUSH, f"2.25.{uuid.uuid4().int}"
    said.ProcedureStepState, said.InputReadinessState, said.ScheduledProcedureStepPriority = "SCHEDULED", "READY", "MEDIUM"
    said.ProcedureStepLabel, said.WorklistLabel = "MARKED label", "AI"
    said.ScheduledProcedureStepStartDateTime = datetime.now(UTC).strftime("%Y%m%d%H%M%S+0000")
    said.ScheduledWorkitemCodeSequence = [code("lung-ct")]
    said.ScheduledStationNameCodeSequence = []
    said.PatientName, said.PatientID, said.StudyInstanceUID = "MARKED^J\xfcrgen", "MARKED", study
    item, way = Dataset(), Dataset()
    item.TypeOfInstances, item.StudyInstanceUID, item.SeriesInstanceUID = "DICOM", study, series
    item.ReferencedSOPSequence = []
    for sop_class, uid in instances:
        one = Dataset()
        one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID = sop_class, uid
        item.ReferencedSOPSequence.append(one)
    way.RetrieveAETitle = source
    item.DICOMRetrievalSequence = [way]
    said.InputInformationSequence = [item]
    if destination:
        to, there = Dataset(), Dataset()
        there.DestinationAE = destination
        to.DICOMStorageSequence = [there]
        said.OutputDestinationSequence = [to]
    for keyword, value in more.items():
        setattr(said, keyword, value)
    return said


@dataclass
class Board:
    """Its steps, who claimed them, and what it was asked; `after` is called when something was done, before that is answered."""

    steps: dict[str, Dataset] = field(default_factory=dict)
    locks: dict[str, str] = field(default_factory=dict)  # Transaction UIDs
    asked: list[tuple[str, str, str, int]] = field(default_factory=list)  # what, step, Transaction UID, status
    watching: set[str] = field(default_factory=set)
    after: Callable[[str, str], None] = lambda what, uid: None
    tellers: list[Callable[[str, int, Dataset], None]] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def add(self, said: Dataset, *, quiet: bool = False) -> str:
        """Have a step on the list; quiet: nobody is told."""
        uid = str(said.SOPInstanceUID)
        with self.lock:
            self.steps[uid] = said
        if not quiet:
            self.report(uid)
        return uid

    def state(self, uid: str) -> str:
        with self.lock:
            return str(self.steps[uid].ProcedureStepState)

    def count(self, what: str, uid: str = "", status: int = 0) -> int:
        """Return how often something was asked and answered so."""
        with self.lock:
            return sum(1 for one in self.asked if one[0] == what and (not uid or one[1] == uid) and one[3] == status)

    def seize(self, uid: str, state: str = "IN PROGRESS") -> None:
        """Let somebody else have claimed a step, or have it ended by force."""
        with self.lock:
            self.locks[uid] = "1.2.3.4"
            self.steps[uid].ProcedureStepState = state
        self.report(uid)

    def report(self, uid: str) -> None:
        said = Dataset()
        with self.lock:
            said.ProcedureStepState, said.InputReadinessState = self.steps[uid].ProcedureStepState, self.steps[uid].InputReadinessState
        self.tell(uid, STATE, said)

    def ask_to_cancel(self, uid: str, reason: str) -> None:
        """Let a requester ask for a step in progress to be canceled: its performer is told (CC.2.2)."""
        said = Dataset()
        said.RequestingAE, said.ReasonForCancellation = "RIS", reason
        self.tell(uid, CANCEL, said)

    def tell(self, uid: str, kind: int, said: Dataset) -> None:
        for one in list(self.tellers):
            one(uid, kind, said)

    # --------------------------------------------------------------------------------------------- what it does when it is asked

    def find(self, keys: dict[str, str]) -> list[Dataset]:
        """Return what matches: state, readiness, code (single values, as a small manager compares them)."""
        with self.lock:
            return [deepcopy(one) for one in self.steps.values() if all(_is(one, keyword, value) for keyword, value in keys.items() if value)]

    def get(self, uid: str) -> Dataset | None:
        with self.lock:
            return deepcopy(self.steps.get(uid))

    def set(self, uid: str, transaction: str, said: Dataset) -> int:
        with self.lock:
            status = self._set(uid, transaction, said)
            self.asked.append(("set", uid, transaction, status))
        if status == 0:
            self.after("set", uid)
        return status

    def _set(self, uid: str, transaction: str, said: Dataset) -> int:
        held = self.steps.get(uid)
        if held is None:
            return 0xC307
        if held.ProcedureStepState in ("COMPLETED", "CANCELED"):
            return 0xC300
        if held.ProcedureStepState == "SCHEDULED":
            return 0xC310 if transaction else 0x0000
        if transaction != self.locks.get(uid):
            return 0xC301
        if "ProcedureStepState" in said:
            return 0x0106
        held.update({element.tag: element for element in said if element.keyword != "TransactionUID"})
        return 0x0000

    def change(self, uid: str, transaction: str, to: str) -> int:
        with self.lock:
            status = self._change(uid, transaction, to)
            self.asked.append((to, uid, transaction, status))
        if status == 0:
            self.report(uid)
            self.after(to, uid)
        return status

    def _change(self, uid: str, transaction: str, to: str) -> int:
        held = self.steps.get(uid)
        if held is None:
            return 0xC307
        state, key = str(held.ProcedureStepState), self.locks.get(uid, "")
        if not transaction or (state != "SCHEDULED" and transaction != key):
            return 0xC303 if to == "SCHEDULED" else 0xC301
        status = _CELLS[to][state]
        if status == 0 and to != "IN PROGRESS" and not (_may_complete(held) if to == "COMPLETED" else _may_cancel(held)):
            return 0xC304
        if status == 0:
            self.locks[uid], held.ProcedureStepState = transaction, to
        return status

    def subscribe(self, uid: str, receiver: str) -> int:
        with self.lock:
            self.asked.append(("subscribe", uid, receiver, 0))
            self.watching.add(receiver)
        return 0x0000


# With the right Transaction UID (Table CC.1.1-2): what is asked for -> the state -> the status.
_CELLS = {
    "SCHEDULED": dict.fromkeys(("SCHEDULED", "IN PROGRESS", "COMPLETED", "CANCELED"), 0xC303),
    "IN PROGRESS": {"SCHEDULED": 0x0000, "IN PROGRESS": 0xC302, "COMPLETED": 0xC300, "CANCELED": 0xC300},
    "COMPLETED": {"SCHEDULED": 0xC310, "IN PROGRESS": 0x0000, "COMPLETED": 0xB306, "CANCELED": 0xC300},
    "CANCELED": {"SCHEDULED": 0xC310, "IN PROGRESS": 0x0000, "COMPLETED": 0xC300, "CANCELED": 0xB304},
}


def _is(held: Dataset, keyword: str, value: str) -> bool:
    sequence, _, inner = keyword.partition(".")
    if inner:
        return any(str(item.get(inner) or "") == value for item in held.get(sequence) or ())
    return str(held.get(keyword) or "") == value


def _may_complete(held: Dataset) -> bool:
    """PS3.4 Table CC.2.5-3, the final state requirements P."""
    performed = held.get("UnifiedProcedureStepPerformedProcedureSequence") or []
    wanted = ("PerformedStationNameCodeSequence", "PerformedProcedureStepStartDateTime", "PerformedWorkitemCodeSequence")
    return (
        bool(performed)
        and all(performed[0].get(one) for one in (*wanted, "PerformedProcedureStepEndDateTime"))
        and ("OutputInformationSequence" in performed[0])
    )


def _may_cancel(held: Dataset) -> bool:
    """The final state requirements X."""
    progress = held.get("ProcedureStepProgressInformationSequence") or []
    wanted = ("ProcedureStepCancellationDateTime", "ProcedureStepDiscontinuationReasonCodeSequence")
    return bool(progress) and all(progress[0].get(one) for one in wanted)


# ---------------------------------------------------------------------------------------------------------------- over DIMSE


class _Later:
    """Tells in a thread of its own, one after the other, so that nobody waits for whoever is told."""

    def __init__(self, tell: Callable[[str, int, Dataset], None]) -> None:
        self._waiting: queue.Queue[tuple[str, int, Dataset] | None] = queue.Queue()
        self._tell = tell
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __call__(self, uid: str, kind: int, said: Dataset) -> None:
        self._waiting.put((uid, kind, said))

    def close(self) -> None:
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (one := self._waiting.get()) is not None:
            self._tell(*one)


def send_event(to: AE, uid: str, kind: int, said: Dataset, *, calling_ae: str = "TASKS") -> int | None:
    """Report an event to a subscriber, on an association of its own; None: it does not answer."""
    entity = ApplicationEntity(calling_ae)
    entity.add_requested_context(EVENT)
    entity.connection_timeout = 2.0
    association = entity.associate(to.host, to.port, ae_title=to.title, ext_neg=[build_role(EVENT, scu_role=False, scp_role=True)])
    if not association.is_established:
        return None
    try:
        status, _ = association.send_n_event_report(said, kind, PUSH, uid)
        return int(status.Status) if "Status" in status else None
    finally:
        association.release()


@contextmanager
def dimse(board: Board, port: int, watcher: AE | None = None, *, watches: bool = True) -> Iterator[AE]:
    """Serve a board over DIMSE; watcher: where the one who subscribes listens; watches: whether it offers UPS Watch."""
    entity = ApplicationEntity("TASKS")
    for sop_class in (PULL, QUERY, *((WATCH,) if watches else ())):
        entity.add_supported_context(sop_class)

    def tell(uid: str, kind: int, said: Dataset) -> None:
        if watcher is not None and watcher.title in board.watching:
            send_event(watcher, uid, kind, said)

    later = _Later(tell)
    board.tellers.append(later)
    handlers = [
        (evt.EVT_C_FIND, _on_find, [board]),
        (evt.EVT_N_GET, _on_get, [board]),
        (evt.EVT_N_SET, _on_set, [board]),
        (evt.EVT_N_ACTION, _on_action, [board]),
    ]
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    try:
        yield AE("TASKS", "127.0.0.1", port)
    finally:
        board.tellers.remove(later)
        server.shutdown()
        later.close()


def _on_find(event: evt.Event, board: Board) -> Iterator[tuple[int, Dataset | None]]:
    asked = event.identifier
    keys = {one: str(asked.get(one) or "") for one in ("SOPInstanceUID", "ProcedureStepState", "InputReadinessState")}
    for item in asked.get("ScheduledWorkitemCodeSequence") or ():
        keys |= {f"ScheduledWorkitemCodeSequence.{one}": str(item.get(one) or "") for one in ("CodeValue", "CodingSchemeDesignator")}
    for found in board.find(keys):
        answer = Dataset()
        answer.update({element.tag: found[element.tag] for element in asked if element.tag in found})
        yield 0xFF00, answer
    yield 0x0000, None


def _on_get(event: evt.Event, board: Board) -> tuple[int, Dataset | None]:
    found = board.get(str(event.request.RequestedSOPInstanceUID))
    return (0x0000, found) if found is not None else (0xC307, None)


def _on_set(event: evt.Event, board: Board) -> tuple[int, Dataset | None]:
    said = event.modification_list
    return board.set(str(event.request.RequestedSOPInstanceUID), str(said.get("TransactionUID") or ""), said), None


def _on_action(event: evt.Event, board: Board) -> tuple[int, Dataset | None]:
    said, uid, action = event.action_information, str(event.request.RequestedSOPInstanceUID), event.request.ActionTypeID
    context = str(event.context.abstract_syntax)
    if action == 1 and context == PULL:
        return board.change(uid, str(said.get("TransactionUID") or ""), str(said.ProcedureStepState)), None
    if action == 3 and context == WATCH and said.DeletionLock in ("TRUE", "FALSE"):
        return board.subscribe(uid, str(said.ReceivingAE)), None
    return 0x0123, None


# ----------------------------------------------------------------------------------------------------------------- over HTTP

_SAYS = {
    0xC301: (400, "The Transaction UID is incorrect."),
    0xC302: (409, "The submitted request is inconsistent with the state of the UPS Instance."),
    0xC307: (404, "no such workitem"),
    0xB304: (200, "The UPS is already in the requested state of CANCELED."),
    0xB306: (200, "The UPS is already in the requested state of COMPLETED."),
}


class _Handler(BaseHTTPRequestHandler):
    board: Board
    token: str
    channel: str  # of events

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path, query = self._path()
        if not self._known():
            return
        if path == "/dicom-web/workitems":
            keys = {name: value for name, value in query.items() if name not in ("includefield", "limit", "offset")}
            start, limit = int(query.get("offset", 0)), int(query.get("limit", 100))
            found = self.board.find(keys)[start : start + limit]
            self._say(200 if found else 204, [one.to_json_dict() for one in found])
            return
        found_one = self.board.get(path.rsplit("/", 1)[1])
        self._say(200 if found_one is not None else 404, [found_one.to_json_dict()] if found_one is not None else [])

    def do_POST(self) -> None:
        path, _ = self._path()
        body = self._body()
        if not self._known():
            return
        words = path.split("/")
        if "subscribers" in words:
            if "BY DIMSE" in self.board.watching and words[5] in self.board.watching:
                self._say(409, [])
                return
            self.board.subscribe(words[3], words[5])
            self._say(201, [], {"Content-Location": self.channel})
        else:
            self._status(self.board.set(words[3], urlsplit(self.path).query, Dataset.from_json(body[0])))

    def do_DELETE(self) -> None:
        self._say(200 if self._path()[0].split("/")[5] in self.board.watching else 404, [])
        self.board.watching.discard(self._path()[0].split("/")[5])

    def do_PUT(self) -> None:
        path, _ = self._path()
        said = Dataset.from_json(self._body()[0])
        if self._known():
            self._status(self.board.change(path.split("/")[3], str(said.get("TransactionUID") or ""), str(said.ProcedureStepState)))

    def _path(self) -> tuple[str, dict[str, str]]:
        parts = urlsplit(self.path)
        return parts.path, dict(parse_qsl(parts.query))

    def _body(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"[]")

    def _known(self) -> bool:
        if self.token and self.headers.get("Authorization") != f"Bearer {self.token}":
            self._say(401, [])
            return False
        return True

    def _status(self, status: int) -> None:
        code_, text = _SAYS.get(status, (409, f"{status:04X}")) if status else (200, "")
        self._say(code_, [], {"Warning": f'299 tasks "{text}"'} if text else {})

    def _say(self, status: int, body: list[Any], headers: dict[str, str] | None = None) -> None:
        data = b"" if status == 204 else json.dumps(body).encode()
        with contextlib.suppress(OSError):  # who asked was killed
            self.send_response(status)
            for name, value in {"Content-Type": "application/dicom+json", "Content-Length": str(len(data)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)


@contextmanager
def web(board: Board, port: int, events_port: int, *, token: str = "", tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serve a board over HTTP, its events over a websocket; give the address."""
    open_: set[ServerConnection] = set()

    def on_socket(line: ServerConnection) -> None:
        open_.add(line)
        try:
            for _ in line:
                pass
        finally:
            open_.discard(line)

    def tell(uid: str, kind: int, said: Dataset) -> None:
        message = said.to_json_dict() | {"00000002": {"vr": "UI", "Value": [EVENT]}, "00001000": {"vr": "UI", "Value": [uid]}}
        for line in list(open_):
            with contextlib.suppress(ConnectionClosed):
                line.send(json.dumps(message | {"00001002": {"vr": "US", "Value": [kind]}}))

    said = {"board": board, "token": token, "channel": f"{'wss' if tls else 'ws'}://127.0.0.1:{events_port}/events"}
    server = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (_Handler,), said))
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    sockets = serve(on_socket, "127.0.0.1", events_port, ssl=tls)
    threads = [threading.Thread(target=one.serve_forever, daemon=True) for one in (server, sockets)]
    later = _Later(tell)
    board.tellers.append(later)
    for thread in threads:
        thread.start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}/dicom-web"
    finally:
        board.tellers.remove(later)
        server.shutdown()
        server.server_close()
        for line in list(open_):
            line.close()
        sockets.shutdown()
        for thread in threads:
            thread.join()
        later.close()
