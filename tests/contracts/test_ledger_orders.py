"""Orders in the ledger: sought for what comes, settled once."""

import pytest

from dicom_node.domain import Order, OrderState, Subject
from tests.contracts.arrange import NOW, STUDY, arrive, last

ORDER = Order(study_instance_uid=STUDY, accession_number="A1", requested_procedure_id="RP1", requested_procedure_code=("C", "99RIS", "Chest"))


def due(store, *, at=NOW):
    return store.orders.due(now=at, since=at - 100)


def settled(store, state=OrderState.KNOWN, order=ORDER, study=STUDY):
    return store.orders.settle(study, state, order, who="ris", why="it was found", now=NOW)


def test_the_order_of_what_comes_is_sought(store):
    """By what its first instance says."""
    arrive(store, 1, AccessionNumber=" A1 ", StudyDate="20260110")
    arrive(store, 2)
    (subject,) = due(store)
    assert subject == Subject(study_instance_uid=STUDY, accession_number="A1", patient_id="MARKED", modality="CT", study_date="20260110")
    assert due(store, at=NOW + 1000) == (), "nothing has come for a while"


def test_of_what_is_no_image_the_modality_is_not_asked_for(store):
    """An order names what acquires."""
    arrive(store, 1, Modality="SR")
    assert [one.modality for one in due(store)] == [""]


def test_what_is_settled_is_not_sought_again(store):
    """The journal has who told of it."""
    arrive(store)
    assert settled(store)
    assert not settled(store, OrderState.NONE, None)
    assert due(store) == ()
    assert (store.orders.of_study(STUDY), store.orders.state(STUDY)) == (ORDER, OrderState.KNOWN)
    assert last(store, "order found") == ("ris", "it was found")


@pytest.mark.parametrize(
    ("state", "kind"), [(OrderState.NONE, "no order"), (OrderState.AMBIGUOUS, "order ambiguous"), (OrderState.CONTRADICTED, "order contradicted")]
)
def test_without_one_order_there_is_none(store, state, kind):
    """And the journal says why."""
    arrive(store)
    assert settled(store, state, None)
    assert (store.orders.of_study(STUDY), store.orders.state(STUDY), last(store, kind)[1]) == (None, state, "it was found")
    with pytest.raises(ValueError, match="cannot be settled"):
        settled(store, state, ORDER)


def test_what_could_not_be_asked_is_sought_again(store):
    """Not before its time."""
    arrive(store)
    assert store.orders.put_off(STUDY, until=NOW + 5, reason="ris is away", now=NOW)
    assert due(store) == ()
    (subject,) = due(store, at=NOW + 5)
    assert (subject.attempts, subject.since) == (1, NOW)
    assert store.orders.put_off(STUDY, until=NOW + 9, reason="ris is away", now=NOW + 5)
    assert settled(store)
    assert not store.orders.put_off(STUDY, until=NOW + 9, reason="ris is away", now=NOW)


def test_an_order_goes_with_its_study(store):
    """Nothing of a purged study is kept."""
    arrive(store)
    settled(store)
    assert store.orders.is_here(STUDY)
    store.studies.purge(STUDY, who="clock", why="old", now=NOW)
    assert (store.orders.state(STUDY), store.orders.is_here(STUDY)) == (None, False)
