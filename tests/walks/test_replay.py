"""What a receiver answers and keeps does not depend on its store path, nor on how TCP cut the bytes: real conversations, recorded and played again.

Each sender talks to the stock path through a recorder; what that path answered and kept is what every replay must give.

What may differ between two receivers of the same bytes, and is therefore not compared:

* the names of files and the ids of rows: they are rolled anew (`Archive.draft`), the order of rows is compared;
* the order of answers, and of rows, where the client waits for none: a window of asynchronous operations (PS3.7 D.3.3.3) was negotiated, which the
  stock path answers with one at a time; or C-STORE overtakes a C-ECHO although there is no window. The answers themselves are compared;
* a PDU without items, which the stock path passes over, and a request for release while answers are outstanding, which it may grant before them;
* where the client broke the protocol, the A-ABORT (PS3.8 9.3.8) that ends the connection: pynetdicom's thread dies of some of it and only hangs up,
  and which source and reason are said is a matter of taste. That it hangs up, and all that was said before, is compared.
"""

import gc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmwrite

from dicom_node.domain import AE
from tests.orthanc import orthanc
from tests.walks.kept import PATHS, House, Kept, eventually, house, serving
from tests.walks.pdus import ABORT, CT_IMAGE, EXPLICIT, RELEASE_RQ, associate_rq, message, p_data, store_rq
from tests.walks.recorded import Cut, End, Recorder, Recording, Turn, as_recorded, at, pdus, play, single_bytes, through_headers, whole
from tests.walks.scripts import ALLOWED, REQUEST, WRONG, eight, split
from tests.walks.senders import CASES, SYNTAXES, Case, orthanc_stores, small

# What pynetdicom's threads make of a client that is wrong: they die of it, or pydicom warns of its UIDs and elements.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
    pytest.mark.filterwarnings("ignore:Invalid value for VR UI:UserWarning"),
    pytest.mark.filterwarnings("ignore:VR lookup failed for the raw element:UserWarning"),
]

CUTS: dict[str, Cut] = {"as recorded": as_recorded, "whole": whole, "through headers": through_headers, "single bytes": single_bytes}
_MOST_BYTES = {"single bytes": 3_000}  # of a recording: each byte is read before the next is sent
_CUTS = {"stock": ("whole",), "fast": tuple(CUTS)} if len(PATHS) > 1 else {"stock": tuple(CUTS)}  # the path that is held against the other: all
_NODE = {"max_pdu_bytes": 1 << 20, "network_timeout_s": 2, "acse_timeout_s": 2}
_PATIENT = {"network_timeout_s": 20, "acse_timeout_s": 20}  # with real senders, of which none falls silent, however busy the machine
_ABORTED = b"\x07"  # the type of an A-ABORT PDU

IN_ANY_ORDER = (
    "pynetdicom, everything negotiated",
    "eight images without waiting, in a window that was asked for",
    "images and echoes without waiting",
)

Outcome = tuple[bytes, Kept]


class Street:
    """Houses, one for each path and cut, so that none has seen what it is played; one that real senders talk to, and what was recorded there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._houses: dict[tuple[str, str], House] = {}
        self._known: dict[str, tuple[Recording, Outcome]] = {}
        self.recorder = Recorder(self.house("stock", "live").port)

    def house(self, path: str, name: str) -> House:
        """Return the house of a path and a cut, or of another name; it is opened when first asked for."""
        if (path, name) not in self._houses:
            self._houses[path, name] = House(self._folder / f"{path} {name}", path, **_NODE | (_PATIENT if name == "live" else {}))
        return self._houses[path, name]

    def recorded(self, name: str, case: Case) -> tuple[Recording, Outcome]:
        """Let a real sender talk to the stock path, once, and return what it said, and what came of it."""
        if name not in self._known:
            self.recorder.pdu_bytes = case.pdu_bytes
            case.send(AE("DICOM_NODE", "127.0.0.1", self.recorder.port), self._folder / f"files {len(self._known)}")
            (recording,) = self.recorder.take()
            self._known[name] = recording, (recording.said, self.house("stock", "live").kept())
        return self._known[name]

    def played(self, recording: Recording, path: str) -> dict[str, Outcome]:
        """Play a recording to a path by its cuts that are not too slow for the recording's size."""
        outcomes = {}
        for name in _CUTS[path]:
            if recording.size_bytes <= _MOST_BYTES.get(name, recording.size_bytes):
                player = self.house(path, name)
                outcomes[name] = play(recording, player.port, CUTS[name]), player.kept()
        return outcomes

    def by_hand(self, name: str, recording: Recording) -> Outcome:
        """Return what the stock path makes of a conversation that nobody recorded."""
        if name not in self._known:
            player = self.house("stock", "by hand")
            self._known[name] = recording, (play(recording, player.port), player.kept())
        return self._known[name][1]

    def close(self) -> None:
        for opened in self._houses.values():
            opened.close()


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Street]:
    street = Street(tmp_path_factory.mktemp("replay"))
    with street.recorder:
        yield street
    street.close()
    assert eventually(lambda: not serving()), serving()


