"""Bytes on disk. What is written here is flushed before its name is given away, and no name comes from a peer.

<storage>/incoming/     instances whose row may not be committed yet; swept at every start
<storage>/instances/    received instances, by day and study, kept as they came
<storage>/results/      what jobs made
<storage>/quarantine/   what cannot be used, kept with its reason in the ledger
"""

import os
import shutil
import time
import uuid
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from dicom_node.domain import Transient

Bytes = bytes | bytearray | memoryview


class Archive:
    """The files below one folder, named by paths relative to it with forward slashes."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.incoming = self.root / "incoming"
        for folder in (self.incoming, *(self.root / kind for kind in ("instances", "results", "quarantine"))):
            folder.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        """Return where a file is: an instance whose row is new may still lie in `incoming`."""
        place = self.root / name
        if not place.exists() and name.startswith("instances/"):
            waiting = self.incoming / waiting_name(name)
            return waiting if waiting.exists() else place
        return place

    def free_mb(self) -> int:
        """Return the free space of the disk, in MB of 2**20 bytes."""
        return shutil.disk_usage(self.root).free >> 20

    def write_instance(self, parts: Iterable[Bytes], study_instance_uid: str, *, received_at: float) -> str:
        """Write and flush a received instance into `incoming`, and return the name it will have once its row is committed.

        The entry of the folder is flushed by `flush_incoming`, once for many instances.

        Raises
        ------
        Transient: the disk did not take it; nothing is left behind.
        """
        study = sha256(study_instance_uid.encode()).hexdigest()[:16]
        name = f"{_day('instances', received_at)}/{study}/{uuid.uuid4().hex}.dcm"
        _write(self.incoming / waiting_name(name), parts)
        return name

    def flush_incoming(self) -> None:
        """Flush the folder `incoming`: after this the files in it survive a power cut under their names."""
        _flush_folder(self.incoming)

    def settle(self, name: str) -> None:
        """Move an instance whose row is committed from `incoming` to its name; doing it twice, or after a crash, is harmless."""
        place = self.root / name
        waiting = self.incoming / waiting_name(name)
        if waiting.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            waiting.rename(place)

    def discard(self, name: str) -> None:
        """Remove an instance that was written but will have no row."""
        self.path(name).unlink(missing_ok=True)

    def write_result(self, data: Bytes, identity: str, kind: str, *, made_at: float) -> str:
        """Write and flush a job's result, and return its name: the same job, kind and day give the same name, and replace each other whole.

        Raises
        ------
        Transient: the disk did not take it.
        """
        name = f"{_day('results', made_at)}/{identity[:32]}-{kind}.dcm"
        self._replace(name, data)
        return name

    def write_quarantine(self, parts: Iterable[Bytes], *, at: float) -> str:
        """Write and flush what cannot be used, and return its name.

        Raises
        ------
        Transient: the disk did not take it.
        """
        name = f"{_day('quarantine', at)}/{uuid.uuid4().hex}.dcm"
        self._replace(name, b"".join(parts))
        return name

    def remove(self, name: str) -> None:
        """Remove a file that no row names any more."""
        place = self.path(name)
        place.unlink(missing_ok=True)
        if place.parent != self.incoming and place.parent.is_dir() and not any(place.parent.iterdir()):
            place.parent.rmdir()

    def _replace(self, name: str, data: Bytes) -> None:
        place = self.root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(f".{uuid.uuid4().hex}.part")
        _write(part, (data,))
        part.replace(place)
        _flush_folder(place.parent)


def waiting_name(name: str) -> str:
    """Return what an instance's file is called while it lies in `incoming`: its name, in one piece."""
    return name.replace("/", "_")


def _day(kind: str, at: float) -> str:
    return time.strftime(f"{kind}/%Y/%m/%d", time.gmtime(at))


def _write(path: Path, parts: Iterable[Bytes]) -> None:
    try:
        with path.open("xb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise Transient(f"the disk did not take a file: {error.strerror}", hint="Free space in the storage folder, or look at the disk.") from error


def _flush_folder(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise Transient(f"the disk did not flush a folder: {error.strerror}", hint="Look at the disk.") from error
