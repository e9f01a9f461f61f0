"""A receiver on a port of its own, by either of its store paths, and everything that it has kept."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from pynetdicom.dul import DULServiceProvider

from dicom_node.config import Node, NodeConfig
from dicom_node.domain import AE
from dicom_node.receive import Receiver
from dicom_node.store import Store
from tests.files import size_bytes

CLOCK = 1_700_000_000.0
PATHS = ("stock", "fast") if "store_path" in Node.model_fields else ("stock",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """All that a conversation left behind, but for the names of files: those are rolled anew for each (`Archive.draft`).

    instances: (row without id and path, digest of the whole file, File Meta Information and all), in the ledger's order.
    quarantine: (row without id and path, digest of the whole file), in order of their content.
    """

    instances: tuple[Any, ...]
    quarantine: tuple[Any, ...]


class House:
    """A node's receiver and its store."""

    def __init__(self, folder: Path, path: str, *, remotes: dict[str, Any] | None = None, **node: Any) -> None:
        if len(PATHS) > 1:
            node["store_path"] = path
        config = NodeConfig.model_validate({"node": {"port": 0, "disk_reserve_mb": 1, **node}, "remotes": remotes or {}})
        self.store = Store.open(folder)
        self.receiver = Receiver(config, self.store, clock=lambda: CLOCK)
        self.receiver.start()
        self._told = 0, {int(row["id"]) for row in self.store.instances.quarantined(1 << 20)}

    @property
    def port(self) -> int:
        return self.receiver.port

    @property
    def ae(self) -> AE:
        return AE("DICOM_NODE", "127.0.0.1", self.port)

    def instances(self, after: int = 0) -> list[Any]:
        """Return the ledger's instances in its order, from an id on."""
        found: list[Any] = []
        while True:  # ids are given without gaps, but for what was rolled back
            more = self.store.instances.by_ids(range(after + 1, after + 501))
            if not more:
                return found
            found += more
            after += 500

    def kept(self) -> Kept:
        """Return what has come since the last time, every conversation being over."""
        assert eventually(lambda: not serving()), serving()
        last, known = self._told
        instances = self.instances(last)
        quarantined = [row for row in self.store.instances.quarantined(1 << 20) if row["id"] not in known]
        self._told = max([last, *(one.id for one in instances)]), known | {row["id"] for row in quarantined}
        assert eventually(lambda: not self._strays(instances)), self._strays(instances)
        return Kept(
            instances=tuple((_row(one), self._digest(one.path)) for one in instances),
            quarantine=tuple(sorted((_plain(row), self._digest(row["path"])) for row in quarantined)),
        )

    def _strays(self, instances: list[Any]) -> list[Path]:
        """Return the files that wait with content in `incoming` and are nobody's; empty ones are there for what is to come."""
        waiting = {path for path in self.store.archive.incoming.glob("*.dcm") if size_bytes(path)}
        return sorted(waiting - {self.store.archive.path(one.path) for one in instances})

    def content(self, name: str) -> bytes:
        """Return a kept file's bytes."""
        try:
            return self.store.archive.path(name).read_bytes()
        except FileNotFoundError:  # it was moved to its place at this very moment
            return self.store.archive.path(name).read_bytes()

    def close(self) -> None:
        self.receiver.stop(grace_s=0.5)
        self.store.close()

    def _digest(self, name: str) -> str:
        return sha256(self.content(name)).hexdigest()


@contextmanager
def house(folder: Path, path: str, **node: Any) -> Iterator[House]:
    """Open a house for one test, which must have left no thread behind."""
    opened = House(folder, path, **node)
    try:
        yield opened
    finally:
        opened.close()
    assert eventually(lambda: not serving()), serving()


def serving() -> list[threading.Thread]:
    """Return the threads of the associations that a node in this process accepted."""
    answering = [thread for thread in threading.enumerate() if "AcceptorThread" in thread.name]
    return answering + [thread for thread in threading.enumerate() if isinstance(thread, DULServiceProvider) and thread.assoc.is_acceptor]


def eventually(true: Callable[[], Any], timeout_s: float = 20.0) -> bool:
    """Wait until something is true; say whether that came to be."""
    until = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True


def _row(one: Any) -> tuple[Any, ...]:
    names = ("sop_instance_uid", "sop_class_uid", "transfer_syntax_uid", "study_instance_uid", "series_instance_uid", "size_bytes", "digest")
    return (*(getattr(one, name) for name in names), one.calling_ae, one.received_at, sorted(one.header.items()))


def _plain(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("at", "source", "reason", "sop_instance_uid", "study_instance_uid"))
