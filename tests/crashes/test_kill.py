"""Kill -9 in every gap between two promises, again and again, while scanners send: nothing acknowledged is lost, nothing is done twice.

A scanner sends small studies without pause and sends again what was not acknowledged, as real ones do. The listening and the analysing process
each live with a fuse that kills them at a random passing of a random point between two promises, and are started again at once; the model kills
its own process now and then. When the kills are over the node is left to finish, and then everything is counted.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from pydicom import dcmread

from dicom_node.domain import AE, DeliveryState, Job, JobState, PeerUnavailable, StudyState
from dicom_node.receive import recovered
from dicom_node.simulate.pacs import Pacs
from dicom_node.simulate.scanner import push
from dicom_node.store import Store
from dicom_node.worklist.ups.attributes import dataset_of
from tests import phantoms
from tests.crashes.fuses import POINTS

KILLS = int(os.environ.get("DICOM_NODE_KILLS", "200"))
ROOT = Path(__file__).parents[2]

CONFIG = """
[node]
port = {port}
storage = "{storage}"
complete_after_s = 0.3
disk_reserve_mb = 64
max_reruns = 50
[remotes]
scanner = {{ ae = "SCANNER@127.0.0.1:104", may = ["send"] }}
pacs = {{ ae = "{pacs}", may = ["receive"] }}
[models.fragile]
folder = "{models}/fragile"
[work]
start = false
lease_s = 1.5
attempts = 100
backoff_s = 0.05
poll_s = 0.05
threads = 1
[web]
start = false
[deliver]
backoff_s = 0.1
backoff_max_s = 0.5
attempts = 100
poll_s = 0.05
[[rules]]
name = "every CT"
when.Modality = "CT"
analyse = ["fragile"]
deliver = ["pacs"]
[[triage]]
name = "bright"
findings = [{{ concept = "Volume", min = 0.0 }}]
workitem = ["READ", "99SITE", "Read it first"]
jobs = true
"""


class Nodes:
    """The two processes of a node, each with a fuse, started again when they die; counts what killed them."""

    def __init__(self, config: Path, folder: Path, seed: int) -> None:
        self._config = config
        self._folder = folder
        self._random = random.Random(seed)
        self._zygote = subprocess.Popen([sys.executable, "-m", "tests.crashes.zygote"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
        self._lives = 0
        self._started: dict[int, float] = {}
        self.killed: Counter[str] = Counter()
        self.fused = True
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._timer = threading.Thread(target=self._kill_the_old, daemon=True)
        self._timer.start()
        for verb in POINTS:
            self._start(verb)

    def _start(self, verb: str) -> None:
        self._lives += 1
        fuse = self._random.choice([*POINTS[verb], ""]) if self.fused else ""
        wanted = {"verb": verb, "config": str(self._config), "fuse": fuse, "passes": self._random.choice([1, 1, 2, 3, 5])}
        wanted |= {"note": str(self._folder / f"life-{self._lives}"), "log": str(self._folder / "node.log")}
        self._zygote.stdin.write(json.dumps(wanted).encode() + b"\n")
        self._zygote.stdin.flush()

    def _read(self) -> None:
        for line in self._zygote.stdout:
            said = json.loads(line)
            if "pid" in said:
                self._started[said["pid"]] = time.monotonic()
            else:
                self._started.pop(said["dead"], None)
                self.killed[f"{said['verb']}: {said['point'] or 'anywhere'}"] += 1
                self._start(said["verb"])

    def _kill_the_old(self) -> None:
        """Whoever has not met its fuse within some seconds is killed wherever it is."""
        while True:
            time.sleep(0.2)
            for pid, since in list(self._started.items()):
                if self.fused and time.monotonic() - since > self._random.uniform(2.0, 8.0):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)

    def calm(self) -> None:
        """No more fuses: kill the processes that still have one, and let the new ones live."""
        self.fused = False
        for pid in list(self._started):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        self._zygote.stdin.close()
        self._zygote.wait(10)


class Scanner(threading.Thread):
    """Sends studies one after another, each until all of it is acknowledged; now and then one image comes late."""

    def __init__(self, number: int, node: AE, folder: Path, ended: threading.Event) -> None:
        super().__init__(daemon=True)
        self._number = number
        self._node = node
        self._folder = folder
        self._ended = ended
        self.acknowledged: dict[str, str] = {}  # SOP Instance UID -> digest of the data set that was sent

    def run(self) -> None:
        count = 0
        while not self._ended.is_set():
            count += 1
            paths = phantoms.write(_study(f"scanner {self._number} study {count}"), self._folder / f"{self._number}-{count}")
            late = paths.pop() if count % 5 == 0 else None
            self._send(paths)
            if late is not None:
                self._ended.wait(1.0)
                self._send([late])

    def _send(self, paths: list[Path]) -> None:
        waiting = {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID): path for path in paths}
        while waiting:
            try:
                pushed = push(list(waiting.values()), self._node, timeout_s=10.0)
            except PeerUnavailable:
                time.sleep(0.05)
                continue
            for uid in pushed.acknowledged & waiting.keys():
                self.acknowledged[uid] = _data_set_digest(waiting.pop(uid))


def _study(seed: str) -> list:
    return phantoms.series(phantoms.marked((5, 24, 20)).astype(np.int16), seed=seed)


def _data_set_digest(path: Path) -> str:
    """Digest, as the ledger does, what follows the File Meta Information: the part that a receiver has to keep byte for byte."""
    data = path.read_bytes()
    group_length = int.from_bytes(data[140:144], "little")
    return blake3(data[144 + group_length :]).hexdigest()


def _wait_until_done(store: Store, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        states = store.studies.counts()
        jobs = store.jobs.counts()
        sent = store.deliveries.counts().get("pacs", {})
        if (
            not states.get(StudyState.OPEN)
            and not (jobs.keys() - {JobState.COMPLETED, JobState.CANCELED})
            and not (sent.keys() - {DeliveryState.SENT})
        ):
            return
        time.sleep(0.2)
    pytest.fail(f"not finished {timeout_s:g} s after the last kill: {states}, {jobs}, {sent}")


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_nothing_acknowledged_is_lost_and_nothing_is_done_twice(tmp_path, free_port):
    """Promise 1, over at least 200 kills of the listening, the analysing and the model's process."""
    seed = int(os.environ.get("DICOM_NODE_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
    print(f"DICOM_NODE_SEED={seed}")
    storage, stop = tmp_path / "data", threading.Event()
    with Pacs(tmp_path / "pacs") as pacs:
        config = tmp_path / "node.toml"
        models = Path(__file__).parent / "models"
        config.write_text(CONFIG.format(port=free_port, storage=storage, pacs=pacs.ae, models=models))
        nodes = Nodes(config, tmp_path, seed)
        scanners = [Scanner(number, AE("DICOM_NODE", "127.0.0.1", free_port), tmp_path / "scanner", stop) for number in (1, 2)]
        for scanner in scanners:
            scanner.start()
        while sum(nodes.killed.values()) < KILLS:
            time.sleep(0.1)
        stop.set()
        for scanner in scanners:
            scanner.join(120)
        nodes.calm()
        store = Store.open(storage)
        _wait_until_done(store, 180)
        until = time.monotonic() + 60
        while not _raised_once(store) and time.monotonic() < until:
            time.sleep(0.2)
        nodes.stop()
        acknowledged = {uid: digest for scanner in scanners for uid, digest in scanner.acknowledged.items()}
        print(f"{sum(nodes.killed.values())} kills, {len(acknowledged)} instances acknowledged, {len(pacs.instances())} results delivered")
        for point, times in sorted(nodes.killed.items()):
            print(f"  {times:4d}  {point}")
        _nothing_is_lost(store, acknowledged)
        _nothing_is_done_twice(store, pacs)
        assert _raised_once(store)
        store.close()


def _nothing_is_lost(store: Store, acknowledged: dict[str, str]) -> None:
    _, recorded, _ = store.instances.sweep(recovered)  # what the last kill left: files not moved yet, empty ones
    assert recorded == 0, "the end of a process took a row"
    held = {}
    for row in store.studies.list(limit=100_000):
        assert row["state"] == StudyState.COMPLETE
        for instance in store.studies.view(row["study_instance_uid"]).instances:
            assert store.archive.path(instance.path) == store.archive.root / instance.path, "a file is not in its place"
            assert _data_set_digest(store.archive.path(instance.path)) == instance.digest
            held[instance.sop_instance_uid] = instance.digest
    lost = {uid for uid, digest in acknowledged.items() if held.get(uid) != digest}
    assert not lost, f"{len(lost)} of {len(acknowledged)} acknowledged instances are missing or changed"
    assert not list(store.archive.incoming.iterdir()), "something still lies in incoming"


def _nothing_is_done_twice(store: Store, pacs: Pacs) -> None:
    kept = pacs.instances()
    twice = [uid for uid, one in kept.items() if not one.identical]
    assert not twice, f"the PACS got {len(twice)} objects with two contents"
    expected = set()
    for row in store.studies.list(limit=100_000):
        jobs = store.jobs.list(study_instance_uid=row["study_instance_uid"])
        assert jobs, "a study without a job"
        assert {job.discontinuation for job in jobs if job.state is JobState.CANCELED} <= {"superseded"}
        seen = [set(job.inputs["ct"]) for job in jobs[::-1]]  # a study that a crash cut in pieces is judged with each piece that comes
        assert all(before < after for before, after in zip(seen, seen[1:], strict=False)), "two jobs on the same images"
        assert jobs[0].state is JobState.COMPLETED
        assert len(jobs[0].inputs["ct"]) == row["instances"], "the newest job did not see the whole study"
        for job in jobs:
            results = store.jobs.results(job.id)
            assert [one.kind for one in results] == _expected(store, job)
            for one in results:
                assert sha256(store.archive.path(one.path).read_bytes()).hexdigest() == one.digest
                expected.add(one.sop_instance_uid)
    assert kept.keys() == expected, "the PACS holds other results than the ledger says"


def _raised_once(store: Store) -> bool:
    """Say whether every study in which something was found has one step for a reader, that names every report which says so once."""
    found: dict[str, list[str]] = {}
    for job in store.jobs.list(limit=100_000):
        results = {one.kind: one.sop_instance_uid for one in store.jobs.results(job.id)}
        if "SEG" in results:
            found.setdefault(job.study_instance_uid, []).append(results["SR"])
    named: dict[str, list[str]] = {}
    for _, item in store.workitems.page(limit=100_000):
        if item.job is None:
            assert item.study_instance_uid not in named, "a study has two steps"
            series = dataset_of(item.attributes).InputInformationSequence
            reports = {uid for reports in found.values() for uid in reports}
            of_step = [one.ReferencedSOPInstanceUID for inputs in series for one in inputs.ReferencedSOPSequence]
            named[item.study_instance_uid] = [uid for uid in of_step if uid in reports]
    return {uid: sorted(reports) for uid, reports in found.items()} == {uid: sorted(reports) for uid, reports in named.items()}


def _expected(store: Store, job: Job) -> list[str]:
    """Name the results of a job: a study judged before its bright slices came is a negative result, which is a report without segmentation."""
    if job.state is not JobState.COMPLETED:
        return []
    bright = {int(instance.header["InstanceNumber"]) for instance in store.instances.by_ids(job.inputs["ct"])} & {3, 4}
    return ["SEG", "SR"] if bright else ["SR"]
