"""Senders of every kind over real sockets: DCMTK's, pynetdicom's, dying ones, strangers, and peers that speak no DICOM at all."""

import contextlib
import logging
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pydicom
import pytest
import structlog
from pydicom import Dataset, dcmread
from pydicom.filereader import read_file_meta_info
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless
from pynetdicom import AE as ApplicationEntity
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.sop_class import CTImageStorage, Verification

from dicom_node.config import NodeConfig
from dicom_node.domain import AE, ConfigError, PeerUnavailable
from dicom_node.receive import Receiver
from dicom_node.receive.header import split_file
from dicom_node.simulate.scanner import echo, push
from dicom_node.store import Store
from tests import phantoms
from tests.contracts.arrange import unsettled
from tests.peers import need

FILES = Path(pydicom.__file__).parent / "data" / "test_files"
PRIVATE_CLASS = "1.3.6.1.4.1.55555.1.2.3"
REMOTES = {
    "ct": {"ae": "CT_ER@10.0.4.21:104", "may": ["send"]},
    "viewer": {"ae": "VIEWER@10.0.4.22:104", "may": ["query"]},
    "nobody": {"ae": "NOBODY@10.0.4.23:104"},
}


@dataclass
class House:
    """A node's receiver on a port of its own, and what it has stored."""

    store: Store
    receiver: Receiver

    @property
    def ae(self) -> AE:
        return AE("DICOM_NODE", "127.0.0.1", self.receiver.port)

    @property
    def stored(self) -> dict[str, Path]:
        """SOP Instance UID -> file, of every instance in the ledger, in order of arrival."""
        found = self.store.instances.by_ids(range(1, 1000))
        return {one.sop_instance_uid: path for one, path in zip(found, self.store.instances.bring(found), strict=True)}

    @property
    def kept(self) -> list[Path]:
        """The file of every version of every instance in the ledger."""
        return self.store.instances.bring(self.store.instances.by_ids(range(1, 1000)))

    def run(self, program: str, *options: str, files: Sequence[Path] = ()) -> subprocess.CompletedProcess[str]:
        """Run one of DCMTK's programs against the receiver."""
        command = [need(program), "-v", *options, "-aec", "DICOM_NODE", "127.0.0.1", str(self.receiver.port), *map(str, files)]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False)


@pytest.fixture
def open_house(tmp_path: Path) -> Iterator[Callable[..., House]]:
    """Open houses; every one is closed at the end, and must then have left no thread behind."""
    opened: list[House] = []

    def at(*, remotes: dict[str, Any] | None = None, **node: Any) -> House:
        config = NodeConfig.model_validate({"node": {"port": 0, "disk_reserve_mb": 1, **node}, "remotes": remotes or {}})
        store = Store.open(tmp_path / f"node{len(opened)}")
        house = House(store, Receiver(config, store, clock=lambda: 1_700_000_000.0))
        house.receiver.start()
        opened.append(house)
        return house

    yield at
    for house in opened:
        house.receiver.stop(grace_s=0.5)
        house.store.close()
    assert eventually(lambda: not acceptors()), acceptors()


@pytest.fixture
def house(open_house) -> House:
    return open_house()


@pytest.fixture
def series(tmp_path: Path) -> list[Path]:
    return phantoms.write(phantoms.series(phantoms.marked((5, 24, 20))), tmp_path / "series")


def data_set(path: Path) -> bytes:
    """Return a file's data set: what is to be kept byte for byte."""
    return path.read_bytes()[split_file(path.read_bytes())[1] :]


def digests(paths: Sequence[Path]) -> set[str]:
    return {sha256(data_set(path)).hexdigest() for path in paths}


def call(house: House, *, calling_ae: str = "CT_ER", called_ae: str = "DICOM_NODE", contexts: Sequence[Any] | None = None) -> Association:
    entity = ApplicationEntity(calling_ae)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 10
    wanted = list(contexts or [build_context(CTImageStorage, ExplicitVRLittleEndian), build_context(Verification)])
    return entity.associate("127.0.0.1", house.receiver.port, wanted, called_ae)


def sent(association: Association, image: Dataset) -> Dataset:
    """Send one image and return the answer."""
    answer = association.send_c_store(image)
    association.release()
    return answer


# ------------------------------------------------------------------------------------------------------------ good peers


