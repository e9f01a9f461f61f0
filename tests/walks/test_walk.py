"""A study goes in, SEG and SR come out: the whole node as its own processes, between real peers.

One node, one Orthanc and one DCMTK storage SCP serve all tests; every test brings a study of its own, and the body part decides which rule meets it.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from pydicom import Dataset, dcmread
from pydicom.config import disable_value_validation

from dicom_node.config import bundled
from dicom_node.domain import AE, DeliveryState, Discontinuation, Job, JobState, StudyState, derived_uid
from dicom_node.report import check
from dicom_node.simulate.pacs import Pacs
from tests import drawn, phantoms
from tests.dcmtk import storescp, storescu
from tests.orthanc import ask, free_ports, orthanc
from tests.peers import need
from tests.walks.node import DEFAULTS, Node, serving, wait_for

HERE = Path(__file__).parent
FAKES = HERE.parent / "models"
MARKER = (2, 5, 14)  # the first voxel of the phantom's bright block, 2 x 3 x 4 voxels
SPACING_MM = (2.5, 0.8, 0.7)

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@dataclass(frozen=True)
class House:
    """The node and the peers around it."""

    node: Node
    archive: Path  # what DCMTK's storage SCP has received, a file for each SOP Instance UID
    orthanc: AE
    rest: str  # Orthanc's REST API
    second: Pacs

    def archived(self, sop_instance_uid: str) -> Path:
        """Return the file of an object in the archive."""
        return next(path for path in self.archive.iterdir() if path.name.endswith(sop_instance_uid))


def _rule(body_part: str, model: str, *deliver: str) -> dict[str, Any]:
    when = {"Modality": "CT", "BodyPartExamined": body_part}
    return {"name": f"{body_part} gets {model}", "when": when, "analyse": [model], "deliver": deliver}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Run the node between its peers; whatever the tests did, no patient may be named in its log afterwards."""
    folder = tmp_path_factory.mktemp("house")
    port = free_ports(1)[0]
    here = AE("DICOM_NODE", "127.0.0.1", port)
    with (
        storescp(folder / "archive") as archive,
        orthanc(folder / "orthanc", remotes={"node": here}) as (pacs, rest),
        Pacs(folder / "second", ae_title="SECOND") as second,
    ):
        remotes = {
            "scanner": {"ae": "SCANNER@127.0.0.1:104", "may": ["send"]},
            "archive": {"ae": str(archive), "may": ["receive"], "reject_superseded": True},
            "orthanc": {"ae": str(pacs), "may": ["send", "receive"]},
            "second": {"ae": str(second.ae), "may": ["receive"]},
        }
        rules = [
            _rule("CHEST", "marker", "archive"),
            _rule("HEAD", "marker", "orthanc"),
            _rule("PELVIS", "waits", "archive"),
            _rule("NECK", "declines", "archive"),
            _rule("KNEE", "raises", "archive"),
            {
                "name": "regions that others drew are measured",
                "when": {"Modality": "SEG", "Manufacturer": {"none": ["dicom-node project"]}},
                "derived": True,
                "analyse": ["measure"],
                "deliver": ["archive"],
            },
        ]
        models = {name: HERE / "models" / name for name in ("marker", "waits")} | {name: FAKES / name for name in ("declines", "raises")}
        models["measure"] = bundled("models") / "measure"
        with serving(folder, remotes=remotes, rules=rules, models=models, port=port) as node:
            yield House(node, folder / "archive", pacs, rest, second)
            assert [mark for mark in ("Marked", "MARKED", "19500102") if mark in node.log] == []


def images(seed: str, body_part: str = "CHEST", **how: Any) -> list[Dataset]:
    """Return one small series with the marker in it."""
    return phantoms.series(seed=seed, spacing_mm=SPACING_MM, BodyPartExamined=body_part, **how)


def truth(orientation: str = "axial") -> np.ndarray:
    """Return the centre of the marker in the patient's millimetres."""
    centre = [start + (size - 1) / 2 for start, size in zip(MARKER, (2, 3, 4), strict=True)]
    return (phantoms.affine(orientation, SPACING_MM) @ [*centre, 1])[:3]


