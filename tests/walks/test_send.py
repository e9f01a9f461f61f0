"""Objects on their way out: the same bytes at every destination, and an end to every association that goes wrong."""

import contextlib
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pynetdicom import AE as ApplicationEntity
from pynetdicom import ALL_TRANSFER_SYNTAXES, evt
from pynetdicom.association import Association
from pynetdicom.dsutils import decode

from dicom_node.config import NodeConfig
from dicom_node.domain import AE, Result
from dicom_node.receive import Receiver
from dicom_node.store import Store
from dicom_node.wire import PDU_HEAD, Requestor, StoredFile, StoreRequest, StoreSender, fragments, peer, read_command, store_request, store_response
from dicom_node.wire.peer import Answer
from tests.orthanc import ask, free_ports, orthanc
from tests.peers import need
from tests.walks import pdus

SYNTAXES = {  # one object of each way to write a data set; their bytes go out as they are
    "implicit": "MR_small_implicit.dcm",
    "explicit": "MR_small.dcm",
    "big endian": "MR_small_bigendian.dcm",
    "deflated": "image_dfl.dcm",
    "RLE": "MR_small_RLE.dcm",
    "JPEG": "SC_rgb_jpeg_dcmtk.dcm",
    "JPEG-LS": "MR_small_jpeg_ls_lossless.dcm",
    "JPEG 2000": "MR_small_jp2klossless.dcm",
}
MR, CT = (Path(get_testdata_file(name, download=False)) for name in ("MR_small.dcm", "CT_small.dcm"))


@pytest.fixture
def objects(tmp_path: Path) -> dict[str, Path]:
    """Write one object in each transfer syntax, each with a UID of its own where it is written plainly."""
    folder = tmp_path / "objects"
    folder.mkdir()
    written = {}
    for number, (syntax, name) in enumerate(SYNTAXES.items()):
        content = Path(get_testdata_file(name, download=False)).read_bytes()
        content += bytes(len(content) % 2)  # the deflated one: PS3.5 A.5 has it padded, and DCMTK aborts at a fragment of odd length
        uid = dcmread(BytesIO(content), stop_before_pixels=True).SOPInstanceUID.encode()
        written[syntax] = folder / f"{number}.dcm"
        written[syntax].write_bytes(content if syntax == "deflated" else content.replace(uid, uid[:-1] + b"%d" % number))
    return written


def result_of(path: Path) -> Result:
    """Return the row that the ledger would have of a file."""
    with StoredFile(path) as file:
        sop_class_uid, sop_instance_uid, transfer_syntax_uid = file.meta.names
    return Result(
        job_id=1,
        kind="SEG",
        sop_class_uid=sop_class_uid,
        sop_instance_uid=sop_instance_uid,
        series_instance_uid="2.25.2",
        study_instance_uid="2.25.3",
        path=path.name,
        digest=sha256(path.read_bytes()).hexdigest(),
        transfer_syntax_uid=transfer_syntax_uid,
    )


def associated(to: AE, files: list[Path], *, timeout_s: float = 5.0, fast: bool = True) -> Association:
    """Associate, proposing what the files need."""
    contexts = dict.fromkeys((one.sop_class_uid, one.transfer_syntax_uid) for one in map(result_of, files))
    return peer.associate(to, "NODE", list(contexts), timeout_s=timeout_s, fast=fast)


def send(association: Association, path: Path, message_id: int = 1, *, timeout_s: float = 5.0) -> Answer | None:
    """Send a file in its own transfer syntax."""
    row = result_of(path)
    return peer.store(association, path, row, row.transfer_syntax_uid, message_id=message_id, timeout_s=timeout_s)


def send_all(to: AE, files: list[Path], *, fast: bool = True) -> list[Answer | None]:
    """Send files over one association, and release it."""
    association = associated(to, files, fast=fast)
    try:
        return [send(association, path, number) for number, path in enumerate(files, 1)]
    finally:
        peer.close(association)


def data_set(path: Path) -> bytes:
    """Return the bytes of a file's data set."""
    with StoredFile(path) as file:
        return path.read_bytes()[file.meta.data_set_at :]


