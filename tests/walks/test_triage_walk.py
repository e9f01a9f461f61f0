"""A whole node finds something, and those who read find the study first: by UPS, among the node's jobs, and in Modality Worklist."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from dicom_node.domain import AE, JobState, Priority
from tests import phantoms
from tests.orthanc import free_ports
from tests.peers import need
from tests.walks.node import Node, serving, wait_for
from tests.walks.upsing import GLOBAL, QUERY, Asking, Watcher, watcher
from tests.worklists import entry, write

MODELS = Path(__file__).parent / "models"
STEP = "ScheduledProcedureStepSequence[0]."
RULES = [
    {"name": "pelves", "when": {"BodyPartExamined": "PELVIS"}, "analyse": ["marker", "waits"], "priority": "LOW"},
    {"name": "heads", "when": {"BodyPartExamined": "HEAD"}, "analyse": ["waits"]},
]
TRIAGE = {
    "name": "a large marker",
    "findings": [{"concept": "Volume", "model": "marker", "min": 0.001}],
    "workitem": ["READFIRST", "99HOSPITAL", "Read this study first"],
    "jobs": True,
    "worklist_comment": "AI (UNVERIFIED, research use) asks to look at this first.",
}

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


def images(seed: str, **said: str) -> list[Dataset]:
    return phantoms.series(phantoms.marked((6, 24, 24), (2, 5, 14), value=2000), seed=seed, **said)


def findscu(to: AE, folder: Path) -> dict[str, Dataset]:
    """Ask for the worklist as DCMTK does, and return what it was answered by accession number."""
    folder.mkdir()
    keys = ("AccessionNumber", "PatientID", "StudyInstanceUID", "RequestedProcedureComments", "ReportingPriority", f"{STEP}Modality")
    asked = [word for key in keys for word in ("-k", key)]
    command = [need("findscu"), "-W", "-X", "-od", str(folder), "-aet", "RIS", "-aec", to.title, *asked, to.host, str(to.port)]
    subprocess.run(command, check=True, timeout=60, capture_output=True)
    return {one.AccessionNumber: one for one in (dcmread(path, force=True) for path in sorted(folder.glob("*.dcm")))}


def planned(folder: Path, study: Sequence[Dataset]) -> list[Path]:
    """Write three orders: one that foresees the study, one of its accession number alone, one of another patient."""
    foreseen, by_number, other = entry(1, patient="P8", accession="A1"), entry(2, patient=str(study[0].PatientID), accession="A2"), entry(3)
    foreseen.StudyInstanceUID, other.AccessionNumber = study[0].StudyInstanceUID, "A3"
    by_number.RequestedProcedureComments = "needs a chair"
    return [write(folder, str(number), one) for number, one in enumerate((foreseen, by_number, other), 1)]


def test_what_was_found_is_read_first(tmp_path: Path) -> None:
    """A watcher sees the reader's step, HIGH; what waits for the study goes first; findscu sees the comment; the files stay as they were."""
    study, before = images("found", BodyPartExamined="PELVIS", AccessionNumber="A2"), images("before", BodyPartExamined="HEAD")
    files = planned(tmp_path / "lists", study)
    bytes_before = [path.read_bytes() for path in files]
    with watcher("RIS") as hears:
        remotes = {
            "scanner": {"ae": "SCANNER@127.0.0.1:104", "may": ["send"]},
            "ris": {"ae": str(hears.ae), "may": ["watch", "worklist", "perform"]},
        }
        models = {name: MODELS / name for name in ("marker", "waits")}
        said = {"port": free_ports(1)[0], "worklist": {"folder": str(tmp_path / "lists")}, "triage": [TRIAGE]}
        with serving(tmp_path / "node", remotes=remotes, rules=RULES, models=models, **said) as node, hears.asking(node.ae) as asking:
            assert asking.subscribe(GLOBAL, "RIS") == 0
            node.gate(shut=True)
            node.send(phantoms.write(before, tmp_path / "before"))
            wait_for(lambda: [one for one in node.store.jobs.list() if one.state is JobState.IN_PROGRESS], says=lambda: node.log[-3000:])
            node.send(phantoms.write(study, tmp_path / "study"))
            uid = str(study[0].StudyInstanceUID)
            wait_for(lambda: "raised" in node.kinds(uid), 20, says=lambda: (node.kinds(uid), node.jobs(uid), node.log[-6000:]))
            _see_the_step(node, asking, hears, uid)
            (waiting,) = [one for one in node.jobs(uid) if one.model == "waits"]
            assert (waiting.state, waiting.priority) == (JobState.SCHEDULED, Priority.HIGH)
            answers = findscu(node.ae, tmp_path / "answers")
            node.gate(shut=False)
            node.settled(uid)
            assert node.kinds(uid).count("raised") == 1
            shown = " ".join(node.verb("show", uid).out.split())
            assert "1 waiting job of the study goes first" in shown and "worklists of modalities say so" in shown
    comment = TRIAGE["worklist_comment"]
    assert [answers[a].RequestedProcedureComments for a in ("A1", "A2", "A3")] == [comment, f"{comment} needs a chair", ""]
    assert [answers[a].ReportingPriority for a in ("A1", "A2", "A3")] == ["HIGH", "HIGH", ""]
    assert [path.read_bytes() for path in files] == bytes_before


def _see_the_step(node: Node, asking: Asking, hears: Watcher, uid: str) -> None:
    """Find the reader's step as a RIS does: by C-FIND on UPS Query, told of by an event, claimed and given back to nobody else."""
    keys = Dataset()
    keys.ScheduledProcedureStepPriority, keys.ProcedureStepState, keys.SOPInstanceUID = "HIGH", "SCHEDULED", ""
    keys.ProcedureStepLabel, keys.CommentsOnTheScheduledProcedureStep, keys.StudyInstanceUID = "a large marker", "", uid
    found = [data for _, data in asking.association.send_c_find(keys, QUERY) if data is not None]
    assert len(found) == 1
    step = asking.get(str(found[0].SOPInstanceUID))
    assert step.ScheduledWorkitemCodeSequence[0].CodeValue == "READFIRST"
    assert (
        step.CommentsOnTheScheduledProcedureStep.startswith("marker 1.0.0 found: Volume ")
        and "UNVERIFIED" in step.CommentsOnTheScheduledProcedureStep
    )
    report = next(one for job in node.jobs(uid) if job.model == "marker" for one in node.store.jobs.results(job.id) if one.kind == "SR")
    named = {one.ReferencedSOPInstanceUID for item in step.InputInformationSequence for one in item.ReferencedSOPSequence}
    assert report.sop_instance_uid in named
    wait_for(lambda: hears.states(str(found[0].SOPInstanceUID)) == ["SCHEDULED"], says=lambda: node.log[-3000:])
    assert asking.to("IN PROGRESS", str(found[0].SOPInstanceUID), "1.2.3.4") == 0
