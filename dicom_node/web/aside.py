"""What may take long has threads of its own: however much of it is asked for at once, pages, health and the gate find one of theirs free."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar
from starlette.requests import Request
from starlette.responses import Response

_Made = TypeVar("_Made")


class Aside:
    """So many threads, for each event loop; who comes while all are busy waits without one."""

    def __init__(self, name: str, threads: int) -> None:
        self._threads = threads
        self._limiter = RunVar[CapacityLimiter](name)

    async def run(self, function: Callable[..., _Made], *arguments: Any) -> _Made:
        """Call a function there."""
        try:
            limiter = self._limiter.get()
        except LookupError:
            limiter = CapacityLimiter(self._threads)
            self._limiter.set(limiter)
        return await to_thread.run_sync(function, *arguments, limiter=limiter)

    def answers(self, endpoint: Callable[[Request], Response]) -> Callable[[Request], Awaitable[Response]]:
        """Return an endpoint that is called there."""

        async def answer(request: Request) -> Response:
            return await self.run(endpoint, request)

        return answer


DRAWING = Aside("drawing", 4)  # pictures: each takes a processor, and memory for its pixels
RETRIEVING = Aside("retrieving", 16)  # a coded frame waits for the decoders
SEEKING = Aside("seeking", 4)  # a search of the worklist looks at each workitem
TELLING = Aside("telling", 4)  # channels of worklist events ask the ledger
STORING = Aside("storing", 16)  # a file waits for its turn at the disk
