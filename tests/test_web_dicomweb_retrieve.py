"""WADO-RS, with no socket: what is asked for comes as it was asked for, or it is said why not."""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from email.message import Message
from email.parser import BytesParser
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, Sequence, dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from starlette.testclient import TestClient

from dicom_node.config import load_site
from dicom_node.domain import Instance
from dicom_node.serve.web import context
from dicom_node.store import Store
from dicom_node.web import Context, build
from tests.contracts import arrange
from tests.stocked import stock

EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
DICOM, OCTETS = 'multipart/related; type="application/dicom"', 'multipart/related; type="application/octet-stream"'
SAMPLES = {  # pydicom's own test files
    "ct": "CT_small.dcm",  # Explicit VR Little Endian
    "big": "MR_small_bigendian.dcm",
    "deflated": "image_dfl.dcm",
    "implicit": "rtdose.dcm",  # 15 frames of 32 bits
    "rle": "MR_small_RLE.dcm",
    "jls": "MR_small_jpeg_ls_lossless.dcm",
    "jpeg": "SC_rgb_jpeg_dcmtk.dcm",  # with loss
    "colours": "examples_jpeg2k.dcm",
    "frames": "rtdose_rle.dcm",
    "bits": "liver_1frame.dcm",  # a segmentation of single bits
}


class Web:
    """A node's web, and what it holds."""

    def __init__(self, web: Context, folder: Path, held: dict[str, Instance]) -> None:
        self.context = web
        self.folder = folder
        self.held = held
        self.client = TestClient(build(web), base_url="http://127.0.0.1:8080")

    def url(self, name: str) -> str:
        one = self.held[name]
        return f"/dicom-web/studies/{one.study_instance_uid}/series/{one.series_instance_uid}/instances/{one.sop_instance_uid}"

    def get(self, url: str, accept: str | None = None, **headers: str) -> Any:
        return self.client.get(url, headers={"Accept": accept or "", **headers})

    def parts(self, url: str, accept: str) -> list[Message]:
        said = self.get(url, accept)
        assert said.status_code == 200, said.text
        return parts_of(said)

    def sample(self, name: str) -> Path:
        return self.folder / f"{name}.dcm"


def sample(name: str) -> bytes:
    """Return a test file; some of them are one image, and get UIDs of their own."""
    path = Path(get_testdata_file(SAMPLES[name]))
    if name == "deflated":
        return path.read_bytes()
    shared = dcmread(path, stop_before_pixels=True).SOPInstanceUID.encode()
    return path.read_bytes().replace(shared, shared[:-1] + str([*SAMPLES].index(name)).encode())


def parts_of(said: Any) -> list[Message]:
    """Return the parts of multipart/related, as Python's own parser of messages finds them."""
    head = f"Content-Type: {said.headers['content-type']}\r\n\r\n".encode()
    parsed = BytesParser().parsebytes(head + said.content)
    assert parsed.get_content_type() == "multipart/related"
    boundary = re.search("boundary=([^;]+)", said.headers["content-type"])[1].encode()
    bodies = [one.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for one in said.content.split(b"--" + boundary)[1:-1]]
    listed = list(parsed.get_payload())
    for one, body in zip(listed, bodies, strict=True):
        assert int(one["Content-Length"]) == len(body)
        one.body = body
    return listed


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    folder = tmp_path_factory.mktemp("web")
    site = load_site(None, node={"storage": folder / "data", "disk_reserve_mb": 0})
    store = Store.of(site.config.node)
    for name in SAMPLES:
        (folder / f"{name}.dcm").write_bytes(sample(name))
    held = {name: stock(store, [folder / f"{name}.dcm"])[0] for name in SAMPLES}
    yield Web(context(site, store, time.time), folder, held)
    store.close()


# -------------------------------------------------------------------------------------------------------------- instances


