"""Images that a model made: a series beside their sources, in their place and stored unit, and nothing said that is not true of it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from highdicom import Volume
from pydicom import Dataset, dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.uid import ImplicitVRLittleEndian

from dicom_node.assemble.volume import assemble
from dicom_node.config import Model, load_model
from dicom_node.domain import Assembled, Findings, ModelFailed, Unsuitable
from dicom_node.report import Draft, build, check, encode
from dicom_node.work import try_model
from tests import findings as made
from tests import phantoms

MANIFEST = """
name = "smoother"
version = "1.2"
task = "Smooths."
manufacturer = "Phantom Works"

[inputs.ct]
allow_gaps = true
allow_derived = true

[images.smooth]
description = "Mean of 3 x 3 pixels"
derivation = ["DCM.Smoothing", ["MEAN3", "99PHANTOM", "Mean of neighbours"]]
image_type = "SMOOTHED"
"""

MEASURED = """
[measurements.noise]
concept = ["NOISE", "99PHANTOM", "Noise"]
unit = "1"
site = "SCT.Lung"
"""

GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "FrameOfReferenceUID", "Rows", "Columns")


SOURCES = {
    "axial CT": phantoms.series,
    "oblique CT": lambda: phantoms.series(orientation="oblique"),
    "coronal CT, last slice first": lambda: phantoms.series(orientation="coronal")[::-1],
    "unsigned CT": lambda: phantoms.series(PixelRepresentation=0, BitsStored=12, HighBit=11),
    "CT with padding": lambda: phantoms.series(padded(), PixelPaddingValue=-2000),
    "CT with an odd slope": lambda: phantoms.series(rescale=(0.3, -7.7)),
    "MR": lambda: phantoms.series(modality="MR", orientation="sagittal", rescale=None),
    "MR with a rescale": lambda: phantoms.series(modality="MR", rescale=(2.5, 3)),
    "one slice": lambda: phantoms.series()[2:3],
}
every_source = pytest.mark.parametrize("source", SOURCES)


def padded() -> np.ndarray:
    """Return the phantom with padding in a corner of each slice."""
    array = phantoms.marked()
    array[:, :4, :5] = -2000
    return array


class Series:
    """A phantom on disk, as assembled, and what was derived of it by a function of the values."""

    def __init__(self, folder: Path, images: Sequence[Dataset], change=lambda values: values + 0.4, manifest: str = MANIFEST, **findings: object):
        self.model: Model = made.model(folder / "model", manifest)
        self.paths = phantoms.write(images, folder / "in")
        self.assembled: Assembled = assemble(self.paths, self.model.manifest.inputs["ct"])
        self.wanted = change(self.assembled.volume.array.astype(np.float64))  # (slice, row, column)
        given = Findings(images={"smooth": self.assembled.volume.with_array(self.wanted)}, **findings)
        self.drafts: tuple[Draft, ...] = build(given, {"ct": self.assembled}, made.run(self.model))
        (folder / "out").mkdir()
        self.files = []
        for number, draft in enumerate(self.drafts):
            self.files.append(folder / "out" / f"{number:03d}-{draft.kind}.dcm")
            self.files[-1].write_bytes(encode(draft.dataset))
        self.images = [dcmread(path) for path in self.files if path.name.endswith("DER.dcm")]
        self.report = dcmread(self.files[-1])

    def source_of(self, image: Dataset) -> Dataset:
        uid = image.SourceImageSequence[0].ReferencedSOPInstanceUID
        return next(s for s in map(dcmread, self.paths) if s.SOPInstanceUID == uid)


@every_source
def test_a_stored_value_is_within_half_a_stored_unit_of_the_models(source: str, tmp_path: Path) -> None:
    """Rescaled as the header says; pixels that are padding in the source are left out."""
    series = Series(tmp_path, SOURCES[source](), change=lambda values: values * 0.97 + 0.4)
    assert len(series.images) == len(series.wanted)
    for image, wanted in zip(series.images, series.wanted, strict=True):
        slope, intercept = float(image.get("RescaleSlope", 1)), float(image.get("RescaleIntercept", 0))
        off = np.abs(image.pixel_array * slope + intercept - wanted)
        assert off[series.source_of(image).pixel_array != image.get("PixelPaddingValue", 1 << 20)].max() <= slope / 2 * (1 + 1e-5)


@every_source
def test_every_image_and_the_report_pass_dciodvfy(source: str, tmp_path: Path) -> None:
    """PS3.3 A.3, A.4, A.35.13: no error, whatever the source."""
    assert [problem for path in Series(tmp_path, SOURCES[source]()).files for problem in check(path)] == []


@every_source
def test_place_is_the_sources_byte_for_byte(source: str, tmp_path: Path) -> None:
    """PS3.3 C.7.6.2: not a number is written anew. Rescale, window and number stay too."""
    series = Series(tmp_path, SOURCES[source]())
    for image in series.images:
        before = series.source_of(image)
        for keyword in (*GEOMETRY, "RescaleSlope", "RescaleIntercept", "RescaleType", "InstanceNumber", "PatientPosition"):
            tag = tag_for_keyword(keyword)
            assert (tag in image) == (tag in before), keyword
            assert tag not in image or image.get_item(tag).value == before.get_item(tag).value, keyword


@pytest.mark.parametrize("source", [name for name in SOURCES if name != "one slice"])
def test_simpleitk_reads_both_series_on_the_same_grid(source: str, tmp_path: Path) -> None:
    """Origin, spacing and direction are identical: a viewer lays one over the other."""
    series = Series(tmp_path, SOURCES[source]())
    read = [_read(tmp_path / folder, uid) for folder, uid in (("in", series.assembled.sources[0]), ("out", series.images[0]))]
    for said in ("GetOrigin", "GetSpacing", "GetDirection", "GetSize"):
        assert getattr(read[0], said)() == getattr(read[1], said)()
    assert np.abs(sitk.GetArrayFromImage(read[1]).astype(float) - sitk.GetArrayFromImage(read[0]) - 0.4).max() <= 2.5


def _read(folder: Path, one: Dataset) -> sitk.Image:
    return sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), str(one.SeriesInstanceUID)))


def test_a_header_says_what_was_done_to_which_image(tmp_path: Path) -> None:
    """PS3.3 C.7.6.1.1.2 to 4, C.12.4.1.1; CID 7203, CID 7202."""
    series = Series(tmp_path, phantoms.series(SpecificCharacterSet="ISO_IR 192"))
    assert {path.name for path in series.files} == {*(f"{n:03d}-DER.dcm" for n in range(8)), "008-SR.dcm"}
    for image, source in zip(series.images, series.assembled.sources, strict=True):
        assert list(image.ImageType) == ["DERIVED", "SECONDARY", "AXIAL", "SMOOTHED"]
        assert image.DerivationDescription == "Mean of 3 x 3 pixels (smoother 1.2)"
        assert [(c.CodeValue, c.CodingSchemeDesignator) for c in image.DerivationCodeSequence] == [("113087", "DCM"), ("MEAN3", "99PHANTOM")]
        (reference,) = image.SourceImageSequence
        assert (reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID) == (source.SOPClassUID, source.SOPInstanceUID)
        assert (reference.SpatialLocationsPreserved, reference.PurposeOfReferenceCodeSequence[0].CodeValue) == ("YES", "121322")
        assert (image.SOPClassUID, image.Modality, image.BurnedInAnnotation) == (source.SOPClassUID, source.Modality, "NO")
        assert (image.ContentQualification, image.Manufacturer, image.ConvolutionKernel) == ("RESEARCH", "Phantom Works", "STANDARD")
        assert image.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99PHANTOM"
        for keyword in (*phantoms.PATIENT, *phantoms.STUDY, "StudyInstanceUID", "SpecificCharacterSet"):
            assert image[keyword].value == source[keyword].value
    assert series.images[0].SeriesDescription == "smoother AI research use DER smooth"


def test_uids_are_new_one_series_and_the_same_again(tmp_path: Path) -> None:
    """A retry writes the same bytes; the source's UIDs are never used again."""
    images = phantoms.series()
    first, second = Series(tmp_path / "a", images), Series(tmp_path / "b", images)
    assert [path.read_bytes() for path in first.files] == [path.read_bytes() for path in second.files]
    uids = [image.SOPInstanceUID for image in first.images]
    assert len({*uids, *(image.SOPInstanceUID for image in images)}) == 2 * len(images)
    assert len({image.SeriesInstanceUID for image in first.images}) == 1
    numbers = {first.images[0].SeriesNumber, first.report.SeriesNumber}
    assert len(numbers) == 2 and all(9000 <= number < 10000 for number in numbers)
    assert {first.images[0].SeriesInstanceUID, first.report.SeriesInstanceUID} & {image.SeriesInstanceUID for image in images} == set()


