"""The first page: how far the day's studies came, what is stuck; and the search for anything."""

from datetime import datetime

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from dicom_node.domain import Stuck
from dicom_node.store import Listing
from dicom_node.web.access import Role
from dicom_node.web.pages.acting import Form, act, field
from dicom_node.web.pages.showing import THEMES, Pages, asked, link, set_theme

_ALIVE_S = 20.0  # a worker is alive that was seen this recently
_WAITS = {  # what a study waits for that came to a step
    "received": "not judged complete",
    "complete": "no analysis asked for",
    "matched": "waiting for a worker",
    "running": "running or being sent",
    "delivered": "not yet committed",
    "committed": "",
}


def routes(pages: Pages) -> list[BaseRoute]:
    """Return the first page, the search, and the switch between light and dark."""

    def front(request: Request) -> Response:
        now, store = pages.clock(), pages.store
        store.holdings.refresh()
        values = {
            "funnel": store.overview.funnel(today(now), pages.site.config.committing),
            "waits": _WAITS,
            "stuck": [(one, address_of(one)) for one in store.overview.stuck(now)],
            "workers": [one | {"alive": now - one["seen_at"] < _ALIVE_S} for one in store.jobs.workers()],
            "jobs": store.jobs.counts(),
            "deliveries": store.deliveries.counts(),
            "latest": store.overview.studies(Listing(), limit=10),
            "free_mb": store.archive.free_mb(),
        }
        return pages.page(request, "front.html", "", values)

    def find(request: Request) -> Response:
        text = asked(request, "q")
        store = pages.store
        if text.isascii() and text.isdecimal() and len(text) < 10 and store.jobs.exists(int(text)):
            return RedirectResponse(f"/jobs/{text}", status_code=303)
        found = store.studies.find(text) if text else ()
        return RedirectResponse(f"/studies/{found[0]}" if len(found) == 1 else link("/studies", text=text), status_code=303)

    def theme(request: Request, form: Form) -> Response:
        chosen, to = field(form, "theme"), field(form, "to", 1024)
        return set_theme(chosen if chosen in THEMES else "auto", to if is_local(to) else "/")

    return [
        Route("/", pages.look(front), methods=["GET"]),
        Route("/find", pages.look(find), methods=["GET"]),
        Route("/theme", act(pages, Role.VIEWER, theme), methods=["POST"]),
    ]


def today(now: float) -> float:
    """Return when this day began, in this machine's time."""
    return datetime.fromtimestamp(now).replace(hour=0, minute=0, second=0, microsecond=0).timestamp()


def address_of(one: Stuck) -> str:
    """Return the page of something that is stuck."""
    return {"job": f"/jobs/{one.key}", "delivery": "/deliveries?state=DEAD", "study": f"/studies/{one.key}"}[one.kind]


def is_local(address: str) -> bool:
    """Say whether an address is a page of this node: a path, whatever a browser makes of slashes and backslashes."""
    return address.startswith("/") and not address.startswith(("//", "/\\")) and address.isprintable() and "\\" not in address