def test_dcmtk_gets_an_echo(house):
    """PS3.4 Annex A; R4.4."""
    done = house.run("echoscu")
    assert done.returncode == 0 and "Received Echo Response (Success)" in done.stdout, done.stdout
    assert echo(house.ae) > 0


def test_dcmtk_s_storescu_sends_a_series_and_every_byte_is_kept(house, series):
    done = house.run("storescu", "-R", "-aet", "CT_ER", files=series)
    assert done.returncode == 0 and done.stdout.count("Received Store Response (Success)") == 5, done.stdout
    kept = house.kept
    assert len(kept) == 5 and digests(kept) == digests(series)
    (study,) = house.store.studies.list()
    assert study["instances"] == 5


def test_instances_in_every_transfer_syntax_are_kept_as_they_came(house):
    """R4.1: implicit, explicit, big endian, deflated, RLE, JPEG, JPEG-LS, JPEG 2000, whole and damaged pixels: none is decoded."""
    files = {}
    for path in sorted(FILES.glob("*.dcm")):
        with contextlib.suppress(Exception):  # what pydicom keeps as examples of broken files has no meta information to send by
            uid = read_file_meta_info(path).TransferSyntaxUID
            if dcmread(path, specific_tags=["StudyInstanceUID", "SOPInstanceUID"]).StudyInstanceUID and path.stat().st_size > 1000:
                files.setdefault(uid, path)
    assert len(files) >= 11
    pushed = push(list(files.values()), house.ae, calling_ae="CT_ER")
    assert not pushed.failed
    assert digests(house.kept) == digests(list(files.values()))
    assert {read_file_meta_info(path).TransferSyntaxUID for path in house.kept} == set(files)


def test_dcmsend_s_compressed_images_are_kept_compressed(house):
    """DCMTK proposes the files' own transfer syntaxes; the first of each context is taken."""
    files = [FILES / name for name in ("MR_small_RLE.dcm", "JPEG2000.dcm", "SC_rgb_jpeg_dcmtk.dcm", "CT_small.dcm", "image_dfl.dcm")]
    done = house.run("dcmsend", "--decompress-never", files=files)
    assert done.returncode == 0, done.stdout
    assert len(house.kept) == 5
    syntaxes = {read_file_meta_info(path).TransferSyntaxUID for path in house.kept}
    assert syntaxes == {read_file_meta_info(path).TransferSyntaxUID for path in files}


def test_dcmtk_can_read_the_files_we_write(house, series):
    push(series[:1], house.ae)
    house.store.instances.settle()  # it is not to be moved while it is read
    (path,) = house.stored.values()
    done = subprocess.run(
        [need("dcmdump"), "+P", "0002,0016", "+P", "0002,0013", "+P", "0020,000d", str(path)], capture_output=True, text=True, check=True
    )
    assert "SCANNER" in done.stdout and "DICOM_NODE_0.1" in done.stdout and phantoms.series(seed="phantom")[0].StudyInstanceUID in done.stdout


def test_a_private_class_is_stored_like_any_other(house):
    """R4.1: Level 2 (Full) storage of whatever is storage-like."""
    image = phantoms.series(phantoms.marked((1, 24, 20)), SOPClassUID=PRIVATE_CLASS)[0]
    association = call(house, contexts=[build_context(PRIVATE_CLASS, [ExplicitVRLittleEndian])])
    assert sent(association, image).Status == 0
    assert house.store.instances.by_ids([1])[0].sop_class_uid == PRIVATE_CLASS


def test_other_services_than_storage_and_echo_are_not_negotiated(house):
    find, commitment = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.1.20.1"
    association = call(house, contexts=[build_context(uid) for uid in (find, commitment, CTImageStorage)])
    assert [context.abstract_syntax for context in association.accepted_contexts] == [CTImageStorage]
    association.release()


def test_of_each_context_the_first_transfer_syntax_proposed_is_taken(house):
    association = call(house, contexts=[build_context(CTImageStorage, [JPEG2000Lossless, ExplicitVRLittleEndian])])
    assert association.accepted_contexts[0].transfer_syntax == [JPEG2000Lossless]
    association.release()


def test_we_say_who_we_are_and_how_much_we_take(open_house):
    house = open_house(max_pdu_bytes=65536)
    association = call(house)
    said = association.acceptor.primitive
    assert said.implementation_class_uid.startswith("2.25.") and said.maximum_length_received == 65536
    assert association.acceptor.implementation_version_name == "DICOM_NODE_0.1"
    association.release()


