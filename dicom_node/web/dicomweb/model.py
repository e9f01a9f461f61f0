"""Attributes as the web writes them: the DICOM JSON Model (PS3.18 Annex F) and the Native DICOM Model, its XML (PS3.19 A.1).

Attributes are known by keyword, each a text, a number, a list of them, or, of a sequence, a list of such attributes.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from pydicom.datadict import dictionary_VR, tag_for_keyword

Attributes = Mapping[str, Any]

_NUMBERS = frozenset({"DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"})
_NOT_AS_TEXT = _NUMBERS | {"PN", "SQ"}
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_COMPONENTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")
_NOT_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, 2.2
_ROOT = '<?xml version="1.0" encoding="UTF-8"?>\n<NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM" xml:space="preserve">'


def json_of(attributes: Attributes) -> dict[str, Any]:
    """Return attributes in the DICOM JSON Model, in the order of their tags."""
    return {tag: _element(vr, attributes[keyword]) for tag, vr, keyword in _elements(attributes)}


def json_bytes(found: Iterable[Attributes]) -> bytes:
    """Return several data sets as one array."""
    return json.dumps([json_of(one) for one in found], ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def json_object(attributes: Attributes) -> bytes:
    """Return one data set."""
    return json.dumps(json_of(attributes), ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def xml_of(attributes: Attributes) -> bytes:
    """Return attributes as a document of the Native DICOM Model."""
    return f"{_ROOT}{_xml(attributes)}</NativeDicomModel>".encode(errors="replace")


def _elements(attributes: Attributes) -> Sequence[tuple[str, str, str]]:
    return _known(tuple(attributes))


@lru_cache(256)
def _known(keywords: tuple[str, ...]) -> Sequence[tuple[str, str, str]]:
    """Return tag, VR and keyword of each, in the order of their tags; the same for all results of a search."""
    known = ((tag_for_keyword(keyword), keyword) for keyword in keywords)
    return sorted((f"{tag:08X}", dictionary_VR(tag).partition(" ")[0], keyword) for tag, keyword in known if tag is not None)


def _element(vr: str, value: Any) -> dict[str, Any]:
    if type(value) is str and value and vr not in _NOT_AS_TEXT:  # most are: a page has thousands of them
        return {"vr": vr, "Value": [value]}
    values = [_json_value(vr, one) for one in _values(value)]
    return {"vr": vr, "Value": values} if any(one is not None for one in values) else {"vr": vr}


def _values(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _json_value(vr: str, value: Any) -> Any:
    """Return one value as F.2.3 has it; None for one that is empty (F.2.5)."""
    if vr == "SQ":
        return json_of(value)
    if value is None or value == "":
        return None
    if vr == "PN":
        groups = {name: group for name, group in zip(_GROUPS, str(value).split("="), strict=False) if group}
        return groups or None
    return _number(value) if vr in _NUMBERS else str(value)


def _number(value: Any) -> Any:
    """Return a number as JSON has it; as text what is none (F.2.3.1 allows that of DS and IS)."""
    if isinstance(value, int | float):
        return value if math.isfinite(value) else str(value)
    text = str(value).strip()
    try:
        return int(text) if re.fullmatch(r"[+-]?[0-9]{1,15}", text) else _number(float(text))
    except ValueError:
        return text


def _xml(attributes: Attributes) -> str:
    return "".join(
        f'<DicomAttribute tag="{tag}" vr="{vr}" keyword="{keyword}">{_xml_values(vr, attributes[keyword])}</DicomAttribute>'
        for tag, vr, keyword in _elements(attributes)
    )


def _xml_values(vr: str, value: Any) -> str:
    numbered = enumerate(_values(value), start=1)
    if vr == "SQ":
        return "".join(f'<Item number="{number}">{_xml(one)}</Item>' for number, one in numbered)
    if vr == "PN":
        return "".join(f'<PersonName number="{number}">{_xml_name(str(one))}</PersonName>' for number, one in numbered)
    return "".join(f"<Value number={quoteattr(str(number))}>{_text(one)}</Value>" for number, one in numbered)


def _xml_name(name: str) -> str:
    groups = ((group, said.split("^")) for group, said in zip(_GROUPS, name.split("="), strict=False) if said)
    return "".join(f"<{group}>{_xml_components(components)}</{group}>" for group, components in groups)


def _xml_components(components: list[str]) -> str:
    return "".join(f"<{name}>{_text(said)}</{name}>" for name, said in zip(_COMPONENTS, components, strict=False) if said)


def _text(value: Any) -> str:
    return escape(_NOT_IN_XML.sub("", str(value)))
