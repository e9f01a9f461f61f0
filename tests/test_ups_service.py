"""Workitems over real associations, with pynetdicom as requester and performer (PS3.4 Annex CC)."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.config import disable_value_validation
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import _config

from tests.stepping import (
    ALL,
    CHANGE_STATE,
    PULL,
    PUSH,
    QUERY,
    REQUEST_CANCEL,
    SUBSCRIBE,
    SUSPEND,
    UNSUBSCRIBE,
    WATCH,
    Peer,
    Stepping,
    stepping,
)
from tests.workitems import STATES, Cell, becoming, but, cells, code, finishing, performed, progress, setting, step, transaction, unspoken

SOME = "1.2.3.4.5"


@pytest.fixture(scope="module")
def node(tmp_path_factory) -> Iterator[Stepping]:
    """One node for all, for each test makes steps of its own; a ledger of its own has only who needs it."""
    kept = _config.LOG_REQUEST_IDENTIFIERS, _config.LOG_RESPONSE_IDENTIFIERS
    with stepping(tmp_path_factory.mktemp("node") / "storage") as running:
        yield running
    _config.LOG_REQUEST_IDENTIFIERS, _config.LOG_RESPONSE_IDENTIFIERS = kept


@pytest.fixture
def peer(node) -> Iterator[Peer]:
    with node.peer() as one:
        yield one


@pytest.fixture
def fresh(tmp_path) -> Iterator[Stepping]:
    with stepping(tmp_path / "storage") as running:
        yield running


def arranged(peer: Peer, state: str | None) -> tuple[str, str]:
    """Bring a new step into a state; return its UID, and the Transaction UID that it was claimed with."""
    uid, mine = transaction(), transaction()
    if state is None:
        return uid, mine
    assert peer.create(step(), uid)[0] == 0x0000
    if state != "SCHEDULED":
        assert peer.become("IN PROGRESS", mine, uid) == 0x0000
    if state in ("COMPLETED", "CANCELED"):
        assert peer.set(finishing(state, mine), uid) == 0x0000
        assert peer.become(state, mine, uid) == 0x0000
    return uid, mine


def state_of(peer: Peer, uid: str) -> str | None:
    status, said = peer.get(uid)
    return None if status == 0xC307 else str(said.ProcedureStepState)


# ------------------------------------------------------------------------------------------------------------- the table


@pytest.mark.parametrize("cell", cells(), ids=str)
def test_each_cell_of_the_table_is_answered_as_the_standard_says(peer: Peer, cell: Cell) -> None:
    """PS3.4 Table CC.1.1-2, over DIMSE; a refusal leaves the step as it was."""
    uid, mine = arranged(peer, cell.state)
    if cell.state == "IN PROGRESS" and cell.status == 0 and cell.wish in ("COMPLETED", "CANCELED"):
        assert peer.set(finishing(cell.wish, mine), uid) == 0x0000
    given = {"right": mine, "wrong": transaction(), "absent": None}[cell.given]
    if cell.wish == "create":
        status = peer.create(step(), uid)[0]
    elif cell.wish == "request cancel":
        status = peer.act(REQUEST_CANCEL, Dataset(), uid)
    else:
        status = peer.become(cell.wish, given, uid)
    assert status == cell.status
    assert state_of(peer, uid) == cell.then


@pytest.mark.parametrize("to", ["COMPLETED", "CANCELED"])
def test_a_step_that_does_not_say_enough_does_not_end(peer: Peer, to: str) -> None:
    """PS3.4 CC.2.1.3: C304, and it stays in progress."""
    uid, mine = arranged(peer, "IN PROGRESS")
    assert peer.become(to, mine, uid) == 0xC304
    assert state_of(peer, uid) == "IN PROGRESS"


@pytest.mark.parametrize(
    "keyword",
    [
        *("PerformedStationNameCodeSequence", "PerformedProcedureStepStartDateTime", "PerformedWorkitemCodeSequence"),
        *("PerformedProcedureStepEndDateTime", "OutputInformationSequence"),
    ],
)
def test_each_thing_that_a_completed_step_must_say_is_missed(peer: Peer, keyword: str) -> None:
    """PS3.4 Table CC.2.5-3, column of the final state."""
    uid, mine = arranged(peer, "IN PROGRESS")
    assert peer.set(setting(mine, UnifiedProcedureStepPerformedProcedureSequence=[performed(**{keyword: None})]), uid) == 0x0000
    assert peer.become("COMPLETED", mine, uid) == 0xC304
    assert peer.set(finishing("COMPLETED", mine), uid) == 0x0000
    assert peer.become("COMPLETED", mine, uid) == 0x0000


def test_a_canceled_step_says_when_though_its_performer_did_not(peer: Peer) -> None:
    """Table CC.2.5-3: Procedure Step Cancellation DateTime is the manager's to fill in."""
    uid, _ = arranged(peer, "CANCELED")
    (item,) = peer.get(uid)[1].ProcedureStepProgressInformationSequence
    assert item.ProcedureStepCancellationDateTime.startswith("20270115")
    assert item.ProcedureStepDiscontinuationReasonCodeSequence[0].CodeValue == "110513"


