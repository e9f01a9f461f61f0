"""What an object says, as the DICOM JSON Model (PS3.18 Annex F): straight from its bytes, as text, without the values that are large.

Bytes is UTF-8 whatever its character set was; IS and DS are numbers with the digits that were written, or strings where they are none (Table
F.2.3-1). What of a data set cannot be told apart is left out, and everything behind it.
"""

import base64
import json
import math
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from dicom_node.coding.text import charsets_of, decoded
from dicom_node.coding.transcode import implied_vr
from dicom_node.web.dicomweb.elements import ITEM, ITEM_END, PIXEL_DATA, PIXEL_REPRESENTATION, UNDEFINED, Elements, Unreadable

_CHARACTER_SET = 0x00080005
_NOTED = frozenset({_CHARACTER_SET, PIXEL_REPRESENTATION})  # what changes how others are told
_HEAD_BYTES = 8
_PIXELS = frozenset({0x7FE00008, 0x7FE00009, PIXEL_DATA})  # float, double float, integer
_NESTED = 16  # sequences within sequences, at most
_INLINE_BYTES, _TEXT_BYTES = 1024, 1 << 16  # of a value that is told in place: of bytes, of anything else
_MET_BYTES, _MET_AT_MOST, _KINDS_AT_MOST = 128, 4096, 16
_Met = dict[bytes, str]  # an element as it lies in its data set -> what is told of it
_MET: dict[tuple[tuple[str, ...], bool, bool], _Met] = {}  # by character sets, implicit VRs and signedness: most are the same in all of a series

_BINARY = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"UN"})
_WHOLE = frozenset({b"LT", b"ST", b"UT", b"UR"})  # in which a backslash is a sign like any other (PS3.5 6.2)
_LEADING = frozenset({b"LT", b"ST", b"UT", b"UC", b"PN"})  # in which a space before the text means something
_CODED = frozenset({b"AE", b"AS", b"CS", b"DA", b"DS", b"DT", b"IS", b"TM", b"UI", b"UR"})  # of the default repertoire, whatever the character set
_DECIMAL = re.compile(r"([+-]?)0*([0-9]*)(?:\.([0-9]*))?(?:[eE]([+-]?[0-9]{1,4}))?")
_EXACT = 2**53  # beyond, a number of JSON is not what was meant in every language


def told(elements: Elements, url: str) -> str:
    """Return an object as JSON.

    url: of the instance; large values are below it, at `bulkdata/` and their tags.
    """
    return _Teller(elements, f"{url}/bulkdata").told()


