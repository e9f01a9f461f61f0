"""Objects that were compressed without loss, retrieved by peers that take no compression: DCMTK's getscu, movescu and storescp."""

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless

from dicom_node.domain import derived_uid
from tests.certificates import Pair, authority, signed
from tests.dcmtk import storescp
from tests.peers import need
from tests.walks.held import CT, GET, MOVE, STUDY, Keeping, asking, identifier, keeping, written

PATHS = ("fast", "stock")
LOSSLESS = ("MR_small_RLE.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_jp2klossless.dcm", "SC_rgb_rle_2frame.dcm", "examples_palette.dcm")
PLAIN = ("image_dfl.dcm", "MR_small_bigendian.dcm", "SC_rgb_small_odd_big_endian.dcm", "MR_small_implicit.dcm", "test-SR.dcm")
LOSSY = ("JPEG2000.dcm", "SC_rgb_jpeg_dcmtk.dcm", "JPEGLSNearLossless_16.dcm")
WHOLE = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={STUDY}")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return pydicom's test files, and one coded by DCMTK as JPEG lossless, as instances of one study, by their SOP Instance UID."""
    folder = tmp_path_factory.mktemp("samples")
    coded = folder / "CT_coded.dcm"
    subprocess.run([need("dcmcjpeg"), sample("CT_small.dcm"), coded], check=True, capture_output=True, timeout=60)
    found = {}
    for path in (*map(sample, (*LOSSLESS, *PLAIN, *LOSSY)), coded):
        dataset = dcmread(path)
        uid = dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = derived_uid("decoded", path.name)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, derived_uid("decoded", "series")
        found[uid] = folder / f"own-{path.name}"
        dataset.save_as(found[uid], enforce_file_format=True)
    return found


def sample(name: str) -> Path:
    return Path(str(get_testdata_file(name, download=False)))


def dcmtk(program: str, node: Keeping, folder: Path, *words: object) -> "subprocess.CompletedProcess[str]":
    """Run one of DCMTK's programs against a node."""
    command = [need(program), "-d", "-aet", "RIS", "-aec", "DICOM_NODE", *map(str, words), "127.0.0.1", str(node.port)]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False, cwd=folder)


def same(came: Dataset, kept: Dataset) -> bool:
    """Say whether two objects have the same pixels, if any, and the same values beside them."""
    pixels = {"PixelData", "PhotometricInterpretation"}
    beside = all(
        str(one.value) == str(kept[one.tag].value) for one in came if one.keyword not in pixels and one.VR not in ("SQ", "UN") and one.keyword
    )
    return beside and ("PixelData" not in kept or np.array_equal(came.pixel_array, kept.pixel_array))


def check(folder: Path, samples: dict[str, Path], syntax: str) -> None:
    """See that a folder has every sample that lost nothing, in one transfer syntax."""
    came = {str(dataset.SOPInstanceUID): dataset for dataset in map(dcmread, folder.iterdir())}
    assert set(came) == {uid for uid, path in samples.items() if not path.name.endswith(LOSSY)}
    for uid, dataset in came.items():
        assert dataset.file_meta.TransferSyntaxUID == syntax
        assert same(dataset, dcmread(samples[uid])), samples[uid].name


def told(node: Keeping) -> None:
    """See that the journal tells why the others did not go out."""
    failed = node.retrievals()[-1].detail["failed"]
    assert len(failed) == len(LOSSY)
    assert all("not known to be without loss" in why for why in failed.values())


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize("path", PATHS)
def test_who_takes_no_compression_is_given_every_value_and_nothing_that_lost_some(tmp_path: Path, samples: dict[str, Path], path: str) -> None:
    """PS3.4 C.4.2 and C.4.3: by C-GET to getscu, which prefers uncompressed; by C-MOVE to a destination that knows implicit VR alone."""
    with storescp(tmp_path / "ws", title="WS", options=["+xi"]) as to, keeping(tmp_path, path, {"ws": {"ae": str(to), "may": ["receive"]}}) as node:
        node.take([*samples.values()])
        before = {one.name for one in node.store.archive.root.iterdir() if one.is_file()}
        (tmp_path / "got").mkdir()
        dcmtk("getscu", node, tmp_path, "-S", "+B", "-od", tmp_path / "got", *WHOLE)
        check(tmp_path / "got", samples, ExplicitVRLittleEndian)
        told(node)
        said = dcmtk("movescu", node, tmp_path, "-S", "-aem", "WS", *WHOLE)
        assert "0xb000" in said.stdout.lower()
        check(tmp_path / "ws", samples, ImplicitVRLittleEndian)
        told(node)
        assert {one.name for one in node.store.archive.root.iterdir() if one.is_file()} == before


