"""A model tried on files: no server, no ledger."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dicom_node.analyse import Pool
from dicom_node.assemble.selection import select
from dicom_node.config import Model
from dicom_node.domain import Assembled, Findings, Progress, Series, Unsuitable, job_identity
from dicom_node.receive import study_of
from dicom_node.report import Draft, Run, build, check, encode, reading, settled
from dicom_node.route import Taking, takings
from dicom_node.work.reading import Steps, assembled


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What `try_model` made."""

    findings: Findings
    model: Model  # its manifest as it reads for these inputs and findings
    chosen: Mapping[str, str]  # the model's input name → why this series
    sources: tuple[Path, ...]  # files of the first input
    objects: tuple[Path, ...]  # files written
    problems: tuple[str, ...]  # of the check, empty when every object is valid
    seconds: Mapping[str, float]  # step → how long it took


def try_model(model: Model, files: Sequence[Path], out: Path, *, device: str = "cpu", say: Progress = lambda *_: None) -> Trial:
    """Run a model on files, without a server or a ledger, and write what it would send into `out`.

    Raises
    ------
    Unsuitable: no series suits the model's inputs, or the analysis declines; ModelFailed: it failed.
    """
    taking = _taking(model, files)
    chosen = _chosen(model, taking)
    steps = Steps()
    say(0.0, "reading the images")
    paths = {name: [Path(instance.path) for instance in series.instances] for name, series in chosen.items()}
    inputs = assembled(model.manifest, paths.__getitem__)
    model = reading(model, inputs)
    steps.end("read")
    findings = _analysed(model, inputs, device, say)
    model = settled(model, findings)
    steps.end("model")
    identity = job_identity({name: series.instances for name, series in chosen.items()}, model.device_uid)
    objects = _write_drafts(build(findings, inputs, Run(identity=identity, made_at=time.time(), model=model)), out)
    steps.end("report")
    problems = tuple(f"{path.name}: {problem}" for path in objects for problem in check(path))
    steps.end("check")
    return Trial(
        findings=findings,
        model=model,
        chosen=dict(zip(chosen, taking.reasons, strict=True)),
        sources=tuple(paths[next(iter(paths))]),
        objects=objects,
        problems=problems,
        seconds=steps.seconds,
    )


def _taking(model: Model, files: Sequence[Path]) -> Taking:
    study = study_of(files, model.manifest.keywords)
    return _first(takings(study.series, study.series, model.manifest, select))


def _chosen(model: Model, taking: Taking) -> Mapping[str, Series]:
    if taking.series is None:
        reasons = "; ".join(f"series …{uid[-8:]}: {reason}" for uid, reason in taking.rejected.items())
        raise Unsuitable(f"no series suits input '{taking.lacks}' of {model.name}: {taking.why}; {reasons}")
    return taking.series


def _analysed(model: Model, inputs: Mapping[str, Assembled], device: str, say: Progress) -> Findings:
    limits = model.manifest.resources
    volumes = {name: one.volume for name, one in inputs.items()}
    pool = Pool(os.cpu_count() or 1)
    try:
        return pool.run(model, device, volumes, timeout_s=limits.timeout_s, memory_mb=limits.memory_mb, progress=say, canceled=lambda: False)
    finally:
        pool.close()


def _first(found: Iterator[Taking]) -> Taking:
    """Return the first way that a model's inputs can take series, else the first with its reasons."""
    all_of_them = list(found)
    return next((taking for taking in all_of_them if taking.series is not None), all_of_them[0])


def _write_drafts(drafts: Sequence[Draft], out: Path) -> tuple[Path, ...]:
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for number, draft in enumerate(drafts, 1):
        path = out / f"{number}-{draft.kind.lower()}.dcm"
        path.write_bytes(encode(draft.dataset))
        written.append(path)
    return tuple(written)
