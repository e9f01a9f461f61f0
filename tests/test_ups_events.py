"""What those who watch workitems are told, in what order, and whom that keeps waiting (PS3.4 CC.2.3, CC.2.4), over real associations."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset
from pynetdicom import _config

from dicom_node.domain import Channel
from dicom_node.schedule import retire
from dicom_node.worklist.ups import reporting as ups_reporting
from tests.contracts.arrange import finished
from tests.stepping import ALL, FILTERED, NOW, REQUEST_CANCEL, SUSPEND, UNSUBSCRIBE, Peer, Stepping, eventually, stepping
from tests.workitems import but, code, elements, finishing, progress, setting, step, transaction, unspoken

DAY_S = 86400.0


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    kept = _config.LOG_REQUEST_IDENTIFIERS, _config.LOG_RESPONSE_IDENTIFIERS
    yield
    _config.LOG_REQUEST_IDENTIFIERS, _config.LOG_RESPONSE_IDENTIFIERS = kept


@pytest.fixture
def node(tmp_path) -> Iterator[Stepping]:
    with stepping(tmp_path / "storage") as running:
        running.report()
        yield running


@pytest.fixture
def peer(node) -> Iterator[Peer]:
    with node.peer() as one:
        yield one


def asked(peer: Peer, **said: object) -> str:
    uid = transaction()
    assert peer.create(step(**said), uid)[0] in (0x0000, 0xB300)
    return uid


def waiting(node: Stepping, receiver: str = "WATCHER") -> list[tuple[str, int]]:
    """Return what the ledger still has to tell somebody."""
    with node.store.database.read() as connection:
        rows = connection.exec_driver_sql("SELECT workitem_uid, kind FROM event_report WHERE receiver = ? ORDER BY id", (receiver,))
        return [(row[0], row[1]) for row in rows]


# ---------------------------------------------------------------------------------------------------- what is told, and when


@pytest.mark.parametrize("lock", ["TRUE", "FALSE"])
def test_who_begins_to_watch_a_step_is_told_how_it_stands(node: Stepping, peer: Peer, lock: str) -> None:
    """PS3.4 CC.2.3.3 (R2.6): an initial State Report."""
    watcher, uid = node.listen(), asked(peer)
    assert peer.watch(uid, lock=lock) == 0x0000
    assert watcher.waits_for(uid, 1) == [(1, "SCHEDULED")]
    assert watcher.told[0][2].InputReadinessState == "READY"


def test_a_life_is_told_in_order_and_once(node: Stepping, peer: Peer) -> None:
    """PS3.4 CC.2.4.3: state, progress, the wish that it be canceled, its end; none twice."""
    watcher, uid, mine = node.listen(), asked(peer), transaction()
    peer.watch(uid)
    peer.become("IN PROGRESS", mine, uid)
    for percent in ("10", "90"):
        peer.set(setting(mine, ProcedureStepProgressInformationSequence=[progress(ProcedureStepProgress=percent)]), uid)
    peer.act(REQUEST_CANCEL, but(Dataset(), ReasonForCancellation="patient left", ContactDisplayName="Dr. Who", ContactURI="tel:1"), uid)
    peer.set(finishing("CANCELED", mine), uid)
    peer.become("CANCELED", mine, uid)
    expected = [(1, "SCHEDULED"), (1, "IN PROGRESS"), (3, "10"), (3, "90"), (2, "EVERYBODY"), (3, "50"), (1, "CANCELED")]
    assert watcher.waits_for(uid, len(expected)) == expected
    time.sleep(0.3)
    assert watcher.of(uid) == expected
    asked_to = next(said for of, kind, said in watcher.told if of == uid and kind == 2)
    assert (asked_to.ReasonForCancellation, asked_to.ContactDisplayName, asked_to.ContactURI) == ("patient left", "Dr. Who", "tel:1")
    last = watcher.told[-1][2]
    assert (last.ProcedureStepState, last.InputReadinessState) == ("CANCELED", "READY")
    assert last.ProcedureStepDiscontinuationReasonCodeSequence[0].CodeValue == "110513"


def test_what_progress_says_is_told(node: Stepping, peer: Peer) -> None:
    """PS3.4 Table CC.2.4-1: the Progress Information Sequence."""
    watcher, uid, mine = node.listen(), asked(peer), transaction()
    peer.become("IN PROGRESS", mine, uid)
    peer.watch(uid)
    way = but(Dataset(), ContactURI="https://node/jobs/1", TransactionUID=mine)
    peer.set(setting(mine, ProcedureStepProgressInformationSequence=[progress(ProcedureStepCommunicationsURISequence=[way])]), uid)
    assert watcher.waits_for(uid, 2) == [(1, "IN PROGRESS"), (3, "50")]
    (item,) = watcher.told[-1][2].ProcedureStepProgressInformationSequence
    assert item.ProcedureStepProgressDescription == "half of it"
    assert item.ProcedureStepCommunicationsURISequence[0].ContactURI == "https://node/jobs/1"


def test_who_is_to_perform_a_step_is_told(node: Stepping, peer: Peer) -> None:
    """Event 5, UPS Assigned; a Transaction UID within it is not."""
    watcher, uid, secret = node.listen(), asked(peer), transaction()
    node.secrets.add(secret)
    peer.watch(uid)
    assert peer.set(setting(None, ScheduledStationNameCodeSequence=[but(code("GPU-1"), TransactionUID=secret)]), uid) == 0x0000
    assert watcher.waits_for(uid, 2)[1][0] == 5
    said = watcher.told[-1][2]
    assert said.ScheduledStationNameCodeSequence[0].CodeValue == "GPU-1"
    unspoken([said], [secret])


def test_a_step_that_becomes_ready_is_told(node: Stepping, peer: Peer) -> None:
    """Event 1 when the Input Readiness State changes; not when it is set to what it is."""
    watcher, uid = node.listen(), asked(peer, InputReadinessState="INCOMPLETE")
    peer.watch(uid)
    for readiness in ("READY", "READY", "UNAVAILABLE"):
        assert peer.set(setting(None, InputReadinessState=readiness), uid) == 0x0000
    watcher.waits_for(uid, 3)
    time.sleep(0.2)
    assert [said.InputReadinessState for of, _, said in watcher.told if of == uid] == ["INCOMPLETE", "READY", "UNAVAILABLE"]


@pytest.mark.parametrize("claimed", [False, True])
def test_texts_in_whatever_letters_are_told(node: Stepping, peer: Peer, claimed: bool) -> None:
    """PS3.5 6.1: of an event, and of a step that was asked for in another character set."""
    watcher, uid, mine = node.listen(), asked(peer, SpecificCharacterSet="ISO_IR 100", PatientName="Müller"), transaction()
    peer.watch(uid)
    if claimed:
        peer.become("IN PROGRESS", mine, uid)
    why = but(Dataset(), SpecificCharacterSet="ISO_IR 192", ReasonForCancellation="Größe: 王小東")
    assert peer.act(REQUEST_CANCEL, why, uid) == 0x0000
    if claimed:
        said = finishing("CANCELED", mine)
        said.SpecificCharacterSet = "ISO_IR 192"
        said.ProcedureStepProgressInformationSequence[0].ReasonForCancellation = "Größe: 王小東"
        said.ProcedureStepProgressInformationSequence[0].ProcedureStepProgressDescription = "Größe: 王小東"
        assert peer.set(said, uid) == 0x0000
        assert peer.become("CANCELED", mine, uid) == 0x0000
    told = watcher.waits_for(uid, 5 if claimed else 3)
    assert told[-1] == (1, "CANCELED")
    texts = [element.value for of, _, report in watcher.told if of == uid for element in elements(report)]
    assert texts.count("Größe: 王小東") == (3 if claimed else 1)
    whole = peer.get(uid)[1]
    assert str(whole.PatientName) == "Müller"
    assert whole.ProcedureStepProgressInformationSequence[0].ReasonForCancellation == "Größe: 王小東"
    ((found,), _) = peer.find(but(Dataset(), SOPInstanceUID=uid, PatientName="", ProcedureStepProgressInformationSequence=[]))
    assert str(found.PatientName) == "Müller"
    assert found.ProcedureStepProgressInformationSequence[0].ReasonForCancellation == "Größe: 王小東"


def test_a_step_that_nobody_claimed_is_canceled_through_in_progress(node: Stepping, peer: Peer) -> None:
    """PS3.4 CC.2.2.3: both changes are reported."""
    watcher, uid = node.listen(), asked(peer)
    peer.watch(uid)
    assert peer.act(REQUEST_CANCEL, but(Dataset(), ReasonForCancellation="twice"), uid) == 0x0000
    assert watcher.waits_for(uid, 3) == [(1, "SCHEDULED"), (1, "IN PROGRESS"), (1, "CANCELED")]
    assert watcher.told[-1][2].ReasonForCancellation == "twice"


def test_what_is_refused_is_told_to_nobody(node: Stepping, peer: Peer) -> None:
    """A request that changes nothing is no event."""
    watcher, uid, mine = node.listen(), asked(peer), transaction()
    peer.watch(uid)
    assert peer.become("COMPLETED", mine, uid) == 0xC310
    assert peer.become("IN PROGRESS", mine, uid) == 0x0000
    assert peer.become("IN PROGRESS", transaction(), uid) == 0xC301
    assert peer.become("COMPLETED", mine, uid) == 0xC304
    assert peer.set(setting(transaction(), ProcedureStepProgressInformationSequence=[progress()]), uid) == 0xC301
    assert watcher.waits_for(uid, 2) == [(1, "SCHEDULED"), (1, "IN PROGRESS")]
    time.sleep(0.2)
    assert len(watcher.of(uid)) == 2


# -------------------------------------------------------------------------------------------------------------- worklists


def test_all_with_a_lock_is_told_of_what_there_is_and_of_what_comes(node: Stepping, peer: Peer) -> None:
    """PS3.4 CC.2.3.3 (R2.6, R2.7)."""
    watcher, before = node.listen(), asked(peer)
    assert peer.watch(ALL, lock="TRUE") == 0x0000
    after = asked(peer)
    assert watcher.waits_for(after, 1) == [(1, "SCHEDULED")]
    assert watcher.of(before) == [(1, "SCHEDULED")]
    assert {one.deletion_lock for one in node.store.subscriptions.list(receiver="WATCHER")} == {True}


def test_all_without_a_lock_is_told_of_what_comes_alone(node: Stepping, peer: Peer) -> None:
    """R2.6: no initial report; but of what there is, its changes; R2.7: what comes is reported."""
    watcher, before = node.listen(), asked(peer)
    assert peer.watch(ALL) == 0x0000
    after = asked(peer)
    assert watcher.waits_for(after, 1) == [(1, "SCHEDULED")]
    assert watcher.of(before) == []
    assert peer.become("IN PROGRESS", transaction(), before) == 0x0000
    assert watcher.waits_for(before, 1) == [(1, "IN PROGRESS")]


def test_a_filter_lets_through_what_matches(node: Stepping, peer: Peer) -> None:
    """R2.7: of what there is, and of what comes."""
    watcher = node.listen()
    high, low = asked(peer, ScheduledProcedureStepPriority="HIGH"), asked(peer, ScheduledProcedureStepPriority="LOW")
    assert peer.watch(FILTERED, ScheduledProcedureStepPriority="HIGH", ScheduledWorkitemCodeSequence=[but(Dataset(), CodeValue="lung-ct")]) == 0x0000
    later = asked(peer, ScheduledProcedureStepPriority="HIGH")
    brain = asked(peer, ScheduledProcedureStepPriority="HIGH", ScheduledWorkitemCodeSequence=[code("brain-mr")])
    assert watcher.waits_for(later, 1) == [(1, "SCHEDULED")]
    assert watcher.waits_for(high, 1) == [(1, "SCHEDULED")]
    assert eventually(lambda: not node.store.subscriptions.to_compare())
    assert {of for of, kind, _ in watcher.told if kind != 4} == {high, later}
    for uid in (low, brain, later):
        assert peer.become("IN PROGRESS", transaction(), uid) == 0x0000
    assert watcher.waits_for(later, 2)[1] == (1, "IN PROGRESS")
    assert watcher.of(low) == watcher.of(brain) == []


def test_who_watches_no_more_is_told_no_more(node: Stepping, peer: Peer) -> None:
    """PS3.4 CC.2.3: one step; and the worklist, which is every step."""
    watcher, one, other = node.listen(), asked(peer), asked(peer)
    for uid in (one, other):
        peer.watch(uid)
    watcher.waits_for(other, 1)
    assert peer.watch(one, action=UNSUBSCRIBE) == 0x0000
    peer.become("IN PROGRESS", transaction(), one)
    peer.become("IN PROGRESS", transaction(), other)
    assert watcher.waits_for(other, 2)[1] == (1, "IN PROGRESS")
    assert watcher.of(one) == [(1, "SCHEDULED")]
    assert peer.watch(ALL, action=UNSUBSCRIBE) == 0x0000
    assert node.store.subscriptions.list(receiver="WATCHER") == ()


def test_a_suspended_worklist_goes_on_with_what_it_has(node: Stepping, peer: Peer) -> None:
    """PS3.4 CC.2.3: no new step; those that are watched go on."""
    watcher = node.listen()
    peer.watch(ALL)
    old = asked(peer)
    assert peer.watch(ALL, action=SUSPEND) == 0x0000
    new = asked(peer)
    peer.become("IN PROGRESS", transaction(), old)
    assert watcher.waits_for(old, 2) == [(1, "SCHEDULED"), (1, "IN PROGRESS")]
    assert watcher.of(new) == []


# -------------------------------------------------------------------------------------------------------- what is refused


def test_a_subscription_that_cannot_be_is_refused(node: Stepping, peer: Peer) -> None:
    """PS3.4 CC.2.3.3: C307 no such step, C308 an unknown receiver, C314 a suspension of one step; PS3.7: 0120, 0121, 0106."""
    uid = asked(peer)
    assert peer.watch(transaction()) == 0xC307
    assert peer.watch(uid, "STRANGER") == 0xC308
    assert peer.watch(ALL, "STRANGER") == 0xC308
    assert peer.watch(ALL, "REQUESTER") == 0xC308  # which this node knows, and which may not watch
    assert peer.watch(uid, action=SUSPEND) == 0xC314
    assert peer.watch(uid, "") == 0x0120
    assert peer.watch(uid, lock=None) == 0x0120
    assert peer.watch(uid, lock="MAYBE") == 0x0106
    assert peer.watch(FILTERED) == 0x0120
    assert peer.watch(transaction(), action=UNSUBSCRIBE) == 0xC307
    assert node.store.subscriptions.list() == ()


# -------------------------------------------------------------------------------------- nobody waits for a slow or dead watcher


def test_a_slow_and_a_dead_watcher_keep_nobody_waiting(tmp_path: Path) -> None:
    """R2.8: neither a change of state, nor another watcher."""
    with stepping(tmp_path / "storage", watchers=("WATCHER", "SLOW", "DEAD")) as node, node.peer() as peer:
        quick, slow = node.listen(), node.listen("SLOW")
        slow.slow_s = 3.0
        node.report()
        uid, mine = asked(peer), transaction()
        for receiver in ("SLOW", "DEAD", "WATCHER"):
            assert peer.watch(uid, receiver) == 0x0000
        assert eventually(lambda: node.reporting is not None and "SLOW" in node.reporting._under_way)
        peer.become("IN PROGRESS", mine, uid)
        peer.set(finishing("COMPLETED", mine), uid)
        assert peer.become("COMPLETED", mine, uid) == 0x0000
        assert quick.waits_for(uid, 3)[-1] == (1, "COMPLETED")
        assert len(slow.of(uid)) < 3, "the slow one is still being told"
        assert [kind for of, kind in waiting(node, "DEAD") if of == uid] == [1, 1, 1]
        slow.slow_s = 0.0
        revived = node.listen("DEAD")
        node.now += 10  # it is tried again
        assert revived.waits_for(uid, 3) == slow.waits_for(uid, 3) == [(1, "SCHEDULED"), (1, "IN PROGRESS"), (1, "COMPLETED")]


def test_many_slow_watchers_take_turns_with_a_quick_one(tmp_path: Path, monkeypatch) -> None:
    """R2.8: eight are told at once; one that has been told for a while lets another go first."""
    monkeypatch.setattr(ups_reporting, "_TURN_S", 0.2)
    slow = tuple(f"SLOW{number}" for number in range(8))
    with stepping(tmp_path / "storage", watchers=("WATCHER", *slow)) as node:
        for title in slow:
            node.listen(title).slow_s = 0.3
        quick = node.listen()
        uids = [node.manager.create(step(), requester="TEST")[0] for _ in range(20)]
        for receiver in slow:
            for uid in uids:
                node.manager.subscribe(uid, receiver, channel=Channel.DIMSE)
        node.report()
        assert eventually(lambda: all(node.watchers[title].told for title in slow))
        node.manager.subscribe(uids[0], "WATCHER", channel=Channel.DIMSE)
        assert quick.waits_for(uids[0], 1) == [(1, "SCHEDULED")]
        assert all(len(node.watchers[title].told) < len(uids) for title in slow)
        for title in slow:
            node.watchers[title].slow_s = 0.0


def test_a_watcher_that_refuses_a_report_hears_the_next(node: Stepping, peer: Peer) -> None:
    """R2.8: best effort; a report that was answered was delivered."""
    watcher, uid = node.listen(), asked(peer)
    watcher.status = 0x0110
    peer.watch(uid)
    peer.become("IN PROGRESS", transaction(), uid)
    assert watcher.waits_for(uid, 2) == [(1, "SCHEDULED"), (1, "IN PROGRESS")]
    assert eventually(lambda: waiting(node) == [])


# ------------------------------------------------------------------------------------------------------------- a restart


def test_subscriptions_and_what_waits_survive_a_restart(node: Stepping) -> None:
    """R2.9: who watches is told that the node began anew, with its lists as they were; and what it had not heard."""
    with node.peer() as peer:
        uid = asked(peer)
        peer.watch(uid)
    node.end()
    node.begin()
    watcher = node.listen()
    node.report()
    assert watcher.waits_for(ALL, 1) == [(4, "RESTARTED")]
    said = next(said for _, kind, said in watcher.told if kind == 4)
    assert (said.SubscriptionListStatus, said.UnifiedProcedureStepListStatus) == ("WARM START", "WARM START")
    with node.peer() as peer:
        peer.become("IN PROGRESS", transaction(), uid)
    assert watcher.waits_for(uid, 2) == [(1, "SCHEDULED"), (1, "IN PROGRESS")]


def test_a_watcher_that_was_away_for_days_hears_that_its_list_is_not_whole(node: Stepping, peer: Peer) -> None:
    """PS3.4 Table CC.2.4-1: what was dropped is told of by COLD START, and a restart does not make that forgotten."""
    uid = asked(peer)
    peer.watch(uid)
    assert eventually(lambda: waiting(node) == [(uid, 1)])
    assert node.store.subscriptions.give_up(before=NOW + 1, now=NOW + DAY_S) == 1
    node.end()
    node.now += DAY_S
    node.begin()
    watcher = node.listen()
    node.report()
    assert watcher.waits_for(ALL, 1) == [(4, "RESTARTED")]
    assert watcher.told[0][2].UnifiedProcedureStepListStatus == "COLD START"


# ---------------------------------------------------------------------------------------------------- how long it is kept


def test_a_step_that_ended_is_kept_for_a_day_and_as_long_as_it_is_locked(node: Stepping, peer: Peer) -> None:
    """R2.5: IHE AIW-I 4.85.4.1.3 and PS3.4 CC.2.3.3."""
    free, locked, running = asked(peer), asked(peer), asked(peer)
    peer.watch(locked, lock="TRUE")
    for uid in (free, locked):
        assert peer.act(REQUEST_CANCEL, Dataset(), uid) == 0x0000
    retire(node.store, 0.0, NOW + DAY_S - 1)
    assert [peer.get(uid)[0] for uid in (free, locked, running)] == [0x0000] * 3
    retire(node.store, 0.0, NOW + DAY_S + 1)
    assert [peer.get(uid)[0] for uid in (free, locked, running)] == [0xC307, 0x0000, 0x0000]
    assert peer.watch(locked, action=UNSUBSCRIBE) == 0x0000
    retire(node.store, 0.0, NOW + DAY_S + 1)
    assert [peer.get(uid)[0] for uid in (locked, running)] == [0xC307, 0x0000]


def test_a_study_stays_while_somebody_locks_its_workitem(node: Stepping, peer: Peer) -> None:
    """R2.5, of a step that a job performs: it goes with its study."""
    job = finished(node.store, at=NOW)
    (item,) = node.store.workitems.of_job(job.id)
    for one in node.store.deliveries.claim("pacs", "s", now=NOW, lease_s=60):
        assert node.store.deliveries.sent(one, "s", now=NOW, status=0)
    assert peer.watch(item.uid, lock="TRUE") == 0x0000
    retire(node.store, 0.0, NOW + 2 * DAY_S)
    assert peer.get(item.uid)[0] == 0x0000
    assert peer.watch(item.uid, action=UNSUBSCRIBE) == 0x0000
    retire(node.store, 0.0, NOW + DAY_S - 1)
    assert peer.get(item.uid)[0] == 0x0000
    retire(node.store, 0.0, NOW + DAY_S + 1)
    assert peer.get(item.uid)[0] == 0xC307
