"""Kill -9 of a node at random moments while requesters, performers and a watcher are at work on its workitems.

Two performers ask for the same steps, each with a key of its own, and ask again what was not answered, as real ones do. When the kills are over
everything is counted: nothing that was acknowledged is lost, no step has two performers, and the watcher has heard of every end.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE as ApplicationEntity

from dicom_node.domain import AE, GLOBAL_SUBSCRIPTION, Channel, JobState
from dicom_node.store import Store
from dicom_node.wire import Requestor
from tests.dcmtk import listens
from tests.orthanc import free_ports
from tests.stepping import PULL, PUSH, WATCH, Peer, Watcher, eventually, listening
from tests.workitems import finishing, step, transaction

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("DICOM_NODE_UPS_KILLS", "12"))

CONFIG = """
[node]
host = "127.0.0.1"
port = {port}
storage = "{storage}"
disk_reserve_mb = 1
[remotes]
one = {{ ae = "P1@127.0.0.1:104", may = ["request", "perform"] }}
two = {{ ae = "P2@127.0.0.1:104", may = ["request", "perform"] }}
watcher = {{ ae = "WATCHER@127.0.0.1:{watcher}", may = ["watch"], timeout_s = 5 }}
[work]
start = false
[web]
start = false
[deliver]
backoff_s = 0.1
backoff_max_s = 0.5
"""


class Node:
    """A node's process, forked from one that has imported everything, and forked again when it was killed."""

    def __init__(self, config: Path, ae: AE) -> None:
        self._config, self._ae = config, ae
        self._zygote = subprocess.Popen([sys.executable, "-m", "tests.crashes.zygote"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
        self.begin()

    def begin(self) -> None:
        folder = self._config.parent
        wanted = {
            "verb": "serve",
            "config": str(self._config),
            "fuse": "",
            "passes": 1,
            "note": str(folder / "note"),
            "log": str(folder / "node.log"),
        }
        assert self._zygote.stdin is not None
        self._zygote.stdin.write(json.dumps(wanted).encode() + b"\n")
        self._zygote.stdin.flush()
        self._pid = int(self._said("pid")["pid"])
        assert eventually(lambda: listens(self._ae), 30.0), (folder / "node.log").read_text()[-3000:]

    def kill(self) -> None:
        """Kill it where it stands."""
        os.kill(self._pid, signal.SIGKILL)
        self._said("dead")

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        assert self._zygote.stdin is not None and self._zygote.stdout is not None
        self._zygote.stdin.close()
        self._zygote.wait(20)
        self._zygote.stdout.close()

    def _said(self, what: str) -> dict[str, Any]:
        assert self._zygote.stdout is not None
        for line in self._zygote.stdout:
            said: dict[str, Any] = json.loads(line)
            if what in said:
                return said
        raise AssertionError("the zygote has ended")


class Performer(threading.Thread):
    """Asks for steps, claims its own and the other's, and ends what it claimed; asks again whatever was not answered."""

    def __init__(self, title: str, node: AE, secrets: set[str], board: list[str], over: threading.Event) -> None:
        super().__init__(daemon=True)
        self._title, self._node, self._secrets, self._board, self._over = title, node, secrets, board, over
        self._association: Any = None
        self.created: set[str] = set()
        self.claimed: set[str] = set()
        self.ended: dict[str, str] = {}

    def run(self) -> None:
        seen = 0
        while not self._over.is_set():
            uid = transaction()
            assert self._ask(lambda peer, uid=uid: peer.create(step(), uid)[0]) in (0x0000, 0x0111)
            self.created.add(uid)
            self._board.append(uid)
            for other in self._board[seen:]:
                seen += 1
                self._perform(other)
        if self._association is not None and self._association.is_established:
            self._association.release()

    def _perform(self, uid: str) -> None:
        mine = transaction()
        status = self._ask(lambda peer: peer.become("IN PROGRESS", mine, uid))
        if status in (0xC301, 0xC300):  # the other one was quicker
            return
        assert status in (0x0000, 0xC302), f"{status:04X}"  # C302: it was claimed, and the answer was lost
        self.claimed.add(uid)
        to = "COMPLETED" if hash(uid) % 3 else "CANCELED"
        status = self._ask(lambda peer: peer.set(finishing(to, mine), uid))
        assert status == 0x0000, f"{status:04X}"
        status = self._ask(lambda peer: peer.become(to, mine, uid))
        assert status in (0x0000, 0xB304, 0xB306), f"{status:04X}"
        self.ended[uid] = to

    def _ask(self, what: Any) -> int:
        while True:
            with suppress(RuntimeError, ValueError):  # the association ended
                peer = self._peer()
                if peer is not None and (status := what(peer)) not in (-1, 0x0213):  # not answered; the ledger is not there yet
                    return int(status)
            time.sleep(0.02)

    def _peer(self) -> Peer | None:
        if self._association is None or not self._association.is_established:
            entity = Requestor(self._title)
            entity.dimse_timeout = entity.acse_timeout = entity.network_timeout = 10
            for uid in (PUSH, PULL):
                entity.add_requested_context(uid)
            self._association = entity.associate(self._node.host, self._node.port, ae_title=self._node.title)
        return Peer(self._association, self._secrets, []) if self._association.is_established else None


@contextmanager
def subscribed(node: AE) -> Iterator[Peer]:
    entity = ApplicationEntity("WATCHER")
    entity.add_requested_context(WATCH)
    association = entity.associate(node.host, node.port, ae_title=node.title)
    assert association.is_established
    yield Peer(association, set(), [])
    association.release()


@pytest.mark.slow
def test_no_workitem_is_lost_and_none_has_two_performers_however_often_the_node_is_killed(tmp_path: Path) -> None:
    """PS3.4 CC.1.1 and CC.2.4.3: the claim is a lock that outlives the process, and what happened is told in the end."""
    seed = int(os.environ.get("DICOM_NODE_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
    print(f"DICOM_NODE_SEED={seed}")
    chance, (port, hears) = random.Random(seed), free_ports(2)
    config, ae, secrets = tmp_path / "node.toml", AE("DICOM_NODE", "127.0.0.1", port), set[str]()
    config.write_text(CONFIG.format(port=port, storage=tmp_path / "data", watcher=hears))
    board: list[str] = []
    over, watcher = threading.Event(), Watcher(hears, secrets)
    with listening("WATCHER", watcher):
        node = Node(config, ae)
        try:
            with subscribed(ae) as peer:
                assert peer.watch(GLOBAL_SUBSCRIPTION, lock="TRUE") == 0x0000
            performers = [Performer(title, ae, secrets, board, over) for title in ("P1", "P2")]
            for one in performers:
                one.start()
            for _ in range(KILLS):
                time.sleep(chance.uniform(0.1, 1.2))
                node.kill()
                node.begin()
            over.set()
            for one in performers:
                one.join(30)
                assert not one.is_alive()
            store = Store.open(tmp_path / "data")
            is_told = eventually(lambda: not store.subscriptions.waiting("WATCHER", Channel.DIMSE), 30.0)
            assert is_told, store.subscriptions.watched()
        finally:
            node.close()
    print(f"{KILLS} kills, {len(board)} steps, {[len(one.claimed) for one in performers]} claimed, {len(watcher.told)} events")
    _nothing_is_lost(store, performers)
    _everything_is_told(store, watcher)
    store.close()


def _nothing_is_lost(store: Store, performers: list[Performer]) -> None:
    created = set().union(*(one.created for one in performers))
    items = {uid: store.workitems.get(uid) for uid in created}
    assert len(created) > 10
    assert all(items.values()), "a step that was acknowledged is gone"
    first, second = performers
    assert not first.claimed & second.claimed, "two performers have the same step"
    for one in performers:
        for uid in one.claimed:
            assert (item := items[uid]) is not None and item.performer == one._title
        for uid, to in one.ended.items():
            assert (item := items[uid]) is not None and item.state == to
    ended = {uid for uid, item in items.items() if item is not None and item.has_ended}
    assert ended == set(first.ended) | set(second.ended)


def _everything_is_told(store: Store, watcher: Watcher) -> None:
    """In order; twice at most what was told at the moment of a kill."""
    assert any(kind == 4 for of, kind, _ in watcher.told if of == GLOBAL_SUBSCRIPTION)
    for _, item in store.workitems.newest(limit=100_000):
        states = [gist for kind, gist in watcher.of(item.uid) if kind == 1]
        told = [state for number, state in enumerate(states) if number == 0 or state != states[number - 1]]
        expected = ["SCHEDULED", *(["IN PROGRESS"] if item.state is not JobState.SCHEDULED else []), *([str(item.state)] if item.has_ended else [])]
        assert told == expected, (item.uid, states)
