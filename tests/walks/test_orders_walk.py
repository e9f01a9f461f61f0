"""The node asks for the order of what comes: DCMTK's `wlmscpfs` answers, and a RIS of pynetdicom's that answers badly, or not at all."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pynetdicom import AE as ApplicationEntity
from pynetdicom import evt

from dicom_node.config import NodeConfig
from dicom_node.domain import AE, OrderState
from dicom_node.store import Store
from dicom_node.worklist import Inquirer, inquirer
from dicom_node.worklist.mwl import SOP_CLASS
from tests.contracts.arrange import arrive, last
from tests.orthanc import free_ports
from tests.walks.node import wait_for
from tests.worklists import entry, wlmscpfs, write

STUDY = str(entry(1).StudyInstanceUID)


@pytest.fixture
def store(tmp_path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "storage")
    yield opened
    opened.close()


@contextmanager
def asking(store: Store, *ris: AE, timeout_s: float = 5.0) -> Iterator[Inquirer]:
    """Let the node ask these for orders."""
    remotes = {f"ris_{number}": {"ae": str(one), "orders": True, "timeout_s": timeout_s} for number, one in enumerate(ris)}
    deliver = {"backoff_s": 0.05, "backoff_max_s": 0.2, "poll_s": 0.05}
    one = Inquirer(NodeConfig.model_validate({"node": {"port": 0}, "remotes": remotes, "deliver": deliver}), store)
    one.start()
    try:
        yield one
        assert one.alive
    finally:
        one.stop()


def comes(store: Store, study: str = STUDY, **header: object) -> None:
    arrive(store, study=study, at=time.time(), **({"PatientID": "P1", "StudyDate": "20260110"} | header))


def settled(store: Store, study: str = STUDY) -> OrderState:
    """Wait until it is known how it stands with a study's order."""
    return wait_for(lambda: (found := store.orders.state(study)) is not OrderState.WAITING and found)


class Ris:
    """Answers worklist queries as `answer` does, which is given the identifier."""

    def __init__(self, answer: Callable[[Any], Iterator[tuple[int, Dataset | None]]], *, accepts: bool = True) -> None:
        self.asked = 0
        self._answer = answer
        self._entity = ApplicationEntity("RIS")
        self._entity.add_supported_context(SOP_CLASS if accepts else "1.2.840.10008.1.1")
        self._port = free_ports(1)[0]
        self.ae = AE("RIS", "127.0.0.1", self._port)

    def __enter__(self) -> "Ris":
        self._server = self._entity.start_server(("127.0.0.1", self._port), block=False, evt_handlers=[(evt.EVT_C_FIND, self._on_find)])
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()

    def _on_find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        self.asked += 1
        yield from self._answer(event)


def always(*answers: tuple[int, Dataset | None]) -> Callable[[Any], Iterator[tuple[int, Dataset | None]]]:
    return lambda event: iter(answers)


def test_the_order_of_a_study_is_learned_from_a_ris(store: Store, tmp_path: Path) -> None:
    """By its UID, which `wlmscpfs` does not match: its other answers are passed over; by accession number; by patient, modality and date."""
    write(tmp_path / "RIS", "1", entry(1, patient="P1"))
    write(tmp_path / "RIS", "2", entry(2, patient="P2", accession="A2"))
    write(tmp_path / "RIS", "3", entry(3, patient="P3", accession="A3"))
    with wlmscpfs(tmp_path) as ris, asking(store, ris):
        comes(store)
        comes(store, "1.2.2", PatientID="P2", AccessionNumber="A2")
        comes(store, "1.2.3", PatientID="P3")
        comes(store, "1.2.4", PatientID="P4")
        assert [settled(store, uid) for uid in (STUDY, "1.2.2", "1.2.3", "1.2.4")] == [*[OrderState.KNOWN] * 3, OrderState.NONE]
    learned = [store.orders.of_study(uid) for uid in (STUDY, "1.2.2", "1.2.3")]
    assert [one.requested_procedure_id for one in learned if one] == ["RP1", "RP2", "RP3"]
    assert learned[0] is not None
    assert learned[0].requested_procedure_code == ("CTCHEST", "99RIS", "CT of the chest")
    assert last(store, "order found", "1.2.3") == ("ris_0", "it was found by patient, modality and date")


