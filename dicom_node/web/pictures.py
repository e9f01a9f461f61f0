"""The picture that a job kept of what it made."""

from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dicom_node.domain import Job, JobState, Rejected
from dicom_node.web.access import Role, allow
from dicom_node.web.context import Context

# A job that has ended never changes its picture; it is of a patient's images, and no cache that others share may keep it.
_KEPT = "private, max-age=31536000, immutable"


def routes(context: Context) -> list[BaseRoute]:
    """Return /jobs/{id}/picture.png."""

    def picture(request: Request) -> Response:
        job = _job(context, request.path_params["id"])
        if not job.picture:
            raise HTTPException(404, _why_none(job))
        tag = f'"{Path(job.picture).stem}"'  # its name holds its content
        headers = {"ETag": tag, "Cache-Control": _KEPT, "X-Content-Type-Options": "nosniff"}
        if tag in (one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")):
            return Response(status_code=304, headers=headers)
        try:
            png = context.store.archive.path(job.picture).read_bytes()
        except FileNotFoundError:
            raise HTTPException(404, f"the picture of job {job.id} is gone from the archive") from None
        return Response(png, media_type="image/png", headers=headers)

    return [Route("/jobs/{id:number}/picture.png", allow(Role.VIEWER, picture), methods=["GET"])]


def _job(context: Context, number: int) -> Job:
    try:
        return context.store.jobs.get(number)
    except Rejected as error:
        raise HTTPException(404, str(error)) from error


def _why_none(job: Job) -> str:
    if job.state is not JobState.COMPLETED:
        return f"job {job.id} is {job.state}: it has made nothing that could be shown"
    return f"job {job.id} has no picture: there was nothing to draw, or its journal says why none could be drawn"
