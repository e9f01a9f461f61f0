"""Jobs in the ledger: claimed by exactly one, changed by whoever holds the lease, and each change told with who and why."""

import threading

import pytest

from dicom_node.domain import Discontinuation, JobState, Priority, Rejected
from dicom_node.store.moving import HEAD_START_S
from tests.contracts.arrange import LEASE_S, NOW, STUDY, arrive, claimed, finished, judged, kinds, last, result_of, waiting


def test_of_fifty_claims_at_once_exactly_one_wins(store):
    """A claim is one statement."""
    waiting(store)
    start = threading.Barrier(50)
    won = []

    def claim(number: int) -> None:
        start.wait()
        job = claimed(store, f"worker-{number}")
        if job:
            won.append(job)

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [job] = won
    assert (job.state, job.attempts, job.lease_until, job.started_at) == (JobState.IN_PROGRESS, 1, NOW + LEASE_S, NOW)
    assert store.jobs.get(job.id) == job
    assert last(store, "claimed") == (job.worker, "attempt 1")


def test_claims_at_once_share_the_jobs_out(store):
    """Every job is claimed, none twice."""
    for number in range(12):
        waiting(store, study=f"{STUDY}.{number}")
    won = []

    def work(number: int) -> None:
        while len(won) < 12:
            job = claimed(store, f"worker-{number}")
            if job:
                won.append(job.id)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == sorted(job.id for job in store.jobs.list())


def test_the_more_urgent_comes_first_then_the_older(store):
    """Scheduled Procedure Step Priority, then age."""
    for number, (at, priority) in enumerate([(0, Priority.LOW), (1, Priority.MEDIUM), (3, Priority.HIGH), (2, Priority.HIGH), (4, Priority.MEDIUM)]):
        waiting(store, study=f"{STUDY}.{number}", at=NOW + at, priority=priority)
    order = [claimed(store, at=NOW + 10).study_instance_uid[-1] for _ in range(5)]
    assert order == ["3", "2", "1", "4", "0"]
    assert claimed(store, at=NOW + 10) is None


def test_no_job_waits_for_ever_behind_more_urgent_ones(store):
    """Priority is a head start: a LOW job goes before every HIGH one that came a day later."""
    waiting(store, study=f"{STUDY}.1", priority=Priority.LOW)
    day_s = HEAD_START_S[Priority.LOW]
    waiting(store, study=f"{STUDY}.2", at=NOW + day_s - 1, priority=Priority.HIGH)
    waiting(store, study=f"{STUDY}.3", at=NOW + day_s + 1, priority=Priority.HIGH)
    order = [claimed(store, at=NOW + day_s + 2).study_instance_uid[-1] for _ in range(3)]
    assert order == ["2", "1", "3"]


def test_a_worker_claims_only_what_it_can_run(store):
    """A job of a model that no worker has waits, visibly."""
    waiting(store, study=f"{STUDY}.1")
    assert claimed(store, models=["spleen-ct"]) is None
    assert claimed(store, models=[]) is None
    assert claimed(store, models=["spleen-ct", "lung-ct"])


def test_a_beat_renews_the_lease_and_says_whether_to_go_on(store):
    """False: go on. True: stop. None: the lease is lost."""
    waiting(store)
    held = claimed(store)
    assert store.jobs.beat(held, now=NOW + 20, lease_s=LEASE_S, progress=0.4, note="segmenting") is False
    job = store.jobs.get(held.id)
    assert (job.lease_until, job.progress, job.note) == (NOW + 50, 0.4, "segmenting")
    assert store.jobs.expired(NOW + 50) == ()
    assert store.jobs.cancel(held.id, who="anna", why="wrong patient", now=NOW + 21) is JobState.IN_PROGRESS
    assert store.jobs.beat(held, now=NOW + 22, lease_s=LEASE_S, progress=0.5, note="") is True
    assert store.jobs.stop(held, now=NOW + 23)
    assert store.jobs.beat(held, now=NOW + 24, lease_s=LEASE_S, progress=0.6, note="") is None


