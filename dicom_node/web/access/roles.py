"""Roles, and the guard before every endpoint: one that says nothing of who may use it is not served."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum
from inspect import iscoroutinefunction
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

Endpoint = Callable[[Request], Response] | Callable[[Request], Awaitable[Response]]
_Guarded = TypeVar("_Guarded", bound=Callable[..., Any])


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
    scopes: frozenset[str] = frozenset()  # of a service


NOBODY = Person(name="", role=Role.NOBODY)


def person(request: Request) -> Person:
    """Return who makes a request, as the gate found out."""
    found = getattr(request.state, "person", NOBODY)
    return found if isinstance(found, Person) else NOBODY


def allow(role: Role, endpoint: Endpoint) -> Endpoint:
    """Let an endpoint be used by a role and those above it; 401 for nobody, 403 for others."""

    def check(request: Request) -> None:
        who = person(request)
        if who.role is Role.NOBODY:
            raise HTTPException(401)
        if who.role < role:
            raise HTTPException(403)

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


def anyone(endpoint: Endpoint) -> Endpoint:
    """Let an endpoint be used by whoever reaches it."""
    return _marked(endpoint, Role.NOBODY)


def _marked(endpoint: _Guarded, role: Role) -> _Guarded:
    endpoint.role = role  # type: ignore[attr-defined]  # a test asks every route for it
    return endpoint
