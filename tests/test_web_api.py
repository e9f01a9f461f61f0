"""The JSON API: it says what the verbs say, acts for operators alone, and whatever comes it fails in one shape."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from starlette.testclient import TestClient

from dicom_node.config import load_site
from dicom_node.serve.web import context
from dicom_node.store import Store
from dicom_node.web import Context, build
from dicom_node.web.access import Gate, Person, Role
from tests.contracts.arrange import NOW, STUDY, arrive, finished, in_quarantine, sending, waiting
from tests.test_cli import KEYS

CONFIG = """
[node]
disk_reserve_mb = 0
port = 0
[remotes]
pacs = {{ ae = "PACS@127.0.0.1:9", may = ["receive"], timeout_s = 1.0 }}
archive = {{ ae = "ARCHIVE@127.0.0.1:9", retrieve = "get", timeout_s = 1.0 }}
[models.lung-ct]
folder = "{models}/lung_ct"
[[rules]]
name = "chest CT"
when.BodyPartExamined = "CHEST"
analyse = ["lung-ct"]
deliver = ["pacs"]
"""
BUNDLED = Path(__file__).parents[1] / "models"


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Context]:
    """The web of a node with a little of everything in it."""
    yield from furnished(tmp_path)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A client of such a node, for those who only look."""
    for web in furnished(tmp_path_factory.mktemp("seen")):
        yield TestClient(build(web), base_url="http://127.0.0.1:8080")


def furnished(tmp_path: Path) -> Iterator[Context]:
    (tmp_path / "node.toml").write_text(CONFIG.format(models=BUNDLED))
    site = load_site(tmp_path / "node.toml", node={"storage": tmp_path / "data"})
    store = Store.of(site.config.node)
    finished(store, study=f"{STUDY}.1")
    (dead,) = sending(store, limit=1)
    store.deliveries.give_up(dead, "sender-1", now=NOW + 1, reason="pacs answered C000", status=0xC000)
    waiting(store, study=f"{STUDY}.2")
    arrive(store, study=f"{STUDY}.3")
    store.retrievals.ask("archive", "1.2.3", who="test", why="a person asked for it", now=NOW)
    store.instances.quarantine(in_quarantine(store, b"no DICOM", at=NOW), at=NOW, source="SCANNER", reason="C001 Not parsable")
    store.jobs.seen("worker", ["lung-ct"], started_at=NOW, now=NOW)
    yield context(site, store, lambda: NOW + 5)
    store.close()


@pytest.fixture
def client(web: Context) -> TestClient:
    return TestClient(build(web), base_url="http://127.0.0.1:8080")


def as_person(web: Context, person: Person) -> TestClient:
    """Return a client whose requests are a person's."""
    return TestClient(past_the_gate(web, person), base_url="http://127.0.0.1:8080")


def past_the_gate(web: Context, person: Person) -> Any:
    """Return the application, asked by a person."""
    app = build(web)
    app.user_middleware = [one for one in app.user_middleware if one.cls is not Gate]

    async def asked(scope, receive, send):
        scope.setdefault("state", {})["person"] = person
        await app(scope, receive, send)

    return asked


@pytest.mark.parametrize(
    ("path", "keys", "count"),
    [
        ("studies", "study", 3),
        ("jobs", "job", 2),
        ("deliveries", "delivery", 2),
        ("retrievals", "retrieval", 1),
        ("quarantine", "quarantined", 1),
    ],
)
def test_a_list_has_the_keys_of_the_verb(seen: TestClient, path: str, keys: str, count: int) -> None:
    """One contract, at a terminal and by HTTP."""
    told = seen.get(f"/api/v1/{path}").json()
    assert (len(told["items"]), told["next"]) == (count, None)
    assert all(set(one) == KEYS[keys] for one in told["items"])


def test_one_thing_has_the_keys_of_the_verb(seen: TestClient) -> None:
    assert set(seen.get("/api/v1/status").json()) == KEYS["status"]
    assert [set(one) for one in seen.get("/api/v1/models").json()] == [KEYS["model"]]
    study = seen.get(f"/api/v1/studies/{STUDY}.1").json()
    assert (set(study), set(study["events"][0]), set(study["jobs"][0])) == (
        {"study_instance_uid", "series", "events", "jobs"},
        KEYS["event"],
        KEYS["job"],
    )
    job = seen.get(f"/api/v1/jobs/{study['jobs'][0]['id']}").json()
    assert set(job) == {"job", "results", "deliveries", "notifications", "feedback"}
    assert {frozenset(one) for one in job["results"]} == {frozenset(KEYS["result"])}