def test_results_their_deliveries_and_the_end_of_the_job_are_one_commit(store):
    """A result with no delivery, or a finished job with no result, cannot be seen."""
    waiting(store, deliver=["pacs", "archive", "pacs"])
    held = claimed(store)
    assert store.jobs.complete(held, [result_of(store, held, "SEG"), result_of(store, held, "SR")], now=NOW + 9, why="made SEG, SR")
    job = store.jobs.get(held.id)
    assert (job.state, job.progress, job.note, job.ended_at, job.lease_until) == (JobState.COMPLETED, 1.0, "made SEG, SR", NOW + 9, None)
    assert [one.kind for one in store.jobs.results(held.id)] == ["SEG", "SR"]
    assert sorted((one.result.kind, one.destination) for one in store.deliveries.list()) == [
        ("SEG", "archive"),
        ("SEG", "pacs"),
        ("SR", "archive"),
        ("SR", "pacs"),
    ]
    assert last(store, "completed") == ("worker-1", "made SEG, SR")


def test_a_job_whose_results_cannot_be_recorded_is_as_it_was(store):
    """All or nothing: the second result's row is refused, and the first is not kept."""
    waiting(store)
    held = claimed(store)
    same = result_of(store, held)
    with pytest.raises(Exception, match="did not take a change"):
        store.jobs.complete(held, [same, same], now=NOW, why="made it")
    assert store.jobs.get(held.id) == held
    assert (store.jobs.results(held.id), store.deliveries.list()) == ((), ())
    assert store.jobs.complete(held, [same], now=NOW, why="made it")


def test_invalid_results_are_quarantined_and_nothing_of_the_job_is_delivered(store):
    """Nothing invalid ever leaves."""
    waiting(store)
    held = claimed(store)
    results = [result_of(store, held, "SEG", problem="no Frame of Reference"), result_of(store, held, "SR")]
    assert store.jobs.reject(held, results, now=NOW, why="SEG: no Frame of Reference")
    job = store.jobs.get(held.id)
    assert (job.state, job.discontinuation, job.reason) == (JobState.CANCELED, Discontinuation.INVALID, "SEG: no Frame of Reference")
    assert store.deliveries.list() == ()
    assert {row["reason"] for row in store.instances.quarantined()} == {"no Frame of Reference", "another result of the job is invalid"}
    assert store.deliveries.send(job.id, "pacs", who="anna", now=NOW) == 1, "the valid one, if a person insists"


def test_a_job_that_is_declined_says_why(store):
    """A negative result is a result: the sentence is the analysis' own."""
    waiting(store)
    assert store.jobs.decline(claimed(store), now=NOW, why="the slices are 12 mm thick")
    job = store.jobs.list()[0]
    assert (job.state, job.discontinuation, job.reason) == (JobState.CANCELED, Discontinuation.DECLINED, "the slices are 12 mm thick")
    assert last(store, "canceled (declined)") == ("worker-1", "the slices are 12 mm thick")


def test_a_job_that_fails_waits_for_its_next_attempt_and_then_ends(store):
    """Its reasons are on record."""
    waiting(store)
    assert store.jobs.fail(claimed(store), now=NOW, why="out of memory \ud800\0", retry_at=NOW + 10)
    job = store.jobs.list()[0]
    assert (job.state, job.reason, job.not_before, job.attempts) == (JobState.SCHEDULED, "out of memory ?", NOW + 10, 1)
    assert claimed(store, at=NOW + 9) is None
    second = claimed(store, at=NOW + 10)
    assert (second.attempts, second.reason) == (2, "")
    assert store.jobs.fail(second, now=NOW + 11, why="out of memory", retry_at=None)
    job = store.jobs.list()[0]
    assert (job.state, job.discontinuation, job.ended_at) == (JobState.CANCELED, Discontinuation.FAILED, NOW + 11)
    assert kinds(store)[-4:] == ["claimed", "scheduled", "claimed", "canceled (failed)"]