def test_what_is_ambiguous_or_contradicts_the_images_is_not_used(store: Store, tmp_path: Path) -> None:
    """The journal says so."""
    write(tmp_path / "RIS", "1", entry(1, patient="ANOTHER"))
    write(tmp_path / "RIS", "2", entry(2, patient="P2", accession="A2"))
    write(tmp_path / "RIS", "3", entry(3, patient="P2", accession="A3"))
    with wlmscpfs(tmp_path) as ris, asking(store, ris):
        comes(store)
        comes(store, "1.2.2", PatientID="P2")
        assert [settled(store, uid) for uid in (STUDY, "1.2.2")] == [OrderState.CONTRADICTED, OrderState.AMBIGUOUS]
    assert "another patient's" in last(store, "order contradicted", STUDY)[1]
    assert "2 orders" in last(store, "order ambiguous", "1.2.2")[1]


def test_a_ris_that_is_away_holds_nobody_up(store: Store) -> None:
    """The next one is asked; when nobody can be, it is tried again until somebody can."""
    away, here = Ris(always()), Ris(always((0xFF00, entry(1)), (0x0000, None)))
    with asking(store, away.ae, here.ae):
        comes(store)
        wait_for(lambda: store.orders.state(STUDY) is OrderState.WAITING)
        with here:
            assert settled(store) is OrderState.KNOWN


def aborts(event: Any) -> Iterator[tuple[int, Dataset | None]]:
    event.assoc.abort()
    yield 0x0000, None


def is_silent(_: Any) -> Iterator[tuple[int, Dataset | None]]:
    time.sleep(2.0)
    yield 0x0000, None


def goes_on(_: Any) -> Iterator[tuple[int, Dataset | None]]:
    for _ in range(100):
        time.sleep(0.2)
        yield 0xFF00, entry(9, patient="P9", accession="A9")
    yield 0x0000, None


def refuses(_: Any) -> Iterator[tuple[int, Dataset | None]]:
    yield 0xA700, None


@pytest.mark.parametrize("badly", [aborts, is_silent, goes_on, refuses])
def test_a_ris_that_answers_badly_is_asked_again(store: Store, badly: Callable[[Any], Iterator[tuple[int, Dataset | None]]]) -> None:
    """None of it is taken for an answer, and none holds the node up."""
    answers = [badly, always((0xFF00, entry(1)), (0x0000, None))]

    def in_turn(event: Any) -> Iterator[tuple[int, Dataset | None]]:
        return answers.pop(0)(event)

    with Ris(in_turn) as ris, asking(store, ris.ae, timeout_s=1.0):
        comes(store)
        assert settled(store) is OrderState.KNOWN
    assert ris.asked == 2


def test_a_ris_that_gives_its_whole_worklist_is_asked_to_stop(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """C-CANCEL; what it gave until then is no answer to that question."""
    monkeypatch.setattr(inquirer, "_ANSWERS_MAX", 5)
    cancelled = []

    def all_of_it(event: Any) -> Iterator[tuple[int, Dataset | None]]:
        for number in range(400):
            if event.is_cancelled:
                cancelled.append(number)
                yield 0xFE00, None
                return
            time.sleep(0.005)
            yield 0xFF01, entry(number + 2)
        yield 0x0000, None

    with Ris(all_of_it) as ris, asking(store, ris.ae):
        comes(store)
        assert settled(store) is OrderState.NONE
    assert len(cancelled) == ris.asked == 2


def test_a_ris_that_accepts_no_worklist_is_named(store: Store) -> None:
    """And nothing waits for it."""
    with Ris(always(), accepts=False) as ris, asking(store, ris.ae) as asker:
        comes(store)
        wait_for(lambda: store.orders.state(STUDY) is OrderState.WAITING)
        assert asker.alive


def test_without_anybody_to_ask_nobody_asks(store: Store) -> None:
    """No thread, no row."""
    with asking(store) as asker:
        comes(store)
        assert asker.alive
    assert store.orders.state(STUDY) is None
