"""WADO-RS as others use it: dicomweb-client and OHIF's requests against a web in a process of its own, and Orthanc's plug-in as the oracle."""

import io
import json
import logging
import socket
import urllib.error
import urllib.request
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom import Dataset, dcmread
from pydicom.encaps import generate_frames

from dicom_node.domain import Rejected
from dicom_node.receive.folder import study_of
from dicom_node.wire import Malformed, StoredFile
from tests.orthanc import orthanc
from tests.peers import missing
from tests.walks import hospital
from tests.walks.node import wait_for
from tests.walks.webs import Web, web

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
DATA = Path(pydicom.__file__).parent / "data"
PLAIN = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")
OCTETS = 'multipart/related; type="application/octet-stream"'
REFUSED = {"SC_rgb_jpeg.dcm"}  # by Orthanc: it says explicit value representations and has none

Model = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Both:
    """The node and Orthanc, which hold the same."""

    node: Web
    orthanc: str  # its DICOMweb
    files: Mapping[str, Path]  # by SOP Instance UID


def samples() -> Iterator[Path]:
    """Give pydicom's test files that are whole objects, each of its own."""
    seen = set()
    for path in sorted([*DATA.glob("test_files/*.dcm"), *DATA.glob("charset_files/*.dcm")]):
        try:
            (one,) = study_of([path]).instances
            with StoredFile(path):
                pass
        except (Rejected, Malformed):
            continue
        if path.name not in REFUSED and one.sop_class_uid and one.sop_instance_uid not in seen:
            seen.add(one.sop_instance_uid)
            yield path


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    if not PLUGIN.exists():
        missing("Orthanc's DICOMweb plug-in is not installed")
    folder = tmp_path_factory.mktemp("wado")
    files = [*samples(), *hospital.write(folder / "hospital")]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number, path in enumerate(files):
            archive.write(path, f"{number}.dcm")
    with web(folder / "node", files) as node, orthanc(folder / "orthanc", Plugins=[str(PLUGIN)]) as (_, url):
        urllib.request.urlopen(urllib.request.Request(f"{url}/instances", data=packed.getvalue()), timeout=120).close()
        yield Both(node, f"{url}/dicom-web", {str(study_of([path]).instances[0].sop_instance_uid): path for path in files})


def get(url: str, accept: str) -> tuple[str, bytes]:
    """Return the content type and the content that a URL answers with."""
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept}), timeout=60) as said:
        return said.headers["Content-Type"], said.read()


def places(both: Both) -> dict[str, str]:
    """Return the path of each instance below DICOMweb."""
    found = {}
    for uid, path in both.files.items():
        (one,) = study_of([path]).instances
        found[uid] = f"/studies/{one.study_instance_uid}/series/{one.series_instance_uid}/instances/{uid}"
    return found


def models(url: str, both: Both) -> dict[str, Model]:
    """Return the metadata of every instance, asked for study by study."""
    found = {}
    for study in dict.fromkeys(place.split("/")[2] for place in places(both).values()):
        content_type, said = get(f"{url}/studies/{study}/metadata", "application/dicom+json")
        assert content_type == "application/dicom+json"
        found |= {model["00080018"]["Value"][0]: model for model in json.loads(said)}
    return found


def different(ours: Model, theirs: Model, above: str = "") -> Iterator[tuple[str, Model, Model]]:
    """Give what two models of an object say differently, and where: item by item."""
    for tag in sorted({*ours, *theirs}):
        one, other = ours.get(tag, {}), theirs.get(tag, {})
        if one.get("vr") == other.get("vr") == "SQ" and len(one.get("Value", ())) == len(other.get("Value", ())):
            for item, item_there in zip(one.get("Value", ()), other.get("Value", ()), strict=True):
                yield from different(item, item_there, f"{above}{tag}.")
        elif one != other:
            yield f"{above}{tag}", one, other


def _texts(one: Model) -> list[Any]:
    return [_text(value) for value in one.get("Value", ())]


