"""Requests for storage commitment and reports of it as data sets (PS3.4 Annex J), and the values in them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydicom import DataElement, Dataset
from pydicom.config import IGNORE

from dicom_node.domain import Refused, is_uid

SOP_CLASS = "1.2.840.10008.1.20.1"  # Storage Commitment Push Model
SOP_INSTANCE = "1.2.840.10008.1.20.1.1"  # its well-known instance
REQUEST = 1  # Action Type ID (PS3.4 Table J.3-1)
ALL_KEPT, SOME_FAILED = 1, 2  # Event Type ID (PS3.4 Table J.3-2)
MOST = 10_000  # instances of one transaction

NO_SUCH_EVENT, INVALID_ARGUMENT, NO_SUCH_INSTANCE, NO_SUCH_CLASS = 0x0113, 0x0115, 0x0112, 0x0118  # statuses (PS3.7 Annex C)
NO_SUCH_ACTION, NOT_AUTHORISED, RESOURCE_LIMITATION, PROCESSING_FAILURE = 0x0123, 0x0124, 0x0213, 0x0110

_REFERENCED = (0x00081150, 0x00081155)  # Referenced SOP Class UID, Referenced SOP Instance UID

Named = tuple[str, str]  # SOP class UID, SOP instance UID


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a request asks to be kept."""

    transaction_uid: str
    named: tuple[Named, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a report says of each instance: 0, or its Failure Reason (0008,1197)."""

    transaction_uid: str
    outcomes: Mapping[Named, int]


def request(asked: Asked) -> Dataset:
    """Return the Action Information of a request (PS3.4 Table J.3-1)."""
    dataset = Dataset()
    dataset.TransactionUID = asked.transaction_uid
    dataset.ReferencedSOPSequence = [_item(named) for named in asked.named]
    return dataset


def report(said: Said) -> tuple[int, Dataset]:
    """Return the Event Type ID and the Event Information of a report (PS3.4 Table J.3-2)."""
    dataset = Dataset()
    dataset.TransactionUID = said.transaction_uid
    kept = [_item(named) for named, outcome in said.outcomes.items() if not outcome]
    failed = [_item(named, outcome) for named, outcome in said.outcomes.items() if outcome]
    if kept:
        dataset.ReferencedSOPSequence = kept
    if failed:
        dataset.FailedSOPSequence = failed
    return (SOME_FAILED if failed else ALL_KEPT), dataset


def read_request(dataset: Dataset) -> Asked:
    """Read a request.

    Raises
    ------
    Refused: it is not one, names an instance twice, or more than this program takes.
    """
    named = [_named(item) for item in _items(dataset, "ReferencedSOPSequence")]
    if not named:
        raise Refused("it names no instance", status=INVALID_ARGUMENT)
    if len({instance for _, instance in named}) < len(named):
        raise Refused("it names an instance twice", status=INVALID_ARGUMENT)
    return Asked(transaction_uid=_transaction(dataset), named=tuple(named))


def read_report(event_type: int | None, dataset: Dataset) -> Said:
    """Read a report.

    Raises
    ------
    Refused: it is not one, or does not put each instance into exactly one list.
    """
    if event_type not in (ALL_KEPT, SOME_FAILED):
        raise Refused("no such event type", status=NO_SUCH_EVENT)
    kept = [(_named(item), 0) for item in _items(dataset, "ReferencedSOPSequence")]
    failed = [(_named(item), _reason(item)) for item in _items(dataset, "FailedSOPSequence")]
    if failed and event_type == ALL_KEPT:
        raise Refused("a report without failures lists some", status=INVALID_ARGUMENT)
    outcomes = dict([*kept, *failed])
    if len({instance for _, instance in outcomes}) < len(kept) + len(failed):
        raise Refused("an instance is listed twice", status=INVALID_ARGUMENT)
    return Said(transaction_uid=_transaction(dataset), outcomes=outcomes)


def _item(named: Named, failure: int = 0) -> Dataset:
    item = Dataset()
    for tag, uid in zip(_REFERENCED, named, strict=True):
        item.add(DataElement(tag, "UI", uid, validation_mode=IGNORE))  # as it was received, be it a UID or nearly one
    if failure:
        item.FailureReason = failure
    return item


def _items(dataset: Dataset, keyword: str) -> Sequence[Dataset]:
    found = dataset.get(keyword) or []
    if not isinstance(found, Iterable) or isinstance(found, str | bytes) or not all(isinstance(item, Dataset) for item in found):
        raise Refused(f"{keyword} is no sequence", status=INVALID_ARGUMENT)
    items = list(found)
    if len(items) > MOST:
        raise Refused(f"it names more than {MOST} instances", status=RESOURCE_LIMITATION)
    return items


def _named(item: Dataset) -> Named:
    sop_class, instance = (str(item.get(f"ReferencedSOP{what}UID", "")) for what in ("Class", "Instance"))
    if not (_is_like_uid(sop_class) and _is_like_uid(instance)):
        raise Refused("it names an instance by what is no UID", status=INVALID_ARGUMENT)
    return sop_class, instance


def _is_like_uid(text: str) -> bool:
    """Say whether a text can name an instance: devices begin components with zeros, and what was received of them is kept by that name."""
    return 0 < len(text) <= 64 and text.isascii() and text.replace(".", "").isdigit()


def _reason(item: Dataset) -> int:
    value = item.get("FailureReason")
    if not isinstance(value, int) or not 0 < value <= 0xFFFF:
        raise Refused("a failure has no reason", status=INVALID_ARGUMENT)
    return value


def _transaction(dataset: Dataset) -> str:
    uid = str(dataset.get("TransactionUID", ""))
    if not is_uid(uid):
        raise Refused("its Transaction UID is none", status=INVALID_ARGUMENT)
    return uid
