"""What a request brings, read into a data set: the DICOM JSON Model or the Native DICOM Model, within bounds, and every value of its kind.

No I/O. What cannot be read is refused in words that quote nothing of it.
"""

import base64
import json
import math
import re
from typing import Any, NoReturn

from pydicom import Dataset, config
from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag
from pydicom.valuerep import validate_value

from dicom_node.web.ups.native import NotNative, model_of_xml
from dicom_node.wire.multipart import Ended, Malformed, Reader, content_type

MOST_BYTES = 4 << 20

_JSON = frozenset({"application/dicom+json", "application/json"})
_XML = frozenset({"application/dicom+xml", "application/xml", "text/xml"})
_DEPTH = 16  # of sequences in sequences
_TAG = re.compile(r"[0-9A-Fa-f]{8}")
_CHARACTER_SET = 0x00080005
_UTF_8 = "ISO_IR 192"

_WHOLE = {"SL": (-(2**31), 2**31), "SS": (-(2**15), 2**15), "SV": (-(2**63), 2**63), "UL": (0, 2**32), "US": (0, 2**16), "UV": (0, 2**64)}
_BROKEN = frozenset({"FD", "FL"})
_BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_TEXTS = frozenset({"LT", "ST", "UC", "UT"})  # that may have lines
_ONE_TEXT = frozenset({"LT", "ST", "UR", "UT"})  # in which a backslash is a character like others (PS3.5 6.2)
_PLAIN = frozenset({"AE", "AS", "CS", "DA", "DT", "LO", "SH", "TM", "UI"}) | _TEXTS | _ONE_TEXT
_KINDS = frozenset({"SQ", "PN", "AT", "DS", "IS", *_WHOLE, *_BROKEN, *_BINARY, *_PLAIN})
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_CONTROLS = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_CONTROLS_OF_TEXTS = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f\ud800-\udfff]")
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")


