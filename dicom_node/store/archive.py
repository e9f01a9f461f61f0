"""Bytes on disk. What is written here is flushed before its name is given away, and no name comes from a peer.

<storage>/incoming/     instances whose row may not be durable yet, and empty files for those to come; swept at every start
<storage>/instances/    received instances, by day and study, kept as they came
<storage>/results/      what jobs made, and a picture of it
<storage>/quarantine/   what cannot be used, kept with its reason in the ledger
"""

import contextlib
import errno
import fcntl
import os
import queue
import stat
import threading
import uuid
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path

from dicom_node.domain import ConfigError
from dicom_node.store.draft import DIRECT, Buffers, Bytes, Draft, declined
from dicom_node.store.places import day, waiting_name

_KINDS = ("instances", "results", "quarantine")
_STOCK = 64  # empty files at hand


class Archive:
    """The files below one folder, named by paths relative to it with forward slashes.

    Raises
    ------
    ConfigError: the folder cannot be made or written to.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.incoming = self.root / "incoming"
        self._root, self._incoming = str(self.root), str(self.incoming)  # joining paths costs as much as opening files
        self._lock = threading.Lock()
        self._writes = -1  # the descriptor of incoming.lock, once this process writes instances
        self._stock: queue.SimpleQueue[str] = queue.SimpleQueue()  # empty files in `incoming`
        self._flags = os.O_RDWR | os.O_CLOEXEC | DIRECT
        self.buffers = Buffers()
        try:
            for folder in (self.incoming, *(self.root / kind for kind in _KINDS)):
                _make_folder(folder)
        except OSError as error:
            raise ConfigError(
                f"the storage folder {root} cannot be used: {error.strerror}", hint="Set node.storage to a folder that this user may write to."
            ) from error

    def path(self, name: str) -> Path:
        """Return where a file is: an instance whose row is new may still lie in `incoming`."""
        place = f"{self._root}/{name}"
        if not os.path.exists(place) and name.startswith("instances/"):
            waiting = f"{self._incoming}/{waiting_name(name)}"
            return Path(waiting if os.path.exists(waiting) else place)
        return Path(place)

    def waits(self, name: str) -> bool:
        """Say whether an instance still lies in `incoming`."""
        return os.path.exists(f"{self._incoming}/{waiting_name(name)}")

    def free_mb(self) -> int:
        """Return the free space of the disk, in MB of 2**20 bytes."""
        disk = os.statvfs(self._root)
        return disk.f_bavail * disk.f_frsize >> 20

    # ----------------------------------------------------------------------------------------------------------- instances

    def draft(self, head: bytes = b"") -> Draft:
        """Return an empty file in `incoming` to write an instance into; its name is durable already, so that one flush makes the whole so.

        head: what stands before the data set.

        Raises
        ------
        Transient: the disk did not take it.
        """
        self._say_that_it_writes()
        try:
            waiting = self._stock.get_nowait()
        except queue.Empty:
            self.stock_up()
            waiting = self._stock.get()
        try:
            descriptor = self._opened(f"{self._incoming}/{waiting}")
        except OSError as error:
            raise declined("open a file", error) from error
        return Draft(self, waiting, descriptor, head)

    def _opened(self, place: str) -> int:
        try:
            return os.open(place, self._flags)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._flags &= ~DIRECT  # not on this file system
            return os.open(place, self._flags)

    def stock_up(self, upto: int = _STOCK) -> None:
        """Make empty files in `incoming`, whose names survive a power cut, until so many are at hand: many for one flush of the folder.

        Raises
        ------
        Transient: the disk did not take them.
        """
        self._say_that_it_writes()
        batch = uuid.uuid4().hex[:24]
        fresh = [f"{batch}{number:08x}.dcm" for number in range(upto - self._stock.qsize())]
        with _disk("take a file"):
            for waiting in fresh:
                os.mknod(f"{self._incoming}/{waiting}", 0o666 | stat.S_IFREG)  # one call, where opening and closing are two
            if fresh:
                _flush_folder(self.incoming)
        for waiting in fresh:
            self._stock.put(waiting)

    @property
    def stocked(self) -> int:
        """How many empty files are at hand."""
        return self._stock.qsize()

    def settle(self, name: str) -> None:
        """Move an instance whose row is durable from `incoming` to its name; doing it twice, or after a crash, is harmless.

        The move is not flushed: after a power cut the file is in one place or the other, and `path` finds it in both.
        """
        place, waiting = f"{self._root}/{name}", f"{self._incoming}/{waiting_name(name)}"
        try:
            os.rename(waiting, place)
        except FileNotFoundError:
            if os.path.exists(waiting):
                os.makedirs(os.path.dirname(place), exist_ok=True)
                with contextlib.suppress(FileNotFoundError):  # another thread was quicker
                    os.rename(waiting, place)

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
        """Empty the file of an instance that was written but will have no row, and keep it for another.

        It is not removed: on ext4 each removal makes the files created in the next minutes slower.
        """
        waiting = waiting_name(name)
        with contextlib.suppress(OSError):  # it is in nobody's way where it is; the next start's sweep removes it
            os.truncate(self.incoming / waiting, 0)
            self._stock.put(waiting)

    def keep(self, waiting: str) -> None:
        """Keep an empty file for another instance."""
        self._stock.put(waiting)

    def put_in_quarantine(self, draft: Draft, *, at: float) -> str:
        """Flush a draft that cannot be used and move it to `quarantine`; return its name.

        Raises
        ------
        Transient: the disk did not take it.
        """
        name = f"{day('quarantine', at)}/{draft.waiting}"
        place = self.root / name
        with _disk("take a file"):
            draft.finish()
            draft.flush()
            _make_folder(place.parent)
            (self.incoming / draft.waiting).rename(place)
            _flush_folder(place.parent)
        draft.close()
        return name

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
        with contextlib.suppress(queue.Empty, OSError):  # what stays is swept at the next start
            while True:
                (self.incoming / self._stock.get_nowait()).unlink(missing_ok=True)
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
        name = f"{day('results', made_at)}/{identity[:32]}-{kind}-{sha256(data).hexdigest()[:16]}.dcm"
        self._replace(name, (data,))
        return name

    def write_picture(self, data: Bytes, identity: str, *, made_at: float) -> str:
        """Write and flush the picture of a job's results (PNG), beside them and as they are, and return its name.

        Raises
        ------
        Transient: the disk did not take it.
        """
        name = f"{day('results', made_at)}/{identity[:32]}-picture-{sha256(data).hexdigest()[:16]}.png"
        self._replace(name, (data,))
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
        raise declined(what, error) from error
