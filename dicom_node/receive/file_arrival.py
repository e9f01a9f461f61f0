"""A DICOM file that comes in pieces, as HTTP brings it: by the door, in flat memory, once its File Meta Information was read (PS3.10 §7.1)."""

from typing import Any

from dicom_node.domain import Refused
from dicom_node.receive.door import Arrival, Door
from dicom_node.receive.header import split_file
from dicom_node.store import Recorded

_HEAD_BYTES, _LONG_HEAD_BYTES = 1 << 16, 1 << 20  # of a file that are looked at for its meta information; the latter where it says it is long
_META_AT = 144  # where what follows the group length begins
_PREFIX = b"DICM\x02\x00\x00\x00UL\x04\x00"
_GUESSED = "1.2.840.10008.1.2.1"  # the transfer syntax of what is no DICOM file


class FileArrival:
    """A file on its way into the store.

    What is no DICOM file is taken like a data set that cannot be parsed: it is refused at its end, and kept in quarantine.

    study_instance_uid: of which study it has to be; empty: of any.
    """

    def __init__(self, door: Door, *, calling_ae: str, study_instance_uid: str = "") -> None:
        self._door = door
        self._calling_ae = calling_ae
        self._study_instance_uid = study_instance_uid
        self._head = bytearray()
        self._arrival: Arrival | None = None

    @property
    def header(self) -> dict[str, Any]:
        """What is known of it: as of `Arrival.header`."""
        return self._arrival.header if self._arrival is not None else {}

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes by a copy."""
        if self._arrival is not None:
            self._arrival.write(data)
            return
        self._head += data
        if len(self._head) >= self._wanted_bytes:
            self._open()

    def close(self, received_at: float) -> Recorded:
        """Make it durable, and return what became of it.

        Raises
        ------
        Refused: as `Arrival.close`; A900 when it is not of the study that it has to be of, too.
        """
        return (self._arrival or self._open()).close(received_at)

    def drop(self) -> None:
        """Forget what has come."""
        self._head = bytearray()
        if self._arrival is not None:
            self._arrival.drop()

    @property
    def _wanted_bytes(self) -> int:
        """How much has to be there before it is told where the data set begins."""
        if len(self._head) >= _META_AT and self._head[128 : 128 + len(_PREFIX)] == _PREFIX:
            end = _META_AT + int.from_bytes(self._head[_META_AT - 4 : _META_AT], "little")
            return _HEAD_BYTES if end <= _HEAD_BYTES else _LONG_HEAD_BYTES
        return _LONG_HEAD_BYTES

    def _open(self) -> Arrival:
        head, self._head = bytes(self._head), bytearray()
        refused = None
        try:
            said, start = split_file(head)
        except Refused as refusal:
            said, start, refused = {"TransferSyntaxUID": _GUESSED}, 0, refusal
        self._arrival = self._door.open(
            sop_class_uid=said.get("MediaStorageSOPClassUID"),
            sop_instance_uid=said.get("MediaStorageSOPInstanceUID"),
            transfer_syntax_uid=said["TransferSyntaxUID"],
            calling_ae=self._calling_ae,
            study_instance_uid=self._study_instance_uid,
        )
        if refused is not None:
            self._arrival.refuse(refused)
        self._arrival.write(memoryview(head)[start:])
        return self._arrival
