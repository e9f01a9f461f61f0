"""Workitems as a list shows them: newest first, with no more of what they say than is asked for."""

from dicom_node.domain import GLOBAL_SUBSCRIPTION, Channel, JobState, Priority, Subscription, Workitem
from dicom_node.store import Store
from tests.contracts.arrange import NOW, waiting

LABEL, INPUTS = "00741204", "00404021"


def item(number: int, state: JobState = JobState.SCHEDULED) -> Workitem:
    said = {LABEL: {"vr": "LO", "Value": [f"Step {number}"]}, INPUTS: {"vr": "SQ", "Value": [{}] * 1000}}
    return Workitem(uid=f"1.2.{number}", state=state, priority=Priority.LOW, attributes=said, scheduled_at=NOW)


def test_a_list_has_the_newest_first_with_some_of_what_they_say(store: Store) -> None:
    """Also that of a job, which says nothing by itself."""
    for number in (1, 2, 3):
        assert store.workitems.create(item(number, JobState.IN_PROGRESS if number == 2 else JobState.SCHEDULED), now=NOW)
    waiting(store)
    found = store.workitems.newest(tags=(LABEL,))
    assert [one.uid for _, one in found[1:]] == ["1.2.3", "1.2.2", "1.2.1"]
    assert [dict(one.attributes) for _, one in found] == [{}, *({LABEL: {"vr": "LO", "Value": [f"Step {number}"]}} for number in (3, 2, 1))]
    assert found[0][1].job is not None
    assert [one.uid for _, one in store.workitems.newest(state=JobState.IN_PROGRESS)] == ["1.2.2"]
    assert [one.uid for _, one in store.workitems.newest(before=found[1][0], limit=1)] == ["1.2.2"]


def test_who_watches_is_counted_with_what_is_locked_and_what_waits(store: Store) -> None:
    store.workitems.create(item(1), now=NOW)
    store.subscriptions.subscribe(Subscription(receiver="SOME", channel=Channel.WEB, workitem_uid="1.2.1"), now=NOW)
    of_all = Subscription(receiver="ALL", channel=Channel.DIMSE, workitem_uid=GLOBAL_SUBSCRIPTION, deletion_lock=True)
    store.subscriptions.subscribe(of_all, now=NOW)
    assert store.subscriptions.watched() == {
        ("SOME", "WEB"): {"workitems": 1, "locks": 0, "waiting": 1},
        ("ALL", "DIMSE"): {"workitems": 2, "locks": 2, "waiting": 1},
    }