def test_an_instance_comes_as_it_lies_or_as_it_is_asked_for(web: Web) -> None:
    """PS3.18 8.7.3.4: never implicit, never big endian; the default is Explicit VR Little Endian, and `*` as it is stored."""
    as_stored = {name: one.transfer_syntax_uid for name, one in web.held.items()}
    for name, stored in as_stored.items():
        for asked in ("", "; transfer-syntax=*", f"; transfer-syntax={EXPLICIT}"):
            said = web.get(web.url(name), DICOM + asked)
            if name == "jpeg" and EXPLICIT in asked:
                assert said.status_code == 406
                continue
            (part,) = parts_of(said)
            got = dcmread(BytesIO(part.body))
            syntax = str(got.file_meta.TransferSyntaxUID)
            assert part["Content-Type"] == f"application/dicom; transfer-syntax={syntax}"
            assert part["Content-Location"] == f"http://127.0.0.1:8080{web.url(name)}"
            if "*" in asked or name == "jpeg":
                assert syntax == (EXPLICIT if name in ("implicit", "big") else stored)
            else:
                assert syntax == EXPLICIT
            if syntax == stored:
                assert part.body == web.sample(name).read_bytes()
            elif name != "colours":
                assert (got.pixel_array == dcmread(web.sample(name)).pixel_array).all()


def test_an_instance_comes_alone_and_a_study_does_not(web: Web) -> None:
    """PS3.18 10.4.1.2 and Table 10.4.1-1: application/dicom of one instance."""
    said = web.get(web.url("ct"), "application/dicom")
    assert said.headers["content-type"] == f"application/dicom; transfer-syntax={EXPLICIT}"
    assert said.headers["content-length"] == str(len(said.content))
    assert said.content == web.sample("ct").read_bytes()
    study = web.url("ct").partition("/series")[0]
    assert web.get(study, "application/dicom").status_code == 406
    assert len(web.parts(study, DICOM)) == 1
    assert web.client.head(study).headers["content-length"] == web.get(study).headers["content-length"]


def test_of_a_study_comes_what_can_be_had(web: Web, tmp_path: Path) -> None:
    """PS3.18 10.4.3: 206 where some of it cannot be had in what is accepted, 406 where nothing can."""
    plain, lossy = dcmread(web.sample("ct")), dcmread(web.sample("jpeg"))
    files = []
    for number, one in enumerate((plain, lossy)):
        one.StudyInstanceUID, one.SOPInstanceUID = "1.2.3.4", f"1.2.3.4.{number}"
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
        files.append(tmp_path / f"{number}.dcm")
        one.save_as(files[-1])
    stock(web.context.store, files)
    asked = {syntax: web.get("/dicom-web/studies/1.2.3.4", f"{DICOM}; transfer-syntax={syntax}") for syntax in ("*", EXPLICIT, "1.2.840.10008.1.2.5")}
    assert [one.status_code for one in asked.values()] == [200, 206, 406]
    assert [len(parts_of(asked[syntax])) for syntax in ("*", EXPLICIT)] == [2, 1]
    both = web.get("/dicom-web/studies/1.2.3.4", f"{DICOM}; transfer-syntax={EXPLICIT}, {DICOM}; transfer-syntax=1.2.840.10008.1.2.4.50;q=0.5")
    assert {part["Content-Type"].rpartition("=")[2] for part in parts_of(both)} == {EXPLICIT, "1.2.840.10008.1.2.4.50"}


def test_what_is_not_there_is_not_found_and_nonsense_is_said_to_be_that(web: Web) -> None:
    """PS3.18 Table 10.4.3-1."""
    study = web.url("ct").partition("/series")[0]
    other = web.url("big").rpartition("/")[2]
    for url, status in {
        "/dicom-web/studies/1.2.3": 404,
        f"{study}/series/1.2": 404,
        f"{web.url('ct').rpartition('/')[0]}/{other}": 404,
        "/dicom-web/studies/abc": 400,
        f"/dicom-web/studies/{'1.' * 40}": 400,
        "/dicom-web/studies/1.2%5C3": 400,
        "/dicom-web/studies/*": 400,
        f"{web.url('ct')}/frames/0": 400,
        f"{web.url('ct')}/frames/a": 400,
        f"{web.url('ct')}/frames/1,,2": 400,
        f"{web.url('ct')}/frames/-1": 400,
        f"{web.url('ct')}/frames/2": 404,
        f"{web.url('ct')}/frames/1,999999999": 404,
        f"{web.url('ct')}/bulkdata/7FE0001": 400,
        f"{web.url('ct')}/bulkdata/00080000": 404,
        f"{web.url('ct')}/bulkdata/00081140/9/00081155": 404,
    }.items():
        assert web.get(url, "*/*").status_code == status, url
    assert web.get(web.url("ct"), "image/png").status_code == 406
    assert web.get(f"{web.url('ct')}/metadata", "text/plain").status_code == 406
    assert web.client.delete(study).status_code == 405