def test_a_step_canceled_before_it_was_claimed_says_why(peer: Peer) -> None:
    """PS3.4 CC.2.2.3: the manager itself takes it through IN PROGRESS to CANCELED, with the reason that was given."""
    uid, _ = arranged(peer, "SCHEDULED")
    why = but(Dataset(), ReasonForCancellation="patient left", ProcedureStepDiscontinuationReasonCodeSequence=[code("110510", "DCM", "Duplicate")])
    assert peer.act(REQUEST_CANCEL, why, uid) == 0x0000
    (item,) = peer.get(uid)[1].ProcedureStepProgressInformationSequence
    assert (item.ReasonForCancellation, item.ProcedureStepDiscontinuationReasonCodeSequence[0].CodeValue) == ("patient left", "110510")
    assert item.ProcedureStepCancellationDateTime


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (becoming(None, "1.2.3"), 0x0120),
        (becoming("", "1.2.3"), 0x0121),
        (becoming("DONE", "1.2.3"), 0x0106),
        (but(Dataset(), ProcedureStepState="IN PROGRESS", TransactionUID=["1.2", "1.3"]), 0x0106),
    ],
)
def test_an_action_that_says_too_little_changes_nothing(peer: Peer, said: Dataset, status: int) -> None:
    """PS3.4 Table CC.2.1-1 and PS3.7 10.1.4.1.10."""
    uid, _ = arranged(peer, "SCHEDULED")
    assert peer.act(CHANGE_STATE, said, uid) == status
    assert state_of(peer, uid) == "SCHEDULED"


def test_a_wish_to_cancel_whose_reason_is_no_sequence_is_refused(peer: Peer) -> None:
    """0106, a value of another kind; the step stays."""
    uid, _ = arranged(peer, "SCHEDULED")
    why = Dataset()
    why.add_new("ProcedureStepDiscontinuationReasonCodeSequence", "LO", "a text")
    assert {context.transfer_syntax[0] for context in peer.association.accepted_contexts} == {ExplicitVRLittleEndian}
    assert peer.act(REQUEST_CANCEL, why, uid) == 0x0106
    assert state_of(peer, uid) == "SCHEDULED"


# -------------------------------------------------------------------------------------------------------------- creation


def test_a_step_whose_uid_is_left_to_the_manager_is_named_in_the_answer(peer: Peer) -> None:
    """PS3.7 10.1.5.1.4: the answer has the UID; also where something was filled in (B300)."""
    for said, expected in ((step(), 0x0000), (step(AdmissionID=None), 0xB300)):
        status, answer = peer.create(said, None)
        assert status == expected
        assert peer.get(str(answer.AffectedSOPInstanceUID))[0] == 0x0000


