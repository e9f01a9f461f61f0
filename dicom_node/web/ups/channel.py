"""The channel by which a subscriber is told of events: a websocket, on which this node alone speaks (PS3.18 8.10.4, 8.10.5, 11.13).

What is to be told stands in the ledger, in order, and is removed once it was sent: what happens while nobody listens waits, and a node that dies
between the two tells it again. A subscriber has one channel; where it opens another one, that takes the place of the first.
"""

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import structlog
from pydicom import Dataset
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from dicom_node.domain import Channel, EventReport, NodeError, Transient, fault, is_ae_title
from dicom_node.store import Store, Topic
from dicom_node.web.access import Role, allow
from dicom_node.web.access.sockets import SUBPROTOCOL, allow_socket, deny
from dicom_node.web.aside import TELLING
from dicom_node.web.context import Context
from dicom_node.web.dicomweb.urls import PREFIX
from dicom_node.web.ups.watching import OF_ANOTHER, is_anothers

log = structlog.get_logger()

EVENT = "1.2.840.10008.5.1.4.34.6.4"  # UPS Event SOP Class

_MOST_CHANNELS = 256
_AT_ONCE = 100  # reports that are read at a time
_EVERY_S = 1.0  # between two looks while no bell rings: a claim, or progress, rings none
_PATIENCE_S = 60.0  # for a subscriber to take a message
_LASTS_S = 3600.0  # a channel ends, and is opened anew by whoever still may
_GOING_AWAY, _REPLACED, _FAILED = 1001, 4000, 1011


class Line:
    """One open channel."""

    def __init__(self, receiver: str) -> None:
        self.receiver = receiver
        self.loop = asyncio.get_running_loop()
        self.news = asyncio.Event()
        self.news.set()
        self.replaced = asyncio.Event()
        self.ended = threading.Event()

    def call(self, doing: Callable[[], None]) -> None:
        """Do something in its loop, from any thread."""
        try:
            self.loop.call_soon_threadsafe(doing)
        except RuntimeError:  # its loop has ended
            self.ended.set()


