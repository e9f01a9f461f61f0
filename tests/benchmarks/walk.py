"""How long a walk takes beside the model and the quiet period: `make bench`.

The 133-slice chest CT goes from a simulated scanner through a node in its own processes to a simulated PACS, several times, each time as a study
of its own. Printed for each walk: last image received → job claimed, of that the quiet period; → results delivered; of that the model's part; and
what is left, which is the node's. Then how long the program takes to start. Figures are of this machine: quote medians, and ratios of one run.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dicom_node.domain import AE, DeliveryState
from dicom_node.simulate.pacs import Pacs
from dicom_node.simulate.samples import sample_files
from dicom_node.simulate.scanner import echo, push
from dicom_node.store import Store

QUIET_S = 1.0
CONFIG = """
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


def main() -> None:
    """Walk, measure, print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--walks", type=int, default=5, help="how many walks are counted, after one that warms up")
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = _walks(Path(folder), chosen.walks)
    starts = {
        "dicom-node --help": _start([sys.executable, "-m", "dicom_node", "--help"]),
        "import dicom_node.serve": _start([sys.executable, "-c", "import dicom_node.serve"]),
        "python -c pass": _start([sys.executable, "-c", "pass"]),
    }
    if chosen.json:
        print(json.dumps({"walks": rows, "start_s": starts}, indent=2))
        return
    names = list(rows[0])
    print("  ".join(f"{name:>22}" for name in names))
    for row in rows:
        print("  ".join(f"{row[name]:22.3f}" for name in names))
    print("  ".join(f"{statistics.median(row[name] for row in rows):22.3f}" for name in names), " median")
    for what, seconds in starts.items():
        print(f"{what}: {seconds:.2f} s")


def _walks(folder: Path, count: int) -> list[dict[str, float]]:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    storage, config = folder / "data", folder / "node.toml"
    with Pacs(folder / "pacs") as pacs:
        config.write_text(CONFIG.format(port=port, storage=storage, quiet=QUIET_S, pacs=pacs.ae))
        with (folder / "log").open("wb") as log:
            node = subprocess.Popen([sys.executable, "-m", "dicom_node", "serve", "-c", str(config)], stderr=log)
        try:
            here = AE("DICOM_NODE", "127.0.0.1", port)
            _answering(here)
            store = Store.open(storage)
            rows = [_walk(store, here, folder, f"bench {number}") for number in range(count + 1)]
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
        "last image → claimed": job.started_at - received,
        "→ delivered": delivered - received,
        "quiet period": QUIET_S,
        **{f"of that {step}": seconds for step, seconds in steps.items()},
        "the node's own": delivered - received - QUIET_S - steps["model"],
    }


def _start(command: list[str]) -> float:
    times = []
    for _ in range(5):
        since = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - since)
    return statistics.median(times)


if __name__ == "__main__":
    main()
