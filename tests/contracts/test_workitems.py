"""Workitems in the ledger: claimed by exactly one; a job of this node is one, and what watchers hear of it is a legal life, told once."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import Dataset
from sqlalchemy import Connection, update

from dicom_node.config import NodeConfig
from dicom_node.domain import GLOBAL_SUBSCRIPTION, Channel, Job, JobState, Priority, Refused, ReportKind, Subscription, Workitem
from dicom_node.store import Store, subscriptions
from dicom_node.store.moving import insert_job
from dicom_node.store.reporting import report
from dicom_node.store.worklists import workitem
from dicom_node.worklist.ups import Manager
from dicom_node.worklist.ups.attributes import unfinished
from dicom_node.worklist.ups.events import information
from tests.contracts.arrange import LEASE_S, NOW, STUDY, arrive, claimed, finished, job_of, judged, result_of, waiting
from tests.workitems import becoming, but, cells, finishing, given, performed, progress, step, transaction, unspoken

WATCHER = "WATCHER"


def managing(store: Store) -> Manager:
    return Manager(NodeConfig.model_validate({"remotes": {"pacs": {"ae": "PACS@10.0.0.1:104"}}}), {}, store, lambda: NOW)


def watching(store: Store, uid: str = GLOBAL_SUBSCRIPTION, *, lock: bool = False, who: str = WATCHER) -> None:
    managing(store).subscribe(uid, who, channel=Channel.DIMSE, deletion_lock=lock)


def told(store: Store, uid: str = "", who: str = WATCHER) -> list[str]:
    """Return what a watcher is to be told, in order: states by their names, the rest by its kind."""
    found = [one for one in store.subscriptions.waiting(who, Channel.DIMSE, limit=10_000) if uid in ("", one.workitem_uid)]
    unspoken([information(one) for one in found], [])
    return [str(one.facts["state"]) if one.kind is ReportKind.STATE else one.kind.name for one in found]


def of(store: Store, job: Job) -> Workitem:
    (item,) = store.workitems.of_job(job.id)
    return item


def seen(store: Store, job: Job) -> str:
    """Return the state of a job's workitem, by each way that it can be read."""
    item, manager = of(store, job), managing(store)
    keys = but(Dataset(), SOPInstanceUID=item.uid, ProcedureStepState="")
    ((found, _),) = manager.find(keys)
    ((_, by_state),) = [one for one in store.workitems.newest(state=item.state) if one[1].uid == item.uid]
    assert manager.get(item.uid).ProcedureStepState == found.ProcedureStepState == by_state.state == item.state
    return str(item.state)


# ---------------------------------------------------------------------------------------------------------------- claims


def test_of_fifty_claims_at_once_exactly_one_wins(storage, address):
    """PS3.4 CC.1.1: the claim is one atomic compare-and-set, whoever asks and by whichever process."""
    stores = [Store.open(storage, address) for _ in range(5)]
    managers = [managing(one) for one in stores]
    uid, start, answers = transaction(), threading.Barrier(50), []
    managers[0].create(step(), uid=uid, requester="REQUESTER")
    watching(stores[0], uid)

    def claim(number: int) -> None:
        mine = transaction()
        start.wait()
        try:
            answers.append((managers[number % 5].change_state(uid, becoming("IN PROGRESS", mine), who=f"AE_{number}"), mine, number))
        except Refused as error:
            answers.append((error.status, mine, number))

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [(_, mine, number)] = [one for one in answers if one[0] == 0x0000]
    assert sorted(status for status, _, _ in answers) == [0x0000] + [0xC301] * 49
    item = stores[1].workitems.get(uid)
    assert (item.state, item.transaction_uid, item.performer) == (JobState.IN_PROGRESS, mine, f"AE_{number}")
    assert told(stores[2], uid) == ["SCHEDULED", "IN PROGRESS"]
    for one in stores:
        one.close()


