"""What a person before a browser is told where an endpoint says no: a page, for those who may see one."""

from collections.abc import Awaitable, Callable

from fastapi.exception_handlers import http_exception_handler
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from dicom_node.web.access import Role, person
from dicom_node.web.access.headers import API, DICOMWEB, VIEWER, is_under
from dicom_node.web.context import Context
from dicom_node.web.pages.showing import Pages

_WORDS = {
    403: ("You may not do this.", "Ask those who maintain the node; the footer says as whom you are here."),
    404: ("There is no such page.", "Follow a link, or search."),
    405: ("That is not done so.", "Use the buttons of the pages."),
    413: ("That was too long.", "Send less."),
    415: ("That was no form.", "Use the forms of the pages."),
}


def handler(context: Context) -> Callable[[Request, Exception], Awaitable[Response]]:
    """Return what answers an HTTPException: in JSON to programs and to nobody we know, else by a page."""
    pages = Pages(context)

    async def answered(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        if error.status_code not in _WORDS or not sees_pages(request):
            return await http_exception_handler(request, error)
        said, hint = _WORDS[error.status_code]
        values = {"said": said, "hint": hint}
        answer = await run_in_threadpool(pages.page, request, "failed.html", "This did not work", values, status=error.status_code)
        answer.headers.update(error.headers or {})
        return answer

    return answered


def sees_pages(request: Request) -> bool:
    """Say whether somebody who may look at pages asks for one."""
    by_person = "text/html" in request.headers.get("accept", "") and person(request).role >= Role.VIEWER
    return by_person and not is_under(request.url.path, API, DICOMWEB, VIEWER)
