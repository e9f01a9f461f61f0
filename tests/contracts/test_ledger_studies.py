"""Studies in the ledger: "the study is complete" and "its jobs exist" are one commit; what is purged is gone, and the journal says so."""

import threading
from dataclasses import replace

import pytest

from dicom_node.domain import Discontinuation, JobState, Rejected, StudyState, Transient
from dicom_node.store import Store
from tests.contracts.arrange import (
    LEASE_S,
    NOW,
    STUDY,
    arrive,
    claimed,
    finished,
    in_quarantine,
    job_of,
    judged,
    kinds,
    last,
    result_of,
    sending,
    waiting,
)
from tests.files import size_bytes


def test_open_studies_are_due_when_their_time_has_come(store):
    """The longest waiting comes first; what was put off comes when it was put off to; what is judged does not come."""
    arrive(store, study=f"{STUDY}.1", at=NOW + 5)
    arrive(store, study=f"{STUDY}.2", at=NOW)
    assert store.studies.due(NOW - 1) == ()
    assert store.studies.due(NOW + 5) == (f"{STUDY}.2", f"{STUDY}.1")
    assert store.studies.due(NOW + 5, limit=1) == (f"{STUDY}.2",)
    store.studies.look_again(f"{STUDY}.2", NOW + 60)
    assert store.studies.due(NOW + 59) == (f"{STUDY}.1",)
    judged(store, f"{STUDY}.1")
    assert store.studies.due(NOW + 60) == (f"{STUDY}.2",)


def test_an_unknown_study_has_no_view(store):
    """None, rather than an empty study."""
    assert store.studies.view("1.2.3") is None


def test_a_study_and_its_jobs_are_complete_in_one_commit(store):
    """The judgement, its reasons and the jobs are there together."""
    arrive(store, 1)
    seen = store.studies.view(STUDY)
    wanted = [job_of(seen, model, at=NOW + 60) for model in ("lung-ct", "spleen-ct")]
    made = store.studies.complete(seen, why="60 s without a new instance", jobs=wanted, detail={"rules": ["chest CT"]}, now=NOW + 60)
    assert [(job.model, job.revision, job.state) for job in made] == [("lung-ct", 1, JobState.SCHEDULED), ("spleen-ct", 1, JobState.SCHEDULED)]
    assert {job.id for job in store.jobs.list()} == {job.id for job in made}
    assert kinds(store) == ["first instance", "complete", "scheduled", "scheduled"]
    assert store.journal.of_study(STUDY)[1].detail == {"revision": 1, "rules": ["chest CT"]}
    assert store.studies.view(STUDY).revision == 1


def test_a_study_that_changed_since_it_was_seen_is_not_judged(store):
    """`changes` guards the commit: nothing of it is kept."""
    arrive(store, 1)
    seen = store.studies.view(STUDY)
    arrive(store, 2)
    assert store.studies.complete(seen, why="quiet", jobs=[job_of(seen)], detail={}, now=NOW) is None
    assert store.jobs.list() == ()
    assert store.studies.counts() == {StudyState.OPEN: 1}
    assert kinds(store) == ["first instance"]


def test_a_study_is_judged_once(store):
    """Two clocks may tick at once."""
    arrive(store, 1)
    seen = store.studies.view(STUDY)
    assert store.studies.complete(seen, why="quiet", jobs=[job_of(seen)], detail={}, now=NOW)
    assert store.studies.complete(seen, why="quiet", jobs=[job_of(seen)], detail={}, now=NOW) is None
    assert kinds(store).count("complete") == 1


def test_instances_that_race_with_the_judgement_are_judged_by_it_or_after_it(store):
    """Whatever the order, the last judgement saw every instance, and its job has them all."""

    def send(sender: int) -> None:
        for number in range(10):
            arrive(store, 10 * sender + number)

    senders = [threading.Thread(target=send, args=(sender,)) for sender in range(3)]
    for thread in senders:
        thread.start()
    judgements = 0
    while any(thread.is_alive() for thread in senders) or store.studies.due(NOW):
        for uid in store.studies.due(NOW):
            judgements += judged(store, uid, max_reruns=1000) is not None
    assert judgements == store.studies.view(STUDY).revision
    newest = store.jobs.list()[0]
    assert len(newest.inputs["ct"]) == 30
    assert [job.state for job in store.jobs.list() if job.id != newest.id] == [JobState.CANCELED] * (judgements - 1)


