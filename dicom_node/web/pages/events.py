"""Says when to look again: one thread hears the bell for everybody, and tells each page that is open, at most once a second.

An event says that something has changed and nothing of what. A page that hears of it asks for itself anew, as whoever looks at it may.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import structlog
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from dicom_node.domain import NodeError, fault
from dicom_node.store import Store, Topic
from dicom_node.web.access import Role, allow

log = structlog.get_logger()

_MOST_READERS = 64
_EVERY_S = 1.0  # between two events, and between two looks while no bell rings: progress rings none
_TOLD_S = 30.0  # after so long pages look by themselves: how long ago something was, changes without an event
_HEARTBEAT_S = 15.0
_LASTS_S = 600.0  # a stream ends, and is opened anew by whoever still may


class News:
    """The thread that hears of changes for everybody; it runs while somebody listens."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._readers: dict[object, tuple[asyncio.AbstractEventLoop, asyncio.Event]] = {}
        self._thread: threading.Thread | None = None

    def join(self, loop: asyncio.AbstractEventLoop) -> tuple[object, asyncio.Event] | None:
        """Take a reader; None when there are too many."""
        with self._lock:
            if len(self._readers) >= _MOST_READERS:
                return None
            key, news = object(), asyncio.Event()
            self._readers[key] = loop, news
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="news", daemon=True)
                self._thread.start()
            return key, news

    def leave(self, key: object) -> None:
        """Let a reader go."""
        with self._lock:
            self._readers.pop(key, None)

    def _run(self) -> None:
        while self._is_wanted():
            try:
                self._hear()
            except Exception as error:  # the outermost loop of this thread: nobody would be told of anything any more
                log.error("web.news", reason=fault(error))
                time.sleep(_EVERY_S)

    def _hear(self) -> None:
        listener, before, told = self._store.bell.listen(*Topic), None, time.monotonic()
        try:
            while self._is_wanted():
                listener.wait(_EVERY_S)
                pulse = self._pulse()
                if pulse != before or time.monotonic() - told >= _TOLD_S:
                    before, told = pulse, time.monotonic()
                    self._tell()
                    time.sleep(_EVERY_S / 2)  # with the wait before the next look: what changes in a burst is told of once
        finally:
            listener.close()

    def _is_wanted(self) -> bool:
        with self._lock:
            if not self._readers:
                self._thread = None
            return bool(self._readers)

    def _pulse(self) -> object:
        try:
            return self._store.overview.pulse()
        except NodeError as error:  # the ledger is away: pages say so when they look
            log.warning("web.news", reason=str(error))
            return None

    def _tell(self) -> None:
        with self._lock:
            readers = list(self._readers.items())
        for key, (loop, news) in readers:
            try:
                loop.call_soon_threadsafe(news.set)
            except RuntimeError:  # its loop has ended
                self.leave(key)


async def told(news: asyncio.Event) -> AsyncIterator[str]:
    """Give the lines of a stream of events (HTML Living Standard 9.2): an event for each change, a comment while there is none."""
    yield "retry: 2000\n\n"
    ends = time.monotonic() + _LASTS_S
    while time.monotonic() < ends:
        try:
            await asyncio.wait_for(news.wait(), _HEARTBEAT_S)
            news.clear()
            yield "event: changed\ndata: 1\n\n"
        except TimeoutError:
            yield ": still here\n\n"


def routes(store: Store) -> list[BaseRoute]:
    """Return the stream of events."""
    news = News(store)

    async def events(request: Request) -> Response:
        joined = news.join(asyncio.get_running_loop())
        if joined is None:
            return PlainTextResponse("too many pages are open; they look by themselves\n", status_code=503, headers={"Retry-After": "30"})
        key, heard = joined

        async def stream() -> AsyncIterator[str]:
            try:
                async for lines in told(heard):
                    yield lines
            finally:
                news.leave(key)

        return StreamingResponse(stream(), media_type="text/event-stream", headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})

    return [Route("/events", allow(Role.VIEWER, events), methods=["GET"])]
