"""PDUs and messages built by hand, byte for byte, for what no real sender says (PS3.8 9.3, PS3.7 6.3 and Annex E)."""

import struct
from collections.abc import Sequence

CT_IMAGE, VERIFICATION, STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.1", "1.2.840.10008.5.1.4.1.2.2.1"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
COMMAND, LAST = 1, 2  # bits of a message control header (PS3.8 E.2)

C_STORE_RQ, C_ECHO_RQ, C_FIND_RQ, N_EVENT_REPORT_RQ, C_CANCEL_RQ = 0x0001, 0x0030, 0x0020, 0x0100, 0x0FFF
NO_DATA_SET, DATA_SET = 0x0101, 0x0001

RELEASE_RQ = b"\x05\0\0\0\0\x04\0\0\0\0"
RELEASE_RP = b"\x06\0\0\0\0\x04\0\0\0\0"
ABORT = b"\x07\0\0\0\0\x04\0\0\0\0"


def pdu(kind: int, content: bytes) -> bytes:
    """Return a PDU of some type."""
    return struct.pack(">BBI", kind, 0, len(content)) + content


def associate_rq(
    contexts: Sequence[tuple[int, str, Sequence[str]]],
    *,
    calling_ae: str = "CT_ER",
    called_ae: str = "DICOM_NODE",
    max_pdu_bytes: int = 16384,
    more: bytes = b"",
) -> bytes:
    """Return an A-ASSOCIATE-RQ (PS3.8 Table 9-11). contexts: (identifier, abstract syntax, transfer syntaxes). more: user information items."""
    user = item(0x51, struct.pack(">I", max_pdu_bytes)) + item(0x52, b"1.2.3.4") + more
    proposed = b"".join(
        item(0x20, bytes((number, 0, 0, 0)) + item(0x30, abstract.encode()) + b"".join(item(0x40, one.encode()) for one in transfer))
        for number, abstract, transfer in contexts
    )
    titles = called_ae.encode().ljust(16) + calling_ae.encode().ljust(16)
    return pdu(1, struct.pack(">HH", 1, 0) + titles + bytes(32) + item(0x10, b"1.2.840.10008.3.1.1.1") + proposed + item(0x50, user))


def item(kind: int, content: bytes) -> bytes:
    """Return an item or sub-item of an associating PDU."""
    return struct.pack(">BBH", kind, 0, len(content)) + content


def pdv(context: int, control: int, content: bytes) -> bytes:
    """Return a presentation data value item (PS3.8 9.3.5.1)."""
    return struct.pack(">IBB", len(content) + 2, context, control) + content


def p_data(*items: bytes) -> bytes:
    """Return a P-DATA-TF PDU of some items."""
    return pdu(4, b"".join(items))


def command(**elements: int | str | bytes) -> bytes:
    """Return a command set with its group length; elements by the four digits of their tag: `c0100=0x0030` (PS3.7 E.1)."""
    body = b"".join(_element(int(tag[1:], 16), value) for tag, value in sorted(elements.items()))
    return _element(0, struct.pack("<I", len(body))) + body


def _element(number: int, value: int | str | bytes) -> bytes:
    raw = struct.pack("<H", value) if isinstance(value, int) else value.encode() if isinstance(value, str) else value
    raw += b"\0" * (len(raw) % 2)
    return struct.pack("<HHI", 0, number, len(raw)) + raw


def store_rq(sop_instance_uid: str, *, message: int = 1, sop_class_uid: str = CT_IMAGE, **more: int | str | bytes) -> bytes:
    """Return the command set of a C-STORE-RQ (PS3.7 Table 9.3-1)."""
    return command(
        **{"c0002": sop_class_uid, "c0100": C_STORE_RQ, "c0110": message, "c0700": 0, "c0800": DATA_SET, "c1000": sop_instance_uid, **more}
    )


def echo_rq(message: int = 1, **more: int | str | bytes) -> bytes:
    """Return the command set of a C-ECHO-RQ (PS3.7 Table 9.3-12)."""
    return command(**{"c0002": VERIFICATION, "c0100": C_ECHO_RQ, "c0110": message, "c0800": NO_DATA_SET, **more})


def message(context: int, command_set: bytes, data_set: bytes | None = None) -> bytes:
    """Return a message as the plainest sender would send it: the command in one PDU, the data set in another."""
    said = p_data(pdv(context, COMMAND | LAST, command_set))
    return said if data_set is None else said + p_data(pdv(context, LAST, data_set))
