"""The right volume in the right units, or a sentence that a radiographer understands (PS3.3 C.7.6.2, C.7.6.16, C.11.1)."""

import copy

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.sr.codedict import codes

from dicom_node.config import Input
from tests import phantoms
from tests.assembling import ANY, each, item, put_together, reason


def by_highdicom(images):
    """The volume that highdicom makes of single-frame images, rounded once; presentation, which changes no meaning, left out."""
    volume = hd.get_volume_from_series(images, apply_presentation_lut=False)
    return volume.array.astype(np.float32), volume.affine


# ------------------------------------------------------------------------------------------------------------- geometry


@pytest.mark.parametrize("orientation", ["axial", "coronal", "sagittal", "oblique"])
@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1), [3, 0, 7, 5, 1, 2, 6, 4]])
def test_a_volume_is_exactly_the_one_that_highdicom_makes(orientation, order, tmp_path):
    images = phantoms.series(orientation=orientation)
    assembled = put_together([images[index] for index in np.arange(8)[order]], tmp_path)
    array, affine = by_highdicom(images)
    assert np.abs(assembled.volume.affine - affine).max() < 1e-9
    assert np.array_equal(assembled.volume.array, array)
    assert assembled.volume.array.dtype == np.float32
    assert assembled.volume.frame_of_reference_uid == images[0].FrameOfReferenceUID


@pytest.mark.parametrize("orientation", ["axial", "coronal", "sagittal", "oblique"])
@pytest.mark.parametrize("make", [phantoms.series, lambda **how: [phantoms.enhanced(**how)]])
def test_a_marker_is_where_it_is_in_the_patient(orientation, make, tmp_path):
    """Left and right, head and feet: a mirrored volume would put the marker elsewhere."""
    volume = put_together(make(orientation=orientation), tmp_path).volume
    bright = np.argwhere(volume.array == 0)
    there = volume.map_indices_to_reference(bright).mean(axis=0)
    expected = phantoms.affine(orientation) @ [2 + 0.5, 5 + 1, 14 + 1.5, 1]
    assert len(bright) == 24
    assert np.abs(there - expected[:3]).max() < 1e-5


def test_an_axial_volume_begins_at_the_highest_slice(tmp_path):
    """Right-handed as highdicom's: slice, row, column to LPS has a positive determinant."""
    volume = put_together(phantoms.series(), tmp_path).volume
    assert volume.affine[2, 0] == -2.5
    assert volume.position[2] == 17.0 + 7 * 2.5
    assert np.linalg.det(volume.affine[:3, :3]) > 0


def test_sources_follow_the_volume_keep_their_headers_and_can_carry_a_segmentation(tmp_path):
    images = phantoms.series(orientation="oblique", SpecificCharacterSet="ISO_IR 100", StationName="Röntgen 3")
    assembled = put_together(images[::-1], tmp_path)
    positions = [assembled.volume.map_indices_to_reference(np.array([[k, 0, 0]]))[0] for k in range(8)]
    assert np.allclose([source.ImagePositionPatient for source in assembled.sources], positions, atol=1e-5)
    for source in assembled.sources:
        assert "PixelData" not in source
        assert source.StationName == "Röntgen 3"
        assert copy.deepcopy(source).SpecificCharacterSet == "ISO_IR 100"
    made = hd.seg.Segmentation(
        source_images=assembled.sources,
        pixel_array=assembled.volume.with_array(assembled.volume.array == 0),
        segmentation_type="BINARY",
        segment_descriptions=[
            hd.seg.SegmentDescription(1, "Marker", codes.SCT.AnatomicalStructure, codes.SCT.Spleen, "MANUAL"),
        ],
        series_instance_uid=hd.UID(),
        series_number=2,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="Phantom works",
        manufacturer_model_name="Phantom 1",
        software_versions="1",
        device_serial_number="1",
        omit_empty_frames=False,
    )
    assert made.get_volume().geometry_equal(assembled.volume)
    assert np.array_equal(made.get_volume(combine_segments=True).array > 0, assembled.volume.array == 0)


