"""measure on digital reference objects: spheres, boxes and a ramp of known size and values, drawn as segmentations and contours."""

import numpy as np
import pytest
from pydicom import dcmread

from dicom_node.config import bundled, load_model
from dicom_node.work import try_model
from tests import drawn, phantoms
from tests.models_proof import code, volume
from tests.test_regions import points, rectangle

SPACING_MM = (1.5, 0.8, 0.7)


def one(mask, values=None, spacing_mm=SPACING_MM):
    """Return what is measured on one mask."""
    image = volume(np.zeros(mask.shape) if values is None else values, np.diag([*spacing_mm, 1.0]))
    found = code("measure").analyse(image, image.with_array(mask.astype(np.uint8)))
    return {name: value[1] for name, value in found.measurements.items()}


def ball(radius_mm, shape=(40, 64, 72), spacing_mm=SPACING_MM):
    """Return a sphere whose centre lies between voxels, as most do."""
    place = [(index - (n - 1) / 2 - 0.3) * s for index, n, s in zip(np.indices(shape), shape, spacing_mm, strict=True)]
    return sum(axis**2 for axis in place) < radius_mm**2


@pytest.mark.parametrize("radius_mm", [6.0, 10.0, 18.0])
def test_a_sphere_has_its_volume_its_diameter_and_its_surface(radius_mm):
    """Volume within what the edge voxels may add (a tenth of a voxel's width over the surface); axes within a pixel's diagonal at either end;
    the surface, an estimate from crossings, within 5 %."""
    found, pixel_mm = one(ball(radius_mm)), float(np.hypot(*SPACING_MM[1:]))
    surface_mm2 = 4 * np.pi * radius_mm**2
    assert found["volume"] == pytest.approx(surface_mm2 * radius_mm / 3000, abs=0.1 * max(SPACING_MM) * surface_mm2 / 1000)
    assert 2 * radius_mm - pixel_mm <= found["long_axis"] <= 2 * radius_mm + 2 * pixel_mm
    assert found["long_axis"] - 2 * pixel_mm <= found["short_axis"] <= found["long_axis"]
    assert found["surface"] == pytest.approx(surface_mm2, rel=0.05)


def test_a_box_has_exactly_its_volume_and_its_diagonal():
    """Between the outer corners of pixels: nothing is estimated. The short axis is the extent at right angles to the diagonal."""
    mask = np.zeros((10, 30, 30), bool)
    mask[2:6, 5:15, 4:24] = True
    found = one(mask)
    height, width = 10 * SPACING_MM[1], 20 * SPACING_MM[2]
    diagonal = np.hypot(height, width)
    assert found["volume"] == pytest.approx(4 * SPACING_MM[0] * height * width / 1000, rel=1e-12)
    assert found["long_axis"] == pytest.approx(diagonal, rel=1e-9)
    assert found["short_axis"] == pytest.approx(2 * height * width / diagonal, rel=1e-9)


def test_one_voxel_is_measured_too():
    """A region of one voxel has a pixel's diagonal, no spread, and its value everywhere."""
    mask = np.zeros((3, 3, 3), bool)
    mask[1, 1, 1] = True
    found = one(mask, np.full(mask.shape, -7.5))
    assert found["long_axis"] == pytest.approx(np.hypot(*SPACING_MM[1:]))
    assert [found[name] for name in ("mean", "sd", "median", "minimum", "maximum", "perc5", "perc95")] == [-7.5, 0, *[-7.5] * 5]


def test_values_are_those_of_the_voxels_and_no_others():
    """A ramp of 0 to 100 inside, anything outside: mean, sample standard deviation and percentiles as numpy has them."""
    mask = np.zeros((3, 20, 20), bool)
    mask[1, 3:4, 2:10], mask[2, 5:14, 5:15] = True, True
    values = np.random.default_rng(1).normal(1e4, 1e3, mask.shape)
    values[mask] = ramp = np.linspace(0, 100, mask.sum())
    found = one(mask, values)
    low, middle, high = np.percentile(ramp.astype(np.float32), [5, 50, 95])
    assert found["mean"] == pytest.approx(50, abs=1e-4) and found["sd"] == pytest.approx(np.std(ramp, ddof=1), rel=1e-5)
    assert (found["minimum"], found["maximum"]) == (0, 100)
    assert (found["perc5"], found["median"], found["perc95"]) == pytest.approx((low, middle, high), rel=1e-6)


