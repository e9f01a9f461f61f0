"""When a study is whole: silence, who vouches for it, what is known to be missing; the clock is passed in."""

from dataclasses import replace

import pytest

from dicom_node.assemble import Evidence, Policy, gathered, judge
from dicom_node.domain import Count, Instance, Notice, PerformedStep, StepState, Study

PATIENCE = Policy(complete_after_s=60)
EVIDENCE = Policy(complete_after_s=60, wait_at_most_s=300, early_after_s=5, ask=frozenset({"pacs"}))
CHEST = Evidence(instances=133, series=1, first_received_at=900.0, last_received_at=1000.0)
UIDS = frozenset(f"1.2.{number}" for number in range(133))
HELD = replace(CHEST, received=UIDS)


def step(state=StepState.COMPLETED, instances=UIDS, uid="1.9"):
    made = {"1.3.1": tuple(instances)}
    return PerformedStep(sop_instance_uid=uid, study_instance_uids=("1.3",), state=state, modality="CT", station="CT_1", started="2026", series=made)


def counts(*told, source="pacs"):
    return tuple(Count(source=source, at=at, instances=instances) for at, instances in told)


@pytest.mark.parametrize(("now", "complete"), [(1000.0, False), (1059.9, False), (1060.0, True), (5000.0, True)])
def test_a_study_is_whole_once_nothing_new_came_for_the_quiet_period(now, complete):
    assert judge(CHEST, PATIENCE, now).complete is complete
    assert judge(CHEST, EVIDENCE, now).complete is complete


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


@pytest.mark.parametrize("evidence", [CHEST, replace(HELD, steps=(step(),)), replace(CHEST, counts=counts((1005.0, 133), (1040.0, 133)))])
def test_a_clock_set_back_never_makes_a_study_whole(evidence):
    verdict = judge(evidence, EVIDENCE, 400.0)
    assert not verdict.complete
    assert verdict.look_again_at > 400.0


def test_nothing_received_is_not_a_whole_study():
    verdict = judge(Evidence(instances=0, last_received_at=0.0), PATIENCE, 1e9)
    assert (verdict.complete, verdict.look_again_at) == (False, None)


def test_without_patience_a_study_is_whole_at_once():
    assert judge(CHEST, Policy(complete_after_s=0), 1000.0).complete


# ------------------------------------------------------------------------------------------------------- who vouches for it


def test_a_study_of_which_every_procedure_step_lists_what_is_here_is_whole_early():
    """MPPS COMPLETED names every instance that was made (PS3.4 F.7.2.2.2); it may come before the images or after them."""
    known = replace(HELD, steps=(step(),))
    assert not judge(known, EVIDENCE, 1004.9).complete
    verdict = judge(known, EVIDENCE, 1005.0)
    assert (verdict.complete, verdict.short) == (True, ())
    assert verdict.why == "133 instances in 1 series; all that 1 performed procedure step made"


@pytest.mark.parametrize(
    "steps",
    [
        (step(StepState.IN_PROGRESS),),
        (step(), step(StepState.IN_PROGRESS, (), uid="1.10")),
        (step(StepState.DISCONTINUED),),
        (step(instances=list(UIDS)[:100]),),  # whose the other 33 are, nobody tells: another step may be under way
        (step(instances=[*UIDS, "1.3"]),),
    ],
)
def test_procedure_steps_that_do_not_account_for_all_vouch_for_nothing(steps):
    """Under way, ended early, of other images too, of fewer than are here."""
    assert not judge(replace(HELD, steps=steps), EVIDENCE, 1059.0).complete


@pytest.mark.parametrize(
    ("told", "complete"),
    [
        (counts((1005.0, 133), (1035.0, 133)), True),
        (counts((1005.0, 133), (1034.0, 133)), False),  # too close
        (counts((1005.0, 100), (1036.0, 133)), False),  # it is still receiving
        (counts((1000.0, 133), (1004.0, 100), (1032.0, 133)), False),  # it does not know
        (counts((1005.0, 133), (1020.0, None), (1035.0, 133)), True),  # once it did not answer
        (counts((1005.0, 133)) + counts((1035.0, 133), source="other"), False),
        (counts((1005.0, 130), (1035.0, 130)), False),
    ],
)
def test_two_equal_counts_half_a_minute_apart_vouch_for_a_study(told, complete):
    """An archive that is still receiving would have counted on (PS3.4 C.3.4, Number of Study Related Instances)."""
    assert judge(replace(CHEST, counts=told), EVIDENCE, 1036.0).complete is complete


