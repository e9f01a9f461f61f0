"""The node asks archives and fetches from them over HTTP: Orthanc's DICOMweb plug-in, a node's own web, and archives that misbehave."""

import contextlib
import ssl
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from structlog.testing import capture_logs

from dicom_node.config import Node, Remote
from dicom_node.domain import PeerUnavailable, Rejected, RetrievalState, Transient
from dicom_node.guard import probe
from dicom_node.query import count, find, wado
from dicom_node.wire import Credentials
from tests.certificates import authority, signed
from tests.orthanc import ask as orthanc_ask
from tests.orthanc import free_ports, orthanc
from tests.peers import missing
from tests.walks.fetching import STUDY, House, files, study
from tests.walks.node import wait_for
from tests.walks.test_wado import PLUGIN
from tests.walks.webarchive import BOUNDARY, KIND, Asked, multipart, web_archive, written
from tests.walks.webs import web

NODE, ANYONE = Node(), Credentials()
Odd = Callable[[Asked], bool]


def remote(url: str, **more: Any) -> Remote:
    return Remote.model_validate({"ae": "ARCHIVE@127.0.0.1:1", "retrieve": "web", "web_url": url, "timeout_s": 10.0, **more})


def ask(url: str, level: str = "STUDY", keys: dict[str, str] | None = None, **how: Any) -> tuple[dict[str, Any], ...]:
    return find(remote(url), NODE, level, keys or {}, credentials=ANYONE, **how)


@pytest.fixture
def port() -> int:
    return free_ports(1)[0]


def house(folder: Path, url: str, **more: Any) -> House:
    return House(folder, 0, listens=False, pacs=remote(url, **more))


# ---------------------------------------------------------------------------------------------------------- real archives


def is_asked_and_gives_its_study(url: str, folder: Path, images: Sequence[Dataset]) -> None:
    """Ask at every level, fetch a study, lose a series of it, and fetch that."""
    both = ask(url, keys={"PatientID": "", "StudyDate": "", "PatientName": ""})
    assert sorted(one["PatientID"] for one in both) == ["P1", "P2"] and len(ask(url, limit=1)) == 1
    assert {one["PatientName"] for one in both} == {"Müller^Änne"}
    (one,) = ask(url, keys={"PatientID": "P2", "StudyDate": "20200101-20201231", "ModalitiesInStudy": "CT"})
    assert (one["StudyDate"], ask(url, keys={"PatientID": "P3"})) == ("20200202", ())
    series = ask(url, "SERIES", {"StudyInstanceUID": one["StudyInstanceUID"], "Modality": ""})
    assert len(series) == 2 and {said["Modality"] for said in series} == {"CT"}
    keys = {"StudyInstanceUID": one["StudyInstanceUID"], "SeriesInstanceUID": series[0]["SeriesInstanceUID"], "SOPClassUID": ""}
    assert len(ask(url, "IMAGE", keys)) == 3
    assert count(remote(url), NODE, STUDY, credentials=ANYONE) == 6 and count(remote(url), NODE, "1.2.3", credentials=ANYONE) == 0
    assert [(found.what, found.ok) for found in probe("archive", remote(url), NODE, 0.0)] == [("remote archive: QIDO-RS", True)]
    with house(folder, url) as node:
        done = node.ended(node.ask(wanted_for="1.2.3"))
        assert (done.state, done.expected, done.held, done.attempts) == (RetrievalState.COMPLETED, 6, 6, 1), done
        held = node.store.studies.view(STUDY)
        assert held is not None and {one.calling_ae for one in held.instances} == {"ARCHIVE"}
        came = {one.sop_instance_uid: dcmread(node.store.archive.path(one.path)) for one in held.instances}
        assert all(came[one.SOPInstanceUID] == one for one in images if one.StudyInstanceUID == STUDY)
        assert [event.kind for event in node.store.journal.of_study("1.2.3")] == ["retrieval asked", "retrieval running", "retrieval completed"]
        assert node.put_off(node.ask(uid="1.2.3"), "does not know the study").attempts


def test_orthanc_is_asked_and_gives_a_study(tmp_path: Path) -> None:
    """PS3.18 10.4 and 10.6, with another archive in another language; what is here is what it has, but for its File Meta Information."""
    if not PLUGIN.exists():
        missing("Orthanc's DICOMweb plug-in is not installed")
    names = {"PatientName": "Müller^Änne", "SpecificCharacterSet": "ISO_IR 192"}
    images = study(PatientID="P1", **names) + study("there", PatientID="P2", StudyDate="20200202", **names)
    with orthanc(tmp_path / "orthanc", Plugins=[str(PLUGIN)]) as (_, url):
        for file in files(tmp_path / "files", images):
            orthanc_ask(f"{url}/instances", file.read_bytes())
        is_asked_and_gives_its_study(f"{url}/dicom-web", tmp_path / "node", images)


