"""Projection images with known content, as real DICOM data sets: radiographs, mammograms, ultrasound, screen captures."""

from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
    XRayAngiographicImageStorage,
)

from dicom_node.domain import derived_uid
from tests import phantoms

CLASSES = {
    "CR": ComputedRadiographyImageStorage,
    "DX": DigitalXRayImageStorageForPresentation,
    "DX for processing": DigitalXRayImageStorageForProcessing,
    "MG": DigitalMammographyXRayImageStorageForPresentation,
    "XA": XRayAngiographicImageStorage,
    "US": UltrasoundImageStorage,
    "SC": SecondaryCaptureImageStorage,
}
DETECTOR_MM = ["0.2", "0.15"]  # between rows, between columns


def wedge(rows: int = 40, columns: int = 30, bits: int = 12) -> np.ndarray:
    """Return stored values (row, column) of so many bits: a slope, and both ends of the range in two corners."""
    array = (200 + 3 * np.arange(rows)[:, None] + 7 * np.arange(columns)).astype(np.uint16)
    array[0, 0], array[-1, -1] = 0, 2**bits - 1
    return array


def image(
    kind: str = "CR", array: np.ndarray | None = None, *, number: int = 1, bits: int = 12, seed: str = "projection", **attributes: Any
) -> Dataset:
    """Return one image of a kind in CLASSES.

    array: stored values (row, column), uint16 or uint8, or colours (row, column, 3) of 8 bits; without one, `wedge()`.
    attributes: DICOM keywords that replace, add or (given None) remove what is written.
    """
    if array is None:
        array = (wedge(bits=bits) >> 4).astype(np.uint8) if kind == "US" else wedge(bits=bits)  # ultrasound has 8 bits (PS3.3 C.8.5.6)
    made = _header(kind, number, seed)
    _put_pixels(made, array, bits)
    for keyword, value in _OF_KIND.get(kind.partition(" ")[0], {}).items():
        setattr(made, keyword, value)
    made.PresentationIntentType = "FOR PROCESSING" if kind == "DX for processing" else "FOR PRESENTATION"
    if kind in ("CR", "XA", "US", "SC"):
        del made.PresentationIntentType
    if kind == "DX for processing":
        del made.WindowCenter, made.WindowWidth
    for keyword, value in attributes.items():
        if value is not None:
            setattr(made, keyword, value)
        elif keyword in made:
            delattr(made, keyword)
    made.file_meta = FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID, made.file_meta.MediaStorageSOPInstanceUID = made.SOPClassUID, made.SOPInstanceUID
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return made


def _header(kind: str, number: int, seed: str) -> Dataset:
    made = Dataset()
    for keyword, value in {**phantoms.PATIENT, **phantoms.STUDY}.items():
        setattr(made, keyword, value)
    made.SpecificCharacterSet = "ISO_IR 100"
    made.SOPClassUID, made.SOPInstanceUID = CLASSES[kind], derived_uid(seed, "instance", number)
    made.StudyInstanceUID, made.SeriesInstanceUID = derived_uid(seed, "study"), derived_uid(seed, "series")
    made.Modality = {"SC": "OT"}.get(kind, kind[:2])
    made.ImageType = ["ORIGINAL", "PRIMARY"]
    made.SeriesNumber, made.InstanceNumber = 1, number
    made.SeriesDate = made.AcquisitionDate = made.ContentDate = "20240105"
    made.SeriesTime = made.AcquisitionTime = made.ContentTime = "101600"
    made.Manufacturer, made.ManufacturerModelName, made.DeviceSerialNumber, made.SoftwareVersions = "Phantom works", "Phantom 1", "0001", "1"
    made.BodyPartExamined, made.ViewPosition, made.PatientOrientation = "CHEST", "PA", ["L", "F"]
    made.BurnedInAnnotation, made.LossyImageCompression = "NO", "00"
    made.WindowCenter, made.WindowWidth = "2000", "3000"
    return made


def _put_pixels(made: Dataset, array: np.ndarray, bits: int) -> None:
    colour = array.ndim == 3
    made.SamplesPerPixel, made.PhotometricInterpretation = (3, "RGB") if colour else (1, "MONOCHROME2")
    if colour:
        made.PlanarConfiguration = 0
        del made.WindowCenter, made.WindowWidth
    made.Rows, made.Columns = array.shape[:2]
    allocated = array.dtype.itemsize * 8
    made.BitsAllocated, made.BitsStored, made.PixelRepresentation = allocated, min(bits, allocated), 0
    made.HighBit = made.BitsStored - 1
    data = array.astype(array.dtype.newbyteorder("<")).tobytes()
    made.PixelData = data + b"\0" * (len(data) % 2)
    made["PixelData"].VR = "OW" if allocated > 8 else "OB"


def _code(value: str, scheme: str, meaning: str, **more: Any) -> Dataset:
    item = Dataset()
    for keyword, given in more.items():
        setattr(item, keyword, given)
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


_RADIOGRAPH = {
    "KVP": "120",
    "ImagerPixelSpacing": DETECTOR_MM,
    "DetectorType": "DIRECT",
    "PixelIntensityRelationship": "LOG",
    "PixelIntensityRelationshipSign": -1,
    "RescaleSlope": "1",
    "RescaleIntercept": "0",
    "RescaleType": "US",
    "PresentationLUTShape": "IDENTITY",
    "ImageLaterality": "U",
    "AcquisitionContextSequence": [],
    "AnatomicRegionSequence": [_code("51185008", "SCT", "Thorax")],
    "PositionerType": "NONE",
}
_OF_KIND: dict[str, dict[str, Any]] = {
    "CR": {"ImagerPixelSpacing": DETECTOR_MM, "PlateType": "ST5", "KVP": "120"},
    "DX": _RADIOGRAPH,
    "MG": _RADIOGRAPH
    | {
        "BodyPartExamined": "BREAST",
        "ViewPosition": "CC",
        "ImageLaterality": "R",
        "PatientOrientation": ["P", "L"],
        "AnatomicRegionSequence": [_code("76752008", "SCT", "Breast")],
        "PositionerType": "MAMMOGRAPHIC",
        "OrganExposed": "BREAST",
        "ViewCodeSequence": [_code("399162004", "SCT", "cranio-caudal", ViewModifierCodeSequence=[])],
        "BreastImplantPresent": "NO",
        "PartialView": "NO",
        "ImageType": ["ORIGINAL", "PRIMARY", ""],
    },
    "SC": {"ConversionType": "WSD"},
    "XA": {
        "ImageType": ["ORIGINAL", "PRIMARY", "SINGLE PLANE"],
        "PixelIntensityRelationship": "LIN",
        "RadiationSetting": "SC",
        "KVP": "80",
        "XRayTubeCurrent": "5",
        "ExposureTime": "10",
        "Exposure": "1",
        "PositionerPrimaryAngle": "0",
        "PositionerSecondaryAngle": "0",
    },
}
