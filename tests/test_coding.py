"""Data sets written anew without compression hold the same values: against pydicom's reading of both, and against what DCMTK makes of them."""

import contextlib
import subprocess
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.pixels import get_encoder
from pydicom.uid import (
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from pynetdicom.dsutils import split_dataset

from dicom_node.coding.transcode import PLAIN, SOURCES, transcode
from dicom_node.domain import Unsuitable
from tests.peers import need

EXPLICIT, IMPLICIT = PLAIN
ENCODERS = {RLELossless: "pylibjpeg", JPEGLSLossless: "pyjpegls", JPEG2000Lossless: "pylibjpeg"}
SAMPLES = (
    "CT_small.dcm",
    "MR_small.dcm",
    "MR_small_implicit.dcm",
    "MR_small_RLE.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "SC_rgb_rle_2frame.dcm",
    "SC_rgb_rle_16bit_2frame.dcm",
    "SC_rgb_rle_32bit.dcm",
    "SC_rgb_small_odd.dcm",
    "SC_rgb_small_odd_big_endian.dcm",
    "examples_overlay.dcm",
    "examples_palette.dcm",
    "image_dfl.dcm",
    "rtdose_rle_1frame.dcm",
    "liver_expb_1frame.dcm",
    "ExplVR_BigEnd.dcm",
    "rtplan.dcm",
    "test-SR.dcm",
    "UN_sequence.dcm",
    "priv_SQ.dcm",
    "waveform_ecg.dcm",
    "empty_charset_LEI.dcm",
)
MADE_ANEW = {"PixelData", "PhotometricInterpretation", "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "EncapsulatedPixelDataValueTotalLength"}

# 8 rows and 12 columns coded by OpenJPH as HTJ2K without loss, which nothing that the tests depend on can do; base 64.
HTJ2K_GREY = (
    "/0//UQApQAAAAAAMAAAACAAAAAAAAAAAAAAADAAAAAgAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQkJCQkJCQiIiI/2QAFwABT3"
    "BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAGwAAf+TwAAm4fUFB3QAAMAAEwB4/gIHdADAABLAABUA8wDHdADQETr+AOI0AMAAE0AAFWCkpIELdADIiAxk/AAhAHdWAMAA"
    "KiAAFeAIgiDacIJ1AOabN2/evPngIPZCAey4AP/Z"
)
HTJ2K_SIGNED = (
    "/0//UQApQAAAAAAMAAAACAAAAAAAAAAAAAAADAAAAAgAAAAAAAAAAAABjwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQkJCQkJCQiIiI/2QAFwABT3"
    "BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAGsAAf+TwAAlmQGHdAAAwAATAHj+Agd0AMAAEsAAFQDzAMd0ANAROv4A4jQAwAATQAAVYKSkgQt0AMiIDGT8ACEAd1YAwAAq"
    "IAAV4AiCINpwgnUA5ps3b968+eAg9kIB7LgA/9k="
)
HTJ2K_COLOUR = (
    "/0//UQAvQAAAAAAMAAAACAAAAAAAAAAAAAAADAAAAAgAAAAAAAAAAAADBwEBBwEBBwEB/1AACAACAAAAA/9SAAwAAgABAQUEBEAB/1wAEyBQWFhYWFhYWFhYWFhYUFBQ/2"
    "QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAQsAAf+TwBKAgwEHdADAEoCPAQd0AMASgPkAx3QAAAAAwAlAsgEHdADACUAtAYd0AMAJQFUBh3QAwAkgBMD9J3MA"
    "ROsAIjQAwAlgBNACMPgAR3QAAeYAIjQAF3MAwAlgBOD6AEd0ABAh/gBiNADACaAE8AJAWPkAHoQAIFEAJHdVAP6fcwDACaAE0AJQrsUBHsQAQMwSd1QAQAJyFADACaAFSN"
    "nsgIt0AIYGwwAAAHdWAMATwBVQBKAiRNinwnUAbgeQ4Az3SZy3APjgG2QAwBUQBUQBIGf8/dhQAnUALJfgzOnOVgD+8EMAwBUQBWDnnPPacAJ1ALrWWuvgAPYAAey4AP/Z"
)


def sample(name: str) -> Path:
    """Return one of pydicom's test files."""
    return Path(str(get_testdata_file(name, download=False)))


def transcoded(path: Path, into: str, folder: Path) -> Path:
    """Return a file of the data set of another, in another transfer syntax."""
    meta = dcmread(path, stop_before_pixels=True).file_meta
    made = folder / f"{path.stem}-{'implicit' if into == IMPLICIT else 'explicit'}.dcm"
    with made.open("w+b") as out:
        said = Dataset()
        said.file_meta = FileMetaDataset()
        said.file_meta.MediaStorageSOPClassUID = meta.get("MediaStorageSOPClassUID", "1.2.3")
        said.file_meta.MediaStorageSOPInstanceUID = meta.get("MediaStorageSOPInstanceUID", "1.2.3")
        said.file_meta.TransferSyntaxUID = into
        dcmwrite(out, said, enforce_file_format=True)
        transcode(path, 132 + 12 + int(meta.FileMetaInformationGroupLength), str(meta.TransferSyntaxUID), into, out)
    return made


def values(dataset: Dataset) -> dict[int, object]:
    """Return what a data set says, but for its pixels and how they are described."""
    found: dict[int, object] = {}
    for element in dataset:
        if element.keyword in MADE_ANEW or element.tag.element == 0:
            continue
        found[int(element.tag)] = [values(item) for item in element.value] if element.VR == "SQ" else plain(element.value)
    return found


def plain(value: object) -> object:
    """Return a value so that it can be compared."""
    return value.hex() if isinstance(value, bytes) else str(value)


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("into", PLAIN, ids=["explicit", "implicit"])
def test_every_value_stays_what_it_was(name: str, into: str, tmp_path: Path) -> None:
    """PS3.5 Annex A: pydicom reads the same out of both; of private elements explicit VRs are lost where there are none."""
    path = sample(name)
    before, after = dcmread(path), dcmread(transcoded(path, into, tmp_path))
    assert str(before.file_meta.TransferSyntaxUID) in SOURCES
    assert after.file_meta.TransferSyntaxUID == into
    if {before.is_implicit_VR, after.is_implicit_VR} == {True, False}:
        for dataset in (before, after):
            dataset.remove_private_tags()
    assert values(before) == values(after)
    if "PixelData" in before:
        assert np.array_equal(before.pixel_array, after.pixel_array)
        assert len(after.PixelData) % 2 == 0


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "SC_rgb_small_odd.dcm", "examples_overlay.dcm", "examples_palette.dcm"])
@pytest.mark.parametrize(
    ("encode", "decode"),
    [
        (("dcmcjpeg", "+e1"), "dcmdjpeg"),
        (("dcmcjpeg", "+el", "+sv", "4"), "dcmdjpeg"),
        (("dcmcjpls", "+el"), "dcmdjpls"),
        (("dcmcrle",), "dcmdrle"),
    ],
    ids=["SV1", "SV4", "JPEG-LS", "RLE"],
)
def test_an_object_is_decoded_as_dcmtk_decodes_it_byte_by_byte(name: str, encode: tuple[str, ...], decode: str, tmp_path: Path) -> None:
    """The whole data set, in implicit VR with sequences of undefined length; its pixels are those from before DCMTK coded them."""
    coded, theirs = tmp_path / "coded.dcm", tmp_path / "plain.dcm"
    subprocess.run([need(encode[0]), *encode[1:], sample(name), coded], check=True, capture_output=True, timeout=60)
    subprocess.run([need(decode), "+ti", "-e", coded, theirs], check=True, capture_output=True, timeout=60)
    ours = transcoded(coded, IMPLICIT, tmp_path)
    assert data_set(ours) == data_set(theirs)
    assert np.array_equal(dcmread(ours).pixel_array, dcmread(sample(name)).pixel_array)