def test_sending_again_is_success_and_changes_nothing(house, series):
    push(series, house.ae)
    house.store.instances.settle()
    files, changes = house.stored, house.store.studies.list()[0]["changes"]
    assert push([*series, *series], house.ae).sent == 10
    assert not unsettled(house.store)
    assert (house.stored, house.store.studies.list()[0]["changes"]) == (files, changes)
    assert len(list((house.store.archive.root / "instances").rglob("*.dcm"))) == 5


def test_eight_associations_at_once_lose_nothing_and_double_nothing(house, tmp_path):
    shares = [phantoms.write(phantoms.series(phantoms.marked((6, 24, 20)), number=n), tmp_path / str(n)) for n in range(4)]
    with ThreadPoolExecutor(8) as pool:
        pushed = list(pool.map(lambda share: push(share, house.ae), [*shares, *shares]))  # every image by two at once
    assert sum(p.sent for p in pushed) == 48
    assert not unsettled(house.store)
    assert digests(house.kept) == digests([path for share in shares for path in share])
    assert len(house.stored) == 24 and len(list((house.store.archive.root / "instances").rglob("*.dcm"))) == 24


def test_our_own_sending_is_not_changed_by_a_receiver_in_the_same_process(house, open_house, series):
    """`UNRESTRICTED_STORAGE_SERVICE` is an acceptor's switch: an association we request negotiates as ever."""
    other = open_house()
    assert push(series, house.ae).sent == push(series, other.ae).sent == 5
    association = call(other, contexts=[build_context(PRIVATE_CLASS), build_context("1.2.840.10008.5.1.4.1.2.2.1"), build_context(Verification)])
    assert [c.abstract_syntax for c in association.accepted_contexts] == [PRIVATE_CLASS, Verification]
    assert association.send_c_echo().Status == 0
    association.release()


# ------------------------------------------------------------------------------------------------- who may, and how much


@pytest.mark.parametrize(("called_ae", "accepted"), [("DICOM_NODE", True), ("DICOM_NODE  ", True), ("dicom_node", False), ("OTHER", False)])
def test_a_wrong_called_title_is_rejected(house, called_ae, accepted):
    """PS3.8 Table 9-21: result 1, source 1, reason 7; titles are compared without trailing spaces, in their case."""
    association = call(house, called_ae=called_ae)
    primitive = association.acceptor.primitive
    assert association.is_established is accepted
    assert accepted or (primitive.result, primitive.result_source, primitive.diagnostic) == (1, 1, 7)
    association.release()


def test_the_called_title_is_not_looked_at_where_the_site_says_so(open_house):
    association = call(open_house(check_called_ae=False), called_ae="ANYTHING")
    assert association.is_established
    association.release()


@pytest.mark.parametrize(
    ("calling_ae", "outcome"),
    [("CT_ER", 0x0000), ("CT_ER   ", 0x0000), ("VIEWER", 0x0124), ("NOBODY", (1, 1, 3)), ("STRANGER", (1, 1, 3)), ("ct_er", (1, 1, 3))],
)
def test_what_a_caller_may_decides(open_house, calling_ae, outcome):
    """Unknown: rejected 1/1/3 (PS3.8 Table 9-21); known without "send": 0124 Refused: Not authorized (PS3.7 C.4.1)."""
    house = open_house(remotes=REMOTES)
    association = call(house, calling_ae=calling_ae)
    if isinstance(outcome, tuple):
        said = association.acceptor.primitive
        assert association.is_rejected and (said.result, said.result_source, said.diagnostic) == outcome
        return
    assert association.send_c_echo().Status == 0
    answer = sent(association, phantoms.series(phantoms.marked((1, 24, 20)))[0])
    assert answer.Status == outcome
    assert len(house.stored) == (1 if outcome == 0 else 0)
    assert outcome == 0 or answer.ErrorComment == "Not authorised to send"


def test_where_nobody_may_anything_nobody_associates(open_house):
    assert call(open_house(remotes={"nobody": REMOTES["nobody"]})).is_rejected


def test_a_stranger_may_send_where_the_site_says_so(open_house):
    house = open_house(remotes=REMOTES, accept_unknown=True)
    assert sent(call(house, calling_ae="STRANGER"), phantoms.series(phantoms.marked((1, 24, 20)))[0]).Status == 0


