"""The worklist by the API: what was asked for, and asking for an analysis of a study."""

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.exceptions import HTTPException

from dicom_node.domain import JobState, Priority, Workitem
from dicom_node.web.access import Person, Role
from dicom_node.web.api import shapes
from dicom_node.web.api.asked import Cursor, Limit, Uid, number
from dicom_node.web.api.guard import ACT, FAILURES, READ, GuardedRoute, needs
from dicom_node.web.api.shapes import Page
from dicom_node.web.context import Context
from dicom_node.web.workitems import TOLD, code_of

_operator = needs(Role.OPERATOR, ACT)
Operator = Annotated[Person, Depends(_operator)]


def routers_of(context: Context) -> tuple[APIRouter, APIRouter]:
    """Return what may be looked at, and what may be done."""
    looking = APIRouter(prefix="/api/v1", dependencies=[Depends(needs(Role.VIEWER, READ))], route_class=GuardedRoute, responses=FAILURES)
    acting = APIRouter(prefix="/api/v1", dependencies=[Depends(_operator)], route_class=GuardedRoute, responses=FAILURES)

    @looking.get("/workitems", operation_id="workitems", tags=["worklist"])
    def workitems(state: JobState | None = None, limit: Limit = 50, cursor: Cursor = "") -> Page[shapes.WorkitemShape]:
        """List workitems, newest first: what was asked for, by whom, and who performs it."""
        found = context.store.workitems.newest(limit=limit + 1, before=number(cursor), state=state, tags=TOLD)
        shown = found[:limit]
        return Page(items=[shape_of(item) for _, item in shown], next=str(shown[-1][0]) if len(found) > limit else None)

    @acting.post("/studies/{study_instance_uid}/analyses", operation_id="ask_analysis", tags=["worklist"], status_code=202)
    def analyse(study_instance_uid: Uid, wish: shapes.AnalysisWish, who: Operator) -> shapes.Asked:
        """Ask for an analysis of a study that is here: a workitem, which the node then takes up."""
        if wish.model not in context.site.models:
            raise HTTPException(404, "that is not a model that the site runs")
        study = context.store.studies.view(study_instance_uid)
        if study is None or not study.instances:
            raise HTTPException(404, "nothing of that study is here")
        uid = context.worklist.ask_for(wish.model, study_instance_uid, Priority[wish.priority], requester=who.name)
        return shapes.Asked(workitem_uid=uid)

    return looking, acting


def shape_of(item: Workitem) -> shapes.WorkitemShape:
    """Return a workitem as the API tells of it: without what was said of it, which may name a patient, and without the claim's key."""
    code, meaning = code_of(item)
    names = ("uid", "study_instance_uid", "requester", "performer", "manager", "readiness", "scheduled_at", "created_at", "changed_at", "ended_at")
    said = {name: getattr(item, name) for name in names}
    reason = item.job.reason if item.job else item.reason
    job_id = item.job.id if item.job else None
    return shapes.WorkitemShape(**said, state=item.state, priority=item.priority.name, code=code, meaning=meaning, job_id=job_id, reason=reason)
