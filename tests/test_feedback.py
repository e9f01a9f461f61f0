"""What readers say: it is kept, counted, and an acceptance becomes a report that names who verified it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from scipy.stats import binomtest
from starlette.testclient import TestClient

from dicom_node.domain import VERIFIED, DeliveryState, Job, Verdict, VerificationState, wilson
from dicom_node.report import Observer, build, check, encode, verified
from dicom_node.report.verified import person_name
from dicom_node.serve.web import context
from dicom_node.store import Store
from dicom_node.web import build as build_web
from dicom_node.work.verifying import Verifying
from tests import findings as made
from tests import phantoms
from tests.reported import NOW, Node

ROOT = Path(__file__).parents[1]
MODELS = Path(__file__).parent / "models"
FORM = {"content-type": "application/x-www-form-urlencoded"}
ACCEPTED_AT = 1_700_086_400.5
ANNA = Observer(name="Anna Berg", organization="Klinikum Nord", at=ACCEPTED_AT)


# --------------------------------------------------------------------------------------------------------- a verified report


def report(folder: Path, **attributes: Any) -> Dataset:
    """Return the report of a phantom, read back from its file."""
    given = made.assembled(phantoms.series(**attributes))
    draft = next(one for one in build(made.findings(given), {"ct": given}, made.run(made.model(folder / "model"))) if one.kind == "SR")
    (folder / "sr.dcm").write_bytes(encode(draft.dataset))
    return dcmread(folder / "sr.dcm")


def valid(draft: Any, folder: Path) -> Path:
    path = folder / "verified.dcm"
    path.write_bytes(encode(draft.dataset))
    assert check(path) == ()
    return path


@pytest.mark.parametrize("charset", [{}, {"SpecificCharacterSet": "ISO_IR 192", "PatientName": "Größe^Søren"}, {"TimezoneOffsetFromUTC": "+0530"}])
def test_a_verified_report_says_who_and_when_and_the_same(charset: dict[str, str], tmp_path: Path) -> None:
    """PS3.3 C.17.2: VERIFIED, a Verifying Observer with name, organization and time, the report as predecessor; a valid IOD; the same content."""
    original = report(tmp_path, **charset)
    again = dcmread(valid(verified(original, ANNA), tmp_path))
    assert (again.VerificationFlag, again.PreliminaryFlag, again.CompletionFlag) == ("VERIFIED", "FINAL", original.CompletionFlag)
    (observer,) = again.VerifyingObserverSequence
    assert (str(observer.VerifyingObserverName), observer.VerifyingOrganization) == ("Berg^Anna", "Klinikum Nord")
    assert len(observer.VerifyingObserverIdentificationCodeSequence) == 0
    assert observer.VerificationDateTime == f"{again.ContentDate}{again.ContentTime}{charset.get('TimezoneOffsetFromUTC', '')}"
    (study,) = again.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    (instance,) = series.ReferencedSOPSequence
    named = study.StudyInstanceUID, series.SeriesInstanceUID, instance.ReferencedSOPInstanceUID, instance.ReferencedSOPClassUID
    assert named == (original.StudyInstanceUID, original.SeriesInstanceUID, original.SOPInstanceUID, original.SOPClassUID)
    assert again.ContentSequence == original.ContentSequence
    assert again.CurrentRequestedProcedureEvidenceSequence == original.CurrentRequestedProcedureEvidenceSequence
    assert again.SOPInstanceUID not in (original.SOPInstanceUID, "") and again.SeriesInstanceUID != original.SeriesInstanceUID
    assert (again.PatientID, str(again.PatientName), again.StudyInstanceUID) == (
        original.PatientID,
        str(original.PatientName),
        original.StudyInstanceUID,
    )


def test_the_same_acceptance_gives_the_same_bytes(tmp_path: Path) -> None:
    """A retry must not give the archive two reports; another person, or another moment, is another report."""
    original = report(tmp_path)
    first, retry = encode(verified(original, ANNA).dataset), encode(verified(original, ANNA).dataset)
    assert first == retry
    others = Observer(name="Bo Dahl", organization="Klinikum Nord", at=ACCEPTED_AT), Observer(name="Anna Berg", organization="Klinikum Nord", at=1e9)
    assert len({verified(original, one).dataset.SOPInstanceUID for one in (ANNA, *others)}) == 3


def test_a_name_that_the_character_set_cannot_hold_is_spelled(tmp_path: Path) -> None:
    """The report's character set is the images': a name from elsewhere must not make it unreadable (PS3.3 C.12.1.1.2)."""
    by = Observer(name="Łukasz Żółć", organization="Szpital Świętokrzyski", at=ACCEPTED_AT)
    (observer,) = dcmread(valid(verified(report(tmp_path), by), tmp_path)).VerifyingObserverSequence
    assert str(observer.VerifyingObserverName).isascii() and str(observer.VerifyingObserverName).endswith("ukasz")
    assert observer.VerifyingOrganization == "Szpital Swietokrzyski"


@pytest.mark.parametrize(
    ("said", "written"),
    [("Anna Berg", "Berg^Anna"), ("Berg, Anna", "Berg^Anna"), ("Anna Maria Berg", "Berg^Anna Maria"), ("local", "local"), ("Berg^Anna", "Berg^Anna")],
)
def test_a_persons_name_has_its_family_name_first(said: str, written: str) -> None:
    """PS3.5 §6.2, VR PN."""
    assert person_name(said) == written


# ------------------------------------------------------------------------------------------------------------------- a node


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node that measured one study, and whose results go to a PACS."""
    one = Node(tmp_path, {"good": MODELS / "good"})
    yield one
    one.close()


