"""A peer asks for an analysis by a workitem, and the node performs it: inputs, claim, progress, outputs, end (IHE AIW-I, Push workflow)."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import hl7
import pytest
from hl7.client import MLLPClient
from pydicom import Dataset
from pydicom.uid import generate_uid

from dicom_node.domain import Discontinuation, Job, JobState
from dicom_node.simulate.pacs import Pacs
from tests import phantoms
from tests.dcmtk import dcmqrscp
from tests.hl7v2 import OMI, changed, message
from tests.orthanc import free_ports
from tests.walks.node import Node, serving, wait_for
from tests.walks.upsing import GLOBAL, QUERY, Watcher, code, step, watcher
from tests.walks.webarchive import WebArchive, web_archive

HERE = Path(__file__).parent
FAKES = HERE.parent / "models"

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@dataclass(frozen=True)
class House:
    """The node, the PACS that gets results, those that have a study which the node has not, and a watcher of everything."""

    node: Node
    pacs: Pacs
    far: Sequence[Dataset]
    web: WebArchive
    watcher: Watcher
    mllp: int
    http: int


def images(seed: str, **said: Any) -> list[Dataset]:
    return phantoms.series(phantoms.marked((6, 24, 24), (2, 5, 14)), seed=seed, **said)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    far, (port, mllp, http) = images("far"), free_ports(3)
    (folder / "far").mkdir()
    with (
        Pacs(folder / "pacs", ae_title="PACS") as pacs,
        watcher() as hears,
        dcmqrscp(folder / "archive", phantoms.write(far, folder / "far")) as archive,
        web_archive(images=images("by web")) as by_web,
    ):
        remotes = {
            "scanner": {"ae": "SCANNER@127.0.0.1:104", "may": ["send"]},
            "pacs": {"ae": str(pacs.ae), "may": ["receive"]},
            "archive": {"ae": str(archive), "may": ["send"], "retrieve": "get"},
            "web": {"ae": "BY_WEB@127.0.0.1:1", "retrieve": "web", "web_url": by_web.url},
            "ris": {"ae": str(hears.ae), "may": ["watch", "request", "perform"]},
        }
        models = {"marker": HERE / "models" / "marker", "waits": HERE / "models" / "waits", "declines": FAKES / "declines"}
        rules = [{"name": "pelves wait", "when": {"BodyPartExamined": "PELVIS"}, "analyse": ["waits"]}]
        sections = {"worklist": {"wait_for_inputs_s": 3.0}, "hl7": {"port": mllp}, "web": {"start": True, "port": http}}
        with serving(folder / "node", remotes=remotes, rules=rules, models=models, port=port, **sections) as node:
            with hears.asking(node.ae) as asking:
                assert asking.subscribe(GLOBAL, "WATCHER") == 0
            yield House(node, pacs, far, by_web, hears, mllp, http)
            assert "PHANTOM" not in node.log.upper()


def sent(house: House, seed: str, tmp_path: Path) -> list[Dataset]:
    """Send a study, and wait until it is judged: no rule asks for anything."""
    made = images(seed)
    house.node.send(phantoms.write(made, tmp_path))
    assert house.node.settled(made[0].StudyInstanceUID) == ()
    return made


def asked_for(house: House, item: Dataset) -> str:
    uid = generate_uid()
    with house.watcher.asking(house.node.ae) as asking:
        assert asking.create(item, uid) in (0x0000, 0xB300)
    return uid


def got(house: House, uid: str) -> Dataset:
    with house.watcher.asking(house.node.ae) as asking:
        return asking.get(uid)


def ended(house: House, uid: str) -> Dataset:
    wait_for(lambda: house.watcher.states(uid)[-1:] in (["COMPLETED"], ["CANCELED"]), says=lambda: f"{house.watcher.told}\n{house.node.log[-3000:]}")
    return got(house, uid)


def job_of(house: House, item: Dataset) -> Job:
    (job,) = house.node.jobs(item.InputInformationSequence[0].StudyInstanceUID)
    return job


def test_a_workitem_is_performed_and_its_results_go_where_it_says(house, tmp_path):
    made = sent(house, "asked", tmp_path)
    uid = asked_for(house, step("marker", made, to="PACS", ScheduledProcedureStepPriority="HIGH"))
    item = ended(house, uid)
    assert house.watcher.states(uid) == ["SCHEDULED", "IN PROGRESS", "COMPLETED"]
    (performed,) = item.UnifiedProcedureStepPerformedProcedureSequence
    outputs = {one.ReferencedSOPInstanceUID for part in performed.OutputInformationSequence for one in part.ReferencedSOPSequence}
    job = job_of(house, item)
    assert outputs == {one.sop_instance_uid for one in house.node.store.jobs.results(job.id)} and len(outputs) == 2
    titles = {way.RetrieveAETitle for part in performed.OutputInformationSequence for way in part.DICOMRetrievalSequence}
    assert titles == {"DICOM_NODE", "PACS"} and job.priority.name == "HIGH" and "asked for by WATCHER" in job.why
    assert performed.PerformedWorkitemCodeSequence[0].CodeValue == "marker" and performed.PerformedProcedureStepEndDateTime
    house.node.settled(made[0].StudyInstanceUID)
    assert outputs <= set(house.pacs.instances())
    assert "workitem taken up" in house.node.kinds(made[0].StudyInstanceUID)


def test_a_second_wish_for_the_same_is_the_same_job(house, tmp_path):
    """Nothing is done twice: both workitems are performed by one job."""
    made = sent(house, "twice", tmp_path)
    first = asked_for(house, step("marker", made, to="PACS"))
    ended(house, first)
    second = asked_for(house, step("marker", made, to="PACS"))
    assert ended(house, second).ProcedureStepState == "COMPLETED" and len(house.node.jobs(made[0].StudyInstanceUID)) == 1
    assert house.watcher.states(second) == ["SCHEDULED", "IN PROGRESS", "COMPLETED"]


def test_inputs_are_fetched_of_whom_the_workitem_names(house):
    uid = asked_for(house, step("marker", house.far, retrieve_ae="DCMQRSCP", to="PACS"))
    item = ended(house, uid)
    assert item.ProcedureStepState == "COMPLETED" and len(house.node.settled(house.far[0].StudyInstanceUID)) == 1


def test_inputs_are_fetched_by_wado_rs_from_the_remote_that_a_url_means(house):
    """WADO-RS Retrieval Sequence (0040,E025) alone says where they are; another host than a remote's is never asked."""
    made = house.web.images
    study = made[0].StudyInstanceUID
    item = step("marker", made, to="PACS")
    ways = [Dataset(), Dataset()]
    with web_archive(images=made) as nobodys:
        ways[0].RetrieveURL, ways[1].RetrieveURL = f"{nobodys.url}/studies/{study}", f"{house.web.url}/studies/{study}"
        for one in item.InputInformationSequence:
            one.DICOMRetrievalSequence, one.WADORSRetrievalSequence = [], ways
        assert ended(house, asked_for(house, item)).ProcedureStepState == "COMPLETED" and not nobodys.asked
    assert len(house.node.settled(study)) == 1 and house.node.store.retrievals.list(study_instance_uid=study)[0].remote == "web"
    assert [path for path in house.web.asked if not path.endswith("instances")] == [f"/studies/{study}"]


