"""Deliveries with their dead letters, and what lies in quarantine."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dicom_node.domain import DeliveryState, Rejected
from dicom_node.web.access import Role, person
from dicom_node.web.forms import Form
from dicom_node.web.pages.acting import act, field
from dicom_node.web.pages.showing import PAGE_ROWS, Pages, asked, back, link, number, one_of, page_asked, turned

_QUARANTINED = 200  # the newest, which are listed


def routes(pages: Pages) -> list[BaseRoute]:
    """Return the pages of deliveries, and of the quarantine."""
    return [*_seen(pages), *_done(pages)]


def _seen(pages: Pages) -> list[BaseRoute]:
    store = pages.store

    def listed(request: Request) -> Response:
        query = {name: asked(request, name) for name in ("state", "destination")}
        page, chosen = page_asked(request), one_of(DeliveryState, query["state"])
        rows = store.overview.deliveries(limit=PAGE_ROWS + 1, offset=(page - 1) * PAGE_ROWS, state=chosen, name=query["destination"])
        links = turned("/deliveries", page, len(rows) > PAGE_ROWS, query)
        counts = store.deliveries.counts()
        choices: dict[str, Any] = {"states": list(DeliveryState), "destinations": sorted({*pages.site.config.remotes, *counts}), "counts": counts}
        return pages.page(request, "deliveries.html", "Deliveries", {"rows": rows[:PAGE_ROWS], "query": query} | choices | links)

    def quarantine(request: Request) -> Response:
        rows = store.instances.quarantined(limit=_QUARANTINED)
        return pages.page(request, "quarantine.html", "Quarantine", {"rows": rows, "most": _QUARANTINED})

    return [Route("/deliveries", pages.look(listed), methods=["GET"]), Route("/quarantine", pages.look(quarantine), methods=["GET"])]


def _done(pages: Pages) -> list[BaseRoute]:
    store = pages.store

    def replay(request: Request, form: Form) -> Response:
        who, now, name = person(request).name, pages.clock(), field(form, "of")
        if name:
            count = store.deliveries.replay(who=who, now=now, name=name)
        else:
            count = sum(store.deliveries.replay(who=who, now=now, delivery_id=key) for key in chosen(form))
        for one in [name] if name in pages.site.config.remotes else pages.site.config.remotes:
            store.deliveries.try_now(one)
        return back(_list(form), f"{count} deliveries are due again.")

    def cancel(request: Request, form: Form) -> Response:
        keys = chosen(form)
        for key in keys:
            store.deliveries.cancel(key, who=person(request).name, now=pages.clock())
        return back(_list(form), f"{len(keys)} deliveries are canceled.")

    return [
        Route("/deliveries/replay", act(pages, Role.OPERATOR, replay), methods=["POST"]),
        Route("/deliveries/cancel", act(pages, Role.OPERATOR, cancel), methods=["POST"]),
    ]


def chosen(form: Form) -> list[int]:
    """Return the deliveries that a person means: the one whose button was pressed, else those that were ticked.

    Raises
    ------
    Rejected: none.
    """
    keys = [number(text) for text in (form.get("one") or form.get("delivery") or ())]
    if not keys:
        raise Rejected("no delivery was chosen", hint="Tick some, or press the button of one.")
    return list(dict.fromkeys(keys))


def _list(form: Form) -> str:
    """Return the list from which a form was posted."""
    return link("/deliveries", state=field(form, "state"), destination=field(form, "destination"))
