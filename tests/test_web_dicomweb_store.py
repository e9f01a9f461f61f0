"""The Store Transaction without a socket: what is answered to those who store, and what is then in the ledger and on the disk (PS3.18 10.5)."""

import asyncio
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from starlette.routing import Route
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from dicom_node.config import load_site
from dicom_node.serve.web import bringing, context
from dicom_node.store import Store
from dicom_node.web import Context, Kept, build
from dicom_node.web.access import Role
from dicom_node.web.dicomweb.storing import Upload, title_of
from tests import phantoms
from tests.files import size_bytes

BASE = "http://127.0.0.1:8080"
KIND = 'multipart/related; type="application/dicom"; boundary="b-1"'
CLASS = "1.2.840.10008.5.1.4.1.1.2"


@dataclass
class House:
    """A node, and the shorthand of these tests."""

    web: Context
    client: TestClient

    def post(self, body: bytes | Iterator[bytes], path: str = "/studies", **headers: str) -> httpx2.Response:
        """Send a payload."""
        return self.client.post(f"/dicom-web{path}", content=body, headers={"Content-Type": KIND, **headers})

    @property
    def held(self) -> set[str]:
        """The UIDs of what the ledger has and the disk, too."""
        found = self.web.store.holdings.find("IMAGE", {})
        files = self.web.store.holdings.files(
            "STUDY", {"StudyInstanceUID": [one["StudyInstanceUID"] for one in self.web.store.holdings.find("STUDY", {})]}
        )
        assert all(size_bytes(self.web.store.archive.path(one.path)) == one.size_bytes for one in files)
        there = {one.sop_instance_uid for one in files}
        assert there == {one["SOPInstanceUID"] for one in found}
        return there

    @property
    def drafts(self) -> list[Path]:
        """Files that are begun and belong to nothing."""
        self.web.store.instances.settle()
        return [path for path in self.web.store.archive.incoming.iterdir() if size_bytes(path)]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    site = load_site(None, node={"storage": tmp_path / "data", "disk_reserve_mb": 0})
    store = Store.of(site.config.node)
    web = context(site, store, time.time)
    with TestClient(build(web), base_url=BASE) as client:
        yield House(web, client)
    store.close()


def image(seed: str = "one", **attributes: Any) -> Dataset:
    return phantoms.series(phantoms.marked((1, 6, 4), (0, 0, 0)), seed=seed, **attributes)[0]


def file_of(dataset: Dataset) -> bytes:
    """Return a DICOM file."""
    file = BytesIO()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def payload(files: Sequence[bytes], kind: str = "application/dicom") -> bytes:
    """Return a multipart of files."""
    return b"".join(f"--b-1\r\nContent-Type: {kind}\r\n\r\n".encode() + one + b"\r\n" for one in files) + b"--b-1--\r\n"


def test_what_is_answered_as_stored_is_in_the_ledger_and_on_the_disk(house: House) -> None:
    """PS3.18 10.5.3: 200, and where it can be retrieved; storing it again changes nothing."""
    images = [image("one"), image("two")]
    for _ in range(2):
        answer = house.post(payload([file_of(one) for one in images]))
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/dicom+json")
        said = Dataset.from_json(answer.json())
        assert {one.ReferencedSOPInstanceUID for one in said.ReferencedSOPSequence} == {str(one.SOPInstanceUID) for one in images} == house.held
        first, of = said.ReferencedSOPSequence[0], images[0]
        where = f"{BASE}/dicom-web/studies/{of.StudyInstanceUID}/series/{of.SeriesInstanceUID}/instances/{of.SOPInstanceUID}"
        assert (first.RetrieveURL, first.ReferencedSOPClassUID) == (where, CLASS)
        assert "FailedSOPSequence" not in said
    assert not house.drafts
    events = house.web.store.journal.of_study(str(images[0].StudyInstanceUID))
    assert all(str(images[0].PatientID) not in event.why for event in events)


def test_the_bytes_are_kept_as_they_came(house: House) -> None:
    """With the file meta information of this node, who sent it among it."""
    sent = file_of(image())
    house.post(payload([sent]))
    [file] = house.web.store.holdings.files("IMAGE", {"SOPInstanceUID": [*house.held]})
    kept = house.web.store.archive.path(file.path).read_bytes()
    assert sent[-200:] in kept and b"local" in kept[:1024]


def test_xml_is_answered_to_who_accepts_it(house: House) -> None:
    """PS3.18 10.5.4."""
    answer = house.post(payload([file_of(image())]), Accept="application/dicom+xml")
    name = "{http://dicom.nema.org/PS3.19/models/NativeDICOM}"
    root = ElementTree.fromstring(answer.content)
    assert answer.headers["content-type"] == "application/dicom+xml"
    assert [one.get("keyword") for one in root.iter(f"{name}DicomAttribute")][:2] == ["RetrieveURL", "ReferencedSOPSequence"]


