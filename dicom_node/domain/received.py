"""What was received: instances, and series and studies as views over them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

# What the ledger keeps of each instance's header: identity, and what selecting a series asks for most.
# A rule may ask for any other keyword: it is then read from the file of the series' first instance.
HEADER_KEYWORDS = (
    "SpecificCharacterSet",
    "ImageType",
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyDate",
    "SeriesDate",
    "StudyTime",
    "SeriesTime",
    "AcquisitionTime",
    "AccessionNumber",
    "Modality",
    "PresentationIntentType",
    "Manufacturer",
    "ReferringPhysicianName",
    "TimezoneOffsetFromUTC",
    "StudyDescription",
    "SeriesDescription",
    "ManufacturerModelName",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "ContrastBolusAgent",
    "BodyPartExamined",
    "ScanningSequence",
    "SequenceVariant",
    "MRAcquisitionType",
    "SequenceName",
    "SliceThickness",
    "KVP",
    "RepetitionTime",
    "EchoTime",
    "InversionTime",
    "MagneticFieldStrength",
    "SpacingBetweenSlices",
    "ProtocolName",
    "GantryDetectorTilt",
    "ConvolutionKernel",
    "PatientPosition",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "StudyID",
    "SeriesNumber",
    "AcquisitionNumber",
    "InstanceNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "FrameOfReferenceUID",
    "Laterality",
    "TemporalPositionIdentifier",
    "NumberOfTemporalPositions",
    "ImagesInAcquisition",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "PixelSpacing",
    "BurnedInAnnotation",
    "ViewPosition",
)

# Modalities of objects that say something about images rather than being images: never an analysis' input unless a rule asks.
DERIVED_MODALITIES = frozenset({"SEG", "SR", "KO", "PR", "REG", "RTSTRUCT", "RTPLAN", "RTDOSE", "RWV", "DOC", "PLAN", "AU", "SMR"})

SEGMENTATIONS = frozenset({"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"})  # Segmentation, Label Map Segmentation Storage

# Images that are no slices: each shows the patient by itself and states no place in the patient's coordinates. Radiographs, mammograms, dental
# images, angiograms, ultrasound, screen captures and photographs; of those that may have many frames, the ones with one.
PROJECTIONS = frozenset(
    "1.2.840.10008.5.1.4.1.1." + last
    for last in (
        *("1", "1.1", "1.1.1", "1.2", "1.2.1", "1.3", "1.3.1"),  # CR, DX, MG, IO, for presentation and for processing
        *("6", "6.1", "3", "3.1", "12.1", "12.2"),  # US and US multi-frame, each with the retired class; XA, XRF
        *(
            "7",
            "77.1.1",
            "77.1.2",
            "77.1.4",
            "77.1.5.1",
            "77.1.5.2",
        ),  # Secondary Capture; VL endoscopic, microscopic, photographic; ophthalmic of 8 and 16 bits
    )
)

# Asked for like any other keyword: of a segmentation or structure set the UIDs of the series that it was drawn on.
DRAWN_ON = "ReferencedSeriesSequence"

Header = Mapping[str, Any]  # DICOM keyword -> str, int, float or a list of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One received SOP Instance: one version of its bytes, kept as they came."""

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    study_instance_uid: str
    series_instance_uid: str
    path: str  # below the archive, with forward slashes
    size_bytes: int  # of the file
    digest: str  # SHA-256 of the data set as it was received, in hexadecimal
    calling_ae: str
    received_at: float  # seconds since the epoch
    header: Header
    id: int = 0  # the ledger's, once recorded
    version: int = 1  # counts up when the same UID arrives with other content


