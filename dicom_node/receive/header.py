"""What the ledger keeps of a data set, read out of the bytes as they came, whatever they are.

This is not pydicom's reader because these bytes come from anybody: nothing here recurses, warns, decodes pixels, reads past group 0028, or
takes more than a bounded time and memory; and for any bytes at all it gives a header or raises `Refused` with C001.

It forgives what devices get wrong without making the data set ambiguous: explicit VR where implicit was agreed and the reverse, a VR that is
none, a wrong or missing character set, padding, control characters. A number that cannot be read counts as absent.
"""

import math
import mmap
import re
import struct
import zlib
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword

from dicom_node.coding.text import charsets_of, cleaned, decoded
from dicom_node.domain import HEADER_KEYWORDS, Refused

CANNOT_PARSE = 0xC001  # of C000-CFFF, Error: Cannot understand (PS3.4 Table B.2-1)
MISSING_UID = 0xC002

Bytes = bytes | bytearray | memoryview | mmap.mmap

_BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})  # the latter two by JPIP reference
_INFLATED_BYTES = 16 << 20  # of a deflated data set so much is looked at
_ELEMENTS = 1_000_000  # so many are walked over, nested ones included: about a second
_TOO_MANY = f"more than {_ELEMENTS} elements before the image"
_DEPTH = 64  # of open sequences and items; pydicom, which reads the file later, recurses for each
VALUE_BYTES = 4096  # of a value so much is looked at
_TEXT_CHARACTERS = 1024  # of a value so much is kept
_VALUES = 64  # of an attribute so many are kept

_UNDEFINED = 0xFFFFFFFF
_ITEM_GROUP = 0xFFFE
_DELIMITERS = frozenset({0xFFFEE00D, 0xFFFEE0DD})
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})  # PS3.5 Table 7.1-1
_SHORT = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI"}
    | {b"UL", b"US"}
)
_BINARY = {b"US": "H", b"SS": "h", b"UL": "I", b"SL": "i", b"FL": "f", b"FD": "d", b"UV": "Q", b"SV": "q"}
_CODED = frozenset({"AE", "AS", "CS", "DA", "DS", "IS", "TM", "UI"})  # of the default repertoire, whatever the character set is
_WANTED = {tag: (keyword, dictionary_VR(tag)) for keyword in HEADER_KEYWORDS if (tag := tag_for_keyword(keyword)) is not None}

_META = {
    0x00020002: "MediaStorageSOPClassUID",
    0x00020003: "MediaStorageSOPInstanceUID",
    0x00020010: "TransferSyntaxUID",
    0x00020016: "SourceApplicationEntityTitle",
}
_MET: dict[tuple[Any, ...], Any] = {}  # values that were decoded lately
_MET_AT_MOST, _MET_BYTES = 4096, 128  # values, of at most so many bytes

_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_INTEGER = re.compile(r"[+-]?[0-9]+(\.0*)?")


CHARACTER_SET = 0x00080005


class Form:
    """How elements are written: with or without their VR, and in which byte order."""

    def __init__(self, explicit: bool, order: str) -> None:
        self.explicit = explicit
        self.order = order  # as struct names it
        self.head = struct.Struct(order + "HH2sH").unpack_from  # group, element, VR, length
        self.length = struct.Struct(order + "I").unpack_from


_IMPLICIT, _EXPLICIT = Form(False, "<"), Form(True, "<")


class _Malformed(Exception):
    pass


def tolerable_uid(text: str) -> bool:
    """Say whether a text will do as a UID: 1 to 64 digits and dots by PS3.5 §9.1, leading zeros forgiven because real devices write them."""
    # Not by a regular expression, which takes 10 µs for each of an image's five.
    digits = text.replace(".", "")
    return len(text) <= 64 and digits.isascii() and digits.isdigit() and text[0] != "." and text[-1] != "." and ".." not in text


