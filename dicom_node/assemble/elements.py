"""A header's data elements out of a file's first bytes (PS3.5 §7.1, PS3.10 §7.1), in a fraction of the time that a general reader takes.

Only the plain case is read here: little endian, known value representations, every length inside the file. What is anything else is left to
pydicom, which forgives much. A header read here equals pydicom's; its values are converted by pydicom, when they are first asked for.
"""

import struct
from typing import Any, Final

from pydicom import Dataset
from pydicom.charset import convert_encodings, default_encoding
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement, convert_raw_data_element, empty_value_for_VR
from pydicom.dataset import FileMetaDataset
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, VR

PIXELS: Final = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})  # Float Pixel Data, Double Float Pixel Data, Pixel Data

_META_AT = 132  # after the preamble and "DICM"
_CHARACTER_SET = BaseTag(0x00080005)
_TRANSFER_SYNTAX = BaseTag(0x00020010)
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0"
_NESTED = 16  # sequences within sequences, at most
_VRS = {vr.value.encode(): vr.value for vr in VR if len(vr.value) == 2}
_LONG = frozenset(str(vr.value) for vr in EXPLICIT_VR_LENGTH_32)
_LENGTH = struct.Struct("<I").unpack_from
# Whose values need nothing but their own bytes to be understood.
_SELF_CONTAINED = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "SL", "SS", "TM", "UI", "UL", "US"})
_DECIMAL, _DOTTED = b"0123456789+-.eE \\", b"0123456789.\0"  # what plain numbers and UIDs are written with

_Elements = dict[BaseTag, RawDataElement]


class Odd(Exception):
    """The bytes are not as plain as this module reads them: pydicom has to look."""


class Short(Exception):
    """The header goes on after the bytes given."""


