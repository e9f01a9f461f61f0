"""Projection images: one image in, a volume of one slice out, and a sentence for every image that is none."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.pixels import apply_color_lut
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from dicom_node.assemble.projection import GREY
from dicom_node.assemble.selection import select
from dicom_node.assemble.volume import assemble
from dicom_node.config import Input, Manifest
from dicom_node.domain import Findings, Presentation, Unsuitable
from dicom_node.receive import study_of
from dicom_node.report import build, check, encode
from dicom_node.route import takings
from dicom_node.work import try_model
from tests import findings as made
from tests import phantoms, projections
from tests.peers import need
from tests.test_beside import pgm

ANY, BRIGHT = Input(kind="projection"), Input(kind="projection", photometric="MONOCHROME2")
LENGTHLESS = "the image does not say how large its pixels are: a length in mm is a number of pixels"


def put_together(image, folder, wanted=ANY):
    return assemble(phantoms.write([image], folder), wanted)


def reason(image, folder, wanted=ANY):
    with pytest.raises(Unsuitable) as caught:
        put_together(image, folder, wanted)
    assert caught.value.hint and str(folder) not in str(caught.value)
    return str(caught.value)


def values(assembled):
    """Return the values (row, column)."""
    assert assembled.volume.array.shape[0] == 1 and len(assembled.sources) == 1
    return assembled.volume.array[0]


# ----------------------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("kind", [kind for kind in projections.CLASSES if kind != "US"])
def test_each_kind_is_one_slice_with_its_stored_values(kind, tmp_path):
    """40 rows and 30 columns; nothing says that they lie anywhere."""
    found = put_together(projections.image(kind), tmp_path)
    assert (values(found) == projections.wedge()).all()
    assert found.volume.array.dtype == np.float32 and found.projection
    assert found.volume.frame_of_reference_uid is None and found.volume.position == (0, 0, 0)


def test_values_are_as_the_modality_look_up_table_or_the_rescale_gives_them(tmp_path):
    """PS3.3 C.11.1; in 32 or 16 bits as the input asks."""
    rescaled = put_together(projections.image("DX", RescaleSlope="2", RescaleIntercept="-7"), tmp_path / "a", Input(kind="projection", dtype="int16"))
    assert (values(rescaled) == projections.wedge() * 2.0 - 7).all() and rescaled.volume.array.dtype == np.int16
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [4096, 0, 16], "OD"
    table.LUTData = (2 * np.arange(4096)[::-1]).astype("<u2").tobytes()
    looked_up = put_together(projections.image("CR", ModalityLUTSequence=[table]), tmp_path / "b")
    assert (values(looked_up) == 2.0 * (4095 - projections.wedge())).all() and "values are in OD" in looked_up.notes
    turned = put_together(projections.image("CR", ModalityLUTSequence=[table], PhotometricInterpretation="MONOCHROME1"), tmp_path / "c", BRIGHT)
    assert (values(turned) == 2.0 * projections.wedge()).all()


def test_a_dark_image_is_turned_only_where_the_model_asks(tmp_path):
    """PS3.3 C.7.6.3.1.2: of MONOCHROME1 the lowest value is white; turned within what the bits can hold, and said so."""
    dark = projections.image("CR", PhotometricInterpretation="MONOCHROME1")
    as_it_is, turned = put_together(dark, tmp_path / "a"), put_together(dark, tmp_path / "b", BRIGHT)
    assert (values(as_it_is) == projections.wedge()).all() and as_it_is.turned is None
    assert (values(turned) == 4095 - projections.wedge().astype(int)).all() and turned.turned == 4095
    assert "the images are meant to be shown inverted (MONOCHROME1); values are inverted" in turned.notes
    assert put_together(projections.image("CR"), tmp_path / "c", BRIGHT).turned is None


def test_what_is_turned_is_turned_about_the_range_of_its_rescaled_bits(tmp_path):
    """Signed values and a slope of 0.5: from -1024 - 10 to 1023.5 - 10."""
    array = (projections.wedge().astype(int) - 2048).astype("<i2")
    dark = projections.image("CR", PhotometricInterpretation="MONOCHROME1", PixelRepresentation=1, RescaleSlope="0.5", RescaleIntercept="-10")
    dark.PixelData = array.tobytes()
    assert np.allclose(values(put_together(dark, tmp_path, BRIGHT)), (-1024 - 10) + (1023.5 - 10) - (array * 0.5 - 10))


# ------------------------------------------------------------------------------------------------------------- pixel size


@pytest.mark.parametrize(
    ("stated", "spacing_mm", "said"),
    [
        ({}, (0.2, 0.15), "pixels are 0.2 x 0.15 mm at the detector: what lies before it in the patient is smaller than it measures"),
        ({"PixelSpacing": ["0.18", "0.135"]}, (0.18, 0.135), ""),
        ({"PixelSpacing": ["0.2", "0.15"]}, (0.2, 0.15), "at the detector"),
        ({"PixelSpacing": ["0.2", "0.15"], "PixelSpacingCalibrationType": "FIDUCIAL"}, (0.2, 0.15), ""),
        ({"PixelSpacing": ["0.4", "0.3"], "ImagerPixelSpacing": None}, (0.4, 0.3), "does not say whether in the patient or at the detector"),
        ({"PixelSpacing": ["0.4", "0.3"], "ImagerPixelSpacing": None, "Modality": "US"}, (0.4, 0.3), ""),
        ({"ImagerPixelSpacing": None}, (1, 1), LENGTHLESS),
        ({"PixelSpacing": ["0", "0"], "ImagerPixelSpacing": None}, (1, 1), LENGTHLESS),
        ({"ImagerPixelSpacing": ["0.2", "-0.15"]}, (1, 1), LENGTHLESS),
    ],
)
def test_pixels_have_the_size_that_was_calibrated_else_that_at_the_detector(stated, spacing_mm, said, tmp_path):
    """PS3.3 10.7.1.3: Pixel Spacing that differs from Imager Pixel Spacing, or names its calibration, is of the patient."""
    found = put_together(projections.image("CR", **stated), tmp_path)
    assert np.allclose(found.volume.spacing, (1, *spacing_mm))
    assert [note for note in found.notes if said and said in note] or not any("pixels" in note for note in found.notes)


# ----------------------------------------------------------------------------------------------------------------- colour


def coloured(rows=6, columns=8):
    """Return colours (row, column, 3) of 8 bits: black, white, red, green and blue among them."""
    array = np.random.default_rng(2).integers(0, 256, (rows, columns, 3)).astype(np.uint8)
    array[0, :5] = [(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255)]
    return array


def test_colour_becomes_grey_by_how_bright_red_green_and_blue_are(tmp_path):
    """F016: Y = 0.2125 R + 0.7154 G + 0.0721 B; white stays 255. By pixel or by plane (PS3.3 C.7.6.3.1.3), also deflated."""
    array = coloured()
    by_pixel = projections.image("US", array)
    by_plane = projections.image("SC", array, PlanarConfiguration=1)
    by_plane.PixelData = np.moveaxis(array, 2, 0).tobytes()
    deflated = projections.image("US", array)
    deflated.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    for name, image in {"pixel": by_pixel, "plane": by_plane, "deflated": deflated}.items():
        found = put_together(image, tmp_path / name, BRIGHT)
        assert np.allclose(values(found), array @ np.array([0.2125, 0.7154, 0.0721]), atol=1e-4)
        assert np.allclose(values(found)[0, :5], [0, 255, 54.1875, 182.427, 18.3855], atol=1e-3)
        assert "values are the grey, from 0 to 255, of an image in colour" in found.notes


def test_a_palette_is_looked_up(tmp_path):
    """PS3.3 C.7.6.3.1.5: first stored value 10; what is outside of the palette takes its nearest end; 16 bits become 255."""
    image = projections.image("SC", np.arange(48, dtype=np.uint8).reshape(6, 8), PhotometricInterpretation="PALETTE COLOR")
    for bits, name in ((8, "a"), (16, "b")):
        highest, size = 2**bits - 1, bits // 8
        for colour in ("Red", "Green", "Blue"):
            setattr(image, f"{colour}PaletteColorLookupTableDescriptor", [20, 10, bits])
            table = np.linspace(0, highest, 20).astype(f"<u{size}")
            setattr(image, f"{colour}PaletteColorLookupTableData", (table if colour == "Green" else table * 0).tobytes())
        del image.WindowCenter, image.WindowWidth
        expected = 0.7154 * np.linspace(0, 255, 20)[np.clip(np.arange(48) - 10, 0, 19)].reshape(6, 8)
        assert np.abs(values(put_together(image, tmp_path / name)) - expected).max() < 1
        image.WindowCenter = image.WindowWidth = 1


FILES = [
    "examples_rgb_color.dcm",
    "examples_jpeg2k.dcm",
    "SC_ybr_full_422_uncompressed.dcm",
    "SC_rgb_rle.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "SC_rgb_gdcm_KY.dcm",
]


@pytest.mark.parametrize("name", [*FILES, "SC_rgb_jpeg_gdcm.dcm", "SC_rgb_dcmtk_+eb+cy+np.dcm", "SC_rgb_jls_lossy_line.dcm", "examples_palette.dcm"])
def test_every_way_to_store_colour_is_read_as_pydicom_reads_it(name):
    """Uncompressed, JPEG, JPEG 2000, JPEG-LS and RLE; RGB, YBR and palettes: files that come with pydicom."""
    path = get_testdata_file(name)
    image = dcmread(path)
    colours = image.pixel_array if image.SamplesPerPixel == 3 else apply_color_lut(image.pixel_array, image) / 257
    assert np.abs(values(assemble([Path(path)], ANY)) - colours @ np.array(GREY)).max() < 0.01


# ------------------------------------------------------------------------------------------------------------- it declines


def palette(data: bytes, entries: int = 4, bits: int = 8):
    stated = {f"{c}PaletteColorLookupTableDescriptor": [entries, 0, bits] for c in ("Red", "Green", "Blue")}
    return stated | {f"{c}PaletteColorLookupTableData": data for c in ("Red", "Green", "Blue")} | {"PhotometricInterpretation": "PALETTE COLOR"}


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (projections.image("XA", NumberOfFrames=96), "image 1 has 96 frames; only single images are taken"),
        (phantoms.series()[0], "image 1 is a slice, not a projection"),
        (projections.image("CR", ImagePositionPatient=["0", "0", "0"]), "image 1 is a slice, not a projection"),
        (projections.image("CR", BitsStored=17), "17 bits stored in 16"),
        (projections.image("CR", HighBit=10), "12 bits stored in 16"),
        (projections.image("CR", Rows=41), "image 1 is cut short: 2400 of 2460 bytes of pixels are there"),
        (projections.image("CR", Rows=60000, Columns=60000), "image 1 is too large: 60000 x 60000 pixels"),
        (projections.image("SC", coloured(), PhotometricInterpretation="CMYK"), "3 samples of 8 bits in the colour space CMYK"),
        (projections.image("SC", coloured(), SamplesPerPixel=4), "4 samples of 8 bits in the colour space RGB"),
        (projections.image("SC", coloured().astype(np.uint16)), "3 samples of 12 bits in the colour space RGB"),
        (projections.image("SC", coloured(), Columns=9), "image 1 is cut short: 144 of 162 bytes of pixels are there"),
        (projections.image("SC", **palette(b"\1\2")), "the palette of image 1 cannot be understood"),
        (projections.image("SC", **palette(b"\1\2\3\4", bits=12)), "the palette of image 1 cannot be understood"),
        (projections.image("SC", PhotometricInterpretation="PALETTE COLOR"), "the palette of image 1 cannot be understood"),
    ],
)
def test_what_is_no_image_that_can_be_read_is_declined(image, why, tmp_path):
    assert why in reason(image, tmp_path)


def test_several_images_at_once_are_declined(tmp_path):
    """Each is taken by itself: nobody can say that they show the same."""
    paths = phantoms.write([projections.image("CR"), projections.image("CR", number=2)], tmp_path)
    with pytest.raises(Unsuitable, match="2 images; a projection is taken by itself"):
        assemble(paths, ANY)


def test_bytes_in_words_of_big_endian_order_are_declined(tmp_path):
    """PS3.5 A.3, 8.1.1: two pixels of 8 bits would change places."""
    image = projections.image("SC", np.arange(48, dtype=np.uint8).reshape(6, 8))
    image.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    image["PixelData"].VR = "OW"
    path = tmp_path / "image.dcm"
    image.save_as(path, enforce_file_format=True, implicit_vr=False, little_endian=False)
    with pytest.raises(Unsuitable, match="bytes in words of big-endian order"):
        assemble([path], ANY)


def test_compressed_pixels_whose_sign_is_not_stated_are_declined(tmp_path):
    """Found by changing bytes of such a file: a missing attribute is a fault of the file, not of the node."""
    image = dcmread(get_testdata_file("SC_rgb_rle.dcm"))
    del image.PixelRepresentation
    image.save_as(tmp_path / "image.dcm")
    with pytest.raises(Unsuitable, match="cannot be decoded"):
        assemble([tmp_path / "image.dcm"], ANY)


def test_values_that_need_more_than_16_bits_are_declined_where_the_model_asks_for_so_many(tmp_path):
    """Also where they fit as they are stored, and turned do not: 65535 less 400."""
    why = reason(projections.image("CR", RescaleSlope="0.5", RescaleIntercept="0"), tmp_path / "a", Input(kind="projection", dtype="int16"))
    assert "the values of image 1 are not whole numbers of 16 bits" in why
    dark = projections.image("CR", projections.wedge() // 2, bits=16, PhotometricInterpretation="MONOCHROME1")
    whole = Input(kind="projection", photometric="MONOCHROME2", dtype="int16")
    assert "once inverted, are not whole numbers of 16 bits" in reason(dark, tmp_path / "b", whole)
    fits = put_together(projections.image("CR", PhotometricInterpretation="MONOCHROME1"), tmp_path / "c", whole)
    assert (values(fits) == 4095 - projections.wedge().astype(int)).all()


# -------------------------------------------------------------------------------------------------------- which are taken


def series_of(images, folder):
    return study_of(phantoms.write(images, folder)).series


def manifest(kind="projection", **asked):
    measured = {"brightness": {"concept": ["BRIGHT", "99PHANTOM", "Brightness"], "unit": "1", "site": "SCT.Lung"}}
    return Manifest.model_validate({"name": "x", "version": "1", "task": "t", "inputs": {"image": {"kind": kind} | asked}, "measurements": measured})


def test_each_image_of_a_series_is_taken_by_itself(tmp_path):
    """A frontal and a lateral view are two jobs; a model that asks for one view gets that one."""
    series = series_of([projections.image("DX"), projections.image("DX", number=2, ViewPosition="LL")], tmp_path)
    both = list(takings(series, series, manifest(), select))
    assert [[one.header["InstanceNumber"] for one in taking.series["image"].instances] for taking in both] == [[1], [2]]
    assert [taking.why for taking in both] == [f"series 1: image {number}, original; the only one that suits" for number in (1, 2)]
    (frontal,) = takings(series, series, manifest(ViewPosition={"any": ["PA", "AP"]}), select)
    assert frontal.series["image"].instances[0].header["InstanceNumber"] == 1


@pytest.mark.parametrize(
    ("kind", "attributes", "asked", "why"),
    [
        ("CR", {}, {"kind": "image"}, "its images carry no position in the patient"),
        ("XA", {"NumberOfFrames": 96}, {}, "it has 96 frames, and only single images are taken"),
        ("SC", {}, {}, "its images are screen captures"),
        ("SC", {}, {"allow_derived": True}, ""),
        ("US", {}, {"Modality": "CR"}, "Modality is US, not CR"),
        ("DX", {"ImageType": ["DERIVED", "PRIMARY"]}, {}, ""),
        ("DX", {"ImageType": ["DERIVED", "SECONDARY"]}, {}, "it was derived from other images"),
    ],
)
def test_a_series_suits_or_says_why_not(kind, attributes, asked, why, tmp_path):
    """DERIVED and PRIMARY is what the machine itself made of its raw image (PS3.3 C.7.6.1.1.2): the most usual radiograph."""
    series = series_of([projections.image(kind, **attributes)], tmp_path)
    (taking,) = takings(series, series, manifest(**asked), select)
    assert (taking.series is None) is bool(why) and why in taking.why


def test_slices_are_no_projections_and_either_takes_both(tmp_path):
    """A volume is one job; colour is no hindrance to a projection, nor to an ultrasound image beside a CT."""
    images = [
        *phantoms.series(seed="x"),
        projections.image("CR", seed="x", SeriesNumber=2),
        projections.image("US", coloured(), seed="x", SeriesNumber=3),
    ]
    for number, image in enumerate(images[-2:], start=2):
        image.SeriesInstanceUID = f"1.2.{number}"
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"1.2.{number}.1"
    series = series_of(images, tmp_path)
    taken = list(takings(series, series, manifest(kind="either"), select))
    assert [len(taking.series["image"].instances) for taking in taken] == [8, 1, 1]
    (none,) = takings(series[:1], series[:1], manifest(), select)
    assert none.series is None and "its images are slices, not projections" in none.why


def test_a_manifest_asks_of_a_projection_only_what_it_has():
    """Neither slices nor regions, neither Hounsfield units nor segments."""
    segment = {"number": 1, "label": "x", "category": "SCT.Tissue", "type": "SCT.Tissue"}
    said = {"name": "x", "version": "1", "task": "t", "measurements": {"m": {"concept": "SCT.Volume", "unit": "mL"}}}
    good = {"image": {"kind": "either", "units": "HU", "photometric": "MONOCHROME2"}}
    assert Manifest.model_validate(said | {"inputs": good}).inputs["image"].projections
    for wrong, why in (
        ({"inputs": {"image": {"kind": "projection", "units": "HU", "plane": "axial"}}}, "leave out plane, units"),
        ({"inputs": {"image": {"photometric": "MONOCHROME2"}}}, "names photometric, which is of projections only"),
        ({"inputs": {"image": {"kind": "projection"}, "other": {}}}, "it is the only input"),
        ({"inputs": good, "segments": [segment]}, "describes segments or maps, but projection images"),
    ):
        with pytest.raises(ValueError, match=why):
            Manifest.model_validate(said | wrong)


# ------------------------------------------------------------------------------------------------------- what comes of it

MEASURES = """
name = "brightness"
version = "1"
task = "Measures how bright an image is."

