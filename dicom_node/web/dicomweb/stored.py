"""What is answered to those who store: the Store Instances Response Module, and the status (PS3.18 10.5.3 and Annex I); no I/O."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from dicom_node.web.context import Kept

_CANNOT_UNDERSTAND = 0xC000  # PS3.18 Table I.2-2
_OUT_OF_RESOURCES = 0xA7  # the first byte


@dataclass(slots=True, kw_only=True)
class Stored:
    """What became of a payload."""

    outcomes: list[Kept] = field(default_factory=list)  # of its files
    others: int = 0  # parts that are no DICOM files
    problem: str = ""  # why the rest of it was no multipart any more


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is answered."""

    status: int  # of HTTP
    attributes: dict[str, Any]


def answer(stored: Stored, service: str) -> Answer:
    """Return what is answered.

    service: the URL that what was stored can be retrieved below.
    """
    kept = [one for one in stored.outcomes if not one.status]
    failed = [one for one in stored.outcomes if one.status]
    named = [one for one in failed if _is_named(one)]
    nameless = [one.status for one in failed if not _is_named(one)] + [_CANNOT_UNDERSTAND] * (stored.others + bool(stored.problem))
    studies = {one.study_instance_uid for one in kept}
    attributes: dict[str, Any] = {}
    if len(studies) == 1:
        attributes["RetrieveURL"] = f"{service}/studies/{studies.pop()}"
    if named:
        attributes["FailedSOPSequence"] = [{**_reference(one), "FailureReason": one.status} for one in named]
    if kept:
        attributes["ReferencedSOPSequence"] = [{**_reference(one), "RetrieveURL": _url(service, one)} for one in kept]
    if nameless:
        attributes["OtherFailuresSequence"] = [{"FailureReason": reason} for reason in nameless]
    return Answer(status=_status(stored, len(kept), failed, nameless), attributes=attributes)


def _status(stored: Stored, kept: int, failed: Iterable[Kept], nameless: Iterable[int]) -> int:
    """Return the status of HTTP (PS3.18 Table 10.5.3-1)."""
    reasons = [*(one.status for one in failed), *nameless]
    if kept:
        return 202 if reasons else 200
    if stored.problem or not reasons:
        return 503 if any(one.status >> 8 == _OUT_OF_RESOURCES for one in failed) else 400
    return 503 if all(reason >> 8 == _OUT_OF_RESOURCES for reason in reasons) else 409


def _is_named(one: Kept) -> bool:
    return bool(one.sop_class_uid and one.sop_instance_uid)


def _reference(one: Kept) -> dict[str, Any]:
    return {"ReferencedSOPClassUID": one.sop_class_uid, "ReferencedSOPInstanceUID": one.sop_instance_uid}


def _url(service: str, one: Kept) -> str:
    return f"{service}/studies/{one.study_instance_uid}/series/{one.series_instance_uid}/instances/{one.sop_instance_uid}"
