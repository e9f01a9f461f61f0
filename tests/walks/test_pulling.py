"""This node takes work from another Task Manager, which was written from the standard: pull and triggered pull, over DIMSE and over UPS-RS."""

import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from dicom_node.config import NodeConfig
from dicom_node.domain import AE, JobState, Priority, Workitem
from dicom_node.receive import Receiver
from dicom_node.simulate.pacs import Pacs
from dicom_node.store import Store
from dicom_node.worklist import Hearing, Manager, Pulling
from tests import phantoms
from tests.archives import archive
from tests.certificates import Pair, authority, signed
from tests.contracts.arrange import LEASE_S, STUDY, arrive, finished, job_of, result_of
from tests.orthanc import free_ports
from tests.walks.managing import GLOBAL, PROGRESS, SCP_STATUS, STATE, Board, code, dimse, send_event, step, web
from tests.walks.node import serving, wait_for

CT = "1.2.840.10008.5.1.4.1.1.2"
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
both = pytest.mark.parametrize("transport", ["dimse", "web"])


@dataclass
class House:
    """A manager, and a node that takes work from it, in this process or in another."""

    folder: Path
    transport: str
    tasks: str = "pull"
    every_s: float = 0.2
    board: Board = field(default_factory=Board)
    ports: list[int] = field(default_factory=lambda: free_ports(3))
    token: str = ""
    pki: tuple[Pair, Pair] | None = None  # an authority, and what it has signed for the manager

    def __post_init__(self) -> None:
        self.store = Store.open(self.folder / "storage")

    @property
    def here(self) -> AE:
        return AE("DICOM_NODE", "127.0.0.1", self.ports[0])

    def config(self) -> NodeConfig:
        tasks: dict[str, Any] = {"ae": f"TASKS@127.0.0.1:{self.ports[1]}", "tasks": self.tasks, "tasks_every_s": self.every_s, "timeout_s": 5.0}
        if self.transport == "web":
            tasks["web_url"] = f"{'https' if self.pki else 'http'}://127.0.0.1:{self.ports[1]}/dicom-web"
        if self.pki:
            tasks["tls"] = {"authorities": self.pki[0].certificate}
        if self.token:
            (self.folder / "token.txt").write_text(f"{self.token}\n")
            tasks["web_token_file"] = self.folder / "token.txt"
        remotes = {
            "tasks": tasks,
            "archive": {"ae": "ARCHIVE@127.0.0.1:1", "may": ["send"], "retrieve": "get"},
            "pacs": {"ae": "PACS@127.0.0.1:1", "may": ["receive"]},
        }
        return NodeConfig.model_validate(
            {
                "node": {"port": self.ports[0], "storage": self.store.archive.root, "disk_reserve_mb": 1},
                "remotes": remotes,
                "models": {"lung-ct": {"folder": "lung_ct", "workitem_codes": [["LUNGVOL", "99HOSPITAL"]]}},
                "deliver": {"backoff_s": 0.05, "backoff_max_s": 0.2, "poll_s": 0.05},
            }
        )

    @contextmanager
    def manager(self) -> Iterator[None]:
        """Let the manager be there."""
        if self.transport == "web":
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) if self.pki else None
            if tls is not None and self.pki:
                tls.load_cert_chain(self.pki[1].certificate, self.pki[1].key)
            with web(self.board, self.ports[1], self.ports[2], token=self.token, tls=tls):
                yield
        else:
            with dimse(self.board, self.ports[1], self.here):
                yield

    @contextmanager
    def node(self) -> Iterator[Pulling]:
        """Let the node be there, as far as it takes work."""
        config = self.config()
        receiver = Receiver(config, self.store, services=Hearing(config, self.store, time.time).services())
        pulling = Pulling(config, Manager(config, {}, self.store, time.time), self.store)
        receiver.start()
        pulling.start()
        try:
            yield pulling
            assert pulling.alive
        finally:
            pulling.stop()
            receiver.stop()

    def row(self, uid: str) -> Workitem | None:
        return self.store.workitems.get(uid)

    def claimed(self, uid: str) -> Workitem:
        """Wait until the node has claimed a step; return its row."""
        return wait_for(lambda: (row := self.row(uid)) is not None and row.state is JobState.IN_PROGRESS and row, says=lambda: self.board.asked)

    def settled(self, uid: str) -> Workitem:
        """Wait until the node has brought a step to its end; return its row."""
        return wait_for(lambda: (row := self.row(uid)) is not None and row.ended_at is not None and row, says=lambda: self.board.asked)


