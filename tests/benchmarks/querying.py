"""How fast queries are answered out of a full ledger, and what a full ledger costs who receives: one million instances, their rows made here.

A query is `Holdings.find` on SQLite, from the call to its last match, with the index already up to date, as it is between two images. A million
rows are 5000 studies of ten series of twenty images. Every kind of query is asked for other patients, days and studies each time. Over the wire
the same are asked by pynetdicom, of a process of the node that listens, over one association: from the request to the last response.

Receiving is `Intake.record` of images whose files exist, over one association, in a ledger of ten thousand rows and in one of a million, in turns;
`looked at` is the same with a query after every tenth image, which brings the index up to date.
"""

import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from pydicom import Dataset
from sqlalchemy import insert

from dicom_node.domain import AE, Instance, StudyState
from dicom_node.store import Store
from dicom_node.store.recording import row_of
from dicom_node.store.tables import instance, study
from tests.asking import FIND, asking
from tests.benchmarks import progress
from tests.benchmarks.measure import Measure
from tests.benchmarks.receivers import wait_until_listening
from tests.orthanc import free_ports

ROUNDS = 5
STUDIES, SERIES, IMAGES = 5000, 10, 20  # studies; series of each; images of each series
FEW_STUDIES = 50
_QUERIES = 60  # of each kind, in all rounds together
_RECEIVED = 500  # images of a round
_ROWS = 10_000  # inserted at once
_ROOT = "1.2.826.0.1.3680043.8.498"
_CT = "1.2.840.10008.5.1.4.1.1.2"
_CONFIG = """
[node]
port = {port}
storage = "{storage}"
disk_reserve_mb = 64
[remotes]
asker = {{ ae = "ASKER@127.0.0.1:104", may = ["query"] }}
"""
_NAMES = ("Müller", "Smith", "Rossi", "Nguyen", "García", "Kowalski", "Yılmaz", "O'Neill", "Silva", "Ivanova")


def measures(folder: Path, rounds: int = ROUNDS) -> Iterator[Measure]:
    """Measure each kind of query, all of them together, filling the index, and receiving into a small ledger and a full one."""
    full, few = Store.open(folder / "full"), Store.open(folder / "few")
    try:
        for store, studies in ((full, STUDIES), (few, FEW_STUDIES)):
            fill(store, studies)
        started = time.perf_counter()
        full.holdings.refresh()
        taken = time.perf_counter() - started
        few.holdings.refresh()
        yield Measure(name=f"filling the index of {STUDIES} studies", ours=taken, unit="s", note="once, after an upgrade")
        yield from _queries(full)
        yield from _over_the_wire(folder)
        yield from _receiving(few, full, rounds)
    finally:
        full.close()
        few.close()
        shutil.rmtree(folder, ignore_errors=True)


def fill(store: Store, studies: int) -> None:
    """Write the rows of so many studies, as if they had been received."""
    progress.say(f"writes the rows of {studies} studies")
    rows: list[dict[str, Any]] = []
    for number in range(studies):
        rows += (row_of(one) for one in images(number))
        if len(rows) >= _ROWS or number == studies - 1:
            with store.database.write(relaxed=True) as connection:
                connection.execute(insert(instance), rows)
            rows = []
    with store.database.write() as connection:
        fixed = {"state": StudyState.COMPLETE, "revision": 1, "changes": SERIES * IMAGES, "first_received_at": 0.0, "look_at": 0.0, "why": ""}
        uids = [{"study_instance_uid": f"{_ROOT}.{number}", "last_received_at": float(number), **fixed} for number in range(studies)]
        connection.execute(insert(study), uids)
    store.database.checkpoint()


