"""The node asks archives and fetches from them: DCMTK's dcmqrscp, Orthanc, and archives that misbehave."""

import dataclasses
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pynetdicom.dimse_primitives import C_FIND
from structlog.testing import capture_logs

from dicom_node.config import Node, Remote
from dicom_node.domain import AE, PeerUnavailable, Rejected, RetrievalState, Transient
from dicom_node.query import count, find
from dicom_node.store import Store
from dicom_node.wire import Credentials
from tests import archives
from tests.archives import Archive, archive
from tests.certificates import authority, signed
from tests.dcmtk import dcmqrscp, storescu
from tests.orthanc import free_ports, orthanc
from tests.walks.fetching import STUDY, House, files, study
from tests.walks.node import serving, wait_for

NODE = Node()
ANYONE = Credentials()


def remote(ae: AE, **more: Any) -> Remote:
    return Remote.model_validate({"ae": ae, "may": ["send"], "retrieve": "move", "timeout_s": 15.0, **more})


def ask(ae: AE, level: str = "STUDY", keys: dict[str, str] | None = None, **how: Any) -> tuple[dict[str, Any], ...]:
    return find(remote(ae, **how.pop("remote", {})), NODE, level, keys or {}, credentials=ANYONE, **how)


# ------------------------------------------------------------------------------------------------------------- questions


def test_dcmqrscp_is_asked_level_by_level(tmp_path: Path) -> None:
    """PS3.4 C.4.1, and Tables C.6-5 to C.6-7."""
    images = study(PatientID="P1") + study("there", PatientID="P2", StudyDate="20200202")
    with dcmqrscp(tmp_path / "archive", files(tmp_path / "files", images)) as ae:
        both = ask(ae, keys={"PatientID": "", "StudyDate": ""})
        assert sorted(one["PatientID"] for one in both) == ["P1", "P2"] and len(ask(ae, limit=1)) == 1
        (one,) = ask(ae, keys={"PatientID": "P2", "StudyDate": "20200101-20201231", "StudyInstanceUID": ""})
        series = ask(ae, "SERIES", {"StudyInstanceUID": one["StudyInstanceUID"], "Modality": ""})
        assert len(series) == 2 and {said["Modality"] for said in series} == {"CT"}
        keys = {"StudyInstanceUID": one["StudyInstanceUID"], "SeriesInstanceUID": series[0]["SeriesInstanceUID"], "SOPClassUID": ""}
        assert len(ask(ae, "IMAGE", keys)) == 3
        assert count(remote(ae), NODE, STUDY, credentials=ANYONE) == 6
        assert count(remote(ae), NODE, "1.2.3", credentials=ANYONE) == 0


def test_an_archive_that_ignores_keys_is_not_believed() -> None:
    """Baseline behaviour (PS3.4 C.4.1.2): only unique keys can be relied on, so everything is compared here again."""
    images = study(PatientID="P1", AccessionNumber="A1") + study("there", PatientID="P2", AccessionNumber="A2")

    def ignores(of: Archive, event: Any) -> Iterator[Any]:
        for answer in of.found(_only_level(event.identifier)):
            yield 0xFF00, answer

    with archive(images, find=ignores) as (ae, _):
        assert [one["PatientID"] for one in ask(ae, keys={"PatientID": "P2", "AccessionNumber": ""})] == ["P2"]
        assert [one["PatientID"] for one in ask(ae, keys={"PatientID": "", "AccessionNumber": "A1"})] == ["P1"]
        assert ask(ae, keys={"PatientID": "P3"}) == ()


def _only_level(asked: Dataset) -> Dataset:
    """Return a question without what it asks for."""
    bare = Dataset()
    for element in asked:
        setattr(bare, element.keyword, None)
    bare.QueryRetrieveLevel = asked.QueryRetrieveLevel
    return bare


