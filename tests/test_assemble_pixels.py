"""Every encoding gives the same values, without any decoder under the GPL; what is not as it claims is refused (PS3.5 §8, Annex A)."""

import copy
import os
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from dicom_node.assemble import headers, volume
from dicom_node.assemble.volume import assemble
from dicom_node.config import Input
from dicom_node.domain import Unsuitable
from tests import phantoms
from tests.peers import need

HU = Input(units="HU")
STORED = phantoms.marked((6, 40, 36))  # JPEG 2000 in its usual five resolutions takes 32 pixels at least
EXPECTED = STORED[::-1] - np.float32(1024)
ENCODERS = {RLELossless: "pylibjpeg", JPEGLSLossless: "pyjpegls", JPEG2000Lossless: "pylibjpeg"}


def compressed(images, transfer_syntax_uid):
    made = copy.deepcopy(images)
    for image in made:
        image.compress(transfer_syntax_uid, encoding_plugin=ENCODERS[transfer_syntax_uid], generate_instance_uid=False)
    return made


def reason(paths, wanted=HU):
    with pytest.raises(Unsuitable) as caught:
        assemble(paths, wanted)
    assert caught.value.hint
    assert not any(str(path.parent) in str(caught.value) for path in paths)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------------ encodings


@pytest.mark.parametrize("transfer_syntax_uid", list(ENCODERS))
@pytest.mark.parametrize("make", [phantoms.series, lambda array: [phantoms.enhanced(array)]])
def test_compressed_images_give_the_same_values(make, transfer_syntax_uid, tmp_path):
    paths = phantoms.write(compressed(make(STORED), transfer_syntax_uid), tmp_path)
    assert np.array_equal(assemble(paths, HU).volume.array, EXPECTED)


@pytest.mark.parametrize(("option", "exact"), [("+e1", True), ("+el", True), ("+eb", False)])
def test_jpeg_images_as_dcmtk_writes_them_are_read(option, exact, tmp_path):
    """Lossless by either process gives the same values; baseline, of 8 bits, nearly."""
    stored = phantoms.marked(ground=0, value=200).astype(np.int16)
    images = phantoms.series(stored)
    if not exact:
        for image in images:
            image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 8, 8, 7, 0
            image.PixelData = np.frombuffer(image.PixelData, "<i2").astype(np.uint8).tobytes()
    paths = []
    for path in phantoms.write(images, tmp_path / "plain"):
        paths.append(tmp_path / path.name)
        subprocess.run([need("dcmcjpeg"), option, path, paths[-1]], check=True, timeout=60)
    off = np.abs(assemble(paths, HU).volume.array - (stored[::-1] - 1024.0)).max()
    assert off == 0 if exact else off < 20


