"""A held instance made ready in another transfer syntax, without compression, in a file that has no name and is gone once it was sent."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import write_file_meta_info

from dicom_node.coding.transcode import transcode
from dicom_node.query.suboperations import Held
from dicom_node.wire import StoredFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """An object as it goes out, and the file that holds it."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    place: Path


@contextmanager
def ready(one: Held, place: Path, syntax: str, folder: Path) -> Iterator[Ready]:
    """Give an instance in a transfer syntax: its own file in its own, else one that is made of it, in a folder, while the block lasts.

    Raises
    ------
    OSError: a file cannot be read or written.
    Malformed, ValueError: the file is not what the ledger says.
    Unsuitable: it cannot be decoded.
    """
    if syntax == one.transfer_syntax_uid:
        yield _named(one, syntax, place)
        return
    with StoredFile(place) as file:
        meta = file.meta
    if meta.names != (one.sop_class_uid, one.sop_instance_uid, one.transfer_syntax_uid):
        raise ValueError("its file meta information is not what the ledger says")
    with TemporaryFile(dir=folder) as out:
        out.write(bytes(128) + b"DICM")
        said = FileMetaDataset()
        said.MediaStorageSOPClassUID, said.MediaStorageSOPInstanceUID, said.TransferSyntaxUID = meta.sop_class_uid, meta.sop_instance_uid, syntax
        write_file_meta_info(out, said)
        transcode(place, meta.data_set_at, meta.transfer_syntax_uid, syntax, out)
        out.flush()
        yield _named(one, syntax, Path(f"/dev/fd/{out.fileno()}"))


def _named(one: Held, syntax: str, place: Path) -> Ready:
    return Ready(sop_class_uid=one.sop_class_uid, sop_instance_uid=one.sop_instance_uid, transfer_syntax_uid=syntax, place=place)