def test_more_associations_than_agreed_are_rejected_for_now_and_a_place_is_free_again_at_once(open_house):
    """PS3.8 Table 9-21: 2/3/2, local limit exceeded, transient. R4.10."""
    house = open_house(max_associations=2)
    first, second, third = (call(house) for _ in range(3))
    said = third.acceptor.primitive
    assert third.is_rejected and (said.result, said.result_source, said.diagnostic) == (2, 3, 2)
    first.release()
    assert eventually(lambda: established(house))
    second.release()


def established(house: House) -> bool:
    with contextlib.suppress(PeerUnavailable):
        return echo(house.ae) > 0
    return False


def eventually(true: Callable[[], Any], timeout_s: float = 10.0) -> bool:
    """Wait until something is true; say whether that came to be."""
    until = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def test_below_the_disk_reserve_everything_is_refused_and_nothing_is_kept(open_house, series):
    """A700, Refused: Out of resources (PS3.4 Table B.2-1)."""
    house = open_house(disk_reserve_mb=1 << 40)
    answer = sent(call(house), dcmread(series[0]))
    assert (answer.Status, answer.ErrorComment) == (0xA700, "Out of resources: the disk is below its reserve")
    assert set(push(series, house.ae).failed.values()) == {0xA700}
    assert not house.stored and not list(house.store.archive.root.rglob("*.dcm"))


@pytest.mark.parametrize(
    ("attributes", "status"), [({"StudyInstanceUID": None}, 0xC002), ({"PatientID": "x" * 64, "SeriesInstanceUID": None}, 0xC002)]
)
def test_what_cannot_be_used_is_answered_so_and_lies_in_quarantine(house, attributes, status):
    image = phantoms.series(phantoms.marked((1, 24, 20)), **attributes)[0]
    answer = sent(call(house), image)
    assert answer.Status == status and len(answer.ErrorComment) <= 64
    (row,) = house.store.instances.quarantined()
    assert row["source"] == "CT_ER" and row["sop_instance_uid"] == image.SOPInstanceUID and house.store.archive.path(row["path"]).exists()


def test_an_instance_that_is_not_the_announced_one_is_a900(house):
    image = phantoms.series(phantoms.marked((1, 24, 20)))[0]
    association = call(house)
    announced = image.SOPInstanceUID
    image.SOPInstanceUID = "1.2.3.4"
    assert send_as(association, image, announced) == 0xA900
    assert not house.stored


def send_as(association: Association, image: Dataset, announced: str) -> int:
    """Send a data set under another SOP Instance UID than its own, which pynetdicom does not do by itself."""
    from io import BytesIO

    from pynetdicom.dimse_primitives import C_STORE
    from pynetdicom.dsutils import encode

    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = image.SOPClassUID, announced
    encoded = encode(image, False, True)
    assert encoded is not None
    request.DataSet = BytesIO(encoded)
    association._reactor_checkpoint.clear()  # as pynetdicom's own send_c_store does, so that the answer is ours
    eventually(lambda: association._is_paused)
    association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
    _, answer = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    association.release()
    return int(answer.Status)


# ------------------------------------------------------------------------------------------------------------- bad peers


def test_a_sender_that_dies_in_the_middle_of_an_image_leaves_nothing(house, series):
    """Killed by the system, its socket reset: the first images are there, of the one under way nothing is."""
    big = phantoms.write(phantoms.series(phantoms.marked((1, 2000, 2000)), seed="big"), series[0].parent / "big")
    command = [
        need("storescu"),
        "-aec",
        "DICOM_NODE",
        "--max-send-pdu",
        "4096",
        "127.0.0.1",
        str(house.receiver.port),
        *map(str, [*series, *big * 200]),
    ]
    sender = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert eventually(lambda: len(house.stored) >= 5)
    sender.kill()
    sender.wait()
    assert eventually(lambda: not acceptors())
    assert digests(house.kept) <= digests([*series, *big])
    assert not unsettled(house.store)
    assert echo(house.ae) > 0


def acceptors() -> list[threading.Thread]:
    """Return the threads of the associations that the node accepted: of each one that serves, and one that reads."""
    serving = [thread for thread in threading.enumerate() if "AcceptorThread" in thread.name]
    return serving + [thread for thread in threading.enumerate() if isinstance(thread, DULServiceProvider) and thread.assoc.is_acceptor]