class Exchange:
    """The channels that are open, and the thread that looks for what they are to tell; it runs while there is one."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._lines: dict[str, Line] = {}
        self._thread: threading.Thread | None = None

    def open(self, receiver: str) -> tuple[Line, Line | None] | None:
        """Take a channel, and return it with the one whose place it takes; None when there are too many."""
        with self._lock:
            before = self._lines.get(receiver)
            if before is None and len(self._lines) >= _MOST_CHANNELS:
                return None
            line = self._lines[receiver] = Line(receiver)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="channels", daemon=True)
                self._thread.start()
        if before is not None:
            before.call(before.replaced.set)
        return line, before

    def close(self, line: Line) -> None:
        """Let a channel go."""
        line.ended.set()
        with self._lock:
            if self._lines.get(line.receiver) is line:
                del self._lines[line.receiver]

    def _run(self) -> None:
        while True:
            try:
                self._listen()
                return
            except Exception as error:  # the outermost loop of this thread: nobody would be told of anything any more
                log.error("channel.not_looked", reason=fault(error))
                time.sleep(_EVERY_S)

    def _listen(self) -> None:
        listener = self._store.bell.listen(Topic.WORKITEMS)
        try:
            while self._is_wanted():
                listener.wait(_EVERY_S)
                self._look()
        finally:
            listener.close()

    def _is_wanted(self) -> bool:
        with self._lock:
            if not self._lines:
                self._thread = None
            return bool(self._lines)

    def _look(self) -> None:
        try:
            due = self._store.subscriptions.receivers(Channel.WEB, now=self._clock())
        except NodeError as error:  # the ledger is away: what is to be told stands in it
            log.warning("channel.not_looked", reason=str(error))
            return
        with self._lock:
            lines = [self._lines[receiver] for receiver in due if receiver in self._lines]
        for line in lines:
            line.call(line.news.set)


class Teller:
    """Tells one subscriber, for as long as its channel is open."""

    def __init__(self, context: Context, socket: WebSocket, line: Line) -> None:
        self._store = context.store.subscriptions
        self._event_of = context.event_of
        self._socket = socket
        self._line = line

    async def run(self) -> int | None:
        """Tell what there is to tell, and return why that ends, as a close code; None: the subscriber has gone."""
        tasks: list[asyncio.Task[Any]]
        hear, tell, replaced = tasks = [asyncio.create_task(one) for one in (self._hear(), self._tell(), self._line.replaced.wait())]
        try:
            ended, _ = await asyncio.wait(tasks, timeout=_LASTS_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
        await asyncio.wait(tasks)
        _, error, _ = (None if task.cancelled() else task.exception() for task in tasks)
        if hear in ended:
            return None
        if tell in ended:
            if isinstance(error, WebSocketDisconnect | OSError):
                return None
            log.error("channel.failed", to=self._line.receiver, reason=fault(error) if error else "")
            return _FAILED
        return _REPLACED if replaced in ended else _GOING_AWAY

    async def _hear(self) -> None:
        """Return when the subscriber has gone; what it says is not read."""
        while (await self._socket.receive())["type"] != "websocket.disconnect":
            pass

    async def _tell(self) -> None:
        while True:
            await self._line.news.wait()
            self._line.news.clear()
            try:
                while waiting := await TELLING.run(partial(self._store.waiting, self._line.receiver, Channel.WEB, limit=_AT_ONCE)):
                    await self._send(waiting)
            except Transient:  # the ledger is away: what is to be told stands in it
                await asyncio.sleep(_EVERY_S)
                self._line.news.set()

    async def _send(self, waiting: Sequence[EventReport]) -> None:
        sent: list[int] = []
        try:
            for one in waiting:
                async with asyncio.timeout(_PATIENCE_S):
                    await self._socket.send_text(message(one, self._event_of(one)))
                sent.append(one.id)
        finally:
            if sent:
                await _to_its_end(TELLING.run(self._store.told, sent))
        log.info("channel.told", to=self._line.receiver, events=len(sent))


async def _to_its_end(doing: Awaitable[None]) -> None:
    """Await something also where who awaits it is canceled meanwhile: what was sent is removed before another channel looks."""
    task, canceled = asyncio.ensure_future(doing), None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            canceled = error
    task.result()
    if canceled is not None:
        raise canceled


def message(report: EventReport, information: Dataset) -> str:
    """Return what is told of one event: a data set of the DICOM JSON Model (PS3.18 11.13)."""
    said = {
        "00000002": {"vr": "UI", "Value": [EVENT]},
        "00000110": {"vr": "US", "Value": [1 + (report.id - 1) % 0xFFFF]},
        "00001000": {"vr": "UI", "Value": [report.workitem_uid]},
        "00001002": {"vr": "US", "Value": [int(report.kind)]},
    }
    return json.dumps(said | information.to_json_dict(), ensure_ascii=False, separators=(",", ":"))


def routes(context: Context) -> list[BaseRoute]:
    """Return the channel, and what is said to who asks for it otherwise than by a websocket."""
    path, opened = f"{PREFIX}/subscribers/{{aet}}", partial(_opened, context, Exchange(context.store, context.clock))
    return [
        WebSocketRoute(path, allow_socket(Role.VIEWER, opened, "worklist.read")),
        Route(path, allow(Role.VIEWER, _otherwise, "worklist.read"), methods=["GET"]),
    ]


async def _opened(context: Context, exchange: Exchange, socket: WebSocket) -> None:
    receiver = str(socket.path_params["aet"]).strip(" ")
    if not is_ae_title(receiver):
        await deny(socket, 400, "the address has something that is no AE title")
        return
    if await TELLING.run(is_anothers, context, receiver, socket.state.person):
        await deny(socket, 403, OF_ANOTHER)
        return
    found = exchange.open(receiver)
    if found is None:
        await deny(socket, 503, "too many channels are open")
        return
    line, before = found
    try:
        await socket.accept(subprotocol=SUBPROTOCOL if SUBPROTOCOL in socket.scope.get("subprotocols", ()) else None)
        log.info("channel.opened", to=receiver)
        if before is not None:
            await TELLING.run(before.ended.wait, _EVERY_S)  # what it has sent is removed
        code = await Teller(context, socket, line).run()
        if code is not None:
            await socket.close(code)
    except (WebSocketDisconnect, OSError, RuntimeError) as error:  # the subscriber has gone while it was spoken to
        log.info("channel.broken", to=receiver, kind=type(error).__name__)
    finally:
        exchange.close(line)
        log.info("channel.closed", to=receiver)


def _otherwise(request: Request) -> Response:
    said = {"error": "this is a channel of events", "hint": "Open it as a websocket (RFC 6455)."}
    return JSONResponse(said, status_code=426, headers={"Upgrade": "websocket", "Connection": "Upgrade"})
