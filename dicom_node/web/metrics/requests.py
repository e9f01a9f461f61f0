"""Counts requests by the template of their route, their method and their status, on the way out."""

import time
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
_OTHER = "other"  # no route: what it was called is not told


class Requests:
    """The counts of one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("method", "route", "status")
        self.answered = Counter("dicom_node_http_requests", "Requests answered", labels, registry=registry)
        self.took = Histogram("dicom_node_http_request_seconds", "Until the answer ended", ("route",), buckets=_BOUNDS_S, registry=registry)


class Counted:
    """ASGI middleware, outermost: counts what is answered."""

    def __init__(self, app: ASGIApp, requests: Requests) -> None:
        self._app = app
        self._requests = requests
        self._templates: Mapping[int, str] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500  # that of an answer which never began

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, sent)
        finally:
            method = scope["method"] if scope["method"] in _METHODS else _OTHER
            route = self._route(scope)
            self._requests.answered.labels(method, route, str(status)).inc()
            self._requests.took.labels(route).observe(time.perf_counter() - began)

    def _route(self, scope: Scope) -> str:
        """Return the template of the route that answered; it holds no value that a client gave."""
        found = getattr(scope.get("route"), "path", None)
        if found is None:
            if self._templates is None:  # all routes are there when the first request comes; by identity: the application keeps its endpoints
                self._templates = {id(one): path for one, path in reversed([*_served(scope)])}
            found = self._templates.get(id(scope.get("endpoint")))
        return found if isinstance(found, str) else _OTHER


def _served(scope: Scope) -> Iterable[tuple[object, str]]:
    routes = getattr(getattr(scope.get("app"), "router", None), "routes", ())
    for one in routes:
        for place in ("endpoint", "app"):
            if hasattr(one, place) and isinstance(getattr(one, "path", None), str):
                yield getattr(one, place), one.path
