"""Regions that others drew come onto the grid of the images that they refer to, whatever drew them and however they lie."""

import numpy as np
import pytest

from dicom_node.assemble.regions import assemble_regions, inside
from dicom_node.assemble.selection import select
from dicom_node.assemble.volume import assemble
from dicom_node.config import Input, Manifest, Model, bundled, load_model
from dicom_node.domain import DRAWN_ON, Unsuitable
from dicom_node.receive import study_of
from dicom_node.report import reading
from dicom_node.route import takings
from tests import drawn, phantoms

SHAPE, SPACING_MM = (8, 24, 20), (2.5, 0.8, 0.7)


def box(*bounds, shape=SHAPE):
    """Return a mask that holds a block of voxels: (from, to) by axis."""
    mask = np.zeros(shape, np.uint8)
    mask[tuple(slice(*one) for one in bounds)] = 1
    return mask


def measure() -> Model:
    return load_model(bundled("models") / "measure")


ONE, OTHER = box((2, 5), (4, 12), (3, 10)), box((4, 7), (8, 16), (6, 14))  # they overlap
APART = box((5, 8), (14, 20), (12, 18))


@pytest.fixture(params=["axial", "oblique", "sagittal"])
def images(request):
    return phantoms.series(orientation=request.param, spacing_mm=SPACING_MM)


def laid(images, obj, folder):
    """Return the image and the regions, put together from files, and the masks of the regions in the order of the images given."""
    paths = phantoms.write(images, folder / "images")
    path = folder / "regions.dcm"
    obj.save_as(path, enforce_file_format=True)
    image = assemble(paths, Input(allow_derived=True))
    found = assemble_regions([path], image)
    array = found.volume.array
    if not np.allclose(image.volume.affine[:3, 3], [float(v) for v in images[0].ImagePositionPatient], atol=1e-3):
        array = array[::-1]  # the volume counts slices the other way
    return image, found, array


def test_segments_that_lie_apart_are_numbers_of_a_label_map(images, tmp_path):
    """Pixel for pixel, in every orientation; with what each says of itself."""
    _, found, array = laid(images, drawn.segmentation(images, np.stack([ONE, APART], -1)), tmp_path)
    assert np.array_equal(array, ONE + 2 * APART)
    assert [(r.number, r.label, r.type[2], r.drawn) for r in found.regions] == [
        (1, "Drawn 1", "Liver", "SEMIAUTOMATIC"),
        (2, "Drawn 2", "Spleen", "SEMIAUTOMATIC"),
    ]
    assert found.regions[0].tracking_id == "track 1"
    assert not found.notes


def test_segments_that_overlap_are_each_kept_whole(images, tmp_path):
    """PS3.3 C.8.20.2: segments of a BINARY segmentation may overlap; an organ and its lesion do."""
    _, _, array = laid(images, drawn.segmentation(images, np.stack([ONE, OTHER], -1)), tmp_path)
    assert array.shape == (*SHAPE, 2)
    assert np.array_equal(array, 255 * np.stack([ONE, OTHER], -1))


def test_segments_that_overlap_are_each_kept_whole_in_whatever_order_their_frames_come(images, tmp_path):
    """PS3.3 C.7.6.16 asks for no order of the frames: a segment of a higher number may come first."""
    made = drawn.segmentation(images, np.stack([ONE, OTHER], -1))
    frame_bytes = SHAPE[1] * SHAPE[2] // 8
    frames = [made.PixelData[at : at + frame_bytes] for at in range(0, frame_bytes * made.NumberOfFrames, frame_bytes)]
    made.PixelData = b"".join(reversed(frames))
    made.PerFrameFunctionalGroupsSequence = list(reversed(made.PerFrameFunctionalGroupsSequence))
    _, _, array = laid(images, made, tmp_path)
    assert array.shape == (*SHAPE, 2)
    assert np.array_equal(array, 255 * np.stack([ONE, OTHER], -1))


def test_a_label_map_and_fractions_are_read_as_what_they_are(images, tmp_path):
    """Label Map Segmentation (PS3.3 A.90), and fractions of 255."""
    _, _, array = laid(images, drawn.segmentation(images, ONE + 2 * APART, kind="LABELMAP"), tmp_path / "labels")
    assert np.array_equal(array, ONE + 2 * APART)
    fractions = ONE.astype(np.float32) * 0.6
    made = drawn.segmentation(images, fractions[..., None], kind="FRACTIONAL", max_fractional_value=200, fractional_type="PROBABILITY")
    _, _, array = laid(images, made, tmp_path / "fractions")
    assert np.array_equal(array[..., 0], ONE * round(0.6 * 255))