@pytest.mark.parametrize("name", ["image_dfl.dcm", "MR_small_bigendian.dcm", "SC_rgb_small_odd_big_endian.dcm", "ExplVR_BigEnd.dcm", "test-SR.dcm"])
def test_an_object_without_compression_is_written_as_dcmtk_writes_it(name: str, tmp_path: Path) -> None:
    """Out of deflated and of big endian, byte by byte."""
    subprocess.run([need("dcmconv"), "+ti", "-e", "-g", sample(name), tmp_path / "plain.dcm"], check=True, capture_output=True, timeout=60)
    assert data_set(transcoded(sample(name), IMPLICIT, tmp_path)) == data_set(tmp_path / "plain.dcm")


def data_set(path: Path) -> bytes:
    return path.read_bytes()[split_dataset(path)[1] :]


def test_the_colour_transform_of_jpeg_2000_is_undone_in_header_and_pixels(tmp_path: Path) -> None:
    """PS3.5 8.2.4: YBR_RCT exists only coded; each sample is what it was."""
    before = dcmread(sample("examples_rgb_color.dcm"))
    coded = dcmread(sample("examples_rgb_color.dcm"))
    coded.PhotometricInterpretation = "YBR_RCT"
    coded.compress(JPEG2000Lossless, before.pixel_array, encoding_plugin=ENCODERS[JPEG2000Lossless], generate_instance_uid=False)
    coded.save_as(tmp_path / "coded.dcm", enforce_file_format=True)
    after = dcmread(transcoded(tmp_path / "coded.dcm", EXPLICIT, tmp_path))
    assert (coded.PhotometricInterpretation, after.PhotometricInterpretation) == ("YBR_RCT", "RGB")
    assert np.array_equal(after.pixel_array, before.pixel_array)