def test_positions_written_with_few_digits_are_taken_as_even_and_it_is_said(tmp_path):
    images = phantoms.series(spacing_mm=(0.625, 1, 1))
    each(images, "ImagePositionPatient", [[0, 0, round(0.625 * k, 1)] for k in range(8)])
    assembled = put_together(images, tmp_path)
    assert assembled.volume.spacing_between_slices == pytest.approx(4.4 / 7)
    assert "slices lie up to 0.057 mm from even spacing and are taken as even: their positions were rounded" in assembled.notes


def test_a_single_slice_is_as_thick_as_it_says(tmp_path):
    volume = put_together(phantoms.series(phantoms.marked()[:1]), tmp_path).volume
    assert volume.spatial_shape == (1, 24, 20)
    assert volume.spacing_between_slices == 2.5


def test_images_without_frame_of_reference_make_a_volume_all_the_same(tmp_path):
    assert put_together(phantoms.series(FrameOfReferenceUID=None), tmp_path).volume.frame_of_reference_uid is None


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("ImageOrientationPatient", [1, 0, 0, 0.5, 0.8, 0]), ("ImageOrientationPatient", [0] * 6), ("PixelSpacing", [0, 1]), ("PixelSpacing", None)],
)
def test_a_header_that_describes_no_plane_is_refused(keyword, value, tmp_path):
    assert reason(phantoms.series(**{keyword: value}), tmp_path) == "where image 1 lies in the patient cannot be understood from its header"


def test_directions_written_with_few_digits_are_mended(tmp_path):
    """Else lengths and volumes would be wrong by as much as the vectors are too long."""
    true = np.array(phantoms.ORIENTATIONS["oblique"])
    volume = put_together(phantoms.series(orientation="oblique", ImageOrientationPatient=[*true.round(2)]), tmp_path, Input(max_tilt_deg=1)).volume
    assert volume.spacing == pytest.approx((2.5, 0.8, 0.7), rel=1e-3)
    assert np.abs(volume.affine - phantoms.affine("oblique"))[:3, 1:3].max() < 0.01


# --------------------------------------------------------------------------------------------------- tilt, gaps, spacing


def tilted(degrees):
    images = phantoms.series()
    return each(images, "ImagePositionPatient", [[0, 2.5 * k * np.tan(np.radians(degrees)), 2.5 * k] for k in range(8)])


def test_a_tilted_gantry_is_refused_in_a_clear_sentence(tmp_path):
    said = reason(tilted(15), tmp_path)
    assert said == "the gantry was tilted: slices are stacked 15.0 degrees off their normal, at most 0.5 is allowed"


def test_a_tilt_that_the_input_allows_is_left_as_it_is_and_said(tmp_path):
    assembled = put_together(tilted(2), tmp_path, Input(units="HU", max_tilt_deg=3))
    assert "a tilt of 2.00 degrees was left as it is: 0.6 mm from the first slice to the last" in assembled.notes
    assert assembled.volume.spacing_between_slices == pytest.approx(2.5)


def test_slices_shifted_against_one_another_are_refused(tmp_path):
    images = each(phantoms.series(), "ImagePositionPatient", [[5 * (k % 2), 0, 2.5 * k] for k in range(8)])
    assert "slices are shifted sideways against one another by up to" in reason(images, tmp_path, Input(max_tilt_deg=30))


@pytest.mark.parametrize(
    ("orientation", "said"),
    [
        ("axial", "a slice is missing between z = 27.0 mm and z = 22.0 mm"),
        ("coronal", "a slice is missing between y = -37.0 mm and y = -32.0 mm"),
        ("sagittal", "a slice is missing between x = -41.0 mm and x = -36.0 mm"),
    ],
)
def test_a_missing_slice_is_refused_and_its_place_is_told(orientation, said, tmp_path):
    images = phantoms.series(orientation=orientation)
    said_of_it = reason([image for image in images if image.InstanceNumber != 4], tmp_path)
    a, b = said.split(" between ")[1].split(" and ")
    assert said_of_it in (said, f"a slice is missing between {b} and {a}")


def test_a_missing_slice_is_interpolated_where_the_input_allows_it_and_it_is_said(tmp_path):
    images = phantoms.series(phantoms.marked((8, 6, 5), (2, 1, 1)) * 1)
    del images[5]
    assembled = put_together(images, tmp_path, Input(units="HU", allow_gaps=True))
    array = assembled.volume.array
    assert array.shape == (8, 6, 5)
    assert len(assembled.sources) == 7
    assert np.array_equal(array[2], (array[1] + array[3]) / 2)
    assert "a slice is missing between z = 32.0 mm and z = 27.0 mm: interpolated from the neighbours" in assembled.notes


