"""What OHIF asks of a Segmentation and of a report before it shows them: each rule where it would otherwise fail or stay silent.

Written after its handlers of both classes (extensions cornerstone-dicom-seg and cornerstone-dicom-sr), version 3.
"""

from collections.abc import Iterator

from pydicom import Dataset


def objections_to_segmentation(seg: Dataset, images: list[Dataset]) -> Iterator[str]:
    """Say why OHIF would not show a segmentation over these images."""
    references = seg.get("ReferencedSeriesSequence")
    if not references:
        yield "there is no Referenced Series Sequence: it is not shown at all"
        return
    known = {image.SOPInstanceUID for image in images}
    if references[0].SeriesInstanceUID != images[0].SeriesInstanceUID:
        yield "the first referenced series is not the displayed one"
    if {item.ReferencedSOPInstanceUID for item in references[0].ReferencedInstanceSequence} != known:
        yield "the referenced instances are not the images"
    if seg.FrameOfReferenceUID != images[0].FrameOfReferenceUID:
        yield "the frame of reference is another"
    if (seg.Rows, seg.Columns) != (images[0].Rows, images[0].Columns):
        yield "rows and columns are not those of the images"
    if seg.SegmentationType != "BINARY" or not seg.file_meta.TransferSyntaxUID.is_little_endian or seg.file_meta.TransferSyntaxUID.is_compressed:
        yield "it is not BINARY in an uncompressed transfer syntax"
    numbers = [segment.SegmentNumber for segment in seg.SegmentSequence]
    if numbers != list(range(1, len(numbers) + 1)):
        yield "segment numbers have holes"
    shown = set()
    for frame in seg.PerFrameFunctionalGroupsSequence:
        shown.add(frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        if frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID not in known:
            yield "a frame is derived from no image of the series"
    if shown != set(numbers):
        yield "a described segment has no frame: loading hangs"
    if any("RecommendedDisplayCIELabValue" not in segment for segment in seg.SegmentSequence):
        yield "a segment has no colour"


def objections_to_report(sr: Dataset, images: list[Dataset]) -> Iterator[str]:
    """Say why OHIF would not load a report."""
    if _code(sr) != "126000":
        yield "its title is not Imaging Measurement Report"
    if sr.StudyInstanceUID != images[0].StudyInstanceUID:
        yield "it is in another study than its images"
    library, measured = (next((item for item in sr.ContentSequence if _code(item) == value), None) for value in ("111028", "126010"))
    if library is None or measured is None:
        yield "Image Library or Imaging Measurements is missing"
        return
    group = next((item for item in library.ContentSequence if _code(item) == "126200"), None)
    listed = {i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for i in group.ContentSequence if "ReferencedSOPSequence" in i} if group else set()
    if not {image.SOPInstanceUID for image in images} <= listed:
        yield "an image is not in the first group of the library"
    seen = set()
    for found in measured.ContentSequence:
        yield from _objections_to_group(found, seen)


def _objections_to_group(group: Dataset, seen: set[str]) -> Iterator[str]:
    items = list(group.ContentSequence)
    if any("ConceptNameCodeSequence" not in item for item in items):
        yield "an item has no name"
        return
    tracking = next((item.UID for item in items if _code(item) == "112040"), None)
    if tracking is None or tracking in seen:
        yield "a tracking UID is missing or used twice"
    seen.add(str(tracking))
    if next(item.UID for item in items if item.ValueType == "UIDREF") != tracking:
        yield "the first UID of a group is not its tracking UID"
    if not any(_code(item) == "112039" for item in items):
        yield "a tracking identifier is missing"
    for item in items:
        if item.ValueType == "NUM" and not item.get("ContentSequence"):
            yield "a number has no content of its own: the report fails to load"
        if _code(item) == "363698007" and item.ConceptNameCodeSequence[0].CodingSchemeDesignator != "SCT":
            yield "a finding site is not in SCT"


def _code(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue)
