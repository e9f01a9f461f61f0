"""What it costs who sends that others look: the rate at which the node receives while studies are retrieved from it by DICOMweb, and alone.

The same images go in over four associations, in turns with and without a client that retrieves a study of CT by WADO-RS without pause: as fast as
a link of one gigabit carries it, and as fast as it is given it, which no network of a hospital does.
"""

import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from pydicom import dcmread

from tests.benchmarks import progress
from tests.benchmarks.images import write_series
from tests.benchmarks.measure import Measure
from tests.benchmarks.receivers import Receiver, ours, send
from tests.orthanc import free_ports
from tests.peers import need

ROUNDS = 7
ASSOCIATIONS, IMAGES = 4, 100  # of each association
CLIENTS = {"over one gigabit": "119M", "without limit": ""}  # bytes a second that are asked for at most, as curl takes it
_PAUSE_S = 0.5
_ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'


def measures(folder: Path, rounds: int = ROUNDS) -> Iterator[Measure]:
    """Receive alone and beside a retrieval, in turns."""
    rates: dict[str, list[float]] = {name: [] for name in ("alone", *CLIENTS)}
    read: dict[str, list[float]] = {name: [] for name in CLIENTS}
    study = write_series(folder / "study", "CT", series=2, count=100, side=512)
    (port,) = free_ports(1)
    with ours(folder / "node", web=port) as node:
        _rate(node, [study], folder / "filling")
        url = f"http://127.0.0.1:{port}/dicom-web/studies/{dcmread(study[0], stop_before_pixels=True).StudyInstanceUID}"
        for number in range(rounds + 1):
            for name, found in rates.items():
                progress.say(f"round {number} of {rounds}: {name}")
                here = folder / f"{number}-{name.replace(' ', '-')}"
                shares = _shares(here / "images")
                with _retrieving(url, CLIENTS[name]) if name in CLIENTS else nullcontext(lambda: 0.0) as mb_s:
                    rate = _rate(node, shares, here / "sending")
                if number:
                    found.append(rate)
                    read.get(name, []).append(mb_s())
    for name in CLIENTS:
        yield _told(name, rates[name], rates["alone"], read[name])


def _told(name: str, beside: Sequence[float], alone: Sequence[float], read_mb_s: Sequence[float]) -> Measure:
    note = f"{min(beside):.0f}–{max(beside):.0f} beside {min(alone):.0f}–{max(alone):.0f}; {statistics.median(read_mb_s):.0f} MB/s were retrieved"
    return Measure(
        name=f"receiving while a study is retrieved {name} ÷ receiving alone",
        ours=statistics.median(beside),
        peer=statistics.median(alone),
        unit="images/s",
        ratio=statistics.median(one / other for one, other in zip(beside, alone, strict=True)),
        bar=0.9,
        note=note,
    )


def _shares(folder: Path) -> list[list[Path]]:
    return [write_series(folder / str(one), "CT", series=1, count=IMAGES, side=512) for one in range(ASSOCIATIONS)]


def _rate(node: Receiver, shares: Sequence[Sequence[Path]], folder: Path) -> float:
    before = node.kept()
    taken_s = send(replace(node, kept=lambda: node.kept() - before), shares, folder)
    return sum(map(len, shares)) / taken_s


@contextmanager
def _retrieving(url: str, limit: str) -> Iterator[Callable[[], float]]:
    """Retrieve a study again and again; what is yielded tells afterwards how many MB of it came in a second."""
    stop, sizes, since = threading.Event(), [], time.perf_counter()
    client = threading.Thread(target=_retrieve, args=(url, limit, stop, sizes))
    client.start()
    time.sleep(_PAUSE_S)
    try:
        yield lambda: sum(sizes) / 1e6 / (time.perf_counter() - since)
    finally:
        stop.set()
        client.join()


def _retrieve(url: str, limit: str, stop: threading.Event, sizes: list[int]) -> None:
    # A client is on a machine of its own: here it stands behind all others, so that it takes of the processors what they leave.
    command = ["nice", "-n", "19", need("curl"), "-s", "-f", "-o", "/dev/null", "-w", "%{size_download}", "-H", f"Accept: {_ACCEPT}", url]
    command += ["--limit-rate", limit] if limit else []
    while not stop.is_set():
        sizes.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
