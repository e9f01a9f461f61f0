"""Opinions in the ledger: kept as they were said; a verified report is written by whoever holds its lease, and once."""

import threading

import pytest

from dicom_node.domain import VERIFIED, JobState, Rejected, Verdict, VerificationState
from tests.contracts.arrange import LEASE_S, NOW, STUDY, finished, kinds, last, result_of, waiting


def said(store, job, verdict=Verdict.ACCEPTED, *, who="anna", comment="", at=NOW + 100, verify=True):
    return store.feedback.say(job.id, verdict, who=who, display_name=who.title(), comment=comment, now=at, verify=verify)


def test_an_acceptance_and_its_wish_are_one_commit(store):
    """The opinion, its line in the journal, and that a verified report is to be written."""
    job = finished(store)
    one = said(store, job, comment="fine")
    (kept,) = store.feedback.of_job(job.id)
    assert kept == one
    assert (one.verdict, one.who, one.display_name, one.comment, one.verification) == (
        *(Verdict.ACCEPTED, "anna", "Anna", "fine"),
        VerificationState.PENDING,
    )
    assert last(store, "accepted") == ("anna", "a reader accepted the results")
    assert store.feedback.next_due() == NOW + 100
    assert store.feedback.display_name("anna") == "Anna" and store.feedback.display_name("bo") == ""


def test_only_a_report_is_verified(store):
    """A job without one, or a site that does not want it, keeps the opinion alone."""
    assert said(store, finished(store, kinds=("SEG",))).verification is None
    assert said(store, finished(store, study=f"{STUDY}.2"), verify=False).verification is None
    assert store.feedback.claim("w", now=NOW + 200, lease_s=LEASE_S) is None


def test_what_has_made_nothing_is_not_judged(store):
    job = waiting(store)
    with pytest.raises(Rejected, match="SCHEDULED"):
        said(store, job)
    with pytest.raises(Rejected, match="no job 4711"):
        store.feedback.say(4711, Verdict.ACCEPTED, who="a", display_name="", comment="", now=NOW, verify=True)


def test_of_twenty_claims_at_once_exactly_one_wins(store):
    job = finished(store)
    said(store, job)
    start, won = threading.Barrier(20), []

    def claim(number: int) -> None:
        start.wait()
        held = store.feedback.claim(f"w{number}", now=NOW + 200, lease_s=LEASE_S)
        if held:
            won.append(held)

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (held,) = won
    assert (held.job_id, held.report.kind, held.observer, held.at, held.attempts) == (job.id, "SR", "Anna", NOW + 100, 1)


def test_a_verified_report_goes_where_the_report_went(store):
    """One commit: the result, its deliveries, the end of the wish; a canceled delivery is no destination."""
    job = finished(store, deliver=["pacs", "archive"])
    archive = next(one for one in store.deliveries.list() if one.destination == "archive" and one.result.kind == "SR")
    store.deliveries.cancel(archive.id, who="test", now=NOW)
    said(store, job)
    held = store.feedback.claim("w", now=NOW + 200, lease_s=LEASE_S)
    assert store.feedback.written(held, result_of(store, job, VERIFIED), now=NOW + 201)
    assert [one.kind for one in store.jobs.results(job.id)] == ["SEG", "SR", VERIFIED]
    assert [one.destination for one in store.deliveries.list() if one.result.kind == VERIFIED] == ["pacs"]
    assert store.feedback.of_job(job.id)[0].verification is VerificationState.WRITTEN
    assert kinds(store)[-1] == "verified"
    assert not store.feedback.written(held, result_of(store, job, VERIFIED), now=NOW + 202)


def test_who_is_silent_beyond_the_lease_has_lost_it(store):
    """The next one writes it; the first comes too late, and nothing is recorded twice."""
    job = finished(store)
    said(store, job)
    silent = store.feedback.claim("silent", now=NOW + 200, lease_s=LEASE_S)
    assert store.feedback.claim("next", now=NOW + 200 + LEASE_S - 1, lease_s=LEASE_S) is None
    held = store.feedback.claim("next", now=NOW + 200 + LEASE_S, lease_s=LEASE_S)
    assert (held.id, held.attempts) == (silent.id, 2)
    assert not store.feedback.written(silent, result_of(store, job, VERIFIED), now=NOW + 300)
    assert not store.feedback.fail(silent, now=NOW + 300, reason="late")
    assert store.feedback.written(held, result_of(store, job, VERIFIED), now=NOW + 301)


