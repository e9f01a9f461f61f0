"""The four that receive: the node, the limit, DCMTK's `storescp` and Orthanc; each in processes of its own, each with a fresh folder.

`storescp` and Orthanc are both built on DCMTK, which leaves Nagle's algorithm on unless the environment says TCP_NODELAY=1. They are run with it,
at their best, and once more as they are installed, without.
"""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from dicom_node.domain import AE
from tests.orthanc import ask, free_ports, orthanc
from tests.peers import need

PLAIN = Path(__file__).with_name("plain.py")
_START_S = 30.0
_CONFIG = """
[web]
start = {start}
port = {web}
[node]
port = {port}
storage = "{storage}"
disk_reserve_mb = 64
{more}
[work]
start = false
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """One that is listening."""

    ae: AE
    kept: Callable[[], int]  # how many images it has kept
    pid: int = 0  # of its process; 0: it does not matter
    speaks_dicom: bool = True


Start = Callable[[Path], AbstractContextManager[Receiver]]


@contextmanager
def ours(folder: Path, more: str = "", web: int = 0) -> Iterator[Receiver]:
    """Run the node as it is by default: every image flushed and in the ledger before Success. Only the analysing process is not started.

    more: further lines for its section [node]. web: the port on which it also answers HTTP, if at all.
    """
    folder.mkdir(parents=True)
    storage, config = folder / "data", folder / "node.toml"
    ae = AE("DICOM_NODE", "127.0.0.1", free_ports(1)[0])
    config.write_text(_CONFIG.format(port=ae.port, storage=storage, more=more, web=web, start=str(web > 0).lower()))
    with _process([sys.executable, "-m", "dicom_node", "serve", "-c", str(config)], folder) as process:
        wait_until_listening(ae, process, folder)
        yield Receiver(ae=ae, pid=process.pid, kept=lambda: _rows(storage / "ledger.sqlite"))


@contextmanager
def limit(folder: Path) -> Iterator[Receiver]:
    """Run the plain receiver: bytes from a socket into a new file, flushed, one byte for an answer."""
    folder.mkdir(parents=True)
    kept = folder / "kept"
    kept.mkdir()
    with _process([sys.executable, "-I", "-S", str(PLAIN), "receive", str(kept)], folder) as process:
        assert process.stdout is not None
        ae = AE("PLAIN", "127.0.0.1", int(process.stdout.readline()))
        yield Receiver(ae=ae, pid=process.pid, kept=lambda: len(os.listdir(kept)), speaks_dicom=False)


@contextmanager
def storescp(folder: Path, nodelay: str = "1") -> Iterator[Receiver]:
    """Run DCMTK's storage SCP at its fastest: a process for each association, bytes as they come, the largest PDU; it flushes nothing."""
    folder.mkdir(parents=True)
    kept = folder / "kept"
    kept.mkdir()
    ae = AE("STORESCP", "127.0.0.1", free_ports(1)[0])
    command = [need("storescp"), "--fork", "+B", "--max-pdu", "131072", "-aet", ae.title, "-od", str(kept), str(ae.port)]
    with _process(command, folder, TCP_NODELAY=nodelay) as process:
        wait_until_listening(ae, process, folder)
        yield Receiver(ae=ae, pid=process.pid, kept=lambda: len(os.listdir(kept)))


@contextmanager
def orthanc_default(folder: Path, nodelay: str = "1") -> Iterator[Receiver]:
    """Run Orthanc with its default settings: its storage and its index on disk."""
    with pytest.MonkeyPatch.context() as environment, ExitStack() as running:
        environment.setenv("TCP_NODELAY", nodelay)
        ae, url = running.enter_context(orthanc(folder))
        environment.undo()
        yield Receiver(ae=ae, kept=lambda: int(ask(f"{url}/statistics")["CountInstances"]))


