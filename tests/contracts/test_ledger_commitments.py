"""Storage commitment in the ledger: what was asked of destinations, what is asked of the node, and what becomes of deliveries by it."""

from pathlib import Path

import pytest

from dicom_node.domain import Commitment, CommitmentItem, CommitmentRole, CommitmentState, DeliveryState, Fate
from dicom_node.schedule import retire
from dicom_node.store import Store
from tests.contracts.arrange import LEASE_S, NOW, STUDY, arrive, finished, kinds, last, sending

DAY_S = 86400.0


def sent(store: Store, **how: object) -> None:
    """Let results be on the PACS."""
    finished(store, **how)
    for one in sending(store):
        assert store.deliveries.sent(one, "sender-1", now=NOW, status=0)


def due(store: Store, at: float = NOW + 2, attempts: int = 3) -> dict[str, int]:
    """Return the kinds of results that are to be asked about, and how often they were asked about."""
    return {one.result.kind: times for one, times in store.commitments.due("pacs", now=at, sent_before=at - 1, attempts=attempts)}


def asked(store: Store, uid: str = "2.25.1", *, at: float = NOW + 2, deadline: float = NOW + 100) -> Commitment:
    """Ask about all that is due."""
    deliveries = [one for one, _ in store.commitments.due("pacs", now=at, sent_before=at - 1, attempts=3)]
    wanted = Commitment(
        role=CommitmentRole.SCU,
        transaction_uid=uid,
        peer="pacs",
        ae_title="PACS",
        state=CommitmentState.ASKED,
        requested_at=at,
        deadline=deadline,
        attempts=1,
    )
    made = store.commitments.begin(wanted, deliveries, now=at)
    assert made is not None
    return made


def kept(one: Commitment, *failed: str) -> dict[str, int]:
    """Return a report that all is kept but for these."""
    return {item.sop_instance_uid: 0x0112 if item.sop_instance_uid in failed else 0 for item in one.items}


def decide(_: object, outcome: int) -> Fate:
    return Fate(to=DeliveryState.PENDING, reason="0112", not_before=NOW + 60) if outcome else Fate(to=DeliveryState.COMMITTED)


def states(store: Store) -> dict[str, DeliveryState]:
    return {one.result.kind: one.state for one in store.deliveries.list()}


def wish(*numbers: int, uid: str = "2.25.9", at: float = NOW) -> Commitment:
    """Return a request of a scanner."""
    return Commitment(
        role=CommitmentRole.SCP,
        transaction_uid=uid,
        peer="ct",
        ae_title="CT_ER",
        state=CommitmentState.ACCEPTED,
        requested_at=at,
        deadline=at + DAY_S,
        not_before=at + 10,
        items=tuple(CommitmentItem(sop_class_uid="1.2.840.10008.5.1.4.1.1.2", sop_instance_uid=f"{STUDY}.1.{number}") for number in numbers),
    )


# ----------------------------------------------------------------------------------------------------- asked of others


def test_what_was_sent_is_asked_about_once_and_committed_by_the_report(store):
    """SENT becomes COMMITTED; the same report again changes nothing."""
    sent(store)
    assert due(store, at=NOW) == {}, "it waits a moment for others of its job"
    assert due(store) == {"SEG": 0, "SR": 0}
    one = asked(store)
    assert len(one.items) == 2
    assert due(store, at=NOW + 50) == {}
    assert store.commitments.find(CommitmentRole.SCU, "2.25.1", "PACS") == one
    assert store.commitments.find(CommitmentRole.SCU, "2.25.1", "OTHER") is None
    assert store.commitments.find(CommitmentRole.SCP, "2.25.1", "PACS") is None
    assert store.commitments.reported(one, kept(one), decide, now=NOW + 3)
    assert not store.commitments.reported(one, kept(one, *kept(one)), decide, now=NOW + 4)
    assert states(store) == {"SEG": DeliveryState.COMMITTED, "SR": DeliveryState.COMMITTED}
    [found] = store.commitments.list()
    assert (found.state, {item.outcome for item in found.items}) == (CommitmentState.REPORTED, {0})
    assert [kind for kind in kinds(store) if "commit" in kind] == ["commitment asked", "delivery committed", "delivery committed"]
    assert last(store, "delivery committed") == ("pacs", "the destination keeps it")


