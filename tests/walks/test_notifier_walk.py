"""The node tells a RIS of pynetdicom's which results exist and where; the RIS answers in each of the ways that there are, or not at all."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pynetdicom import AE as ApplicationEntity
from pynetdicom import evt

from dicom_node.config import NodeConfig
from dicom_node.domain import AE, Announcement, AnnouncementState
from dicom_node.store import Store
from dicom_node.worklist import Notifier
from dicom_node.worklist.ian import SOP_CLASS, noticed
from tests.contracts.arrange import finished
from tests.orthanc import free_ports
from tests.walks.node import wait_for


@pytest.fixture
def store(tmp_path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "storage")
    yield opened
    opened.close()


class Ris:
    """Takes notifications; `statuses` are answered in their order, the last for ever."""

    def __init__(self, *statuses: int | Callable[[Any], int], port: int = 0, accepts: bool = True) -> None:
        self.told: list[tuple[str, Dataset]] = []
        self._statuses = list(statuses) or [0x0000]
        self._entity = ApplicationEntity("RIS")
        self._entity.add_supported_context(SOP_CLASS if accepts else "1.2.840.10008.1.1")
        self._port = port or free_ports(1)[0]
        self.ae = AE("RIS", "127.0.0.1", self._port)

    def __enter__(self) -> "Ris":
        self._server = self._entity.start_server(("127.0.0.1", self._port), block=False, evt_handlers=[(evt.EVT_N_CREATE, self._on_create)])
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()

    def _on_create(self, event: Any) -> tuple[int, Dataset | None]:
        self.told.append((str(event.request.AffectedSOPInstanceUID), event.attribute_list))
        status = self._statuses[0] if len(self._statuses) == 1 else self._statuses.pop(0)
        return (status(event) if callable(status) else status), None


def configured(ris: AE, *, may: tuple[str, ...] = (), timeout_s: float = 5.0, attempts: int = 3) -> NodeConfig:
    """Return the configuration of a node that tells a RIS of what is at its PACS."""
    remotes = {
        "ris": {"ae": str(ris), "notify": True, "may": list(may), "timeout_s": timeout_s},
        "pacs": {"ae": "PACS@10.0.4.10:104", "may": ["receive"]},
    }
    deliver = {"backoff_s": 0.05, "backoff_max_s": 0.2, "poll_s": 0.05, "attempts": attempts}
    return NodeConfig.model_validate({"node": {"port": 0}, "remotes": remotes, "deliver": deliver})


@contextmanager
def notifying(store: Store, ris: AE, *, later_s: float = 0.0, **how: Any) -> Iterator[Notifier]:
    """Let a node do so, by a clock that is so much later."""
    notifier = Notifier(configured(ris, **how), store, lambda: time.time() + later_s)
    notifier.start()
    try:
        yield notifier
        assert notifier.alive
    finally:
        notifier.stop()


def delivered(store: Store) -> None:
    """Let a job's results be on the PACS."""
    now = time.time()
    finished(store, at=now)
    for one in store.deliveries.claim("pacs", "sender", now=now, lease_s=60):
        assert store.deliveries.sent(one, "sender", now=now, status=0)


def ended(store: Store, state: AnnouncementState) -> Announcement:
    (one,) = wait_for(lambda: store.announcements.list(state=state), says=store.announcements.list)
    return one


@pytest.mark.parametrize(("may", "titles"), [((), ("PACS",)), (("move",), ("PACS", "DICOM_NODE"))])
def test_a_ris_is_told_where_the_results_are(store: Store, may: tuple[str, ...], titles: tuple[str, ...]) -> None:
    """PS3.4 Table R.3.2-1; they may be had from the node, too, by whom may move them."""
    delivered(store)
    with Ris() as ris, notifying(store, ris.ae, may=may):
        one = ended(store, AnnouncementState.TOLD)
    ((uid, attributes),) = ris.told
    said = noticed(uid, attributes)
    (job,) = store.jobs.list()
    assert (uid, said.study_instance_uid) == (one.sop_instance_uid, job.study_instance_uid)
    assert {each.sop_instance_uid: each.retrieve_aes for each in said.instances} == {
        result.sop_instance_uid: titles for result in store.jobs.results(job.id)
    }
    assert "ReferencedPerformedProcedureStepSequence" in attributes


def test_what_the_ris_knows_already_counts_as_told(store: Store) -> None:
    """0111: the node died after the answer and before it was on record; it says the same once more, under the same UID."""
    delivered(store)
    with Ris(0x0111) as ris, notifying(store, ris.ae):
        ended(store, AnnouncementState.TOLD)
    assert len(ris.told) == 1


def test_a_ris_that_is_away_is_told_when_it_comes_back(store: Store) -> None:
    """Not to be reached never counts."""
    delivered(store)
    ris = Ris()
    with notifying(store, ris.ae):
        wait_for(lambda: any(one.reason for one in store.announcements.list()))
        with ris:
            assert ended(store, AnnouncementState.TOLD).attempts == 1


def test_a_ris_that_refuses_is_told_again_and_given_up_in_the_end(store: Store) -> None:
    """The same UID each time; the journal says why."""
    delivered(store)
    with Ris(0x0213) as ris, notifying(store, ris.ae):
        one = ended(store, AnnouncementState.DROPPED)
    assert (one.reason, len(ris.told), len({uid for uid, _ in ris.told})) == ("answered a notification with 0213; it was tried 3 times", 3, 1)


def test_a_ris_that_accepts_no_notifications_is_named(store: Store) -> None:
    """What to do is in the reason."""
    delivered(store)
    with Ris(accepts=False) as ris, notifying(store, ris.ae, attempts=1):
        assert "does not accept Instance Availability Notification" in ended(store, AnnouncementState.DROPPED).reason


def test_a_ris_that_aborts_or_is_silent_is_told_again(store: Store) -> None:
    """Neither holds the node up for ever."""

    def abort(event: Any) -> int:
        event.assoc.abort()
        return 0x0000

    def say_nothing(event: Any) -> int:
        time.sleep(2.0)
        return 0x0000

    delivered(store)
    with Ris(abort, say_nothing, 0x0000) as ris, notifying(store, ris.ae, timeout_s=1.0, attempts=9):
        assert ended(store, AnnouncementState.TOLD).attempts == 3
    assert len(ris.told) == 3


PROGRAM = """
import sys, time
from pathlib import Path
from dicom_node.domain import AE
from dicom_node.store import Store
from dicom_node.worklist import Notifier
from tests.walks.test_notifier_walk import configured

notifier = Notifier(configured(AE.parse(sys.argv[2])), Store.open(Path(sys.argv[1])))
notifier.start()
time.sleep(600)
"""


def test_a_node_that_is_killed_while_it_tells_tells_the_same_again(store: Store) -> None:
    """It died between the request and the answer: the RIS has it, says so, and has it once."""
    known: set[str] = set()

    def keep(event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        if uid in known:
            return 0x0111
        known.add(uid)
        os.kill(program.pid, signal.SIGKILL)
        return 0x0000

    delivered(store)
    with Ris(keep) as ris:
        root = Path(__file__).parents[2]
        program = subprocess.Popen([sys.executable, "-c", PROGRAM, str(store.archive.root), str(ris.ae)], cwd=root)
        assert program.wait(60) == -signal.SIGKILL
        assert [one.state for one in store.announcements.list()] == [AnnouncementState.PENDING]
        with notifying(store, ris.ae, later_s=60.0):  # beyond the lease of the one that died
            ended(store, AnnouncementState.TOLD)
    assert (len(known), len(ris.told)) == (1, 2)
