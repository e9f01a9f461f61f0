"""How long each bundled model takes for one analysis, and how much memory its process has at most.

Every model runs through `dicom_node.analyse.Pool`, as the node runs it: in a process of its own, on as many threads as there are processors. The
clock starts with the images in memory and the model loaded, and stops when its findings are settled. Its inputs are chosen by its manifest: the
133-slice chest CT of 512 × 512 with a spleen drawn on it, and the head MR of 192 slices; whoever takes neither gets the CT of a head, then the
chest CT with its contrast medium taken out and calcium drawn in. The limit is one pass of scipy's Gaussian filter over the same image, on one
thread, in the same run. Processor seconds and peak memory (VmHWM) are those of the model's process, from /proc.
"""

import os
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from highdicom import Volume
from pydicom import dcmread
from scipy import ndimage

from dicom_node.analyse import Pool
from dicom_node.assemble.selection import select
from dicom_node.config import Model, bundled, load_model
from dicom_node.domain import NodeError, Unsuitable
from dicom_node.receive import study_of
from dicom_node.report import reading
from dicom_node.route import takings
from dicom_node.simulate.samples import PROTOCOLS, nifti, sample_files, slices
from dicom_node.work.reading import assembled
from tests import drawn, phantoms
from tests.benchmarks import progress
from tests.benchmarks.measure import Measure
from tests.models_proof import read, test_calcium_score, volume

SPLEEN = 1  # in the labels of the chest CT
FILTER_SD = 1.0  # voxels
TICK_S = 1 / os.sysconf("SC_CLK_TCK")

Files = Mapping[str, Sequence[Path]]  # name of a set → its files


def measures(folder: Path, rounds: int = 1) -> Iterator[Measure]:
    """Run every model on every set that it takes; of one that takes none, say why."""
    first, further = {"chest CT": _chest(folder), "head MR": sample_files("head-mr")}, _further(folder)
    for path in sorted(bundled("models").glob("*/model.toml")):
        model = load_model(path.parent)
        yield from of_model(model, first, further, rounds)


def of_model(model: Model, first: Files, further: Files, rounds: int) -> Iterator[Measure]:
    """Measure a model on each of the first sets, or else on the first of the further ones that it takes; a slot that no site has filled, on none."""
    empty = [one.file for one in model.missing_weights if one.local]
    if empty:
        yield Measure(name=model.name, ours=None, note=f"a slot that is empty: {', '.join(empty)}")
        return
    refused = {}
    for name, files in (first | further).items():
        if name in further and len(refused) < len(first):
            return
        progress.say(f"{model.name} on {name}")
        try:
            yield from _told(f"{model.name}, {name}", _runs(model, files, rounds), model)
            if name in further:
                return
        except Unsuitable as declined:
            refused[name] = str(declined)
        except NodeError as failed:
            yield Measure(name=f"{model.name}, {name}", ours=None, bar=1.0, at_most=True, note=f"failed: {failed}")
    if len(refused) == len(first | further):
        yield Measure(name=model.name, ours=None, note="declines: " + "; ".join(f"{name}: {why}" for name, why in refused.items()))


# ---------------------------------------------------------------------------------------------------------------- running


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """What one analysis took, and before it one pass of the filter."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    filter_s: float
    filter_cpu_s: float


@dataclass(slots=True)
class _Watch:
    """Learns from the node's own log which process a model has, and notes where its clocks stand when it is loaded."""

    pid: int = 0
    clocks: tuple[float, float] = field(default=(0.0, 0.0))  # wall, processor

    def __call__(self, logger: Any, method: str, event: Any) -> Any:
        if event["event"] == "model_loaded":
            self.pid = event["pid"]
            self.clocks = self.now()
        raise structlog.DropEvent

    def now(self) -> tuple[float, float]:
        return time.perf_counter(), _cpu_s(self.pid) if self.pid else 0.0


def _told(name: str, runs: Sequence[_Run], model: Model) -> Iterator[Measure]:
    def middle(what: str) -> float:
        return statistics.median(getattr(run, what) for run in runs)

    wall_s, cpu_s = middle("wall_s"), middle("cpu_s")
    beside, beside_cpu = (statistics.median(getattr(run, f"filter_{what}") for run in runs) for what in ("s", "cpu_s"))
    yield Measure(name=f"{name}: time ÷ filter", ours=wall_s, peer=beside, unit="s", ratio=wall_s / beside, at_most=True)
    yield Measure(name=f"{name}: processor ÷ filter", ours=cpu_s, peer=beside_cpu, unit="s", ratio=cpu_s / beside_cpu, at_most=True)
    peak_mb, declared_mb = max(run.peak_mb for run in runs), model.manifest.resources.memory_mb
    share = peak_mb / declared_mb
    yield Measure(name=f"{name}: peak memory ÷ declared", ours=peak_mb, peer=declared_mb, unit="MB", ratio=share, bar=1.0, at_most=True)