def test_an_archive_may_count_rejected_images_or_not():
    """IHE IOCM: what a rejection note names may be hidden there, too."""
    for number in (133, 131):
        assert judge(replace(CHEST, rejected=2, counts=counts((1005.0, number), (1035.0, number))), EVIDENCE, 1036.0).complete


def test_a_remote_is_asked_once_it_is_quiet_and_again_half_a_minute_later():
    """Not while images come, nor more often than that; and an answer is looked for soon."""
    assert judge(CHEST, EVIDENCE, 1004.0).ask == frozenset()
    assert judge(CHEST, EVIDENCE, 1004.0).look_again_at == 1005.0
    asking = judge(CHEST, EVIDENCE, 1005.0)
    assert (asking.ask, asking.look_again_at) == ({"pacs"}, 1007.0)
    told = replace(CHEST, counts=counts((1005.0, 133)))
    assert (judge(told, EVIDENCE, 1007.0).ask, judge(told, EVIDENCE, 1007.0).look_again_at) == (frozenset(), 1035.0)
    assert judge(told, EVIDENCE, 1035.0).ask == {"pacs"}
    assert judge(replace(CHEST, counts=counts((1005.0, None))), EVIDENCE, 1007.0).ask == frozenset(), "one that does not answer is not hammered"
    assert judge(CHEST, PATIENCE, 1020.0).ask == frozenset()


# ------------------------------------------------------------------------------------------------------------ what is missing


MISSING = {
    "a step lists more": (replace(HELD, steps=(step(instances=[*UIDS, "1.3"]),)), "1 of 134 instances that the modality lists did not come"),
    "a step ended early, and lists more": (
        replace(HELD, steps=(step(StepState.DISCONTINUED, ["1.3"]),)),
        "1 of 1 instance that the modality lists did not come",
    ),
    "a step is under way": (replace(HELD, steps=(step(StepState.IN_PROGRESS, ()),)), "1 performed procedure step in progress"),
    "more is available": (
        replace(HELD, notices=(Notice(instances=frozenset({"1.3", "1.2.1"}), at=1.0),)),
        "1 of 2 instances that are said to be available did not come",
    ),
    "an archive has more": (replace(HELD, counts=counts((1010.0, 140))), "pacs has 140 instances"),
    "the images say so": (replace(HELD, shortfalls=("series 2: 1 slice missing between others",)), "series 2: 1 slice missing between others"),
}


@pytest.mark.parametrize("name", MISSING)
def test_a_study_of_which_images_are_known_to_be_missing_waits_longer_and_not_for_ever(name):
    """Then it is taken as it is, with what is missing."""
    evidence, sentence = MISSING[name]
    waiting = judge(evidence, EVIDENCE, 1299.9)
    assert (waiting.complete, waiting.short) == (False, (sentence,))
    ended = judge(evidence, EVIDENCE, 1300.0)
    assert (ended.complete, ended.short) == (True, (sentence,))
    assert ended.why == f"133 instances in 1 series; after 300 s it is taken although images are missing: {sentence}"
    assert judge(evidence, EVIDENCE, 1200.0).why == f"133 instances in 1 series; waits at most 100 s more for images that are missing: {sentence}"


def test_of_contradictions_the_missing_image_counts():
    """The modality vouches for all, and the archive has more; or an archive has more than another."""
    contradicted = replace(HELD, steps=(step(),), counts=counts((1010.0, 140)))
    assert not judge(contradicted, EVIDENCE, 1299.0).complete
    assert judge(contradicted, EVIDENCE, 1300.0).complete


def test_what_an_archive_said_last_counts():
    """It had counted an image twice, or one was deleted."""
    assert judge(replace(CHEST, counts=counts((1010.0, 140), (1040.0, 133))), EVIDENCE, 1060.0).short == ()


def test_an_archive_that_does_not_answer_keeps_nothing_waiting():
    silent = replace(CHEST, counts=counts((1005.0, None), (1035.0, None)))
    assert judge(silent, EVIDENCE, 1060.0).complete


def test_an_image_that_was_waited_for_makes_the_study_whole():
    """A late slice: the step's list is complete with it."""
    known = replace(HELD, steps=(step(instances=[*UIDS, "1.3"]),))
    assert not judge(known, EVIDENCE, 1100.0).complete
    came = replace(known, instances=134, received=UIDS | {"1.3"}, last_received_at=1100.0)
    assert judge(came, EVIDENCE, 1105.0).complete


def test_an_association_that_is_open_is_waited_for_and_not_for_ever():
    """Two associations of one examination, interleaved: the silence begins when the last has ended."""
    assert not judge(replace(CHEST, ended_at=1050.0), EVIDENCE, 1109.0).complete
    assert judge(replace(CHEST, ended_at=1050.0), EVIDENCE, 1110.0).complete
    assert not judge(replace(CHEST, ended_at=1299.0), EVIDENCE, 1299.0).complete
    assert judge(replace(CHEST, ended_at=1300.0), EVIDENCE, 1300.0).complete