def read_header(data_set: Bytes, transfer_syntax_uid: str, *, beginning: bool = False) -> dict[str, Any]:
    """Return the attributes of HEADER_KEYWORDS that a data set has: text, int, float, or a list of them; empty ones are left out.

    beginning: these are the first bytes of a data set, and what comes after group 0028 must be among them.

    Raises
    ------
    Refused: with C001 when elements cannot be told apart up to the end of group 0028.
    """
    scan = scanned(data_set, transfer_syntax_uid, beginning=beginning)
    return header_of((tag, scan.value(tag)) for tag in scan.found)


@dataclass(frozen=True, slots=True)
class Scan:
    """Where a data set has what, up to the end of group 0028."""

    data: bytes | memoryview
    form: "Form"
    found: dict[int, tuple[bytes, int, int]]  # tag of HEADER_KEYWORDS → VR, where its value begins, its length in bytes
    charsets: tuple[str, ...]
    heads: list[tuple[int, int]]  # of all elements, nested ones too: where their tags, VRs and lengths begin and end; if asked for

    def raw(self, tag: int) -> bytes:
        """Return so much of a value as is looked at."""
        _, start, length = self.found[tag]
        return bytes(self.data[start : start + min(length, VALUE_BYTES)])

    def value(self, tag: int) -> Any:
        """Return a value: text, int, float, or a list of them; None when there is none, or none that can be read."""
        vr, _, length = self.found[tag]
        return known_value(tag, vr, self.raw(tag), length, self.form, self.charsets)


def scanned(data_set: Bytes, transfer_syntax_uid: str, *, beginning: bool = False, with_heads: bool = False) -> Scan:
    """Find the attributes of HEADER_KEYWORDS in a data set.

    Raises
    ------
    Refused: as `read_header`.
    """
    try:
        whole = _inflated(data_set) if transfer_syntax_uid in DEFLATED else data_set
        data = whole if isinstance(whole, bytes) else memoryview(whole)
        form = _form(data, "<" if transfer_syntax_uid != _BIG_ENDIAN else ">")
        walk = _Walk(data, form, beginning, [] if with_heads else None)
        found = {tag: (vr, start, length) for tag, vr, start, length, _ in walk.elements(0, only=_WANTED)}
    except _Malformed as error:
        raise _unparsable(str(error)) from error
    except struct.error as error:
        raise _unparsable("it ends within an element") from error
    except zlib.error as error:
        raise _unparsable("it is not deflated") from error
    _, start, length = found.get(CHARACTER_SET, (b"", 0, 0))
    return Scan(data, form, found, charsets_of(bytes(data[start : start + min(length, VALUE_BYTES)])), walk.heads or [])


def header_of(values: Iterable[tuple[int, Any]]) -> dict[str, Any]:
    """Return a header of values by tag; those that are none are left out."""
    return {_WANTED[tag][0]: value for tag, value in values if value is not None}


def checked_header(data_set: Bytes, transfer_syntax_uid: str, *, beginning: bool = False) -> dict[str, Any]:
    """Return the header of a data set, as `read_header`, that has every UID it is filed by.

    Raises
    ------
    Refused: C001 when it cannot be parsed, C002 when a UID is missing or none.
    """
    header = read_header(data_set, transfer_syntax_uid, beginning=beginning)
    check_uids(header, transfer_syntax_uid)
    return header


def check_uids(header: Mapping[str, Any], transfer_syntax_uid: str) -> None:
    """Look whether a header has every UID that its data set is filed by.

    Raises
    ------
    Refused: C001 when the transfer syntax is no UID, C002 when one is missing or none.
    """
    if not tolerable_uid(transfer_syntax_uid):
        raise Refused("The transfer syntax is not a UID", status=CANNOT_PARSE)
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        if keyword not in header:
            raise Refused(f"{keyword} is missing", status=MISSING_UID)
        if not isinstance(header[keyword], str) or not tolerable_uid(header[keyword]):
            raise Refused(f"{keyword} is not a UID", status=MISSING_UID)


