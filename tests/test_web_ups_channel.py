"""The channel of events without a socket: what is told, in what order, to whom, and who may open it (PS3.18 8.10.4, 11.13)."""

import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse, WebSocketTestSession
from starlette.websockets import WebSocketDisconnect

from dicom_node.config import load_site
from dicom_node.domain import GLOBAL_SUBSCRIPTION, Channel, EventReport, ReportKind
from dicom_node.serve.web import context
from dicom_node.store import Store
from dicom_node.web import Context, build
from dicom_node.web.access.sockets import SUBPROTOCOL
from dicom_node.web.ups.channel import message
from dicom_node.worklist.ups.events import information
from tests.upsrs import Client, progressed
from tests.walks.node import wait_for

BASE = "http://127.0.0.1:8080"


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Context]:
    """The web of a node on its defaults."""
    yield from of_node(tmp_path)


def of_node(folder: Path, lines: str = "") -> Iterator[Context]:
    (folder / "node.toml").write_text(f"[node]\ndisk_reserve_mb = 0\n{lines}")
    site = load_site(folder / "node.toml", node={"storage": folder / "data"})
    store = Store.of(site.config.node)
    yield context(site, store, time.time)
    store.close()


@pytest.fixture
def http(web: Context) -> Iterator[TestClient]:
    with TestClient(build(web), base_url=BASE) as one:
        yield one


def channel(http: TestClient, receiver: str = "ME", **how: Any) -> AbstractContextManager[WebSocketTestSession]:
    return http.websocket_connect(f"ws://127.0.0.1:8080/dicom-web/subscribers/{receiver}", **how)


def heard(session: WebSocketTestSession, count: int) -> list[tuple[int, str]]:
    """Return the kind of so many events, and the state that they tell, if any."""
    events = [json.loads(session.receive_text()) for _ in range(count)]
    return [(one["00001002"]["Value"][0], "".join(one.get("00741000", {}).get("Value", []))) for one in events]


def test_every_event_is_told_in_order(http: TestClient, web: Context) -> None:
    """What waited is told when the channel opens; what happens then, as it happens; and it is told once."""
    client = Client(http)
    uid = client.create()
    client.ask("POST", f"/workitems/{uid}/subscribers/ME")
    client.state(uid, "IN PROGRESS")
    with channel(http) as session:
        assert heard(session, 2) == [(1, "SCHEDULED"), (1, "IN PROGRESS")]
        client.update(uid, progressed(30))
        client.ask("POST", f"/workitems/{uid}/cancelrequest")
        assert heard(session, 2) == [(3, ""), (2, "")]
    wait_for(lambda: web.store.subscriptions.waiting("ME", Channel.WEB) == ())


