"""Says whether the node lives and whether it can take work: to everybody yes or no, to those who may look what was tried."""

import socket
import tempfile
import threading
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from dicom_node.domain import NodeError
from dicom_node.store.database import HEAD
from dicom_node.store.telling import workers
from dicom_node.web.access import Role, anyone, person
from dicom_node.web.context import Context

_FRESH_S = 2.0  # what was found is told again for so long: who asks often makes no more work
_CONNECT_S = 2.0
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not listened on


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What was tried, and what it says. No patient is named."""

    what: str
    ok: bool
    says: str


def routes(context: Context) -> list[BaseRoute]:
    """Return the resources under /health."""
    found = _Found(context)

    def live(request: Request) -> Response:
        return JSONResponse({"status": "live"})

    def ready(request: Request) -> Response:
        checks = found.checks()
        ok = all(one.ok for one in checks)
        told: dict[str, object] = {"status": "ready" if ok else "not ready"}
        if person(request).role >= Role.VIEWER:
            told["checks"] = [{"what": one.what, "ok": one.ok, "says": one.says} for one in checks]
        return JSONResponse(told, status_code=200 if ok else 503, headers={"Cache-Control": "no-store"})

    return [Route("/health/live", anyone(live), methods=["GET"]), Route("/health/ready", anyone(ready), methods=["GET"])]


class _Found:
    """What the checks found last."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._checks: tuple[Check, ...] = ()
        self._at = float("-inf")

    def checks(self) -> tuple[Check, ...]:
        with self._lock:
            now = self._context.clock()  # here, not before: who waited for a look that took long makes none of its own
            if not self._checks or not 0 <= now - self._at < _FRESH_S:
                self._checks = checked(self._context, now)
                self._at = self._context.clock()
            return self._checks


def checked(context: Context, now: float) -> tuple[Check, ...]:
    """Try what the node needs in order to take work."""
    found = [_ledger(context), _disk(context), _storage(context), _receiver(context)]
    if context.site.config.work.start:
        found.append(_worker(context, now))
    return tuple(found)


def _ledger(context: Context) -> Check:
    try:
        version = context.store.database.version()
    except NodeError as error:
        return Check(what="ledger", ok=False, says=str(error))
    return Check(what="ledger", ok=version == HEAD, says=f"of version {version}, this program's is {HEAD}")


def _disk(context: Context) -> Check:
    reserve_mb = context.site.config.node.disk_reserve_mb
    try:
        free_mb = context.store.archive.free_mb()
    except OSError as error:
        return Check(what="disk", ok=False, says=error.strerror or type(error).__name__)
    return Check(what="disk", ok=free_mb >= reserve_mb, says=f"{free_mb} MB free, reserve {reserve_mb} MB")


def _storage(context: Context) -> Check:
    try:
        with tempfile.TemporaryFile(dir=context.store.archive.root) as file:
            file.write(b"!")
            file.flush()
    except OSError as error:
        return Check(what="storage", ok=False, says=f"nothing can be written there: {error.strerror or type(error).__name__}")
    return Check(what="storage", ok=True, says="it can be written to")


def _receiver(context: Context) -> Check:
    node = context.site.config.node
    if node.port == 0:
        return Check(what="receiver", ok=True, says="not tried: node.port is 0, any free one")
    try:
        socket.create_connection((_ANY.get(node.host, node.host), node.port), _CONNECT_S).close()
    except OSError as error:
        return Check(what="receiver", ok=False, says=f"port {node.port} takes no connection: {error.strerror or type(error).__name__}")
    return Check(what="receiver", ok=True, says=f"port {node.port} takes connections")


def _worker(context: Context, now: float) -> Check:
    try:
        alive = sum(bool(one["alive"]) for one in workers(context.store, now))
    except NodeError as error:
        return Check(what="worker", ok=False, says=str(error))
    return Check(what="worker", ok=alive > 0, says=f"{alive} seen recently" if alive else "none was seen recently")
