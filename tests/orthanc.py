"""An Orthanc of the test's own: free ports, a folder that goes away with the test, no plug-in unless asked for."""

import functools
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from dicom_node.domain import AE
from tests.peers import need

_START_S = 60.0


@contextmanager
def orthanc(folder: Path, *, title: str = "ORTHANC", remotes: Mapping[str, AE] | None = None, **more: Any) -> Iterator[tuple[AE, str]]:
    """Run Orthanc with its storage in a folder; yield its address and that of its REST API, which only this machine can use.

    remotes: AEs that Orthanc may itself send to and query, by its names for them. more: keys of Orthanc's configuration, such as
    `Plugins=[...]`. Its DICOM port listens on every interface: Orthanc cannot bind it to one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    dicom, http = free_ports(2)
    config = {
        "Name": title,
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": http,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAet": title,
        "DicomPort": dicom,
        "DicomCheckCalledAet": True,
        "DicomAlwaysAllowEcho": True,
        "DicomAlwaysAllowStore": True,
        "UnknownSopClassAccepted": True,
        "DicomModalities": {name: [ae.title, ae.host, ae.port] for name, ae in (remotes or {}).items()},
        "LimitFindResults": 0,
        "Plugins": [],
        **more,
    }
    (folder / "orthanc.json").write_text(json.dumps(config, indent=1))
    url = f"http://127.0.0.1:{http}"
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen([need("Orthanc"), str(folder / "orthanc.json")], stdout=log, stderr=log)
    try:
        _wait_until_up(process, url, folder / "orthanc.log")
        yield AE(title, "127.0.0.1", dicom), url
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def ask(url: str, body: Any = None) -> Any:
    """Ask Orthanc's REST API: GET, or POST of a body, of bytes as they are, else as JSON; the answer as JSON, or as bytes when it is no JSON."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=30) as answer:
        content = answer.read()
        return json.loads(content) if answer.headers.get_content_type() == "application/json" else content


def free_ports(count: int) -> list[int]:
    """Return ports on which nobody listens; none is given twice, nor by the system to who asks for any: they are outside its range."""
    return list(islice(_ports(), count))


@functools.cache
def _ports() -> Iterator[int]:
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    ports = range(10_000, first) or range(last + 1, 1 << 16) or range(10_000, 1 << 16)
    start = os.getpid() * 101 % len(ports)  # tests that run beside these begin elsewhere
    return filter(_is_free, (*ports[start:], *ports[:start]))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _wait_until_up(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        try:
            ask(f"{url}/system")
            return
        except (urllib.error.URLError, OSError):
            if process.poll() is not None:
                break
            time.sleep(0.05)
    raise RuntimeError(f"Orthanc did not start:\n{log.read_text()[-2000:]}")
