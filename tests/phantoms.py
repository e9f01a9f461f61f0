"""Small series with known content: real DICOM data sets in every orientation, with a marker whose place in the patient is known."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
)

from dicom_node.domain import derived_uid

# Direction cosines of ImageOrientationPatient: along a row (columns counting up), then along a column (rows counting up).
ORIENTATIONS: dict[str, tuple[float, ...]] = {
    "axial": (1, 0, 0, 0, 1, 0),
    "coronal": (1, 0, 0, 0, 0, -1),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "oblique": (0.936117, 0.250563, -0.246773, -0.312568, 0.910386, -0.261337),  # no axis within 14 degrees of the patient's
}

PATIENT: dict[str, Any] = {
    "PatientName": "Marked^Patient",
    "PatientID": "MARKED-4711",
    "PatientBirthDate": "19500102",
    "PatientSex": "F",
    "PatientAge": "074Y",
}

STUDY: dict[str, Any] = {
    "StudyDate": "20240105",
    "StudyTime": "101500",
    "StudyID": "S1",
    "AccessionNumber": "A123",
    "ReferringPhysicianName": "Referring^Doctor",
    "StudyDescription": "Phantom study",
}


def marked(
    shape: tuple[int, int, int] = (8, 24, 20), marker: tuple[int, int, int] = (2, 5, 14), *, ground: int = 24, value: int = 1024
) -> np.ndarray:
    """Return stored values (slice, row, column): a slope in every direction, and a bright 2 x 3 x 4 block whose first voxel is `marker`."""
    slices, rows, columns = np.indices(shape)
    array = (ground + slices + 2 * rows + 3 * columns).astype(np.int16)
    array[block(marker)] = value
    return array


def block(marker: tuple[int, int, int]) -> tuple[slice, slice, slice]:
    """Return the index of the block of 2 slices, 3 rows and 4 columns that begins at `marker`."""
    return tuple(slice(start, start + size) for start, size in zip(marker, (2, 3, 4), strict=True))  # type: ignore[return-value]


def directions(orientation: str | Sequence[float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return unit vectors in the patient (LPS): from slice to slice, from row to row, from column to column."""
    cosines = np.asarray(ORIENTATIONS[orientation] if isinstance(orientation, str) else orientation, dtype=float)
    along_row = cosines[:3] / np.linalg.norm(cosines[:3])
    along_column = cosines[3:] - along_row * (cosines[3:] @ along_row)
    along_column /= np.linalg.norm(along_column)
    return np.cross(along_row, along_column), along_column, along_row


def affine(
    orientation: str | Sequence[float] = "axial",
    spacing_mm: tuple[float, float, float] = (2.5, 0.8, 0.7),
    origin_mm: tuple[float, float, float] = (-31.0, -42.0, 17.0),
) -> np.ndarray:
    """Return the 4 x 4 matrix from (slice, row, column) to the patient's millimetres (LPS) for the array given to `series`."""
    matrix = np.eye(4)
    for axis, (direction, spacing) in enumerate(zip(directions(orientation), spacing_mm, strict=True)):
        matrix[:3, axis] = direction * spacing
    matrix[:3, 3] = origin_mm
    return matrix


def series(
    array: np.ndarray | None = None,
    *,
    modality: str = "CT",
    orientation: str | Sequence[float] = "axial",
    spacing_mm: tuple[float, float, float] = (2.5, 0.8, 0.7),
    origin_mm: tuple[float, float, float] = (-31.0, -42.0, 17.0),
    rescale: tuple[float, float] | None = (1, -1024),
    seed: str = "phantom",
    number: int = 1,
    **attributes: Any,
) -> list[Dataset]:
    """Return one series of single-frame CT or MR images, the first being the array's first slice.

    array: stored values (slice, row, column), int16; without one, `marked()`.
    spacing_mm: between slices, rows, columns. rescale: slope and intercept; none writes neither.
    seed: of the UIDs; the study's and the frame of reference's depend on it alone, the series' on `number` too.
    attributes: DICOM keywords that replace, add or (given None) remove what is written, on every image.
    """
    array = marked() if array is None else array
    matrix = affine(orientation, spacing_mm, origin_mm)
    images = []
    for index, plane in enumerate(array):
        image = _header(modality, seed, number)
        image.SOPInstanceUID = derived_uid(seed, "instance", number, index)
        image.InstanceNumber = index + 1
        image.ImagePositionPatient = _decimals(matrix[:3, 3] + index * matrix[:3, 0])
        image.ImageOrientationPatient = _cosines(orientation)
        image.PixelSpacing = _decimals(spacing_mm[1:])
        image.SliceThickness = spacing_mm[0]
        if rescale is not None:
            image.RescaleSlope, image.RescaleIntercept = rescale
            image.RescaleType = "HU" if modality == "CT" else "US"
        _put_pixels(image, plane)
        images.append(_finished(image, CTImageStorage if modality == "CT" else MRImageStorage, attributes))
    return images


