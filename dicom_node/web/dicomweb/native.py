"""The DICOM JSON Model written as the Native DICOM Model (PS3.19 A.1): the same attributes, in XML."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from pydicom.datadict import dictionary_has_tag, keyword_for_tag

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, 2.2
_COMPONENTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")
_NAMES = {"Alphabetic", "Ideographic", "Phonetic"}


def native_xml(model: Mapping[str, Any]) -> bytes:
    """Return an object of the DICOM JSON Model as a document of XML."""
    body = "".join(_attributes(model))
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<NativeDicomModel xml:space="preserve">{body}</NativeDicomModel>'.encode()


def native_xml_of(model: bytes) -> bytes:
    """Return an object that is JSON as a document of XML."""
    return native_xml(json.loads(model))


def _attributes(model: Mapping[str, Any]) -> Iterator[str]:
    for tag, element in sorted(model.items()):
        number = int(tag, 16)
        keyword = f" keyword={quoteattr(keyword_for_tag(number))}" if dictionary_has_tag(number) else ""
        yield f'<DicomAttribute tag="{tag}" vr="{element["vr"]}"{keyword}>{"".join(_content(element))}</DicomAttribute>'


def _content(element: Mapping[str, Any]) -> Iterator[str]:
    if "BulkDataURI" in element:
        yield f"<BulkData uri={quoteattr(element['BulkDataURI'])}/>"
    elif "InlineBinary" in element:
        yield f"<InlineBinary>{element['InlineBinary']}</InlineBinary>"
    for number, value in enumerate(element.get("Value", ()), 1):
        if element["vr"] == "SQ":
            yield f'<Item number="{number}">{"".join(_attributes(value or {}))}</Item>'
        elif element["vr"] == "PN" and value is not None:
            yield f'<PersonName number="{number}">{"".join(_person(value))}</PersonName>'
        else:
            yield f'<Value number="{number}">{"" if value is None else _text(value)}</Value>'


def _person(value: Mapping[str, str]) -> Iterator[str]:
    for group, text in value.items():
        if group in _NAMES:
            said = zip(_COMPONENTS, text.split("^"), strict=False)
            yield f"<{group}>{''.join(f'<{name}>{_text(part)}</{name}>' for name, part in said if part)}</{group}>"


def _text(value: object) -> str:
    return escape(_NOT_XML.sub("", str(value)))
