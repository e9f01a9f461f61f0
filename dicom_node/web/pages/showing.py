"""How a page is made and answered: templates that escape everything, who looks, what was just done, and what went wrong in words."""

import base64
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Match

from dicom_node.domain import NodeError, Rejected, Transient, words
from dicom_node.web.access import Role, allow, person
from dicom_node.web.access.roles import Endpoint
from dicom_node.web.context import Context
from dicom_node.web.dress import address
from dicom_node.web.pages import static

PAGE_ROWS = 50
_MOST_PAGES = 2000
_FLASH, _THEME = "dicom_node_flash", "dicom_node_theme"
_FLASH_CHARACTERS = 300
THEMES = ("auto", "light", "dark")
_TEMPLATES = Path(__file__).parents[1] / "templates"
_NEVER_KEPT = {"Cache-Control": "no-store"}  # a page may name a patient


class Pages:
    """Makes pages of one node."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.site, self.store, self.clock = context.site, context.store, context.clock
        self._templates = Environment(
            loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        told = {"moment": words.moment, "ago": words.ago, "span": words.span, "counted": words.counted, "took": words.took, "says": words.says}
        self._templates.filters |= told | {"state_of": words.state_of, "bytes": in_bytes, "name": person_name, "date": dicom_date, "tail": tail}
        self._templates.globals |= {"link": link, "static": address, "version": static.VERSION}

    def page(self, request: Request, template: str, title: str, values: Mapping[str, Any], *, status: int = 200) -> Response:
        """Return a page as HTML."""
        who, theme = person(request), request.cookies.get(_THEME, "auto")
        said = _flash_of(request)
        shared = {
            "title": title,
            "now": self.clock(),
            "here": request.url.path,
            "node": self.site.config.node,
            "who": who,
            "operates": who.role >= Role.OPERATOR,
            "administers": who.role >= Role.ADMIN,
            "logged_in": bool(getattr(request.state, "logged_in", False)),
            "csrf": str(getattr(request.state, "csrf", "")),
            "theme": theme if theme in THEMES else "auto",
            "flash": said,
            "q": "",
            "has": lambda path: resolves(request, path),
        }
        text = self._templates.get_template(template).render({**shared, **values})
        response = HTMLResponse(text, status_code=status, headers=_NEVER_KEPT)
        if said:
            response.delete_cookie(_FLASH)
        return response

    def look(self, endpoint: Callable[[Request], Response], role: Role = Role.VIEWER) -> Endpoint:
        """Return the endpoint of a page that a role and those above it may see; what it raises becomes a page that says so."""

        def looked(request: Request) -> Response:
            try:
                return endpoint(request)
            except NodeError as error:
                return self.failed(request, error)

        return allow(role, looked)

    def failed(self, request: Request, error: NodeError) -> Response:
        """Say on a page what went wrong and what to do."""
        missing = 404 if request.method in ("GET", "HEAD") else 409
        status = 503 if isinstance(error, Transient) else missing if isinstance(error, Rejected) else 400
        return self.page(request, "failed.html", "This did not work", {"said": str(error), "hint": error.hint}, status=status)


def back(to: str, said: str) -> Response:
    """Return to a page after something was done, which it says once."""
    response = RedirectResponse(to, status_code=303, headers=_NEVER_KEPT)
    kept = base64.urlsafe_b64encode(said[:_FLASH_CHARACTERS].encode()).decode()
    response.set_cookie(_FLASH, kept, max_age=60, httponly=True, samesite="strict")
    return response


def set_theme(theme: str, to: str) -> Response:
    """Keep how pages are to look, and return to one."""
    response = RedirectResponse(to, status_code=303, headers=_NEVER_KEPT)
    response.set_cookie(_THEME, theme, max_age=365 * 86400, httponly=True, samesite="strict")
    return response


def _flash_of(request: Request) -> str:
    with contextlib.suppress(ValueError):
        return base64.urlsafe_b64decode(request.cookies.get(_FLASH, "")).decode()[:_FLASH_CHARACTERS]
    return ""


def resolves(request: Request, path: str) -> bool:
    """Say whether the node answers at a path."""
    scope = {"type": "http", "method": "GET", "path": path, "root_path": "", "headers": []}
    return any(route.matches(scope)[0] is Match.FULL for route in request.app.router.routes)


# --------------------------------------------------------------------------------------------------- what is asked for


def asked(request: Request, name: str, longest: int = 128) -> str:
    """Return a value of the query, cut to what can be meant."""
    return request.query_params.get(name, "").strip()[:longest].replace("\0", "")


def page_asked(request: Request) -> int:
    """Return which page of a list is asked for, counted from 1."""
    text = asked(request, "page", 8)
    return min(max(int(text), 1), _MOST_PAGES) if text.isascii() and text.isdecimal() else 1


def number(text: str) -> int:
    """Return the number of a job, a delivery or a retrieval.

    Raises
    ------
    Rejected: it is none.
    """
    if not (text.isascii() and text.isdecimal() and len(text) < 16):
        raise Rejected("that is no number of anything here", hint="Follow a link, or search.")
    return int(text)


def one_of(kind: Any, text: str) -> Any:
    """Return the member of an enumeration that a text names, None when it names none."""
    return next((one for one in kind if one.value == text), None)


def link(path: str, **query: object) -> str:
    """Return an address below this node, without the keys that say nothing."""
    said = {key: str(value) for key, value in query.items() if value not in ("", None, 0, False)}
    return f"{path}?{urlencode(said)}" if said else path


def turned(path: str, page: int, more: bool, query: Mapping[str, object]) -> dict[str, str]:
    """Return the links to the page before and the page after."""
    before = link(path, **{**query, "page": page - 1}) if page > 1 else ""
    return {"before": before, "after": link(path, **{**query, "page": page + 1}) if more else ""}


# --------------------------------------------------------------------------------------------------------- what is shown


def in_bytes(size: float) -> str:
    """Write a size in the unit that suits it."""
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} TB"


def person_name(value: object) -> str:
    """Write a name (VR PN) as people do: its first group, without carets."""
    first = str(value or "").split("=")[0]
    return ", ".join(part.replace("^", " ").strip() for part in first.split("^", 1) if part.strip("^ "))


def dicom_date(value: object) -> str:
    """Write a date (VR DA) with dashes."""
    text = str(value or "")
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if len(text) == 8 and text.isdecimal() else text


def tail(uid: object) -> str:
    """Write the end of a UID, which tells it from others on a page."""
    text = str(uid)
    return text if len(text) <= 14 else f"…{text[-12:]}"