def test_padding_stays_padding_and_keeps_its_value(tmp_path: Path) -> None:
    """PS3.3 C.7.5.1.1.2: also where the model wrote something else, and nothing else becomes padding."""
    series = Series(tmp_path, phantoms.series(padded(), PixelPaddingValue=-2000), change=np.zeros_like)
    for image in series.images:
        assert (image.PixelPaddingValue, image["PixelPaddingValue"].VR) == (-2000, "SS")
        assert ((image.pixel_array == -2000) == (padded()[0] == -2000)).all()


def test_a_range_of_padding_stays_what_it_was(tmp_path: Path) -> None:
    """PS3.3 C.7.5.1.1.2: from Pixel Padding Value to Pixel Padding Range Limit."""
    array = padded()
    array[:, 0, :] = -1990
    series = Series(tmp_path, phantoms.series(array, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1990), change=np.zeros_like)
    assert all((image.pixel_array[array[0] < -1000] == array[0][array[0] < -1000]).all() for image in series.images)
    assert [problem for path in series.files for problem in check(path)] == []


def test_values_that_the_sources_sign_does_not_hold_take_the_other(tmp_path: Path) -> None:
    """Nothing is clipped: an unsigned source with values below its zero gives a signed series, and the other way round."""
    lower = Series(tmp_path / "a", phantoms.series(PixelRepresentation=0), change=lambda values: values - 2000)
    assert {(image.PixelRepresentation, image.BitsStored) for image in lower.images} == {(1, 16)}
    higher = Series(tmp_path / "b", phantoms.series(), change=lambda values: values + 60000)
    assert {image.PixelRepresentation for image in higher.images} == {0}
    assert higher.images[0].pixel_array.min() > 32767
    assert [problem for path in (*lower.files, *higher.files) for problem in check(path)] == []


