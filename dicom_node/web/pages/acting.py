"""How a person acts: a form that is posted, read within bounds, done in a thread, and answered by going back to a page."""

from collections.abc import Callable, Mapping, Sequence
from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from dicom_node.domain import NodeError
from dicom_node.web.access import Role, allow
from dicom_node.web.access.roles import Endpoint
from dicom_node.web.pages.showing import Pages

_MOST_BYTES = 512 * 1024
_MOST_FIELDS = 2000

Form = Mapping[str, Sequence[str]]
Act = Callable[[Request, Form], Response]


def act(pages: Pages, role: Role, doing: Act) -> Endpoint:
    """Return the endpoint of something that is done: for a role and those above it; what it raises becomes a page that says so."""

    async def acted(request: Request) -> Response:
        form = await _form(request)
        try:
            return await run_in_threadpool(doing, request, form)
        except NodeError as error:
            return await run_in_threadpool(pages.failed, request, error)

    return allow(role, acted)


def field(form: Form, name: str, longest: int = 128) -> str:
    """Return a field, cut to what can be meant."""
    return next(iter(form.get(name, ())), "").strip()[:longest].replace("\0", "")


async def _form(request: Request) -> Form:
    """Read a form as browsers send those without files.

    Raises
    ------
    HTTPException: it is too long (413), of another kind (415), or none (400).
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise HTTPException(415)
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > _MOST_BYTES:
            raise HTTPException(413)
    try:
        return parse_qs(data.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="replace")
    except (UnicodeDecodeError, ValueError) as error:
        raise HTTPException(400) from error