def uid_of(images: list[Dataset]) -> str:
    return str(images[0].StudyInstanceUID)


def data_set(path: Path) -> bytes:
    """Return a file's data set, without preamble and meta information."""
    data = path.read_bytes()
    return data[144 + int.from_bytes(data[140:144], "little") :]


def concept(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue) if "ConceptNameCodeSequence" in item else ""


def numbers(sr: Dataset) -> dict[str, float]:
    """Return every number of a report by the code of its concept."""
    found = {}
    for item in sr.iterall():
        if item.keyword == "ContentSequence":
            found |= {concept(one): float(one.MeasuredValueSequence[0].NumericValue) for one in item.value if one.ValueType == "NUM"}
    return found


def centre(sr: Dataset) -> list[float]:
    said = numbers(sr)
    return [said["LEFT"], said["POSTERIOR"], said["SUPERIOR"]]


def run(*command: object) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def beside(program: str) -> str:
    path = Path(sys.executable).parent / program
    return str(path) if path.is_file() else need(program)


# ------------------------------------------------------------------------------------------------------ from DCMTK to DCMTK


def test_a_study_sent_by_dcmtk_comes_back_to_dcmtk_as_seg_and_sr(house: House, tmp_path: Path) -> None:
    """PS3.4 Annex B on both sides: what arrives is valid by dciodvfy and is, byte for byte, what the node made."""
    made = images("dcmtk")
    sent = storescu(phantoms.write(made, tmp_path), house.node.ae)
    assert sent.returncode == 0, sent.stdout
    (job,) = house.node.settled(uid_of(made))
    assert job.state is JobState.COMPLETED, job.reason
    results = house.node.results(job)
    assert set(results) == {"SEG", "SR"}
    for one in results.values():
        arrived = house.archived(one.sop_instance_uid)
        assert data_set(arrived) == data_set(house.node.file(one))
        assert check(arrived) == ()
        assert dcmread(arrived).StudyInstanceUID == uid_of(made)
    assert centre(dcmread(house.archived(results["SR"].sop_instance_uid))) == pytest.approx(truth(), abs=0.01)
    assert house.node.kinds(uid_of(made))[:3] == ["first instance", "complete", "scheduled"]
    [held] = house.node.store.holdings.find("STUDY", {"StudyInstanceUID": uid_of(made)})
    assert (held["ModalitiesInStudy"], held["NumberOfStudyRelatedInstances"]) == (["CT", "SEG", "SR"], len(made) + 2)


# -------------------------------------------------------------------------------------------------- from Orthanc to Orthanc


@dataclass(frozen=True)
class InOrthanc:
    """An oblique study that Orthanc sent to the node, and what came back to it."""

    uid: str
    key: str  # Orthanc's own name of the study
    job: Job
    series: dict[str, str]  # modality -> Orthanc's name of the series
    objects: dict[str, Path]  # SEG and SR, as downloaded


@pytest.fixture(scope="module")
def in_orthanc(house: House, tmp_path_factory: pytest.TempPathFactory) -> InOrthanc:
    made, folder = images("orthanc", "HEAD", orientation="oblique"), tmp_path_factory.mktemp("orthanc")
    for path in phantoms.write(made, folder):
        key = upload(house.rest, path)["ParentStudy"]
    to_node(house, key)
    (job,) = house.node.settled(uid_of(made))
    assert job.state is JobState.COMPLETED, job.reason
    series = {ask(f"{house.rest}/series/{one}")["MainDicomTags"]["Modality"]: one for one in ask(f"{house.rest}/studies/{key}")["Series"]}
    objects = {}
    for modality in set(series) & {"SEG", "SR"}:
        (instance,) = ask(f"{house.rest}/series/{series[modality]}")["Instances"]
        objects[modality] = folder / f"{modality}.dcm"
        objects[modality].write_bytes(ask(f"{house.rest}/instances/{instance}/file"))
    return InOrthanc(uid_of(made), key, job, series, objects)


