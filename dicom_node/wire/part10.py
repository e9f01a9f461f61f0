"""A DICOM file (PS3.10 §7) as something to send: what its File Meta Information says, and its data set's bytes as they lie on disk."""

import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from dicom_node.wire.message import Malformed

_PREAMBLE_BYTES = 132  # with the prefix DICM
_HEAD_BYTES = 4096  # what is read first: nearly every File Meta Information ends within it
_SHORT_BYTES = 1 << 15  # of a data set
_META_BYTES = 1 << 20  # of File Meta Information at most
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})  # PS3.5 Table 7.1-1
_SHORT_HEAD, _LONG_LENGTH = struct.Struct("<HH2sH"), struct.Struct("<I")
_SOP_CLASS, _SOP_INSTANCE, _TRANSFER_SYNTAX = 0x0002, 0x0003, 0x0010


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMeta:
    """What is needed of the File Meta Information (PS3.10 Table 7.1-1) to send what follows it."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data_set_at: int  # bytes from the file's start

    @property
    def names(self) -> tuple[str, str, str]:
        """SOP class, SOP instance and transfer syntax."""
        return self.sop_class_uid, self.sop_instance_uid, self.transfer_syntax_uid


class StoredFile:
    """An open DICOM file, its length fixed when it is opened.

    Raises
    ------
    OSError: it cannot be opened or read.
    Malformed: it is not a DICOM file.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            whole_bytes = os.fstat(self._descriptor).st_size
            head = os.pread(self._descriptor, _HEAD_BYTES, 0)
            try:
                self.meta = read_file_meta(head, whole=len(head) >= whole_bytes)
            except IndexError:
                self.meta = read_file_meta(os.pread(self._descriptor, _META_BYTES, 0), whole=True)
            self.size = whole_bytes - self.meta.data_set_at  # of the data set, bytes
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._descriptor)

    def mapped(self) -> memoryview:
        """Return the data set as memory, for system calls alone: who reads a page of it that the file has lost is killed by SIGBUS.

        A short one is read instead, which costs less.

        Raises
        ------
        Malformed: the file has become shorter.
        """
        if self.size <= _SHORT_BYTES:
            self.read(short := memoryview(bytearray(self.size)), 0)
            return short
        whole = mmap.mmap(self._descriptor, self.meta.data_set_at + self.size, prot=mmap.PROT_READ)
        return memoryview(whole)[self.meta.data_set_at :]

    def read(self, into: memoryview, at: int) -> None:
        """Fill a buffer with the data set's bytes from a position on.

        Raises
        ------
        OSError: it cannot be read.
        Malformed: the file has become shorter.
        """
        got = 0
        while got < len(into):
            more = os.preadv(self._descriptor, [into[got:]], self.meta.data_set_at + at + got)
            if not more:
                raise Malformed("the file has become shorter")
            got += more


def read_file_meta(head: bytes, *, whole: bool) -> FileMeta:
    """Return what the File Meta Information at the start of a file says; group 0002, Explicit VR Little Endian (PS3.10 §7.1).

    whole: nothing comes after these bytes that could belong to it.

    Raises
    ------
    IndexError: it goes on after these bytes.
    Malformed: it is not a DICOM file, or lacks one of the three UIDs.
    """
    if head[128:_PREAMBLE_BYTES] != b"DICM":
        raise Malformed("not a DICOM file")
    values, at = _elements(head, _PREAMBLE_BYTES, whole)
    try:
        sop_class, sop_instance, syntax = (
            values[element].rstrip(b"\0 ").decode("ascii") for element in (_SOP_CLASS, _SOP_INSTANCE, _TRANSFER_SYNTAX)
        )
    except (KeyError, UnicodeDecodeError) as error:
        raise Malformed("its file meta information lacks a UID that it must have") from error
    return FileMeta(sop_class_uid=sop_class, sop_instance_uid=sop_instance, transfer_syntax_uid=syntax, data_set_at=at)


def _elements(head: bytes, at: int, whole: bool) -> tuple[dict[int, bytes], int]:
    """Return the elements of group 0002 by their number, and where the next group begins."""
    values: dict[int, bytes] = {}
    while True:
        if len(head) - at < _SHORT_HEAD.size + _LONG_LENGTH.size and not whole:
            raise IndexError("more is needed")
        if len(head) - at < _SHORT_HEAD.size:
            return values, at
        group, element, vr, length = _SHORT_HEAD.unpack_from(head, at)
        if group != 0x0002:
            return values, at
        start = at + _SHORT_HEAD.size
        if vr in _LONG:
            if len(head) - start < _LONG_LENGTH.size:
                raise Malformed("its file meta information is cut off")
            (length,) = _LONG_LENGTH.unpack_from(head, start)
            start += _LONG_LENGTH.size
        at = start + length
        if at > len(head):
            raise Malformed("its file meta information is cut off") if whole else IndexError("more is needed")
        values[element] = head[start:at]
