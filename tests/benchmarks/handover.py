"""How long a study waits inside the node between two hands: last image → job running → model called; and how soon a dead model process is back.

A real `dicom-node serve` with its analysing process and one model that does nothing gets CT studies of 300 slices, one after another, by C-STORE
over one association: headers as from a scanner, pixels of 32 × 32, which the hand-over does not touch. The quiet period is subtracted. A job runs
when it is IN PROGRESS by its own `started_at`; its model's process is warm after the first study, which is not counted.
"""

import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from dicom_node.domain import AE, Job, JobState, PeerUnavailable
from dicom_node.simulate.scanner import echo, push
from dicom_node.store import Store
from tests.benchmarks import progress
from tests.benchmarks.images import write_series
from tests.benchmarks.measure import Measure
from tests.orthanc import free_ports

_ROOT = Path(__file__).parents[2]
_QUIET_S = 0.3
_SIDE = 32  # pixels
_PATIENCE_S = 60.0
_CONFIG = """
[web]
start = false
[node]
port = {port}
storage = "{storage}"
complete_after_s = {quiet}
disk_reserve_mb = 1
[models.tiny]
folder = "{model}"
[[rules]]
name = "CT"
when.Modality = "CT"
analyse = ["tiny"]
"""


def measures(folder: Path, *, rounds: int = 30) -> Iterator[Measure]:
    """Send so many studies; then small ones, and kill the model's idle process after each."""
    with _serving(folder) as (node, store, log):
        _walk(folder, node, store, "warm")
        waits = [_walk(folder, node, store, f"study {number + 1}") for number in range(rounds)]
        yield _told("last image → job running", [running for running, _ in waits], bar=50.0, aim=20.0)
        yield _told("last image → model called", [called for _, called in waits])
        deaths = []
        for number in range(rounds // 2):
            _walk(folder, node, store, f"death {number + 1}", slices=20)
            deaths.append(_death(log))
        yield _told("idle model process killed → its successor has loaded", deaths)


def _told(what: str, milliseconds: list[float], **limits: float) -> Measure:
    p95 = float(np.percentile(milliseconds, 95))
    note = f"p50 {statistics.median(milliseconds):.1f}, max {max(milliseconds):.1f} of {len(milliseconds)}"
    return Measure(name=f"{what}, p95", ours=p95, unit="ms", ratio=p95, at_most=True, note=note, **limits)


@contextlib.contextmanager
def _serving(folder: Path) -> Iterator[tuple[AE, Store, Path]]:
    node = AE("DICOM_NODE", "127.0.0.1", free_ports(1)[0])
    config, log = folder / "node.toml", folder / "node.log"
    model = Path(__file__).parent / "models" / "tiny"
    config.write_text(_CONFIG.format(port=node.port, storage=folder / "data", quiet=_QUIET_S, model=model))
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-m", "dicom_node", "serve", "-c", str(config)], cwd=_ROOT, stderr=file)
    try:
        _wait_for(lambda: _answers(node))
        store = Store.open(folder / "data")
        yield node, store, log
        store.close()
    finally:
        process.terminate()
        process.wait(_PATIENCE_S)


def _answers(node: AE) -> bool:
    with contextlib.suppress(PeerUnavailable):
        return echo(node) > 0
    return False


def _walk(folder: Path, node: AE, store: Store, name: str, slices: int = 300) -> tuple[float, float]:
    """Send one study and wait for its job; return the milliseconds to "running" and to "called", both less the quiet period."""
    progress.say(name)
    study, files = _study(folder / name, slices)
    _send(files, node)
    job = _wait_for(lambda: _done(store, study, slices))
    called = float(re.search(r"called ([\d.]+)", job.note)[1])  # type: ignore[index]
    seen = store.studies.view(study)
    assert seen is not None
    due_at = seen.last_received_at + _QUIET_S
    return 1000 * (job.started_at - due_at), 1000 * (called - due_at)


def _send(files: dict[str, Path], node: AE) -> None:
    """Send until all is acknowledged, as scanners do: now and then pynetdicom's own thread takes the answer for which a fast peer's sender waits."""
    waiting = dict(files)
    until = time.monotonic() + _PATIENCE_S
    while waiting:
        assert time.monotonic() < until, "the node does not take the study"
        for uid in push(list(waiting.values()), node, timeout_s=3.0).acknowledged:
            waiting.pop(uid, None)


def _done(store: Store, study: str, slices: int) -> Job | None:
    """Return the completed job on the whole study: a sender that stalls for longer than the quiet period gets one on a part of it first."""
    jobs = (job for job in store.jobs.list(study_instance_uid=study) if job.state is JobState.COMPLETED)
    return next((job for job in jobs if len(job.inputs["ct"]) == slices), None)


def _study(folder: Path, slices: int) -> tuple[str, dict[str, Path]]:
    """Write a study of its own, one series of so many slices; return its UID, and its instances' UIDs with their files."""
    (first,) = write_series(folder, "CT", series=1, count=1)
    dataset, study = dcmread(first), generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = study, generate_uid(), generate_uid()
    dataset.Rows = dataset.Columns = _SIDE
    dataset.ImagesInAcquisition = slices
    dataset.PixelData = bytes(2 * _SIDE * _SIDE)
    return study, dict(_slice(dataset, number, folder) for number in range(slices))


def _slice(dataset: Dataset, number: int, folder: Path) -> tuple[str, Path]:
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.InstanceNumber = number + 1
    dataset.SliceLocation = 1.25 * number
    dataset.ImagePositionPatient = [-180.0, -180.0, 1.25 * number]
    path = folder / f"{number:03}.dcm"
    dataset.save_as(path)
    return dataset.SOPInstanceUID, path


def _death(log: Path) -> float:
    """Kill the idle model's process; return the milliseconds until the log says that another has loaded the model."""
    loaded = _loaded(log)
    time.sleep(0.5)  # idle, and at rest
    killed_at = time.perf_counter()
    os.kill(loaded[-1], signal.SIGKILL)
    _wait_for(lambda: len(_loaded(log)) > len(loaded), every_s=0.001)
    return 1000 * (time.perf_counter() - killed_at)


def _loaded(log: Path) -> list[int]:
    """Return the process numbers that have loaded the model, oldest first."""
    return [json.loads(line)["pid"] for line in log.read_text().splitlines() if '"model_loaded"' in line and line.endswith("}")]


def _wait_for(what: Callable[[], Any], every_s: float = 0.02) -> Any:
    until = time.monotonic() + _PATIENCE_S
    while not (found := what()):
        assert time.monotonic() < until, "the node does not come to it"
        time.sleep(every_s)
    return found
