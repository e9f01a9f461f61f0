"""The states of studies, jobs and deliveries, and the tables of their transitions."""

from collections.abc import Mapping
from enum import IntEnum, StrEnum


class StudyState(StrEnum):
    """Where a study stands."""

    OPEN = "OPEN"  # instances may still come
    COMPLETE = "COMPLETE"  # judged whole; its jobs exist
    CONFLICT = "CONFLICT"  # held until a person has looked: its instances name more than one patient, or it cannot be judged


class JobState(StrEnum):
    """Where a job stands: the Procedure Step States of a UPS workitem (PS3.4 Table CC.1.1-2)."""

    SCHEDULED = "SCHEDULED"  # waits for a worker
    IN_PROGRESS = "IN PROGRESS"  # a worker holds its lease
    COMPLETED = "COMPLETED"  # its results are recorded
    CANCELED = "CANCELED"  # ended without results; `discontinuation` says which way, `reason` why


class Discontinuation(StrEnum):
    """Why a job was CANCELED."""

    DECLINED = "declined"  # the analysis said that the input does not suit
    FAILED = "failed"  # every attempt failed
    INVALID = "invalid"  # a result did not pass the check and is in quarantine
    STOPPED = "stopped"  # a person canceled it
    SUPERSEDED = "superseded"  # the study grew; a newer job takes its place


class Cause(StrEnum):
    """What was in the way of a job that was CANCELED, as the reasons of CID 9300 and 9302 part it (PS3.16)."""

    INCOMPLETE = "incomplete"  # images of the input are missing
    TYPES = "types"  # the input is of a kind that the analysis does not take
    FORMAT = "format"  # the input cannot be read
    RESOURCE = "resource"  # memory, a processor or the disk did not suffice
    EQUIPMENT = "equipment"  # the program, or the model's own process, failed


class DeliveryState(StrEnum):
    """Where one result stands on its way to one destination."""

    PENDING = "PENDING"  # to be sent, now or after `not_before`
    SENDING = "SENDING"  # an association holds its lease
    SENT = "SENT"  # the destination answered success or warning
    COMMITTED = "COMMITTED"  # the destination took responsibility (storage commitment)
    DEAD = "DEAD"  # given up: a person may replay it
    CANCELED = "CANCELED"  # a person canceled it


JOB_TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    JobState.SCHEDULED: frozenset({JobState.IN_PROGRESS, JobState.CANCELED}),
    JobState.IN_PROGRESS: frozenset({JobState.SCHEDULED, JobState.COMPLETED, JobState.CANCELED}),
    JobState.COMPLETED: frozenset(),
    JobState.CANCELED: frozenset(),
}

DELIVERY_TRANSITIONS: Mapping[DeliveryState, frozenset[DeliveryState]] = {
    DeliveryState.PENDING: frozenset({DeliveryState.SENDING, DeliveryState.CANCELED}),
    DeliveryState.SENDING: frozenset({DeliveryState.PENDING, DeliveryState.SENT, DeliveryState.DEAD}),
    DeliveryState.SENT: frozenset({DeliveryState.COMMITTED, DeliveryState.PENDING, DeliveryState.DEAD}),  # by the report on storage commitment
    DeliveryState.COMMITTED: frozenset(),
    DeliveryState.DEAD: frozenset({DeliveryState.PENDING, DeliveryState.CANCELED}),
    DeliveryState.CANCELED: frozenset({DeliveryState.PENDING}),
}


class Priority(IntEnum):
    """How urgent a job is; the names are those of Scheduled Procedure Step Priority (0074,1200)."""

    LOW = 0
    MEDIUM = 1
    HIGH = 2