def test_what_was_filled_in_is_told_by_a_warning(peer: Peer) -> None:
    """PS3.4 CC.2.5.4: B300."""
    uid = transaction()
    assert peer.create(step(WorklistLabel=None), uid)[0] == 0xB300
    assert peer.get(uid)[1].WorklistLabel == "AI"


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (step(ProcedureStepState="IN PROGRESS"), 0xC309),
        (step(ScheduledProcedureStepPriority=None), 0x0120),
        (step(ProcedureStepLabel=""), 0x0121),
        (step(TransactionUID="1.2.3"), 0x0106),
    ],
)
def test_a_step_that_is_refused_is_not_there(peer: Peer, said: Dataset, status: int) -> None:
    """PS3.4 CC.2.5.3."""
    uid = transaction()
    assert peer.create(said, uid)[0] == status
    assert peer.get(uid)[0] == 0xC307


def test_a_second_of_the_same_uid_leaves_the_first_as_it_is(peer: Peer) -> None:
    """0111, and the first one's label stays."""
    uid, _ = arranged(peer, "SCHEDULED")
    assert peer.create(step(ProcedureStepLabel="Other"), uid)[0] == 0x0111
    assert peer.get(uid)[1].ProcedureStepLabel == "Lungs"


# ---------------------------------------------------------------------------------------------------------------- change


def test_a_step_is_changed_by_whoever_may(peer: Peer) -> None:
    """PS3.4 CC.2.6.2."""
    uid, _ = arranged(peer, "SCHEDULED")
    mine = transaction()
    more = {"CommentsOnTheScheduledProcedureStep": "soon", "ScheduledProcedureStepPriority": "HIGH"}
    assert peer.set(setting(mine, **more), uid) == 0xC310
    assert peer.set(setting(None, **more), uid) == 0x0000
    assert peer.become("IN PROGRESS", mine, uid) == 0x0000
    assert peer.set(setting(None, ProcedureStepLabel="x"), uid) == 0xC301
    assert peer.set(setting(transaction(), ProcedureStepLabel="x"), uid) == 0xC301
    assert peer.set(setting(mine, ProcedureStepProgressInformationSequence=[progress()]), uid) == 0x0000
    assert peer.set(setting(mine, ProcedureStepState="COMPLETED"), uid) == 0x0106
    said = peer.get(uid)[1]
    assert (said.CommentsOnTheScheduledProcedureStep, said.ScheduledProcedureStepPriority, said.ProcedureStepLabel) == ("soon", "HIGH", "Lungs")
    assert said.ProcedureStepProgressInformationSequence[0].ProcedureStepProgress == 50
    for state in ("COMPLETED", "CANCELED"):
        ended, claim = arranged(peer, state)
        assert peer.set(setting(claim, ProcedureStepLabel="x"), ended) == 0xC300
    assert peer.set(setting(None, ProcedureStepLabel="x"), transaction()) == 0xC307


def test_a_change_is_made_whole_or_not_at_all(peer: Peer) -> None:
    """PS3.4 CC.2.6: atomic."""
    uid, _ = arranged(peer, "SCHEDULED")
    assert peer.set(setting(None, ProcedureStepLabel="x", ScheduledProcedureStepPriority="URGENT"), uid) == 0x0106
    assert peer.get(uid)[1].ProcedureStepLabel == "Lungs"


# ------------------------------------------------------------------------------------------------- contexts, classes, rights

LEGAL = {
    CHANGE_STATE: {PULL},
    REQUEST_CANCEL: {PUSH, WATCH},
    SUBSCRIBE: {WATCH},
    UNSUBSCRIBE: {WATCH},
    SUSPEND: {WATCH},
    6: set[str](),
    0x7FFF: set[str](),
}


@pytest.mark.parametrize("action", LEGAL)
@pytest.mark.parametrize("by", [PUSH, WATCH, PULL, QUERY])
def test_an_action_is_done_only_on_a_context_that_has_it(peer: Peer, action: int, by: str) -> None:
    """PS3.4 Tables CC.2-1 to CC.2-5; what the context has not is no such action (0123), else a watcher could claim."""
    uid, _ = arranged(peer, "SCHEDULED")
    said = but(Dataset(), ProcedureStepState="IN PROGRESS", TransactionUID=transaction(), ReceivingAE="WATCHER", DeletionLock="FALSE")
    status = peer.act(action, said, ALL if action == SUSPEND else uid, by=by)
    assert status == (0x0000 if by in LEGAL[action] else 0x0123)
    legal = {CHANGE_STATE: "IN PROGRESS", REQUEST_CANCEL: "CANCELED"}
    assert state_of(peer, uid) == (legal.get(action, "SCHEDULED") if by in LEGAL[action] else "SCHEDULED")


