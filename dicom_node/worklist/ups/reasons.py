"""Why a step was discontinued, in coded terms (PS3.16 CID 9300, CID 9302)."""

from collections.abc import Mapping
from typing import Any

from dicom_node.domain import Cause, Discontinuation

Code = tuple[str, str, str]  # value, scheme designator, meaning

UNSPECIFIED: Code = ("110513", "DCM", "Discontinued for unspecified reason")
EQUIPMENT: Code = ("110501", "DCM", "Equipment failure")
DUPLICATE: Code = ("110510", "DCM", "Duplicate order")
REJECTED: Code = ("110530", "DCM", "Workitem assignment rejected by assigned resource")
WRONG_ENTRY: Code = ("110514", "DCM", "Incorrect worklist entry selected")
_RESCHEDULED: Code = ("110528", "DCM", "Discontinued Procedure Step rescheduled")

OF_CAUSE: Mapping[str, Code] = {
    Cause.INCOMPLETE: ("110523", "DCM", "Object Set incomplete"),
    Cause.TYPES: ("110522", "DCM", "Object Types not supported"),
    Cause.FORMAT: ("110521", "DCM", "Objects incorrectly formatted"),
    Cause.RESOURCE: ("110527", "DCM", "Resource inadequate"),
    Cause.EQUIPMENT: EQUIPMENT,
}
_OF_END: Mapping[str, Code] = {
    Discontinuation.DECLINED: OF_CAUSE[Cause.TYPES],
    Discontinuation.FAILED: EQUIPMENT,
    Discontinuation.INVALID: EQUIPMENT,
    Discontinuation.STOPPED: UNSPECIFIED,
    Discontinuation.SUPERSEDED: _RESCHEDULED,
}


def reason_of(facts: Mapping[str, Any]) -> Code:
    """Return the term for an end: by its cause where one is known, else by how it came about."""
    said = facts.get("code")
    if said:
        return (str(said[0]), str(said[1]), str(said[2]))
    return OF_CAUSE.get(str(facts.get("cause", "")), _OF_END.get(str(facts.get("discontinuation", "")), UNSPECIFIED))