@pytest.fixture
def house(tmp_path: Path, transport: str) -> Iterator[House]:
    made = House(tmp_path, transport)
    yield made
    made.store.close()


def asked_for(**more: Any) -> Dataset:
    """Return a step about the study of `arrive`."""
    return step(STUDY, f"{STUDY}.1", [(CT, f"{STUDY}.1.1")], **more)


def taken_up(store: Store, uid: str, *deliver: str) -> Any:
    """Let a job perform a step, as the performing room does once its inputs are here, and a worker begin it."""
    now = time.time()
    arrive(store, at=now)
    made = store.workitems.take_up(uid, job_of(store.studies.view(STUDY), at=now, deliver=deliver), now=now)
    assert made is not None
    running = store.jobs.claim("worker-1", ["lung-ct"], now=now, lease_s=LEASE_S)
    assert running is not None and running.id == made.id
    return running


def progress(board: Board, uid: str) -> Dataset:
    return (board.get(uid) or Dataset()).get("ProcedureStepProgressInformationSequence", [Dataset()])[0]


@both
def test_a_step_is_pulled_performed_and_completed(house: House) -> None:
    """IHE AIW-I 50.4.2.1: query, claim, update, complete; all outputs are listed, and are where they were to go, before the final state."""
    with house.manager(), house.node():
        uid = house.board.add(asked_for(destination="PACS"))
        row = house.claimed(uid)
        assert (row.manager, row.requester, row.performer, row.study_instance_uid) == ("tasks", "tasks", "DICOM_NODE", STUDY)
        assert row.transaction_uid == house.board.locks[uid]
        job = taken_up(house.store, uid, "pacs")
        house.store.jobs.beat(job, now=time.time(), lease_s=LEASE_S, progress=0.4, note="die Lungen, groß: 12 μL")
        made = [result_of(house.store, job, kind) for kind in ("SEG", "SR")]
        assert house.store.jobs.complete(job, made, now=time.time(), why="made it")
        time.sleep(0.4)
        assert house.board.state(uid) == "IN PROGRESS"  # nothing is at the destination yet
        for one in house.store.deliveries.claim("pacs", "sender", now=time.time(), lease_s=60):
            assert house.store.deliveries.sent(one, "sender", now=time.time(), status=0)
        house.settled(uid)
    assert house.board.state(uid) == "COMPLETED"
    (performed,) = house.board.steps[uid].UnifiedProcedureStepPerformedProcedureSequence
    assert [item.CodeValue for item in performed.PerformedWorkitemCodeSequence] == ["lung-ct"]
    assert performed.PerformedStationNameCodeSequence[0].CodeValue == "DICOM_NODE"
    named = {one.ReferencedSOPInstanceUID for item in performed.OutputInformationSequence for one in item.ReferencedSOPSequence}
    assert named == {one.sop_instance_uid for one in made}
    for item in performed.OutputInformationSequence:
        assert [way.RetrieveAETitle for way in item.DICOMRetrievalSequence] == ["DICOM_NODE", "PACS"]
    assert progress(house.board, uid).ProcedureStepProgress == 100
    assert (house.board.count("IN PROGRESS", uid), house.board.count("COMPLETED", uid)) == (1, 1)
    assert house.store.workitems.mirrored() == ()