def test_what_is_put_off_is_due_later_and_what_fails_is_told(store):
    job = finished(store)
    said(store, job)
    held = store.feedback.claim("w", now=NOW + 200, lease_s=LEASE_S)
    store.feedback.put_off(held, until=NOW + 900, reason="the disk is full")
    assert store.feedback.next_due() == NOW + 900
    assert store.feedback.of_job(job.id)[0].reason == "the disk is full"
    held = store.feedback.claim("w", now=NOW + 900, lease_s=LEASE_S)
    assert store.feedback.fail(held, now=NOW + 901, reason="it is not valid")
    assert last(store, "not verified") == ("w", "it is not valid")
    assert store.feedback.next_due() is None


def test_judged_anew_before_it_was_written_it_is_dropped(store):
    """Also when somebody holds it at that moment; a comment changes nothing."""
    job = finished(store)
    said(store, job)
    said(store, job, Verdict.COMMENTED, comment="so")
    held = store.feedback.claim("w", now=NOW + 200, lease_s=LEASE_S)
    said(store, job, Verdict.REJECTED, at=NOW + 201)
    assert not store.feedback.written(held, result_of(store, job, VERIFIED), now=NOW + 202)
    assert [one.verification for one in store.feedback.of_job(job.id)] == [VerificationState.DROPPED, None, None]
    assert [one.kind for one in store.jobs.results(job.id)] == ["SEG", "SR"]


def test_who_accepts_twice_gets_one_verified_report(store):
    """A form that is sent twice; another reader, another name, or who changed their mind meanwhile, gets another one."""
    job = finished(store)
    said(store, job)
    said(store, job, at=NOW + 101)
    held = store.feedback.claim("w", now=NOW + 200, lease_s=LEASE_S)
    assert held.at == NOW + 100
    assert store.feedback.written(held, result_of(store, job, VERIFIED), now=NOW + 201)
    said(store, job, at=NOW + 202)
    said(store, job, at=NOW + 203)
    assert store.feedback.claim("w", now=NOW + 300, lease_s=LEASE_S) is None
    assert [one.verification for one in store.feedback.of_job(job.id)] == [VerificationState.WRITTEN, None, None, None]
    said(store, job, Verdict.REJECTED, at=NOW + 204)
    said(store, job, at=NOW + 205)
    assert store.feedback.claim("w", now=NOW + 300, lease_s=LEASE_S).at == NOW + 205
    said(store, job, who="bo", at=NOW + 206)
    assert store.feedback.claim("w", now=NOW + 300, lease_s=LEASE_S).observer == "Bo"


def test_agreement_counts_the_last_verdict_of_each_job(store):
    """Also after the study was purged; then nothing of what was said names anybody."""
    jobs = [finished(store, study=f"{STUDY}.{number}") for number in range(4)]
    for job, verdicts in zip(jobs, ("AR", "RA", "AC", "C"), strict=True):
        for letter in verdicts:
            verdict = next(one for one in Verdict if one.startswith(letter))
            said(store, job, verdict, comment="Mr X" if letter == "C" else "")
    (found,) = store.feedback.agreement()
    assert (found.model, found.model_version, found.accepted, found.rejected, found.commented) == ("lung-ct", "1.0", 2, 1, 2)
    assert found.share == pytest.approx(2 / 3)
    assert store.feedback.agreement("other") == ()
    for job in jobs:
        store.studies.purge(job.study_instance_uid, who="test", why="test", now=NOW)
    assert store.feedback.agreement("lung-ct") == (found,)
    assert store.feedback.next_due() is None
    assert store.feedback.display_name("anna") == ""


def test_a_study_stays_while_a_verified_report_is_to_be_written(store):
    """It would be gone before it was sent."""
    job = finished(store, deliver=[])
    assert store.jobs.get(job.id).state is JobState.COMPLETED
    assert store.studies.older_than(NOW + 10_000) == (STUDY,)
    said(store, job)
    assert store.studies.older_than(NOW + 10_000) == ()
