"""From the bytes of a data set to a durable instance, or to the status that says why not. C-STORE and import go in by the same door.

Nothing here knows where the bytes came from: whoever has a data set whole, from a socket or a file, calls `Door.take`.
"""

import contextlib
from pathlib import Path
from typing import Any, BinaryIO

from dicom_node.config import Node
from dicom_node.domain import Instance, Refused, Transient
from dicom_node.receive.header import CANNOT_PARSE, Bytes, checked_header, split_file, tolerable_uid
from dicom_node.receive.receipt import file_meta, receipt, receipt_at
from dicom_node.receive.series import SeriesReader
from dicom_node.store import Draft, Recorded, Spelled, Store, pour

OUT_OF_RESOURCES = 0xA700  # PS3.4 Table B.2-1
DOES_NOT_MATCH = 0xA900
_LOOK_EVERY_BYTES = 8 << 20  # of a long data set: so often the free space is looked at again
_MIB = 1 << 20
_HEAD_BYTES = 1 << 14  # of a data set that are looked at first
NOWHERE = memoryview(bytearray(1 << 16))  # where bytes go that are not kept; nobody reads them


class Door:
    """Takes data sets into the store, each with its own File Meta Information, its bytes untouched."""

    def __init__(self, store: Store, node: Node) -> None:
        self._store = store
        self._node = node

    def open(
        self,
        *,
        sop_class_uid: str | None,
        sop_instance_uid: str | None,
        transfer_syntax_uid: str,
        calling_ae: str,
        study_instance_uid: str = "",
        headers: SeriesReader | None = None,
        expected_bytes: int | None = None,
    ) -> "Arrival":
        """Begin to take a data set.

        sop_class_uid, sop_instance_uid: what the sender said it is (PS3.7 9.1.1.1), which must be what it is; none: nothing was said.
        study_instance_uid: of which study it has to be; empty: of any.
        headers: reads those of its like.
        expected_bytes: how long it will probably be.
        """
        said = {"SOPClassUID": _bare(sop_class_uid), "SOPInstanceUID": _bare(sop_instance_uid)}
        peers = calling_ae, self._node.ae_title
        meta = file_meta(said["SOPClassUID"], said["SOPInstanceUID"], transfer_syntax_uid, *peers, expected_bytes=expected_bytes)
        said |= {"StudyInstanceUID": study_instance_uid}
        return Arrival(self._store, self._node, said, meta, transfer_syntax_uid, calling_ae, headers or SeriesReader())

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
        """Take a data set that is whole already, and return what became of it.

        Raises
        ------
        Refused: as `Arrival.close`.
        """
        arrival = self.open(
            sop_class_uid=sop_class_uid, sop_instance_uid=sop_instance_uid, transfer_syntax_uid=transfer_syntax_uid, calling_ae=calling_ae
        )
        arrival.write(data_set)
        return arrival.close(received_at)


