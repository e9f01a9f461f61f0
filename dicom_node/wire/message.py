"""P-DATA PDUs and C-STORE command sets as bytes (PS3.8 §9.3.5 and Annex E, PS3.7 §6.3 and §9.3.1), written and read on either side; no I/O."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

P_DATA_TF = 0x04  # PDU type (PS3.8 Table 9-22)
PDU_HEAD = struct.Struct(">BxI")  # type, length of what follows
PDV_HEAD = struct.Struct(">IBB")  # length from the context on, presentation context, message control header
COMMAND, LAST = 1, 2  # bits of the message control header (PS3.8 E.2)

_C_STORE_RQ, _C_STORE_RSP = 0x0001, 0x8001
_BESIDE = frozenset({0x0100, 0x0FFF})  # N-EVENT-REPORT-RQ and C-CANCEL-RQ: a peer may send them while it owes an answer
_DATA_SET, _NO_DATA_SET = 0x0001, 0x0101  # Command Data Set Type (0000,0800)
_MEDIUM = 0  # Priority (0000,0700)
_COUNTERS = (0x1020, 0x1021, 0x1022, 0x1023)  # Number of Remaining, Completed, Failed and Warning Sub-operations
_ELEMENT = struct.Struct("<HHI")
_COMMENT_CHARACTERS = 64  # of Error Comment (0000,0902): LO
_COMMAND_BYTES = 1 << 16  # of a command set at most


Counters = Sequence[int | None]


class Malformed(ValueError):
    """The bytes are not what they have to be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRequest:
    """A C-STORE-RQ (PS3.7 Table 9.3-1), its UIDs as they were sent but for padding."""

    message_id: int
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAnswer:
    """A C-STORE-RSP (PS3.7 Table 9.3-2)."""

    message_id: int  # of the request that it answers
    status: int
    comment: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveOriginator:
    """Whose C-MOVE a C-STORE-RQ carries out (PS3.7 9.1.1.1.6 and 9.1.1.1.7)."""

    ae_title: str
    message_id: int