def test_a_nodes_own_web_is_asked_and_gives_a_study(tmp_path: Path) -> None:
    names = {"PatientName": "Müller^Änne", "SpecificCharacterSet": "ISO_IR 192"}
    images = study(PatientID="P1", **names) + study("there", PatientID="P2", StudyDate="20200202", **names)
    with web(tmp_path / "web", files(tmp_path / "files", images)) as far:
        is_asked_and_gives_its_study(far.dicomweb, tmp_path / "node", images)


def test_only_the_series_that_lack_something_are_asked_for(tmp_path: Path) -> None:
    images = study()
    lacks = iter([True, False])

    def forgets(asked: Asked) -> bool:
        if next(lacks, False):
            asked.say(200, multipart([written(one) for one in images[:4]]), KIND)
            return True
        return False

    with web_archive(images=images, retrieve=forgets) as archive, house(tmp_path, archive.url) as node:
        done = node.ended(node.ask())
        assert (done.state, done.held, done.attempts) == (RetrievalState.COMPLETED, 6, 2), done
        assert [path.count("/series/") for path in archive.asked if not path.endswith("instances")] == [0, 1]


def test_the_token_is_shown_and_pages_are_gone_through(tmp_path: Path) -> None:
    """RFC 6750; PS3.18 10.6.3.2: a service may give fewer answers at once than it is asked for."""
    (tmp_path / "token.txt").write_text("secret\n")
    with (
        web_archive(images=study(), token="secret", page=4) as archive,
        house(tmp_path / "node", archive.url, web_token_file=tmp_path / "token.txt") as node,
    ):
        assert node.ended(node.ask()).state is RetrievalState.COMPLETED
        with pytest.raises(Rejected, match="not authorised"):
            ask(archive.url)


def test_an_archive_over_https_must_be_signed_by_those_whom_the_site_names(tmp_path: Path) -> None:
    """PS3.15 B.12."""
    by, stranger = (authority(tmp_path, name) for name in ("house", "stranger"))
    shown = signed(by, tmp_path, "archive")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown.certificate, shown.key)
    with web_archive(context, images=study()) as archive:
        with house(tmp_path / "node", archive.url, tls={"authorities": by.certificate}) as node:
            assert node.ended(node.ask()).state is RetrievalState.COMPLETED
        with house(tmp_path / "other", archive.url, tls={"authorities": stranger.certificate}) as node:
            node.put_off(node.ask(), "does not answer over HTTP")


# ------------------------------------------------------------------------------------------------------------ bad answers