def test_many_missing_slices_in_a_row_are_never_made_up(tmp_path):
    images = phantoms.series(np.repeat(phantoms.marked(), 2, axis=0))
    assert reason([*images[:6], *images[9:]], tmp_path, Input(allow_gaps=True)).startswith("3 slices are missing between")


def test_uneven_spacing_is_refused(tmp_path):
    images = each(phantoms.series(), "ImagePositionPatient", [[0, 0, z] for z in (0, 2.5, 5, 7.5, 12.5, 17.5, 22.5, 27.5)])
    assert reason(images, tmp_path) == "slices are not evenly spaced: between 2.5 and 5 mm apart"


# -------------------------------------------------------------------------------------------- what else lies in a series


def test_localizers_among_slices_are_left_out_and_it_is_said(tmp_path):
    localizer = phantoms.series(phantoms.marked()[:1], orientation="coronal", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], seed="other")
    assembled = put_together([*localizer, *phantoms.series()], tmp_path)
    assert assembled.volume.spatial_shape == (8, 24, 20)
    assert "1 image was left out: localizers" in assembled.notes


def test_a_series_of_localizers_is_refused(tmp_path):
    assert reason(phantoms.series(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), tmp_path) == "the series holds only localizers"


@pytest.mark.parametrize("other", [{"orientation": "sagittal"}, {"spacing_mm": (2.5, 1.6, 1.4)}, {"array": phantoms.marked()[:, :12]}])
def test_the_stack_that_is_clearly_the_series_is_taken_and_the_rest_left_out(other, tmp_path):
    others = phantoms.series(seed="other", FrameOfReferenceUID=phantoms.series()[0].FrameOfReferenceUID, **other)
    assembled = put_together([*others[:2], *phantoms.series()], tmp_path)
    assert np.array_equal(assembled.volume.array, by_highdicom(phantoms.series())[0])
    assert any(note.startswith("2 images were left out: other direction, matrix") for note in assembled.notes)


def test_two_stacks_of_equal_right_are_refused(tmp_path):
    images = [*phantoms.series(), *phantoms.series(orientation="sagittal", seed="other")]
    assert reason(images, tmp_path) == (
        "the series mixes images that make no common volume: "
        "8 of 20 x 24 pixels of 0.8 mm stacked along x, 8 of 20 x 24 pixels of 0.8 mm stacked along z"
    )


def test_colour_captures_and_reports_in_a_series_are_left_out(tmp_path):
    (capture,) = phantoms.series(phantoms.marked()[:1], seed="other", SamplesPerPixel=3)
    report = phantoms.series(phantoms.marked()[:1], seed="third", Rows=None)
    assembled = put_together([capture, *report, *phantoms.series()], tmp_path)
    assert "1 objects left out: in colour, or without a position in the patient" in assembled.notes


def test_images_of_a_private_class_are_declined(tmp_path):
    """No standard object can refer to them: a sentence now rather than a failure when the report is written."""
    assert "private SOP class" in reason(phantoms.series(SOPClassUID="1.3.6.1.4.1.9999.1.1"), tmp_path)


def test_the_same_file_twice_counts_once_and_another_under_its_uid_is_refused(tmp_path):
    images = phantoms.series()
    assert put_together([*images, images[0]], tmp_path / "same").volume.spatial_shape[0] == 8
    other = copy.deepcopy(images[0])
    other.InstanceNumber = 99
    assert "came twice with different content under one UID" in reason([*images, other], tmp_path / "other")


def test_exact_copies_under_new_uids_are_left_out(tmp_path):
    copies = each(phantoms.series(), "SOPInstanceUID", [hd.UID() for _ in range(8)])
    assembled = put_together([*phantoms.series(), *copies[2:4]], tmp_path)
    assert np.array_equal(assembled.volume.array, by_highdicom(phantoms.series())[0])
    assert "2 images were left out: exact copies of others" in assembled.notes


