"""The HTTP door as a whole: what it answers whom, with no socket."""

import base64
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.routing import APIRoute
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from dicom_node.config import load_site
from dicom_node.serve.web import context
from dicom_node.store import Store
from dicom_node.web import Context, build


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Context]:
    """The web of a node on its defaults."""
    site = load_site(None, node={"storage": tmp_path / "data", "disk_reserve_mb": 0})
    store = Store.of(site.config.node)
    yield context(site, store, time.time)
    store.close()


def test_it_says_that_it_lives(web: Context) -> None:
    with TestClient(build(web), base_url="http://127.0.0.1:8080") as client:
        assert client.get("/health/live").json() == {"status": "live"}


def test_every_route_says_who_may_use_it(web: Context) -> None:
    """An endpoint without a guard is not served: `allow`, or `anyone`."""
    routes = build(web).router.routes
    assert routes
    unguarded = [one.path for one in routes if isinstance(one, Route) and not _is_guarded(one)]
    unguarded += [one.path for one in routes if isinstance(one, Mount) and not hasattr(one.app, "role")]
    assert unguarded == []


def _is_guarded(route: Route) -> bool:
    """Say whether a route has a guard: around its endpoint, or of FastAPI's as a dependency."""
    guards = [one.call for one in route.dependant.dependencies] if isinstance(route, APIRoute) else [route.endpoint]
    return any(hasattr(one, "role") for one in guards)


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        (f"/jobs/{'9' * 5000}/feedback", {}),
        (f"/jobs/{'9' * 5000}/picture.png", {}),
        (f"/jobs/{'9' * 17}/picture.png", {}),
        (f"/view/1.2/image/1.3/{'9' * 5000}", {}),
        ("/", {"cookie": b"dicom_node_flash=\xe9"}),
        ("/login/callback?state=x", {"cookie": b"dicom-node-flow=" + base64.urlsafe_b64encode(b"[" * 11_000)}),
        ("/api/v1/status", {"content-length": b"9" * 5000}),
    ],
)
def test_nothing_that_a_client_sends_makes_the_node_fail(web: Context, path: str, headers: dict[str, bytes]) -> None:
    """A number of five thousand digits, a cookie of no letters, a hundred brackets: no is no fault."""
    with TestClient(build(web), base_url="http://127.0.0.1:8080") as client:
        assert client.get(path, headers=headers).status_code < 500
