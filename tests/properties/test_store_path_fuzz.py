"""Fuzz of the store path: whatever a client says, nothing crashes, hangs or grows, and each Success stands for bytes that are there.

DICOM_NODE_FUZZ says how many PDUs are read (without it 30 000; a million takes some minutes), DICOM_NODE_SEED begins elsewhere. What breaks a
law is named by its seed, which alone makes it again: `mutant(Random("1/4711"))`.
"""

import logging
import os
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
import structlog
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pynetdicom import AE as ApplicationEntity
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.transport import AddressInformation, AssociationSocket

from dicom_node.config import NodeConfig
from dicom_node.receive import Receiver
from dicom_node.receive.header import split_file
from dicom_node.receive.store_path import StoreDUL
from dicom_node.store import Store
from dicom_node.wire import Connection
from tests.walks.kept import House, eventually, house, serving
from tests.walks.mutants import CONTEXTS, damaged, mutant
from tests.walks.pdus import (
    ABORT,
    C_ECHO_RQ,
    CT_IMAGE,
    EXPLICIT,
    NO_DATA_SET,
    RELEASE_RQ,
    VERIFICATION,
    associate_rq,
    command,
    echo_rq,
    message,
    p_data,
    pdu,
    pdv,
)
from tests.walks.recorded import play, reset
from tests.walks.scripts import ALLOWED, WRONG, eight
from tests.walks.table import Ended, Listener, Sent, answers

# pydicom warns of what it decodes; pynetdicom's threads die of some of it.
pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")]

PDUS = int(os.environ.get("DICOM_NODE_FUZZ", "30000"))
SEED = os.environ.get("DICOM_NODE_SEED", "1")

_ACCEPTED = frozenset(context for context, _, _ in CONTEXTS)
_SUCCESS, _OUT_OF_RESOURCES = 0x0000, 0xA700
_TO_PYNETDICOM = {"Evt3", "Evt4", "Evt6", "Evt12", "Evt13", "Evt16", "Evt19"}
_ENDS = {
    Ended.CUT_OFF: {"Evt17"},
    Ended.MALFORMED: {"Evt19"},
    Ended.HANDED_OVER: _TO_PYNETDICOM,
    Ended.UNKNOWN: {*_TO_PYNETDICOM, "Evt17"},
}
_REASONS = (0, 1, 2, 4, 5, 6)  # PS3.8 Table 9-26
_STREAMS_PER_STORE = 1000
_AT_ONCE_BYTES = 60_000  # fit between two sockets without a reader
_TIMEOUT_S, _SILENCE_S = 20.0, 0.02
_GROWTH_MB = 64
_PEER = "127.0.0.1"


