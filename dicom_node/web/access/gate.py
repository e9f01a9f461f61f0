"""The gate before everything: finds out who asks, and turns away what nobody who uses the node would send.

An endpoint finds in `request.state`: `person`; `csrf`, the token that its forms send (see `forgery`); `logged_in`, whether that is by a session
that can be ended; `source`, where the request comes from; `access`, what the log-in shares.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from dicom_node.config import Web
from dicom_node.domain import Transient
from dicom_node.store.people import TOKEN_PREFIX
from dicom_node.web.access import forgery
from dicom_node.web.access.headers import DICOMWEB, is_preflight, is_under, security, shared
from dicom_node.web.access.provider import Provider
from dicom_node.web.access.roles import NOBODY, Person, Role, looks
from dicom_node.web.access.sockets import deny, show_bearer
from dicom_node.web.access.source import Source, is_ours, source
from dicom_node.web.access.throttle import Throttle
from dicom_node.web.context import Context

log = structlog.get_logger()

_LOCAL = Person(name="local", role=Role.ADMIN)
_TOKEN_CHARACTERS = 16_384
_FORM_BYTES = 1_048_576
HEALTH, LOGIN = "/health", "/login"
LOOKS = "x-dicom-node-looks"  # a page looks by itself: nobody did anything, and the session goes on towards its end


class Access:
    """What log-in and gate share: who tried how often, the identity provider's keys, and the secret of this process.

    Raises
    ------
    ConfigError: the identity provider's authorities cannot be read.
    """

    def __init__(self, context: Context) -> None:
        web = context.site.config.web
        self.throttle = Throttle(context.clock)
        self.provider = Provider(web.oidc, context.clock) if web.oidc else None
        self.secret = secrets.token_urlsafe(32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Who asks, and by what it is known."""

    person: Person = NOBODY
    secret: str = ""  # of the session, or of this process where everybody at this machine may do all
    logged_in: bool = False
    bearer: bool = False
    bearer_refused: bool = False


class Gate:
    """ASGI middleware: puts the person who asks into the request's state."""

    def __init__(self, app: ASGIApp, context: Context, access: Access) -> None:
        self._app = app
        self._access = access
        self._store = context.store
        self._web = context.site.config.web
        self._clock = context.clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or let a websocket be opened."""
        if scope["type"] == "websocket":
            await self._opened(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, seen = Headers(scope=scope), source(scope, self._web)
        _as_seen(scope, seen)
        send = _telling(send, security(scope["path"], secure=seen.secure), shared(scope["path"], headers, self._web))
        state = scope.setdefault("state", {})
        state |= {"access": self._access, "source": seen, "person": NOBODY, "csrf": "", "logged_in": False, "bearer_refused": False}
        answer = self._objection(scope, headers, seen)
        if answer is None and is_ours(seen.host, self._web):
            try:
                asking = self._at_once(headers, seen)
                if asking is None:
                    asking = await run_in_threadpool(self._asking, headers, seen)
            except Transient as error:
                answer = told(scope, 503, str(error), error.hint, {"retry-after": "5"})
            else:
                csrf = forgery.token(asking.secret) if asking.secret else ""
                state |= {"person": asking.person, "csrf": csrf, "logged_in": asking.logged_in, "bearer_refused": asking.bearer_refused}
                answer, receive = await self._forged(scope, receive, seen, asking)
        await (answer or self._app)(scope, receive, send)

    async def _opened(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a websocket be opened, unless a page of another site asks for it: a browser sends the cookies of this one along (RFC 6455 10.2)."""
        show_bearer(scope)
        headers, seen = Headers(scope=scope), source(scope, self._web)
        _as_seen(scope, seen)
        socket = WebSocket(scope, receive, send)
        state = scope.setdefault("state", {})
        state |= {"access": self._access, "source": seen, "person": NOBODY}
        if not is_ours(seen.host, self._web):
            await deny(socket, 421, "the node is not called so", hint="web.names says by which names it is called.")
            return
        if self._web.on_loopback and seen.by_unknown_proxy:
            await deny(socket, 403, "a proxy handed this on that the node does not know", hint="Name its address in web.behind_proxy.")
            return
        try:
            asking = self._at_once(headers, seen)
            if asking is None:
                asking = await run_in_threadpool(self._asking, headers, seen)
        except Transient as error:
            await deny(socket, 503, str(error), {"retry-after": "5"}, error.hint)
            return
        if not asking.bearer and forgery.is_foreign(headers, seen.origin):
            await deny(socket, 403, "a page of another site asked for this", hint="Use the node's own pages, or a bearer token.")
            return
        state["person"] = asking.person
        await self._app(scope, receive, send)

    def _objection(self, scope: Scope, headers: Headers, seen: Source) -> Response | None:
        """Answer what is answered whoever asks."""
        if is_preflight(scope["method"], headers):
            said = shared(scope["path"], headers, self._web, preflight=True)
            return (
                Response(status_code=204, headers=dict(said))
                if said
                else told(scope, 403, "this origin may not ask", "web.cors names those that may.")
            )
        if not is_ours(seen.host, self._web) and not is_under(scope["path"], HEALTH):
            return told(scope, 421, "the node is not called so", "web.names says by which names it is called.")
        if self._web.on_loopback and seen.by_unknown_proxy:
            return told(scope, 403, "a proxy handed this on that the node does not know", "Name its address in web.behind_proxy.")
        return None

    def _at_once(self, headers: Headers, seen: Source) -> Asking | None:
        """Return who asks where that needs nothing of the ledger but what is remembered of it; None where it has to be asked."""
        if "authorization" in headers or cookie(headers, session_cookie(secure=seen.secure)):
            return None
        if not is_anonymous(self._web):
            return Asking()
        known = self._store.people.remembered()
        return None if known is None else self._without_proof(known)

    def _without_proof(self, somebody_is_known: bool) -> Asking:
        """Return who asks and shows nothing."""
        return Asking() if somebody_is_known or not is_anonymous(self._web) else Asking(person=_LOCAL, secret=self._access.secret)

    def _asking(self, headers: Headers, seen: Source) -> Asking:
        """Find out who asks; the ledger is asked, so in a thread."""
        now = self._clock()
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            found = self._bearer(shown.strip(), now)
            return Asking(person=found or NOBODY, bearer=found is not None, bearer_refused=found is None)
        secret = cookie(headers, session_cookie(secure=seen.secure))
        by_hand = LOOKS not in headers
        session = self._store.sessions.find(secret, idle_s=self._web.session_idle_s, now=now, by_hand=by_hand) if secret else None
        if session and (self._web.local_users if session.local else self._web.oidc):  # else it was begun before the site changed its mind
            return Asking(person=Person(name=session.name, role=Role[session.role.upper()]), secret=secret, logged_in=True)
        return self._without_proof(not is_anonymous(self._web) or self._store.people.any())

    def _bearer(self, shown: str, now: float) -> Person | None:
        if not shown or len(shown) > _TOKEN_CHARACTERS:
            return None
        if shown.startswith(TOKEN_PREFIX):
            known = self._store.people.bearer(shown, now=now)
            return Person(name=known.name, role=Role[known.role.upper()], scopes=known.scopes) if known else None
        return self._access.provider.bearer(shown) if self._access.provider else None

    async def _forged(self, scope: Scope, receive: Receive, seen: Source, asking: Asking) -> tuple[Response | None, Receive]:
        """Answer a request that a page of another site made; a form is read for its token, and given on as it came."""
        headers = Headers(scope=scope)
        if scope["method"] in forgery.SAFE or asking.bearer:
            return None, receive
        if forgery.is_foreign(headers, seen.origin):
            return told(scope, 403, "a page of another site asked for this", "Use the node's own pages, or a bearer token."), receive
        wanted = forgery.token(asking.secret)
        if not _needs_token(scope, headers, asking) or forgery.is_token(headers.get(forgery.HEADER, ""), wanted):
            return None, receive
        if forgery.is_form(headers):
            body = await read(receive, _FORM_BYTES)
            if body is None:
                return told(scope, 413, "a form is not so long", ""), receive
            if forgery.is_token(forgery.field(body), wanted):
                return None, _again(body, receive)
        return told(scope, 403, "this form was not made for you, or a while ago", "Load the page again and repeat what you did."), receive


