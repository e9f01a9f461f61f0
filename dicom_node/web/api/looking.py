"""What the API tells: status, studies, jobs, deliveries, retrievals, quarantine, models, rules, remotes, events."""

from typing import Any

from fastapi import APIRouter, Depends
from starlette.exceptions import HTTPException

from dicom_node.config import models_told
from dicom_node.domain import DeliveryState, JobState, RetrievalState, StudyState, plain
from dicom_node.store.telling import job_told, status, study_told
from dicom_node.web.access import Role
from dicom_node.web.api import shapes
from dicom_node.web.api.asked import After, Cursor, Key, Limit, Name, Since, Uid, UidWanted, number, parted, place, uid
from dicom_node.web.api.guard import FAILURES, READ, GuardedRoute, needs
from dicom_node.web.api.shapes import Page
from dicom_node.web.context import Context


def router_of(context: Context) -> APIRouter:
    """Return what may be looked at."""
    router = APIRouter(prefix="/api/v1", dependencies=[Depends(needs(Role.VIEWER, READ))], route_class=GuardedRoute, responses=FAILURES)
    _node(router, context)
    _studies(router, context)
    _jobs(router, context)
    _ways(router, context)
    _site(router, context)
    return router


def _node(router: APIRouter, context: Context) -> None:
    @router.get("/status", operation_id="status", tags=["node"])
    def node_status() -> shapes.StatusShape:
        """Say how the node is doing: what waits, what is stuck, who works, who is reached."""
        return shapes.StatusShape(**status(context.store, context.site.config, context.clock()))

    @router.get("/events", operation_id="events", tags=["node"])
    def events(after: After = 0, limit: Limit = 100) -> list[shapes.EventShape]:
        """Give the journal's events after a number, oldest first; ask again with the number of the last."""
        return [shapes.EventShape(**plain(one)) for one in context.store.journal.after(after, limit=limit)]

    @router.get("/quarantine", operation_id="quarantine", tags=["node"])
    def quarantine(limit: Limit = 50, cursor: Cursor = "") -> Page[shapes.QuarantinedShape]:
        """List what lies in quarantine, newest first."""
        rows = context.store.instances.quarantined(limit + 1, before=place(cursor, int))
        return Page(**parted(rows, limit, lambda row: f"{row['at']!r}:{row['id']}"))


def _studies(router: APIRouter, context: Context) -> None:
    store = context.store

    @router.get("/studies", operation_id="studies", tags=["studies"])
    def studies(state: StudyState | None = None, since: Since = 0.0, limit: Limit = 50, cursor: Cursor = "") -> Page[shapes.StudyShape]:
        """List studies, those that received something last first."""
        rows = store.studies.list(limit=limit + 1, state=state, since=since, before=place(cursor, uid))
        return Page(**parted(rows, limit, lambda row: f"{row['last_received_at']!r}:{row['study_instance_uid']}"))

    @router.get("/studies/{study_instance_uid}", operation_id="study", tags=["studies"])
    def study(study_instance_uid: Uid) -> shapes.StudyTold:
        """Show a study's walk, step by step with times and reasons; of a purged study the journal is left."""
        told = study_told(store, study_instance_uid)
        if not told["series"] and not told["events"]:
            raise HTTPException(404, "there is no such study")
        return shapes.StudyTold(**told)


def _jobs(router: APIRouter, context: Context) -> None:
    store = context.store

    @router.get("/jobs", operation_id="jobs", tags=["jobs"])
    def jobs(
        state: JobState | None = None, model: Name = "", study_instance_uid: UidWanted = "", limit: Limit = 50, cursor: Cursor = ""
    ) -> Page[shapes.JobShape]:
        """List jobs, newest first."""
        rows = store.jobs.list(limit=limit + 1, state=state, model=model, study_instance_uid=study_instance_uid, before=number(cursor))
        return Page(**parted(rows, limit, lambda one: str(one.id)))

    @router.get("/jobs/{job_id}", operation_id="job", tags=["jobs"])
    def job(job_id: Key) -> shapes.JobTold:
        """Show a job, its results, and what became of them."""
        if not store.jobs.exists(job_id):
            raise HTTPException(404, f"there is no job {job_id}")
        return shapes.JobTold(**job_told(store, job_id))


def _ways(router: APIRouter, context: Context) -> None:
    store = context.store

    @router.get("/deliveries", operation_id="deliveries", tags=["deliveries"])
    def deliveries(
        state: DeliveryState | None = None, destination: Name = "", study_instance_uid: UidWanted = "", limit: Limit = 50, cursor: Cursor = ""
    ) -> Page[shapes.DeliveryShape]:
        """List deliveries, newest first."""
        asked: dict[str, Any] = {"state": state, "name": destination, "study_instance_uid": study_instance_uid}
        rows = store.deliveries.list(limit=limit + 1, before=place(cursor, int), **asked)
        return Page(**parted(rows, limit, lambda one: f"{one.created_at!r}:{one.id}"))

    @router.get("/retrievals", operation_id="retrievals", tags=["retrievals"])
    def retrievals(
        state: RetrievalState | None = None, remote: Name = "", study_instance_uid: UidWanted = "", limit: Limit = 50, cursor: Cursor = ""
    ) -> Page[shapes.RetrievalShape]:
        """List what was to be fetched from archives, newest first."""
        asked: dict[str, Any] = {"state": state, "remote": remote, "study_instance_uid": study_instance_uid}
        rows = store.retrievals.list(limit=limit + 1, before=place(cursor, int), **asked)
        return Page(**parted(rows, limit, lambda one: f"{one.requested_at!r}:{one.id}"))


def _site(router: APIRouter, context: Context) -> None:
    @router.get("/models", operation_id="models", tags=["site"])
    def models() -> list[shapes.ModelShape]:
        """List the models that the site runs."""
        return [shapes.ModelShape(**row) for row in models_told(context.site)]

    @router.get("/rules", operation_id="rules", tags=["site"])
    def rules() -> list[dict[str, Any]]:
        """List the rules, with the keys that node.toml has for them."""
        return [rule.model_dump(mode="json") for rule in context.site.config.rules]

    @router.get("/remotes", operation_id="remotes", tags=["site"])
    def remotes() -> list[shapes.RemoteShape]:
        """List the remotes and what each may; no secrets."""
        return [
            shapes.RemoteShape(name=name, ae=str(one.ae), may=sorted(one.may), retrieve=one.retrieve, tls=one.tls is not None)
            for name, one in context.site.config.remotes.items()
        ]
