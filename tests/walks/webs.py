"""A node's web in a process of its own, as `dicom-node serve` keeps one; a test may kill it."""

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
class Web:
    """A web that answers."""

    url: str  # of the node
    store: Store
    process: "subprocess.Popen[bytes]"
    folder: Path

    @property
    def dicomweb(self) -> str:
        """What DICOMweb is below."""
        return f"{self.url}/dicom-web"

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    @property
    def log(self) -> str:
        """What it has logged."""
        return (self.folder / "web.log").read_text()


@contextlib.contextmanager
def web(folder: Path, files: Iterable[Path] = ()) -> Iterator[Web]:
    """Run a web on what a folder holds, and on files; unless it was killed, it must stop by itself when asked to."""
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    lines = ["[node]", f"storage = {json.dumps(str(folder / 'data'))}", "disk_reserve_mb = 1", "[web]", f"port = {port}"]
    (folder / "node.toml").write_text("\n".join(lines) + "\n")
    store = Store.open(folder / "data")
    stock(store, files)
    with (folder / "web.log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-m", "dicom_node", "web", "--config", str(folder / "node.toml")], cwd=ROOT, stderr=log)
    try:
        wait_for(lambda: _lives(process, f"http://127.0.0.1:{port}/health/live"), says=(folder / "web.log").read_text)
        yield Web(f"http://127.0.0.1:{port}", store, process, folder)
    finally:
        process.terminate()
        try:
            assert process.wait(60) in (0, -9), (folder / "web.log").read_text()[-2000:]
        finally:
            process.kill()
            store.close()


def _lives(process: "subprocess.Popen[bytes]", url: str) -> bool:
    assert process.poll() is None, f"the web ended at once with code {process.returncode}"
    with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url, timeout=5) as said:
        return bool(said.status == 200)
    return False


def payload(files: list[bytes]) -> bytes:
    """Return a multipart of DICOM files, with the boundary `b-1`."""
    return b"".join(b"--b-1\r\nContent-Type: application/dicom\r\n\r\n" + one + b"\r\n" for one in files) + b"--b-1--\r\n"


def stow(url: str, files: list[bytes], path: str = "/studies") -> tuple[int, bytes]:
    """Store files; return the status and the answer."""
    headers = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b-1', "Accept": "application/dicom+json"}
    request = urllib.request.Request(f"{url}{path}", data=payload(files), headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
