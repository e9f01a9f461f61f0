"""Studies are judged when their time has come, and one that the program cannot deal with keeps no other waiting."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.config import NodeConfig, Rule, Site
from dicom_node.config.node import Complete
from dicom_node.domain import PerformedStep, Rejected, StepState, StudyState, Transient, fault
from dicom_node.query.counting import Counting
from dicom_node.receive import Presence
from dicom_node.serve import Witnesses, foresee, judge_due
from dicom_node.store import Store
from tests import phantoms
from tests.contracts.arrange import NOW, STUDY, arrive, finished, kinds, sending
from tests.reported import Node

OTHER = f"{STUDY}.7"
FAKES = Path(__file__).parent / "models"
PACS = {"ae": "PACS@127.0.0.1:104", "may": ["send"], "retrieve": "move"}


@pytest.fixture
def store(tmp_path):
    opened = Store.open(tmp_path)
    yield opened
    opened.close()


def _site(*rules, **node):
    config = NodeConfig.model_validate({"node": {"complete_after_s": 60.0, **node}})
    return Site(config=config.model_copy(update={"rules": tuple(Rule.model_validate(rule) for rule in rules)}), models={})


def _asking(store, now, answers):
    """Return a site that asks its PACS, and what asks it: at a clock that the test moves, and of each answer the next."""
    config = NodeConfig.model_validate({"node": {"complete_after_s": 60.0}, "remotes": {"pacs": PACS}, "complete": {"ask": ["pacs"]}})
    return Site(config=config, models={}), Counting(lambda remote, uid: answers.pop(0), lambda: now[0])


def _judged_at(site, store, counting, now, at):
    """Judge at a moment, and wait until what is asked is answered."""
    now[0] = at
    known = len(counting.of(STUDY))
    judged = judge_due(site, store, at, witnesses=Witnesses(counting=counting))
    asked = at in (NOW + 5, NOW + 35)
    until = time.monotonic() + 30
    while asked and len(counting.of(STUDY)) == known and time.monotonic() < until:
        time.sleep(0.002)
    return judged


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


def test_a_remote_that_counts_as_many_twice_makes_a_study_complete_early(store):
    """It is asked while the study is quiet, half a minute apart, and not when it is over."""
    now, answers = [NOW], [1, 1, 99]
    site, counting = _asking(store, now, answers)
    arrive(store)
    assert [_judged_at(site, store, counting, now, NOW + s) for s in (4, 5, 7, 35, 37)] == [0, 0, 0, 0, 1]
    counting.stop()
    assert _state(store, STUDY)["why"] == "1 instance in 1 series; pacs counted as many twice"
    assert answers == [99]


def test_a_question_that_is_due_is_not_put_off(store):
    """Who looks ahead asks nobody, and leaves the study to be looked at then."""
    now, answers = [NOW], [1]
    site, counting = _asking(store, now, answers)
    arrive(store)
    store.studies.look_again(STUDY, NOW + 5)
    assert foresee(site, store, NOW + 5, {}, NOW + 4.8, Witnesses(counting=counting)) == {}
    assert store.studies.next_due() == NOW + 5
    _judged_at(site, store, counting, now, NOW + 5)
    counting.stop()
    assert answers == []


def test_a_remote_that_has_more_keeps_a_study_waiting_and_one_that_fails_does_not(store):
    """An answer that is none is no evidence."""
    now, answers = [NOW], [7, 7, *[7] * 20]
    site, counting = _asking(store, now, answers)
    arrive(store)
    assert [_judged_at(site, store, counting, now, NOW + s) for s in (5, 35, 61)] == [0, 0, 0]
    counting.stop()
    assert judge_due(site, store, NOW + 300, witnesses=Witnesses(counting=counting)) == 1
    assert _state(store, STUDY)["why"].endswith("it is taken although images are missing: pacs has 7 instances")
    arrive(store, study=OTHER)
    failing = Counting(lambda remote, uid: 1 // 0, lambda: NOW + 6)
    judge_due(site, store, NOW + 6, witnesses=Witnesses(counting=failing))
    failing.stop()
    assert [count.instances for count in failing.of(OTHER)] == [None]
    assert judge_due(site, store, NOW + 61, witnesses=Witnesses(counting=failing)) == 1


def test_what_was_missing_is_told_by_job_and_report(tmp_path):
    """The acquisition made more images than came: the study is taken as it is, and the reader is told."""
    node = Node(tmp_path, {"good": FAKES / "good"})
    node.site = replace(node.site, config=node.site.config.model_copy(update={"complete": Complete(wait_at_most_s=0)}))
    node.receive(phantoms.series(AcquisitionNumber=3, ImagesInAcquisition=99))
    (job,) = node.work()
    node.close()
    assert job.short == "acquisition 3: 8 of 99 images"
    told = [item.value for item in dcmread(node.file(job)).iterall() if item.keyword == "TextValue"]
    assert "When the study was judged, images were known to be missing: acquisition 3: 8 of 99 images." in told


def test_a_study_waits_while_an_association_that_brought_some_of_it_is_open(store):
    """Its silence begins when the last has ended; one that stays open keeps nobody waiting for ever."""
    arrive(store, at=NOW)
    now, site = [NOW], _site(complete_after_s=60)
    presence = Presence(lambda: now[0])
    presence.brings(1, STUDY)

    def judged(second):
        now[0] = NOW + second
        return judge_due(site, store, now[0], witnesses=Witnesses(presence=presence))

    assert judged(61) == 0 and _state(store, STUDY)["state"] == StudyState.OPEN
    now[0] = NOW + 100
    presence.leaves(1)
    assert (judged(159), judged(160)) == (0, 1)


def test_a_study_waits_while_more_of_it_is_being_fetched(store):
    """The archive has said how many there are; when the retrieval has ended, the quiet period decides again."""
    arrive(store)
    store.retrievals.ask("pacs", STUDY, who="anna", why="a person asked for it", now=NOW, by_person=True)
    one = store.retrievals.claim("pacs", "fetcher", now=NOW, lease_s=900.0)
    assert store.retrievals.renew(one, "fetcher", now=NOW + 1, lease_s=900.0, expected=2, held=1)
    assert judge_due(_site(), store, NOW + 61) == 0
    assert store.retrievals.give_up(one, "fetcher", now=NOW + 90, reason="1 of 2 came", expected=2, held=1)
    assert judge_due(_site(), store, NOW + 90) == 1


def test_what_the_node_sent_there_is_not_counted(store):
    """A remote's count includes the results that it took."""
    finished(store)
    assert store.deliveries.there(STUDY, "pacs") == 0
    for one in sending(store):
        store.deliveries.sent(one, "sender-1", now=NOW, status=0)
    assert (store.deliveries.there(STUDY, "pacs"), store.deliveries.there(STUDY, "other"), store.deliveries.there(OTHER, "pacs")) == (2, 0, 0)


def test_a_modality_that_ended_its_step_makes_a_study_complete_early(store):
    """All that the step lists is here (PS3.4 F.7.2.2): the study does not wait for silence; while images of it are missing it waits on."""
    arrive(store)
    (held,) = store.studies.view(STUDY).instances
    made = {held.series_instance_uid: (held.sop_instance_uid,)}
    said = {"modality": "CT", "station": "CT_1", "started": "2026"}
    step = PerformedStep(sop_instance_uid="1.9", study_instance_uids=(STUDY,), state=StepState.IN_PROGRESS, **said)
    assert store.steps.begin(step, "CT_1", now=NOW)
    assert judge_due(_site(), store, NOW + 61) == 0
    store.steps.change("1.9", lambda one: replace(one, state=StepState.COMPLETED, series=made), "CT_1", now=NOW + 62)
    assert judge_due(_site(), store, NOW + 62) == 1
    assert _state(store, STUDY)["why"] == "1 instance in 1 series; all that 1 performed procedure step made"
