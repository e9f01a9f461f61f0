"""Deliveries in the ledger: each result to each destination, by one sender at a time, with every outcome on record."""

import threading

import pytest

from dicom_node.domain import DeliveryState, Rejected
from tests.contracts.arrange import LEASE_S, NOW, STUDY, finished, last, sending


def test_what_is_due_is_claimed_oldest_first_and_by_one_sender(store):
    """Two associations to one destination share its queue."""
    finished(store, study=f"{STUDY}.1", at=NOW + 1)
    finished(store, study=f"{STUDY}.2", at=NOW)
    first = sending(store, "sender-1", at=NOW + 2, limit=3)
    assert [(one.result.study_instance_uid[-1], one.result.kind, one.state) for one in first] == [
        ("2", "SEG", DeliveryState.SENDING),
        ("2", "SR", DeliveryState.SENDING),
        ("1", "SEG", DeliveryState.SENDING),
    ]
    assert [one.result.kind for one in sending(store, "sender-2", at=NOW + 2)] == ["SR"]
    assert sending(store, "sender-3", at=NOW + 2) == ()
    assert last(store, "delivery sending", f"{STUDY}.1") == ("sender-2", "its turn")


def test_claims_at_once_share_the_deliveries_out(store):
    """Every delivery is claimed, none twice."""
    for number in range(10):
        finished(store, study=f"{STUDY}.{number}")
    start = threading.Barrier(8)
    claimed = []

    def send(number: int) -> None:
        start.wait()
        while some := sending(store, f"sender-{number}", limit=3):
            claimed.extend(one.id for one in some)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    claimed.extend(one.id for one in sending(store))  # PostgreSQL passes over what another is just claiming
    assert sorted(claimed) == sorted(one.id for one in store.deliveries.list())


def test_a_delivery_waits_for_its_destination_and_its_time(store):
    """`not_before`, per delivery."""
    finished(store, kinds=["SEG"])
    assert store.deliveries.claim("archive", "sender-1", now=NOW, lease_s=LEASE_S) == ()
    [one] = sending(store)
    assert store.deliveries.put_off(one, "sender-1", now=NOW, until=NOW + 60, reason="A700: out of resources", status=0xA700)
    assert sending(store, at=NOW + 59) == ()
    [again] = sending(store, at=NOW + 60)
    assert (again.attempts, again.status, again.reason) == (1, 0xA700, "A700: out of resources")
    assert last(store, "delivery pending") == ("sender-1", "A700: out of resources")


def test_an_unreachable_peer_costs_no_attempt(store):
    """It says nothing of the object."""
    finished(store, kinds=["SEG"])
    [one] = sending(store)
    assert store.deliveries.put_off(one, "sender-1", now=NOW, until=NOW, reason="no answer", counts=False)
    assert store.deliveries.list()[0].attempts == 0


def test_success_and_warnings_are_kept(store):
    """Delivered means the archive has said so."""
    finished(store)
    segmentation, report = sending(store)
    assert store.deliveries.sent(segmentation, "sender-1", now=NOW + 1, status=0)
    assert store.deliveries.sent(report, "sender-1", now=NOW + 2, status=0xB000, reason="B000: coercion of data elements")
    rows = {one.result.kind: one for one in store.deliveries.list()}
    assert (rows["SEG"].state, rows["SEG"].sent_at, rows["SEG"].status, rows["SEG"].reason) == (DeliveryState.SENT, NOW + 1, 0, "")
    assert (rows["SR"].status, rows["SR"].reason) == (0xB000, "B000: coercion of data elements")
    assert last(store, "delivery sent") == ("sender-1", "B000: coercion of data elements")
    assert sending(store, at=NOW + 99) == ()


def test_a_dead_letter_is_sent_again_when_a_person_says_so(store):
    """Its attempts begin anew."""
    job = finished(store)
    for one in sending(store):
        assert store.deliveries.give_up(one, "sender-1", now=NOW, reason="C000: cannot understand", status=0xC000)
    assert store.deliveries.counts() == {"pacs": {"DEAD": 2}}
    assert sending(store, at=NOW + 9999) == ()
    first, second = store.deliveries.list(state=DeliveryState.DEAD)
    assert store.deliveries.replay(who="anna", now=NOW + 5, delivery_id=first.id) == 1
    assert last(store, "delivery pending") == ("anna", "a person asked for it again")
    assert store.deliveries.replay(who="anna", now=NOW + 5, job_id=job.id + 1) == 0
    assert store.deliveries.replay(who="anna", now=NOW + 5, name="pacs") == 1
    assert [(one.attempts, one.reason) for one in sending(store, at=NOW + 5)] == [(0, "C000: cannot understand")] * 2
    assert store.deliveries.replay(who="anna", now=NOW + 5, job_id=job.id) == 0
    assert second.attempts == 1


