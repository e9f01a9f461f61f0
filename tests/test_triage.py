"""A finding raises its study's place among those that wait to be read: which do, by which routes, and that each is done once."""

import json
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pynetdicom.dsutils import decode, encode

from dicom_node.config import NodeConfig, Triage, load_site
from dicom_node.domain import ConfigError, JobState, Order, Priority, Raising, Refused, Result, Workitem
from dicom_node.notify import Raiser
from dicom_node.notify.findings import Said
from dicom_node.notify.triage import FRESH_S, raising
from dicom_node.serve.joining import managing
from dicom_node.store import Change, Event
from dicom_node.worklist import mwl
from dicom_node.worklist.ups.attributes import created, dataset_of
from dicom_node.worklist.ups.presented import Station
from dicom_node.worklist.ups.reading import reading_step
from tests import phantoms
from tests.contracts.arrange import NOW, STUDY
from tests.reported import Node
from tests.worklists import asking, entry, write

FAKES = Path(__file__).parent / "models"
RULE = {"name": "large", "findings": [{"concept": "Volume", "min": 1.0}], "workitem": ["READ", "99SITE", "Read it"], "jobs": True}
DONE = Event(at=NOW, study_instance_uid=STUDY, kind="completed", who="w", why="made it", job_id=7, id=1)
LARGE = Said(names=frozenset({"volume"}), concept="Volume", value=612.0, unit="milliliter")


def a_result(number: int, kind: str, **more: str) -> Result:
    uids = {"sop_class_uid": "1.2.840.10008.5.1.4.1.1.88.34", "sop_instance_uid": f"1.2.{number}", "series_instance_uid": "1.2"}
    return Result(job_id=7, kind=kind, study_instance_uid=STUDY, path="x", digest="", **uids, **more)


# -------------------------------------------------------------------------------------------------------------- deciding


def test_a_finding_that_a_rule_asks_for_raises_its_study() -> None:
    """What the report says, once each; for the reader what is valid, and rejects nothing."""
    results = [a_result(1, "SR"), a_result(2, "SEG"), a_result(3, "REJ"), a_result(4, "SR", problem="broken")]
    found = raising(Triage.model_validate(RULE), DONE, [LARGE, LARGE], results, "lung-ct 1.0", NOW)
    assert found is not None and found.findings == ("Volume 612 milliliter",)
    assert (found.priority, found.code, found.jobs, found.comments) == (Priority.HIGH, ("READ", "99SITE", "Read it"), True, False)
    assert [one.sop_instance_uid for one in found.results] == ["1.2.1", "1.2.2"]
    again = replace(found, job_id=8)
    assert again.workitem_uid == found.workitem_uid != replace(found, rule="other").workitem_uid


@pytest.mark.parametrize(
    ("event", "met"),
    [
        (DONE, []),
        (replace(DONE, kind="canceled (failed)"), [LARGE]),
        (replace(DONE, at=NOW - FRESH_S - 1), [LARGE]),
        (replace(DONE, job_id=None), [LARGE]),
    ],
)
def test_what_was_not_found_just_now_raises_nothing(event: Event, met: list[Said]) -> None:
    """A node that comes back after a month does not raise what was read long ago."""
    assert raising(Triage.model_validate(RULE), event, met, (), "lung-ct 1.0", NOW) is None


def test_of_many_findings_the_first_are_told_and_the_number_of_the_rest() -> None:
    many = [replace(LARGE, value=float(number)) for number in range(25)]
    found = raising(Triage.model_validate(RULE), DONE, many, (), "lung-ct 1.0", NOW)
    assert found is not None and len(found.findings) == 11 and found.findings[-1] == "and 15 more"


@pytest.mark.parametrize(
    ("said", "objection"),
    [
        ({"workitem": None, "jobs": False}, "raises nothing"),
        ({"findings": []}, "findings"),
        ({"priority": "LOW"}, "priority"),
        ({"workitem": ["READ"]}, "workitem"),
        ({"workitem": ["lung-ct", "99DICOMNODE", "x"]}, "asks for a model"),
        ({"workitem": ["AIL", "99HOUSE", "x"]}, "asks for a model"),
        ({"worklist_comment": "AI:"}, "name worklist.folder"),
        ({"findings": [{"concept": "Volume", "model": "other"}]}, "not among"),
        ({"findings": [{"concept": "Volume", "answer": "x", "min": 1.0}]}, "a number"),
    ],
)
def test_a_rule_that_cannot_raise_is_said_at_once(said: dict, objection: str) -> None:
    site = {"models": {"lung-ct": {"folder": "x", "workitem_codes": [["AIL", "99HOUSE"]]}}, "triage": [RULE | said]}
    with pytest.raises(ValueError, match=objection):
        NodeConfig.model_validate(site)


