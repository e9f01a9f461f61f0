"""A node that is asked by HTTP: its clock, and browsers and programs that ask it, with no socket."""

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from dicom_node.config import NodeConfig, Site
from dicom_node.guard.passwords import hashed
from dicom_node.serve.web import context
from dicom_node.store import Store
from dicom_node.web import Context, app, build
from dicom_node.web.access import Role, allow, anyone, person

NOW = 1_700_000_000.0
PASSWORD = "correct horse battery"
HASH = hashed(PASSWORD)  # once: it takes long, as it should
ROLES = {"viewer": Role.VIEWER, "operator": Role.OPERATOR, "admin": Role.ADMIN}
ABROAD: Mapping[str, Any] = {"host": "0.0.0.0", "names": ["node.example"], "behind_proxy": ["10.0.0.5"]}


class Parts:
    """Endpoints as other parts have them: each says who asks."""

    @staticmethod
    def routes(context: Context) -> list[Route]:
        def who(request: Request) -> Response:
            return JSONResponse(
                {"name": person(request).name, "csrf": request.state.csrf, "logged_in": request.state.logged_in, "base": str(request.base_url)}
            )

        async def echo(request: Request) -> Response:
            form = dict(parse_qsl((await request.body()).decode()))
            return JSONResponse({"said": form.get("said"), "name": person(request).name})

        def broken(request: Request) -> Response:
            raise ValueError("Marked^Patient")

        def own(request: Request) -> Response:
            return Response("x", headers={"Cache-Control": "private, max-age=9"})

        return [
            Route("/seen", allow(Role.VIEWER, who), methods=["GET"]),
            Route("/done", allow(Role.OPERATOR, echo), methods=["POST"]),
            Route("/ruled", allow(Role.ADMIN, who), methods=["GET"]),
            Route("/dicom-web/studies", allow(Role.VIEWER, who, scope="dicomweb.read"), methods=["GET"]),
            Route("/dicom-web/studies", allow(Role.OPERATOR, who, scope="dicomweb.write"), methods=["POST"]),
            Route("/api/jobs", allow(Role.VIEWER, who), methods=["GET"]),  # its place says which scope
            Route("/api/jobs", allow(Role.OPERATOR, who), methods=["POST", "DELETE"]),
            Route("/api/people", allow(Role.ADMIN, who, scope="api.read"), methods=["GET"]),
            Route("/ohif/index.html", anyone(who), methods=["GET"]),
            Route("/static/a.css", anyone(own), methods=["GET"]),
            Route("/broken", anyone(broken), methods=["GET"]),
        ]


@dataclass
class House:
    """A node, its clock, and browsers and programs that ask it."""

    store: Store
    web: Context
    base: str
    at: list[float] = field(default_factory=lambda: [NOW])
    client: tuple[str, int] = ("127.0.0.1", 50000)

    def browser(self, **more: Any) -> TestClient:
        return TestClient(
            self.app, base_url=more.pop("base", self.base), client=self.client, follow_redirects=False, raise_server_exceptions=False, **more
        )

    def __post_init__(self) -> None:
        self.app = build(self.web)

    def logged_in(self, name: str) -> TestClient:
        """A browser with a session; those that log in by a password do so in their tests, for it takes long."""
        secret = self.store.sessions.begin(name, lasts_s=self.web.site.config.web.session_s, now=self.at[0])
        return self.browser(cookies={"__Host-dicom-node": secret})


def log_in(client: TestClient, name: str, password: str = PASSWORD, **more: str) -> Any:
    page = client.get("/login")
    said = {"name": name, "password": password, "csrf_token": token_of(page.text)} | more
    return client.post("/login", data=said, headers={"origin": str(client.base_url).rstrip("/")})


def token_of(page: str) -> str:
    found = re.search(r'name="csrf_token" value="([0-9a-f]{64})"', page)
    assert found
    return found[1]


def empty_ledger(folder: Path) -> Path:
    """Return a ledger that has been brought up to date, made once in a run of tests."""
    made = folder / "empty" / "ledger.sqlite"
    if not made.exists():
        Store.open(made.parent).close()
    return made


@contextmanager
def houses(folder: Path) -> Iterator[Any]:
    """Return what makes a node of [web] keys, with the endpoints above; `people` adds one of each role."""
    stores: list[Store] = []

    def made(*, people: bool = False, base: str = "http://127.0.0.1:8080", client: tuple[str, int] = ("127.0.0.1", 50000), **web: Any) -> House:
        storage = folder / f"data{len(stores)}"
        storage.mkdir()
        shutil.copy(empty_ledger(folder.parent), storage / "ledger.sqlite")
        site = Site(config=NodeConfig.model_validate({"node": {"storage": storage, "disk_reserve_mb": 0}, "web": web}), models={})
        store = Store.of(site.config.node)
        stores.append(store)
        at = [NOW]
        if people:
            for role in ROLES:
                store.people.add(role, role, password=HASH, who="test", now=NOW)
        return House(store, context(site, store, lambda: at[0]), base, at, client)

    with patch.object(app, "_PARTS", (Parts, *app._PARTS)):
        yield made
    for store in stores:
        store.close()


def abroad(make: Any, **more: Any) -> House:
    """Return a node that others reach, over TLS."""
    found: House = make(people=True, base="https://node.example", client=("192.0.2.7", 50000), **(dict(ABROAD) | more))
    return found
