"""Asks other archives what they have: C-FIND as SCU (PS3.4 C.4.1), every answer bounded, decoded, and compared with the question again.

A key that a peer does not support it ignores, or leaves out of its responses, or returns empty. So each response has to meet every key that was
asked for (`store.match`), with two exceptions, in which nothing can be compared: the key is not in the response, or it is there without a value
and the peer has said that it did not support every key (FF01). Patient ID and the unique key of the level are no exceptions: a response without
them is dropped, and nobody is shown another patient's studies. No identifier is logged, nor quoted in an error.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any

from pydicom import Dataset
from pynetdicom import evt
from pynetdicom.association import Association

from dicom_node.config import Node, Remote
from dicom_node.domain import NodeError, PeerUnavailable, Rejected, Transient, is_uid
from dicom_node.query.answers import (
    PENDING,
    PENDING_UNSUPPORTED,
    Answer,
    identifier_of,
    is_meant,
    number_of,
    readable,
    texts_of,
    texts_of_all,
)
from dicom_node.store import UNIQUE_KEYS, Level
from dicom_node.wire import Credentials, peer

SUCCESS, CANCELLED = 0x0000, 0xFE00
MOST = 50_000  # answers of one question
SYNTAXES = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")  # Explicit and Implicit VR Little Endian, of identifiers
FIND = ("1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.1.1")  # Study Root, Patient Root

_BESIDE = 10_000  # answers more than are kept, of a peer that ignores keys or the wish to cancel
_ANSWER_BYTES = 1 << 20  # of one response
_PDU_BYTES = 1 << 20  # the longest that is read
_TIMES = 10  # the whole of a question takes at most so many times the patience for one response


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a remote says it has of a study."""

    number: int | None  # of instances; None: it does not say
    instances: Mapping[str, str] = field(default_factory=dict)  # SOP Instance UID -> Series Instance UID; empty: it does not name them
    sop_classes: tuple[str, ...] = ()  # empty: it does not say
    modalities: tuple[str, ...] = ()
    patient_id: str = field(default="", repr=False)


@contextlib.contextmanager
def asking(remote: Remote, node: Node, *, credentials: Credentials, patience_s: float | None = None) -> Iterator["Asking"]:
    """Associate for questions, and release at the end.

    Raises
    ------
    PeerUnavailable: there is no association.
    Rejected: the remote accepts no question.
    """
    patience_s = patience_s or remote.timeout_s
    guard = Guard(_ANSWER_BYTES)
    association = peer.associate(
        remote.ae,
        node.ae_title,
        [(model, syntax) for model in FIND for syntax in SYNTAXES],
        timeout_s=patience_s,
        max_pdu_bytes=node.max_pdu_bytes,
        fast=node.store_path == "fast",
        handlers=guard.handlers,
        credentials=credentials,
    )
    try:
        model = model_of(association, FIND)
        if model is None:
            raise Rejected(f"{remote.ae} accepts no query of {node.ae_title}", hint="Have the node allowed to query there (C-FIND, Study Root).")
        yield Asking(remote, association, model, patience_s)
    finally:
        peer.close(association)


