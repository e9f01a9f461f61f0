"""The files that pages are dressed with, as resources."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dicom_node import __version__
from dicom_node.web.access import anyone
from dicom_node.web.dress import FILES, KINDS

VERSION = __version__


def routes() -> list[BaseRoute]:
    """Return the files under /static."""

    def file(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in FILES:
            return Response(status_code=404)
        headers = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
        return Response(FILES[name], media_type=KINDS[Path(name).suffix], headers=headers)

    return [Route("/static/{name}", anyone(file), methods=["GET"])]
