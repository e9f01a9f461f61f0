"""Which steps of another manager's worklist the node takes, and what it says of those that it has taken: decisions, without a socket."""

from copy import deepcopy
from typing import Any

import pytest
from pydicom import Dataset

from dicom_node.config import NodeConfig
from dicom_node.domain import DeliveryState, Discontinuation, Job, JobState, Priority, ReportKind, Result, Workitem
from dicom_node.worklist.ups.accounting import awaited, canceled, completed, progress
from dicom_node.worklist.ups.asking_web import event_of
from dicom_node.worklist.ups.attributes import model_of
from dicom_node.worklist.ups.ours import destinations
from dicom_node.worklist.ups.presented import Station
from dicom_node.worklist.ups.suiting import codes, declined, may_be_new, uids

CONFIG = {
    "remotes": {
        "archive": {"ae": "ARCHIVE@10.0.4.11:104", "may": ["send"], "retrieve": "move"},
        "pacs": {"ae": "PACS@10.0.4.10:104", "may": ["receive"]},
        "far": {"ae": "FAR@10.0.4.12:104", "retrieve": "web", "web_url": "https://far.example/dicom-web"},
        "tasks": {"ae": "TASKS@10.0.4.13:104", "web_url": "https://tasks.example/dicom-web"},
        "scanner": {"ae": "CT@10.0.4.21:104", "may": ["send"]},
    },
    "models": {"lung-ct": {"folder": "lung_ct", "workitem_codes": [["LUNGVOL", "99HOSPITAL"]]}, "brain-mr": {"folder": "brain_mr"}},
}
SITE = NodeConfig.model_validate(CONFIG)
STATION = Station(ae_title="DICOM_NODE", worklist_label="AI", contact_url="https://node.example/jobs/")
NOW = 1_800_000_000.0


def item(**said: Any) -> Dataset:
    made = Dataset()
    for keyword, value in said.items():
        setattr(made, keyword, value)
    return made


def code(value: str, scheme: str = "99DICOMNODE") -> Dataset:
    return item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=value)


def inputs(title: str = "ARCHIVE", **more: Any) -> list[Dataset]:
    said = {
        "TypeOfInstances": "DICOM",
        "StudyInstanceUID": "1.2",
        "SeriesInstanceUID": "1.2.1",
        "ReferencedSOPSequence": [item(ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.2", ReferencedSOPInstanceUID="1.2.1.1")],
        "DICOMRetrievalSequence": [item(RetrieveAETitle=title)],
    }
    return [item(**said | more)]


def by_web(*urls: str) -> list[Dataset]:
    return inputs(DICOMRetrievalSequence=[], WADORSRetrievalSequence=[item(RetrieveURL=url) for url in urls])


def step(**changed: Any) -> Dataset:
    """Return a step that the node takes, but for what is changed; None removes."""
    said: dict[str, Any] = {
        "ProcedureStepState": "SCHEDULED",
        "InputReadinessState": "READY",
        "ScheduledProcedureStepPriority": "HIGH",
        "ScheduledProcedureStepStartDateTime": "20270110080000+0000",
        "ScheduledWorkitemCodeSequence": [code("lung-ct")],
        "ScheduledStationNameCodeSequence": [],
        "InputInformationSequence": inputs(),
    }
    return item(**{keyword: value for keyword, value in (said | changed).items() if value is not None})


def stored(*titles: str) -> list[Dataset]:
    return [item(DICOMStorageSequence=[item(DestinationAE=title)]) for title in titles]


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"ScheduledStationNameCodeSequence": None},
        {"ScheduledStationNameCodeSequence": [code("OTHER"), code("DICOM_NODE", "99SITE")]},
        {"ScheduledWorkitemCodeSequence": [code("LUNGVOL", "99HOSPITAL")]},
        {"ScheduledWorkitemCodeSequence": [code("mammography"), code("brain-mr")]},
        {"OutputDestinationSequence": stored("PACS")},
        {"InputInformationSequence": inputs("NOBODY", DICOMRetrievalSequence=[item(RetrieveAETitle="NOBODY"), item(RetrieveAETitle="ARCHIVE")])},
        {"InputInformationSequence": by_web("https://far.example/dicom-web/studies/1.2/series/1.2.1")},
        {"InputInformationSequence": by_web("https://nobody.example/studies/1.2", "https://far.example:443/dicom-web/studies/1.2")},
    ],
)
def test_what_is_this_nodes_is_taken(changed: dict[str, Any]) -> None:
    """IHE AIW-I 4.82.4.1.1."""
    assert declined(step(**changed), SITE, lambda _: frozenset(), NOW) == ""


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"ProcedureStepState": "IN PROGRESS"}, "not scheduled"),
        ({"InputReadinessState": "INCOMPLETE"}, "not ready"),
        ({"InputReadinessState": None}, "not ready"),
        ({"ScheduledProcedureStepPriority": "URGENT"}, "none of HIGH"),
        ({"ScheduledProcedureStepStartDateTime": ""}, "is empty"),
        ({"ScheduledProcedureStepStartDateTime": "20270230"}, "no moment"),
        ({"ScheduledProcedureStepStartDateTime": "20270210080000+0000"}, "to begin later"),
        ({"ScheduledWorkitemCodeSequence": [code("lung-ct", "99OTHER")]}, "none of this node's models"),
        ({"ScheduledWorkitemCodeSequence": None}, "none of this node's models"),
        ({"ScheduledStationNameCodeSequence": [code("OTHER")]}, "another station"),
        ({"ScheduledStationClassCodeSequence": [code("AI")]}, "a class of stations"),
        ({"ScheduledStationGeographicLocationCodeSequence": [code("EAST")]}, "a place"),
        ({"ScheduledHumanPerformersSequence": [item(HumanPerformerOrganization="X")]}, "a person"),
        ({"OutputDestinationSequence": stored("PACS", "CT")}, "no remote with `receive`"),
        ({"OutputDestinationSequence": [item(STOWRSStorageSequence=[item(StorageURL="https://x.example")])]}, "elsewhere"),
        ({"InputInformationSequence": []}, "not name one study"),
        ({"InputInformationSequence": [], "StudyInstanceUID": "1.2"}, "no inputs"),
        ({"InputInformationSequence": inputs(TypeOfInstances="CDA")}, "no DICOM object"),
        ({"InputInformationSequence": inputs("PACS")}, "no remote with `retrieve`"),
        ({"InputInformationSequence": by_web("https://x.example/dicom-web/studies/1.2")}, "retrieve"),
        ({"InputInformationSequence": by_web("https://tasks.example/dicom-web/studies/1.2")}, "retrieve"),  # from which nothing is fetched
    ],
)
def test_what_is_not_is_left_to_others(changed: dict[str, Any], why: str) -> None:
    """IHE AIW-I 4.82.4.1.1: another station or person, inputs that are not there; and what this node could not finish."""
    said = step(PatientName="MARKED", **changed)
    assert why in declined(said, SITE, lambda _: frozenset(), NOW)
    assert "MARKED" not in declined(said, SITE, lambda _: frozenset(), NOW)


