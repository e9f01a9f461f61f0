"""A modality that sends its images by C-STORE, quickly and as the files are, or as badly as a test asks.

Importing this changes nothing in pynetdicom. The first `push` or `echo` sets two of its process-wide switches: files are sent without being
decoded (`STORE_SEND_CHUNKED_DATASET`, which concerns only data sets given as paths) and its per-message log handlers stay unbound
(`LOG_HANDLER_LEVEL`).

Some misbehaviour needs no option: `push([*files, *files], …)` sends duplicates, `push(files[:-1], …)` and then `push(files[-1:], …)` a late slice.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import structlog
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID
from pynetdicom import _config, build_context, evt
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import split_dataset
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import Verification

from dicom_node.domain import AE, PeerUnavailable
from dicom_node.wire import Requestor, StoredFile, is_known_library

MAX_CONTEXTS = 128  # of one association: odd identifiers from 1 to 255 (PS3.8 9.3.2.2)
SOP_CLASS_NOT_SUPPORTED = 0x0122  # what a file counts as whose presentation context the peer refused (PS3.7 Annex C)
_MAX_PDU_BYTES = 131072

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the peer said to one image; `status` is none when it said nothing."""

    sop_instance_uid: str
    status: int | None

    @property
    def stored(self) -> bool:
        """Whether the peer took it: success, or a warning (PS3.4 Table B.2-1)."""
        return self.status is not None and (self.status == 0 or self.status & 0xF000 == 0xB000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What became of a push: one answer for each file given, in the order in which the answers came."""

    answers: tuple[Answer, ...]
    seconds: float

    @property
    def sent(self) -> int:
        """How many images the peer took."""
        return sum(answer.stored for answer in self.answers)

    @property
    def failed(self) -> Mapping[str, int | None]:
        """SOP Instance UID -> status of every image that the peer did not take; none where no answer came."""
        return {answer.sop_instance_uid: answer.status for answer in self.answers if not answer.stored}

    @property
    def acknowledged(self) -> frozenset[str]:
        """The SOP Instance UIDs for which the peer has taken responsibility."""
        return frozenset(answer.sop_instance_uid for answer in self.answers if answer.stored)


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    sop_class_uid: UID
    sop_instance_uid: UID
    transfer_syntax_uid: UID

    @property
    def context(self) -> tuple[UID, UID]:
        return self.sop_class_uid, self.transfer_syntax_uid


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """Who calls whom, and how."""

    to: AE
    calling_ae: str
    called_ae: str
    timeout_s: float
    nagle: bool = False

    def open(self, contexts: Iterable[PresentationContext]) -> Association:
        """Establish an association, or raise PeerUnavailable."""
        entity = Requestor(self.calling_ae, woken=not self.nagle and is_known_library())
        entity.connection_timeout = min(self.timeout_s, 10.0)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = self.timeout_s
        handlers: list[evt.EventHandlerType] = [] if self.nagle else [(evt.EVT_CONN_OPEN, _no_delay)]
        association = entity.associate(self.to.host, self.to.port, list(contexts), self.called_ae, max_pdu=_MAX_PDU_BYTES, evt_handlers=handlers)
        if not association.is_established:
            raise PeerUnavailable(f"{self.to} {_refusal(association)}", hint="Is it running there, and does it know the AE title that calls?")
        return association


# One body: its closures share what was answered so far.
def push(
    files: Sequence[Path],
    to: AE,
    *,
    calling_ae: str = "SCANNER",
    called_ae: str | None = None,
    associations: int = 1,
    abort_after: int | None = None,
    nagle: bool = False,
    timeout_s: float = 60.0,
    on_progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> Pushed:
    """Send DICOM files by C-STORE (PS3.4 Annex B), byte for byte as they are.

    called_ae: a wrong title to call the peer by. associations: how many at once. abort_after: of each association, after so many images, in the
    middle of the next. nagle: leave small packets to be delayed, as many modalities do. on_progress: gets how many of how many were answered.
    When the peer goes away midway, the images without an answer are in `Pushed.failed`.

    Raises
    ------
    PeerUnavailable: no association could be established.
    """
    _quick()
    started = time.monotonic()
    known = [_described(path) for path in files]
    shares = [known[first::associations] for first in range(associations)]
    line = _Line(to=to, calling_ae=calling_ae, called_ae=called_ae or to.title, timeout_s=timeout_s, nagle=nagle)
    answers: list[Answer] = []
    unavailable: list[PeerUnavailable] = []
    lock = threading.Lock()

    def note(answer: Answer) -> None:
        with lock:
            answers.append(answer)
            on_progress(len(answers), len(known))

    def send(share: Sequence[_File]) -> None:
        for batch in _batches(share):
            try:
                _send(batch, line, abort_after, note)
            except PeerUnavailable as error:
                unavailable.append(error)
                for file in batch:
                    note(Answer(sop_instance_uid=file.sop_instance_uid, status=None))

    with ThreadPoolExecutor(associations) as pool:
        for _ in pool.map(send, shares):
            pass
    if unavailable and all(answer.status is None for answer in answers):  # else what was answered is worth more than the error
        raise unavailable[0]
    pushed = Pushed(answers=tuple(answers), seconds=time.monotonic() - started)
    _log.info("scanner.pushed", to=str(to), sent=pushed.sent, failed=len(pushed.failed), seconds=round(pushed.seconds, 3))
    return pushed


def echo(ae: AE, calling_ae: str = "SCANNER", *, timeout_s: float = 10.0) -> float:
    """Ask a peer whether it is there (C-ECHO, PS3.4 Annex A) and return how many seconds association and answer took.

    Raises
    ------
    PeerUnavailable: no association, or no success.
    """
    _quick()
    started = time.monotonic()
    association = _Line(to=ae, calling_ae=calling_ae, called_ae=ae.title, timeout_s=timeout_s).open([build_context(Verification)])
    try:
        status = association.send_c_echo()
    finally:
        association.release()
    if "Status" not in status or status.Status != 0:
        raise PeerUnavailable(f"{ae} did not answer C-ECHO with success", hint="Look at the peer's own log.")
    return time.monotonic() - started


def _quick() -> None:
    _config.LOG_HANDLER_LEVEL = "none"
    _config.STORE_SEND_CHUNKED_DATASET = True


def _described(path: Path) -> _File:
    meta = read_file_meta_info(path)
    return _File(path, meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID)


def _batches(files: Sequence[_File]) -> Iterator[list[_File]]:
    """Part files so that each part needs no more presentation contexts than one association may propose."""
    batch: list[_File] = []
    contexts: set[tuple[UID, UID]] = set()
    for file in files:
        if file.context not in contexts and len(contexts) == MAX_CONTEXTS:
            yield batch
            batch, contexts = [], set()
        batch.append(file)
        contexts.add(file.context)
    if batch:
        yield batch


def _send(files: Sequence[_File], line: _Line, abort_after: int | None, note: Callable[[Answer], None]) -> None:
    """Send files over one association and note every answer, and every answer that did not come."""
    association = line.open(build_context(*context) for context in dict.fromkeys(file.context for file in files))
    accepted = {(cx.abstract_syntax, cx.transfer_syntax[0]): cx.context_id for cx in association.accepted_contexts}
    alive = True  # an answer that does not come ends it; `is_established` turns false a little later than that
    for count, file in enumerate(files):
        status: int | None = None
        if alive and count == abort_after:
            _abort_within(association, file, accepted.get(file.context, 1))
            alive = False
        elif file.context not in accepted:
            status = SOP_CLASS_NOT_SUPPORTED
        elif alive and association.is_established:
            status = _store(association, file, count % 65535 + 1, line.timeout_s)
            alive = status is not None
        note(Answer(sop_instance_uid=file.sop_instance_uid, status=status))
    association.ae.give_back()
    if alive and association.is_established:
        association.release()


def _store(association: Association, file: _File, message_id: int, timeout_s: float) -> int | None:
    """Send one image and return the status of its answer, none when none came.

    By pynetdicom only where it must be: of a peer that answers within the millisecond its reactor may take the answer that `send_c_store` is
    about to wait for, and drop it.
    """
    sender = association.ae.sender(association, timeout_s)
    if sender is None:
        answer = association.send_c_store(file.path, msg_id=message_id)
        return int(answer.Status) if "Status" in answer else None
    with StoredFile(file.path) as stored:
        said = sender.send(stored, message_id=message_id, patience_s=timeout_s)
    return None if said is None else said.status


def _abort_within(association: Association, file: _File, context_id: int) -> None:
    """Send the beginning of an image and abort (PS3.8 7.3): what arrived is no data set."""
    association.ae.give_back()
    request = C_STORE()
    request.MessageID = 65535
    request.Priority = 2
    request.AffectedSOPClassUID = file.sop_class_uid
    request.AffectedSOPInstanceUID = file.sop_instance_uid
    request._dataset_path = (file.path, split_dataset(file.path)[1])  # as pynetdicom's own send_c_store does with a path
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    for fragment in islice(message.encode_msg(context_id, 512), 4):  # small enough that four are never the whole of an image
        association.dul.send_pdu(fragment)
    association.abort()


def _refusal(association: Association) -> str:
    answer = association.acceptor.primitive
    if association.is_rejected and answer is not None:
        return f"rejected the association of {association.requestor.ae_title}: {answer.reason_str}"
    return "aborted the association" if association.is_aborted and answer is not None else "cannot be reached"


def _no_delay(event: evt.Event) -> None:
    """Send each packet at once: header and body of a PDU are written apart, and waiting between them costs 40 ms an image."""
    transport = event.assoc.dul.socket
    if transport is not None and transport.socket is not None:
        transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
