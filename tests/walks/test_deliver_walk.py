"""Results on their way to real archives, and to broken ones: DCMTK, Orthanc, and a PACS that fails in named ways."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import structlog
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pynetdicom import AE as ApplicationEntity
from pynetdicom.dsutils import split_dataset
from pynetdicom.sop_class import ComprehensiveSRStorage, CTImageStorage, SegmentationStorage

from dicom_node.config import NodeConfig
from dicom_node.deliver import Deliverer
from dicom_node.domain import AE, Delivery, DeliveryState, Job, PeerUnavailable, Result, derived_uid
from dicom_node.simulate.pacs import BEHAVIOURS, Pacs
from dicom_node.store import Store
from dicom_node.store.moving import insert_job
from dicom_node.wire.peer import echo
from tests.certificates import authority, signed
from tests.orthanc import ask, free_ports, orthanc
from tests.peers import need

ROOT = Path(__file__).parents[2]
SOURCES = {"SEG": "liver_1frame.dcm", "SR": "test-SR.dcm"}


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now

    def go_to(self, moment: float) -> bool:
        """Go on to a moment, if it is still to come."""
        self.now = max(self.now, moment)
        return True


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "node")
    yield opened
    opened.close()


def configured(ae: AE, *, associations: int = 1, timeout_s: float = 5.0, **deliver: Any) -> NodeConfig:
    """Return a configuration with one destination, and back-offs short enough to wait for."""
    remote = {"ae": str(ae), "may": ["receive"], "associations": associations, "timeout_s": timeout_s}
    return NodeConfig.model_validate({"remotes": {"pacs": remote}, "deliver": {"backoff_s": 0.05, "poll_s": 0.02, **deliver}})


def made(store: Store, number: int = 1, *, job: str = "job", kinds: tuple[str, ...] = ("SEG", "SR"), now: float = 0.0) -> tuple[Result, ...]:
    """Let a job make `number` objects of each kind, to be delivered to `pacs`."""
    wanted = Job(
        study_instance_uid=derived_uid("test", "study"),
        model="lung-ct",
        model_version="1",
        device_uid="2.25.9",
        identity=sha256(job.encode()).hexdigest(),
        inputs={},
        why="test",
        deliver=("pacs",),
        created_at=now,
    )
    with store.database.write() as connection:
        insert_job(connection, wanted)
    held = store.jobs.claim("worker", ["lung-ct"], now=now, lease_s=60.0)
    assert held is not None
    results = [written(store, held, kind, index, now) for index in range(number) for kind in kinds]
    assert store.jobs.complete(held, results, now=now, why="done")
    return store.jobs.results(held.id)


def written(store: Store, job: Job, kind: str, index: int, now: float) -> Result:
    """Write one valid object of the kind, by the job's own UIDs."""
    dataset = dcmread(get_testdata_file(SOURCES[kind], download=False))
    dataset.StudyInstanceUID = job.study_instance_uid
    dataset.SeriesInstanceUID = derived_uid(job.identity, kind)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = derived_uid(job.identity, kind, index)
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "Marked^Patient", "MARKED-4711", "19500102"
    spare = store.archive.root / "spare.dcm"
    dataset.save_as(spare, enforce_file_format=True)
    data = spare.read_bytes()
    spare.unlink()
    return Result(
        job_id=job.id,
        kind=kind,
        sop_class_uid=dataset.SOPClassUID,
        sop_instance_uid=dataset.SOPInstanceUID,
        series_instance_uid=dataset.SeriesInstanceUID,
        study_instance_uid=dataset.StudyInstanceUID,
        path=store.archive.write_result(data, job.identity, f"{kind}-{index}", made_at=now),
        digest=sha256(data).hexdigest(),
    )