def test_what_is_here_need_not_be_fetched() -> None:
    """Every instance that the step names is held; one that names none must be fetched, for nobody knows what it is."""
    assert declined(step(InputInformationSequence=inputs("PACS")), SITE, lambda study: frozenset({"1.2.1.1"} if study == "1.2" else ()), NOW) == ""
    assert declined(step(InputInformationSequence=inputs("PACS", ReferencedSOPSequence=[])), SITE, lambda _: frozenset({"1.2.1.1"}), NOW)


def test_codes_and_places_are_the_sites() -> None:
    """What is searched for, and where results are awaited."""
    assert codes(SITE) == (("lung-ct", "99DICOMNODE"), ("brain-mr", "99DICOMNODE"), ("LUNGVOL", "99HOSPITAL"))
    assert destinations(step(OutputDestinationSequence=stored("PACS", "PACS"))) == ("PACS",)
    assert destinations(step()) is None
    elsewhere = item(STOWRSStorageSequence=[item(StorageURL="https://x.example")])
    both = step(OutputDestinationSequence=[*stored("PACS"), elsewhere])
    assert destinations(both) == ("PACS", "a place that is no application entity")
    assert "elsewhere" in declined(both, SITE, lambda _: frozenset(), NOW)


def test_who_is_in_a_hurry_goes_first() -> None:
    """Then who was to begin first; what says neither goes last."""
    said = [("LOW", "20270101"), ("HIGH", "20270102"), ("", ""), ("HIGH", "20270101")]
    of = [item(SOPInstanceUID=f"1.{n}", ScheduledProcedureStepPriority=p, ScheduledProcedureStepStartDateTime=at) for n, (p, at) in enumerate(said)]
    assert uids(of) == ["1.3", "1.1", "1.0", "1.2"]
    assert [
        may_be_new(facts) for facts in ({}, {"state": "SCHEDULED", "readiness": "READY"}, {"state": "COMPLETED"}, {"readiness": "INCOMPLETE"})
    ] == [
        True,
        True,
        False,
        False,
    ]


def a_job(**more: Any) -> Job:
    said = {"study_instance_uid": "1.2", "model": "lung-ct", "model_version": "1.0", "device_uid": "1.9", "identity": "x", "inputs": {}, "why": ""}
    return Job(**said | {"deliver": ("pacs",), "created_at": NOW, "started_at": NOW, "id": 7} | more)


def row(job: Job | None = None, said: Dataset | None = None, **more: Any) -> Workitem:
    state = job.state if job is not None else JobState.IN_PROGRESS
    return Workitem(**{"uid": "1.2.3", "state": state, "priority": Priority.HIGH, "attributes": model_of(said or step()), "job": job, **more})


