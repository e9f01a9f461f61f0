"""Work on several threads gives what work on one gives, in its order, and stops where it fails."""

import threading

import pytest

from dicom_node.methods import threads


@pytest.mark.parametrize("many", ["1", "2", "7"])
def test_results_come_in_the_order_of_their_items(many, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", many)
    assert threads.threads() == int(many)
    assert list(threads.each(lambda item: item * item, range(50))) == [item * item for item in range(50)]
    assert list(threads.each(str, ())) == []


@pytest.mark.parametrize("said", ["", "many", "0", "2,1"])
def test_where_the_node_sets_no_number_the_processors_count(said, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert threads.threads() >= 1


def test_two_items_are_worked_on_at_once(monkeypatch):
    """Each waits for the other: on one thread neither would end."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    meeting = threading.Barrier(2, timeout=30)
    assert sorted(threads.each(lambda _: meeting.wait(), range(2))) == [0, 1]


def test_no_more_is_begun_than_waits_to_be_taken(monkeypatch):
    """However many there are: memory is bounded by the threads."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    taken = []
    results = threads.each(lambda item: item, (taken.append(item) or item for item in range(1000)))
    assert next(results) == 0 and len(taken) == 2 * threads.AHEAD
    results.close()


def test_an_error_comes_at_its_turn_and_ends_the_work(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    begun = []

    def invert(item):
        begun.append(item)
        return 1 / (3 - item)

    results = threads.each(invert, range(1000))
    assert [next(results) for _ in range(3)] == [1 / 3, 1 / 2, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert len(begun) < 20
