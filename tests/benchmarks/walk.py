"""How long a walk takes beside the model and the quiet period.

The 133-slice chest CT goes from a simulated scanner through a node in its own processes to a simulated PACS, several times, each time as a study
of its own. Said are, in the median: last image received → job claimed, → results delivered, of that the model's part, and what is left beside it
and the quiet period, which is the node's. Then how long the program takes to start.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from dicom_node.domain import AE, DeliveryState
from dicom_node.simulate.pacs import Pacs
from dicom_node.simulate.samples import sample_files
from dicom_node.simulate.scanner import echo, push
from dicom_node.store import Store
from tests.benchmarks import progress
from tests.benchmarks.measure import Measure
from tests.orthanc import free_ports

QUIET_S = 1.0
_STARTS: Mapping[str, Sequence[str]] = {
    "start: dicom-node --help": [sys.executable, "-m", "dicom_node", "--help"],
    "start: import dicom_node.serve": [sys.executable, "-c", "import dicom_node.serve"],
    "start: python -c pass": [sys.executable, "-c", "pass"],
}
CONFIG = """
[web]
start = false
[node]
port = {port}
storage = "{storage}"
complete_after_s = {quiet}
disk_reserve_mb = 64
[remotes]
scanner = {{ ae = "SCANNER@127.0.0.1:104", may = ["send"] }}
pacs = {{ ae = "{pacs}", may = ["receive"] }}
[models.lung-ct]
folder = "models/lung_ct"
[[rules]]
name = "CT"
when.Modality = "CT"
analyse = ["lung-ct"]
deliver = ["pacs"]
"""


def measures(folder: Path, rounds: int = 5) -> Iterator[Measure]:
    """Walk so often, after once to warm up, and say where the time went; no bars, for the model is not ours to judge by."""
    rows = _walks(folder, rounds)
    for step in rows[0]:
        yield _told(step, [row[step] for row in rows])
    for what, command in _STARTS.items():
        progress.say(what)
        yield _told(what, _starts(command, rounds))


def _told(what: str, seconds: Sequence[float]) -> Measure:
    return Measure(name=what, ours=statistics.median(seconds), unit="s", note=f"{min(seconds):.2f}–{max(seconds):.2f}")


def _walks(folder: Path, count: int) -> list[dict[str, float]]:
    (port,) = free_ports(1)
    storage, config = folder / "data", folder / "node.toml"
    with Pacs(folder / "pacs") as pacs:
        config.write_text(CONFIG.format(port=port, storage=storage, quiet=QUIET_S, pacs=pacs.ae))
        with (folder / "log").open("wb") as log:
            node = subprocess.Popen([sys.executable, "-m", "dicom_node", "serve", "-c", str(config)], stderr=log)
        try:
            here = AE("DICOM_NODE", "127.0.0.1", port)
            _answering(here)
            store = Store.open(storage)
            rows = []
            for number in range(count + 1):
                progress.say(f"walk {number} of {count}")
                rows.append(_walk(store, here, folder, f"bench {number}"))
            store.close()
        finally:
            node.terminate()
            node.wait()
    return rows[1:]


def _answering(here: AE) -> None:
    for _ in range(100):
        try:
            echo(here)
            return
        except Exception:  # noqa: BLE001 — not listening yet, whatever it says
            time.sleep(0.1)
    raise SystemExit("the node does not answer")


def _walk(store: Store, here: AE, folder: Path, run: str) -> dict[str, float]:
    files = sample_files("chest-ct", run=run, into=folder / "studies")
    pushed = push(files, here)
    assert pushed.sent == len(files)
    uid = next(row["study_instance_uid"] for row in store.studies.list(limit=1))
    while True:
        sent = store.deliveries.list(study_instance_uid=uid)
        if len(sent) == 2 and all(one.state is DeliveryState.SENT for one in sent):
            break
        time.sleep(0.05)
    received = store.studies.view(uid).last_received_at
    (job,) = store.jobs.list(study_instance_uid=uid)
    steps = {step: float(said.split()[0]) for step, said in (part.split(" ", 1) for part in job.note.split("(")[1].split(")")[0].split(", "))}
    delivered = max(one.sent_at for one in sent)
    return {
        "receive 133 images": pushed.seconds,
        "last image → claimed, the quiet period of 1 s included": job.started_at - received,
        "last image → results delivered": delivered - received,
        **{f"of that {step}": seconds for step, seconds in steps.items()},
        "the node's own": delivered - received - QUIET_S - steps["model"],
    }


def _starts(command: Sequence[str], rounds: int) -> list[float]:
    times = []
    for _ in range(rounds):
        since = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - since)
    return times