def test_a_claim_and_a_wish_to_cancel_at_once_leave_a_legal_state(store):
    """One of them is first; whichever it is, the other is answered by the table."""
    manager = managing(store)
    for _ in range(8):
        uid, mine, answers = transaction(), transaction(), {}
        manager.create(step(), uid=uid, requester="REQUESTER")
        start = threading.Barrier(2)

        def act(name: str, wish: Callable[[], int], start=start, answers=answers) -> None:
            start.wait()
            try:
                answers[name] = wish()
            except Refused as error:
                answers[name] = error.status

        wishes = {
            "claim": lambda uid=uid, mine=mine: manager.change_state(uid, becoming("IN PROGRESS", mine), who="AE"),
            "cancel": lambda uid=uid: manager.ask_to_cancel(uid, Dataset(), who="AE"),
        }
        threads = [threading.Thread(target=act, args=one) for one in wishes.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        state = store.workitems.get(uid).state
        assert (answers, state) in [
            ({"claim": 0x0000, "cancel": 0x0000}, JobState.IN_PROGRESS),
            ({"claim": 0xC300, "cancel": 0x0000}, JobState.CANCELED),
        ]


def test_of_a_uid_that_many_ask_for_there_is_one(store):
    """0111 for all but one."""
    manager, uid, statuses, start = managing(store), transaction(), [], threading.Barrier(8)

    def create() -> None:
        start.wait()
        try:
            statuses.append(manager.create(step(), uid=uid, requester="REQUESTER")[1])
        except Refused as error:
            statuses.append(error.status)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [0x0000] + [0x0111] * 7


# ----------------------------------------------------------------------------------------------------------- jobs, as seen


def test_a_job_is_a_workitem_from_its_birth_to_its_end(store):
    """What its watchers hear: its states, its progress, and each once."""
    watching(store)
    job = waiting(store)
    assert (seen(store, job), of(store, job).uid) == ("SCHEDULED", of(store, store.jobs.get(job.id)).uid)
    held = claimed(store)
    assert seen(store, job) == "IN PROGRESS"
    for percent in (0.0, 0.5, 0.5, 1.0):
        store.jobs.beat(held, now=NOW, lease_s=LEASE_S, progress=percent, note="segments")
    assert store.jobs.complete(held, [result_of(store, held)], now=NOW, why="made it")
    assert seen(store, job) == "COMPLETED"
    assert told(store) == ["SCHEDULED", "IN PROGRESS", "PROGRESS", "PROGRESS", "PROGRESS", "COMPLETED"]


def test_slow_progress_is_told_as_well(store):
    """A hundred steps of a per cent each are told of like twenty of five."""
    watching(store)
    waiting(store)
    held = claimed(store)
    store.jobs.beat(held, now=NOW, lease_s=LEASE_S, progress=0.0, note="segments")
    for percent in range(101):
        store.jobs.beat(held, now=NOW, lease_s=LEASE_S, progress=percent / 100, note="segments")
    assert 15 <= told(store).count("PROGRESS") - 1 <= 25


def test_a_job_that_is_tried_again_is_seen_in_progress_all_the_while(store):
    """PS3.4 CC.1.1: no step goes back to SCHEDULED; a retry is the node's own affair, and is no event."""
    watching(store)
    job = waiting(store)
    for attempt in range(3):
        held = claimed(store, at=NOW + attempt)
        assert store.jobs.fail(held, now=NOW + attempt, why="the device was lost", retry_at=NOW + attempt)
        assert seen(store, job) == "IN PROGRESS"
    held = claimed(store, at=NOW + 9)
    assert store.jobs.release(held, now=NOW + 9, why="the worker stops")
    assert seen(store, job) == "IN PROGRESS"
    held = claimed(store, at=NOW + 10)
    assert store.jobs.take_back(held, now=NOW + 10 + 2 * LEASE_S, why="silent", retry_at=NOW + 11)
    held = claimed(store, at=NOW + 100)
    assert store.jobs.complete(held, [result_of(store, held)], now=NOW + 100, why="made it")
    assert told(store) == ["SCHEDULED", "IN PROGRESS", "COMPLETED"]


def test_a_worker_that_stops_at_once_has_claimed_all_the_same(store):
    """Its attempt does not count, and the next one is not the first that watchers hear of."""
    watching(store)
    job = waiting(store)
    assert store.jobs.release(claimed(store), now=NOW, why="the worker stops")
    assert seen(store, job) == "IN PROGRESS"
    claimed(store)
    assert told(store) == ["SCHEDULED", "IN PROGRESS"]


def ends(store: Store) -> dict[str, Callable[[Job], object]]:
    """Return the ways in which a job ends without a result."""
    return {
        "declined": lambda job: store.jobs.decline(claimed(store), now=NOW, why="no CT", cause="types"),
        "failed": lambda job: store.jobs.fail(claimed(store), now=NOW, why="it failed", retry_at=None, cause="resource"),
        "failed again": lambda job: (
            store.jobs.fail(claimed(store), now=NOW, why="it failed", retry_at=NOW),
            store.jobs.fail(claimed(store), now=NOW, why="it failed", retry_at=None),
        ),
        "taken back": lambda job: store.jobs.take_back(claimed(store), now=NOW + 2 * LEASE_S, why="silent", retry_at=None),
        "invalid": lambda job: store.jobs.reject(held := claimed(store), [result_of(store, held, problem="x")], now=NOW, why="not valid"),
        "stopped": lambda job: (
            held := claimed(store),
            store.jobs.cancel(job.id, who="anna", why="not needed", now=NOW),
            store.jobs.stop(held, now=NOW),
        ),
    }


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("declined", "110522"),
        ("failed", "110527"),
        ("failed again", "110501"),
        ("taken back", "110501"),
        ("invalid", "110501"),
        ("stopped", "110513"),
    ],
)
def test_a_job_that_comes_to_nothing_is_canceled_with_a_reason(store, how, code):
    """PS3.16 CID 9300, CID 9302: why, in a term; and what the final state requires is there."""
    watching(store)
    job = waiting(store)
    assert ends(store)[how](job)
    assert seen(store, job) == "CANCELED"
    assert told(store) == ["SCHEDULED", "IN PROGRESS", *(["CANCEL_REQUESTED"] if how == "stopped" else []), "CANCELED"]
    last = store.subscriptions.waiting(WATCHER, Channel.DIMSE)[-1]
    whole = managing(store).get(of(store, job).uid)
    assert unfinished(whole, JobState.CANCELED, NOW) == ()
    for said in (information(last), whole.ProcedureStepProgressInformationSequence[0]):
        assert said.ProcedureStepDiscontinuationReasonCodeSequence[0].CodeValue == code
        assert said.ReasonForCancellation