def test_values_beyond_16_bits_are_the_models_fault(tmp_path: Path) -> None:
    """The message says what would be needed."""
    with pytest.raises(ModelFailed, match="image 'smooth' needs stored values from -98976 to 1024, which 16 bits do not hold"):
        Series(tmp_path, phantoms.series(), change=lambda values: values * 100)


def test_multi_frame_images_are_declined(tmp_path: Path) -> None:
    """Not supported yet, and said so."""
    with pytest.raises(
        Unsuitable, match="are Enhanced CT Image Storage objects; derived images are made of single-frame CT, MR, CR, DX and MG images only"
    ):
        Series(tmp_path, [phantoms.enhanced()])


def _mapping(**attributes: object) -> Dataset:
    unit, mapping = Dataset(), Dataset()
    unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = "um2/s", "UCUM", "um2/s"
    mapping.MeasurementUnitsCodeSequence, mapping.LUTLabel, mapping.LUTExplanation = [unit], "ADC", "ADC"
    for keyword, value in attributes.items():
        mapping.add_new(tag_for_keyword(keyword), "SS" if "Mapped" in keyword else "FD", value)
    return mapping


def test_real_world_values_are_stored_under_the_mapping_that_they_came_by(tmp_path: Path) -> None:
    """PS3.3 C.7.6.16.2.11: the image keeps the mapping, beside a rescale that says something else; its sign stays, for the mapping names it."""
    mapped = {"RealWorldValueFirstValueMapped": 0, "RealWorldValueLastValueMapped": 2000}
    mapping = _mapping(RealWorldValueSlope=0.5, RealWorldValueIntercept=3.0, **mapped)
    images = phantoms.series(modality="MR", rescale=(7, 0), RealWorldValueMappingSequence=[mapping])
    series = Series(tmp_path / "a", images, change=lambda values: values * 0.97 + 0.1)
    for image, wanted in zip(series.images, series.wanted, strict=True):
        assert np.abs(image.pixel_array * 0.5 + 3 - wanted).max() <= 0.25
        assert image.RealWorldValueMappingSequence[0] == mapping
    assert [problem for path in series.files for problem in check(path)] == []
    with pytest.raises(ModelFailed, match="16 bits do not hold"):
        Series(tmp_path / "b", images, change=lambda values: values + 20000)