def test_some_that_fail_do_not_hinder_the_others(house: House) -> None:
    """202: each failure has its reason; what cannot be parsed is in quarantine with it (PS3.18 Table I.2-2)."""
    nameless = image("nameless", SeriesInstanceUID=None)
    answer = house.post(payload([file_of(image()), b"junk of any kind", file_of(nameless), file_of(image("two"))]))
    said = Dataset.from_json(answer.json())
    assert (answer.status_code, len(said.ReferencedSOPSequence), len(house.held)) == (202, 2, 2)
    [failed] = said.FailedSOPSequence
    assert (failed.ReferencedSOPInstanceUID, failed.FailureReason) == (nameless.SOPInstanceUID, 0xC002)
    assert [one.FailureReason for one in said.OtherFailuresSequence] == [0xC001]
    assert sorted(row["reason"][:4] for row in house.web.store.instances.quarantined()) == ["C001", "C002"]
    assert not house.drafts


@pytest.mark.parametrize("body", [payload([b"junk"]), payload([b""]), payload([b"text"], kind="text/plain")])
def test_none_that_is_stored_is_a_conflict(house: House, body: bytes) -> None:
    """409."""
    answer = house.post(body)
    assert answer.status_code == 409 and [one.FailureReason for one in Dataset.from_json(answer.json()).OtherFailuresSequence][0] & 0xC000
    assert not house.held and not house.drafts


def test_a_study_in_the_path_is_that_of_every_instance(house: House) -> None:
    """PS3.18 10.5.1: the others fail."""
    one, other = image("one"), image("other", StudyInstanceUID="1.2.3")
    answer = house.post(payload([file_of(one), file_of(other)]), f"/studies/{one.StudyInstanceUID}")
    [failed] = Dataset.from_json(answer.json()).FailedSOPSequence
    assert (answer.status_code, failed.ReferencedSOPInstanceUID, failed.FailureReason) == (202, other.SOPInstanceUID, 0xA900)
    assert house.held == {str(one.SOPInstanceUID)}
    assert house.post(payload([file_of(other)]), "/studies/1.2.4").status_code == 409
    assert house.post(payload([file_of(other)]), "/studies/one").status_code == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "application/dicom"}, 415),
        ({"Content-Type": 'multipart/related; type="application/dicom+json"; boundary=b-1'}, 415),
        ({"Content-Type": 'multipart/related; type="application/dicom+xml"; boundary=b-1'}, 415),
        ({"Content-Type": "multipart/form-data; boundary=b-1"}, 415),
        ({"Content-Type": KIND, "Content-Encoding": "gzip"}, 415),
        ({"Content-Type": "multipart/related; type=application/dicom"}, 400),
        ({"Content-Type": "multipart/related; type=application/dicom; boundary=other"}, 400),
        ({"Content-Type": "multipart/related; type=application/dicom; boundary=b-1"}, 200),
        ({"Content-Type": "Multipart/Related; boundary=b-1"}, 200),
    ],
)
def test_what_is_no_payload_of_files_is_refused(house: House, headers: dict[str, str], status: int) -> None:
    """PS3.18 Table 10.5.3-1: 415, 400; the type may be quoted or not."""
    answer = house.post(payload([file_of(image())]), **headers)
    assert answer.status_code == status and len(house.held) == (status == 200)


@pytest.mark.parametrize("body", [b"", b"--b-1--", b"no multipart", b"--b-1\r\nbad header\r\n\r\n", payload([b"x"])[:-6]])
def test_a_payload_that_is_none_is_refused(house: House, body: bytes) -> None:
    """400, where nothing of it was stored."""
    assert house.post(body).status_code == 400 and not house.held and not house.drafts


def test_what_was_stored_before_a_payload_breaks_is_told(house: House) -> None:
    """202: it stays stored."""
    body = payload([file_of(image("one")), file_of(image("two"))])
    answer = house.post(body[:-200])
    said = Dataset.from_json(answer.json())
    assert (answer.status_code, len(said.ReferencedSOPSequence), said.OtherFailuresSequence[0].FailureReason) == (202, 1, 0xC000)
    assert len(house.held) == 1 and not house.drafts


def test_below_the_disk_reserve_it_is_to_be_sent_again(house: House) -> None:
    """503 with Retry-After; each instance with A700."""
    node = house.web.site.config.node.model_copy(update={"disk_reserve_mb": 1 << 40})
    site = replace(house.web.site, config=house.web.site.config.model_copy(update={"node": node}))
    poor = replace(house.web, site=site, bring=bringing(site, house.web.store, time.time))
    with TestClient(build(poor), base_url=BASE) as client:
        answer = House(poor, client).post(payload([file_of(image())]))
    assert answer.status_code == 503 and int(answer.headers["Retry-After"]) > 0
    assert Dataset.from_json(answer.json()).FailedSOPSequence[0].FailureReason == 0xA700
    assert not house.held and not house.drafts