def test_a_job_that_is_given_back_has_not_used_its_attempt(store):
    """A worker that is stopped for an update is no failure of the model."""
    waiting(store)
    held = claimed(store)
    assert store.jobs.release(held, now=NOW + 1, why="the worker was stopped")
    job = store.jobs.get(held.id)
    assert (job.state, job.attempts, job.not_before) == (JobState.SCHEDULED, 0, NOW + 1)
    again = claimed(store, at=NOW + 2)
    assert again.attempts == held.attempts
    assert store.jobs.beat(held, now=NOW + 3, lease_s=LEASE_S, progress=0.0, note="") is None, "the handle of before is no key"


def test_a_worker_that_lost_its_lease_can_record_nothing(store):
    """Whatever it reports, another may be at it."""
    waiting(store)
    lost = claimed(store)
    [silent] = store.jobs.expired(NOW + LEASE_S + 1)
    assert store.jobs.take_back(silent, now=NOW + LEASE_S + 1, why="silent", retry_at=NOW + LEASE_S + 1)
    for holder in (None, claimed(store, "worker-2", at=NOW + LEASE_S + 2)):
        before = store.jobs.get(lost.id)
        assert store.jobs.beat(lost, now=NOW, lease_s=LEASE_S, progress=0.9, note="") is None
        assert store.jobs.complete(lost, [result_of(store, lost)], now=NOW, why="") is False
        assert store.jobs.reject(lost, [result_of(store, lost)], now=NOW, why="") is False
        assert store.jobs.decline(lost, now=NOW, why="") is False
        assert store.jobs.fail(lost, now=NOW, why="", retry_at=NOW) is False
        assert store.jobs.fail(lost, now=NOW, why="", retry_at=None) is False
        assert store.jobs.release(lost, now=NOW, why="") is False
        assert store.jobs.stop(lost, now=NOW) is False
        assert store.jobs.get(lost.id) == before
        assert holder is None or before == holder
    assert (store.jobs.results(lost.id), store.instances.quarantined()) == ((), ())
    assert kinds(store)[-3:] == ["claimed", "scheduled", "claimed"]


def test_a_job_of_a_silent_worker_is_taken_back_only_while_it_is_silent(store):
    """A beat that comes in time keeps it."""
    waiting(store)
    held = claimed(store)
    late = NOW + LEASE_S + 1
    [silent] = store.jobs.expired(late)
    store.jobs.beat(held, now=late, lease_s=LEASE_S, progress=0.1, note="")
    assert store.jobs.take_back(silent, now=late, why="silent", retry_at=late) is False
    assert store.jobs.get(held.id).state is JobState.IN_PROGRESS
    [silent] = store.jobs.expired(late + LEASE_S + 1)
    assert store.jobs.take_back(silent, now=late + LEASE_S + 1, why="worker-1 fell silent", retry_at=None)
    assert last(store, "canceled (failed)") == ("clock", "worker-1 fell silent")


@pytest.mark.parametrize("how", ["fail", "release", "take_back"])
def test_a_job_that_was_asked_to_stop_does_not_begin_again(store, how):
    """Whichever way its attempt ends, a person's word stands."""
    waiting(store)
    held = claimed(store)
    store.jobs.cancel(held.id, who="anna", why="wrong patient", now=NOW)
    later = NOW + LEASE_S + 1
    if how == "fail":
        assert store.jobs.fail(held, now=later, why="killed", retry_at=later)
    elif how == "release":
        assert store.jobs.release(held, now=later, why="the worker was stopped")
    else:
        assert store.jobs.take_back(store.jobs.expired(later)[0], now=later, why="silent", retry_at=later)
    job = store.jobs.get(held.id)
    assert (job.state, job.discontinuation, job.reason) == (JobState.CANCELED, Discontinuation.STOPPED, "wrong patient")