@dataclass(frozen=True, kw_only=True)
class Series:
    """The current instances of one series, in order of InstanceNumber then UID."""

    series_instance_uid: str
    instances: tuple[Instance, ...]
    more: Header = field(default_factory=dict)  # keywords beyond HEADER_KEYWORDS that were asked for, read from one file

    @cached_property
    def header(self) -> Header:
        """What the series' images have in common: of each keyword its most frequent value, of a tie the first."""
        common = {keyword: _most_frequent(i.header.get(keyword) for i in self.instances) for keyword in HEADER_KEYWORDS}
        return {keyword: value for keyword, value in common.items() if value is not None} | dict(self.more)

    @property
    def derived(self) -> bool:
        """Whether this is something made from images (a segmentation, a report, a reformat) rather than acquired.

        A projection that is DERIVED and PRIMARY is what the acquiring system made of its own raw image (PS3.3 C.7.6.1.1.2): it counts as acquired.
        """
        stated = self.header.get("ImageType") or []
        kind = tuple(stated[:2]) if isinstance(stated, list | tuple) else (stated,)
        made = kind[:1] == ("DERIVED",) and not (self.projection and kind[1:] == ("PRIMARY",))
        return str(self.header.get("Modality")) in DERIVED_MODALITIES or made

    @property
    def projection(self) -> bool:
        """Whether its images are no slices: each shows the patient by itself, and states no place."""
        return self.header.get("SOPClassUID") in PROJECTIONS and not self.header.get("ImagePositionPatient")

    @property
    def each(self) -> tuple["Series", ...]:
        """Its images one by one, each as a series of its own."""
        return tuple(Series(series_instance_uid=self.series_instance_uid, instances=(one,), more=self.more) for one in self.instances)


@dataclass(frozen=True, kw_only=True)
class Study:
    """The current instances of one study, as rules and selection see it."""

    study_instance_uid: str
    instances: tuple[Instance, ...]
    revision: int = 0  # how often it was judged complete
    changes: int = 0  # how often its content changed
    first_received_at: float = 0.0
    last_received_at: float = 0.0
    more: Mapping[str, Header] = field(default_factory=dict)  # series UID -> keywords beyond HEADER_KEYWORDS
    rejected: frozenset[str] = frozenset()  # SOP Instance UIDs of what came and is not among the instances: a rejection note hides it

    @cached_property
    def series(self) -> tuple[Series, ...]:
        """The study's series, in order of SeriesNumber then UID."""
        groups: dict[str, list[Instance]] = {}
        for instance in self.instances:
            groups.setdefault(instance.series_instance_uid, []).append(instance)
        found = [
            Series(series_instance_uid=uid, instances=tuple(sorted(members, key=_instance_order)), more=self.more.get(uid, {}))
            for uid, members in groups.items()
        ]
        return tuple(sorted(found, key=lambda s: (_number(s.header.get("SeriesNumber")), s.series_instance_uid)))

    @property
    def patients(self) -> frozenset[tuple[str, str]]:
        """The patient identities (PatientID, IssuerOfPatientID) that the instances name: more than one is a conflict."""
        return frozenset((str(i.header.get("PatientID") or ""), str(i.header.get("IssuerOfPatientID") or "")) for i in self.instances)


def _most_frequent(values: Iterable[Any]) -> Any:
    counts: dict[str, list[Any]] = {}
    for value in values:
        if value is not None:
            counts.setdefault(repr(value), [value, 0])[1] += 1
    return max(counts.values(), key=lambda pair: pair[1])[0] if counts else None


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("inf")


def _instance_order(instance: Instance) -> tuple[float, str]:
    return _number(instance.header.get("InstanceNumber")), instance.sop_instance_uid


def drawn_on(header: Any) -> list[str]:
    """Return the series that a segmentation (PS3.3 C.12.2) or a structure set (C.8.8.5) says it was drawn on, from its data set."""
    items = [*(header.get(DRAWN_ON) or ())]
    for frame in header.get("ReferencedFrameOfReferenceSequence") or ():
        for study in frame.get("RTReferencedStudySequence") or ():
            items += study.get("RTReferencedSeriesSequence") or ()
    return list(dict.fromkeys(str(item.get("SeriesInstanceUID")) for item in items if item.get("SeriesInstanceUID")))
