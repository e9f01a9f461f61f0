"""A marked patient walks through everything that can happen to a study, and is named in no log line, no file name and no word of a verb.

The identity is written into every attribute that a careless message would quote: some of it illegal, because libraries warn of what is illegal by
quoting it. One node, its storage and all its processes; everything is sent at once.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.config import disable_value_validation

from dicom_node.domain import Discontinuation, Job, JobState, StudyState
from dicom_node.simulate.pacs import BEHAVIOURS, Pacs
from dicom_node.simulate.scanner import push
from tests import phantoms, verbs
from tests.dcmtk import storescu
from tests.orthanc import free_ports
from tests.walks.node import Node, serving, wait_for

HERE = Path(__file__).parent
FAKES = HERE.parent / "models"

# Legal in one half of the studies, illegal in the other.
IDENTITY = {
    "PatientName": "Quixotry^Zephyrine",
    "PatientID": "PID-7Q4X9Z",
    "PatientBirthDate": "19430721",
    "AccessionNumber": "ACC7Q4X9Z",
    "OtherPatientNames": "Zephyrine^Maiden",
}
ILLEGAL = {
    "PatientName": "Quixotry^Zephyrine=quixotry\\Zephyrine",
    "PatientID": "PID-7Q4X9Z" * 8,
    "PatientBirthDate": "1943Q721",
    "PatientAge": "old",
    "PatientSex": "zephyrine",
    "AccessionNumber": "ACC7Q4X9Z-of-zephyrine",
    "StudyDate": "1943Q721",
    "LastMenstrualDate": "1943Q721",
    "InstitutionName": "zephyrine\n" * 8,
}
MARKS = ("quixotry", "zephyrine", "pid-7q4x9z", "7q4x9z", "19430721", "1943-07-21", "1943q721")

BODY_PARTS = {"CHEST": "marker", "PELVIS": "waits", "NECK": "declines", "KNEE": "talks", "ARM": "killed"}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("node")
    with Pacs(folder / "pacs") as pacs, Pacs(folder / "picky", ae_title="PICKY", behaviour=BEHAVIOURS["cannot-understand"]) as picky:
        remotes = {
            "scanner": {"ae": "SCANNER@127.0.0.1:104", "may": ["send"]},
            "viewer": {"ae": "VIEWER@127.0.0.1:104", "may": ["query"]},
            "pacs": {"ae": str(pacs.ae), "may": ["receive"]},
            "picky": {"ae": str(picky.ae), "may": ["receive"]},
        }
        rules: list[dict[str, Any]] = [
            {"name": part, "when": {"BodyPartExamined": part}, "analyse": [model], "deliver": ["pacs", "picky"]} for part, model in BODY_PARTS.items()
        ]
        asked = {"PatientName": "nobody", "PatientID": {"matches": "^nothing"}, "PatientBirthDate": {"max": 1}, "AccessionNumber": {"absent": True}}
        asked |= {"OtherPatientNames": {"contains": "nobody"}, "PatientAge": {"min": 200}, "PatientMotherBirthName": "nobody"}
        rules += [{"name": f"asks for {keyword}", "when": {keyword: value}, "analyse": ["marker"]} for keyword, value in asked.items()]
        # The ledger does not keep this date: it is read from the file, by another library.
        rules.append({"name": "asks for a date", "when": {"LastMenstrualDate": {"absent": False}, "Modality": "XX"}, "analyse": ["marker"]})
        models = {name: HERE / "models" / name for name in ("marker", "waits", "talks")} | {name: FAKES / name for name in ("declines", "killed")}
        with serving(folder, remotes=remotes, rules=rules, models=models, port=free_ports(1)[0]) as running:
            running.gate(shut=True)
            yield running


def images(seed: str, body_part: str, *, illegal: bool, **more: Any) -> list[Dataset]:
    identity = (IDENTITY | ILLEGAL if illegal else IDENTITY) | {"BodyPartExamined": body_part}
    return phantoms.series(seed=f"{seed} {body_part} {illegal}", **(identity | more))


def written(folder: Path, *studies: list[Dataset]) -> list[Path]:
    return [path for number, study in enumerate(studies) for path in phantoms.write(study, folder / str(number))]


@pytest.fixture(scope="module")
def walked(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Node:
    """Let everything happen that can happen to a study, and return the node."""
    folder = tmp_path_factory.mktemp("scanner")
    with disable_value_validation():
        studies = [images("study", part, illegal=illegal) for part in (*BODY_PARTS, "HAND") for illegal in (False, True)]
        studies += [
            images("invalid", "CHEST", illegal=True, SeriesInstanceUID="1.2.826.0.1.3680043.8.498.0199", StationName="Zephyrine" * 4),
            images("odd geometry", "CHEST", illegal=True, PixelSpacing=["0.80000000", "0.70000000"]),
            images("two patients", "CHEST", illegal=False),
        ]
        studies[-1][2].PatientID = "OTHER-7Q4X9Z"
        late = studies[0].pop()
        files = written(folder / "all", *studies)
        for path in files:
            path.write_bytes(path.read_bytes().replace(b"0.80000000\\", b"ZEPHYRINE \\"))  # where a number belongs
        node.send(files)
        _refused(node, folder / "refused")
        _imported(node, folder / "import")
        _canceled(node, *(str(study[0].StudyInstanceUID) for study in studies[2:4]))
        node.gate(shut=False)
        everything = [str(study[0].StudyInstanceUID) for study in studies]
        for uid in everything[:-1]:
            node.settled(uid)
        wait_for(lambda: node.study(everything[-1]).get("state") == StudyState.CONFLICT)
        node.send(written(folder / "late", [late]))
        node.settled(everything[0], revision=2)
    return node


def _refused(node: Node, folder: Path) -> None:
    """What cannot be parsed, what is not what it says, what has no UID, who may not send, and who is a stranger."""
    (path, *_) = written(folder, images("refused", "CHEST", illegal=False))
    whole = path.read_bytes()
    bad = {
        "cut": whole[: whole.index(b"Quixotry") + 12],
        "other": whole.replace(b"\x08\x00\x18\x00UI", b"\x08\x00\x19\x00UI", 1),  # no SOP Instance UID
        "study": whole.replace(b"\x20\x00\x0d\x00UI", b"\x20\x00\x0c\x00UI", 1),
    }
    for name, content in bad.items():
        (folder / f"{name}.dcm").write_bytes(content)
        assert push([folder / f"{name}.dcm"], node.ae).failed
    assert push([path], node.ae, calling_ae="VIEWER").failed
    assert storescu([path], node.ae, calling_ae="STRANGER").returncode != 0


def _imported(node: Node, folder: Path) -> None:
    (path, *_) = written(folder, images("imported", "HAND", illegal=True))
    (folder / "cut.dcm").write_bytes(path.read_bytes()[: path.read_bytes().index(b"Quixotry") + 12])
    said = node.verb("import", folder)
    assert "8 new, 1 refused" in said.out
    nobody(said)


def _canceled(node: Node, *uids: str) -> None:
    """Cancel the job that waits at the gate, whichever study was judged first: the other waits for its model."""

    def at_the_gate() -> Job | None:
        return next((job for uid in uids for job in node.jobs(uid) if job.note == "waits at the gate"), None)

    job: Job = wait_for(at_the_gate, says=lambda: [node.jobs(uid) for uid in uids])
    nobody(node.verb("show", job.id), node.verb("jobs"), node.verb("cancel", job.id))
    wait_for(lambda: node.store.jobs.get(job.id).state is JobState.CANCELED)  # else the gate opens, and it is quicker


def nobody(*texts: verbs.Said | str) -> None:
    """See that nobody is named."""
    for text in texts:
        words = text if isinstance(text, str) else text.all
        low = words.casefold()
        for mark in MARKS:
            assert mark not in low, f"…{words[max(low.index(mark) - 300, 0) : low.index(mark) + 100]}…"


@pytest.mark.slow
def test_everything_that_can_happen_has_happened(walked: Node) -> None:
    """Else the searches below would find nothing because there was nothing."""
    ended = {(job.model, str(job.state), job.discontinuation) for job in walked.store.jobs.list(limit=1000)}
    assert ended >= {
        ("marker", JobState.COMPLETED, None),
        ("marker", JobState.CANCELED, Discontinuation.INVALID),
        ("waits", JobState.COMPLETED, None),
        ("waits", JobState.CANCELED, Discontinuation.STOPPED),
        ("declines", JobState.CANCELED, Discontinuation.DECLINED),
        ("talks", JobState.CANCELED, Discontinuation.FAILED),
        ("killed", JobState.CANCELED, Discontinuation.FAILED),
    }
    assert walked.store.studies.counts().keys() == {StudyState.COMPLETE, StudyState.CONFLICT}
    assert {row["source"] for row in walked.store.instances.quarantined()} == {"SCANNER", "import", "marker"}
    assert walked.store.deliveries.counts()["picky"].keys() == {"DEAD"}


@pytest.mark.slow
def test_no_log_line_names_the_patient(walked: Node) -> None:
    """Of the listening, the analysing and every model's process."""
    told = ("receive.refused", "study complete", "study held", "job completed", "job failed", "job declined", "job stopped", "results quarantined")
    for event in (*told, "model_said", "deliver.given_up"):
        assert f'"event": "{event}"' in walked.log, event
    nobody(walked.log)


