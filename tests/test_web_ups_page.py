"""The page of the worklist, and asking for an analysis from a study's page and by the API."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset

from dicom_node.domain import GLOBAL_SUBSCRIPTION, Channel, JobState, Priority
from dicom_node.web.access import Role
from tests.test_web_pages import EVIL, House, with_everything
from tests.upsrs import RIGHT, Client, asked_state, performed, progressed, wanted, whole


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A node with a study, jobs, and three workitems from outside: one waits, one runs, one is done."""
    one = with_everything(tmp_path)
    worklist = one.client.app.state.context.worklist
    for number, label in ((1, EVIL), (2, "Step 2"), (3, "Step 3")):
        worklist.create(wanted(ProcedureStepLabel=label), uid=f"1.2.9.{number}", requester="RIS")
    for number in (2, 3):
        worklist.change_state(f"1.2.9.{number}", asked_state("IN PROGRESS", RIGHT), who="RIBCOUNTER")
    done = performed()
    done.TransactionUID = RIGHT
    worklist.set("1.2.9.3", done, who="RIBCOUNTER")
    worklist.change_state("1.2.9.3", asked_state("COMPLETED", RIGHT), who="RIBCOUNTER")
    yield one
    one.close()


def test_the_page_tells_of_every_workitem(house: House) -> None:
    """State, priority, label, work, study, who asked, who performs, since when, why; and nothing of a label is taken for more than a text."""
    page = house.get("/worklist")
    for said in ("RIS", "RIBCOUNTER", "RIBS", "Step 2", "IN PROGRESS", "COMPLETED", 'href="/jobs/1"', 'href="/studies/1.2.3.4"', "a rule"):
        assert said in page, said
    assert "<script>alert" not in page and RIGHT not in page
    assert "Step 2" not in house.get("/worklist?state=COMPLETED")
    assert "Step 3" in house.get("/worklist?state=COMPLETED")
    assert re.search(r"[0-9]+ COMPLETED</a>", page)


def test_the_list_is_turned(house: House) -> None:
    worklist = house.client.app.state.context.worklist
    for number in range(60):
        worklist.create(wanted(ProcedureStepLabel=f"Many {number}"), uid=f"1.2.8.{number + 1}", requester="RIS")
    first = house.get("/worklist?state=SCHEDULED")
    older = re.search(r'href="(/worklist\?[^"]*before=[0-9]+)" rel="next"', first)
    assert older is not None and "Many 59" in first and "Many 3<" not in first
    assert "Many 3<" in house.get(older[1].replace("&amp;", "&"))
    house.get("/worklist?before=x", status=404)


def test_an_operator_asks_for_a_workitem_to_be_canceled(house: House) -> None:
    """What waits is canceled; of what runs its performer is asked, who is told."""
    worklist = house.client.app.state.context.worklist
    worklist.subscribe("1.2.9.2", "RIBCOUNTER", channel=Channel.WEB)
    assert house.says(house.post("/worklist/1.2.9.1/cancel")) == "It is canceled."
    assert house.says(house.post("/worklist/1.2.9.2/cancel")) == "Who performs it is asked to cancel it."
    item = house.store.workitems.get("1.2.9.1")
    assert item is not None and (item.state, item.reason) == (JobState.CANCELED, "a person asked for it")
    assert [one.kind.name for one in house.store.subscriptions.waiting("RIBCOUNTER", Channel.WEB)] == ["STATE", "CANCEL_REQUESTED"]
    house.post("/worklist/1.2.9.3/cancel", status=400)
    house.post("/worklist/1.2.9.99/cancel", status=400)
    house.post("/worklist/x/cancel", status=409)