def test_two_rules_have_two_names(tmp_path: Path) -> None:
    rule = '[[triage]]\nname = "a"\nfindings = [{ concept = "Volume" }]\njobs = true\n'
    (tmp_path / "node.toml").write_text(rule * 2)
    with pytest.raises(ConfigError, match="two of"):
        load_site(tmp_path / "node.toml")


# ------------------------------------------------------------------------------------------------------------- the reader's step


def test_the_readers_step_says_what_was_found_and_by_what() -> None:
    """PS3.4 Table CC.2.5-3: an N-CREATE would say it so. Priority, request, inputs; that nobody has verified it."""
    raised = raising(Triage.model_validate(RULE), DONE, [LARGE], [a_result(1, "SR")], "lung-ct 1.0", NOW)
    assert raised is not None
    order = Order(study_instance_uid=STUDY, accession_number="A1", requested_procedure_id="RP1", requested_procedure_code=("CT", "99RIS", "CT chest"))
    header = {"PatientName": "Müller^Zoë", "PatientID": "P1"}
    said = reading_step(raised, header, order, Station(ae_title="NODE", worklist_label="AI", retrieve_url="https://n/dicom-web"), ["PACS"], NOW)
    kept, _ = created(said, uid_given=raised.workitem_uid, now=NOW, worklist_label="AI")
    assert (kept.ProcedureStepState, kept.ScheduledProcedureStepPriority, kept.ProcedureStepLabel) == ("SCHEDULED", "HIGH", "large")
    comments = kept.CommentsOnTheScheduledProcedureStep
    assert comments.startswith("lung-ct 1.0 found: Volume 612 milliliter. UNVERIFIED") and "research use" in comments
    (request,), (inputs,) = kept.ReferencedRequestSequence, kept.InputInformationSequence
    assert (request.AccessionNumber, request.RequestedProcedureID, request.StudyInstanceUID) == ("A1", "RP1", STUDY)
    assert [way.RetrieveAETitle for way in inputs.DICOMRetrievalSequence] == ["NODE", "PACS"]
    assert inputs.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.1" and inputs.WADORSRetrievalSequence
    assert kept.ScheduledWorkitemCodeSequence[0].CodeValue == "READ" and str(kept.PatientName) == "Müller^Zoë"


# ---------------------------------------------------------------------------------------------------------- Modality Worklist


def of_place(**keys: str) -> Dataset:
    one = asking()
    one.RequestedProcedureComments, one.ReportingPriority = keys.get("comments", ""), keys.get("priority", "")
    return one


def test_an_entry_of_a_raised_study_says_so_before_what_it_said() -> None:
    """PS3.4 Table K.6-1: Requested Procedure Comments, Reporting Priority. What was read of the file stays as it was."""
    held = entry()
    held.RequestedProcedureComments, held.ReportingPriority = "needs a chair", "ROUTINE"
    (plain,) = mwl.entries(held)
    raised = mwl.raised(plain, ["AI:", "look at it."], Priority.HIGH)
    answer, whole = mwl.asked(of_place()).answer(raised)
    assert (answer.RequestedProcedureComments, answer.ReportingPriority, whole) == ("AI: look at it. needs a chair", "HIGH", True)
    assert mwl.asked(of_place(priority="HIGH")).matches(raised.attributes) and not mwl.asked(of_place(priority="HIGH")).matches(plain.attributes)
    assert plain.dataset.RequestedProcedureComments == "needs a chair" and plain.dataset.ReportingPriority == "ROUTINE"


def test_a_comment_in_other_letters_than_the_files_is_answered_in_unicode(tmp_path: Path) -> None:
    """PS3.3 C.12.1.1.2: names and comment are read as they were written; in plain letters the file's character set stays."""
    held = entry(name="Müller^Zoë")
    held.SpecificCharacterSet = "ISO_IR 100"
    (plain,) = mwl.entries(dcmread(write(tmp_path, "1", held)))
    for comment, characters in (("КИ: сначала", "ISO_IR 192"), ("AI: first", "ISO_IR 100")):
        answer, _ = mwl.asked(of_place()).answer(mwl.raised(plain, [comment], Priority.HIGH))
        read = decode(BytesIO(encode(answer, False, True)), False, True)
        assert (str(read.PatientName), read.RequestedProcedureComments, read.SpecificCharacterSet) == ("Müller^Zoë", comment, characters)


def test_an_entry_that_is_more_urgent_stays_so() -> None:
    held = entry()
    held.ReportingPriority = "HIGH"
    (plain,) = mwl.entries(held)
    assert mwl.raised(plain, ["AI:"], Priority.MEDIUM).dataset.ReportingPriority == "HIGH"
    assert mwl.asked(of_place()).is_of_place and not mwl.asked(asking()).is_of_place


