"""What a modality may ask of a worklist, which entries it means, and what it is answered: decided without a socket or a file (PS3.4 Annex K)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom import DataElement, Dataset
from pydicom.tag import Tag

from dicom_node.domain import Priority, Refused
from dicom_node.store.match import Test, matcher, span_asked
from dicom_node.worklist.answering import filled, plain

SOP_CLASS = "1.2.840.10008.5.1.4.31"
STEP = "ScheduledProcedureStepSequence"

OUT_OF_RESOURCES = 0xA700
DOES_NOT_FIT = 0xA900
UNABLE = 0xC001
PENDING, UNSUPPORTED_KEYS = 0xFF00, 0xFF01
CANCELLED = 0xFE00

_COMMENTS, _URGENCY = "RequestedProcedureComments", "ReportingPriority"
_CHARACTERS = "SpecificCharacterSet"
_DATE, _TIME = "ScheduledProcedureStepStartDate", "ScheduledProcedureStepStartTime"
# The required matching keys of Table K.6-1, of which an entry without a value counts as a match. Patient ID, required too, is not among them: who
# asks for one patient must not be given another's entries.
_REQUIRED = frozenset({"ScheduledStationAETitle", _DATE, _TIME, "Modality", "ScheduledPerformingPhysicianName", "PatientName"})

# The attributes of Table K.6-1, which are matched and returned whether the files hold them or not.
_OF_STEP = frozenset(
    {
        *("ScheduledStationAETitle", _DATE, _TIME, "Modality", "ScheduledPerformingPhysicianName", "ScheduledProcedureStepDescription"),
        *("ScheduledStationName", "ScheduledProcedureStepLocation", "ScheduledProtocolCodeSequence", "PreMedication", "ScheduledProcedureStepID"),
        *("RequestedContrastAgent", "ScheduledProcedureStepStatus", "ScheduledProcedureStepEndDate", "ScheduledProcedureStepEndTime"),
        *("ScheduledPerformingPhysicianIdentificationSequence", "CommentsOnTheScheduledProcedureStep", "AnatomicalOrientationType"),
    }
)
_OF_ENTRY = frozenset(
    {
        STEP,
        *("RequestedProcedureID", "RequestedProcedureDescription", "RequestedProcedureCodeSequence", "StudyInstanceUID", "StudyDate", "StudyTime"),
        *("ReferencedStudySequence", "RequestedProcedurePriority", "PatientTransportArrangements", "ReasonForTheRequestedProcedure"),
        *("RequestedProcedureComments", "ReasonForRequestedProcedureCodeSequence", "RequestedProcedureLocation", "ConfidentialityCode"),
        *("ReportingPriority", "NamesOfIntendedRecipientsOfResults", "IntendedRecipientsOfResultsIdentificationSequence"),
        *("AccessionNumber", "IssuerOfAccessionNumberSequence", "RequestingPhysician", "ReferringPhysicianName", "RequestingService"),
        *("RequestingServiceCodeSequence", "ReferringPhysicianIdentificationSequence", "RequestingPhysicianIdentificationSequence"),
        *("PlacerOrderNumberImagingServiceRequest", "FillerOrderNumberImagingServiceRequest", "OrderPlacerIdentifierSequence"),
        *("OrderFillerIdentifierSequence", "ReasonForTheImagingServiceRequest", "ImagingServiceRequestComments", "IssueDateOfImagingServiceRequest"),
        *("IssueTimeOfImagingServiceRequest", "OrderEnteredBy", "OrderEntererLocation", "OrderCallbackPhoneNumber"),
        *("AdmissionID", "IssuerOfAdmissionIDSequence", "CurrentPatientLocation", "InstitutionName", "InstitutionAddress"),
        *("AdmittingDiagnosesDescription", "AdmittingDiagnosesCodeSequence", "AdmittingDate", "AdmittingTime", "VisitStatusID"),
        *("PatientInstitutionResidence", "ReferencedPatientSequence", "PatientName", "PatientID", "IssuerOfPatientID"),
        *("IssuerOfPatientIDQualifiersSequence", "OtherPatientIDsSequence", "OtherPatientIDs", "OtherPatientNames", "PatientBirthDate"),
        *("PatientBirthTime", "PatientSex", "PatientSize", "PatientWeight", "PatientAge", "PatientAddress", "PatientTelephoneNumbers"),
        *("EthnicGroup", "Occupation", "PatientComments", "MilitaryRank", "BranchOfService", "PatientReligiousPreference", "SmokingStatus"),
        *("ConfidentialityConstraintOnPatientDataDescription", "PatientPrimaryLanguageCodeSequence", "PatientState", "PregnancyStatus"),
        *("MedicalAlerts", "Allergies", "SpecialNeeds", "LastMenstrualDate", "AdditionalPatientHistory", "PertinentDocumentsSequence"),
        *("PatientSpeciesDescription", "PatientSpeciesCodeSequence", "PatientBreedDescription", "ResponsiblePerson", "ResponsiblePersonRole"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One scheduled procedure step with its order and patient."""

    dataset: Dataset  # every value of it decoded, with one item of the step's sequence
    attributes: Mapping[str, Any]  # the same as `match` takes it


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What an identifier asks for."""

    identifier: Dataset
    matches: Test

    @property
    def is_of_place(self) -> bool:
        """Whether it asks for what is another of a study that was raised."""
        return _COMMENTS in self.identifier or _URGENCY in self.identifier

    def answer(self, entry: Entry) -> tuple[Dataset, bool]:
        """Return what is answered of an entry: every key that was asked for, and whether all of them are supported (PS3.4 K.4.1.1.3.2)."""
        answer, whole = filled(self.identifier, entry.dataset, known=_OF_ENTRY, of_items={STEP: _OF_STEP})
        if "SpecificCharacterSet" in entry.dataset:
            answer.SpecificCharacterSet = entry.dataset.SpecificCharacterSet
        return answer, whole


def entries(dataset: Dataset) -> tuple[Entry, ...]:
    """Return what a worklist file holds: an entry for each item of its steps.

    Raises
    ------
    ValueError: it holds no scheduled procedure step.
    """
    dataset.decode()
    steps = dataset.get(STEP)
    if not steps:
        raise ValueError("it has no Scheduled Procedure Step Sequence")
    found = []
    for step in steps:
        one = Dataset()
        one.update({element.tag: element for element in dataset if element.keyword != STEP})
        one.ScheduledProcedureStepSequence = [step]
        found.append(Entry(dataset=one, attributes=plain(one)))
    return tuple(found)


def raised(entry: Entry, comments: Sequence[str], priority: Priority) -> Entry:
    """Return an entry as it reads once its study was raised: its Reporting Priority, and comments before those that it has.

    Its own Reporting Priority stays where it is higher.
    """
    own = Priority[held] if (held := str(entry.dataset.get(_URGENCY) or "")) in Priority.__members__ else Priority.LOW
    said = {_COMMENTS: " ".join([*comments, str(entry.dataset.get(_COMMENTS) or "")]).strip(), _URGENCY: max(own, priority).name}
    one = Dataset()
    one.update({element.tag: element for element in entry.dataset})
    for (keyword, value), vr in zip(said.items(), ("LT", "CS"), strict=True):  # elements of their own: those of the entry are another answer's too
        one[keyword] = DataElement(Tag(keyword), vr, value)
    if not all(map(str.isascii, comments)):  # the file's characters may not be those of the site's words
        one[_CHARACTERS] = DataElement(Tag(_CHARACTERS), "CS", "ISO_IR 192")
    return Entry(dataset=one, attributes={**entry.attributes, **said})


def order_of(entry: Entry) -> tuple[str, str, str]:
    """Return how an entry's study is known: Study Instance UID, accession number and Patient ID; empty texts where it does not say."""
    one = entry.dataset
    return str(one.get("StudyInstanceUID") or ""), str(one.get("AccessionNumber") or ""), str(one.get("PatientID") or "")