@pytest.mark.slow
def test_no_file_name_below_the_storage_names_the_patient(walked: Node) -> None:
    """What a backup, a listing or an error message of the system would show."""
    names = [str(path.relative_to(walked.store.archive.root)) for path in walked.store.archive.root.rglob("*")]
    assert len(names) > 100
    nobody("\n".join(names))


@pytest.mark.slow
def test_no_word_of_a_verb_names_the_patient(walked: Node, tmp_path: Path) -> None:
    """Listings, walks, explanations and errors, for people and for programs."""
    nobody(*(walked.verb(verb, *form) for verb in ("status", "studies", "jobs", "deliveries", "models") for form in ((), ("--json",))))
    nobody(walked.verb("show", "quarantine"), walked.verb("show", "quarantine", "--json"))
    nobody(walked.verb("export", "--measurements", tmp_path / "all.csv", "--json"), (tmp_path / "all.csv").read_text())
    for row in walked.store.studies.list(limit=1000):
        uid = row["study_instance_uid"]
        nobody(*(walked.verb(verb, uid, *form) for verb in ("show", "explain") for form in ((), ("--json",))))
    for job in walked.store.jobs.list(limit=1000):
        nobody(walked.verb("show", job.id), walked.verb("show", job.id, "--json"), walked.verb("retry", job.id) if job.model == "declines" else "")
    with disable_value_validation():
        written(tmp_path, images("tried", "CHEST", illegal=True))
    nobody(walked.verb("explain", tmp_path), walked.verb("explain", tmp_path, "--json"))
    tried = [verbs.run("try", HERE / "models" / model, tmp_path, "-o", tmp_path / model) for model in ("marker", "talks")]
    assert [said.code for said in tried] == [0, 1]
    nobody(*tried)
