"""What a worklist search asks: which steps it means, and what is answered of each (PS3.4 CC.2.8). Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset

from dicom_node.domain import JobState, Priority, Refused, is_uid
from dicom_node.store.match import matcher
from dicom_node.store.workitems import PRIORITY, STATE
from dicom_node.store.worklists import workitem
from dicom_node.worklist.answering import TOLD, filled, plain
from dicom_node.worklist.ups.attributes import HIDDEN, hidden

DOES_NOT_FIT = 0xA900

_INPUTS = "InputInformationSequence"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What keys ask for."""

    keys: Dataset
    conditions: tuple[Any, ...]  # that SQL can compare: they let too much through, never too little
    matches: Callable[[Dataset], bool]
    with_inputs: bool  # whether the inputs are asked for, or compared
    is_supported: bool  # whether every key is: a Transaction UID is none

    def answer(self, whole: Dataset) -> tuple[Dataset, bool]:
        """Return what is answered of a step: every key that was asked for, but the Transaction UID."""
        answer, is_whole = filled(self.keys, whole)
        if "SpecificCharacterSet" in whole:
            answer.SpecificCharacterSet = whole.SpecificCharacterSet
        return answer, is_whole and self.is_supported


def asked(keys: Dataset) -> Asked | None:
    """Return what keys ask for; None where there is none: that matches nothing (PS3.4 CC.2.8.3.1).

    The Transaction UID is neither matched nor answered, at whatever depth (CC.2.8.1).

    Raises
    ------
    Refused: they cannot be read.
    """
    try:
        keys.decode()
        told = hidden(keys)
        wanted = {keyword: value for keyword, value in plain(told).items() if keyword not in TOLD}
    except Exception as error:  # whatever pydicom raises on bytes that anybody may send: they are no data set
        raise Refused("the keys cannot be read", status=DOES_NOT_FIT) from error
    if not any(True for element in keys if element.keyword not in TOLD and element.tag.element):
        return None
    test = matcher(wanted, required=frozenset())
    return Asked(
        keys=told,
        conditions=tuple(_conditions(wanted)),
        matches=lambda whole: test(plain(whole)),
        with_inputs=_INPUTS in wanted,
        is_supported=all(element.tag != HIDDEN for element in keys.iterall()),
    )


def _conditions(wanted: dict[str, Any]) -> list[Any]:
    found: list[Any] = []
    uids = _texts(wanted.get("SOPInstanceUID"))
    if uids and all(map(is_uid, uids)):
        found.append(workitem.c.uid.in_(uids))
    state = _texts(wanted.get("ProcedureStepState"))
    if state and all(one in tuple(JobState) for one in state):
        found.append(STATE.in_(state))
    priority = _texts(wanted.get("ScheduledProcedureStepPriority"))
    if priority and all(one in Priority.__members__ for one in priority):
        found.append(PRIORITY.in_([int(Priority[one]) for one in priority]))
    return found


def _texts(value: Any) -> list[str]:
    if isinstance(value, list):
        return [one for one in value if isinstance(one, str) and one]
    return value.split("\\") if isinstance(value, str) and value else []
