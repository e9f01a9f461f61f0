"""P-DATA PDUs and C-STORE command sets as bytes (PS3.8 §9.3.5 and Annex E, PS3.7 §6.3 and §9.3.1); no I/O."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

P_DATA_TF = 0x04  # PDU type (PS3.8 Table 9-22)
PDU_HEAD = struct.Struct(">BxI")  # type, length of what follows
PDV_HEAD = struct.Struct(">IBB")  # length from the context on, presentation context, message control header
COMMAND, LAST = 1, 2  # bits of the message control header (PS3.8 E.2)

_C_STORE_RQ, _C_STORE_RSP = 0x0001, 0x8001
_NO_DATA_SET = 0x0101  # Command Data Set Type (0000,0800)
_MOVE_ORIGINATOR_AE, _MOVE_ORIGINATOR_ID = 0x1030, 0x1031
_ELEMENT = struct.Struct("<HHI")
_COMMENT_CHARACTERS = 64  # of Error Comment (0000,0902): LO


class Malformed(ValueError):
    """The bytes are not what they have to be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRequest:
    """A C-STORE-RQ (PS3.7 Table 9.3-1), its UIDs as they were sent but for padding."""

    message_id: int
    sop_class_uid: str
    sop_instance_uid: str


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
    most = max_pdu_bytes - 6 if max_pdu_bytes else len(data)
    parts = [data[at : at + most] for at in range(0, len(data), most)] if most > 0 else [data]
    return b"".join(
        PDU_HEAD.pack(P_DATA_TF, len(part) + 6) + PDV_HEAD.pack(len(part) + 2, context_id, control | (LAST if number == len(parts) else 0)) + part
        for number, part in enumerate(parts, 1)
    )


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
        request = StoreRequest(
            message_id=_number(command[0x0110]), sop_class_uid=_text(command[0x0002]), sop_instance_uid=_text(command[0x1000])
        )
    except (KeyError, Malformed, UnicodeDecodeError):
        return None
    return request if request.sop_class_uid and request.sop_instance_uid else None


def store_response(request: StoreRequest, status: int, comment: str = "") -> bytes:
    """Return the command set of a C-STORE-RSP (PS3.7 Table 9.3-2)."""
    elements = [
        (0x0002, _padded(request.sop_class_uid, b"\0")),
        (0x0100, _C_STORE_RSP.to_bytes(2, "little")),
        (0x0120, request.message_id.to_bytes(2, "little")),
        (0x0800, _NO_DATA_SET.to_bytes(2, "little")),
        (0x0900, status.to_bytes(2, "little")),
        (0x1000, _padded(request.sop_instance_uid, b"\0")),
    ]
    if comment:
        elements.insert(5, (0x0902, _padded(comment.replace("\\", "/")[:_COMMENT_CHARACTERS], b" ")))
    body = b"".join(_ELEMENT.pack(0, element, len(value)) + value for element, value in elements)
    return _ELEMENT.pack(0, 0, 4) + len(body).to_bytes(4, "little") + body


def _number(value: bytes) -> int:
    if len(value) != 2:
        raise Malformed("a number that is none")
    return int.from_bytes(value, "little")


def _text(value: bytes) -> str:
    return value.rstrip(b"\0 ").decode("ascii")


def _padded(text: str, padding: bytes) -> bytes:
    raw = text.encode("ascii", errors="replace")
    return raw + padding * (len(raw) % 2)
