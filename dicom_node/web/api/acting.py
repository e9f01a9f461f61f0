"""What the API does for an operator: cancel, run again, replay, fetch, try a remote."""

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi import Path as PathOf
from starlette.exceptions import HTTPException

from dicom_node.domain import Rejected, is_uid, plain
from dicom_node.guard import probe
from dicom_node.store.repeating import run_again
from dicom_node.web.access import Person, Role
from dicom_node.web.api import shapes
from dicom_node.web.api.asked import Key
from dicom_node.web.api.guard import ACT, FAILURES, GuardedRoute, needs
from dicom_node.web.context import Context

_operator = needs(Role.OPERATOR, ACT)
Operator = Annotated[Person, Depends(_operator)]
RemoteName = Annotated[str, PathOf(min_length=1, max_length=64)]


def router_of(context: Context) -> APIRouter:
    """Return what may be done."""
    router = APIRouter(prefix="/api/v1", dependencies=[Depends(_operator)], route_class=GuardedRoute, responses=FAILURES)
    _jobs(router, context)
    _deliveries(router, context)
    _retrievals(router, context)
    _remotes(router, context)
    return router


def _jobs(router: APIRouter, context: Context) -> None:
    store = context.store

    @router.post("/jobs/{job_id}/cancel", operation_id="cancel_job", tags=["jobs"])
    def cancel(job_id: Key, who: Operator) -> shapes.State:
        """Cancel a job: at once while it waits, through its worker while it runs."""
        _there(store.jobs.exists(job_id), f"job {job_id}")
        state = store.jobs.cancel(job_id, who=who.name, why="a person canceled it", now=context.clock())
        return shapes.State(id=job_id, state=state)

    @router.post("/jobs/{job_id}/again", operation_id="run_job_again", tags=["jobs"], status_code=201)
    def again(job_id: Key, who: Operator) -> shapes.JobShape:
        """Make a new job of the same inputs with the model's present build; its results name the earlier ones as predecessors."""
        _there(store.jobs.exists(job_id), f"job {job_id}")
        return shapes.JobShape(**plain(run_again(store, context.site, job_id, who=who.name, now=context.clock())))


def _deliveries(router: APIRouter, context: Context) -> None:
    store = context.store

    @router.post("/deliveries/{delivery_id}/replay", operation_id="replay_delivery", tags=["deliveries"])
    def replay(delivery_id: Key, who: Operator) -> shapes.Number:
        """Make a delivery that was given up, canceled or sent due again, and try its destination at once."""
        found = store.deliveries.list(delivery_id=delivery_id, limit=1)
        _there(bool(found), f"delivery {delivery_id}")
        count = store.deliveries.replay(who=who.name, now=context.clock(), delivery_id=delivery_id)
        if not count:
            raise Rejected(f"delivery {delivery_id} is {found[0].state}: it goes its way", hint="Only what has ended is replayed.")
        store.deliveries.try_now(found[0].destination)
        return shapes.Number(count=count)

    @router.post("/deliveries/{delivery_id}/cancel", operation_id="cancel_delivery", tags=["deliveries"])
    def cancel(delivery_id: Key, who: Operator) -> shapes.State:
        """Cancel a delivery that waits."""
        _there(bool(store.deliveries.list(delivery_id=delivery_id, limit=1)), f"delivery {delivery_id}")
        store.deliveries.cancel(delivery_id, who=who.name, now=context.clock())
        return shapes.State(id=delivery_id, state="CANCELED")


def _retrievals(router: APIRouter, context: Context) -> None:
    store = context.store

    @router.post("/retrievals", operation_id="ask_retrieval", tags=["retrievals"], status_code=201)
    def ask(wish: shapes.Wish, who: Operator) -> shapes.RetrievalShape:
        """Have a study fetched from an archive; one that is under way already is joined."""
        remote = context.site.config.remotes.get(wish.remote)
        if remote is None or remote.retrieve == "none":
            raise HTTPException(404, "that is not a remote that studies are fetched from")
        if not is_uid(wish.study_instance_uid):
            raise HTTPException(422, "body.study_instance_uid: it is no UID (PS3.5 9.1)")
        why = "a person asked for it"
        made = store.retrievals.ask(wish.remote, wish.study_instance_uid, who=who.name, why=why, now=context.clock(), by_person=True)
        return shapes.RetrievalShape(**plain(made))

    @router.post("/retrievals/{retrieval_id}/cancel", operation_id="cancel_retrieval", tags=["retrievals"])
    def cancel(retrieval_id: Key, who: Operator) -> shapes.State:
        """Cancel a retrieval that waits or runs."""
        _there(store.retrievals.get(retrieval_id) is not None, f"retrieval {retrieval_id}")
        store.retrievals.cancel(retrieval_id, who=who.name, now=context.clock())
        return shapes.State(id=retrieval_id, state="CANCELED")


def _remotes(router: APIRouter, context: Context) -> None:
    @router.post("/remotes/{name}/echo", operation_id="echo_remote", tags=["site"])
    def echo(name: RemoteName) -> list[shapes.FindingShape]:
        """Try a remote step by step, as `dicom-node check` does: name, connection, TLS, association, C-ECHO. Nothing is stored or moved."""
        remote = context.site.config.remotes.get(name)
        if remote is None:
            raise HTTPException(404, "there is no such remote")
        return [shapes.FindingShape(**plain(one)) for one in probe(name, remote, context.site.config.node, context.clock())]


def _there(found: bool, what: str) -> None:
    if not found:
        raise HTTPException(404, f"there is no {what}")