@pytest.mark.parametrize(
    ("keyword", "first", "second"),
    [
        ("TemporalPositionIdentifier", 1, 2),
        ("AcquisitionNumber", 3, 11),
        ("EchoTime", 4.6, 80),
        ("TriggerTime", 0, 125.5),
        ("SequenceName", "*ep_b0", "*ep_b1000"),
        ("ImageType", ["ORIGINAL", "PRIMARY", "M", "FFE"], ["ORIGINAL", "PRIMARY", "P", "FFE"]),
    ],
)
def test_of_several_phases_the_first_complete_one_is_taken_and_it_is_said(keyword, first, second, tmp_path):
    later = phantoms.series(phantoms.marked(value=500), modality="MR", seed="later", SeriesInstanceUID="1.2.3", **{keyword: second})
    earlier = phantoms.series(modality="MR", SeriesInstanceUID="1.2.3", FrameOfReferenceUID=later[0].FrameOfReferenceUID, **{keyword: first})
    assembled = put_together([*later, *earlier], tmp_path, ANY)
    assert np.array_equal(assembled.volume.array, by_highdicom(earlier)[0])
    assert any(note.startswith(f"the series holds the same places 2 times; the images of {keyword} ") for note in assembled.notes)


def test_an_incomplete_phase_is_passed_over(tmp_path):
    one = phantoms.series(AcquisitionNumber=1)[:5]
    two = phantoms.series(phantoms.marked(value=900), AcquisitionNumber=2, seed="two", FrameOfReferenceUID=one[0].FrameOfReferenceUID)
    assembled = put_together([*one, *two], tmp_path)
    assert np.array_equal(assembled.volume.array, by_highdicom(two)[0])
    assert "the series holds the same places 2 times; the images of AcquisitionNumber 2 are used" in assembled.notes


def test_phases_told_apart_by_two_attributes_together_are_parted(tmp_path):
    for_uid = phantoms.series()[0].FrameOfReferenceUID
    parts = {}
    for echo, phase in [(1, 1), (1, 2), (2, 1), (2, 2)]:
        array = phantoms.marked(value=1000 + 10 * echo + phase)
        how = {"EchoNumbers": echo, "TemporalPositionIdentifier": phase, "FrameOfReferenceUID": for_uid}
        parts[echo, phase] = phantoms.series(array, modality="MR", seed=f"{echo}{phase}", **how)
    assembled = put_together(sum(parts.values(), []), tmp_path, ANY)
    assert assembled.volume.array.max() == parts[1, 1][2].pixel_array.max() - 1024


def test_interleaved_phases_at_slightly_different_places_are_parted(tmp_path):
    one = phantoms.series(AcquisitionNumber=1)
    two = phantoms.series(AcquisitionNumber=2, seed="two", origin_mm=(-31, -42, 18.1), FrameOfReferenceUID=one[0].FrameOfReferenceUID)
    assert np.array_equal(put_together([*one, *two], tmp_path).volume.affine, by_highdicom(one)[1])


def test_different_images_at_one_place_that_nothing_parts_are_refused(tmp_path):
    one = phantoms.series()
    two = phantoms.series(phantoms.marked(value=900), seed="two", FrameOfReferenceUID=one[0].FrameOfReferenceUID)
    said = reason([*one, *two[2:5]], tmp_path)
    assert said.startswith("2 different images lie at the same place (z = 27.0 mm: image 5, image 5)")


def test_a_mosaic_is_refused(tmp_path):
    images = phantoms.series(modality="MR", ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"])
    assert "mosaics" in reason(images, tmp_path, ANY)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Input(plane="coronal"), "slices are axial, not coronal"),
        (Input(min_slices=9), "8 slices, at least 9 are needed"),
        (Input(max_slice_spacing_mm=2), "slices are 2.5 mm apart, at most 2 mm is allowed"),
        (Input(min_extent_mm=21), "slices cover 20 mm, at least 21 mm is needed"),
    ],
)
@pytest.mark.parametrize("make", [phantoms.series, lambda: [phantoms.enhanced()]])
def test_what_the_input_asks_of_the_stack_is_asked_again_of_the_volume(make, wanted, said, tmp_path):
    """Selection sees headers alone, and of multi-frame images not even positions."""
    assert reason(make(), tmp_path, wanted) == said