def test_values_that_a_table_gives_are_declined(tmp_path: Path) -> None:
    """It cannot be undone."""
    table = _mapping(RealWorldValueLUTData=[float(n) for n in range(1100)], RealWorldValueFirstValueMapped=0, RealWorldValueLastValueMapped=1099)
    with pytest.raises(Unsuitable, match="a table says what the stored values"):
        Series(tmp_path, phantoms.series(modality="MR", rescale=None, RealWorldValueMappingSequence=[table]))


def test_a_slice_that_was_interpolated_gets_no_image(tmp_path: Path) -> None:
    """An image has a source, or it is not made; the report says how many are missing."""
    images = phantoms.series()
    series = Series(tmp_path, images[:4] + images[5:])
    assert [image.InstanceNumber for image in series.images] == [8, 7, 6, 4, 3, 2, 1]
    assert "1 slices of the volume have no image of their own; the derived images leave them out." in _comments(series.report)


def test_a_source_without_vrs_gives_the_same_images(tmp_path: Path) -> None:
    """PS3.5 A.1: in Implicit VR nothing says whether padding is signed; the dictionary and Pixel Representation do."""
    images = phantoms.series(padded(), PixelPaddingValue=-2000, AcquisitionNumber=3)
    explicit = Series(tmp_path / "a", images)
    for image in images:
        image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    implicit = Series(tmp_path / "b", images)
    assert all(not dcmread(path).original_encoding[0] for path in explicit.paths)
    assert all(dcmread(path).original_encoding[0] for path in implicit.paths)
    assert [path.read_bytes() for path in implicit.files] == [path.read_bytes() for path in explicit.files]


def test_technique_that_is_not_valid_is_left_out(tmp_path: Path) -> None:
    """PS3.5 Table 6.2-1: what is copied because it is useful does not stop a result."""
    odd = phantoms.series(ImageType=["ORIGINAL", "PRIMARY"])
    for image in odd:
        image["ConvolutionKernel"]._value = "a kernel with far too long a name"
        image["BodyPartExamined"]._value = "Chest wall"
    given = made.assembled(odd)
    image = build(Findings(images={"smooth": given.volume}), {"ct": given}, made.run(made.model(tmp_path / "model", MANIFEST)))[0].dataset
    assert [keyword for keyword in ("ConvolutionKernel", "BodyPartExamined") if keyword in image] == []
    assert image.ImageType[2] == "AXIAL"
    (tmp_path / "image.dcm").write_bytes(encode(image))
    assert check(tmp_path / "image.dcm") == ()


@pytest.mark.parametrize(
    ("part", "side", "written"),
    [("KNEE", "L", "L"), ("KNEE", None, ""), (None, None, ""), (None, "R", "R"), ("CHEST", "", None), ("CHEST", "L", None), ("WRONG", "X", "")],
)
def test_the_side_of_a_paired_part_is_kept(tmp_path: Path, part: str | None, side: str | None, written: str | None) -> None:
    """PS3.3 C.7.3.1: a knee without its side is a danger; unknown it is empty, and of a chest there is none."""
    series = Series(tmp_path, phantoms.series(Laterality=side, BodyPartExamined=part)[:3])
    assert {image.get("Laterality") for image in series.images} == {written}
    assert [problem for path in series.files for problem in check(path)] == []


