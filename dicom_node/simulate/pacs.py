"""A PACS that keeps what it is sent as files, counts every arrival, and can be broken in named ways.

It is a C-STORE and C-ECHO SCP (PS3.4 Annexes A and B) of every standard storage class in every transfer syntax; private classes it refuses, so
that pynetdicom's process-wide UNRESTRICTED_STORAGE_SERVICE stays as it was. Files lie at `<study>/<series>/<instance>.dcm`, each written whole.
"""

import os
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Self

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pynetdicom import AE as ApplicationEntity
from pynetdicom import ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, _config, evt
from pynetdicom.sop_class import Verification
from pynetdicom.transport import ThreadedAssociationServer

from dicom_node.domain import AE, is_uid

SUCCESS = 0x0000
COERCED = 0xB000  # a warning: stored, but changed
OUT_OF_RESOURCES = 0xA700
CANNOT_UNDERSTAND = 0xC000
_ENDING_S = 1.0  # so long an association that was rejected or released may take to end

_SEG_AND_SR = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation
        "1.2.840.10008.5.1.4.1.1.88.11",  # Basic Text SR
        "1.2.840.10008.5.1.4.1.1.88.22",  # Enhanced SR
        "1.2.840.10008.5.1.4.1.1.88.33",  # Comprehensive SR
        "1.2.840.10008.5.1.4.1.1.88.34",  # Comprehensive 3D SR
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How a PACS answers; the default is well."""

    refuses_associations: bool = False
    refused_classes: frozenset[str] = frozenset()  # SOP classes whose presentation contexts it refuses
    first: tuple[int, ...] = ()  # statuses of the first images, whoever sends them
    status: int = SUCCESS  # of every image after those; failures are not kept, warnings are
    abort_after: int | None = None  # images kept before it aborts at the next; it does so once
    answers: bool = True  # or takes images and never says anything
    delay_s: float = 0.0  # before each answer


BEHAVIOURS: Mapping[str, Behaviour] = {
    "well": Behaviour(),
    "refuses-associations": Behaviour(refuses_associations=True),
    "refuses-results": Behaviour(refused_classes=_SEG_AND_SR),
    "full-at-first": Behaviour(first=(OUT_OF_RESOURCES,) * 3),
    "full": Behaviour(status=OUT_OF_RESOURCES),
    "cannot-understand": Behaviour(status=CANNOT_UNDERSTAND),
    "warns": Behaviour(status=COERCED),
    "aborts": Behaviour(abort_after=1),
    "never-answers": Behaviour(answers=False),
    "slow": Behaviour(delay_s=0.5),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One SOP Instance that the PACS keeps."""

    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    calling_ae: str
    path: Path  # of the newest arrival
    digests: tuple[str, ...]  # SHA-256 of the data set of each arrival, in order

    @property
    def arrivals(self) -> int:
        """How often it was taken."""
        return len(self.digests)

    @property
    def identical(self) -> bool:
        """Whether all its arrivals were the same bytes."""
        return len(set(self.digests)) == 1


@dataclass(slots=True)
class _Counts:
    requests: int = 0  # C-STORE requests, whatever was answered
    associations: int = 0
    most_at_once: int = 0
    aborted: bool = False
    kept: dict[str, Kept] = field(default_factory=dict)


