"""Health: yes or no for everybody, what was tried for those who may look."""

import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from dicom_node.config import load_site
from dicom_node.serve.web import context
from dicom_node.store import Store
from dicom_node.web import Context, build, health
from dicom_node.web.access import Person, Role

NOW = 1_800_000_000.0


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Context]:
    """The web of a node whose receiver listens and whose worker was seen."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        site = load_site(None, node={"storage": tmp_path / "data", "disk_reserve_mb": 0, "port": listening.getsockname()[1]})
        store = Store.of(site.config.node)
        store.jobs.seen("worker", ["lung-ct"], started_at=NOW - 100, now=NOW - 1)
        yield context(site, store, lambda: NOW)
        store.close()


def asked(web: Context, path: str = "/health/ready", person: Person | None = None) -> tuple[int, dict]:
    app = build(web)
    if person is not None:

        async def as_person(scope, receive, send):
            scope.setdefault("state", {})["person"] = person
            await app.router(scope, receive, send)

        answer = TestClient(as_person, base_url="http://127.0.0.1:8080").get(path)
    else:
        answer = TestClient(app, base_url="http://127.0.0.1:8080").get(path)
    return answer.status_code, answer.json()


def failing(told: dict) -> list[str]:
    return [one["what"] for one in told["checks"] if not one["ok"]]


def test_a_node_that_can_take_work_is_ready(web: Context) -> None:
    code, told = asked(web)
    assert (code, told["status"], failing(told)) == (200, "ready", [])
    assert [one["what"] for one in told["checks"]] == ["ledger", "disk", "storage", "receiver", "worker"]


def test_who_may_not_look_is_told_yes_or_no(web: Context) -> None:
    """A load balancer needs no more, and a stranger gets no more."""
    assert asked(web, person=Person(name="", role=Role.NOBODY)) == (200, {"status": "ready"})
    assert asked(web, "/health/live", Person(name="", role=Role.NOBODY)) == (200, {"status": "live"})


def test_a_full_disk_is_not_ready(web: Context) -> None:
    """Below the reserve every C-STORE is answered A700."""
    node = web.site.config.node.model_copy(update={"disk_reserve_mb": 1 << 40})
    site = replace(web.site, config=web.site.config.model_copy(update={"node": node}))
    code, told = asked(replace(web, site=site))
    assert (code, told["status"], failing(told)) == (503, "not ready", ["disk"])


def test_a_receiver_that_does_not_listen_is_not_ready(web: Context, free_port: int) -> None:
    node = web.site.config.node.model_copy(update={"port": free_port})
    site = replace(web.site, config=web.site.config.model_copy(update={"node": node}))
    assert failing(asked(replace(web, site=site))[1]) == ["receiver"]


def test_a_worker_that_is_silent_is_not_ready_unless_another_host_works(web: Context) -> None:
    """With work.start = false the worker is another host's, and nobody here knows of it."""
    late = replace(web, clock=lambda: NOW + 60)
    assert failing(asked(late)[1]) == ["worker"]
    work = web.site.config.work.model_copy(update={"start": False})
    site = replace(web.site, config=web.site.config.model_copy(update={"work": work}))
    assert asked(replace(late, site=site))[0] == 200


def test_a_ledger_that_is_gone_is_not_ready(web: Context) -> None:
    """It says so, and does not fail."""
    with web.store.database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    assert failing(asked(web)[1]) == ["ledger"]


def test_storage_that_cannot_be_written_to_is_not_ready(web: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root nothing is read-only: a folder that is none stands for it."""
    monkeypatch.setattr(web.store.archive, "root", Path("/proc/none"))
    assert "storage" in failing(asked(web)[1])


def test_asking_often_makes_no_more_work(web: Context) -> None:
    """What was found is told again for two seconds."""
    app, now = build(replace(web, clock=lambda: moments[0])), time.time()
    moments = [now]
    client = TestClient(app, base_url="http://127.0.0.1:8080")
    web.store.jobs.seen("worker", [], started_at=now, now=now)
    assert client.get("/health/ready").status_code == 200
    web.store.jobs.forget("worker")
    assert client.get("/health/ready").status_code == 200
    moments[0] += 3
    assert client.get("/health/ready").status_code == 503


def test_who_waits_for_a_look_that_takes_long_makes_none_of_its_own(web: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a receiver that hangs lets requests pile up, until no thread of the web is left."""
    looks, now = [], [NOW]

    def slow(*_: object) -> tuple[health.Check, ...]:
        looks.append(now[0])
        now[0] += 10.0
        return (health.Check(what="receiver", ok=False, says="it hangs"),)

    monkeypatch.setattr(health, "checked", slow)
    found = health._Found(replace(web, clock=lambda: now[0]))
    found.checks()
    found.checks()
    assert looks == [NOW]
