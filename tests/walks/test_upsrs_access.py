"""The channel of events for those who are elsewhere: through TLS and a real nginx, and in a real browser that another site tries to use."""

import json
import time
from pathlib import Path

import pytest
from websockets.sync.client import connect

from dicom_node.domain import GLOBAL_SUBSCRIPTION
from dicom_node.store import Store
from tests.browsers import chromium, opened
from tests.browsing import HASH, PASSWORD
from tests.certificates import Pair, authority, signed
from tests.orthanc import free_ports
from tests.upsrs import Client
from tests.walks.node import PATIENCE_S
from tests.walks.test_web_access_walk import evil_site, httpx2, nginx, trusting, web

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

OPENS = """([address, ...offered]) => new Promise((done) => {
  const one = new WebSocket(address, offered);
  one.onopen = () => { one.close(); done("open " + one.protocol); };
  one.onerror = () => done("refused");
})"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return authority(tmp_path_factory.mktemp("pki"), "root")


def token_of(storage: Path, *scopes: str) -> str:
    """Return a program's token."""
    store = Store.open(storage)
    now = time.time()
    store.people.add("program", "service", who="test", now=now)
    token = store.people.token("program", scopes, expires_at=now + 3600, who="test", now=now)
    store.close()
    return token


def test_events_come_through_nginx_as_the_example_has_it(root: Pair, tmp_path: Path) -> None:
    """Content-Location is what the client can reach: wss, under the proxy's name and port (PS3.18 8.10.5)."""
    outside, inside = free_ports(2)
    shown = signed(root, tmp_path, "nginx")
    token = token_of(tmp_path / "data", "worklist.read", "worklist.write")
    headers = {"Authorization": f"Bearer {token}"}
    with (
        web(tmp_path, inside, names=["localhost"], behind_proxy=["127.0.0.1"]) as log,
        nginx(tmp_path, shown, outside, inside),
        httpx2.Client(base_url=f"https://localhost:{outside}", verify=trusting(root), timeout=PATIENCE_S) as http,
    ):
        client = Client(http, **headers)
        address = client.ask("POST", f"/workitems/{GLOBAL_SUBSCRIPTION}/subscribers/ME").headers["content-location"]
        assert address == f"wss://localhost:{outside}/dicom-web/subscribers/ME"
        with connect(address, ssl=trusting(root), additional_headers=headers) as channel:
            uid = client.create()
            assert json.loads(channel.recv(PATIENCE_S))["00001000"]["Value"] == [uid]
    assert token not in log.read_text()


def test_no_page_of_another_site_listens_in_somebody_elses_name(tmp_path: Path) -> None:
    """Chromium sends this node's cookie with a websocket that another site's page opens; the node refuses it, unless the page has a token."""
    (port,) = free_ports(1)
    node, address = f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{port}/dicom-web/subscribers/ME"
    token = token_of(tmp_path / "data", "worklist.read")
    store = Store.open(tmp_path / "data")
    store.people.add("anna", "viewer", password=HASH, who="test", now=time.time())
    store.close()
    with web(tmp_path, port) as log, evil_site() as (evil, pages), chromium() as browser:
        pages["/"] = "<!doctype html><title>evil</title>"
        with opened(browser, f"{node}/login", may_fail=True) as page:
            page.fill("#name", "anna")
            page.fill("#password", PASSWORD)
            page.keyboard.press("Enter")
            page.wait_for_url(f"{node}/")
            assert page.evaluate(OPENS, [address]) == "open "
            page.goto(f"{evil}/")
            assert page.evaluate(OPENS, [address]) == "refused"
            assert page.evaluate(OPENS, [address, "dicom-node.events", f"bearer.{token}"]) == "open dicom-node.events"
            assert page.evaluate(OPENS, [address, "dicom-node.events", "bearer.nonsense"]) == "refused"
    assert token not in log.read_text()
