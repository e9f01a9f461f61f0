"""Tells what can be asked here (PS3.18 8.9): a description in WADL, the same for everybody."""

from collections.abc import Mapping
from xml.sax.saxutils import quoteattr

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dicom_node.web.access import Role, allow
from dicom_node.web.context import Context
from dicom_node.web.dicomweb.accept import MediaType, negotiate
from dicom_node.web.dicomweb.urls import PREFIX, accepted, service_url

_OFFERED = (MediaType(name="application/vnd.sun.wadl+xml"), MediaType(name="application/xml"))
_FILES, _METADATA = 'multipart/related; type="application/dicom"', 'application/dicom+json|multipart/related; type="application/dicom+xml"'
_OCTETS = 'multipart/related; type="application/octet-stream"|application/octet-stream'
_STUDY = "studies/{StudyInstanceUID}"
_SERIES = f"{_STUDY}/series/{{SeriesInstanceUID}}"
_INSTANCE = f"{_SERIES}/instances/{{SOPInstanceUID}}"
_RETRIEVED: Mapping[str, str] = {  # resource -> representations
    _STUDY: _FILES,
    f"{_STUDY}/metadata": _METADATA,
    _SERIES: _FILES,
    f"{_SERIES}/metadata": _METADATA,
    _INSTANCE: f"{_FILES}|application/dicom",
    f"{_INSTANCE}/metadata": _METADATA,
    f"{_INSTANCE}/frames/{{frames}}": _OCTETS,
    f"{_INSTANCE}/bulkdata/{{path}}": _OCTETS,
    f"{_INSTANCE}/pixeldata": _OCTETS,
}


def routes(context: Context) -> list[BaseRoute]:
    """Return the resource that describes the others."""

    def described(request: Request) -> Response:
        chosen = negotiate(*accepted(request), _OFFERED)
        if chosen is None:
            raise HTTPException(406, f"There is {_OFFERED[0].name}.")
        return Response(wadl(service_url(request)), media_type=chosen.name)

    return [Route(path, allow(Role.VIEWER, described, "dicomweb.read"), methods=["GET", "OPTIONS"]) for path in (PREFIX, f"{PREFIX}/")]


def wadl(service: str) -> str:
    """Return what can be retrieved below a URL."""
    resources = "".join(_resource(path, types.split("|")) for path, types in _RETRIEVED.items())
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<application xmlns="http://wadl.dev.java.net/2009/02">'
        f"<resources base={quoteattr(service)}>{resources}</resources></application>\n"
    )


def _resource(path: str, types: list[str]) -> str:
    said = "".join(f"<representation mediaType={quoteattr(one)}/>" for one in types)
    return f'<resource path={quoteattr(path)}><method name="GET"><response status="200">{said}</response></method></resource>'