def test_a_job_that_waits_is_canceled_by_a_person(store):
    """At once; by UPS through IN PROGRESS, as its table says."""
    watching(store)
    one, other = waiting(store), waiting(store, study=f"{STUDY}.2")
    store.jobs.cancel(one.id, who="anna", why="not needed", now=NOW)
    assert managing(store).ask_to_cancel(of(store, other).uid, but(Dataset(), ReasonForCancellation="twice"), who="REQUESTER") == 0x0000
    assert told(store, of(store, one).uid)[-1] == "CANCELED"
    assert told(store, of(store, other).uid) == ["SCHEDULED", "IN PROGRESS", "CANCELED"]
    assert (seen(store, one), seen(store, other)) == ("CANCELED", "CANCELED")
    assert store.jobs.get(other.id).reason == "REQUESTER asked for it to be canceled (110513, DCM)"  # its own words may name a patient


def test_a_job_that_gives_way_is_canceled_and_its_successor_is_another_workitem(store):
    """The study grew: rescheduled (110528)."""
    watching(store)
    old = waiting(store)
    arrive(store, 2)
    new = judged(store)
    assert (seen(store, old), seen(store, new)) == ("CANCELED", "SCHEDULED")
    assert told(store, of(store, old).uid)[-1] == "CANCELED"
    assert told(store, of(store, new).uid) == ["SCHEDULED"]
    reasons = managing(store).get(of(store, old).uid).ProcedureStepProgressInformationSequence[0].ProcedureStepDiscontinuationReasonCodeSequence
    assert reasons[0].CodeValue == "110528"


def test_a_job_that_is_repeated_is_another_workitem(store):
    """A final state stays."""
    watching(store)
    old = finished(store)
    new = store.jobs.again(old.id, who="anna", now=NOW)
    assert (seen(store, old), seen(store, new)) == ("COMPLETED", "SCHEDULED")
    assert of(store, old).uid != of(store, new).uid


@pytest.mark.parametrize("state", ["SCHEDULED", "IN PROGRESS", "between attempts", "COMPLETED", "CANCELED"])
def test_a_job_is_taken_from_this_node_by_nobody(store, state):
    """Its lock is a lease: no Transaction UID is the right one, and while it waits the node says that it performs it itself (0124)."""
    job, manager = waiting(store), managing(store)
    if state != "SCHEDULED":
        held = claimed(store)
    if state == "between attempts":
        store.jobs.fail(held, now=NOW, why="it failed", retry_at=NOW + 60)
    if state == "COMPLETED":
        store.jobs.complete(held, [], now=NOW, why="made it")
    if state == "CANCELED":
        store.jobs.decline(held, now=NOW, why="no CT")
    uid, before = of(store, job).uid, seen(store, job)
    expected = {one.wish: one.status for one in cells() if one.given == "wrong" and one.state == before}
    for wish in ("IN PROGRESS", "COMPLETED", "CANCELED", "SCHEDULED"):
        for mine in (transaction(), "1.2.3"):
            with pytest.raises(Refused) as refused:
                manager.change_state(uid, becoming(wish, mine), who="AE")
            assert refused.value.status == (
                {"IN PROGRESS": 0x0124, "SCHEDULED": 0xC303}.get(wish, 0xC310) if before == "SCHEDULED" else expected[wish]
            )
    with pytest.raises(Refused) as refused:
        manager.set(uid, finishing("COMPLETED", transaction()), who="AE")
    assert refused.value.status == {"SCHEDULED": 0xC310, "IN PROGRESS": 0xC301}.get(before, 0xC300)
    assert seen(store, job) == before