def upload(rest: str, path: Path) -> dict[str, Any]:
    import urllib.request

    with urllib.request.urlopen(urllib.request.Request(f"{rest}/instances", data=path.read_bytes()), timeout=30) as answer:
        return json.loads(answer.read())


def to_node(house: House, *keys: str) -> None:
    """Let Orthanc send studies or series to the node, and see them all acknowledged."""
    said = ask(f"{house.rest}/modalities/node/store", {"Resources": list(keys), "Synchronous": True})
    assert said["FailedInstancesCount"] == 0, said


def test_orthanc_lists_the_results_beside_their_images(in_orthanc: InOrthanc) -> None:
    """The results belong to the study that Orthanc sent, each in a series of its own."""
    assert set(in_orthanc.series) == {"CT", "SEG", "SR"}
    for path in in_orthanc.objects.values():
        assert check(path) == ()


def test_dcmqi_reads_back_from_orthanc_the_voxels_that_the_model_marked(in_orthanc: InOrthanc, tmp_path: Path) -> None:
    """segimage2itkimage: the marker of an oblique phantom lies, voxel for voxel, where the phantom has it."""
    run(beside("segimage2itkimage"), "--inputDICOM", in_orthanc.objects["SEG"], "--outputDirectory", tmp_path, "--outputType", "nrrd")
    (path,) = tmp_path.glob("*.nrrd")
    image = SimpleITK.ReadImage(str(path))
    found = np.array([image.TransformIndexToPhysicalPoint(tuple(map(int, one[::-1]))) for one in np.argwhere(SimpleITK.GetArrayFromImage(image))])
    indices = np.argwhere(phantoms.marked() == 1024)
    expected = indices @ phantoms.affine("oblique", SPACING_MM)[:3, :3].T + phantoms.affine("oblique", SPACING_MM)[:3, 3]
    assert len(found) == len(expected) == 24
    assert np.linalg.norm(found[:, None] - expected[None], axis=2).min(axis=1).max() < 0.02


def test_dcmqi_reads_back_from_orthanc_the_numbers_that_the_model_found(in_orthanc: InOrthanc, tmp_path: Path) -> None:
    """tid1500reader: value and unit of each measurement, tied to the segment in the segmentation that Orthanc holds."""
    run(beside("tid1500reader"), "--inputDICOM", in_orthanc.objects["SR"], "--outputMetadata", tmp_path / "sr.json")
    (group,) = json.loads((tmp_path / "sr.json").read_text())["Measurements"]
    assert (group["ReferencedSegment"], group["segmentationSOPInstanceUID"]) == (1, dcmread(in_orthanc.objects["SEG"]).SOPInstanceUID)
    read = {item["quantity"]["CodeValue"]: (float(item["value"]), item["units"]["CodeValue"]) for item in group["measurementItems"]}
    left, posterior, superior = (pytest.approx(value, abs=0.01) for value in truth("oblique"))
    assert read == {
        "118565006": (pytest.approx(24 * np.prod(SPACING_MM) / 1000), "mL"),
        "LEFT": (left, "mm"),
        "POSTERIOR": (posterior, "mm"),
        "SUPERIOR": (superior, "mm"),
    }


def test_the_marker_of_an_oblique_phantom_returns_to_its_side(in_orthanc: InOrthanc) -> None:
    """A mirrored result is the most dangerous defect: in SEG and SR the marker is within half a voxel of where the phantom has it."""
    seg = dcmread(in_orthanc.objects["SEG"])
    points = []
    for frame, plane in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array.reshape(-1, seg.Rows, seg.Columns), strict=True):
        position = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        shared = seg.SharedFunctionalGroupsSequence[0]
        cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
        spacing = np.array(shared.PixelMeasuresSequence[0].PixelSpacing, float)
        points += [position + cosines[:3] * column * spacing[1] + cosines[3:] * row * spacing[0] for row, column in np.argwhere(plane)]
    half_a_voxel_mm = min(SPACING_MM) / 2
    assert np.linalg.norm(np.mean(points, axis=0) - truth("oblique")) < half_a_voxel_mm
    assert np.linalg.norm(np.array(centre(dcmread(in_orthanc.objects["SR"]))) - truth("oblique")) < half_a_voxel_mm