def asked(identifier: Dataset) -> Asked:
    """Return what an identifier asks for (PS3.4 K.4.1.1.3); keys that are not supported are passed over.

    Raises
    ------
    Refused: it does not fit the SOP class, or cannot be read.
    """
    try:
        identifier.decode()
        keys = plain(identifier)
    except Exception as error:  # whatever pydicom raises on bytes that anybody may send: they are no data set
        raise Refused("the identifier cannot be read", status=DOES_NOT_FIT) from error
    steps = keys.pop(STEP, None) or [{}]
    if not isinstance(steps, list) or len(steps) > 1:
        raise Refused(f"{STEP} of an identifier has one item (PS3.4 K.6.1.2.2)", status=DOES_NOT_FIT)
    of_step = {keyword: value for keyword, value in steps[0].items() if keyword in _OF_STEP}
    within = _within(str(of_step.get(_DATE) or ""), str(of_step.get(_TIME) or ""))
    if within is not None:
        of_step = {keyword: value for keyword, value in of_step.items() if keyword not in (_DATE, _TIME)}
    of_entry = {keyword: value for keyword, value in keys.items() if keyword in _OF_ENTRY}
    meant, step_meant = matcher(of_entry, required=_REQUIRED), matcher(of_step, required=_REQUIRED)

    def matches(attributes: Mapping[str, Any]) -> bool:
        step = attributes[STEP][0]
        return meant(attributes) and step_meant(step) and (within is None or within(step))

    return Asked(identifier=identifier, matches=matches)


def _within(date: str, time: str) -> Callable[[Mapping[str, Any]], bool] | None:
    """Return how the start of a step is compared where a range of dates and one of times are one range of moments (Table K.6-1); None else."""
    dates, times = span_asked("DA", date) if "-" in date else None, span_asked("TM", time) if "-" in time else None
    if dates is None or times is None or date.strip() == "-" or time.strip() == "-":
        return None
    first = dates[0] and dates[0] + (times[0] or "000000.000000")
    last = dates[1] and dates[1] + (times[1] or "235960.999999")

    def within(step: Mapping[str, Any]) -> bool:
        day, moment = span_asked("DA", str(step.get(_DATE) or "")), span_asked("TM", str(step.get(_TIME) or ""))
        if day is None:
            return not step.get(_DATE)
        begin, end = (moment[0], moment[1]) if moment is not None else (None, None)
        return (not last or f"{day[0]}{begin or '000000.000000'}" <= last) and (not first or f"{day[1]}{end or '235960.999999'}" >= first)

    return within