def fragments(body: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Give context, message control header and bytes of each PDV in the body of a P-DATA-TF PDU.

    Raises
    ------
    Malformed: the lengths do not add up.
    """
    at, size = 0, len(body)
    while at < size:
        if size - at < PDV_HEAD.size:
            raise Malformed("a PDV without head")
        length, context_id, control = PDV_HEAD.unpack_from(body, at)
        end = at + 4 + length
        if length < 2 or end > size:
            raise Malformed("a PDV that does not fit its PDU")
        yield context_id, control, body[at + 6 : end]
        at = end


def p_data(context_id: int, control: int, data: bytes, max_pdu_bytes: int) -> bytes:
    """Return the P-DATA-TF PDUs that carry one message's command set or data set; 0: the peer takes any length.

    control: COMMAND for a command set, 0 for a data set; the last fragment is marked here.
    """
    most = fragment_bytes(max_pdu_bytes) if max_pdu_bytes else max(len(data), 1)
    parts = [data[at : at + most] for at in range(0, len(data), most)] or [data]
    return b"".join(
        PDU_HEAD.pack(P_DATA_TF, len(part) + 6) + PDV_HEAD.pack(len(part) + 2, context_id, control | (LAST if number == len(parts) else 0)) + part
        for number, part in enumerate(parts, 1)
    )


def fragment_bytes(max_pdu_bytes: int) -> int:
    """Return how many bytes of a message one PDU of a length carries: an even number, as every peer expects."""
    return max((max_pdu_bytes - 6) & ~1, 2)


def data_heads(context_id: int, size: int, most_bytes: int) -> Iterator[tuple[bytes, int, int]]:
    """Give PDU head, start and end of each fragment of a data set of a size; an empty one has one, and it is empty."""
    at = 0
    while True:
        end = min(at + most_bytes, size)
        length, control = end - at, LAST if end == size else 0
        yield PDU_HEAD.pack(P_DATA_TF, length + 6) + PDV_HEAD.pack(length + 2, context_id, control), at, end
        at = end
        if at >= size:
            return


def read_command(command_set: bytes) -> dict[int, bytes]:
    """Return the elements of a command set by their element number: group 0000, implicit VR little endian (PS3.7 §6.3.1).

    Raises
    ------
    Malformed: these are no such elements.
    """
    found: dict[int, bytes] = {}
    at, size = 0, len(command_set)
    while at < size:
        if size - at < _ELEMENT.size:
            raise Malformed("a command element without head")
        group, element, length = _ELEMENT.unpack_from(command_set, at)
        at += _ELEMENT.size
        if group or length > size - at:
            raise Malformed("a command element that does not belong there")
        found[element] = command_set[at : at + length]
        at += length
    return found


def store_request(command: dict[int, bytes]) -> StoreRequest | None:
    """Return the C-STORE request that a command set is, or None when it is something else, or lacks what one must have."""
    try:
        if _number(command[0x0100]) != _C_STORE_RQ or _number(command[0x0800]) == _NO_DATA_SET:
            return None
        _number(command[0x0700])  # the priority must be there; it changes nothing
        request = StoreRequest(message_id=_number(command[0x0110]), sop_class_uid=_text(command[0x0002]), sop_instance_uid=_text(command[0x1000]))
    except (KeyError, Malformed, UnicodeDecodeError):
        return None
    return request if request.sop_class_uid and request.sop_instance_uid else None


def store_response(request: StoreRequest, status: int, comment: str = "") -> bytes:
    """Return the command set of a C-STORE-RSP (PS3.7 Table 9.3-2)."""
    said = {0x0902: _padded(comment.replace("\\", "/")[:_COMMENT_CHARACTERS], b" ")} if comment else {}
    return _command_set(
        {
            0x0002: _padded(request.sop_class_uid, b"\0"),
            0x0100: _two(_C_STORE_RSP),
            0x0120: _two(request.message_id),
            0x0800: _two(_NO_DATA_SET),
            0x0900: _two(status),
            **said,
            0x1000: _padded(request.sop_instance_uid, b"\0"),
        }
    )


def store_request_command(request: StoreRequest, originator: MoveOriginator | None = None) -> bytes:
    """Return the command set of a C-STORE-RQ (PS3.7 Table 9.3-1), of medium priority."""
    moved = {0x1030: _padded(originator.ae_title, b" "), 0x1031: _two(originator.message_id)} if originator else {}
    return _command_set(
        {
            0x0002: _padded(request.sop_class_uid, b"\0"),
            0x0100: _two(_C_STORE_RQ),
            0x0110: _two(request.message_id),
            0x0700: _two(_MEDIUM),
            0x0800: _two(_DATA_SET),
            0x1000: _padded(request.sop_instance_uid, b"\0"),
            **moved,
        }
    )


def store_answer(command: dict[int, bytes]) -> StoreAnswer | None:
    """Return the answer to a C-STORE request that a command set is, or None when it is something else, or lacks what one must have."""
    try:
        if _number(command[0x0100]) != _C_STORE_RSP or _number(command[0x0800]) != _NO_DATA_SET:
            return None
        comment = command.get(0x0902, b"").rstrip(b"\0 ").decode("ascii", errors="replace")
        return StoreAnswer(message_id=_number(command[0x0120]), status=_number(command[0x0900]), comment=comment)
    except (KeyError, Malformed):
        return None


class Answers:
    """Picks answers to C-STORE requests out of what a peer sends, and keeps what else it may send meanwhile together as it came."""

    def __init__(self) -> None:
        self._command = bytearray()
        self._pdvs = bytearray()  # that the command came in
        self._beside = False  # whether the data set of another message is coming

    def take(self, body: memoryview) -> tuple[list[StoreAnswer], bytes]:
        """Return what ends in the body of a P-DATA-TF PDU: answers, and the PDVs of N-EVENT-REPORT-RQ and C-CANCEL-RQ.

        Raises
        ------
        Malformed: the bytes are no PDVs, or of a message that has no place here.
        """
        answers: list[StoreAnswer] = []
        beside = bytearray()
        for context_id, control, data in fragments(body):
            pdv = PDV_HEAD.pack(len(data) + 2, context_id, control) + data
            if bool(control & COMMAND) is self._beside:
                raise Malformed("a fragment of another message")
            if self._beside:
                beside += pdv
                self._beside = not control & LAST
                continue
            self._command += data
            self._pdvs += pdv
            if len(self._command) > _COMMAND_BYTES:
                raise Malformed("an endless command set")
            if control & LAST:
                answer = self._whole(read_command(bytes(self._command)))
                if answer is None:
                    beside += self._pdvs
                else:
                    answers.append(answer)
                self._command, self._pdvs = bytearray(), bytearray()
        return answers, bytes(beside)

    def _whole(self, command: dict[int, bytes]) -> StoreAnswer | None:
        answer = store_answer(command)
        if answer is None:
            if _number(command.get(0x0100, b"")) not in _BESIDE:
                raise Malformed("a message that has no place here")
            self._beside = _number(command.get(0x0800, b"")) != _NO_DATA_SET
        return answer


def query_response(
    kind: int, sop_class_uid: str, message_id: int, status: int, *, has_data: bool, comment: str = "", counters: Counters = ()
) -> bytes:
    """Return the command set of a C-FIND-RSP, C-GET-RSP or C-MOVE-RSP (PS3.7 Tables 9.3-4, 9.3-7 and 9.3-10).

    counters: remaining, completed, failed and warning sub-operations; None: not said.
    """
    said = {0x0902: _padded(comment.replace("\\", "/")[:_COMMENT_CHARACTERS], b" ")} if comment else {}
    return _command_set(
        {
            0x0002: _padded(sop_class_uid, b"\0"),
            0x0100: _two(kind),
            0x0120: _two(message_id),
            0x0800: _two(_DATA_SET if has_data else _NO_DATA_SET),
            0x0900: _two(status),
            **said,
            **{element: _two(min(number, 0xFFFF)) for element, number in zip(_COUNTERS, counters, strict=False) if number is not None},
        }
    )


def _command_set(elements: dict[int, bytes]) -> bytes:
    body = b"".join(_ELEMENT.pack(0, element, len(value)) + value for element, value in elements.items())
    return _ELEMENT.pack(0, 0, 4) + len(body).to_bytes(4, "little") + body


def _two(value: int) -> bytes:
    return value.to_bytes(2, "little")


def _number(value: bytes) -> int:
    if len(value) != 2:
        raise Malformed("a number that is none")
    return int.from_bytes(value, "little")


def _text(value: bytes) -> str:
    return value.rstrip(b"\0 ").decode("ascii")


def _padded(text: str, padding: bytes) -> bytes:
    raw = text.encode("ascii", errors="replace")
    return raw + padding * (len(raw) % 2)
