"""What a worklist is asked by a data set of keys, and what is answered of each entry: the same for orders and for workitems (PS3.4 K.4, CC.2.8)."""

from collections.abc import Collection, Mapping
from copy import deepcopy
from typing import Any

from pydicom import DataElement, Dataset
from pydicom.multival import MultiValue

TOLD = frozenset({"SpecificCharacterSet", "TimezoneOffsetFromUTC"})  # said of an answer, not matched

_NOTHING: Mapping[str, Collection[str]] = {}


def plain(dataset: Dataset) -> dict[str, Any]:
    """Return a data set as `match` takes it: keyword -> text, or a list of texts, or of such mappings."""
    return {element.keyword: _plain(element) for element in dataset if element.keyword}


def _plain(element: DataElement) -> Any:
    value = element.value
    if element.VR == "SQ":
        return [plain(item) for item in value]
    if isinstance(value, MultiValue | list):
        return [str(one) for one in value]
    return "" if value is None else str(value)


def filled(
    asked: Dataset, held: Dataset, *, known: Collection[str] | None = None, of_items: Mapping[str, Collection[str]] = _NOTHING
) -> tuple[Dataset, bool]:
    """Return the keys that are asked for with what is held of them, empty where there is nothing, and whether all of them are supported.

    known: those that are supported; None: all. of_items: the same of the items of a sequence.
    """
    answer, whole = Dataset(), True
    for element in asked:
        if element.keyword in TOLD or element.tag.element == 0:
            continue
        if element.tag not in held and known is not None and element.keyword not in known:
            whole = False
            continue
        answer[element.tag], inside = _of(element, held, of_items)
        whole = whole and inside
    return answer, whole


def _of(asked: DataElement, held: Dataset, of_items: Mapping[str, Collection[str]]) -> tuple[DataElement, bool]:
    there = held.get(asked.tag)
    if there is None:
        return DataElement(asked.tag, asked.VR, [] if asked.VR == "SQ" else None), True
    if asked.VR != "SQ" or there.VR != "SQ" or not asked.value or not len(asked.value[0]):
        return deepcopy(there), True
    answers = [filled(asked.value[0], item, known=of_items.get(asked.keyword)) for item in there.value]
    return DataElement(asked.tag, "SQ", [item for item, _ in answers]), all(whole for _, whole in answers)
