"""The best series of a study for a model's input: a table of what must hold, of what is preferred, and of what is said."""

import itertools

import pytest
from pydantic import ValidationError

from dicom_node.assemble import select
from dicom_node.config import Input
from dicom_node.domain import Instance, Series

AXIAL, CORONAL, SAGITTAL = [1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1], [0, 1, 0, 0, 0, -1]
NORMALS = {tuple(AXIAL): (0, 0, 1), tuple(CORONAL): (0, 1, 0), tuple(SAGITTAL): (1, 0, 0)}


def series(number=1, *, slices=40, spacing_mm=1.0, orientation=AXIAL, **header):
    """Return an original CT series of evenly spaced slices; keywords replace what its headers say."""
    normal = NORMALS[tuple(orientation)]
    common = {
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
        "SeriesNumber": number,
        "SeriesDescription": "Marked^Patient chest",
        "Rows": 512,
        "Columns": 512,
        "SamplesPerPixel": 1,
        "SliceThickness": spacing_mm,
        "ImageOrientationPatient": orientation,
    }
    images = []
    for index in range(slices):
        place = {"ImagePositionPatient": [part * index * spacing_mm for part in normal], "InstanceNumber": index + 1}
        stated = {keyword: value for keyword, value in (common | place | header).items() if value is not None}
        images.append(
            Instance(
                sop_instance_uid=f"1.{number}.{index}",
                sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                study_instance_uid="1.2",
                series_instance_uid=f"1.2.{number}",
                path="a",
                size_bytes=1,
                digest="",
                calling_ae="CT",
                received_at=0.0,
                header=stated,
            )
        )
    return Series(series_instance_uid=f"1.2.{number}", instances=tuple(images))


def wanted(**asked):
    return Input.model_validate({"when": {"Modality": "CT"}} | asked)


def number_of(selection):
    return None if selection.series is None else selection.series.header["SeriesNumber"]


