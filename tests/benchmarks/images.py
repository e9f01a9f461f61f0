"""Images such as scanners make, for as long as a benchmark runs: real headers, noise for pixels, every object one of its own."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

_SIDE = {"CT": 512, "MR": 256}  # pixels
_CLASS = {"CT": CTImageStorage, "MR": MRImageStorage}
_PIECE = {  # what a scanner says of how it made an image
    "CT": {
        "ScanOptions": "HELICAL MODE", "SliceThickness": 1.25, "KVP": 120.0, "DataCollectionDiameter": 500.0, "ReconstructionDiameter": 360.0,
        "DistanceSourceToDetector": 949.147, "DistanceSourceToPatient": 541.0, "GantryDetectorTilt": 0.0, "TableHeight": 157.5,
        "RotationDirection": "CW", "ExposureTime": 570, "XRayTubeCurrent": 305, "Exposure": 3, "FilterType": "BODY FILTER",
        "GeneratorPower": 36600, "FocalSpots": 1.2, "ConvolutionKernel": "STANDARD", "SingleCollimationWidth": 0.625,
        "TotalCollimationWidth": 40.0, "TableSpeed": 78.75, "TableFeedPerRotation": 55.0, "SpiralPitchFactor": 1.375,
        "RescaleIntercept": -1024.0, "RescaleSlope": 1.0, "RescaleType": "HU",
    },
    "MR": {
        "ScanningSequence": "GR", "SequenceVariant": ["SP", "MP"], "ScanOptions": "IR", "MRAcquisitionType": "3D", "SequenceName": "tfl3d1",
        "SliceThickness": 1.0, "RepetitionTime": 2300.0, "EchoTime": 2.98, "InversionTime": 900.0, "NumberOfAverages": 1.0,
        "ImagingFrequency": 123.25, "ImagedNucleus": "1H", "EchoNumbers": 1, "MagneticFieldStrength": 3.0, "NumberOfPhaseEncodingSteps": 256,
        "EchoTrainLength": 1, "PercentSampling": 100.0, "PercentPhaseFieldOfView": 100.0, "PixelBandwidth": 240.0,
        "TransmitCoilName": "Body", "AcquisitionMatrix": [0, 256, 256, 0], "InPlanePhaseEncodingDirection": "ROW", "FlipAngle": 9.0,
        "VariableFlipAngleFlag": "N", "SAR": 0.05, "dBdt": 0.0,
    },
}  # fmt: skip


def write_series(folder: Path, modality: str, *, series: int, count: int, side: int = 0) -> list[Path]:
    """Write a new study with so many series of so many images each, and return the files, series by series.

    A CT is 512 × 512 int16 (525 KB), an MR 256 × 256 (132 KB), unless a side is given; sixty and more elements, as from a scanner.
    """
    folder.mkdir(parents=True)
    side = side or _SIDE[modality]
    noise = np.random.default_rng(3).integers(0, 2048, 2 * side * side, dtype=np.int16)
    study = generate_uid()
    files = []
    for number in range(series):
        dataset = _dataset(modality, study, number + 1, count, side)
        for slice_number in range(count):
            _place(dataset, slice_number)
            dataset.PixelData = noise[slice_number : slice_number + side * side].tobytes()
            files.append(folder / f"{number:02}-{slice_number:03}.dcm")
            dataset.save_as(files[-1], enforce_file_format=True)
    return files


def shared_out(files: Sequence[Path], senders: int, each: int) -> list[list[Path]]:
    """Give so many files to each of so many senders, none to two of them."""
    assert senders * each <= len(files)
    return [list(files[number * each : (number + 1) * each]) for number in range(senders)]


def _dataset(modality: str, study: str, series_number: int, count: int, side: int) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    values = {
        "SpecificCharacterSet": "ISO_IR 100", "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "SOPClassUID": _CLASS[modality],
        "StudyDate": "20240105", "SeriesDate": "20240105", "AcquisitionDate": "20240105", "ContentDate": "20240105", "StudyTime": "101530",
        "SeriesTime": "101702", "AcquisitionTime": "101718", "ContentTime": "101730", "AccessionNumber": "A4711", "Modality": modality,
        "Manufacturer": "BENCHMARK", "InstitutionName": "Nowhere", "ReferringPhysicianName": "Nobody^N", "StationName": "BENCH1",
        "StudyDescription": "Benchmark", "SeriesDescription": f"Series {series_number}", "ManufacturerModelName": "Noise",
        "PatientName": "Benchmark^Of Nobody", "PatientID": "BENCH-1", "PatientBirthDate": "19700101", "PatientSex": "O", "PatientAge": "054Y",
        "PatientWeight": 70.0, "BodyPartExamined": "CHEST", "DeviceSerialNumber": "1", "SoftwareVersions": "1", "ProtocolName": "Benchmark",
        "PatientPosition": "HFS", "StudyInstanceUID": study, "SeriesInstanceUID": generate_uid(), "StudyID": "1", "SeriesNumber": series_number,
        "AcquisitionNumber": 1, "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "FrameOfReferenceUID": generate_uid(), "Laterality": "",
        "ImagesInAcquisition": count, "PositionReferenceIndicator": "SN", "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2",
        "Rows": side, "Columns": side, "PixelSpacing": [0.703125, 0.703125], "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15,
        "PixelRepresentation": 1, "WindowCenter": 40.0, "WindowWidth": 400.0, **_PIECE[modality],
    }  # fmt: skip
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset.add_new("PixelData", "OW", b"")
    return dataset


def _place(dataset: Dataset, slice_number: int) -> None:
    dataset.SOPInstanceUID = generate_uid()
    dataset.InstanceNumber = slice_number + 1
    dataset.SliceLocation = 1.25 * slice_number
    dataset.ImagePositionPatient = [-180.0, -180.0, 1.25 * slice_number]