@contextlib.contextmanager
def delivering(config: NodeConfig, store: Store, clock: Callable[[], float] = time.time, **more: Any) -> Iterator[Deliverer]:
    """Run the room."""
    deliverer = Deliverer(config, store, clock, **more)
    deliverer.start()
    try:
        yield deliverer
    finally:
        deliverer.stop()


def wait_for(what: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    """Wait until something is so, and return it."""
    until = time.monotonic() + timeout_s
    while not (found := what()):
        assert time.monotonic() < until, "it did not come to be in time"
        time.sleep(0.01)
    return found


def all_in(store: Store, state: DeliveryState) -> tuple[Delivery, ...]:
    """Return all deliveries once every one of them is in a state."""
    found = store.deliveries.list(limit=1000)
    return found if all(one.state is state for one in found) else ()


def data_set(path: Path) -> bytes:
    """Return the bytes of a file's data set, without preamble and file meta information."""
    return path.read_bytes()[split_dataset(path)[1] :]


def content(dataset: Dataset) -> dict[int, Any]:
    """Return every element's value by its tag, nested as the data set is; a transfer syntax may change how it is written, never this."""
    return {int(one.tag): [content(item) for item in one.value] if one.VR == "SQ" else one.value for one in dataset}


@contextlib.contextmanager
def storescp(folder: Path, *options: str, port: int = 0) -> Iterator[tuple[AE, "subprocess.Popen[bytes]"]]:
    """Run DCMTK's storage SCP; it writes each object as it came, in a file named by its SOP Instance UID."""
    program = need("/usr/bin/storescp")  # by its path: pynetdicom installs a program of this name too
    folder.mkdir(parents=True, exist_ok=True)
    ae = AE("STORESCP", "127.0.0.1", port or free_ports(1)[0])
    with (folder.parent / "storescp.log").open("ab") as log:
        process = subprocess.Popen([program, *options, "-aet", ae.title, "-od", str(folder), str(ae.port)], stdout=log, stderr=log)
    try:
        wait_for(lambda: _listens(ae) or process.poll() is not None)
        assert process.poll() is None, (folder.parent / "storescp.log").read_text()
        yield ae, process
    finally:
        process.kill()
        process.wait()


def _listens(ae: AE) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection((ae.host, ae.port), 1).close()
        return True
    return False


# -------------------------------------------------------------------------------------------------------- real archives


def test_dcmtk_gets_the_data_sets_byte_for_byte(store: Store, tmp_path: Path) -> None:
    """PS3.4 B.4.1: what is on disk is what is sent; nothing is decoded on the way."""
    results = made(store, 3)
    with storescp(tmp_path / "pacs", "+B") as (ae, _), delivering(configured(ae), store):
        sent = wait_for(lambda: all_in(store, DeliveryState.SENT))
        files = wait_for(lambda: (found := sorted((tmp_path / "pacs").iterdir())) and len(found) == 6 and found)
    assert all(one.status == 0 and one.attempts == 1 and one.reason == "" for one in sent)
    assert {data_set(path) for path in files} == {data_set(store.archive.path(one.path)) for one in results}


@pytest.mark.parametrize("path", ["fast", "stock"])
def test_results_go_out_over_tls_as_soon_as_the_destination_shows_the_right_certificate(store: Store, tmp_path: Path, path: str) -> None:
    """PS3.15 B.12: both ends show who they are; until they do nothing is sent, and the ledger says why."""
    root = authority(tmp_path, "root")
    ours, theirs, other = (signed(root, tmp_path, name) for name in ("node", "pacs", "other"))
    results = made(store, 3)
    tls = ("+tls", str(theirs.key), str(theirs.certificate), "+cf", str(root.certificate))
    with storescp(tmp_path / "pacs", "+B", *tls) as (ae, _):
        known = tmp_path / "known.pem"
        known.write_bytes(other.certificate.read_bytes())
        said = configured(ae).model_dump(mode="json", exclude_none=True)
        said["remotes"]["pacs"]["tls"] = {"authorities": known}
        said["node"] |= {"store_path": path, "tls": {"certificate": ours.certificate, "key": ours.key, "clients": root.certificate}}
        with delivering(NodeConfig.model_validate(said), store):
            wait_for(lambda: "its certificate is of no authority that is known" in store.deliveries.destination("pacs").reason)
            known.write_bytes(root.certificate.read_bytes())
            sent = wait_for(lambda: all_in(store, DeliveryState.SENT))
            files = wait_for(lambda: (found := sorted((tmp_path / "pacs").iterdir())) and len(found) == 6 and found)
    assert all(one.status == 0 for one in sent)
    assert {data_set(path) for path in files} == {data_set(store.archive.path(one.path)) for one in results}


def test_a_peer_of_the_default_transfer_syntax_alone_gets_the_same_content(store: Store, tmp_path: Path) -> None:
    """PS3.5 10.1: it is encoded anew as Implicit VR Little Endian, nothing is lost, and the ledger says so."""
    results = made(store)
    with storescp(tmp_path / "pacs", "+B", "+xi") as (ae, _), delivering(configured(ae), store):
        sent = wait_for(lambda: all_in(store, DeliveryState.SENT))
    assert all(one.reason == "encoded anew as Implicit VR Little Endian, the only one accepted" for one in sent)
    stored = {str(dataset.SOPInstanceUID): dataset for dataset in map(dcmread, (tmp_path / "pacs").iterdir())}
    for one in results:
        assert stored[one.sop_instance_uid].file_meta.TransferSyntaxUID == "1.2.840.10008.1.2"
        assert content(stored[one.sop_instance_uid]) == content(dcmread(store.archive.path(one.path)))


def test_a_destination_that_wants_it_gets_results_deflated(store: Store, tmp_path: Path) -> None:
    """PS3.5 A.5: the same content in fewer bytes, the same bytes each time, and the ledger says why."""
    results = made(store)
    config = configured(AE("PACS", "127.0.0.1", 104))
    with Pacs(tmp_path / "pacs") as pacs:
        deflated = config.remotes["pacs"].model_copy(update={"ae": pacs.ae, "deflate": True})
        with delivering(config.model_copy(update={"remotes": {"pacs": deflated}}), store):
            sent = wait_for(lambda: all_in(store, DeliveryState.SENT))
        kept = pacs.instances()
    assert all(one.reason == "encoded anew as Deflated Explicit VR Little Endian, as is wished for this destination" for one in sent)
    for one in results:
        arrived = kept[one.sop_instance_uid]
        assert arrived.transfer_syntax_uid == "1.2.840.10008.1.2.1.99"
        assert arrived.path.stat().st_size < store.archive.path(one.path).stat().st_size
        assert content(dcmread(arrived.path)) == content(dcmread(store.archive.path(one.path)))


def test_orthanc_holds_every_result_once(store: Store, tmp_path: Path) -> None:
    """Its REST API lists what was sent, and gives the same content back (Orthanc itself rewrites the lengths of sequences)."""
    results = made(store, 2)
    with orthanc(tmp_path / "orthanc") as (ae, url), delivering(configured(ae), store):
        assert echo(ae, "DICOM_NODE") < 5
        wait_for(lambda: all_in(store, DeliveryState.SENT))
        held = {ask(f"{url}/instances/{key}")["MainDicomTags"]["SOPInstanceUID"]: key for key in ask(f"{url}/instances")}
        assert set(held) == {one.sop_instance_uid for one in results}
        for one in results:
            copy = dcmread(BytesIO(ask(f"{url}/instances/{held[one.sop_instance_uid]}/file")))
            assert content(copy) == content(dcmread(store.archive.path(one.path)))


# ------------------------------------------------------------------------------------------------------- broken archives


def test_what_waited_for_an_hour_is_delivered_once_the_pacs_is_up(store: Store, tmp_path: Path) -> None:
    """An unreachable peer never counts against a delivery, is not hammered, and gets everything exactly once when it is back."""
    clock = Clock()
    pacs = Pacs(tmp_path / "pacs")
    pacs.start()
    pacs.stop()  # it has a port now, and nobody listens on it
    results = made(store, 2, now=clock.now)
    with delivering(configured(pacs.ae, backoff_s=5.0, backoff_max_s=86400.0), store, clock):
        began = clock.now
        while clock.now < began + 3600:
            state = wait_for(lambda: (found := store.deliveries.destination("pacs")).not_before > clock.now and found)
            clock.now = state.not_before
        assert 10 < state.failures < 30
        assert "refuses the connection" in state.reason
        assert all(one.attempts == 0 and one.state in (DeliveryState.PENDING, DeliveryState.SENDING) for one in store.deliveries.list())
        with pacs:
            wait_for(lambda: clock.go_to(store.deliveries.destination("pacs").not_before) and all_in(store, DeliveryState.SENT))
            assert clock.now - began < 3600 + 3 * 300  # a probe comes at least every five minutes
            assert {one.arrivals for one in pacs.instances().values()} == {1}
            assert set(pacs.instances()) == {one.sop_instance_uid for one in results}
    assert store.deliveries.destination("pacs").failures == 0


def test_out_of_resources_is_tried_again_and_counts(store: Store, tmp_path: Path) -> None:
    """PS3.4 Table B.2-1, A700: the same bytes again, later."""
    made(store, kinds=("SEG",))
    with Pacs(tmp_path / "pacs", behaviour=BEHAVIOURS["full-at-first"]) as pacs, delivering(configured(pacs.ae), store):
        (sent,) = wait_for(lambda: all_in(store, DeliveryState.SENT))
        assert pacs.requests == 4
    assert sent.attempts == 4
    said = [event.why for event in store.journal.of_study(sent.result.study_instance_uid) if event.kind == "delivery pending"]
    assert said == ["pacs answered A700 (out of resources)"] * 3


def test_a_pacs_that_stays_full_ends_in_a_dead_letter(store: Store, tmp_path: Path) -> None:
    """After as many refusals as the site allows a person must look."""
    made(store, kinds=("SEG",))
    with Pacs(tmp_path / "pacs", behaviour=BEHAVIOURS["full"]) as pacs, delivering(configured(pacs.ae, attempts=3), store):
        (dead,) = wait_for(lambda: all_in(store, DeliveryState.DEAD))
        assert pacs.requests == 3
    assert dead.reason == "pacs answered A700 (out of resources); given up after 3 attempts"


def test_a_refused_object_is_a_dead_letter_that_a_person_can_replay(store: Store, tmp_path: Path) -> None:
    """PS3.4 Table B.2-1, C000: the same object would be refused again, until somebody has mended the archive."""
    made(store)
    pacs = Pacs(tmp_path / "pacs", behaviour=BEHAVIOURS["cannot-understand"])
    with pacs, delivering(configured(pacs.ae), store) as deliverer:
        dead = wait_for(lambda: all_in(store, DeliveryState.DEAD))
        assert pacs.requests == 2
        assert {one.status for one in dead} == {0xC000}
        assert dead[0].reason == "pacs answered C000 (cannot understand); look at the object and at the destination's own log"
        pacs.behaviour = BEHAVIOURS["well"]
        assert store.deliveries.replay(who="someone", now=time.time(), name="pacs") == 2
        deliverer.wake()
        wait_for(lambda: all_in(store, DeliveryState.SENT))
        assert {one.arrivals for one in pacs.instances().values()} == {1}


def test_a_warning_is_kept_and_the_object_counts_as_sent(store: Store, tmp_path: Path) -> None:
    """PS3.4 Table B.2-1, B000: stored, with elements coerced."""
    made(store)
    with Pacs(tmp_path / "pacs", behaviour=BEHAVIOURS["warns"]) as pacs, delivering(configured(pacs.ae), store):
        sent = wait_for(lambda: all_in(store, DeliveryState.SENT))
    assert {(one.status, one.reason) for one in sent} == {(0xB000, "pacs answered B000 (coercion of data elements)")}


def test_after_an_abort_the_rest_of_the_batch_is_sent(store: Store, tmp_path: Path) -> None:
    """PS3.8 7.3: what had its answer is not sent again, what had none is."""
    results = made(store, 3)
    with Pacs(tmp_path / "pacs", behaviour=BEHAVIOURS["aborts"]) as pacs, delivering(configured(pacs.ae), store):
        sent = wait_for(lambda: all_in(store, DeliveryState.SENT))
        assert {one.arrivals for one in pacs.instances().values()} == {1}
        assert len(pacs.instances()) == len(results)
        assert pacs.requests == 7
    assert sorted(one.attempts for one in sent) == [1, 1, 1, 1, 1, 2]  # only the one that was under way is suspected


def test_one_object_that_the_pacs_cannot_bear_does_not_block_the_others(store: Store, tmp_path: Path) -> None:
    """The oldest object makes the peer abort every time: it backs off by itself and ends as a dead letter, the others arrive."""
    results = made(store, 2)
    poison = results[0].sop_instance_uid

    class Fragile(Pacs):
        def _on_store(self, event: Any) -> int:
            if event.request.AffectedSOPInstanceUID == poison:
                event.assoc.abort()
                return 0xA700
            return super()._on_store(event)

    with Fragile(tmp_path / "pacs") as pacs, delivering(configured(pacs.ae, attempts=4), store):
        found = wait_for(lambda: (now := store.deliveries.list(state=DeliveryState.DEAD)) and len(all_done(store)) == 4 and now)
        assert set(pacs.instances()) == {one.sop_instance_uid for one in results[1:]}
    assert [one.result.sop_instance_uid for one in found] == [poison]
    assert found[0].reason.endswith("instead of answering an object; given up after 4 attempts")


def all_done(store: Store) -> list[Delivery]:
    """Return the deliveries that have ended."""
    return [one for one in store.deliveries.list() if one.state in (DeliveryState.SENT, DeliveryState.DEAD)]


def test_a_silent_pacs_is_left_after_its_time_out(store: Store, tmp_path: Path) -> None:
    """PS3.7 has no time-out of its own; the remote's is kept, and the delivery is due again."""
    made(store, kinds=("SEG",))
    pacs = Pacs(tmp_path / "pacs", behaviour=BEHAVIOURS["never-answers"])
    with pacs, delivering(configured(pacs.ae, timeout_s=2.0), store):
        (waits,) = wait_for(lambda: [one for one in store.deliveries.list() if one.attempts])
        assert "was silent, instead of answering an object" in waits.reason
        pacs.stop()
        pacs.behaviour = BEHAVIOURS["well"]
        pacs.start()
        wait_for(lambda: all_in(store, DeliveryState.SENT))
        (kept,) = pacs.instances().values()
    assert kept.identical
    assert kept.arrivals >= 2  # it had taken the object before it fell silent


def test_a_peer_that_stops_reading_does_not_hold_the_node(store: Store, tmp_path: Path) -> None:
    """A frozen process keeps its connection open and its window shut: the send itself must end."""
    made(store, kinds=("SEG",))
    (one,) = store.deliveries.list()
    grown = enlarged(store, one.result, 24 << 20)
    with storescp(tmp_path / "pacs", "-v", "+B", "--max-pdu", "4096") as (ae, process), delivering(configured(ae, timeout_s=2.0), store):
        wait_for(lambda: "Received Store Request" in (tmp_path / "storescp.log").read_text())
        os.kill(process.pid, signal.SIGSTOP)
        state = wait_for(lambda: (found := store.deliveries.destination("pacs")).failures and found)
        assert "instead of answering an object" in state.reason
        os.kill(process.pid, signal.SIGCONT)
        wait_for(lambda: all_in(store, DeliveryState.SENT), 60.0)
        (path,) = [path for path in (tmp_path / "pacs").iterdir() if path.stat().st_size > 24 << 20]
    assert sha256(data_set(path)).digest() == grown


def enlarged(store: Store, result: Result, size: int) -> bytes:
    """Make a result's file large, in disk and ledger; return the SHA-256 of its data set."""
    from sqlalchemy import update

    from dicom_node.store.tables import result as table

    path = store.archive.path(result.path)
    dataset = dcmread(path)
    dataset.add_new(0x00091001, "OB", bytes(size))
    dataset.add_new(0x00090010, "LO", "TEST")
    dataset.save_as(path, enforce_file_format=True)
    with store.database.write() as connection:
        digest = sha256(path.read_bytes()).hexdigest()
        connection.execute(update(table).where(table.c.id == result.id).values(digest=digest))
    return sha256(data_set(path)).digest()


def test_a_pacs_that_stores_no_results_is_named_and_nothing_else_suffers(store: Store, tmp_path: Path) -> None:
    """PS3.8 7.1.1.14: the presentation context is refused, and with it every object of the class; there is nothing to try again."""
    made(store)
    only_sr = replace(BEHAVIOURS["well"], refused_classes=frozenset({str(SegmentationStorage)}))
    with Pacs(tmp_path / "pacs", behaviour=only_sr) as pacs, delivering(configured(pacs.ae), store):
        done = wait_for(lambda: (found := all_done(store)) and len(found) == 2 and found)
        assert pacs.requests == 1
    by_kind = {one.result.kind: one for one in done}
    assert by_kind["SR"].state is DeliveryState.SENT
    assert by_kind["SEG"].state is DeliveryState.DEAD
    assert by_kind["SEG"].reason.startswith("pacs did not accept Segmentation Storage: it cannot store this kind of object; ask its administrator")


def test_a_pacs_that_accepts_no_context_at_all_is_not_called_unreachable(store: Store, tmp_path: Path) -> None:
    """PS3.8 7.1.1.14: an association may be accepted with every context refused."""
    made(store)
    with Pacs(tmp_path / "pacs", behaviour=BEHAVIOURS["refuses-results"]) as pacs, delivering(configured(pacs.ae), store):
        dead = wait_for(lambda: all_in(store, DeliveryState.DEAD))
    assert all("did not accept" in one.reason for one in dead)
    assert store.deliveries.destination("pacs").failures == 0


def test_a_rejected_association_waits_and_says_why(store: Store, tmp_path: Path) -> None:
    """PS3.8 Table 9-21: the calling AE is not known there. It is the site's to mend; no delivery is given up for it."""
    made(store)
    pacs = Pacs(tmp_path / "pacs", behaviour=BEHAVIOURS["refuses-associations"])
    with pacs, delivering(configured(pacs.ae), store):
        state = wait_for(lambda: (found := store.deliveries.destination("pacs")).failures > 1 and found)
        assert "rejected the association of DICOM_NODE: it does not know the calling AE title" in state.reason
        assert all(one.attempts == 0 for one in store.deliveries.list())
        pacs.stop()
        pacs.behaviour = BEHAVIOURS["well"]
        pacs.start()
        wait_for(lambda: all_in(store, DeliveryState.SENT))


def test_a_damaged_file_is_never_sent(store: Store, tmp_path: Path) -> None:
    """The digest in the ledger is that of what the job made: anything else on disk, or nothing, is for a person to look at."""
    results = made(store, 2)
    rotten, gone, *sound = results
    path = store.archive.path(rotten.path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    store.archive.remove(gone.path)
    with Pacs(tmp_path / "pacs") as pacs, delivering(configured(pacs.ae), store):
        done = wait_for(lambda: (found := all_done(store)) and len(found) == 4 and found)
        assert set(pacs.instances()) == {one.sop_instance_uid for one in sound}
    reasons = {one.result.id: one.reason for one in done if one.state is DeliveryState.DEAD}
    assert "its SHA-256 differs" in reasons[rotten.id]
    assert "No such file or directory" in reasons[gone.id]


# --------------------------------------------------------------------------------------------------- limits and crashes


@pytest.mark.parametrize("associations", [1, 2])
def test_there_are_never_more_associations_than_configured(store: Store, tmp_path: Path, associations: int) -> None:
    """All that may be used are used, and not one more, across all the room's threads."""
    slow = replace(BEHAVIOURS["well"], delay_s=0.02)
    for job in range(3):
        made(store, 12, job=f"job {job}")
    with Pacs(tmp_path / "pacs", behaviour=slow) as pacs, delivering(configured(pacs.ae, associations=associations), store):
        wait_for(lambda: all_in(store, DeliveryState.SENT))
        assert pacs.most_at_once == associations
        assert {one.arrivals for one in pacs.instances().values()} == {1}
        assert len(pacs.instances()) == 72


def test_killed_between_the_response_and_its_row_the_same_bytes_go_out_again(store: Store, tmp_path: Path) -> None:
    """The destination may get an object twice, but holds it once, because every byte and UID of it is the same."""
    made(store, kinds=("SEG",))
    with Pacs(tmp_path / "pacs") as pacs:
        command = [sys.executable, "-m", "tests.walks.dying_sender", str(store.archive.root), str(pacs.ae), "1"]
        died = subprocess.run(command, check=False, timeout=60, cwd=ROOT)
        assert died.returncode == -signal.SIGKILL
        assert [one.state for one in store.deliveries.list()] == [DeliveryState.SENDING]
        with delivering(configured(pacs.ae), store, lease_s=0.3):
            wait_for(lambda: all_in(store, DeliveryState.SENT))
        (kept,) = pacs.instances().values()
    assert kept.arrivals == 2
    assert kept.identical


def test_a_lease_is_kept_while_a_slow_peer_takes_its_time(store: Store, tmp_path: Path) -> None:
    """An answer that takes longer than a lease is waited for; nobody takes the delivery away meanwhile."""
    made(store)
    slow = replace(BEHAVIOURS["well"], delay_s=1.0)
    with Pacs(tmp_path / "pacs", behaviour=slow) as pacs:
        with delivering(configured(pacs.ae), store, lease_s=0.4), delivering(configured(pacs.ae), store, lease_s=0.4):
            wait_for(lambda: all_in(store, DeliveryState.SENT))
        assert {one.arrivals for one in pacs.instances().values()} == {1}


def test_stopping_finishes_the_object_under_way_and_puts_the_rest_back(store: Store, tmp_path: Path) -> None:
    """What was not tried is due at once for whoever sends next, and has lost no attempt."""
    made(store, 10)
    slow = replace(BEHAVIOURS["well"], delay_s=0.1)
    with Pacs(tmp_path / "pacs", behaviour=slow) as pacs:
        with delivering(configured(pacs.ae), store):
            pacs.wait(lambda kept: len(kept) >= 2, 10.0)
        left = store.deliveries.list()
        assert {one.state for one in left} == {DeliveryState.SENT, DeliveryState.PENDING}
        assert all(one.attempts == (one.state is DeliveryState.SENT) for one in left)
        with delivering(configured(pacs.ae), store):
            wait_for(lambda: all_in(store, DeliveryState.SENT))
        assert {one.arrivals for one in pacs.instances().values()} == {1}


def test_stopping_does_not_wait_for_a_silent_peer(store: Store, tmp_path: Path) -> None:
    """What takes longer than the patience is cut off, and counts for nothing."""
    made(store, kinds=("SEG",))
    with Pacs(tmp_path / "pacs", behaviour=BEHAVIOURS["never-answers"]) as pacs:
        deliverer = Deliverer(configured(pacs.ae, timeout_s=60.0), store)
        deliverer.start()
        assert deliverer.alive
        wait_for(lambda: pacs.requests)
        started = time.monotonic()
        deliverer.stop(patience_s=0.5)
        assert time.monotonic() - started < 5.0
        assert not deliverer.alive
        (one,) = store.deliveries.list()
        assert (one.state, one.attempts) == (DeliveryState.PENDING, 0)


def test_no_log_line_names_the_patient(store: Store, tmp_path: Path) -> None:
    """Logs leave the hospital more easily than images do."""
    made(store)
    warns = Pacs(tmp_path / "pacs", behaviour=BEHAVIOURS["warns"])
    with structlog.testing.capture_logs() as lines, warns as pacs, delivering(configured(pacs.ae), store):
        wait_for(lambda: all_in(store, DeliveryState.SENT))
    assert [line["event"] for line in lines].count("deliver.sent") == 2
    assert not [line for line in lines if any(mark in str(line) for mark in ("Marked", "MARKED", "19500102"))]


# ----------------------------------------------------------------------------------------------------------------- echo


def test_echo_says_how_long_the_peer_took(tmp_path: Path) -> None:
    """PS3.4 Annex A."""
    with storescp(tmp_path / "pacs") as (ae, _):
        assert 0.0 < echo(ae, "DICOM_NODE") < 5.0


def test_echo_says_that_nobody_listens() -> None:
    """The commonest fault: the peer is not started, or its port is another."""
    (port,) = free_ports(1)
    with pytest.raises(PeerUnavailable, match=f"PACS@127.0.0.1:{port} refuses the connection: nobody listens on port {port}") as refused:
        echo(AE("PACS", "127.0.0.1", port), "DICOM_NODE")
    assert refused.value.hint


def test_echo_says_that_the_host_is_not_known() -> None:
    """RFC 6761: no name under .invalid is ever found."""
    with pytest.raises(PeerUnavailable, match="the host name is not known"):
        echo(AE("PACS", "pacs.invalid", 104), "DICOM_NODE")


def test_echo_says_that_what_listens_is_silent() -> None:
    """A port where something other than DICOM listens."""
    silent = pytest.raises(PeerUnavailable, match="did not answer the association request: timed out")
    with socket.create_server(("127.0.0.1", 0)) as server, silent:
        echo(AE("PACS", *server.getsockname()), "DICOM_NODE", timeout_s=0.5)


def test_echo_says_whose_title_the_peer_does_not_know() -> None:
    """PS3.8 Table 9-21: calling AE title not recognised (1/1/3), called AE title not recognised (1/1/7)."""
    entity = ApplicationEntity("PACS")
    entity.require_called_aet = True
    entity.require_calling_aet = ["FRIEND"]
    entity.add_supported_context(str(CTImageStorage))
    server = entity.start_server(("127.0.0.1", 0), block=False)
    try:
        host, port = server.server_address[:2]
        with pytest.raises(PeerUnavailable, match="does not know the calling AE title"):
            echo(AE("PACS", host, port), "DICOM_NODE")
        with pytest.raises(PeerUnavailable, match="does not go by the called AE title"):
            echo(AE("ARCHIVE", host, port), "FRIEND")
        with pytest.raises(PeerUnavailable, match="did not accept Verification"):
            echo(AE("PACS", host, port), "FRIEND")
    finally:
        entity.shutdown()


def test_the_sample_objects_are_what_they_are_taken_for() -> None:
    """One Segmentation, one structured report, both Explicit VR Little Endian."""
    classes = {kind: dcmread(get_testdata_file(name, download=False)).SOPClassUID for kind, name in SOURCES.items()}
    assert classes == {"SEG": SegmentationStorage, "SR": ComprehensiveSRStorage}