def test_the_first_accepted_context_is_not_the_one_that_counts(node: Stepping) -> None:
    """Pynetdicom sends an action of UPS Push by whatever context it finds first, unless it is told."""
    with node.peer(contexts=[QUERY, WATCH, PULL, PUSH]) as peer:
        uid = transaction()
        assert peer.create(step(), uid)[0] == 0x0000
        answer, _ = peer.association.send_n_action(becoming("IN PROGRESS", transaction()), CHANGE_STATE, PUSH, uid)
        assert answer.Status in (0x0000, 0x0123)
        assert (state_of(peer, uid) == "SCHEDULED") == (answer.Status == 0x0123)


def test_a_service_that_a_class_has_not_is_an_unrecognised_operation(peer: Peer) -> None:
    """PS3.4 Tables CC.2-1 to CC.2-5 and PS3.7 C.5.22: 0211; N-CREATE is Push's, N-SET Pull's, N-GET all but Query's."""
    uid, _ = arranged(peer, "SCHEDULED")
    for by in (WATCH, PULL, QUERY):
        assert peer.create(step(), transaction(), by=by)[0] == 0x0211
    for by in (PUSH, WATCH, QUERY):
        assert peer.set(setting(None, ProcedureStepLabel="x"), uid, by=by) == 0x0211
    assert [peer.get(uid, by=by)[0] for by in (PUSH, WATCH, PULL, QUERY)] == [0x0000, 0x0000, 0x0000, 0x0211]
    assert peer.get(uid)[1].ProcedureStepLabel == "Lungs"


@pytest.mark.parametrize("to", [WATCH, PULL, QUERY])
def test_every_step_is_of_the_class_push(peer: Peer, to: str) -> None:
    """PS3.4 CC.3.1: whatever context it comes by; 0118, no such class."""
    uid, _ = arranged(peer, "SCHEDULED")
    assert peer.create(step(), transaction(), to=to)[0] == 0x0118
    assert peer.set(setting(None, ProcedureStepLabel="x"), uid, to=to) == 0x0118
    assert peer.get(uid, to=to)[0] == 0x0118
    assert peer.act(CHANGE_STATE, becoming("IN PROGRESS", transaction()), uid, to=to) == 0x0118


@pytest.mark.parametrize("title", ["REQUESTER", "PERFORMER", "WATCHER", "NOBODY"])
def test_who_may_not_is_told_so(node: Stepping, peer: Peer, title: str) -> None:
    """PS3.7 10.1.4.1.10: 0124, not authorised."""
    uid, _ = arranged(peer, "SCHEDULED")
    no = 0x0124
    with node.peer(title) as one:
        reads = title in ("REQUESTER", "PERFORMER", "WATCHER")
        assert one.create(step(), transaction())[0] == (0x0000 if title == "REQUESTER" else no)
        assert one.get(uid)[0] == (0x0000 if reads else no)
        assert one.set(setting(None, ProcedureStepLabel="x"), uid) == (0x0000 if title == "PERFORMER" else no)
        assert one.watch(uid) == (0x0000 if title == "WATCHER" else no)
        assert one.watch(uid, action=UNSUBSCRIBE) == (0x0000 if title == "WATCHER" else no)
        assert one.watch(ALL, action=SUSPEND) == (0x0000 if title == "WATCHER" else no)
        found, statuses = one.find(but(Dataset(), SOPInstanceUID=uid))
        assert (len(found), statuses[-1]) == ((1, 0x0000) if reads else (0, 0xC001))
        assert one.become("IN PROGRESS", transaction(), uid) == (0x0000 if title == "PERFORMER" else no)
        may_ask = title in ("REQUESTER", "WATCHER")
        assert one.act(REQUEST_CANCEL, Dataset(), uid) == (0x0000 if may_ask else no)