def test_a_job_that_is_completed_says_what_its_final_state_requires(store):
    """PS3.4 Table CC.2.5-3; IHE AIW-I 4.84: all that it made is in Output Information, and with whom it is."""
    job = finished(store)
    whole = managing(store).get(of(store, job).uid)
    assert unfinished(whole, JobState.COMPLETED, NOW) == ()
    (performed,) = whole.UnifiedProcedureStepPerformedProcedureSequence
    made = [one.ReferencedSOPInstanceUID for item in performed.OutputInformationSequence for one in item.ReferencedSOPSequence]
    assert sorted(made) == sorted(one.sop_instance_uid for one in store.jobs.results(job.id))
    titles = {way.RetrieveAETitle for item in performed.OutputInformationSequence for way in item.DICOMRetrievalSequence}
    assert "PACS" in titles
    assert performed.PerformedWorkitemCodeSequence[0].CodeValue == whole.ScheduledWorkitemCodeSequence[0].CodeValue


def test_a_job_that_waits_becomes_more_urgent_by_ups(store):
    """Priority is the job's own: there is no second record of it."""
    job, manager = waiting(store, priority=Priority.LOW), managing(store)
    uid = of(store, job).uid
    assert manager.set(uid, but(Dataset(), ScheduledProcedureStepPriority="HIGH"), who="AE") == 0
    assert store.jobs.get(job.id).priority is Priority.HIGH
    assert manager.get(uid).ScheduledProcedureStepPriority == "HIGH"


def test_what_a_job_says_of_itself_nobody_else_changes(store):
    """Its inputs, their readiness, its progress: what a peer says of them is passed over, and watchers hear nothing of it."""
    job, manager = waiting(store), managing(store)
    uid = of(store, job).uid
    watching(store, uid)
    before = manager.get(uid)
    own = {
        "InputReadinessState": "UNAVAILABLE",
        "InputInformationSequence": [given("1.2.9")],
        "ProcedureStepProgressInformationSequence": [progress()],
    }
    said = but(Dataset(), CommentsOnTheScheduledProcedureStep="soon", **own, UnifiedProcedureStepPerformedProcedureSequence=[performed()])
    assert manager.set(uid, said, who="AE") == 0x0000
    after = manager.get(uid)
    assert after.CommentsOnTheScheduledProcedureStep == "soon"
    assert all(after[keyword] == before[keyword] for keyword in (*own, "UnifiedProcedureStepPerformedProcedureSequence"))
    assert told(store, uid) == ["SCHEDULED"]


# --------------------------------------------------------------------------------------------------------------- taken up


def requested(store: Store, **said: object) -> str:
    uid = transaction()
    managing(store).create(step(StudyInstanceUID=STUDY, InputInformationSequence=[given(STUDY)], **said), uid=uid, requester="REQUESTER")
    return uid


def wanted(store: Store, **how: object) -> Job:
    """Return the job that a request for the study's analysis asks for."""
    return job_of(store.studies.view(STUDY), **how)


def test_a_request_is_performed_by_a_job_of_its_own(store):
    """Its state is the job's from then on; watchers hear of it once."""
    watching(store)
    arrive(store)
    uid = requested(store, InputReadinessState="INCOMPLETE")
    job = store.workitems.take_up(uid, wanted(store), now=NOW)
    assert [item.uid for item in store.workitems.of_job(job.id)] == [uid]
    held = claimed(store)
    assert held.id == job.id
    store.jobs.complete(held, [result_of(store, held)], now=NOW, why="made it")
    assert store.workitems.get(uid).state is JobState.COMPLETED
    assert told(store) == ["SCHEDULED", "SCHEDULED", "IN PROGRESS", "COMPLETED"]  # the second: its inputs are ready now
    assert [one.facts["readiness"] for one in store.subscriptions.waiting(WATCHER, Channel.DIMSE)][:2] == ["INCOMPLETE", "READY"]


