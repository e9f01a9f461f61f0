"""How a list tells one workitem from another: what it is called, and which kind of work it is."""

from collections.abc import Mapping, Sequence
from typing import Any

from dicom_node.domain import Workitem

_LABEL, _CODES = "00741204", "00404018"  # Procedure Step Label, Scheduled Workitem Code Sequence
TOLD = (_LABEL, _CODES)  # tags of the attributes that it goes by


def label_of(item: Workitem) -> str:
    """Return how a workitem is called."""
    return _first(item.attributes, _LABEL) or (f"{item.job.model} {item.job.model_version}" if item.job else "")


def code_of(item: Workitem) -> tuple[str, str]:
    """Return which kind of work a workitem is, as a code and in words; empty where it does not say."""
    if _CODES not in item.attributes and item.job is not None:
        return item.job.model, item.job.model
    for code in item.attributes.get(_CODES, {}).get("Value", ())[:1]:
        value = _first(code, "00080100") or _first(code, "00080119") or _first(code, "00080120")
        return value, _first(code, "00080104") or value
    return "", ""


def _first(attributes: Mapping[str, Any], tag: str) -> str:
    values: Sequence[Any] = attributes.get(tag, {}).get("Value", ())
    return str(values[0]) if values and isinstance(values[0], str) else ""