# ------------------------------------------------------------------------------------------------------------- the report


def test_a_report_of_images_alone_says_what_was_done_and_which_series_was_made(tmp_path: Path) -> None:
    """TID 1501: the derivation in code, the series by its UID; for the reader in a sentence."""
    series = Series(tmp_path, phantoms.series())
    (group,) = _groups(series.report)
    said = {(i.ConceptNameCodeSequence[0].CodeValue, i.ConceptCodeSequence[0].CodeValue) for i in group.ContentSequence if i.ValueType == "CODE"}
    assert {("121401", "113087"), ("121401", "MEAN3")} <= said
    assert [i.UID for i in group.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "112002"] == [series.images[0].SeriesInstanceUID]
    assert "Made 8 images, series 'smoother AI research use DER smooth': Mean of 3 x 3 pixels." in _comments(series.report)
    assert series.report.CompletionFlag == "COMPLETE"


def test_measurements_stand_beside_the_images(tmp_path: Path) -> None:
    """A group for the site that was measured, and one for the series."""
    series = Series(tmp_path, phantoms.series(), manifest=MANIFEST + MEASURED, measurements={"noise": 3.0})
    assert len(_groups(series.report)) == 2
    assert check(series.files[-1]) == ()


def test_an_image_that_was_not_returned_makes_the_report_partial(tmp_path: Path) -> None:
    """What model.toml describes and the analysis did not give is named."""
    model = made.model(tmp_path / "model", MANIFEST + MEASURED)
    given = made.assembled(phantoms.series())
    (draft,) = build(Findings(measurements={"noise": 1.0}), {"ct": given}, made.run(model))
    assert (draft.dataset.CompletionFlag, draft.dataset.CompletionFlagDescription) == ("PARTIAL", "Not produced: smooth")


def _groups(report: Dataset) -> list[Dataset]:
    measured = next(item for item in report.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == "126010")
    return list(measured.ContentSequence)


def _comments(report: Dataset) -> list[str]:
    return [i.TextValue for item in report.ContentSequence if item.ValueType == "CONTAINER" for i in item.ContentSequence if i.ValueType == "TEXT"]


# --------------------------------------------------------------------------------------------------------------- the walk


def test_what_a_model_returns_is_what_is_stored(tmp_path: Path) -> None:
    """From the model's process through the contract to two valid series: flips are undone, 64 bits and whole numbers arrive."""
    files = phantoms.write(phantoms.series(), tmp_path / "in")
    trial = try_model(load_model(Path(__file__).parent / "models" / "smooths"), files, tmp_path / "out")
    assert trial.problems == ()
    assert [path.name for path in trial.objects] == [*(f"{n}-der.dcm" for n in range(1, 17)), "17-sr.dcm"]
    images = [dcmread(path) for path in trial.objects[:-1]]
    same, half = ([i for i in images if i.ImageType[3] == kind] for kind in ("SAME", "HALF"))
    sources = {s.SOPInstanceUID: s for s in map(dcmread, files)}
    for image in same:
        assert (image.pixel_array == sources[image.SourceImageSequence[0].ReferencedSOPInstanceUID].pixel_array).all()
    for image in half:
        hu = sources[image.SourceImageSequence[0].ReferencedSOPInstanceUID].pixel_array - 1024.0
        assert (image.pixel_array - 1024 == np.rint(hu / 2)).all()
    assert len({image.SeriesNumber for image in images}) == len({image.SeriesInstanceUID for image in images}) == 2


def test_an_image_on_another_grid_never_becomes_an_object(tmp_path: Path) -> None:
    """`report` looks again: a value under the wrong place is worse than none."""
    model, given = made.model(tmp_path / "model", MANIFEST), made.assembled(phantoms.series())
    affine = given.volume.affine.copy()
    affine[:3, 3] += 0.5
    moved = Volume(given.volume.array, affine, "PATIENT")
    with pytest.raises(ModelFailed, match="not on its input's grid"):
        build(Findings(images={"smooth": moved}), {"ct": given}, made.run(model))
