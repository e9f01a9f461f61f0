"""What a modality says that it performs: a Modality Performed Procedure Step (PS3.4 Annex F), as far as this node needs it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class StepState(StrEnum):
    """The Performed Procedure Step Status (0040,0252)."""

    IN_PROGRESS = "IN PROGRESS"  # the modality is at work
    COMPLETED = "COMPLETED"  # it has made all that it meant to make
    DISCONTINUED = "DISCONTINUED"  # it stopped before; what it made is listed all the same


@dataclass(frozen=True, slots=True, kw_only=True)
class PerformedStep:
    """A performed procedure step. What it lists is everything it made only once it has ended (PS3.4 F.7.2.2.2)."""

    sop_instance_uid: str
    study_instance_uids: tuple[str, ...]
    state: StepState
    modality: str
    station: str  # the AE title of the modality
    started: str  # date and time as the modality writes them: YYYYMMDDHHMMSS
    ended: str = ""
    series: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # Series Instance UID -> SOP Instance UIDs, images and others

    @property
    def has_ended(self) -> bool:
        """Whether the modality will not change it any more."""
        return self.state is not StepState.IN_PROGRESS

    @property
    def instances(self) -> frozenset[str]:
        """The SOP Instance UIDs that it lists so far."""
        return frozenset(uid for uids in self.series.values() for uid in uids)

    @property
    def expected(self) -> tuple[str, ...]:
        """The SOP Instance UIDs that the step made: all of them once it has ended, none before."""
        return tuple(uid for uids in self.series.values() for uid in uids) if self.has_ended else ()