class _Teller:
    def __init__(self, elements: Elements, url: str) -> None:
        self._elements = elements
        self._url = json.dumps(url)[1:-1]

    def told(self) -> str:
        return self._object(0, self._elements.size, self._elements.implicit, (), "", 0)[0]

    def _object(self, start: int, length: int, implicit: bool, charsets: tuple[str, ...], path: str, depth: int) -> tuple[str, bool]:
        """Return a data set or an item as JSON, and whether it could be read to its end."""
        elements, out = self._elements, list[str]()
        at, end = start, None if length == UNDEFINED else start + length
        try:
            while True:
                met = _met(charsets, implicit, elements.signed)
                at = _quickly(elements, at, end, implicit, met, out)
                if at == end:
                    return "{" + ",".join(out) + "}", True
                tag, vr, value, size = elements.head(at, implicit)
                if tag == ITEM_END and end is None:
                    return "{" + ",".join(out) + "}", True
                if end is not None and size != UNDEFINED and value + size > end:
                    raise Unreadable("an element is longer than what it is in")
                if tag == _CHARACTER_SET and size <= _INLINE_BYTES:
                    charsets = charsets_of(elements.value(value, size))
                out.extend(self._told(tag, vr, value, size, implicit, charsets, path, depth, met, value - at))
                at = elements.after(vr, value, size, implicit)
        except Unreadable as error:
            return "{" + ",".join([*out, *error.args[1:]]) + "}", False

    def _told(
        self, tag: int, vr: bytes, start: int, size: int, implicit: bool, charsets: tuple[str, ...], path: str, depth: int, met: _Met, head: int
    ) -> Iterator[str]:
        """Give one element, and remember it if it is one that may be met again."""
        if tag >> 16 == ITEM >> 16:
            raise Unreadable("an item outside of a sequence")
        if tag == PIXEL_REPRESENTATION and size == 2:
            self._elements.signed = self._elements.value(start, 2) != b"\0\0"
        if tag & 0xFFFF == 0 or tag >> 16 == 0x0002:
            return  # the length of a group; what some devices write of the file into the data set
        if vr == b"SQ" or (size == UNDEFINED and tag != PIXEL_DATA) or (vr == b"UN" and implied_vr(tag, signed=False) == b"SQ"):
            said, whole = self._sequence(tag, start, size, implicit or vr == b"UN", charsets, f"{path}/{tag:08X}", depth + 1)
            if whole:
                yield said
                return
            if vr == b"SQ" or size == UNDEFINED:
                raise Unreadable("a sequence that does not end", said)
        said = self._element(tag, vr, start, size, charsets, path)
        if size <= _MET_BYTES and head == _HEAD_BYTES and tag not in _NOTED and "BulkDataURI" not in said:
            if len(met) >= _MET_AT_MOST:
                met.clear()
            met[self._elements.value(start - head, head + size)] = said
        yield said

    def _sequence(self, tag: int, start: int, length: int, implicit: bool, charsets: tuple[str, ...], path: str, depth: int) -> tuple[str, bool]:
        items, whole = [], depth <= _NESTED
        try:
            for number, (content, size) in enumerate(self._elements.items(start, length, implicit) if whole else (), 1):
                item, whole = self._object(content, size, implicit, charsets, f"{path}/{number}", depth)
                items.append(item)
                if not whole:
                    break
        except Unreadable:
            whole = False
        values = f',"Value":[{",".join(items)}]' if items else ""
        return f'"{tag:08X}":{{"vr":"SQ"{values}}}', whole

    def _element(self, tag: int, vr: bytes, start: int, length: int, charsets: tuple[str, ...], path: str) -> str:
        if tag in _PIXELS or length > (_INLINE_BYTES if vr in _BINARY else _TEXT_BYTES):
            if path and length == UNDEFINED:
                return f'"{tag:08X}":{{"vr":"{vr.decode()}"}}'  # coded pixels of an icon: nobody asks for them
            if length != UNDEFINED and start + length > self._elements.size:
                raise Unreadable("it ends within an element")
            return f'"{tag:08X}":{{"vr":"{vr.decode()}","BulkDataURI":"{self._url}{path}/{tag:08X}"}}'
        if tag == _CHARACTER_SET and length:
            return '"00080005":{"vr":"CS","Value":["ISO_IR 192"]}'
        return _told(tag, vr, self._elements.value(start, length), charsets)


def _met(charsets: tuple[str, ...], implicit: bool, signed: bool) -> _Met:
    kind = charsets, implicit, signed
    if kind not in _MET and len(_MET) >= _KINDS_AT_MOST:
        _MET.clear()
    return _MET.setdefault(kind, {})


def _quickly(elements: Elements, at: int, end: int | None, implicit: bool, met: _Met, out: list[str]) -> int:
    """Tell elements for as long as they were met before, byte by byte the same; return where the first of another kind begins.

    Their heads are looked at as if each were 8 bytes long: those of 12 are in no memory, and are not found.
    """
    data, begin = elements.window
    offset, stop, known, add = at - begin, len(data) if end is None else min(len(data), end - begin), met.get, out.append
    while 0 <= offset <= stop - _HEAD_BYTES:
        length = data[offset + 4] if implicit else data[offset + 6]  # 128 at most, and in no key if it is more
        following = offset + _HEAD_BYTES + length
        said = known(data[offset:following])
        if said is None or following > stop:
            break
        add(said)
        offset = following
    return begin + offset


