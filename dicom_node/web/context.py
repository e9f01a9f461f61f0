"""What every page and resource is made from: the site, the store, and what other rooms do, as values."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pydicom import Dataset

from dicom_node.config import Site
from dicom_node.domain import Channel, EventReport, Job, Priority
from dicom_node.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """How the rules of now answer for a study."""

    why: str
    rules: Sequence[Mapping[str, Any]]  # as the journal keeps them
    recognised: Mapping[str, Mapping[str, str]]  # series UID → facet → what it is, and why
    warnings: Mapping[str, Sequence[str]]  # series UID → what is odd about it


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What edited rules would make of one study, beside what was made of it."""

    study_instance_uid: str
    received_at: float
    why: str
    matching: tuple[str, ...]  # names of the rules
    same: tuple[Job, ...] = ()  # would be made, and were
    more: tuple[Job, ...] = ()  # would be made, and were not
    less: tuple[Job, ...] = ()  # were made, and would not be
    moved: tuple[tuple[Job, Job], ...] = ()  # were made, and would go to other destinations or with another priority: as it was, as it would be
    problem: str = ""  # why this study could not be asked about

    @property
    def differs(self) -> bool:
        """Whether anything would be otherwise."""
        return bool(self.more or self.less or self.moved)


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


class Worklist(Protocol):
    """The node's workitems, as their manager keeps them; what it refuses it says with a status of DIMSE (`Refused`)."""

    def create(self, said: Dataset, *, uid: str = "", requester: str) -> tuple[str, int]:
        """Create a workitem, and return its UID with the status."""

    def ask_for(self, model: str, study_instance_uid: str, priority: Priority, *, requester: str) -> str:
        """Create the workitem that asks this node for an analysis of a study that is here, and return its UID."""

    def get(self, uid: str, wanted: Sequence[int] = ()) -> Dataset:
        """Return a workitem."""

    def set(self, uid: str, said: Dataset, *, who: str) -> int:
        """Change what a workitem says."""

    def change_state(self, uid: str, said: Dataset, *, who: str) -> int:
        """Change a workitem's state."""

    def ask_to_cancel(self, uid: str, said: Dataset, *, who: str) -> int:
        """Ask for a workitem to be canceled."""

    def matching(self, keys: Dataset) -> Iterator[Dataset]:
        """Yield every workitem that matches, whole."""

    def subscribe(
        self, uid: str, receiver: str, *, channel: Channel, deletion_lock: bool = False, keys: Dataset | None = None, owner: str = ""
    ) -> int:
        """Let an AE be told of a workitem, of all, or of all that match."""

    def unsubscribe(self, uid: str, receiver: str) -> None:
        """End a subscription."""

    def suspend(self, uid: str, receiver: str) -> None:
        """Subscribe an AE to no further workitems."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The node, as the web sees it.

    bring: opens the door for a file: calling AE title, Study Instance UID that it has to have (empty: any).
    explain: asks the rules of now about a study, without doing anything; None when there is no such study.
    try_rules: asks rules in TOML about the last so many studies, without doing anything; ConfigError names the line of what cannot run.
    event_of: returns what an event report says.
    """

    site: Site
    store: Store
    clock: Callable[[], float]
    bring: Callable[[str, str], Bringing]
    explain: Callable[[str], Explanation | None]
    try_rules: Callable[[str, int], tuple[Tried, ...]]
    worklist: Worklist
    event_of: Callable[[EventReport], Dataset]