def analysed(node: Node, seed: str = "one") -> Job:
    node.receive(phantoms.series(phantoms.marked(value=2000), seed=seed))
    (job,) = node.work()
    node.store.deliveries.send(job.id, "pacs", who="test", now=NOW)
    return job


def asking(node: Node) -> TestClient:
    clock = iter(NOW + 1000 + number for number in range(1000))
    return TestClient(build_web(context(node.site, node.store, lambda: next(clock))), base_url="http://127.0.0.1:8080", follow_redirects=False)


def writer(node: Node) -> Verifying:
    return Verifying(node.site, node.store, "writer", lambda: NOW + 5000)


def test_an_acceptance_becomes_a_verified_report_on_its_way(node: Node) -> None:
    """From the form to a result beside the others, delivered where the report went; written once, whoever looks again."""
    job = analysed(node)
    with asking(node) as client:
        answer = client.post(f"/jobs/{job.id}/feedback", data={"verdict": "accepted", "name": "Anna Berg", "comment": "as I see it"})
        assert (answer.status_code, answer.headers["location"]) == (303, f"/jobs/{job.id}")
        assert "Verified report: pending" in client.get(f"/jobs/{job.id}/feedback").text
        assert writer(node).once() and not writer(node).once()
        page = client.get(f"/jobs/{job.id}/feedback").text
        assert "Anna Berg" in page and "as I see it" in page and "Verified report: written" in page
    results = node.store.jobs.results(job.id)
    (report,) = (one for one in results if one.kind == VERIFIED)
    read = dcmread(node.store.archive.path(report.path))
    assert (read.VerificationFlag, str(read.VerifyingObserverSequence[0].VerifyingObserverName)) == ("VERIFIED", "Berg^Anna")
    assert (report.problem, report.sop_instance_uid, report.header["Modality"]) == ("", read.SOPInstanceUID, "SR")
    sent = [one for one in node.store.deliveries.list(job_id=job.id) if one.result.kind == VERIFIED]
    assert [(one.destination, one.state) for one in sent] == [("pacs", DeliveryState.PENDING)]
    told = {event.kind: event for event in node.store.journal.of_study(job.study_instance_uid)}
    assert told["accepted"].who == "local" and "verified" in told and "as I see it" not in str(told)


def test_what_a_person_verified_is_no_predecessor_of_what_an_algorithm_makes(node: Node) -> None:
    job = analysed(node)
    node.store.feedback.say(job.id, Verdict.ACCEPTED, who="anna", display_name="Anna", comment="", now=NOW + 1000, verify=True)
    assert writer(node).once()
    again = node.store.jobs.again(job.id, who="test", now=NOW + 6000)
    assert VERIFIED not in {one.kind for one in node.store.jobs.predecessors(again)}
    assert {one.kind for one in node.store.jobs.predecessors(again)} == {"SEG", "SR"}


def test_a_rejection_is_kept_and_nothing_is_written(node: Node) -> None:
    """It also stops what an acceptance asked for, as long as that is not written."""
    job = analysed(node)
    with asking(node) as client:
        client.post(f"/jobs/{job.id}/feedback", data={"verdict": "accepted"})
        client.post(f"/jobs/{job.id}/feedback", data={"verdict": "rejected", "comment": "wrong side"})
    assert not writer(node).once()
    said = node.store.feedback.of_job(job.id)
    assert [(one.verdict, one.verification) for one in said] == [(Verdict.ACCEPTED, VerificationState.DROPPED), (Verdict.REJECTED, None)]


