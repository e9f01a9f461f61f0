"""Has a study sent by an archive over HTTP: WADO-RS as user agent (PS3.18 10.4), each object made durable as it comes, in flat memory.

What is returned is what came of it. Whether the study is here is another question, which the ledger answers.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from http.client import HTTPException, HTTPResponse
from typing import Protocol

import structlog

from dicom_node.config import Remote
from dicom_node.domain import Canceled, NodeError, Transient, fault, is_uid
from dicom_node.guard.web import WebLine
from dicom_node.query.qido import refused
from dicom_node.query.retrieving import Fetched, Tend, Wanted
from dicom_node.wire.multipart import Begun, Ended, Event, Malformed, Reader, content_type

_ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'  # each object as it is stored there (PS3.18 8.7.3.5.2)
_OBJECT_BYTES = 2 << 30  # of one object
_BESIDE_BYTES = 1 << 20  # before the first part, or behind the last
_PIECE_BYTES = 1 << 18
_BEAT_S = 0.5
_WHOLE, _PART = 0x0000, 0xB000  # as C-MOVE says it (PS3.4 Table C.4-2)
_ABSENT = frozenset({404, 410})

_log = structlog.get_logger()


class Taken(Protocol):
    """What became of an object."""

    @property
    def status(self) -> int:
        """As of C-STORE (PS3.4 Table B.2-1); 0: it is durable."""

    @property
    def why(self) -> str:
        """Why it was not taken."""


class Bringing(Protocol):
    """A DICOM file that is brought in pieces."""

    def write(self, data: bytes | memoryview, /) -> None:
        """Take the next bytes."""

    def close(self) -> Taken:
        """Make it durable, and return what became of it."""

    def drop(self) -> None:
        """Forget it."""


Bring = Callable[[str, str], Bringing]  # AE title of who sends it, Study Instance UID that it has to have


class _Broken(Exception):
    """Raised when an answer is no more what was asked for; the message says why."""


def fetch(remote: Remote, wanted: Wanted, *, bring: Bring, tend: Tend) -> Fetched:
    """Fetch a study, or the series of it that are wanted, and return what came.

    It is waited for as long as something comes, up to `timeout_s` each time.

    Raises
    ------
    PeerUnavailable: nobody answers there, or it says that it cannot now.
    Transient: it answers that it cannot (5xx).
    Rejected: it does not take such a request.
    Canceled: `tend` did not want it any more; the connection was cut.
    """
    return _Retrieval(remote, wanted, bring, tend).run()


@dataclass(slots=True)
class _Part:
    """A part that is coming; file: None where it is no DICOM file, and is passed over."""

    file: Bringing | None
    size_bytes: int = 0


class _Retrieval:
    def __init__(self, remote: Remote, wanted: Wanted, bring: Bring, tend: Tend) -> None:
        self._remote = remote
        self._wanted = wanted
        self._bring = bring
        self._tend = tend
        self._line = WebLine(remote.web_url, remote)
        self._so_far = Fetched()
        self._refusal = ""  # the first
        self._part: _Part | None = None
        self._canceled: Canceled | None = None
        self._ended = threading.Event()

    def run(self) -> Fetched:
        watch = threading.Thread(target=self._watch, name="retrieval", daemon=True)
        watch.start()
        try:
            for path in self._paths():
                self._take_answer(path)
            fetched = self._said()
        except _Broken as broken:
            fetched = replace(self._so_far, why=f"{self._remote.web_url} {broken}")
        except NodeError:
            if self._canceled is None:
                raise
        finally:
            self._ended.set()
            watch.join()
            self._line.close()
        if self._canceled is not None:
            raise self._canceled
        return fetched

    def _paths(self) -> list[str]:
        study = f"/studies/{self._wanted.study_instance_uid}"
        series = self._wanted.series_instance_uids
        return [f"{study}/series/{uid}" for uid in series] if series and all(map(is_uid, series)) else [study]

    def _said(self) -> Fetched:
        failed = self._so_far.failed
        why = f"it answered 200, and {failed} of its objects were not taken: {self._refusal}" if failed else "it answered 200"
        return replace(self._so_far, status=_PART if failed else _WHOLE, why=why)

    def _take_answer(self, path: str) -> None:
        """Ask for a study or a series, and take what comes.

        Raises
        ------
        PeerUnavailable, Transient, Rejected: as `fetch`.
        _Broken: not all came that is in it.
        """
        if self._canceled is not None:
            raise _Broken("is not asked any more")
        answer = self._line.open("GET", path, accept=_ACCEPT)
        if answer.status in _ABSENT:
            raise _Broken(f"answered {answer.status}: it has no such study, or series")
        if answer.status not in (200, 206):
            raise refused(self._remote.web_url, answer.status, "a retrieval")
        kind, parameters = content_type(answer.headers.get("Content-Type", ""))
        if kind != "multipart/related":
            raise _Broken("answered with something that is no multipart/related")
        try:
            self._read(answer, Reader(parameters.get("boundary", "")))
        except Malformed as error:
            raise _Broken(f"sent what cannot be read: {error}") from error
        except (OSError, HTTPException, ValueError) as error:
            what = f"sent nothing for {self._remote.timeout_s:g} s" if isinstance(error, TimeoutError) else "ended the connection"
            raise _Broken(f"{what} in the middle of a retrieval") from error
        finally:
            part, self._part = self._part, None
            if part is not None and part.file is not None:
                part.file.drop()

    def _read(self, answer: HTTPResponse, reader: Reader) -> None:
        beside_bytes = 0
        while piece := answer.read1(_PIECE_BYTES):
            beside_bytes += len(piece)
            for event in reader.feed(piece):
                beside_bytes = 0
                self._take(event)
            if beside_bytes > _BESIDE_BYTES:
                raise _Broken("sends what belongs to no object")
        reader.finish()

    def _take(self, event: Event) -> None:
        part = self._part
        if isinstance(event, Begun):
            self._part = self._begun(event)
        elif part is None:
            return
        elif isinstance(event, Ended):
            self._part = None
            self._count(part)
        else:
            part.size_bytes += len(event)
            if part.size_bytes > _OBJECT_BYTES:
                raise _Broken(f"sent an object of more than {_OBJECT_BYTES} bytes")
            if part.file is not None:
                part.file.write(event)

    def _begun(self, event: Begun) -> _Part:
        kind, _ = content_type(event.headers.get("content-type", ""))
        is_file = kind in ("", "application/dicom")
        return _Part(self._bring(self._remote.ae.title, self._wanted.study_instance_uid) if is_file else None)

    def _count(self, part: _Part) -> None:
        """Make a part durable that is whole, and count it."""
        why = "it is no DICOM file"
        if part.file is not None:
            taken = part.file.close()
            why = f"{taken.status:04X} {taken.why}" if taken.status else ""
        if why:
            self._refusal = self._refusal or why
            self._so_far = replace(self._so_far, failed=self._so_far.failed + 1)
        else:
            self._so_far = replace(self._so_far, completed=self._so_far.completed + 1)

    def _watch(self) -> None:
        """Cut the connection when nobody wants it any more."""
        while not self._ended.wait(_BEAT_S):
            try:
                self._tend(self._so_far)
            except Canceled as canceled:
                self._canceled = self._canceled or canceled
                self._line.cut()  # once more where it was only being opened
            except Transient:  # the ledger is away: nobody knows whether it is still wanted
                continue
            except Exception as error:  # the outermost loop of this thread: without it nobody would ever cut the connection
                _log.error("query.watch_failed", study=self._wanted.study_instance_uid, reason=fault(error))
