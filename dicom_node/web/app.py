"""The whole of the HTTP door: each part's routes, behind one gate."""

import structlog
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dicom_node import __version__
from dicom_node.domain import ConfigError, NodeError, Refused, Rejected, Transient, fault
from dicom_node.web import api, dicomweb, feedback, health, metrics, ohif, pages, pictures, ups, viewer
from dicom_node.web.access import Access, Gate, login, security
from dicom_node.web.context import Context
from dicom_node.web.numbers import NUMBER  # noqa: F401 - routes name numbers

log = structlog.get_logger()

_PARTS = (dicomweb, ups, health, login, api, pages, viewer, ohif, pictures, feedback)  # a request is compared with the routes in this order


def build(context: Context) -> FastAPI:
    """Return the application (ASGI)."""
    app = FastAPI(title="dicom-node", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.context = context
    for part in _PARTS:
        app.router.routes.extend(part.routes(context))
    registry, requests = metrics.registry_of_process()
    app.router.routes.extend(metrics.routes(context, registry))
    app.add_exception_handler(NodeError, _told)
    app.add_exception_handler(HTTPException, pages.refused.handler(context))
    app.add_exception_handler(Exception, _unforeseen)
    app.add_middleware(Gate, context=context, access=Access(context))
    app.add_middleware(metrics.Counted, requests=requests)  # outermost: it counts what the gate refuses, too
    return app


def _told(request: Request, error: Exception) -> Response:
    """Say an error that has words for a person: what, why, and what to do next."""
    hint = error.hint if isinstance(error, NodeError) else ""
    status = next((code for kind, code in _STATUSES if isinstance(error, kind)), 500)
    return JSONResponse({"error": str(error), "hint": hint}, status_code=status)


_STATUSES: tuple[tuple[type[NodeError], int], ...] = ((Transient, 503), (Refused, 400), (Rejected, 409), (ConfigError, 409))


def _unforeseen(request: Request, error: Exception) -> Response:
    """Say that something failed, without its words: the text of an error that nobody foresaw may quote a header."""
    log.error("web.failed", path=request.url.path[:200], reason=fault(error))
    said = {"error": fault(error), "hint": "Tell those who maintain the node; its log says where."}
    headers = security(request.url.path, secure=request.url.scheme == "https")  # it is answered outside of the gate
    return JSONResponse(said, status_code=500, headers=dict(headers))