def test_what_an_archive_does_not_return_cannot_be_compared_but_a_patient_must_be_named() -> None:
    """A key that is left out, or empty with FF01, is not supported; without Patient ID a response is nobody's."""

    def answers(of: Archive, event: Any) -> Iterator[Any]:
        said = Dataset()
        said.QueryRetrieveLevel = "STUDY"
        for number, (status, keywords) in enumerate(
            [(0xFF00, ()), (0xFF01, ("PatientID", "StudyDescription")), (0xFF00, ("PatientID", "StudyDescription")), (0xFF00, ("PatientID",))], 1
        ):
            said = Dataset()
            said.QueryRetrieveLevel, said.StudyInstanceUID = "STUDY", f"1.2.{number}"
            if "PatientID" in keywords:
                said.PatientID = "P1"
            if "StudyDescription" in keywords:
                said.StudyDescription = None
            yield status, said
        said.StudyInstanceUID = None
        yield 0xFF00, said

    with archive(find=answers) as (ae, _):
        found = ask(ae, keys={"PatientID": "P1", "StudyDescription": "CHEST*"})
        assert [one["StudyInstanceUID"] for one in found] == ["1.2.2", "1.2.4"]


@pytest.mark.parametrize("heeds", [True, False])
def test_a_question_is_cancelled_once_there_are_enough_answers(heeds: bool) -> None:
    """C-CANCEL (PS3.7 9.3.2.3), and an archive that does not heed it; the association serves on."""

    def many(of: Archive, event: Any) -> Iterator[Any]:
        for number in range(300):
            if heeds and event.is_cancelled:
                of.cancelled += 1
                yield 0xFE00, None
                return
            said = Dataset()
            said.QueryRetrieveLevel, said.StudyInstanceUID = "STUDY", f"1.2.{number}"
            time.sleep(0.002 if heeds else 0)
            yield 0xFF00, said

    with archive(find=many) as (ae, archived):
        assert [one["StudyInstanceUID"] for one in ask(ae, limit=5)] == [f"1.2.{number}" for number in range(5)]
        assert archived.cancelled == heeds


def test_only_the_patient_root_is_enough(tmp_path: Path, port: int, here: AE) -> None:
    """PS3.4 C.6.1, for archives that have nothing else: below the patient, the Patient ID goes with the question (C.4.1.2.1)."""
    models = (archives.PATIENT_FIND, archives.PATIENT_MOVE)
    with archive(study(PatientID="P1"), models=models, destination=here) as (ae, archived):
        assert len(ask(ae, keys={"PatientID": "P1"})) == 1
        with House(tmp_path, port, pacs=remote(ae)) as house:
            assert house.ended(house.ask()).held == 6
        assert [asked.PatientID for what, asked in archived.asked if what == "move" or asked.QueryRetrieveLevel == "IMAGE"] == ["P1"] * 3


def _garbage(identifier: bytes) -> Callable[[Archive, Any], Iterator[Any]]:
    def answer(of: Archive, event: Any) -> Iterator[Any]:
        said = C_FIND()
        said.MessageIDBeingRespondedTo = event.request.MessageID
        said.AffectedSOPClassUID = event.request.AffectedSOPClassUID
        said.Status, said.Identifier = 0xFF00, BytesIO(identifier)
        event.assoc.dimse.send_msg(said, event.context.context_id)
        yield 0x0000, None

    return answer


def _giant(of: Archive, event: Any) -> Iterator[Any]:
    """Announce a PDU of two gigabytes."""
    event.assoc.dul.socket.socket.sendall(b"\x04\x00\x7f\xff\xff\xff")
    yield 0x0000, None


def _says(status: int) -> Callable[[Archive, Any], Iterator[Any]]:
    def answer(of: Archive, event: Any) -> Iterator[Any]:
        said = Dataset()
        said.Status, said.ErrorComment = status, "MARKED^PATIENT is not to be asked for"
        yield said, None

    return answer


def _aborts(of: Archive, event: Any) -> Iterator[Any]:
    event.assoc.abort()
    yield 0x0000, None


