"""Whatever holds the node up for a moment, and whatever ends one of an association's threads: its peer is answered, or hung up on, and soon."""

import contextlib
import gc
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pynetdicom.association import Association

from dicom_node.wire import Service
from tests.walks.kept import PATHS, House, eventually, house, serving
from tests.walks.pdus import CT_IMAGE, EXPLICIT, associate_rq

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of the threads that are made to die

REQUEST = associate_rq(((1, CT_IMAGE, (EXPLICIT,)),))
ACCEPTED = 2  # type of an A-ASSOCIATE-AC PDU
PATIENCE_S = 20.0  # of the peers here
fast_only = pytest.mark.parametrize("open_house", [path for path in PATHS if path == "fast"], indirect=True)  # what pynetdicom itself does not do


@pytest.fixture(params=PATHS)
def open_house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., House]]:
    """Open a house, with something done to each association before it starts; it leaves no thread behind."""
    with contextlib.ExitStack() as opened:

        def at(prepare: Callable[[Association], None] = lambda _: None, **node: Any) -> House:
            one = opened.enter_context(house(tmp_path, request.param, **node))
            one.receiver._services = (Service(abstract_syntaxes=(), prepare=prepare),)
            return one

        yield at


@contextlib.contextmanager
def call(to: House) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", to.port), timeout=PATIENCE_S) as line:
        yield line


def hung_up_on(line: socket.socket) -> bool:
    """Say whether the node hangs up, after whatever it says before."""
    with contextlib.suppress(ConnectionResetError):
        while line.recv(4096):
            pass
    return True


def test_a_request_that_comes_when_its_time_is_nearly_over_is_answered(open_house):
    """PS3.8 9.1.5: the ARTIM timer judges. What gives up by a second clock may do so just when the request has come, and nobody answers it."""
    waiting = threading.Event()

    def impatient(association: Association) -> None:
        association._acse_timeout = 0.01  # pynetdicom's second clock; the ARTIM timer runs for its half a minute
        waiting.set()

    with call(open_house(impatient)) as line:
        assert waiting.wait(PATIENCE_S)
        eventually(lambda: False, 0.2)  # it is over
        line.sendall(REQUEST)
        assert line.recv(1)[0] == ACCEPTED


def test_a_request_of_which_the_end_comes_late_ends_no_thread(open_house):
    """PS3.8 9.2: a timer that was stopped (AE-6) does not expire (Evt18), which Sta3 does not know."""
    with call(open_house(acse_timeout_s=0.2, network_timeout_s=10)) as line:
        line.sendall(REQUEST[:6])
        eventually(lambda: False, 0.6)
        line.sendall(REQUEST[6:])
        assert line.recv(1)[0] == ACCEPTED


def test_a_connection_without_a_request_is_closed_by_the_artim_timer(open_house):
    """PS3.8 Table 9-10: Evt18 in Sta2, AA-2."""
    with call(open_house(acse_timeout_s=0.2)) as line:
        assert hung_up_on(line)
    assert eventually(lambda: not serving())


def test_whose_state_machine_dies_hangs_up(open_house):
    def dies(association: Association) -> None:
        machine, act = association.dul.state_machine, association.dul.state_machine.do_action

        def do_action(event: str) -> None:
            if event == "Evt6":
                raise RuntimeError("a fault of ours")
            act(event)

        machine.do_action = do_action

    with call(open_house(dies)) as line:
        line.sendall(REQUEST)
        assert hung_up_on(line)
    assert eventually(lambda: not serving())


@fast_only
def test_whose_negotiation_dies_hangs_up(open_house):
    def dies(association: Association) -> None:
        def negotiate() -> None:
            raise RuntimeError("a fault of ours")

        association.acse.negotiate_association = negotiate

    with call(open_house(dies)) as line:
        line.sendall(REQUEST)
        assert hung_up_on(line)
    assert eventually(lambda: not serving())


def test_no_full_collection_of_garbage_holds_up_who_is_served(open_house, monkeypatch):
    """It stops every thread for as long as there is memory to look through; the interpreter makes one by itself when there is something to gain."""
    node, collected = open_house(), []
    monkeypatch.setattr(gc, "collect", lambda *_: collected.append(1))
    for _ in range(200):  # as often as in 50 s
        node.receiver._server.service_actions()
    assert not collected
