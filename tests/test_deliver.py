"""What delivering decides: what to propose, what an answer means, when to try again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.deliver.decisions import (
    MAX_CONTEXTS,
    Verdict,
    answer,
    backoff_s,
    choose,
    contexts,
    not_accepted,
    printable,
    shares,
    verdict,
)
from dicom_node.domain import Delivery, Result
from dicom_node.wire.peer import patience_s, rejection

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
SR = "1.2.840.10008.5.1.4.1.1.88.34"
IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
JPEG_2000 = "1.2.840.10008.1.2.4.90"
DAY_S = 86400.0


def result(sop_class_uid: str = SEG, transfer_syntax_uid: str = EXPLICIT) -> Result:
    return Result(
        job_id=1,
        kind="SEG",
        sop_class_uid=sop_class_uid,
        sop_instance_uid="2.25.1",
        series_instance_uid="2.25.2",
        study_instance_uid="2.25.3",
        path="results/one.dcm",
        digest="0" * 64,
        transfer_syntax_uid=transfer_syntax_uid,
    )


def delivery(key: int, sop_class_uid: str = SEG, transfer_syntax_uid: str = EXPLICIT) -> Delivery:
    return Delivery(id=key, result=result(sop_class_uid, transfer_syntax_uid), destination="pacs")


# ---------------------------------------------------------------------------------------------------------------- when


def test_the_wait_doubles_from_seconds_to_a_day_and_stays_there() -> None:
    """Each wait lies between three quarters of its doubling and the whole of it."""
    for attempt in range(1, 40):
        whole = min(DAY_S, 5.0 * 2 ** (attempt - 1))
        assert 0.75 * whole <= backoff_s(attempt, 5.0, DAY_S, 17) <= whole


def test_a_huge_number_of_attempts_does_not_overflow() -> None:
    """A delivery that was refused for years still has a next time."""
    assert 0.75 * DAY_S <= backoff_s(10**9, 5.0, DAY_S, 1) <= DAY_S


@given(key=st.integers(0, 2**40), attempt=st.integers(-3, 200))
def test_the_wait_of_a_delivery_can_be_foretold(key: int, attempt: int) -> None:
    """The jitter is derived from the delivery and the attempt, not rolled; it never makes the wait longer than the configured longest."""
    once, again = (backoff_s(attempt, 0.5, 60.0, key) for _ in range(2))
    assert once == again
    assert 0.0 < once <= 60.0


def test_a_herd_of_deliveries_spreads() -> None:
    """A hundred deliveries that failed at one moment do not come back at one moment."""
    waits = sorted(backoff_s(8, 5.0, DAY_S, key) for key in range(100))
    assert len(set(waits)) == 100
    assert waits[-1] - waits[0] > 0.2 * waits[-1]


def test_a_large_object_gets_the_time_that_a_slow_line_needs() -> None:
    """The time-out of a peer counts from when the bytes can have arrived: 100 MB take 800 s at 1 Mbit/s."""
    assert patience_s(0, 60.0) == 60.0
    assert patience_s(100_000_000, 60.0) == 860.0


# ------------------------------------------------------------------------------------------------------ what to propose


def test_an_uncompressed_result_is_offered_as_it_is_and_in_the_default_transfer_syntax() -> None:
    """PS3.5 10.1: the default transfer syntax is offered for each abstract syntax; in a context of its own, so that both can be accepted."""
    assert contexts(result(SEG, EXPLICIT)) == ((SEG, EXPLICIT), (SEG, IMPLICIT))
    assert contexts(result(SEG, DEFLATED)) == ((SEG, DEFLATED), (SEG, IMPLICIT))


def test_a_destination_that_wants_it_deflated_is_offered_that_first_and_all_the_same_the_rest() -> None:
    """PS3.5 A.5: what is accepted of it decides; a destination that was not asked about it never gets it."""
    assert contexts(result(), deflate=True) == ((SEG, DEFLATED), (SEG, EXPLICIT), (SEG, IMPLICIT))
    assert contexts(result(SEG, DEFLATED), deflate=True) == ((SEG, DEFLATED), (SEG, IMPLICIT))
    assert contexts(result(SEG, JPEG_2000), deflate=True) == ((SEG, JPEG_2000),)
    (only,) = shares([delivery(1)], deflate=True)
    assert choose(result(), only.contexts) == DEFLATED
    assert choose(result(), only.contexts[1:]) == EXPLICIT
    said = not_accepted("pacs", result(), dict.fromkeys(only.contexts, 4))
    assert "not in Deflated Explicit VR Little Endian nor in Explicit VR Little Endian nor in Implicit VR Little Endian;" in said


@pytest.mark.parametrize("syntax", [IMPLICIT, JPEG_2000, BIG_ENDIAN])
def test_a_result_that_is_not_encoded_anew_is_offered_only_as_it_is(syntax: str) -> None:
    """PS3.5 10.1 excepts compressed objects; big-endian pixels would have to be swapped."""
    assert contexts(result(SEG, syntax)) == ((SEG, syntax),)


def test_what_needs_the_same_contexts_shares_them() -> None:
    """PS3.8 7.1.1.13: one presentation context for each (SOP class, transfer syntax), however many objects."""
    (only,) = shares([delivery(1), delivery(2, SR), delivery(3)])
    assert [one.id for one in only.deliveries] == [1, 2, 3]
    assert only.contexts == ((SEG, EXPLICIT), (SEG, IMPLICIT), (SR, EXPLICIT), (SR, IMPLICIT))


def test_nothing_to_send_needs_no_association() -> None:
    """An association without presentation contexts is not legal (PS3.8 9.3.2)."""
    assert list(shares([])) == []


@given(st.lists(st.tuples(st.integers(1, 300), st.sampled_from([EXPLICIT, IMPLICIT, JPEG_2000])), max_size=400))
def test_no_association_proposes_more_than_128_contexts_and_every_delivery_is_in_one(wanted: list[tuple[int, str]]) -> None:
    """PS3.8 9.3.2.2: identifiers are odd and one byte, so 128 of them; the order of the deliveries stays."""
    deliveries = [delivery(key, f"1.2.3.{sop_class}", syntax) for key, (sop_class, syntax) in enumerate(wanted)]
    parts = list(shares(deliveries))
    assert [one for part in parts for one in part.deliveries] == deliveries
    for part in parts:
        assert 0 < len(part.contexts) <= MAX_CONTEXTS
        assert len(set(part.contexts)) == len(part.contexts)
        assert set(part.contexts) == {context for one in part.deliveries for context in contexts(one.result)}


def test_the_own_transfer_syntax_goes_before_the_default_one() -> None:
    """The bytes on disk go out as they are wherever the peer takes them."""
    assert choose(result(), [(SEG, IMPLICIT), (SEG, EXPLICIT)]) == EXPLICIT
    assert choose(result(), [(SEG, IMPLICIT), (SR, EXPLICIT)]) == IMPLICIT
    assert choose(result(), [(SR, EXPLICIT)]) is None
    assert choose(result(SEG, JPEG_2000), [(SEG, IMPLICIT)]) is None


def test_a_peer_that_takes_no_segmentations_is_named_with_what_to_do() -> None:
    """PS3.8 Table 9-18: 3 is an abstract syntax that is not supported, 4 a transfer syntax."""
    unknown = not_accepted("pacs", result(), {(SEG, EXPLICIT): 3, (SEG, IMPLICIT): 3})
    assert unknown.startswith("pacs did not accept Segmentation Storage: it cannot store this kind of object; ask its administrator")
    syntax = not_accepted("pacs", result(), {(SEG, EXPLICIT): 4, (SEG, IMPLICIT): 4})
    assert syntax.startswith("pacs accepts Segmentation Storage, but not in Explicit VR Little Endian nor in Implicit VR Little Endian;")


# ------------------------------------------------------------------------------------------------- what an answer means


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (0x0000, Verdict.SENT),
        (0xB000, Verdict.SENT_WITH_WARNING),
        (0xB006, Verdict.SENT_WITH_WARNING),
        (0xB007, Verdict.SENT_WITH_WARNING),
        (0xB123, Verdict.SENT_WITH_WARNING),
        (0x0107, Verdict.SENT_WITH_WARNING),
        (0x0111, Verdict.SENT_WITH_WARNING),
        (0xA700, Verdict.LATER),
        (0xA7FF, Verdict.LATER),
        (0x0110, Verdict.LATER),
        (0x0210, Verdict.LATER),
        (0x0213, Verdict.LATER),
        (0xFF00, Verdict.LATER),
        (0xA800, Verdict.DEAD),
        (0xA900, Verdict.DEAD),
        (0xA9AB, Verdict.DEAD),
        (0xC000, Verdict.DEAD),
        (0xC211, Verdict.DEAD),
        (0x0117, Verdict.DEAD),
        (0x0122, Verdict.DEAD),
        (0x0124, Verdict.DEAD),
    ],
)
def test_each_status_of_c_store_has_its_verdict(status: int, expected: Verdict) -> None:
    """PS3.4 Table B.2-1 and PS3.7 Annex C; 0111 says that the UID is there, and our UIDs are derived from what they name."""
    assert verdict(status) is expected


@given(st.integers(0, 0xFFFF))
def test_every_status_has_a_verdict_and_only_success_and_warnings_count_as_sent(status: int) -> None:
    """PS3.7 Annex C: what is neither success nor warning is a failure."""
    taken = verdict(status) in (Verdict.SENT, Verdict.SENT_WITH_WARNING)
    assert taken == (status in (0x0000, 0x0001, 0x0107, 0x0111, 0x0116) or status >> 12 == 0xB)


def test_the_sentence_names_status_meaning_and_comment() -> None:
    """The Error Comment (0000,0902) is kept beside what the status means."""
    assert answer("pacs", 0xA700, "Disk\x00 full\n") == 'pacs answered A700 (out of resources): "Disk  full"'
    assert answer("pacs", 0xC001) == "pacs answered C001 (cannot understand)"


@given(st.text(max_size=200))
def test_a_comment_is_one_line_of_at_most_64_printable_characters(comment: str) -> None:
    """PS3.5 6.2: an LO; what a peer writes is not to break a listing."""
    said = printable(comment)
    assert len(said) <= 64
    assert said.isprintable()


def test_a_rejection_says_whose_title_is_unknown() -> None:
    """PS3.8 Table 9-21."""
    assert rejection(1, 3)[0] == "it does not know the calling AE title"
    assert rejection(1, 7)[0] == "it does not go by the called AE title"
    assert rejection(3, 2)[0] == "its limit of associations is reached"
    assert rejection(None, 9)[0] == "source None, reason 9"
