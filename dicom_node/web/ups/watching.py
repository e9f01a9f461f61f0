"""Who watches workitems over HTTP: subscriptions made, ended, and made no wider (PS3.18 11.10 to 11.12)."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dicom_node.domain import FILTERED_SUBSCRIPTION, Channel, Refused, is_ae_title
from dicom_node.web.access import Role, allow, may, person
from dicom_node.web.access.roles import Person
from dicom_node.web.context import Context
from dicom_node.web.dicomweb.criteria import Malformed
from dicom_node.web.dicomweb.urls import PREFIX, service_url
from dicom_node.web.ups.keys import filter_of
from dicom_node.web.ups.outcomes import Asked, Outcome
from dicom_node.web.ups.resources import named
from dicom_node.web.ups.telling import done, not_done, refused

_ONE = f"{PREFIX}/workitems/{{uid}}/subscribers/{{aet}}"
_SWITCH = {"true": True, "false": False}
OF_ANOTHER = "another account watches under this AE title"
_BY_DIMSE = "this AE title is told by DIMSE: it ends that subscription the way it began it"

Doing = Callable[[Request, str, str], Response]


def routes(context: Context) -> list[BaseRoute]:
    """Return the resources of subscriptions."""

    def subscribe(request: Request, uid: str, receiver: str) -> Response:
        query = request.query_params
        lock = _SWITCH.get(query.get("deletionlock", "false").lower())
        if lock is None:
            raise HTTPException(400, "deletionlock is neither true nor false")
        said: dict[str, Any] = {"channel": Channel.WEB, "deletion_lock": lock, "owner": person(request).name}
        if uid == FILTERED_SUBSCRIPTION:
            said["keys"] = filter_of(query.getlist("filter"))
        elif "filter" in query:
            raise HTTPException(400, f"only a subscription to {FILTERED_SUBSCRIPTION} has a filter")
        status = context.worklist.subscribe(uid, receiver, **said)
        return done(request, Asked.SUBSCRIBE, status, {"Content-Location": channel_url(request, receiver)})

    def unsubscribe(request: Request, uid: str, receiver: str) -> Response:
        context.worklist.unsubscribe(uid, receiver)
        return done(request, Asked.UNSUBSCRIBE, 0)

    def suspend(request: Request, uid: str, receiver: str) -> Response:
        context.worklist.suspend(uid, receiver)
        return done(request, Asked.SUSPEND, 0)

    def watches(path: str, method: str, asked: Asked, doing: Doing) -> Route:
        return Route(path, allow(Role.VIEWER, _watching(context, asked, doing), "worklist.read"), methods=[method])

    return [
        watches(_ONE, "POST", Asked.SUBSCRIBE, subscribe),
        watches(_ONE, "DELETE", Asked.UNSUBSCRIBE, unsubscribe),
        watches(f"{_ONE}/suspend", "POST", Asked.SUSPEND, suspend),
    ]


def is_anothers(context: Context, receiver: str, who: Person) -> bool:
    """Say whether another account watches under an AE title; an operator may end that, and hear it, all the same."""
    if may(who, Role.OPERATOR, "worklist.write"):
        return False
    return any(one.owner != who.name for one in context.store.subscriptions.list(receiver=receiver, limit=1))


def channel_url(request: Request, receiver: str) -> str:
    """Return where a receiver is told, as the client that asks knows this node: ws, or wss where it came over TLS."""
    return f"ws{service_url(request).removeprefix('http')}/subscribers/{quote(receiver, safe='')}"


def _watching(context: Context, asked: Asked, doing: Doing) -> Callable[[Request], Response]:
    def watched(request: Request) -> Response:
        uid, receiver = named(request), str(request.path_params["aet"]).strip(" ")
        if not is_ae_title(receiver):
            raise HTTPException(400, "the address has something that is no AE title")
        if any(one.channel is Channel.DIMSE for one in context.store.subscriptions.list(receiver=receiver)):
            return refused(request, Outcome(409), _BY_DIMSE)
        if is_anothers(context, receiver, person(request)):
            raise HTTPException(403, OF_ANOTHER)
        try:
            return doing(request, uid, receiver)
        except Malformed as error:
            raise HTTPException(400, str(error)) from error
        except Refused as error:
            return not_done(request, asked, error)

    return watched