# ------------------------------------------------------------------------------------------------------------------- a node


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node whose one model finds a volume, and a rule that raises it."""
    made = Node(tmp_path, {"good": FAKES / "good"})
    rule = '[[triage]]\nname = "large"\nfindings = [{ concept = "Volume", min = 0.0 }]\n'
    made.config.write_text(made.config.read_text() + rule + f"workitem = {json.dumps(RULE['workitem'])}\n")
    yield made
    made.close()


def raiser(node: Node, now: float) -> Raiser:
    """Return what raises, as a process that starts now would have it."""
    site = load_site(node.config)
    return Raiser(site.config, node.store, managing(site, node.store, lambda: now).reading, lambda: now)


def turn(node: Node, now: float) -> None:
    one = raiser(node, now)
    one.turn()
    one._listener.close()


def steps(node: Node) -> list[Workitem]:
    return [one for _, one in node.store.workitems.page() if one.job is None]


def images(seed: str) -> list[Dataset]:
    return phantoms.series(phantoms.marked(value=2000), seed=seed, BodyPartExamined="CHEST", PatientName="MARKED^NAME", AccessionNumber="A7")


def test_a_study_is_raised_once_whatever_process_looks(node: Node) -> None:
    """The report is the step's input; the journal says who and why, and `show` tells it; no patient is named there."""
    turn(node, NOW)
    uid = node.receive(images("raised"))
    (job,) = node.work()
    now = node.store.journal.of_study(uid)[-1].at
    for _ in range(2):
        turn(node, now)
    (step,) = steps(node)
    said = dataset_of(step.attributes)
    assert (step.state, step.priority, step.study_instance_uid) == (JobState.SCHEDULED, Priority.HIGH, uid)
    named = {one.ReferencedSOPInstanceUID for item in said.InputInformationSequence for one in item.ReferencedSOPSequence}
    assert named == {one.sop_instance_uid for one in node.store.jobs.results(job.id)}
    assert said.ReferencedRequestSequence[0].AccessionNumber == "A7" and str(said.PatientName) == "MARKED^NAME"
    told = [one for one in node.store.journal.of_study(uid) if one.kind in ("raised", "workitem created")]
    assert [one.kind for one in told] == ["workitem created", "raised"] and not any("MARKED" in one.why for one in told)
    shown = node.verb("show", uid)
    assert "raised" in shown.out and "'large' raises it to HIGH" in " ".join(shown.out.split())


def test_what_is_found_again_adds_to_the_step(node: Node) -> None:
    """A job that is run again makes a new report: one step, with both."""
    turn(node, NOW)
    uid = node.receive(images("again"))
    (job,) = node.work()
    now = node.store.journal.of_study(uid)[-1].at
    turn(node, now)
    node.store.jobs.again(job.id, who="test", now=now)
    (again,) = node.work()
    turn(node, now)
    (step,) = steps(node)
    named = [one.ReferencedSOPInstanceUID for item in dataset_of(step.attributes).InputInformationSequence for one in item.ReferencedSOPSequence]
    reports = [one.sop_instance_uid for of in (job, again) for one in node.store.jobs.results(of.id) if one.kind == "SR"]
    assert set(reports) <= set(named)
    node.store.workitems.change(step.uid, lambda _: Change(state=JobState.COMPLETED), now=now)
    node.store.jobs.again(again.id, who="test", now=now)
    node.work()
    turn(node, now)
    assert [one.kind for one in node.store.journal.of_study(uid)].count("raised") == 2, "what has been read is not asked for again"


def test_a_step_that_the_worklist_does_not_take_keeps_nobody_waiting(node: Node) -> None:
    """It is told in the log, and what else is raised is raised."""
    turn(node, NOW)
    uid = node.receive(images("refused"))
    node.work()
    now = node.store.journal.of_study(uid)[-1].at

    def refuses(_: Raising) -> Workitem:
        raise Refused("it has too many items", status=0x0106)

    one = Raiser(load_site(node.config).config, node.store, refuses, lambda: now)
    one.turn()
    one._listener.close()
    assert steps(node) == [] and "raised" in [event.kind for event in node.store.journal.of_study(uid)]


def test_a_damaged_report_and_a_purged_study_keep_nobody_waiting(node: Node) -> None:
    turn(node, NOW)
    damaged = node.receive(images("damaged"))
    (job,) = node.work()
    node.file(job).write_bytes(b"no DICOM")
    whole = node.receive(images("whole"))
    node.work()
    now = node.store.journal.of_study(whole)[-1].at
    turn(node, now)
    assert [one.study_instance_uid for one in steps(node)] == [whole] and damaged != whole