@pytest.mark.parametrize("transfer_syntax_uid", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
@pytest.mark.parametrize("make", [phantoms.series, lambda array: [phantoms.enhanced(array)]])
def test_every_uncompressed_encoding_gives_the_same_values(make, transfer_syntax_uid, tmp_path):
    images = make(STORED)
    for image in images:
        image.file_meta.TransferSyntaxUID = transfer_syntax_uid
        if transfer_syntax_uid == ExplicitVRBigEndian:
            image.PixelData = np.frombuffer(image.PixelData, "<i2").astype(">i2").tobytes()
            image["PixelData"].VR = "OW"
    paths = []
    for index, image in enumerate(images):
        paths.append(tmp_path / str(index))
        image.save_as(paths[-1], enforce_file_format=True)
    assembled = assemble(paths, HU)
    assert np.array_equal(assembled.volume.array, EXPECTED)
    assert all("PixelData" not in source and source.file_meta.TransferSyntaxUID == transfer_syntax_uid for source in assembled.sources)


@pytest.mark.parametrize(("allocated", "stored", "signed"), [(8, 8, 0), (8, 8, 1), (16, 12, 0), (16, 12, 1), (16, 16, 0), (32, 20, 1), (32, 32, 0)])
def test_integers_of_every_width_and_sign_are_read_whatever_the_unused_bits_hold(allocated, stored, signed, tmp_path):
    """PS3.5 §8.1.1: unused bits may hold anything, as old overlays did."""
    low, high = (-(2 ** (stored - 1)), 2 ** (stored - 1) - 1) if signed else (0, 2**stored - 1)
    values = np.linspace(low, high, 8 * 6 * 5).round().astype(np.int64).reshape(8, 6, 5)
    images = phantoms.series(phantoms.marked((8, 6, 5), (1, 1, 1)), modality="MR", rescale=None)
    dirt = (1 << allocated) - (1 << stored)
    for image, plane in zip(images, values, strict=True):
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = allocated, stored, stored - 1, signed
        image.PixelData = ((plane & ((1 << stored) - 1)) | dirt).astype(f"<u{allocated // 8}").tobytes()
    array = assemble(phantoms.write(images, tmp_path), Input()).volume.array
    assert np.array_equal(array[::-1], values.astype(np.float32))


def test_floating_point_pixels_are_read(tmp_path):
    """PS3.3 C.7.6.24: parametric maps hold their values as floating point numbers."""
    image = phantoms.enhanced(modality="MR", rescale=(1, 0))
    values = phantoms.marked() / 7
    del image.PixelData, image.BitsStored, image.HighBit, image.PixelRepresentation
    image.BitsAllocated, image.FloatPixelData = 32, values.astype("<f4").tobytes()
    array = assemble(phantoms.write([image], tmp_path), Input()).volume.array
    assert np.array_equal(array[::-1], values.astype(np.float32))


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"])
def test_real_images_are_read_as_pydicom_reads_them(name):
    path = Path(pydicom.data.get_testdata_file(name, download=False))
    image = pydicom.dcmread(path)
    expected = image.pixel_array * float(image.get("RescaleSlope", 1)) + float(image.get("RescaleIntercept", 0))
    assert np.array_equal(assemble([path], Input()).volume.array[0], expected.astype(np.float32))


def test_no_decoder_under_the_gpl_is_used(tmp_path):
    """A package named as the GPL one stands before it on the path, and ends the process when it is asked to decode."""
    plain = phantoms.write(phantoms.series(STORED[:1]), tmp_path / "plain")[0]
    paths = [phantoms.write(compressed(phantoms.series(STORED[:1]), uid), tmp_path / str(n))[0] for n, uid in enumerate(ENCODERS)]
    for option in ("+e1", "+el"):
        paths.append(tmp_path / option)
        subprocess.run([need("dcmcjpeg"), option, plain, paths[-1]], check=True, timeout=60)
    (tmp_path / "libjpeg.py").write_text(
        "__version__ = '2.5.0'\n\n\ndef decode_pixel_data(*args, **options):\n    raise SystemExit('decoded under the GPL')\n"
    )
    program = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from dicom_node.assemble.volume import assemble
        from dicom_node.config import Input
        for path in sys.argv[1:]:
            print(assemble([Path(path)], Input(units="HU")).volume.array.max())
        """
    )
    search = os.pathsep.join([str(tmp_path), *(place for place in sys.path if place)])
    environment = os.environ | {"PYTHONPATH": search}
    done = subprocess.run([sys.executable, "-c", program, *map(str, paths)], check=False, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    assert len(set(done.stdout.split())) == 1


# -------------------------------------------------------------------------------------------------------- what is broken


def test_a_file_that_is_no_dicom_is_refused_without_its_name(tmp_path):
    paths = phantoms.write(phantoms.series(), tmp_path)
    paths[3].write_bytes(b"not DICOM at all")
    assert reason(paths) == "one of the 8 files of this series cannot be read as DICOM"
    paths[3].unlink()
    assert reason(paths) == "one of the 8 files of this series cannot be read as DICOM"


def test_a_class_that_cannot_be_understood_is_refused(tmp_path):
    path = phantoms.write(phantoms.series(), tmp_path)[0]
    path.write_bytes(path.read_bytes().replace(b"\x08\x00\x16\x00UI", b"\x08\x00\x16\x00U\0"))
    assert reason([path]) == "one of the 1 files of this series cannot be read as DICOM"


def test_a_file_cut_short_is_named_by_its_image_number(tmp_path):
    paths = phantoms.write(phantoms.series(), tmp_path)
    paths[3].write_bytes(paths[3].read_bytes()[:-100])
    assert reason(paths) == "image 4 is cut short: 860 of 960 bytes of pixels are there"


@pytest.mark.parametrize("transfer_syntax_uid", list(ENCODERS))
def test_a_compressed_image_cut_short_is_named_by_its_image_number(transfer_syntax_uid, tmp_path):
    images = compressed(phantoms.series(STORED), transfer_syntax_uid)
    (coded,) = generate_frames(images[3].PixelData, number_of_frames=1)
    images[3].PixelData = encapsulate([coded[: len(coded) // 2]])
    assert reason(phantoms.write(images, tmp_path)).startswith("image 4 cannot be decoded (")


def test_frames_that_are_not_there_are_missed(tmp_path):
    (image,) = compressed([phantoms.enhanced()], RLELossless)
    image.PixelData = encapsulate(list(generate_frames(image.PixelData, number_of_frames=8))[:5])
    said = reason(phantoms.write([image], tmp_path))
    assert said in ("image 1 is cut short: 3 of its frames are missing", "image 1 cannot be decoded (RLE Lossless)")


@pytest.mark.parametrize("transfer_syntax_uid", list(ENCODERS))
def test_an_image_coded_in_another_size_than_its_header_says_is_not_decoded(transfer_syntax_uid, tmp_path):
    """A decoder sets memory aside for the size in the code stream, or for the one in the header: neither may be a lie."""
    images = compressed(phantoms.series(STORED[:1]), transfer_syntax_uid)
    images[0].Rows = images[0].Columns = 20000
    assert reason(phantoms.write(images, tmp_path)).startswith("image 1 cannot be decoded (")


@pytest.mark.parametrize("how", [{"Rows": 65535, "Columns": 65535}, {"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}])
def test_a_header_that_declares_more_than_the_file_has_costs_no_memory(how, tmp_path):
    said = reason(phantoms.write(phantoms.series(phantoms.marked()[:1], **how), tmp_path))
    assert said.startswith(("image 1 is cut short: 960 of", "the volume is too large"))


def test_more_frames_than_any_image_has_are_refused(tmp_path):
    assert "cannot be read" in reason(phantoms.write([phantoms.enhanced(NumberOfFrames=10**9)], tmp_path))


def test_a_volume_beyond_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(volume, "_MAX_VOXELS", 1000)
    assert reason(phantoms.write(phantoms.series(), tmp_path)) == "the volume is too large: 8 slices of 20 x 24 pixels"


def test_a_deflated_file_that_inflates_without_end_is_refused(tmp_path, monkeypatch):
    image = phantoms.series(phantoms.marked()[:1] * 0)[0]
    image.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    paths = phantoms.write([image], tmp_path)
    monkeypatch.setattr(headers, "_MAX_INFLATED", 1500)
    assert reason(paths) == "one of the 1 files of this series cannot be read as DICOM"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}, "the pixels of image 1 are not as its header says: 1 bits stored in 1"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "the pixels of image 1 are not as its header says: they are in colour"),
        ({"BitsStored": None}, "the pixels of image 1 are not as its header says: it cannot be understood"),
    ],
)
def test_pixels_that_make_no_numbers_are_refused(how, said, tmp_path):
    assert reason(phantoms.write(phantoms.series(phantoms.marked()[:1], **how), tmp_path)) == said


def test_an_encoding_without_decoder_is_named_and_the_hint_is_to_send_it_uncompressed(tmp_path):
    images = compressed(phantoms.series(STORED[:1]), RLELossless)
    images[0].file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"
    with pytest.raises(Unsuitable, match="image 1 is encoded as MPEG-4 AVC/H.264 High Profile / Level 4.1") as caught:
        assemble(phantoms.write(images, tmp_path), HU)
    assert "uncompressed" in caught.value.hint


def test_a_code_stream_without_frame_header_is_refused(tmp_path):
    images = compressed(phantoms.series(STORED[:1]), JPEGLSLossless)
    images[0].PixelData = encapsulate([b"\xff\xd8\xff\xe0" + struct.pack(">H", 4) + b"ab" + bytes(20)])
    assert reason(phantoms.write(images, tmp_path)).startswith("image 1 cannot be decoded (JPEG-LS")