@both
def test_who_is_told_claims_at_once_and_stops_when_it_is_asked_to(tmp_path: Path, transport: str) -> None:
    """IHE AIW-I 50.4.2.2: subscribe, on an event get and claim; PS3.4 CC.2.2: on a request to cancel the performer stops, and says why."""
    house = House(tmp_path, transport, tasks="triggered", every_s=3600.0, token="s3cret" if transport == "web" else "")
    early = house.board.add(asked_for(ScheduledWorkitemCodeSequence=[code("LUNGVOL", "99HOSPITAL")]))
    with house.manager(), house.node():
        house.claimed(early)  # it was there before there was a subscription
        late = house.board.add(asked_for())
        house.claimed(late)
        job = taken_up(house.store, late)
        wait_for(lambda: house.board.count("set", late))
        house.board.ask_to_cancel(late, "wrong patient")
        house.board.ask_to_cancel(early, "wrong study")
        wait_for(lambda: house.store.jobs.get(job.id).cancel_requested)
        assert house.store.jobs.stop(job, now=time.time())
        for uid, why in ((late, "tasks asked for it to be canceled (110513, DCM)"), (early, "tasks asks for it: wrong study")):
            assert house.settled(uid).state is JobState.CANCELED
            assert house.board.state(uid) == "CANCELED"
            said = progress(house.board, uid)
            assert (said.ReasonForCancellation, said.ProcedureStepProgressDescription) == (why, why)
            assert said.ProcedureStepDiscontinuationReasonCodeSequence[0].CodeValue == "110513"
    house.store.close()


@both
def test_what_another_has_claimed_first_is_let_go(house: House) -> None:
    """PS3.4 Table CC.1.1-2: C301 for the second performer."""
    found = house.board.get

    def seized_meanwhile(uid: str) -> Dataset | None:
        said = found(uid)
        if not house.board.locks:
            house.board.seize(uid)
        return said

    house.board.get = seized_meanwhile  # type: ignore[method-assign]
    with house.manager(), house.node():
        uid = house.board.add(asked_for())
        assert house.settled(uid).reason == "another performer has claimed it"
        time.sleep(0.5)
    assert house.board.locks == {uid: "1.2.3.4"}
    assert house.board.count("IN PROGRESS", uid, 0xC301) == 1
    assert house.store.workitems.waiting(now=time.time()) == ()


def test_what_is_for_others_is_never_claimed(tmp_path: Path) -> None:
    """IHE AIW-I 4.82.4.1.1; it is told once why, and taken when it has become this node's."""
    house = House(tmp_path, "dimse")
    station = house.board.add(asked_for(ScheduledStationNameCodeSequence=[code("OTHER")]))
    waits = house.board.add(asked_for(InputReadinessState="INCOMPLETE"))
    elsewhere = house.board.add(asked_for(destination="NOBODY"))
    other = house.board.add(asked_for(ScheduledWorkitemCodeSequence=[code("mammography")]))
    mine = house.board.add(asked_for(ScheduledStationNameCodeSequence=[code("DICOM_NODE")]))
    with house.manager(), house.node():
        house.claimed(mine)
        time.sleep(0.5)
        assert set(house.board.locks) == {mine}
        house.board.steps[waits].InputReadinessState = "READY"
        house.claimed(waits)
    assert [house.row(uid) for uid in (station, elsewhere, other)] == [None] * 3
    house.store.close()


@both
def test_a_manager_that_is_away_is_told_when_it_is_back(house: House) -> None:
    """Nothing is given up because a manager is away; and no more is claimed than there are hands for."""
    with house.node():
        time.sleep(0.2)
        with house.manager():
            uids = [house.board.add(asked_for()) for _ in range(4)]
            wait_for(lambda: len(house.board.locks) == 2)
            uid = next(one for one in uids if one in house.board.locks)
            house.claimed(uid)
            job = taken_up(house.store, uid)
        assert house.store.jobs.decline(job, now=time.time(), why="no lungs are in it", cause="types")
        time.sleep(0.5)
        with house.manager():
            house.settled(uid)
            assert house.board.state(uid) == "CANCELED"
            assert progress(house.board, uid).ProcedureStepDiscontinuationReasonCodeSequence[0].CodeValue == "110522"
            wait_for(lambda: len(house.board.locks) == 3)  # one hand is free again