def test_what_went_away_while_it_was_asked_for_is_gone(web: Web, tmp_path: Path) -> None:
    """410 where nothing was sent yet; else the connection is cut, because what was promised cannot be kept."""
    names = []
    for number in range(4):
        one = dcmread(web.sample("ct"))
        one.StudyInstanceUID, one.SOPInstanceUID = "1.2.3.5", f"1.2.3.5.{number}"
        one.PixelData, one.Rows, one.Columns = bytes(2 << 20), 1024, 1024
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
        one.save_as(tmp_path / f"{number}.dcm")
        names += stock(web.context.store, [tmp_path / f"{number}.dcm"])
    store = web.context.store
    store.archive.path(names[3].path).unlink()
    with pytest.raises(RuntimeError, match="already started"):
        web.get("/dicom-web/studies/1.2.3.5", DICOM)
    store.archive.path(names[0].path).unlink()
    assert web.get("/dicom-web/studies/1.2.3.5", DICOM).status_code == 410
    assert web.get("/dicom-web/studies/1.2.3.5/metadata").status_code == 410


def test_results_come_with_their_study(web: Web) -> None:
    """What jobs made is retrieved as what was received is; here a job of the CT's study made a segmentation."""
    store, study = web.context.store, arrange.STUDY
    arrange.waiting(store)
    job = arrange.claimed(store)
    made = dcmread(web.sample("bits"))
    made.StudyInstanceUID, made.SOPInstanceUID = study, "1.2.3.7.1"
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    file = BytesIO()
    made.save_as(file)
    name = store.archive.write_result(file.getvalue(), job.identity, "SEG", made_at=job.created_at)
    said = {"path": name, "sop_instance_uid": "1.2.3.7.1", "series_instance_uid": str(made.SeriesInstanceUID), "header": {"Modality": "SEG"}}
    assert store.jobs.complete(job, [replace(arrange.result_of(store, job), **said)], now=arrange.NOW, why="made it")
    url = f"/dicom-web/studies/{study}/series/{made.SeriesInstanceUID}"
    assert [part.body for part in web.parts(url, DICOM + "; transfer-syntax=*")] == [file.getvalue()]
    (model,) = json.loads(web.get(f"{url}/metadata").content)
    assert model["00620002"]["Value"][0]["00620004"] == {"vr": "US", "Value": [1]}


# --------------------------------------------------------------------------------------------------------------- metadata