@pytest.mark.parametrize("syntax", [HTJ2KLossless, HTJ2KLosslessRPCL])
@pytest.mark.parametrize("kind", ["grey", "signed", "colour"])
def test_high_throughput_jpeg_2000_is_decoded(kind: str, syntax: str, tmp_path: Path) -> None:
    """Also of signed values, and of colours that were transformed (PS3.5 8.2.14)."""
    rows, columns = np.indices((8, 12))
    grey = rows * 500 + columns * 37
    values = {"grey": grey, "signed": grey - 1500, "colour": np.stack([rows * 30, columns * 20, rows * columns], -1)}[kind]
    coded = {"grey": HTJ2K_GREY, "signed": HTJ2K_SIGNED, "colour": HTJ2K_COLOUR}[kind]
    dataset = dcmread(sample("SC_rgb_small_odd.dcm" if kind == "colour" else "CT_small.dcm"))
    dataset.Rows, dataset.Columns = 8, 12
    dataset.BitsStored = dataset.BitsAllocated
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, int(kind == "signed")
    dataset.PhotometricInterpretation = "YBR_RCT" if kind == "colour" else "MONOCHROME2"
    dataset.PixelData = encapsulate([b64decode(coded)])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(tmp_path / "coded.dcm", enforce_file_format=True)
    after = dcmread(transcoded(tmp_path / "coded.dcm", EXPLICIT, tmp_path))
    assert after.PhotometricInterpretation == ("RGB" if kind == "colour" else "MONOCHROME2")
    assert np.array_equal(after.pixel_array, values)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_colours_that_are_differences_stay_differences(syntax: str, tmp_path: Path) -> None:
    """Nothing is turned into red, green and blue that was not so stored; planes stay planes."""
    coded = dcmread(sample("examples_rgb_color.dcm"))
    stored = coded.pixel_array
    coded.PhotometricInterpretation = "YBR_FULL"
    coded.compress(syntax, stored, encoding_plugin=ENCODERS[syntax], generate_instance_uid=False)
    coded.PlanarConfiguration = 1
    coded.save_as(tmp_path / "coded.dcm", enforce_file_format=True)
    after = dcmread(transcoded(tmp_path / "coded.dcm", EXPLICIT, tmp_path))
    assert (after.PhotometricInterpretation, after.PlanarConfiguration) == ("YBR_FULL", 1)
    assert after.PixelData[: stored.size] == stored.transpose(2, 0, 1).tobytes()