@pytest.mark.parametrize(
    ("asked", "offered", "reason"),
    [
        ({}, series(Modality="MR"), "Modality is MR, not CT"),
        ({"when": {}}, series(Modality="SEG"), "holds no images"),
        ({}, series(Rows=None), "holds no images"),
        ({}, series(ImageType=["DERIVED", "SECONDARY", "MPR"]), "it was derived from other images"),
        ({}, series(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "it is a localizer"),
        ({}, series(SOPClassUID="1.2.840.10008.5.1.4.1.1.7"), "its images are screen captures"),
        ({}, series(SamplesPerPixel=3), "its images are in colour"),
        ({}, series(ImagePositionPatient=None), "its images carry no position in the patient"),
        ({"plane": "axial"}, series(orientation=CORONAL), "slices are coronal, not axial"),
        ({"min_slices": 50}, series(), "40 slices, at least 50 are needed"),
        ({"max_slice_spacing_mm": 2.5}, series(spacing_mm=5.0), "slices are 5 mm apart, at most 2.5 mm is allowed"),
        ({"min_extent_mm": 100}, series(), "slices cover 40 mm, at least 100 mm is needed"),
    ],
)
def test_what_must_hold_is_held_against_a_series_in_a_sentence(asked, offered, reason):
    selection = select([offered], wanted(**asked))
    assert selection.series is None
    assert selection.rejected == {"1.2.1": reason}
    assert selection.why == f"no series suits; series 1: {reason}"


@pytest.mark.parametrize("image_type", [["DERIVED", "SECONDARY"], ["ORIGINAL", "PRIMARY", "LOCALIZER"]])
def test_derived_series_are_taken_where_the_input_allows_them(image_type):
    assert number_of(select([series(ImageType=image_type)], wanted(allow_derived=True))) == 1


def test_a_plane_is_met_within_thirty_degrees():
    cos, sin = 0.8830, 0.4695  # 28 degrees
    assert number_of(select([series(ImageOrientationPatient=[1, 0, 0, 0, cos, sin], ImagePositionPatient=[0, 0, 0])], wanted(plane="axial"))) == 1
    cos, sin = 0.8480, 0.5299  # 32 degrees
    tilted = series(ImageOrientationPatient=[1, 0, 0, 0, cos, sin], ImagePositionPatient=[0, 0, 0])
    assert select([tilted], wanted(plane="axial")).rejected["1.2.1"] == "slices are oblique, not axial"


def test_spacing_comes_from_positions_not_from_what_the_header_states():
    overlapping = series(spacing_mm=1.0, SliceThickness=5.0, SpacingBetweenSlices=5.0)
    assert number_of(select([overlapping], wanted(max_slice_spacing_mm=1.0))) == 1


def test_images_at_the_same_place_count_once():
    phases = series(slices=40)
    twice = Series(series_instance_uid="1.2.1", instances=phases.instances + phases.instances)
    assert select([twice], wanted(min_slices=41)).rejected["1.2.1"] == "40 slices, at least 41 are needed"


def test_of_a_multi_frame_series_nothing_is_held_against_what_its_header_does_not_say():
    """The header kept of a multi-frame image has no positions; assembling it judges the true geometry."""
    enhanced = series(slices=1, NumberOfFrames=120, ImagePositionPatient=None, ImageOrientationPatient=None, SliceThickness=None)
    assert number_of(select([enhanced], wanted(plane="axial", min_slices=100, max_slice_spacing_mm=3, min_extent_mm=50))) == 1


@pytest.mark.parametrize(
    ("prefer", "better", "worse", "weakness"),
    [
        ("original", {}, {"ImageType": ["DERIVED", "SECONDARY"]}, "not original"),
        ("axial", {}, {"orientation": SAGITTAL}, "sagittal"),
        ("coronal", {"orientation": CORONAL}, {}, "axial"),
        ("sagittal", {"orientation": SAGITTAL}, {}, "axial"),
        ("thin", {}, {"spacing_mm": 5.0}, "thicker (5 mm)"),
        ("thin", {}, {"SliceThickness": 3.0}, "thicker (3 mm)"),
        ("kernel", {"ConvolutionKernel": "B30f"}, {"ConvolutionKernel": "B70f"}, "of kernel B70f"),
        ("kernel", {"ConvolutionKernel": ["I30f", "3"]}, {}, "of unknown kernel"),
        ("contrast", {"ContrastBolusAgent": "Iomeprol"}, {}, "without contrast agent"),
        ("contrast", {"ContrastBolusAgent": "Iomeprol"}, {"ContrastBolusAgent": "NONE"}, "without contrast agent"),
        ("no-contrast", {}, {"ContrastBolusAgent": "Iomeprol"}, "with contrast agent"),
        ("most-slices", {"slices": 41}, {}, "of fewer slices (40)"),
        ("largest-extent", {"spacing_mm": 2.0}, {}, "shorter (40 mm)"),
    ],
)
def test_each_preference_decides_and_says_how(prefer, better, worse, weakness):
    """The worse series has the lower number, so that nothing but the preference can decide."""
    candidates = [series(3, **worse), series(7, **better)]
    selection = select(candidates, wanted(prefer=[prefer], prefer_kernel="^[BI]30", allow_derived=True))
    assert number_of(selection) == 7
    assert selection.why.endswith(f"; better than series 3: {weakness}")
    assert selection.rejected == {"1.2.3": f"suits, but series 7 is better: this one is {weakness}"}


def test_preferences_are_weighed_in_their_order():
    thin, soft = series(1, spacing_mm=1.0, ConvolutionKernel="B70f"), series(2, spacing_mm=3.0, ConvolutionKernel="B30f")
    assert number_of(select([thin, soft], wanted(prefer=["thin", "kernel"], prefer_kernel="B30"))) == 1
    assert number_of(select([thin, soft], wanted(prefer=["kernel", "thin"], prefer_kernel="B30"))) == 2


def test_the_choice_is_explained_by_technical_facts_alone():
    """Series descriptions are free text and may name the patient."""
    selection = select([series(3, slices=312, ConvolutionKernel="B30f"), series(4, spacing_mm=5.0), series(5, Modality="MR")], wanted())
    assert selection.why == "series 3: axial, original, 1 mm, 312 slices, kernel B30f; better than series 4: thicker (5 mm)"
    assert "Marked" not in selection.why + "".join(selection.rejected.values())


def test_the_only_suitable_series_is_said_to_be_that():
    assert select([series(3)], wanted()).why == "series 3: axial, original, 1 mm, 40 slices; the only one that suits"


def test_a_tie_goes_to_the_lower_series_number_in_whatever_order_they_are_named():
    tied = [series(9), series(2), series(5)]
    chosen = [select(order, wanted()) for order in itertools.permutations(tied)]
    assert {number_of(selection) for selection in chosen} == {2}
    assert {selection.why for selection in chosen} == {chosen[0].why}
    assert chosen[0].rejected["1.2.9"] == "suits, but series 2 is better: this one is equal, and comes later"


def test_only_a_few_of_many_are_named():
    selection = select([series(n, Modality="MR") for n in range(1, 9)], wanted())
    assert selection.why.count("Modality is MR") == 3
    assert selection.why.endswith("; and 5 more")


def test_a_study_without_series_says_so():
    assert select([], wanted()).why == "no series suits: there is none"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"prefer": ["prettiest"]}, "'original', 'axial'"),
        ({"prefer": ["kernel"]}, "prefer_kernel"),
        ({"prefer": ["kernel"], "prefer_kernel": "("}, "not a regular expression"),
    ],
)
def test_a_preference_that_means_nothing_is_refused_when_the_manifest_is_read(asked, message):
    with pytest.raises(ValidationError, match=message):
        wanted(**asked)