def test_a_person_cancels_what_waits_at_once_and_cannot_cancel_what_has_ended(store):
    """CANCELED, by whom and why."""
    job = waiting(store)
    assert store.jobs.cancel(job.id, who="anna", why="wrong patient", now=NOW + 1) is JobState.CANCELED
    ended = store.jobs.get(job.id)
    assert (ended.discontinuation, ended.reason, ended.ended_at) == (Discontinuation.STOPPED, "wrong patient", NOW + 1)
    assert last(store, "canceled (stopped)") == ("anna", "wrong patient")
    assert claimed(store) is None
    with pytest.raises(Rejected, match="has ended"):
        store.jobs.cancel(job.id, who="anna", why="", now=NOW)
    with pytest.raises(Rejected, match="there is no job 999"):
        store.jobs.cancel(999, who="anna", why="", now=NOW)


def test_a_job_that_has_ended_can_be_done_again(store):
    """It is a new job with a name, and so with UIDs, of its own; the old one is its predecessor."""
    old = finished(store)
    made = store.jobs.again(old.id, who="anna", now=NOW + 5)
    assert (made.repeat, made.predecessor_id, made.inputs, made.state) == (1, old.id, old.inputs, JobState.SCHEDULED)
    assert made.identity != old.identity
    assert [one.job_id for one in store.jobs.predecessors(made)] == [old.id, old.id]
    assert last(store, "asked for") == ("anna", f"again, after job {old.id}")
    with pytest.raises(Rejected, match="has not ended"):
        store.jobs.again(made.id, who="anna", now=NOW)
    third = store.jobs.again(old.id, who="anna", now=NOW + 6)
    assert len({old.identity, made.identity, third.identity}) == 3
    newer = store.jobs.again(old.id, who="anna", now=NOW + 7, device_uid="2.25.1", model_version="2.0")
    assert (newer.device_uid, newer.model_version, newer.repeat) == ("2.25.1", "2.0", 0)


def test_a_job_whose_instances_are_gone_cannot_be_done_again(store):
    """It says so, rather than run on less."""
    arrive(store, 1)
    job = judged(store)
    store.jobs.cancel(job.id, who="anna", why="", now=NOW)
    with store.database.write() as connection:
        connection.exec_driver_sql("DELETE FROM instance")
    with pytest.raises(Rejected, match="1 of its instances are gone"):
        store.jobs.again(job.id, who="anna", now=NOW)


def test_jobs_are_listed_and_counted(store):
    """Newest first; by state, study and model."""
    first = finished(store, study=f"{STUDY}.1")
    second = waiting(store, study=f"{STUDY}.2")
    assert [job.id for job in store.jobs.list()] == [second.id, first.id]
    assert [job.id for job in store.jobs.list(state=JobState.COMPLETED)] == [first.id]
    assert [job.id for job in store.jobs.list(study_instance_uid=f"{STUDY}.2")] == [second.id]
    assert store.jobs.list(model="spleen-ct") == ()
    assert len(store.jobs.list(limit=1)) == 1
    assert store.jobs.counts() == {"COMPLETED": 1, "SCHEDULED": 1}
    with pytest.raises(Rejected, match="there is no job 999"):
        store.jobs.get(999)


def test_workers_are_known_while_they_are_there(store):
    """With what they run and when they were last seen."""
    long_name = f"{'host.' * 40}:1234"
    for now in (NOW, NOW + 5):
        store.jobs.seen(long_name, ["lung-ct"], started_at=NOW, now=now)
    store.jobs.seen("b", [], started_at=NOW, now=NOW + 9)
    assert [(row["name"], row["seen_at"], row["models"]) for row in store.jobs.workers()] == [("b", NOW + 9, []), (long_name, NOW + 5, ["lung-ct"])]
    store.jobs.forget(long_name)
    assert [row["name"] for row in store.jobs.workers()] == ["b"]