def _unparsable(why: str) -> Refused:
    return Refused(f"Not parsable: {why}", status=CANNOT_PARSE, hint="The bytes are kept in quarantine; ask the maker of the device that sent them.")


def split_file(data: Bytes) -> tuple[dict[str, str], int]:
    """Return what a DICOM file's meta information says (keyword -> text) and where its data set begins; both empty without meta information.

    A preamble may be missing, and so may the meta information: its transfer syntax is then guessed (PS3.10 §7.1).

    Raises
    ------
    Refused: with C001 when this is no DICOM file.
    """
    view = memoryview(data)
    start = 132 if bytes(view[128:132]) == b"DICM" else 4 if bytes(view[:4]) == b"DICM" else 0
    if bytes(view[:2]) == b"\x00\x08" and _form(view, ">").explicit:
        return {"TransferSyntaxUID": _BIG_ENDIAN}, 0
    if not start and bytes(view[:2]) not in (b"\x02\x00", b"\x08\x00"):
        raise Refused("Not a DICOM file", status=CANNOT_PARSE, hint="It has neither DICM after 128 bytes nor a data set at its start.")
    said = {}
    try:
        for tag, _, value, length, end in _Walk(view, _EXPLICIT).elements(start, last_group=0x0002):
            keyword = _META.get(tag)
            if keyword and length <= VALUE_BYTES:
                said[keyword] = cleaned(bytes(view[value : value + length]).decode("latin-1"))
            start = end
    except (_Malformed, struct.error) as error:
        raise Refused("The file's meta information cannot be parsed", status=CANNOT_PARSE) from error
    if "TransferSyntaxUID" not in said:
        said["TransferSyntaxUID"] = "1.2.840.10008.1.2.1" if _form(view[start:], "<").explicit else "1.2.840.10008.1.2"
    return said, start


# ------------------------------------------------------------------------------------------------------------- elements


class _Walk:
    """Goes from element to element of a data set, over sequences of undefined length too, without recursion."""

    def __init__(self, data: bytes | memoryview, form: Form, beginning: bool = False, heads: list[tuple[int, int]] | None = None) -> None:
        self._data = data
        self.heads = heads  # as of `Scan`; None: nobody asks
        self._form = form
        self._beginning = beginning
        self._left = _ELEMENTS

    def elements(self, at: int, last_group: int = 0x0028, only: Container[int] | None = None) -> Iterator[tuple[int, bytes, int, int, int]]:
        """Give tag, VR, start, length and end of each element of defined length, or `only` of some, up to the last group that matters."""
        # `_element` written out for what nearly every element is, a short one with its VR: each received image pays for this loop.
        data, size, head, plain = self._data, len(self._data), self._form.head, _SHORT if self._form.explicit else frozenset()
        left = _ELEMENTS
        while size - at >= 8:
            group, element, vr, length = head(data, at)
            if vr in plain and group != _ITEM_GROUP:
                tag, start = group << 16 | element, at + 8
                left -= 1
                if self.heads is not None:
                    self.heads.append((at, start))
            else:
                tag, vr, length, start = self._element(at, self._form)
            if group > last_group:
                return
            if left < 0:
                raise _Malformed(_TOO_MANY)
            if length == _UNDEFINED:
                at = self._after_undefined(start, vr)
                continue
            at = start + length
            if at > size:
                raise _Malformed("a length reaches past its end")
            if only is None or tag in only:
                yield tag, vr, start, length, at
        if self._beginning:
            raise _Malformed("more is to come")

    def _element(self, at: int, form: Form) -> tuple[int, bytes, int, int]:
        """Return tag, VR (empty when implicit), length, and where the value begins (PS3.5 §7.1)."""
        element = self._read(at, form)
        if self.heads is not None:
            self.heads.append((at, element[3]))
        return element

    def _read(self, at: int, form: Form) -> tuple[int, bytes, int, int]:
        self._left -= 1
        if self._left < 0:
            raise _Malformed(_TOO_MANY)
        group, element, vr, length = form.head(self._data, at)
        tag = group << 16 | element
        if form.explicit and group != _ITEM_GROUP:
            if vr in _LONG:
                return tag, vr, form.length(self._data, at + 8)[0], at + 12
            if vr in _SHORT or (vr.isalpha() and vr.isupper()):
                return tag, vr, length, at + 8
        return tag, b"", form.length(self._data, at + 4)[0], at + 8

    def _after_undefined(self, at: int, vr: bytes) -> int:
        """Return where a sequence of undefined length ends (PS3.5 §7.5); what is UN inside is implicit VR little endian (§6.2.2)."""
        opened = [_IMPLICIT if vr == b"UN" else self._form]
        while opened:
            tag, vr, length, at = self._element(at, opened[-1])
            if tag in _DELIMITERS:
                opened.pop()
            elif length != _UNDEFINED:
                at += length
            elif len(opened) < _DEPTH:
                opened.append(_IMPLICIT if vr == b"UN" else opened[-1])
            else:
                raise _Malformed(f"sequences nested deeper than {_DEPTH // 2}")
        return at