def dataset() -> Dataset:
    """Return a data set with what is told in a way of its own."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    made.SOPClassUID, made.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID = generate_uid(), generate_uid()
    made.PatientName = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    made.PatientID = ""
    made.ImageType = ["ORIGINAL", "", "AXIAL"]
    made.add_new(0x00181063, "DS", ["1.50", "-0.25", "+1e3", "012"])
    made.InstanceNumber = "7"
    made.FrameIncrementPointer = [0x00181063, 0x00080018]
    made.add_new(0x00189073, "FD", [0.1, float("nan"), float("-inf")])
    made.add_new(0x00189087, "FD", 1000.0)
    made.add_new(0x00221007, "FL", 0.1)
    made.add_new(0x00091001, "OB", b"\x01\x02\x03\x04")
    made.add_new(0x00091002, "UT", "say \\ backslash ")
    made.add_new(0x00091003, "OW", bytes(5000))
    inner = Dataset()
    inner.PatientName = "Doe^John"
    inner.add_new(0x00091003, "OB", bytes(3000))
    made.OtherPatientIDsSequence = Sequence([Dataset(), inner])
    made.ReferencedStudySequence = Sequence([])
    return made


def test_metadata_are_what_annex_f_says(web: Web, tmp_path: Path) -> None:
    """PS3.18 F.2: numbers, nulls, names in groups, AT in hexadecimal digits, UTF-8, and large values at URLs of their own."""
    made = dataset()
    made.save_as(tmp_path / "one.dcm", enforce_file_format=True)
    (one,) = stock(web.context.store, [tmp_path / "one.dcm"])
    web.held["made"] = one
    said = web.get(f"{web.url('made')}/metadata")
    assert said.headers["content-type"] == "application/dicom+json"
    (model,) = json.loads(said.content)
    url = f"http://127.0.0.1:8080{web.url('made')}/bulkdata"
    assert {tag: element for tag, element in model.items() if tag not in ("00080016", "00080018", "0020000D", "0020000E")} == {
        "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
        "00080008": {"vr": "CS", "Value": ["ORIGINAL", None, "AXIAL"]},
        "00081110": {"vr": "SQ"},
        "00091001": {"vr": "OB", "InlineBinary": "AQIDBA=="},
        "00091002": {"vr": "UT", "Value": ["say \\ backslash"]},
        "00091003": {"vr": "OW", "BulkDataURI": f"{url}/00091003"},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"}]},
        "00100020": {"vr": "LO"},
        "00101002": {
            "vr": "SQ",
            "Value": [
                {},
                {
                    "00091003": {"vr": "OB", "BulkDataURI": f"{url}/00101002/2/00091003"},
                    "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Doe^John"}]},
                },
            ],
        },
        "00181063": {"vr": "DS", "Value": [1.5, -0.25, 1000.0, 12]},
        "00189073": {"vr": "FD", "Value": [0.1, "NaN", "-inf"]},
        "00189087": {"vr": "FD", "Value": [1000.0]},
        "00200013": {"vr": "IS", "Value": [7]},
        "00221007": {"vr": "FL", "Value": [0.1]},
        "00280009": {"vr": "AT", "Value": ["00181063", "00080018"]},
    }
    assert web.get(f"{url}/00101002/2/00091003").content == bytes(3000)


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_metadata_are_what_pydicom_reads(web: Web) -> None:
    """Every test file as another reader has it: the same attributes and values, but for pixels, padding and empty texts."""
    for name in SAMPLES:
        (model,) = json.loads(web.get(f"{web.url(name)}/metadata").content)
        read = dcmread(web.sample(name))
        theirs = read.to_json_dict(bulk_data_threshold=10**9, bulk_data_element_handler=lambda one: "")
        ours = {tag: element for tag, element in model.items() if "BulkDataURI" not in element}
        assert {*model} == {tag for tag in theirs if not tag.endswith("0000")}
        assert [model[tag].get("vr") for tag in model] == [str(theirs[tag]["vr"]) for tag in model], name
        theirs["00080005"] = {"vr": "CS", "Value": ["ISO_IR 192"]}
        for tag, element in ours.items():
            assert plain(element) == plain(theirs[tag]), (name, tag)


def plain(element: Any) -> Any:
    """Return a value of the JSON model so that two writers of it agree."""
    if isinstance(element, dict):
        if "vr" in element and element["vr"] == "FL":
            return [float(np.float32(one)) for one in element.get("Value", ())]
        return {key: plain(one) for key, one in element.items() if key not in ("BulkDataURI",) and one not in ([], [None], [""], {})}
    if isinstance(element, list):
        return [plain(one) for one in element]
    if isinstance(element, str):
        return element.strip() or None
    return element


def test_metadata_come_as_xml(web: Web) -> None:
    """PS3.19 A.1.6, the Native DICOM Model, which the standard requires (PS3.18 8.7.3.2)."""
    (part,) = web.parts(f"{web.url('ct')}/metadata", 'multipart/related; type="application/dicom+xml"')
    assert part["Content-Type"] == "application/dicom+xml"
    root = ElementTree.fromstring(part.body)
    assert root.find("./DicomAttribute[@keyword='PatientName']/PersonName/Alphabetic/FamilyName").text == "CompressedSamples"
    assert root.find("./DicomAttribute[@tag='7FE00010']/BulkData").get("uri").endswith("/bulkdata/7FE00010")
    assert [one.text for one in root.findall("./DicomAttribute[@keyword='ImageType']/Value")] == ["ORIGINAL", "PRIMARY", "AXIAL"]


# ------------------------------------------------------------------------------------------------------ frames and values


@pytest.mark.parametrize("name", ["ct", "big", "deflated", "implicit", "rle", "jls", "frames"])
def test_frames_are_the_bytes_of_the_pixels(web: Web, name: str) -> None:
    """PS3.18 8.7.3.3: as octets they are little endian and not coded, whatever lies in the file."""
    pixels = dcmread(web.sample(name)).pixel_array
    stack = pixels if name in ("implicit", "frames") else pixels[np.newaxis]
    numbers = range(1, len(stack) + 1)
    parts = web.parts(f"{web.url(name)}/frames/{','.join(map(str, numbers))}", OCTETS)
    wanted = stack.astype(stack.dtype.newbyteorder("<"))
    assert [part.body for part in parts] == [one.tobytes() for one in wanted]
    assert {part["Content-Type"] for part in parts} == {"application/octet-stream"}
    alone = web.get(f"{web.url(name)}/frames/{len(stack)}", "application/octet-stream")
    assert alone.content == wanted[-1].tobytes()


def test_a_frame_of_single_bits_begins_with_a_byte_of_its_own(web: Web, tmp_path: Path) -> None:
    """PS3.18 8.7.3.3.2, after PS3.5 8.1.1: three frames of 3 × 3 bits are packed without a gap in the file, and each by itself here."""
    read = dcmread(web.sample("bits"))
    bits = np.random.default_rng(1).integers(0, 2, (3, 9), dtype=np.uint8)
    read.Rows = read.Columns = read.NumberOfFrames = 3
    read.SOPInstanceUID = read.file_meta.MediaStorageSOPInstanceUID = "1.2.3.6.1"
    read.PixelData = np.packbits(bits.ravel(), bitorder="little").tobytes()
    read.save_as(tmp_path / "bits.dcm")
    (web.held["nine"],) = stock(web.context.store, [tmp_path / "bits.dcm"])
    parts = web.parts(f"{web.url('nine')}/frames/1,2,3", OCTETS)
    assert [part.body for part in parts] == [np.packbits(one, bitorder="little").tobytes() for one in bits]


@pytest.mark.parametrize(("name", "media_type"), [("rle", "image/dicom-rle"), ("jls", "image/jls"), ("jpeg", "image/jpeg"), ("colours", "image/jp2")])
def test_coded_frames_come_as_they_are_stored(web: Web, name: str, media_type: str) -> None:
    """PS3.18 Table 8.7.3-4; and as octets in any transfer syntax, as OHIF asks for them."""
    syntax = web.held[name].transfer_syntax_uid
    stored = [*_frames_of(dcmread(web.sample(name)))]
    for accept, said in {
        f'multipart/related; type="{media_type}"': media_type,
        f"multipart/related; type={media_type}; transfer-syntax={syntax}": media_type,
        'multipart/related; type="application/octet-stream"; transfer-syntax=*': "application/octet-stream",
    }.items():
        parts = web.parts(f"{web.url(name)}/frames/1", accept)
        assert [part.body for part in parts] == stored[:1]
        assert parts[0]["Content-Type"] == f"{said}; transfer-syntax={syntax}"
    if name == "jpeg":
        assert web.get(f"{web.url(name)}/frames/1", OCTETS).status_code == 406
        assert web.parts(f"{web.url(name)}/frames/1", 'multipart/related; type="*/*"')[0]["Content-Type"].startswith(media_type)
    assert web.get(f"{web.url(name)}/frames/1", f"multipart/related; type={media_type}; transfer-syntax=1.2.3").status_code == 406


def _frames_of(read: Dataset) -> Iterator[bytes]:
    from pydicom.encaps import generate_frames

    return generate_frames(read.PixelData, number_of_frames=int(read.get("NumberOfFrames", 1) or 1))


def test_a_large_value_comes_whole_or_in_ranges(web: Web) -> None:
    """PS3.18 10.4.1.1.6 and RFC 9110 14."""
    pixels, url = dcmread(web.sample("ct")).PixelData, f"{web.url('ct')}/bulkdata/7FE00010"
    assert web.get(url, "*/*").content == pixels
    assert web.parts(url, OCTETS)[0].body == pixels
    assert web.get(f"{web.url('ct')}/pixeldata", "application/octet-stream").content == pixels
    end = len(pixels) - 1
    for asked, first, last in (("0-9", 0, 9), ("100-", 100, end), ("-7", end - 6, end), ("5-99999999", 5, end)):
        said = web.get(url, "application/octet-stream", Range=f"bytes={asked}")
        assert (said.status_code, said.content) == (206, pixels[first : last + 1])
        assert said.headers["content-range"] == f"bytes {first}-{last}/{end + 1}"
    assert web.get(url, "*/*", Range="bytes=99999999-").status_code == 416
    assert web.get(url, "*/*", Range="bytes=0-1,5-6").status_code == 200
    assert web.get(url, "*/*", Range="lines=1-2").status_code == 200
    assert len(web.parts(f"{web.url('frames')}/bulkdata/7FE00010", OCTETS)) == 15


def test_the_capabilities_name_what_is_served(web: Web) -> None:
    """PS3.18 8.9: OPTIONS, and GET for whoever looks with a browser."""
    for said in (web.client.options("/dicom-web/"), web.get("/dicom-web")):
        root = ElementTree.fromstring(said.content)
        resources = root[0]
        assert resources.get("base") == "http://127.0.0.1:8080/dicom-web"
        told = {(re.sub(r"\{.*?\}", "{}", one.get("path")), of.get("name")) for one in resources for of in one}
        below = [one for one in build(web.context).router.routes if getattr(one, "path", "").startswith("/dicom-web/") and one.path != "/dicom-web/"]
        served = {
            (re.sub(r"\{.*?\}", "{}", one.path.removeprefix("/dicom-web/")), method)
            for one in below
            for method in getattr(one, "methods", {"GET"}) - {"HEAD"}  # a websocket is opened by GET
        }
        assert told == served


# ---------------------------------------------------------------------------------------------------------------- strangers


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    accept=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=80),
    tail=st.text(st.sampled_from("0123456789.,/-*%ABCDEF"), max_size=30),
    place=st.sampled_from(["", "/frames/", "/bulkdata/", "/metadata", "/../", "?accept="]),
    ranged=st.text(st.sampled_from("bytes=0123456789-, "), max_size=20),
    host=st.text(st.sampled_from("node:80[]@/.%x"), min_size=1, max_size=10),
)
def test_nothing_that_is_asked_is_the_fault_of_the_program(web: Web, accept: str, tail: str, place: str, ranged: str, host: str) -> None:
    said = web.get(f"{web.url('ct')}{place}{tail}", accept, Range=ranged, Host=host)
    assert said.status_code < 500


def test_what_is_behind_what_cannot_be_told_apart_is_left_out(web: Web) -> None:
    """An item whose last element is longer than it: nothing of what follows is taken for something else."""
    from dicom_node.web.dicomweb.elements import Elements
    from dicom_node.web.dicomweb.metadata import told

    element = b"\x10\x00\x20\x00LO\x40\x00" + b"A" * 8
    item = b"\xfe\xff\x00\xe0" + len(element).to_bytes(4, "little") + element
    name = b"\x10\x00\x10\x00PN\x04\x00A^B "
    whole = b"\x08\x00\x60\x00CS\x02\x00CT" + b"\x08\x00\x40\x11SQ\x00\x00" + len(item).to_bytes(4, "little") + item + name * 8
    assert json.loads(told(Elements(Bytes(whole)), "x")) == {"00080060": {"vr": "CS", "Value": ["CT"]}, "00081140": {"vr": "SQ", "Value": [{}]}}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_lies_in_a_file_is_answered(web: Web, data: st.DataObject) -> None:
    """Bytes of a data set are anybody's: what cannot be told apart is left out, or refused."""
    from dicom_node.web.dicomweb.elements import Elements, Unreadable
    from dicom_node.web.dicomweb.frames import layout
    from dicom_node.web.dicomweb.metadata import told

    whole = bytearray(web.sample(data.draw(st.sampled_from(["ct", "implicit", "rle"]))).read_bytes()[380:6000])
    for at in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=20)):
        whole[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    assert isinstance(json.loads(told(Elements(Bytes(whole[:cut])), "http://x")), dict)
    try:
        layout(Elements(Bytes(whole[:cut])), "1.2.840.10008.1.2.5")
    except Unreadable:
        return


class Bytes:
    """A data set in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read(self, into: memoryview, at: int) -> None:
        into[:] = self._data[at : at + len(into)]
