"""Studies are judged when their time has come, and one that the program cannot deal with keeps no other waiting."""

from dataclasses import replace

import pytest

from dicom_node.config import NodeConfig, Rule, Site
from dicom_node.domain import Rejected, StudyState, Transient, fault
from dicom_node.serve import foresee, judge_due
from dicom_node.store import Store
from tests.contracts.arrange import NOW, STUDY, arrive, kinds

OTHER = f"{STUDY}.7"


@pytest.fixture
def store(tmp_path):
    opened = Store.open(tmp_path)
    yield opened
    opened.close()


def _site(*rules, **node):
    config = NodeConfig.model_validate({"node": {"complete_after_s": 60.0, **node}})
    return Site(config=config.model_copy(update={"rules": tuple(Rule.model_validate(rule) for rule in rules)}), models={})


def _state(store, study):
    return next(row for row in store.studies.list() if row["study_instance_uid"] == study)


def test_a_study_is_judged_once_its_quiet_period_is_over(store):
    """Not before, and then once."""
    arrive(store)
    assert judge_due(_site(), store, NOW + 59) == 0
    assert judge_due(_site(), store, NOW + 61) == 1
    assert judge_due(_site(), store, NOW + 62) == 0
    assert _state(store, STUDY)["state"] == StudyState.COMPLETE


def test_what_was_foreseen_of_a_study_is_what_is_made_of_it(store):
    """Rules are asked while the quiet period runs out; nothing is decided before it is over."""
    arrive(store)
    foreseen = foresee(_site(), store, NOW + 60.1, {}, NOW + 59.9)
    assert foreseen.keys() == {STUDY}
    assert foresee(_site(), store, NOW + 60.1, foreseen, NOW + 59.95)[STUDY] is foreseen[STUDY]
    assert judge_due(_site(), store, NOW + 59.95, foreseen) == 0
    assert judge_due(_site(), store, NOW + 60, foreseen) == 1
    assert _state(store, STUDY)["completed_at"] == NOW + 60


def test_what_was_foreseen_of_a_study_that_changed_is_not_believed(store):
    """An image that comes at the last moment belongs to the study."""
    arrive(store)
    foreseen = foresee(_site(), store, NOW + 60.1, {}, NOW + 59.9)
    arrive(store, 2, at=NOW + 59.95)
    assert judge_due(_site(), store, NOW + 60, foreseen) == 0
    assert judge_due(_site(), store, NOW + 60) == 0
    assert judge_due(_site(), store, NOW + 119.96) == 1
    assert len(store.studies.view(STUDY).instances) == 2


def test_a_study_that_is_seen_to_go_on_is_put_off(store):
    """It need not be seen again when it was thought to be due."""
    arrive(store)
    store.studies.look_again(STUDY, NOW + 60)
    arrive(store, 2, at=NOW + 30)
    assert foresee(_site(), store, NOW + 60.1, {}, NOW + 59.9) == {}
    assert store.studies.next_due() == NOW + 90


def test_a_study_that_cannot_be_judged_is_held_and_the_others_go_on(store):
    """Whatever the fault of the program is: it is told of without its text, and the study stands among what is stuck."""
    arrive(store, PatientName="Marked^Patient")
    arrive(store, study=OTHER, at=NOW + 1, Modality="MR")
    broken = _site({"name": "CT", "when": {"Modality": "CT"}, "analyse": ["not-there"]})  # a configuration that `load_site` would refuse
    assert judge_due(broken, store, NOW + 62) == 1
    held = _state(store, STUDY)
    assert held["state"] == StudyState.CONFLICT
    assert held["why"].startswith("it could not be judged: unexpected KeyError at route.py:")
    assert kinds(store)[-1] == "held"
    assert _state(store, OTHER)["state"] == StudyState.COMPLETE


def test_a_held_study_is_judged_again_when_something_new_of_it_comes(store):
    """What held it may have been put right."""
    arrive(store)
    judge_due(_site({"name": "CT", "when": {"Modality": "CT"}, "analyse": ["not-there"]}), store, NOW + 61)
    arrive(store, 2, at=NOW + 100)
    assert judge_due(_site(), store, NOW + 161) == 1
    assert _state(store, STUDY)["state"] == StudyState.COMPLETE


@pytest.mark.parametrize("odd", [["CT", "OT"], 7, 1.5, ["SEG", "CT"]])
def test_an_attribute_of_an_unexpected_kind_stops_nothing(store, odd):
    """Devices write several values where one belongs, and numbers where text does."""
    arrive(store, Modality=odd, ImageType=odd, SeriesNumber="X", PatientID=odd)
    assert judge_due(_site({"name": "MR", "when": {"Modality": "MR"}, "analyse": ["never-asked"]}), store, NOW + 61) == 1
    assert _state(store, STUDY)["state"] == StudyState.COMPLETE


def test_several_modalities_are_not_a_derived_object(store):
    """The question is asked of a list too, which no set can hold."""
    arrive(store, Modality=["CT", "OT"])
    (series,) = store.studies.view(STUDY).series
    assert not series.derived
    assert replace(series, instances=(replace(series.instances[0], header={"Modality": "SEG"}),)).derived


def test_a_fault_is_told_without_its_text():
    """Its text may quote a header; the sentences of our own errors never do."""
    try:
        raise ValueError("Marked^Patient")
    except ValueError as error:
        said = fault(error)
    assert said.startswith("unexpected ValueError at test_serve.py:")
    assert "Marked" not in said
    assert fault(ValueError("Marked")) == "unexpected ValueError at an unknown place; this is a fault of the program"
    assert fault(Transient("the ledger is away")) == "the ledger is away"
    assert fault(Rejected("no")) == "no"