def test_an_abort_within_an_image_leaves_what_was_answered_and_no_more(house, series):
    pushed = push(series, house.ae, abort_after=2)
    assert pushed.sent == 2 and len(house.stored) == 2
    assert eventually(lambda: not acceptors())
    assert not unsettled(house.store) and not house.store.instances.quarantined()


def raw(house: House) -> socket.socket:
    return socket.create_connection(("127.0.0.1", house.receiver.port), timeout=10)


def associate_rq(*, contexts: bytes, called: bytes = b"DICOM_NODE", calling: bytes = b"CT_ER") -> bytes:
    """Return an A-ASSOCIATE-RQ PDU (PS3.8 Table 9-11) around presentation context items."""
    user = struct.pack(">BBHI", 0x51, 0, 4, 16384) + struct.pack(">BBH", 0x52, 0, 5) + b"1.2.3"
    name = b"1.2.840.10008.3.1.1.1"
    items = struct.pack(">BBH", 0x10, 0, len(name)) + name + contexts + struct.pack(">BBH", 0x50, 0, len(user)) + user
    body = struct.pack(">HH", 1, 0) + called.ljust(16) + calling.ljust(16) + b"\0" * 32 + items
    return struct.pack(">BBI", 1, 0, len(body)) + body


def context_item(abstract: bytes, *transfer: bytes) -> bytes:
    subs = struct.pack(">BBH", 0x30, 0, len(abstract)) + abstract
    subs += b"".join(struct.pack(">BBH", 0x40, 0, len(t)) + t for t in transfer)
    return struct.pack(">BBHBBBB", 0x20, 0, 4 + len(subs), 1, 0, 0, 0) + subs