def _never(of: Archive, event: Any) -> Iterator[Any]:
    event.assoc.dul.socket.socket.settimeout(20)
    wait_for(lambda: not event.assoc.is_established, 20)
    yield 0x0000, None


@pytest.mark.parametrize(
    ("how", "error", "says"),
    [
        ({"find": _says(0xA700)}, Transient, "A700"),
        ({"find": _says(0xC001)}, Transient, "C001"),
        ({"find": _says(0xA900)}, Rejected, "A900"),
        ({"find": _says(0x0124)}, Rejected, "not authorised"),
        ({"find": _aborts}, PeerUnavailable, "ended the association"),
        ({"find": _never}, PeerUnavailable, "was silent"),
        ({"find": _garbage(b"\x08\x00\x15\x11SQ\x00\x00\xff\xff\xff\xffMARKED^PATIENT")}, Rejected, "cannot be read"),
        ({"find": _garbage(b"MARKED^PATIENT" * 200_000)}, PeerUnavailable, "ended the association"),
        ({"find": _giant}, PeerUnavailable, "ended the association"),
        ({"models": (archives.MOVE,)}, Rejected, "accepts no query"),
    ],
)
def test_every_bad_ending_is_an_error_that_names_no_patient(how: dict[str, Any], error: type[Exception], says: str) -> None:
    """PS3.4 Table C.4-1, and what archives do beside it."""
    with archive(**how) as (ae, _), capture_logs() as logs, pytest.raises(error, match=says) as raised:
        ask(ae, keys={"PatientName": "MARKED^PATIENT", "PatientID": ""}, patience_s=2.0)
    assert raised.value.hint and "MARKED" not in f"{raised.value}{raised.value.hint}{logs}"


# -------------------------------------------------------------------------------------------------------------- fetching


@pytest.fixture
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture
def here(port: int) -> AE:
    return AE("DICOM_NODE", "127.0.0.1", port)


@pytest.mark.parametrize("path", ["fast", "stock"])
@pytest.mark.parametrize("how", ["move", "get"])
def test_dcmqrscp_gives_a_study(tmp_path: Path, how: str, path: str, port: int, here: AE) -> None:
    """PS3.4 C.4.2 and C.4.3: what is here in the end is what the archive has, byte by byte; the journal tells of it."""
    images = study(PatientID="P1")
    with ExitStack() as stack:
        ae = stack.enter_context(dcmqrscp(tmp_path / "archive", files(tmp_path / "files", images), moves_to={"node": here}))
        with House(tmp_path / "node", port, path=path, pacs=remote(ae, retrieve=how)) as house:
            done = house.ended(house.ask(wanted_for="1.2.3"))
            assert (done.state, done.expected, done.held, done.attempts) == (RetrievalState.COMPLETED, 6, 6, 1), done
            again = house.ended(house.ask())
            assert (again.state, again.id != done.id) == (RetrievalState.COMPLETED, True)
            held = house.store.studies.view(STUDY)
            assert held is not None and {one.calling_ae for one in held.instances} == {"DCMQRSCP"}
            kinds = [event.kind for event in house.store.journal.of_study("1.2.3")]
            assert kinds == ["retrieval asked", "retrieval running", "retrieval completed"]