def wait_for(what: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    """Wait until something is so, and return it."""
    until = time.monotonic() + timeout_s
    while not (found := what()):
        assert time.monotonic() < until, "it did not come to be in time"
        time.sleep(0.01)
    return found


# ---------------------------------------------------------------------------------------------------------- real peers


@contextlib.contextmanager
def storescp(folder: Path, *options: str) -> Iterator[AE]:
    """Run DCMTK's storage SCP, which writes each data set as it came."""
    folder.mkdir()
    ae = AE("STORESCP", "127.0.0.1", free_ports(1)[0])
    command = [need("storescp"), "+B", "+xa", *options, "-aet", ae.title, "-od", str(folder), str(ae.port)]
    with (folder.parent / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            wait_for(lambda: _listens(ae))
            yield ae
        finally:
            process.kill()


def _listens(ae: AE) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection((ae.host, ae.port), 1).close()
        return True
    return False


def content(dataset: Dataset) -> dict[int, Any]:
    """Return every element's value by its tag, nested as the data set is."""
    return {int(one.tag): [content(item) for item in one.value] if one.VR == "SQ" else one.value for one in dataset}


@pytest.mark.parametrize(("max_pdu_bytes", "fast"), [(4096, True), (16384, True), (131072, True), (16384, False)])
def test_dcmtk_gets_each_transfer_syntax_byte_for_byte(max_pdu_bytes: int, fast: bool, objects: dict[str, Path], tmp_path: Path) -> None:
    """PS3.5 Annex A: nothing is decoded on the way, by the node's own path and by pynetdicom's."""
    sent = list(objects.values())
    with storescp(tmp_path / "pacs", "--max-pdu", str(max_pdu_bytes)) as ae:
        assert send_all(ae, sent, fast=fast) == [Answer(status=0)] * len(sent)
        kept = wait_for(lambda: (found := list((tmp_path / "pacs").iterdir())) and len(found) == len(sent) and found)
    assert {data_set(path) for path in kept} == {data_set(path) for path in sent}


def test_orthanc_holds_each_transfer_syntax(objects: dict[str, Path], tmp_path: Path) -> None:
    """It writes data sets anew, so that it is their content that is the same."""
    sent = {str(dcmread(path).SOPInstanceUID): path for path in objects.values()}
    with orthanc(tmp_path / "orthanc") as (ae, url):
        assert send_all(ae, list(sent.values())) == [Answer(status=0)] * len(sent)
        for key in ask(f"{url}/instances"):
            held = dcmread(BytesIO(ask(f"{url}/instances/{key}/file")))
            path = sent.pop(held.SOPInstanceUID)
            assert held.file_meta.TransferSyntaxUID == dcmread(path).file_meta.TransferSyntaxUID
            assert content(held) == content(dcmread(path))
    assert not sent


def test_a_node_gets_each_transfer_syntax_byte_for_byte(objects: dict[str, Path], tmp_path: Path) -> None:
    """Our sender and our receiver understand each other."""
    store = Store.open(tmp_path / "node")
    receiver = Receiver(NodeConfig.model_validate({"node": {"port": 0, "disk_reserve_mb": 1}}), store)
    receiver.start()
    try:
        assert send_all(AE("DICOM_NODE", "127.0.0.1", receiver.port), list(objects.values())) == [Answer(status=0)] * len(objects)
        kept = store.instances.bring(store.instances.by_ids(range(1, 1000)))  # in their places, from which nothing moves them any more
        assert {data_set(path) for path in kept} == {data_set(path) for path in objects.values()}
    finally:
        receiver.stop()
        store.close()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """Make a certificate of this machine, and its key."""
    paths = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = [need("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-out", str(paths[0]), "-keyout", str(paths[1])]
    subprocess.run(command, check=True, capture_output=True)
    return paths


def test_bytes_are_the_same_over_tls(certificate: tuple[Path, Path], objects: dict[str, Path], tmp_path: Path) -> None:
    """PS3.15 Annex B: small objects, and one of many records and PDUs, over one association."""
    large = enlarged(tmp_path / "large.dcm", 3_000_001)
    kept: list[bytes] = []

    def keep(event: evt.Event) -> int:
        kept.append(event.request.DataSet.getvalue())
        return 0xB000 if len(kept) == 1 else 0x0000

    entity = ApplicationEntity("PACS")
    for path in (*objects.values(), large):
        entity.add_supported_context(result_of(path).sop_class_uid, ALL_TRANSFER_SYNTAXES)
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(*certificate)
    server = entity.start_server(("127.0.0.1", 0), block=False, ssl_context=theirs, evt_handlers=[(evt.EVT_C_STORE, keep)])
    ours = Requestor("NODE", woken=True)
    sent = [*objects.values(), large]
    for path in sent:
        ours.add_requested_context(result_of(path).sop_class_uid, result_of(path).transfer_syntax_uid)
    tls = ssl.create_default_context(cafile=str(certificate[0])), "localhost"
    try:
        association = ours.associate(*server.server_address[:2], tls_args=tls)
        sender = StoreSender(association, 5.0)
        for number, path in enumerate(sent, 1):
            with StoredFile(path) as file:
                answer = sender.send(file, message_id=number, patience_s=10.0)
            assert answer is not None
            assert answer.status == (0xB000 if number == 1 else 0x0000)
        sender.give_back()
        association.release()
        assert association.is_released
    finally:
        entity.shutdown()
    assert kept == [data_set(path) for path in sent]


def enlarged(path: Path, size: int) -> Path:
    """Write an object whose data set ends in so many bytes, and return its path; what matters is how they are sent."""
    path.write_bytes(MR.read_bytes() + os.urandom(size))
    return path


# ------------------------------------------------------------------------------------------------- a peer of our own


class Peer:
    """Accepts one association, and says what it is told to, byte for byte."""

    def __init__(self, act: Callable[["Peer"], None], max_pdu_bytes: int = 16384) -> None:
        self._act = act
        self.max_pdu_bytes = max_pdu_bytes
        self._server = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.ae = AE("PEER", "127.0.0.1", self._server.getsockname()[1])
        self.data_sets: list[bytes] = []
        self.last: tuple[int, bytes] | None = None  # the PDU that ended the association
        self.error: BaseException | None = None

    def __enter__(self) -> "Peer":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.join(20)
        self._server.close()
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            self.socket, _ = self._server.accept()
            with self.socket:
                self.socket.settimeout(15)
                self._accept()
                self._act(self)
        except BaseException as error:  # the thread's outermost: the test raises it
            self.error = error

    def _accept(self) -> None:
        kind, request = self.pdu()
        assert kind == 1
        contexts, at = [], 68
        while at < len(request):
            item, length = request[at], int.from_bytes(request[at + 2 : at + 4], "big")
            if item == 0x20:
                contexts.append((request[at + 4], request[at + 8 : at + 4 + length]))
            at += 4 + length
        self.syntaxes = {}
        for number, items in contexts:
            abstract_end = 4 + int.from_bytes(items[2:4], "big")
            self.syntaxes[number] = items[abstract_end:]
        accepted = b"".join(pdus.item(0x21, bytes((number, 0, 0, 0)) + syntax) for number, syntax in self.syntaxes.items())
        user = pdus.item(0x51, self.max_pdu_bytes.to_bytes(4, "big")) + pdus.item(0x52, b"1.2.3.4")
        said = pdus.item(0x10, b"1.2.840.10008.3.1.1.1") + accepted + pdus.item(0x50, user)
        self.say(pdus.pdu(2, request[:68] + said))

    def say(self, content: bytes) -> None:
        self.socket.sendall(content)

    def exactly(self, size: int) -> bytes:
        got = bytearray()
        while len(got) < size:
            more = self.socket.recv(size - len(got))
            if not more:
                raise EOFError
            got += more
        return bytes(got)

    def pdu(self) -> tuple[int, bytes]:
        kind, length = PDU_HEAD.unpack(self.exactly(6))
        assert kind != 4 or not self.max_pdu_bytes or length <= self.max_pdu_bytes
        return kind, self.exactly(length)

    def receive(self) -> tuple[int, StoreRequest] | None:
        """Receive one object whole; None: something else came, and is kept as the last."""
        command, data = bytearray(), bytearray()
        while True:
            kind, body = self.pdu()
            if kind != 4:
                self.last = kind, body
                return None
            for context_id, control, part in fragments(memoryview(body)):
                (command if control & 1 else data).extend(part)
                if control == 2:
                    request = store_request(read_command(bytes(command)))
                    assert request is not None
                    self.data_sets.append(bytes(data))
                    return context_id, request

    def answer(self, context_id: int, request: StoreRequest, status: int = 0, comment: str = "") -> bytes:
        """Return an answer as the plainest peer would give it."""
        return pdus.message(context_id, store_response(request, status, comment))

    def serve(self, status: int = 0) -> None:
        """Answer every object, and the request to release."""
        while (received := self.receive()) is not None:
            self.say(self.answer(*received, status))
        if self.last is not None and self.last[0] == 5:
            self.say(pdus.RELEASE_RP)


def test_no_pdu_is_longer_than_the_peer_takes(tmp_path: Path) -> None:
    """PS3.8 D.1: from 128 bytes, into which no command set goes whole, to any length (0)."""
    large = enlarged(tmp_path / "large.dcm", 300_001)
    for max_pdu_bytes in (128, 129, 4096, 1 << 24, 0):
        with Peer(Peer.serve, max_pdu_bytes) as there:
            assert send_all(there.ae, [large, MR, large]) == [Answer(status=0)] * 3
        assert there.data_sets == [data_set(large), data_set(MR), data_set(large)]
        assert there.last is not None
        assert there.last[0] == 5


@pytest.mark.parametrize(("status", "comment"), [(0x0000, ""), (0xB007, "changed"), (0xA700, "no room"), (0xC123, ""), (0x0110, "odd\x7f")])
def test_status_and_comment_are_what_the_peer_said(status: int, comment: str) -> None:
    """PS3.7 9.1.1.1.9: a failure ends nothing, and the next object goes out over the same association."""

    def act(there: Peer) -> None:
        received = there.receive()
        assert received is not None
        there.say(there.answer(*received, status, comment))
        there.serve()

    with Peer(act) as there:
        assert send_all(there.ae, [MR, MR]) == [Answer(status=status, comment=comment), Answer(status=0)]


def test_an_answer_in_pieces_and_late_is_waited_for() -> None:
    """PS3.8 Annex E: one byte in each fragment, each in a PDU and a packet of its own."""

    def act(there: Peer) -> None:
        while (received := there.receive()) is not None:
            context_id, request = received
            response = store_response(request, 0xB000)
            for number in range(len(response)):
                last = pdus.LAST if number + 1 == len(response) else 0
                there.say(pdus.p_data(pdus.pdv(context_id, pdus.COMMAND | last, response[number : number + 1])))
        there.say(pdus.RELEASE_RP)

    with Peer(act) as there:
        assert send_all(there.ae, [MR, MR]) == [Answer(status=0xB000)] * 2


def test_an_event_report_before_the_answer_goes_to_pynetdicom() -> None:
    """PS3.7 10.1.1: storage commitment may report on the association that objects go out on; the wait for the answer goes on."""
    replies: list[bytes] = []

    def act(there: Peer) -> None:
        received = there.receive()
        assert received is not None
        context_id, request = received
        report = pdus.command(c0002="1.2.840.10008.1.20.1", c0100=pdus.N_EVENT_REPORT_RQ, c0110=9, c0800=0x0101, c1000="1.2.3", c1002=1)
        there.say(pdus.p_data(pdus.pdv(context_id, pdus.COMMAND | pdus.LAST, report)))
        replies.append(there.pdu()[1])
        there.say(there.answer(context_id, request))
        there.serve()

    with Peer(act) as there:
        assert send_all(there.ae, [MR, MR]) == [Answer(status=0)] * 2
    (said,) = (read_command(bytes(part)) for body in replies for _, _, part in fragments(memoryview(body)))
    assert (said[0x0100], said[0x0120]) == (b"\x00\x81", b"\x09\0")
    assert len(there.data_sets) == 2


# ------------------------------------------------------------------------------------------------ peers that go wrong


def _close(there: Peer) -> None:
    """Say nothing more."""


def _reset(there: Peer) -> None:
    there.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def _abort(there: Peer) -> None:
    there.say(pdus.ABORT)


def _release(there: Peer) -> None:
    there.say(pdus.RELEASE_RQ)


def _rubbish(there: Peer) -> None:
    there.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@pytest.mark.parametrize("end", [_close, _reset, _abort, _rubbish])
@pytest.mark.parametrize("after_bytes", [0, 1, 11, 12, 100, 200, 20_000, 299_000, 2_999_000])
def test_a_peer_that_ends_in_the_middle_of_an_object_is_noticed(end: Callable[[Peer], None], after_bytes: int, tmp_path: Path) -> None:
    """PS3.8 9.2: wherever it happens there is no answer, the association is at its end, and its threads have ended."""
    large = enlarged(tmp_path / "large.dcm", 3_000_000)

    def act(there: Peer) -> None:
        there.exactly(after_bytes)
        end(there)

    with Peer(act) as there:
        association = associated(there.ae, [large])
        assert send(association, large) is None
        _is_over(association)


@pytest.mark.parametrize("end", [_close, _reset, _abort, _release, _rubbish])
def test_a_peer_that_ends_instead_of_answering_is_noticed(end: Callable[[Peer], None]) -> None:
    """PS3.8 7.2 to 7.4: an association that the peer releases is released, not aborted."""

    def act(there: Peer) -> None:
        there.receive()
        end(there)
        if end is _release:
            assert there.pdu()[0] == 6

    with Peer(act) as there:
        association = associated(there.ae, [MR])
        assert send(association, MR) is None
        assert association.is_released == (end is _release)
        _is_over(association)


@pytest.mark.parametrize("end", [_close, _abort, _release])
def test_a_peer_that_ends_between_two_objects_is_noticed_before_the_second(end: Callable[[Peer], None]) -> None:
    """What came since the last answer is read before anything is sent."""
    ended = threading.Event()

    def act(there: Peer) -> None:
        received = there.receive()
        assert received is not None
        there.say(there.answer(*received))
        end(there)
        if end is _close:
            there.socket.close()
        ended.set()
        if end is _release:
            assert there.pdu()[0] == 6

    with Peer(act) as there:
        association = associated(there.ae, [MR])
        assert send(association, MR) == Answer(status=0)
        assert ended.wait(10)
        assert send(association, MR) is None
        assert send(association, MR) is None
        _is_over(association)
    assert there.data_sets == [data_set(MR)]


def test_a_silent_peer_is_aborted_after_the_patience() -> None:
    """PS3.8 7.3: it hears so."""

    def act(there: Peer) -> None:
        there.receive()
        there.last = there.pdu()

    with Peer(act) as there:
        association = associated(there.ae, [MR])
        assert send(association, MR, timeout_s=0.3) is None
        _is_over(association)
    assert there.last is not None
    assert there.last[0] == 7


def _another(there: Peer, context_id: int, request: StoreRequest) -> bytes:
    return pdus.message(context_id, pdus.store_rq("1.2.3"), b"")


def _wrong_number(there: Peer, context_id: int, request: StoreRequest) -> bytes:
    other = StoreRequest(message_id=request.message_id + 1, sop_class_uid=request.sop_class_uid, sop_instance_uid=request.sop_instance_uid)
    return there.answer(context_id, other)


def _no_status(there: Peer, context_id: int, request: StoreRequest) -> bytes:
    return pdus.message(context_id, pdus.command(c0100=0x8001, c0120=request.message_id, c0800=0x0101))


def _no_pdv(there: Peer, context_id: int, request: StoreRequest) -> bytes:
    return pdus.pdu(4, b"\xff\xff\xff\xff")


def _twice(there: Peer, context_id: int, request: StoreRequest) -> bytes:
    said = pdus.pdv(context_id, pdus.COMMAND | pdus.LAST, store_response(request, 0))
    return pdus.p_data(said, said)


def _endless(there: Peer, context_id: int, request: StoreRequest) -> bytes:
    return PDU_HEAD.pack(4, 1 << 31)


@pytest.mark.parametrize("words", [_another, _wrong_number, _no_status, _no_pdv, _twice, _endless])
def test_what_is_no_answer_ends_the_association(words: Callable[[Peer, int, StoreRequest], bytes]) -> None:
    """PS3.7 9.1.1: another request's answer is never taken for this one's."""

    def act(there: Peer) -> None:
        received = there.receive()
        assert received is not None
        there.say(words(there, *received))
        there.last = there.pdu()

    with Peer(act) as there:
        association = associated(there.ae, [MR])
        assert send(association, MR) is None
        _is_over(association)
    assert there.last is not None
    assert there.last[0] == 7


def test_a_refusal_before_the_end_of_the_object_is_heard(tmp_path: Path) -> None:
    """A peer that has no room may say so at once and read no further; what it said counts."""
    large = enlarged(tmp_path / "large.dcm", 30_000_000)

    def act(there: Peer) -> None:
        _, body = there.pdu()
        ((context_id, _, part),) = fragments(memoryview(body))
        request = store_request(read_command(bytes(part)))
        assert request is not None
        there.say(there.answer(context_id, request, 0xA700))
        time_to_hear.wait(10)

    time_to_hear = threading.Event()
    with Peer(act) as there:
        association = associated(there.ae, [large])
        answer = send(association, large, timeout_s=2.0)
        time_to_hear.set()
        assert answer == Answer(status=0xA700)
        assert send(association, large, 2) is None
        _is_over(association)


def test_a_file_that_shrinks_while_it_is_sent_ends_the_association(tmp_path: Path) -> None:
    """Its length was promised: nothing that came after it would be understood."""
    large = enlarged(tmp_path / "large.dcm", 60_000_000)

    def act(there: Peer) -> None:
        there.exactly(100)
        with large.open("r+b") as file:
            file.truncate(20_000)
        with contextlib.suppress(EOFError, ConnectionError):
            there.receive()

    with Peer(act) as there:
        association = associated(there.ae, [large])
        assert send(association, large) is None
        _is_over(association)
    assert there.data_sets == []


def test_cutting_the_connection_ends_the_wait_for_an_answer() -> None:
    """Whoever stops the node does not wait for a peer."""
    received = threading.Event()

    def act(there: Peer) -> None:
        there.receive()
        received.set()
        with contextlib.suppress(EOFError, ConnectionError):
            there.pdu()

    with Peer(act) as there:
        association = associated(there.ae, [MR])
        cutter = threading.Thread(target=lambda: received.wait(10) and peer.cut(association))
        cutter.start()
        assert send(association, MR) is None
        cutter.join()
        _is_over(association)


def test_an_object_for_which_nothing_was_accepted_is_not_sent() -> None:
    """PS3.8 9.3.3.2: without a presentation context there is no way to say what it is; the association goes on."""
    with Peer(Peer.serve) as there:
        association = associated(there.ae, [MR])
        with pytest.raises(ValueError, match="no presentation context was accepted"):
            send(association, CT)
        assert send(association, MR) == Answer(status=0)
        peer.close(association)


def test_both_paths_may_be_used_on_one_association() -> None:
    """What is encoded anew goes out by pynetdicom, between objects that do not."""
    image, other = result_of(MR), result_of(CT)
    implicit = "1.2.840.10008.1.2"
    with Peer(Peer.serve) as there:
        contexts = [(image.sop_class_uid, image.transfer_syntax_uid), (other.sop_class_uid, implicit)]
        association = peer.associate(there.ae, "NODE", contexts, timeout_s=5.0)
        assert send(association, MR, 1) == Answer(status=0)
        assert peer.store(association, CT, other, implicit, message_id=2, timeout_s=5.0) == Answer(status=0)
        assert send(association, MR, 3) == Answer(status=0)
        peer.close(association)
        assert association.is_released
    first, second, third = there.data_sets
    assert first == third == data_set(MR)
    assert content(decode(BytesIO(second), True, True)) == content(dcmread(CT))


def _is_over(association: Association) -> None:
    """Check that an association has ended, as have its threads; closing it then does nothing."""
    assert not association.is_established
    peer.close(association)
    association.dul.join(5)
    association.join(5)
    assert not association.dul.is_alive()
    assert not association.is_alive()
