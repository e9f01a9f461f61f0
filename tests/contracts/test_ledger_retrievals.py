"""Retrievals in the ledger: each study of each remote once at a time, by one holder, with every outcome on record."""

import threading

import pytest

from dicom_node.domain import Rejected, RetrievalState
from tests.contracts.arrange import LEASE_S, NOW, STUDY, arrive, kinds, last

CURRENT, OTHER = "1.2.3", "1.2.4"


def ask(store, study=STUDY, *, at=NOW, who="the rule", why="earlier studies", **how):
    return store.retrievals.ask("pacs", study, who=who, why=why, now=at, **how)


def claim(store, who="fetcher-1", *, at=NOW, **how):
    return store.retrievals.claim("pacs", who, now=at, lease_s=LEASE_S, **how)


def test_a_study_is_asked_for_once_while_it_is_under_way(store):
    """The same wish again changes nothing; the wish of another study is added."""
    first = ask(store, wanted_for=CURRENT, deadline=NOW + 60)
    assert (first.state, first.wanted_for, first.attempts, first.ended_at) == (RetrievalState.WAITING, (CURRENT,), 0, None)
    assert ask(store, wanted_for=CURRENT, at=NOW + 1, deadline=NOW + 60) == first
    both = ask(store, wanted_for=OTHER, at=NOW + 2, deadline=NOW + 90)
    assert (both.id, both.wanted_for, both.deadline) == (first.id, (CURRENT, OTHER), NOW + 90)
    assert ask(store, at=NOW + 3).deadline is None
    assert store.retrievals.wanted_for(OTHER) == store.retrievals.list() == (store.retrievals.get(first.id),)
    assert store.retrievals.wanted_for(STUDY) == ()
    assert kinds(store) == ["retrieval asked"] * 3
    assert kinds(store, CURRENT) == ["retrieval asked"] and last(store, "retrieval asked", OTHER)[1].endswith("under way already")


def test_what_has_ended_can_be_asked_for_again(store):
    """A study grows at the archive."""
    first = ask(store)
    assert store.retrievals.finish(claim(store), "fetcher-1", now=NOW + 1, expected=3, why="3 of 3 came")
    second = ask(store, at=NOW + 2)
    assert second.id != first.id and second.state is RetrievalState.WAITING
    [_, done] = store.retrievals.list(study_instance_uid=STUDY)
    assert (done.state, done.expected, done.held, done.ended_at, done.holder) == (RetrievalState.COMPLETED, 3, 3, NOW + 1, "")
    assert ask(store, f"{STUDY}.9", at=NOW + 91 * 86400.0) and store.retrievals.get(first.id) is None


def test_persons_come_first_and_at_once(store):
    """A person who asks for what a rule has asked for already waits for no back-off."""
    ask(store, f"{STUDY}.1")
    ask(store, f"{STUDY}.2", at=NOW + 1)
    assert claim(store, at=NOW + 2, persons_only=True) is None and store.retrievals.next_due("pacs", persons_only=True) is None
    ask(store, f"{STUDY}.2", at=NOW + 3, who="anna", by_person=True)
    assert store.retrievals.next_due("pacs", persons_only=True) == NOW + 1
    assert [claim(store, at=NOW + 3).study_instance_uid[-1] for _ in range(2)] == ["2", "1"]
    assert claim(store, at=NOW + 3) is None and store.retrievals.next_due("pacs") is None
    [second] = store.retrievals.list(study_instance_uid=f"{STUDY}.2")
    assert store.retrievals.put_off(second, second.holder, now=NOW + 4, until=NOW + 900, reason="A801")
    assert ask(store, f"{STUDY}.2", at=NOW + 5, by_person=True).not_before == NOW + 5
    assert store.retrievals.claim("other", "fetcher-1", now=NOW + 9, lease_s=LEASE_S) is None


