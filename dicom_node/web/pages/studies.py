"""Studies: the list that is searched, and one study's walk, step by step, with who and why."""

import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dicom_node.domain import Rejected, StudyState, is_uid
from dicom_node.domain.words import answers, step_of
from dicom_node.store import Event, Level, Listing, Step
from dicom_node.web.access import Role, person
from dicom_node.web.forms import Form
from dicom_node.web.ohif import is_here
from dicom_node.web.pages.acting import act, field
from dicom_node.web.pages.front import today
from dicom_node.web.pages.showing import PAGE_ROWS, Pages, asked, back, one_of, page_asked, turned

_FOUND = 200  # studies of a patient that are listed


def routes(pages: Pages) -> list[BaseRoute]:
    """Return the pages of studies."""
    return [*_lists(pages), *_one(pages)]


def _lists(pages: Pages) -> list[BaseRoute]:
    def listed(request: Request) -> Response:
        query = {name: asked(request, name) for name in ("text", "from", "to", "state", "model", "received", "step", "waiting")}
        page = page_asked(request)
        pages.store.holdings.refresh()
        wanted, committing = listing(query, pages.clock()), pages.site.config.committing
        rows = pages.store.overview.studies(wanted, limit=PAGE_ROWS + 1, offset=(page - 1) * PAGE_ROWS, committing=committing)
        values = {"rows": rows[:PAGE_ROWS], "query": query, "number": pages.store.overview.count(wanted, committing), "by_patient": False}
        return _list(request, values | turned("/studies", page, len(rows) > PAGE_ROWS, query))

    def of_patient(request: Request, form: Form) -> Response:
        keys = {"PatientID": field(form, "patient_id", 64), "PatientName": field(form, "patient_name", 64)}
        keys = {keyword: text for keyword, text in keys.items() if text}
        if not keys:
            raise Rejected("neither a patient's ID nor a name was given", hint="Fill in one of them; * stands for anything.")
        said = (one for one in pages.store.holdings.find(Level.STUDY, keys) if all(map(one.get, keys)))  # not those of whom it is not known
        found = tuple(str(one["StudyInstanceUID"]) for one in islice(said, _FOUND))
        rows = pages.store.overview.studies(Listing(uids=found), limit=_FOUND)
        return _list(request, {"rows": rows, "query": {}, "number": len(rows), "by_patient": True, "before": "", "after": ""})

    def _list(request: Request, values: Mapping[str, Any]) -> Response:
        choices = {"states": list(StudyState), "models": sorted(pages.site.models), "steps": list(Step)}
        return pages.page(request, "studies.html", "Studies", {**values, **choices})

    return [
        Route("/studies", pages.look(listed), methods=["GET"]),
        Route("/studies", act(pages, Role.VIEWER, of_patient), methods=["POST"]),
    ]


def _one(pages: Pages) -> list[BaseRoute]:
    def one(request: Request) -> Response:
        uid = known(pages, request)
        return pages.page(request, "study.html", f"Study …{uid[-12:]}", walk_of(pages, uid))

    def judge(request: Request, form: Form) -> Response:
        uid = known(pages, request)
        now, who = pages.clock(), person(request).name
        pages.store.studies.reopen(uid, who=who, why="a person asked for it to be judged again", now=now)
        return back(f"/studies/{uid}", "It is judged again by the rules of now.")

    def confirm(request: Request) -> Response:
        uid = known(pages, request)
        return pages.page(request, "purge.html", "Remove a study", {"uid": uid, "row": pages.store.overview.entry(uid)})

    def purge(request: Request, form: Form) -> Response:
        uid = known(pages, request)
        if field(form, "confirmed") != "yes":
            raise Rejected("it was not confirmed", hint="Tick the box that says so.")
        files = pages.store.studies.purge(uid, who=person(request).name, why="a person asked for it", now=pages.clock())
        return back("/studies", f"The study is removed, {files} files with it.")

    return [
        Route("/studies/{uid}", pages.look(one), methods=["GET"]),
        Route("/studies/{uid}/judge", act(pages, Role.OPERATOR, judge), methods=["POST"]),
        Route("/studies/{uid}/purge", pages.look(confirm, Role.ADMIN), methods=["GET"]),
        Route("/studies/{uid}/purge", act(pages, Role.ADMIN, purge), methods=["POST"]),
    ]


def listing(query: Mapping[str, str], now: float) -> Listing:
    """Return which studies a query means; what it says wrongly it does not say."""
    return Listing(
        text=query["text"],
        study_dates=(_date(query["from"]), _date(query["to"])),
        received_since=today(now) if query["received"] == "today" else 0.0,
        state=one_of(StudyState, query["state"]),
        model=query["model"],
        step=one_of(Step, query["step"]),
        waiting=bool(query["waiting"]),
    )


def _date(text: str) -> str:
    return text.replace("-", "") if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text) else ""


def known(pages: Pages, request: Request) -> str:
    """Return the UID of the study that an address names; one that was purged is known by what its journal keeps.

    Raises
    ------
    Rejected: there is none.
    """
    uid = str(request.path_params["uid"])
    if not is_uid(uid) or not (pages.store.studies.find(uid) or pages.store.journal.of_study(uid)):
        raise Rejected("there is no such study here", hint="Search for it by the end of its UID or by its accession number.")
    return uid


def walk_of(pages: Pages, uid: str) -> dict[str, Any]:
    """Return all that is told of one study."""
    store = pages.store
    store.holdings.refresh()
    study, events, jobs = store.studies.view(uid), store.journal.of_study(uid), store.jobs.list(study_instance_uid=uid, limit=200)
    judged = [event for event in events if event.kind == "complete" and event.detail and event.detail.get("rules")]
    return {
        "uid": uid,
        "ohif": is_here(pages.context),
        "models": sorted(pages.site.models),
        "row": store.overview.entry(uid),
        "study": study,
        "steps": steps(events),
        "jobs": jobs,
        "results": [one for job in jobs for one in store.jobs.results(job.id)],
        "deliveries": store.deliveries.list(study_instance_uid=uid, limit=500),
        "retrievals": store.retrievals.list(study_instance_uid=uid),
        "routings": [(event.detail.get("revision"), answers(event.detail["rules"])) for event in reversed(judged) if event.detail],
    }


def steps(events: tuple[Event, ...]) -> list[dict[str, Any]]:
    """Return a study's walk: each step with its moment and the seconds since the first."""
    start = events[0].at if events else 0.0
    return [
        {"at": one.at, "after_s": one.at - start, "what": step_of(one.kind, one.detail), "job": one.job_id, "who": one.who, "why": one.why}
        for one in events
    ]