def test_orthanc_is_asked_and_gives_a_study_both_ways(tmp_path: Path, port: int, here: AE) -> None:
    """Another archive, in another language; PS3.5 6.1: names come as text, a question that needs it is asked in Unicode."""
    images = study(PatientID="P1", PatientName="Müller^Änne", SpecificCharacterSet="ISO_IR 100")
    more = {"DicomAlwaysAllowFind": True, "DicomAlwaysAllowMove": True, "DicomAlwaysAllowGet": True}
    with orthanc(tmp_path / "orthanc", remotes={"node": here}, **more) as (ae, _):
        sent = storescu(files(tmp_path / "files", images), ae)
        assert sent.returncode == 0, sent.stdout
        (one,) = ask(ae, keys={"PatientName": "", "ModalitiesInStudy": "", "NumberOfStudyRelatedInstances": ""})
        assert (one["PatientName"], one["ModalitiesInStudy"], one["NumberOfStudyRelatedInstances"]) == ("Müller^Änne", "CT", "6")
        assert len(ask(ae, keys={"PatientName": "MÜLLER*"})) == 1
        assert ask(ae, keys={"PatientName": "MÖLLER*"}) == ()
        for how in ("move", "get"):
            with House(tmp_path / how, port, pacs=remote(ae, retrieve=how)) as house:
                done = house.ended(house.ask())
                assert (done.state, done.expected, done.held) == (RetrievalState.COMPLETED, 6, 6), done


def test_a_study_comes_over_tls(tmp_path: Path, port: int, here: AE) -> None:
    """PS3.15 B.12, for questions and retrievals; an archive whose certificate has expired is not asked."""
    root = authority(tmp_path, "root")
    valid, old = signed(root, tmp_path, "pacs"), signed(root, tmp_path, "old", days=-1)
    contexts = []
    for pair in (valid, old):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        contexts.append(context)
    images = study(PatientID="P1")
    said = {"retrieve": "get", "tls": {"authorities": root.certificate}}
    with ExitStack() as stack:
        ae, _ = stack.enter_context(archive(images, ssl_context=contexts[0]))
        other, archived = stack.enter_context(archive(images, ssl_context=contexts[1], title="OLD"))
        with House(tmp_path / "node", port, pacs=remote(ae, **said), old=remote(other, **said)) as house:
            assert house.ended(house.ask()).held == 6
            late = house.put_off(house.ask("old"), "expired")
            assert (late.attempts, late.ended_at, archived.asked) == (0, None, [])


def test_success_with_nothing_sent_is_not_believed(tmp_path: Path, port: int, here: AE) -> None:
    """R3.3: the archive says success and sends nothing, each time."""

    def nothing(of: Archive, event: Any) -> Iterator[Any]:
        yield from of.send(event, [])

    with archive(study(), destination=here, move=nothing) as (ae, archived), House(tmp_path / "node", port, pacs=remote(ae)) as house:
        ended = house.ended(house.ask())
        assert (ended.state, ended.attempts, ended.expected, ended.held) == (RetrievalState.FAILED, 3, 6, 0)
        assert "0000: success; 0 of 6 instances are here; given up after 3 attempts" in ended.reason
        assert [what for what, _ in archived.asked].count("move") == 3


def test_what_is_missing_is_asked_for_again(tmp_path: Path, port: int, here: AE) -> None:
    """B000 at first: then only the series of which something is missing is asked for."""
    images = study()

    def part(of: Archive, event: Any) -> Iterator[Any]:
        wanted = of.matching(event.identifier)
        yield from of.send(event, wanted[:-1] if len(wanted) > 3 else wanted, counted=len(wanted))

    with archive(images, destination=here, move=part) as (ae, archived), House(tmp_path / "node", port, pacs=remote(ae)) as house:
        ended = house.ended(house.ask())
        assert (ended.state, ended.held, ended.attempts) == (RetrievalState.COMPLETED, 6, 2), ended
        first, second = (asked for what, asked in archived.asked if what == "move")
        assert (first.QueryRetrieveLevel, second.QueryRetrieveLevel) == ("STUDY", "SERIES")
        assert second.SeriesInstanceUID == images[-1].SeriesInstanceUID


def test_what_is_sent_twice_is_here_once(tmp_path: Path, port: int, here: AE) -> None:
    """An archive repeats itself."""

    def twice(of: Archive, event: Any) -> Iterator[Any]:
        yield from of.send(event, [image for image in of.matching(event.identifier) for _ in range(2)])

    with archive(study(), destination=here, move=twice) as (ae, _), House(tmp_path / "node", port, pacs=remote(ae)) as house:
        assert (house.ended(house.ask()).state, house.here) == (RetrievalState.COMPLETED, 6)