def test_the_nodes_own_results_sent_back_by_the_pacs_start_nothing(house: House, in_orthanc: InOrthanc) -> None:
    """The loop guard: the study is judged again, every rule says why not, and no job is made."""
    revision = house.node.study(in_orthanc.uid)["revision"]
    to_node(house, in_orthanc.series["SEG"], in_orthanc.series["SR"])
    assert [job.id for job in house.node.settled(in_orthanc.uid, revision=revision + 1)] == [in_orthanc.job.id]
    assert house.node.study(in_orthanc.uid)["series"] == 3
    rule = next(one for one in house.node.verb("explain", in_orthanc.uid, "--json").json["rules"] if one["rule"] == "HEAD gets marker")
    assert len(rule["matched"]) == 1
    assert all("it is derived from images, and the rule does not ask for derived objects" in said for said in rule["objections"].values())
    assert len(rule["objections"]) == 2


# ------------------------------------------------------------------------------------------------------ a study that grows


def test_a_late_slice_leads_to_a_new_attempt_that_names_its_predecessor(house: House, tmp_path: Path) -> None:
    """PS3.3 C.18.2: the study reopens, the new report names the old one, and the old objects stay as they are at the destination.

    There a note rejects them (IHE IOCM), for the remote has `reject_superseded`.
    """
    made = images("late")
    paths = phantoms.write(made, tmp_path)
    house.node.send(paths[:-1])
    (first,) = house.node.settled(uid_of(made))
    before = {one.sop_instance_uid: house.archived(one.sop_instance_uid).read_bytes() for one in house.node.results(first).values()}
    house.node.send(paths[-1:])
    _, second = house.node.settled(uid_of(made), revision=2)
    assert (second.state, second.predecessor_id, len(second.inputs["ct"])) == (JobState.COMPLETED, first.id, 8)
    old, new = house.node.results(first), house.node.results(second)
    assert {one.sop_instance_uid for one in old.values()}.isdisjoint(one.sop_instance_uid for one in new.values())
    report = dcmread(house.archived(new["SR"].sop_instance_uid))
    (predecessor,) = report.PredecessorDocumentsSequence
    (named,) = predecessor.ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert named.ReferencedSOPInstanceUID == old["SR"].sop_instance_uid
    assert before == {uid: house.archived(uid).read_bytes() for uid in before}
    (of_study,) = dcmread(house.archived(new["REJ"].sop_instance_uid)).CurrentRequestedProcedureEvidenceSequence
    rejected = {item.ReferencedSOPInstanceUID for series in of_study.ReferencedSeriesSequence for item in series.ReferencedSOPSequence}
    assert rejected == set(before)
    assert "reopened" in house.node.kinds(uid_of(made))


def test_what_is_sent_again_unchanged_is_no_new_work(house: House, tmp_path: Path) -> None:
    """Success, and nothing else happens: no version, no judgement, no job."""
    made = images("again")
    paths = phantoms.write(made, tmp_path)
    house.node.send(paths)
    (job,) = house.node.settled(uid_of(made))
    told = house.node.store.journal.of_study(uid_of(made))
    house.node.send(paths)
    later = images("after again")
    house.node.send(phantoms.write(later, tmp_path / "later"))
    house.node.settled(uid_of(later))  # by now the other would have been judged again
    assert house.node.jobs(uid_of(made)) == (job,)
    assert house.node.store.journal.of_study(uid_of(made)) == told


