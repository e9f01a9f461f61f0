"""Websockets behind the gate: who may open one, how it is refused, and how a browser of another origin shows its token.

A browser cannot add headers to a websocket; it can name subprotocols. A page of another origin offers two: `dicom-node.events`, which is agreed on,
and `bearer.` with its token, which is read and left out. So the token is in no address, and in no log (OWASP, WebSocket Security).
"""

from collections.abc import Awaitable, Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import Scope
from starlette.websockets import WebSocket

from dicom_node.web.access.roles import NOBODY, REALM, Person, Role, ScopeName, may

SUBPROTOCOL = "dicom-node.events"

_BEARER = "bearer."
_POLICY_VIOLATION = 1008

SocketEndpoint = Callable[[WebSocket], Awaitable[None]]


def allow_socket(role: Role, endpoint: SocketEndpoint, scope: ScopeName) -> SocketEndpoint:
    """Let a websocket be opened by a role and those above it, and by services with a scope; 401 for nobody, 403 for others."""

    async def guarded(socket: WebSocket) -> None:
        found = getattr(socket.state, "person", NOBODY)
        who = found if isinstance(found, Person) else NOBODY
        if may(who, role, scope):
            await endpoint(socket)
        elif who.role is Role.NOBODY:
            await deny(socket, 401, "Say who you are.", {"WWW-Authenticate": f'Bearer realm="{REALM}"'})
        else:
            await deny(socket, 403, "You may not do this.")

    guarded.role = role  # type: ignore[attr-defined]  # a test asks every route for it
    return guarded


async def deny(socket: WebSocket, status: int, error: str, headers: dict[str, str] | None = None, hint: str = "") -> None:
    """Refuse to open a websocket, with an answer of HTTP where the server can give one."""
    if "websocket.http.response" in socket.scope.get("extensions", {}):
        await socket.send_denial_response(JSONResponse({"error": error, "hint": hint}, status_code=status, headers=headers))
    else:
        await socket.close(_POLICY_VIOLATION)


def show_bearer(scope: Scope) -> None:
    """Put a token that is among the subprotocols where tokens are, unless one is there."""
    headers = Headers(scope=scope)
    offered = [one.strip() for line in headers.getlist("sec-websocket-protocol") for one in line.split(",")]
    shown = [one for one in offered if one.startswith(_BEARER)]
    if not shown:
        return
    scope["subprotocols"] = [one for one in scope.get("subprotocols", ()) if not one.startswith(_BEARER)]
    if "authorization" not in headers and len(shown) == 1:
        scope["headers"] = list(scope["headers"])
        MutableHeaders(scope=scope).append("authorization", f"Bearer {shown[0].removeprefix(_BEARER)}")
