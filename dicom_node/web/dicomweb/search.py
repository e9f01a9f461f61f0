"""The Search Transaction (QIDO-RS, PS3.18 10.6): studies, series and instances that match, page by page, newest studies first."""

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dicom_node.store import UNIQUE_KEYS, Level, Page
from dicom_node.web.access import Role, allow
from dicom_node.web.context import Context
from dicom_node.web.dicomweb import model
from dicom_node.web.dicomweb.accept import MediaType, negotiate
from dicom_node.web.dicomweb.criteria import Criteria, Malformed, criteria
from dicom_node.web.dicomweb.urls import PREFIX, accepted, service_url

JSON, PLAIN_JSON = MediaType(name="application/dicom+json"), MediaType(name="application/json")
XML = MediaType(name="application/dicom+xml", multipart=True)

_RESOURCES = {  # of PS3.18 Table 10.6.1-1
    "/studies": Level.STUDY,
    "/series": Level.SERIES,
    "/instances": Level.IMAGE,
    "/studies/{study}/series": Level.SERIES,
    "/studies/{study}/instances": Level.IMAGE,
    "/studies/{study}/series/{series}/instances": Level.IMAGE,
}
_PATH = {"study": "StudyInstanceUID", "series": "SeriesInstanceUID"}
_NAMES = {Level.STUDY: "studies", Level.SERIES: "series", Level.IMAGE: "instances"}


def routes(context: Context) -> list[BaseRoute]:
    """Return the six resources that can be searched."""
    found = ((f"{PREFIX}{path}", allow(Role.VIEWER, _searching(context, level), "dicomweb.read")) for path, level in _RESOURCES.items())
    return [Route(path, endpoint, methods=["GET"]) for path, endpoint in found]


def _searching(context: Context, level: Level) -> Any:
    def search(request: Request) -> Response:
        media_type = negotiate(*accepted(request), (JSON, PLAIN_JSON, XML))
        if media_type is None:
            raise HTTPException(406, "answers are application/dicom+json, or multipart/related of application/dicom+xml")
        above = {_PATH[name]: uid for name, uid in request.path_params.items()}
        try:
            asked = criteria(level, above, request.query_params.multi_items())
        except Malformed as error:
            raise HTTPException(400, str(error)) from error
        page = context.store.searches.page(level, asked.keys, offset=asked.offset, limit=asked.limit)
        if page.too_broad:
            raise HTTPException(413, "too much would have to be looked at: ask for less, by study or by series")
        return _answer(asked, page, service_url(request), media_type)

    return search


def _answer(asked: Criteria, page: Page, service: str, media_type: MediaType) -> Response:
    found = [asked.told_of(one) | {"RetrieveURL": retrieve_url(service, asked.level, one)} for one in page.found]
    if not found:
        return _warned(Response(status_code=204), asked, page, service)
    if media_type is XML:
        boundary = uuid.uuid4().hex
        kind = f'multipart/related; type="{XML.name}"; boundary={boundary}'
        return _warned(Response(_parts(found, boundary), headers={"Content-Type": kind}), asked, page, service)
    return _warned(Response(model.json_bytes(found), media_type=media_type.name), asked, page, service)


def _warned(response: Response, asked: Criteria, page: Page, service: str) -> Response:
    """Say what was not done, and what there is behind the page (8.3.4.4)."""
    more = () if page.all_counted and not page.remaining else (page.remaining if page.all_counted else f"at least {page.remaining}",)
    for text in (*asked.warnings, *(f"There are {count} additional results that can be requested" for count in more)):
        response.headers.append("Warning", f"299 {service}: {text}")
    return response


def retrieve_url(service: str, level: Level, found: Mapping[str, Any]) -> str:
    """Return where something that was found can be retrieved."""
    levels = (Level.STUDY, Level.SERIES, Level.IMAGE)
    return "/".join([service, *(f"{_NAMES[one]}/{found[UNIQUE_KEYS[one]]}" for one in levels[: levels.index(level) + 1])])


def _parts(found: Iterable[Mapping[str, Any]], boundary: str) -> bytes:
    """Return each result as a part of its own (PS3.18 8.7.1)."""
    head = f"--{boundary}\r\nContent-Type: {XML.name}\r\n\r\n".encode()
    return b"".join(part for one in found for part in (head, model.xml_of(one), b"\r\n")) + f"--{boundary}--\r\n".encode()