class Unreadable(Exception):
    """Raised when a request's body is no data set; the message says why. status: of HTTP."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def dataset(body: bytes, kind: str) -> Dataset:
    """Return what a body says, in the character set that JSON and XML have; an empty body says nothing.

    kind: its Content-Type.

    Raises
    ------
    Unreadable: it says nothing such.
    """
    if not body:
        return Dataset()
    model = _checked(_model(body, kind), 0)
    try:
        said = Dataset.from_json(model)
        Dataset.from_json(said.to_json_dict())  # as the ledger will keep it
    except Exception as error:  # whatever pydicom raises of what anybody may send: it is no data set
        raise Unreadable("the data set cannot be read") from error
    said.SpecificCharacterSet = _UTF_8
    return said


def _model(body: bytes, kind: str) -> Any:
    name, said = content_type(kind)
    if name == "multipart/related":
        body, name = _first_part(body, said.get("boundary", ""), said.get("type", ""))
    if name in _XML:
        try:
            return model_of_xml(body)
        except NotNative as error:
            raise Unreadable(str(error)) from error
    if name and name not in _JSON:
        raise Unreadable("a workitem comes as application/dicom+json or application/dicom+xml", 415)
    try:
        found = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise Unreadable("the body is no JSON") from error
    if isinstance(found, list):
        if len(found) != 1:
            raise Unreadable("one data set is taken, not several")
        return found[0]
    return found


def _first_part(body: bytes, boundary: str, kind: str) -> tuple[bytes, str]:
    """Return the one part of a multipart body, and its media type."""
    parts: list[bytearray] = []
    try:
        reader, names = Reader(boundary), list[str]()
        for event in reader.feed(body):
            if isinstance(event, memoryview):
                parts[-1] += event
            elif not isinstance(event, Ended):
                parts.append(bytearray())
                names.append(event.headers.get("content-type", kind))
        reader.finish()
    except Malformed as error:
        raise Unreadable(str(error)) from error
    if len(parts) != 1:
        raise Unreadable("one data set is taken, in one part")
    return bytes(parts[0]), content_type(names[0])[0]


def _no_number(_: str) -> NoReturn:
    raise ValueError("JSON has no such number")


def _checked(model: Any, depth: int) -> dict[str, Any]:
    """Return a data set of the JSON Model with values of their kinds only; command elements, file meta and group lengths are passed over."""
    if not isinstance(model, dict) or depth > _DEPTH:
        raise Unreadable("it is no data set of the DICOM JSON Model")
    kept = {}
    for key, element in model.items():
        if not isinstance(key, str) or not _TAG.fullmatch(key) or not isinstance(element, dict):
            raise Unreadable("an attribute is not written as a tag with a value")
        tag = int(key, 16)
        if tag >> 16 <= 2 or not tag & 0xFFFF or tag == _CHARACTER_SET:
            continue
        try:
            kept[f"{tag:08X}"] = _element(_vr(tag, element.get("vr")), element, depth)
        except (ValueError, OverflowError) as error:
            raise Unreadable(f"{keyword_for_tag(tag) or 'a private attribute'} has a value that is none of its kind") from error
    return kept


def _vr(tag: int, said: Any) -> str:
    known = dictionary_VR(tag).split(" or ") if dictionary_has_tag(tag) else []
    vr = said if said is not None else (known or [""])[0]
    if not isinstance(vr, str) or vr not in _KINDS or (known and vr not in known):
        raise ValueError("no such kind")
    return vr


def _element(vr: str, element: dict[str, Any], depth: int) -> dict[str, Any]:
    if "BulkDataURI" in element:
        raise Unreadable("a value is elsewhere, from where it is not fetched")
    if vr in _BINARY:
        inline = element.get("InlineBinary", "")
        if "Value" in element or not isinstance(inline, str):
            raise ValueError("no binary")
        base64.b64decode(inline, validate=True)
        return {"vr": vr, "InlineBinary": inline} if inline else {"vr": vr}
    values = element.get("Value", [])
    if not isinstance(values, list) or "InlineBinary" in element:
        raise ValueError("no list")
    if vr == "SQ":
        return {"vr": vr, "Value": [_checked({} if one is None else one, depth + 1) for one in values]}
    found = [None if one is None or one == "" else _value(vr, one) for one in values]
    return {"vr": vr, "Value": found} if any(one is not None for one in found) else {"vr": vr}


def _value(vr: str, value: Any) -> Any:
    if vr == "PN":
        return _name(value)
    if vr in _WHOLE:
        first, beyond = _WHOLE[vr]
        number = int(value) if isinstance(value, str) and _INTEGER.fullmatch(value) else value
        if not isinstance(number, int) or isinstance(number, bool) or not first <= number < beyond:
            raise ValueError("no whole number of the kind")
        return number
    if vr in _BROKEN:
        return _finite(value)
    if vr in ("DS", "IS"):
        text = value if isinstance(value, str) else _written(value, whole=vr == "IS")
        _finite(text)
        return _valid(vr, text.strip())
    if not isinstance(value, str):
        raise ValueError("no text")
    if vr == "AT":
        return f"{int(value, 16):08X}" if _TAG.fullmatch(value) else _none()
    return _valid(vr, value)


def _valid(vr: str, text: str) -> str:
    if (_CONTROLS_OF_TEXTS if vr in _TEXTS else _CONTROLS).search(text) or ("\\" in text and vr not in _ONE_TEXT):
        raise ValueError("no such characters")
    validate_value(vr, text, config.RAISE)
    return text


def _name(value: Any) -> dict[str, str]:
    groups = {"Alphabetic": value} if isinstance(value, str) else value
    if not isinstance(groups, dict) or not all(name in _GROUPS and isinstance(said, str) and "=" not in said for name, said in groups.items()):
        raise ValueError("no name")
    _valid("PN", "=".join(groups.get(name, "") for name in _GROUPS))
    return groups


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("no number")
    number = float(value)
    return number if math.isfinite(number) else _none()


def _written(value: Any, *, whole: bool) -> str:
    """Write a number as DS or IS, in no more characters than it has."""
    number = _finite(value)
    if number == int(number) and abs(number) < 1e11:
        return str(int(number))
    if whole:
        raise ValueError("no whole number")
    return str(number) if len(str(number)) <= 16 else f"{number:.9g}"


def _none() -> NoReturn:
    raise ValueError("none of its kind")