def _runs(model: Model, files: Sequence[Path], rounds: int) -> list[_Run]:
    """Run a model on what it takes of a study.

    Raises
    ------
    Unsuitable: no series suits, or the analysis declines; ModelFailed: it failed.
    """
    model, inputs = _inputs(model, files)
    image = np.asarray(next(iter(inputs.values())).array)
    with _watched() as watch, Pool() as pool:
        return [_run(pool, model, inputs, image, watch) for _ in range(rounds)]


def _inputs(model: Model, files: Sequence[Path]) -> tuple[Model, dict[str, Volume]]:
    """Return a model as it reads for its inputs, and these."""
    study = study_of(files, model.manifest.keywords)
    ways = list(takings(study.series, study.series, model.manifest, select))
    taken = next((way for way in ways if way.series is not None), ways[0])
    if taken.series is None:
        raise Unsuitable(f"no series for '{taken.lacks}': {'; '.join(dict.fromkeys(taken.rejected.values())) or taken.reasons[-1]}")
    paths = {name: [Path(instance.path) for instance in series.instances] for name, series in taken.series.items()}
    inputs = assembled(model.manifest, paths.__getitem__)
    return reading(model, inputs), {name: one.volume for name, one in inputs.items()}


def _run(pool: Pool, model: Model, inputs: Mapping[str, Volume], image: Any, watch: _Watch) -> _Run:
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    ndimage.gaussian_filter(image, FILTER_SD, output=np.float32)
    filter_s, filter_cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    limits, began = model.manifest.resources, watch.now()
    pool.run(
        model,
        "cpu",
        inputs,
        timeout_s=limits.timeout_s,
        memory_mb=limits.memory_mb,
        progress=lambda *_: None,
        canceled=lambda: False,
    )
    wall_s, cpu_s = (after - before for after, before in zip(watch.now(), max(began, watch.clocks), strict=True))
    return _Run(wall_s=wall_s, cpu_s=cpu_s, peak_mb=_peak_mb(watch.pid), filter_s=filter_s, filter_cpu_s=filter_cpu_s)


@contextmanager
def _watched() -> Iterator[_Watch]:
    """Have the node's log in this process go to a watch."""
    before, watch = structlog.get_config(), _Watch()
    structlog.configure(processors=[watch], wrapper_class=structlog.BoundLogger)
    try:
        yield watch
    finally:
        structlog.configure(**before)


def _cpu_s(pid: int) -> float:
    """Return the processor time of a process, all of its threads, and of those that it started and that have ended."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) * TICK_S  # utime, stime, cutime, cstime
    return float("nan")


def _peak_mb(pid: int) -> float:
    with suppress(OSError):
        line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return float("nan")


# ------------------------------------------------------------------------------------------------------------- the images


def _chest(folder: Path) -> list[Path]:
    """Return the chest CT's files, and that of a Segmentation of the spleen on it."""
    images = sample_files("chest-ct")
    labels = read(nifti("chest-ct-labels")).to_patient_orientation(PROTOCOLS["chest-ct"].orientation)
    spleen = drawn.segmentation([dcmread(path) for path in images], (labels.array == SPLEEN).astype(np.uint8))
    return [*images, *phantoms.write([spleen], folder / "spleen")]


def _further(folder: Path) -> Files:
    """Return the CT of a head, and the chest CT with its contrast medium taken out and calcium drawn in."""
    chest = PROTOCOLS["chest-ct"]
    plain = replace(chest, header={key: value for key, value in chest.header.items() if key != "ContrastBolusAgent"})
    head = {"BodyPartExamined": "HEAD", "StudyDescription": "CT head", "SeriesDescription": "Head STANDARD", "ProtocolName": "Head"}
    wanted = {
        "head CT": (read(nifti("head-ct")), replace(plain, header=plain.header | head)),
        "chest CT without contrast": (volume(test_calcium_score.with_calcium()[0], test_calcium_score.chest().affine), plain),
    }
    return {name: phantoms.write(list(slices(*made, name, "benchmark")), folder / name) for name, made in wanted.items()}
