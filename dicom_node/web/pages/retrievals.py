"""Retrievals: what is fetched from archives, and asking for one more study."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dicom_node.domain import Rejected, RetrievalState, is_uid
from dicom_node.web.access import Role, person
from dicom_node.web.forms import Form
from dicom_node.web.pages.acting import act, field
from dicom_node.web.pages.showing import Pages, asked, back, number, one_of

_MOST = 200  # the newest, which are listed


def routes(pages: Pages) -> list[BaseRoute]:
    """Return the pages of retrievals."""
    store = pages.store
    archives = [name for name, remote in pages.site.config.remotes.items() if remote.retrieve != "none"]

    def listed(request: Request) -> Response:
        query = {name: asked(request, name) for name in ("state", "remote")}
        rows = store.retrievals.list(limit=_MOST, state=one_of(RetrievalState, query["state"]), remote=query["remote"])
        choices: dict[str, Any] = {"states": list(RetrievalState), "archives": archives, "counts": store.retrievals.counts()}
        return pages.page(request, "retrievals.html", "Retrievals", {"rows": rows, "query": query} | choices)

    def ask(request: Request, form: Form) -> Response:
        remote, uid = field(form, "remote"), field(form, "study")
        if remote not in archives:
            raise Rejected("that is not a remote that studies are fetched from", hint='Give it retrieve = "move", "get" or "web".')
        if not is_uid(uid):
            raise Rejected("that is no Study Instance UID", hint="An archive is asked for the whole UID.")
        made = store.retrievals.ask(remote, uid, who=person(request).name, why="a person asked for it", now=pages.clock(), by_person=True)
        return back("/retrievals", f"Retrieval {made.id} asks {remote} for it.")

    def cancel(request: Request, form: Form) -> Response:
        key = number(request.path_params["id"])
        store.retrievals.cancel(key, who=person(request).name, now=pages.clock())
        return back("/retrievals", f"Retrieval {key} is canceled.")

    return [
        Route("/retrievals", pages.look(listed), methods=["GET"]),
        Route("/retrievals", act(pages, Role.OPERATOR, ask), methods=["POST"]),
        Route("/retrievals/{id}/cancel", act(pages, Role.OPERATOR, cancel), methods=["POST"]),
    ]