def images(number: int, series: int = SERIES, each: int = IMAGES) -> Iterator[Instance]:
    """Give the instances of a study."""
    uid, day = f"{_ROOT}.{number}", date(2015, 1, 1) + timedelta(days=number * 3650 // STUDIES)
    header = {
        "PatientName": f"{_NAMES[number % len(_NAMES)]}^{number % 997:03}",
        "PatientID": f"P{number * 2 // 3:07}",
        "IssuerOfPatientID": "HOSPITAL",
        "PatientBirthDate": f"19{number % 90 + 10}0615",
        "PatientSex": "FM"[number % 2],
        "StudyDate": f"{day:%Y%m%d}",
        "StudyTime": f"{number % 24:02}{number % 60:02}12.345",
        "AccessionNumber": f"A{number:08}",
        "StudyID": str(number),
        "StudyDescription": ("CT Chest with contrast", "CT Abdomen", "MR Brain", "CT Head native")[number % 4],
        "ReferringPhysicianName": f"Doctor^{number % 50}",
        "Modality": ("CT", "CT", "MR", "CT")[number % 4],
        "Manufacturer": "SCANNER MEDICAL SYSTEMS",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "ImageOrientationPatient": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        "PixelSpacing": [0.7421875, 0.7421875],
        "Rows": 512,
        "Columns": 512,
    }
    for of_series in range(series):
        of = header | {"SeriesNumber": of_series + 1, "SeriesDescription": f"axial {of_series + 1}", "SeriesInstanceUID": f"{uid}.{of_series}"}
        for image in range(each):
            own = {"InstanceNumber": image + 1, "SOPInstanceUID": f"{uid}.{of_series}.{image}", "ImagePositionPatient": [-190.0, -190.0, 2.5 * image]}
            yield _instance(uid, f"{uid}.{of_series}", f"{uid}.{of_series}.{image}", of | own)


def _instance(
    study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str, header: dict[str, Any], path: str = "instances/x"
) -> Instance:
    return Instance(
        sop_instance_uid=sop_instance_uid,
        sop_class_uid=_CT,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        study_instance_uid=study_instance_uid,
        series_instance_uid=series_instance_uid,
        path=path,
        size_bytes=525_000,
        digest=f"{hash(sop_instance_uid) & 0xFFFFFFFFFFFFFFFF:064x}",
        calling_ae="SCANNER",
        received_at=time.time(),
        header=header,
    )


# --------------------------------------------------------------------------------------------------------------- queries


def _queries(store: Store) -> Iterator[Measure]:
    chance, everything = random.Random(5), []
    for name, ask in _KINDS.items():
        progress.say(name)
        taken, matches = [], []
        for _ in range(_QUERIES):
            level, keys = ask(chance.randrange(STUDIES))
            started = time.perf_counter()
            matches.append(sum(1 for _ in store.holdings.find(level, keys)))
            taken.append(1000 * (time.perf_counter() - started))
        everything += taken if name in _JUDGED else []
        note = f"{min(matches)} to {max(matches)} matches; half take {statistics.median(taken):.1f} ms"
        yield Measure(name=f"{name}: 95 of 100 take at most", ours=_p95(taken), unit="ms", note=note)
    worst = _p95(everything)
    yield Measure(name="all queries of studies: 95 of 100 take at most", ours=worst, unit="ms", ratio=worst, bar=50, at_most=True)


def _over_the_wire(folder: Path) -> Iterator[Measure]:
    progress.say("asks over the wire")
    chance, taken, matches = random.Random(6), [], []
    with _answering(folder / "full", folder / "answering") as node, asking(node) as association:
        for ask in (_KINDS[name] for name in _JUDGED for _ in range(_QUERIES)):
            level, keys = ask(chance.randrange(STUDIES))
            identifier = Dataset()
            for keyword, value in {"SpecificCharacterSet": "ISO_IR 192", "QueryRetrieveLevel": level, "StudyInstanceUID": "", **keys}.items():
                setattr(identifier, keyword, value)
            started = time.perf_counter()
            matches.append(sum(1 for _ in association.send_c_find(identifier, FIND["S"])) - 1)
            taken.append(1000 * (time.perf_counter() - started))
    worst, note = _p95(taken), f"{min(matches)} to {max(matches)} matches; half take {statistics.median(taken):.1f} ms"
    yield Measure(
        name="all queries of studies, over the wire: 95 of 100 take at most", ours=worst, unit="ms", ratio=worst, bar=50, at_most=True, note=note
    )


@contextmanager
def _answering(storage: Path, folder: Path) -> Iterator[AE]:
    """Run a process of the node that listens and does nothing else, on a ledger that is there."""
    folder.mkdir()
    ae, config = AE("DICOM_NODE", "127.0.0.1", free_ports(1)[0]), folder / "node.toml"
    config.write_text(_CONFIG.format(port=ae.port, storage=storage))
    command = [sys.executable, "-m", "dicom_node", "serve", "--only-receive", "-c", str(config)]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log) as process:
        try:
            wait_until_listening(ae, process, folder)
            yield ae
        finally:
            process.terminate()  # its standard input is closed after it