CT, LE = b"1.2.840.10008.5.1.4.1.1.2", b"1.2.840.10008.1.2"
NONSENSE = {
    "a web browser": b"GET / HTTP/1.1\r\nHost: node\r\n\r\n",
    "nothing": b"",
    "half a header": b"\x01\x00\x00",
    "an announcement of 4 GB": b"\x01\x00\xff\xff\xff\xff" + b"\0" * 100,
    "an empty request": b"\x01\x00\x00\x00\x00\x00",
    "data before an association": b"\x04\x00\x00\x00\x00\x04\0\0\0\0",
    "a context without transfer syntax": associate_rq(contexts=context_item(CT)),
    "no context": associate_rq(contexts=b""),
    "a context that is no UID": associate_rq(contexts=context_item(b"\xff\xfe\x00", b"../..")),
    "a title that is none": associate_rq(contexts=context_item(CT, LE), calling=b"\xc4\xff\x00\x1b"),
    "an empty title": associate_rq(contexts=context_item(CT, LE), calling=b""),
    "a message that is none": associate_rq(contexts=context_item(CT, LE)) + b"\x04\0\0\0\0\x0a\0\0\0\x06\x01\x03\xff\xff\xff\xff",
    "a fragment longer than its PDU": associate_rq(contexts=context_item(CT, LE)) + b"\x04\0\0\0\0\x06\x7f\xff\xff\xff\x01\x02",
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of pynetdicom's threads
@pytest.mark.parametrize("case", NONSENSE)
def test_nonsense_is_hung_up_on_and_the_next_caller_is_served(open_house, case):
    """What pynetdicom makes of it is its own affair; that its threads end and the others are served is ours."""
    house = open_house(acse_timeout_s=1.5, network_timeout_s=1.5)
    with raw(house) as line:
        line.sendall(NONSENSE[case])
        with contextlib.suppress(OSError):
            while line.recv(4096):
                pass
    assert eventually(lambda: not acceptors())
    assert echo(house.ae) > 0 and not house.stored


def test_a_peer_that_falls_silent_within_a_pdu_is_given_up(open_house):
    """Half-open connections must not hold a place for ever (R4.8)."""
    house = open_house(network_timeout_s=1.5, max_associations=1)
    with raw(house) as line:
        line.sendall(associate_rq(contexts=context_item(CT, LE)))
        assert line.recv(1) == b"\x02"
        line.sendall(b"\x04\x00\x00\x00\x10\x00")  # and no more of it
        assert eventually(lambda: not acceptors())
    assert echo(house.ae) > 0


@pytest.mark.parametrize("kind", [b"\x01", b"\x04"])
def test_a_pdu_of_4_gb_is_not_waited_for_nor_kept_in_memory(house, kind):
    with raw(house) as line:
        line.sendall(associate_rq(contexts=context_item(CT, LE)) if kind == b"\x04" else b"")
        assert kind == b"\x01" or line.recv(4096)
        line.sendall(kind + b"\x00\xff\xff\xff\xff")
        with contextlib.suppress(ConnectionResetError):
            while line.recv(4096):  # it hangs up, long before any time-out
                pass
    assert eventually(lambda: not acceptors())


def test_connections_that_only_look_whether_the_port_is_open_hold_no_place(open_house):
    """Load balancers look every second; the time-out for a request is half a minute."""
    house = open_house(max_associations=1)
    for _ in range(20):
        raw(house).close()
    assert eventually(lambda: established(house), 5)


def test_a_peer_that_says_nothing_is_given_up(open_house):
    house = open_house(acse_timeout_s=1.0)
    with raw(house):
        assert eventually(lambda: bool(acceptors())) and eventually(lambda: not acceptors())


# -------------------------------------------------------------------------------------------------------- start and stop


def test_stopping_lets_a_running_association_finish_and_takes_no_new_one(open_house, series):
    """R4.12."""
    house = open_house()
    association = call(house)
    image = dcmread(series[0])
    stopping = threading.Thread(target=house.receiver.stop, args=(10.0,))
    address = ("127.0.0.1", house.receiver.port)
    stopping.start()
    assert eventually(lambda: not listens(address))
    assert association.send_c_store(image).Status == 0
    association.release()
    stopping.join(5)
    assert not stopping.is_alive() and len(house.stored) == 1


def listens(address: tuple[str, int]) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(address, timeout=1):
        return True
    return False


def test_stopping_aborts_what_does_not_end_by_itself(open_house):
    house = open_house()
    idle = call(house)
    with raw(house) as stuck:
        stuck.sendall(associate_rq(contexts=context_item(CT, LE)))
        assert stuck.recv(1) == b"\x02"
        stuck.sendall(b"\x04\x00\x00\x00\x10\x00")  # falls silent within a PDU, and its time-out is a minute
        with raw(house):  # and this one has said nothing yet
            assert eventually(lambda: sum("AcceptorThread" in thread.name for thread in acceptors()) == 3)
            started = time.monotonic()
            house.receiver.stop(grace_s=0.2)
            assert time.monotonic() - started < 5
    assert not acceptors()
    assert eventually(lambda: idle.is_aborted)


def test_stopping_twice_or_before_the_start_does_nothing(open_house, tmp_path):
    house = open_house()
    house.receiver.stop(0)
    house.receiver.stop(0)
    house.receiver.start()
    assert echo(house.ae) > 0
    Receiver(NodeConfig(), house.store).stop()


def test_a_port_in_use_is_said_to_be_so(open_house, house):
    with pytest.raises(ConfigError, match="Address already in use") as raised:
        open_house(port=house.receiver.port)
    assert "node.port" in raised.value.hint


def test_it_listens_on_ipv6(open_house):
    house = open_house(host="::1")
    assert echo(AE("DICOM_NODE", "::1", house.receiver.port)) > 0


# ------------------------------------------------------------------------------------------------------------------ logs


def test_one_event_tells_of_an_association_and_one_of_each_refusal_and_none_of_the_patient(house, series, tmp_path, caplog, capfd):
    odd = phantoms.write(phantoms.series(phantoms.marked((1, 24, 20)), StudyInstanceUID=None, seed="odd"), tmp_path / "odd")
    caplog.set_level(logging.DEBUG)
    with structlog.testing.capture_logs() as events:
        push([*series, *series[:1], *odd], house.ae)
        assert eventually(lambda: any(event["event"] == "receive.association" for event in events))
    (told,) = [event for event in events if event["event"] == "receive.association"]
    assert {k: told[k] for k in ("calling_ae", "ended", "stored", "identical", "refused", "log_level")} == {
        "calling_ae": "SCANNER",
        "ended": "released",
        "stored": 5,
        "identical": 1,
        "refused": 1,
        "log_level": "info",
    }
    assert [event["status"] for event in events if event["event"] == "receive.refused"] == ["C002"]
    said = f"{events} {caplog.text} {capfd.readouterr()}"
    assert not any(mark in said for mark in phantoms.PATIENT.values() if len(mark) > 4)