class Asking:
    """Asks over one association, one question after the other."""

    def __init__(self, remote: Remote, association: Association, model: str, patience_s: float) -> None:
        self._remote = remote
        self._association = association
        self._model = model
        self._patience_s = patience_s
        self._message_id = 0

    def find(self, level: Level | str, keys: Mapping[str, str], *, limit: int = MOST) -> tuple[Answer, ...]:
        """Ask one question; as `asking.find`.

        Raises
        ------
        PeerUnavailable, Transient, Rejected: as that.
        """
        level = Level(level)
        asked = {UNIQUE_KEYS[level]: ""} | dict(keys)
        found: list[Answer] = []
        seen, cancelled, until = 0, False, monotonic() + _TIMES * self._patience_s
        for status, identifier in self._responses(level, asked):
            if status not in (PENDING, PENDING_UNSUPPORTED):
                break
            seen += 1
            if monotonic() > until or seen > limit + 2 * _BESIDE:
                self._association.abort()
                raise PeerUnavailable(f"{self._remote.ae} does not come to an end of its answers", hint="Ask for less, or look at its own log.")
            if cancelled:
                continue
            answer = self._read(identifier)
            if is_meant(level, asked, answer, status):
                found.append(answer)
            if len(found) >= limit or seen >= limit + _BESIDE:
                cancelled = True
                self._association.send_c_cancel(self._message_id, query_model=self._model)
        if status != SUCCESS and not (cancelled and status == CANCELLED):
            raise _refused(self._remote, status)
        return tuple(found)

    def contents(self, study_instance_uid: str) -> Contents:
        """Return what the remote says it has of a study: its instances by name, where it answers at IMAGE level, else their number.

        Raises
        ------
        PeerUnavailable: it does not answer any more.
        Transient, Rejected: it does not answer at STUDY level.
        """
        keys = {"StudyInstanceUID": study_instance_uid, "PatientID": "", "NumberOfStudyRelatedInstances": "", "ModalitiesInStudy": ""}
        studies = self.find(Level.STUDY, keys | {"SOPClassesInStudy": ""})
        if not studies:
            return Contents(number=0)
        patient_id = texts_of(studies[0], "PatientID")
        above = {"StudyInstanceUID": study_instance_uid} | ({"PatientID": patient_id[0]} if patient_id and self._model != FIND[0] else {})
        series = self._tried(Level.SERIES, above | {"Modality": "", "NumberOfSeriesRelatedInstances": ""})
        images = self._images(above, series)
        said = number_of(studies, "NumberOfStudyRelatedInstances")
        number = said if said is not None else number_of(series, "NumberOfSeriesRelatedInstances")
        named = texts_of_all(images, "SOPClassUID") or texts_of_all(studies, "SOPClassesInStudy")
        return Contents(
            number=len(images) or number,
            instances={str(one["SOPInstanceUID"]): str(one["SeriesInstanceUID"]) for one in images},
            sop_classes=tuple(one for one in named if is_uid(one)),
            modalities=texts_of_all((*studies, *series), "ModalitiesInStudy", "Modality"),
            patient_id=patient_id[0] if patient_id else "",
        )

    def _images(self, above: Mapping[str, str], series: Sequence[Answer]) -> tuple[Answer, ...]:
        """Return every image of these series; none where the remote does not name all of them."""
        found: dict[str, Answer] = {}
        for one in series:
            key = {"SeriesInstanceUID": str(one["SeriesInstanceUID"])}
            images = self._tried(Level.IMAGE, {**above, **key, "SOPClassUID": ""})
            said = number_of([one], "NumberOfSeriesRelatedInstances")
            if not images and said != 0:
                return ()
            found |= {str(image["SOPInstanceUID"]): image | key for image in images}
        return tuple(found.values())

    def _tried(self, level: Level, keys: Mapping[str, str]) -> tuple[Answer, ...]:
        """Ask at a level that not every archive answers at; nothing where it refuses."""
        try:
            return self.find(level, keys)
        except PeerUnavailable:
            raise
        except (Transient, Rejected):
            return ()

    def _responses(self, level: Level, asked: Mapping[str, str]) -> Iterator[tuple[int, Dataset | None]]:
        """Ask, and give the status and identifier of each response.

        Raises
        ------
        PeerUnavailable: it aborts, is silent, or says something that is no response.
        """
        self._message_id += 1
        self._association.dimse_timeout = self._patience_s
        heard_at = monotonic()
        try:
            said = self._association.send_c_find(identifier_of(level, asked), self._model, msg_id=self._message_id)
        except RuntimeError:  # the peer has ended the association
            said = iter([(Dataset(), None)])
        for status, identifier in said:
            if "Status" not in status:
                end(self._association)
                how = "was silent" if monotonic() - heard_at >= self._patience_s else "ended the association"
                raise PeerUnavailable(f"{self._remote.ae} {how} instead of answering a query", hint="Look at the peer's own log.")
            yield int(status.Status), identifier
            heard_at = monotonic()

    def _read(self, identifier: Dataset | None) -> Answer:
        if identifier is not None:
            return readable(identifier)
        self._association.abort()
        raise Rejected(f"{self._remote.ae} answers a query with what cannot be read", hint="Look at the peer's own log; its maker has to look.")


@dataclass(slots=True)
class Guard:
    """Ends a connection on which a PDU or a message is longer than it may be: pynetdicom would keep it all in memory."""

    most_bytes: int  # of a message
    moved_at: float = field(default_factory=monotonic)  # when something came last
    _bytes: int = 0

    @property
    def handlers(self) -> list[evt.EventHandlerType]:
        """Return what has to be told of an association."""
        return [(evt.EVT_CONN_OPEN, self._on_open), (evt.EVT_DATA_RECV, self._on_data), (evt.EVT_DIMSE_RECV, self._on_message)]

    @staticmethod
    def _on_open(event: evt.Event) -> None:
        transport = event.assoc.dul.socket
        if transport is not None:
            transport.recv = partial(_receive, transport.recv)

    def _on_data(self, event: evt.Event) -> None:
        self.moved_at = monotonic()
        self._bytes += len(event.data)
        if self._bytes > self.most_bytes:
            peer.cut(event.assoc)

    def _on_message(self, _: evt.Event) -> None:
        self._bytes = 0


def _receive(receive: Any, size_bytes: int) -> bytearray:
    if size_bytes > _PDU_BYTES:
        raise ConnectionAbortedError(f"a PDU of {size_bytes} bytes was announced")  # pynetdicom closes the connection
    return bytearray(receive(size_bytes))


def end(association: Association) -> None:
    """End an association whose peer has ended it, or is silent: who asks for its release may wait for an answer to that, too."""
    if association.is_established:
        association.abort()


def model_of(association: Association, models: Sequence[str]) -> str | None:
    """Return the first of these SOP classes that the peer has accepted."""
    taken = {str(context.abstract_syntax) for context in association.accepted_contexts}
    return next((model for model in models if model in taken), None)


def _refused(remote: Remote, status: int) -> NodeError:
    """Return the error that a last response is (PS3.4 Table C.4-1, PS3.7 Annex C); its comment might quote whom was asked for."""
    said = f"{remote.ae} answered a query with {status:04X}"
    if status == 0x0124:
        return Rejected(f"{said}: not authorised", hint="Have the node allowed to query and retrieve there.")
    if status in (0xA900, 0x0122):
        return Rejected(f"{said}: it does not support this", hint="Look at the peer's conformance statement.")
    if status == CANCELLED:
        return Transient(f"{said}: cancelled", hint="Look at the peer's own log.")
    return Transient(said, hint="It could not do it now. Look at the peer's own log.")
