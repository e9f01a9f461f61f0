"""The worklist searched, page by page, the oldest first (PS3.18 11.9)."""

from itertools import islice

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dicom_node.domain import Refused
from dicom_node.web.access import Role, allow
from dicom_node.web.aside import SEEKING
from dicom_node.web.context import Context
from dicom_node.web.dicomweb.criteria import Malformed
from dicom_node.web.dicomweb.urls import PREFIX
from dicom_node.web.ups.keys import Search, search
from dicom_node.web.ups.outcomes import Outcome
from dicom_node.web.ups.telling import chosen, encoded, refused, told, warned

_MOST_BYTES = 32 << 20  # of one answer; what is beyond comes with the next page
_MORE = "There are additional results that can be requested"


def routes(context: Context) -> list[BaseRoute]:
    """Return the resource that is searched."""

    def searched(request: Request) -> Response:
        kind = chosen(request)
        try:
            asked = search(request.query_params.multi_items())
        except Malformed as error:
            raise HTTPException(400, str(error)) from error
        try:
            found, is_whole = _page(context, asked)
        except Refused as error:  # whatever status it has, the keys are at fault
            return refused(request, Outcome(400), str(error))
        response = told(found, kind, 200 if is_whole else 206) if found else Response(status_code=204)
        return warned(request, response, [*asked.warnings, *([] if is_whole else [_MORE])])

    return [Route(f"{PREFIX}/workitems", allow(Role.VIEWER, SEEKING.answers(searched), "worklist.read"), methods=["GET"])]


def _page(context: Context, asked: Search) -> tuple[list[bytes], bool]:
    """Return what is told of the steps of one page, and whether there are no more behind it."""
    if not asked.limit:
        return [], True
    found: list[bytes] = []
    size = 0
    for one in islice(context.worklist.matching(asked.keys), asked.offset, None):
        if len(found) >= asked.limit or size >= _MOST_BYTES:
            return found, False
        found.append(encoded(asked.told_of(one)))
        size += len(found[-1])
    return found, True