# ---------------------------------------------------------------------------------------------------------------- reading


def test_some_attributes_are_read(peer: Peer) -> None:
    """PS3.4 CC.2.7; those that are asked for, and no other; a Transaction UID never."""
    uid, _ = arranged(peer, "IN PROGRESS")
    status, said = peer.get(uid, ["ProcedureStepState", "PatientID", "TransactionUID", "InputInformationSequence"])
    assert status == 0x0000
    assert {element.keyword for element in said} <= {"SpecificCharacterSet", "ProcedureStepState", "PatientID", "InputInformationSequence"}
    assert (said.ProcedureStepState, said.PatientID, len(said.InputInformationSequence)) == ("IN PROGRESS", "P1", 1)
    assert "TransactionUID" not in peer.get(uid)[1]
    status, said = peer.get(uid, ["TransactionUID"])
    assert (status, [element.keyword for element in said if element.keyword != "SpecificCharacterSet"]) == (0x0000, [])


def test_a_transaction_uid_within_a_sequence_is_told_to_nobody(peer: Peer) -> None:
    """PS3.4 CC.2.7, at any depth: neither read, nor searched for."""
    secret, uid = transaction(), transaction()
    peer.secrets.add(secret)
    hides = but(code("A"), TransactionUID=secret)
    assert peer.create(step(ScheduledStationNameCodeSequence=[hides]), uid)[0] == 0x0000
    assert peer.get(uid)[1].ScheduledStationNameCodeSequence[0].CodeValue == "A"
    assert peer.get(uid, ["ScheduledStationNameCodeSequence"])[0] == 0x0000
    for guess in (secret, transaction()):
        keys = but(Dataset(), SOPInstanceUID=uid, ScheduledStationNameCodeSequence=[but(Dataset(), TransactionUID=guess)])
        assert len(peer.find(keys)[0]) == 1


# --------------------------------------------------------------------------------------------------------------- searching


def some(node: Stepping) -> dict[str, str]:
    """Make a worklist to search; return UIDs by their names."""
    uids = {name: transaction() for name in ("lung", "brain", "done")}
    with node.peer() as peer:
        station = [code("GPU-1")]
        assert peer.create(step(ScheduledStationNameCodeSequence=station), uids["lung"])[0] == 0x0000
        brain = step(
            **{"ScheduledWorkitemCodeSequence": [code("brain-mr")], "PatientID": "P2", "PatientName": "Müller^Jürg", "WorklistLabel": "NEURO"},
            **{
                "ScheduledProcedureStepPriority": "HIGH",
                "ScheduledProcedureStepStartDateTime": "20260111101500",
                "InputReadinessState": "INCOMPLETE",
            },
        )
        assert peer.create(brain, uids["brain"])[0] == 0x0000
        assert peer.create(step(PatientID="P3"), uids["done"])[0] == 0x0000
        mine = transaction()
        assert peer.become("IN PROGRESS", mine, uids["done"]) == 0x0000
        assert peer.set(finishing("COMPLETED", mine), uids["done"]) == 0x0000
        assert peer.become("COMPLETED", mine, uids["done"]) == 0x0000
    return uids


@pytest.fixture(scope="module")
def worklist(tmp_path_factory) -> Iterator[tuple[Stepping, dict[str, str]]]:
    with stepping(tmp_path_factory.mktemp("worklist") / "storage") as running:
        yield running, some(running)