@pytest.fixture(scope="module")
def orthanc_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with orthanc(tmp_path_factory.mktemp("orthanc"), SynchronousCMove=True) as (_, url):
        yield url


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", [*CASES, *SYNTAXES])
def test_what_a_real_sender_sends_is_answered_and_kept_the_same(street, name, path):
    """PS3.8 9.3, Annex E: however PDUs are cut by TCP, and messages by PDUs. Every transfer syntax is kept as it came."""
    case = {**CASES, **SYNTAXES}[name]
    recording, outcome = street.recorded(name, case)
    assert len(outcome[1].instances) == case.stores and not outcome[1].quarantine
    for cut, replayed in street.played(recording, path).items():
        assert _comparable(name, replayed) == _comparable(name, outcome), f"by {path}, {cut}"


ORTHANC = {"images": {}, "images, in JPEG 2000": {"Transcode": "1.2.840.10008.1.2.4.90"}, "images, deflated": {"Transcode": "1.2.840.10008.1.2.1.99"}}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("what", ORTHANC)
def test_what_orthanc_sends_is_answered_and_kept_the_same(street, orthanc_url, path, what):
    case = Case(send=lambda to, folder: orthanc_stores(orthanc_url, to, small(f"Orthanc {what}", folder), **ORTHANC[what]), stores=3)
    recording, outcome = street.recorded(f"Orthanc, {what}", case)
    assert len(outcome[1].instances) == case.stores
    for cut, replayed in street.played(recording, path).items():
        assert replayed == outcome, f"by {path}, {cut}"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ALLOWED)
def test_what_no_sender_says_but_the_standard_allows_is_answered_and_kept_the_same(street, name, path):
    """PS3.8 9.3.5, Annex E; PS3.7 6.3, 9.3."""
    outcome = street.by_hand(name, ALLOWED[name])
    assert len(pdus(outcome[0])) == ALLOWED[name].answers
    for cut, replayed in street.played(ALLOWED[name], path).items():
        assert _comparable(name, replayed) == _comparable(name, outcome), f"by {path}, {cut}"


def _comparable(name: str, outcome: Outcome) -> tuple[Any, Any]:
    """Leave out, where it may differ, the order, and the acceptance, which says the window."""
    said, kept = outcome
    return (sorted(pdus(said)[1:]), sorted(kept.instances)) if name in IN_ANY_ORDER else outcome


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", WRONG)
def test_what_the_standard_forbids_ends_the_association_and_keeps_the_same(street, name, path):
    """PS3.8 9.2, 9.3.8: every path hangs up, having said the same before; an A-ABORT at the end may be missing or worded otherwise."""
    said, kept = street.by_hand(name, WRONG[name])
    for cut, (also_said, also_kept) in street.played(WRONG[name], path).items():
        assert (_before_abort(also_said), also_kept) == (_before_abort(said), kept), f"by {path}, {cut}"


def _before_abort(said: bytes) -> list[bytes]:
    return [pdu for pdu in pdus(said) if not pdu.startswith(_ABORTED)]


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places=st.lists(st.floats(0, 1, exclude_max=True), max_size=60))
def test_it_makes_no_difference_where_tcp_cuts(street, path, places):
    recording = ALLOWED["C-ECHO before, between and after C-STORE"]
    said, _ = street.by_hand("C-ECHO before, between and after C-STORE", recording)
    assert play(recording, street.house(path, "any cut").port, at(places)) == said


@pytest.mark.parametrize("path", [path for path in PATHS if path == "fast"])  # pynetdicom may release before it has answered
def test_what_is_outstanding_when_the_sender_asks_for_release_is_answered_first(street, path):
    """PS3.8 7.2: release loses no information in transit."""
    asked = Recording.of((0, REQUEST), (1, eight("before release") + RELEASE_RQ), answers=10)
    for name, cut in CUTS.items():
        player = street.house(path, name)
        assert [pdu[0] for pdu in pdus(play(asked, player.port, cut))] == [2, *[4] * 8, 6], name
        assert len(player.kept().instances) == 8


@pytest.mark.parametrize("path", [path for path in PATHS if path == "fast"])  # pynetdicom passes over it
def test_a_pdu_without_items_is_aborted(street, path):
    """PS3.8 Table 9-22: one or more presentation data values."""
    said = play(Recording.of((0, REQUEST), (1, p_data()), answers=2), street.house(path, "whole").port)
    assert [pdu[0] for pdu in pdus(said)] == [2, 7]