@pytest.mark.parametrize("path", ["studies", "jobs", "deliveries"])
def test_a_list_is_gone_through_in_parts(seen: TestClient, path: str) -> None:
    """Law: the parts together are the whole, in its order, each thing once."""
    whole = seen.get(f"/api/v1/{path}").json()["items"]
    found, cursor = [], ""
    while True:
        part = seen.get(f"/api/v1/{path}", params={"limit": 1, "cursor": cursor}).json()
        found += part["items"]
        cursor = part["next"]
        if cursor is None:
            break
    assert found == whole and len(whole) > 1


def test_lists_are_filtered(seen: TestClient) -> None:
    assert [one["state"] for one in seen.get("/api/v1/jobs", params={"state": "SCHEDULED"}).json()["items"]] == ["SCHEDULED"]
    assert seen.get("/api/v1/deliveries", params={"destination": "nobody"}).json()["items"] == []
    assert len(seen.get("/api/v1/studies", params={"state": "OPEN"}).json()["items"]) == 1
    assert seen.get("/api/v1/studies", params={"since": NOW + 1}).json()["items"] == []


def test_events_go_on_after_a_number(seen: TestClient) -> None:
    """Who follows the journal misses nothing and reads nothing twice."""
    first = seen.get("/api/v1/events", params={"limit": 2}).json()
    rest = seen.get("/api/v1/events", params={"after": first[-1]["id"]}).json()
    ids = [one["id"] for one in (*first, *rest)]
    assert ids == sorted(set(ids)) and len(rest) > 2 and set(rest[0]) == KEYS["event"]


def test_an_operator_acts(client: TestClient, web: Context) -> None:
    """Cancel, run again, replay, fetch, try: with the operator's name in the journal."""
    job = client.get("/api/v1/jobs", params={"state": "SCHEDULED"}).json()["items"][0]
    assert client.post(f"/api/v1/jobs/{job['id']}/cancel").json() == {"id": job["id"], "state": "CANCELED"}
    assert client.post(f"/api/v1/jobs/{job['id']}/cancel").status_code == 409
    made = client.post(f"/api/v1/jobs/{job['id']}/again")
    assert (made.status_code, made.json()["predecessor_id"]) == (201, job["id"])
    dead = client.get("/api/v1/deliveries", params={"state": "DEAD"}).json()["items"][0]
    assert client.post(f"/api/v1/deliveries/{dead['id']}/replay").json() == {"count": 1}
    assert client.post(f"/api/v1/deliveries/{dead['id']}/replay").status_code == 409
    assert client.post(f"/api/v1/deliveries/{dead['id']}/cancel").json()["state"] == "CANCELED"
    asked = client.post("/api/v1/retrievals", json={"remote": "archive", "study_instance_uid": "1.2.4"})
    assert (asked.status_code, asked.json()["by_person"]) == (201, True)
    assert client.post(f"/api/v1/retrievals/{asked.json()['id']}/cancel").json()["state"] == "CANCELED"
    tried = client.post("/api/v1/remotes/pacs/echo").json()
    assert tried[-1]["ok"] is False and set(tried[-1]) == {"what", "ok", "says", "hint"}
    assert [event.who for event in web.store.journal.of_study(f"{STUDY}.2") if event.kind.startswith("canceled")] == ["local"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/jobs/999", 404),
        ("GET", "/api/v1/studies/9.9", 404),
        ("GET", "/api/v1/studies/MARKED^NAME", 422),
        ("GET", "/api/v1/jobs?limit=100000", 422),
        ("GET", "/api/v1/jobs?cursor=-1", 422),
        ("GET", "/api/v1/studies?cursor=nan:1.2", 422),
        ("GET", "/api/v1/deliveries?destination=%00", 422),
        ("POST", "/api/v1/remotes/nobody/echo", 404),
        ("POST", "/api/v1/retrievals", 422),
        ("POST", "/api/v1/jobs/0/cancel", 422),
    ],
)
def test_whatever_is_wrong_is_said_in_one_shape(seen: TestClient, method: str, path: str, status: int) -> None:
    """What is wrong, and what to do next; nothing of what was sent is quoted."""
    answer = seen.request(method, path)
    assert (answer.status_code, set(answer.json())) == (status, {"error", "hint"})
    assert "MARKED" not in answer.text


