"""What the store path does beyond what every path does: TLS, an asynchronous window, long objects in flat memory, several processes, the way back."""

import os
import signal
import socket
import struct
import subprocess
from pathlib import Path

import pytest

from dicom_node.domain import ConfigError
from tests import phantoms
from tests.orthanc import free_ports
from tests.peers import need
from tests.walks.kept import House, house
from tests.walks.node import serving, wait_for
from tests.walks.pdus import CT_IMAGE, EXPLICIT, LAST, RELEASE_RQ, associate_rq, item, message, p_data, pdv, store_rq
from tests.walks.scripts import image

WINDOW = 0x53  # asynchronous operations window sub-item (PS3.7 Table D.3-7)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a node's and a sender's self-signed certificates and keys."""
    folder = tmp_path_factory.mktemp("certificates")
    made = {}
    for name in ("node", "sender"):
        key, certificate = folder / f"{name}.key", folder / f"{name}.pem"
        command = [need("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
        subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
        made |= {f"{name} key": key, f"{name} certificate": certificate}
    return made


def storescu(port: int, folder: Path, *options: str | Path) -> subprocess.CompletedProcess[str]:
    command = [need("storescu"), "-R", "+sd", "-aec", "DICOM_NODE", *map(str, options), "127.0.0.1", str(port), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def written(folder: Path, count: int) -> Path:
    """Write so many small images."""
    folder.mkdir(parents=True)
    for number, one in enumerate(phantoms.series(phantoms.marked((count, 6, 4), (0, 0, 0)), seed=folder.name)):
        one.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return folder


# ------------------------------------------------------------------------------------------------------------------ TLS


@pytest.mark.parametrize("path", ["fast", "stock"])
def test_a_scanner_sends_over_tls_and_must_show_a_certificate_that_is_known(tmp_path: Path, certificates: dict[str, Path], path: str) -> None:
    """PS3.15 B.9, BCP 195: both ends show who they are."""
    images = written(tmp_path / "images", 12)
    known = certificates["sender certificate"]
    tls = {"certificate": certificates["node certificate"], "key": certificates["node key"], "clients": known}
    with house(tmp_path / "data", path, tls=tls) as open_house:
        mine = ("+tls", certificates["sender key"], known, "+cf", certificates["node certificate"])
        sent = storescu(open_house.port, images, *mine)
        assert sent.returncode == 0, sent.stderr
        assert len(open_house.kept().instances) == 12
        others = ("+tls", certificates["node key"], certificates["node certificate"], "+cf", certificates["node certificate"])
        assert storescu(open_house.port, images, *others).returncode != 0  # a certificate, but nobody's
        assert storescu(open_house.port, images).returncode != 0  # no TLS at all
        assert storescu(open_house.port, images, *mine).returncode == 0


def test_a_peer_that_does_not_go_on_with_its_handshake_keeps_nobody_waiting(tmp_path: Path, certificates: dict[str, Path]) -> None:
    """Each handshake has a thread of its own, and an end."""
    images = written(tmp_path / "images", 3)
    tls = {"certificate": certificates["node certificate"], "key": certificates["node key"], "anonymous": True}
    with house(tmp_path / "data", "fast", tls=tls, network_timeout_s=2.0) as open_house:
        silent = [socket.create_connection(("127.0.0.1", open_house.port)) for _ in range(20)]
        sent = storescu(open_house.port, images, "+tla", "-ic")
        assert sent.returncode == 0, sent.stderr
        assert all(not line.recv(1) for line in silent)
        for line in silent:
            line.close()


def test_tls_files_that_cannot_be_used_are_told_of_before_anybody_calls(tmp_path: Path, certificates: dict[str, Path]) -> None:
    """If it starts, it can run."""
    wrong = {"certificate": certificates["node certificate"], "key": certificates["sender key"], "anonymous": True}
    with pytest.raises(ConfigError, match="node.tls"):
        House(tmp_path, "fast", tls=wrong)


# ------------------------------------------------------------------------------------------- the asynchronous window


def hear(line: socket.socket, count: int) -> list[bytes]:
    """Return so many PDUs from a connection."""
    heard = []
    for _ in range(count):
        head = line.recv(6, socket.MSG_WAITALL)
        heard.append(head + line.recv(struct.unpack(">I", head[2:])[0], socket.MSG_WAITALL))
    return heard


def test_within_an_asynchronous_window_requests_are_taken_before_the_earlier_ones_are_answered(tmp_path: Path) -> None:
    """PS3.7 D.3.3.3: 6 operations are proposed, all go out at once, each is answered once, in whatever order."""
    proposed = item(WINDOW, struct.pack(">HH", 6, 1))
    images = [image(f"async {number}") for number in range(6)]
    with house(tmp_path, "fast") as open_house, socket.create_connection(("127.0.0.1", open_house.port)) as line:
        line.settimeout(20)
        line.sendall(associate_rq([(1, CT_IMAGE, [EXPLICIT])], more=proposed))
        (accepted,) = hear(line, 1)
        assert item(WINDOW, struct.pack(">HH", 6, 1)) in accepted
        line.sendall(b"".join(message(1, store_rq(uid, message=number), data) for number, (uid, data) in enumerate(images, 1)) + RELEASE_RQ)
        *answers, released = hear(line, 7)
        assert released[0] == 6
        statuses = {struct.unpack_from("<H", one, one.index(b"\0\0\x20\x01\x02\0\0\0") + 8)[0] for one in answers}
        assert statuses == {1, 2, 3, 4, 5, 6}  # Message ID Being Responded To
        assert all(b"\0\0\x00\x09\x02\0\0\0\0\0" in one for one in answers)  # Status 0000
        assert len(open_house.kept().instances) == 6


def test_no_more_operations_are_agreed_to_than_are_performed(tmp_path: Path) -> None:
    """PS3.7 D.3.3.3: unlimited is answered with a number."""
    with house(tmp_path, "fast") as open_house, socket.create_connection(("127.0.0.1", open_house.port)) as line:
        line.sendall(associate_rq([(1, CT_IMAGE, [EXPLICIT])], more=item(WINDOW, struct.pack(">HH", 0, 0))))
        (accepted,) = hear(line, 1)
        assert item(WINDOW, struct.pack(">HH", 8, 1)) in accepted


# ------------------------------------------------------------------------------------------------- memory and processes


def memory_mb(process: int) -> float:
    return next(int(line.split()[1]) for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("VmRSS")) / 1024


def test_a_long_object_is_received_in_flat_memory(tmp_path: Path) -> None:
    """R4: 300 MB in one object, in a process whose memory grows by less than a tenth of that."""
    uid, data = image("long")
    size = 300 << 20
    begin = data[: data.rindex(b"\xe0\x7f\x10\x00OW")]
    pixels = b"\xe0\x7f\x10\x00OW\0\0" + struct.pack("<I", size)
    chunk = p_data(pdv(1, 0, bytes(65536)))
    with serving(tmp_path, remotes={}, rules=[], models={}, port=free_ports(1)[0]) as node:
        before = memory_mb(node.process.pid)
        with socket.create_connection((node.ae.host, node.ae.port)) as line:
            line.sendall(associate_rq([(1, CT_IMAGE, [EXPLICIT])]))
            hear(line, 1)
            line.sendall(p_data(pdv(1, 3, store_rq(uid))) + p_data(pdv(1, 0, begin + pixels)))
            for _ in range(size // 65536 - 1):
                line.sendall(chunk)
            grown = memory_mb(node.process.pid) - before
            line.sendall(p_data(pdv(1, LAST, bytes(65536))))
            (answer,) = hear(line, 1)
            assert b"\0\0\x00\x09\x02\0\0\0\0\0" in answer
            line.sendall(RELEASE_RQ)
        assert grown < 30
        (one,) = node.store.instances.by_ids([1])
        assert one.size_bytes > size and node.store.instances.bring([one])[0].stat().st_size == one.size_bytes


def test_several_processes_receive_on_one_port_and_one_that_dies_comes_back(tmp_path: Path) -> None:
    """SO_REUSEPORT, one ledger: what was acknowledged by a process that was killed is there."""
    with serving(tmp_path / "node", remotes={}, rules=[], models={}, port=free_ports(1)[0], node={"receivers": 3}) as node:
        receiving = wait_for(lambda: found if len(found := children(node.process.pid, "--only-receive")) == 2 else None)
        wait_for(lambda: listening_beside(node.log) == 3, says=lambda: node.log)
        for number in range(12):
            sent = storescu(node.ae.port, written(tmp_path / f"study {number}", 5))
            assert sent.returncode == 0, sent.stderr
        os.kill(receiving[0], signal.SIGKILL)
        wait_for(lambda: len(set(children(node.process.pid, "--only-receive")) - {receiving[0]}) == 2)
        sent = [storescu(node.ae.port, written(tmp_path / f"later {number}", 5)).returncode for number in range(6)]
        assert sum(row["instances"] for row in node.store.studies.list(limit=100)) >= 60 + 5 * sent.count(0)
        wait_for(lambda: listening_beside(node.log) >= 4, says=lambda: node.log)


def children(process: int, word: str) -> list[int]:
    """Return the children of a process that were started with a word."""
    found = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    threads = [int(one) for task in Path(f"/proc/{process}/task").iterdir() for one in (task / "children").read_text().split()]
    return sorted({one for one in [*map(int, found), *threads] if word in Path(f"/proc/{one}/cmdline").read_text()})


def listening_beside(log: str) -> int:
    return log.count('"receive.listening"')


def test_an_unknown_pynetdicom_is_served_by_its_own_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the fast path relies on is not promised by the library: with another version the stock path receives."""
    import pynetdicom

    monkeypatch.setattr(pynetdicom, "__version__", "3.9.9")
    images = written(tmp_path / "images", 3)
    with house(tmp_path / "data", "fast") as open_house:
        assert not open_house.receiver.is_fast
        assert storescu(open_house.port, images).returncode == 0
        assert len(open_house.kept().instances) == 3


def test_the_known_pynetdicom_is_passed_by(tmp_path: Path) -> None:
    """The version that is installed is one that the fast path knows: else all of this would test the stock path."""
    with house(tmp_path, "fast") as open_house:
        assert open_house.receiver.is_fast
