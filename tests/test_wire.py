"""The laws of DICOM messages as bytes: what is written is read again, however it is split, and what is malformed is called so and nothing else."""

import os
import socket
import struct
import threading
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pynetdicom import AE as ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dsutils import decode, split_dataset
from pynetdicom.transport import AssociationSocket

from dicom_node.wire import (
    COMMAND,
    LAST,
    P_DATA_TF,
    PDU_HEAD,
    PDV_HEAD,
    Broken,
    Connection,
    Malformed,
    MoveOriginator,
    StoreAnswer,
    StoredFile,
    StoreRequest,
    fragments,
    p_data,
    read_command,
    read_file_meta,
    store_request,
    store_response,
)
from dicom_node.wire.association import Checkpoint, Gate, SteadyTimer, WokenDUL
from dicom_node.wire.message import Answers, data_heads, fragment_bytes, store_answer, store_request_command

UIDS = st.lists(st.integers(0, 10**9), min_size=1, max_size=6).map(lambda numbers: ".".join(map(str, numbers)))
IDS = st.integers(0, 0xFFFF)
REQUESTS = st.builds(StoreRequest, message_id=IDS, sop_class_uid=UIDS, sop_instance_uid=UIDS)
COMMENTS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="\\"), max_size=64)


def pdus(said: bytes) -> list[bytes]:
    """Return the bodies of P-DATA-TF PDUs that follow one another."""
    found, at = [], 0
    while at < len(said):
        kind, length = PDU_HEAD.unpack_from(said, at)
        assert kind == P_DATA_TF
        found.append(said[at + 6 : at + 6 + length])
        at += 6 + length
    assert at == len(said)
    return found


def joined(bodies: list[bytes], control: int) -> bytes:
    """Return what the fragments of one message carry; only the last says that it is."""
    parts = [part for body in bodies for part in fragments(memoryview(body))]
    assert [part[1] for part in parts] == [control] * (len(parts) - 1) + [control | LAST]
    return b"".join(part[2] for part in parts)


def event_report(data_set: bytes) -> bytes:
    """Return the command set of an N-EVENT-REPORT-RQ (PS3.7 Table 10.3-1), and its data set if it has one, as PDVs."""
    kind = 0x0001 if data_set else 0x0101
    elements = {0x0100: 0x0100, 0x0110: 7, 0x0800: kind}
    command = b"".join(struct.pack("<HHIH", 0, element, 2, value) for element, value in elements.items())
    said = PDV_HEAD.pack(len(command) + 2, 3, COMMAND | LAST) + command
    return said + PDV_HEAD.pack(len(data_set) + 2, 3, LAST) + data_set if data_set else said


# ------------------------------------------------------------------------------------------------------------ fragments


@given(data=st.binary(max_size=2000), max_pdu_bytes=st.one_of(st.just(0), st.integers(8, 500)), control=st.sampled_from([0, COMMAND]))
def test_a_message_comes_out_of_its_fragments_as_it_went_in(data: bytes, max_pdu_bytes: int, control: int) -> None:
    """PS3.8 Annex E and D.1: whatever length a peer takes, no PDU is longer, and every fragment but the last is of even length."""
    bodies = pdus(p_data(5, control, data, max_pdu_bytes))
    assert joined(bodies, control) == data
    assert not max_pdu_bytes or all(len(body) <= max_pdu_bytes for body in bodies)
    assert all(len(body) % 2 == 0 for body in bodies[:-1])


@given(data=st.binary(max_size=2000), max_pdu_bytes=st.integers(0, 500))
def test_the_heads_of_a_data_set_part_it_as_its_pdus_do(data: bytes, max_pdu_bytes: int) -> None:
    """What is sent without being copied is what `p_data` would make."""
    most = fragment_bytes(max_pdu_bytes)
    assert b"".join(head + data[at:end] for head, at, end in data_heads(9, len(data), most)) == p_data(9, 0, data, most + 6)


@given(st.binary(max_size=300))
def test_any_bytes_are_fragments_or_malformed(body: bytes) -> None:
    """PS3.8 9.3.5.1: the lengths add up, or they do not; nothing is read past the end."""
    try:
        parts = list(fragments(memoryview(body)))
    except Malformed:
        return
    assert sum(len(part) + 6 for _, _, part in parts) == len(body)


