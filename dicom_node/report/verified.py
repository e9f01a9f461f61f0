"""A report that a person verified: the same content in a new object, which names who verified it and the report that it stands for."""

from copy import deepcopy
from dataclasses import dataclass

from pydicom import Dataset

from dicom_node.domain import VERIFIED, derived_uid
from dicom_node.report.run import Draft, moment
from dicom_node.report.words import Words

_LO, _PN = 64, 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Observer:
    """Who verified a report, and when."""

    name: str  # as people write it, such as "Anna Berg", or as VR PN has it
    organization: str
    at: float  # seconds since the epoch


def verified(report: Dataset, by: Observer) -> Draft:
    """Return the report as verified by a person (PS3.3 C.17.2): final, with a Verifying Observer, the report itself as its predecessor.

    The content is the same, item by item. The same report, person and moment give the same object: a retry writes the same bytes.
    """
    words, offset = Words.of(report), str(report.get("TimezoneOffsetFromUTC") or "")
    date, time = moment(by.at, offset)
    made = deepcopy(report)
    made.SOPInstanceUID = _uid(report, by, "instance")
    made.SeriesInstanceUID = _uid(report, by, "series")
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.SeriesDescription = words.say(f"{report.get('SeriesDescription') or ''} verified", _LO)
    for prefix in ("Series", "Content", "InstanceCreation"):
        setattr(made, f"{prefix}Date", date)
        setattr(made, f"{prefix}Time", time)
    made.PreliminaryFlag, made.VerificationFlag = "FINAL", "VERIFIED"
    made.VerifyingObserverSequence = [_observer(by, words, f"{date}{time}{offset}")]
    made.PredecessorDocumentsSequence = [_document(report)]
    return Draft(kind=VERIFIED, dataset=made)


def _uid(report: Dataset, by: Observer, part: str) -> str:
    return derived_uid(report.SOPInstanceUID, "verified", by.name, f"{by.at:.3f}", part)


def _observer(by: Observer, words: Words, at: str) -> Dataset:
    item = Dataset()
    item.VerifyingObserverName = person_name(words.say(by.name.replace("=", " "), _PN))
    item.VerifyingObserverIdentificationCodeSequence = []  # type 2: the node knows no code of a person
    item.VerifyingOrganization = words.say(by.organization, _LO)
    item.VerificationDateTime = at
    return item


def person_name(name: str) -> str:
    """Return a name as VR PN has it (PS3.5 §6.2): family name first. "Anna Berg" and "Berg, Anna" are Berg^Anna; one word stays as it is."""
    if "^" in name:
        return name
    family, comma, given = name.partition(",")
    if not comma:
        given, _, family = name.strip().rpartition(" ")
    return "^".join(part.strip() for part in (family, given) if part.strip())


def _document(report: Dataset) -> Dataset:
    """Return a reference to a document (Hierarchical SOP Instance Reference Macro, PS3.3 Table C.17-3b)."""
    instance, series, study = Dataset(), Dataset(), Dataset()
    instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID = report.SOPClassUID, report.SOPInstanceUID
    series.SeriesInstanceUID, series.ReferencedSOPSequence = report.SeriesInstanceUID, [instance]
    study.StudyInstanceUID, study.ReferencedSeriesSequence = report.StudyInstanceUID, [series]
    return study
