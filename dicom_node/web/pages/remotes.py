"""Remotes: who they are, how they are doing, and whether they answer."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dicom_node.config import Remote
from dicom_node.domain import Rejected
from dicom_node.guard import probe
from dicom_node.store import Event
from dicom_node.web.access import Role, person
from dicom_node.web.forms import Form
from dicom_node.web.pages.acting import act
from dicom_node.web.pages.showing import Pages, back


def routes(pages: Pages) -> list[BaseRoute]:
    """Return the pages of remotes."""

    def listed(request: Request) -> Response:
        return _shown(request)

    def _shown(request: Request, asked_of: str = "", findings: Any = ()) -> Response:
        sent, fetched = pages.store.deliveries.counts(), pages.store.retrievals.counts()
        rows = [told(pages, name, remote, sent.get(name, {}), fetched.get(name, {})) for name, remote in pages.site.config.remotes.items()]
        return pages.page(request, "remotes.html", "Remotes", {"rows": rows, "asked_of": asked_of, "findings": findings})

    def echo(request: Request, form: Form) -> Response:
        name = _named(pages, request)
        findings = tuple(probe(name, pages.site.config.remotes[name], pages.site.config.node, pages.clock()))
        return _shown(request, asked_of=name, findings=findings)

    def try_now(request: Request, form: Form) -> Response:
        name = _named(pages, request)
        pages.store.deliveries.try_now(name)
        why = f"what waits for {name} is tried at once"
        pages.store.journal.write(Event(at=pages.clock(), study_instance_uid="", kind="try now", who=person(request).name, why=why))
        return back("/remotes", f"What waits for {name} is tried at once.")

    return [
        Route("/remotes", pages.look(listed), methods=["GET"]),
        Route("/remotes/{name}/echo", act(pages, Role.OPERATOR, echo), methods=["POST"]),
        Route("/remotes/{name}/try", act(pages, Role.OPERATOR, try_now), methods=["POST"]),
    ]


def _named(pages: Pages, request: Request) -> str:
    name = str(request.path_params["name"])
    if name not in pages.site.config.remotes:
        raise Rejected("there is no such remote", hint="Name it in [remotes].")
    return name


def told(pages: Pages, name: str, remote: Remote, sent: dict[str, int], fetched: dict[str, int]) -> dict[str, Any]:
    """Return what is told of a remote."""
    doing = pages.store.deliveries.destination(name)
    return {
        "name": name,
        "ae": str(remote.ae),
        "may": sorted(remote.may),
        "tls": remote.tls is not None,
        "retrieve": remote.retrieve,
        "receives": "receive" in remote.may,
        "doing": doing,
        "sent": sent,
        "fetched": fetched,
    }