# --------------------------------------------------------------------------------------------------------- command sets


@given(request=REQUESTS, originator=st.none() | st.builds(MoveOriginator, ae_title=st.just("MOVER"), message_id=IDS))
def test_a_request_is_read_as_it_was_written(request: StoreRequest, originator: MoveOriginator | None) -> None:
    """PS3.7 Table 9.3-1, by our reader and by pynetdicom's; an element's length is even."""
    said = store_request_command(request, originator)
    command = read_command(said)
    assert store_request(command) == request
    assert all(len(value) % 2 == 0 for value in command.values())
    theirs = decode(BytesIO(said), True, True)
    assert (theirs.CommandField, theirs.MessageID, theirs.CommandGroupLength) == (0x0001, request.message_id, len(said) - 12)
    assert (theirs.AffectedSOPClassUID, theirs.AffectedSOPInstanceUID) == (request.sop_class_uid, request.sop_instance_uid)
    moved = (theirs.get("MoveOriginatorApplicationEntityTitle"), theirs.get("MoveOriginatorMessageID"))
    assert moved == ((originator.ae_title, originator.message_id) if originator else (None, None))


@given(request=REQUESTS, status=IDS, comment=COMMENTS)
def test_an_answer_is_read_as_it_was_written(request: StoreRequest, status: int, comment: str) -> None:
    """PS3.7 Table 9.3-2."""
    said = read_command(store_response(request, status, comment))
    assert store_answer(said) == StoreAnswer(message_id=request.message_id, status=status, comment=comment)
    assert store_request(said) is None


@given(st.binary(max_size=300))
def test_any_bytes_are_a_command_set_or_malformed(command_set: bytes) -> None:
    """PS3.7 6.3.1; what its elements mean is then something or nothing, never an error."""
    try:
        command = read_command(command_set)
    except Malformed:
        return
    store_request(command)
    store_answer(command)


# -------------------------------------------------------------------------------------------------------------- answers


@given(request=REQUESTS, status=IDS, beside=st.none() | st.binary(max_size=64), data=st.data())
def test_an_answer_is_found_however_it_is_split_and_what_comes_beside_it_is_kept(
    request: StoreRequest, status: int, beside: bytes | None, data: st.DataObject
) -> None:
    """PS3.8 Annex E: any number of fragments, any number of them in a PDU; an N-EVENT-REPORT-RQ before the answer stays whole."""
    response = store_response(request, status)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(response)), max_size=6)))
    parts = [response[start:end] for start, end in zip([0, *cuts], [*cuts, len(response)], strict=True)]
    said = [PDV_HEAD.pack(len(part) + 2, 1, COMMAND | (LAST if number == len(parts) else 0)) + part for number, part in enumerate(parts, 1)]
    before = event_report(beside) if beside is not None else b""
    pdvs = ([before] if before else []) + said
    ends = sorted({*data.draw(st.lists(st.integers(1, len(pdvs)), max_size=4)), len(pdvs)})
    answers, kept, reader, at = [], b"", Answers(), 0
    for end in ends:
        found, more = reader.take(memoryview(b"".join(pdvs[at:end])))
        answers, kept, at = answers + found, kept + more, end
    assert answers == [StoreAnswer(message_id=request.message_id, status=status)]
    assert kept == before


@given(st.lists(st.binary(max_size=80), max_size=6), st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=80)), max_size=6))
def test_whatever_a_peer_says_is_answers_or_malformed(bodies: list[bytes], said: list[tuple[int, bytes]]) -> None:
    """No bytes of a peer raise anything else."""
    built = b"".join(PDV_HEAD.pack(len(part) + 2, 1, control) + part for control, part in said)
    reader = Answers()
    try:
        for body in (built, *bodies):
            reader.take(memoryview(body))
    except Malformed:
        pass


def test_another_message_has_no_place_where_an_answer_is_due() -> None:
    """A request to store, from who has been sent one: pynetdicom ends the association too."""
    request = StoreRequest(message_id=1, sop_class_uid="1.2", sop_instance_uid="1.3")
    (body,) = pdus(p_data(1, COMMAND, store_request_command(request), 0))
    with pytest.raises(Malformed, match="no place here"):
        Answers().take(memoryview(body))


