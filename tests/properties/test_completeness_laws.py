"""Laws of completeness: always an end, never early, and what is missing never makes a study whole sooner."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from dicom_node.assemble import Evidence, Policy, judge
from dicom_node.domain import Count, Notice, PerformedStep, StepState

uids = st.frozensets(st.sampled_from([f"1.2.{number}" for number in range(8)]), max_size=8)
moments = st.floats(min_value=0, max_value=1000, allow_nan=False)
steps = st.builds(
    PerformedStep,
    sop_instance_uid=st.just("1.9"),
    study_instance_uids=st.just(("1.3",)),
    state=st.sampled_from(StepState),
    modality=st.just("CT"),
    station=st.just("CT_1"),
    started=st.just("2026"),
    series=uids.map(lambda made: {"1.3.1": tuple(sorted(made))}),
)
notices = st.builds(Notice, instances=uids, at=moments)
counts = st.builds(Count, source=st.sampled_from(["pacs", "other"]), at=moments, instances=st.none() | st.integers(0, 10))
spans = st.floats(min_value=0, max_value=400, allow_nan=False)
policies = st.builds(
    Policy, complete_after_s=spans, wait_at_most_s=spans, early_after_s=spans, ask=st.frozensets(st.sampled_from(["pacs", "other"]), max_size=2)
)


@st.composite
def evidence(draw):
    """Return what may be known of a study that has received something."""
    received = draw(uids.filter(bool))
    return Evidence(
        instances=len(received),
        received=received,
        series=1,
        rejected=draw(st.integers(0, len(received))),
        last_received_at=draw(moments),
        ended_at=draw(st.just(0.0) | moments),
        steps=tuple(draw(st.lists(steps, max_size=3))),
        notices=tuple(draw(st.lists(notices, max_size=2))),
        counts=tuple(draw(st.lists(counts, max_size=5))),
        shortfalls=tuple(draw(st.lists(st.just("series 1: 1 slice missing between others"), max_size=1))),
    )


@given(evidence(), policies, moments)
def test_a_study_is_judged_by_the_deadline_whatever_is_said(known, policy, now):
    """And whoever looks again when told to comes to it in a number of looks that its questions bound."""
    deadline = known.last_received_at + max(policy.complete_after_s, policy.wait_at_most_s)
    assert judge(known, policy, deadline).complete
    looks = 0
    while not (verdict := judge(known, policy, now)).complete:
        assert now < verdict.look_again_at <= max(deadline, now)
        now = max(verdict.look_again_at, now + 0.5)
        looks += 1
    assert looks <= 2 * (deadline + 1) + 2


@given(evidence(), policies, moments)
def test_a_study_is_never_whole_before_it_was_quiet(known, policy, now):
    """Not by any evidence, and not by a clock that was set back."""
    if judge(known, policy, now).complete:
        assert now >= known.last_received_at + min(policy.early_after_s, policy.complete_after_s)


@given(evidence(), policies, moments, steps | notices | counts | st.just("series 3: 2 slices missing between others"))
def test_more_evidence_of_missing_images_never_makes_a_study_whole_earlier(known, policy, now, more):
    """Monotone: a sign of something missing, added to whatever is known, only prolongs the wait."""
    if isinstance(more, PerformedStep):
        added = replace(more, series={"1.3.1": (*more.instances, "1.3.1")})  # the last was never received
        worse = replace(known, steps=(*known.steps, added))
    elif isinstance(more, Notice):
        worse = replace(known, notices=(*known.notices, replace(more, instances=more.instances | {"1.3.1"})))
    elif isinstance(more, Count):
        worse = replace(known, counts=(*known.counts, replace(more, source="third", instances=known.instances + 1)))
    else:
        worse = replace(known, shortfalls=(*known.shortfalls, more))
    if judge(worse, policy, now).complete:
        assert judge(known, policy, now).complete
    assert set(judge(known, policy, now).short) <= set(judge(worse, policy, now).short) or isinstance(more, PerformedStep | Notice)


@given(evidence(), policies, moments, moments)
def test_a_study_that_is_whole_stays_so_while_nothing_new_is_known(known, policy, now, later_s):
    """As long as nobody's answer lies in the future, time alone changes a verdict only from no to yes."""
    past = replace(known, counts=tuple(count for count in known.counts if count.at <= now))
    if judge(past, policy, now).complete:
        assert judge(past, policy, now + later_s).complete


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 30)), min_size=1, max_size=20))
def test_studies_that_come_interleaved_are_judged_as_if_each_came_alone(arrivals):
    """Two studies over two associations: what comes of one does not put off the other."""
    now, last, number = 0.0, {}, {}
    for name, pause_s in arrivals:
        now += pause_s
        last[name], number[name] = now, number.get(name, 0) + 1
    for name, at in last.items():
        alone = Evidence(instances=number[name], last_received_at=at)
        assert judge(alone, Policy(complete_after_s=60), at + 60).complete
        assert not judge(alone, Policy(complete_after_s=60), at + 59.9).complete
