"""What every page and resource is made from: the site, the store, and what other rooms do, as values."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from dicom_node.config import Site
from dicom_node.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What became of an object that was brought: stored, when its status is 0; UIDs are empty where they are not known."""

    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    status: int = 0  # as of C-STORE (PS3.4 Table B.2-1)
    why: str = ""


class Bringing(Protocol):
    """A DICOM file that is brought in pieces."""

    def write(self, data: bytes | memoryview, /) -> None:
        """Take the next bytes."""

    def close(self) -> Kept:
        """Make it durable, and return what became of it."""

    def drop(self) -> None:
        """Forget it: who brings it has gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The node, as the web sees it."""

    site: Site
    store: Store
    clock: Callable[[], float]
    bring: Callable[[str, str], Bringing]  # calling AE title, Study Instance UID that it has to have (empty: any) → the door