def enhanced(
    array: np.ndarray | None = None,
    *,
    modality: str = "CT",
    orientation: str | Sequence[float] = "axial",
    spacing_mm: tuple[float, float, float] = (2.5, 0.8, 0.7),
    origin_mm: tuple[float, float, float] = (-31.0, -42.0, 17.0),
    rescale: tuple[float, float] = (1, -1024),
    seed: str = "phantom",
    number: int = 1,
    **attributes: Any,
) -> Dataset:
    """Return the same content as `series` in one Enhanced CT or MR instance: one frame a slice, in the array's order."""
    array = marked() if array is None else array
    matrix = affine(orientation, spacing_mm, origin_mm)
    image = _header(modality, seed, number)
    image.SOPInstanceUID = derived_uid(seed, "enhanced", number)
    image.InstanceNumber = 1
    image.NumberOfFrames = len(array)
    image.ContentDate, image.ContentTime = image.AcquisitionDate, image.AcquisitionTime
    image.AcquisitionDateTime = image.AcquisitionDate + image.AcquisitionTime
    image.PresentationLUTShape = "IDENTITY"
    shared = Dataset()
    shared.PixelMeasuresSequence = [_item(PixelSpacing=_decimals(spacing_mm[1:]), SliceThickness=spacing_mm[0], SpacingBetweenSlices=spacing_mm[0])]
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=_cosines(orientation))]
    shared.PixelValueTransformationSequence = [
        _item(RescaleSlope=rescale[0], RescaleIntercept=rescale[1], RescaleType="HU" if modality == "CT" else "US")
    ]
    image.SharedFunctionalGroupsSequence = [shared]
    image.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=derived_uid(seed, "dimensions"))]
    image.PerFrameFunctionalGroupsSequence = [
        _item(
            FrameContentSequence=[_item(StackID="1", InStackPositionNumber=index + 1, DimensionIndexValues=[1, index + 1])],
            PlanePositionSequence=[_item(ImagePositionPatient=_decimals(matrix[:3, 3] + index * matrix[:3, 0]))],
        )
        for index in range(len(array))
    ]
    _put_pixels(image, array)
    return _finished(image, EnhancedCTImageStorage if modality == "CT" else EnhancedMRImageStorage, attributes)


def write(images: Sequence[Dataset], folder: Path) -> list[Path]:
    """Write each image as a DICOM file named by its place in the sequence, and return the paths in that order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index:04d}.dcm" for index in range(len(images))]
    for image, path in zip(images, paths, strict=True):
        image.save_as(path, enforce_file_format=True)
    return paths


def _header(modality: str, seed: str, number: int) -> Dataset:
    image = Dataset()
    for keyword, value in {**PATIENT, **STUDY}.items():
        setattr(image, keyword, value)
    image.SpecificCharacterSet = "ISO_IR 100"
    image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"] if modality == "CT" else ["ORIGINAL", "PRIMARY", "M", "NONE"]
    image.Modality = modality
    image.StudyInstanceUID = derived_uid(seed, "study")
    image.SeriesInstanceUID = derived_uid(seed, "series", number)
    image.FrameOfReferenceUID = derived_uid(seed, "frame of reference")
    image.PositionReferenceIndicator = ""
    image.SeriesNumber = number
    image.AcquisitionNumber = 1
    image.SeriesDescription = f"Phantom {modality}"
    image.SeriesDate = image.AcquisitionDate = "20240105"
    image.SeriesTime = image.AcquisitionTime = "101600"
    image.Manufacturer = "Phantom works"
    image.ManufacturerModelName = "Phantom 1"
    image.DeviceSerialNumber = "0001"
    image.SoftwareVersions = "1"
    image.PatientPosition = "HFS"
    image.BurnedInAnnotation = "NO"
    if modality == "CT":
        image.KVP = 120
        image.BodyPartExamined = "CHEST"
        image.ConvolutionKernel = "STANDARD"
    else:
        image.BodyPartExamined = "BRAIN"
        image.ScanningSequence, image.SequenceVariant, image.ScanOptions, image.MRAcquisitionType = "GR", "SP", "", "3D"
        image.RepetitionTime, image.EchoTime, image.EchoTrainLength, image.MagneticFieldStrength = 9.7, 4, 1, 1.5
    return image


def _put_pixels(image: Dataset, pixels: np.ndarray) -> None:
    if pixels.dtype != np.int16:
        raise TypeError(f"stored values are int16, these are {pixels.dtype}")
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.Rows, image.Columns = pixels.shape[-2:]
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 1
    data = pixels.astype("<i2").tobytes()
    image.PixelData = data + b"\0" * (len(data) % 2)


def _finished(image: Dataset, sop_class_uid: str, attributes: dict[str, Any]) -> Dataset:
    image.SOPClassUID = sop_class_uid
    for keyword, value in attributes.items():
        if value is not None:
            setattr(image, keyword, value)
        elif keyword in image:
            delattr(image, keyword)
    image.file_meta = FileMetaDataset()
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return image


def _item(**attributes: Any) -> Dataset:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def _cosines(orientation: str | Sequence[float]) -> list[str]:
    _, along_column, along_row = directions(orientation)
    return _decimals([*along_row, *along_column])


def _decimals(values: Any) -> list[str]:
    """Write numbers as DS holds them: at most 16 characters (PS3.5 Table 6.2-1)."""
    return [f"{float(value):.9g}"[:16] for value in values]


def localizer(seed: str) -> list[Dataset]:
    """Return one series of two axial images and two coronal ones, of another size."""
    axial = series(seed=seed)[:2]
    coronal = series(np.zeros((2, 30, 20), np.int16), orientation="coronal", spacing_mm=(2.5, 0.5, 0.7), seed=seed)
    for number, image in enumerate(coronal, start=20):
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = derived_uid(seed, number)
        image.InstanceNumber = number
    return [*axial, *coronal]