def asked(web: Context, body: Sequence[bytes], *, goes: bool) -> int | None:
    """Send a payload piece by piece and then go away, or say nothing more; return the status, None where there is no answer."""
    statuses: list[int] = []
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in body]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop(0)
        if not goes:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        statuses.extend([message["status"]] if message["type"] == "http.response.start" else [])

    path = "/dicom-web/studies"
    headers = [(b"content-type", KIND.encode()), (b"host", b"127.0.0.1")]
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"", "headers": headers, "root_path": ""}
    asyncio.run(
        build(web)({**scope, "scheme": "http", "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1), "http_version": "1.1"}, receive, send)
    )
    return statuses[0] if statuses else None


@pytest.mark.parametrize("goes", [True, False])
def test_a_sender_that_goes_or_falls_silent_leaves_what_it_sent_whole_and_no_draft(house: House, goes: bool) -> None:
    """What had come whole is stored; what had not is forgotten, and its file is there for another."""
    node = house.web.site.config.node.model_copy(update={"network_timeout_s": 0.3})
    site = replace(house.web.site, config=house.web.site.config.model_copy(update={"node": node}))
    body = payload([file_of(image("one")), file_of(image("two")) + bytes(3 << 20), b"x" * (1 << 20)])
    pieces = [body[at : at + 500_000] for at in range(0, 3_000_000, 500_000)]
    assert asked(replace(house.web, site=site), pieces, goes=goes) == 400
    assert house.held == {str(image("one").SOPInstanceUID)} and not house.drafts


def test_a_viewer_searches_and_an_operator_stores(house: House) -> None:
    """Programs by their scopes: `dicomweb.read` and `dicomweb.write`."""
    roles = {
        (one.path, *sorted(one.methods)): getattr(one.endpoint, "role", None) for one in build(house.web).router.routes if isinstance(one, Route)
    }
    assert roles["/dicom-web/studies", "POST"] is roles["/dicom-web/studies/{study}", "POST"] is Role.OPERATOR
    assert roles["/dicom-web/instances", "GET", "HEAD"] is Role.VIEWER


def test_no_log_and_no_answer_names_the_patient(house: House) -> None:
    with capture_logs() as logs:
        answer = house.post(payload([file_of(image()), file_of(image(StudyInstanceUID=None)), b"junk"]))
    said = f"{logs} {answer.text} {house.web.store.instances.quarantined()}"
    assert answer.status_code == 202 and not any(mark in said for mark in phantoms.PATIENT.values())


@pytest.mark.parametrize(
    ("name", "title"),
    [("local", "local"), ("", "STOW-RS"), ("  ", "STOW-RS"), ("a\\b", "a_b"), ("Jörg von der Weide-Langenfeld", "J_rg von der Wei")],
)
def test_who_sent_is_written_as_an_ae_title(name: str, title: str) -> None:
    """PS3.5 Table 6.2-1: 16 characters of the default repertoire, no backslash."""
    assert title_of(name) == title


def test_a_part_of_any_length_takes_little_memory() -> None:
    """It goes through piece by piece."""

    class Counting:
        taken = 0

        def write(self, data: bytes | memoryview, /) -> None:
            self.taken += len(data)

        def close(self) -> Kept:
            return Kept(status=0)

        def drop(self) -> None:
            pass

    door = Counting()
    upload = Upload("b-1", lambda: door)
    piece = b"\r\n-" * 100_000
    tracemalloc.start()
    upload.feed(b"--b-1\r\n\r\n")
    for _ in range(300):
        upload.feed(piece)
    upload.feed(b"\r\n--b-1--")
    upload.finish()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert door.taken == 300 * len(piece) and peak < 4 * len(piece) and not upload.stored.problem


_FILES = {name: file_of(image(name)) for name in ("a", "b", "c")}
_PART = st.one_of(
    st.sampled_from([*_FILES.values()]),
    st.builds(lambda name, cut: _FILES[name][:cut], st.sampled_from([*_FILES]), st.integers(0, 1500)),
    st.binary(max_size=40),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(_PART, max_size=4),
    cut=st.one_of(st.none(), st.integers(0, 8000)),
    kind=st.sampled_from(["application/dicom", "application/dicom; transfer-syntax=1.2.840.10008.1.2.1", "text/plain", "\x01"]),
    path=st.sampled_from(["/studies", f"/studies/{image('a').StudyInstanceUID}", "/studies/1.2"]),
    size=st.integers(1, 5000),
)
def test_whatever_is_sent_is_answered_and_what_is_said_to_be_stored_is(
    house: House, parts: list[bytes], cut: int | None, kind: str, path: str, size: int
) -> None:
    """No payload is a fault of the program; nothing that was acknowledged is lost; nothing that is begun stays."""
    body = payload(parts, kind)[:cut]
    answer = house.post((body[at : at + size] for at in range(0, len(body), size)), path)
    assert answer.status_code in (200, 202, 400, 409), answer.text
    said = Dataset.from_json(answer.json()) if answer.content else Dataset()
    assert {str(one.ReferencedSOPInstanceUID) for one in said.get("ReferencedSOPSequence", [])} <= house.held
    assert len(house.held) <= 3 and not house.drafts
