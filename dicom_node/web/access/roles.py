"""Roles and scopes, and the guard before every endpoint: one that says nothing of who may use it is not served."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum
from inspect import iscoroutinefunction
from typing import Any, Literal, TypeVar
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from dicom_node.domain import SCOPES
from dicom_node.web.access.headers import API, DICOMWEB, is_under

Endpoint = Callable[[Request], Response] | Callable[[Request], Awaitable[Response]]
ScopeName = Literal["dicomweb.read", "dicomweb.write", "worklist.read", "worklist.write", "api.read", "api.act"]
_Guarded = TypeVar("_Guarded", bound=Callable[..., Any])

REALM = "dicom-node"


class Role(IntEnum):
    """What a person may; each may what those below it may."""

    NOBODY = 0  # has not said who it is
    SERVICE = 1  # a program: DICOMweb and the JSON API, as far as its scopes go
    VIEWER = 2  # sees studies and results, and says what it thinks of them
    OPERATOR = 3  # retries, cancels, replays, sends
    ADMIN = 4  # sees and changes everything


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who makes a request. name: what the journal calls them."""

    name: str
    role: Role
    scopes: frozenset[str] | None = None  # of a service, or of a person's token that was made for less than all; none: what the role may


NOBODY = Person(name="", role=Role.NOBODY)


def person(request: Request) -> Person:
    """Return who makes a request, as the gate found out."""
    found = getattr(request.state, "person", NOBODY)
    return found if isinstance(found, Person) else NOBODY


def may(who: Person, role: Role, scope: ScopeName | None = None) -> bool:
    """Say whether somebody may use what asks for this role and, of programs, this scope.

    A service has no other rights than its scopes, and what only administrators may is in none of them.
    """
    if scope is not None and who.scopes is not None and scope not in who.scopes:
        return False
    if who.role is Role.SERVICE:
        return role <= Role.SERVICE if scope is None else role <= Role.OPERATOR and who.scopes is not None
    if scope is None and who.scopes is not None and role > Role.SERVICE:
        return False
    return who.role >= role


def allow(role: Role, endpoint: Endpoint, scope: ScopeName | None = None) -> Endpoint:
    """Let an endpoint be used by a role and those above it, and by services with a scope; 401 for nobody, 403 for others.

    scope: unless it is given, what reading or changing asks for under /dicom-web and /api. Who looks at a page with a browser is sent to log in.
    """
    if scope is not None and scope not in SCOPES:
        raise ValueError(f"there is no scope {scope}")

    return _guarded(role, endpoint, lambda request: demand(request, role, scope))


def anyone(endpoint: Endpoint) -> Endpoint:
    """Let an endpoint be used by whoever reaches it."""
    return _guarded(Role.NOBODY, endpoint, lambda request: None)


def _guarded(role: Role, endpoint: Endpoint, check: Callable[[Request], None]) -> Endpoint:
    if iscoroutinefunction(endpoint):

        async def awaited(request: Request) -> Response:
            check(request)
            found: Response = await endpoint(request)
            return found

        return _marked(awaited, role)

    def called(request: Request) -> Response:
        check(request)
        return endpoint(request)  # type: ignore[return-value]  # it is no coroutine

    return _marked(called, role)


def demand(request: Request, role: Role, scope: ScopeName | None = None) -> None:
    """Raise 401, 403, or 303 to the log-in, unless who asks may; for what guards otherwise than by `allow`."""
    who, scope = person(request), scope or implied(request.method, request.url.path)
    if may(who, role, scope):
        return
    if who.role is not Role.NOBODY:
        wants = f' error="insufficient_scope", scope="{scope}"' if scope and who.scopes is not None else ""
        challenge = {"WWW-Authenticate": f'Bearer realm="{REALM}",{wants}'} if wants else None
        raise HTTPException(403, "You may not do this.", headers=challenge)
    if looks(request):
        here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        raise HTTPException(303, headers={"Location": f"/login?next={quote(here, safe='')}"})
    shown = bool(getattr(request.state, "bearer_refused", False))  # RFC 6750 3.1: who showed nothing is told no error
    raise HTTPException(
        401, "Say who you are.", headers={"WWW-Authenticate": f'Bearer realm="{REALM}"' + (', error="invalid_token"' if shown else "")}
    )


def implied(method: str, path: str) -> ScopeName | None:
    """Return the scope that a request asks for by its place, if it is one of those for programs."""
    reads = method in ("GET", "HEAD", "OPTIONS")
    if is_under(path, DICOMWEB):
        return "dicomweb.read" if reads else "dicomweb.write"
    if is_under(path, API):
        return "api.read" if reads else "api.act"
    return None


def looks(request: Request) -> bool:
    """Say whether a person looks at a page, rather than a program or a script asking."""
    headers = request.headers
    asks = request.method in ("GET", "HEAD") and "text/html" in headers.get("accept", "") and "authorization" not in headers
    return asks and headers.get("sec-fetch-mode", "navigate") == "navigate"


def _marked(endpoint: _Guarded, role: Role) -> _Guarded:
    endpoint.role = role  # type: ignore[attr-defined]  # a test asks every route for it
    return endpoint
