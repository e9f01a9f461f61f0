"""Has a study sent by an archive: C-MOVE to the node's own port, or C-GET over the association that asks (PS3.4 C.4.2 and C.4.3), as SCU.

What is returned is what the archive says of it. Whether the study is here is another question, which the ledger answers.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from time import monotonic
from typing import Any, Protocol

import structlog
from pydicom import Dataset, uid
from pynetdicom import build_role, evt
from pynetdicom.association import Association

from dicom_node.config import Node, Remote
from dicom_node.domain import Canceled, Rejected, Transient, fault, is_uid
from dicom_node.query.answers import likely_classes, printable, texts_of
from dicom_node.query.scu import SYNTAXES, Contents, Guard, end, model_of
from dicom_node.query.suboperations import MAX_CONTEXTS
from dicom_node.store import Level
from dicom_node.wire import Context, Credentials, peer

MOVE = ("1.2.840.10008.5.1.4.1.2.2.2", "1.2.840.10008.5.1.4.1.2.1.2")  # Study Root, Patient Root
GET = ("1.2.840.10008.5.1.4.1.2.2.3", "1.2.840.10008.5.1.4.1.2.1.3")

_MESSAGE_ID = 1
_OUT_OF_RESOURCES, _NOT_AUTHORISED = 0xA700, 0x0124  # PS3.4 Table B.2-1, PS3.7 C.4.1
_OBJECT_BYTES = 2 << 30  # of one object that comes by C-GET: it lies in memory while it comes
_ANSWER_BYTES = 4 << 20
_FAILED = 10_000  # UIDs of failed sub-operations that are kept
_BEAT_S = 0.5
_LEAVE_S = 5.0  # so long a peer may take to end what was cancelled
_SYNTAXES = (  # of objects, in the order of how much is gained by having them as they are stored
    *(str(uid.ExplicitVRLittleEndian), str(uid.ImplicitVRLittleEndian), str(uid.JPEGLosslessSV1), str(uid.JPEG2000Lossless)),
    *(str(uid.JPEGLSLossless), str(uid.RLELossless), str(uid.JPEGBaseline8Bit), str(uid.JPEG2000), str(uid.JPEGExtended12Bit)),
    *(str(uid.JPEGLSNearLossless), str(uid.JPEGLossless), str(uid.DeflatedExplicitVRLittleEndian), str(uid.HTJ2KLossless), str(uid.HTJ2K)),
    *(str(uid.HTJ2KLosslessRPCL), str(uid.MPEG4HP41), str(uid.MPEG2MPML), str(uid.HEVCMP51), str(uid.ExplicitVRBigEndian)),
)

_log = structlog.get_logger()


class Take(Protocol):
    """Makes an object durable that came by C-GET, and returns the status and comment to answer with: success only when it is."""

    def __call__(  # noqa: D102 - the class says it
        self, data_set: memoryview, *, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, calling_ae: str
    ) -> tuple[int, str]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be fetched: a study, or some series of it."""

    study_instance_uid: str
    series_instance_uids: tuple[str, ...] = ()  # none: all
    there: Contents = field(default_factory=lambda: Contents(number=None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What a remote says of a retrieval."""

    status: int | None = None  # of its last response; None: there was none, and `why` says what there was instead
    completed: int = 0  # sub-operations, by its own count
    failed: int = 0
    warning: int = 0
    remaining: int | None = None
    failed_uids: tuple[str, ...] = ()
    comment: str = ""
    why: str = ""


Tend = Callable[[Fetched], int]  # called twice a second with how far it is: returns how many instances are here; raises Canceled to stop it


def fetch(remote: Remote, node: Node, wanted: Wanted, *, credentials: Credentials, take: Take, tend: Tend) -> Fetched:
    """Fetch a study in the way that the remote's `retrieve` says, and return what the remote says of it.

    It is waited for as long as something happens: a response, bytes over the association, or an instance more that is here. After the remote's
    `timeout_s` without any of these the connection is cut.

    Raises
    ------
    PeerUnavailable: there is no association.
    Rejected: the remote accepts no retrieval of this kind, or no object in it.
    Canceled: `tend` did not want it any more; the remote was told so (C-CANCEL).
    """
    return _Retrieval(remote, node, wanted, take, tend).run(credentials)


class _Retrieval:
    def __init__(self, remote: Remote, node: Node, wanted: Wanted, take: Take, tend: Tend) -> None:
        self._remote = remote
        self._node = node
        self._wanted = wanted
        self._take = take
        self._tend = tend
        self._by_get = remote.retrieve == "get"
        self._guard = Guard(_OBJECT_BYTES if self._by_get else _ANSWER_BYTES)
        self._so_far = Fetched()
        self._silent = False
        self._canceled: Canceled | None = None
        self._ended = threading.Event()

    def run(self, credentials: Credentials) -> Fetched:
        association = self._associate(credentials)
        watch = threading.Thread(target=self._watch, args=(association,), name="retrieval", daemon=True)
        try:
            model = self._model(association)
            watch.start()
            fetched = self._ask(association, model)
        finally:
            self._ended.set()
            if watch.ident is not None:
                watch.join()
            peer.close(association)
        if self._canceled is not None:
            raise self._canceled
        return fetched

    # ------------------------------------------------------------------------------------------------------- association

    def _associate(self, credentials: Credentials) -> Association:
        contexts: list[Context] = [(model, syntax) for model in (GET if self._by_get else MOVE) for syntax in SYNTAXES]
        objects = _object_contexts(self._wanted.there, MAX_CONTEXTS - len(contexts)) if self._by_get else []
        roles = [build_role(sop_class, scp_role=True) for sop_class in dict.fromkeys(sop_class for sop_class, _ in objects)]
        return peer.associate(
            self._remote.ae,
            self._node.ae_title,
            [*contexts, *objects],
            timeout_s=self._remote.timeout_s,
            max_pdu_bytes=self._node.max_pdu_bytes,
            fast=self._node.store_path == "fast",
            negotiated=roles,
            handlers=[*self._guard.handlers, (evt.EVT_C_STORE, self._on_store)],
            credentials=credentials,
        )

    def _model(self, association: Association) -> str:
        """Return the information model that is retrieved by.

        Raises
        ------
        Rejected: none is accepted, or (C-GET) no object may be sent over this association.
        """
        model, what = model_of(association, GET if self._by_get else MOVE), "C-GET" if self._by_get else "C-MOVE"
        if model is None:
            other = 'retrieve = "move"' if self._by_get else 'retrieve = "get"'
            hint = f"Have the node allowed to retrieve there, or try {other}."
            raise Rejected(f"{self._remote.ae} accepts no {what} of {self._node.ae_title}", hint=hint)
        if self._by_get and not any(context.as_scp for context in association.accepted_contexts):
            why = "accepts C-GET, but no role in which objects could be sent over the association that asks (PS3.7 D.3.3.4)"
            raise Rejected(f'{self._remote.ae} {why}; set retrieve = "move"', hint="C-GET is of no use there.")
        return model

    # --------------------------------------------------------------------------------------------------------- responses

    def _ask(self, association: Association, model: str) -> Fetched:
        association.dimse_timeout = None  # the watch has more to go by
        status = None
        for said, identifier in self._responses(association, model):
            if "Status" not in said:
                break
            self._count(said)
            if int(said.Status) >> 8 != 0xFF:
                status = int(said.Status)
                uids = texts_of({"UID": _failed(identifier)}, "UID")
                self._so_far = replace(self._so_far, status=status, failed_uids=uids, comment=printable(said.get("ErrorComment")))
        if status is not None:
            return self._so_far
        end(association)
        why = "ended the association in the middle of a retrieval"
        if self._silent:
            why = f"sent nothing for {self._remote.timeout_s:g} s in the middle of a retrieval"
        return replace(self._so_far, why=f"{self._remote.ae} {why}")

    def _responses(self, association: Association, model: str) -> Iterator[tuple[Dataset, Dataset | None]]:
        identifier = self._identifier(model)
        try:
            if self._by_get:
                yield from association.send_c_get(identifier, model, msg_id=_MESSAGE_ID)
            else:
                yield from association.send_c_move(identifier, self._node.ae_title, model, msg_id=_MESSAGE_ID)
        except RuntimeError:  # the peer has ended the association
            return

    def _identifier(self, model: str) -> Dataset:
        """Return the unique keys of what is wanted, and nothing else (PS3.4 C.4.2.1.4.1)."""
        identifier = Dataset()
        identifier.StudyInstanceUID = self._wanted.study_instance_uid
        series = self._wanted.series_instance_uids
        identifier.QueryRetrieveLevel = str(Level.SERIES if series else Level.STUDY)
        if series:
            identifier.SeriesInstanceUID = list(series)
        if model in (MOVE[1], GET[1]) and self._wanted.there.patient_id:
            identifier.PatientID = self._wanted.there.patient_id
        return identifier

    def _count(self, said: Dataset) -> None:
        numbers = [said.get(f"NumberOf{what}Suboperations") for what in ("Completed", "Failed", "Warning", "Remaining")]
        completed, failed, warning, remaining = (int(number) if number is not None else None for number in numbers)
        self._so_far = replace(self._so_far, completed=completed or 0, failed=failed or 0, warning=warning or 0, remaining=remaining)

    def _on_store(self, event: evt.Event) -> Dataset | int:
        """Answer a C-STORE sub-operation of a C-GET; an archive that has named its instances may send no others over this association."""
        request, named = event.request, self._wanted.there.instances
        if named and str(request.AffectedSOPInstanceUID) not in named:
            return _NOT_AUTHORISED
        try:
            status, comment = self._take(
                request.DataSet.getbuffer() if request.DataSet else memoryview(b""),
                sop_class_uid=str(request.AffectedSOPClassUID),
                sop_instance_uid=str(request.AffectedSOPInstanceUID),
                transfer_syntax_uid=str(event.context.transfer_syntax),
                calling_ae=self._remote.ae.title,
            )
        except Exception as error:  # the outermost frame of a request: whatever a peer sends is answered
            _log.error("query.not_taken", source=self._remote.ae.title, study=self._wanted.study_instance_uid, reason=fault(error))
            status, comment = _OUT_OF_RESOURCES, "Internal error"
        answer = Dataset()
        answer.Status = status
        if comment:
            answer.ErrorComment = printable(comment.replace("\\", "/"))
        return answer

    # ------------------------------------------------------------------------------------------------------------- watch

    def _watch(self, association: Association) -> None:
        """Cut the connection when nothing has happened for too long; cancel when nobody wants it any more."""
        before: Any = None
        moved_at, patience_s = monotonic(), self._remote.timeout_s
        while not self._ended.wait(_BEAT_S):
            try:
                here = self._tend(self._so_far)
            except Canceled as canceled:
                if self._canceled is None:
                    self._canceled, patience_s, moved_at = canceled, _LEAVE_S, monotonic()
                    _cancel(association, self._by_get)
                here = 0
            except Transient:  # the ledger is away: nobody knows what is here
                here = -1
            except Exception as error:  # the outermost loop of this thread: without it nobody would ever cut the connection
                _log.error("query.watch_failed", study=self._wanted.study_instance_uid, reason=fault(error))
                here = -1
            now = here, self._so_far
            if now != before and self._canceled is None:
                before, moved_at = now, monotonic()
            since = moved_at if self._canceled is not None else max(moved_at, self._guard.moved_at)
            if monotonic() - since > patience_s:
                self._silent = True
                peer.cut(association)
                return


def _cancel(association: Association, by_get: bool) -> None:
    """Send C-CANCEL (PS3.7 9.3.3.3); the association may have ended by now."""
    model = model_of(association, GET if by_get else MOVE)
    try:
        association.send_c_cancel(_MESSAGE_ID, query_model=model)
    except (RuntimeError, ValueError):
        return


def _failed(identifier: Dataset | None) -> list[str]:
    """Return the UIDs of failed sub-operations (PS3.4 C.4.2.1.4.2)."""
    try:
        said = identifier.get("FailedSOPInstanceUIDList") if identifier is not None else None
        return [one for one in islice([said] if isinstance(said, str) else said or (), _FAILED) if is_uid(one)]
    except Exception:  # whatever pydicom raises on bytes that anybody may send: they name nothing
        return []


def _object_contexts(there: Contents, most: int) -> list[Context]:
    """Return what is proposed for the objects of a C-GET: a context for each SOP class and transfer syntax, as many as there is room."""
    classes = (there.sop_classes or likely_classes(there.modalities))[: most // 2]
    syntaxes = _SYNTAXES[: max(2, min(len(_SYNTAXES), most // max(1, len(classes))))]
    return [(sop_class, syntax) for sop_class in classes for syntax in syntaxes]