class Reader:
    """Reads the headers of one series, whose files say nearly the same: what was made of some bytes once is not made again."""

    def __init__(self) -> None:
        self._explicit: dict[bytes, tuple[BaseTag, str, bool]] = {}  # the first six bytes of an element → tag, VR, whether its length is long
        self._implicit: dict[bytes, BaseTag] = {}
        self._values: dict[tuple[Any, ...], Any] = {}
        self._encodings: dict[bytes, Any] = {}
        self._tags: dict[str, BaseTag] = {}

    def header(self, data: bytes, whole: bool) -> tuple[Dataset, int]:
        """Return the header in a file's first bytes, and where the element that holds its pixels begins: at the end of the file without one.

        whole: whether the bytes are all that the file has.

        Raises
        ------
        Short: more bytes are needed; Odd: pydicom has to read the file.
        """
        try:
            meta, at = self._meta(data)
            if at >= len(data):
                raise IndexError
            implicit = _encoding(meta) == ImplicitVRLittleEndian
            elements, end = self._implicit_elements(data, at) if implicit else self._explicit_elements(data, at, PIXELS)
        except (IndexError, struct.error):
            raise Odd if whole else Short from None
        if end > len(data) or (end == len(data) and not whole):
            raise Odd if whole else Short
        header = Dataset(elements)
        header.set_original_encoding(implicit, True, self._character_set(elements))
        header.file_meta = FileMetaDataset(meta)
        header.file_meta.set_original_encoding(False, True, default_encoding)
        return header, end

    def value(self, header: Dataset, keyword: str) -> Any:
        """Return an attribute's value, None without it; converted once for all headers that have it in the same bytes.

        Raises
        ------
        What pydicom raises when the bytes are no such value.
        """
        tag = self._tag(keyword)
        raw = header.get_item(tag)
        if not isinstance(raw, RawDataElement):
            return None if raw is None else raw.value
        key = (tag, raw.VR, raw.value, raw.is_little_endian)
        if key in self._values:
            return self._values[key]
        element = header[tag]
        if element.VR in _SELF_CONTAINED and " or " not in dictionary_VR(tag):
            self._values[key] = element.value
        return element.value

    def numbers(self, header: Dataset, keyword: str) -> Any:
        """Return the numbers of an attribute that differs from image to image, such as its position: without pydicom where they are plain."""
        raw = header.get_item(self._tag(keyword))
        if isinstance(raw, RawDataElement) and raw.VR in ("DS", None) and raw.value and not raw.value.strip(_DECIMAL):
            return tuple(map(float, raw.value.split(b"\\")))
        return self.value(header, keyword)

    def uid(self, header: Dataset, keyword: str) -> str:
        """Return a UID, which no two images share."""
        raw = header.get_item(self._tag(keyword))
        if isinstance(raw, RawDataElement) and raw.VR in ("UI", None) and raw.value and not raw.value.strip(_DOTTED):
            return raw.value.rstrip(b"\0").decode("ascii")
        return str(header[self._tag(keyword)].value)

    def _tag(self, keyword: str) -> BaseTag:
        tag = self._tags.get(keyword)
        if tag is None:
            tag = self._tags[keyword] = BaseTag(tag_for_keyword(keyword) or 0)
        return tag

    def _meta(self, data: bytes) -> tuple[_Elements, int]:
        if data[128:132] != b"DICM" or data[132:134] != b"\x02\x00":
            raise Odd
        return self._explicit_elements(data, _META_AT, frozenset(), group=b"\x02\x00")

    def _explicit_elements(self, data: bytes, at: int, stop: frozenset[int], group: bytes = b"") -> tuple[_Elements, int]:
        """Return elements up to one of the tags in `stop`, to one of another group than the one asked for, or to the end of the data."""
        found: _Elements = {}
        kinds, size, new = self._explicit, len(data), tuple.__new__
        while at < size:
            head = data[at : at + 6]
            try:
                tag, vr, long = kinds[head]
            except KeyError:
                tag, vr, long = kinds[head] = _kind(head)
            if tag in stop or (group and data[at : at + 2] != group):
                break
            if long:
                start = at + 12
                (length,) = _LENGTH(data, at + 8)
                at = self._end(data, start, vr) if length == _UNDEFINED else start + length
                value = data[start : at - 8] if length == _UNDEFINED else data[start:at]
            else:
                start = at + 8
                length = data[at + 6] | data[at + 7] << 8
                at = start + length
                value = data[start:at]
            raw = value if length else empty_value_for_VR(vr, raw=True)
            found[tag] = new(RawDataElement, (tag, vr, length, raw, start, False, True, True, False))  # its own constructor takes thrice as long
        return found, at

    def _implicit_elements(self, data: bytes, at: int) -> tuple[_Elements, int]:
        found: _Elements = {}
        tags, size, new = self._implicit, len(data), tuple.__new__
        if data[at + 4 : at + 6].isupper():
            raise Odd
        while at < size:
            head = data[at : at + 4]
            try:
                tag = tags[head]
            except KeyError:
                tag = tags[head] = _tag_of(head)
            if tag in PIXELS:
                break
            (length,) = _LENGTH(data, at + 4)
            if length == _UNDEFINED:
                raise Odd
            start = at + 8
            at = start + length
            value = data[start:at] if length else empty_value_for_VR(None, raw=True)
            found[tag] = new(RawDataElement, (tag, None, length, value, start, True, True, True, False))
        return found, at

    def _end(self, data: bytes, at: int, vr: str, depth: int = 0) -> int:
        """Return where a sequence of undefined length ends, after its delimiter (PS3.5 §7.5.2); its items start at `at`."""
        if vr != "SQ" or depth > _NESTED:
            raise Odd
        while (head := data[at : at + 4]) != _SEQUENCE_END:
            if len(head) < 4:
                raise IndexError
            if head != _ITEM:
                raise Odd
            (length,) = _LENGTH(data, at + 4)
            at = self._end_of_item(data, at + 8, depth) if length == _UNDEFINED else at + 8 + length
        return at + 8

    def _end_of_item(self, data: bytes, at: int, depth: int) -> int:
        while data[at : at + 4] != _ITEM_END:
            head = data[at : at + 6]
            _, vr, long = self._explicit.get(head) or _kind(head)
            length = _LENGTH(data, at + 8)[0] if long else data[at + 6] | data[at + 7] << 8
            at += 12 if long else 8
            at = self._end(data, at, vr, depth + 1) if length == _UNDEFINED else at + length
        return at + 8

    def _character_set(self, elements: _Elements) -> Any:
        raw = elements.get(_CHARACTER_SET)
        if raw is None:
            return default_encoding
        stated = raw.value or b""
        if stated not in self._encodings:
            self._encodings[stated] = convert_encodings(convert_raw_data_element(raw).value)
        return self._encodings[stated]


def _encoding(meta: _Elements) -> str:
    """Return the transfer syntax."""
    stated = meta.get(_TRANSFER_SYNTAX)
    found = (stated.value or b"").rstrip(b" \0").decode("ascii", "replace") if stated else ""
    if not found.startswith("1.2.840.10008.1.2") or found in (ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian):
        raise Odd
    return found


def _kind(head: bytes) -> tuple[BaseTag, str, bool]:
    """Return tag, VR and whether the length is of 32 bits, of an element with explicit VR."""
    if len(head) < 6:
        raise IndexError
    vr = _VRS.get(head[4:6])
    if vr is None:
        raise Odd
    return _tag_of(head[:4]), vr, vr in _LONG


def _tag_of(head: bytes) -> BaseTag:
    if len(head) < 4:
        raise IndexError
    group, element = struct.unpack("<HH", head)
    if group < 0x0002 or group == 0xFFFE:
        raise Odd
    return BaseTag(group << 16 | element)