def resident_mb() -> float:
    """Return what this process holds in memory."""
    (kilobytes,) = (line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(kilobytes) / 1024


def descriptors() -> int:
    """Count this process' open files, but for the connections to ledgers, of which a pool keeps some."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the one that lists them
            count += "ledger.sqlite" not in os.readlink(f"/proc/self/fd/{name}")
    return count


@dataclass(slots=True)
class Counts:
    """What has been tried."""

    streams: int = 0
    pdus: int = 0  # that were read
    aborted: int = 0  # streams that were ended by an A-ABORT
    answered: int = 0  # C-STORE requests
    stored: int = 0  # by Success


class Bench:
    """A store, and a receiver that does not listen: it is given one association after the other, each established, whose threads do not run."""

    def __init__(self, folder: Path, counts: Counts) -> None:
        self.store = Store.open(folder)
        self._receiver = Receiver(NodeConfig.model_validate({"node": {"port": 0, "disk_reserve_mb": 1}}), self.store)
        self._window = ThreadPoolExecutor(4)
        self._listener = socket.create_server((_PEER, 0))
        self._entity = ApplicationEntity("DICOM_NODE")
        self._digests: set[str] = set()  # of the data sets that are known to lie in the store as they were sent
        self._last = 0  # row that was looked at
        self.counts = counts

    def close(self) -> None:
        self._listener.close()
        self._window.shutdown()
        self.store.close()

    @contextmanager
    def _line(self) -> Iterator[tuple[socket.socket, socket.socket]]:
        """Connect two sockets, and leave neither of them behind, nor its port."""
        client = socket.create_connection(self._listener.getsockname())
        server, _ = self._listener.accept()
        with client, server:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            yield client, server

    def _established(self, server: socket.socket, timeout_s: float, window: int, most_pdu_bytes: int) -> Association:
        """Return an association as it is after the negotiation, with the receiver's own upper layer (Sta6)."""
        association = Association(self._entity, "acceptor")
        association.set_socket(AssociationSocket(association, client_socket=server))
        association.requestor.ae_title = "FUZZ"
        association.requestor.maximum_length = most_pdu_bytes
        association.requestor.address_info = AddressInformation(_PEER, 104)
        StoreDUL(association, self._receiver._visit(association).begin, Connection(server, timeout_s), self._window)
        association.performs_at_once = window
        for number, abstract, transfer in CONTEXTS:
            context = build_context(abstract, transfer[0])
            context.context_id = number
            association._accepted_cx[number] = context
        association.dul.event_queue.get_nowait()  # Evt5, transport connection indication
        association.dul.state_machine.current_state = "Sta6"
        association.is_established = True
        association._serve_request = lambda *_: None  # a thread would run it for each N-EVENT-REPORT-RQ
        return association

    def try_out(self, stream: bytes, *, window: int = 1, most_pdu_bytes: int = 16384, falls_silent: bool = False) -> str:
        """Let a client say a stream, hold what comes of it against the laws, and return the event that ended it (PS3.8 Table 9-10)."""
        expected = Listener(stream, _ACCEPTED)
        with self._line() as (client, server):
            association = self._established(server, _SILENCE_S if falls_silent else _TIMEOUT_S, window, most_pdu_bytes)
            try:
                with _saying(client, stream, falls_silent):
                    said, event = _drive(association, client)
                    server.close()
            finally:
                association.dul._path.end()
                os.close(association.dul._bell)
                association.dul._bell = -1
            self._judge(expected, said, event, association, window)
            return event

    # ------------------------------------------------------------------------------------------------------------- laws

    def _judge(self, expected: Listener, said: bytes, event: str, association: Association, window: int) -> None:
        told, others = answers(said)
        self.counts.streams += 1
        self.counts.pdus += expected.pdus
        self.counts.answered += len(told)
        assert event in _ENDS[expected.ended], (event, expected.ended)
        self._judge_end(event, others, association)
        self._look()
        if window > 1:  # what lies there was answered by Success, where several have one name
            told.sort(key=lambda answer: answer[1])
            expected.stores.sort(key=lambda sent: blake3(sent.data_set).hexdigest() not in self._digests)
        for (message_id, status, instance), sent in _paired(told, expected, window):
            assert (message_id, instance) == (sent.message_id, sent.sop_instance_uid)
            assert status != _OUT_OF_RESOURCES, "nothing here runs out"
            assert status != _SUCCESS or blake3(sent.data_set).hexdigest() in self._digests, "Success for what is not there"
            self.counts.stored += status == _SUCCESS

    def _judge_end(self, event: str, others: list[bytes], association: Association) -> None:
        """PS3.8 Table 9-10: Sta6 with Evt17 is AA-4, with Evt16 AA-3, with Evt12 AR-2, and with anything else AA-8, an A-ABORT (Table 9-26)."""
        state = association.dul.state_machine.current_state
        if event in ("Evt16", "Evt17"):
            assert (state, others) == ("Sta1", [])
        elif event == "Evt12":
            assert (state, others) == ("Sta8", [])
        else:
            assert state == "Sta13"
            (abort,) = others
            assert abort[:9] == b"\x07\0\0\0\0\x04\0\0\x02" and abort[9] in _REASONS, abort
            self.counts.aborted += 1

    def _look(self) -> None:
        """Read what has come into the store: each file's data set is what its row says."""
        rows = self.store.instances.by_ids(range(self._last + 1, self._last + 200))
        for row in rows:
            content = self._content(row.path)
            data_set = content[split_file(content)[1] :]
            assert blake3(data_set).hexdigest() == row.digest and len(content) == row.size_bytes
            self._digests.add(row.digest)
            self._last = max(self._last, row.id)

    def _content(self, name: str) -> bytes:
        try:
            return self.store.archive.path(name).read_bytes()
        except FileNotFoundError:  # it was moved to its place at this very moment
            return self.store.archive.path(name).read_bytes()

    def left_over(self) -> list[str]:
        """Return what lies in `incoming` and neither waits to be moved nor is at hand for what is to come."""
        archive, left = self.store.archive, []
        for _ in range(archive.stocked):
            name = archive._stock.get()
            archive._stock.put(name)
            left.append(name)
        return sorted({path.name for path in archive.incoming.iterdir()} - set(left))


@contextmanager
def _saying(client: socket.socket, stream: bytes, falls_silent: bool) -> Iterator[None]:
    """Say a stream while the block lasts, or before it."""

    def say() -> None:
        with suppress(OSError):
            client.sendall(stream)
            if not falls_silent:
                client.shutdown(socket.SHUT_WR)

    if len(stream) <= _AT_ONCE_BYTES:
        say()
        yield
        return
    thread = threading.Thread(target=say)
    thread.start()
    try:
        yield
    finally:
        client.close()
        thread.join()


def _drive(association: Association, client: socket.socket) -> tuple[bytes, str]:
    """Do what the thread of an association's upper layer does until it leaves Sta6; return what the client heard, and the event that ended it."""
    dul, said = association.dul, bytearray()
    while dul.event_queue.empty():
        dul._path.read()
        _hear(client, said)
    event = dul.event_queue.get_nowait()
    dul.state_machine.do_action(event)
    dul._path.end()
    _hear(client, said)
    return bytes(said), event


def _hear(client: socket.socket, said: bytearray) -> None:
    with suppress(OSError):
        while heard := client.recv(1 << 16, socket.MSG_DONTWAIT):
            said += heard


def _paired(told: list[tuple[int, int, str]], expected: Listener, window: int) -> list[tuple[tuple[int, int, str], Sent]]:
    """Pair answers with what they answer; in a window they come in any order, and what only pynetdicom understands may be answered or not."""
    stores = expected.stores
    if expected.ended is not Ended.UNKNOWN:
        assert len(told) == len(stores), (len(told), len(stores))
    assert len(told) >= len(stores), (len(told), len(stores))
    if window == 1:
        return list(zip(told, stores, strict=False))
    left, pairs = list(told), []
    for sent in stores:
        answer = next(one for one in left if (one[0], one[2]) == (sent.message_id, sent.sop_instance_uid))
        left.remove(answer)
        pairs.append((answer, sent))
    return pairs


@pytest.fixture(autouse=True)
def no_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for what a stream has no more of: thousands of them end at every place."""
    monkeypatch.setattr("dicom_node.wire.association._MOMENT_MS", 0)


@pytest.fixture
def quiet() -> None:
    """Let nothing be logged: a million refusals are no news."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    for name in ("pynetdicom", "pydicom"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


@pytest.fixture
def memory_folder(tmp_path: Path) -> Iterator[Path]:
    """Return a folder that is no disk, where there is one."""
    shared = Path("/dev/shm")
    with TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


@contextmanager
def _bench(folder: Path, counts: Counts) -> Iterator[Bench]:
    """Open a store for one bench, which leaves nothing behind: no thread, no descriptor, no file that is nobody's."""
    before = threading.active_count(), descriptors()
    with TemporaryDirectory(dir=folder) as place:
        bench = Bench(Path(place), counts)
        try:
            yield bench
            assert eventually(lambda: not bench.left_over()), bench.left_over()
        finally:
            bench.close()
    assert eventually(lambda: threading.active_count() <= before[0] and descriptors() <= before[1]), (before, threading.enumerate(), descriptors())


@contextmanager
def _named(seed: str) -> Iterator[None]:
    """Name the seed of what breaks a law; of what hangs, too."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"seed: {seed}")
        raise


@pytest.mark.timeout(120 + PDUS // 100)
def test_whatever_a_client_says_it_is_answered_or_aborted_and_success_stands_for_bytes_that_are_there(memory_folder: Path, quiet: None) -> None:
    """PS3.8 Table 9-10 (Sta6), 9.3.8 and Annex E; PS3.4 B.2.3. Memory is looked at from the first store's end on."""
    counts, warm_mb = Counts(), 0.0
    while counts.pdus < PDUS:
        with _bench(memory_folder, counts) as bench:
            for number in range(counts.streams, counts.streams + _STREAMS_PER_STORE):
                seed = f"{SEED}/{number}"
                random = Random(seed)
                stream = mutant(random)
                falls_silent = random.random() < 0.01 and len(stream) <= _AT_ONCE_BYTES
                with _named(seed):
                    bench.try_out(stream, window=random.choice((1, 1, 1, 4)), most_pdu_bytes=random.choice((0, 64, 16384)), falls_silent=falls_silent)
        warm_mb = warm_mb or resident_mb()
    grown_mb = resident_mb() - warm_mb
    print(f"{counts}, resident {warm_mb:.1f} MB after the first store, {warm_mb + grown_mb:.1f} MB at the end")
    assert grown_mb < _GROWTH_MB
    assert counts.aborted and counts.stored < counts.answered, "the mutants are too tame"
    assert counts.stored > counts.streams // 4, "the mutants are too wild"


PIECES = st.one_of(
    st.sampled_from(
        [bytes(pdu) for script in (*ALLOWED.values(), *WRONG.values()) for turn in script.turns for pdu in turn.pieces if len(pdu) < 4096]
    ),
    st.lists(st.builds(pdv, st.sampled_from([1, 3, 99]), st.integers(0, 255), st.binary(max_size=40)), max_size=4).map(lambda items: p_data(*items)),
    st.builds(pdu, st.integers(0, 9), st.binary(max_size=40)),
    st.builds(lambda kind, length: struct.pack(">BBI", kind, 0, length), st.integers(0, 255), st.integers(0, (1 << 32) - 1)),
    st.builds(lambda seed: mutant(Random(f"{SEED}/{seed}")), st.integers(0)),
    st.binary(max_size=40),
)


@pytest.mark.timeout(120 + PDUS // 100)
def test_streams_that_hypothesis_makes_obey_the_same_laws(memory_folder: Path, quiet: None) -> None:
    with _bench(memory_folder, Counts()) as bench:

        @settings(max_examples=min(PDUS // 50, 20_000), suppress_health_check=list(HealthCheck))
        @given(st.lists(PIECES, max_size=6).map(b"".join), st.sampled_from([1, 8]))
        def law(stream: bytes, window: int) -> None:
            bench.try_out(stream, window=window)

        law()


# ---------------------------------------------------------------------------------------------------------- what was found

ECHO_WITH_DATA = p_data(pdv(3, 3, echo_rq(c0800=1)))
FOUND: dict[
    str, tuple[str, bytes]
] = {  # the event that it has to end by, and what a client said: exceptions, threads that died, answers that were lost
    "a command without its kind": ("Evt19", message(1, command(c0002=CT_IMAGE, c0110=1, c0800=NO_DATA_SET))),
    "a command of an unknown kind": ("Evt19", message(1, command(c0002=CT_IMAGE, c0100=0x7777, c0110=1, c0800=NO_DATA_SET))),
    "a command of two kinds": ("Evt19", message(1, command(c0002=CT_IMAGE, c0100=b"\1\0\x30\0", c0110=1, c0800=NO_DATA_SET))),
    "a command that does not say whether data follow": ("Evt19", message(3, command(c0002=VERIFICATION, c0100=C_ECHO_RQ, c0110=1))),
    "a command within another message than C-STORE": ("Evt19", ECHO_WITH_DATA + p_data(pdv(3, 3, echo_rq()))),
    "a data set on another context than its message": ("Evt19", ECHO_WITH_DATA + p_data(pdv(1, 2, b"data"))),
    "a P-DATA-TF PDU without items": ("Evt19", p_data() + message(3, echo_rq())),
    "a PDU of no type, of which no more comes": ("Evt19", b"\x08\0\0\1\0\0"),
    "an A-ABORT of a source that there is not": ("Evt16", ABORT[:8] + b"\3\0"),
    "an A-ABORT for a reason that there is not": ("Evt16", ABORT[:8] + b"\2\3"),
    "a wrong PDU after eight images": ("Evt19", eight("wrong at last") + p_data(pdv(1, 2, b"data"))),
    "the end of the connection after eight images": ("Evt17", eight("gone at last")),
}


@pytest.mark.parametrize("window", [1, 4])
@pytest.mark.parametrize("name", FOUND)
def test_what_the_fuzz_found_is_answered_or_aborted(memory_folder: Path, quiet: None, name: str, window: int) -> None:
    """PS3.8 9.3.1, 9.3.5, 9.3.8 and Annex E: what is before the wrong PDU is answered first, even with operations outstanding (PS3.7 D.3.3.3)."""
    event, stream = FOUND[name]
    with _bench(memory_folder, Counts()) as bench:
        assert bench.try_out(stream, window=window, falls_silent=event == "Evt19") == event
        assert bench.counts.stored == 8 * ("eight images" in name)


TOO_EARLY = {
    "a wrong PDU beside the request to associate": associate_rq(CONTEXTS) + b"\x08\0\0\0\0\0",
    "images beside the request to associate": associate_rq(CONTEXTS) + eight("too early"),
    "a release beside the request to associate": associate_rq(CONTEXTS) + RELEASE_RQ,
    "a context without an abstract syntax": associate_rq(CONTEXTS).replace(b"\x30\0\0\x19", b"\x53\0\0\x19", 1),
    "an even context": associate_rq(((2, CT_IMAGE, (EXPLICIT,)),)),
    "an A-ABORT of no source beside the request to associate": associate_rq(CONTEXTS) + ABORT[:8] + b"\3\0",
}


@pytest.mark.parametrize("name", TOO_EARLY)
def test_no_thread_dies_of_what_comes_too_early(tmp_path: Path, quiet: None, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """PS3.8 Table 9-10: Sta2, Sta3 and Sta13. pynetdicom's own threads did."""
    died: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda how: died.append(how.exc_value))
    with house(tmp_path / "node", "fast", network_timeout_s=2, acse_timeout_s=2) as node:
        for _ in range(5):  # which of two threads is faster is not the same each time
            with socket.create_connection((_PEER, node.port), 20) as line, suppress(ConnectionError):
                line.sendall(TOO_EARLY[name])
                line.shutdown(socket.SHUT_WR)
                while line.recv(1 << 16):
                    pass
    assert not died


# ------------------------------------------------------------------------------------------------------------ on a port


def _converse(port: int, seed: str) -> bytes:
    """Say a whole conversation to a receiver, the request to associate perhaps damaged too, and return all that it says before it hangs up."""
    random = Random(seed)
    request = associate_rq(CONTEXTS, max_pdu_bytes=random.choice((0, 256, 16384)))
    if random.random() < 0.25:
        request = damaged(random, request)
    said = bytearray()
    with _named(seed), socket.create_connection((_PEER, port), timeout=20.0) as line:
        with suppress(ConnectionError):
            line.sendall(request)
            said += line.recv(1 << 16) if random.random() < 0.5 else b""
            line.sendall(mutant(random))
        leaves = random.random()
        if leaves < 0.1:
            reset(line)
            return b""
        if leaves < 0.9:
            with suppress(OSError):  # it has hung up
                line.shutdown(socket.SHUT_WR)
        try:
            while heard := line.recv(1 << 16):
                said += heard
        except ConnectionError:  # of what it said, the end may be lost
            return bytes(said)
        _judge_all(bytes(said))
    return bytes(said)


def _judge_all(said: bytes) -> None:
    """What a server says is PDUs that a server may say; an A-ABORT is of a right source and reason, and nothing else comes after it (Table 9-26)."""
    _, others = answers(said, may_break_off=True)  # by an A-ABORT
    kinds = [pdu[0] for pdu in others]
    assert set(kinds[1:]) <= {6, 7} and set(kinds[:1]) <= {2, 3, 7}, kinds
    aborts = [pdu for pdu in others if pdu[0] == 7]
    assert all(len(abort) == 10 and ((abort[8] == 0) or (abort[8] == 2 and abort[9] in _REASONS)) for abort in aborts), aborts
    assert said.endswith(b"".join(aborts))


@pytest.mark.timeout(120 + PDUS // 100)
def test_a_receiver_ends_every_conversation_and_serves_the_next(tmp_path: Path, quiet: None) -> None:
    """Eight clients at a time; afterwards echoes and images are answered, and threads and descriptors are back where they were."""
    node = House(tmp_path / "node", "fast", network_timeout_s=0.5, acse_timeout_s=0.5, dimse_timeout_s=5, max_pdu_bytes=16384)
    usual = ALLOWED["C-ECHO before, between and after C-STORE"]
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: _converse(node.port, f"{SEED}/port/{number}"), range(16)))
            assert eventually(lambda: not serving()), serving()
            before = threading.active_count(), descriptors()
            said = list(pool.map(lambda number: _converse(node.port, f"{SEED}/port/{number}"), range(16, 16 + PDUS // 200)))
        assert sum(bool(one) for one in said) > len(said) // 2
        assert eventually(lambda: not serving()), serving()
        stores, others = answers(play(usual, node.port))
        assert [status for _, status, _ in stores] == [_SUCCESS] * 2 and [pdu[0] for pdu in others] == [2, 6]
        assert eventually(lambda: threading.active_count() <= before[0] and descriptors() <= before[1]), (before, threading.enumerate())
        node.kept()
    finally:
        node.close()