def test_what_is_not_kept_is_sent_again_and_then_asked_about_anew(store):
    """SENT becomes PENDING; what it was asked before the new sending does not count."""
    sent(store)
    one = asked(store)
    failed = next(item for item in one.items if store.deliveries.list()[0].id == item.delivery_id)
    assert store.commitments.reported(one, kept(one, failed.sop_instance_uid), decide, now=NOW + 3)
    assert sorted(states(store).values()) == [DeliveryState.COMMITTED, DeliveryState.PENDING]
    assert sending(store, at=NOW + 59) == ()
    [again] = sending(store, at=NOW + 60)
    assert (again.id, again.reason) == (failed.delivery_id, "0112")
    assert store.deliveries.sent(again, "sender-1", now=NOW + 60, status=0)
    assert list(due(store, at=NOW + 62).values()) == [0]
    [reported] = store.commitments.list(state=CommitmentState.REPORTED)
    assert reported.reason == "1 of 2 not kept"


def test_a_report_that_does_not_come_is_asked_for_again_and_at_last_by_a_person(store):
    """OVERDUE; the delivery stays SENT, says why, and waits; a report that comes late is believed."""
    sent(store)
    first = asked(store)
    told = lambda one: (f"{one.peer} did not report", NOW + 200)  # noqa: E731
    assert store.commitments.lapse("pacs", told=told, now=NOW + 99) == 0
    store.commitments.asked(first, deadline=NOW + 150)
    assert store.commitments.lapse("other", told=told, now=NOW + 151) == 0
    assert store.commitments.lapse("pacs", told=told, now=NOW + 151) == 1
    assert {(one.state, one.reason) for one in store.deliveries.list()} == {(DeliveryState.SENT, "pacs did not report")}
    assert last(store, "commitment overdue") == ("pacs", "pacs did not report")
    assert due(store, at=NOW + 199) == {}
    assert due(store, at=NOW + 200) == {"SEG": 1, "SR": 1}
    assert due(store, at=NOW + 200, attempts=1) == {}
    second = asked(store, "2.25.2", at=NOW + 200)
    assert store.commitments.refused(second, reason="pacs refused", until=NOW + 300, now=NOW + 201)
    assert not store.commitments.refused(second, reason="pacs refused", until=NOW + 300, now=NOW + 201)
    assert due(store, at=NOW + 300) == {"SEG": 2, "SR": 2}
    assert store.commitments.reported(first, kept(first), decide, now=NOW + 301)
    assert due(store, at=NOW + 9999) == {}


def test_a_request_is_known_after_a_restart(storage, address):
    """It is in the ledger before it goes out: its report may come to another process."""
    before = Store.open(Path(storage), address)
    sent(before)
    asked(before)
    before.close()
    after = Store.open(Path(storage), address)
    one = after.commitments.find(CommitmentRole.SCU, "2.25.1", "PACS")
    assert after.commitments.reported(one, kept(one), decide, now=NOW + 3)
    assert set(states(after).values()) == {DeliveryState.COMMITTED}
    after.close()


def test_two_who_ask_at_once_ask_once(store):
    """A delivery is in one open request at most."""
    sent(store)
    deliveries = [one for one, _ in store.commitments.due("pacs", now=NOW + 2, sent_before=NOW + 1, attempts=3)]
    one = asked(store)
    assert store.commitments.begin(one, deliveries, now=NOW + 2) is None


def test_a_study_stays_until_its_destination_keeps_the_results(store):
    """Local copies go only after commitment, where it is asked for."""
    sent(store)
    one = asked(store)
    assert store.studies.older_than(NOW + DAY_S, committing=("pacs",)) == ()
    assert store.studies.older_than(NOW + DAY_S, committing=("other",)) == (STUDY,)
    assert retire(store, 1.0, NOW + 3 * DAY_S, committing=("pacs",)) == 0
    assert store.commitments.reported(one, kept(one), decide, now=NOW + 3)
    assert retire(store, 1.0, NOW + 3 * DAY_S, committing=("pacs",)) == 1
    assert {item.delivery_id for item in store.commitments.list()[0].items} == {None}, "what was asked stays on record"


# --------------------------------------------------------------------------------------------------- asked of the node