def _answers(status: int) -> Callable[[Archive, Any], Iterator[Any]]:
    def move(of: Archive, event: Any) -> Iterator[Any]:
        assert of.destination is not None
        yield of.destination.host, of.destination.port, {"contexts": archives.contexts_of(of.images)}
        yield len(of.images)
        yield status, Dataset()

    return move


@pytest.mark.parametrize("status", [0xA701, 0xA702, 0xC001])
def test_an_archive_that_cannot_now_is_asked_again_and_at_last_given_up(tmp_path: Path, port: int, here: AE, status: int) -> None:
    """PS3.4 Table C.4-2."""
    with archive(study(), destination=here, move=_answers(status)) as (ae, archived), House(tmp_path / "node", port, pacs=remote(ae)) as house:
        ended = house.ended(house.ask())
        assert (ended.state, ended.attempts) == (RetrievalState.FAILED, 3) and f"{status:04X}" in ended.reason
        assert [what for what, _ in archived.asked].count("move") == 3


def test_an_archive_that_does_not_know_the_node_is_left_alone_for_a_while(tmp_path: Path, port: int) -> None:
    """A801, of dcmqrscp; a person has to enter the node there, and the reason says so."""
    with dcmqrscp(tmp_path / "archive", files(tmp_path / "files", study())) as ae, House(tmp_path / "node", port, pacs=remote(ae)) as house:
        late = house.put_off(house.ask(), "A801")
        assert "have the node's AE title, host and port entered there" in late.reason
        assert (late.state, late.attempts) == (RetrievalState.WAITING, 1) and late.not_before > time.time() + 15


def test_an_archive_that_aborts_in_the_middle_is_asked_for_the_rest(tmp_path: Path, port: int, here: AE) -> None:
    """What came is kept."""
    times: list[int] = []

    def aborts(of: Archive, event: Any) -> Iterator[Any]:
        times.append(1)
        for number, said in enumerate(of.send(event, of.matching(event.identifier))):
            if len(times) == 1 and number == 4:
                event.assoc.abort()
            yield said

    with archive(study(), destination=here, move=aborts) as (ae, _), House(tmp_path / "node", port, pacs=remote(ae)) as house:
        ended = house.ended(house.ask())
        assert (ended.state, ended.held, ended.attempts) == (RetrievalState.COMPLETED, 6, 2), ended
        told = [event.why for event in house.store.journal.of_study(STUDY) if event.kind == "retrieval waiting"]
        assert len(told) == 1 and "ended the association in the middle of a retrieval" in told[0]


def test_an_archive_that_never_answers_is_cut_off(tmp_path: Path, port: int, here: AE) -> None:
    """Not before the remote's time-out, counted from the last sign of life."""

    def never(of: Archive, event: Any) -> Iterator[Any]:
        wait_for(lambda: not event.assoc.is_established, 60)
        yield None, None

    with archive(study(), destination=here, move=never) as (ae, _), House(tmp_path / "node", port, pacs=remote(ae, timeout_s=1.5)) as house:
        late = house.put_off(house.ask(), "sent nothing for 1.5 s")
        assert late.attempts >= 1


def test_roles_that_are_refused_are_told_of(tmp_path: Path, port: int) -> None:
    """PS3.7 D.3.3.4: C-GET is accepted, and no object may come over it: the same again would fail again."""
    # An acceptor of this process would agree to every role while a receiver listens.
    with archive(study(), scp_role=False) as (ae, archived), House(tmp_path, port, listens=False, pacs=remote(ae, retrieve="get")) as house:
        ended = house.ended(house.ask())
        assert (ended.state, ended.attempts) == (RetrievalState.FAILED, 1)
        assert 'set retrieve = "move"' in ended.reason and "get" not in [what for what, _ in archived.asked]


