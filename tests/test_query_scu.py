"""What asking archives decides: what answers say, what becomes of a retrieval, when it is tried again and when it may be."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset

from dicom_node.query.answers import identifier_of, is_meant, likely_classes, number_of, printable, readable, texts_of_all
from dicom_node.query.outcomes import Next, Standing, may_fetch, outcome, series_to_ask, standing, wait_s
from dicom_node.query.retrieving import Fetched, _object_contexts
from dicom_node.query.scu import Contents
from dicom_node.query.suboperations import MAX_CONTEXTS
from dicom_node.store import Level

CT, SR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.88.34"
NAMED = Contents(number=4, instances={"1.1": "1", "1.2": "1", "2.1": "2", "2.2": "2"})


# --------------------------------------------------------------------------------------------------------------- answers


def test_a_question_is_asked_in_unicode_where_it_has_to_be() -> None:
    """PS3.4 C.4.1.1.3.1: the character set of the keys is told of."""
    plain = identifier_of(Level.STUDY, {"PatientID": "P1", "StudyDate": ""})
    assert (plain.QueryRetrieveLevel, plain.PatientID, plain.StudyDate, "SpecificCharacterSet" in plain) == ("STUDY", "P1", None, False)
    assert identifier_of(Level.STUDY, {"PatientName": "Müller*"}).SpecificCharacterSet == "ISO_IR 192"
    with pytest.raises(ValueError, match="no keyword"):
        identifier_of(Level.STUDY, {"Patient": ""})


def test_an_answer_is_read_in_its_own_character_set_without_what_cannot_be_read() -> None:
    """One attribute that is nonsense does not cost the others."""
    said = Dataset()
    said.SpecificCharacterSet = "ISO_IR 100"
    said.PatientName = "Müller^Änne"
    said.ModalitiesInStudy = ["CT", "SR"]
    said.StudyDate = None
    said.add_new(0x00201208, "IS", "12")
    said[0x00201208]._value = object()
    said.add_new(0x00091001, "LO", "private")
    said.ReferencedStudySequence = [Dataset()]
    answer = readable(said)
    assert answer["PatientName"] == "Müller^Änne" and answer["ModalitiesInStudy"] == ["CT", "SR"] and answer["StudyDate"] == ""
    assert "ReferencedStudySequence" not in answer and "private" not in answer.values()


@pytest.mark.parametrize(
    ("answer", "status", "meant"),
    [
        ({"StudyInstanceUID": "1.2", "PatientID": "P1", "StudyDate": "20240101"}, 0xFF00, True),
        ({"StudyInstanceUID": "1.2", "PatientID": "P1"}, 0xFF00, True),  # it does not say: it cannot be compared
        ({"StudyInstanceUID": "1.2", "PatientID": "P1", "StudyDate": "20230101"}, 0xFF00, False),
        ({"StudyInstanceUID": "1.2", "PatientID": "P1", "AccessionNumber": "A2"}, 0xFF00, False),
        ({"StudyInstanceUID": "1.2", "PatientID": "P1", "StudyID": ""}, 0xFF00, True),  # a required key: an empty value counts (C.2.2.1.2)
        ({"StudyInstanceUID": "1.2", "PatientID": "P1", "StudyDescription": ""}, 0xFF00, False),
        ({"StudyInstanceUID": "1.2", "PatientID": "P1", "StudyDescription": ""}, 0xFF01, True),  # not supported
        ({"StudyInstanceUID": "1.2", "PatientID": "P2"}, 0xFF00, False),
        ({"StudyInstanceUID": "1.2", "PatientID": ""}, 0xFF01, False),
        ({"StudyInstanceUID": "1.2"}, 0xFF00, False),
        ({"StudyInstanceUID": "no uid", "PatientID": "P1"}, 0xFF00, False),
        ({"StudyInstanceUID": ["1.2", "1.3"], "PatientID": "P1"}, 0xFF00, False),
        ({"PatientID": "P1"}, 0xFF00, False),
    ],
)
def test_an_answer_is_compared_with_the_question(answer: dict[str, object], status: int, meant: bool) -> None:
    """R3.2: never rely on optional keys."""
    asked = {"StudyInstanceUID": "", "PatientID": "P1", "StudyDate": "20240101-", "AccessionNumber": "A1", "StudyID": "7", "StudyDescription": "CH*"}
    assert is_meant(Level.STUDY, asked, answer, status) is meant


def test_numbers_are_only_believed_if_all_are_said() -> None:
    assert number_of([{"N": "3"}, {"N": "4"}], "N") == 7
    for said in ([], [{"N": "3"}, {}], [{"N": "3"}, {"N": "-1"}], [{"N": ["1", "2"]}], [{"N": "9" * 12}]):
        assert number_of(said, "N") is None


def test_several_values_are_one_after_the_other_and_each_once() -> None:
    assert texts_of_all([{"M": "CT\\SR"}, {"M": ["SR", "PR"]}, {"M": ""}, {}], "M") == ("CT", "SR", "PR")


def test_a_comment_is_one_printable_line() -> None:
    assert printable("one\ntwo\x07" + "x" * 99) == ("one two " + "x" * 99)[:64] and printable(None) == ""


# --------------------------------------------------------------------------------------------------------- what is proposed


@given(st.integers(0, 300))
def test_a_get_proposes_what_one_association_takes(number: int) -> None:
    """PS3.8 9.3.2.2: at most 128 presentation contexts, four of which are the information models'."""
    there = Contents(number=1, sop_classes=tuple(f"1.2.{one}" for one in range(number)))
    contexts = _object_contexts(there, MAX_CONTEXTS - 4)
    assert 0 < len(contexts) <= MAX_CONTEXTS - 4 and len(set(contexts)) == len(contexts)
    assert {"1.2.840.10008.1.2.1", "1.2.840.10008.1.2"} <= {syntax for _, syntax in contexts}


