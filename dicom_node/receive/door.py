"""From the bytes of a data set to a durable instance, or to the status that says why not. C-STORE and import go in by the same door.

Nothing here knows where the bytes came from: whoever has a data set whole, from a socket or a file, calls `Door.take`.
"""

from hashlib import sha256
from pathlib import Path
from typing import Any

from dicom_node.config import Node
from dicom_node.domain import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, Instance, Refused, Transient
from dicom_node.receive.header import CANNOT_PARSE, Bytes, read_header, split_file, tolerable_uid
from dicom_node.store import Recorded, Store

OUT_OF_RESOURCES = 0xA700  # PS3.4 Table B.2-1
DOES_NOT_MATCH = 0xA900
MISSING_UID = 0xC002  # of C000-CFFF, Error: Cannot understand; C001 is in header.py


class Door:
    """Takes data sets into the store, each with its own File Meta Information, its bytes untouched."""

    def __init__(self, store: Store, node: Node) -> None:
        self._store = store
        self._node = node

    def take(
        self,
        data_set: Bytes,
        *,
        sop_class_uid: str | None,
        sop_instance_uid: str | None,
        transfer_syntax_uid: str,
        calling_ae: str,
        received_at: float,
    ) -> Recorded:
        """Store a data set as it was received, and return what became of it; when this returns, bytes and row survive a power cut.

        sop_class_uid, sop_instance_uid: what the sender said it is (PS3.7 9.1.1.1), which must be what it is; none: nothing was said.
        What cannot be used (C0xx) is kept in quarantine with its reason, for as long as the disk reserve allows.

        Raises
        ------
        Refused: A700 out of resources, try again; A900 not what the sender said; C001 cannot be parsed; C002 a UID is missing (PS3.4 B.2.3).
        """
        said = {"SOPClassUID": _bare(sop_class_uid), "SOPInstanceUID": _bare(sop_instance_uid)}
        try:
            self._keep_reserve(len(data_set))
            try:
                header = _checked(data_set, transfer_syntax_uid)
                _same(said, header)
            except Refused as refusal:
                if refusal.status & 0xF000 == 0xC000:
                    self._quarantine(data_set, refusal, said, transfer_syntax_uid, calling_ae, received_at)
                raise
            return self._record(data_set, header, transfer_syntax_uid, calling_ae, received_at)
        except Transient as error:
            raise Refused(f"Out of resources: {error}", status=OUT_OF_RESOURCES, hint=error.hint) from error

    def _keep_reserve(self, size_bytes: int) -> None:
        free_mb = self._store.archive.free_mb() - (size_bytes >> 20)
        if free_mb < self._node.disk_reserve_mb:
            hint = f"{max(free_mb, 0)} MB are free, node.disk_reserve_mb is {self._node.disk_reserve_mb}: free space in the storage folder."
            raise Transient("the disk is below its reserve", hint=hint)

    def _record(self, data_set: Bytes, header: dict[str, Any], transfer_syntax_uid: str, calling_ae: str, received_at: float) -> Recorded:
        study, instance = header["StudyInstanceUID"], header["SOPInstanceUID"]
        digest = sha256(data_set).hexdigest()
        if self._store.instances.holds(study, instance, digest):  # so that what is sent again costs no file
            return Recorded.IDENTICAL
        meta = file_meta(header["SOPClassUID"], instance, transfer_syntax_uid, calling_ae, self._node.ae_title)
        received = Instance(
            sop_instance_uid=instance,
            sop_class_uid=header["SOPClassUID"],
            transfer_syntax_uid=transfer_syntax_uid,
            study_instance_uid=study,
            series_instance_uid=header["SeriesInstanceUID"],
            path=self._store.archive.write_instance((meta, data_set), study, received_at=received_at),
            size_bytes=len(meta) + len(data_set),
            digest=digest,
            calling_ae=calling_ae,
            received_at=received_at,
            header=header,
        )
        return self._store.instances.record(received, timeout_s=self._node.dimse_timeout_s)

    def _quarantine(
        self, data_set: Bytes, refusal: Refused, said: dict[str, str], transfer_syntax_uid: str, calling_ae: str, received_at: float
    ) -> None:
        meta = file_meta(said["SOPClassUID"], said["SOPInstanceUID"], transfer_syntax_uid, calling_ae, self._node.ae_title)
        name = self._store.archive.write_quarantine((meta, data_set), at=received_at)
        instance = said["SOPInstanceUID"] if tolerable_uid(said["SOPInstanceUID"]) else ""
        reason = f"{refusal.status:04X} {refusal}"
        self._store.instances.quarantine(name, at=received_at, source=calling_ae, reason=reason, sop_instance_uid=instance)


def import_file(door: Door, path: Path, *, received_at: float, calling_ae: str = "import") -> Recorded:
    """Take a DICOM file by the same door, with or without preamble and meta information; the file itself stays as and where it is.

    Raises
    ------
    Refused: as `Door.take`; with C001, and no copy in quarantine, when the file cannot be read or is no DICOM file at all.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Refused(f"Not readable: {error.strerror}", status=CANNOT_PARSE, hint="Look at the file and its permissions.") from error
    said, start = split_file(data)
    return door.take(
        memoryview(data)[start:],
        sop_class_uid=said.get("MediaStorageSOPClassUID"),
        sop_instance_uid=said.get("MediaStorageSOPInstanceUID"),
        transfer_syntax_uid=said["TransferSyntaxUID"],
        calling_ae=calling_ae,
        received_at=received_at,
    )


def file_meta(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, sending_ae: str, receiving_ae: str) -> bytes:
    """Return preamble, prefix and File Meta Information (PS3.10 §7.1) of a file that this node writes."""
    body = b"\x02\x00\x01\x00OB\x00\x00\x02\x00\x00\x00\x00\x01" + b"".join(
        _element(element, vr, value)
        for element, vr, value in (
            (0x0002, b"UI", sop_class_uid),
            (0x0003, b"UI", sop_instance_uid),
            (0x0010, b"UI", transfer_syntax_uid),
            (0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
            (0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
            (0x0016, b"AE", sending_ae),
            (0x0017, b"AE", sending_ae),
            (0x0018, b"AE", receiving_ae),
        )
    )
    return b"\0" * 128 + b"DICM\x02\x00\x00\x00UL\x04\x00" + len(body).to_bytes(4, "little") + body


def _element(element: int, vr: bytes, value: str) -> bytes:
    raw = value.encode("ascii", errors="replace")[:64]
    raw += (b"\0" if vr == b"UI" else b" ") * (len(raw) % 2)
    return b"\x02\x00" + element.to_bytes(2, "little") + vr + len(raw).to_bytes(2, "little") + raw


def _checked(data_set: Bytes, transfer_syntax_uid: str) -> dict[str, Any]:
    """Return the header of a data set that has every UID it is filed by."""
    if not tolerable_uid(transfer_syntax_uid):
        raise Refused("The transfer syntax is not a UID", status=CANNOT_PARSE)
    header = read_header(data_set, transfer_syntax_uid)
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        if keyword not in header:
            raise Refused(f"{keyword} is missing", status=MISSING_UID)
        if not isinstance(header[keyword], str) or not tolerable_uid(header[keyword]):
            raise Refused(f"{keyword} is not a UID", status=MISSING_UID)
    return header


def _same(said: dict[str, str], header: dict[str, Any]) -> None:
    for keyword, uid in said.items():
        if uid and uid != header[keyword]:
            raise Refused(f"{keyword} is not the one that was announced", status=DOES_NOT_MATCH)


def _bare(uid: str | None) -> str:
    return (uid or "").strip("\0 ")
