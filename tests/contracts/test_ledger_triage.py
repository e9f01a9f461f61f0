"""Studies that findings raise: on both databases each is raised once, whoever races or dies, and no priority is ever lowered."""

import threading
from dataclasses import replace

import pytest

from dicom_node.domain import JobState, Priority, Raising, Readiness, Workitem
from dicom_node.store import Change
from dicom_node.store import triage as triage_module
from tests.contracts.arrange import NOW, STUDY, arrive, claimed, finished, judged, kinds, last, result_of, waiting

READER = "triage bleeding"
INPUTS = "00404021"


def a_raising(store, job, **how):
    results = store.jobs.results(job.id)
    said = {"algorithm": "lung-ct 1.0", "findings": ("Volume 612 mL",), "results": results, "code": ("READ", "99SITE", "Read it"), "jobs": True}
    return Raising(rule="bleeding", study_instance_uid=job.study_instance_uid, priority=Priority.HIGH, job_id=job.id, **said | how)


def a_step(raised, *inputs, at=NOW):
    attributes = {"00404010": {"vr": "DT", "Value": [str(at)]}, INPUTS: {"vr": "SQ", "Value": [{"0020000E": {"Value": [one]}} for one in inputs]}}
    about = {"study_instance_uid": raised.study_instance_uid, "readiness": Readiness.READY, "scheduled_at": at}
    return Workitem(uid=raised.workitem_uid, state=JobState.SCHEDULED, priority=raised.priority, attributes=attributes, **about)


def act(store, *raised, after=None, upto=None, now=NOW):
    known, events = store.triage.news(READER)
    after, upto = known if after is None else after, (events[-1].id if events else known) if upto is None else upto
    return store.triage.act(READER, [(one, a_step(one, "1.2", at=now)) for one in raised], after=after, upto=upto, now=now)


def found(store):
    """Return what raises a study whose first job is completed, and whose second one waits."""
    store.triage.news(READER)
    arrive(store)
    judged(store, models=("lung-ct", "liver-ct"), priority=Priority.LOW)
    job = claimed(store)
    assert store.jobs.complete(job, [result_of(store, job, "SR")], now=NOW, why="made it")
    return a_raising(store, job)


def test_a_finding_raises_its_study_in_the_commit_that_passes_it(store):
    """A step for the reader, the waiting job, the journal: all of it, or nothing; and the same event is not read again."""
    raised = found(store)
    assert act(store, raised) == (raised,)
    step = store.workitems.get(raised.workitem_uid)
    assert (step.state, step.priority, step.job) == (JobState.SCHEDULED, Priority.HIGH, None)
    (waits,) = store.jobs.list(state=JobState.SCHEDULED)
    assert waits.priority is Priority.HIGH and waits.model == "liver-ct"
    who, why = last(store, "raised")
    assert who == "node" and "'bleeding' raises it to HIGH, for lung-ct 1.0 found: Volume 612 mL" in why
    assert why.endswith("a step for the reader is on the worklist, 1 waiting job of the study goes first")
    assert not [event for event in store.triage.news(READER)[1] if event.kind == "completed"]


