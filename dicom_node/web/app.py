"""The whole of the HTTP door: each part's routes, behind one gate."""

import structlog
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dicom_node import __version__
from dicom_node.domain import ConfigError, NodeError, Refused, Rejected, Transient, fault
from dicom_node.web import feedback, health, pictures
from dicom_node.web.access import Gate
from dicom_node.web.context import Context

log = structlog.get_logger()

_PARTS = (health, pictures, feedback)


def build(context: Context) -> FastAPI:
    """Return the application (ASGI)."""
    app = FastAPI(title="dicom-node", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.context = context
    for part in _PARTS:
        app.router.routes.extend(part.routes(context))
    app.add_exception_handler(NodeError, _told)
    app.add_exception_handler(Exception, _unforeseen)
    app.add_middleware(Gate, context=context)
    return app


def _told(request: Request, error: Exception) -> Response:
    """Say an error that has words for a person: what, why, and what to do next."""
    hint = error.hint if isinstance(error, NodeError) else ""
    status = next((code for kind, code in _STATUSES if isinstance(error, kind)), 500)
    return JSONResponse({"error": str(error), "hint": hint}, status_code=status)


_STATUSES: tuple[tuple[type[NodeError], int], ...] = ((Transient, 503), (Refused, 400), (Rejected, 409), (ConfigError, 409))


def _unforeseen(request: Request, error: Exception) -> Response:
    """Say that something failed, without its words: the text of an error that nobody foresaw may quote a header."""
    log.error("web.failed", path=request.url.path, reason=fault(error))
    return JSONResponse({"error": fault(error), "hint": "Tell those who maintain the node; its log says where."}, status_code=500)
