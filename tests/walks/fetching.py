"""A node that fetches, in this process: what it listens with, what it keeps, and a study to fetch."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydicom import Dataset

from dicom_node.config import Node, NodeConfig, Remote, Site
from dicom_node.domain import Retrieval
from dicom_node.query.fetching import Fetching
from dicom_node.query.outcomes import Manner
from dicom_node.receive import Receiver
from dicom_node.serve import taking
from dicom_node.serve.bringing import bringing
from dicom_node.store import Store
from tests import phantoms
from tests.walks.node import wait_for

QUICK = Manner(attempts=3, backoff_s=0.05, backoff_max_s=0.1, slow_s=30.0, circuit_max_s=0.2, settle_s=0.4, lease_s=3.0, beat_s=0.1)
STUDY = phantoms.series(phantoms.marked((3, 16, 16), (0, 0, 0)), seed="here")[0].StudyInstanceUID


def study(seed: str = "here", *, series: int = 2, **said: Any) -> list[Dataset]:
    """Return a study of two series with three images each."""
    pixels = phantoms.marked((3, 16, 16), (0, 0, 0))
    return [image for number in range(1, series + 1) for image in phantoms.series(pixels, seed=seed, number=number, **said)]


def files(folder: Path, images: Sequence[Dataset]) -> list[Path]:
    folder.mkdir()
    return phantoms.write(images, folder)


class House:
    """A node that listens and fetches."""

    def __init__(self, folder: Path, port: int, *, listens: bool = True, path: str = "fast", **remotes: Remote) -> None:
        self.listens = listens
        self.config = NodeConfig(node=Node.model_validate({"port": port, "disk_reserve_mb": 1, "store_path": path}), remotes=remotes)
        self.store = Store.open(folder)
        self.receiver = Receiver(self.config, self.store)
        self.fetching = Fetching(
            self.config,
            self.store,
            time.time,
            take=taking(self.config, self.store, time.time),
            bring=bringing(Site(config=self.config, models={}), self.store, time.time),
            manner=QUICK,
        )

    def __enter__(self) -> "House":
        if self.listens:
            self.receiver.start()
        self.fetching.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.fetching.stop()
        self.receiver.stop(2)
        self.store.close()

    def ask(self, name: str = "pacs", uid: str = STUDY, **how: Any) -> Retrieval:
        """Ask for a study."""
        return self.store.retrievals.ask(name, uid, who="anna", why="a person asked for it", now=time.time(), by_person=True, **how)

    def ended(self, one: Retrieval) -> Retrieval:
        """Wait for the end of a retrieval."""
        return wait_for(lambda: (now := self.now(one)).state.has_ended and now, says=lambda: self.now(one))

    def now(self, one: Retrieval) -> Retrieval:
        """Return a retrieval as it stands."""
        found = self.store.retrievals.get(one.id)
        assert found is not None
        return found

    def put_off(self, one: Retrieval, says: str) -> Retrieval:
        """Wait until a retrieval was put off with a reason."""
        return wait_for(lambda: says in (now := self.now(one)).reason and now, says=lambda: self.now(one))

    @property
    def here(self) -> int:
        """How many instances are here."""
        return len(self.store.retrievals.here(STUDY))
