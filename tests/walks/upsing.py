"""A requester and a watcher of workitems, made with pynetdicom from what the standard says (PS3.4 Annex CC)."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydicom import Dataset
from pynetdicom import AE as ApplicationEntity
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (
    UnifiedProcedureStepEvent,
    UnifiedProcedureStepPull,
    UnifiedProcedureStepPush,
    UnifiedProcedureStepQuery,
    UnifiedProcedureStepWatch,
)

from dicom_node.domain import AE
from dicom_node.wire import Requestor

PUSH, WATCH, PULL, EVENT, QUERY = (
    UnifiedProcedureStepPush,
    UnifiedProcedureStepWatch,
    UnifiedProcedureStepPull,
    UnifiedProcedureStepEvent,
    UnifiedProcedureStepQuery,
)
GLOBAL, FILTERED = "1.2.840.10008.5.1.4.34.5", "1.2.840.10008.5.1.4.34.5.1"


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """Return a coded term as an item."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def references(images: Sequence[Dataset], retrieve_ae: str) -> list[Dataset]:
    """Return images as items of the inputs, one for each series (PS3.4 Table CC.2.5-2c)."""
    items: dict[str, Dataset] = {}
    for image in images:
        if image.SeriesInstanceUID not in items:
            item = items[image.SeriesInstanceUID] = Dataset()
            item.TypeOfInstances, item.StudyInstanceUID, item.SeriesInstanceUID = "DICOM", image.StudyInstanceUID, image.SeriesInstanceUID
            item.ReferencedSOPSequence, way = [], Dataset()
            way.RetrieveAETitle = retrieve_ae
            item.DICOMRetrievalSequence = [way]
        one = Dataset()
        one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
        items[image.SeriesInstanceUID].ReferencedSOPSequence.append(one)
    return list(items.values())


def step(model: str, images: Sequence[Dataset] = (), *, retrieve_ae: str = "DICOM_NODE", to: str = "", **said: Any) -> Dataset:
    """Return a new workitem that asks for a model, with every attribute of type 1 and 2 (PS3.4 Table CC.2.5-3)."""
    item = Dataset()
    item.ProcedureStepState, item.ScheduledProcedureStepPriority, item.ProcedureStepLabel = "SCHEDULED", "MEDIUM", f"{model} please"
    item.WorklistLabel, item.InputReadinessState = "AI", "READY"
    item.ScheduledProcedureStepStartDateTime = datetime.now().strftime("%Y%m%d%H%M%S")
    item.ScheduledWorkitemCodeSequence = [code(model, "99DICOMNODE", model)]
    item.InputInformationSequence = references(images, retrieve_ae)
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AdmissionID", "CommentsOnTheScheduledProcedureStep"):
        setattr(item, keyword, "")
    for keyword in ("ScheduledProcessingParametersSequence", "ScheduledStationNameCodeSequence", "ScheduledStationClassCodeSequence"):
        setattr(item, keyword, [])
    item.ScheduledStationGeographicLocationCodeSequence = item.ReferencedRequestSequence = []
    item.TransactionUID, item.ProcedureStepProgressInformationSequence, item.UnifiedProcedureStepPerformedProcedureSequence = "", [], []
    if to:
        destination, storage = Dataset(), Dataset()
        storage.DestinationAE = to
        destination.DICOMStorageSequence = [storage]
        item.OutputDestinationSequence = [destination]
    for keyword, value in said.items():
        setattr(item, keyword, value)
    return item


@dataclass(frozen=True)
class Told:
    """One event report."""

    uid: str
    kind: int
    said: Dataset


@dataclass
class Watcher:
    """Listens for event reports, and asks over an association of its own."""

    ae: AE
    told: list[Told] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def hear(self, event: evt.Event) -> tuple[int, None]:
        """Take a report."""
        with self._lock:
            self.told.append(Told(str(event.request.AffectedSOPInstanceUID), int(event.event_type), event.event_information))
        return 0x0000, None

    def states(self, uid: str) -> list[str]:
        """Return the states that were reported of a workitem, in order."""
        return [one.said.ProcedureStepState for one in list(self.told) if one.uid == uid and one.kind == 1]

    @contextmanager
    def asking(self, node: AE) -> Iterator["Asking"]:
        """Open an association with every class but Event."""
        entity = Requestor(self.ae.title)
        for abstract_syntax in (PUSH, WATCH, PULL, QUERY):
            entity.add_requested_context(abstract_syntax)
        association = entity.associate(node.host, node.port, ae_title=node.title)
        assert association.is_established
        try:
            yield Asking(association)
        finally:
            association.release()


@dataclass(frozen=True)
class Asking:
    """What a requester, a watcher or a performer asks."""

    association: Association

    def create(self, item: Dataset, uid: str) -> int:
        """Create a workitem."""
        return int(self.association.send_n_create(item, PUSH, uid)[0].Status)

    def get(self, uid: str) -> Dataset:
        """Return a workitem."""
        status, found = self.association.send_n_get([], PUSH, uid)
        assert status.Status == 0 and found is not None and "TransactionUID" not in found, status
        return found

    def subscribe(self, uid: str, receiver: str, *, lock: bool = False, keys: Dataset | None = None) -> int:
        """Subscribe an AE to a workitem or a worklist."""
        said = keys or Dataset()
        said.ReceivingAE, said.DeletionLock = receiver, "TRUE" if lock else "FALSE"
        return int(self.association.send_n_action(said, 3, PUSH, uid, meta_uid=WATCH)[0].Status)

    def to(self, state: str, uid: str, transaction_uid: str) -> int:
        """Change a workitem's state."""
        said = Dataset()
        said.ProcedureStepState, said.TransactionUID = state, transaction_uid
        return int(self.association.send_n_action(said, 1, PUSH, uid, meta_uid=PULL)[0].Status)

    def ask_to_cancel(self, uid: str, reason: str) -> int:
        """Ask for a workitem to be canceled."""
        said = Dataset()
        said.ReasonForCancellation = reason
        return int(self.association.send_n_action(said, 2, PUSH, uid)[0].Status)


@contextmanager
def watcher(title: str = "WATCHER") -> Iterator[Watcher]:
    """Run a watcher until the block ends."""
    entity = ApplicationEntity(title)
    entity.add_supported_context(EVENT, scu_role=True, scp_role=True)
    one = Watcher(AE(title, "127.0.0.1", 0))
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, one.hear)])
    assert server is not None
    one.ae = AE(title, "127.0.0.1", int(server.socket.getsockname()[1]))
    try:
        yield one
    finally:
        server.shutdown()