def test_the_same_analysis_is_not_made_twice(store):
    """A job's identity is its inputs and its model's build: a late localizer that the model does not take makes no new work."""
    arrive(store, 1)
    seen = store.studies.view(STUDY)
    job = job_of(seen)
    store.studies.complete(seen, why="quiet", jobs=[job], detail={}, now=NOW)
    arrive(store, 2)
    again = store.studies.view(STUDY)
    assert store.studies.complete(again, why="quiet", jobs=[job], detail={}, now=NOW) == ()
    assert len(store.jobs.list()) == 1


def test_a_job_that_waits_gives_way_to_one_on_more_images(store):
    """SUPERSEDED, and the journal says by which."""
    first = waiting(store)
    arrive(store, 2)
    second = judged(store)
    gone = store.jobs.get(first.id)
    assert (gone.state, gone.discontinuation) == (JobState.CANCELED, Discontinuation.SUPERSEDED)
    assert last(store, "canceled (superseded)") == ("node", f"the study grew: job {second.id} takes its place")
    assert second.predecessor_id == first.id
    assert store.jobs.predecessors(second) == ()


def test_a_job_that_runs_is_asked_to_give_way(store):
    """Its worker hears of it at the next beat, and ends as SUPERSEDED."""
    waiting(store)
    running = claimed(store)
    arrive(store, 2)
    second = judged(store)
    assert store.jobs.beat(running, now=NOW, lease_s=LEASE_S, progress=0.5, note="") is True
    assert "cancel requested" in kinds(store)
    assert store.jobs.stop(running, now=NOW)
    ended = store.jobs.get(running.id)
    assert (ended.state, ended.discontinuation, ended.reason) == (
        JobState.CANCELED,
        Discontinuation.SUPERSEDED,
        f"the study grew: job {second.id} takes its place",
    )


def test_a_job_that_is_done_before_it_can_give_way_counts(store):
    """Its results are what the next job's results replace."""
    waiting(store)
    running = claimed(store)
    arrive(store, 2)
    second = judged(store)
    assert store.jobs.complete(running, [result_of(store, running)], now=NOW, why="made SEG")
    done = store.jobs.get(running.id)
    assert (done.state, done.discontinuation, done.reason) == (JobState.COMPLETED, None, "")
    assert [one.job_id for one in store.jobs.predecessors(second)] == [running.id]


def test_results_name_those_of_the_nearest_earlier_job_that_completed(store):
    """Jobs between that came to nothing are passed over; what did not pass the check is not named."""
    first = finished(store)
    arrive(store, 2)
    judged(store)
    assert store.jobs.decline(claimed(store), now=NOW, why="too few slices")
    arrive(store, 3)
    third = judged(store)
    assert [(one.job_id, one.kind) for one in store.jobs.predecessors(third)] == [(first.id, "SEG"), (first.id, "SR")]


def test_a_rejection_goes_only_where_it_is_wanted_and_is_itself_nothing_to_replace(store):
    """The other results go to all destinations; the next job's predecessors are results, not the note that rejected earlier ones."""
    waiting(store, deliver=("pacs", "archive"))
    job = claimed(store)
    made = [result_of(store, job, kind) for kind in ("SEG", "REJ")]
    assert store.jobs.complete(job, made, now=NOW, why="made it", only={"REJ": ["archive", "elsewhere"]})
    sent = {(one.result.kind, one.destination) for one in store.deliveries.list()}
    assert sent == {("SEG", "pacs"), ("SEG", "archive"), ("REJ", "archive")}
    arrive(store, 2)
    assert [one.kind for one in store.jobs.predecessors(judged(store))] == ["SEG"]


