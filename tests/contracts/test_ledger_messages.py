"""Messages in the ledger, and who reads the journal: on both databases what was decided is told, and each event is read once."""

import threading

from dicom_node.domain import Message, MessageState, Trouble
from dicom_node.store import Event
from dicom_node.store.messages import Decision
from dicom_node.store.tables import event
from tests.contracts.arrange import LEASE_S, NOW, STUDY, arrive, finished


def a_message(key="a", *, at=NOW):
    return Message(recipient="ops", key=key, about="job", facts={"says": "x", "study_instance_uid": STUDY, "job_id": None}, created_at=at)


def decide(store, *messages, began=(), ended=(), after=0, upto=0, now=NOW):
    decided = Decision(messages=messages, began=began, ended=ended, after=after, upto=upto)
    return store.messages.decide("ops", "notify ops", decided, now=now)


def claimed(store, at=NOW):
    return store.messages.claim("ops", now=at, lease_s=LEASE_S)


def test_a_message_is_kept_once_and_told_once(store):
    """A second decision of the same makes no other; what is claimed is another's once the lease is over."""
    assert decide(store, a_message()) and decide(store, a_message())
    one = claimed(store)
    assert claimed(store, NOW + LEASE_S - 1) is None
    assert claimed(store, NOW + LEASE_S) == Message(**{**dict_of(one), "not_before": NOW + 2 * LEASE_S})
    assert store.messages.told(one, now=NOW) and not store.messages.told(one, now=NOW)
    assert not store.messages.drop(one, now=NOW, reason="late")
    assert claimed(store, NOW + 1000) is None
    assert store.messages.counts() == {"ops": {"TOLD": 1}}
    assert store.journal.of_study(STUDY)[-1].kind == "told"


def test_a_failure_puts_it_off(store):
    decide(store, a_message())
    store.messages.put_off(claimed(store), until=NOW + 5, reason="away")
    assert claimed(store, NOW + 4) is None
    one = claimed(store, NOW + 5)
    assert (one.attempts, one.reason, one.state) == (1, "away", MessageState.PENDING)


def test_what_was_told_long_ago_is_forgotten(store):
    decide(store, a_message())
    store.messages.told(claimed(store), now=NOW)
    decide(store, a_message("b"), now=NOW + 31 * 86400)
    assert [one.key for one in store.messages.list()] == ["b"]


def test_troubles_are_known_until_they_end(store):
    disk = Trouble(about="disk", key="disk", says="full", since=NOW)
    decide(store, began=(disk,))
    decide(store, began=(disk,))
    assert store.messages.troubles("ops") == (disk,) and store.messages.troubles("others") == ()
    decide(store, ended=("disk",))
    assert store.messages.troubles("ops") == ()


def test_a_reader_begins_behind_what_has_happened_and_passes_each_event_once(store):
    """Of two processes one passes; the other changes nothing."""
    arrive(store)
    after, events = store.messages.news("notify ops")
    assert events == ()
    store.journal.write(Event(at=NOW, study_instance_uid=STUDY, kind="k", who="w", why="y"))
    again, (one,) = store.messages.news("notify ops")
    assert (again, one.kind) == (after, "k")
    assert decide(store, a_message(), after=after, upto=one.id)
    assert not decide(store, a_message("b"), after=after, upto=one.id)
    assert [message.key for message in store.messages.list()] == ["a"]
    assert store.messages.news("notify ops") == (one.id, ())


def test_no_event_of_a_lower_number_comes_after_a_reader_has_passed(store):
    """A transaction that writes holds up who reads on, or is not seen: it is never skipped (PostgreSQL numbers before it commits)."""
    after, _ = store.messages.news("notify ops")
    writing, go_on = threading.Event(), threading.Event()

    def slow():
        with store.database.write() as connection:
            values = {"at": NOW, "study_instance_uid": STUDY, "who": "w", "why": "y"}
            connection.execute(event.insert().values(kind="slow", **values))
            writing.set()
            go_on.wait(0.5)

    thread = threading.Thread(target=slow)
    thread.start()
    writing.wait(30)
    quick = threading.Thread(target=lambda: store.journal.write(Event(at=NOW, study_instance_uid=STUDY, kind="quick", who="w", why="y")))
    quick.start()
    seen = []
    while len(seen) < 2:
        _, events = store.messages.news("notify ops")
        if events:
            decide(store, after=after, upto=events[-1].id)
            seen += [one.kind for one in events]
            after = events[-1].id
    thread.join()
    quick.join()
    assert sorted(seen) == ["quick", "slow"]


def test_the_number_of_an_event_is_never_given_again(store):
    """A study that is purged takes its events; who reads on behind a number misses nothing."""
    finished(store)
    last = store.journal.last()
    store.studies.purge(STUDY, who="clock", why="old", now=NOW)
    assert [one.kind for one in store.journal.after(last)] == ["purged"]
    assert [one.kind for one in store.journal.of_study(STUDY)] == ["purged"]


def test_latencies_are_counted_once_by_whoever_looks(store):
    """Histograms in the ledger: two looks, and two at once, count each event once."""
    store.latencies.look()
    finished(store)
    looks = [threading.Thread(target=store.latencies.look) for _ in range(2)]
    for look in looks:
        look.start()
    for look in looks:
        look.join()
    found = {one.stage: sum(one.counts) for one in store.latencies.look()}
    assert found == {"received_to_complete": 1, "complete_to_started": 1, "started_to_ended": 1}


def dict_of(one):
    return {name: getattr(one, name) for name in Message.__dataclass_fields__}