@both
def test_a_step_that_was_ended_at_its_manager_is_stopped(house: House) -> None:
    """A manager may end a step by force; a search shows it."""
    with house.manager(), house.node():
        uid = house.board.add(asked_for())
        house.claimed(uid)
        job = taken_up(house.store, uid)
        house.board.seize(uid, "CANCELED")
        assert house.settled(uid).reason == "the step was canceled at tasks"
        assert house.store.jobs.get(job.id).cancel_requested


def test_a_job_that_others_want_too_goes_on_without_the_step(tmp_path: Path) -> None:
    """The same analysis of the same images is one job, whoever asks for it."""
    house = House(tmp_path, "dimse")
    with house.manager(), house.node():
        uids = [house.board.add(asked_for()) for _ in range(2)]
        for uid in uids:
            house.claimed(uid)
        job = taken_up(house.store, uids[0])
        assert house.store.workitems.take_up(uids[1], job_of(house.store.studies.view(STUDY), at=time.time()), now=time.time())
        house.board.seize(uids[0], "CANCELED")
        house.settled(uids[0])
        assert not house.store.jobs.get(job.id).cancel_requested
        assert house.store.jobs.complete(job, [], now=time.time(), why="nothing was found")
        house.settled(uids[1])
    assert [house.board.state(uid) for uid in uids] == ["CANCELED", "COMPLETED"]
    house.store.close()


@both
def test_who_has_begun_anew_is_subscribed_to_again(tmp_path: Path, transport: str) -> None:
    """PS3.4 CC.2.4.3: after an SCP status change, and after a channel was lost, the subscriber subscribes and searches again (R2.8)."""
    house = House(tmp_path, transport, tasks="triggered", every_s=3600.0)
    with house.node():
        with house.manager():
            wait_for(lambda: house.board.count("subscribe", GLOBAL))
            if transport == "dimse":
                said = Dataset()
                said.SCPStatus, said.SubscriptionListStatus, said.UnifiedProcedureStepListStatus = "RESTARTED", "COLD START", "WARM START"
                time.sleep(0.4)  # until all was searched through
                unheard = house.board.add(asked_for(), quiet=True)
                house.board.tell(GLOBAL, SCP_STATUS, said)
                house.claimed(unheard)
                assert house.board.count("subscribe", GLOBAL) == 2
            else:
                time.sleep(0.4)  # until all was searched through, and the channel is open
                house.claimed(house.board.add(asked_for()))
        before = house.board.count("subscribe", GLOBAL)
        missed = house.board.add(asked_for())
        if transport == "web":  # over DIMSE who asks nothing does not learn that a manager was away
            with house.manager():
                house.claimed(missed)
                assert house.board.count("subscribe", GLOBAL) == before + 1
    house.store.close()


def test_work_and_events_come_over_tls_from_whom_an_authority_knows(tmp_path: Path) -> None:
    """The token goes to nobody else: another authority's certificate is not taken."""
    ours, other = authority(tmp_path, "ours"), authority(tmp_path, "other")
    signed_ = signed(ours, tmp_path, "tasks")
    house = House(tmp_path, "web", tasks="triggered", every_s=3600.0, token="s3cret", pki=(ours, signed_))
    with house.manager(), house.node():
        house.claimed(house.board.add(asked_for()))
        time.sleep(0.4)  # until all was searched through, and the channel is open
        house.claimed(house.board.add(asked_for()))
    house.store.close()
    stranger = House(tmp_path / "stranger", "web", token="s3cret", pki=(other, signed_))
    with stranger.manager(), stranger.node():
        uid = stranger.board.add(asked_for())
        time.sleep(0.5)
        assert stranger.row(uid) is None
    assert stranger.board.asked == []
    stranger.store.close()


