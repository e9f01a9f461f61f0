"""A node whose jobs are done in this process: studies come in, models run, and their reports are in the archive and in the ledger."""

import importlib.util
import inspect
import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydicom import Dataset

from dicom_node.analyse.contract import settle
from dicom_node.config import Model, load_site
from dicom_node.domain import Job, Reference, Result
from dicom_node.receive import Door, import_file
from dicom_node.report import Run, build, encode, reading
from dicom_node.serve import judge_due
from dicom_node.store import Store
from dicom_node.work.reading import assembled, known_of
from tests import phantoms, verbs

NOW = 1_700_000_000.0


class Node:
    """A site with one rule for each model: every study is analysed by all of them."""

    def __init__(self, folder: Path, models: Mapping[str, Path]) -> None:
        self.config = folder / "node.toml"
        named = "".join(f"[models.{name}]\nfolder = {json.dumps(str(path))}\n" for name, path in models.items())
        rule = f'[[rules]]\nname = "all"\nderived = true\nanalyse = {json.dumps(list(models))}\n'
        node = f"[node]\nstorage = {json.dumps(str(folder / 'data'))}\ncomplete_after_s = 0\ndisk_reserve_mb = 1\n"
        self.config.write_text(node + named + rule)
        self.site = load_site(self.config)
        self.store = Store.of(self.site.config.node)
        self._door = Door(self.store, self.site.config.node)
        self._incoming = folder / "incoming"
        self._now = NOW
        self._code: dict[Path, Any] = {}

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def verb(self, *words: object) -> verbs.Said:
        """Run a verb on this node."""
        return verbs.run(*words, "--config", self.config)

    def receive(self, objects: Sequence[Dataset]) -> str:
        """Take one study in, and return its UID."""
        self._now += 100
        uid = str(objects[0].StudyInstanceUID)
        for path in phantoms.write(objects, self._incoming / uid):
            import_file(self._door, path, received_at=self._now)
        return uid

    def work(self) -> tuple[Job, ...]:
        """Judge what has come, do every job that waits, and return the jobs that were done."""
        judge_due(self.site, self.store, self._now + 10)
        done = []
        while job := self.store.jobs.claim("here", list(self.site.models), now=self._now + 20, lease_s=60):
            self._perform(job)
            done.append(self.store.jobs.get(job.id))
        return tuple(done)

    def file(self, job: Job, kind: str = "SR") -> Path:
        """Return the file of a job's result."""
        return next(self.store.archive.path(one.path) for one in self.store.jobs.results(job.id) if one.kind == kind)

    def _perform(self, job: Job) -> None:
        model = self.site.models[job.model]
        taken = {**(job.priors.inputs if job.priors else {}), **job.inputs}
        inputs = assembled(model.manifest, lambda name: self.store.instances.bring(self.store.instances.by_ids(taken.get(name, ()))), known_of(job))
        model = reading(model, inputs)
        volumes = {name: one.volume for name, one in inputs.items()}
        analyse = self._analysis(model)
        quiet = {"progress": lambda *_: None} if "progress" in inspect.signature(analyse).parameters else {}
        findings = settle(analyse(**dict.fromkeys(model.manifest.priors) | volumes, **quiet), model.manifest, volumes)
        run = Run(identity=job.identity, made_at=job.created_at, model=model, predecessors=self._before(job))
        results = []
        for number, draft in enumerate(build(findings, inputs, run), 1):
            data, made = encode(draft.dataset), draft.dataset
            results.append(
                Result(
                    job_id=job.id,
                    kind=draft.kind,
                    sop_class_uid=str(made.SOPClassUID),
                    sop_instance_uid=str(made.SOPInstanceUID),
                    series_instance_uid=str(made.SeriesInstanceUID),
                    study_instance_uid=job.study_instance_uid,
                    path=self.store.archive.write_result(data, job.identity, f"{number}-{draft.kind}", made_at=job.created_at),
                    digest=sha256(data).hexdigest(),
                )
            )
        assert self.store.jobs.complete(job, results, now=self._now + 30, why="made it")

    def _before(self, job: Job) -> tuple[Reference, ...]:
        names = ("sop_class_uid", "sop_instance_uid", "series_instance_uid", "study_instance_uid")
        return tuple(Reference(**{name: getattr(one, name) for name in names}) for one in self.store.jobs.predecessors(job))

    def _analysis(self, model: Model) -> Any:
        if model.folder not in self._code:
            spec = importlib.util.spec_from_file_location(f"reported_{model.folder.name}", model.folder / "analysis.py")
            assert spec and spec.loader
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            self._code[model.folder] = module.load(model.folder, "cpu")
        return self._code[model.folder]