def test_other_content_under_the_same_uid_is_kept_beside_the_first_and_analysed(house: House, tmp_path: Path) -> None:
    """Both versions stay on disk, the newer is current, and a new attempt uses it."""
    made = images("version")
    house.node.send(phantoms.write(made, tmp_path / "first"))
    (first,) = house.node.settled(uid_of(made))
    stored = phantoms.marked()
    stored[MARKER] = 30  # one voxel less of the marker
    other = images("version", array=stored)[MARKER[0]]
    (path,) = phantoms.write([other], tmp_path / "second")
    house.node.send([path])
    _, second = house.node.settled(uid_of(made), revision=2)
    old, new = (house.node.store.instances.by_ids(job.inputs["ct"])[MARKER[0]] for job in (first, second))
    assert (old.sop_instance_uid, old.version) == (new.sop_instance_uid, 1)
    assert new.version == 2
    assert [data_set(path) for path in house.node.store.instances.bring([old, new])] == [data_set(tmp_path / "first" / "0002.dcm"), data_set(path)]
    volumes = [numbers(dcmread(house.archived(house.node.results(job)["SR"].sop_instance_uid)))["118565006"] for job in (first, second)]
    assert volumes == pytest.approx([24 * np.prod(SPACING_MM) / 1000, 23 * np.prod(SPACING_MM) / 1000], abs=1e-4)
    assert "new version" in house.node.kinds(uid_of(made))


# ---------------------------------------------------------------------------------------------- studies that get no analysis


def test_a_study_that_no_rule_meets_is_visible_with_every_reason(house: House, tmp_path: Path) -> None:
    """Nothing is silent: listing, walk and explanation say that nothing runs, and for each rule why."""
    made = images("unmatched", "HAND")
    house.node.send(phantoms.write(made, tmp_path))
    assert house.node.settled(uid_of(made)) == ()
    row = next(one for one in house.node.verb("studies", "--json").json if one["study_instance_uid"] == uid_of(made))
    assert (row["state"], row["jobs"], row["instances"]) == ("COMPLETE", {}, 8)
    explained = house.node.verb("explain", uid_of(made), "--json").json
    assert explained["why"] == "no analysis: no rule matches this study"
    assert [one["rule"].split()[0] for one in explained["rules"]] == ["CHEST", "HEAD", "PELVIS", "NECK", "KNEE", "regions"]
    *by_part, of_regions = explained["rules"]
    for one in by_part:
        assert one["objections"] == {made[0].SeriesInstanceUID: [f"BodyPartExamined is HAND, not {one['rule'].split()[0]}"]}
    assert of_regions["objections"] == {made[0].SeriesInstanceUID: ["Modality is CT, not SEG"]}
    shown = house.node.verb("show", uid_of(made), "--json").json
    (complete,) = [event for event in shown["events"] if event["kind"] == "complete"]
    assert complete["detail"]["rules"] == explained["rules"]
    assert "BodyPartExamined is HAND" in house.node.verb("show", uid_of(made)).out


def test_a_study_that_names_two_patients_is_held(house: House, tmp_path: Path) -> None:
    """Nothing runs on it until it is put right at the source, and it stands among what is stuck."""
    made = images("two patients")
    made[3].PatientID = "MARKED-OTHER"
    house.node.send(phantoms.write(made, tmp_path))
    row = wait_for(lambda: (found := house.node.study(uid_of(made))) and found["state"] != StudyState.OPEN and found)
    assert (row["state"], row["jobs"]) == (StudyState.CONFLICT, {})
    stuck = {one["what"]: one["why"] for one in house.node.verb("status", "--json").json["stuck"]}
    assert "2 patients" in stuck[f"study {uid_of(made)}"]
    assert "MARKED" not in stuck[f"study {uid_of(made)}"]


# -------------------------------------------------------------------------------------------------- analyses that do not end well


def test_a_model_that_declines_ends_its_job_with_its_sentence(house: House, tmp_path: Path) -> None:
    """Declining is an answer, not a failure: one attempt, CANCELED, nothing sent."""
    made = images("declines", "NECK")
    house.node.send(phantoms.write(made, tmp_path))
    (job,) = house.node.settled(uid_of(made))
    assert (job.state, job.discontinuation, job.attempts) == (JobState.CANCELED, Discontinuation.DECLINED, 1)
    assert job.reason == "The spleen is not in the image."
    assert house.node.verb("show", job.id, "--json").json["deliveries"] == []