[inputs.image]
kind = "either"
photometric = "MONOCHROME2"
allow_derived = true

[measurements.mean]
concept = ["BRIGHT", "99DICOMNODE", "Brightness"]
unit = "1"
site = "SCT.Lung"
digits = 3
"""
CODE = '''"""How bright an image is."""
from dicom_node import Findings


def load(folder, device):
    return lambda image: Findings(measurements={"mean": float(image.array.mean())})
'''


def evidence(report):
    """Return the images that a report is about."""
    return [
        item.ReferencedSOPInstanceUID
        for item in report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    ]


@pytest.mark.parametrize("kind", projections.CLASSES)
def test_every_kind_is_reported(kind, tmp_path):
    """PS3.3 A.35.13: the report is valid, and is about that image."""
    image, model = projections.image(kind), made.model(tmp_path / "model", MEASURES)
    found = put_together(image, tmp_path)
    (draft,) = build(Findings(measurements={"mean": 7.0}), {"image": found}, made.run(model))
    (tmp_path / "sr.dcm").write_bytes(encode(draft.dataset))
    assert draft.kind == "SR" and check(tmp_path / "sr.dcm") == ()
    assert evidence(draft.dataset) == [image.SOPInstanceUID]


def test_a_projection_is_analysed_and_reported(tmp_path):
    """From a file through the model's own process to its report."""
    model = made.model(tmp_path / "model", MEASURES)
    (model.folder / "analysis.py").write_text(CODE)
    image = projections.image("CR", PhotometricInterpretation="MONOCHROME1")
    trial = try_model(model, phantoms.write([image], tmp_path / "in"), tmp_path / "out")
    assert trial.problems == () and [path.name for path in trial.objects] == ["1-sr.dcm"]
    assert trial.findings.measurements["mean"] == pytest.approx(4095 - projections.wedge().mean())
    assert evidence(dcmread(trial.objects[0])) == [image.SOPInstanceUID]


