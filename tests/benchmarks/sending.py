"""How fast images go out: the deliver room's own functions beside DCMTK's `storescu`, to the same `storescp` and to Orthanc.

Each round sends the same images with every sender over one association, each time to a newly started receiver with a new folder, once nothing is
left unwritten. The time of ours counts from the request to associate to its release; that of `storescu` from its first connection to its end.
"""

import os
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dicom_node.domain import AE, Result
from dicom_node.wire import StoredFile, peer
from tests.benchmarks import progress
from tests.benchmarks.images import write_series
from tests.benchmarks.measure import Measure
from tests.benchmarks.receivers import Receiver, Start, orthanc_default, send
from tests.orthanc import free_ports
from tests.peers import need

ROUNDS = 7
IMAGES = 300
_TIMEOUT_S = 60.0
_START_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class To:
    """Who is sent to, by which senders, how many images."""

    receiver: Start
    senders: tuple[str, ...] = ("ours", "storescu")
    images: int = IMAGES


@contextmanager
def storescp(folder: Path, max_pdu_bytes: int = 131072, nodelay: str = "1") -> Iterator[Receiver]:
    """Run DCMTK's storage SCP at its fastest but for these: a process for each association, bytes as they come; it flushes nothing."""
    kept = folder / "kept"
    kept.mkdir(parents=True)
    ae = AE("STORESCP", "127.0.0.1", free_ports(1)[0])
    command = [need("storescp"), "--fork", "+B", "--max-pdu", str(max_pdu_bytes), "-aet", ae.title, "-od", str(kept), str(ae.port)]
    environment = {**os.environ, "TCP_NODELAY": nodelay}
    with (folder / "log").open("wb") as log, subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process:
        try:
            _wait_until_it_answers(ae)
            yield Receiver(ae=ae, kept=lambda: len(os.listdir(kept)))
        finally:
            process.kill()


RECEIVERS: Mapping[str, To] = {
    "storescp": To(receiver=storescp, senders=("ours", "storescu", "pynetdicom")),
    "storescp of 16 K PDUs": To(receiver=partial(storescp, max_pdu_bytes=16384)),
    "storescp as installed": To(receiver=partial(storescp, nodelay="0"), images=60),
    "Orthanc": To(receiver=orthanc_default, images=120),
}


def measures(folder: Path) -> Iterator[Measure]:
    """Send, and say how fast."""
    progress.say("making images")
    files = write_series(folder / "images", "CT", series=1, count=IMAGES)
    rates: dict[tuple[str, str], list[float]] = defaultdict(list)
    for number in range(ROUNDS):
        for name, to in RECEIVERS.items():
            for sender in to.senders if number % 2 else reversed(to.senders):
                progress.say(f"round {number + 1} of {ROUNDS}: {sender} to {name}")
                rates[name, sender].append(_rate(to, sender, files[: to.images], folder / f"{number}-{sender}-{name}".replace(" ", "-")))
    yield _compared(rates, "storescp", "storescu", bar=0.8, aim=1.2)
    yield _compared(rates, "storescp", "pynetdicom")
    for name in ("storescp of 16 K PDUs", "storescp as installed", "Orthanc"):
        yield _compared(rates, name, "storescu")


def _rate(to: To, sender: str, files: Sequence[Path], folder: Path) -> float:
    with to.receiver(folder / "receiver") as receiver:
        os.sync()  # what others have left unwritten is not waited for in this one's time
        taken_s = send(receiver, [files], folder / "sender") if sender == "storescu" else _send(receiver.ae, files, fast=sender == "ours")
        assert receiver.kept() == len(files)
    return len(files) / taken_s


def _send(to: AE, files: Sequence[Path], *, fast: bool) -> float:
    """Send files as the deliver room sends results, and return the seconds that it took."""
    results = [_result(path) for path in files]
    syntax = results[0].transfer_syntax_uid
    since = time.perf_counter()
    association = peer.associate(to, "NODE", [(results[0].sop_class_uid, syntax)], timeout_s=_TIMEOUT_S, fast=fast)
    for number, (path, result) in enumerate(zip(files, results, strict=True), 1):
        said = peer.store(association, path, result, syntax, message_id=number, timeout_s=_TIMEOUT_S)
        assert said is not None
        assert said.status == 0
    peer.close(association)
    return time.perf_counter() - since


def _result(path: Path) -> Result:
    with StoredFile(path) as file:
        sop_class_uid, sop_instance_uid, transfer_syntax_uid = file.meta.names
    return Result(
        job_id=1,
        kind="CT",
        sop_class_uid=sop_class_uid,
        sop_instance_uid=sop_instance_uid,
        series_instance_uid="2.25.1",
        study_instance_uid="2.25.2",
        path=path.name,
        digest="0" * 64,
        transfer_syntax_uid=transfer_syntax_uid,
    )


def _compared(rates: Mapping[tuple[str, str], list[float]], to: str, other: str, bar: float | None = None, aim: float | None = None) -> Measure:
    ours, theirs = statistics.median(rates[to, "ours"]), statistics.median(rates[to, other])
    what = {"storescu": "storescu", "pynetdicom": "pynetdicom's own path"}[other]
    note = " beside ".join(f"{min(values):.0f}–{max(values):.0f}" for values in (rates[to, "ours"], rates[to, other]))
    return Measure(
        name=f"send CT to {to}, 1 association: ours ÷ {what}",
        ours=ours,
        peer=theirs,
        unit="images/s",
        ratio=ours / theirs,
        bar=bar,
        aim=aim,
        note=note,
    )


def _wait_until_it_answers(ae: AE) -> None:
    until = time.monotonic() + _START_S
    while True:
        try:
            peer.echo(ae, "NODE")
            return
        except peer.PeerUnavailable:
            if time.monotonic() > until:
                raise