@pytest.mark.parametrize("orientation", ["axial", "oblique", "sagittal"])
def test_a_received_segmentation_is_measured_and_the_report_refers_to_it(tmp_path, orientation):
    """TID 1411: one group a segment, with the segment's own number, type and tracking; nothing is drawn anew, and the report is valid."""
    mask = np.stack([ball(10.0, (20, 40, 44)), ball(4.0, (20, 40, 44))], -1)
    images = phantoms.series(np.where(mask[..., 0], 1084, 1024).astype(np.int16), orientation=orientation, spacing_mm=SPACING_MM)
    seg = drawn.segmentation(images, mask.astype(np.uint8))
    trial = tried(tmp_path, images, seg)
    assert [path.name for path in trial.objects] == ["1-sr.dcm"] and trial.problems == ()
    report = dcmread(trial.objects[0])
    groups = [item for item in walk(report) if item.get("ConceptNameCodeSequence") and item.ConceptNameCodeSequence[0].CodeValue == "125007"]
    assert len(groups) == 2
    assert [referenced(group) for group in groups] == [(seg.SOPInstanceUID, 1), (seg.SOPInstanceUID, 2)]
    assert [tracked(group) for group in groups] == [(s.TrackingUID, s.TrackingID) for s in seg.SegmentSequence]
    first, second = trial.findings.measurements["volume"].values()
    assert first == pytest.approx(mask[..., 0].sum() * np.prod(SPACING_MM) / 1000, rel=1e-6)
    assert second == pytest.approx(mask[..., 1].sum() * np.prod(SPACING_MM) / 1000, rel=1e-6)
    assert trial.findings.measurements["mean"] == {1: 60.0, 2: 60.0}


def test_contours_become_a_segmentation_that_their_report_refers_to(tmp_path):
    """No report can refer to an ROI of a structure set (TID 1411): what was measured is sent as a segmentation, drawn as the contours were."""
    images = phantoms.series(spacing_mm=SPACING_MM)
    contours = {"GTV": [points(images, index, rectangle((3.5, 11.5), (2.5, 9.5))) for index in (2, 3, 4)]}
    trial = tried(tmp_path, images, drawn.structure_set(images, contours))
    assert [path.name for path in trial.objects] == ["1-seg.dcm", "2-sr.dcm"] and trial.problems == ()
    seg, report = map(dcmread, trial.objects)
    assert (seg.SegmentationType, seg.SegmentSequence[0].SegmentLabel, seg.SegmentSequence[0].SegmentAlgorithmType) == ("BINARY", "GTV", "MANUAL")
    assert "SegmentAlgorithmName" not in seg.SegmentSequence[0]
    assert any(item.get("ReferencedSOPInstanceUID") == seg.SOPInstanceUID for item in walk(report))
    assert trial.findings.measurements["volume"] == pytest.approx(3 * 8 * 7 * np.prod(SPACING_MM) / 1000)


def tried(folder, images, regions):
    phantoms.write(images, folder / "in")
    regions.save_as(folder / "in" / "regions.dcm", enforce_file_format=True)
    return try_model(load_model(bundled("models") / "measure"), sorted((folder / "in").iterdir()), folder / "out")


def walk(item):
    for element in item:
        if element.VR == "SQ":
            for child in element.value:
                yield child
                yield from walk(child)


def referenced(group):
    [found] = [
        item.ReferencedSOPSequence[0]
        for item in walk(group)
        if item.get("ReferencedSOPSequence") and "ReferencedSegmentNumber" in item.ReferencedSOPSequence[0]
    ]
    number = found.ReferencedSegmentNumber
    return found.ReferencedSOPInstanceUID, int(number[0] if not isinstance(number, int) else number)


def tracked(group):
    uid = next(item.UID for item in walk(group) if item.get("UID") and item.ConceptNameCodeSequence[0].CodeValue == "112040")
    name = next(item.TextValue for item in walk(group) if item.get("TextValue") and item.ConceptNameCodeSequence[0].CodeValue == "112039")
    return uid, name
