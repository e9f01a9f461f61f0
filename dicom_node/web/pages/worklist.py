"""The worklist: what was asked for, by whom, who does it and why it ended; who watches; and asking for one more analysis."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from pydicom import Dataset
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dicom_node.domain import FILTERED_SUBSCRIPTION, GLOBAL_SUBSCRIPTION, JobState, Priority, Rejected, Workitem, is_ae_title, is_uid
from dicom_node.store import Event
from dicom_node.web.access import Role, person
from dicom_node.web.forms import Form
from dicom_node.web.pages.acting import act, field
from dicom_node.web.pages.showing import PAGE_ROWS, Pages, asked, back, link, number, one_of
from dicom_node.web.workitems import TOLD, code_of, label_of


def routes(pages: Pages) -> list[BaseRoute]:
    """Return the page of the worklist, and what is done there and on a study's page."""
    return [Route("/worklist", pages.look(_listed(pages)), methods=["GET"]), *_done(pages)]


def _listed(pages: Pages) -> Any:
    store = pages.store

    def listed(request: Request) -> Response:
        before = asked(request, "before", 16)
        state = one_of(JobState, asked(request, "state"))
        found = store.workitems.newest(limit=PAGE_ROWS + 1, before=number(before) if before else 0, state=state, tags=TOLD)
        shown = found[:PAGE_ROWS]
        values = {
            "rows": [row_of(item) for _, item in shown],
            "state": state.value if state else "",
            "states": list(JobState),
            "counts": store.workitems.counts(),
            "watchers": watchers(pages),
            "newer": link("/worklist", state=state.value if state else "") if before else "",
            "older": link("/worklist", state=state.value if state else "", before=shown[-1][0]) if len(found) > PAGE_ROWS else "",
        }
        return pages.page(request, "worklist.html", "Worklist", values)

    return listed


def row_of(item: Workitem) -> Mapping[str, Any]:
    """Return what the page tells of a workitem."""
    job = item.job
    since = item.changed_at if job is None else job.ended_at or job.started_at or item.created_at
    return {
        "item": item,
        "label": label_of(item),
        "code": code_of(item)[1],
        "since": since,
    }


def watchers(pages: Pages) -> list[Mapping[str, Any]]:
    """Return who watches, by which channel, what, how much of it is locked, and how much is still to be told."""
    store = pages.store.subscriptions
    kinds: dict[str, str] = {}
    for uid, said in ((FILTERED_SUBSCRIPTION, "those that match"), (GLOBAL_SUBSCRIPTION, "all")):
        kinds |= {one.receiver: said for one in store.list(uid=uid)}
    return [
        {"receiver": receiver, "channel": channel, "what": kinds.get(receiver, "some"), **counted}
        for (receiver, channel), counted in sorted(store.watched().items())
    ]


def _done(pages: Pages) -> list[BaseRoute]:
    return [
        Route("/worklist/subscribers/end", act(pages, Role.OPERATOR, partial(_end, pages)), methods=["POST"]),
        Route("/worklist/{uid}/cancel", act(pages, Role.OPERATOR, partial(_cancel, pages)), methods=["POST"]),
        Route("/studies/{uid}/analyses", act(pages, Role.OPERATOR, partial(_analyse, pages)), methods=["POST"]),
    ]


def _cancel(pages: Pages, request: Request, form: Form) -> Response:
    uid = str(request.path_params["uid"])
    if not is_uid(uid):
        raise Rejected("there is no such workitem", hint="Follow a button of the list.")
    said = Dataset()
    said.ReasonForCancellation = field(form, "reason", 256) or "a person asked for it"
    pages.context.worklist.ask_to_cancel(uid, said, who=person(request).name)
    item = pages.store.workitems.get(uid)
    ended = item is not None and item.state is JobState.CANCELED
    return back("/worklist", "It is canceled." if ended else "Who performs it is asked to cancel it.")


def _end(pages: Pages, request: Request, form: Form) -> Response:
    receiver = field(form, "receiver", 16)
    if not is_ae_title(receiver):
        raise Rejected("that is no AE title", hint="Press a button of the list.")
    pages.context.worklist.unsubscribe(GLOBAL_SUBSCRIPTION, receiver)
    why = f"{receiver}: a person ended what it watches"
    pages.store.journal.write(Event(at=pages.clock(), study_instance_uid="", kind="watcher ended", who=person(request).name, why=why))
    return back("/worklist", f"{receiver} watches no more, and locks nothing.")


def _analyse(pages: Pages, request: Request, form: Form) -> Response:
    uid, priority = str(request.path_params["uid"]), Priority.__members__.get(field(form, "priority"), Priority.MEDIUM)
    if not is_uid(uid):
        raise Rejected("there is no such study here", hint="Search for it.")
    model = field(form, "model")
    pages.context.worklist.ask_for(model, uid, priority, requester=person(request).name)
    return back("/worklist", f"{model} is asked for.")
