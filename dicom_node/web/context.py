"""What every page and resource is made from: the site, the store, and what other rooms do, as values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dicom_node.config import Site
from dicom_node.domain import Job
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


def _nobody_explains(study_instance_uid: str) -> Explanation | None:
    return None


def _nobody_tries(text: str, studies: int) -> tuple[Tried, ...]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The node, as the web sees it.

    explain: asks the rules of now about a study, without doing anything; None when there is no such study.
    try_rules: asks rules in TOML about the last so many studies, without doing anything; ConfigError names the line of what cannot run.
    """

    site: Site
    store: Store
    clock: Callable[[], float]
    explain: Callable[[str], Explanation | None] = field(default=_nobody_explains)
    try_rules: Callable[[str, int], tuple[Tried, ...]] = field(default=_nobody_tries)