# ------------------------------------------------------------------------------------------------------- leaving at any byte

STUDY = "1.2.3.77777"  # in whose place each conversation has a study of its own
LEAVING: dict[str, dict[str, Any]] = {
    "with an A-ABORT": {"end": End.CLOSED, "last": ABORT},
    "with a FIN": {"end": End.CLOSED},
    "with a RST": {"end": End.RESET},
}


def tiny(number: int) -> bytes:
    """Return an image of a few hundred bytes: identity, a row of pixels, and a comment to cut in."""
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = CT_IMAGE, f"{STUDY}.{number}"
    image.StudyInstanceUID, image.SeriesInstanceUID = STUDY, f"{STUDY}.9"
    image.Modality, image.InstanceNumber, image.ImageComments = "CT", number, "x" * 100
    image.Rows, image.Columns, image.BitsAllocated, image.PixelData = 1, 8, 16, bytes(range(16))
    image["PixelData"].VR = "OW"
    content = BytesIO()
    dcmwrite(content, image, implicit_vr=False, little_endian=True)
    return content.getvalue()


def conversation() -> Recording:
    """Two images, each in a few PDUs, and a release."""
    said = []
    for number in (1, 2):
        parts = [p_data(one) for one in split(1, 0, tiny(number), 90)]
        said.append((number, message(1, store_rq(f"{STUDY}.{number}", message=number)) + b"".join(parts)))
    return Recording.of((0, associate_rq(((1, CT_IMAGE, (EXPLICIT,)),))), *said, (3, RELEASE_RQ), answers=4)


def of_study(recording: Recording, number: int) -> Recording:
    turns = tuple(Turn(turn.after, (turn.content.replace(STUDY.encode(), study(number).encode()),)) for turn in recording.turns)
    return replace(recording, turns=turns)


def study(number: int) -> str:
    return f"1.2.3.{10_000 + number}"


def successes(said: bytes) -> int:
    """Count the C-STORE-RSP with status Success (PS3.7 Table 9.3-2)."""
    store_response, success = b"\0\0\0\x01\x02\0\0\0\x01\x80", b"\0\0\0\x09\x02\0\0\0\0\0"
    return sum(pdu[0] == 4 and store_response in pdu and success in pdu for pdu in pdus(said))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("how", LEAVING)
def test_a_sender_may_leave_at_any_byte(tmp_path, path, how):
    """What was answered Success is kept exactly; what was not is not there, or exactly it; no thread, file or connection is left over."""
    whole_one = conversation()
    places = range(0, whole_one.size_bytes + 1, 1 if path == PATHS[-1] else 3)  # of the other path only every third, for the time it takes
    with house(tmp_path, path, max_associations=200) as node:
        play(of_study(whole_one, whole_one.size_bytes + 1), node.port)
        node.kept()
        before = sockets()
        with ThreadPoolExecutor(8) as pool:
            answered = list(pool.map(lambda place: successes(_left(whole_one, place, node.port, how)), places))
        assert eventually(lambda: not serving()) and not node.store.instances.quarantined()
        assert eventually(lambda: gc.collect() >= 0 and sockets() <= before)
        assert successes(play(of_study(whole_one, whole_one.size_bytes + 2), node.port)) == 2
        kept = {one.sop_instance_uid: node.content(one.path) for one in node.instances()}
    _hold(whole_one, dict(zip(places, answered, strict=True)), kept, len(LEAVING[how].get("last", b"")))


def sockets() -> int:
    """Count the connections and listeners that this process holds open."""
    return sum(entry.is_socket() for entry in Path("/proc/self/fd").iterdir())


def _left(recording: Recording, place: int, port: int, how: str) -> bytes:
    return play(of_study(recording.cut_off(place, **LEAVING[how]), place), port, apart=False)


def _hold(recording: Recording, answered: dict[int, int], kept: dict[str, bytes], last: int) -> None:
    """Judge every image but those whose end the sender's last word stands in for: said within a PDU, an A-ABORT is data."""
    ends = [sum(len(turn.content) for turn in recording.turns[: number + 1]) for number in (1, 2)]  # where each image is whole
    for place, count in answered.items():
        for number, end in enumerate(ends, 1):
            if place < end <= place + last:
                continue
            found = kept.get(f"{study(place)}.{number}")
            assert found is not None or count < number, f"left at byte {place}: image {number} was acknowledged and is not there"
            assert found is None or place >= end, f"left at byte {place}: image {number} was never sent whole and is there"
            wanted = tiny(number).replace(STUDY.encode(), study(place).encode())
            assert found is None or found.endswith(wanted), f"left at byte {place}: image {number} is not what was sent"
