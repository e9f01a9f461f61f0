"""Who may use the API, and how it says that something went wrong: one shape, whatever went wrong."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from dicom_node.domain import ConfigError, NodeError, Refused, Rejected, Transient
from dicom_node.web.access import Person, Role, ScopeName, demand, person
from dicom_node.web.api.shapes import Failure

MOST_BYTES = 64 * 1024  # of a request's body
READ: ScopeName = "api.read"
ACT: ScopeName = "api.act"

_WORDS = {401: "it is not known who asks", 403: "this may not be done by who asks", 404: "there is no such thing", 405: "no such method"}
_HINTS = {401: "Log in, or send a token.", 403: "Ask those who maintain the node.", 413: f"At most {MOST_BYTES} bytes are taken."}
_STATUSES: tuple[tuple[type[NodeError], int], ...] = ((Transient, 503), (Refused, 409), (Rejected, 409), (ConfigError, 409))

FAILURES: dict[int | str, dict[str, Any]] = {
    code: {"model": Failure, "description": said}
    for code, said in (
        (401, "It is not known who asks."),
        (403, "Who asks may not do this."),
        (404, "There is no such thing."),
        (409, "It cannot be done as things stand."),
        (413, "The request is too large."),
        (422, "A parameter, or the body, is not as it must be."),
        (503, "The ledger or the disk does not answer: try again."),
    )
}


def needs(role: Role, scope: ScopeName) -> Callable[[Request], Person]:
    """Return the dependency that lets a role and those above it pass, and a service that has the scope; 401 for nobody, 403 for others."""

    def guard(request: Request) -> Person:
        demand(request, role, scope)
        return person(request)

    guard.role = role  # type: ignore[attr-defined]  # a test asks every route for it
    return guard


class GuardedRoute(APIRoute):
    """A route whose failures have one shape, and whose body is bounded."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        answer = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                _bound(request)
                return await answer(request)
            except RequestValidationError as error:
                return failed(422, _said(error), "The description at /api/openapi.json says what is taken.")
            except HTTPException as error:
                said = _WORDS.get(error.status_code, "") if not error.detail or error.detail == _phrase(error) else str(error.detail)
                return failed(error.status_code, said or str(error.detail), _HINTS.get(error.status_code, ""), error.headers)
            except NodeError as error:
                return failed(next((code for kind, code in _STATUSES if isinstance(error, kind)), 500), str(error), error.hint)

        return answered


def failed(status: int, said: str, hint: str = "", headers: Any = None) -> JSONResponse:
    """Say in the API's one shape what went wrong."""
    return JSONResponse({"error": said, "hint": hint}, status_code=status, headers=headers)


def _bound(request: Request) -> None:
    """Refuse a body that is too long, or that does not say how long it is (RFC 9110 15.5.14)."""
    length = request.headers.get("content-length", "0")
    if not length.isascii() or not length.isdecimal() or len(length) > 9 or int(length) > MOST_BYTES or "transfer-encoding" in request.headers:
        raise HTTPException(413, "the body is too long, or does not say how long it is")


def _said(error: RequestValidationError) -> str:
    """Name the places and the rules that they break, without the values."""
    told = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()[:5]]
    return "; ".join(told)


def _phrase(error: HTTPException) -> str:
    return HTTPException(error.status_code).detail
