"""What pages are dressed with: our own style sheet, script and icon, few and small, read once."""

from hashlib import sha256
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dicom_node import __version__
from dicom_node.web.access import anyone

VERSION = __version__
_KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_FILES = {path.name: path.read_bytes() for path in sorted((Path(__file__).parents[1] / "static").iterdir()) if path.suffix in _KINDS}


def address(name: str) -> str:
    """Return where a file is, an address of its content: it may be kept for as long as anybody likes."""
    return f"/static/{name}?v={sha256(_FILES[name]).hexdigest()[:12]}"


def routes() -> list[BaseRoute]:
    """Return the files under /static."""

    def file(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _FILES:
            return Response(status_code=404)
        headers = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
        return Response(_FILES[name], media_type=_KINDS[Path(name).suffix], headers=headers)

    return [Route("/static/{name}", anyone(file), methods=["GET"])]