# ---------------------------------------------------------------------------------------------------------- multi-frame


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_an_enhanced_image_gives_the_volume_of_its_slices(modality, tmp_path):
    """PS3.3 C.7.6.16: position, orientation, spacing and rescale of each frame come from the functional groups."""
    image = phantoms.enhanced(modality=modality, orientation="oblique", rescale=(2, -100))
    image.PerFrameFunctionalGroupsSequence = list(image.PerFrameFunctionalGroupsSequence)[::-1]
    frames = np.frombuffer(image.PixelData, "<i2").reshape(8, 24, 20)[::-1]
    image.PixelData = frames.tobytes()
    assembled = put_together([image], tmp_path / "enhanced", ANY)
    array, affine = by_highdicom(phantoms.series(modality=modality, orientation="oblique", rescale=(2, -100)))
    assert np.array_equal(assembled.volume.array, array)
    assert np.abs(assembled.volume.affine - affine).max() < 1e-9
    by_itself = hd.imread(tmp_path / "enhanced" / "0000.dcm").get_volume()
    assert by_itself.geometry_equal(assembled.volume)
    assert [source.SOPInstanceUID for source in assembled.sources] == [image.SOPInstanceUID]


def test_frames_may_be_rescaled_each_in_its_own_way(tmp_path):
    image = phantoms.enhanced()
    del image.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence
    for index, group in enumerate(image.PerFrameFunctionalGroupsSequence):
        group.PixelValueTransformationSequence = [item(RescaleSlope=index + 1, RescaleIntercept=-index, RescaleType="HU")]
    array = put_together([image], tmp_path).volume.array[::-1]
    assert np.array_equal(array, [phantoms.marked()[k] * (k + 1.0) - k for k in range(8)])


def test_of_an_enhanced_image_with_two_phases_the_first_is_taken(tmp_path):
    image = phantoms.enhanced(np.concatenate([phantoms.marked(), phantoms.marked(value=500)]))
    for index, group in enumerate(image.PerFrameFunctionalGroupsSequence):
        group.FrameContentSequence[0].TemporalPositionIndex = 1 + index // 8
        group.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 2.5 * (index % 8)]
    assembled = put_together([image], tmp_path)
    assert np.array_equal(assembled.volume.array[::-1], phantoms.marked() - 1024.0)
    assert "the series holds the same places 2 times; the images of TemporalPositionIndex 1 are used" in assembled.notes


def test_of_two_enhanced_images_each_a_volume_the_first_is_taken_and_one_volume_over_two_is_refused(tmp_path):
    one, two = phantoms.enhanced(), phantoms.enhanced(phantoms.marked(value=500), number=2, InstanceNumber=2)
    assembled = put_together([two, one], tmp_path / "two volumes")
    assert [source.SOPInstanceUID for source in assembled.sources] == [one.SOPInstanceUID]
    assert assembled.volume.array.max() == 0
    apart = phantoms.enhanced(number=3, origin_mm=(-31, -42, 37))
    assert reason([one, apart], tmp_path / "one volume") == "the slices are spread over 2 objects, some of several frames each"


def test_a_multi_frame_image_that_does_not_describe_its_frames_is_refused(tmp_path):
    images = [phantoms.enhanced(NumberOfFrames=9)]
    assert reason(images, tmp_path / "few") == "image 1 has 9 frames but describes 8"
    images = [phantoms.enhanced(PerFrameFunctionalGroupsSequence=None)]
    assert reason(images, tmp_path / "none") == "the series cannot be stacked: its images carry no position in the patient"
    images = [phantoms.enhanced()]
    del images[0].PerFrameFunctionalGroupsSequence[3].PlanePositionSequence
    assert reason(images, tmp_path / "one") == "where image 1 lies in the patient cannot be understood from its header"


def test_nothing_said_names_the_patient(tmp_path):
    said = [*put_together(phantoms.series(), tmp_path / "fine").notes, reason(phantoms.series(modality="MR"), tmp_path / "not")]
    header = dcmread(tmp_path / "fine" / "0000.dcm")
    assert not any(str(header[keyword].value) in sentence for keyword in phantoms.PATIENT for sentence in said)
