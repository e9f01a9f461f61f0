"""The rows of other managers' steps: never taken for this node's own before they are claimed, and kept until their manager knows how they ended."""

from dicom_node.domain import Channel, JobState, Priority, ReportKind, Workitem
from dicom_node.store import Change, Store
from tests.contracts.arrange import NOW, STUDY, arrive, job_of, kinds, last, result_of, sending

UID = "1.2.3.4"


def written(store: Store, uid: str = UID, **more: object) -> Workitem:
    """Write the row of a step that is about to be claimed."""
    said = {"state": JobState.SCHEDULED, "priority": Priority.HIGH, "attributes": {}, "study_instance_uid": STUDY, "transaction_uid": "2.25.1"}
    item = Workitem(**{"uid": uid, "manager": "tasks", "requester": "tasks", **said, **more})
    assert store.workitems.create(item, now=NOW)
    return item


def claimed(store: Store, uid: str = UID) -> None:
    written(store, uid)
    assert store.workitems.change(uid, lambda _: Change(state=JobState.IN_PROGRESS, performer="DICOM_NODE", who="tasks", why="claimed"), now=NOW)


def mirrored(store: Store) -> list[str]:
    return [item.uid for item, _ in store.workitems.mirrored()]


def test_a_step_is_taken_up_once_it_is_claimed(store: Store) -> None:
    """Before that it may be anybody's; after its end it is nobody's."""
    written(store)
    assert (store.workitems.waiting(now=NOW), store.workitems.next_due(), mirrored(store)) == ((), None, [UID])
    claimed(store, "1.2.3.5")
    assert [item.uid for item in store.workitems.waiting(now=NOW)] == ["1.2.3.5"]
    assert store.workitems.next_due() == NOW
    store.workitems.settle("1.2.3.5", now=NOW, reason="it was canceled there")
    assert (store.workitems.waiting(now=NOW), mirrored(store)) == ((), [UID])


def test_what_is_given_up_here_is_kept_until_its_manager_was_told(store: Store) -> None:
    """CANCELED here is not the end there."""
    claimed(store)
    store.workitems.change(UID, lambda _: Change(state=JobState.CANCELED, reason="no images", who="node", why="no images"), now=NOW)
    assert (mirrored(store), store.workitems.prune(before=NOW + 99)) == ([UID], 0)
    store.workitems.settle(UID, now=NOW + 1)
    assert mirrored(store) == []
    item = store.workitems.get(UID)
    assert item is not None
    assert (item.state, item.reason, item.ended_at) == (JobState.CANCELED, "no images", NOW + 1)
    assert last(store, "workitem settled") == ("node", "tasks knows how it ended")
    store.workitems.settle(UID, now=NOW + 2, reason="again")
    assert store.workitems.get(UID) == item
    assert store.workitems.prune(before=NOW + 99) == 1


def test_what_somebody_else_has_claimed_has_come_to_nothing_here(store: Store) -> None:
    """The row stays for a day, so that it is not claimed again."""
    written(store)
    store.workitems.settle(UID, now=NOW, reason="another performer has claimed it")
    item = store.workitems.get(UID)
    assert item is not None
    assert (item.state, item.reason) == (JobState.CANCELED, "another performer has claimed it")
    assert not store.workitems.create(item, now=NOW)


def test_a_job_performs_it_and_says_where_its_results_are(store: Store) -> None:
    """The state is the job's; the end is when the manager knows."""
    arrive(store)
    claimed(store)
    made = store.workitems.take_up(UID, job_of(store.studies.view(STUDY)), now=NOW)
    assert made is not None
    running = store.jobs.claim("worker-1", ["lung-ct"], now=NOW, lease_s=30)
    assert running is not None

    assert store.jobs.complete(running, [result_of(store, running)], now=NOW, why="made it")
    ((_, before),) = store.workitems.whereabouts(UID)
    assert before == {"pacs": "PENDING"}
    (one,) = sending(store)
    assert store.deliveries.sent(one, "sender-1", now=NOW, status=0)
    ((_, after),) = store.workitems.whereabouts(UID)
    assert after == {"pacs": "SENT"}
    item = store.workitems.get(UID)
    assert item is not None
    assert (item.state, item.ended_at, mirrored(store)) == (JobState.COMPLETED, None, [UID])
    assert "workitem taken up" in kinds(store)


def test_a_step_is_let_go_of_while_its_job_goes_on(store: Store) -> None:
    """Others want the same analysis."""
    arrive(store)
    claimed(store)
    made = store.workitems.take_up(UID, job_of(store.studies.view(STUDY)), now=NOW)
    assert made is not None
    let_go = Change(state=JobState.CANCELED, reason="they asked", values={"job_id": None, "state": JobState.CANCELED})
    item = store.workitems.change(UID, lambda _: let_go, now=NOW)
    assert item is not None
    assert (item.job, item.state, item.reason, item.ended_at) == (None, JobState.CANCELED, "they asked", None)
    assert store.jobs.get(made.id).state is JobState.SCHEDULED


def test_what_was_heard_waits_in_its_order(store: Store) -> None:
    """It is no report to be told, and its teller no subscriber."""
    assert store.subscriptions.hear("TASKS", UID, ReportKind.STATE, {"state": "SCHEDULED"}, now=NOW)
    assert store.subscriptions.hear("TASKS", UID, ReportKind.CANCEL_REQUESTED, {"reason": "wrong"}, now=NOW)
    heard = store.subscriptions.waiting("TASKS", Channel.HEARD)
    assert [(one.kind, dict(one.facts)) for one in heard] == [(1, {"state": "SCHEDULED"}), (2, {"reason": "wrong"})]
    assert store.subscriptions.receivers(Channel.DIMSE, now=NOW) == ()
    assert store.subscriptions.watched() == {}
    store.subscriptions.unsubscribe("TASKS", UID)
    assert store.subscriptions.waiting("TASKS", Channel.HEARD) == heard
    store.subscriptions.told([one.id for one in heard])
    assert store.subscriptions.waiting("TASKS", Channel.HEARD) == ()


def test_a_step_whose_study_is_removed_is_told_to_its_manager_all_the_same(store: Store) -> None:
    """There it is in progress, and would be so for ever."""
    arrive(store)
    claimed(store)
    assert store.workitems.take_up(UID, job_of(store.studies.view(STUDY)), now=NOW) is not None
    store.jobs.claim("worker-1", ["lung-ct"], now=NOW, lease_s=30)
    store.studies.purge(STUDY, who="anna", why="a patient asks for it", now=NOW + 1)
    ((item, _),) = store.workitems.mirrored()
    assert (item.uid, item.state, item.job) == (UID, JobState.CANCELED, None)
    store.workitems.settle(UID, now=NOW + 2)
    assert store.workitems.prune(before=NOW + 99) == 1


def test_what_is_heard_is_kept_whatever_characters_it_has(store: Store) -> None:
    """PostgreSQL takes no NUL; a report that is not kept is told again and again."""
    assert store.subscriptions.hear("TASKS", UID, ReportKind.CANCEL_REQUESTED, {"reason": "a\0b"}, now=NOW)
    (heard,) = store.subscriptions.waiting("TASKS", Channel.HEARD)
    assert heard.facts["reason"] == "a b"
