"""Worklist files as a RIS writes them, and `wlmscpfs`, DCMTK's worklist SCP, which reads them."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydicom import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.domain import AE, derived_uid
from tests.dcmtk import listens
from tests.orthanc import free_ports
from tests.peers import need

_CLASS = "1.2.840.10008.5.1.4.31"


def entry(number: int = 1, *, patient: str = "P1", name: str = "Doe^Jane", accession: str = "A1", **step: str) -> Dataset:
    """Return an entry of a worklist; step: attributes of its scheduled procedure step that differ."""
    one = Dataset()
    one.SpecificCharacterSet = "ISO_IR 192"
    one.AccessionNumber, one.PatientName, one.PatientID, one.PatientBirthDate, one.PatientSex = accession, name, patient, "19700101", "F"
    one.ReferringPhysicianName, one.RequestingPhysician = "Ref^Erring", "Req^Uesting"
    one.StudyInstanceUID = derived_uid("worklist", number)
    one.RequestedProcedureID, one.RequestedProcedureDescription = f"RP{number}", "CT chest"
    one.ReasonForTheRequestedProcedure = "Cough"
    one.RequestedProcedureCodeSequence = [_code("CTCHEST", "99RIS", "CT of the chest")]
    planned = Dataset()
    planned.Modality, planned.ScheduledStationAETitle = "CT", "CT_ER"
    planned.ScheduledProcedureStepStartDate, planned.ScheduledProcedureStepStartTime = "20260110", "101500"
    planned.ScheduledPerformingPhysicianName = "Per^Forming"
    planned.ScheduledProcedureStepID, planned.ScheduledProcedureStepDescription = f"SPS{number}", "CT chest"
    for keyword, value in step.items():
        setattr(planned, keyword, value)
    one.ScheduledProcedureStepSequence = [planned]
    return one


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def write(folder: Path, name: str, one: Dataset) -> Path:
    """Write an entry as a worklist file, with the `lockfile` that DCMTK wants beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lockfile").touch()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.file_meta.MediaStorageSOPClassUID, one.file_meta.MediaStorageSOPInstanceUID = _CLASS, derived_uid("file", name)
    path = folder / f"{name}.wl"
    one.save_as(path, enforce_file_format=True)
    return path


def asking(**keys: str) -> Dataset:
    """Return an identifier that asks for what is needed of an order; keys: what has to match, of the step where they are the step's."""
    one, step = Dataset(), Dataset()
    for keyword in ("AccessionNumber", "PatientName", "PatientID", "StudyInstanceUID", "RequestedProcedureID"):
        setattr(one, keyword, keys.pop(keyword, ""))
    for keyword in (
        "Modality",
        "ScheduledStationAETitle",
        "ScheduledProcedureStepStartDate",
        "ScheduledProcedureStepStartTime",
        "ScheduledProcedureStepID",
    ):
        setattr(step, keyword, keys.pop(keyword, ""))
    step.ScheduledPerformingPhysicianName = keys.pop("ScheduledPerformingPhysicianName", "")
    assert not keys, keys
    one.ScheduledProcedureStepSequence = [step]
    return one


@contextmanager
def wlmscpfs(folder: Path, *, title: str = "RIS", options: Sequence[str] = ()) -> Iterator[AE]:
    """Run DCMTK's worklist SCP on `folder/title`."""
    ae = AE(title, "127.0.0.1", free_ports(1)[0])
    (folder / title).mkdir(parents=True, exist_ok=True)
    (folder / title / "lockfile").touch()
    with (folder / "wlmscpfs.log").open("ab") as log:
        command = [need("wlmscpfs"), "-v", "-csk", "-dfr", *options, "-dfp", str(folder), str(ae.port)]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        while not listens(ae):
            assert process.poll() is None, (folder / "wlmscpfs.log").read_text()
        yield ae
    finally:
        process.kill()
        process.wait()