def test_what_the_door_refuses_fails_in_the_retrieval(tmp_path: Path, port: int) -> None:
    """C-GET: an object that is not made durable is not answered success, and the archive counts it as failed."""
    images = study()
    with archive(images) as (ae, _), House(tmp_path / "node", port, pacs=remote(ae, retrieve="get")) as house:
        refused = {images[0].SOPInstanceUID}
        take = house.fetching._slots[0]._owner.take

        def reluctant(data_set: memoryview, **said: Any) -> tuple[int, str]:
            return (0xA700, "no room") if said["sop_instance_uid"] in refused else take(data_set, **said)

        for slot in house.fetching._slots:
            slot._owner = dataclasses.replace(slot._owner, take=reluctant)
        late = house.put_off(house.ask(), "B000")
        assert late.held == 5 and "1 sub-operations failed" in late.reason
        refused.clear()
        assert house.ended(late).state is RetrievalState.COMPLETED


def test_what_was_not_asked_for_is_not_taken(tmp_path: Path, port: int) -> None:
    """C-GET: who may not send cannot send by the way."""
    images, other = study(), study("there")

    def more(of: Archive, event: Any) -> Iterator[Any]:
        yield 7
        for image in (other[0], *of.matching(event.identifier)):
            yield 0xFF00, image

    with archive([*images, *other], get=more) as (ae, _), House(tmp_path, port, pacs=remote(ae, retrieve="get", may=[])) as house:
        done = house.ended(house.ask())
        assert (done.state, done.held) == (RetrievalState.COMPLETED, 6)
        assert house.store.studies.view(other[0].StudyInstanceUID) is None


def test_an_archive_that_is_away_costs_no_attempt(tmp_path: Path, port: int, here: AE) -> None:
    """It is reached in the end."""
    away = AE("ARCHIVE", "127.0.0.1", free_ports(1)[0])
    with House(tmp_path / "node", port, pacs=remote(away)) as house:
        late = house.put_off(house.ask(), "nobody listens")
        assert late.attempts == 0


def test_a_retrieval_goes_on_when_another_node_takes_it_up(tmp_path: Path, port: int, here: AE) -> None:
    """A holder that was killed: its lease ends, and what is here by then is not lost."""
    with ExitStack() as stack:
        ae, _ = stack.enter_context(archive(study(), destination=here))
        house = House(tmp_path / "node", port, pacs=remote(ae))
        one = house.ask()
        assert house.store.retrievals.claim("pacs", "a process that was killed", now=time.time(), lease_s=1.0)
        stack.enter_context(house)
        done = house.ended(one)
        assert (done.state, done.attempts, house.here) == (RetrievalState.COMPLETED, 2, 6)


def test_a_person_stops_a_retrieval_that_runs(tmp_path: Path, port: int, here: AE) -> None:
    """C-CANCEL reaches the archive."""

    def slowly(of: Archive, event: Any) -> Iterator[Any]:
        for said in of.send(event, of.matching(event.identifier)):
            time.sleep(0.3)
            yield said

    with archive(study(), destination=here, move=slowly) as (ae, archived), House(tmp_path / "node", port, pacs=remote(ae)) as house:
        one = house.ask()
        wait_for(lambda: house.here)
        house.store.retrievals.cancel(one.id, who="anna", now=time.time())
        wait_for(lambda: archived.cancelled)
        assert house.now(one).state is RetrievalState.CANCELED and house.here < 6


def test_two_at_once_and_no_more(tmp_path: Path, port: int, here: AE) -> None:
    """`retrieves_at_once` (R3.6)."""
    images = [image for number in range(5) for image in study(f"study {number}", series=1)]
    running, most = [], []

    def counted(of: Archive, event: Any) -> Iterator[Any]:
        running.append(1)
        most.append(len(running))
        time.sleep(0.2)
        yield from of.send(event, of.matching(event.identifier))
        running.pop()

    with archive(images, destination=here, move=counted) as (ae, _), House(tmp_path / "node", port, pacs=remote(ae, retrieves_at_once=2)) as house:
        asked = [house.ask(uid=uid) for uid in sorted({image.StudyInstanceUID for image in images})]
        assert {house.ended(one).state for one in asked} == {RetrievalState.COMPLETED}
        assert max(most) == 2


