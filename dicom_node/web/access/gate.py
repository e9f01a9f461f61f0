"""The gate before everything: finds out who asks."""

from starlette.types import ASGIApp, Receive, Scope, Send

from dicom_node.web.access.roles import Person, Role
from dicom_node.web.context import Context

_LOCAL = Person(name="local", role=Role.ADMIN)


class Gate:
    """ASGI middleware: puts the person who asks into the request's state."""

    def __init__(self, app: ASGIApp, context: Context) -> None:
        self._app = app
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            scope.setdefault("state", {})["person"] = _LOCAL
        await self._app(scope, receive, send)
