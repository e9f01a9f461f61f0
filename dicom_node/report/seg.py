"""Masks as a Segmentation (PS3.3 A.51): BINARY, on the grid of its source images, as viewers show it."""

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom import Dataset
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage

from dicom_node.config import Segment
from dicom_node.domain import Assembled, Unsuitable
from dicom_node.report.grid import Plane
from dicom_node.report.header import copy_elements, is_sound, serial_number, settle
from dicom_node.report.outcome import Outcome
from dicom_node.report.run import Run
from dicom_node.report.words import Words

_STANDIN_ROOT = "1.2.3."  # of the UIDs by which one plane is told from another while highdicom builds; none is left afterwards
_COPIED_COMPRESSION = ("LossyImageCompressionRatio", "LossyImageCompressionMethod")


def tracking_uid(run: Run, segment: Segment) -> str:
    """Return the tracking UID of a segment, the same in SEG (0062,0021) and SR (112040, DCM)."""
    return run.uid("segment", segment.number)


def segmentation(outcome: Outcome, assembled: Assembled, shown: list[Plane], run: Run) -> Segmentation:
    """Return the segments that have voxels, as one Segmentation whose frames lie on their source images.

    A segment without a voxel is left out and the others numbered anew: segment numbers have no holes (PS3.3 C.8.20.2), a described segment
    without frames hangs viewers, and its absence is stated as a coded finding in the report. Segments of a label map do not overlap.

    shown: the planes of the volume that have an image, in the order of its slices.

    Raises
    ------
    Unsuitable: the images name no frame of reference.
    """
    source = assembled.sources[0]
    if not source.get("FrameOfReferenceUID"):
        raise Unsuitable("the images name no frame of reference, so that a segmentation cannot be laid over them")
    seg = _built(outcome, assembled, shown, run, Words.of(source))
    seg["PixelData"].VR = "OB"
    if len(seg.PixelData) * 8 > seg.NumberOfFrames * seg.Rows * seg.Columns + 7:
        seg.PixelData = seg.PixelData[:-1] + b"\0"  # PS3.5 §8.1.1: padding is null
    seg.ContentCreatorName = None  # type 2, and no person made it
    _name_sources(seg, shown, assembled)
    _derive_dimensions(seg, run)
    _identify_frames(seg)
    settle(seg, source, run, "SEG")
    copy_elements(source, seg, [Tag(keyword) for keyword in _COPIED_COMPRESSION if source.get(keyword)])
    copy_elements(source, seg, [Tag("BodyPartExamined")] if is_sound(source, "BodyPartExamined") else [])
    return seg


def _built(outcome: Outcome, assembled: Assembled, shown: list[Plane], run: Run, words: Words) -> Segmentation:
    manifest = run.model.manifest
    return Segmentation(
        source_images=_standins(shown, assembled),
        pixel_array=_pixels(outcome, shown),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[_described(number, s, outcome, run, words) for number, s in enumerate(outcome.present, start=1)],
        series_instance_uid=run.uid("SEG series"),
        series_number=1,
        sop_instance_uid=run.uid("SEG"),
        instance_number=1,
        manufacturer=words.say(manifest.manufacturer, 64),
        manufacturer_model_name=manifest.name,
        software_versions=words.say(manifest.version, 64),
        device_serial_number=serial_number(run),
        omit_empty_frames=True,
        content_label="AI_RESEARCH",
        content_description=f"{words.say(manifest.name)}: AI, research use",
    )


def _standins(shown: list[Plane], assembled: Assembled) -> list[Dataset]:
    """Return one plain CT image for each plane, holding geometry and nothing of the patient.

    Single-frame, multi-frame and unknown classes then take one road, and what is odd or missing in a header cannot stop the building.
    One orientation for all: images of one series may differ in its last decimals.
    """
    source, first = assembled.sources[0], shown[0]
    common = Dataset()
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime"):
        setattr(common, keyword, None)
    common.SOPClassUID, common.Modality = CTImageStorage, "CT"
    common.StudyInstanceUID, common.SeriesInstanceUID = source.StudyInstanceUID, source.SeriesInstanceUID
    common.FrameOfReferenceUID = source.FrameOfReferenceUID
    common.PositionReferenceIndicator = source.PositionReferenceIndicator if is_sound(source, "PositionReferenceIndicator") else None
    common.Rows, common.Columns = assembled.volume.shape[1:]
    common.LossyImageCompression = source.get("LossyImageCompression") or "00"
    common.ImageOrientationPatient = list(first.orientation)
    common.PixelSpacing = list(first.spacing_mm)
    common.SliceThickness = first.thickness_mm or float(assembled.volume.spacing[0])
    standins = []
    for number, plane in enumerate(shown):
        standin = Dataset()
        standin.update(common)
        standin.SOPInstanceUID = f"{_STANDIN_ROOT}{number}"
        standin.ImagePositionPatient = list(plane.position_mm)
        standins.append(standin)
    return standins


