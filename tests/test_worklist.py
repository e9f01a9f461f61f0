"""What a modality may say of its step, and with which status it is refused."""

import pytest
from pydicom import Dataset
from pydicom.config import disable_value_validation

from dicom_node.domain import PerformedStep, Refused, StepState
from dicom_node.worklist.mpps import StepEnded, begun, changed
from tests.performed import STEP, STUDY, ended, in_progress


def test_a_step_begins_with_what_the_modality_said() -> None:
    """PS3.4 Table F.7.2-1."""
    step = begun(STEP, in_progress())
    assert (step.state, step.modality, step.station, step.started) == (StepState.IN_PROGRESS, "CT", "CT_ER", "20260110101500")
    assert (step.study_instance_uids, step.series, step.expected) == ((STUDY,), {}, ())


@pytest.mark.parametrize(
    ("keyword", "value", "status"),
    [
        ("PerformedProcedureStepStatus", "COMPLETED", 0x0106),
        ("PerformedProcedureStepStatus", None, 0x0120),
        ("PerformedProcedureStepStatus", "", 0x0121),
        ("PerformedProcedureStepID", None, 0x0120),
        ("PerformedProcedureStepID", "", 0x0121),
        ("PerformedStationAETitle", None, 0x0120),
        ("PerformedProcedureStepStartDate", None, 0x0120),
        ("PerformedProcedureStepStartTime", None, 0x0120),
        ("Modality", None, 0x0120),
        ("ScheduledStepAttributesSequence", None, 0x0120),
        ("ScheduledStepAttributesSequence", [], 0x0121),
        ("ScheduledStepAttributesSequence", [Dataset()], 0x0120),
    ],
)
def test_a_step_that_lacks_what_it_must_have_is_not_begun(keyword: str, value: object, status: int) -> None:
    """PS3.4 F.7.2.1 and PS3.7 10.1.5.1.6."""
    attributes = in_progress()
    if value is None:
        delattr(attributes, keyword)
    else:
        setattr(attributes, keyword, value)
    with pytest.raises(Refused) as refused:
        begun(STEP, attributes)
    assert refused.value.status == status


@pytest.mark.parametrize("uid", ["", "1.02.3", "1" * 65, "../../etc"])
def test_what_is_no_uid_names_no_step(uid: str) -> None:
    """PS3.5 9.1."""
    with pytest.raises(Refused) as refused:
        begun(uid, in_progress())
    assert refused.value.status == 0x0106


def test_a_step_of_more_studies_than_are_kept_is_refused() -> None:
    """A peer is not to fill the ledger with one message."""
    attributes = in_progress(*(f"{STUDY}.{number}" for number in range(17)))
    with pytest.raises(Refused) as refused:
        begun(STEP, attributes)
    assert refused.value.status == 0x0213


def test_a_step_that_ends_lists_all_that_it_made() -> None:
    """PS3.4 F.7.2.2.2: images and other composite objects, of every series."""
    step = changed(begun(STEP, in_progress()), ended("COMPLETED", {"1.2.1": ["1.2.1.1", "1.2.1.2"], "1.2.2": ["1.2.2.1"]}))
    assert (step.state, step.ended) == (StepState.COMPLETED, "20260110103000")
    assert step.expected == ("1.2.1.1", "1.2.1.2", "1.2.2.1")


def test_what_a_change_does_not_name_stays() -> None:
    """PS3.7 10.1.3: an N-SET names what changes."""
    listed = changed(begun(STEP, in_progress()), ended("", {"1.2.1": ["1.2.1.1"]}))
    assert (listed.state, listed.expected) == (StepState.IN_PROGRESS, ())
    final = Dataset()
    final.PerformedProcedureStepStatus = "DISCONTINUED"
    assert changed(listed, final).expected == ("1.2.1.1",)


def test_a_step_that_is_discontinued_may_have_made_nothing() -> None:
    """A patient who was called away before the first image."""
    assert changed(begun(STEP, in_progress()), ended("DISCONTINUED", {})).expected == ()


@pytest.mark.parametrize(("status", "series", "expected"), [("COMPLETED", {}, 0x0120), ("FINISHED", {"1.2.1": []}, 0x0106)])
def test_a_change_that_no_step_can_take_is_refused(status: str, series: dict[str, list[str]], expected: int) -> None:
    """PS3.4 F.7.2.2."""
    with pytest.raises(Refused) as refused:
        changed(begun(STEP, in_progress()), ended(status, series))
    assert refused.value.status == expected


@pytest.mark.parametrize("state", [StepState.COMPLETED, StepState.DISCONTINUED])
def test_a_step_that_has_ended_does_not_change(state: StepState) -> None:
    """PS3.4 F.7.2.2.3: 0110, with the Error ID A710."""
    over = PerformedStep(sop_instance_uid=STEP, study_instance_uids=(STUDY,), state=state, modality="CT", station="CT_ER", started="2026")
    with pytest.raises(StepEnded) as refused:
        changed(over, ended("COMPLETED", {"1.2.1": ["1.2.1.1"]}))
    assert refused.value.status == 0x0110


def test_a_series_that_is_named_by_no_uid_is_refused() -> None:
    """PS3.5 9.1; the step stays as it was."""
    with disable_value_validation():
        final = ended("COMPLETED", {"no uid": []})
    with pytest.raises(Refused) as refused:
        changed(begun(STEP, in_progress()), final)
    assert refused.value.status == 0x0106
