"""Findings in, drafts out."""

from collections.abc import Mapping
from dataclasses import replace

from dicom_node.domain import Assembled, Findings
from dicom_node.report.grid import planes
from dicom_node.report.outcome import interpret
from dicom_node.report.run import Draft, Run
from dicom_node.report.seg import segmentation
from dicom_node.report.sr import Report


def build(findings: Findings, inputs: Mapping[str, Assembled], run: Run) -> tuple[Draft, ...]:
    """Return the objects that say what an analysis found: a Segmentation, where there is a voxel to show, and always a report.

    A negative result is a result: segments that were looked for and not found are coded as absent in the report, and a segmentation
    without frames is never made (IHE AIR; PS3.3 A.51, A.35.13).

    Raises
    ------
    ModelFailed: the findings hold something that the model's manifest does not describe, or a mask that is not on the input's grid.
    Unsuitable: the images name no frame of reference for a segmentation.
    Rejected: the volume is not on the grid of its images.
    """
    outcome = interpret(findings, inputs, run.model.manifest)
    if not outcome.present:
        return (Draft(kind="SR", dataset=Report(outcome, inputs, run, None).dataset()),)
    assembled = inputs[next(iter(run.model.manifest.inputs))]
    shown = planes(assembled)
    if without := assembled.volume.shape[0] - len(shown):
        sentence = f"{without} slices of the volume have no image of their own; the segmentation leaves them out."
        outcome = replace(outcome, remarks=(*outcome.remarks, sentence))
    seg = segmentation(outcome, assembled, shown, run)
    return Draft(kind="SEG", dataset=seg), Draft(kind="SR", dataset=Report(outcome, inputs, run, seg).dataset())