def test_a_segmentation_with_pixels_of_its_own_is_brought_to_the_image_s_by_the_nearest_and_says_so(tmp_path):
    """Drawn on a coarser grid in the same place: the volume is that of the coarse voxels."""
    images = phantoms.series(spacing_mm=SPACING_MM)
    coarse = phantoms.series(phantoms.marked((8, 12, 10), (2, 3, 4)), spacing_mm=(2.5, 1.6, 1.4), origin_mm=(-30.65, -41.6, 17.0), number=2)
    for image, other in zip(coarse, images, strict=True):
        image.FrameOfReferenceUID = other.FrameOfReferenceUID
    made = drawn.segmentation(coarse, box((2, 5), (2, 6), (2, 5), shape=(8, 12, 10))[..., None])
    for item in made.ReferencedSeriesSequence:
        item.SeriesInstanceUID = images[0].SeriesInstanceUID
    _, found, array = laid(images, made, tmp_path)
    assert np.array_equal(array, box((2, 5), (4, 12), (4, 10)))
    assert found.notes == ("The regions have pixels of their own; they were measured on the image's, by the nearest.",)


def points(images, index, corners):
    """Return corners (row, column) on a slice as points in the patient (mm)."""
    orientation = np.array(images[0].ImageOrientationPatient, float)
    position = np.array(images[index].ImagePositionPatient, float)
    spacing = [float(value) for value in images[0].PixelSpacing]
    return np.array([position + column * spacing[1] * orientation[:3] + row * spacing[0] * orientation[3:] for row, column in corners])


def rectangle(rows, columns):
    return [(rows[0], columns[0]), (rows[0], columns[1]), (rows[1], columns[1]), (rows[1], columns[0])]


def test_contours_hold_the_pixels_whose_centres_lie_inside_and_a_contour_within_cuts_a_hole(images, tmp_path):
    """PS3.3 C.8.8.6.3, the even-odd rule; ROIs may overlap, and an ROI of points is left out with a note."""
    outer = [points(images, index, rectangle((3.5, 11.5), (2.5, 9.5))) for index in (2, 3, 4)]
    hole = [points(images, 3, rectangle((5.5, 8.5), (4.5, 7.5)))]
    made = drawn.structure_set(images, {"GTV": [*outer, *hole], "Other": [points(images, 4, rectangle((7.5, 15.5), (5.5, 13.5)))], "Marks": []})
    _, found, array = laid(images, made, tmp_path)
    expected = ONE.copy()
    expected[3, 6:9, 5:8] = 0
    assert np.array_equal(array[..., 0] == 255, expected == 1)
    assert np.array_equal(array[..., 1] == 255, box((4, 5), (8, 16), (6, 14)) == 1)
    assert [(r.number, r.label, r.type[2], r.drawn) for r in found.regions] == [(1, "GTV", "Tissue", "MANUAL"), (2, "Other", "Tissue", "MANUAL")]
    assert found.notes == ("1 structures without a closed planar contour were left out.",)


@pytest.mark.parametrize("radius", [0.4, 3.0, 7.7])
def test_a_polygon_holds_as_many_pixels_as_its_area(radius):
    """A regular polygon of many corners: within the pixels that its edge crosses."""
    angles = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    mask = inside(np.stack([10.2 + radius * np.sin(angles), 9.7 + radius * np.cos(angles)], -1), (24, 20))
    assert abs(mask.sum() - np.pi * radius**2) <= 0.5 * 2 * np.pi * radius
    rows, columns = np.indices(mask.shape)
    assert np.array_equal(mask, np.hypot(rows - 10.2, columns - 9.7) < radius)


def declined(images, obj, folder):
    with pytest.raises(Unsuitable) as said:
        laid(images, obj, folder)
    return str(said.value)


def test_regions_that_were_not_drawn_on_these_images_are_declined(tmp_path):
    """On another series, in another frame of reference, or beside all slices."""
    images = phantoms.series()
    elsewhere = drawn.segmentation(phantoms.series(number=2), ONE[..., None])
    assert "drawn on another series" in declined(images, elsewhere, tmp_path / "series")
    moved = drawn.segmentation(images, ONE[..., None])
    moved.FrameOfReferenceUID = "1.2.3"
    assert "another frame of reference" in declined(images, moved, tmp_path / "frame")
    beside = drawn.structure_set(images, {"GTV": [points(images, 0, rectangle((3, 9), (3, 9))) - [0, 0, 90]]})
    assert "none of the regions has a pixel" in declined(images, beside, tmp_path / "beside")
    across = drawn.structure_set(images, {"GTV": [points(images, 2, rectangle((3, 9), (3, 9))) + np.array([[0, 0, 0]] * 2 + [[0, 0, 5]] * 2)]})
    assert "does not lie on a slice" in declined(images, across, tmp_path / "across")
    assert "no closed planar contour" in declined(images, drawn.structure_set(images, {"Marks": []}), tmp_path / "points")
    assert "neither a segmentation nor a structure set" in declined(images, images[0], tmp_path / "image")