def _needs_token(scope: Scope, headers: Headers, asking: Asking) -> bool:
    """Say whether an unsafe request has to show that it comes from a page of ours."""
    if not asking.secret or scope["path"] == LOGIN:
        return False  # what nobody asks is refused by its endpoint, and the form of the log-in has a token of its own
    if is_under(scope["path"], DICOMWEB) and forgery.is_beyond_forms(scope["method"], headers):
        return False  # the viewer's script stores what was drawn
    return asking.logged_in or forgery.by_browser(headers)


def _as_seen(scope: Scope, seen: Source) -> None:
    """Let everybody after the gate see where a request comes from, and build addresses that the caller can reach."""
    scheme = {"http": "ws", "https": "wss"}[seen.scheme] if scope["type"] == "websocket" else seen.scheme
    scope["scheme"], scope["client"] = scheme, (seen.address, (scope.get("client") or ("", 0))[1])
    scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"host"] + [(b"host", seen.host.encode("latin-1"))]


def is_anonymous(web: Web) -> bool:
    """Say whether everybody at this machine may do everything, as long as no person is known."""
    return web.on_loopback and web.anonymous_on_loopback and web.oidc is None


def session_cookie(*, secure: bool) -> str:
    """Return the name of the session's cookie; over TLS one that no other host and no plain connection can set (RFC 6265bis 4.1.3)."""
    return "__Host-dicom-node" if secure else "dicom-node"


def cookie(headers: Headers, name: str) -> str:
    """Return a cookie's value, "" when there is none, or two: one of them was planted."""
    found = [
        value for line in headers.getlist("cookie") for key, _, value in (part.strip().partition("=") for part in line.split(";")) if key == name
    ]
    return found[0] if len(found) == 1 else ""


def told(scope: Scope, status: int, error: str, hint: str, headers: Mapping[str, str] | None = None) -> Response:
    """Say what is wrong: in words to who looks, else as JSON."""
    if looks(Request(scope)) or "text/html" in Headers(scope=scope).get("accept", ""):
        return PlainTextResponse(f"{error[:1].upper()}{error[1:]}. {hint}\n", status_code=status, headers=dict(headers or {}))
    return JSONResponse({"error": error, "hint": hint}, status_code=status, headers=dict(headers or {}))


async def read(receive: Receive, most_bytes: int) -> bytes | None:
    """Read a request's body; None when it is longer, or who sent it has gone."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > most_bytes:
            return None
        if not message.get("more_body", False):
            return bytes(body)


def _again(body: bytes, receive: Receive) -> Receive:
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def given() -> Message:
        return waiting.pop() if waiting else await receive()

    return given


def _telling(send: Send, said: Mapping[str, str], shared_with: Mapping[str, str]) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in said.items():
                headers.setdefault(name, value)
            for name, value in shared_with.items():
                headers.add_vary_header(value) if name == "vary" else headers.__setitem__(name, value)
        await send(message)

    return sent