def test_an_event_is_a_data_set(web: Context) -> None:
    """PS3.18 11.13: the elements of a command that name the event, and the event's information."""
    facts = {"state": "CANCELED", "readiness": "READY", "reason": "nobody came", "code": ["110513", "DCM", "Discontinued for unspecified reason"]}
    report = EventReport(receiver="ME", channel=Channel.WEB, workitem_uid="1.2.3", kind=ReportKind.STATE, facts=facts, at=0.0, id=65_536)
    said = json.loads(message(report, information(report)))
    assert said["00000002"] == {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.34.6.4"]}
    assert said["00000110"] == {"vr": "US", "Value": [1]}
    assert said["00001000"] == {"vr": "UI", "Value": ["1.2.3"]}
    assert said["00001002"] == {"vr": "US", "Value": [1]}
    assert said["00404041"] == {"vr": "CS", "Value": ["READY"]}
    assert said["00741000"] == {"vr": "CS", "Value": ["CANCELED"]}
    assert said["0074100E"]["Value"][0]["00080100"]["Value"] == ["110513"]


@pytest.mark.parametrize(
    ("kind", "facts", "said"),
    [
        (ReportKind.CANCEL_REQUESTED, {"requester": "RIS", "reason": "twice", "code": ["110510", "DCM", "Duplicate order"]}, "00741236"),
        (ReportKind.PROGRESS, {"progress": 0.5, "note": "half"}, "00741002"),
        (ReportKind.SCP_STATUS, {"status": "RESTARTED", "subscriptions": "WARM START", "workitems": "COLD START"}, "00741242"),
        (ReportKind.ASSIGNED, {"attributes": {"00404025": {"vr": "SQ", "Value": []}}}, "00404025"),
    ],
)
def test_every_kind_of_event_is_told(kind: ReportKind, facts: dict[str, Any], said: str) -> None:
    """PS3.4 Table CC.2.4-1."""
    report = EventReport(receiver="ME", channel=Channel.WEB, workitem_uid=GLOBAL_SUBSCRIPTION, kind=kind, facts=facts, at=0.0, id=1)
    told = json.loads(message(report, information(report)))
    assert said in told and told["00001002"]["Value"] == [int(kind)]


def test_a_channel_does_not_last_for_ever(http: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever was shut out meanwhile does not come back."""
    monkeypatch.setattr("dicom_node.web.ups.channel._LASTS_S", 0.05)
    with channel(http) as session:
        with pytest.raises(WebSocketDisconnect) as ended:
            session.receive_text()
        assert ended.value.code == 1001


def test_there_are_only_so_many_channels(http: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicom_node.web.ups.channel._MOST_CHANNELS", 1)
    with channel(http):
        with pytest.raises(WebSocketDenialResponse) as refused, channel(http, "YOU"):
            pass
        assert refused.value.status_code == 503
    with channel(http, "YOU"):
        pass


def test_the_newer_channel_takes_the_place_of_the_older(http: TestClient) -> None:
    client = Client(http)
    client.ask("POST", f"/workitems/{GLOBAL_SUBSCRIPTION}/subscribers/ME")
    with channel(http) as older, channel(http) as newer:
        with pytest.raises(WebSocketDisconnect) as ended:
            older.receive_text()
        assert ended.value.code == 4000
        client.create()
        assert heard(newer, 1) == [(1, "SCHEDULED")]


def test_what_a_subscriber_says_is_not_read(http: TestClient) -> None:
    client = Client(http)
    with channel(http) as session:
        session.send_text("{")
        session.send_bytes(b"\x00" * 1000)
        client.ask("POST", f"/workitems/{client.create()}/subscribers/ME")
        assert heard(session, 1) == [(1, "SCHEDULED")]


def test_a_channel_is_no_page(http: TestClient) -> None:
    answer = http.get("/dicom-web/subscribers/ME")
    assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")


@pytest.mark.parametrize(
    ("receiver", "headers", "status"),
    [
        ("TOO_LONG_FOR_AN_AE", {}, 400),
        ("ME", {"host": "evil.example"}, 421),
        ("ME", {"origin": "http://evil.example"}, 403),
        ("ME", {"origin": "null"}, 403),
        ("ME", {"origin": "http://localhost:8080"}, 403),
        ("ME", {"sec-fetch-site": "cross-site"}, 403),
        ("ME", {"x-forwarded-for": "10.0.0.1"}, 403),
        ("ME", {"authorization": "Bearer nonsense"}, 401),
        ("ME", {"sec-websocket-protocol": f"{SUBPROTOCOL}, bearer.nonsense"}, 401),
    ],
)
def test_a_channel_is_not_opened(http: TestClient, receiver: str, headers: dict[str, str], status: int) -> None:
    """Under another name, or by a page of another site: a browser would send this node's cookies along (RFC 6455 10.2)."""
    with pytest.raises(WebSocketDenialResponse) as refused, channel(http, receiver, headers=headers):
        pass
    assert refused.value.status_code == status


def test_a_page_of_ours_opens_a_channel(http: TestClient) -> None:
    with channel(http, headers={"origin": BASE}, subprotocols=[SUBPROTOCOL]) as session:
        assert session.accepted_subprotocol == SUBPROTOCOL


def test_who_has_to_say_who_it_is_says_so_by_token_or_by_session(tmp_path: Path) -> None:
    """`worklist.read`; a browser of another origin shows its token among the subprotocols, and none of them is it that is agreed on."""
    for web in of_node(tmp_path):
        now, store = time.time(), web.store
        for name, role in (("program", "service"), ("berta", "viewer")):
            store.people.add(name, role, who="test", now=now)
        reads, stores = (
            store.people.token("program", [scope], expires_at=now + 60, who="test", now=now) for scope in ("worklist.read", "dicomweb.write")
        )
        session = store.sessions.begin("berta", lasts_s=600, now=now)
        with TestClient(build(web), base_url=BASE) as http:
            for headers, status in (({}, 401), ({"authorization": f"Bearer {stores}"}, 403)):
                with pytest.raises(WebSocketDenialResponse) as refused, channel(http, headers=headers):
                    pass
                assert refused.value.status_code == status
            with channel(http, headers={"authorization": f"Bearer {reads}"}), channel(http, "YOU", headers={"cookie": f"dicom-node={session}"}):
                pass
            offered = [SUBPROTOCOL, f"bearer.{reads}"]
            with channel(http, headers={"origin": "https://viewer.example"}, subprotocols=offered) as elsewhere:
                assert elsewhere.accepted_subprotocol == SUBPROTOCOL


def test_nobody_hears_or_ends_what_another_account_watches(tmp_path: Path) -> None:
    """But operators, who lift the locks of a watcher that is gone."""
    for web in of_node(tmp_path):
        now, store = time.time(), web.store
        for name, role in (("first", "service"), ("second", "service"), ("otto", "operator")):
            store.people.add(name, role, who="test", now=now)
        tokens = {name: store.people.token(name, ["worklist.read"], expires_at=now + 60, who="test", now=now) for name in ("first", "second")}
        session = store.sessions.begin("otto", lasts_s=600, now=now)
        with TestClient(build(web), base_url=BASE) as http:
            first, second = (Client(http, Authorization=f"Bearer {tokens[name]}") for name in ("first", "second"))
            where = f"/workitems/{GLOBAL_SUBSCRIPTION}/subscribers/ME"
            assert first.ask("POST", where).status_code == 201
            assert [second.ask(method, where).status_code for method in ("POST", "DELETE")] == [403, 403]
            with pytest.raises(WebSocketDenialResponse) as refused, channel(http, headers={"authorization": f"Bearer {tokens['second']}"}):
                pass
            assert refused.value.status_code == 403
            for headers in ({"authorization": f"Bearer {tokens['first']}"}, {"cookie": f"dicom-node={session}"}):
                with channel(http, headers=headers):
                    pass
            assert first.ask("DELETE", where).status_code == 200


def test_behind_a_proxy_the_channel_is_where_the_client_reaches_it(tmp_path: Path) -> None:
    """wss where the client came over TLS, under the name that it knows."""
    lines = '[web]\nnames = ["node.example"]\nbehind_proxy = ["127.0.0.1"]\n'
    for web in of_node(tmp_path, lines):
        with TestClient(build(web), base_url=BASE, client=("127.0.0.1", 5000)) as http:
            web.store.people.add("program", "service", who="test", now=time.time())
            token = web.store.people.token("program", ["worklist.read"], expires_at=time.time() + 60, who="test", now=time.time())
            forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "node.example", "X-Forwarded-For": "10.0.0.1"}
            shown = {**forwarded, "Authorization": f"Bearer {token}"}
            answer = Client(http, **shown).ask("POST", f"/workitems/{GLOBAL_SUBSCRIPTION}/subscribers/ME")
            assert answer.status_code == 201, answer.text
            assert answer.headers["content-location"] == "wss://node.example/dicom-web/subscribers/ME"
            with channel(http, headers={**shown, "X-Forwarded-Proto": "wss"}):
                pass
            web.store.people.add("berta", "viewer", who="test", now=time.time())
            session = web.store.sessions.begin("berta", lasts_s=600, now=time.time())
            by_browser = {**forwarded, "X-Forwarded-Proto": "wss", "Cookie": f"__Host-dicom-node={session}"}
            with channel(http, "YOU", headers={**by_browser, "Origin": "https://node.example"}):
                pass
            refused = pytest.raises(WebSocketDenialResponse)
            with refused as said, channel(http, "YOU", headers={**by_browser, "Origin": "http://node.example"}):
                pass
            assert said.value.status_code == 403


def test_every_channel_says_who_may_open_it(web: Context) -> None:
    routes = [one for one in build(web).router.routes if isinstance(one, WebSocketRoute)]
    assert routes and all(hasattr(one.endpoint, "role") for one in routes)