def test_a_model_that_fails_is_tried_again_after_a_pause_and_then_given_up(house: House, tmp_path: Path) -> None:
    """As often as work.attempts says, each time after the back-off; then CANCELED, with what the model raised and where."""
    made = images("fails", "KNEE")
    house.node.send(phantoms.write(made, tmp_path))
    (job,) = house.node.settled(uid_of(made))
    assert (job.state, job.discontinuation, job.attempts) == (JobState.CANCELED, Discontinuation.FAILED, 2)
    assert job.reason.startswith("the model raised LinAlgError")
    assert "at analysis.py:" in job.reason
    told = [event for event in house.node.store.journal.of_study(uid_of(made)) if event.job_id == job.id]
    assert [event.kind for event in told] == ["scheduled", "claimed", "scheduled", "claimed", "canceled (failed)"]
    assert told[3].at - told[2].at >= DEFAULTS["work"]["backoff_s"]


def test_a_result_that_is_not_valid_is_quarantined_and_never_sent(house: House, tmp_path: Path) -> None:
    """Promise 2: results must name their images, and a device that writes UIDs with leading zeros (PS3.5 §9.1) leaves no valid way to."""
    with disable_value_validation():
        made = images("invalid", SeriesInstanceUID="1.2.826.0.1.3680043.8.498.0199")
        paths = phantoms.write(made, tmp_path)
    house.node.send(paths)
    (job,) = house.node.settled(uid_of(made))
    assert (job.state, job.discontinuation) == (JobState.CANCELED, Discontinuation.INVALID)
    assert "in quarantine" in job.reason
    results = house.node.results(job)
    assert set(results) == {"SEG", "SR"}
    quarantined = {row["sop_instance_uid"]: row["reason"] for row in house.node.verb("show", "quarantine", "--json").json}
    assert "Leading zeroes" in quarantined[results["SEG"].sop_instance_uid]
    assert house.node.store.deliveries.list(job_id=job.id) == ()
    assert not [path for path in house.archive.iterdir() for one in results.values() if path.name.endswith(one.sop_instance_uid)]


# ---------------------------------------------------------------------------------------------------------- people step in


@pytest.fixture
def gate(house: House) -> Iterator[Node]:
    """Shut the gate at which the model `waits` waits; open it at the end."""
    house.node.gate(shut=True)
    yield house.node
    house.node.gate(shut=False)


def waiting_at_the_gate(node: Node, uid: str) -> Job:
    """Wait until the study's newest job runs, and has said so."""
    (newest,) = wait_for(lambda: [job for job in node.jobs(uid)[-1:] if job.note == "waits at the gate"], says=lambda: node.log[-2000:])
    return newest


def test_a_person_cancels_a_running_job_and_runs_it_again(gate: Node, tmp_path: Path) -> None:
    """The model's process is stopped; the new attempt is a job of its own, after the first."""
    made = images("cancel", "PELVIS")
    gate.send(phantoms.write(made, tmp_path))
    job = waiting_at_the_gate(gate, uid_of(made))
    assert job.progress == pytest.approx(0.475)
    assert gate.verb("cancel", job.id).out == f"job {job.id} is asked to stop\n"
    (stopped,) = gate.settled(uid_of(made))
    assert (stopped.state, stopped.discontinuation) == (JobState.CANCELED, Discontinuation.STOPPED)
    assert stopped.reason == "a person canceled it"
    gate.gate(shut=False)
    said = gate.verb("retry", job.id)
    assert said.code == 0, said.err
    _, again = wait_for(lambda: len(gate.jobs(uid_of(made))) == 2 and gate.settled(uid_of(made)))
    assert (again.state, again.predecessor_id) == (JobState.COMPLETED, job.id)
    assert {one.state for one in gate.store.deliveries.list(job_id=again.id)} == {DeliveryState.SENT}


def test_a_job_whose_worker_was_killed_is_done_by_the_next(gate: Node, tmp_path: Path) -> None:
    """kill -9 of the analysing process: `serve` starts another, the lease ends, and the job runs again."""
    made = images("killed", "PELVIS")
    gate.send(phantoms.write(made, tmp_path))
    job = waiting_at_the_gate(gate, uid_of(made))
    gate.kill_worker()
    gate.gate(shut=False)
    (done,) = gate.settled(uid_of(made))
    assert (done.id, done.state, done.attempts) == (job.id, JobState.COMPLETED, 2)
    assert done.worker != job.worker
    taken = next(event for event in gate.store.journal.of_study(uid_of(made)) if event.kind == "scheduled" and event.who == "clock")
    assert "was silent for more than" in taken.why