def test_an_operator_ends_what_a_dead_watcher_locks(house: House) -> None:
    """A deletion lock keeps a workitem for as long as its subscription lasts (PS3.4 CC.2.3.3)."""
    worklist = house.client.app.state.context.worklist
    worklist.subscribe(GLOBAL_SUBSCRIPTION, "DEAD", channel=Channel.DIMSE, deletion_lock=True)
    page = house.get("/worklist")
    assert "End what DEAD watches" in page and ">all<" in page
    counted = house.store.subscriptions.watched()["DEAD", "DIMSE"]
    assert counted["locks"] == counted["workitems"] > 3 and counted["waiting"] > 2
    assert house.says(house.post("/worklist/subscribers/end", receiver="DEAD")) == "DEAD watches no more, and locks nothing."
    assert house.store.subscriptions.watched() == {}
    last = house.store.journal.after(house.store.journal.last() - 1)[0]
    assert (last.kind, last.who, last.why) == ("watcher ended", "dr. who", "DEAD: a person ended what it watches")
    house.post("/worklist/subscribers/end", status=409, receiver="")


def test_a_viewer_looks_and_does_nothing(house: House) -> None:
    house.role = Role.VIEWER
    page = house.get("/worklist")
    assert "Ask to cancel" not in page and "Run a model" not in house.get("/studies/1.2.3.1")
    for path in ("/worklist/1.2.9.1/cancel", "/worklist/subscribers/end", "/studies/1.2.3.1/analyses"):
        house.post(path, status=403, receiver="DEAD", model="good")


def test_a_person_asks_for_an_analysis_of_a_study(house: House) -> None:
    """A workitem with the study's series as its inputs, to be had from here, for this node as station, in the person's name."""
    assert "Run a model on this study" in house.get("/studies/1.2.3.1")
    assert house.says(house.post("/studies/1.2.3.1/analyses", model="good", priority="HIGH")) == "good is asked for."
    ((_, item), *_) = house.store.workitems.newest(limit=1)
    assert (item.requester, item.priority, item.study_instance_uid) == ("dr. who", Priority.HIGH, "1.2.3.1")
    made: Dataset = house.client.app.state.context.worklist.get(item.uid)
    (code,), (station,), (source,) = made.ScheduledWorkitemCodeSequence, made.ScheduledStationNameCodeSequence, made.InputInformationSequence
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("good", "99DICOMNODE")
    assert station.CodeValue == source.DICOMRetrievalSequence[0].RetrieveAETitle == house.site.config.node.ae_title
    assert len(source.ReferencedSOPSequence) == 1 and source.StudyInstanceUID == "1.2.3.1"
    assert (made.ProcedureStepState, made.InputReadinessState) == ("SCHEDULED", "READY")
    house.post("/studies/1.2.3.1/analyses", status=409, model="nonsense")
    house.post("/studies/1.2.3.99/analyses", status=409, model="good")
    house.post("/studies/x/analyses", status=409, model="good")


def test_a_program_asks_for_an_analysis_of_a_study(house: House) -> None:
    """202, with the workitem; the list has it, without what was said of it."""
    answer = house.client.post("/api/v1/studies/1.2.3.1/analyses", json={"model": "good", "priority": "LOW"})
    assert answer.status_code == 202, answer.text
    listed = house.client.get("/api/v1/workitems?limit=1").json()
    (one,) = listed["items"]
    assert (one["uid"], one["code"], one["priority"], one["requester"]) == (answer.json()["workitem_uid"], "good", "LOW", "dr. who")
    assert house.client.get(f"/api/v1/workitems?cursor={listed['next']}&state=COMPLETED").json()["items"][0]["uid"] == "1.2.9.3"
    assert house.client.post("/api/v1/studies/1.2.3.1/analyses", json={"model": "nonsense"}).status_code == 404
    assert house.client.post("/api/v1/studies/1.2.3.99/analyses", json={"model": "good"}).status_code == 404
    assert "MARKED" not in house.client.get("/api/v1/workitems").text.upper()


def test_what_this_node_performs_is_claimed_by_nobody_else(house: House) -> None:
    """A job's workitem is the node's own: 409, also for who guesses a Transaction UID."""
    (item,) = house.store.workitems.of_job(3)
    client = Client(house.client)
    assert client.state(item.uid, "IN PROGRESS").status_code == 409
    assert client.get(item.uid).ProcedureStepState == "SCHEDULED"
    assert client.update(item.uid, progressed(5), RIGHT).status_code == 409
    assert client.ask("POST", f"/workitems?{item.uid}", whole()).status_code == 409