def test_a_body_that_is_too_long_is_not_read(seen: TestClient) -> None:
    assert seen.post("/api/v1/retrievals", content=b"x" * (1 << 17)).status_code == 413
    assert seen.post("/api/v1/retrievals", content=(b"x" for _ in range(3))).status_code == 413


def test_roles_and_scopes_say_who_may(web: Context) -> None:
    """A viewer looks, an operator acts, a service does what its scopes say."""
    for role, scopes, looks, acts in (
        (Role.NOBODY, (), 401, 401),
        (Role.SERVICE, (), 403, 403),
        (Role.SERVICE, ("api.read",), 200, 403),
        (Role.SERVICE, ("api.act",), 403, 404),
        (Role.VIEWER, (), 200, 403),
        (Role.OPERATOR, (), 200, 404),
    ):
        client = as_person(web, Person(name="one", role=role, scopes=frozenset(scopes) or None))
        got = client.get("/api/v1/jobs").status_code, client.post("/api/v1/jobs/999/cancel").status_code
        assert got == (looks, acts), (role, scopes)


def test_a_ledger_that_does_not_answer_is_said_so(web: Context) -> None:
    """503: try again."""
    web.store.database.close()
    with web.store.database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE job RENAME TO gone")
    answer = TestClient(build(web), base_url="http://127.0.0.1:8080").get("/api/v1/jobs")
    assert (answer.status_code, set(answer.json())) == (503, {"error", "hint"})


def test_no_patient_is_named(seen: TestClient) -> None:
    """The instances carry a marked Patient ID; no list and no walk has it."""
    described = seen.get("/api/openapi.json").json()
    paths = [path for path, methods in described["paths"].items() if "get" in methods and "{" not in path]
    assert len(paths) >= 10
    for path in (*paths, f"/api/v1/studies/{STUDY}.1", "/api/v1/jobs/1", "/api/"):
        answer = seen.get(path)
        assert answer.status_code == 200 and "MARKED" not in answer.text, path


def test_the_description_names_every_operation_and_its_failures(seen: TestClient) -> None:
    """OpenAPI 3.1: a generator of clients needs unique names, and the shapes of what goes wrong."""
    described = seen.get("/api/openapi.json").json()
    operations = [one for methods in described["paths"].values() for one in methods.values()]
    names = [one["operationId"] for one in operations]
    assert len(set(names)) == len(names) and all(one["description"] for one in operations)
    assert all({"401", "403", "404", "409", "422", "503"} <= set(one["responses"]) for one in operations)
    assert "<script" not in seen.get("/api/").text


def called_by_name(app: Any) -> Any:
    """Return the application, called as this machine is: schemathesis names a host of its own."""

    async def called(scope: Any, receive: Any, send: Any) -> None:
        named = [(name, value) for name, value in scope.get("headers", ()) if name != b"host"] + [(b"host", b"127.0.0.1:8080")]
        await app({**scope, "headers": named}, receive, send)

    return called


@pytest.mark.parametrize("rows", [False, True])
def test_whatever_is_sent_the_answers_are_as_described(web: Context, tmp_path: Path, rows: bool) -> None:
    """No 5xx, and each answer conforms to the description: on an empty node, and on one with rows (schemathesis)."""
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    if not rows:
        empty = Store.open(tmp_path / "empty")
        web = replace(web, store=empty)
    app = called_by_name(past_the_gate(web, Person(name="one", role=Role.ADMIN)))
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", app)
    checks = [schemathesis.checks.CHECKS.get_one(name) for name in ("not_a_server_error", "response_schema_conformance", "status_code_conformance")]
    settings = hypothesis.settings(
        max_examples=8,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path.endswith("/echo"):
            continue  # it calls the remote

        @settings
        @hypothesis.given(case=operation.as_strategy())
        def answers(case: schemathesis.Case) -> None:
            case.call_and_validate(checks=checks)

        answers()
    if not rows:
        web.store.close()