def send(receiver: Receiver, shares: Sequence[Sequence[Path]], folder: Path, *, nagle: bool = False) -> float:
    """Send each share over an association of its own, all at once, and return the seconds from the first connection to the end of the last sender.

    The senders, `storescu` or for the limit a plain one, have started and read their arguments before: they wait at a gate, which is a named
    pipe. `storescu -R` looks into its files before it connects; the last of them is the pipe, which it finds empty and leaves out (`-nh`).
    """
    folder.mkdir(parents=True)
    gates = [folder / f"gate-{number}" for number in range(len(shares))]
    environment = {**os.environ, "TCP_NODELAY": "0" if nagle else "1"}
    senders = []
    with (folder / "log").open("wb") as log:
        for gate, share in zip(gates, shares, strict=True):
            os.mkfifo(gate)
            senders.append(subprocess.Popen(_sender(receiver, gate, share), env=environment, stdout=log, stderr=log))
        opened = [_opened(gate, sender, folder / "log") for gate, sender in zip(gates, senders, strict=True)]
        since = time.perf_counter()
        for one in opened:
            os.close(one)
        codes = [sender.wait() for sender in senders]
        seconds = time.perf_counter() - since
    wanted = sum(map(len, shares))
    if any(codes) or receiver.kept() != wanted:
        raise RuntimeError(f"{receiver.ae.title} kept {receiver.kept()} images of {wanted}: {(folder / 'log').read_text()[-300:]!r}")
    return seconds


def memory_mb(pid: int) -> tuple[float, float]:
    """Return the most memory that a process has had resident, and what it has now; of the process or the child of it that has most."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return max(_memory_mb(int(one)) for one in (pid, *children))


def _memory_mb(pid: int) -> tuple[float, float]:
    said = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    peak, now = (int(said[key].split()[0]) / 1024 for key in ("VmHWM", "VmRSS"))
    return peak, now


def _sender(receiver: Receiver, gate: Path, share: Sequence[Path]) -> list[str]:
    if not receiver.speaks_dicom:
        return [sys.executable, "-I", "-S", str(PLAIN), "send", str(gate), str(receiver.ae.port), *map(str, share)]
    ae = receiver.ae
    return [need("storescu"), "-R", "-nh", "-aet", "SCANNER", "-aec", ae.title, ae.host, str(ae.port), *map(str, share), str(gate)]


def _opened(gate: Path, sender: "subprocess.Popen[bytes]", log: Path) -> int:
    """Return the writing end of a gate once its sender waits there."""
    until = time.monotonic() + _START_S
    while time.monotonic() < until and sender.poll() is None:
        try:
            return os.open(gate, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody has it open for reading yet
            time.sleep(0.002)
    raise RuntimeError(f"a sender did not start: {log.read_text()[-300:]!r}")


@contextmanager
def _process(command: Sequence[str], folder: Path, **environment: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a program in a folder, where it writes its log too, and end it."""
    settings: Mapping[str, str] = {**os.environ, **environment}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=settings, stdout=subprocess.PIPE, stderr=log)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def wait_until_listening(ae: AE, process: "subprocess.Popen[bytes]", folder: Path) -> None:
    """Wait until a process takes connections.

    Raises
    ------
    RuntimeError: it has ended, or does not in time; with the end of its log.
    """
    until = time.monotonic() + _START_S
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection((ae.host, ae.port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"{ae.title} does not listen: {(folder / 'log').read_text()[-300:]!r}")


def _rows(ledger: Path) -> int:
    with closing(sqlite3.connect(ledger)) as connection:
        return int(connection.execute("SELECT count(*) FROM instance").fetchone()[0])


RECEIVERS: Mapping[str, Start] = {
    "ours": ours,
    "limit": limit,
    "storescp": storescp,
    "Orthanc": orthanc_default,
    "storescp as installed": partial(storescp, nodelay="0"),
    "Orthanc as installed": partial(orthanc_default, nodelay="0"),
    "ours in two processes": partial(ours, more="receivers = 2"),
}
