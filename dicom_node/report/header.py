"""What an object says of patient, study and equipment: copied from the images as it stands there, or the run's own (IHE RAD App. V)."""

from highdicom import ContributingEquipment
from pydicom import Dataset
from pydicom.charset import convert_encodings, default_encoding
from pydicom.config import RAISE
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.sr.codedict import codes
from pydicom.tag import BaseTag, Tag
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import validate_value

from dicom_node.domain import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, REJECTION, derived_uid
from dicom_node.report.order import state_order
from dicom_node.report.run import Run
from dicom_node.report.words import Words, private_schemes

# The attributes of General Study and Patient Study (PS3.3 C.7.2) outside the groups 0010 and 0012.
_STUDY = (
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "IssuerOfAccessionNumberSequence",
    "ReferringPhysicianName",
    "ReferringPhysicianIdentificationSequence",
    "ConsultingPhysicianName",
    "ConsultingPhysicianIdentificationSequence",
    "StudyDescription",
    "ProcedureCodeSequence",
    "PhysiciansOfRecord",
    "PhysiciansOfRecordIdentificationSequence",
    "NameOfPhysiciansReadingStudy",
    "PhysiciansReadingStudyIdentificationSequence",
    "AdmittingDiagnosesDescription",
    "AdmittingDiagnosesCodeSequence",
    "ReferencedStudySequence",
    "StudyInstanceUID",
    "StudyID",
    "RequestingService",
    "RequestingServiceCodeSequence",
    "ReasonForVisit",
    "ReasonForVisitCodeSequence",
    "AdmissionID",
    "IssuerOfAdmissionIDSequence",
    "ServiceEpisodeID",
    "ServiceEpisodeDescription",
    "IssuerOfServiceEpisodeIDSequence",
    "PatientState",
)
_STUDY_TAGS = frozenset(int(tag_for_keyword(keyword)) for keyword in _STUDY)
_TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)
_CLINICAL_TRIAL_SERIES = frozenset({0x00120060, 0x00120071, 0x00120072, 0x00120073})
_DEVICE = ("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "DeviceSerialNumber", "StationName", "InstitutionName")
_TEXT = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UT"})
_FIRST_SERIES_NUMBER = 9000
_REJECTIONS_SERIES_NUMBER = 8999  # a note shows nothing, and stands before what is shown
_USE = " AI research use "


def is_copied(tag: int) -> bool:
    """Say whether an attribute at the top of an object is the study's: copied from the images, never written by us."""
    return (tag >> 16 in (0x0010, 0x0012) and tag not in _CLINICAL_TRIAL_SERIES) or tag in _STUDY_TAGS


def settle(dataset: Dataset, source: Dataset, run: Run, kind: str) -> None:
    """Replace what was written of patient, study, series, equipment and origin by what holds for this source and run.

    Texts of patient and study are copied as bytes where they were never decoded, so that a character set that a name does not keep to
    cannot change the name (PS3.3 C.7.1, C.7.2). The Manufacturer of the object is the model's; the scanner appears as contributing
    equipment. PS3.3 C.7.3.1, C.7.5.2, C.12.1; IHE AIR 6.5.3.1.
    """
    words = Words.of(source)
    for tag in _copied(dataset):
        del dataset[tag]
    copy_elements(source, dataset, _copied(source))
    state_order(dataset, source, run, words)
    for keyword in _TYPE_2:
        if keyword not in dataset:
            setattr(dataset, keyword, None)
    _character_set(dataset, source)
    _series(dataset, source, run, kind)
    _equipment(dataset, source, run, words)
    _origin(dataset, source, run, words)
    _file_meta(dataset)


def _copied(dataset: Dataset) -> list[BaseTag]:
    return [tag for tag in dataset.keys() if is_copied(tag) and not tag.is_private]  # noqa: SIM118 - iterating a Dataset decodes it


def copy_elements(source: Dataset, target: Dataset, tags: list[BaseTag]) -> None:
    """Copy elements as they stand: a text that nobody has decoded yet keeps its bytes, whatever its character set."""
    for tag in tags:
        element = source.get_item(tag)
        vr = (element.VR or dictionary_VR(tag)) if isinstance(element, RawDataElement) else ""
        if isinstance(element, RawDataElement) and vr in _TEXT:
            target[tag] = element._replace(VR=vr, is_implicit_VR=False)
            continue
        decoded = source[tag]
        for _ in decoded.value[0].iterall() if decoded.VR == "SQ" and decoded.value else ():
            pass  # reading decodes: raw elements of an implicit source have no VR to write
        target[tag] = DataElement(tag, decoded.VR, decoded.value, already_converted=True)  # no check of what is not ours: it tells values


def is_sound(source: Dataset, keyword: str) -> bool:
    """Say whether an attribute holds one text that its VR allows (PS3.5 Table 6.2-1).

    Scanners write overlong station names and body parts in small letters. Whoever copies these of his own accord answers for them, and a
    result is not to end in quarantine for the sake of a station name.
    """
    value = source.get(keyword)
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        return False
    try:
        validate_value(dictionary_VR(keyword), value, RAISE)
    except ValueError:
        return False
    return True


def series_description(run: Run, kind: str) -> str:
    """Return what a series is called (LO, at most 64 characters)."""
    return f"{run.model.name[: 64 - len(_USE) - len(kind)]}{_USE}{kind}"


def series_number(run: Run, kind: str) -> int:
    """Return a number from 9000 to 9999, of a rejection 8999, that belongs to this run and kind.

    Results stand behind the images and apart from one another.
    """
    if kind == REJECTION:
        return _REJECTIONS_SERIES_NUMBER
    manifest = run.model.manifest
    kinds = ["SEG", "SR", *(f"DER {name}" for name in manifest.images), *(f"PM {name}" for name in manifest.maps)]
    kinds += ["PR"] * bool(manifest.presentations) + ["KO"] * bool(manifest.keys)
    place = int(derived_uid(run.identity, "series number")[5:]) % (1000 // len(kinds))
    return _FIRST_SERIES_NUMBER + place * len(kinds) + kinds.index(kind)


def _character_set(dataset: Dataset, source: Dataset) -> None:
    if source.get("SpecificCharacterSet"):
        dataset.SpecificCharacterSet = source.SpecificCharacterSet
    elif "SpecificCharacterSet" in dataset:
        del dataset.SpecificCharacterSet
    # Undecoded elements are in the character set that the object declares: said so, pydicom writes them as they are.
    declared = dataset.get("SpecificCharacterSet")
    dataset.set_original_encoding(False, True, convert_encodings(declared) if declared else default_encoding)


def _series(dataset: Dataset, source: Dataset, run: Run, kind: str) -> None:
    dataset.SeriesInstanceUID = run.uid(f"{kind} series")
    dataset.SeriesNumber = series_number(run, kind)
    dataset.SeriesDescription = series_description(run, kind)
    if "Laterality" in dataset:  # an empty one is worse than none
        del dataset.Laterality


def _equipment(dataset: Dataset, source: Dataset, run: Run, words: Words) -> None:
    manifest = run.model.manifest
    dataset.Manufacturer = words.say(manifest.manufacturer, 64)
    dataset.ManufacturerModelName = manifest.name
    dataset.SoftwareVersions = words.say(manifest.version, 64)
    dataset.DeviceSerialNumber = serial_number(run)
    if run.station:
        dataset.StationName = words.say(run.station, 16)
    algorithm = ContributingEquipment(
        manufacturer=dataset.Manufacturer,
        purpose_of_reference=codes.DCM.ProcessingEquipment,
        manufacturer_model_name=dataset.ManufacturerModelName,
        software_versions=dataset.SoftwareVersions,
        device_serial_number=dataset.DeviceSerialNumber,
        contribution_description=words.say(manifest.intended_use, 1024),
    )
    algorithm.DeviceUID = run.model.device_uid
    # One item for each algorithm (AIR 6.5.3.1): the library that writes the object would count as another.
    dataset.ContributingEquipmentSequence = [*_scanner(source), algorithm]


def serial_number(run: Run) -> str:
    """Return the model build's serial number: the beginning of its hash."""
    return run.model.build[:16]


def _scanner(source: Dataset) -> list[Dataset]:
    if not is_sound(source, "Manufacturer"):
        return []
    scanner = Dataset()
    copy_elements(source, scanner, [Tag(keyword) for keyword in _DEVICE if is_sound(source, keyword)])
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = "109101", "DCM", "Acquisition Equipment"
    scanner.PurposeOfReferenceCodeSequence = [purpose]
    return [scanner]


def _origin(dataset: Dataset, source: Dataset, run: Run, words: Words) -> None:
    offset = str(source.get("TimezoneOffsetFromUTC") or "")
    date, time = run.moment(offset)
    for prefix in ("Series", "Content", "InstanceCreation"):
        setattr(dataset, f"{prefix}Date", date)
        setattr(dataset, f"{prefix}Time", time)
    if offset:
        dataset.TimezoneOffsetFromUTC = offset
    dataset.InstanceCreatorUID = run.model.device_uid
    dataset.ContentQualification = "RESEARCH"
    schemes = private_schemes(run.model.manifest, words)
    if schemes:
        dataset.CodingSchemeIdentificationSequence = schemes


def _file_meta(dataset: Dataset) -> None:
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    dataset.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