def test_claims_at_once_share_the_retrievals_out(store):
    """Each is claimed, none twice."""
    for number in range(8):
        ask(store, f"{STUDY}.{number}")
    start, claimed = threading.Barrier(4), []

    def fetch(number):
        start.wait()
        while one := claim(store, f"fetcher-{number}"):
            claimed.append(one.id)

    threads = [threading.Thread(target=fetch, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while one := claim(store):  # PostgreSQL passes over what another is just claiming
        claimed.append(one.id)
    assert sorted(claimed) == sorted(one.id for one in store.retrievals.list())


def test_wishes_at_once_are_one_retrieval(store):
    """Two rules, two processes."""
    start, made = threading.Barrier(4), []

    def wish(number):
        start.wait()
        made.append(ask(store, wanted_for=f"1.2.{number}").id)

    threads = [threading.Thread(target=wish, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [one] = store.retrievals.list()
    assert set(made) == {one.id} and len(one.wanted_for) == 4


def test_a_failure_is_put_off_and_at_last_given_up(store):
    """What the remote was not reached for does not count."""
    ask(store, wanted_for=CURRENT)
    one = claim(store)
    assert store.retrievals.put_off(one, "fetcher-1", now=NOW, until=NOW + 5, reason="no answer", counts=False)
    assert store.retrievals.next_due("pacs") == NOW + 5 and claim(store, at=NOW + 4) is None
    again = claim(store, at=NOW + 5)
    assert (again.attempts, again.reason) == (0, "no answer")
    assert store.retrievals.counts() == {"pacs": {"RUNNING": 1}}
    assert store.retrievals.put_off(again, "fetcher-1", now=NOW + 5, until=NOW + 9, reason="2 of 3 came", expected=3, held=2)
    third = claim(store, at=NOW + 9)
    assert (third.attempts, third.expected, third.held) == (1, 3, 2)
    assert store.retrievals.give_up(third, "fetcher-1", now=NOW + 9, reason="2 of 3 came", expected=3, held=2, failed=1)
    [ended] = store.retrievals.wanted_for(CURRENT)
    assert (ended.state, ended.attempts, ended.failed, ended.ended_at) == (RetrievalState.FAILED, 2, 1, NOW + 9)
    told = ["retrieval asked", *["retrieval running", "retrieval waiting"] * 2, "retrieval running", "retrieval failed"]
    assert kinds(store) == kinds(store, CURRENT) == told
    assert last(store, "retrieval failed") == ("fetcher-1", "2 of 3 came")


def test_a_lease_that_ends_makes_a_retrieval_due_again(store):
    """kill -9; its late holder can no longer say anything of it."""
    ask(store)
    one = claim(store)
    assert store.retrievals.renew(one, "fetcher-1", now=NOW + 20, lease_s=LEASE_S, expected=9, held=4)
    assert store.retrievals.take_back(NOW + LEASE_S + 1) == 0
    assert store.retrievals.take_back(NOW + 20 + LEASE_S + 1) == 1
    assert not store.retrievals.renew(one, "fetcher-1", now=NOW + 60, lease_s=LEASE_S, expected=9, held=5)
    again = claim(store, "fetcher-2", at=NOW + 60)
    assert (again.attempts, again.expected, again.held) == (1, 9, 4)
    for said in (
        store.retrievals.finish(one, "fetcher-1", now=NOW + 61, expected=9, why="done"),
        store.retrievals.put_off(one, "fetcher-1", now=NOW + 61, until=NOW + 70, reason="no"),
        store.retrievals.give_up(one, "fetcher-1", now=NOW + 61, reason="no"),
    ):
        assert said is False
    assert store.retrievals.get(one.id).holder == "fetcher-2"


def test_what_nobody_wants_any_more_ends_at_its_deadline(store):
    """The last reason stays on record; what runs is left to its holder."""
    ask(store, f"{STUDY}.1", deadline=NOW + 60)
    ask(store, f"{STUDY}.2", at=NOW + 1, deadline=NOW + 60)
    ask(store, f"{STUDY}.3", at=NOW + 2)
    store.retrievals.put_off(claim(store, at=NOW + 3), "fetcher-1", now=NOW + 3, until=NOW + 3600, reason="A801")
    claim(store, at=NOW + 3)
    assert store.retrievals.lapse(NOW + 60) == 0
    assert store.retrievals.lapse(NOW + 61) == 1
    assert {one.study_instance_uid[-1]: one.state for one in store.retrievals.list()} == {
        "1": RetrievalState.FAILED,
        "2": RetrievalState.RUNNING,
        "3": RetrievalState.WAITING,
    }
    assert last(store, "retrieval failed", f"{STUDY}.1") == ("clock", "it did not come in time; A801")


def test_a_study_is_judged_soon_after_its_retrieval_has_ended(store):
    """While it was being fetched it was known not to be whole, and was to be looked at later."""
    arrive(store)
    store.studies.look_again(STUDY, NOW + 300)
    ask(store)
    assert store.retrievals.finish(claim(store), "fetcher-1", now=NOW + 1, expected=1, why="it is here")
    assert store.studies.next_due() == NOW + 1


def test_a_person_cancels_what_waits_or_runs(store):
    """Who runs it hears of it when it renews."""
    one = ask(store)
    held = claim(store)
    store.retrievals.cancel(one.id, who="anna", now=NOW + 1)
    assert not store.retrievals.renew(held, "fetcher-1", now=NOW + 2, lease_s=LEASE_S, expected=None, held=0)
    assert store.retrievals.get(one.id).state is RetrievalState.CANCELED
    with pytest.raises(Rejected, match="has ended"):
        store.retrievals.cancel(one.id, who="anna", now=NOW + 3)
    assert last(store, "retrieval canceled") == ("anna", "a person canceled it")
