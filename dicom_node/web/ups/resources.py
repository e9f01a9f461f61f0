"""Workitems one by one: created, retrieved, changed, claimed, ended, asked to be canceled (PS3.18 11.4 to 11.8)."""

from collections.abc import Awaitable, Callable

from pydicom import Dataset
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dicom_node.domain import Refused, is_uid
from dicom_node.web.access import Role, allow, person
from dicom_node.web.context import Context
from dicom_node.web.dicomweb.urls import PREFIX, service_url
from dicom_node.web.ups.outcomes import Asked, Outcome
from dicom_node.web.ups.reading import MOST_BYTES, Unreadable, dataset
from dicom_node.web.ups.telling import chosen, done, encoded, not_done, refused, told

Doing = Callable[[Request, Dataset], Response]

_CREATED_AS = ("workitem", "AffectedSOPInstanceUID")  # how a UID is named where it is named
_CHANGED_BY = ("transaction-uid", "transactionuid", "TransactionUID")


def routes(context: Context) -> list[BaseRoute]:
    """Return the resources of workitems."""
    of = _Workitems(context)
    one = f"{PREFIX}/workitems/{{uid}}"

    def acts(path: str, method: str, asked: Asked, doing: Doing) -> Route:
        return Route(path, allow(Role.OPERATOR, _taking(asked, doing), "worklist.write"), methods=[method])

    return [
        acts(f"{PREFIX}/workitems", "POST", Asked.CREATE, of.create),
        Route(one, allow(Role.VIEWER, of.retrieve, "worklist.read"), methods=["GET"]),
        acts(one, "POST", Asked.UPDATE, of.update),
        acts(f"{one}/state", "PUT", Asked.STATE, of.change_state),
        acts(f"{one}/cancelrequest", "POST", Asked.CANCEL, of.ask_to_cancel),
    ]


class _Workitems:
    """Answers of one node."""

    def __init__(self, context: Context) -> None:
        self._worklist = context.worklist

    def create(self, request: Request, said: Dataset) -> Response:
        """Create a workitem; its UID is in the query, or in the data set, or this node's choice."""
        asked, within = _in_query(request, _CREATED_AS), str(said.get("SOPInstanceUID") or "")
        if asked and within and asked != within:
            return refused(request, Outcome(400), "the data set has another SOP Instance UID than the address")
        uid, status = self._worklist.create(said, uid=asked or within, requester=person(request).name)
        place = f"{service_url(request)}/workitems/{uid}"
        return done(request, Asked.CREATE, status, {"Location": place, "Content-Location": place})

    def retrieve(self, request: Request) -> Response:
        """Return a workitem, without its Transaction UID."""
        kind = chosen(request)
        try:
            found = self._worklist.get(named(request))
        except Refused as error:
            return not_done(request, Asked.RETRIEVE, error)
        return told([encoded(found)], kind)

    def update(self, request: Request, said: Dataset) -> Response:
        """Change what a workitem says; the Transaction UID of its claim is in the query."""
        if given := _in_query(request, _CHANGED_BY):
            said.TransactionUID = given
        return done(request, Asked.UPDATE, self._worklist.set(named(request), said, who=person(request).name))

    def change_state(self, request: Request, said: Dataset) -> Response:
        """Claim a workitem, complete it, or cancel it."""
        return done(request, Asked.STATE, self._worklist.change_state(named(request), said, who=person(request).name))

    def ask_to_cancel(self, request: Request, said: Dataset) -> Response:
        """Ask for a workitem to be canceled."""
        return done(request, Asked.CANCEL, self._worklist.ask_to_cancel(named(request), said, who=person(request).name))


def named(request: Request) -> str:
    """Return the UID that an address names.

    Raises
    ------
    HTTPException: it is none (400).
    """
    uid = str(request.path_params["uid"])
    if not is_uid(uid):
        raise HTTPException(400, "the address has something that is no UID")
    return uid


def _in_query(request: Request, names: tuple[str, ...]) -> str:
    """Return the UID of a query: alone, as the standard writes it, or with a name; empty where there is none.

    Raises
    ------
    HTTPException: it is none (400).
    """
    items = request.query_params.multi_items()
    found = [value for name, value in items if name in names] + [name for name, value in items if not value and name[:1].isdecimal()]
    if len(set(found)) > 1 or not all(map(is_uid, found)):
        raise HTTPException(400, "the query has something that is no UID, or several")
    return found[0] if found else ""


def _taking(asked: Asked, doing: Doing) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint that takes a data set."""

    def read_and_done(request: Request, body: bytes) -> Response:
        try:
            said = dataset(body, request.headers.get("content-type", ""))
        except Unreadable as error:
            return refused(request, Outcome(error.status), str(error))
        try:
            return doing(request, said)
        except Refused as error:
            return not_done(request, asked, error, has_transaction=bool(said.get("TransactionUID")))

    async def taken(request: Request) -> Response:
        return await run_in_threadpool(read_and_done, request, await _body(request))

    return taken


async def _body(request: Request) -> bytes:
    """Read a body, within bounds.

    Raises
    ------
    HTTPException: it is too long (413), or did not come whole (400).
    """
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_BYTES:
                raise HTTPException(413, f"at most {MOST_BYTES} bytes are taken")
    except ClientDisconnect as error:
        raise HTTPException(400, "the body did not come whole") from error
    return bytes(body)