def asks(**keys: Any) -> Dataset:
    return but(Dataset(), **{"SpecificCharacterSet": "ISO_IR 192", "SOPInstanceUID": ""} | keys)


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        ({}, {"lung", "brain", "done"}),
        ({"ProcedureStepState": "SCHEDULED"}, {"lung", "brain"}),
        ({"ProcedureStepState": "COMPLETED"}, {"done"}),
        ({"ProcedureStepState": ["SCHEDULED", "IN PROGRESS"]}, {"lung", "brain"}),
        ({"ProcedureStepState": "CANCELED"}, set()),
        ({"ScheduledProcedureStepPriority": "HIGH"}, {"brain"}),
        ({"InputReadinessState": "READY"}, {"lung", "done"}),
        ({"WorklistLabel": "NEURO"}, {"brain"}),
        ({"WorklistLabel": "NEU*"}, {"brain"}),
        ({"PatientID": "P1"}, {"lung"}),
        ({"PatientID": "P?"}, {"lung", "brain", "done"}),
        ({"PatientName": "Müller*"}, {"brain"}),
        ({"ScheduledWorkitemCodeSequence": [but(Dataset(), CodeValue="brain-mr")]}, {"brain"}),
        ({"ScheduledWorkitemCodeSequence": [but(Dataset(), CodeValue="brain-mr", CodingSchemeDesignator="DCM")]}, set()),
        ({"ScheduledWorkitemCodeSequence": [but(Dataset(), CodeValue="")]}, {"lung", "brain", "done"}),
        ({"ScheduledStationNameCodeSequence": [but(Dataset(), CodeValue="GPU-1")]}, {"lung"}),
        ({"ScheduledProcedureStepStartDateTime": "20260110-20260110"}, {"lung", "done"}),
        ({"ScheduledProcedureStepStartDateTime": "20260111-"}, {"brain"}),
        ({"ScheduledProcedureStepStartDateTime": "-20260109"}, set()),
        ({"InputInformationSequence": [but(Dataset(), StudyInstanceUID="1.2.3")]}, {"lung", "brain", "done"}),
        ({"InputInformationSequence": [but(Dataset(), StudyInstanceUID="1.2.99")]}, set()),
        ({"TransactionUID": "1.2.3"}, {"lung", "brain", "done"}),
        ({"ProcedureStepState": "SCHEDULED", "PatientID": "P3"}, set()),
    ],
)
def test_the_worklist_is_searched_by_each_key(worklist: tuple[Stepping, dict[str, str]], keys: dict[str, Any], names: set[str]) -> None:
    """PS3.4 CC.2.8: single values, lists of UIDs, wildcards, ranges and sequences; the Transaction UID is not compared."""
    node, uids = worklist
    with node.peer() as peer:
        found, statuses = peer.find(asks(**keys))
    assert {one.SOPInstanceUID for one in found} == {uids[name] for name in names}
    assert statuses == [0xFF01 if "TransactionUID" in keys else 0xFF00] * len(names) + [0x0000]


@pytest.mark.parametrize("by", [WATCH, PULL, QUERY])
def test_a_search_goes_by_three_classes(worklist: tuple[Stepping, dict[str, str]], by: str) -> None:
    """PS3.4 Tables CC.2-2, CC.2-3, CC.2-5."""
    node, _ = worklist
    with node.peer() as peer:
        assert len(peer.find(asks(), by=by)[0]) == 3


def test_a_search_by_a_class_without_one_is_refused(worklist: tuple[Stepping, dict[str, str]]) -> None:
    """PS3.4 Table CC.2-1: Push has no C-FIND."""
    node, _ = worklist
    with node.peer() as peer:
        assert peer.find(asks(), by=PUSH) == ([], [0xA900])


def test_a_search_without_a_key_finds_nothing(worklist: tuple[Stepping, dict[str, str]]) -> None:
    """PS3.4 CC.2.8.3.1."""
    node, _ = worklist
    with node.peer() as peer:
        assert peer.find(but(Dataset(), SpecificCharacterSet="ISO_IR 100")) == ([], [0x0000])


def test_every_key_is_answered(worklist: tuple[Stepping, dict[str, str]]) -> None:
    """PS3.4 C.2.2: empty where nothing is known; names in their own characters; and nothing that was not asked for."""
    node, uids = worklist
    keys = asks(SOPInstanceUID=uids["brain"], PatientName="", AdmissionID="", ScheduledWorkitemCodeSequence=[], ProcedureStepState="")
    with node.peer() as peer:
        ((one,), statuses) = peer.find(keys)
    assert statuses == [0xFF00, 0x0000]
    assert (str(one.PatientName), one.AdmissionID or "", one.ProcedureStepState) == ("Müller^Jürg", "", "SCHEDULED")
    assert one.ScheduledWorkitemCodeSequence[0].CodeValue == "brain-mr"
    assert {element.keyword for element in one} == {element.keyword for element in keys}


