"""What a RIS is asked about a study, and which of its answers is the study's order."""

from dataclasses import replace

import pytest
from pydicom import Dataset

from dicom_node.domain import OrderState, Subject
from dicom_node.worklist.requests import By, choose, is_meant, questions, read
from tests.worklists import entry

STUDY = str(entry(1).StudyInstanceUID)
SUBJECT = Subject(study_instance_uid=STUDY, accession_number="A1", patient_id="P1", modality="CT", study_date="20260110")
BARE = replace(SUBJECT, accession_number="")


def nothing_else(_: str) -> bool:
    return False


def found(number: int = 1, **said: str):
    answer = read(entry(number, **said))
    assert answer is not None
    return answer


def test_a_study_is_sought_by_the_best_that_it_has() -> None:
    """Its UID first; by the patient only where the images have no accession number."""
    assert [by for by, _ in questions(SUBJECT)] == [By.STUDY, By.ACCESSION]
    assert [by for by, _ in questions(BARE)] == [By.STUDY, By.PATIENT]
    assert [by for by, _ in questions(replace(BARE, patient_id=""))] == [By.STUDY]
    assert [by for by, _ in questions(replace(SUBJECT, accession_number="A*"))] == [By.STUDY, By.PATIENT], "a wildcard would ask for others, too"
    _, by_patient = questions(BARE)
    step = by_patient[1].ScheduledProcedureStepSequence[0]
    assert (by_patient[1].PatientID, step.Modality, step.ScheduledProcedureStepStartDate) == ("P1", "CT", "20260110")
    assert "PatientName" not in by_patient[1]


def test_an_answer_is_read_as_an_order() -> None:
    """PS3.3 C.4.11: what the request says of the procedure."""
    order = found().order
    assert (order.accession_number, order.requested_procedure_id, order.scheduled_procedure_step_id) == ("A1", "RP1", "SPS1")
    assert (order.requested_procedure_description, order.reason) == ("CT chest", "Cough")
    assert order.requested_procedure_code == ("CTCHEST", "99RIS", "CT of the chest")


def test_an_answer_that_names_no_request_is_none() -> None:
    """Neither does one whose values are longer than their VR allows: half an accession number is none."""
    without = entry()
    without.RequestedProcedureID = without.AccessionNumber = ""
    assert read(without) is None
    nowhere = entry()
    del nowhere.StudyInstanceUID
    assert read(nowhere) is None
    assert read(Dataset()) is None


@pytest.mark.parametrize(
    ("by", "said", "expected"),
    [
        (By.STUDY, {}, True),
        (By.STUDY, {"number": 2}, False),
        (By.ACCESSION, {"number": 2}, True),
        (By.ACCESSION, {"accession": "A2"}, False),
        (By.PATIENT, {"number": 2, "accession": "A2"}, True),
        (By.PATIENT, {"patient": "P2"}, False),
        (By.PATIENT, {"Modality": "MR"}, False),
        (By.PATIENT, {"ScheduledProcedureStepStartDate": "20260111"}, False),
    ],
)
def test_an_answer_is_compared_again(by: By, said: dict[str, str], expected: bool) -> None:
    """A RIS that does not support a key answers with everything (PS3.4 K.4.1.2.2)."""
    assert is_meant(by, found(**said), SUBJECT) is expected


def test_one_order_is_taken() -> None:
    """Two steps of one procedure are one order, of which no step is named."""
    decision = choose(By.STUDY, [found(), found(ScheduledProcedureStepID="SPS1B")], SUBJECT, nothing_else)
    assert (decision.state, decision.why) == (OrderState.KNOWN, "it was found by its Study Instance UID")
    assert decision.order is not None
    assert (decision.order.requested_procedure_id, decision.order.scheduled_procedure_step_id) == ("RP1", "")


def test_of_several_orders_none_is_taken() -> None:
    """The wrong accession number is worse than none."""
    decision = choose(By.ACCESSION, [found(1), found(2)], SUBJECT, nothing_else)
    assert (decision.state, decision.order) == (OrderState.AMBIGUOUS, None)
    assert decision.why == "2 orders were found by its accession number; none is used"


@pytest.mark.parametrize(("said", "why"), [({"patient": "P2"}, "another patient's"), ({"accession": "A2"}, "another accession number")])
def test_an_order_that_contradicts_the_images_is_not_taken(said: dict[str, str], why: str) -> None:
    """What the images say stands; the sentence names nobody."""
    decision = choose(By.STUDY, [found(**said)], SUBJECT, nothing_else)
    assert decision.state is OrderState.CONTRADICTED
    assert why in decision.why
    assert "P2" not in decision.why
    assert "A2" not in decision.why


def test_an_order_of_another_study_that_is_here_is_not_this_ones() -> None:
    """The patient may have two on one day; the other study's is left out, and what remains is taken."""
    first, second = found(2, accession="A2"), found(3, accession="A3")
    decision = choose(By.PATIENT, [first, second], BARE, lambda uid: uid == first.order.study_instance_uid)
    assert decision.order == second.order
    assert choose(By.PATIENT, [first], BARE, lambda _: True).state is OrderState.NONE
    assert choose(By.STUDY, [], BARE, nothing_else).state is OrderState.NONE