def _pixels(outcome: Outcome, shown: list[Plane]) -> np.ndarray:
    """Return the segment numbers of the object (plane, row, column): consecutive, one plane for each image."""
    labels = outcome.labels
    if labels is None:
        raise ValueError("there are no segments")
    if len(shown) < len(labels):
        labels = labels[[plane.slice_index for plane in shown]]
    numbers = [segment.number for segment in outcome.present]
    if numbers != list(range(1, len(numbers) + 1)):
        table = np.zeros(max(numbers) + 1, labels.dtype)
        table[numbers] = range(1, len(numbers) + 1)
        labels = table[labels]
    return labels


def _described(number: int, segment: Segment, outcome: Outcome, run: Run, words: Words) -> SegmentDescription:
    manifest = run.model.manifest
    item = SegmentDescription(
        segment_number=number,
        segment_label=words.say(segment.label, 64),
        segmented_property_category=words.concept(segment.category),
        segmented_property_type=words.concept(segment.type),
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=manifest.name,
            version=words.say(manifest.version, 64),
            family=words.concept(manifest.family),
            source=words.say(manifest.manufacturer, 64),
        ),
        tracking_uid=tracking_uid(run, segment),
        tracking_id=words.say(segment.label, 64),
        anatomic_regions=[words.concept(segment.site)] if segment.site else None,
        display_color=CIELabColor.from_rgb(*segment.colour),
    )
    if segment.laterality:
        item.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [words.concept(segment.laterality)]
    text = f"{segment.label}, {outcome.volumes_ml[segment.number]}"
    item.SegmentDescription = words.say(f"{text}. {segment.description}" if segment.description else text, 1024)
    return item


def _name_sources(seg: Segmentation, shown: list[Plane], assembled: Assembled) -> None:
    """Put the true images where the stand-ins are named: per frame, and once for the series (PS3.3 C.7.6.16.2.6, C.12.2)."""
    for frame in seg.PerFrameFunctionalGroupsSequence:
        for item in frame.DerivationImageSequence[0].SourceImageSequence:
            if not item.ReferencedSOPInstanceUID.startswith(_STANDIN_ROOT):
                continue  # highdicom lets the frames of one plane share one item
            plane = shown[int(item.ReferencedSOPInstanceUID.removeprefix(_STANDIN_ROOT))]
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = plane.sop_class_uid, plane.sop_instance_uid
            if plane.frame_number is not None:
                item.ReferencedFrameNumber = plane.frame_number
    series = Dataset()
    series.SeriesInstanceUID = assembled.sources[0].SeriesInstanceUID
    series.ReferencedInstanceSequence = _references(shown)
    seg.ReferencedSeriesSequence = [series]
    seg.SourceImageSequence = _references(shown)


def _references(shown: list[Plane]) -> list[Dataset]:
    references = []
    for sop_instance_uid, sop_class_uid in {plane.sop_instance_uid: plane.sop_class_uid for plane in shown}.items():
        reference = Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
        references.append(reference)
    return references


def _derive_dimensions(seg: Segmentation, run: Run) -> None:
    uid = run.uid("SEG dimensions")
    for item in (*seg.DimensionOrganizationSequence, *seg.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid


def _identify_frames(seg: Segmentation) -> None:
    """Name the segment in every frame, also where there is only one: older viewers look nowhere else."""
    shared = seg.SharedFunctionalGroupsSequence[0]
    if "SegmentIdentificationSequence" not in shared:
        return
    number = shared.SegmentIdentificationSequence[0].ReferencedSegmentNumber
    del shared.SegmentIdentificationSequence
    for frame in seg.PerFrameFunctionalGroupsSequence:
        item = Dataset()
        item.ReferencedSegmentNumber = number
        frame.SegmentIdentificationSequence = [item]