def test_a_request_that_changes_while_it_is_looked_at_is_looked_at_again(store):
    """Its inputs became ready after this node saw that they were not: that is not put off for a day."""
    uid = requested(store, InputReadinessState="INCOMPLETE")
    (seen,) = store.workitems.waiting(now=NOW)
    Manager(NodeConfig(), {}, store, lambda: NOW + 1).set(uid, but(Dataset(), InputReadinessState="READY"), who="REQUESTER")
    store.workitems.put_off(seen, until=NOW + 86400)
    assert [item.uid for item in store.workitems.waiting(now=NOW + 1)] == [uid]
    store.workitems.put_off(store.workitems.get(uid), until=NOW + 86400)
    assert store.workitems.waiting(now=NOW + 1) == ()


def test_what_waits_for_a_study_is_looked_at_when_that_is_complete(store):
    """However seldom it is looked at by then."""
    arrive(store)
    uid, other = requested(store), transaction()
    managing(store).create(step(StudyInstanceUID="1.2.99", InputInformationSequence=[given("1.2.99")]), uid=other, requester="REQUESTER")
    for one in (uid, other):
        store.workitems.put_off(store.workitems.get(one), until=NOW + 30)
    judged(store, models=(), at=NOW + 1)
    assert [item.uid for item in store.workitems.waiting(now=NOW + 1)] == [uid]


def test_however_many_wait_each_has_its_turn(store):
    """Who was looked at last comes last, though the first are due again by then."""
    uids = [requested(store) for _ in range(5)]
    seen = []
    for number in range(3):
        now = NOW + 2 * number
        for item in store.workitems.waiting(now=now, limit=2):
            seen.append(item.uid)
            store.workitems.put_off(item, until=now + 2)
    assert seen == [*uids, uids[0]]


def test_a_request_that_was_ready_is_not_told_anew_when_it_is_taken_up(store):
    """An event is a change."""
    watching(store)
    arrive(store)
    uid = requested(store)
    assert store.workitems.take_up(uid, wanted(store), now=NOW)
    assert told(store, uid) == ["SCHEDULED"]


@pytest.mark.parametrize(
    ("state", "expected"),
    [("SCHEDULED", ["SCHEDULED"]), ("IN PROGRESS", ["SCHEDULED", "IN PROGRESS"]), ("COMPLETED", ["SCHEDULED", "IN PROGRESS", "COMPLETED"])],
)
def test_a_request_for_what_is_done_already_is_joined_to_it(store, state, expected):
    """The same analysis of the same inputs: one job, one set of results; its watchers hear a legal life, each change once."""
    job = waiting(store)
    if state != "SCHEDULED":
        held = claimed(store)
    if state == "COMPLETED":
        store.jobs.complete(held, [result_of(store, held)], now=NOW, why="made it")
    uid = requested(store)
    watching(store, uid)
    assert store.workitems.take_up(uid, wanted(store), now=NOW).id == job.id
    assert len(store.jobs.list()) == 1
    assert len(store.workitems.of_job(job.id)) == 2
    assert store.workitems.get(uid).state == state
    assert told(store, uid) == expected


def test_a_request_for_what_came_to_nothing_is_done_anew(store):
    """A CANCELED job is repeated, and the repetition is the request's."""
    old = waiting(store)
    store.jobs.decline(claimed(store), now=NOW, why="no CT")
    uid = requested(store)
    new = store.workitems.take_up(uid, wanted(store), now=NOW)
    assert (new.id != old.id, new.repeat, new.predecessor_id) == (True, 1, old.id)
    assert store.workitems.get(uid).state is JobState.SCHEDULED
    again = requested(store)
    store.jobs.cancel(new.id, who="anna", why="not needed", now=NOW)
    assert store.workitems.take_up(again, wanted(store), now=NOW).repeat == 2


def test_results_that_are_there_go_also_where_a_later_request_wants_them(store):
    """Each result to each destination once."""
    job = finished(store, kinds=("SEG", "SR"))
    uid = requested(store)
    for _ in range(2):
        store.workitems.take_up(uid, wanted(store, deliver=("pacs", "ris")), now=NOW)
    other = requested(store)
    store.workitems.take_up(other, wanted(store, deliver=("ris",)), now=NOW)
    sent = sorted((one.result.kind, one.destination) for one in store.deliveries.list(study_instance_uid=STUDY))
    assert sent == [("SEG", "pacs"), ("SEG", "ris"), ("SR", "pacs"), ("SR", "ris")]
    assert store.jobs.get(job.id).deliver == ("pacs", "ris")