def test_a_command_set_without_end_is_not_kept() -> None:
    """A peer that sends fragments for ever does not fill the memory."""
    body = memoryview(PDV_HEAD.pack(30002, 1, COMMAND) + bytes(30000))
    reader = Answers()
    with pytest.raises(Malformed, match="endless"):
        for _ in range(3):
            reader.take(body)


# ---------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("name", ["MR_small.dcm", "MR_small_bigendian.dcm", "image_dfl.dcm", "MR_small_RLE.dcm", "liver_1frame.dcm", "test-SR.dcm"])
def test_a_files_data_set_begins_where_pynetdicom_says(name: str) -> None:
    """PS3.10 7.1."""
    path = Path(get_testdata_file(name, download=False))
    meta, at = split_dataset(path)
    with StoredFile(path) as file:
        assert file.meta.names == (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID)
        assert file.meta.data_set_at == at
        assert file.size == path.stat().st_size - at
        assert bytes(file.mapped()) == path.read_bytes()[at:]
        buffer = memoryview(bytearray(100))
        file.read(buffer, file.size - 100)
        assert bytes(buffer) == path.read_bytes()[-100:]


def meta_information(private_bytes: int = 0) -> bytes:
    """Return the start of a file, up to its data set, with private information of some length (PS3.10 Table 7.1-1)."""
    uids = b"".join(struct.pack("<HH2sH", 2, element, b"UI", 6) + b"1.2.3\0" for element in (2, 3, 0x10))
    private = struct.pack("<HH2sHI", 2, 0x102, b"OB", 0, private_bytes) + bytes(private_bytes)
    return bytes(128) + b"DICM" + uids + private


@pytest.mark.parametrize("private_bytes", [0, 3900, 4096, 100_000])
@pytest.mark.parametrize("data_set", [b"", b"\x08\0", b"\x08\0\x05\0CS\x02\0AB"])
def test_long_file_meta_information_is_read_to_its_end(private_bytes: int, data_set: bytes, tmp_path: Path) -> None:
    """PS3.10 7.1: Private Information (0002,0102) has any length; the data set may be empty."""
    (tmp_path / "one.dcm").write_bytes(meta_information(private_bytes) + data_set)
    with StoredFile(tmp_path / "one.dcm") as file:
        assert (file.meta.data_set_at, file.size) == (len(meta_information(private_bytes)), len(data_set))


@given(st.binary(max_size=200), st.booleans(), st.integers(0, 200))
def test_any_bytes_are_a_file_or_malformed(tail: bytes, whole: bool, kept: int) -> None:
    """A file that is cut off, or none, is called malformed; more is asked for only where there may be more."""
    for head in (tail, bytes(128) + b"DICM" + tail, meta_information()[: 132 + kept] + tail):
        try:
            meta = read_file_meta(head, whole=whole)
        except Malformed:
            continue
        except IndexError:
            assert not whole
            continue
        assert meta.data_set_at <= len(head)


def test_a_file_that_has_become_shorter_is_not_read_on(tmp_path: Path) -> None:
    """Its length is fixed when it is opened."""
    path = tmp_path / "one.dcm"
    path.write_bytes(meta_information() + bytes(1000))
    with StoredFile(path) as file:
        with path.open("r+b") as other:
            other.truncate(file.meta.data_set_at + 500)
        with pytest.raises(Malformed, match="shorter"):
            file.read(memoryview(bytearray(600)), 0)


def test_a_socket_that_somebody_else_has_closed_is_a_broken_connection() -> None:
    """pynetdicom's thread closes it when the peer has gone, perhaps before it was used for the first time."""
    one, other = socket.socketpair()
    with one, other:
        one.close()
        with pytest.raises(Broken, match="closed before it was used"):
            Connection(one, 1.0)


class _ClosedMeanwhile(socket.socket):
    """A socket that another thread closes while bytes are taken from it."""

    def recv_into(self, *into: Any) -> int:
        got = super().recv_into(*into)
        self.close()
        return got

    def recvmsg_into(self, *into: Any) -> Any:
        got = super().recvmsg_into(*into)
        self.close()
        return got


