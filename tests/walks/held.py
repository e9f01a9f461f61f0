"""A node that answers queries and retrievals, and the peers that ask it and are sent to: pynetdicom's, which do as a test bids them."""

import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE as ApplicationEntity
from pynetdicom import AllStoragePresentationContexts, build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

from dicom_node.config import NodeConfig
from dicom_node.domain import AE, derived_uid
from dicom_node.query import services
from dicom_node.receive import Receiver
from dicom_node.simulate.scanner import push
from dicom_node.store import Store

CT, SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.7"
FIND, MOVE, GET = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.2", "1.2.840.10008.5.1.4.1.2.2.3"
STUDY = derived_uid("held", "study")


@dataclass
class Keeping:
    """A node."""

    store: Store
    port: int

    @property
    def ae(self) -> AE:
        return AE("DICOM_NODE", "127.0.0.1", self.port)

    def take(self, files: Sequence[Path]) -> None:
        """Have it keep files."""
        pushed = push(files, self.ae, calling_ae="RIS")
        assert not pushed.failed, pushed.failed

    def retrievals(self, study: str = STUDY) -> list[Any]:
        """Return what the journal says of retrievals."""
        return [event for event in self.store.journal.of_study(study) if event.kind == "retrieved"]


@contextmanager
def keeping(folder: Path, path: str, remotes: dict[str, Any] | None = None, holdings: Any = None, **node: Any) -> Iterator[Keeping]:
    """Run a node's receiver with its queries; RIS may do everything but be sent to.

    path: of the objects: fast or stock. holdings: instead of the store's own.
    """
    store = Store.open(folder / "node")
    everyone = {"ris": {"ae": "RIS@127.0.0.1:1", "may": ["send", "query", "move"]}, **(remotes or {})}
    config = NodeConfig.model_validate({"node": {"port": 0, "disk_reserve_mb": 1, "store_path": path, **node}, "remotes": everyone})
    receiver = Receiver(config, store, services=services(config, store, holdings or store.holdings, time.time))
    receiver.start()
    try:
        yield Keeping(store, receiver.port)
    finally:
        receiver.stop()
        store.close()


def written(folder: Path, number: int, *, sop_class: str = CT, size: int = 2, **values: Any) -> Path:
    """Write a small image of one study, and return its file."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, derived_uid("held", number)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, derived_uid("held", "series", sop_class)
    dataset.PatientID, dataset.PatientName, dataset.Modality, dataset.InstanceNumber = "MARKED", "Marked^Patient", "CT", number
    dataset.Rows = dataset.Columns = size
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.SamplesPerPixel, dataset.PixelRepresentation, dataset.PhotometricInterpretation = 1, 0, "MONOCHROME2"
    dataset.PixelData = bytes(2 * size * size)
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    path = folder / f"{number}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


@dataclass
class Destination:
    """What somebody who is sent to has met."""

    ae: AE
    associations: int = 0
    asked_by: set[tuple[str, int]] = field(default_factory=set)  # Move Originator AE title and message ID


@contextmanager
def destination(
    answer: Callable[[evt.Event, int], int], *, title: str = "WS", syntaxes: Sequence[str] = (ExplicitVRLittleEndian,)
) -> Iterator[Destination]:
    """Run a storage SCP that answers each object as it is told: by the event and how many came before."""
    met = Destination(AE(title, "127.0.0.1", 1))
    count = iter(range(1 << 20))

    def stored(event: evt.Event) -> int:
        met.asked_by.add((event.request.MoveOriginatorApplicationEntityTitle, event.request.MoveOriginatorMessageID))
        return answer(event, next(count))

    def accepted(event: evt.Event) -> None:
        met.associations += 1

    entity = ApplicationEntity(title)
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax, list(syntaxes))
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, stored), (evt.EVT_ACCEPTED, accepted)])
    met.ae = AE(title, "127.0.0.1", server.server_address[1])
    try:
        yield met
    finally:
        server.shutdown()


@contextmanager
def asking(
    to: AE,
    *sop_classes: str,
    calling_ae: str = "RIS",
    takes: Sequence[str] = (),
    stored: Callable[[evt.Event], int] | None = None,
    agreed: bytes = b"",
    dimse_timeout_s: float = 60.0,
    tls: ssl.SSLContext | None = None,
) -> Iterator[Association]:
    """Associate with a node for queries and retrievals.

    The association's reactor rests all the while: between two requests pynetdicom lets it turn, and then it may take the first response.

    takes: SOP classes of objects that may come over the same association. agreed: extended negotiation of the first SOP class.
    """
    entity = ApplicationEntity(calling_ae)
    entity.dimse_timeout = entity.network_timeout = dimse_timeout_s
    contexts = [*(build_context(uid, "1.2.840.10008.1.2.1") for uid in sop_classes), *(build_context(uid, ExplicitVRLittleEndian) for uid in takes)]
    wanted: list[Any] = [build_role(uid, scp_role=True) for uid in takes]
    if agreed:
        item = SOPClassExtendedNegotiation()
        item.sop_class_uid, item.service_class_application_information = sop_classes[0], agreed
        wanted.append(item)
    handlers = [(evt.EVT_C_STORE, stored)] if stored else []
    association = entity.associate(
        to.host, to.port, contexts, to.title, ext_neg=wanted, evt_handlers=handlers, tls_args=(tls, to.host) if tls else None
    )
    assert association.is_established
    resting = threading.Event()
    resume, resting.set = resting.set, lambda: None  # type: ignore[method-assign]
    association._reactor_checkpoint = resting
    time.sleep(0.05)  # it looks every millisecond
    try:
        yield association
    finally:
        resting.set = resume  # type: ignore[method-assign]
        resting.set()
        if association.is_established:
            association.release()


def identifier(level: str, **values: Any) -> Dataset:
    """Return the identifier of a request."""
    dataset = Dataset()
    dataset.QueryRetrieveLevel = level
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset
