"""Performed procedure steps in the ledger: begun once, changed while they go on, and told to every study concerned."""

from dataclasses import replace

import pytest

from dicom_node.domain import PerformedStep, Refused, StepState
from dicom_node.store import Topic
from tests.contracts.arrange import NOW, STUDY, last

STEP = PerformedStep(
    sop_instance_uid="1.2.7",
    study_instance_uids=(f"{STUDY}.1", f"{STUDY}.2"),
    state=StepState.IN_PROGRESS,
    modality="CT",
    station="CT_ER",
    started="2026",
)


def finish(step: PerformedStep) -> PerformedStep:
    return replace(step, state=StepState.COMPLETED, ended="2027", series={"1.2": ("1.2.1", "1.2.2")})


def test_a_step_is_begun_once(store):
    """PS3.7 10.1.5: a second N-CREATE of one instance is a duplicate."""
    assert store.steps.begin(STEP, "CT_ER", now=NOW)
    assert not store.steps.begin(replace(STEP, study_instance_uids=(STUDY,)), "CT_ER", now=NOW)
    assert store.steps.of_study(f"{STUDY}.1") == store.steps.of_study(f"{STUDY}.2") == (STEP,)
    assert store.steps.of_study(STUDY) == ()


def test_what_a_step_made_is_known_to_each_of_its_studies(store):
    """The bell rings, and the journal has it."""
    store.steps.begin(STEP, "CT_ER", now=NOW)
    ear = store.bell.listen(Topic.STUDIES)
    done = store.steps.change("1.2.7", finish, "CT_ER", now=NOW + 1)
    assert ear.wait(10.0)
    ear.close()
    assert done is not None and done.expected == ("1.2.1", "1.2.2")
    for number in (1, 2):
        assert store.steps.of_study(f"{STUDY}.{number}") == (done,)
        assert last(store, "step completed", f"{STUDY}.{number}") == ("CT_ER", "a modality says that its step is COMPLETED")


def test_a_change_that_is_refused_changes_nothing(store):
    """What the decision raises goes through."""
    store.steps.begin(STEP, "CT_ER", now=NOW)

    def refuse(step: PerformedStep) -> PerformedStep:
        raise Refused("no", status=0x0110)

    with pytest.raises(Refused):
        store.steps.change("1.2.7", refuse, "CT_ER", now=NOW)
    assert store.steps.of_study(f"{STUDY}.1") == (STEP,)
    assert store.steps.change("1.2.8", finish, "CT_ER", now=NOW) is None


def test_a_step_whose_study_never_came_does_not_stay_for_ever(store):
    """It is forgotten when another begins, a month later."""
    store.steps.begin(STEP, "CT_ER", now=NOW)
    store.steps.begin(replace(STEP, sop_instance_uid="1.2.8"), "CT_ER", now=NOW + 31 * 86400)
    assert [step.sop_instance_uid for step in store.steps.of_study(f"{STUDY}.1")] == ["1.2.8"]
