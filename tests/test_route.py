"""A study meets the rules: which jobs come of it, and for every no a reason."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dicom_node.assemble.recognition import recognised
from dicom_node.config import Manifest, Model, Rule
from dicom_node.domain import Instance, Priority, Series, Study
from dicom_node.route import route


def _instance(number, series="1.2.3.1", **header):
    return Instance(
        sop_instance_uid=f"{series}.{number}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        study_instance_uid="1.2.3",
        series_instance_uid=series,
        path="",
        size_bytes=1,
        digest=f"{series}{number}",
        calling_ae="CT",
        received_at=1.0,
        header={"Modality": "CT", "InstanceNumber": number} | header,
        id=number,
    )


def _study(*instances):
    return Study(study_instance_uid="1.2.3", instances=instances, revision=0)


@pytest.fixture
def model(tmp_path):
    (tmp_path / "model.toml").write_text("")
    said = {"name": "spleen-ct", "version": "1", "task": "x", "inputs": {"ct": {"Modality": "CT"}}}
    measured = {"measurements": {"volume": {"concept": "SCT.Volume", "unit": "mL"}}}
    return Model(tmp_path, Manifest.model_validate(said | measured), Path("none"))


@dataclass
class _Choice:
    series: Series | None
    why: str
    rejected: dict = field(default_factory=dict)


def _first(candidates, _wanted):
    return _Choice(candidates[0], "the first") if candidates else _Choice(None, "there is none")


def _never(candidates, _wanted):
    return _Choice(None, "too thick", {series.series_instance_uid: "5 mm" for series in candidates})


def _rule(name="abdomen", **said):
    return Rule.model_validate({"name": name, "analyse": ["spleen-ct"], "deliver": ["pacs"]} | said)


def test_a_rule_that_matches_makes_one_job_with_its_inputs_and_reason(model):
    """The job names the instances by their ids in the ledger."""
    made = route(_study(_instance(1), _instance(2)), [_rule(when={"Modality": "CT"})], {"spleen-ct": model}, _first, recognised, now=5.0)
    (job,) = made.jobs
    assert (job.model, job.inputs, job.deliver, job.created_at, job.revision) == ("spleen-ct", {"ct": (1, 2)}, ("pacs",), 5.0, 1)
    assert "abdomen" in job.why and "the first" in job.why


def test_every_rule_that_does_not_match_says_why_for_every_series(model):
    """Three promises: every study can explain itself."""
    study = _study(_instance(1), _instance(2, series="1.2.3.2", Modality="MR"))
    made = route(study, [_rule(when={"BodyPartExamined": "ABDOMEN", "Modality": "MR"})], {"spleen-ct": model}, _first, recognised, now=5.0)
    assert made.jobs == () and "no rule matches" in made.why
    assert made.traces[0].objections == {
        "1.2.3.1": ("BodyPartExamined is missing", "Modality is CT, not MR"),
        "1.2.3.2": ("BodyPartExamined is missing",),
    }


def test_a_rule_that_matches_but_finds_no_suitable_series_says_so(model):
    """A rule's yes is not yet a job: the model's input decides, and explains."""
    made = route(_study(_instance(1)), [_rule()], {"spleen-ct": model}, _never, recognised, now=5.0)
    assert made.jobs == () and "too thick" in made.why
    assert made.as_detail()["rules"][0]["models"] == [{"model": "spleen-ct", "runs": False, "why": "too thick", "rejected": {"1.2.3.1": "5 mm"}}]


@pytest.mark.parametrize("header", [{"Modality": "SEG"}, {"Modality": "SR"}, {"ImageType": ["DERIVED", "SECONDARY", "MPR"]}])
def test_derived_objects_start_nothing_unless_a_rule_asks(model, header):
    """The loop guard: the node's own results come back from the PACS and must not be analysed again."""
    study = _study(_instance(1, **header))
    assert route(study, [_rule()], {"spleen-ct": model}, _first, recognised, now=5.0).jobs == ()
    assert len(route(study, [_rule(derived=True)], {"spleen-ct": model}, _first, recognised, now=5.0).jobs) == 1


def test_two_rules_for_the_same_analysis_make_one_job_for_both_destinations(model):
    """Nothing is done twice."""
    rules = [_rule("a", priority="LOW"), _rule("b", deliver=["pacs", "archive"], priority="HIGH")]
    (job,) = route(_study(_instance(1)), rules, {"spleen-ct": model}, _first, recognised, now=5.0).jobs
    assert job.deliver == ("pacs", "archive") and job.priority is Priority.HIGH and "'a'" in job.why and "'b'" in job.why


def test_the_order_of_arrival_changes_nothing(model):
    """The same content gives the same job, by identity."""
    one = route(_study(_instance(1), _instance(2)), [_rule()], {"spleen-ct": model}, _first, recognised, now=5.0)
    two = route(_study(_instance(2), _instance(1)), [_rule()], {"spleen-ct": model}, _first, recognised, now=5.0)
    assert one == two


def test_no_rules_is_said_plainly():
    """An unmatched study is visible, not silent."""
    assert route(_study(_instance(1)), [], {}, _first, recognised, now=5.0).why == "no analysis: there are no rules"


def test_a_rule_that_waits_for_missing_images_starts_nothing_and_says_so(model):
    """incomplete = "wait"; the other rules run, and their job says what is missing."""
    missing = ("pacs has 140 instances",)
    waits, runs = _rule("patient", incomplete="wait"), _rule("hasty")
    made = route(_study(_instance(1)), [waits], {"spleen-ct": model}, _first, recognised, now=5.0, short=missing)
    assert made.jobs == ()
    assert made.traces[0].objections["1.2.3.1"] == ("images are missing, and the rule waits for them: pacs has 140 instances",)
    (job,) = route(_study(_instance(1)), [waits, runs], {"spleen-ct": model}, _first, recognised, now=5.0, short=missing).jobs
    assert job.short == "pacs has 140 instances"
    (whole,) = route(_study(_instance(1)), [waits], {"spleen-ct": model}, _first, recognised, now=5.0).jobs
    assert (whole.identity, whole.short) == (job.identity, "")


def test_of_rules_that_differ_on_late_images_the_one_that_replaces_most_holds(model):
    """Both ask for the same analysis of the same series: it is one job."""
    rules = [_rule("first", late="ignore"), _rule("second", late="supersede"), _rule("third", late="rerun")]
    made = route(_study(_instance(1)), rules, {"spleen-ct": model}, _first, recognised, now=5.0)
    assert made.late == {made.jobs[0].identity: "supersede"}
