"""Bytes on disk. What is written here is flushed before its name is given away, and no name comes from a peer.

<storage>/incoming/     instances whose row may not be committed yet; swept at every start
<storage>/instances/    received instances, by day and study, kept as they came
<storage>/results/      what jobs made
<storage>/quarantine/   what cannot be used, kept with its reason in the ledger
"""

import contextlib
import fcntl
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path

from dicom_node.domain import ConfigError, Transient

Bytes = bytes | bytearray | memoryview

_KINDS = ("instances", "results", "quarantine")


class Archive:
    """The files below one folder, named by paths relative to it with forward slashes.

    Raises
    ------
    ConfigError: the folder cannot be made or written to.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.incoming = self.root / "incoming"
        self._lock = threading.Lock()
        self._writes = -1  # the descriptor of incoming.lock, once this process writes instances
        try:
            for folder in (self.incoming, *(self.root / kind for kind in _KINDS)):
                _make_folder(folder)
        except OSError as error:
            raise ConfigError(
                f"the storage folder {root} cannot be used: {error.strerror}", hint="Set node.storage to a folder that this user may write to."
            ) from error

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

    # ----------------------------------------------------------------------------------------------------------- instances

    def write_instance(self, parts: Iterable[Bytes], study_instance_uid: str, *, received_at: float) -> str:
        """Write and flush a received instance into `incoming`, and return the name it will have once its row is committed.

        The entry of the folder is flushed by `flush_incoming`, once for many instances. Whatever is raised, by `parts` too, leaves nothing behind.

        Raises
        ------
        Transient: the disk did not take it.
        """
        self._say_that_it_writes()
        study = sha256(study_instance_uid.encode()).hexdigest()[:16]
        name = f"{_day('instances', received_at)}/{study}/{uuid.uuid4().hex}.dcm"
        _write(self.incoming / waiting_name(name), parts)
        return name

    def flush_incoming(self) -> None:
        """Flush the folder `incoming`: after this the files in it survive a power cut under their names.

        Raises
        ------
        Transient: the disk did not flush.
        """
        with _disk("flush a folder"):
            _flush_folder(self.incoming)

    def settle(self, name: str) -> None:
        """Move an instance whose row is committed from `incoming` to its name; doing it twice, or after a crash, is harmless.

        The move is not flushed: after a power cut the file is in one place or the other, and `path` finds it in both.
        """
        place = self.root / name
        waiting = self.incoming / waiting_name(name)
        if waiting.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            waiting.rename(place)

    def stand_in(self, name: str, lost: str) -> None:
        """Let a flushed instance take the place of one with the same content whose file is gone.

        Raises
        ------
        Transient: the disk did not take it.
        """
        with _disk("move a file"):
            (self.incoming / waiting_name(name)).rename(self.incoming / waiting_name(lost))
            _flush_folder(self.incoming)

    def discard(self, name: str) -> None:
        """Remove an instance that was written but will have no row."""
        with contextlib.suppress(OSError):  # it is in nobody's way where it is; the next start's sweep removes it
            self.path(name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def alone(self) -> Iterator[bool]:
        """Say whether no other process writes instances here; while the block lasts none begins to."""
        with self._lock:
            held = self._writes if self._writes >= 0 else self._open_lock()
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                alone = True
            except BlockingIOError:
                alone = False
            try:
                yield alone
            finally:
                if held == self._writes:
                    fcntl.flock(held, fcntl.LOCK_SH)
                else:
                    os.close(held)

    def close(self) -> None:
        """Say that this process writes no more instances."""
        with self._lock:
            if self._writes >= 0:
                os.close(self._writes)
                self._writes = -1

    def _say_that_it_writes(self) -> None:
        """Hold a lock that ends with this process: files in `incoming` without a row may be its, and are not to be swept by another."""
        with self._lock:
            if self._writes < 0:
                descriptor = self._open_lock()
                fcntl.flock(descriptor, fcntl.LOCK_SH)
                self._writes = descriptor

    def _open_lock(self) -> int:
        return os.open(self.root / "incoming.lock", os.O_RDWR | os.O_CREAT, 0o666)

    # ------------------------------------------------------------------------------------------------- results and the rest

    def write_result(self, data: Bytes, identity: str, kind: str, *, made_at: float) -> str:
        """Write and flush a job's result, and return its name.

        The name holds the content: the same bytes of the same job have the same name, and other bytes never take the place of some
        that are being delivered.

        Raises
        ------
        Transient: the disk did not take it.
        """
        name = f"{_day('results', made_at)}/{identity[:32]}-{kind}-{sha256(data).hexdigest()[:16]}.dcm"
        self._replace(name, (data,))
        return name

    def write_quarantine(self, parts: Iterable[Bytes], *, at: float) -> str:
        """Write and flush what cannot be used, and return its name.

        Raises
        ------
        Transient: the disk did not take it.
        """
        name = f"{_day('quarantine', at)}/{uuid.uuid4().hex}.dcm"
        self._replace(name, parts)
        return name

    def remove(self, name: str) -> None:
        """Remove a file that no row names any more, and the folders that it leaves empty.

        Raises
        ------
        Transient: the disk did not let it go.
        """
        place = self.path(name)
        with _disk("remove a file"):
            place.unlink(missing_ok=True)
        folder = self.root / Path(name).parent
        with contextlib.suppress(OSError):  # not empty, or being filled again at this moment
            while folder.parent != self.root:
                folder.rmdir()
                folder = folder.parent

    def _replace(self, name: str, parts: Iterable[Bytes]) -> None:
        place = self.root / name
        with _disk("take a folder"):
            _make_folder(place.parent)
        part = place.with_name(f".{uuid.uuid4().hex}.part")
        _write(part, parts)
        with _disk("take a file"):
            part.replace(place)
            _flush_folder(place.parent)


def waiting_name(name: str) -> str:
    """Return what an instance's file is called while it lies in `incoming`: its name, in one piece."""
    return name.replace("/", "_")


def settled_name(waiting: str) -> str:
    """Return the name of an instance from what its file is called in `incoming`."""
    return waiting.replace("_", "/")


def _day(kind: str, at: float) -> str:
    return time.strftime(f"{kind}/%Y/%m/%d", time.gmtime(at))


def _write(path: Path, parts: Iterable[Bytes]) -> None:
    with _disk("take a file"):
        file = path.open("xb")
    try:
        for part in parts:
            with _disk("take a file"):
                file.write(part)
        with _disk("take a file"):
            file.flush()
            os.fsync(file.fileno())
            file.close()
    except BaseException:  # a peer's broken connection, raised by `parts`, is no reason to keep half a file
        with contextlib.suppress(OSError):
            file.close()
        path.unlink(missing_ok=True)
        raise


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it; the entry of each survives a power cut."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)  # the ledger and the images name patients
        _flush_folder(folder.parent)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _disk(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Transient(f"the disk did not {what}: {error.strerror}", hint="Free space in the storage folder, or look at the disk.") from error