# --------------------------------------------------------------------------------------------------------- what images tell


def image(number, *, series="1.2.3.1", place=None, **header):
    told = {"Modality": "CT", "SeriesNumber": 2, "InstanceNumber": number}
    if place is not None:
        told |= {"ImagePositionPatient": [0.0, 0.0, float(place)], "ImageOrientationPatient": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]}
    return Instance(
        sop_instance_uid=f"{series}.{number}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        study_instance_uid="1.2.3",
        series_instance_uid=series,
        path="a",
        size_bytes=1,
        digest="",
        calling_ae="CT",
        received_at=5.0,
        header=told | header,
    )


def study(*instances, **how):
    return Study(study_instance_uid="1.2.3", instances=instances, first_received_at=5.0, last_received_at=6.0, **how)


def test_evidence_is_taken_from_the_study_record():
    seen = study(image(1), image(2), image(1, series="1.2.3.2"), rejected=frozenset({"1.7"}))
    assert gathered(seen) == Evidence(
        instances=4,
        rejected=1,
        series=2,
        first_received_at=5.0,
        last_received_at=6.0,
        received=frozenset({"1.2.3.1.1", "1.2.3.1.2", "1.2.3.2.1", "1.7"}),
    )


TOLD = {
    "an even stack": ([image(n, place=n * 2) for n in range(20)], ()),
    "a slice is missing": ([image(n, place=n * 2) for n in range(20) if n != 7], ("series 2: 1 slice missing between others",)),
    "three slices are missing in two places": (
        [image(n, place=n * 2) for n in range(20) if n not in (7, 8, 12)],
        ("series 2: 3 slices missing between others",),
    ),
    "positions are rounded": ([image(n, place=round(n * 0.625, 1)) for n in range(20)], ()),
    "every other slice": ([image(n, place=n * 2 + (n % 2)) for n in range(20)], ()),
    "an image lies apart": ([*(image(n, place=n * 2) for n in range(20)), image(99, place=1000.3)], ()),
    "numbers go on where slices are even": ([image(n if n < 9 else n + 1, place=n * 2) for n in range(20)], ()),
    "a number is left out": ([image(n) for n in range(20) if n != 7], ("series 2: 1 instance number left out",)),
    "numbers of every other image": ([image(2 * n) for n in range(20)], ()),
    "numbers twice": ([image(n % 10, place=None, series=f"1.2.3.{n // 10}") for n in range(20)], ()),
    "one of two phases lacks a slice": (
        [image(20 * p + n, place=n * 2) for p in (0, 1) for n in range(20) if (p, n) != (1, 7)],
        ("series 2: fewer images at 1 place than at the others",),
    ),
    "a phase did not come": (
        [image(20 * p + n, place=n * 2, NumberOfTemporalPositions=3, TemporalPositionIdentifier=p) for p in (1, 2) for n in range(20)],
        ("series 2: 2 of 3 temporal positions",),
    ),
    "an acquisition made more": (
        [image(n, AcquisitionNumber=3, ImagesInAcquisition=25) for n in range(20)],
        ("acquisition 3: 20 of 25 images",),
    ),
    "an acquisition's images are in two series": (
        [image(n, series=f"1.2.3.{n % 2}", AcquisitionNumber=3, ImagesInAcquisition=20) for n in range(20)],
        (),
    ),
    "localizers": ([image(n, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]) for n in range(20) if n != 7], ()),
    "many frames": ([image(n, NumberOfFrames=40) for n in range(20) if n != 7], ()),
    "reformats": ([image(n, place=n * 2, ImageType=["DERIVED", "SECONDARY"]) for n in range(20) if n != 7], ()),
    "odd values": ([image("X", place=float("nan"), AcquisitionNumber=[1, 2], ImagesInAcquisition="many") for _ in range(20)], ()),
}


@pytest.mark.parametrize("name", TOLD)
def test_images_tell_of_others_that_are_missing_where_the_case_is_clear(name):
    """A false alarm costs minutes: what may be meant otherwise is no sign."""
    instances, sentences = TOLD[name]
    assert gathered(study(*instances)).shortfalls == sentences
    assert gathered(study(*reversed(instances))).shortfalls == sentences, "in whatever order they came"


def test_a_gap_that_a_rejection_note_made_is_none():
    """Nothing is to fill it."""
    kept = [image(n, place=n * 2) for n in range(20) if n != 7]
    assert gathered(study(*kept, rejected=frozenset({"1.2.3.1.7"}))).shortfalls == ()
