"""What readers say of results: heard here, written into the ledger, and shown; a verified report is the analysing process's to write."""

import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from dicom_node.domain import Agreement, JobState, Opinion, Verdict
from dicom_node.web.access import Role, allow, person
from dicom_node.web.context import Context
from dicom_node.web.forms import read_form

_FORM_BYTES = 65_536
_COMMENT, _NAME = 2000, 64  # characters
_FIELDS = 20
_templates = Environment(loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True)


def routes(context: Context) -> list[BaseRoute]:
    """Return /jobs/{id}/feedback and /models/{name}/agreement."""

    def show(request: Request) -> Response:
        number = _job(context, request)
        if _wants_json(request):
            return JSONResponse({"feedback": [told(one) for one in context.store.feedback.of_job(number)]})
        return HTMLResponse(fragment(context, request, number), headers={"Cache-Control": "no-store"})

    async def hear(request: Request) -> Response:
        number = await run_in_threadpool(_job, context, request)
        form = await read_form(request, most_bytes=_FORM_BYTES, most_fields=_FIELDS)
        said = {name: values[0] for name, values in form.items()}
        one = await run_in_threadpool(_record, context, request, number, said)
        return JSONResponse(told(one), 201) if _wants_json(request) else RedirectResponse(f"/jobs/{number}", 303)

    def agreement(request: Request) -> Response:
        found = context.store.feedback.agreement(request.path_params["name"])
        return JSONResponse({"model": request.path_params["name"], "versions": [figures(one) for one in found]})

    return [
        Route("/jobs/{id:number}/feedback", allow(Role.VIEWER, show), methods=["GET"]),
        Route("/jobs/{id:number}/feedback", allow(Role.VIEWER, hear), methods=["POST"]),
        Route("/models/{name}/agreement", allow(Role.VIEWER, agreement), methods=["GET"]),
    ]


def fragment(context: Context, request: Request, job_id: int) -> str:
    """Return what readers said of a job's results, and the form to say more, as a part of a page."""
    who = person(request).name
    job = context.store.jobs.get(job_id)
    said = {
        "job": job,
        "opinions": context.store.feedback.of_job(job_id),
        "open": job.state is JobState.COMPLETED,
        "verifies": context.site.config.feedback.verified_reports,
        "name": context.store.feedback.display_name(who) or who,
        "csrf": getattr(request.state, "csrf", ""),
        "longest": {"comment": _COMMENT, "name": _NAME},
    }
    return _templates.get_template("feedback.html").render(said)


def told(one: Opinion) -> dict[str, Any]:
    """Return an opinion as JSON says it."""
    kept = {name: getattr(one, name) for name in ("id", "job_id", "result_id", "who", "display_name", "at", "comment", "reason")}
    return kept | {"verdict": one.verdict.value, "verified_report": one.verification.value if one.verification else None}


def figures(one: Agreement) -> dict[str, Any]:
    """Return agreement as JSON says it; the share with its 95 % interval."""
    counts = {name: getattr(one, name) for name in ("model", "model_version", "accepted", "rejected", "commented")}
    return counts | {"share": one.share, "interval_95": list(one.interval) if one.interval else None}


def _job(context: Context, request: Request) -> int:
    number = int(request.path_params["id"])
    if not context.store.jobs.exists(number):
        raise HTTPException(404, "there is no such job")
    return number


def _wants_json(request: Request) -> bool:
    return "application/json" in request.headers.get("accept", "")


def _record(context: Context, request: Request, job_id: int, said: Mapping[str, str]) -> Opinion:
    """Record what a person said.

    Raises
    ------
    HTTPException: 400, the form says what cannot be kept; Rejected: the job has made nothing.
    """
    try:
        verdict = Verdict(said.get("verdict", "").strip().upper())
    except ValueError:
        raise HTTPException(400, f"the verdict is one of {', '.join(Verdict).lower()}") from None
    comment = _clean(said.get("comment", ""), keep="\n\t")
    who = person(request).name
    name = _clean(said.get("name", "")) or context.store.feedback.display_name(who) or who
    if len(comment) > _COMMENT or len(name) > _NAME:
        raise HTTPException(400, f"a comment has at most {_COMMENT} characters, a name {_NAME}")
    if verdict is Verdict.COMMENTED and not comment:
        raise HTTPException(400, "a comment says something")
    verify = context.site.config.feedback.verified_reports
    return context.store.feedback.say(job_id, verdict, who=who, display_name=name, comment=comment, now=context.clock(), verify=verify)


def _clean(text: str, keep: str = "") -> str:
    """Return a text without control characters and halves of surrogates."""
    plain = unicodedata.normalize("NFC", text).replace("\r\n", "\n")
    return "".join(c for c in plain if c in keep or unicodedata.category(c) not in ("Cc", "Cs", "Cf")).strip()