def test_inputs_that_nobody_here_can_bring_are_waited_for_and_then_missed(house):
    uid = asked_for(house, step("marker", images("never"), retrieve_ae="SOMEBODY"))
    (progress,) = ended(house, uid).ProcedureStepProgressInformationSequence
    assert progress.ProcedureStepDiscontinuationReasonCodeSequence[0].CodeValue == "110523"


def test_inputs_may_come_after_the_wish(house, tmp_path):
    made = images("later")
    uid = asked_for(house, step("marker", made))
    house.node.send(phantoms.write(made, tmp_path))
    assert ended(house, uid).ProcedureStepState == "COMPLETED"


def test_one_that_does_not_suit_is_canceled_with_the_reason(house, tmp_path):
    made = sent(house, "declined", tmp_path)
    uid = asked_for(house, step("declines", made))
    (progress,) = ended(house, uid).ProcedureStepProgressInformationSequence
    (reason,) = progress.ProcedureStepDiscontinuationReasonCodeSequence
    assert (reason.CodeValue, reason.CodingSchemeDesignator) == ("110522", "DCM") and progress.ReasonForCancellation
    assert house.watcher.states(uid) == ["SCHEDULED", "IN PROGRESS", "CANCELED"]


def test_one_whose_results_nobody_here_may_have_is_rejected(house, tmp_path):
    made = sent(house, "nowhere", tmp_path)
    uid = asked_for(house, step("marker", made, to="ELSEWHERE"))
    (progress,) = ended(house, uid).ProcedureStepProgressInformationSequence
    assert progress.ProcedureStepDiscontinuationReasonCodeSequence[0].CodeValue == "110530" and not house.node.jobs(made[0].StudyInstanceUID)


def test_what_is_for_others_is_left_to_them(house, tmp_path):
    """IHE AIW-I 4.82.4.1.1."""
    made = sent(house, "others", tmp_path)
    elsewhere = asked_for(house, step("marker", made, ScheduledStationNameCodeSequence=[code("OTHER", "99X", "Another station")]))
    unknown = asked_for(house, step("nothing-here", made))
    done = asked_for(house, step("marker", made))
    ended(house, done)
    assert got(house, elsewhere).ProcedureStepState == got(house, unknown).ProcedureStepState == "SCHEDULED"
    with house.watcher.asking(house.node.ae) as asking:
        assert asking.to("IN PROGRESS", unknown, "1.2.3.99") == 0  # whoever can


def test_one_that_runs_is_canceled_on_request(house, tmp_path):
    """PS3.4 CC.2.2: its performer, this node, decides; a person's wish is followed."""
    made = sent(house, "canceled", tmp_path)
    house.node.gate(shut=True)
    try:
        uid = asked_for(house, step("waits", made))
        wait_for(lambda: "IN PROGRESS" in house.watcher.states(uid))
        with house.watcher.asking(house.node.ae) as asking:
            assert asking.to("COMPLETED", uid, "1.2.3") == 0xC301 and asking.ask_to_cancel(uid, "not needed") == 0
        item = ended(house, uid)
    finally:
        house.node.gate(shut=False)
    assert item.ProcedureStepState == "CANCELED" and job_of(house, item).discontinuation is Discontinuation.STOPPED
    assert 2 in [one.kind for one in house.watcher.told if one.uid == uid]