def test_two_processes_raise_it_once(store):
    raised = found(store)
    after, events = store.triage.news(READER)
    did = []
    threads = [threading.Thread(target=lambda: did.append(act(store, raised, after=after, upto=events[-1].id))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(len, did)) == [0, 0, 0, 1]
    assert kinds(store).count("raised") == 1


def test_what_is_cut_off_in_between_leaves_nothing_and_is_done_again(store, monkeypatch):
    """As a kill -9 at its last step: neither step nor priority nor journal, and the event is still to be read."""
    raised = found(store)

    def dies(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(triage_module, "note", dies)
        with pytest.raises(KeyboardInterrupt):
            act(store, raised)
    assert store.workitems.get(raised.workitem_uid) is None
    assert {one.priority for one in store.jobs.list(state=JobState.SCHEDULED)} == {Priority.LOW}
    assert act(store, raised) == (raised,)


def test_a_second_finding_adds_to_the_step_and_lowers_nothing(store):
    """Once for a study and rule: what is new to look at is added; what says no more than is known changes nothing."""
    raised = found(store)
    act(store, raised)
    changed = store.workitems.change(raised.workitem_uid, lambda _: Change(priority=Priority.LOW), now=NOW)
    assert changed.priority is Priority.LOW
    medium = replace(raised, priority=Priority.MEDIUM)
    after, _ = store.triage.news(READER)
    more = store.triage.act(READER, [(medium, a_step(medium, "1.3", at=NOW + 5))], after=after, upto=after + 1, now=NOW + 5)
    step = store.workitems.get(raised.workitem_uid)
    assert more == (medium,) and step.priority is Priority.MEDIUM
    assert [one["0020000E"]["Value"] for one in step.attributes[INPUTS]["Value"]] == [["1.2"], ["1.3"]]
    assert step.attributes["00404010"]["Value"] == [str(NOW + 5)]
    low = replace(raised, priority=Priority.LOW)
    assert store.triage.act(READER, [(low, a_step(low, "1.3"))], after=after + 1, upto=after + 2, now=NOW) == ()
    assert store.workitems.get(raised.workitem_uid).priority is Priority.MEDIUM


def test_a_step_that_somebody_has_claimed_stays_as_it_is(store):
    raised = found(store)
    act(store, raised)
    store.workitems.change(raised.workitem_uid, lambda _: Change(state=JobState.IN_PROGRESS, transaction_uid="1.2"), now=NOW)
    before = store.workitems.get(raised.workitem_uid)
    after, _ = store.triage.news(READER)
    assert store.triage.act(READER, [(raised, a_step(raised, "1.9"))], after=after, upto=after + 1, now=NOW) == ()
    assert store.workitems.get(raised.workitem_uid) == before


def test_other_studies_jobs_that_run_and_jobs_that_are_more_urgent_stay_as_they_are(store):
    raised = replace(found(store), code=None, priority=Priority.MEDIUM)
    running = store.jobs.claim("w", ["liver-ct"], now=NOW, lease_s=30)
    other = waiting(store, study=f"{STUDY}.9", priority=Priority.LOW)
    arrive(store, 2)
    urgent = judged(store, models=("heart-ct",), priority=Priority.HIGH)
    after, events = store.triage.news(READER)
    assert store.triage.act(READER, [(raised, None)], after=after, upto=events[-1].id, now=NOW) == (raised,)
    assert [store.jobs.get(one.id).priority for one in (running, other, urgent)] == [Priority.LOW, Priority.LOW, Priority.HIGH]


def test_a_worklist_finds_what_was_raised_by_study_and_by_accession_number(store):
    """An accession number alone is no patient: another patient's order of the same number stays as it is."""
    arrive(store, AccessionNumber="A1", PatientID="P1")
    judged(store)
    job = claimed(store)
    store.jobs.complete(job, [result_of(store, job, "SR")], now=NOW, why="made it")
    act(store, a_raising(store, job, code=None, jobs=False, comments=True))
    finished(store, study=f"{STUDY}.2")
    orders = [(STUDY, "", ""), ("1.2.3", "A1", "P1"), ("1.2.3", "A1", "P2"), ("", "A1", ""), (f"{STUDY}.2", "", ""), ("", "", "")]
    assert store.triage.raised(orders) == [("bleeding",), ("bleeding",), (), (), (), ()]
    assert "worklists of modalities say so" in last(store, "raised")[1]
    assert len(store.triage.raised([(f"1.2.{number}", f"B{number}", "P") for number in range(1000)] + orders)) == 1006
    store.studies.purge(STUDY, who="clock", why="old", now=NOW)
    assert store.triage.raised(orders[:2]) == [(), ()]
