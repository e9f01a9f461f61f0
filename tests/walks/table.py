"""What a receiver has to make of what a client says on an association: the table of `receive/store_path.py`, written a second time and without haste.

Nothing here is shared with the receiver: this reads a stream that is there as a whole, and says what is stored of it and how it ends.
"""

import struct
from collections.abc import Collection, Iterator
from enum import Enum
from typing import NamedTuple

from tests.walks.pdus import DATA_SET, echo_rq

_COMMAND_BYTES, _PDU_BYTES = 1 << 16, 1 << 20  # the longest command set and the longest PDU that are read
_P_DATA = 4
_C_STORE_RQ, _NO_DATA_SET = b"\x01\0", b"\x01\x01"


class Ended(Enum):
    """Why no more of a stream is read."""

    CUT_OFF = "it ends, perhaps within a PDU: Evt17"
    MALFORMED = "what came is wrong: Evt19"
    HANDED_OVER = "a PDU of another type came, which is pynetdicom's, if it is one"
    UNKNOWN = "a message came of which only pynetdicom can say what it is, and whether a data set follows: it may go on, or end in any way"


class Sent(NamedTuple):
    """A C-STORE request with its data set, whole."""

    message_id: int
    sop_instance_uid: str
    data_set: bytes


class _UnknownError(Exception):
    pass


class Listener:
    """Reads one stream.

    stores: what came whole.
    pdus: that were read, the last included.
    kind: type of the last PDU.
    """

    def __init__(self, stream: bytes, accepted: Collection[int]) -> None:
        self.stores: list[Sent] = []
        self.pdus = self.kind = 0
        self._accepted = accepted
        self._context: int | None = None  # of the message that has begun
        self._has_command = False  # whether its command set is whole
        self._request: Sent | None = None
        self._content = bytearray()
        self.ended = self._heard(stream)

    def _heard(self, stream: bytes) -> Ended:
        try:
            for kind, body in self._read(stream):
                self.kind = kind
                if kind != _P_DATA:
                    return Ended.HANDED_OVER
                for context, control, data in _items(body):
                    self._take(context, bool(control & 1), bool(control & 2), data)
        except _UnknownError:
            return Ended.UNKNOWN
        except ValueError:
            return Ended.MALFORMED
        return Ended.CUT_OFF

    def _read(self, stream: bytes) -> Iterator[tuple[int, bytes]]:
        at = 0
        while len(stream) - at >= 6:
            kind, length = struct.unpack_from(">BxI", stream, at)
            self.pdus += 1
            if length > _PDU_BYTES or not 1 <= kind <= 7:
                raise ValueError
            if at + 6 + length > len(stream):
                return
            yield kind, stream[at + 6 : at + 6 + length]
            at += 6 + length

    def _take(self, context: int, is_command: bool, is_last: bool, data: bytes) -> None:
        if is_command is self._has_command or context != (context if self._context is None else self._context):
            raise ValueError
        self._context = context
        self._content += data
        if is_command and len(self._content) > _COMMAND_BYTES:
            raise ValueError
        if not is_last:
            return
        content, self._content = bytes(self._content), bytearray()
        if is_command:
            self._command(context, content)
            return
        if self._request is not None:
            self.stores.append(self._request._replace(data_set=content))
        self._context, self._has_command, self._request = None, False, None

    def _command(self, context: int, content: bytes) -> None:
        self._has_command = True
        if context not in self._accepted:
            raise _UnknownError
        elements = _elements(content)
        self._request = _store(elements)
        if self._request is not None:
            return
        message = int.from_bytes(elements.get(0x0110, b""), "little")
        if message >= 1 << 16 or content not in (echo_rq(message), echo_rq(message, c0800=DATA_SET)):
            raise _UnknownError
        if elements.get(0x0800) == _NO_DATA_SET:
            self._context, self._has_command = None, False


def _items(body: bytes) -> Iterator[tuple[int, int, bytes]]:
    if not body:
        raise ValueError
    at = 0
    while at < len(body):
        if len(body) - at < 6:
            raise ValueError
        length, context, control = struct.unpack_from(">IBB", body, at)
        if length < 2 or at + 4 + length > len(body):
            raise ValueError
        yield context, control, body[at + 6 : at + 4 + length]
        at += 4 + length


def _elements(content: bytes) -> dict[int, bytes]:
    elements, at = {}, 0
    while at < len(content):
        if len(content) - at < 8:
            raise ValueError
        group, number, length = struct.unpack_from("<HHI", content, at)
        if group != 0 or at + 8 + length > len(content):
            raise ValueError
        elements[number] = content[at + 8 : at + 8 + length]
        at += 8 + length
    return elements


def _store(elements: dict[int, bytes]) -> Sent | None:
    """Return the C-STORE request that a command set is, if it has all that PS3.7 Table 9.3-1 asks for."""
    if elements.get(0x0100) != _C_STORE_RQ or any(len(elements.get(number, b"")) != 2 for number in (0x0110, 0x0700, 0x0800)):
        return None
    uids = [elements.get(number, b"").rstrip(b"\0 ") for number in (0x0002, 0x1000)]
    if elements[0x0800] == _NO_DATA_SET or not all(uid and uid.isascii() for uid in uids):
        return None
    return Sent(int.from_bytes(elements[0x0110], "little"), uids[1].decode("ascii"), b"")


def answers(said: bytes, *, may_break_off: bool = False) -> tuple[list[tuple[int, int, str]], list[bytes]]:
    """Part what a server said into (message, status, instance) of its C-STORE answers, and the PDUs that are no P-DATA.

    may_break_off: the last message need not be whole; PDUs are.
    """
    stores, others, command, at = [], [], b"", 0
    while at < len(said):
        kind, length = struct.unpack_from(">BxI", said, at)
        body = said[at + 6 : at + 6 + length]
        assert len(body) == length, "the server said half a PDU"
        at += 6 + length
        if kind != _P_DATA:
            others.append(bytes((kind, 0)) + struct.pack(">I", length) + body)
            continue
        for _, control, data in _items(body):
            assert control & 1, "the server said a data set"
            command += data
            if control & 2:
                elements, command = _elements(command), b""
                numbers = [int.from_bytes(elements[number], "little") for number in (0x0100, 0x0120, 0x0900)]
                if numbers[0] == 0x8001:
                    stores.append((numbers[1], numbers[2], elements[0x1000].rstrip(b"\0").decode("latin-1")))
    assert may_break_off or not command, "the server said half a message"
    return stores, others
