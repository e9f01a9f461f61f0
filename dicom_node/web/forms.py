"""A form as browsers send those without files, read within bounds."""

from collections.abc import Mapping, Sequence
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.requests import Request

from dicom_node.web.access import forgery

Form = Mapping[str, Sequence[str]]


async def read_form(request: Request, *, most_bytes: int, most_fields: int) -> Form:
    """Return the values of each field.

    Raises
    ------
    HTTPException: it is too long (413), of another kind (415), or none (400).
    """
    if not forgery.is_form(request.headers):
        raise HTTPException(415, "send a form: application/x-www-form-urlencoded")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most_bytes:
            raise HTTPException(413, "a form is not so long")
    try:
        return parse_qs(body.decode(), keep_blank_values=True, max_num_fields=most_fields)
    except ValueError:
        raise HTTPException(400, "this is no form") from None