@pytest.mark.parametrize("both", [False, True])
def test_a_socket_that_is_closed_while_it_is_read_is_a_broken_connection(both: bool) -> None:
    """Whatever ends a connection under its reader is one error."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as other:
        accepted, _ = server.accept()
        connection = Connection(_ClosedMeanwhile(fileno=accepted.detach()), 1.0)
        other.sendall(b"1234")
        first, second = memoryview(bytearray(2)), memoryview(bytearray(2))
        with pytest.raises(Broken, match="nothing to read"):
            connection.read_both(first, second) if both else connection.read(first)


# -------------------------------------------------------------------------------------------------------------- checkpoint


class Turning(threading.Thread):
    """An association's reactor, of which each turn lasts until it is told."""

    _is_paused = False

    def __init__(self, kind: type[Checkpoint]) -> None:
        super().__init__(daemon=True)
        self.checkpoint = kind(self)  # type: ignore[arg-type]
        self.turns, self.may_end, self.over = threading.Semaphore(0), threading.Semaphore(0), False

    def run(self) -> None:
        while not self.over:
            self.checkpoint.wait()
            self.turns.release()
            self.may_end.acquire()


@pytest.mark.parametrize("kind", [Checkpoint, Gate])
def test_a_pause_begins_when_the_reactors_turn_is_over(kind: type[Checkpoint]) -> None:
    """Else it may take the first response of what is asked in the pause."""
    reactor = Turning(kind)
    reactor.start()
    assert reactor.turns.acquire(timeout=30)
    paused = threading.Thread(target=reactor.checkpoint.clear, daemon=True)
    paused.start()
    paused.join(0.2)
    assert paused.is_alive()
    reactor.may_end.release()
    paused.join(30)
    assert not paused.is_alive() and not reactor.turns.acquire(timeout=0.2)
    reactor.over = True
    reactor.checkpoint.set()
    assert reactor.turns.acquire(timeout=30)
    reactor.may_end.release()
    reactor.join(30)
    reactor.checkpoint.clear()  # of an association that has ended: at once


def test_who_sets_a_checkpoint_lets_go_whoever_waits_for_the_pause() -> None:
    """pynetdicom does so when it kills the association."""
    reactor = Turning(Checkpoint)
    reactor.start()
    assert reactor.turns.acquire(timeout=30)
    paused = threading.Thread(target=reactor.checkpoint.clear, daemon=True)
    paused.start()
    paused.join(0.1)
    reactor.checkpoint.set()
    paused.join(30)
    assert not paused.is_alive()
    reactor.over = True
    reactor.may_end.release()


# ------------------------------------------------------------------------------------------------------------------ timers


def test_a_timer_expires_only_while_it_runs() -> None:
    """PS3.8 9.2: Evt18 is no event of a state in which the ARTIM timer does not run."""
    timer = SteadyTimer(0.0)
    assert not timer.expired and not timer.running
    timer.start()
    while not timer.expired:
        assert timer.running
    timer.stop()
    assert not timer.expired and not timer.running
    timer.restart()
    while not timer.expired:
        assert timer.running
    timer.timeout = None
    assert not timer.expired


def test_the_time_of_day_expires_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    timer = SteadyTimer(60.0)
    timer.start()
    monkeypatch.setattr("time.time", lambda: 1e12)
    assert not timer.expired


def test_a_peer_of_which_something_lies_unread_has_not_been_silent() -> None:
    """Else an association is aborted after a pause of this process, whatever its peer has said meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as peer:
        accepted, _ = server.accept()
        association = Association(ApplicationEntity(), "acceptor")
        association.set_socket(AssociationSocket(association, client_socket=accepted))
        dul = WokenDUL(association)
        dul._idle_timer.timeout = -1.0
        dul._idle_timer.start()
        assert dul.idle_timer_expired()
        peer.sendall(b"\x04")
        accepted.recv(1, socket.MSG_PEEK)
        assert not dul.idle_timer_expired()
        accepted.close()
        assert dul.idle_timer_expired()
        os.close(dul._bell)