def test_who_was_told_by_dimse_is_told_by_the_web_from_now_on(tmp_path: Path) -> None:
    """A manager knows one way to tell an AE title of events (PS3.18 11.10); the earlier one is let go of."""
    house = House(tmp_path, "web", tasks="triggered", every_s=3600.0)
    house.board.watching |= {"DICOM_NODE", "BY DIMSE"}
    with house.manager(), house.node():
        wait_for(lambda: house.board.count("subscribe", GLOBAL))
        time.sleep(0.4)  # until all was searched through, and the channel is open
        house.claimed(house.board.add(asked_for()))
    house.store.close()


def test_what_was_analysed_before_is_completed_once_it_is_stored(tmp_path: Path) -> None:
    """The job of the same analysis ended long ago; its results are not where this step wants them."""
    house = House(tmp_path, "dimse")
    done = finished(house.store, kinds=("SEG",), at=time.time() - 7200.0, deliver=())
    with house.manager(), house.node():
        uid = house.board.add(asked_for(destination="PACS"))
        house.claimed(uid)
        same = job_of(house.store.studies.view(STUDY), at=time.time(), deliver=("pacs",))
        assert house.store.workitems.take_up(uid, same, now=time.time()).id == done.id
        time.sleep(0.5)
        assert house.board.state(uid) == "IN PROGRESS"
        for one in house.store.deliveries.claim("pacs", "sender", now=time.time(), lease_s=60):
            assert house.store.deliveries.sent(one, "sender", now=time.time(), status=0)
        house.settled(uid)
    assert house.board.state(uid) == "COMPLETED"
    house.store.close()


def test_a_manager_without_watch_is_pulled_from(tmp_path: Path) -> None:
    """Pull is what a performer can do in any case."""
    house = House(tmp_path, "dimse", tasks="triggered")
    with dimse(house.board, house.ports[1], watches=False), house.node():
        house.claimed(house.board.add(asked_for()))
    house.store.close()


def test_only_a_manager_reports(tmp_path: Path) -> None:
    """PS3.4 CC.2.4.4: 0124 for whom nothing was asked of, 0113 for an event that there is not; neither is kept."""
    house = House(tmp_path, "dimse", tasks="triggered", every_s=3600.0)
    with house.node():
        said = Dataset()
        said.ProcedureStepState, said.InputReadinessState = "SCHEDULED", "READY"
        assert send_event(house.here, "1.2.3", STATE, said, calling_ae="ARCHIVE") == 0x0124
        assert send_event(house.here, "1.2.3", 9, said) == 0x0113
        assert send_event(house.here, "1.2.3", PROGRESS, said) == 0x0000
        assert send_event(house.here, "1.2.3", STATE, said) == 0x0000
    house.store.close()


PROGRAM = """
import sys, time
from pathlib import Path
from dicom_node.config import NodeConfig
from dicom_node.store import Store
from dicom_node.worklist import Manager, Pulling

config = NodeConfig.model_validate_json(sys.argv[1])
store = Store.of(config.node)
pulling = Pulling(config, Manager(config, {}, store, time.time), store)
pulling.start()
time.sleep(600)
"""


@contextmanager
def dying(house: House, when: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a node that is killed after its manager has done something, and before that is answered."""
    died: list[str] = []

    def kill(what: str, _: str) -> None:
        if what == when and not died:
            died.append(what)
            os.kill(program.pid, signal.SIGKILL)
            program.wait()

    house.board.after = kill
    root = Path(__file__).parents[2]
    program = subprocess.Popen([sys.executable, "-c", PROGRAM, house.config().model_dump_json()], cwd=root)
    try:
        yield program
        assert program.wait(60) == -signal.SIGKILL
    finally:
        program.kill()
        program.wait()
        house.board.after = lambda what, uid: None


@both
def test_a_node_that_is_killed_while_it_claims_claims_once(house: House) -> None:
    """The claim was taken, and its answer never came: it is made again with the same Transaction UID, and is this node's."""
    with house.manager():
        uid = house.board.add(asked_for())
        with dying(house, "IN PROGRESS"):
            pass
        row = house.row(uid)
        assert row is not None and (row.state, row.transaction_uid) == (JobState.SCHEDULED, house.board.locks[uid])
        with house.node():
            assert house.claimed(uid).transaction_uid == row.transaction_uid
    assert (house.board.count("IN PROGRESS", uid), house.board.count("IN PROGRESS", uid, 0xC302)) == (1, 1)


def test_what_was_written_and_not_claimed_is_claimed_with_the_same_key(tmp_path: Path) -> None:
    """The node died between the row and the claim."""
    house = House(tmp_path, "dimse")
    uid = house.board.add(asked_for())
    said = {"state": JobState.SCHEDULED, "priority": Priority.MEDIUM, "attributes": {}, "transaction_uid": "2.25.77", "manager": "tasks"}
    assert house.store.workitems.create(Workitem(uid=uid, **said), now=time.time())
    with house.manager(), house.node():
        house.claimed(uid)
    assert house.board.locks == {uid: "2.25.77"}
    house.store.close()


@both
def test_a_manager_that_fails_is_asked_again(house: House) -> None:
    """Whatever it answers, or not: the node goes on."""
    found, wrong = house.board.find, [ValueError("no"), ValueError("no"), ValueError("no")]

    def fails_at_first(keys: dict[str, str]) -> list[Dataset]:
        if wrong:
            raise wrong.pop()
        return found(keys)

    house.board.find = fails_at_first  # type: ignore[method-assign]
    with house.manager(), house.node():
        house.claimed(house.board.add(asked_for()))


def test_what_was_claimed_by_another_while_the_node_was_dead_is_let_go(tmp_path: Path) -> None:
    """It was killed before its claim was sent, or the claim was lost: the row is there, the step is somebody else's."""
    house = House(tmp_path, "dimse")
    uid = house.board.add(asked_for())
    with house.manager():
        with dying(house, "IN PROGRESS"):
            pass
        house.board.locks[uid] = "1.2.3.4"
        with house.node():
            assert house.settled(uid).reason == "another performer has claimed it"
    house.store.close()


@pytest.mark.parametrize(("transport", "when"), [("dimse", "set"), ("dimse", "COMPLETED"), ("web", "COMPLETED")])
def test_a_node_that_is_killed_while_it_completes_completes_once(house: House, when: str) -> None:
    """B306 counts as done: the same is said again, and nothing is lost."""
    with house.manager():
        uid = house.board.add(asked_for())
        with house.node():
            house.claimed(uid)
            wait_for(lambda: house.board.count("set", uid))
        job = taken_up(house.store, uid)
        assert house.store.jobs.complete(job, [result_of(house.store, job)], now=time.time(), why="made it")
        with dying(house, when):
            pass
        row = house.row(uid)
        assert row is not None and row.ended_at is None
        with house.node():
            house.settled(uid)
    assert (house.board.state(uid), house.board.count("COMPLETED", uid)) == ("COMPLETED", 1)


# -------------------------------------------------------------------------------------------------------------- the whole node

MODELS = {"waits": Path(__file__).parent / "models" / "waits"}


def _of(images: list[Dataset], **more: Any) -> Dataset:
    first, named = images[0], [(str(one.SOPClassUID), str(one.SOPInstanceUID)) for one in images]
    more = {"ScheduledWorkitemCodeSequence": [code("waits")], "PatientID": first.PatientID, **more}
    return step(str(first.StudyInstanceUID), str(first.SeriesInstanceUID), named, **more)


@contextmanager
def managers(node_port: int) -> Iterator[dict[str, tuple[Board, dict[str, Any]]]]:
    """Run four managers: how each is asked, its board, and how the node names it."""
    here = AE("DICOM_NODE", "127.0.0.1", node_port)
    found: dict[str, tuple[Board, dict[str, Any]]] = {}
    with ExitStack() as stack:
        for tasks in ("pull", "triggered"):
            board, (port,) = Board(), free_ports(1)
            stack.enter_context(dimse(board, port, here if tasks == "triggered" else None))
            every_s = 0.2 if tasks == "pull" else 3600.0
            # Reports are taken by the title of who calls: the one that calls has the manager's.
            title = "TASKS" if tasks == "triggered" else "PULLED"
            found[f"dimse {tasks}"] = board, {"ae": f"{title}@127.0.0.1:{port}", "tasks": tasks, "tasks_every_s": every_s}
            web_board, (http, events) = Board(), free_ports(2)
            url = stack.enter_context(web(web_board, http, events))
            said = {"ae": f"WEB_{tasks.upper()}@127.0.0.1:1", "tasks": tasks, "web_url": url, "tasks_every_s": every_s}
            found[f"web {tasks}"] = web_board, said
        yield found


def test_a_node_works_for_four_managers_at_once(tmp_path: Path) -> None:
    """The whole of IHE AIW-I 50.4.2, pull and triggered pull, over DIMSE and over UPS-RS, by the program as it is served.

    Each step is claimed, its inputs are fetched from the archive that it names, analysed, the results stored where it says, listed, and it is
    completed. No patient and no Transaction UID is in the log.
    """
    (port,) = free_ports(1)
    with ExitStack() as stack:
        four = stack.enter_context(managers(port))
        images = {name: phantoms.series(seed=name, BodyPartExamined="CHEST") for name in four}
        from_, _ = stack.enter_context(archive([one for series in images.values() for one in series]))
        pacs = stack.enter_context(Pacs(tmp_path / "pacs", ae_title="PACS"))
        remotes = {name.replace(" ", "-"): said for name, (_, said) in four.items()} | {
            "scanner": {"ae": "SCANNER@127.0.0.1:1", "may": ["send"]},
            "archive": {"ae": str(from_), "may": ["send"], "retrieve": "get", "retrieves_at_once": 4},
            "pacs": {"ae": str(pacs.ae), "may": ["receive"]},
        }
        node = stack.enter_context(serving(tmp_path / "node", remotes=remotes, rules=[], models=MODELS, port=port))
        uids = {}
        for name, (board, said) in four.items():
            if said["tasks"] == "triggered":
                wait_for(lambda board=board: board.count("subscribe"), says=lambda: node.log[-3000:])
            uids[name] = board.add(_of(images[name], destination="PACS"))
        for name, (board, _) in four.items():
            wait_for(lambda board=board, uid=uids[name]: board.state(uid) == "COMPLETED", says=lambda: node.log[-4000:])
        keys = [key for board, _ in four.values() for key in board.locks.values()]
        assert len(keys) == 4
        assert [mark for mark in ("MARKED", "Marked", *keys) if mark in node.log] == []
    named = [uid for name, (board, _) in four.items() for uid in _outputs(board, uids[name])]
    assert sorted(named) == sorted(path.stem for path in (tmp_path / "pacs").rglob("*.dcm"))
    assert len(named) == len(set(named)) >= 8


def _outputs(board: Board, uid: str) -> list[str]:
    """Return the objects that a step lists, each of which is said to be at the PACS."""
    assert board.count("IN PROGRESS", uid) == 1
    (performed,) = board.steps[uid].UnifiedProcedureStepPerformedProcedureSequence
    items = performed.OutputInformationSequence
    assert all([way.RetrieveAETitle for way in item.DICOMRetrievalSequence] == ["DICOM_NODE", "PACS"] for item in items)
    return [str(one.ReferencedSOPInstanceUID) for item in items for one in item.ReferencedSOPSequence]
