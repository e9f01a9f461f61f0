"""Objects that are held, as files: sent as they lie, or made ready in Explicit VR Little Endian, which is what the web knows (PS3.18 8.7.3.4)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.coding.transcode import SOURCES, transcode
from dicom_node.domain import Transient, Unsuitable
from dicom_node.store import Archive, Stored
from dicom_node.web.dicomweb.accept import ANY
from dicom_node.web.dicomweb.parts import AT_ONCE_BYTES
from dicom_node.wire import Malformed, StoredFile

EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED = map(
    str, (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
)
_NOT_ON_THE_WEB = (IMPLICIT, BIG_ENDIAN)
_NOT_READ = (BIG_ENDIAN, DEFLATED)  # made explicit and little before anything is looked for in them


class Lost(Transient):
    """Raised when an object's file is not there any more, or not what it was."""


def syntax_for(stored: str, asked: str) -> str | None:
    """Return the transfer syntax that an object goes out in; None where it cannot be had as it is asked for (PS3.18 8.7.3.4 and 8.7.3.5.2).

    asked: empty for the default, which is Explicit VR Little Endian, or as it is stored where pixels are coded with loss; `ANY` for as it is stored.
    """
    may = stored not in _NOT_ON_THE_WEB
    if may and (asked in (ANY, stored) or (not asked and stored not in SOURCES)):
        return stored
    return EXPLICIT if asked in ("", ANY, EXPLICIT) and stored in SOURCES else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A DICOM file, in a transfer syntax."""

    stored: Stored
    archive: Archive
    syntax: str

    @property
    def size(self) -> int | None:
        """Its length, where nothing has to be made."""
        return self.stored.size_bytes if self.syntax == self.stored.transfer_syntax_uid else None

    @contextmanager
    def open(self) -> Iterator[tuple[int, Iterator[bytes]]]:
        """Lend its bytes.

        Raises
        ------
        Lost: it is not there any more.
        Unsuitable: it cannot be made.
        """
        place = self.archive.path(self.stored.path)
        if self.size is None:
            with made(self.stored, place, self.archive.root) as descriptor:
                yield os.fstat(descriptor).st_size, pieces(descriptor, 0, os.fstat(descriptor).st_size)
            return
        descriptor = _opened(place)
        try:
            if os.fstat(descriptor).st_size != self.size:
                raise _lost(self.stored)
            yield self.size, pieces(descriptor, 0, self.size)
        finally:
            os.close(descriptor)


@contextmanager
def made(stored: Stored, place: Path, folder: Path) -> Iterator[int]:
    """Lend the descriptor of a file in a folder, without a name, that holds an object in Explicit VR Little Endian.

    Raises
    ------
    Lost: its own file is not there, or not what the ledger says.
    Unsuitable: it cannot be made.
    """
    try:
        with StoredFile(place) as file:
            meta = file.meta
        if meta.transfer_syntax_uid != stored.transfer_syntax_uid:
            raise Malformed("its file meta information is not what the ledger says")
    except (OSError, Malformed) as error:
        raise _lost(stored) from error
    if stored.transfer_syntax_uid not in SOURCES:
        raise Unsuitable("its pixels lost something when they were coded")
    with TemporaryFile(dir=folder) as out:
        out.write(bytes(128) + b"DICM")
        said = FileMetaDataset()
        said.MediaStorageSOPClassUID, said.MediaStorageSOPInstanceUID = stored.sop_class_uid, stored.sop_instance_uid
        said.TransferSyntaxUID = EXPLICIT
        write_file_meta_info(out, said)
        transcode(place, meta.data_set_at, meta.transfer_syntax_uid, EXPLICIT, out)
        out.flush()
        yield out.fileno()


@contextmanager
def readable(stored: Stored, archive: Archive) -> Iterator[StoredFile]:
    """Lend an object's file, little endian and not deflated, to look for something in it.

    Raises
    ------
    Lost: it is not there any more.
    Unsuitable: it cannot be made so.
    """
    place = archive.path(stored.path)
    if stored.transfer_syntax_uid in _NOT_READ:
        with made(stored, place, archive.root) as descriptor, StoredFile(Path(f"/dev/fd/{descriptor}")) as file:
            yield file
        return
    try:
        file = StoredFile(place)
    except (OSError, Malformed) as error:
        raise _lost(stored) from error
    with file:
        yield file


def pieces(descriptor: int, start: int, length: int) -> Iterator[bytes]:
    """Read a part of a file.

    Raises
    ------
    Lost: the file has become shorter.
    """
    while length:
        data = os.pread(descriptor, min(length, AT_ONCE_BYTES), start)
        if not data:
            raise Lost("a file became shorter while it was sent")
        yield data
        start += len(data)
        length -= len(data)


def _opened(place: Path) -> int:
    try:
        return os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Lost(f"a file of an object cannot be opened: {error.strerror}") from error


def _lost(stored: Stored) -> Lost:
    return Lost(f"instance {stored.sop_instance_uid} is not there any more as it was")
