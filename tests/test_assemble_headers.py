"""A header read the short way is pydicom's to the last element, and where the short way does not lead, pydicom reads it."""

import io
import struct
import warnings
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
)

from dicom_node.assemble.elements import Odd, Reader, Short
from dicom_node.assemble.headers import read
from tests import phantoms
from tests.assembling import item

ENCODINGS = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]


def full():
    """Return an image with sequences within sequences, of stated and of undefined length, text in another alphabet, empty and private elements."""
    image = phantoms.series(phantoms.marked((1, 6, 4), (0, 0, 0)))[0]
    image.SpecificCharacterSet = "ISO_IR 144"
    image.InstitutionName = "Больница"
    code = item(CodeValue="1", CodingSchemeDesignator="99X", CodeMeaning="Грудь")
    code.is_undefined_length_sequence_item = True
    step = item(ScheduledProcedureStepID="1", ScheduledProtocolCodeSequence=[code, item(CodeValue="2")])
    step["ScheduledProtocolCodeSequence"].is_undefined_length = True
    image.RequestAttributesSequence = [step, Dataset()]
    image["RequestAttributesSequence"].is_undefined_length = True
    image.ProcedureCodeSequence = [item(CodeValue="3")]
    image.ReferencedStudySequence, image.Laterality, image.PatientComments = [], "", None
    image.PixelPaddingValue = -2000
    block = image.private_block(0x0029, "WORKS", create=True)
    block.add_new(1, "OB", bytes(range(20)) * 2000)
    block.add_new(2, "UN", b"unknown")
    return image


def written(image, path, transfer_syntax_uid=ExplicitVRLittleEndian):
    image.file_meta.TransferSyntaxUID = transfer_syntax_uid
    if transfer_syntax_uid == ExplicitVRBigEndian:
        image["PixelData"].VR = "OW"
    image.save_as(path, enforce_file_format=True)
    return path


def same(header, path):
    """Say whether a header is what pydicom reads from the file: every element, its value and its type, and how text was decoded."""
    expected = dcmread(path, stop_before_pixels=True)
    assert list(header.keys()) == list(expected.keys())
    assert header.original_encoding == expected.original_encoding
    assert header.original_character_set == expected.original_character_set
    assert header.file_meta == expected.file_meta
    for element in expected:
        assert header[element.tag].VR == element.VR
        assert header[element.tag].value == element.value, element.tag
    return True


@pytest.mark.parametrize("transfer_syntax_uid", ENCODINGS)
def test_a_header_is_pydicoms_in_every_encoding(transfer_syntax_uid, tmp_path):
    path = written(full(), tmp_path / "image", transfer_syntax_uid)
    (image,) = read([path])
    assert same(image.header, path)
    assert image.single
    assert not image.header[0x00291001].value.strip(bytes(range(20)))


@pytest.mark.parametrize("make", [full, phantoms.enhanced])
def test_the_short_way_leads_through_sequences_of_undefined_length_and_headers_of_any_size(make, tmp_path):
    """PS3.5 §7.5: items and sequences end at their stated length or at a delimiter."""
    content = written(make(), tmp_path / "image").read_bytes()
    reader = Reader()
    for size in (200, 1000, len(content) // 2):
        try:
            header, at = reader.header(content[:size], whole=False)
        except Short:
            continue
        assert at < size
    header, at = reader.header(content, whole=True)
    assert same(header, tmp_path / "image")
    assert content[at : at + 4] == b"\xe0\x7f\x10\x00"


def real():
    """Return the images that pydicom's package holds, of several makers and with many faults."""
    folder = Path(pydicom.data.__file__).parent / "test_files"
    return sorted(path for path in folder.glob("*.dcm") if path.stat().st_size < 2**21)


@pytest.mark.parametrize("path", real(), ids=lambda path: Path(path).name)
def test_real_headers_read_the_short_way_are_pydicoms(path):
    content = Path(path).read_bytes()
    try:
        header, at = Reader().header(content, whole=True)
    except Odd:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert same(header, path)
        file = io.BytesIO(content)
        dcmread(file, stop_before_pixels=True)
    assert at == file.tell()


def test_most_real_headers_are_read_the_short_way():
    def short(path):
        try:
            return bool(Reader().header(Path(path).read_bytes(), whole=True))
        except Odd:
            return False

    names = {Path(path).name for path in real() if short(path)}
    assert {"CT_small.dcm", "MR_small.dcm", "MR_small_jpeg_ls_lossless.dcm", "693_J2KI.dcm"} <= names


def test_values_that_a_series_repeats_are_each_images_own_where_they_differ(tmp_path):
    images = phantoms.series(phantoms.marked((4, 6, 4), (0, 0, 0)))
    for number, image in enumerate(images):
        image.RescaleIntercept = -1024 + number // 2
        image.PixelPaddingValue, image.PixelRepresentation = (-1, 1) if number % 2 else (65535, 0)
        image.SpecificCharacterSet = "ISO_IR 144" if number % 2 else "ISO_IR 100"
        image.InstitutionName = "Дом" if number % 2 else "Möbel"
    for transfer_syntax_uid in (ImplicitVRLittleEndian, ExplicitVRLittleEndian):
        made = read([written(image, tmp_path / f"{index}", transfer_syntax_uid) for index, image in enumerate(images)])
        assert [one.value("RescaleIntercept") for one in made] == [-1024, -1024, -1023, -1023]
        assert [one.value("PixelPaddingValue") for one in made] == [65535, -1, 65535, -1]
        assert [one.value("InstitutionName") for one in made] == ["Möbel", "Дом"] * 2
        assert [one.reader.numbers(one.header, "ImagePositionPatient") for one in made] == [tuple(image.ImagePositionPatient) for image in images]


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.replace(b"\x08\x00\x60\x00CS", b"\x08\x00\x60\x00zz"),  # no value representation
        lambda content: content.replace(b"\x08\x00\x60\x00CS\x02", b"\x08\x00\x60\x00CS\xff"),  # a length beyond what follows
        lambda content: content[:132] + content[132:].replace(JPEGLSLossless.encode(), b"9" * len(JPEGLSLossless)),
        lambda content: content[132:],
        lambda content: content[:700],
    ],
)
def test_what_is_not_plain_is_left_to_pydicom(change, tmp_path):
    image = phantoms.series(phantoms.marked((1, 6, 4), (0, 0, 0)))[0]
    image.compress(JPEGLSLossless, encoding_plugin="pyjpegls", generate_instance_uid=False)
    content = change(phantoms.write([image], tmp_path)[0].read_bytes())
    with pytest.raises(Odd):
        Reader().header(content, whole=True)


def test_sequences_nested_without_end_are_left_to_pydicom(tmp_path):
    head = written(phantoms.series(phantoms.marked((1, 6, 4), (0, 0, 0)))[0], tmp_path / "image").read_bytes()
    meta = head[: 144 + struct.unpack("<I", head[140:144])[0]]
    nested = (b"\x08\x00\x10\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * 5000
    with pytest.raises(Odd):
        Reader().header(meta + nested, whole=True)


def test_what_is_read_the_short_way_can_be_written_again(tmp_path):
    """A raw element may stay raw: what pydicom writes from it is what it writes from its own."""
    path = written(full(), tmp_path / "image")
    (image,) = read([path])
    image.header.save_as(tmp_path / "again", enforce_file_format=True)
    again, expected = pydicom.dcmread(tmp_path / "again"), pydicom.dcmread(path, stop_before_pixels=True)
    assert again == expected