def test_an_icon_is_decoded_with_its_image(tmp_path: Path) -> None:
    """PS3.5 A.4: pixels in a sequence are coded, too."""
    coded = dcmread(sample("MR_small_RLE.dcm"))
    icon = Dataset()
    icon.Rows = icon.Columns = 4
    icon.SamplesPerPixel, icon.PhotometricInterpretation = 1, "MONOCHROME2"
    icon.BitsAllocated = icon.BitsStored = 8
    icon.HighBit, icon.PixelRepresentation = 7, 0
    shown = np.arange(16, dtype="u1").reshape(4, 4)
    frame = get_encoder(RLELossless).encode(
        shown,
        encoding_plugin="pylibjpeg",
        rows=4,
        columns=4,
        samples_per_pixel=1,
        number_of_frames=1,
        bits_allocated=8,
        bits_stored=8,
        pixel_representation=0,
        photometric_interpretation="MONOCHROME2",
    )
    icon.PixelData = encapsulate([frame])
    icon["PixelData"].VR, icon["PixelData"].is_undefined_length = "OB", True
    coded.IconImageSequence = [icon]
    coded.save_as(tmp_path / "coded.dcm", enforce_file_format=True)
    after = dcmread(transcoded(tmp_path / "coded.dcm", IMPLICIT, tmp_path))
    assert after.IconImageSequence[0].PixelData == shown.tobytes()
    assert np.array_equal(after.pixel_array, coded.pixel_array)


def test_a_value_too_long_for_its_representation_becomes_unknown(tmp_path: Path) -> None:
    """PS3.5 6.2.2: where 16 bits do not say how long it is."""
    dataset = dcmread(sample("MR_small_implicit.dcm"))
    dataset.RetrieveURI, dataset.PixelSpacing = "x", ["1.50000"] * 10_000
    dataset.save_as(tmp_path / "long.dcm", enforce_file_format=True)
    after = dcmread(transcoded(tmp_path / "long.dcm", EXPLICIT, tmp_path))
    assert after.get_item("PixelSpacing").VR == "UN"
    assert bytes(after.get_item("PixelSpacing").value).split(b"\\") == [b"1.50000"] * 9_999 + [b"1.50000 "]


@pytest.mark.parametrize("harm", ["cut", "size", "frames", "pixels", "nested"])
@pytest.mark.parametrize("name", ["MR_small_RLE.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_jp2klossless.dcm"])
def test_what_is_damaged_is_refused_with_a_sentence(name: str, harm: str, tmp_path: Path) -> None:
    """Nothing is made up, and no memory is set aside for what is not there."""
    dataset, path = dcmread(sample(name)), tmp_path / "damaged.dcm"
    if harm == "size":
        dataset.Rows = dataset.Columns = 65_000
    if harm == "frames":
        dataset.NumberOfFrames = 3
    if harm == "pixels":
        dataset.PixelData = encapsulate([b"\xff\xd8\xff" + bytes(400) + b"\xff\xd9\0"])
    if harm == "nested":
        inner = Dataset()
        for _ in range(40):
            outer = Dataset()
            outer.ReferencedStudySequence = [inner]
            inner = outer
        dataset.ReferencedStudySequence = [inner]
    dataset.save_as(path, enforce_file_format=True)
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(Unsuitable):
        transcoded(path, EXPLICIT, tmp_path)


def test_what_lost_something_is_no_source() -> None:
    """A lossy image is never made into another one."""
    lossy = {"4.50", "4.51", "4.81", "4.91", "4.203"}
    assert not {f"1.2.840.10008.1.2.{one}" for one in lossy} & SOURCES
    assert {ExplicitVRLittleEndian, ImplicitVRLittleEndian} == set(PLAIN)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(SAMPLES),
    into=st.sampled_from(PLAIN),
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=9)), min_size=1, max_size=5),
)
def test_whatever_a_file_holds_it_is_written_anew_or_refused(name: str, into: str, changes: list[tuple[float, bytes]], tmp_path: Path) -> None:
    """Peers are never trusted: no other exception, and nothing much larger than what was there."""
    whole = sample(name).read_bytes()
    begins = split_dataset(sample(name))[1]
    for where, what in changes:
        at = begins + int(where * min(4000, len(whole) - begins))
        whole = whole[:at] + what + whole[at + len(what) :]
    damaged, made = tmp_path / "damaged.dcm", tmp_path / "made.dcm"
    damaged.write_bytes(whole)
    syntax = str(dcmread(sample(name), stop_before_pixels=True).file_meta.TransferSyntaxUID)
    with made.open("w+b") as out, contextlib.suppress(Unsuitable):
        transcode(damaged, begins, syntax, into, out)