def test_a_model_runs_only_so_often_by_itself(store):
    """node.max_reruns: a sender that never ends does not keep the model busy for ever; what gave way unseen is not counted."""
    finished(store)
    for number in range(2, 5):
        arrive(store, number)
        assert judged(store, max_reruns=1), "nobody had begun the one before"
    store.jobs.complete(claimed(store), [], now=NOW, why="made nothing")
    arrive(store, 5)
    assert judged(store, max_reruns=1) is None
    assert last(store, "not run")[1] == "lung-ct has run 2 times on this study: it does not run again by itself (node.max_reruns)"
    assert store.studies.counts() == {StudyState.COMPLETE: 1}


def test_two_jobs_of_one_model_in_one_judgement_stand_side_by_side(store):
    """Only a later judgement replaces: two rules may give one model two series."""
    arrive(store, 1)
    arrive(store, 2)
    seen = store.studies.view(STUDY)
    halves = [job_of(part) for part in (of(seen, 0), of(seen, 1))]
    made = store.studies.complete(seen, why="quiet", jobs=halves, detail={}, now=NOW)
    assert [store.jobs.get(job.id).state for job in made] == [JobState.SCHEDULED] * 2
    assert [job.predecessor_id for job in made] == [None, None]


def test_a_job_that_is_still_asked_for_gives_way_to_none(store):
    """A study grows by a second image, each of which is a job of its own: the first job stays, and is nobody's predecessor."""
    arrive(store, 1)
    first = store.studies.view(STUDY)
    (stays,) = store.studies.complete(first, why="quiet", jobs=[job_of(of(first, 0))], detail={}, now=NOW)
    arrive(store, 2)
    grown = store.studies.view(STUDY)
    (new,) = store.studies.complete(grown, why="quiet", jobs=[job_of(of(grown, 0)), job_of(of(grown, 1))], detail={}, now=NOW)
    assert store.jobs.get(stays.id).state is JobState.SCHEDULED
    assert new.predecessor_id is None and new.inputs != stays.inputs


def test_late_images_start_a_job_beside_the_earlier_one_where_the_rule_says_so(store):
    """late = "rerun": the earlier one goes on, and is nobody's predecessor."""
    first = waiting(store)
    arrive(store, 2)
    (second,) = again(store, "rerun")
    assert (second.predecessor_id, store.jobs.get(first.id).state) == (None, JobState.SCHEDULED)


def test_late_images_start_nothing_where_the_rule_says_so(store):
    """late = "ignore": one job of a model is enough, unless it came to nothing."""
    waiting(store)
    arrive(store, 2)
    assert again(store, "ignore") == ()
    assert last(store, "not run")[1].startswith("lung-ct was asked for on this study before")
    assert store.jobs.decline(claimed(store), now=NOW, why="too few slices")
    arrive(store, 3)
    (third,) = again(store, "ignore")
    assert third.predecessor_id is not None


def test_a_job_says_which_images_were_known_to_be_missing(store):
    """It is on record with the job, for whoever reports."""
    arrive(store, 1)
    seen = store.studies.view(STUDY)
    (made,) = store.studies.complete(seen, why="late", jobs=[replace(job_of(seen), short="pacs has 140")], detail={}, now=NOW)
    assert store.jobs.get(made.id).short == "pacs has 140"


def test_what_a_rejection_note_names_is_left_out_and_stays_on_disk(store):
    """IHE IOCM: the instance is hidden, whatever version of it is current; a new version of it is not, until it is judged."""
    for number in (1, 2, 3):
        arrive(store, number)
    seen = store.studies.view(STUDY)
    named = {one.sop_instance_uid for one in seen.instances if one.header["InstanceNumber"] != 1}
    assert store.studies.hide(seen, {*named, "1.2.3"}, who="PACS", why="rejected for quality reasons", now=NOW) == 2
    left = store.studies.view(STUDY)
    assert [one.header["InstanceNumber"] for one in left.instances] == [1]
    assert (left.rejected, left.changes) == (named, seen.changes + 2)
    assert store.studies.list()[0]["instances"] == 1
    assert last(store, "rejected") == ("PACS", "rejected for quality reasons")
    assert store.studies.hide(seen, named, who="PACS", why="again", now=NOW) == 0
    assert kinds(store).count("rejected") == 1
    assert store.studies.complete(seen, why="quiet", jobs=[], detail={}, now=NOW) is None, "what was seen is no longer so"
    assert len(files(store)) == 3


