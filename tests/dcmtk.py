"""DCMTK's senders and receivers, by other people and in another language."""

import os
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from dicom_node.domain import AE
from tests.orthanc import free_ports
from tests.peers import need


@contextmanager
def storescp(folder: Path, *, title: str = "STORESCP", options: Sequence[str | Path] = ()) -> Iterator[AE]:
    """Run the storage SCP; it writes each object as it came, in a file named by its SOP Instance UID."""
    folder.mkdir(parents=True, exist_ok=True)
    ae = AE(title, "127.0.0.1", free_ports(1)[0])
    with (folder.parent / f"{title}.log").open("ab") as log:
        command = [need("storescp"), "+B", "-aet", ae.title, *map(str, options), "-od", str(folder), str(ae.port)]
        process = subprocess.Popen(command, env={**os.environ, "TCP_NODELAY": "1"}, stdout=log, stderr=log)
    try:
        while not listens(ae):
            assert process.poll() is None, (folder.parent / f"{title}.log").read_text()
        yield ae
    finally:
        process.kill()
        process.wait()


_DCMQRSCP = """
MaxPDUSize = 131072
MaxAssociations = 16
HostTable BEGIN
{hosts}
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
{title} {storage} RW (500, 1024mb) ANY
AETable END
"""


@contextmanager
def dcmqrscp(folder: Path, files: Sequence[Path] = (), *, title: str = "DCMQRSCP", moves_to: Mapping[str, AE] | None = None) -> Iterator[AE]:
    """Run the image archive, with these files in its index, where they lie; it says everything in UTF-8.

    moves_to: the application entities that it sends to, by any name.
    """
    storage, ae = folder / "storage", AE(title, "127.0.0.1", free_ports(1)[0])
    storage.mkdir(parents=True)
    hosts = "\n".join(f"{name} = ({to.title}, {to.host}, {to.port})" for name, to in (moves_to or {}).items())
    (folder / "dcmqrscp.cfg").write_text(_DCMQRSCP.format(hosts=hosts, title=title, storage=storage))
    for start in range(0, len(files), 500):
        subprocess.run([need("dcmqridx"), str(storage), *map(str, files[start : start + 500])], check=True, capture_output=True)
    command = [need("dcmqrscp"), "+B", "-Cr", "+U8", "+xe", "-c", str(folder / "dcmqrscp.cfg"), str(ae.port)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env={**os.environ, "TCP_NODELAY": "1"}, stdout=log, stderr=log)
    try:
        while not listens(ae):
            assert process.poll() is None, (folder / "log").read_text()
        yield ae
    finally:
        process.kill()
        process.wait()


def storescu(files: Sequence[Path], to: AE, *, calling_ae: str = "SCANNER", options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Send files, proposing just the presentation contexts that they need."""
    command = [need("storescu"), "-R", "-v", *options, "-aet", calling_ae, "-aec", to.title, to.host, str(to.port), *map(str, files)]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False)


def listens(ae: AE) -> bool:
    """Say whether somebody takes connections there."""
    with suppress(OSError):
        socket.create_connection((ae.host, ae.port), 1).close()
        return True
    return False
