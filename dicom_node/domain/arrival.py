"""What others say of a study's arrival, beside the modality's performed procedure steps: notices of availability, counts."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """An Instance Availability Notification (PS3.4 Annex R): it says what is to be had, not that this is all."""

    instances: frozenset[str]  # SOP Instance UIDs, without those that are UNAVAILABLE
    at: float


class Availability(StrEnum):
    """Instance Availability (0008,0056)."""

    ONLINE = "ONLINE"  # at once
    NEARLINE = "NEARLINE"  # after a while
    OFFLINE = "OFFLINE"  # after a person has done something
    UNAVAILABLE = "UNAVAILABLE"  # never


@dataclass(frozen=True, slots=True, kw_only=True)
class Available:
    """What a notification says of one instance."""

    sop_instance_uid: str
    availability: Availability
    retrieve_aes: tuple[str, ...]  # titles: Retrieve AE Title (0008,0054) may have several values

    @property
    def at_hand(self) -> bool:
        """Whether it may be retrieved without a person's doing."""
        return self.availability in (Availability.ONLINE, Availability.NEARLINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """An Instance Availability Notification as it came."""

    sop_instance_uid: str
    study_instance_uid: str
    series: Mapping[str, tuple[Available, ...]]  # by Series Instance UID
    at: float = 0.0

    @property
    def instances(self) -> tuple[Available, ...]:
        """What it says of each instance."""
        return tuple(one for of_series in self.series.values() for one in of_series)


def standing(notifications: Iterable[Notification], ours: Collection[str] = ()) -> tuple[Notice, ...]:
    """Return what is to be had by the last word on each instance; notifications: of one study, in the order in which they came.

    ours: SOP Instance UIDs of what the node made: others who have that say nothing of the images.
    """
    said: dict[str, Available] = {}
    at = 0.0
    for notification in notifications:
        said |= {one.sop_instance_uid: one for one in notification.instances}
        at = max(at, notification.at)
    there = frozenset(uid for uid, one in said.items() if one.availability is not Availability.UNAVAILABLE and uid not in ours)
    return (Notice(instances=there, at=at),) if there else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How many instances of a study a remote says it has: Number of Study Related Instances (0020,1208)."""

    source: str  # name of the remote
    at: float  # when it was asked
    instances: int | None  # without the node's own results there; None: it did not answer, or does not count