def test_outside_the_hours_only_what_persons_asked_for_is_fetched(tmp_path: Path, port: int, here: AE) -> None:
    """`retrieve_hours`."""
    later = time.localtime(time.time() + 7200)
    hours = [f"{later.tm_hour:02}:00-{later.tm_hour:02}:30"]
    images = [*study(series=1), *study("there", series=1)]
    with archive(images, destination=here) as (ae, _), House(tmp_path / "node", port, pacs=remote(ae, retrieve_hours=hours)) as house:
        by_rule = house.store.retrievals.ask("pacs", STUDY, who="the rule", why="earlier studies", now=time.time())
        assert house.ended(house.ask(uid=images[-1].StudyInstanceUID)).state is RetrievalState.COMPLETED
        assert house.now(by_rule).state is RetrievalState.WAITING
        assert house.ended(house.ask()).id == by_rule.id


# ------------------------------------------------------------------------------------------------------ the whole program


def test_a_person_has_a_study_fetched_and_a_kill_loses_nothing(tmp_path: Path, port: int, here: AE) -> None:
    """`fetch`, while nobody serves, while the node is killed in the middle, and until it is here; its rules then judge it."""
    images = study(PatientID="MARKED-ID", PatientName="MARKED^NAME", StudyDescription="CHEST")
    slow = [True]

    def slowly(of: Archive, event: Any) -> Iterator[Any]:
        for said in of.send(event, of.matching(event.identifier)):
            time.sleep(0.5 if slow[0] else 0)
            yield said

    with archive(images, destination=here, move=slowly) as (ae, _):
        remotes = {"pacs": {"ae": str(ae), "may": ["send"], "retrieve": "move", "timeout_s": 15.0}}
        remotes["scanner"] = {"ae": "SCANNER@127.0.0.1:104", "may": ["send"]}
        said = {"remotes": remotes, "rules": [], "models": {}, "port": port, "storage": tmp_path / "data"}
        with pytest.raises(AssertionError), serving(tmp_path / "first", **said) as node:
            listed = node.verb("fetch", "pacs", "--patient-id", "MARKED-ID", "--json")
            assert [(one["study_instance_uid"], one["instances"], one["here"], one["asked"]) for one in listed.json] == [(STUDY, "6", 0, None)]
            assert "MARKED" not in listed.all and "MARKED" not in node.verb("fetch", "pacs", "--patient-id", "MARKED-ID").all
            assert node.verb("fetch", "pacs", "--study", STUDY, "--get").code == 0
            wait_for(lambda: node.store.retrievals.here(STUDY))
            node.process.kill()
        slow[0] = False
        store = Store.open(tmp_path / "data")
        (left,) = store.retrievals.list()
        assert left.state is RetrievalState.RUNNING and len(store.retrievals.here(STUDY)) < 6
        with store.database.write() as connection:  # so that the test does not wait for the lease of a minute
            connection.exec_driver_sql("UPDATE retrieval SET lease_until = 0")
        store.close()
        with serving(tmp_path / "second", **said) as node:
            waited = node.verb("fetch", "pacs", "--study", STUDY, "--get", "--wait")
            assert waited.code == 0 and "completed, 6 instances" in waited.err, waited
            wait_for(lambda: node.study(STUDY).get("state") == "COMPLETE")
            assert [one["state"] for one in node.verb("retrievals", "--json").json] == ["COMPLETED"] * len(node.store.retrievals.list())
            assert node.verb("fetch", "nobody", "--study", STUDY).code == 1 and node.verb("fetch", "pacs").code == 1
            assert "MARKED" not in node.log + (tmp_path / "first" / "node.log").read_text()