# ---------------------------------------------------------------------------------------------- derived images and windows

CHANGES = """
name = "sharpener"
version = "1"
task = "Changes an image."

[inputs.image]
kind = "either"
photometric = "MONOCHROME2"

[images.sharp]
description = "Half as steep again"
derivation = ["DCM.EdgeEnhancement"]
image_type = "SHARP"

[presentations.narrow]
label = "NARROW"
description = "A narrow window"
"""
X_RAYS = ("CR", "DX", "DX for processing", "MG")
SAME = ("Rows", "Columns", "BitsStored", "HighBit", "PixelRepresentation", "PhotometricInterpretation", "ImagerPixelSpacing", "ViewPosition", "KVP")


def changed(image, folder, gain=1.5, window=(1000.0, 400.0)):
    """Return what is made of an image whose values are multiplied, and the volume that they were."""
    model = made.model(folder / "model", CHANGES)
    found = assemble(phantoms.write([image], folder / "in"), model.manifest.inputs["image"])
    sharp = found.volume.with_array(found.volume.array * gain)
    given = Findings(images={"sharp": sharp}, presentations={"narrow": Presentation(window=window)})
    drafts = build(given, {"image": found}, made.run(model))
    paths = [folder / f"{draft.kind}.dcm" for draft in drafts]
    for draft, path in zip(drafts, paths, strict=True):
        path.write_bytes(encode(draft.dataset))
    assert [problem for path in paths for problem in check(path)] == []
    return dict(zip([draft.kind for draft in drafts], paths, strict=True)), found