def _text(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {group: text for group, text in value.items() if text}
    return value.strip(" \0\r\n") if isinstance(value, str) else value


def _charset(tag: str, one: Model, _other: Model, _: str) -> bool:
    return tag.endswith("00080005") and one["Value"] == ["ISO_IR 192"]


def _urls(_tag: str, one: Model, other: Model, _: str) -> bool:
    return "BulkDataURI" in one and "BulkDataURI" in other


def _small(_tag: str, one: Model, other: Model, _: str) -> bool:
    return "InlineBinary" in one and "BulkDataURI" in other


def _coded(tag: str, one: Model, other: Model, _: str) -> bool:
    return tag == "7FE00010" and "BulkDataURI" in one and not other


def _padded(_tag: str, one: Model, other: Model, _: str) -> bool:
    return one["vr"] == other.get("vr") and _texts(one) == _texts(other) != []


def _short(_tag: str, one: Model, other: Model, _: str) -> bool:
    return one["vr"] == "FL" and [*map(np.float32, one["Value"])] == [*map(np.float32, other["Value"])]


def _no_number(_tag: str, one: Model, other: Model, charset: str) -> bool:
    return one["vr"] == "IS" and other == {"vr": "IS", "Value": []}


def _extended(_tag: str, one: Model, _other: Model, charset: str) -> bool:
    return "2022" in charset and one["vr"] in ("PN", "CS", "DS")


def _whole(_tag: str, one: Model, other: Model, _: str) -> bool:
    return one["vr"] == "UT" and _text(one["Value"][0]) == _text("\\".join(value or "" for value in other["Value"]))


# What the node and Orthanc say differently.
EXPLAINED = {
    "what the character set was": _charset,  # PS3.18 F.2.1: DICOM JSON is UTF-8, and says so; Orthanc repeats what the file had
    "URLs are of who is asked": _urls,
    "small values of bytes in place": _small,  # F.2.7 lets both
    "coded pixels have a URL": _coded,  # Orthanc leaves them out
    "padding and empty parts": _padded,  # PS3.5 6.2: they are not significant; Orthanc keeps them
    "a float of 32 bits": _short,  # so many digits as say which one it is; Orthanc writes those of 64 bits
    "no number where one should be": _no_number,  # F.2.3.1 lets a string stand for it; Orthanc has no value
    "a backslash in a long text": _whole,  # PS3.5 6.2: it is a sign like any other; Orthanc makes several values of it
    "code extensions": _extended,  # PS3.3 C.12.1.1.2: Orthanc knows no escape sequences, and takes a backslash for a yen
}


@pytest.mark.filterwarnings("ignore")
def test_metadata_are_those_of_orthanc_or_the_difference_is_explained(both: Both) -> None:
    """PS3.18 Annex F, of 550 objects: every attribute, its value representation and its values."""
    ours, theirs = models(both.node.dicomweb, both), models(both.orthanc, both)
    assert {*ours} == {*theirs} == {*both.files}
    used: Counter[str] = Counter()
    unexplained = []
    for uid, model in ours.items():
        charset = str(dcmread(both.files[uid], specific_tags=["SpecificCharacterSet"], force=True).get("SpecificCharacterSet", ""))
        for tag, one, other in different(model, theirs[uid]):
            why = next((name for name, explains in EXPLAINED.items() if one and explains(tag, one, other, charset)), "")
            used[why] += 1
            unexplained += [] if why else [f"{both.files[uid].name} {tag}: {str(one)[:200]} beside {str(other)[:200]}"]
    assert not unexplained, "\n".join(unexplained[:20])
    assert {*used} == {*EXPLAINED}, "an explanation that explains nothing is stale"
    assert sum(map(len, ours.values())) > 10_000


@pytest.mark.filterwarnings("ignore")
def test_frames_are_those_of_the_file_and_of_orthanc(both: Both) -> None:
    """PS3.18 10.4.1.1.5: the same bytes for each frame of each image, coded ones as they are stored."""
    compared, refused = Counter[str](), set[str]()
    for uid, place in places(both).items():
        path = both.files[uid]
        read = dcmread(path, force=True)
        syntax = str(read.file_meta.TransferSyntaxUID)
        if "PixelData" not in read or (path.parent.name == "hospital" and compared["plain"] > 40):
            continue
        number = int(read.get("NumberOfFrames", 1) or 1) if str(read.get("NumberOfFrames", 1)).isdigit() else 1
        listed = ",".join(str(one + 1) for one in range(number))
        if syntax in PLAIN:
            mine = parts(*get(f"{both.node.dicomweb}{place}/frames/{listed}", OCTETS))
            try:
                assert mine == parts(*get(f"{both.orthanc}{place}/frames/{listed}", OCTETS)), path.name
            except urllib.error.HTTPError:
                refused.add(path.name)
            compared["plain"] += 1
        else:
            mine = parts(*get(f"{both.node.dicomweb}{place}/frames/{listed}", f"{OCTETS}; transfer-syntax=*"))
            assert mine == list(generate_frames(read.PixelData, number_of_frames=number)), path.name
            compared["coded"] += 1
    assert compared["plain"] > 40 and compared["coded"] > 5, compared
    assert refused == {"badVR.dcm"}, "of which Orthanc does not know how many frames it has"


def parts(content_type: str, said: bytes) -> list[bytes]:
    """Return the parts of a multipart payload."""
    boundary = content_type.partition("boundary=")[2].partition(";")[0].strip('"').encode()
    found = (b"\r\n" + said).split(b"\r\n--" + boundary)[1:-1]
    return [one.partition(b"\r\n\r\n")[2] for one in found]


# ---------------------------------------------------------------------------------------------------------------- clients


@pytest.mark.filterwarnings("ignore")
def test_dicomweb_client_retrieves_everything(both: Both) -> None:
    """With what it asks for by itself, and with what can be asked for."""
    logging.getLogger("dicomweb_client").setLevel(logging.ERROR)
    client = DICOMwebClient(both.node.dicomweb)
    of_ct = next(uid for uid, path in both.files.items() if path.name == "CT_small.dcm")
    _, _, study, _, series, _, instance = places(both)[of_ct].split("/")
    original = dcmread(both.files[of_ct])
    assert client.retrieve_instance(study, series, instance) == original
    assert [*client.retrieve_series(study, series)] == [*client.retrieve_study(study)] == [*client.iter_study(study)] == [original]
    (metadata,) = client.retrieve_study_metadata(study)
    assert client.retrieve_instance_metadata(study, series, instance) == metadata == client.retrieve_series_metadata(study, series)[0]
    assert Dataset.from_json(metadata, lambda *_: None).PatientName == original.PatientName
    for media_types in (None, ("application/octet-stream",), (("application/octet-stream", "1.2.840.10008.1.2.1"),)):
        assert client.retrieve_instance_frames(study, series, instance, [1], media_types=media_types) == [original.PixelData]
    assert client.retrieve_bulkdata(metadata["7FE00010"]["BulkDataURI"]) == [original.PixelData]
    of_jp2 = next(uid for uid, path in both.files.items() if path.name == "examples_jpeg2k.dcm")
    _, _, study, _, series, _, instance = places(both)[of_jp2].split("/")
    coded = client.retrieve_instance_frames(study, series, instance, [1], media_types=("image/jp2",))
    assert coded == [*generate_frames(dcmread(both.files[of_jp2]).PixelData, number_of_frames=1)]
    assert client.retrieve_instance(study, series, instance).file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.90", "it asks for any"


def test_ohif_gets_what_its_viewer_asks_for(both: Both) -> None:
    """The Accept headers of OHIF 3 and of its image loader, letter by letter, with what a browser adds."""
    uid = next(uid for uid, path in both.files.items() if path.name == "examples_jpeg2k.dcm")
    place = f"{both.node.dicomweb}{places(both)[uid]}"
    series = place.partition("/instances")[0]
    asked = {
        f"{series}/metadata": ("application/dicom+json", "application/dicom+json"),
        f"{place}/frames/1": ("multipart/related; type=application/octet-stream; transfer-syntax=*", "application/octet-stream; transfer-syntax="),
        place: ("multipart/related; type=application/dicom; transfer-syntax=*", "application/dicom; transfer-syntax="),
    }
    for url, (accept, expected) in asked.items():
        content_type, said = get(url, accept)
        if content_type.startswith("multipart"):
            content_type = said.partition(b"Content-Type: ")[2].partition(b"\r\n")[0].decode()
        assert content_type.startswith(expected)
    singlepart, said = get(f"{place}/frames/1", "application/octet-stream; transfer-syntax=*")
    assert singlepart.startswith("application/octet-stream; transfer-syntax=1.2.840.10008.1.2.4.")
    assert get(f"{place}/frames/1", "multipart/related; type=application/octet-stream; transfer-syntax=*, */*")[0].startswith("multipart")


# ----------------------------------------------------------------------------------------------------------------- memory

BIG_BYTES, BIG = 32 << 20, 7


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Web, str, list[bytes]]]:
    """A study of large instances, one of which has to be written anew while it goes out."""
    folder = tmp_path_factory.mktemp("large")
    files, digests = [], []
    for number in range(BIG):
        one = dcmread(DATA / "test_files" / "CT_small.dcm")
        one.StudyInstanceUID, one.SOPInstanceUID = "1.2.3.4", f"1.2.3.4.{number}"
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
        one.Rows, one.Columns, one.PixelData = 4096, BIG_BYTES // 8192, np.random.default_rng(number).bytes(BIG_BYTES)
        if number == 0:
            one.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"
            one.save_as(folder / "0.dcm", implicit_vr=True, little_endian=True)
        else:
            one.save_as(folder / f"{number}.dcm")
        files.append(folder / f"{number}.dcm")
        digests.append(sha256(one.PixelData).digest())
    with web(folder / "node", files) as node:
        for file in files:
            file.unlink()
        yield node, f"{node.dicomweb}/studies/1.2.3.4", digests


