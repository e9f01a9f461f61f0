"""Logging in and out: a page that works without scripts, a password of this node's, or the identity provider of the house."""

import json
import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import structlog
from jinja2 import Environment, FileSystemLoader
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from dicom_node.domain import NodeError, Rejected, Transient
from dicom_node.guard.passwords import hashed, is_outdated, is_password
from dicom_node.web.access import forgery
from dicom_node.web.access.gate import Access, cookie, read, session_cookie
from dicom_node.web.access.provider import Flow, Provider
from dicom_node.web.access.roles import Role, allow, anyone, person
from dicom_node.web.access.source import Source
from dicom_node.web.context import Context
from dicom_node.web.dress import address

log = structlog.get_logger()

_FORM_BYTES = 16_384
_FLOW_S = 600
_HERE = Path(__file__).parents[1]
_templates = Environment(loader=FileSystemLoader(_HERE / "templates"), autoescape=True)
_templates.globals["static"] = address
_WRONG = "This name and password do not belong together."
_ONLY_ON_THE_WAY = ("/login", "/login/provider", "/login/callback", "/logout")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_ELSEWHERE = re.compile(r"[^\x21-\x7e]|\\")  # a browser drops some of these, and takes a backslash for a slash


def routes(context: Context) -> list[BaseRoute]:
    """Return the pages under /login, and /logout."""
    door = _Door(context)
    return [
        Route("/login", anyone(door.show), methods=["GET"]),
        Route("/login", anyone(door.log_in), methods=["POST"]),
        Route("/login/provider", anyone(door.leave), methods=["GET"]),
        Route("/login/callback", anyone(door.come_back), methods=["GET"]),
        Route("/logout", anyone(door.log_out), methods=["POST"]),
        Route("/login/password", allow(Role.VIEWER, door.show_password), methods=["GET"]),
        Route("/login/password", allow(Role.VIEWER, door.change_password), methods=["POST"]),
    ]


def local_path(wanted: str) -> str:
    """Return where to go after log-in: a path of this node's, never an address that leads elsewhere, nor back to log in."""
    begins = unquote(wanted[:12])  # some clients decode before they look
    if not wanted.startswith("/") or begins.startswith(("//", "/\\")) or _ELSEWHERE.search(wanted) or _CONTROL.search(begins):
        return "/"
    return "/" if len(wanted) > 2000 or wanted.partition("?")[0] in _ONLY_ON_THE_WAY else wanted