def test_a_site_may_do_without_verified_reports(node: Node, tmp_path: Path) -> None:
    node.config.write_text(node.config.read_text() + "[feedback]\nverified_reports = false\n")
    from dicom_node.config import load_site  # noqa: PLC0415 - with the new key

    node.site = load_site(node.config)
    job = analysed(node)
    with asking(node) as client:
        assert "verified in your name" not in client.get(f"/jobs/{job.id}/feedback").text
        client.post(f"/jobs/{job.id}/feedback", data={"verdict": "accepted"})
    assert not writer(node).once()


def test_nothing_of_a_study_stays_that_is_removed_while_its_report_is_written(node: Node) -> None:
    """Its file names the patient, and no row would ever have it removed."""
    job = analysed(node)
    node.store.feedback.say(job.id, Verdict.ACCEPTED, who="anna", display_name="Anna", comment="", now=NOW + 1000, verify=True)
    moments = iter((NOW + 5000, NOW + 5001))

    def clock() -> float:
        now = next(moments)
        if now == NOW + 5001:  # it is written and checked, and not yet on record
            node.store.studies.purge(job.study_instance_uid, who="test", why="test", now=now)
        return now

    assert Verifying(node.site, node.store, "writer", clock).once()
    assert not [*(node.store.archive.root / "results").rglob("*.dcm")]


def test_a_report_that_is_gone_is_told_and_not_tried_for_ever(node: Node) -> None:
    job = analysed(node)
    with asking(node) as client:
        client.post(f"/jobs/{job.id}/feedback", data={"verdict": "accepted"})
    node.file(job).unlink()
    assert writer(node).once() and not writer(node).once()
    (said,) = node.store.feedback.of_job(job.id)
    assert said.verification is VerificationState.FAILED and "FileNotFoundError" in said.reason


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"data": {"verdict": "perhaps"}}, 400),
        ({"data": {"name": "Anna"}}, 400),
        ({"data": {"verdict": "commented", "comment": " \x00 "}}, 400),
        ({"data": {"verdict": "rejected", "comment": "x" * 2001}}, 400),
        ({"data": {"verdict": "accepted", "name": "x" * 65}}, 400),
        ({"content": b"verdict=accepted&" + b"a=1&" * 100, "headers": FORM}, 400),
        ({"content": b"\xff\xfe", "headers": FORM}, 400),
        ({"content": b"x" * 70_000, "headers": FORM}, 413),
        ({"json": {"verdict": "accepted"}}, 415),
    ],
)
def test_what_is_no_opinion_is_refused(node: Node, sent: dict[str, Any], status: int) -> None:
    job = analysed(node)
    with asking(node) as client:
        assert client.post(f"/jobs/{job.id}/feedback", **sent).status_code == status
        assert client.post("/jobs/99999999999999999999999/feedback", data={"verdict": "accepted"}).status_code == 404
        assert client.get("/jobs/4711/feedback").status_code == 404
    assert node.store.feedback.of_job(job.id) == ()


def test_a_comment_is_shown_as_it_was_typed_and_harms_nobody(node: Node) -> None:
    job = analysed(node)
    with asking(node) as client:
        asked = {"verdict": "commented", "comment": "<script>alert(1)</script>", "name": '"><b>'}
        answer = client.post(f"/jobs/{job.id}/feedback", data=asked, headers={"accept": "application/json"})
        assert (answer.status_code, answer.json()["comment"]) == (201, asked["comment"])
        page = client.get(f"/jobs/{job.id}/feedback").text
    assert "<script>" not in page and "&lt;script&gt;" in page and '"><b>' not in page


def test_a_job_that_made_nothing_takes_no_opinion(node: Node) -> None:
    job = analysed(node)
    again = node.store.jobs.again(job.id, who="test", now=NOW + 6000)
    with asking(node) as client:
        assert client.post(f"/jobs/{again.id}/feedback", data={"verdict": "accepted"}).status_code == 409
        assert "<form" not in client.get(f"/jobs/{again.id}/feedback").text