def memory_mb(pid: int, what: str = "VmHWM") -> float:
    """Return the most memory that a process ever had, or has now (VmRSS)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) / 1024
    return 0.0


def files_of(pid: int) -> list[str]:
    """Return the files of the store, or without a name in it, that a process has open."""
    found = []
    for one in Path(f"/proc/{pid}/fd").iterdir():
        try:
            place = str(one.readlink())
        except OSError:  # closed at this moment
            continue
        found += [place] if place.endswith(".dcm") or ("/data/" in place and "(deleted)" in place) else []
    return found


def test_a_large_study_is_served_in_flat_memory(large: tuple[Web, str, list[bytes]]) -> None:
    """More than 200 MB, of which no more than a few are in memory at a time."""
    node, url, digests = large
    get(f"{url}/metadata", "application/dicom+json")
    before, got = memory_mb(node.pid), 0
    request = urllib.request.Request(url, headers={"Accept": 'multipart/related; type="application/dicom"'})
    with urllib.request.urlopen(request, timeout=120) as said:
        while piece := said.read(1 << 20):
            got += len(piece)
    assert got > BIG * BIG_BYTES
    frame = f"{url}/series/{series_of(node)}/instances/1.2.3.4.0/frames/1"
    assert sha256(get(frame, "application/octet-stream")[1]).digest() == digests[0]
    assert memory_mb(node.pid) - before < 40


def series_of(node: Web) -> str:
    return next(one.series_instance_uid for one in node.store.holdings.files("STUDY", {"StudyInstanceUID": "1.2.3.4"}))


def test_a_client_that_goes_away_frees_everything(large: tuple[Web, str, list[bytes]]) -> None:
    """The files are closed, and the one without a name that was made is gone."""
    node, url, _ = large
    place = urlsplit(url)
    connections = []
    for accept in ("application/dicom; transfer-syntax=*", "application/dicom"):
        connection = socket.create_connection((place.hostname, place.port))
        connection.sendall(f"GET {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\nAccept: multipart/related; type={accept}\r\n\r\n".encode())
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")
        connections.append(connection)
    wait_for(lambda: len(files_of(node.pid)) >= 2)
    for connection in connections:
        connection.close()
    wait_for(lambda: not files_of(node.pid), timeout_s=15, says=lambda: files_of(node.pid))
    assert "Traceback" not in node.log


def test_what_is_removed_while_it_is_retrieved_ends_the_answer(large: tuple[Web, str, list[bytes]]) -> None:
    """The connection is cut before the length that was promised: nobody takes it for whole."""
    node, url, _ = large
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port)) as connection:
        request = (
            f'GET {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\nAccept: multipart/related; type="application/dicom"; transfer-syntax=*\r\n\r\n'
        )
        connection.sendall(request.encode())
        head = connection.recv(1 << 12)
        last = node.store.holdings.files("STUDY", {"StudyInstanceUID": "1.2.3.4"})[-1]
        kept = node.store.archive.path(last.path)
        kept.rename(kept.with_suffix(".away"))
        try:
            size, end = len(head), b""
            connection.settimeout(60)
            while piece := connection.recv(1 << 20):
                size, end = size + len(piece), piece[-100:]
        finally:
            kept.with_suffix(".away").rename(kept)
    assert (BIG - 2) * BIG_BYTES < size < BIG * BIG_BYTES
    assert not end.rstrip().endswith(b"--")