def test_who_takes_a_request_back_leaves_others_theirs(store):
    """Each is told of his own step; the job goes on until nobody wants it any more."""
    job = waiting(store)
    first, second = requested(store), requested(store)
    watching(store)
    for uid in (first, second):
        store.workitems.take_up(uid, wanted(store), now=NOW)
    managing(store).ask_to_cancel(first, Dataset(), who="REQUESTER")
    assert (store.workitems.get(first).state, store.jobs.get(job.id).state) == (JobState.CANCELED, JobState.SCHEDULED)
    held = claimed(store)
    managing(store).ask_to_cancel(second, Dataset(), who="REQUESTER")
    assert store.jobs.beat(held, now=NOW, lease_s=LEASE_S, progress=0.5, note="") is False
    assert (told(store, first), told(store, second)) == (["IN PROGRESS", "CANCELED"], ["IN PROGRESS", "CANCELED"])
    managing(store).ask_to_cancel(of(store, job).uid, Dataset(), who="REQUESTER")
    assert store.jobs.beat(held, now=NOW, lease_s=LEASE_S, progress=0.5, note="") is True


def test_what_was_asked_for_does_not_give_way_to_what_a_rule_asks_for(store):
    """It may be of other images; its results are replaced, and rejected, by none of the rule's either."""
    arrive(store)
    job = store.workitems.take_up(requested(store), wanted(store), now=NOW)
    arrive(store, 2)
    made = judged(store)
    assert (made.predecessor_id, store.jobs.get(job.id).state) == (None, JobState.SCHEDULED)


def test_what_was_asked_for_goes_also_where_a_rule_sends_it(store):
    """The rule asks for the same analysis later: it is there, and its results go to both."""
    arrive(store)
    job = store.workitems.take_up(requested(store), wanted(store, deliver=("ris",)), now=NOW)
    assert judged(store, deliver=("pacs",)) is None
    assert store.jobs.get(job.id).deliver == ("ris", "pacs")


def test_a_request_that_somebody_else_claimed_is_not_taken_up(store):
    """And one that ended is not, either."""
    arrive(store)
    foreign, canceled = requested(store), requested(store)
    managing(store).change_state(foreign, becoming("IN PROGRESS", transaction()), who="AE")
    managing(store).ask_to_cancel(canceled, Dataset(), who="AE")
    assert store.workitems.take_up(foreign, wanted(store), now=NOW) is None
    assert store.workitems.take_up(canceled, wanted(store), now=NOW) is None
    assert store.workitems.take_up(transaction(), wanted(store), now=NOW) is None
    assert store.jobs.list() == ()


