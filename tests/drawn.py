"""Regions as others draw them: a Segmentation by highdicom, a structure set by hand, on the images of a series."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.seg import Segmentation, SegmentDescription
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage

from dicom_node.domain import derived_uid


def segmentation(images: Sequence[Dataset], masks: np.ndarray, *, kind: str = "BINARY", seed: str = "drawn", **more: Any) -> Segmentation:
    """Return a Segmentation of masks (slice, row, column, segment), of a label map (slice, row, column), or of fractions, on all images."""
    count = masks.shape[3] if masks.ndim == 4 else int(masks.max())
    algorithm = AlgorithmIdentificationSequence(name="Other", version="1", family=codes.DCM.ArtificialIntelligence)
    described = [
        SegmentDescription(
            segment_number=number,
            segment_label=f"Drawn {number}",
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=codes.SCT.Liver if number == 1 else codes.SCT.Spleen,
            algorithm_type="SEMIAUTOMATIC",
            algorithm_identification=algorithm,
            tracking_uid=derived_uid(seed, "track", number),
            tracking_id=f"track {number}",
        )
        for number in range(1, count + 1)
    ]
    return Segmentation(
        source_images=list(images),
        pixel_array=masks,
        segmentation_type=kind,
        segment_descriptions=described,
        series_instance_uid=derived_uid(seed, "series"),
        series_number=77,
        sop_instance_uid=derived_uid(seed, "object"),
        instance_number=1,
        manufacturer="Other",
        manufacturer_model_name="Other",
        software_versions="1",
        device_serial_number="1",
        **more,
    )


def structure_set(images: Sequence[Dataset], contours: Mapping[str, Sequence[np.ndarray]], *, seed: str = "contours") -> Dataset:
    """Return a structure set: name of an ROI → its closed contours, each (corner, x y z) in mm; drawn by hand."""
    first = images[0]
    found = Dataset()
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID"):
        setattr(found, keyword, first.get(keyword))
    found.AccessionNumber, found.ReferringPhysicianName = first.get("AccessionNumber"), None
    found.SOPClassUID, found.SOPInstanceUID = RTStructureSetStorage, derived_uid(seed, "object")
    found.Modality, found.SeriesInstanceUID, found.SeriesNumber = "RTSTRUCT", derived_uid(seed, "series"), 78
    found.Manufacturer, found.StructureSetLabel, found.StructureSetDate, found.StructureSetTime = "Other", "DRAWN", "20240105", "120000"
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = first.SeriesInstanceUID
    series.ContourImageSequence = [_reference(image) for image in images]
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.1", first.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = first.FrameOfReferenceUID, [study]
    found.ReferencedFrameOfReferenceSequence = [frame]
    found.StructureSetROISequence, found.ROIContourSequence, found.RTROIObservationsSequence = [], [], []
    for number, (name, drawn) in enumerate(contours.items(), start=1):
        roi, lines, observed = Dataset(), Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, name, first.FrameOfReferenceUID
        roi.ROIGenerationAlgorithm = "MANUAL"
        lines.ReferencedROINumber, lines.ContourSequence = number, [_contour(points) for points in drawn]
        observed.ObservationNumber = observed.ReferencedROINumber = number
        observed.RTROIInterpretedType, observed.ROIInterpreter = "ORGAN", None
        found.StructureSetROISequence.append(roi)
        found.ROIContourSequence.append(lines)
        found.RTROIObservationsSequence.append(observed)
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found.file_meta.MediaStorageSOPClassUID, found.file_meta.MediaStorageSOPInstanceUID = found.SOPClassUID, found.SOPInstanceUID
    return found


def _reference(image: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return item


def _contour(points: np.ndarray) -> Dataset:
    item = Dataset()
    item.ContourGeometricType, item.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
    item.ContourData = [f"{value:.6g}" for value in np.asarray(points).ravel()]
    return item
