"""Says whether the node lives and whether it can take work."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from dicom_node.web.access import anyone
from dicom_node.web.context import Context


def routes(context: Context) -> list[BaseRoute]:
    """Return the resources under /health."""

    def live(request: Request) -> Response:
        return JSONResponse({"status": "live"})

    return [Route("/health/live", anyone(live), methods=["GET"])]
