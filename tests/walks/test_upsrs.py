"""Workitems over real sockets: a requester, a performer and a watcher speak UPS-RS to a node that serves; its web is killed meanwhile."""

import contextlib
import json
import os
import signal
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from dicom_node.domain import FILTERED_SUBSCRIPTION, GLOBAL_SUBSCRIPTION, Channel
from tests import phantoms
from tests.orthanc import free_ports
from tests.upsrs import Client, performed, progressed
from tests.walks.node import PATIENCE_S, serving, wait_for
from tests.walks.webs import web

HERE = Path(__file__).parent

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@contextlib.contextmanager
def client_of(address: str) -> Iterator[Client]:
    """Speak to a node."""
    with httpx2.Client(base_url=address, timeout=PATIENCE_S) as http:
        yield Client(http)


def watching(client: Client, uid: str, receiver: str, query: str = "") -> str:
    """Subscribe, and return where the channel is."""
    answer = client.ask("POST", f"/workitems/{uid}/subscribers/{receiver}{query}")
    assert answer.status_code == 201, answer.text
    return str(answer.headers["content-location"])


def heard(channel: ClientConnection, count: int) -> list[tuple[str, int, str]]:
    """Return of so many events the workitem, the kind, and the state or the progress that they tell."""
    told = []
    for _ in range(count):
        one: dict[str, Any] = json.loads(channel.recv(PATIENCE_S))
        progress = one.get("00741002", {}).get("Value", [{}])[0].get("00741004", {}).get("Value", [""])[0]
        state = "".join(one.get("00741000", {}).get("Value", [])) or (f"{progress:.0f}" if progress != "" else "")
        told.append((one["00001000"]["Value"][0], one["00001002"]["Value"][0], state))
    return told


def test_a_watcher_hears_of_a_step_from_its_creation_to_its_end(tmp_path: Path) -> None:
    """Two watchers: of all, and of those of one station, which the node compares by itself; and what the node does itself is a step, too."""
    port, http, nowhere = free_ports(3)
    remotes = {"scanner": {"ae": "SCANNER@127.0.0.1:104", "may": ["send"]}, "pacs": {"ae": f"PACS@127.0.0.1:{nowhere}", "may": ["receive"]}}
    rules = [{"name": "CT waits", "when": {"Modality": "CT"}, "analyse": ["waits"], "deliver": ["pacs"]}]
    models = {"waits": HERE / "models" / "waits"}
    said: dict[str, Any] = {"remotes": remotes, "rules": rules, "models": models, "port": port, "web": {"start": True, "port": http}}
    with serving(tmp_path, **said) as node, client_of(f"http://127.0.0.1:{http}") as client:
        wait_for(lambda: lives(http), says=lambda: node.log[-2000:])
        channel_all = watching(client, GLOBAL_SUBSCRIPTION, "ALL")
        channel_some = watching(client, FILTERED_SUBSCRIPTION, "SOME", "?filter=ScheduledStationNameCodeSequence.CodeValue=RIBCOUNTER")
        with connect(channel_all) as everything, connect(channel_some) as some:
            uid = client.create()
            assert client.state(uid, "IN PROGRESS").status_code == 200
            assert client.update(uid, progressed(50)).status_code == 200
            assert client.update(uid, performed()).status_code == 200
            assert client.state(uid, "COMPLETED").status_code == 200
            expected = [(uid, 1, "SCHEDULED"), (uid, 1, "IN PROGRESS"), (uid, 3, "50"), (uid, 1, "COMPLETED")]
            assert heard(everything, 4) == expected
            made = phantoms.series(seed="upsrs")
            node.send(phantoms.write(made, tmp_path / "sent"))
            events: list[tuple[str, int, str]] = []
            while not events or events[-1][2] not in ("COMPLETED", "CANCELED"):
                events += heard(everything, 1)
            assert [event[2] for event in events if event[1] == 1] == ["SCHEDULED", "IN PROGRESS", "COMPLETED"]
            assert heard(some, 1)[0][0] == uid  # compared after it was created: from then on it is watched
        assert "MARKED" not in node.log.upper()


def lives(port: int) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live", timeout=5) as said:
        return bool(said.status == 200)
    return False


def test_a_web_that_is_killed_loses_no_event(tmp_path: Path) -> None:
    """kill -9 while a watcher listens: after another start each event of which it had not heard comes, in order; one may come twice."""
    told: list[tuple[str, int, str]] = []
    expected: list[tuple[str, int, str]] = []
    with web(tmp_path) as first, client_of(first.url) as client:
        with connect(watching(client, GLOBAL_SUBSCRIPTION, "ME")) as channel:
            uids = [client.create() for _ in range(20)]
            expected += [(uid, 1, "SCHEDULED") for uid in uids]
            told += heard(channel, 5)
            for uid in uids:
                assert client.state(uid, "IN PROGRESS").status_code == 200
                expected.append((uid, 1, "IN PROGRESS"))
            os.kill(first.pid, signal.SIGKILL)
            with contextlib.suppress(Exception):  # what had been sent may be read to its end
                while True:
                    told += heard(channel, 1)
        left = len(first.store.subscriptions.waiting("ME", Channel.WEB, limit=1000))
    with contextlib.ExitStack() as after, web(tmp_path) as second, client_of(second.url) as client:
        with connect(f"ws://{second.url.removeprefix('http://')}/dicom-web/subscribers/ME") as channel:
            told += heard(channel, left)
            assert client.update(uids[0], progressed(10)).status_code == 200
            assert heard(channel, 1) == [(uids[0], 3, "10")]
        assert list(dict.fromkeys(told)) == expected
        with (
            pytest.raises(InvalidStatus) as refused,
            connect(f"ws://{second.url.removeprefix('http://')}/dicom-web/subscribers/ME", origin="http://x"),
        ):
            pass
        assert refused.value.response.status_code == 403
        after.enter_context(connect(f"ws://{second.url.removeprefix('http://')}/dicom-web/subscribers/ME"))  # and the web stops nevertheless
        assert "MARKED" not in second.log.upper()


def test_of_many_who_claim_a_step_at_once_one_has_it(tmp_path: Path) -> None:
    """PS3.4 CC.1.1: each with a Transaction UID of its own; the others are told that theirs is not the one."""
    with web(tmp_path) as node, client_of(node.url) as client, ThreadPoolExecutor(25) as pool:
        for _ in range(3):
            uid = client.create()
            answers = list(pool.map(lambda number, uid=uid: client.state(uid, "IN PROGRESS", f"2.25.{number}"), range(1, 26)))
            assert sorted(one.status_code for one in answers) == [200, *[400] * 24]
            winner = 1 + next(number for number, one in enumerate(answers) if one.status_code == 200)
            assert client.update(uid, progressed(1), f"2.25.{winner}").status_code == 200
