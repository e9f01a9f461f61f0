"""A node's web in a process of its own, as `dicom-node serve` keeps one, above a store that a test has filled."""

import contextlib
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dicom_node.store import Store
from tests.orthanc import free_ports
from tests.stocked import stock
from tests.walks.node import ROOT, wait_for


@dataclass(frozen=True)
class Answering:
    """A web that answers."""

    url: str  # of the node; DICOMweb is below it at /dicom-web
    store: Store
    pid: int
    folder: Path

    @property
    def dicomweb(self) -> str:
        """Where DICOMweb is."""
        return f"{self.url}/dicom-web"

    @property
    def log(self) -> str:
        """What it has logged."""
        return (self.folder / "web.log").read_text()


@contextlib.contextmanager
def answering(folder: Path, files: Iterable[Path] = ()) -> Iterator[Answering]:
    """Run a web that holds files, until the block ends; it must stop by itself when asked to."""
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    lines = ["[node]", f"storage = {json.dumps(str(folder / 'data'))}", "disk_reserve_mb = 1", "[web]", f"port = {port}"]
    (folder / "node.toml").write_text("\n".join(lines) + "\n")
    store = Store.open(folder / "data")
    stock(store, files)
    with (folder / "web.log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-m", "dicom_node", "web", "--config", str(folder / "node.toml")], cwd=ROOT, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: _lives(process, url), says=(folder / "web.log").read_text)
        yield Answering(url, store, process.pid, folder)
    finally:
        process.terminate()
        try:
            assert process.wait(60) == 0, (folder / "web.log").read_text()[-2000:]
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            store.close()


def _lives(process: "subprocess.Popen[bytes]", url: str) -> bool:
    assert process.poll() is None, f"the web ended at once with code {process.returncode}"
    with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(f"{url}/health/live", timeout=5) as said:
        return bool(said.status == 200)
    return False