def test_what_was_sent_is_sent_again_only_when_it_is_named(store):
    """The destination may have lost it; a replay of all dead letters must not send everything twice."""
    finished(store, kinds=["SEG"])
    [one] = sending(store)
    assert store.deliveries.sent(one, "sender-1", now=NOW, status=0x0000)
    assert store.deliveries.replay(who="anna", now=NOW + 5, name="pacs") == 0
    assert store.deliveries.replay(who="anna", now=NOW + 5, delivery_id=one.id) == 1
    assert [again.id for again in sending(store, at=NOW + 5)] == [one.id]


def test_a_sender_that_lost_its_lease_can_record_nothing(store):
    """The same bytes are sent again by whoever has the lease now."""
    finished(store, kinds=["SEG"])
    [lost] = sending(store)
    assert store.deliveries.take_back(NOW + LEASE_S) == 0
    assert store.deliveries.renew([lost], "sender-1", now=NOW + 20, lease_s=LEASE_S) == 1
    assert store.deliveries.take_back(NOW + LEASE_S + 1) == 0
    assert store.deliveries.take_back(NOW + 51) == 1
    assert last(store, "delivery pending") == ("clock", "its sender was silent beyond its lease")
    for _ in range(2):
        assert store.deliveries.renew([lost], "sender-1", now=NOW + 52, lease_s=LEASE_S) == 0
        assert store.deliveries.sent(lost, "sender-1", now=NOW + 52, status=0) is False
        assert store.deliveries.put_off(lost, "sender-1", now=NOW + 52, until=NOW, reason="") is False
        assert store.deliveries.give_up(lost, "sender-1", now=NOW + 52, reason="") is False
        sending(store, "sender-2", at=NOW + 52)
    [one] = store.deliveries.list()
    assert (one.state, one.attempts) == (DeliveryState.SENDING, 0)
    assert store.deliveries.sent(one, "sender-2", now=NOW + 53, status=0)


def test_a_person_cancels_what_waits_and_nothing_else(store):
    """What is being sent, or was, cannot be canceled."""
    finished(store)
    first, second = sorted(store.deliveries.list(), key=lambda one: one.id)
    store.deliveries.cancel(first.id, who="anna", now=NOW)
    assert last(store, "delivery canceled") == ("anna", "a person canceled it")
    [held] = sending(store)
    assert held.id == second.id
    for number in (first.id, second.id, 999):
        with pytest.raises(Rejected, match="does not wait, or does not exist"):
            store.deliveries.cancel(number, who="anna", now=NOW)
    assert store.deliveries.replay(who="anna", now=NOW, delivery_id=first.id) == 1


def test_results_are_sent_to_one_more_destination_once(store):
    """What is queued for it already is not queued again."""
    job = finished(store)
    assert store.deliveries.send(job.id, "archive", who="anna", now=NOW + 3) == 2
    assert store.deliveries.send(job.id, "archive", who="anna", now=NOW + 4) == 0
    assert store.deliveries.send(job.id, "pacs", who="anna", now=NOW + 4) == 0
    assert store.deliveries.send(999, "archive", who="anna", now=NOW) == 0
    assert last(store, "queued") == ("anna", "2 results to archive")
    assert store.deliveries.counts() == {"pacs": {"PENDING": 2}, "archive": {"PENDING": 2}}


def test_deliveries_are_listed(store):
    """Newest first; by state, destination, job and study."""
    first, second = finished(store, study=f"{STUDY}.1", at=NOW), finished(store, study=f"{STUDY}.2", at=NOW + 1, deliver=["archive"])
    assert [one.result.job_id for one in store.deliveries.list()] == [second.id] * 2 + [first.id] * 2
    assert {one.result.job_id for one in store.deliveries.list(name="archive")} == {second.id}
    assert {one.result.job_id for one in store.deliveries.list(job_id=first.id)} == {first.id}
    assert {one.result.job_id for one in store.deliveries.list(study_instance_uid=f"{STUDY}.2")} == {second.id}
    assert store.deliveries.list(state=DeliveryState.SENT) == ()
    assert len(store.deliveries.list(limit=1)) == 1


def test_a_destination_is_known_by_how_it_is_doing(store):
    """Failures in a row open the circuit; an answer closes it."""
    assert (store.deliveries.destination("pacs").failures, store.deliveries.destination("pacs").not_before) == (0, 0.0)
    threads = [
        threading.Thread(target=store.deliveries.unreachable, args=("pacs",), kwargs={"until": NOW + 5, "reason": "refused"}) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    state = store.deliveries.destination("pacs")
    assert (state.failures, state.not_before, state.reason, state.succeeded_at) == (4, NOW + 5, "refused", None)
    store.deliveries.try_now("pacs")
    state = store.deliveries.destination("pacs")
    assert (state.failures, state.not_before, state.reason) == (4, 0.0, "refused"), "a person may ask, and what failed stays on record"
    store.deliveries.reached("pacs", now=NOW + 6)
    state = store.deliveries.destination("pacs")
    assert (state.failures, state.not_before, state.reason, state.succeeded_at) == (0, 0.0, "", NOW + 6)