def truncated(asked: Asked) -> bool:
    whole = multipart([written(one) for one in asked.of.images])
    asked.send_response(200)
    asked.send_header("Content-Type", KIND)
    asked.send_header("Content-Length", str(len(whole)))
    asked.end_headers()
    asked.wfile.write(whole[: len(whole) * 3 // 4])
    asked.close_connection = True
    return True


def wrong_boundary(asked: Asked) -> bool:
    asked.say(200, multipart([written(one) for one in asked.of.images]), KIND.replace(BOUNDARY, "b-2"))
    return True


def endless(asked: Asked) -> bool:
    asked.send_response(200)
    asked.send_header("Content-Type", KIND)
    asked.end_headers()
    asked.close_connection = True
    with contextlib.suppress(OSError):
        asked.wfile.write(f"--{BOUNDARY}\r\n\r\n".encode() + written(asked.of.images[0]))
        while True:
            asked.wfile.write(bytes(1 << 16))
    return True


def no_parts(asked: Asked) -> bool:
    asked.send_response(200)
    asked.send_header("Content-Type", KIND)
    asked.end_headers()
    asked.close_connection = True
    with contextlib.suppress(OSError):
        while True:
            asked.wfile.write(bytes(1 << 16))
    return True


def another_study(asked: Asked) -> bool:
    asked.say(200, multipart([written(one) for one in study("there")]), KIND)
    return True


def pictures(asked: Asked) -> bool:
    body = multipart([b"\x89PNG"]).replace(b"application/dicom", b"image/png")
    asked.say(200, body, KIND)
    return True


def says(status: int, **headers: str) -> Odd:
    def answer(asked: Asked) -> bool:
        asked.say(status, b"MARKED^PATIENT", **headers)
        return True

    return answer


@pytest.mark.parametrize(
    ("odd", "why", "held", "attempts"),
    [
        (truncated, "cannot be read: the payload ends before its last boundary; 4 of 6 instances are here; given up after 3", 4, 3),
        (wrong_boundary, "cannot be read", 0, 3),
        (endless, "an object of more than", 0, 3),
        (no_parts, "what belongs to no object", 0, 3),
        (another_study, "6 of its objects were not taken: A900", 0, 3),
        (pictures, "no DICOM file", 0, 3),
        (says(200), "no multipart/related", 0, 3),
        (says(401), "not authorised", 0, 1),
        (says(404), "no such study", 0, 3),
        (says(406), "does not take this", 0, 1),
        (says(500), "with 500; given up after 3", 0, 3),
    ],
)
def test_every_bad_answer_ends_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: Odd, why: str, held: int, attempts: int) -> None:
    monkeypatch.setattr(wado, "_OBJECT_BYTES", 1 << 22)
    with capture_logs() as logs, web_archive(images=study(), retrieve=odd) as archive, house(tmp_path, archive.url) as node:
        done = node.ended(node.ask())
        assert (done.state, done.held, done.attempts) == (RetrievalState.FAILED, held, attempts) and why in done.reason, done
        assert node.store.studies.view(study("there")[0].StudyInstanceUID) is None
        left = sum(one.stat().st_size for one in node.store.archive.incoming.iterdir())
        assert (held or not left) and "MARKED" not in f"{logs}{done}"


def test_a_redirection_is_not_followed(tmp_path: Path) -> None:
    """Nobody is asked, or shown the token, whom the site does not name."""
    with web_archive(images=study()) as other, web_archive(images=study()) as archive, house(tmp_path, archive.url) as node:
        archive.retrieve = says(302, Location=f"{other.url}/studies/{STUDY}")
        done = node.ended(node.ask())
        assert done.state is RetrievalState.FAILED and "elsewhere" in done.reason and not other.asked
        archive.find = says(307, Location=f"{other.url}/studies")
        with pytest.raises(Rejected, match="elsewhere"):
            ask(archive.url)
        assert not other.asked


@pytest.mark.parametrize(
    ("odd", "error", "why"),
    [
        (says(500), Transient, "with 500"),
        (says(503), PeerUnavailable, "503"),
        (says(403), Rejected, "not authorised"),
        (says(404), Rejected, "does not take this"),
        (says(200), Rejected, "cannot be read"),
        (lambda asked: asked.say(200, b'[{"00100010": {"vr": "XX", "Value": 3}}]') or True, Rejected, "cannot be read"),
        (lambda asked: asked.say(200, b"[" * 100_000) or True, Rejected, "cannot be read"),
        (lambda asked: asked.say(200, b" " * (17 << 20)) or True, PeerUnavailable, "too long"),
    ],
)
def test_every_bad_ending_of_a_question_is_an_error_that_names_no_patient(odd: Odd, error: type[Exception], why: str) -> None:
    with web_archive(find=odd) as archive, capture_logs() as logs, pytest.raises(error, match=why) as raised:
        ask(archive.url, keys={"PatientName": "MARKED^PATIENT"})
    assert raised.value.hint and "MARKED" not in f"{raised.value}{raised.value.hint}{logs}"


def test_a_service_that_passes_keys_over_is_not_believed() -> None:
    images = study(PatientID="P1") + study("there", PatientID="P2")
    with web_archive(images=images) as archive:
        assert [one["PatientID"] for one in ask(archive.url, keys={"PatientID": "P2"})] == ["P2"]
        assert ask(archive.url, keys={"PatientID": "P3"}) == ()


def stalling(begun: threading.Event, gone: threading.Event) -> Odd:
    """Return what stops in the middle of an object."""

    def stalls(asked: Asked) -> bool:
        asked.send_response(200)
        asked.send_header("Content-Type", KIND)
        asked.end_headers()
        asked.wfile.write(f"--{BOUNDARY}\r\n\r\n".encode() + written(asked.of.images[0])[:500])
        begun.set()
        asked.connection.settimeout(30)
        with contextlib.suppress(OSError):
            assert not asked.connection.recv(1)
            gone.set()
        asked.close_connection = True
        return True

    return stalls


def test_silence_in_the_middle_of_an_object_ends(tmp_path: Path) -> None:
    odd = stalling(threading.Event(), threading.Event())
    with web_archive(images=study(), retrieve=odd) as archive, house(tmp_path, archive.url, timeout_s=0.7) as node:
        node.put_off(node.ask(), "sent nothing for 0.7 s in the middle of a retrieval")


def test_one_that_is_not_wanted_any_more_is_cut_off(tmp_path: Path) -> None:
    """In the middle of an object, while nothing comes."""
    begun, gone = threading.Event(), threading.Event()
    odd = stalling(begun, gone)
    with web_archive(images=study(), retrieve=odd) as archive, house(tmp_path, archive.url, timeout_s=60.0) as node:
        one = node.ask()
        assert begun.wait(20)
        node.store.retrievals.cancel(one.id, who="anna", now=1.0)
        assert gone.wait(20) and node.now(one).state is RetrievalState.CANCELED


def test_an_archive_that_is_away_is_tried_again(tmp_path: Path) -> None:
    with web_archive(images=study(), find=says(503)) as archive, house(tmp_path, archive.url) as node:
        node.put_off(one := node.ask(), "answered 503")
        archive.find = None
        assert node.ended(one).state is RetrievalState.COMPLETED
        assert wait_for(lambda: node.now(one).attempts == 1)
