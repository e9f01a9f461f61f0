"""The turnstile: so many at once, senders in turn, no place lost whatever happens within."""

import threading
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_node.domain import Transient
from dicom_node.receive.turnstile import Turnstile


class Visitor(threading.Thread):
    """Waits for a turn, says that it has it, and holds it until told to go."""

    def __init__(self, turnstile, sender, order, timeout_s=30.0):
        super().__init__(daemon=True)
        self._turnstile, self._sender, self._order, self._timeout_s = turnstile, sender, order, timeout_s
        self.go = threading.Event()
        self.refused = False

    def run(self):
        try:
            with self._turnstile.turn(self._sender, self._timeout_s):
                self._order.append(self._sender)
                self.go.wait(30)
        except Transient:
            self.refused = True


def queue(turnstile, senders):
    """Let visitors come one after another while the places are taken; return them, and the order in which they get their turns."""
    order, visitors = [], []
    for sender in senders:
        visitors.append(Visitor(turnstile, sender, order))
        visitors[-1].start()
        assert eventually(lambda: in_line(turnstile) == len(visitors))
    return visitors, order


def in_line(turnstile):
    with turnstile._lock:
        return sum(map(len, turnstile._waiting.values()))


def free(turnstile):
    return turnstile._free


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=12))
@settings(max_examples=30, deadline=None)
def test_senders_take_turns_however_many_associations_each_has(senders):
    """Round robin over the senders that wait, and first come first served within each."""
    turnstile = Turnstile(1)
    with turnstile.turn("x", 1.0):
        visitors, order = queue(turnstile, senders)
        for visitor in visitors:
            visitor.go.set()
    for visitor in visitors:
        visitor.join(30)
    assert order == by_turns(senders)
    assert free(turnstile) == 1 and not turnstile._waiting


def by_turns(senders):
    """Say in which order they are to be served: in every round each sender that waits once, those that came first first."""
    left, order = Counter(senders), []
    line = list(dict.fromkeys(senders))
    while line:
        sender = line.pop(0)
        order.append(sender)
        left[sender] -= 1
        if left[sender]:
            line.append(sender)
    return order


def test_a_sender_with_one_association_waits_for_no_more_than_one_of_another_with_a_hundred():
    turnstile = Turnstile(1)
    with turnstile.turn("x", 1.0):
        visitors, order = queue(turnstile, ["many"] * 20 + ["one"])
        for visitor in visitors:
            visitor.go.set()
    for visitor in visitors:
        visitor.join(30)
    assert order.index("one") == 1


def test_no_more_pass_at_once_than_there_are_places():
    turnstile, lock = Turnstile(3), threading.Lock()
    inside, most = [0], [0]

    def visit(sender):
        for _ in range(50):
            with turnstile.turn(sender, 30.0):
                with lock:
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                time.sleep(0)
                with lock:
                    inside[0] -= 1

    threads = [threading.Thread(target=visit, args=("abcd"[number % 4],)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most[0] <= 3
    assert free(turnstile) == 3 and not turnstile._waiting


def test_whose_time_is_over_is_told_so_and_holds_up_nobody():
    """Transient: A700 follows; who waits behind gets the turn in its place."""
    turnstile = Turnstile(1)
    with turnstile.turn("x", 1.0):
        with pytest.raises(Transient, match=r"the disk took no data set for 0.01 s"), turnstile.turn("a", 0.01):
            pytest.fail("there was no place")
        assert not turnstile._waiting
        visitors, order = queue(turnstile, "ab")
        visitors[0].go.set()
        visitors[1].go.set()
    for visitor in visitors:
        visitor.join(30)
    assert order == ["a", "b"]
    assert free(turnstile) == 1


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["passes", "fails", "gives up"])), min_size=1, max_size=40))
@settings(max_examples=20, deadline=None)
def test_no_place_is_lost_whatever_happens_within_a_turn(visits):
    """An exception, a time-out at the very moment of the turn: the places are all there afterwards."""
    turnstile = Turnstile(2)

    def visit(sender, how):
        try:
            with turnstile.turn(sender, 0.0005 if how == "gives up" else 30.0):
                if how == "fails":
                    raise ValueError
        except (ValueError, Transient):
            pass

    threads = [threading.Thread(target=visit, args=one) for one in visits]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert free(turnstile) == 2 and not turnstile._waiting


def eventually(true, timeout_s=20.0):
    """Wait until something is true; say whether that came to be."""
    until = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.0005)
    return True
