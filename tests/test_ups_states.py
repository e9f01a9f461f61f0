"""The states of a Unified Procedure Step: every cell of PS3.4 Table CC.1.1-2, written down again, and what may be set when (CC.2.6)."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.domain import JobState
from dicom_node.worklist.ups.states import TABLE, Effect, Wish, decide, may_be_set
from tests.workitems import ANSWERS, STATES, Cell, cells

MINE, THEIRS = "1.2.3", "1.2.4"
EFFECTS = {
    ("create", None): Effect.CREATE,
    ("IN PROGRESS", "SCHEDULED"): Effect.CLAIM,
    ("COMPLETED", "IN PROGRESS"): Effect.COMPLETE,
    ("CANCELED", "IN PROGRESS"): Effect.CANCEL,
    ("request cancel", "SCHEDULED"): Effect.CANCEL_UNCLAIMED,
    ("request cancel", "IN PROGRESS"): Effect.TELL_PERFORMER,
}
UIDS = st.sampled_from(["", MINE, THEIRS])


def state_of(name: str | None) -> JobState | None:
    return None if name is None else JobState(name)


@pytest.mark.parametrize("cell", cells(), ids=str)
def test_each_cell_of_the_table_is_what_the_standard_says(cell: Cell) -> None:
    """PS3.4 Table CC.1.1-2."""
    held = MINE if cell.state not in (None, "SCHEDULED") else ""
    given = {"right": MINE, "wrong": THEIRS, "absent": ""}[cell.given]
    outcome = decide(Wish(cell.wish), state_of(cell.state), given=given, held=held)
    assert outcome.status == cell.status
    assert outcome.effect is (EFFECTS[cell.wish, cell.state] if cell.status == 0 else Effect.NONE)


@pytest.mark.parametrize("wish", ["IN PROGRESS", "COMPLETED", "CANCELED"])
@pytest.mark.parametrize("state", ["COMPLETED", "CANCELED"])
def test_a_step_that_ended_unclaimed_has_no_wrong_transaction_uid(wish: str, state: str) -> None:
    """A step that was canceled before anybody claimed it: whoever gives a Transaction UID hears how it ended."""
    right = next(one.status for one in cells() if (one.wish, one.given, one.state) == (wish, "right", state))
    assert decide(Wish(wish), JobState(state), given=THEIRS, held="").status == right


@pytest.mark.parametrize(
    ("state", "given", "status"),
    [
        ("SCHEDULED", "", 0x0000),
        ("SCHEDULED", MINE, 0xC310),
        ("IN PROGRESS", MINE, 0x0000),
        ("IN PROGRESS", THEIRS, 0xC301),
        ("IN PROGRESS", "", 0xC301),
        ("COMPLETED", MINE, 0xC300),
        ("COMPLETED", THEIRS, 0xC300),
        ("COMPLETED", "", 0xC300),
        ("CANCELED", MINE, 0xC300),
        ("CANCELED", "", 0xC300),
    ],
)
def test_a_step_is_changed_without_a_claim_or_with_the_claims_uid(state: str, given: str, status: int) -> None:
    """PS3.4 CC.2.6.2: on SCHEDULED no Transaction UID, on IN PROGRESS the right one, and never once it has ended."""
    assert may_be_set(JobState(state), given=given, held="" if state == "SCHEDULED" else MINE) == status


@given(st.sampled_from(Wish), st.sampled_from(STATES), UIDS, UIDS)
def test_whatever_is_asked_has_one_answer_and_a_final_state_stays(wish: Wish, state: str | None, given: str, held: str) -> None:
    """No effect without success, no success without effect; nothing is done with a step that is not there, or has ended."""
    outcome = decide(wish, state_of(state), given=given, held=held)
    assert (outcome.status == 0) == (outcome.effect is not Effect.NONE)
    if state in ("COMPLETED", "CANCELED") or (state is None and wish is not Wish.CREATE):
        assert outcome.effect is Effect.NONE
    if state is not None:
        assert outcome.effect is not Effect.CREATE


@given(st.sampled_from(STATES), UIDS)
def test_whoever_does_not_know_the_claims_uid_changes_no_step_in_progress(state: str | None, given: str) -> None:
    """PS3.4 CC.1.1: the Transaction UID is the lock."""
    for wish in (Wish.CLAIM, Wish.UNDO, Wish.COMPLETE, Wish.CANCEL):
        outcome = decide(wish, state_of(state), given=given, held=THEIRS)
        assert given == THEIRS or outcome.effect is Effect.NONE


def test_the_table_has_a_row_for_each_event_and_a_cell_for_each_state() -> None:
    """No wish is forgotten."""
    assert {wish for wish, _ in TABLE} == set(Wish)
    assert all(set(row) == {state_of(one) for one in STATES} for row in TABLE.values())


def test_the_document_says_the_same() -> None:
    """docs/worklists.md, the table of states."""
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", (Path(__file__).parents[1] / "docs" / "worklists.md").read_text(), re.MULTILINE)
    said = {wish: tuple(int(cell.strip()[:4], 16) for cell in row.split("|")) for wish, row in rows if re.fullmatch(r"(C307|0000).*( \|.*){4}", row)}
    for (wish, which), answers in ANSWERS.items():
        uid = "right" if which == "right" else "wrong or none"
        first = {"create": "N-CREATE of this UID", "request cancel": "request to cancel", "SCHEDULED": "SCHEDULED"}.get(wish)
        row = next(
            row
            for name, row in said.items()
            if name == first or (not first and name.startswith(f"{wish}, ") and uid.startswith(name.split(", ")[1][:5]))
        )
        assert row == answers, (wish, which)