def test_agreement_is_told_by_version_with_its_interval(node: Node) -> None:
    """The latest verdict of each job counts; a comment is neither."""
    jobs = [analysed(node, f"study {number}") for number in range(3)]
    with asking(node) as client:
        for job, verdicts in zip(jobs, (["rejected", "accepted"], ["accepted", "commented"], ["rejected"]), strict=True):
            for verdict in verdicts:
                client.post(f"/jobs/{job.id}/feedback", data={"verdict": verdict, "comment": "so"})
        (told,) = client.get("/models/good/agreement").json()["versions"]
        assert client.get("/models/none/agreement").json()["versions"] == []
    assert (told["accepted"], told["rejected"], told["commented"]) == (2, 1, 3)
    assert told["share"] == pytest.approx(2 / 3) and told["interval_95"] == pytest.approx(wilson(2, 3))
    (row,) = node.verb("agreement", "--json").json
    assert (row["model"], row["accepted"], row["interval"]) == ("good", 2, pytest.approx(list(wilson(2, 3))))
    assert "67%" in node.verb("agreement").out and "no reader" in node.verb("agreement", "none").out
    shown = node.verb("show", jobs[0].id, "--json").json
    assert [one["verdict"] for one in shown["feedback"]] == ["REJECTED", "ACCEPTED"] and "comment" not in shown["feedback"][0]
    for job in jobs:  # what is purged goes on counting, and names nobody
        node.store.studies.purge(job.study_instance_uid, who="test", why="test", now=NOW)
    (row,) = node.verb("agreement", "--json").json
    assert (row["accepted"], row["rejected"], row["commented"]) == (2, 1, 3)


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (1, 1), (2, 3), (0, 40), (37, 40), (500, 1000)])
def test_the_interval_is_wilsons(successes: int, trials: int) -> None:
    """As scipy computes it."""
    expected = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-9)


# ------------------------------------------------------------------------------------------------------------------- kill -9

_KILLED = """
import os, signal, sys
from pathlib import Path
from dicom_node.config import load_site
from dicom_node.store import Archive, Feedback, Store
from dicom_node.work.verifying import Verifying

POINTS = {"claimed": (Feedback, "claim", "after"), "file": (Archive, "write_result", "after"),
          "before": (Feedback, "written", "before"), "after": (Feedback, "written", "after"), "": None}

def lay(owner, name, when):
    whole = getattr(owner, name)
    def fused(*args, **more):
        found = whole(*args, **more) if when == "after" else None
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(owner, name, fused)

for number, (point, fuse) in enumerate(POINTS.items()):
    child = os.fork()  # its libraries are loaded already; nothing is open yet
    if not child:
        if fuse:
            lay(*fuse)
        site = load_site(Path(sys.argv[1]))
        store = Store.of(site.config.node)
        now = float(sys.argv[2]) + 1000 * number
        verifying = Verifying(site, store, point, lambda: now)
        while verifying.once():
            pass
        store.close()
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.mark.slow
def test_whatever_kills_the_writer_the_report_is_written_once(node: Node) -> None:
    """Between any two promises: after the lease the next one writes it, and there is one result, one delivery, one file."""
    job = analysed(node)
    node.store.feedback.say(job.id, Verdict.ACCEPTED, who="anna", display_name="Anna Berg", comment="", now=NOW + 1000, verify=True)
    command = [sys.executable, "-W", "ignore", "-c", _KILLED, str(node.config), str(NOW + 2000)]
    done = subprocess.run(command, cwd=ROOT, check=True, timeout=240, capture_output=True, text=True)
    assert [line for line in done.stdout.splitlines() if line.lstrip("-").isdecimal()] == ["-9", "-9", "-9", "-9", "0"], done.stderr
    (made_once,) = (one for one in node.store.jobs.results(job.id) if one.kind == VERIFIED)
    assert len([one for one in node.store.deliveries.list(job_id=job.id) if one.result.kind == VERIFIED]) == 1
    folder = node.store.archive.path(made_once.path).parent
    assert [path.name for path in folder.glob("*VSR*")] == [Path(made_once.path).name]
    (said,) = node.store.feedback.of_job(job.id)
    assert said.verification is VerificationState.WRITTEN


def test_a_store_of_another_program_is_reached(node: Node) -> None:
    """What one process says another hears, by the ledger alone."""
    other = Store.of(node.site.config.node)
    job = analysed(node)
    other.feedback.say(job.id, Verdict.COMMENTED, who="b", display_name="B", comment="so", now=NOW, verify=True)
    assert json.dumps([one.who for one in node.store.feedback.of_job(job.id)]) == '["b"]'
    other.close()