class Arrival:
    """A data set on its way into the store: written as it comes, in flat memory, whatever its length.

    What cannot be taken is read to its end and refused then: a sender hears nothing before it has sent all.
    """

    def __init__(
        self, store: Store, node: Node, said: dict[str, str], meta: bytes, transfer_syntax_uid: str, calling_ae: str, headers: SeriesReader
    ) -> None:
        self._store = store
        self._node = node
        self._said = said
        self._transfer_syntax_uid = transfer_syntax_uid
        self._calling_ae = calling_ae
        self._headers = headers
        self._meta = meta
        self.study_instance_uid = ""  # known once it is closed
        self.size_bytes = 0  # of what has come
        self._look_at_bytes = 0  # from this size on the free space has not been looked at
        self._header: dict[str, Any] | None = None
        self._looked = False  # whether the beginning was searched for a header
        self._draft: Draft | None = None
        self._failure: Transient | None = None
        self._refusal: Refused | None = None  # known before it has come

    @property
    def header(self) -> dict[str, Any]:
        """What is known of the data set: its header, once that was read, or the names that its sender gave it."""
        return self._header or self._said

    def room(self, most_bytes: int) -> memoryview:
        """Return where the next bytes go: so many at most, and at least one. From the first failure on they are forgotten."""
        if self._failure is None:
            try:
                if self.size_bytes >= self._look_at_bytes:
                    self._look_at_bytes += _LOOK_EVERY_BYTES
                    self._keep_reserve(most_bytes)
                return self._drafted.room(most_bytes)
            except Transient as failure:
                self._fail(failure)
        return NOWHERE[:most_bytes]

    def took(self, count: int) -> None:
        """Go on after so many bytes that were put where `room` said."""
        if self._failure is not None:
            return
        self.size_bytes += count
        if not self._looked and self.size_bytes >= _HEAD_BYTES:
            self._look()
        self._drafted.took(count)

    def write(self, data: Bytes) -> None:
        """Take the next bytes by a copy."""
        pour(data, self)

    def refuse(self, refusal: Refused) -> None:
        """Let it be refused at its end."""
        self._refusal = refusal

    def close(self, received_at: float) -> Recorded:
        """Make what has come durable, with its row, and return what became of it; when this returns, it survives a power cut.

        What cannot be used (C0xx) is kept in quarantine with its reason, for as long as the disk reserve allows.

        Raises
        ------
        Refused: A700 out of resources, try again; A900 not what the sender said; C001 cannot be parsed; C002 a UID is missing (PS3.4 B.2.3).
        """
        try:
            if not self.size_bytes:
                self.room(1)
            if self._failure is not None:
                raise self._failure
            return self._recorded(self._judged(received_at), received_at)
        except Transient as error:
            raise Refused(f"Out of resources: {error}", status=OUT_OF_RESOURCES, hint=error.hint) from error
        finally:
            self.drop()

    def drop(self) -> None:
        """Forget what has come and is not recorded: its sender has gone, or was refused."""
        if self._draft is not None and self._draft.descriptor >= 0:
            self._draft.drop()

    @property
    def _drafted(self) -> Draft:
        if self._draft is None:
            self._draft = self._store.archive.draft(self._meta)
        return self._draft

    def _fail(self, failure: Transient) -> None:
        self._failure = failure
        self.drop()

    def _keep_reserve(self, size_bytes: int) -> None:
        free_mb = self._store.archive.free_mb() - (size_bytes >> 20)
        if free_mb < self._node.disk_reserve_mb:
            hint = f"{max(free_mb, 0)} MB are free, node.disk_reserve_mb is {self._node.disk_reserve_mb}: free space in the storage folder."
            raise Transient("the disk is below its reserve", hint=hint)

    def _look(self) -> None:
        """Look for the header in what has come, while the rest is coming: nearly always the beginning has all that is wanted."""
        self._looked = True
        with contextlib.suppress(Refused):  # else it is judged when all has come
            beginning = bytes(self._drafted.beginning(_HEAD_BYTES))
            self._header = Spelled(self._headers.read(beginning, self._transfer_syntax_uid))

    def _judged(self, received_at: float) -> dict[str, Any]:
        """Return the header of a data set that can be used and is what was announced; keep in quarantine one that cannot."""
        try:
            if self._refusal is not None:
                raise self._refusal
            header = self._header = self._header or checked_header(self._drafted.data_set(), self._transfer_syntax_uid)
            _same(self._said, header)
        except Refused as refusal:
            if refusal.status & 0xF000 == 0xC000:
                self._quarantine(refusal, received_at)
            raise
        return header

    def _recorded(self, header: dict[str, Any], received_at: float) -> Recorded:
        self.study_instance_uid = study = header["StudyInstanceUID"]
        draft = self._drafted
        digest = draft.digest
        path = draft.seal(receipt(self._meta, self.size_bytes, received_at, digest), receipt_at(self._meta), study, received_at=received_at)
        received = Instance(
            sop_instance_uid=header["SOPInstanceUID"],
            sop_class_uid=header["SOPClassUID"],
            transfer_syntax_uid=self._transfer_syntax_uid,
            study_instance_uid=study,
            series_instance_uid=header["SeriesInstanceUID"],
            path=path,
            size_bytes=draft.size_bytes,
            digest=digest.hex(),
            calling_ae=self._calling_ae,
            received_at=received_at,
            header=header,
        )
        return self._store.instances.record(received, timeout_s=self._node.dimse_timeout_s)

    def _quarantine(self, refusal: Refused, received_at: float) -> None:
        name = self._store.archive.put_in_quarantine(self._drafted, at=received_at)
        instance = self._said["SOPInstanceUID"]
        reason = f"{refusal.status:04X} {refusal}"
        self._store.instances.quarantine(
            name, at=received_at, source=self._calling_ae, reason=reason, sop_instance_uid=instance if tolerable_uid(instance) else ""
        )


def import_file(door: Door, path: Path, *, received_at: float, calling_ae: str = "import") -> Recorded:
    """Take a DICOM file by the same door, with or without preamble and meta information; the file itself stays as and where it is.

    Raises
    ------
    Refused: as `Door.take`; with C001, and no copy in quarantine, when the file cannot be read or is no DICOM file at all.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_MIB)
            said, start = split_file(head)
            arrival = door.open(
                sop_class_uid=said.get("MediaStorageSOPClassUID"),
                sop_instance_uid=said.get("MediaStorageSOPInstanceUID"),
                transfer_syntax_uid=said["TransferSyntaxUID"],
                calling_ae=calling_ae,
            )
            _pour(arrival, memoryview(head)[start:], file)
    except OSError as error:
        raise Refused(f"Not readable: {error.strerror}", status=CANNOT_PARSE, hint="Look at the file and its permissions.") from error
    return arrival.close(received_at)


def _pour(arrival: Arrival, head: memoryview, file: BinaryIO) -> None:
    try:
        arrival.write(head)
        while chunk := file.read(_MIB):
            arrival.write(chunk)
    except OSError:
        arrival.drop()
        raise


def _same(said: dict[str, str], header: dict[str, Any]) -> None:
    for keyword, uid in said.items():
        if uid and uid != header[keyword]:
            raise Refused(f"{keyword} is not the one that was announced", status=DOES_NOT_MATCH)


def _bare(uid: str | None) -> str:
    return (uid or "").strip("\0 ")