@pytest.mark.parametrize("path", PATHS)
def test_who_takes_a_compression_is_given_the_bytes_as_they_lie(tmp_path: Path, samples: dict[str, Path], path: str) -> None:
    """Nothing is decoded that need not be."""
    (coded,) = (one for one in samples.values() if dcmread(one, stop_before_pixels=True).file_meta.TransferSyntaxUID == JPEGLSLossless)
    with keeping(tmp_path, path) as node:
        node.take([coded])
        (tmp_path / "got").mkdir()
        dcmtk("getscu", node, tmp_path, "-S", "+B", "+xt", "-od", tmp_path / "got", *WHOLE)
        (came,) = map(dcmread, (tmp_path / "got").iterdir())
        assert (came.file_meta.TransferSyntaxUID, came.PixelData) == (JPEGLSLossless, dcmread(coded).PixelData)


@pytest.mark.parametrize("path", PATHS)
def test_what_cannot_be_decoded_fails_alone_and_with_its_reason(tmp_path: Path, samples: dict[str, Path], path: str) -> None:
    """One damaged image does not keep the others back."""
    (coded,) = (one for one in samples.values() if one.name.endswith("MR_small_RLE.dcm"))
    damaged = dcmread(coded)
    damaged.SOPInstanceUID = damaged.file_meta.MediaStorageSOPInstanceUID = derived_uid("decoded", "damaged")
    damaged.Rows = damaged.Columns = 3000
    damaged.save_as(tmp_path / "damaged.dcm", enforce_file_format=True)
    with keeping(tmp_path, path) as node:
        node.take([tmp_path / "damaged.dcm", coded])
        (tmp_path / "got").mkdir()
        dcmtk("getscu", node, tmp_path, "-S", "+B", "-od", tmp_path / "got", *WHOLE)
        assert [dcmread(one).SOPInstanceUID for one in (tmp_path / "got").iterdir()] == [dcmread(coded).SOPInstanceUID]
        assert node.retrievals()[-1].detail["failed"] == {
            derived_uid("decoded", "damaged"): "it was not accepted as it lies, and its pixels cannot be decoded (RLE Lossless)"
        }


def test_nothing_is_decoded_while_the_disk_is_below_its_reserve(tmp_path: Path, samples: dict[str, Path]) -> None:
    """What room there is, is for what comes in; what goes out as it lies needs none."""
    (coded,) = (one for one in samples.values() if one.name.endswith("MR_small_RLE.dcm"))
    with keeping(tmp_path, "fast") as plenty:
        plenty.take([coded, written(tmp_path, 1)])
    with keeping(tmp_path, "fast", disk_reserve_mb=1 << 40) as node:
        (tmp_path / "got").mkdir()
        dcmtk("getscu", node, tmp_path, "-S", "+B", "-od", tmp_path / "got", *WHOLE)
        assert [dcmread(one).SOPInstanceUID for one in (tmp_path / "got").iterdir()] == [derived_uid("held", 1)]
        (why,) = node.retrievals()[-1].detail["failed"].values()
        assert "below its reserve" in why


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Pair]]:
    folder = tmp_path_factory.mktemp("pki")
    root = authority(folder, "root")
    yield {"root": root, "node": signed(root, folder, "node"), "peer": signed(root, folder, "peer")}


@pytest.mark.parametrize("path", PATHS)
def test_everything_goes_over_tls_to_a_destination_that_asks_for_certificates(tmp_path: Path, pki: dict[str, Pair], path: str) -> None:
    """PS3.15 B.12: C-FIND, C-GET and C-MOVE; the node shows its own certificate to where it sends."""
    shown = ("+tls", pki["peer"].key, pki["peer"].certificate, "+cf", pki["root"].certificate)
    tls = {"certificate": pki["node"].certificate, "key": pki["node"].key, "clients": pki["root"].certificate}
    with storescp(tmp_path / "ws", title="WS", options=[*shown, "-rc"]) as to:
        ws = {"ae": str(to), "may": ["receive"], "tls": {"authorities": pki["root"].certificate}}
        with keeping(tmp_path, path) as plain:  # filled in clear
            plain.take([written(tmp_path, number, size=300) for number in range(3)])
        with keeping(tmp_path, path, {"ws": ws}, tls=tls) as node:
            found = dcmtk("findscu", node, tmp_path, *shown, "-S", "-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID")
            assert STUDY in found.stdout
            context = ssl.create_default_context(cafile=str(pki["root"].certificate))
            context.load_cert_chain(pki["peer"].certificate, pki["peer"].key)
            with asking(node.ae, GET, MOVE, takes=(CT,), stored=lambda event: 0x0000, tls=context) as association:  # DCMTK's getscu has no TLS
                *_, (got, _) = association.send_c_get(identifier("STUDY", StudyInstanceUID=STUDY), GET)
                *_, (moved, _) = association.send_c_move(identifier("STUDY", StudyInstanceUID=STUDY), "WS", MOVE)
            for status in (got, moved):
                assert (status.Status, status.NumberOfCompletedSuboperations) == (0x0000, 3)
            assert len(list((tmp_path / "ws").iterdir())) == 3
            assert dcmtk("findscu", node, tmp_path, "-S", *WHOLE).returncode != 0  # in clear