def test_a_search_of_more_than_is_taken_is_refused(worklist: tuple[Stepping, dict[str, str]]) -> None:
    """PS3.4 Table CC.2.8-4: A700; and the association goes on."""
    node, _ = worklist
    keys = asks(ReferencedRequestSequence=[but(Dataset(), RequestedProcedureComments="x" * 10_000) for _ in range(500)])
    with node.peer() as peer:
        assert peer.find(keys) == ([], [0xA700])
        assert len(peer.find(asks())[0]) == 3


def test_a_search_is_canceled(worklist: tuple[Stepping, dict[str, str]]) -> None:
    """PS3.4 CC.2.8.4: FE00."""
    node, _ = worklist
    with node.peer() as peer:
        answers = peer.association.send_c_find(asks(), QUERY, msg_id=7)
        statuses = [int(next(answers)[0].Status)]
        peer.association.send_c_cancel(7, query_model=QUERY)
        statuses += [int(status.Status) for status, _ in answers]
    assert statuses[-1] in (0xFE00, 0x0000)  # it may have been quicker
    assert set(statuses[:-1]) == {0xFF00}


def test_a_long_search_is_canceled_before_its_end(fresh: Stepping, monkeypatch) -> None:
    """PS3.4 CC.2.8.4: FE00, and not all of the answers; the ledger takes its time."""
    find = fresh.manager.find

    def slowly(keys: Dataset) -> Iterator[Any]:
        for answer in find(keys):
            time.sleep(0.05)
            yield answer

    monkeypatch.setattr(fresh.manager, "find", slowly)
    for number in range(60):
        fresh.manager.create(step(ProcedureStepLabel=f"{number}"), requester="TEST")
    with fresh.peer() as peer:
        answers = peer.association.send_c_find(asks(InputInformationSequence=[]), QUERY, msg_id=7)
        next(answers)
        peer.association.send_c_cancel(7, query_model=QUERY)
        statuses = [int(status.Status) for status, _ in answers]
    assert statuses[-1] == 0xFE00
    assert len(statuses) < 60


# ------------------------------------------------------------------------------------------------------------ what anybody may send


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientID", "P\0Q"),
        ("ProcedureStepLabel", "L\0bel"),
        ("CommentsOnTheScheduledProcedureStep", "x" * 200_000),
        ("SelectorFDValue", float("nan")),
        ("SelectorFDValue", float("inf")),
        ("SpecificCharacterSet", "ISO_IR 9999"),
        ("PatientName", "a=b=c=d=e^f^g^h^i^j^k"),
        ("StudyInstanceUID", "no uid"),
    ],
)
def test_what_can_be_created_can_be_read_and_searched(fresh: Stepping, keyword: str, value: Any) -> None:
    """One odd step stops no search; refused, it is refused by a status."""
    uid = transaction()
    with disable_value_validation():
        said = but(step(), **{keyword: value})
    with fresh.peer() as peer:
        status, _ = peer.create(said, uid)
        assert status in (0x0000, 0x0106, 0x0120, 0x0121)
        assert peer.get(uid)[0] == (0x0000 if status == 0 else 0xC307)
        found, statuses = peer.find(
            asks(**{"PatientID": "", "ProcedureStepLabel": "", "PatientName": ""} | ({keyword: ""} if keyword.startswith("Comm") else {}))
        )
        assert (len(found), statuses[-1]) == (1 if status == 0 else 0, 0x0000)


def test_no_answer_of_these_tests_had_a_transaction_uid(node: Stepping) -> None:
    """Each was searched as it came; and there was something to search for."""
    assert len(node.secrets - {""}) > 20
    with node.peer() as peer:
        for state in STATES[1:]:
            uid, _ = arranged(peer, state)
            unspoken([peer.get(uid)[1]], node.secrets)