class _Door:
    def __init__(self, context: Context) -> None:
        self._store, self._clock = context.store, context.clock
        self._web = context.site.config.web

    # ------------------------------------------------------------------------------------------------------ passwords

    def show(self, request: Request) -> Response:
        wanted = local_path(request.query_params.get("next", ""))
        if person(request).role is not Role.NOBODY:
            return _go(wanted)
        return self._page(request, wanted)

    async def log_in(self, request: Request) -> Response:
        body = await read(request.receive, _FORM_BYTES)
        if body is None:
            return Response(status_code=413)
        return await run_in_threadpool(
            self._log_in, request, {name: forgery.field(body, name) for name in ("name", "password", "next", forgery.FIELD)}
        )

    def _log_in(self, request: Request, said: Mapping[str, str]) -> Response:
        wanted, name = local_path(said["next"]), said["name"].strip().lower()[:64]
        if not forgery.is_token(said[forgery.FIELD], _form_token(request)):
            return self._page(request, wanted, "This page was opened a while ago; try again.", 403)
        if not self._web.local_users:
            return self._page(request, wanted, _WRONG, 403)
        address = _source(request).address
        if wait_s := _access(request).throttle.take(name, address):
            log.warning("web.log_in_refused", address=address, reason="too many attempts")
            answer = self._page(request, wanted, f"Too many attempts; try again in {wait_s / 60 + 1:.0f} minutes.", 429)
            answer.headers["retry-after"] = str(int(wait_s) + 1)
            return answer
        kept = self._store.people.password(name)
        secret = self._begin(request, name) if is_password(kept, said["password"]) else None
        if secret is None:
            log.warning("web.log_in_refused", address=address, reason="wrong name or password", person=name if kept else "")
            return self._page(request, wanted, _WRONG, 403)
        _access(request).throttle.forgive(name, address)
        if is_outdated(kept):
            self._store.people.rehash(name, kept, hashed(said["password"]))
        return self._let_in(request, name, secret, wanted)

    def log_out(self, request: Request) -> Response:
        """End the session; the gate has seen to it that nobody else asked for that."""
        name = session_cookie(secure=_source(request).secure)
        if secret := cookie(request.headers, name):
            who = self._store.sessions.end(secret, now=self._clock())
            log.info("web.logged_out", person=who)
        answer = _go("/login")
        answer.delete_cookie(name, path="/", secure=_source(request).secure, httponly=True, samesite="lax")
        return answer

    def show_password(self, request: Request) -> Response:
        return _html("password.html", request)

    async def change_password(self, request: Request) -> Response:
        body = await read(request.receive, _FORM_BYTES)
        if body is None:
            return Response(status_code=413)
        return await run_in_threadpool(self._change_password, request, forgery.field(body, "password"), forgery.field(body, "new"))

    def _change_password(self, request: Request, old: str, new: str) -> Response:
        name, address = person(request).name, _source(request).address
        kept = self._store.people.password(name)
        if not kept or _access(request).throttle.take(name, address) or not is_password(kept, old):
            return _html("password.html", request, says="The present password is not that.", status=403)
        try:
            self._store.people.set_password(name, hashed(new), who=name, now=self._clock())
        except Rejected as error:
            return _html("password.html", request, says=f"{error}.", status=400)
        _access(request).throttle.forgive(name, address)
        return _go("/login")

    # ----------------------------------------------------------------------------------------------- identity provider

    def leave(self, request: Request) -> Response:
        """Send the browser to the identity provider; what must come back with it stays in a cookie that this log-in alone has."""
        wanted, provider = local_path(request.query_params.get("next", "")), _access(request).provider
        if provider is None:
            return _go("/login")
        flow = Flow.new()
        try:
            answer = RedirectResponse(provider.where_to(flow, _callback(request)), status_code=303)
        except Transient as error:
            return self._page(request, wanted, f"{error}.", 503)
        kept = urlsafe_b64encode(json.dumps([flow.state, flow.nonce, flow.verifier, wanted]).encode()).decode()
        self._keep(answer, request, _flow_cookie(request), kept, max_age=_FLOW_S, samesite="lax")
        return answer

    def come_back(self, request: Request) -> Response:
        """Let in whom the identity provider names, if it answers what this browser asked."""
        flow, wanted = _flow(request)
        asked, provider = request.query_params, _access(request).provider
        if provider is None or flow is None or not secrets.compare_digest(asked.get("state", "").encode(), flow.state.encode()):
            answer = self._page(request, "/", "This log-in was not begun here, or too long ago; try again.", 403)
        elif "code" not in asked or asked.get("iss", self._issuer) != self._issuer:  # RFC 9207
            log.warning("web.log_in_refused", address=_source(request).address, reason="the identity provider let nobody in")
            answer = self._page(request, wanted, "The identity provider did not let you in.", 403)
        else:
            answer = self._finish(request, provider, asked["code"], flow, wanted)
        answer.delete_cookie(_flow_cookie(request), path="/", secure=_source(request).secure, httponly=True, samesite="lax")
        return answer

    def _finish(self, request: Request, provider: Provider, code: str, flow: Flow, wanted: str) -> Response:
        try:
            who = provider.finish(code, flow, _callback(request))
        except NodeError as error:
            log.warning("web.log_in_refused", address=_source(request).address, reason=str(error))
            return self._page(request, wanted, f"{error}.", 503 if isinstance(error, Transient) else 403)
        secret = self._begin(request, who.name, role=who.role.name.lower())
        return self._let_in(request, who.name, secret, wanted) if secret else self._page(request, wanted, "You may not log in.", 403)

    # --------------------------------------------------------------------------------------------------------- both

    @property
    def _issuer(self) -> str:
        return self._web.oidc.issuer if self._web.oidc else ""

    def _begin(self, request: Request, name: str, role: str = "") -> str | None:
        old = cookie(request.headers, session_cookie(secure=_source(request).secure))
        return self._store.sessions.begin(name, role=role, lasts_s=self._web.session_s, instead_of=old, now=self._clock())

    def _let_in(self, request: Request, name: str, secret: str, wanted: str) -> Response:
        log.info("web.logged_in", person=name, address=_source(request).address)
        answer = _go(wanted)
        self._keep(answer, request, session_cookie(secure=_source(request).secure), secret, samesite="lax")  # links from a RIS lead here
        answer.delete_cookie(_form_cookie(request), path="/", secure=_source(request).secure, httponly=True, samesite="strict")
        return answer

    def _page(self, request: Request, wanted: str, says: str = "", status: int = 200) -> Response:
        """Show the form, with a token of its own in a cookie that no other site's form sends."""
        planted = cookie(request.headers, _form_cookie(request))
        secret = planted if len(planted) >= 32 else secrets.token_urlsafe(32)
        answer = _html(
            "login.html",
            request,
            status=status,
            says=says,
            next=wanted,
            csrf=forgery.token(secret),
            local_users=self._web.local_users,
            provider=f"/login/provider?next={quote(wanted, safe='')}" if self._web.oidc else "",
        )
        self._keep(answer, request, _form_cookie(request), secret, samesite="strict")
        return answer

    @staticmethod
    def _keep(answer: Response, request: Request, name: str, value: str, *, samesite: Any, max_age: int | None = None) -> None:
        answer.set_cookie(name, value, max_age=max_age, path="/", secure=_source(request).secure, httponly=True, samesite=samesite)


def _html(template: str, request: Request, *, status: int = 200, **said: Any) -> Response:
    return HTMLResponse(_templates.get_template(template).render({"csrf": request.state.csrf, "says": ""} | said), status_code=status)


def _go(where: str) -> Response:
    return RedirectResponse(where, status_code=303)


def _access(request: Request) -> Access:
    found: Access = request.state.access
    return found


def _source(request: Request) -> Source:
    found: Source = request.state.source
    return found


def _callback(request: Request) -> str:
    return f"{_source(request).scheme}://{_source(request).host}/login/callback"  # the gate has seen to it that the host is ours


def _form_cookie(request: Request) -> str:
    return f"{session_cookie(secure=_source(request).secure)}-form"


def _flow_cookie(request: Request) -> str:
    return f"{session_cookie(secure=_source(request).secure)}-flow"


def _form_token(request: Request) -> str:
    secret = cookie(request.headers, _form_cookie(request))
    return forgery.token(secret) if len(secret) >= 32 else ""


def _flow(request: Request) -> tuple[Flow | None, str]:
    try:
        state, nonce, verifier, wanted = json.loads(urlsafe_b64decode(cookie(request.headers, _flow_cookie(request)).encode()))
    except (ValueError, TypeError, RecursionError):
        return None, "/"
    if not all(isinstance(one, str) for one in (state, nonce, verifier, wanted)):
        return None, "/"
    return Flow(state=state, nonce=nonce, verifier=verifier), local_path(wanted)