def _day(number: int, days: int = 0) -> str:
    return f"{date(2015, 1, 1) + timedelta(days=number * 3650 // STUDIES + days):%Y%m%d}"


_KINDS: dict[str, Callable[[int], tuple[str, dict[str, Any]]]] = {
    "studies of a patient": lambda n: ("STUDY", {"PatientID": f"P{n:07}", "StudyInstanceUID": "", "StudyDate": ""}),
    "a study by its accession number": lambda n: ("STUDY", {"AccessionNumber": f"A{n:08}", "StudyInstanceUID": ""}),
    "studies of a day": lambda n: ("STUDY", {"StudyDate": _day(n), "PatientName": "", "ModalitiesInStudy": ""}),
    "CT of a week": lambda n: ("STUDY", {"StudyDate": f"{_day(n)}-{_day(n, 6)}", "ModalitiesInStudy": "CT"}),
    "a name with a star": lambda n: ("STUDY", {"PatientName": f"{_NAMES[n % 10][:3]}*^{n % 997:03}", "StudyDate": ""}),
    "a description with stars": lambda n: ("STUDY", {"StudyDescription": "*Chest*", "StudyDate": f"{_day(n)}-{_day(n, 30)}"}),
    "a study by its UID": lambda n: ("STUDY", {"StudyInstanceUID": f"{_ROOT}.{n}", "NumberOfStudyRelatedInstances": ""}),
    "series of a study": lambda n: ("SERIES", {"StudyInstanceUID": f"{_ROOT}.{n}", "SeriesInstanceUID": "", "Modality": ""}),
    "images of a series": lambda n: ("IMAGE", {"StudyInstanceUID": f"{_ROOT}.{n}", "SeriesInstanceUID": f"{_ROOT}.{n}.3", "InstanceNumber": ""}),
    "every study there is": lambda n: ("STUDY", {"StudyInstanceUID": ""}),
}
_JUDGED = tuple(_KINDS)[:7]


def _p95(taken: Sequence[float]) -> float:
    return sorted(taken)[int(0.95 * (len(taken) - 1))]


# ------------------------------------------------------------------------------------------------------------- receiving


def _receiving(few: Store, full: Store, rounds: int) -> Iterator[Measure]:
    for name, every in (("receiving", 0), ("receiving, looked at", 10)):
        taken: dict[str, list[float]] = {"few": [], "full": []}
        for number in range(rounds + 1):
            progress.say(f"{name}, round {number}")
            for which, store in (("few", few), ("full", full)):
                taken[which].append(_received(store, f"{_ROOT}.9{number}.{every}", every))
        at_few, at_full = (statistics.median(taken[which][1:]) for which in ("few", "full"))
        label = f"{name}: in a ledger of {STUDIES * SERIES * IMAGES} rows ÷ of {FEW_STUDIES * SERIES * IMAGES}"
        ratio = statistics.median(one / other for one, other in zip(taken["full"][1:], taken["few"][1:], strict=True))
        yield Measure(name=label, ours=at_full, peer=at_few, unit="ms an image", ratio=ratio, bar=1.2, at_most=True)


def _received(store: Store, uid: str, every: int) -> float:
    """Record the images of a new study, with a query after every so many; return the milliseconds that one takes."""
    (first,) = images(1, series=1, each=1)
    paths = [_sealed(store, uid) for _ in range(_RECEIVED)]
    started = time.perf_counter()
    for number, path in enumerate(paths):
        header = dict(first.header) | {"InstanceNumber": number}
        store.instances.record(_instance(uid, f"{uid}.1", f"{uid}.1.{number}", header, path))
        if every and number % every == 0:
            assert [*store.holdings.find("STUDY", {"StudyInstanceUID": uid})]
    return 1000 * (time.perf_counter() - started) / _RECEIVED


def _sealed(store: Store, uid: str) -> str:
    draft = store.archive.draft()
    draft.write(uid.encode())
    return draft.seal(b"", 0, uid, received_at=time.time())
