"""The first page: how far the day's studies came, what is stuck; and the search for anything."""

from datetime import datetime
from functools import partial

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from dicom_node.domain import Stuck
from dicom_node.store import Listing
from dicom_node.store.telling import workers
from dicom_node.web.access import Role
from dicom_node.web.access.login import local_path
from dicom_node.web.forms import Form
from dicom_node.web.pages.acting import act, field
from dicom_node.web.pages.showing import THEMES, Pages, asked, link, set_theme

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
            "workers": workers(store, now),
            "jobs": store.jobs.counts(),
            "deliveries": store.deliveries.counts(),
            "latest": store.overview.studies(Listing(), limit=10),
            "free_mb": store.archive.free_mb(),
        }
        return pages.page(request, "front.html", "", values)

    def theme(request: Request, form: Form) -> Response:
        chosen, to = field(form, "theme"), field(form, "to", 1024)
        return set_theme(chosen if chosen in THEMES else "auto", local_path(to))

    return [
        Route("/", pages.look(front), methods=["GET"]),
        Route("/find", pages.look(partial(found, pages)), methods=["GET"]),
        Route("/theme", act(pages, Role.VIEWER, theme), methods=["POST"]),
    ]


def found(pages: Pages, request: Request) -> Response:
    """Go to the job or the study that a person means, else to the list of what is meant."""
    text = asked(request, "q")
    store = pages.store
    if text.isascii() and text.isdecimal() and len(text) < 10 and store.jobs.exists(int(text)):
        return RedirectResponse(f"/jobs/{text}", status_code=303)
    studies = store.studies.find(text) if text else ()
    return RedirectResponse(f"/studies/{studies[0]}" if len(studies) == 1 else link("/studies", text=text), status_code=303)


def today(now: float) -> float:
    """Return when this day began, in this machine's time."""
    return datetime.fromtimestamp(now).replace(hour=0, minute=0, second=0, microsecond=0).timestamp()


def address_of(one: Stuck) -> str:
    """Return the page of something that is stuck."""
    return {"job": f"/jobs/{one.key}", "delivery": "/deliveries?state=DEAD", "study": f"/studies/{one.key}"}[one.kind]
