"""How fast searches are answered by HTTP: out of one million instances by the node alone, and beside Orthanc's DICOMweb plug-in out of fewer.

The million is the ledger of `querying`: 5000 studies of ten series of twenty images, their rows made here. Orthanc takes files only, which for a
million would take hours: beside it both hold so many studies of the same make as it loads in about a minute, and what Orthanc takes of these grows
with what it holds. A search is one request over a connection that stays open, from the request to the last byte of the answer, of other studies
each time; the node's process is the one that `dicom-node web` runs.
"""

import http.client
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from io import BytesIO
from pathlib import Path
from urllib.parse import quote, urlsplit

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.domain import Instance
from dicom_node.store import Store
from tests.benchmarks import progress
from tests.benchmarks.measure import Measure
from tests.benchmarks.querying import _NAMES, _ROOT, IMAGES, SERIES, STUDIES, _day, fill, images
from tests.orthanc import ask, free_ports, orthanc

ROUNDS = 5
FEW_STUDIES = 30
_SEARCHES = 8  # of each kind and round
_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
_OHIF = "limit=101&offset=0&fuzzymatching=false&includefield=00081030,00080060"
_CONFIG = """
[node]
storage = "{storage}"
disk_reserve_mb = 1
[web]
port = {port}
"""

Kind = Callable[[int], str]  # the number of a study → an address

_KINDS: Mapping[str, Kind] = {
    "the study list": lambda n: f"/studies?{_OHIF}",
    "the study list by name": lambda n: f"/studies?{_OHIF}&PatientName=*{quote(_NAMES[n % 10][1:4])}*",
    "the study list by days and modality": lambda n: f"/studies?{_OHIF}&StudyDate={_day(n)}-{_day(n, 30)}&ModalitiesInStudy=CT",
    "a study by its UID": lambda n: f"/studies?StudyInstanceUID={_ROOT}.{n}",
    "studies of a patient": lambda n: f"/studies?PatientID=P{n * 2 // 3:07}",
    "series of a study": lambda n: f"/studies/{_ROOT}.{n}/series?includefield=0008103E,00080021",
    "instances of a series": lambda n: f"/studies/{_ROOT}.{n}/series/{_ROOT}.{n}.3/instances",
    "a page of all instances": lambda n: f"/instances?limit=100&offset={n * SERIES * IMAGES}",
}


def measures(folder: Path, rounds: int = ROUNDS) -> Iterator[Measure]:
    """Measure each kind of search out of the million, and each beside Orthanc."""
    try:
        yield from _of_a_million(folder / "full", rounds)
        yield from _beside_orthanc(folder / "few", rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _of_a_million(folder: Path, rounds: int) -> Iterator[Measure]:
    folder.mkdir(parents=True)
    _filled(folder, STUDIES)
    with _web(folder) as url:
        for name, kind in _KINDS.items():
            progress.say(name)
            taken = _asked(url, kind, STUDIES, rounds * _SEARCHES)
            worst, half = sorted(taken)[int(0.95 * (len(taken) - 1))], statistics.median(taken)
            yield Measure(name=f"{name}, of a million instances: 95 of 100 take at most", ours=worst, unit="ms", note=f"half take {half:.1f} ms")


def _beside_orthanc(folder: Path, rounds: int) -> Iterator[Measure]:
    folder.mkdir(parents=True)
    _filled(folder, FEW_STUDIES)
    plugin = {"Plugins": [str(_PLUGIN)], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}}
    with _web(folder) as ours, orthanc(folder / "orthanc", ConcurrentJobs=1, **plugin) as (_, url):
        progress.say("loads Orthanc")
        with ThreadPoolExecutor(2) as pool:
            [*pool.map(lambda one: ask(f"{url}/instances", _file(one)), (one for number in range(FEW_STUDIES) for one in images(number)))]
        for name, kind in _KINDS.items():
            progress.say(f"{name}, beside Orthanc")
            taken: dict[str, list[float]] = {"ours": [], "theirs": []}
            for _ in range(rounds):
                for whose, where in (("ours", ours), ("theirs", f"{url}/dicom-web")):
                    taken[whose].append(statistics.median(_asked(where, kind, FEW_STUDIES, 3)))
            one, other = (statistics.median(taken[whose]) for whose in ("ours", "theirs"))
            label = f"{name}, of {FEW_STUDIES * SERIES * IMAGES} instances: Orthanc's time ÷ ours"
            yield Measure(name=label, ours=one, peer=other, unit="ms", ratio=other / one, bar=1.0, aim=2.0)


def _filled(folder: Path, studies: int) -> None:
    store = Store.open(folder / "data")
    fill(store, studies)
    store.holdings.refresh()
    store.close()


def _asked(url: str, kind: Kind, studies: int, searches: int) -> list[float]:
    """Search so often, and return the milliseconds that each search took."""
    chance, taken, where = random.Random(7), [], urlsplit(url)
    with closing(http.client.HTTPConnection(str(where.hostname), where.port, timeout=120)) as connection:
        for number in range(searches + 1):
            started = time.perf_counter()
            connection.request("GET", f"{where.path}{kind(chance.randrange(studies))}", headers={"Accept": "application/dicom+json"})
            answer = connection.getresponse()
            answer.read()
            assert answer.status in (200, 204), answer.status
            taken += [1000 * (time.perf_counter() - started)] if number else []  # the first opens the connection
    return taken


def _file(one: Instance) -> bytes:
    """Return a file that says what the ledger does."""
    dataset, file = Dataset(), BytesIO()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in {**one.header, "SOPClassUID": one.sop_class_uid, "StudyInstanceUID": one.study_instance_uid}.items():
        setattr(dataset, keyword, value)
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


@contextmanager
def _web(folder: Path) -> Iterator[str]:
    """Run the node's web, and give the URL that DICOMweb is below."""
    (port,) = free_ports(1)
    config = folder / "node.toml"
    config.write_text(_CONFIG.format(storage=folder / "data", port=port))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "dicom_node", "web", "--config", str(config)], stdout=log, stderr=log)
    try:
        until = time.monotonic() + 60
        while not _lives(port):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the web did not start: {(folder / 'log').read_text()[-1000:]}")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/dicom-web"
    finally:
        process.terminate()
        process.wait(60)


def _lives(port: int) -> bool:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        try:
            connection.request("GET", "/health/live")
            return connection.getresponse().status == 200
        except OSError:
            return False
