"""Findings in, drafts out."""

from collections.abc import Mapping
from dataclasses import replace

from pydicom import Dataset

from dicom_node.domain import SEGMENTATIONS, Assembled, Findings
from dicom_node.report.derived import derived
from dicom_node.report.grid import Plane, planes
from dicom_node.report.keys import key_objects
from dicom_node.report.maps import parametric_map
from dicom_node.report.outcome import Outcome, interpret
from dicom_node.report.presentation import presentation
from dicom_node.report.run import Draft, Run
from dicom_node.report.seg import segmentation
from dicom_node.report.sr import Report


def build(findings: Findings, inputs: Mapping[str, Assembled], run: Run) -> tuple[Draft, ...]:
    """Return the objects that say what an analysis found: a Segmentation, where there is a voxel to show, derived images, what points at the
    images or lies over them, and always a report.

    Of a received segmentation that was measured there is a report alone, which refers to it; of contours also the segmentation that they make.

    A negative result is a result: segments that were looked for and not found are coded as absent in the report, and a segmentation
    without frames is never made (IHE AIR; PS3.3 A.51, A.35.13).

    Raises
    ------
    ModelFailed: the findings hold something that the model's manifest does not describe, or a mask that is not on the input's grid.
    Unsuitable: the images name no frame of reference for a segmentation, or are of a kind that no derived images are made of.
    Rejected: the volume is not on the grid of its images.
    """
    manifest = run.model.manifest
    outcome = interpret(findings, inputs, manifest)
    made = {
        name: derived(name, findings.images[name], inputs[manifest.input_of(one)], run)
        for name, one in manifest.images.items()
        if name in findings.images
    }
    assembled = inputs[next(iter(manifest.inputs))]
    drawn = _drawn_segmentation(inputs, run)
    shown = planes(assembled) if outcome.present or made else []
    outcome = _with_slices_left_out(outcome, assembled, shown) if shown else outcome
    regions = inputs[manifest.regions].regions if manifest.regions else ()
    seg = segmentation(outcome, assembled, shown, run, regions) if outcome.present and drawn is None else None
    drafts = [Draft(kind="SEG", dataset=seg)] if seg else []
    drafts += [Draft(kind="DER", dataset=image) for series in made.values() for image in series]
    beside = _beside(findings, inputs, run)
    report = Report(outcome, inputs, run, seg or drawn, made, [draft.dataset for draft in beside])
    return (*drafts, *beside, Draft(kind="SR", dataset=report.dataset()))


def _beside(findings: Findings, inputs: Mapping[str, Assembled], run: Run) -> list[Draft]:
    """Return what points at the images, and what is to be laid over them: parametric maps, presentation states, key objects."""
    manifest = run.model.manifest
    drafts = []
    for name, of_map in manifest.maps.items():
        if name in findings.maps:
            drafts.append(Draft(kind="PM", dataset=parametric_map(name, findings.maps[name], inputs[manifest.input_of(of_map)], run)))
    for name, state in manifest.presentations.items():
        wanted = findings.presentations.get(name)
        if wanted is not None:
            drafts.append(Draft(kind="PR", dataset=presentation(name, wanted, inputs[manifest.input_of(state)], run)))
    for name, key in manifest.keys.items():
        document = key_objects(name, findings.keys.get(name, ()), inputs[manifest.input_of(key)], run)
        drafts += [] if document is None else [Draft(kind="KO", dataset=document)]
    return drafts


def _drawn_segmentation(inputs: Mapping[str, Assembled], run: Run) -> Dataset | None:
    """Return the received segmentation whose segments were measured: the report refers to it, and none is made."""
    name = run.model.manifest.regions
    source = inputs[name].sources[0] if name else None
    return source if source is not None and source.SOPClassUID in SEGMENTATIONS else None


def _with_slices_left_out(outcome: Outcome, assembled: Assembled, shown: list[Plane]) -> Outcome:
    """Add a remark where a slice was interpolated: there is no image to lay a mask over, or to derive one from."""
    without = assembled.volume.shape[0] - len(shown)
    what = "the segmentation leaves" if outcome.present else "the derived images leave"
    sentence = f"{without} slices of the volume have no image of their own; {what} them out."
    return replace(outcome, remarks=(*outcome.remarks, sentence)) if without else outcome
