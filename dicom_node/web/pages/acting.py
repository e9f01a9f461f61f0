"""How a person acts: a form that is posted, read within bounds, done in a thread, and answered by going back to a page."""

from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from dicom_node.domain import NodeError
from dicom_node.web.access import Role, allow
from dicom_node.web.access.roles import Endpoint
from dicom_node.web.forms import Form, read_form
from dicom_node.web.pages.showing import Pages

_MOST_BYTES = 512 * 1024
_MOST_FIELDS = 2000

Act = Callable[[Request, Form], Response]


def act(pages: Pages, role: Role, doing: Act) -> Endpoint:
    """Return the endpoint of something that is done: for a role and those above it; what it raises becomes a page that says so."""

    async def acted(request: Request) -> Response:
        form = await read_form(request, most_bytes=_MOST_BYTES, most_fields=_MOST_FIELDS)
        try:
            return await run_in_threadpool(doing, request, form)
        except NodeError as error:
            return await run_in_threadpool(pages.failed, request, error)

    return allow(role, acted)


def field(form: Form, name: str, longest: int = 128) -> str:
    """Return a field, cut to what can be meant."""
    return next(iter(form.get(name, ())), "").strip()[:longest].replace("\0", "")