@pytest.mark.parametrize("kind", X_RAYS)
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_a_derived_radiograph_is_of_its_class_bits_and_polarity(kind, photometric, tmp_path):
    """PS3.3 A.2, A.26, A.27: valid; what the bits cannot hold is the end of their range, in the sense in which it is seen; rescaled as the source."""
    shape = "INVERSE" if photometric == "MONOCHROME1" else "IDENTITY"
    source = projections.image(kind, PhotometricInterpretation=photometric, **({} if kind == "CR" else {"PresentationLUTShape": shape}))
    paths, _ = changed(source, tmp_path)
    image = dcmread(paths["DER"])
    assert (image.SOPClassUID, image.get("PresentationIntentType")) == (source.SOPClassUID, source.get("PresentationIntentType"))
    assert list(image.ImageType)[:2] == ["DERIVED", "SECONDARY"] and list(image.ImageType)[3:] == ["SHARP"]
    assert [image[keyword].value for keyword in SAME] == [source[keyword].value for keyword in SAME]
    seen = source.pixel_array.astype(float) if photometric == "MONOCHROME2" else 4095.0 - source.pixel_array
    wanted = np.clip(seen * 1.5, 0, 4095)
    assert np.abs((image.pixel_array if photometric == "MONOCHROME2" else 4095.0 - image.pixel_array) - wanted).max() <= 0.5
    assert image.get("PixelSpacing") is None and "ImagePositionPatient" not in image