def test_instances_of_another_study_are_not_hidden(store):
    """A note is of one study."""
    arrive(store, 1)
    arrive(store, 1, study=f"{STUDY}.2")
    seen, other = store.studies.view(STUDY), store.studies.view(f"{STUDY}.2")
    assert store.studies.hide(seen, {one.sop_instance_uid for one in other.instances}, who="PACS", why="", now=NOW) == 0
    assert store.studies.view(f"{STUDY}.2") == other


def test_a_study_with_two_patients_is_held_until_a_person_has_looked(store):
    """Nothing is due; a person lets it be judged again, and an instance does too."""
    arrive(store, 1)
    arrive(store, 2, PatientID="OTHER")
    seen = store.studies.view(STUDY)
    assert len(seen.patients) == 2
    store.studies.hold(seen, why="its instances name 2 patients", now=NOW)
    assert store.studies.due(NOW + 9999) == ()
    assert last(store, "held") == ("node", "its instances name 2 patients")
    store.studies.hold(seen, why="again", now=NOW)
    assert kinds(store).count("held") == 1
    store.studies.reopen(STUDY, who="anna", why="put right at the source", now=NOW + 10)
    assert store.studies.due(NOW + 10) == (STUDY,)
    assert last(store, "reopened") == ("anna", "put right at the source")
    with pytest.raises(Rejected, match="is open already"):
        store.studies.reopen(STUDY, who="anna", why="", now=NOW)


def test_a_study_that_changed_since_it_was_seen_is_not_held(store):
    """What came since may be what puts it right; it is judged anew."""
    arrive(store, 1)
    seen = store.studies.view(STUDY)
    arrive(store, 2)
    store.studies.hold(seen, why="two patients", now=NOW)
    assert store.studies.counts() == {StudyState.OPEN: 1}


def test_studies_are_listed_with_what_was_made_of_them(store):
    """The latest first, with counts; and found by the end of their UID."""
    finished(store, study=f"{STUDY}.1", at=NOW)
    arrive(store, 1, study=f"{STUDY}.2", at=NOW + 1)
    arrive(store, 2, study=f"{STUDY}.2", at=NOW + 2)
    second, first = store.studies.list()
    assert (second["study_instance_uid"], second["instances"], second["series"], second["jobs"]) == (f"{STUDY}.2", 2, 1, {})
    assert (first["instances"], first["jobs"], first["deliveries"]) == (1, {"COMPLETED": 1}, {"PENDING": 2})
    assert [row["study_instance_uid"] for row in store.studies.list(state=StudyState.COMPLETE)] == [f"{STUDY}.1"]
    assert len(store.studies.list(limit=1)) == 1
    assert store.studies.find("498.1.2") == (f"{STUDY}.2",)
    assert store.studies.find("%") == ()


# ---------------------------------------------------------------------------------------------------------- what is removed


def test_only_what_is_finished_and_delivered_is_old_enough_to_go(store):
    """Open and held studies, jobs that wait, results unsent, dead letters: none of it goes by itself."""
    finished(store, study=f"{STUDY}.1")
    for one in sending(store, limit=1):
        store.deliveries.sent(one, "sender-1", now=NOW, status=0)
    for one in sending(store):
        store.deliveries.give_up(one, "sender-1", now=NOW, reason="refused")
    waiting(store, study=f"{STUDY}.2")
    arrive(store, study=f"{STUDY}.3")
    arrive(store, study=f"{STUDY}.4")
    store.studies.hold(store.studies.view(f"{STUDY}.4"), why="two patients", now=NOW)
    arrive(store, study=f"{STUDY}.5")
    store.studies.complete(store.studies.view(f"{STUDY}.5"), why="quiet", jobs=[], detail={}, now=NOW)
    assert store.studies.older_than(NOW) == ()
    assert store.studies.older_than(NOW + 1) == (f"{STUDY}.5",)
    store.deliveries.cancel(store.deliveries.list()[0].id, who="anna", now=NOW)
    assert set(store.studies.older_than(NOW + 1)) == {f"{STUDY}.1", f"{STUDY}.5"}


