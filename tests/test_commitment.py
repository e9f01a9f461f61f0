"""What storage commitment decides: what a report says, whether it may be believed, and what becomes of each object by it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import DataElement, Dataset
from pydicom.config import IGNORE

from dicom_node.config import Deliver
from dicom_node.deliver.commitment import AT_ONCE, ask_again_at, check, fate, fresh_transaction_uid, lot, unanswered
from dicom_node.domain import Commitment, CommitmentItem, CommitmentRole, CommitmentState, Delivery, DeliveryState, Refused, Result, is_uid
from dicom_node.wire.commitment import MOST, Asked, Said, read_report, read_request, report, request

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
SR = "1.2.840.10008.5.1.4.1.1.88.34"
TRANSACTION = "2.25.77"
WANTED = Deliver(backoff_s=10.0, attempts=3)
NOW = 1_800_000_000.0


def delivery(key: int, attempts: int = 1) -> Delivery:
    result = Result(
        job_id=1,
        kind="SEG",
        sop_class_uid=SEG,
        sop_instance_uid=f"2.25.{key}",
        series_instance_uid="2.25.2",
        study_instance_uid="2.25.3",
        path="results/one.dcm",
        digest="0" * 64,
    )
    return Delivery(id=key, result=result, destination="pacs", state=DeliveryState.SENT, attempts=attempts)


def commitment(*named: tuple[str, str], attempts: int = 1) -> Commitment:
    return Commitment(
        role=CommitmentRole.SCU,
        transaction_uid=TRANSACTION,
        peer="pacs",
        ae_title="PACS",
        state=CommitmentState.ASKED,
        requested_at=NOW,
        deadline=NOW + 60,
        attempts=attempts,
        items=tuple(CommitmentItem(sop_class_uid=sop_class, sop_instance_uid=instance) for sop_class, instance in named),
    )


def refusal(dataset: Dataset, event_type: int | None = None) -> int:
    """Return the status by which a request, or a report of this type, is refused."""
    with pytest.raises(Refused) as refused:
        read_request(dataset) if event_type is None else read_report(event_type, dataset)
    return refused.value.status


# ------------------------------------------------------------------------------------------------------------ data sets


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=50, unique=True))
def test_a_request_is_read_as_it_was_written(keys: list[int]) -> None:
    """PS3.4 Table J.3-1."""
    asked = Asked(transaction_uid=TRANSACTION, named=tuple((SEG, f"2.25.{key}") for key in keys))
    assert read_request(request(asked)) == asked


@given(st.dictionaries(st.integers(1, 10**9), st.sampled_from([0, 0, 0x0110, 0x0112, 0xFFFF]), min_size=1, max_size=50))
def test_a_report_is_read_as_it_was_written_and_its_type_says_whether_something_failed(said: dict[int, int]) -> None:
    """PS3.4 Table J.3-2: type 1 has no failures, type 2 has; an empty sequence is left out."""
    outcomes = {(SEG, f"2.25.{key}"): outcome for key, outcome in said.items()}
    event_type, dataset = report(Said(transaction_uid=TRANSACTION, outcomes=outcomes))
    assert event_type == (2 if any(said.values()) else 1)
    assert ("FailedSOPSequence" in dataset) == any(said.values())
    assert ("ReferencedSOPSequence" in dataset) == (not all(said.values()))
    assert read_report(event_type, dataset) == Said(transaction_uid=TRANSACTION, outcomes=outcomes)


def test_a_request_that_cannot_be_meant_is_refused() -> None:
    """PS3.7 Annex C: 0115 invalid argument value; 0213 resource limitation. Each instance is named once (PS3.4 J.3.2.1.1)."""
    good = request(Asked(transaction_uid=TRANSACTION, named=((SEG, "2.25.1"),)))
    assert refusal(Dataset()) == 0x0115
    for uid in ("", "not a UID", "1." + "2" * 70):
        good[0x00081195] = DataElement(0x00081195, "UI", uid, validation_mode=IGNORE)
        assert refusal(good) == 0x0115
    good.TransactionUID = TRANSACTION
    twice = request(Asked(transaction_uid=TRANSACTION, named=((SEG, "2.25.1"), (SR, "2.25.1"))))
    assert refusal(twice) == 0x0115
    path = request(Asked(transaction_uid=TRANSACTION, named=((SEG, "../../etc"),)))
    assert refusal(path) == 0x0115
    item = good.ReferencedSOPSequence[0]
    good.ReferencedSOPSequence = [item] * (MOST + 1)
    assert refusal(good) == 0x0213


def test_a_report_that_cannot_be_meant_is_refused() -> None:
    """PS3.7 10.1.1.1.8: 0113 no such event type, 0115 invalid argument value."""
    _, failed = report(Said(transaction_uid=TRANSACTION, outcomes={(SEG, "2.25.1"): 0x0112}))
    assert refusal(failed, 3) == 0x0113
    assert refusal(failed, 1) == 0x0115
    del failed.FailedSOPSequence[0].FailureReason
    assert refusal(failed, 2) == 0x0115
    _, both = report(Said(transaction_uid=TRANSACTION, outcomes={(SEG, "2.25.1"): 0x0112, (SR, "2.25.1"): 0}))
    assert refusal(both, 2) == 0x0115


def test_a_name_that_a_device_made_with_a_leading_zero_can_be_asked_for() -> None:
    """It is received by that name, so it is committed by it."""
    asked = Asked(transaction_uid=TRANSACTION, named=((SEG, "1.2.03.4"),))
    assert read_request(request(asked)) == asked


# ------------------------------------------------------------------------------------------------------------ decisions


def test_a_report_speaks_of_exactly_what_was_asked_for() -> None:
    """PS3.4 J.3.3.1.1: every requested instance is in exactly one list, and nothing else is."""
    one = commitment((SEG, "2.25.1"), (SR, "2.25.2"))
    assert check(one, Said(transaction_uid=TRANSACTION, outcomes={(SEG, "2.25.1"): 0, (SR, "2.25.2"): 0x0110})) == {"2.25.1": 0, "2.25.2": 0x0110}
    for outcomes in ({(SEG, "2.25.1"): 0}, {(SEG, "2.25.1"): 0, (SR, "2.25.2"): 0, (SR, "2.25.3"): 0}, {(SR, "2.25.1"): 0, (SEG, "2.25.2"): 0}):
        with pytest.raises(Refused, match="exactly") as refused:
            check(one, Said(transaction_uid=TRANSACTION, outcomes=outcomes))
        assert refused.value.status == 0x0115


@pytest.mark.parametrize(
    ("outcome", "attempts", "to", "words"),
    [
        (0x0000, 1, DeliveryState.COMMITTED, ""),
        (0x0110, 1, DeliveryState.PENDING, "0110 (processing failure); it is sent again"),
        (0x0112, 2, DeliveryState.PENDING, "0112 (no such object instance); it is sent again"),
        (0x0213, 1, DeliveryState.PENDING, "0213 (resource limitation); it is sent again"),
        (0xA123, 1, DeliveryState.PENDING, "A123 (a reason that PS3.3 does not name); it is sent again"),
        (0x0112, 3, DeliveryState.DEAD, "0112 (no such object instance); given up after it was sent 3 times"),
        (0x0119, 1, DeliveryState.DEAD, "0119 (class and instance conflict); look at the object"),
        (0x0122, 1, DeliveryState.DEAD, "0122 (referenced SOP class not supported); look at the object"),
        (0x0131, 3, DeliveryState.SENT, "0131 (duplicate transaction UID)"),
    ],
)
def test_each_failure_reason_has_its_remedy(outcome: int, attempts: int, to: DeliveryState, words: str) -> None:
    """PS3.3 C.14.1.1: what the archive lacks is sent again, what it cannot keep is for a person."""
    decided = fate(delivery(1, attempts), outcome, "pacs", WANTED, NOW)
    assert decided.to is to
    assert words in decided.reason
    if to in (DeliveryState.PENDING, DeliveryState.SENT):
        assert decided.not_before > NOW


def test_one_request_asks_for_what_was_asked_for_equally_often() -> None:
    """So that what it says of the number of requests is true of each."""
    due = [(delivery(key), key % 2) for key in range(1, 2 * AT_ONCE + 20)]
    deliveries, times = lot(due)
    assert times == 1
    assert len(deliveries) == AT_ONCE
    assert all(one.id % 2 == 1 for one in deliveries)


def test_a_transaction_uid_is_never_used_again() -> None:
    """PS3.4 J.3.2.1.1.1."""
    uids = {fresh_transaction_uid() for _ in range(1000)}
    assert len(uids) == 1000
    assert all(map(is_uid, uids))


def test_the_last_request_without_a_report_says_that_a_person_must_ask() -> None:
    """Before that it says how many are left."""
    wanted = Deliver(commit_attempts=2)
    assert unanswered(commitment((SEG, "2.25.1")), "did not report", wanted) == "pacs did not report (request 1 of 2)"
    assert "request 2 of 2); it is not asked again: ask its administrator" in unanswered(commitment(attempts=2), "did not report", wanted)
    assert ask_again_at(commitment(), wanted, NOW) > NOW
