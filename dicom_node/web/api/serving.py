"""The API's routes, its description, and a page that lists what it does."""

from html import escape
from typing import Any

from fastapi import APIRouter, Depends
from fastapi.openapi.utils import get_openapi
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute

from dicom_node import __version__
from dicom_node.web.access import Role
from dicom_node.web.api import acting, looking, worklist
from dicom_node.web.api.guard import READ, GuardedRoute, needs
from dicom_node.web.context import Context

_ABOUT = "What the node's verbs say with --json, for programs. Research use only; not for diagnosis. No patient is named."


def routes(context: Context) -> list[BaseRoute]:
    """Return the resources under /api."""
    routers = (looking.router_of(context), acting.router_of(context), *worklist.routers_of(context))
    served = [route for router in routers for route in router.routes]
    described: dict[str, Any] = {}

    def description() -> dict[str, Any]:
        if not described:
            described.update(get_openapi(title="dicom-node", version=__version__, description=_ABOUT, routes=served))
        return described

    router = APIRouter(prefix="/api", dependencies=[Depends(needs(Role.VIEWER, READ))], route_class=GuardedRoute, include_in_schema=False)

    @router.get("/openapi.json")
    def openapi() -> Response:
        """Describe the API (OpenAPI 3.1)."""
        return JSONResponse(description())

    @router.get("/")
    def listed() -> Response:
        """List what the API does, for a person."""
        return HTMLResponse(_page(description()))

    return [*router.routes, *served]


def _page(described: dict[str, Any]) -> str:
    """Write a page without scripts: each operation with what it does."""
    rows = [
        f"<tr><td>{escape(method.upper())}</td><td><code>{escape(path)}</code></td><td>{escape(one.get('description', ''))}</td></tr>"
        for path, methods in described["paths"].items()
        for method, one in methods.items()
    ]
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head = f'<!DOCTYPE html><html lang="en"><head>{meta}<title>The JSON API</title></head><body><main>'
    said = f'<h1>The JSON API</h1><p>{escape(_ABOUT)} <a href="/api/openapi.json">Its description (OpenAPI)</a>.</p>'
    return f"{head}{said}<table>{''.join(rows)}</table></main></body></html>"