def test_classes_are_guessed_by_modality() -> None:
    assert CT in likely_classes(["CT"]) and SR in likely_classes(["CT"])
    assert CT not in likely_classes(["MR"]) and CT in likely_classes([]) and CT in likely_classes(["XX"])


# -------------------------------------------------------------------------------------------------------------- outcomes


def test_what_is_here_is_counted_by_name() -> None:
    """Else by number; more than there is counts as all of it."""
    part = standing(NAMED, frozenset({"1.1", "1.2", "2.1", "9.9"}), 0)
    assert (part.expected, part.held, part.missing_series, part.is_whole) == (4, 3, ("2",), False)
    assert series_to_ask(NAMED, part) == ("2",)
    assert series_to_ask(NAMED, standing(NAMED, frozenset(), 0)) == () == series_to_ask(NAMED, standing(NAMED, frozenset({"1.1", "2.1"}), 0))
    assert standing(NAMED, frozenset(NAMED.instances), 0).is_whole
    assert standing(Contents(number=3), frozenset(), 5) == Standing(expected=3, held=3)
    assert standing(Contents(number=None), frozenset(), 5) == Standing(expected=None, held=5)
    assert not Standing(expected=0, held=0).is_whole and not Standing(expected=None, held=9).is_whole


@pytest.mark.parametrize(
    ("status", "held", "next_"),
    [
        (0x0000, 4, Next.END),
        (0xB000, 4, Next.END),
        (0xA702, 4, Next.END),
        (0xA900, 4, Next.END),
        (None, 4, Next.END),
        (0x0000, 0, Next.AGAIN),
        (0x0000, 3, Next.AGAIN),
        (0xB000, 3, Next.AGAIN),
        (0xA701, 0, Next.AGAIN),
        (0xA702, 0, Next.AGAIN),
        (0xC123, 0, Next.AGAIN),
        (0x9999, 0, Next.AGAIN),
        (0xFE00, 2, Next.AGAIN),
        (None, 2, Next.AGAIN),
        (0xA801, 0, Next.SLOWLY),
        (0xA900, 0, Next.NEVER),
        (0x0122, 0, Next.NEVER),
        (0x0124, 0, Next.NEVER),
    ],
)
def test_what_is_here_decides_and_then_what_was_said(status: int | None, held: int, next_: Next) -> None:
    """PS3.4 Tables C.4-2 and C.4-3."""
    said = Fetched(status=status, why="it ended the association" if status is None else "")
    told = outcome(said, Standing(expected=4, held=held))
    assert told.next is next_
    assert next_ is Next.END or (said.why or f"{status:04X}") in told.why


def test_of_a_number_that_nobody_says_success_is_believed_if_something_came() -> None:
    """Nothing more can be known."""
    unknown = Standing(expected=None, held=5)
    assert outcome(Fetched(status=0, completed=5), unknown).next is Next.END
    assert outcome(Fetched(status=0, completed=0), unknown).next is Next.AGAIN
    assert outcome(Fetched(status=0, completed=5), Standing(expected=None, held=0)).next is Next.AGAIN


# ------------------------------------------------------------------------------------------------------------------ when


@given(st.integers(1, 10_000), st.integers())
def test_the_wait_doubles_up_to_its_most(attempt: int, key: int) -> None:
    """R3.6: with jitter, the same for the same retrieval."""
    whole = min(3600.0, 15.0 * 2.0 ** min(attempt - 1, 30))
    assert 0.75 * whole <= wait_s(attempt, 15.0, 3600.0, key) <= whole
    assert wait_s(attempt, 15.0, 3600.0, key) == wait_s(attempt, 15.0, 3600.0, key)


@pytest.mark.parametrize(
    ("hours", "clock", "may"),
    [
        ((), "12:00", True),
        (("19:00-06:30",), "18:59", False),
        (("19:00-06:30",), "19:00", True),
        (("19:00-06:30",), "00:00", True),
        (("19:00-06:30",), "06:29", True),
        (("19:00-06:30",), "06:30", False),
        (("12:00-13:00", "20:00-21:00"), "20:30", True),
        (("12:00-13:00", "20:00-21:00"), "13:00", False),
        (("00:00-00:00",), "12:00", True),
    ],
)
def test_the_node_fetches_by_itself_within_the_hours(hours: tuple[str, ...], clock: str, may: bool) -> None:
    """Local time; a span may go over midnight."""
    at = time.mktime(time.strptime(f"2026-01-15 {clock}", "%Y-%m-%d %H:%M"))
    assert may_fetch(hours, at) is may
