"""Earlier studies of the same patient: what a job asks for, and what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any


class PriorsState(StrEnum):
    """Where the search for a job's priors stands."""

    SOUGHT = "SOUGHT"  # archives are to be asked
    FETCHING = "FETCHING"  # they were found, and are on their way
    SETTLED = "SETTLED"  # nothing more comes: the job may run


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """One earlier study."""

    study_instance_uid: str
    study_date: str  # VR DA; empty: not known
    source: str  # name of the remote that has it; empty: the node held it already
    inputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # the model's input name -> ids of instances in the ledger

    def as_row(self) -> dict[str, Any]:
        """Return plain values for the ledger."""
        of = {"study_instance_uid": self.study_instance_uid, "study_date": self.study_date, "source": self.source}
        return of | {"inputs": {name: list(ids) for name, ids in self.inputs.items()}}

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> "Prior":
        """Return what `as_row` wrote."""
        return cls(**{**row, "inputs": {name: tuple(ids) for name, ids in row["inputs"].items()}})


@dataclass(frozen=True, slots=True, kw_only=True)
class Priors:
    """What a job asks for, and the studies that were found."""

    ask: tuple[str, ...]  # names of remotes
    count: int  # at most so many studies
    within_days: float  # before the study
    modalities: frozenset[str]  # one of which they have; empty: any
    body_parts: frozenset[str]  # one of which they show, as headers name them in capitals; empty: any
    wait_at_most_s: float  # the job runs without them then
    state: PriorsState = PriorsState.SOUGHT
    studies: tuple[Prior, ...] = ()  # newest first
    why: str = ""  # a sentence about what was found

    @property
    def inputs(self) -> Mapping[str, tuple[int, ...]]:
        """The instances that the model's inputs take of priors: of the newest that has a series which suits."""
        found: dict[str, tuple[int, ...]] = {}
        for study in reversed(self.studies):
            found |= study.inputs
        return found

    @property
    def told(self) -> str:
        """What is to be said of them in job and report, about a job that runs now."""
        if self.state is PriorsState.SETTLED:
            return self.why
        return f"Earlier studies were asked for; they had not come after {self.wait_at_most_s:g} s, and the analysis was made without them."

    def anew(self) -> "Priors":
        """Return the same wish, nothing found yet."""
        return replace(self, state=PriorsState.SOUGHT, studies=(), why="")

    def as_row(self) -> dict[str, Any]:
        """Return plain values for the ledger, without the state, which has a column."""
        return {
            "ask": list(self.ask),
            "count": self.count,
            "within_days": self.within_days,
            "modalities": sorted(self.modalities),
            "body_parts": sorted(self.body_parts),
            "wait_at_most_s": self.wait_at_most_s,
            "studies": [one.as_row() for one in self.studies],
            "why": self.why,
        }

    @classmethod
    def of_row(cls, row: Mapping[str, Any], state: str) -> "Priors":
        """Return what `as_row` wrote."""
        found = tuple(map(Prior.of_row, row["studies"]))
        sets = {key: frozenset(row[key]) for key in ("modalities", "body_parts")}
        return cls(**{**row, **sets, "ask": tuple(row["ask"]), "studies": found, "state": PriorsState(state)})