def test_a_purged_study_leaves_nothing_but_a_line_in_the_journal(store):
    """Rows and files, of every version, of results and of quarantine; and the folders that become empty."""
    finished(store)
    arrive(store, 1, content=b"other")
    name = in_quarantine(store, b"?")
    store.instances.quarantine(name, at=NOW, source="CT_ER", reason="cannot be read", study_instance_uid=STUDY)
    arrive(store, study=f"{STUDY}.2")
    assert store.studies.purge(STUDY, who="anna", why="a person asked for it", now=NOW + 5) == 5
    assert store.studies.view(STUDY) is None
    assert [store.jobs.list(), store.deliveries.list(), store.instances.quarantined()] == [(), (), ()]
    [event] = store.journal.of_study(STUDY)
    assert (event.kind, event.who, event.why, event.at, event.detail) == ("purged", "anna", "a person asked for it", NOW + 5, {"files": 5})
    assert [path.name for path in files(store)] == [store.studies.view(f"{STUDY}.2").instances[0].path.rsplit("/", 1)[1]]
    assert sorted(path.name for path in store.archive.root.iterdir() if path.is_dir()) == ["incoming", "instances", "quarantine", "results"]
    assert store.studies.purge("1.2.3", who="anna", why="", now=NOW) == 0
    assert store.journal.of_study("1.2.3") == ()


def test_a_purge_that_a_crash_cut_short_is_finished_at_the_next_start(storage, address, monkeypatch):
    """Between the commit and the unlinking there are tombstones."""
    store = Store.open(storage, address)
    finished(store)
    with monkeypatch.context() as patched:
        patched.setattr(type(store.studies), "bury", lambda self: 0)  # the process dies here
        store.studies.purge(STUDY, who="anna", why="", now=NOW)
    assert len(files(store)) == 3
    store.close()
    again = Store.open(storage, address)
    assert again.studies.bury() == 3
    assert files(again) == []
    assert again.studies.bury() == 0
    again.close()


def test_a_result_that_was_made_again_is_not_buried(store, monkeypatch):
    """The same study, sent again after its purge, gives the same job, and the same bytes under the same name."""
    finished(store)
    with monkeypatch.context() as patched:
        patched.setattr(type(store.studies), "bury", lambda self: 0)
        store.studies.purge(STUDY, who="anna", why="", now=NOW)
    again = finished(store)
    store.studies.bury()
    assert [store.archive.path(one.path).is_file() for one in store.jobs.results(again.id)] == [True, True]


def test_a_file_that_cannot_be_removed_does_not_keep_the_others(store):
    """It is told, and tried again at the next start."""
    finished(store)
    stubborn = store.archive.path(store.jobs.results(1)[0].path)
    stubborn.unlink()
    stubborn.mkdir()
    with pytest.raises(Transient, match="did not remove a file"):
        store.studies.purge(STUDY, who="anna", why="", now=NOW)
    assert files(store) == []
    stubborn.rmdir()
    assert store.studies.bury() == 1


def test_a_purged_study_can_come_again(store):
    """It is a new study, with numbers of its own."""
    first = finished(store)
    store.studies.purge(STUDY, who="anna", why="", now=NOW)
    second = finished(store)
    assert second.id > first.id
    assert second.identity == first.identity
    assert kinds(store)[:2] == ["purged", "first instance"]


# ------------------------------------------------------------------------------------------------------------------------


def files(store):
    """Return what lies in the archive, but for the empty files that are there for what is to come."""
    store.instances.settle()
    return [path for path in sorted(store.archive.root.rglob("*.dcm")) if path.is_file() and size_bytes(path)]


def again(store, late):
    """Judge the study with the job that routing would ask for; late: what the job is to earlier ones."""
    seen = store.studies.view(STUDY)
    job = job_of(seen)
    return store.studies.complete(seen, why="quiet", jobs=[job], detail={}, now=NOW, late={job.identity: late})


def of(seen, index):
    """Return a study that has one instance of another."""
    return type(seen)(study_instance_uid=seen.study_instance_uid, instances=seen.instances[index : index + 1])