class Pacs:
    """A running PACS; use it in a `with` statement, or `start` and `stop` it: it keeps its port, its files and its counts."""

    def __init__(
        self, folder: Path, ae_title: str = "PACS", host: str = "127.0.0.1", port: int = 0, behaviour: Behaviour = BEHAVIOURS["well"]
    ) -> None:
        self.folder = folder
        self.behaviour = behaviour  # may be changed while it runs; associations and contexts are judged by the one at start
        self._address = AE(ae_title, host, port)
        self._server: ThreadedAssociationServer | None = None
        self._stopping = threading.Event()
        self._changed = threading.Condition()
        self._counts = _Counts()

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop it."""
        self.stop()

    @property
    def ae(self) -> AE:
        """Where it listens: the actual port once it was started."""
        return self._address

    @property
    def requests(self) -> int:
        """How many C-STORE requests reached it, whatever it answered."""
        return self._counts.requests

    @property
    def associations(self) -> int:
        """How many associations it accepted."""
        return self._counts.associations

    @property
    def most_at_once(self) -> int:
        """The most associations that were open at the same time."""
        return self._counts.most_at_once

    def instances(self) -> Mapping[str, Kept]:
        """Return what it keeps, by SOP Instance UID, in order of first arrival."""
        with self._changed:
            return dict(self._counts.kept)

    def wait(self, enough: Callable[[Mapping[str, Kept]], bool], timeout_s: float) -> bool:
        """Wait until what it keeps is enough; say whether that came to be in time."""
        with self._changed:
            return self._changed.wait_for(lambda: enough(dict(self._counts.kept)), timeout_s)

    def start(self) -> None:
        """Listen, on the port it had before if it had one."""
        _config.LOG_HANDLER_LEVEL = "none"  # process-wide: pynetdicom's per-message log handlers stay unbound
        self.folder.mkdir(parents=True, exist_ok=True)
        self._stopping.clear()
        entity = ApplicationEntity(self._address.title)
        entity.maximum_pdu_size = 131072
        entity.maximum_associations = 64
        entity.require_called_aet = True
        if self.behaviour.refuses_associations:
            entity.require_calling_aet = ["NOBODY"]
        entity.add_supported_context(Verification)
        for context in AllStoragePresentationContexts:
            if context.abstract_syntax not in self.behaviour.refused_classes:
                entity.add_supported_context(str(context.abstract_syntax), ALL_TRANSFER_SYNTAXES)
        handlers: list[evt.EventHandlerType] = [
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_CONN_OPEN, _no_delay),
            (evt.EVT_ACCEPTED, self._on_accepted),
        ]
        address = (self._address.host, self._address.port)
        self._server = entity.start_server(address, block=False, evt_handlers=handlers)
        if self._server is not None:
            self._address = AE(self._address.title, self._address.host, self._server.server_address[1])

    def stop(self) -> None:
        """Abort what is open and stop listening; nothing happens when it is not running."""
        self._stopping.set()
        server, self._server = self._server, None
        if server is not None:
            for association in server.active_associations:
                if association.is_rejected or association.is_released:  # pynetdicom's thread dies of an abort while it waits for the peer to close
                    association.join(_ENDING_S)
            server.ae.shutdown()

    def _on_accepted(self, event: evt.Event) -> None:
        others = sum(other.is_established for other in event.assoc.ae.active_associations if other is not event.assoc)
        with self._changed:
            self._counts.associations += 1
            self._counts.most_at_once = max(self._counts.most_at_once, others + 1)

    def _on_store(self, event: evt.Event) -> int:
        status, abort = self._decided()
        if abort:
            event.assoc.abort()
            return OUT_OF_RESOURCES  # never sent: the association is gone
        if status == SUCCESS or status & 0xF000 == COERCED:
            status = self._keep(event, status)
        if not self.behaviour.answers:
            self._stopping.wait()
        elif self.behaviour.delay_s:
            self._stopping.wait(self.behaviour.delay_s)
        return status

    def _decided(self) -> tuple[int, bool]:
        """Return the status of the next image, and whether to abort instead."""
        with self._changed:
            number, counts, behaviour = self._counts.requests, self._counts, self.behaviour
            counts.requests += 1
            if behaviour.abort_after == number and not counts.aborted:
                counts.aborted = True
                return OUT_OF_RESOURCES, True
            return (behaviour.first[number] if number < len(behaviour.first) else behaviour.status), False

    def _keep(self, event: evt.Event, status: int) -> int:
        file = event.encoded_dataset()
        try:
            header = dcmread(BytesIO(file), specific_tags=["SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"], stop_before_pixels=True)
        except (InvalidDicomError, EOFError, ValueError):
            return CANNOT_UNDERSTAND
        study, series, instance = (_uid(header, f"{level}InstanceUID") for level in ("Study", "Series", "SOP"))
        if not all(map(is_uid, (study, series, instance))):  # they become a path
            return CANNOT_UNDERSTAND
        path = self.folder / study / series / f"{instance}.dcm"
        _write(file, path)
        digest = sha256(event.encoded_dataset(include_meta=False)).hexdigest()
        with self._changed:
            before = self._counts.kept.get(instance)
            self._counts.kept[instance] = Kept(
                sop_instance_uid=instance,
                sop_class_uid=str(event.request.AffectedSOPClassUID),
                series_instance_uid=series,
                study_instance_uid=study,
                transfer_syntax_uid=str(event.context.transfer_syntax),
                calling_ae=event.assoc.requestor.ae_title,
                path=path,
                digests=(*(before.digests if before else ()), digest),
            )
            self._changed.notify_all()
        return status


def _uid(header: Dataset, keyword: str) -> str:
    """Return a UID as it was sent, without pydicom's own opinion of it."""
    value = getattr(header.get_item(keyword), "value", None)
    return value.rstrip(b"\0 ").decode("ascii", "replace") if isinstance(value, bytes) else str(value or "")


def _write(content: bytes, path: Path) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{threading.get_ident()}")
    part.write_bytes(content)
    os.replace(part, path)


def _no_delay(event: evt.Event) -> None:
    transport = event.assoc.dul.socket
    if transport is not None and transport.socket is not None:
        transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