def test_the_jobs_of_rules_are_workitems_too_and_nobody_else_claims_them(house, tmp_path):
    """One truth: what a job is, its workitem is; the worker's lease is its lock."""
    made = images("own", BodyPartExamined="PELVIS")
    house.node.gate(shut=True)
    try:
        house.node.send(phantoms.write(made, tmp_path))
        (job,) = wait_for(lambda: house.node.jobs(made[0].StudyInstanceUID))
        keys = Dataset()
        keys.StudyInstanceUID = made[0].StudyInstanceUID
        keys.ProcedureStepState = keys.SOPInstanceUID = ""
        with house.watcher.asking(house.node.ae) as asking:
            answers = asking.association.send_c_find(keys, QUERY)
            (found,) = [said for _, said in answers if said is not None]
            assert asking.to("IN PROGRESS", found.SOPInstanceUID, "1.2.3.77") in (0x0124, 0xC301)
            assert asking.to("COMPLETED", found.SOPInstanceUID, "1.2.3.77") in (0xC310, 0xC301)
    finally:
        house.node.gate(shut=False)
    item = ended(house, found.SOPInstanceUID)
    assert house.watcher.states(found.SOPInstanceUID) == ["SCHEDULED", "IN PROGRESS", "COMPLETED"]
    assert item.InputInformationSequence[0].SeriesInstanceUID == made[0].SeriesInstanceUID and len(job.inputs["ct"]) == 6
    assert item.PatientID == made[0].PatientID and item.ScheduledStationNameCodeSequence[0].CodeValue == "DICOM_NODE"


def ordered(house: House, lines: Sequence[str]) -> str:
    """Send an order, and return how it is acknowledged."""
    with MLLPClient("127.0.0.1", house.mllp) as client:
        return str(hl7.parse(client.send_message(message(lines)).strip(b"\x0b\x1c\r").decode()).segment("MSA")[1])


def test_an_order_by_hl7_waits_for_its_images_and_is_performed(house, tmp_path):
    """The order is there before the images; sent twice it is one workitem; that of another patient is not performed."""
    made = images("ordered", AccessionNumber="ORDER1")
    order = changed(OMI, OBR_4="marker^Marker^L", IPC_1="ORDER1^RIS", IPC_3="", PID_3=f"{made[0].PatientID}^^^HOSPITAL^MR")
    assert ordered(house, order) == ordered(house, order) == "AA"
    other = changed(order, ORC_2="PL2^RIS", OBR_2="PL2^RIS", PID_3="SOMEBODY^^^HOSPITAL^MR", MSH_10="M9")
    assert ordered(house, other) == "AA" and ordered(house, changed(OMI, ORC_2="PL3^RIS", OBR_2="PL3^RIS")) == "AA"
    items = [one for _, one in house.node.store.workitems.newest() if one.requester == "HL7 RIS@HOSPITAL"]
    assert len(items) == 2, "what no model does is not for us"
    house.node.send(phantoms.write(made, tmp_path))
    assert {ended(house, one.uid).ProcedureStepState for one in items} == {"COMPLETED", "CANCELED"}
    (job,) = house.node.jobs(made[0].StudyInstanceUID)
    assert job.priority.name == "HIGH" and job.state is JobState.COMPLETED
    assert {house.watcher.states(one.uid)[0] for one in items} == {"SCHEDULED"}


def test_an_order_is_canceled(house):
    order = changed(OMI, OBR_4="marker^Marker^L", ORC_2="PL7^RIS", OBR_2="PL7^RIS")
    assert ordered(house, order) == "AA"
    (uid,) = [one.uid for _, one in house.node.store.workitems.newest(limit=1)]
    assert ordered(house, changed(order, ORC_1="CA", MSH_10="M10")) == "AA"
    assert ended(house, uid).ProcedureStepState == "CANCELED"


def test_a_program_has_a_study_analysed(house, tmp_path):
    """A requester without DICOM: it names study and model, and gets the workitem's UID."""
    made = sent(house, "by program", tmp_path)
    uid = made[0].StudyInstanceUID
    body = json.dumps({"model": "marker", "priority": "HIGH"}).encode()
    request = Request(f"http://127.0.0.1:{house.http}/api/v1/studies/{uid}/analyses", body, {"Content-Type": "application/json"})

    def posted() -> dict[str, Any]:
        with contextlib.suppress(URLError), urlopen(request, timeout=60) as answer:
            return {"status": answer.status, **json.loads(answer.read())}
        return {}

    said = wait_for(posted)  # the web may still be starting
    assert said.pop("status") == 202
    item = ended(house, next(one for one in said.values() if str(one).startswith("2.25.")))
    assert item.ProcedureStepState == "COMPLETED" and job_of(house, item).priority.name == "HIGH"
