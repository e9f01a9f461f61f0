"""Findings in, drafts out."""

from collections.abc import Mapping
from dataclasses import replace

from pydicom import Dataset
from pydicom.uid import UID, SegmentationStorage

from dicom_node.domain import Assembled, Findings
from dicom_node.report.grid import planes
from dicom_node.report.outcome import interpret
from dicom_node.report.run import Draft, Run
from dicom_node.report.seg import segmentation
from dicom_node.report.sr import Report

_SEGMENTATIONS = frozenset({SegmentationStorage, UID("1.2.840.10008.5.1.4.1.1.66.7")})  # and Label Map Segmentation


def build(findings: Findings, inputs: Mapping[str, Assembled], run: Run) -> tuple[Draft, ...]:
    """Return the objects that say what an analysis found: a Segmentation, where there is a voxel to show, and always a report.

    Of a received segmentation that was measured there is a report alone, which refers to it; of contours also the segmentation that they make.

    A negative result is a result: segments that were looked for and not found are coded as absent in the report, and a segmentation
    without frames is never made (IHE AIR; PS3.3 A.51, A.35.13).

    Raises
    ------
    ModelFailed: the findings hold something that the model's manifest does not describe, or a mask that is not on the input's grid.
    Unsuitable: the images name no frame of reference for a segmentation.
    Rejected: the volume is not on the grid of its images.
    """
    outcome = interpret(findings, inputs, run.model.manifest)
    drawn = _drawn_segmentation(inputs, run)
    if not outcome.present or drawn is not None:
        return (Draft(kind="SR", dataset=Report(outcome, inputs, run, drawn).dataset()),)
    assembled = inputs[next(iter(run.model.manifest.inputs))]
    shown = planes(assembled)
    if without := assembled.volume.shape[0] - len(shown):
        sentence = f"{without} slices of the volume have no image of their own; the segmentation leaves them out."
        outcome = replace(outcome, remarks=(*outcome.remarks, sentence))
    regions = inputs[run.model.manifest.regions].regions if run.model.manifest.regions else ()
    seg = segmentation(outcome, assembled, shown, run, regions)
    return Draft(kind="SEG", dataset=seg), Draft(kind="SR", dataset=Report(outcome, inputs, run, seg).dataset())


def _drawn_segmentation(inputs: Mapping[str, Assembled], run: Run) -> Dataset | None:
    """Return the received segmentation whose segments were measured: the report refers to it, and none is made."""
    name = run.model.manifest.regions
    source = inputs[name].sources[0] if name else None
    return source if source is not None and source.SOPClassUID in _SEGMENTATIONS else None
