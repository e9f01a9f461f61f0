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
_SUBSCRIBER = "workitems/{UPSInstanceUID}/subscribers/{AETitle}"
_RENDERED = "image/jpeg|image/png|image/gif|text/html|text/plain|application/pdf"
_THUMBNAIL = "image/jpeg|image/png"
_STORED = "application/dicom+json|application/dicom+xml"
_RESOURCES: Mapping[str, Mapping[str, str]] = {  # resource -> method -> representations of the answer
    "studies": {"GET": _METADATA, "POST": _STORED},
    "series": {"GET": _METADATA},
    "instances": {"GET": _METADATA},
    _STUDY: {"GET": _FILES, "POST": _STORED},
    f"{_STUDY}/series": {"GET": _METADATA},
    f"{_STUDY}/instances": {"GET": _METADATA},
    _SERIES: {"GET": _FILES},
    f"{_SERIES}/instances": {"GET": _METADATA},
    _INSTANCE: {"GET": f"{_FILES}|application/dicom"},
    **{f"{one}/metadata": {"GET": _METADATA} for one in (_STUDY, _SERIES, _INSTANCE)},
    **{f"{one}/rendered": {"GET": _RENDERED} for one in (_STUDY, _SERIES, _INSTANCE, f"{_INSTANCE}/frames/{{frames}}")},
    **{f"{one}/thumbnail": {"GET": _THUMBNAIL} for one in (_STUDY, _SERIES, _INSTANCE, f"{_INSTANCE}/frames/{{frames}}")},
    f"{_INSTANCE}/frames/{{frames}}": {"GET": _OCTETS},
    f"{_INSTANCE}/bulkdata/{{path}}": {"GET": _OCTETS},
    f"{_INSTANCE}/pixeldata": {"GET": _OCTETS},
    "workitems": {"GET": _METADATA, "POST": ""},
    "workitems/{UPSInstanceUID}": {"GET": _METADATA, "POST": ""},
    "workitems/{UPSInstanceUID}/state": {"PUT": ""},
    "workitems/{UPSInstanceUID}/cancelrequest": {"POST": ""},
    _SUBSCRIBER: {"POST": "", "DELETE": ""},
    f"{_SUBSCRIBER}/suspend": {"POST": ""},
    "subscribers/{AETitle}": {"GET": ""},
}
_STATUSES: Mapping[tuple[str, str], int] = {  # of what is done and is not 200
    ("workitems", "POST"): 201,
    ("workitems/{UPSInstanceUID}/cancelrequest", "POST"): 202,
    (_SUBSCRIBER, "POST"): 201,
    ("subscribers/{AETitle}", "GET"): 101,
}
_TAKEN: Mapping[tuple[str, str], str] = {  # what a request brings
    **dict.fromkeys((("studies", "POST"), (_STUDY, "POST")), "multipart/related"),
    **dict.fromkeys((("workitems", "POST"), ("workitems/{UPSInstanceUID}", "POST")), _STORED),
    **dict.fromkeys((("workitems/{UPSInstanceUID}/state", "PUT"), ("workitems/{UPSInstanceUID}/cancelrequest", "POST")), _STORED),
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
    """Return what can be asked below a URL."""
    resources = "".join(_resource(path, methods) for path, methods in _RESOURCES.items())
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<application xmlns="http://wadl.dev.java.net/2009/02">'
        f"<resources base={quoteattr(service)}>{resources}</resources></application>\n"
    )


def _resource(path: str, methods: Mapping[str, str]) -> str:
    return f"<resource path={quoteattr(path)}>{''.join(_method(path, name, types) for name, types in methods.items())}</resource>"


def _method(path: str, name: str, types: str) -> str:
    taken = _TAKEN.get((path, name), "")
    request = f"<request>{_representations(taken)}</request>" if taken else ""
    status = _STATUSES.get((path, name), 200)
    return f'<method name="{name}">{request}<response status="{status}">{_representations(types)}</response></method>'


def _representations(types: str) -> str:
    return "".join(f"<representation mediaType={quoteattr(one)}/>" for one in types.split("|") if one)
