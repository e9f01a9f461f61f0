"""A study is whole when nothing new has come for a while; the clock is passed in."""

import pytest

from dicom_node.assemble import Evidence, Policy, judge
from dicom_node.domain import Instance, Study

PATIENCE = Policy(complete_after_s=60)
CHEST = Evidence(instances=133, series=1, first_received_at=900.0, last_received_at=1000.0)


@pytest.mark.parametrize(("now", "complete"), [(1000.0, False), (1059.9, False), (1060.0, True), (5000.0, True)])
def test_a_study_is_whole_once_nothing_new_came_for_the_quiet_period(now, complete):
    assert judge(CHEST, PATIENCE, now).complete is complete


def test_the_verdict_says_why():
    assert judge(CHEST, PATIENCE, 1060.0).why == "133 instances in 1 series; nothing new for 60 s"
    assert judge(CHEST, PATIENCE, 1020.0).why == "133 instances in 1 series; the last came 20 s ago, whole after 40 s more of silence"


def test_an_open_study_says_when_to_look_again_and_is_whole_then():
    verdict = judge(CHEST, PATIENCE, 1020.0)
    assert verdict.look_again_at == 1060.0
    assert judge(CHEST, PATIENCE, verdict.look_again_at).complete
    assert judge(CHEST, PATIENCE, 1060.0).look_again_at is None


def test_a_late_instance_starts_the_quiet_period_anew():
    late = Evidence(instances=134, series=2, first_received_at=900.0, last_received_at=1059.0)
    assert judge(late, PATIENCE, 1060.0).look_again_at == 1119.0


def test_a_clock_set_back_never_makes_a_study_whole():
    verdict = judge(CHEST, PATIENCE, 400.0)
    assert not verdict.complete
    assert verdict.look_again_at == 1060.0


def test_nothing_received_is_not_a_whole_study():
    verdict = judge(Evidence(instances=0, last_received_at=0.0), PATIENCE, 1e9)
    assert (verdict.complete, verdict.look_again_at) == (False, None)


def test_without_patience_a_study_is_whole_at_once():
    assert judge(CHEST, Policy(complete_after_s=0), 1000.0).complete


def test_evidence_is_taken_from_the_study_record():
    def one(series: str, uid: str) -> Instance:
        return Instance(
            sop_instance_uid=uid,
            sop_class_uid="1.2",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            study_instance_uid="1.2.3",
            series_instance_uid=series,
            path="a",
            size_bytes=1,
            digest="",
            calling_ae="CT",
            received_at=5.0,
            header={},
        )

    study = Study(
        study_instance_uid="1.2.3", instances=(one("1.1", "1"), one("1.1", "2"), one("1.2", "3")), first_received_at=5.0, last_received_at=6.0
    )
    assert Evidence.of(study) == Evidence(instances=3, series=2, first_received_at=5.0, last_received_at=6.0)
