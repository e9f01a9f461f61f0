"""An archive that can be told to misbehave: a real peer (pynetdicom), small enough to be read."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from socketserver import BaseServer
from typing import Any

from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE as ApplicationEntity
from pynetdicom import build_context, evt
from pynetdicom.sop_class import (
    PatientRootQueryRetrieveInformationModelFind,
    PatientRootQueryRetrieveInformationModelMove,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from dicom_node.domain import AE
from tests.orthanc import free_ports

FIND, MOVE, GET = (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
    StudyRootQueryRetrieveInformationModelGet,
)
PATIENT_FIND, PATIENT_MOVE = PatientRootQueryRetrieveInformationModelFind, PatientRootQueryRetrieveInformationModelMove
_UNIQUE = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}

Responses = Iterator[tuple[Any, Any]]


@dataclass
class Archive:
    """What it holds, and how it behaves; every request that it got is kept."""

    images: Sequence[Dataset]
    destination: AE | None = None
    find: Callable[["Archive", evt.Event], Responses] | None = None  # in the place of an honest answer
    move: Callable[["Archive", evt.Event], Iterator[Any]] | None = None
    get: Callable[["Archive", evt.Event], Iterator[Any]] | None = None
    models: Sequence[str] = (FIND, MOVE, GET)
    scp_role: bool = True  # whether it agrees to send over the association that asks
    asked: list[tuple[str, Dataset]] = field(default_factory=list)
    cancelled: int = 0

    def found(self, asked: Dataset) -> list[Dataset]:
        """Return honest answers to a question: single values and lists of UIDs are compared, nothing else."""
        level = asked.QueryRetrieveLevel
        answers: dict[str, Dataset] = {}
        for image in self.matching(asked):
            answer = Dataset()
            answer.QueryRetrieveLevel = level
            for element in asked:
                if element.keyword not in ("QueryRetrieveLevel", "SpecificCharacterSet"):
                    setattr(answer, element.keyword, image.get(element.keyword, None))
            if "SpecificCharacterSet" in image:
                answer.SpecificCharacterSet = image.SpecificCharacterSet
            answers[image[_UNIQUE[level]].value] = answer
        for answer in answers.values():
            self._count(answer)
        return list(answers.values())

    def _count(self, answer: Dataset) -> None:
        for keyword, unique in (("NumberOfStudyRelatedInstances", "StudyInstanceUID"), ("NumberOfSeriesRelatedInstances", "SeriesInstanceUID")):
            if keyword in answer:
                setattr(answer, keyword, sum(1 for image in self.images if image[unique].value == answer[unique].value))

    def matching(self, asked: Dataset) -> list[Dataset]:
        """Return the images that are meant."""
        keys = [element for element in asked if element.keyword in (*_UNIQUE.values(), "PatientID") and element.value]
        listed = {one.keyword: [one.value] if isinstance(one.value, str) else list(one.value) for one in keys}
        return [image for image in self.images if all(image[keyword].value in values for keyword, values in listed.items())]

    # ---------------------------------------------------------------------------------------------------------- handlers

    def on_find(self, event: evt.Event) -> Responses:
        self.asked.append(("find", event.identifier))
        if self.find is not None:
            yield from self.find(self, event)
            return
        for answer in self.found(event.identifier):
            if event.is_cancelled:
                self.cancelled += 1
                yield 0xFE00, None
                return
            yield 0xFF00, answer

    def on_move(self, event: evt.Event) -> Iterator[Any]:
        self.asked.append(("move", event.identifier))
        if self.move is not None:
            yield from self.move(self, event)
            return
        yield from self.send(event, self.matching(event.identifier))

    def send(self, event: evt.Event, images: Sequence[Dataset], *, counted: int | None = None) -> Iterator[Any]:
        """Move images to where they are asked to go."""
        assert self.destination is not None
        yield self.destination.host, self.destination.port, {"contexts": contexts_of(images)}
        yield len(images) if counted is None else counted
        for image in images:
            if event.is_cancelled:
                self.cancelled += 1
                yield 0xFE00, None
                return
            yield 0xFF00, image

    def on_get(self, event: evt.Event) -> Iterator[Any]:
        self.asked.append(("get", event.identifier))
        if self.get is not None:
            yield from self.get(self, event)
            return
        images = self.matching(event.identifier)
        yield len(images)
        for image in images:
            yield 0xFF00, image


def contexts_of(images: Sequence[Dataset]) -> list[Any]:
    """Return what has to be proposed to send images."""
    pairs = dict.fromkeys((image.SOPClassUID, image.file_meta.TransferSyntaxUID) for image in images)
    return [build_context(sop_class, syntax) for sop_class, syntax in pairs]


@contextmanager
def archive(images: Sequence[Dataset] = (), *, title: str = "ARCHIVE", ssl_context: Any = None, **how: Any) -> Iterator[tuple[AE, Archive]]:
    """Run an archive."""
    archived = Archive(images, **how)
    entity = ApplicationEntity(title)
    entity.maximum_associations = 50
    for model in archived.models:
        entity.add_supported_context(model, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    for sop_class, syntax in dict.fromkeys((image.SOPClassUID, image.file_meta.TransferSyntaxUID) for image in images):
        role = (True, True) if archived.scp_role else (None, None)
        entity.add_supported_context(sop_class, [syntax, ExplicitVRLittleEndian, ImplicitVRLittleEndian], *role)
    handlers = [(evt.EVT_C_FIND, archived.on_find), (evt.EVT_C_MOVE, archived.on_move), (evt.EVT_C_GET, archived.on_get)]
    ae = AE(title, "127.0.0.1", free_ports(1)[0])
    server = entity.make_server((ae.host, ae.port), evt_handlers=handlers, ssl_context=ssl_context)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield ae, archived
    finally:
        BaseServer.shutdown(server)  # pynetdicom's own wants to know the server from its `start_server`, which looks twice a second
        server.server_close()
        thread.join()
        for association in server.active_associations:
            association.abort()
