"""What the data sets that peers send say, read one attribute at a time: each is there, of a bounded length and of its form, or it is refused."""

from typing import Any

from pydicom import Dataset

from dicom_node.domain import Refused, is_uid

INVALID_VALUE = 0x0106
PROCESSING_FAILURE = 0x0110
DUPLICATE = 0x0111
NO_SUCH_INSTANCE = 0x0112
MISSING_ATTRIBUTE = 0x0120
MISSING_VALUE = 0x0121
NOT_AUTHORISED = 0x0124
RESOURCE_LIMITATION = 0x0213

_TEXT_MAX = 64


def items(dataset: Dataset, keyword: str) -> list[Dataset] | None:
    """Return the items of a sequence; None when it is not there.

    Raises
    ------
    Refused: it cannot be read.
    """
    if keyword not in dataset:
        return None
    found = value(dataset, keyword)
    return list(found) if found else []


def needed_items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """Return the items of a sequence that has at least one.

    Raises
    ------
    Refused: it is missing or empty, or cannot be read.
    """
    found = items(dataset, keyword)
    if found is None:
        raise Refused(f"{keyword} is missing", status=MISSING_ATTRIBUTE)
    if not found:
        raise Refused(f"{keyword} is empty", status=MISSING_VALUE)
    return found


def uid(dataset: Dataset, keyword: str) -> str:
    """Return a UID.

    Raises
    ------
    Refused: it is missing, empty, or none.
    """
    found = needed(dataset, keyword)
    if not is_uid(found):
        raise Refused(f"{keyword} is no UID", status=INVALID_VALUE)
    return found


def needed(dataset: Dataset, keyword: str) -> str:
    """Return a text that is there.

    Raises
    ------
    Refused: it is missing, empty or too long.
    """
    if keyword not in dataset:
        raise Refused(f"{keyword} is missing", status=MISSING_ATTRIBUTE)
    found = text(dataset, keyword)
    if not found:
        raise Refused(f"{keyword} is empty", status=MISSING_VALUE)
    return found


def text(dataset: Dataset, keyword: str) -> str:
    """Return a text; empty where there is none.

    Raises
    ------
    Refused: it is too long, or cannot be read.
    """
    found = value(dataset, keyword)
    said = "" if found is None else str(found).strip()
    if len(said) > _TEXT_MAX:
        raise Refused(f"{keyword} is longer than {_TEXT_MAX} characters", status=INVALID_VALUE)
    return said


def value(dataset: Dataset, keyword: str) -> Any:
    """Return a value as pydicom reads it.

    Raises
    ------
    Refused: it cannot be read.
    """
    try:
        return dataset.get(keyword)
    except (ValueError, TypeError, LookupError, AttributeError, NotImplementedError, OverflowError) as error:  # what pydicom makes of bytes
        raise Refused(f"{keyword} cannot be read", status=INVALID_VALUE) from error
