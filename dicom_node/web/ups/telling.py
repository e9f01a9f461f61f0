"""How an answer about workitems is written: in JSON, or as parts of XML; with the Warning that belongs to it."""

import json
import uuid
from collections.abc import Iterable, Sequence

from pydicom import Dataset
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dicom_node.domain import Refused
from dicom_node.web.dicomweb.accept import MediaType, negotiate
from dicom_node.web.dicomweb.native import native_xml_of
from dicom_node.web.dicomweb.urls import accepted, service_url
from dicom_node.web.ups.outcomes import Asked, Outcome, outcome

_JSON, _PLAIN_JSON = MediaType(name="application/dicom+json"), MediaType(name="application/json")
_XML = MediaType(name="application/dicom+xml", multipart=True)


def chosen(request: Request) -> MediaType:
    """Return the representation that a client accepts.

    Raises
    ------
    HTTPException: none of those that there are (406).
    """
    found = negotiate(*accepted(request), (_JSON, _PLAIN_JSON, _XML))
    if found is None:
        raise HTTPException(406, "answers are application/dicom+json, or multipart/related of application/dicom+xml")
    return found


def encoded(one: Dataset) -> bytes:
    """Return a data set as an object of the DICOM JSON Model."""
    return json.dumps(one.to_json_dict(), ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def told(models: Sequence[bytes], kind: MediaType, status: int = 200) -> Response:
    """Answer with data sets: an array of them (PS3.18 F.2.1.1), or each as a part (8.7.1)."""
    if kind is not _XML:
        return Response(b"[" + b",".join(models) + b"]", status_code=status, media_type=kind.name)
    boundary = uuid.uuid4().hex
    head = f"--{boundary}\r\nContent-Type: {_XML.name}\r\n\r\n".encode()
    parts = b"".join(part for one in models for part in (head, native_xml_of(one), b"\r\n"))
    content_type = f'multipart/related; type="{_XML.name}"; boundary={boundary}'
    return Response(parts + f"--{boundary}--\r\n".encode(), status_code=status, headers={"Content-Type": content_type})


def warned(request: Request, response: Response, texts: Iterable[str]) -> Response:
    """Say beside an answer what was not done, or why not (PS3.18 8.5.2)."""
    for text in texts:
        if text:
            response.headers.append("Warning", f"299 {service_url(request)}: {text}")
    return response


def done(request: Request, asked: Asked, status: int, headers: dict[str, str] | None = None) -> Response:
    """Answer what a status of DIMSE says."""
    found = outcome(asked, status)
    if found.code >= 400:
        return refused(request, found, found.warning)
    return warned(request, Response(status_code=found.code, headers=headers), [found.warning])


def not_done(request: Request, asked: Asked, error: Refused, *, has_transaction: bool = False) -> Response:
    """Answer what a refusal says."""
    return refused(request, outcome(asked, error.status, has_transaction=has_transaction), str(error))


def refused(request: Request, found: Outcome, why: str) -> Response:
    """Say why something is not done."""
    headers = {"Retry-After": "60"} if found.code == 503 else None
    return warned(request, JSONResponse({"error": why, "hint": ""}, status_code=found.code, headers=headers), [found.warning])
