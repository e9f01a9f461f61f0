"""Announcements in the ledger: made once for each destination, told once its results are there, and never twice."""

from dicom_node.domain import AnnouncementState
from tests.contracts.arrange import LEASE_S, NOW, STUDY, finished, last, sending


def expected(store, *, at=NOW):
    return store.announcements.expect("ris", since=at - 100, now=at)


def claimed(store, *, at=NOW, committing=()):
    return store.announcements.claim("ris", now=at, lease_s=LEASE_S, committing=committing)


def delivered(store, *, of=2):
    for one in sending(store)[:of]:
        assert store.deliveries.sent(one, "sender-1", now=NOW, status=0)


def test_a_remote_is_told_of_each_destination_once(store):
    """The row is there before anything is told; a second look makes no other."""
    finished(store, deliver=("pacs", "archive"))
    assert (expected(store), expected(store)) == (2, 0)
    assert store.announcements.expect("pacs", since=NOW - 100, now=NOW) == 2
    pacs, archive = sorted(store.announcements.list(remote="ris"), key=lambda one: one.holder, reverse=True)
    assert (pacs.holder, archive.holder, pacs.state) == ("pacs", "archive", AnnouncementState.PENDING)
    assert pacs.sop_instance_uid != archive.sop_instance_uid


def test_jobs_that_ended_long_ago_are_not_told_of(store):
    """A remote that is new need not hear of all that there ever was; nor of jobs whose results go nowhere."""
    finished(store)
    assert expected(store, at=NOW + 1000) == 0
    finished(store, study=f"{STUDY}.9", deliver=())
    assert store.announcements.expect("ris", since=NOW, now=NOW) == 1


def test_nothing_is_told_before_every_result_is_there(store):
    """Of those on their way nobody can say that they are to be had."""
    finished(store)
    expected(store)
    assert claimed(store) is None
    held = sending(store)
    store.deliveries.sent(held[0], "sender-1", now=NOW, status=0)
    assert claimed(store) is None
    store.deliveries.sent(held[1], "sender-1", now=NOW, status=0)
    assert claimed(store, committing=("pacs",)) is None, "the destination has not committed itself yet"
    one = claimed(store)
    assert [result.kind for result in store.announcements.results(one)] == ["SEG", "SR"]


def test_what_is_claimed_is_not_claimed_again_before_its_lease_ends(store):
    """Two processes do not tell the same; one that died in the middle is made up for."""
    finished(store)
    expected(store)
    delivered(store)
    one = claimed(store)
    assert claimed(store, at=NOW + LEASE_S - 1) is None
    assert claimed(store, at=NOW + LEASE_S).sop_instance_uid == one.sop_instance_uid


def test_what_was_told_is_told_no_more(store):
    """The journal has who was told."""
    finished(store)
    expected(store)
    delivered(store)
    one = claimed(store)
    assert store.announcements.told(one, now=NOW, why="it was told where the results are")
    assert not store.announcements.told(one, now=NOW, why="again")
    assert not store.announcements.drop(one, now=NOW, reason="late")
    assert claimed(store, at=NOW + 1000) is None
    assert last(store, "notified") == ("ris", "it was told where the results are")


def test_a_failure_is_counted_unless_the_remote_was_not_reached(store):
    """And a person finds why nothing was told."""
    finished(store)
    expected(store)
    delivered(store)
    store.announcements.put_off(claimed(store), until=NOW + 5, reason="away", counts=False)
    assert claimed(store, at=NOW + 4) is None
    store.announcements.put_off(claimed(store, at=NOW + 5), until=NOW + 9, reason="refused")
    one = claimed(store, at=NOW + 9)
    assert (one.attempts, one.reason) == (1, "refused")
    assert store.announcements.drop(one, now=NOW, reason="refused often")
    assert (last(store, "not notified"), claimed(store, at=NOW + 1000)) == (("ris", "refused often"), None)


def test_results_that_are_sent_elsewhere_later_are_told_of_too(store):
    """To all who are told of that job; not before they are there."""
    job = finished(store)
    expected(store)
    store.deliveries.send(job.id, "archive", who="a person", now=NOW)
    assert {(one.remote, one.holder) for one in store.announcements.list(job_id=job.id)} == {("ris", "pacs"), ("ris", "archive")}
    delivered(store)
    assert claimed(store).holder == "pacs"
    assert claimed(store) is None


def test_an_announcement_goes_with_its_study(store):
    """Nothing of a purged study is told."""
    finished(store)
    expected(store)
    store.studies.purge(STUDY, who="clock", why="old", now=NOW)
    assert store.announcements.list() == ()
