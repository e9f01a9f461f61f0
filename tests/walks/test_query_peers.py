"""Queries and retrievals that do not go as hoped: cancelled, refused, cut off, slow; and how the node tells what became of them."""

import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AllStoragePresentationContexts, evt
from pynetdicom.dsutils import split_dataset

from dicom_node.domain import Result, derived_uid
from tests.contracts import arrange
from tests.orthanc import free_ports
from tests.walks.held import CT, FIND, GET, MOVE, SECONDARY_CAPTURE, STUDY, Keeping, asking, destination, identifier, keeping, written
from tests.walks.node import wait_for

PATHS = ("fast", "stock")
WHOLE = {"StudyInstanceUID": STUDY}


class Endless:
    """Holdings that go on for ever."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    def find(self, level: str, keys: Mapping[str, str], limit: int | None = None) -> Iterator[Mapping[str, Any]]:
        """Give one study after another, until nobody asks for more."""
        try:
            number = 0
            while True:
                number += 1
                yield {"StudyInstanceUID": derived_uid("endless", number), "PatientName": "Marked^Patient"}
        finally:
            self.ended.set()

    def files(self, level: str, keys: Mapping[str, str]) -> tuple[Any, ...]:
        """Return nothing."""
        return ()


def some(folder: Path, number: int) -> list[Path]:
    """Return the files of a study of so many images."""
    return [written(folder, one) for one in range(number)]


def workstation(ae: Any, **more: Any) -> dict[str, Any]:
    return {"ws": {"ae": str(ae), "may": ["receive"], "timeout_s": 20.0, **more}}


# -------------------------------------------------------------------------------------------------------------- C-CANCEL


@pytest.mark.parametrize("path", PATHS)
def test_a_query_ends_when_it_is_cancelled_and_when_who_asked_has_gone(tmp_path: Path, path: str) -> None:
    """PS3.4 C.4.1.3.2 and PS3.7 9.3.2.3: FE00; the association goes on."""
    endless = Endless()
    with keeping(tmp_path, path, holdings=endless) as node:
        with asking(node.ae, FIND) as association:
            said = []
            for status, _ in association.send_c_find(identifier("STUDY", StudyInstanceUID="", PatientName=""), FIND, msg_id=7):
                said.append(status.Status)
                if len(said) == 3:
                    association.send_c_cancel(7, query_model=FIND)
            assert (said[0], said[-1]) == (0xFF00, 0xFE00)
            assert endless.ended.wait(20)
            endless.ended.clear()
            next(association.send_c_find(identifier("STUDY", StudyInstanceUID=""), FIND))
            association.abort()
        assert endless.ended.wait(20)


@pytest.mark.parametrize("path", PATHS)
def test_a_move_that_is_cancelled_says_what_remains(tmp_path: Path, path: str) -> None:
    """PS3.4 C.4.2.3.1 and Table C.4-2: FE00 with all four counters."""
    cancelled = threading.Event()

    def answer(event: evt.Event, number: int) -> int:
        if number == 2:
            cancelled.wait(30)
        return 0x0000

    with destination(answer) as met, keeping(tmp_path, path, workstation(met.ae)) as node:
        node.take(some(tmp_path, 100))
        with asking(node.ae, MOVE) as association:
            for status, _ in association.send_c_move(identifier("STUDY", **WHOLE), "WS", MOVE, msg_id=3):
                if status.Status == 0xFF00 and not cancelled.is_set():
                    association.send_c_cancel(3, query_model=MOVE)
                    cancelled.set()
        assert status.Status == 0xFE00
        assert status.NumberOfRemainingSuboperations > 0
        assert status.NumberOfRemainingSuboperations + status.NumberOfCompletedSuboperations == 100
        assert (status.NumberOfFailedSuboperations, status.NumberOfWarningSuboperations) == (0, 0)
        assert met.asked_by == {("RIS", 3)}


@pytest.mark.parametrize("path", PATHS)
def test_a_get_that_is_cancelled_says_what_remains(tmp_path: Path, path: str) -> None:
    """PS3.4 C.4.3.3: the cancellation comes between objects that go the other way."""
    came: list[str] = []

    def stored(event: evt.Event) -> int:
        came.append(event.request.AffectedSOPInstanceUID)
        if len(came) == 3:
            event.assoc.send_c_cancel(5, query_model=GET)
        return 0x0000

    with keeping(tmp_path, path) as node:
        node.take(some(tmp_path, 60))
        with asking(node.ae, GET, takes=(CT,), stored=stored) as association:
            *_, (status, _) = association.send_c_get(identifier("STUDY", **WHOLE), GET, msg_id=5)
        assert status.Status == 0xFE00
        assert status.NumberOfRemainingSuboperations + status.NumberOfCompletedSuboperations == 60
        assert 3 <= len(came) < 60


# ------------------------------------------------------------------------------------------------- what failed is told of


@pytest.mark.parametrize("path", PATHS)
def test_objects_that_are_refused_are_counted_and_named(tmp_path: Path, path: str) -> None:
    """PS3.4 C.4.2.1.4.2: B000 where some were stored, A702 where none were; a warning is neither; the journal says why."""
    said = {"of": (0x0000, 0xA700, 0xB007)}
    with destination(lambda event, number: said["of"][number % len(said["of"])]) as met, keeping(tmp_path, path, workstation(met.ae)) as node:
        node.take(some(tmp_path, 6))
        with asking(node.ae, MOVE) as association:
            *_, (status, failed) = association.send_c_move(identifier("STUDY", **WHOLE), "WS", MOVE)
            assert status.Status == 0xB000
            counted = (status.NumberOfCompletedSuboperations, status.NumberOfFailedSuboperations, status.NumberOfWarningSuboperations)
            assert counted == (2, 2, 2)
            assert "NumberOfRemainingSuboperations" not in status
            assert set(failed.FailedSOPInstanceUIDList) == {derived_uid("held", number) for number in (1, 4)}
            assert set(node.retrievals()[-1].detail["failed"].values()) == {"refused with A700"}
            said["of"] = (0xA700,)
            *_, (status, failed) = association.send_c_move(identifier("STUDY", **WHOLE), "WS", MOVE)
            assert status.Status == 0xA702
            assert len(failed.FailedSOPInstanceUIDList) == 6


@pytest.mark.parametrize("path", PATHS)
def test_a_get_whose_association_takes_only_some_sop_classes_names_the_others(tmp_path: Path, path: str) -> None:
    """PS3.4 C.4.3.1: those that were not negotiated fail."""
    with keeping(tmp_path, path) as node:
        node.take([*some(tmp_path, 2), written(tmp_path, 100, sop_class=SECONDARY_CAPTURE)])
        with asking(node.ae, GET, takes=(CT,), stored=lambda event: 0x0000) as association:
            *_, (status, failed) = association.send_c_get(identifier("STUDY", **WHOLE), GET)
        assert (status.Status, status.NumberOfCompletedSuboperations) == (0xB000, 2)
        assert failed.FailedSOPInstanceUIDList == derived_uid("held", 100)
        assert "was not accepted in" in node.retrievals()[-1].detail["failed"][derived_uid("held", 100)]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("how", "stored", "associations"), [("aborts", 5, 2), ("always aborts", 2, 4), ("is silent", 2, 1), ("is not there", 0, 0)])
def test_a_destination_that_fails_costs_its_objects_and_not_the_association_that_asked(
    tmp_path: Path, path: str, how: str, stored: int, associations: int
) -> None:
    """What was not stored is in the list; behind an object that ends the association the others follow; the next request is answered."""
    ends = threading.Event()

    def answer(event: evt.Event, number: int) -> int:
        if (number == 2 and how == "aborts") or (number >= 2 and how == "always aborts"):
            event.assoc.abort()
        if number == 2 and how == "is silent":
            ends.wait(60)
        return 0x0000

    with destination(answer) as met:
        to = f"WS@127.0.0.1:{free_ports(1)[0]}" if how == "is not there" else met.ae
        with keeping(tmp_path, path, workstation(to, timeout_s=1.5)) as node:
            node.take(some(tmp_path, 6))
            with asking(node.ae, MOVE, FIND) as association:
                *_, (status, failed) = association.send_c_move(identifier("STUDY", **WHOLE), "WS", MOVE)
                assert status.Status == (0xB000 if stored else 0xA702)
                assert (status.NumberOfCompletedSuboperations, status.NumberOfFailedSuboperations) == (stored, 6 - stored)
                named = failed["FailedSOPInstanceUIDList"].VM
                assert named == 6 - stored
                assert met.associations == associations
                (one, _), (last, _) = association.send_c_find(identifier("STUDY", StudyInstanceUID=""), FIND)
                assert (one.Status, last.Status) == (0xFF00, 0x0000)
        ends.set()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("model", [MOVE, GET])
def test_who_asked_and_goes_away_is_sent_no_more(tmp_path: Path, path: str, model: str) -> None:
    """The association to the destination ends, the journal tells what was sent, and the node goes on answering."""
    gone = threading.Event()

    def answer(event: evt.Event, number: int) -> int:
        if number == 2:
            gone.wait(30)
        return 0x0000

    with destination(answer) as met, keeping(tmp_path, path, workstation(met.ae)) as node:
        node.take(some(tmp_path, 100))
        counts = iter(range(1000))

        def stored(event: evt.Event) -> int:
            if next(counts) == 2:
                event.assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)
            return 0x0000

        with asking(node.ae, model, takes=(CT,), stored=stored, dimse_timeout_s=2.0) as association:
            if model == MOVE:
                next(association.send_c_move(identifier("STUDY", **WHOLE), "WS", MOVE))
                association.abort()
                gone.set()
            else:
                list(association.send_c_get(identifier("STUDY", **WHOLE), GET))
        (told,) = wait_for(node.retrievals)
        assert told.detail["counts"]["remaining"] > 0
        with asking(node.ae, FIND) as association:
            assert len(list(association.send_c_find(identifier("STUDY", StudyInstanceUID=""), FIND))) == 2


# --------------------------------------------------------------------------------------------------------- being patient


@pytest.mark.parametrize("path", PATHS)
def test_while_one_object_takes_long_the_mover_hears_that_the_node_is_there(tmp_path: Path, path: str) -> None:
    """PS3.4 C.4.2.3.1: pending responses; here the destination answers only once two more have come."""
    heard = threading.Semaphore(0)

    def answer(event: evt.Event, number: int) -> int:
        if number == 1:
            for _ in range(3):  # the one after the first object, and two that only time brings
                assert heard.acquire(timeout=30)
        return 0x0000

    with destination(answer) as met, keeping(tmp_path, path, workstation(met.ae)) as node:
        node.take(some(tmp_path, 2))
        with asking(node.ae, MOVE) as association:
            counted = []
            for status, _ in association.send_c_move(identifier("STUDY", **WHOLE), "WS", MOVE):
                heard.release()
                counted.append(status.get("NumberOfRemainingSuboperations"))
        assert counted[:3] == [1, 1, 1]
        assert (counted[-1], status.Status, status.NumberOfCompletedSuboperations) == (None, 0x0000, 2)


@pytest.mark.parametrize("path", PATHS)
def test_moves_to_one_destination_wait_for_their_place_and_can_be_cancelled_there(tmp_path: Path, path: str) -> None:
    """`associations` of the remote; the one that waits hears that it does, and FE00 when it wants no more."""
    waiting, done = threading.Event(), threading.Event()

    def answer(event: evt.Event, number: int) -> int:
        assert done.wait(30)
        return 0x0000

    def move(node: Keeping, statuses: list[Any]) -> None:
        with asking(node.ae, MOVE) as association:
            statuses += [status for status, _ in association.send_c_move(identifier("STUDY", **WHOLE), "WS", MOVE)]

    with destination(answer) as met, keeping(tmp_path, path, workstation(met.ae, associations=1)) as node:
        node.take(some(tmp_path, 2))
        first: list[Any] = []
        mover = threading.Thread(target=move, args=(node, first))
        mover.start()
        wait_for(lambda: met.associations)
        with asking(node.ae, MOVE) as association:
            for status, _ in association.send_c_move(identifier("STUDY", **WHOLE), "WS", MOVE, msg_id=9):
                if status.Status == 0xFF00 and not waiting.is_set():
                    waiting.set()
                    association.send_c_cancel(9, query_model=MOVE)
            assert (status.Status, status.NumberOfRemainingSuboperations) == (0xFE00, 2)
        assert met.associations == 1
        done.set()
        mover.join(30)
        assert (first[-1].Status, first[-1].NumberOfCompletedSuboperations) == (0x0000, 2)
        third: list[Any] = []
        move(node, third)
        assert (third[-1].Status, met.associations) == (0x0000, 2)


# ----------------------------------------------------------------------------------------------- what is agreed to before


@pytest.mark.parametrize("path", PATHS)
def test_relational_queries_and_retrievals_are_answered_where_they_were_agreed_to(tmp_path: Path, path: str) -> None:
    """PS3.4 C.4.1.2.2 and C.5: A900 without; what else is proposed is not agreed to."""
    alone = {"SOPInstanceUID": derived_uid("held", 1)}
    with keeping(tmp_path, path) as node:
        node.take(some(tmp_path, 3))
        for agreed, statuses in ((b"", [0xA900]), (b"\x00", [0xA900]), (b"\x01\x01\x01", [0xFF00, 0x0000])):
            with asking(node.ae, FIND, agreed=agreed) as association:
                assert [status.Status for status, _ in association.send_c_find(identifier("IMAGE", **alone), FIND)] == statuses
                answers = association.acceptor.sop_class_extended.values()
                assert [*answers] == ([b"\x01\x00\x00"] if agreed[:1] == b"\x01" else [agreed] if agreed else [])
        for agreed, ends in ((b"", 0xA900), (b"\x01", 0x0000)):
            with asking(node.ae, GET, takes=(CT,), agreed=agreed, stored=lambda event: 0x0000) as association:
                *_, (status, _) = association.send_c_get(identifier("IMAGE", **alone), GET)
                assert status.Status == ends


@pytest.mark.parametrize("path", PATHS)
def test_a_study_of_more_sop_classes_than_one_association_takes_goes_out_over_several(tmp_path: Path, path: str) -> None:
    """PS3.8 9.3.2.2: 128 contexts each."""
    classes = [str(context.abstract_syntax) for context in AllStoragePresentationContexts][:70]
    with destination(lambda event, number: 0x0000) as met, keeping(tmp_path, path, workstation(met.ae)) as node:
        node.take([written(tmp_path, number, sop_class=uid) for number, uid in enumerate(classes)])
        with asking(node.ae, MOVE) as association:
            *_, (status, _) = association.send_c_move(identifier("STUDY", **WHOLE), "WS", MOVE)
        assert (status.Status, status.NumberOfCompletedSuboperations) == (0x0000, 70)
        assert met.associations == 2


@pytest.mark.parametrize("path", PATHS)
def test_a_result_is_found_and_retrieved_with_its_study_once_its_job_is_done(tmp_path: Path, path: str) -> None:
    """Whoever fetches the study gets what the node made of it, in the bytes that the job wrote."""
    came: dict[str, bytes] = {}

    def stored(event: evt.Event) -> int:
        came[event.request.AffectedSOPInstanceUID] = event.request.DataSet.getvalue()
        return 0x0000

    with keeping(tmp_path, path) as node:
        node.take(some(tmp_path, 2))
        arrange.judged(node.store, STUDY)
        job = arrange.claimed(node.store)
        made = written(tmp_path, 100, sop_class=SECONDARY_CAPTURE, Modality="SEG")
        result = Result(
            job_id=job.id,
            kind="SEG",
            sop_class_uid=SECONDARY_CAPTURE,
            sop_instance_uid=derived_uid("held", 100),
            series_instance_uid=derived_uid("held", "series", SECONDARY_CAPTURE),
            study_instance_uid=STUDY,
            path=node.store.archive.write_result(made.read_bytes(), job.identity, "SEG", made_at=0.0),
            digest="",
            header={"Modality": "SEG", "PatientID": "MARKED"},
        )
        with asking(node.ae, FIND, GET, takes=(CT, SECONDARY_CAPTURE), stored=stored) as association:
            series = identifier("SERIES", Modality="", **WHOLE, SeriesInstanceUID="")
            assert [found.Modality for _, found in association.send_c_find(series, FIND) if found] == ["CT"]
            assert node.store.jobs.complete(job, [result], now=0.0, why="made it")
            assert {found.Modality for _, found in association.send_c_find(series, FIND) if found} == {"CT", "SEG"}
            *_, (status, _) = association.send_c_get(identifier("STUDY", **WHOLE), GET)
            assert (status.Status, status.NumberOfCompletedSuboperations) == (0x0000, 3)
        assert came[result.sop_instance_uid] == made.read_bytes()[split_dataset(made)[1] :]