def test_progress_is_said_in_the_characters_of_the_step() -> None:
    """PS3.3 C.12.1.1.2: an N-SET leaves the other texts of the step as they are, so they are not called something else."""
    job = a_job(state=JobState.IN_PROGRESS, progress=0.25, note="groß, 12 μL")
    latin = progress(row(job, step(SpecificCharacterSet="ISO_IR 100")), STATION)
    assert latin.SpecificCharacterSet == "ISO_IR 100"
    (said,) = latin.ProcedureStepProgressInformationSequence
    assert (said.ProcedureStepProgress, said.ProcedureStepProgressDescription) == ("25", "groß, 12 ?L")
    assert said.ProcedureStepCommunicationsURISequence[0].ContactURI == "https://node.example/jobs/7"
    plain = progress(row(job), STATION)
    assert (plain.SpecificCharacterSet, plain.ProcedureStepProgressInformationSequence[0].ProcedureStepProgressDescription) == (
        "ISO_IR 192",
        job.note,
    )
    assert "SpecificCharacterSet" not in progress(row(), STATION)


def test_before_a_step_is_canceled_it_says_when_and_why() -> None:
    """PS3.4 Table CC.2.5-3, final state X: by the job's own cause, or by what was said when it was given up."""
    (of_job,) = canceled(
        row(a_job(state=JobState.CANCELED, reason="no lungs", cause="types", discontinuation=Discontinuation.DECLINED, ended_at=NOW)), STATION, NOW
    )["ProcedureStepProgressInformationSequence"].value
    assert of_job.ProcedureStepDiscontinuationReasonCodeSequence[0].CodeValue == "110522"
    given_up = step(ProcedureStepProgressInformationSequence=[item(ProcedureStepDiscontinuationReasonCodeSequence=[code("110523", "DCM")])])
    for said, value in ((given_up, "110523"), (step(), "110513")):
        (one,) = canceled(row(None, said, state=JobState.CANCELED, reason="images are missing"), STATION, NOW)[
            "ProcedureStepProgressInformationSequence"
        ].value
        assert one.ProcedureStepDiscontinuationReasonCodeSequence[0].CodeValue == value
        assert (one.ReasonForCancellation, one.ProcedureStepProgressDescription) == ("images are missing",) * 2
        assert one.ProcedureStepCancellationDateTime


def test_what_came_of_a_step_is_listed_with_where_it_is() -> None:
    """IHE AIW-I 4.84.4.1.2.1: all that was made, and of that nothing in quarantine; at a destination is what it has taken."""
    job = a_job(state=JobState.COMPLETED, ended_at=NOW + 60)
    seg = Result(
        job_id=7,
        kind="SEG",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.66.4",
        sop_instance_uid="1.5",
        series_instance_uid="1.4",
        study_instance_uid="1.2",
        path="",
        digest="",
    )
    titles = {"pacs": "PACS", "research": "RESEARCH"}
    made = [(seg, {"pacs": DeliveryState.SENT, "research": DeliveryState.PENDING})]
    said = completed(row(job, step(ScheduledWorkitemCodeSequence=[code("LUNGVOL", "99HOSPITAL")])), job, STATION, made, titles)
    (performed,) = said.UnifiedProcedureStepPerformedProcedureSequence
    assert performed.PerformedWorkitemCodeSequence[0].CodeValue == "LUNGVOL"
    (output,) = performed.OutputInformationSequence
    assert [way.RetrieveAETitle for way in output.DICOMRetrievalSequence] == ["DICOM_NODE", "PACS"]
    assert (awaited(made, ("pacs",)), awaited(made, ()), awaited([(seg, {"pacs": DeliveryState.DEAD})], ())) == (False, True, False)
    bad = deepcopy(seg).__class__(**{name: getattr(seg, name) for name in seg.__slots__} | {"problem": "broken"})
    assert not awaited([(bad, {"pacs": DeliveryState.PENDING})], ())


def test_events_of_a_websocket_are_read_and_nonsense_is_not() -> None:
    """PS3.18 11.13: a text frame for each event, in the DICOM JSON Model."""
    said = '{"00001000": {"vr": "UI", "Value": ["1.2.3"]}, "00001002": {"vr": "US", "Value": [2]}, "00741238": {"vr": "LT", "Value": ["wrong"]}}'
    assert event_of(said) == ("1.2.3", ReportKind.CANCEL_REQUESTED, {"reason": "wrong"})
    assert event_of(f"[{said}]") == event_of(said.encode())
    for nonsense in ("", "[]", "{}", "3", '{"00001000": 7}', said.replace("[2]", "[77]"), said.replace("1.2.3", "1.2.x"), "[" * 100_000, b"\xff"):
        assert event_of(nonsense) is None
