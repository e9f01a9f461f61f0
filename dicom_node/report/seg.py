"""Masks as a Segmentation (PS3.3 A.51, A.90): on the grid of its source images, as viewers show it."""

from collections.abc import Sequence

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentDescription
from pydicom import Dataset
from pydicom.tag import Tag

from dicom_node.config import Segment
from dicom_node.domain import FRACTION_MAX, Assembled, Region, Unsuitable
from dicom_node.report.frames import Frame, functional_groups, graded, in_space, labelled, packed, spacing_mm
from dicom_node.report.grid import Plane
from dicom_node.report.header import copy_elements, serial_number, settle
from dicom_node.report.multiframe import name_dimensions, name_sources, space, standin
from dicom_node.report.outcome import Outcome
from dicom_node.report.run import Run
from dicom_node.report.side import state_part
from dicom_node.report.words import Words

_PER_FRAME = Tag("PerFrameFunctionalGroupsSequence")
_PIXELS = {"BINARY": packed, "LABELMAP": labelled, "FRACTIONAL": graded}
_COPIED_COMPRESSION = ("LossyImageCompressionRatio", "LossyImageCompressionMethod")


def tracking_uid(run: Run, segment: Segment) -> str:
    """Return the tracking UID of a segment, the same in SEG (0062,0021) and SR (112040, DCM)."""
    return run.uid("segment", segment.number)


def segmentation(outcome: Outcome, assembled: Assembled, shown: list[Plane], run: Run, regions: Sequence[Region] = ()) -> Dataset:
    """Return the segments that have voxels, as one Segmentation whose frames lie on their source images.

    A segment without a voxel is left out and the others numbered anew: segment numbers have no holes (PS3.3 C.8.20.2), a described segment
    without frames hangs viewers, and its absence is stated as a coded finding in the report. Segments of a label map do not overlap;
    of fractions it is not defined whether they do.

    shown: the planes of the volume that have an image, in the order of its slices.
    regions: what was drawn and is only written down here, by segment number - 1; none: the model found the segments.

    Raises
    ------
    Unsuitable: the images name no frame of reference.
    """
    source = assembled.sources[0]
    if not source.get("FrameOfReferenceUID"):
        raise Unsuitable("the images name no frame of reference, so that a segmentation cannot be laid over them")
    built = _built(outcome, assembled, shown[0], run, Words.of(source), regions)
    seg = Dataset()  # no longer highdicom's own class, which knows the frames that it was built with
    seg.update(built)
    seg.file_meta = built.file_meta
    seg.ContentCreatorName = None  # type 2, and no person made it
    name_sources(seg, shown, source.SeriesInstanceUID)
    name_dimensions(seg, run.uid("SEG dimensions"))
    _put_frames(seg, outcome, shown, run.segmentation_type)
    settle(seg, source, run, "SEG")
    copy_elements(source, seg, [Tag(keyword) for keyword in _COPIED_COMPRESSION if source.get(keyword)])
    state_part(seg, source)
    return seg


def _built(outcome: Outcome, assembled: Assembled, plane: Plane, run: Run, words: Words, regions: Sequence[Region]) -> Segmentation:
    """Let highdicom build the object over one row of pixels in one plane: all that is said once for the whole object, and no frame to wait for."""
    manifest, kind, count = run.model.manifest, run.segmentation_type, len(outcome.present)
    row = np.full((1, 1, count, count), 0.5) if kind == "FRACTIONAL" else np.arange(1, count + 1, dtype=np.uint16)[None, None]
    return Segmentation(
        source_images=[standin(plane, assembled, columns=count)],
        pixel_array=row,
        segmentation_type=kind,
        fractional_type=manifest.fractional,
        max_fractional_value=FRACTION_MAX,
        segment_descriptions=[
            _described(number, s, outcome, run, words, regions[s.number - 1].drawn if regions else "AUTOMATIC")
            for number, s in enumerate(outcome.present, start=1)
        ],
        series_instance_uid=run.uid("SEG series"),
        series_number=1,
        sop_instance_uid=run.uid("SEG" if kind == "BINARY" else f"SEG {kind}"),
        instance_number=1,
        manufacturer=words.say(manifest.manufacturer, 64),
        manufacturer_model_name=manifest.name,
        software_versions=words.say(manifest.version, 64),
        device_serial_number=serial_number(run),
        content_label="AI_RESEARCH",
        content_description=f"{words.say(manifest.name)}: AI, research use",
    )


def _put_frames(seg: Dataset, outcome: Outcome, shown: list[Plane], kind: str) -> None:
    """Put the frames, and what depends on them, in the place of those that highdicom was given (PS3.3 C.7.6.16, C.7.6.17, C.8.20.2).

    The segment is named in every frame, also where there is only one: older viewers look nowhere else.
    """
    if outcome.voxels is None:
        raise ValueError("there are no segments")
    shared = seg.SharedFunctionalGroupsSequence[0]
    numbers = [segment.number for segment in outcome.present]
    present = outcome.shown[:, numbers]  # (slice, segment)
    filled = [plane for plane in shown if present[plane.slice_index].any()]
    places = list(enumerate(in_space(filled), start=1))
    segments = [None] if kind == "LABELMAP" else range(1, len(numbers) + 1)
    frames = [Frame(plane=p, place=i, segment=s) for s in segments for i, p in places if s is None or present[p.slice_index, s - 1]]
    if "SegmentIdentificationSequence" in shared:
        del shared.SegmentIdentificationSequence
    space(shared.PixelMeasuresSequence[0], shown)
    seg.pop("DimensionOrganizationType", None)
    if len(segments) == 1 and len(filled) > 1 and spacing_mm(filled, sort=False):
        seg.DimensionOrganizationType = "3D"
    seg.NumberOfFrames = len(frames)
    seg.Rows, seg.Columns = outcome.voxels.shape[-2:]
    seg[_PER_FRAME] = functional_groups(frames)
    seg.PixelData = _PIXELS[kind](outcome.voxels, frames, numbers)
    seg["PixelData"].VR = "OW" if seg.BitsAllocated > 8 else "OB"
    if "PixelPaddingValue" in seg:
        seg["PixelPaddingValue"].VR = "US"


def _described(number: int, segment: Segment, outcome: Outcome, run: Run, words: Words, drawn: str) -> SegmentDescription:
    manifest = run.model.manifest
    item = SegmentDescription(
        segment_number=number,
        segment_label=words.say(segment.label, 64),
        segmented_property_category=words.concept(segment.category),
        segmented_property_type=words.concept(segment.type),
        algorithm_type=drawn or "MANUAL",
        algorithm_identification=None
        if drawn in ("", "MANUAL")
        else AlgorithmIdentificationSequence(
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
