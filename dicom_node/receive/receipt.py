"""The File Meta Information of a received instance, and in it a receipt, by which the file tells that it is whole.

The receipt is the end of the Private Information (0002,0102) of PS3.10 §7.1: how long the data set is, when it was received, the hash of its
bytes, and one of what stands before it. Its room is left free while the data set comes, and it is written last. A file that lost bytes to a power
cut does not agree with it.
"""

import struct
from functools import lru_cache
from pathlib import Path

from blake3 import blake3

from dicom_node.domain import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, Instance, Refused
from dicom_node.receive.header import checked_header, split_file
from dicom_node.store import PAGE_BYTES, instance_name

_SAID = struct.Struct("<8sQd32s")  # kind, size of the data set in bytes, received at (seconds since the epoch), its BLAKE3
_CHECK_BYTES = 16  # and then as much of the BLAKE3 of all that comes before the data set, up to here
_RECEIPT_BYTES = _SAID.size + _CHECK_BYTES
_KIND = b"RECEIPT1"
_BEGIN = b"\x02\x00\x01\x00OB\x00\x00\x02\x00\x00\x00\x00\x01"  # File Meta Information Version
_LENGTH_AT = 140  # in a file: the value of File Meta Information Group Length
_FIXED_BYTES = _LENGTH_AT + 4 + len(_BEGIN) + 12 + _RECEIPT_BYTES  # of every file: what names neither instance nor peers
_CHUNK_BYTES = 1 << 20


def file_meta(
    sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, sending_ae: str, receiving_ae: str, *, expected_bytes: int | None = None
) -> bytes:
    """Return preamble, prefix and File Meta Information (PS3.10 §7.1) of a file that this node writes; its last bytes are the receipt's room.

    expected_bytes: how long the data set will probably be; a file of that length then ends at the end of a page, which is written the quickest.
    """
    said = _element(0x0002, b"UI", sop_class_uid) + _element(0x0003, b"UI", sop_instance_uid)
    constant = _constant(transfer_syntax_uid, sending_ae, receiving_ae)
    size = _FIXED_BYTES + len(said) + len(constant)
    padding = 0 if expected_bytes is None or expected_bytes % 2 else -(size + expected_bytes) % PAGE_BYTES
    room = padding + _RECEIPT_BYTES
    length = (size + padding - _LENGTH_AT - 4).to_bytes(4, "little")
    private = b"\x02\x00\x02\x01OB\x00\x00" + room.to_bytes(4, "little") + bytes(room)
    return b"".join((bytes(128), b"DICM\x02\x00\x00\x00UL\x04\x00", length, _BEGIN, said, constant, private))


@lru_cache(64)
def _constant(transfer_syntax_uid: str, sending_ae: str, receiving_ae: str) -> bytes:
    """Return what follows the instance's own UIDs: the same for all instances of an association's context."""
    elements = (
        (0x0010, b"UI", transfer_syntax_uid),
        (0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
        (0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
        (0x0016, b"AE", sending_ae),
        (0x0017, b"AE", sending_ae),
        (0x0018, b"AE", receiving_ae),
        (0x0100, b"UI", IMPLEMENTATION_CLASS_UID),
    )
    return b"".join(_element(*element) for element in elements)


def receipt(meta: bytes, size_bytes: int, received_at: float, digest: bytes) -> bytes:
    """Return the receipt of a data set that follows this File Meta Information."""
    said = _SAID.pack(_KIND, size_bytes, received_at, digest)
    return said + _check(meta[: receipt_at(meta)] + said)


def receipt_at(meta: bytes) -> int:
    """Return where in a file the receipt is written."""
    return len(meta) - _RECEIPT_BYTES


def _check(before: bytes) -> bytes:
    return blake3(before).digest(_CHECK_BYTES)


def recovered(path: Path) -> Instance | None:
    """Return the instance in a file of `incoming` that its receipt shows to be whole; None when there is none."""
    try:
        with path.open("rb") as file:
            head = file.read(_CHUNK_BYTES)
            start = _LENGTH_AT + 4 + int.from_bytes(head[_LENGTH_AT : _LENGTH_AT + 4], "little")
            said, _ = split_file(head[:start])  # no further: some devices begin their data sets with elements of group 0002 too
            kind, size, received_at, digest = _SAID.unpack_from(head, start - _RECEIPT_BYTES)
            if kind != _KIND or _check(head[: start - _CHECK_BYTES]) != head[start - _CHECK_BYTES : start]:
                return None
            if path.stat().st_size != start + size or digest_of(path, start) != digest:
                return None
            header = checked_header(head[start:] if size <= len(head) - start else path.read_bytes()[start:], said["TransferSyntaxUID"])
    except (Refused, struct.error, OSError, KeyError):
        return None
    return Instance(
        sop_instance_uid=header["SOPInstanceUID"],
        sop_class_uid=header["SOPClassUID"],
        transfer_syntax_uid=said["TransferSyntaxUID"],
        study_instance_uid=header["StudyInstanceUID"],
        series_instance_uid=header["SeriesInstanceUID"],
        path=instance_name(path.name, header["StudyInstanceUID"], received_at),
        size_bytes=start + size,
        digest=digest.hex(),
        calling_ae=said.get("SourceApplicationEntityTitle", ""),
        received_at=received_at,
        header=header,
    )


def is_as_received(path: Path, received: Instance) -> bool:
    """Say whether a file holds, byte by byte, the data set that was received; it is read whole."""
    try:
        with path.open("rb") as file:
            head = file.read(_LENGTH_AT + 4)
        start = _LENGTH_AT + 4 + int.from_bytes(head[_LENGTH_AT:], "little")
        return path.stat().st_size == received.size_bytes and digest_of(path, start).hex() == received.digest
    except OSError:
        return False


def digest_of(path: Path, start: int) -> bytes:
    """Return the BLAKE3 of a file from `start` on."""
    digest = blake3()
    with path.open("rb") as file:
        file.seek(start)
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.digest()


def _element(element: int, vr: bytes, value: str) -> bytes:
    raw = value.encode("ascii", errors="replace")[:64]
    raw += (b"\0" if vr == b"UI" else b" ") * (len(raw) % 2)
    return b"\x02\x00" + element.to_bytes(2, "little") + vr + len(raw).to_bytes(2, "little") + raw