def _form(data: bytes | memoryview, order: str) -> Form:
    """Say how a data set is written by its first element, which devices get right more often than what they agreed to."""
    vr = bytes(data[4:6])
    return Form(vr in _SHORT or vr in _LONG, order)


def _inflated(data_set: Bytes) -> bytes:
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data_set, _INFLATED_BYTES)  # PS3.5 A.5; no more of a bomb than this


# --------------------------------------------------------------------------------------------------------------- values


def known_value(tag: int, vr: bytes, raw: bytes, length: int, form: Form, charsets: tuple[str, ...]) -> Any:
    """Return a value as of `Scan.value`, from memory where it was met before: most are the same in all images of a series."""
    if length > _MET_BYTES:
        return _value(tag, vr, raw, length, form, charsets)
    key = tag, vr, raw, form.order, charsets
    try:
        return _MET[key]
    except KeyError:
        if len(_MET) >= _MET_AT_MOST:
            _MET.clear()
        value = _MET[key] = _value(tag, vr, raw, length, form, charsets)
        return value


def _value(tag: int, vr: bytes, raw: bytes, length: int, form: Form, charsets: tuple[str, ...]) -> Any:
    kind = _WANTED[tag][1]
    numeric = kind in ("DS", "IS", "US")
    if vr == b"SQ" or (numeric and length > VALUE_BYTES):
        return None
    if vr in _BINARY or (kind == "US" and vr in (b"", b"UN", b"OB", b"OW")):
        return _several(_unpacked(raw, form.order + _BINARY.get(vr, "H"))) if numeric else None
    text = decoded(raw, () if kind in _CODED else charsets)
    texts = [cleaned(part) for part in (text if numeric else text[:_TEXT_CHARACTERS]).split("\\")][:_VALUES]
    if not numeric:
        return _several(texts) if any(texts) else None
    numbers = [_decimal(part) if kind == "DS" else _integer(part) for part in texts]
    return None if None in numbers else _several(numbers)


def _several(values: list[Any]) -> Any:
    return values if len(values) > 1 else values[0] if values else None


def _unpacked(raw: bytes, code: str) -> list[int | float]:
    size = struct.calcsize(code)
    values = [struct.unpack_from(code, raw, at)[0] for at in range(0, len(raw) - size + 1, size)]
    return values[:_VALUES] if all(math.isfinite(value) for value in values) else []


def _decimal(text: str) -> float | None:
    number = float(text) if _DECIMAL.fullmatch(text) else math.inf
    return number if math.isfinite(number) else None


def _integer(text: str) -> int | None:
    number = int(text.partition(".")[0]) if len(text) <= 32 and _INTEGER.fullmatch(text) else None
    return number if number is not None and abs(number) < 2**53 else None  # JSON's integers