# ------------------------------------------------------------------------------------------------------------------ routing


def test_every_object_with_regions_takes_the_series_that_it_was_drawn_on(tmp_path):
    """Two segmentations and a structure set on two series; a rule that lets the regions through need not let the images through."""
    first, second = phantoms.series(), phantoms.series(number=2)
    objects = [
        drawn.segmentation(first, ONE[..., None], seed="a"),
        drawn.segmentation(second, ONE[..., None], seed="b"),
        drawn.structure_set(second, {"GTV": [points(second, 3, rectangle((3, 9), (3, 9)))]}, seed="c"),
    ]
    files = [*phantoms.write(first, tmp_path / "1"), *phantoms.write(second, tmp_path / "2")]
    for number, one in enumerate(objects):
        files.append(tmp_path / f"{number}.dcm")
        one.save_as(files[-1], enforce_file_format=True)
    manifest = measure().manifest
    study = study_of(files, manifest.keywords)
    regions = [series for series in study.series if series.derived]
    assert all(series.header[DRAWN_ON] for series in regions)
    found = [taking.series for taking in takings(study.series, regions, manifest, select)]
    pairs = {(taken["regions"].series_instance_uid, taken["image"].series_instance_uid) for taken in found}
    assert pairs == {
        (objects[0].SeriesInstanceUID, first[0].SeriesInstanceUID),
        (objects[1].SeriesInstanceUID, second[0].SeriesInstanceUID),
        (objects[2].SeriesInstanceUID, second[0].SeriesInstanceUID),
    }
    [nothing] = takings(study.series, [series for series in study.series if not series.derived], manifest, select)
    assert nothing.series is None and "neither a segmentation nor a structure set" in nothing.why
    [without] = takings(regions[:1], regions[:1], manifest, select)
    assert without.series is None and "no series suits" in without.why


def test_a_manifest_reads_for_the_regions_and_the_kind_of_image(tmp_path):
    """Segments, their measurements, and the quantity and unit of the values: HU of CT, signal of MR."""
    model = measure()
    for modality, concept, unit in (("CT", "Attenuation Coefficient", "[hnsf'U]"), ("MR", "MR signal intensity", "1")):
        images = phantoms.series(modality=modality)
        image, found, _ = laid(images, drawn.segmentation(images, np.stack([ONE, APART], -1)), tmp_path / modality)
        read = reading(model, {"image": image, "regions": found})
        assert [segment.label for segment in read.manifest.segments] == ["Drawn 1", "Drawn 2"]
        mean = read.manifest.measurements["mean"]
        assert (mean.concept.meaning, mean.unit.value, mean.on) == (concept, unit, (1, 2))
        assert read.manifest.measurements["perc5"].concept.value == "PERC5"
        assert read.build == model.build


def test_what_a_manifest_says_of_regions_hangs_together():
    """Each sentence names the key that is wrong."""
    image, regions = {"Modality": "CT"}, {"kind": "regions", "of": "image"}
    volume = {"concept": "SCT.Volume", "unit": "mL", "of": "regions"}
    good = {"name": "x", "version": "1", "task": "t", "inputs": {"image": image, "regions": regions}, "measurements": {"volume": volume}}
    assert Manifest.model_validate(good).regions == "regions"
    for change, said in (
        ({"inputs": {"regions": regions, "image": image}}, "the first input is an image"),
        ({"inputs": {"image": image, "regions": {"kind": "regions"}}}, "names no `of`"),
        ({"inputs": {"image": image, "regions": regions | {"of": "other"}}}, "regions lie on the first input"),
        ({"measurements": {"volume": volume | {"of": "image"}}}, "no input of kind regions"),
        ({"measurements": {"volume": volume | {"unit_of": "image"}}}, "names both unit and unit_of"),
        ({"measurements": {"volume": {"of": "regions", "unit": "mL"}}}, "names no concept"),
        ({"segments": [{"number": 1, "label": "x", "category": "SCT.Tissue", "type": "SCT.Tissue"}]}, "inputs.regions brings them"),
    ):
        with pytest.raises(ValueError, match=said):
            Manifest.model_validate(good | change)
