"""Jobs: the list, and one with its live progress, its results, and what a person may do about it."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dicom_node.domain import Job, JobState, Rejected
from dicom_node.store.repeating import run_again
from dicom_node.web.access import Role, person
from dicom_node.web.feedback import fragment
from dicom_node.web.forms import Form
from dicom_node.web.pages.acting import act, field
from dicom_node.web.pages.showing import PAGE_ROWS, Pages, asked, back, number, one_of, page_asked, turned


def routes(pages: Pages) -> list[BaseRoute]:
    """Return the pages of jobs."""
    return [*_seen(pages), *_done(pages)]


def _seen(pages: Pages) -> list[BaseRoute]:
    store = pages.store

    def listed(request: Request) -> Response:
        query = {name: asked(request, name) for name in ("state", "model")}
        page, chosen = page_asked(request), one_of(JobState, query["state"])
        rows = store.overview.jobs(limit=PAGE_ROWS + 1, offset=(page - 1) * PAGE_ROWS, state=chosen, model=query["model"])
        links = turned("/jobs", page, len(rows) > PAGE_ROWS, query)
        choices: dict[str, Any] = {"states": list(JobState), "models": sorted(pages.site.models)}
        return pages.page(request, "jobs.html", "Jobs", {"rows": rows[:PAGE_ROWS], "query": query} | choices | links)

    def one(request: Request) -> Response:
        job = store.jobs.get(number(request.path_params["id"]))
        values = {
            "job": job,
            "picture": picture_of(job),
            "feedback": fragment(pages.context, request, job.id),
            "results": store.jobs.results(job.id),
            "deliveries": store.deliveries.list(job_id=job.id, limit=200),
            "told": store.announcements.list(job_id=job.id),
            "destinations": [name for name, remote in pages.site.config.remotes.items() if "receive" in remote.may],
            "configured": job.model in pages.site.models,
        }
        return pages.page(request, "job.html", f"Job {job.id}", values)

    return [Route("/jobs", pages.look(listed), methods=["GET"]), Route("/jobs/{id}", pages.look(one), methods=["GET"])]


def _done(pages: Pages) -> list[BaseRoute]:
    store = pages.store

    def cancel(request: Request, form: Form) -> Response:
        key = number(request.path_params["id"])
        state = store.jobs.cancel(key, who=person(request).name, why="a person canceled it", now=pages.clock())
        return back(f"/jobs/{key}", "It is canceled." if state is JobState.CANCELED else "It is asked to stop.")

    def again(request: Request, form: Form) -> Response:
        key = number(request.path_params["id"])
        made = run_again(store, pages.site, key, who=person(request).name, now=pages.clock())
        return back(f"/jobs/{made.id}", f"Job {made.id} runs {made.model} {made.model_version} again after job {key}.")

    def send(request: Request, form: Form) -> Response:
        job, name = store.jobs.get(number(request.path_params["id"])), field(form, "destination")
        remote = pages.site.config.remotes.get(name)
        if remote is None or "receive" not in remote.may:
            raise Rejected("that is not a remote that may receive", hint='Name it in [remotes] with may = ["receive"].')
        count = store.deliveries.send(job.id, name, who=person(request).name, now=pages.clock())
        return back(f"/jobs/{job.id}", f"{count} results are queued for {name}.")

    return [
        Route("/jobs/{id}/cancel", act(pages, Role.OPERATOR, cancel), methods=["POST"]),
        Route("/jobs/{id}/again", act(pages, Role.OPERATOR, again), methods=["POST"]),
        Route("/jobs/{id}/send", act(pages, Role.OPERATOR, send), methods=["POST"]),
    ]


def picture_of(job: Job) -> str:
    """Return where the picture of a job's results is, empty where there is none."""
    return f"/jobs/{job.id}/picture.png" if job.picture else ""
