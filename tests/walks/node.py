"""A whole node as a site runs it: `dicom-node serve` and the analysing process that it keeps, in a folder of its own."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicom_node.domain import AE, DeliveryState, Job, JobState, PeerUnavailable, Result, StudyState
from dicom_node.simulate.scanner import Pushed, echo, push
from dicom_node.store import Store
from tests import verbs
from tests.dcmtk import listens

ROOT = Path(__file__).parents[2]
QUIET_S = 0.8
PATIENCE_S = 90.0  # the machine may be loaded: nothing here is a measurement

# What a site would write around the remotes and rules of a walk; everything that waits waits briefly.
DEFAULTS: dict[str, dict[str, Any]] = {
    "node": {"complete_after_s": QUIET_S, "disk_reserve_mb": 1},
    "work": {"at_once": 2, "threads": 1, "lease_s": 4.0, "attempts": 2, "backoff_s": 0.3, "poll_s": 0.05},
    "deliver": {"backoff_s": 0.2, "backoff_max_s": 1.0, "poll_s": 0.05},
    "web": {"start": False},
    "feedback": {},
    "worklist": {},
    "hl7": {},
}


@dataclass(frozen=True)
class Node:
    """A node that serves."""

    folder: Path
    ae: AE
    store: Store
    process: "subprocess.Popen[bytes]"

    @property
    def config(self) -> Path:
        """Its node.toml."""
        return self.folder / "node.toml"

    @property
    def log(self) -> str:
        """What both of its processes, and the models', have logged."""
        return (self.folder / "node.log").read_text()

    def verb(self, *words: object) -> verbs.Said:
        """Run a verb on this node from outside."""
        return verbs.run(*words, "--config", self.config)

    def send(self, files: Sequence[Path], *, calling_ae: str = "SCANNER") -> Pushed:
        """Send files by C-STORE, and see every one acknowledged."""
        pushed = push(files, self.ae, calling_ae=calling_ae)
        assert not pushed.failed, pushed.failed
        return pushed

    # ----------------------------------------------------------------------------------------------------- what it knows

    def study(self, uid: str) -> dict[str, Any]:
        """Return the study's row, empty when there is none."""
        return next((row for row in self.store.studies.list(limit=1000) if row["study_instance_uid"] == uid), {})

    def jobs(self, uid: str) -> tuple[Job, ...]:
        """Return the study's jobs, oldest first."""
        return self.store.jobs.list(study_instance_uid=uid)[::-1]

    def settled(self, uid: str, *, revision: int = 1) -> tuple[Job, ...]:
        """Wait until a study was judged so often, its jobs have ended and its results have arrived; return its jobs, oldest first."""
        wait_for(lambda: self._is_settled(uid, revision), says=lambda: f"{self.study(uid)}\n{self.jobs(uid)}\n{self.log[-4000:]}")
        return self.jobs(uid)

    def _is_settled(self, uid: str, revision: int) -> bool:
        # In the order in which one follows from the other: jobs exist once a study is judged, deliveries once a job has ended.
        study = self.study(uid)
        if study.get("state") != StudyState.COMPLETE or study["revision"] < revision:
            return False
        if any(job.state not in (JobState.COMPLETED, JobState.CANCELED) for job in self.jobs(uid)):
            return False
        sent = self.store.deliveries.list(study_instance_uid=uid, limit=1000)
        return all(one.state in (DeliveryState.SENT, DeliveryState.DEAD) for one in sent)

    def results(self, job: Job) -> dict[str, Result]:
        """Return a job's results by kind."""
        return {one.kind: one for one in self.store.jobs.results(job.id)}

    def file(self, one: Result) -> Path:
        """Return a result's file."""
        return self.store.archive.path(one.path)

    def kinds(self, uid: str) -> list[str]:
        """Return what the journal tells of a study, in order."""
        return [event.kind for event in self.store.journal.of_study(uid)]

    # ------------------------------------------------------------------------------------------------------- its processes

    def worker(self) -> int:
        """Return the process number of the analysing process that was seen last, once there is one."""
        (latest, *_) = wait_for(self.store.jobs.workers)
        return int(str(latest["name"]).split(":")[1])

    def kill_worker(self) -> None:
        """Kill the analysing process where it stands."""
        os.kill(self.worker(), signal.SIGKILL)

    def gate(self, *, shut: bool) -> None:
        """Let the model `waits` wait, or go on."""
        path = self.folder / "models" / "waits" / ".gate"
        path.touch() if shut else path.unlink(missing_ok=True)


@contextlib.contextmanager
def serving(
    folder: Path,
    *,
    remotes: Mapping[str, Any],
    rules: Sequence[Mapping[str, Any]],
    models: Mapping[str, Path],
    port: int,
    storage: Path | None = None,
    triage: Sequence[Mapping[str, Any]] = (),
    **sections: Mapping[str, Any],
) -> Iterator[Node]:
    """Run a node until the block ends, with the models' folders copied beside its configuration.

    sections: keys of node.toml that replace DEFAULTS, such as `work={"attempts": 3}`. At the end it must stop by itself when asked to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in models.items():
        shutil.copytree(source, folder / "models" / name, ignore=shutil.ignore_patterns("__pycache__"))
    said = {name: {**values, **sections.get(name, {})} for name, values in DEFAULTS.items()}
    said["node"] |= {"port": port, "storage": str(storage or folder / "data")}
    said |= {"remotes": remotes, "models": {name: {"folder": f"models/{name}"} for name in models}, "rules": list(rules), "triage": list(triage)}
    (folder / "node.toml").write_text(_toml(said))
    with (folder / "node.log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-m", "dicom_node", "serve", "--config", str(folder / "node.toml")], cwd=ROOT, stderr=log)
    ae = AE("DICOM_NODE", "127.0.0.1", port)
    try:
        is_up = listens if "tls" in said["node"] else _answers
        wait_for(lambda: _runs(process) and is_up(ae), says=(folder / "node.log").read_text)
        store = Store.open(Path(said["node"]["storage"]))
        try:
            yield Node(folder, ae, store, process)
        finally:
            store.close()
    finally:
        process.terminate()
        try:
            assert process.wait(60) == 0, (folder / "node.log").read_text()[-2000:]
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def wait_for(what: Callable[[], Any], timeout_s: float = PATIENCE_S, *, says: Callable[[], object] = lambda: "") -> Any:
    """Wait until something is so, and return it; when it does not come to be, fail with what `says` tells."""
    until = time.monotonic() + timeout_s
    while not (found := what()):
        assert time.monotonic() < until, f"it did not come to be within {timeout_s:g} s: {says()}"
        time.sleep(0.02)
    return found


def _runs(process: "subprocess.Popen[bytes]") -> bool:
    assert process.poll() is None, f"the node ended at once with code {process.returncode}"
    return True


def _answers(ae: AE) -> bool:
    with contextlib.suppress(PeerUnavailable):
        return echo(ae) > 0
    return False


def _toml(said: Mapping[str, Any]) -> str:
    """Write tables, arrays of tables and inline values: JSON's strings, numbers and arrays are TOML's too."""
    lines = []
    for section, values in said.items():
        if isinstance(values, list):
            for one in values:
                lines += [f"[[{section}]]", *(f"{key} = {_inline(value)}" for key, value in one.items())]
        else:
            lines += [f"[{section}]", *(f"{key} = {_inline(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_inline(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_inline, value))}]"
    return json.dumps(value)