def test_pixels_of_no_size_are_not_copied(tmp_path):
    """A radiograph that was never calibrated may state 0: its copy states nothing, and is valid."""
    paths, _ = changed(projections.image("CR", PixelSpacing=["0.000", "0.000"], ImagerPixelSpacing=None), tmp_path)
    assert "PixelSpacing" not in dcmread(paths["DER"])


def test_derived_images_are_made_of_no_other_projection(tmp_path):
    with pytest.raises(Unsuitable, match="Ultrasound Image Storage objects; derived images are made of"):
        changed(projections.image("US"), tmp_path)


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_dcmtk_shows_a_radiograph_through_a_window_of_what_the_model_sees(photometric, tmp_path):
    """PS3.3 C.11.2.1.2, C.11.6: an independent renderer; of MONOCHROME1 the window is turned back and the shape is INVERSE."""
    source = projections.image("CR", PhotometricInterpretation=photometric)
    paths, found = changed(source, tmp_path)
    state = dcmread(paths["PR"])
    assert state.SoftcopyVOILUTSequence[0].WindowCenter == (1000 if photometric == "MONOCHROME2" else 4095 - 1000 + 1)
    area = state.DisplayedAreaSelectionSequence[0]
    assert list(area.PresentationPixelAspectRatio) == [4, 3] and "PresentationPixelSpacing" not in area
    subprocess.run(
        [need("dcmp2pgm"), "-p", str(paths["PR"]), str(tmp_path / "in" / "0000.dcm"), str(tmp_path / "shown.pgm")], check=True, capture_output=True
    )
    wanted = np.clip((values(found) - (1000 - 0.5)) / (400 - 1) + 0.5, 0, 1) * 255
    assert np.abs(pgm(tmp_path / "shown.pgm") - wanted).max() <= 1.0
