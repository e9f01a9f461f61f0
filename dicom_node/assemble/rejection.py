"""Which instances a received rejection note says are not to be used (IHE RAD TF-3 4.66.4.1.3.3, Imaging Object Change Management).

A rejection note is a Key Object Selection (PS3.3 A.35.4) whose title is one of four (PS3.16 CID 7010). It counts for instances of its own study
and patient; whoever sends a note of others hides nothing here.
"""

import struct
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from dicom_node.domain import Instance, Study, is_uid

KEY_OBJECT = "1.2.840.10008.5.1.4.1.1.88.59"
TITLES: Mapping[str, str] = {
    "113001": "rejected for quality reasons",
    "113037": "rejected for patient safety reasons",
    "113038": "of an incorrect modality worklist entry",
    "113039": "its retention has expired",
}
MOST = 64  # notes of one study that are looked at
_NOTE_BYTES = 16 << 20  # a note that is longer is none
_NAMED = 100_000  # instances of one note
_UNREADABLE = (InvalidDicomError, OSError, ValueError, KeyError, AttributeError, TypeError, NotImplementedError, RecursionError, struct.error)
_READ: list[int | str | tuple[int, int]] = ["StudyInstanceUID", "ConceptNameCodeSequence", "CurrentRequestedProcedureEvidenceSequence"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """What one note says of a study."""

    instances: frozenset[str]  # SOP Instance UIDs
    why: str  # its title, in words
    who: str  # AE title of who sent it


def notes_of(study: Study) -> tuple[Instance, ...]:
    """Return the instances of a study that may be rejection notes, the first that came first."""
    found = [one for one in study.instances if one.sop_class_uid == KEY_OBJECT and one.size_bytes <= _NOTE_BYTES]
    return tuple(sorted(found, key=lambda one: (one.received_at, one.sop_instance_uid))[:MOST])


def rejections(study: Study, files: Iterable[tuple[Instance, Path]]) -> tuple[Rejection, ...]:
    """Return what rejection notes of a study say of instances that are here, with nothing left out; files: of `notes_of`.

    A note that cannot be read is none.
    """
    found = []
    for note, path in files:
        try:
            with warnings.catch_warnings():  # which may quote what a peer wrote
                warnings.simplefilter("ignore")
                read = rejection(dcmread(path, force=True, specific_tags=_READ), note, study)
        except _UNREADABLE:
            continue
        found += [read] if read is not None else []
    return tuple(found)


def rejection(dataset: Dataset, note: Instance, study: Study) -> Rejection | None:
    """Return what a Key Object says, None when it rejects nothing of this study and patient.

    The instances are those that its evidence lists for this study (Current Requested Procedure Evidence, PS3.3 C.17.6.2.1).
    """
    titles = [item.get("CodeValue") for item in dataset.get("ConceptNameCodeSequence") or () if item.get("CodingSchemeDesignator") == "DCM"]
    if len(titles) != 1 or str(titles[0]) not in TITLES or dataset.get("StudyInstanceUID") != study.study_instance_uid:
        return None
    named = _named(dataset, study.study_instance_uid)
    same = {one.sop_instance_uid for one in study.instances if patient(one) == patient(note)}
    instances = frozenset(named & same - {note.sop_instance_uid})
    return Rejection(instances=instances, why=TITLES[str(titles[0])], who=note.calling_ae) if instances else None


def patient(instance: Instance) -> tuple[str, str]:
    """Return whom an instance is of: Patient ID and its issuer."""
    return str(instance.header.get("PatientID") or ""), str(instance.header.get("IssuerOfPatientID") or "")


def _named(dataset: Dataset, study_instance_uid: str) -> set[str]:
    named: set[str] = set()
    for of_study in dataset.get("CurrentRequestedProcedureEvidenceSequence") or ():
        if of_study.get("StudyInstanceUID") != study_instance_uid:
            continue
        for series in of_study.get("ReferencedSeriesSequence") or ():
            for item in series.get("ReferencedSOPSequence") or ():
                uid = str(item.get("ReferencedSOPInstanceUID") or "")
                if is_uid(uid) and len(named) < _NAMED:
                    named.add(uid)
    return named