def test_results_go_to_one_more_remote_when_a_person_asks(house: House, tmp_path: Path) -> None:
    """The same bytes as the first destination got; asked twice, they are sent once."""
    made = images("send")
    house.node.send(phantoms.write(made, tmp_path))
    (job,) = house.node.settled(uid_of(made))
    assert house.node.verb("send", job.id, "second").out == "2 results are queued for second\n"
    uids = {one.sop_instance_uid for one in house.node.results(job).values()}
    assert house.second.wait(lambda kept: uids <= set(kept), 60)
    assert house.node.verb("send", job.id, "second").out == "0 results are queued for second\n"
    for one in house.node.results(job).values():
        assert sha256(data_set(house.second.instances()[one.sop_instance_uid].path)).digest() == sha256(data_set(house.node.file(one))).digest()


def test_imported_files_walk_like_received_ones_until_they_are_purged(house: House, tmp_path: Path) -> None:
    """By the same door, while the node serves; after the purge no file of the study is left, and the journal says so."""
    made = images("import")
    phantoms.write(made, tmp_path / "cd")
    (tmp_path / "cd" / "README.TXT").write_text("This is no DICOM file.")
    said = house.node.verb("import", tmp_path / "cd")
    assert (said.code, said.out) == (1, "8 new, 1 refused\n")
    assert said.err.startswith("README.TXT: Not a DICOM file")
    (job,) = house.node.settled(uid_of(made))
    files = [house.node.store.archive.path(one.path) for one in house.node.store.studies.view(uid_of(made)).instances]
    files += [house.node.file(one) for one in house.node.results(job).values()]
    files.append(house.node.store.archive.path(job.picture))
    assert all(path.is_file() for path in files)
    assert house.node.verb("purge", uid_of(made)).out == "11 files removed\n"
    assert not [path for path in files if path.exists()]
    assert house.node.study(uid_of(made)) == {}
    assert house.node.kinds(uid_of(made)) == ["purged"]


def test_a_segmentation_that_arrives_with_its_images_is_measured(house: House, tmp_path: Path) -> None:
    """A reader's regions and the images that they lie on come in one study: a report that refers to them goes out, and nothing is drawn."""
    sent = images("measured", "SPINE")
    mask = np.zeros((*np.shape(phantoms.marked()), 1), np.uint8)
    mask[(*phantoms.block(MARKER), 0)] = 1
    seg = drawn.segmentation(sent, mask, seed="measured regions")
    paths = [*phantoms.write(sent, tmp_path / "study"), tmp_path / "study" / "regions.dcm"]
    seg.save_as(paths[-1], enforce_file_format=True)
    assert storescu(paths, house.node.ae).returncode == 0
    (job,) = house.node.settled(uid_of(sent))
    assert (job.model, job.state) == ("measure", JobState.COMPLETED), job.reason
    results = house.node.results(job)
    assert set(results) == {"SR"}
    sr = dcmread(house.archived(results["SR"].sop_instance_uid))
    assert numbers(sr)["118565006"] == pytest.approx(2 * 3 * 4 * np.prod(SPACING_MM) / 1000, abs=0.0005)
    assert seg.SOPInstanceUID in {str(item.value) for item in sr.iterall() if item.keyword == "ReferencedSOPInstanceUID"}


def test_a_stranger_is_refused(house: House, tmp_path: Path) -> None:
    """PS3.8 9.3.4: an AE that no remote names may not associate; nothing of what it wanted to send is here."""
    made = images("stranger")
    assert storescu(phantoms.write(made, tmp_path), house.node.ae, calling_ae="STRANGER").returncode != 0
    assert house.node.study(uid_of(made)) == {}
    assert derived_uid("stranger", "study") == uid_of(made)