def _told(tag: int, vr: bytes, raw: bytes, charsets: tuple[str, ...]) -> str:
    """Return an element as a member of a JSON object."""
    if vr == b"UN" and (known := implied_vr(tag, signed=False)) != b"SQ":
        vr = known  # PS3.5 6.2.2, note 3 on UN: what was not known to who wrote it is known here
    name = f'"{tag:08X}":{{"vr":"{vr.decode()}"'
    if not raw:
        return f"{name}}}"
    if vr in _BINARY:
        return f'{name},"InlineBinary":"{base64.b64encode(raw).decode()}"}}'
    values = _values(vr, raw, charsets)
    if all(value is None for value in values):
        return f"{name}}}"
    return f'{name},"Value":[{",".join("null" if value is None else value for value in values)}]}}'


def _values(vr: bytes, raw: bytes, charsets: tuple[str, ...]) -> list[str | None]:
    """Return each value as JSON; None for one that is empty."""
    if vr in _NUMBERS:
        code, said = _NUMBERS[vr]
        return [said(value) for value in _unpacked(raw, code)]
    if vr == b"AT":
        pairs = _unpacked(raw, "H")
        return [f'"{group:04X}{element:04X}"' for group, element in zip(pairs[::2], pairs[1::2], strict=False)]
    text = decoded(raw, () if vr in _CODED else charsets)
    padding = str.rstrip if vr in _LEADING else str.strip
    texts = [padding(one, " \0") for one in ([text] if vr in _WHOLE else text.split("\\"))]
    tell = _decimal if vr in (b"DS", b"IS") else _person if vr == b"PN" else _text
    return [tell(one) for one in texts]


def _unpacked(raw: bytes, code: str) -> tuple[Any, ...]:
    size = struct.calcsize(f"<{code}")
    return struct.unpack_from(f"<{len(raw) // size}{code}", raw)


def _integer(value: int) -> str:
    return str(value) if abs(value) < _EXACT else f'"{value}"'


def _float(value: Any) -> str:
    if math.isfinite(value):
        return str(value)
    return '"NaN"' if math.isnan(value) else '"inf"' if value > 0 else '"-inf"'  # PS3.18 Table F.2.3-1


def _decimal(text: str) -> str | None:
    """Return a number with the digits that were written, in JSON's form."""
    found = _DECIMAL.fullmatch(text)
    if not found or not (found[2] or found[3] or "0" in text):
        return _text(text)
    sign, whole, fraction, exponent = found.groups()
    number = f"{'-' if sign == '-' else ''}{whole or '0'}{f'.{fraction}' if fraction else ''}{f'e{exponent}' if exponent else ''}"
    return number if math.isfinite(float(number)) else _text(text)


def _person(text: str) -> str | None:
    """Return a person's name in its component groups (PS3.18 F.2.2)."""
    groups = [group.rstrip(" ") for group in text.split("=")]
    names = dict(zip(("Alphabetic", "Ideographic", "Phonetic"), groups, strict=False))
    said = {key: value for key, value in names.items() if value}
    return json.dumps(said, ensure_ascii=False, separators=(",", ":")) if said else None


def _text(text: str) -> str | None:
    return json.dumps(text, ensure_ascii=False) if text else None


_NUMBERS: Mapping[bytes, tuple[str, Callable[[Any], str]]] = {  # VR: the code of `struct`, and how a value is told
    **{vr: (code, _integer) for vr, code in ((b"US", "H"), (b"SS", "h"), (b"UL", "I"), (b"SL", "i"), (b"UV", "Q"), (b"SV", "q"))},
    b"FL": ("f", lambda value: _float(np.float32(value))),  # as few digits as say which one it is
    b"FD": ("d", _float),
}