def test_of_a_foreign_claim_and_this_nodes_one_wins(storage, address):
    """Whoever is first performs it; never both."""
    stores = [Store.open(storage, address) for _ in range(2)]
    arrive(stores[0])
    for number in range(8):
        uid, start, got = requested(stores[0]), threading.Barrier(2), {}
        mine = wanted(stores[0], model=f"model-{number}")

        def take(uid=uid, start=start, got=got, mine=mine) -> None:
            start.wait()
            got["node"] = stores[0].workitems.take_up(uid, mine, now=NOW) is not None

        def claim(uid=uid, start=start, got=got) -> None:
            start.wait()
            try:
                got["peer"] = managing(stores[1]).change_state(uid, becoming("IN PROGRESS", transaction()), who="AE") == 0
            except Refused as error:
                got["peer"], got["status"] = False, error.status

        threads = [threading.Thread(target=take), threading.Thread(target=claim)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got["node"] != got["peer"], got
        assert got.get("status", 0x0124) == 0x0124
        assert (stores[0].workitems.get(uid).job is not None) == got["node"]
    for one in stores:
        one.close()


# ---------------------------------------------------------------------------------------------------------------- the end


def test_workitems_go_with_the_study_of_their_job(store):
    """Their subscriptions and what was still to be told go too; those of other studies stay."""
    watching(store)
    job, other = finished(store), waiting(store, study=f"{STUDY}.2")
    uid = of(store, job).uid
    store.studies.purge(STUDY, who="anna", why="old", now=NOW)
    assert store.workitems.get(uid) is None
    assert told(store, uid) == []
    assert {one.workitem_uid for one in store.subscriptions.list()} == {GLOBAL_SUBSCRIPTION, of(store, other).uid}


def test_a_request_about_several_studies_goes_with_that_of_its_job(store):
    """It names no single study; its job does: it locks that one, and goes with it, subscriptions and all."""
    arrive(store)
    uid = transaction()
    several = [given(STUDY), given("1.2.4")]
    managing(store).create(step(StudyInstanceUID=None, InputInformationSequence=several), uid=uid, requester="REQUESTER")
    watching(store, uid, lock=True)
    judged(store, models=())
    store.workitems.take_up(uid, wanted(store, deliver=()), now=NOW)
    store.jobs.complete(claimed(store), [], now=NOW, why="made it")
    assert STUDY not in store.studies.older_than(NOW + 1e6, ended_after=NOW + 1e6)
    managing(store).unsubscribe(uid, WATCHER)
    assert STUDY in store.studies.older_than(NOW + 1e6, ended_after=NOW + 1e6)
    watching(store, uid)
    store.studies.purge(STUDY, who="anna", why="old", now=NOW)
    assert store.workitems.get(uid) is None
    assert (store.subscriptions.list(), told(store)) == ((), [])


def test_a_step_is_pruned_a_day_after_its_end_unless_it_is_locked(store):
    """PS3.4 CC.2.3.3; IHE AIW-I 4.85.4.1.3."""
    manager = managing(store)
    free, locked, running = (requested(store) for _ in range(3))
    watching(store, locked, lock=True)
    watching(store, free)
    for uid in (free, locked):
        manager.ask_to_cancel(uid, Dataset(), who="AE")
    assert store.workitems.prune(before=NOW) == 0
    assert store.workitems.prune(before=NOW + 1) == 1
    assert [store.workitems.get(uid) is None for uid in (free, locked, running)] == [True, False, False]
    assert told(store, free) == []


def test_a_watcher_is_told_of_the_last_of_what_it_missed_and_that_it_missed_some(store):
    """Ten thousand reports wait at most."""
    uid = requested(store)
    watching(store, uid)
    assert store.subscriptions.give_up(before=NOW - 1, now=NOW) == 0
    assert store.subscriptions.give_up(before=NOW + 1, now=NOW) == 1
    (word,) = store.subscriptions.waiting(WATCHER, Channel.DIMSE)
    assert (word.kind, word.facts["workitems"]) == (ReportKind.SCP_STATUS, "COLD START")


def test_odd_texts_are_kept_or_refused(store):
    """What PostgreSQL does not take is refused as a value, not as a failure."""
    for keyword in ("PatientID", "ProcedureStepLabel"):
        with pytest.raises(Refused) as refused:
            managing(store).create(but(step(), **{keyword: "a\0b"}), requester="REQUESTER")
        assert refused.value.status == 0x0106
    with pytest.raises(Refused) as refused:
        managing(store).ask_to_cancel(requested(store), but(Dataset(), ReasonForCancellation="a\0b"), who="AE")
    assert refused.value.status == 0x0106


def test_a_subscription_is_one_row_for_each_receiver_and_step(store):
    """Who subscribes again says how it is now."""
    uid = requested(store)
    for lock in (True, False):
        watching(store, uid, lock=lock)
    (one,) = store.subscriptions.list()
    assert isinstance(one, Subscription)
    assert (one.receiver, one.deletion_lock) == (WATCHER, False)


# ------------------------------------------------------------------------------------------------------- beginning to watch


def began_during(storage: Path, address: str, change: Callable[[Store, Connection], object], uid: str) -> tuple[list[str], Store]:
    """Let somebody subscribe while a change is under way that is committed later; return what that one is told."""
    first, second = Store.open(storage, address), Store.open(storage, address)
    begins = threading.Thread(target=watching, args=(second, uid), kwargs={"lock": True})
    with first.database.write() as connection:
        change(first, connection)
        begins.start()
        begins.join(0.3)  # it waits, or has read what there was before
    begins.join()
    second.close()
    return told(first), first


def test_who_subscribes_while_a_step_is_created_is_told_of_it(storage, address):
    """Either it is there already, or it is new: never neither."""
    store = Store.open(storage, address)
    arrive(store)
    wish = wanted(store)
    store.close()
    heard, store = began_during(storage, address, lambda _, connection: insert_job(connection, wish), GLOBAL_SUBSCRIPTION)
    assert heard == ["SCHEDULED"]
    store.close()


@pytest.mark.parametrize("is_worklist", [True, False])
def test_who_subscribes_while_a_step_changes_is_told_how_it_stands_after(storage, address, is_worklist):
    """The last that it hears is what is so."""
    store = Store.open(storage, address)
    uid = requested(store)
    store.close()

    def change(_: Store, connection: Connection) -> None:
        connection.execute(update(workitem).where(workitem.c.uid == uid).values(state=JobState.IN_PROGRESS))
        report(connection, uid, ReportKind.STATE, {"state": JobState.IN_PROGRESS, "readiness": "READY"}, NOW)

    heard, store = began_during(storage, address, change, GLOBAL_SUBSCRIPTION if is_worklist else uid)
    assert heard == ["IN PROGRESS"]
    store.close()


def test_each_who_watches_is_told_once_of_a_restart(store):
    """And of the worst that it has to know: that its list is not whole."""
    uid = requested(store)
    watching(store, uid)
    watching(store, uid, who="OTHER")
    store.subscriptions.give_up(before=NOW + 1, now=NOW)
    watching(store, uid, who="THIRD")
    for _ in range(3):
        assert store.subscriptions.restarted(now=NOW) == 3
    words = {
        who: [one.facts["workitems"] for one in store.subscriptions.waiting(who, Channel.DIMSE) if one.kind is ReportKind.SCP_STATUS]
        for who in (WATCHER, "OTHER", "THIRD")
    }
    assert words == {WATCHER: ["COLD START"], "OTHER": ["COLD START"], "THIRD": ["WARM START"]}


@pytest.mark.parametrize("lock", [True, False])
def test_who_begins_to_watch_all_watches_each_and_hears_of_each_once(store, monkeypatch, lock):
    """However many there are; what it watched before it watches as it says now (PS3.4 CC.2.3.3)."""
    monkeypatch.setattr(subscriptions, "_AT_ONCE", 2)
    uids = [requested(store) for _ in range(5)]
    watching(store, uids[0], lock=not lock)
    watching(store, lock=lock)
    assert {one.workitem_uid: one.deletion_lock for one in store.subscriptions.list()} == dict.fromkeys([GLOBAL_SUBSCRIPTION, *uids], lock)
    assert [one.workitem_uid for one in store.subscriptions.waiting(WATCHER, Channel.DIMSE)] == [uids[0], *(uids if lock else [])]


def test_no_step_is_born_unseen_while_somebody_begins_to_watch_all(storage, address):
    """Each has its subscription, whichever of the two was first; and no watcher hears a state that was over (PS3.4 CC.2.3.3)."""
    stores = [Store.open(storage, address) for _ in range(2)]
    made: list[str] = []

    def create() -> None:
        for _ in range(15):
            made.append(requested(stores[0]))
            managing(stores[0]).change_state(made[-1], becoming("IN PROGRESS", transaction()), who="AE")

    births = threading.Thread(target=create)
    births.start()
    for number in range(8):
        watching(stores[1], who=f"W{number}", lock=True)
    births.join()
    for number in range(8):
        watched = {one.workitem_uid for one in stores[1].subscriptions.list(receiver=f"W{number}")}
        assert watched == {GLOBAL_SUBSCRIPTION, *made}
        for uid in made:
            assert told(stores[1], uid, f"W{number}")[-1] == "IN PROGRESS"
    for one in stores:
        one.close()


def test_the_journal_quotes_nobody(store):
    """A reason that somebody writes may name a patient; it is told to those who watch, and stays with the step."""
    first, second = requested(store), requested(store)
    mine, manager = transaction(), managing(store)
    manager.ask_to_cancel(first, but(Dataset(), ReasonForCancellation="MARKED moved"), who="REQUESTER")
    manager.change_state(second, becoming("IN PROGRESS", mine), who="AE")
    manager.ask_to_cancel(second, but(Dataset(), ReasonForCancellation="MARKED moved"), who="REQUESTER")
    ending = finishing("CANCELED", mine)
    ending.ProcedureStepProgressInformationSequence[0].ReasonForCancellation = "MARKED moved"
    manager.set(second, ending, who="AE")
    manager.change_state(second, becoming("CANCELED", mine), who="AE")
    assert (store.workitems.get(first).reason, store.workitems.get(second).reason) == ("MARKED moved", "MARKED moved")
    assert [one.why for one in store.journal.after(0) if "MARKED" in one.why] == []


def test_news_do_not_call_one_that_is_left_alone(store):
    """One that cannot be reached is tried again later, whatever happens meanwhile."""
    uid = requested(store)
    watching(store, uid)
    store.subscriptions.put_off(WATCHER, Channel.DIMSE, until=NOW + 5)
    managing(store).change_state(uid, becoming("IN PROGRESS", transaction()), who="AE")
    assert store.subscriptions.receivers(Channel.DIMSE, now=NOW + 4) == ()
    assert store.subscriptions.receivers(Channel.DIMSE, now=NOW + 5) == (WATCHER,)