def test_a_request_is_claimed_by_one_and_reported_once(store):
    """A lease that ends lets another report; who lost it records nothing."""
    arrive(store, 1)
    one = store.commitments.accept(wish(1, 2))
    assert store.commitments.claim("tick", now=NOW + 9, lease_s=LEASE_S) is None, "who took the request comes first"
    held = store.commitments.claim("own", now=NOW, lease_s=LEASE_S, key=one.id)
    assert held.transaction_uid == "2.25.9"
    assert store.commitments.claim("tick", now=NOW + 20, lease_s=LEASE_S) is None
    assert store.commitments.claim("tick", now=NOW + 31, lease_s=LEASE_S) is not None
    outcomes = {f"{STUDY}.1.1": 0, f"{STUDY}.1.2": 0x0112}
    assert not store.commitments.told(held, "own", outcomes, {STUDY: 1}, now=NOW + 32)
    assert not store.commitments.put_off(held, "own", reason="away", until=NOW)
    assert not store.commitments.give_up(held, "own", reason="away")
    assert store.commitments.put_off(held, "tick", reason="away", until=NOW + 90)
    assert store.commitments.claim("tick", now=NOW + 89, lease_s=LEASE_S) is None
    again = store.commitments.claim("tick", now=NOW + 90, lease_s=LEASE_S)
    assert (again.attempts, again.reason) == (1, "away")
    assert store.commitments.told(again, "tick", outcomes, {STUDY: 1}, now=NOW + 91)
    assert store.commitments.claim("tick", now=NOW + 9999, lease_s=LEASE_S) is None
    [done] = store.commitments.list(role=CommitmentRole.SCP)
    assert (done.state, [item.outcome for item in done.items]) == (CommitmentState.REPORTED, [0, 0x0112])
    assert last(store, "commitment given") == ("CT_ER", "1 of 2 instances of a request are kept for it")


def test_the_same_request_again_is_reported_again_and_another_under_its_uid_fails(store):
    """PS3.3 C.14.1.1: 0131, the Transaction UID is in use."""
    one = store.commitments.accept(wish(1, 2))
    assert store.commitments.accept(wish(2, 1, at=NOW + 1)).id == one.id
    held = store.commitments.claim("own", now=NOW + 20, lease_s=LEASE_S)
    assert store.commitments.give_up(held, "own", reason="away for days")
    assert store.commitments.list()[0].state is CommitmentState.UNREPORTED
    assert store.commitments.accept(wish(1, 2, at=NOW + 30)).id == one.id
    assert store.commitments.list()[0].state is CommitmentState.ACCEPTED
    other = store.commitments.accept(wish(1, 2, 3))
    assert other.id != one.id
    assert {item.outcome for item in other.items} == {0x0131}
    assert store.commitments.accept(wish(1, 2, uid="2.25.10")).items[0].outcome is None


def test_old_requests_go_when_others_come(store):
    """Their instances are named for as long as somebody may ask about them."""
    store.commitments.accept(wish(1))
    store.commitments.accept(wish(1, uid="2.25.10", at=NOW + 100 * DAY_S))
    assert len(store.commitments.list()) == 2, "it is not yet reported"
    held = store.commitments.claim("own", now=NOW + 11, lease_s=LEASE_S)
    assert store.commitments.told(held, "own", {f"{STUDY}.1.1": 0}, {}, now=NOW + 12)
    store.commitments.accept(wish(1, uid="2.25.11", at=NOW + 100 * DAY_S))
    assert [one.transaction_uid for one in store.commitments.list()] == ["2.25.11", "2.25.10"]


def test_instances_are_found_by_their_names_alone(store):
    """A request names no study."""
    arrive(store, 1)
    arrive(store, 2, study=f"{STUDY}.7")
    found = store.commitments.instances([f"{STUDY}.1.1", f"{STUDY}.7.1.2", "2.25.404"])
    assert {one.sop_instance_uid for one in found} == {f"{STUDY}.1.1", f"{STUDY}.7.1.2"}


def test_a_state_is_a_line_in_a_table(store):
    """What the table does not have is a fault of the program."""
    sent(store)
    one = asked(store)
    assert store.commitments.reported(one, kept(one), decide, now=NOW)
    sent(store, study=f"{STUDY}.2")
    two = asked(store, "2.25.2")
    with pytest.raises(ValueError, match="cannot go from SENT to CANCELED"):
        store.commitments.reported(two, kept(two), lambda *_: Fate(to=DeliveryState.CANCELED), now=NOW)
    assert store.commitments.find(CommitmentRole.SCU, "2.25.2", "PACS").state is CommitmentState.ASKED
