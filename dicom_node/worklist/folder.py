"""The folder of worklist files: each is read when it is new or has changed, and one that cannot be used is named and passed over.

The files are those that DCMTK's `wlmscpfs` reads: `NAME.wl`, each a data set of PS3.10 with a Scheduled Procedure Step Sequence. Whatever else lies
there, its `lockfile` too, is left alone.
"""

import os
import stat
import threading
from io import BytesIO
from pathlib import Path

import structlog
from pydicom import dcmread

from dicom_node.domain import Refused
from dicom_node.worklist.mwl import OUT_OF_RESOURCES, Entry, entries

_SUFFIX = ".wl"
_FILES_MAX = 5_000
_BYTES_MAX = 1 << 18  # of one file

_log = structlog.get_logger()

_Signature = tuple[int, int, int]  # when it was changed, its size, its inode


class Folder:
    """The entries of one folder, as the files are now."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._known: dict[str, tuple[_Signature, tuple[Entry, ...]]] = {}
        self._reading = threading.Lock()
        self._was_full = False

    def entries(self) -> tuple[Entry, ...]:
        """Return every entry, in the order of the files' names.

        Raises
        ------
        Refused: the folder cannot be read.
        """
        with self._reading:
            found = self._files()
            self._known = {name: self._kept(name, signature) for name, signature in found.items()}
            return tuple(one for _, of_file in self._known.values() for one in of_file)

    def _files(self) -> dict[str, _Signature]:
        try:
            with os.scandir(self._place) as listed:
                found = {one.name: signature for one in listed if one.name.endswith(_SUFFIX) and (signature := _signature(one)) is not None}
        except OSError as error:
            _log.error("worklist.folder_unreadable", reason=error.strerror)
            raise Refused("the worklist cannot be read now", status=OUT_OF_RESOURCES) from error
        names = sorted(found)
        if len(names) > _FILES_MAX and not self._was_full:
            _log.error("worklist.too_many_files", files=len(names), read=_FILES_MAX)
        self._was_full = len(names) > _FILES_MAX
        return {name: found[name] for name in names[:_FILES_MAX]}

    def _kept(self, name: str, signature: _Signature) -> tuple[_Signature, tuple[Entry, ...]]:
        known = self._known.get(name)
        if known is not None and known[0] == signature:
            return known
        try:
            return signature, _read(self._place / name)
        except Exception as error:  # whatever pydicom raises on a file that somebody else wrote, perhaps half of it; a change has it read again
            reason = str(error) if type(error) is ValueError else type(error).__name__  # others' texts may quote a value
            _log.warning("worklist.file_skipped", file=name, reason=reason)
            return signature, ()


def _signature(one: "os.DirEntry[str]") -> _Signature | None:
    try:
        state = one.stat()
    except OSError:  # it went while the folder was read
        return None
    return (state.st_mtime_ns, state.st_size, state.st_ino) if stat.S_ISREG(state.st_mode) else None


def _read(place: Path) -> tuple[Entry, ...]:
    with place.open("rb") as file:
        data = file.read(_BYTES_MAX + 1)
    if len(data) > _BYTES_MAX:
        raise ValueError(f"it is longer than {_BYTES_MAX} bytes")
    return entries(dcmread(BytesIO(data), force=True))
