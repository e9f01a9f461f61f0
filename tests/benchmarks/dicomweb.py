"""How fast what is held goes out by HTTP: a study as files, and what a long series says, the node beside Orthanc's DICOMweb plug-in.

Both hold the same files. One client, which looks into nothing, asks both in turn over a connection of its own, and reads what comes until that is
closed; what is counted is the time from its request to the last byte. A first round, which is not counted, brings the files into memory.
"""

import io
import os
import socket
import statistics
import time
import urllib.request
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from pydicom import dcmread

from tests.benchmarks import progress
from tests.benchmarks.images import write_series
from tests.benchmarks.measure import Measure
from tests.orthanc import orthanc
from tests.peers import missing
from tests.walks.webs import web

ROUNDS = 5
SLICES = 400  # of the CT that is retrieved: 210 MB
IMAGES = 1000  # of the series whose metadata are asked for
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
DICOM, JSON = 'multipart/related; type="application/dicom"; transfer-syntax=*', "application/dicom+json"

Ask = Callable[[], tuple[int, float]]  # asks, and returns how many bytes came in how many seconds


def measures(folder: Path, rounds: int = ROUNDS) -> Iterator[Measure]:
    """Retrieve, and say how fast."""
    with _both(folder) as (ours, theirs, questions):
        yield _study(rounds, ours, theirs, *questions["study"])
        yield _metadata(rounds, ours, theirs, *questions["metadata"])


def _study(rounds: int, ours: str, theirs: str, path: str, accept: str) -> Measure:
    node, peer = _rates(rounds, ours, theirs, path, accept, lambda size_bytes: size_bytes / 1e6)
    return Measure(
        name=f"WADO-RS of a CT study of {SLICES} images: ours ÷ Orthanc",
        ours=statistics.median(node),
        peer=statistics.median(peer),
        unit="MB/s",
        ratio=statistics.median(one / other for one, other in zip(node, peer, strict=True)),
        bar=1.0,
        aim=2.0,
        note=f"{min(node):.0f}–{max(node):.0f} beside {min(peer):.0f}–{max(peer):.0f}",
    )


def _metadata(rounds: int, ours: str, theirs: str, path: str, accept: str) -> Measure:
    node, peer = _rates(rounds, ours, theirs, path, accept, lambda _: IMAGES)
    return Measure(
        name=f"metadata of a series of {IMAGES} images: ours ÷ Orthanc",
        ours=statistics.median(node),
        peer=statistics.median(peer),
        unit="images/s",
        ratio=statistics.median(one / other for one, other in zip(node, peer, strict=True)),
        bar=1.0,
        aim=2.0,
        note=f"{min(node):.0f}–{max(node):.0f} beside {min(peer):.0f}–{max(peer):.0f}",
    )


def _rates(rounds: int, ours: str, theirs: str, path: str, accept: str, amount: Callable[[int], float]) -> tuple[list[float], list[float]]:
    """Ask both in turn, now the one first and now the other."""
    rates: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds + 1):
        for url in (ours, theirs) if number % 2 else (theirs, ours):
            progress.say(f"round {number} of {rounds}: {path.rpartition('/')[2]}")
            size_bytes, taken_s = ask(url + path, accept)
            if number:
                rates[url].append(amount(size_bytes) / taken_s)
    return rates[ours], rates[theirs]


def ask(url: str, accept: str) -> tuple[int, float]:
    """Return how many bytes the answer to a GET has, its head among them, and the seconds until the last.

    Raises
    ------
    RuntimeError: it is not 200 OK.
    """
    place = urlsplit(url)
    request = f"GET {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    room, size_bytes, first = memoryview(bytearray(1 << 20)), 0, b""
    since = time.perf_counter()
    with socket.create_connection((place.hostname, place.port)) as connection:
        connection.sendall(request.encode())
        while got := connection.recv_into(room):
            first = first or bytes(room[:got])
            size_bytes += got
    taken_s = time.perf_counter() - since
    if b" 200 " not in first[:20]:
        raise RuntimeError(f"{place.netloc} answered {first[:40]!r}")
    return size_bytes, taken_s


@contextmanager
def _both(folder: Path) -> Iterator[tuple[str, str, Mapping[str, tuple[str, str]]]]:
    """Run both, and say what to ask of them."""
    if not PLUGIN.exists():
        missing("Orthanc's DICOMweb plug-in is not installed")
    progress.say("making images")
    study = write_series(folder / "study", "CT", series=4, count=SLICES // 4)
    series = write_series(folder / "series", "CT", series=1, count=IMAGES, side=48)
    with web(folder / "node", [*study, *series]) as node, orthanc(folder / "orthanc", Plugins=[str(PLUGIN)]) as (_, url):
        progress.say("Orthanc receives")
        for files in (study[: len(study) // 2], study[len(study) // 2 :], series):
            _upload(url, files)
        os.sync()
        one, other = (dcmread(files[0], stop_before_pixels=True) for files in (study, series))
        questions = {
            "study": (f"/studies/{one.StudyInstanceUID}", DICOM),
            "metadata": (f"/studies/{other.StudyInstanceUID}/series/{other.SeriesInstanceUID}/metadata", JSON),
        }
        yield node.dicomweb, f"{url}/dicom-web", questions


def _upload(url: str, files: Sequence[Path]) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in files:
            archive.write(path, path.name)
    urllib.request.urlopen(urllib.request.Request(f"{url}/instances", data=packed.getvalue()), timeout=300).close()
