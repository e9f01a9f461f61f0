"""UPS-RS without a socket: every cell of the table of states, every code and Warning, and whatever a client may send (PS3.18 chapter 11)."""

import json
import time
from collections.abc import Iterator
from email.parser import BytesParser
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from starlette.testclient import TestClient

from dicom_node.config import load_site
from dicom_node.domain import FILTERED_SUBSCRIPTION, GLOBAL_SUBSCRIPTION, Channel, JobState
from dicom_node.serve.joining import managing
from dicom_node.serve.web import context
from dicom_node.store import Store
from dicom_node.web import Context, build
from dicom_node.web.dicomweb.native import native_xml
from dicom_node.web.ups.native import NotNative, model_of_xml
from dicom_node.web.ups.outcomes import Asked, outcome
from dicom_node.web.ups.reading import MOST_BYTES, Unreadable, dataset
from dicom_node.worklist.ups.states import TABLE, Effect, Wish, may_be_set
from tests.upsrs import RIGHT, WRONG, Client, asked_state, body, code, discontinued, performed, progressed, wanted, whole

BASE = "http://127.0.0.1:8080"
STATES = (None, JobState.SCHEDULED, JobState.IN_PROGRESS, JobState.COMPLETED, JobState.CANCELED)
HIDDEN = "00081195"


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    """The web of a node on its defaults."""
    site = load_site(None, node={"storage": tmp_path_factory.mktemp("ups") / "data", "disk_reserve_mb": 0})
    store = Store.of(site.config.node)
    yield context(site, store, time.time)
    store.close()


@pytest.fixture(scope="module")
def client(web: Context) -> Iterator[Client]:
    """A client of it; nothing that it ever hears has a Transaction UID (PS3.4 CC.2.7)."""
    with TestClient(build(web), base_url=BASE) as http:
        client = Client(http)
        yield client
        assert [said for said in client.heard if HIDDEN in said or RIGHT in said or WRONG in said] == []


def warnings_of(answer: Any) -> list[str]:
    return [text.partition(": ")[2] for text in answer.headers.get_list("warning")]


# --------------------------------------------------------------------------------------------------- the table of states

_CELLS = [(wish, is_right, state) for (wish, is_right), row in TABLE.items() for state in row if wish not in (Wish.CREATE, Wish.ASK_TO_CANCEL)]


@pytest.mark.parametrize(("wish", "is_right", "state"), _CELLS)
def test_a_state_is_changed_as_the_table_says(client: Client, wish: Wish, is_right: bool, state: JobState | None) -> None:
    """PS3.4 Table CC.1.1-2 over PS3.18 11.7: the outcome of DIMSE, as a status of HTTP; and nothing else has changed."""
    uid = client.brought_to(state)
    expected = TABLE[wish, is_right][state]
    if state is JobState.IN_PROGRESS and expected.effect in (Effect.COMPLETE, Effect.CANCEL):
        client.update(uid, performed() if expected.effect is Effect.COMPLETE else discontinued())
    given = RIGHT if is_right else WRONG if state in (JobState.IN_PROGRESS, JobState.COMPLETED, JobState.CANCELED) else ""
    answer = client.state(uid, wish.value, given)
    said = outcome(Asked.STATE, expected.status, has_transaction=bool(given))
    assert (answer.status_code, warnings_of(answer)) == (said.code, [said.warning] if said.warning else [])
    if state is not None:
        after = wish.value if expected.effect is not Effect.NONE else state.value
        assert client.get(uid).ProcedureStepState == after


@pytest.mark.parametrize("state", STATES)
def test_cancellation_is_asked_for_as_the_table_says(client: Client, state: JobState | None) -> None:
    """PS3.4 CC.2.2: what waits is canceled, the performer of what runs is told; what has ended conflicts (PS3.18 11.8)."""
    uid = client.brought_to(state)
    said = outcome(Asked.CANCEL, TABLE[Wish.ASK_TO_CANCEL, False][state].status)
    answer = client.ask("POST", f"/workitems/{uid}/cancelrequest")
    assert (answer.status_code, warnings_of(answer)) == (said.code, [said.warning] if said.warning else [])
    assert answer.status_code == {None: 404, "SCHEDULED": 202, "IN PROGRESS": 202, "COMPLETED": 409, "CANCELED": 409}[state]


@pytest.mark.parametrize("given", ["", RIGHT, WRONG])
@pytest.mark.parametrize("state", STATES[1:])
def test_a_workitem_is_changed_by_whom_the_table_lets(client: Client, state: JobState, given: str) -> None:
    """PS3.4 CC.2.6.3 over PS3.18 11.6."""
    uid = client.brought_to(state)
    status = may_be_set(state, given=given, held=RIGHT)
    answer = client.update(uid, progressed(40), given)
    said = outcome(Asked.UPDATE, status, has_transaction=bool(given))
    assert (answer.status_code, warnings_of(answer)) == (said.code, [said.warning] if said.warning else [])


@pytest.mark.parametrize(
    ("asked", "status", "has_transaction", "code", "text"),
    [
        (Asked.UPDATE, 0xC301, False, 400, "The Transaction UID is missing."),
        (Asked.UPDATE, 0xC301, True, 400, "The Transaction UID is incorrect."),
        (Asked.UPDATE, 0xC300, True, 400, "The submitted request is inconsistent with the state of the UPS Instance."),
        (Asked.STATE, 0xC301, True, 400, "The Transaction UID is incorrect."),
        (Asked.STATE, 0xC302, True, 409, "The submitted request is inconsistent with the state of the UPS Instance."),
        (Asked.STATE, 0xB306, True, 200, "The UPS is already in the requested state of COMPLETED."),
        (Asked.CREATE, 0x0111, False, 409, ""),
        (Asked.CREATE, 0xB300, False, 201, "The Workitem was created with modifications."),
        (Asked.RETRIEVE, 0xC307, False, 404, ""),
        (Asked.SUBSCRIBE, 0x0000, False, 201, ""),
        (Asked.SUSPEND, 0xC314, False, 400, ""),
    ],
)
def test_a_status_of_dimse_is_one_of_http(asked: Asked, status: int, has_transaction: bool, code: int, text: str) -> None:
    """PS3.18 Tables 11.4.3-1 to 11.12.3-1, in words: the other tests read the same table."""
    found = outcome(asked, status, has_transaction=has_transaction)
    assert (found.code, found.warning) == (code, text)


# ----------------------------------------------------------------------------------------------------------- one workitem


def test_a_workitem_is_created_where_its_requester_says(client: Client) -> None:
    """PS3.18 11.4: 201 with Location; the same again conflicts."""
    answer = client.ask("POST", "/workitems?1.2.3.10", whole())
    assert (answer.status_code, answer.headers["location"]) == (201, f"{BASE}/dicom-web/workitems/1.2.3.10")
    assert "warning" not in answer.headers
    assert client.ask("POST", "/workitems?1.2.3.10", whole()).status_code == 409
    assert client.get("1.2.3.10").PatientName == "Marked^Ada"


def test_a_workitem_without_a_uid_is_given_one(client: Client) -> None:
    answer = client.ask("POST", "/workitems", wanted())
    assert answer.status_code == 201
    assert warnings_of(answer) == ["The Workitem was created with modifications."]
    made = client.get(answer.headers["location"].rpartition("/")[2])
    assert (made.ProcedureStepState, made.ScheduledWorkitemCodeSequence[0].CodeValue) == ("SCHEDULED", "RIBS")


@pytest.mark.parametrize("keyword", ["ProcedureStepState", "ScheduledProcedureStepPriority", "ProcedureStepLabel", "InputReadinessState"])
def test_a_workitem_that_does_not_say_what_it_must_is_refused(client: Client, keyword: str) -> None:
    """PS3.4 Table CC.2.5-3, type 1; the answer names the attribute."""
    answer = client.ask("POST", "/workitems", wanted(**{keyword: None}))
    assert answer.status_code == 400
    assert keyword in answer.json()["error"]


@pytest.mark.parametrize("address", ["/workitems?1.2.a", "/workitems?1.2&1.3", "/workitems?1.02", "/workitems?workitem=x"])
def test_a_query_that_is_no_uid_is_refused(client: Client, address: str) -> None:
    assert client.ask("POST", address, whole()).status_code == 400


@pytest.mark.parametrize("address", ["/workitems?workitem=1.2.3.20", "/workitems?AffectedSOPInstanceUID=1.2.3.21"])
def test_a_uid_may_be_named(client: Client, address: str) -> None:
    assert client.ask("POST", address, whole()).headers["location"].endswith(address.rpartition("=")[2])


def test_a_uid_may_be_in_the_data_set_but_not_another_than_in_the_address(client: Client) -> None:
    said = whole()
    said.SOPInstanceUID = "1.2.3.30"
    assert client.ask("POST", "/workitems?1.2.3.31", said).status_code == 400
    assert client.ask("POST", "/workitems", said).headers["location"].endswith("/1.2.3.30")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/workitems/1.2.x"),
        ("POST", "/workitems/1.2.x"),
        ("PUT", "/workitems/1.2.x/state"),
        ("POST", "/workitems/1.2.x/cancelrequest"),
        ("POST", "/workitems/1.2.x/subscribers/ME"),
        ("POST", f"/workitems/{GLOBAL_SUBSCRIPTION}/subscribers/TOO_LONG_FOR_AN_AE"),
    ],
)
def test_what_an_address_has_wrong_is_the_clients_fault(client: Client, method: str, path: str) -> None:
    assert client.ask(method, path, asked_state("IN PROGRESS", RIGHT) if method != "GET" else None).status_code == 400


def test_a_workitem_is_retrieved_as_xml(client: Client) -> None:
    """PS3.18 8.7.3: one part for each data set; the same attributes as in JSON."""
    uid = client.create()
    answer = client.ask("GET", f"/workitems/{uid}", Accept='multipart/related; type="application/dicom+xml"')
    assert answer.status_code == 200
    (part,) = parts_of(answer)
    assert Dataset.from_json(model_read(part)).ScheduledWorkitemCodeSequence[0].CodeValue == "RIBS"
    assert client.ask("GET", f"/workitems/{uid}", Accept="image/png").status_code == 406


def parts_of(answer: Any) -> list[bytes]:
    message = BytesParser().parsebytes(f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode() + answer.content)
    return [part.get_payload(decode=True) for part in message.get_payload()]


def model_read(document: bytes) -> dict[str, Any]:
    return dataset(document, "application/dicom+xml").to_json_dict()


@pytest.mark.parametrize("kind", ["application/dicom+xml", "application/xml", 'multipart/related; type="application/dicom+xml"; boundary=b-1'])
def test_a_workitem_may_come_as_xml(client: Client, kind: str) -> None:
    document = native_xml(whole().to_json_dict())
    content = document if "multipart" not in kind else b"--b-1\r\nContent-Type: application/dicom+xml\r\n\r\n" + document + b"\r\n--b-1--\r\n"
    answer = client.ask("POST", "/workitems", content, Content_Type=kind)
    assert answer.status_code == 201, answer.text
    made = client.get(answer.headers["location"].rpartition("/")[2])
    assert (str(made.PatientName), made.ScheduledStationNameCodeSequence[0].CodeValue) == ("Marked^Ada", "RIBCOUNTER")


def test_the_transaction_uid_may_be_named_in_the_query(client: Client) -> None:
    uid = client.brought_to(JobState.IN_PROGRESS)
    assert client.ask("POST", f"/workitems/{uid}?transaction-uid={RIGHT}", progressed(10)).status_code == 200
    assert client.get(uid).ProcedureStepProgressInformationSequence[0].ProcedureStepProgress == 10


def test_a_final_state_that_lacks_something_conflicts(client: Client) -> None:
    """PS3.4 C304: the step does not say what was performed."""
    uid = client.brought_to(JobState.IN_PROGRESS)
    answer = client.state(uid, "COMPLETED")
    assert answer.status_code == 409
    assert "UnifiedProcedureStepPerformedProcedureSequence" in answer.json()["error"]


# ------------------------------------------------------------------------------------------------------------- the worklist


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A node with three workitems: of two stations, one of them claimed."""
    site = load_site(None, node={"storage": tmp_path_factory.mktemp("three") / "data", "disk_reserve_mb": 0})
    store = Store.of(site.config.node)
    with TestClient(build(context(site, store, time.time)), base_url=BASE) as http:
        client = Client(http)
        for number, station in ((1, "A"), (2, "B"), (3, "A")):
            said = whole()
            said.ScheduledStationNameCodeSequence, said.ProcedureStepLabel = [code(station)], f"Step {number}"
            assert client.ask("POST", f"/workitems?1.2.{number}", said).status_code == 201
        assert client.state("1.2.3", "IN PROGRESS").status_code == 200
        yield client
    store.close()


@pytest.mark.parametrize(
    ("query", "code", "meant"),
    [
        ("", 200, "123"),
        ("ProcedureStepState=SCHEDULED", 200, "12"),
        ("00741000=IN%20PROGRESS", 200, "3"),
        ("ScheduledStationNameCodeSequence.CodeValue=A", 200, "13"),
        ("00404025.00080100=B", 200, "2"),
        ("SOPInstanceUID=1.2.1,1.2.3", 200, "13"),
        ("ProcedureStepLabel=*2", 200, "2"),
        ("ScheduledProcedureStepStartDateTime=2026-2027", 200, "123"),
        ("PatientID=MARKED_7&fuzzymatching=false", 200, "123"),
        ("PatientID=nobody", 204, ""),
        ("limit=2", 206, "12"),
        ("limit=2&offset=2", 200, "3"),
        ("limit=3", 200, "123"),
        ("offset=3", 204, ""),
        ("limit=0", 204, ""),
        ("TransactionUID=1.2", 200, "123"),
        ("Nonsense=1", 400, ""),
        ("limit=x", 400, ""),
        ("PatientID.CodeValue=1", 400, ""),
        ("PatientID=a&PatientID=b", 400, ""),
    ],
)
def test_the_worklist_is_searched(three: Client, query: str, code: int, meant: str) -> None:
    """PS3.18 11.9: 206 where there are more."""
    answer = three.ask("GET", f"/workitems?{query}")
    assert answer.status_code == code, answer.text
    found = [Dataset.from_json(one) for one in answer.json()] if code in (200, 206) else []
    assert "".join(one.SOPInstanceUID[-1] for one in found) == meant
    assert HIDDEN not in answer.text


def test_a_search_tells_of_what_was_asked_for(three: Client) -> None:
    (plain,) = three.ask("GET", "/workitems?SOPInstanceUID=1.2.1").json()
    (more,) = three.ask("GET", "/workitems?SOPInstanceUID=1.2.1&includefield=InputInformationSequence").json()
    (everything,) = three.ask("GET", "/workitems?SOPInstanceUID=1.2.1&includefield=all").json()
    assert ("00404021" in plain, "00404021" in more, "00404021" in everything) == (False, True, True)
    assert set(plain) < set(more) <= set(everything)


def test_a_search_says_what_it_did_not_do(three: Client) -> None:
    assert any("fuzzymatching" in text for text in warnings_of(three.ask("GET", "/workitems?fuzzymatching=true")))
    assert any("additional results" in text for text in warnings_of(three.ask("GET", "/workitems?limit=1")))


def test_a_search_is_answered_in_parts_of_xml(three: Client) -> None:
    answer = three.ask("GET", "/workitems", Accept='multipart/related; type="application/dicom+xml"')
    assert [Dataset.from_json(model_read(part)).SOPInstanceUID for part in parts_of(answer)] == ["1.2.1", "1.2.2", "1.2.3"]


# ------------------------------------------------------------------------------------------------------------- subscribers


def test_a_subscriber_is_told_where_its_channel_is(client: Client) -> None:
    """PS3.18 11.10: 201, and the address in Content-Location."""
    uid = client.create()
    answer = client.ask("POST", f"/workitems/{uid}/subscribers/MY%20VIEWER?deletionlock=true")
    assert answer.status_code == 201
    assert answer.headers["content-location"] == "ws://127.0.0.1:8080/dicom-web/subscribers/MY%20VIEWER"
    assert client.ask("DELETE", f"/workitems/{uid}/subscribers/MY%20VIEWER").status_code == 200
    assert client.ask("POST", "/workitems/1.2.3.998/subscribers/ME").status_code == 404
    assert client.ask("POST", f"/workitems/{uid}/subscribers/ME?deletionlock=perhaps").status_code == 400
    assert client.ask("POST", f"/workitems/{uid}/subscribers/ME?filter=PatientID=1").status_code == 400


def test_a_subscription_to_the_worklist_is_filtered_and_suspended(client: Client, web: Context) -> None:
    """PS3.18 11.10 and 11.12; only a subscription to the worklist is suspended."""
    address = f"/workitems/{FILTERED_SUBSCRIPTION}/subscribers/FILTERING"
    assert client.ask("POST", address).status_code == 400
    query = "filter=ScheduledStationNameCodeSequence.CodeValue=RIBCOUNTER,StudyInstanceUID=1.2.3.4,1.2.3.5"
    assert client.ask("POST", f"{address}?{query}").status_code == 201
    (kept,) = web.store.subscriptions.list(receiver="FILTERING", uid=FILTERED_SUBSCRIPTION)
    assert kept.keys["0020000D"]["Value"] == ["1.2.3.4", "1.2.3.5"]
    assert client.ask("POST", f"{address}/suspend").status_code == 200
    assert not web.store.subscriptions.list(receiver="FILTERING", uid=FILTERED_SUBSCRIPTION)
    assert client.ask("DELETE", address).status_code == 200
    assert client.ask("POST", f"/workitems/{client.create()}/subscribers/FILTERING/suspend").status_code == 400


def test_who_is_told_by_dimse_is_not_told_otherwise_by_somebody_else(client: Client, web: Context) -> None:
    uid = client.create()
    web.worklist.subscribe(uid, "BY_DIMSE", channel=Channel.DIMSE)
    assert client.ask("POST", f"/workitems/{uid}/subscribers/BY_DIMSE").status_code == 409
    assert client.ask("DELETE", f"/workitems/{uid}/subscribers/BY_DIMSE").status_code == 409


# ---------------------------------------------------------------------------------------------------- whatever may come

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
_TAGS = st.sampled_from(
    ["00741000", "00081195", "00741200", "00741204", "00404005", "00404041", "00404021", "00404018", "00741002", "00100010", "00100020", "00741216"]
) | st.text("0123456789ABCDEFabcdef", min_size=8, max_size=8)
_VALUES = _JSON | st.sampled_from(["SCHEDULED", "HIGH", "READY", "20260110", "1.2.3", "\x00", "\ud800", "9" * 400, {"Alphabetic": "a^b"}, {}])
_VRS = st.sampled_from(["CS", "UI", "SQ", "LO", "PN", "DT", "DS", "IS", "US", "AT", "OB", "UN", "FD", "XX", None]) | st.just([]) | st.just({})
_ELEMENTS = st.fixed_dictionaries(
    {"vr": _VRS}, optional={"Value": st.lists(_VALUES, max_size=3) | _JSON, "InlineBinary": _JSON, "BulkDataURI": _JSON}
)
_MODELS = st.recursive(
    st.dictionaries(_TAGS, _ELEMENTS, max_size=5),
    lambda inner: st.dictionaries(_TAGS, st.fixed_dictionaries({"vr": st.just("SQ"), "Value": st.lists(inner, max_size=2)}), max_size=3),
    max_leaves=4,
)


@pytest.mark.parametrize("vr", [[], {}, 1, True, ["CS"]])
def test_a_kind_that_is_no_text_is_the_clients_fault(client: Client, vr: Any) -> None:
    """Whatever JSON can say."""
    model = whole().to_json_dict() | {"00741000": {"vr": vr, "Value": ["SCHEDULED"]}}
    assert client.ask("POST", "/workitems", json.dumps(model).encode()).status_code == 400


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(
    said=_MODELS | _JSON,
    over=st.booleans(),
    place=st.sampled_from([("POST", ""), ("POST", "/{}"), ("PUT", "/{}/state"), ("POST", "/{}/cancelrequest")]),
)
def test_json_of_any_shape_is_answered(client: Client, said: Any, over: bool, place: tuple[str, str]) -> None:
    """A client's data set is what it is: no is no fault, and what is taken can be told again."""
    uid = client.create()
    model = whole().to_json_dict() | said if over and isinstance(said, dict) else said
    answer = client.ask(place[0], f"/workitems{place[1].format(uid)}", json.dumps(model).encode())
    assert answer.status_code < 500, answer.text
    if answer.status_code < 300:
        client.get(answer.headers["location"].rpartition("/")[2] if "location" in answer.headers else uid)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200) | st.text("<>/&;!DOCTYPENativeDicomModelAttributeValue tag=vr\"'01", max_size=200).map(str.encode))
def test_bytes_of_any_kind_are_a_data_set_or_refused(content: bytes) -> None:
    for kind in ("application/dicom+xml", "application/dicom+json", "multipart/related; boundary=b", "text/plain"):
        try:
            dataset(content, kind)
        except Unreadable as error:
            assert error.status in (400, 415)


@pytest.mark.parametrize(
    "document",
    [
        b'<!DOCTYPE x [<!ENTITY a "b">]><NativeDicomModel>&a;</NativeDicomModel>',
        b'<?xml version="1.0"?><!DOCTYPE x SYSTEM "file:///etc/passwd"><NativeDicomModel/>',
        b"<NativeDicomModel>&a;</NativeDicomModel>",
        b"<a>" * 100_000,
        b"<Other/>",
        '<!DOCTYPE x [<!ENTITY a "b">]><NativeDicomModel/>'.encode("utf-16"),
    ],
)
def test_xml_makes_no_more_of_itself(document: bytes) -> None:
    """No document type, no entity, no depth."""
    with pytest.raises(NotNative):
        model_of_xml(document)


_NAMES = st.sampled_from(
    [
        *("PatientName", "PatientID", "PatientBirthDate", "ProcedureStepState", "ScheduledProcedureStepStartDateTime", "SOPInstanceUID", "Rows"),
        *("ScheduledStationNameCodeSequence.CodeValue", "ScheduledStationNameCodeSequence", "00741204", "InputInformationSequence.StudyInstanceUID"),
        *(
            "PatientWeight",
            "SeriesNumber",
            "PixelData",
            "FrameIncrementPointer",
            "00091001",
            "limit",
            "offset",
            "includefield",
            "x.y",
            "00100010.00080100",
        ),
    ]
)
_WISHES = st.text(max_size=20) | st.sampled_from(
    ["*", "?", "a*b", "20260101-", "-", "1,2", "\\", "1.2.3\\x", "9" * 300, "=", "a=b", "\x00", "nan", "1e999"]
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(wishes=st.lists(st.tuples(_NAMES, _WISHES), max_size=3))
@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # of pydicom, which the program has silenced: they quote values
def test_an_address_of_any_kind_is_a_search_or_refused(client: Client, web: Context, wishes: list[tuple[str, str]]) -> None:
    """Also as the filter of a subscription, which is then kept and compared."""
    query = urlencode(wishes, errors="replace")
    assert client.ask("GET", f"/workitems?{query}&PatientID=nobody").status_code in (200, 204, 206, 400)
    said = urlencode({"filter": ",".join(f"{name}={value}" for name, value in wishes)}, errors="replace")
    address = f"/workitems/{FILTERED_SUBSCRIPTION}/subscribers/ANY"
    assert client.ask("POST", f"{address}?{said}").status_code in (201, 400)
    assert client.ask("POST", "/workitems", whole()).status_code == 201
    assert managing(web.site, web.store, time.time).compare() <= 1
    assert client.ask("DELETE", address).status_code == 200


def test_a_body_is_bounded(client: Client) -> None:
    assert client.ask("POST", "/workitems", b" " * (MOST_BYTES + 1)).status_code == 413
    assert client.ask("POST", "/workitems", b"[" * 100_000).status_code == 400
    assert client.ask("POST", "/workitems", body(whole())[1:-1]).status_code == 201  # an object by itself
    assert client.ask("POST", "/workitems", b"x", Content_Type="text/plain").status_code == 415


def test_the_service_says_what_it_can(client: Client) -> None:
    """PS3.18 8.9: the resources of the worklist are in the description."""
    said = client.ask("OPTIONS", "/").text
    for path in ("workitems/{UPSInstanceUID}/state", "workitems/{UPSInstanceUID}/subscribers/{AETitle}/suspend", "subscribers/{AETitle}"):
        assert f'<resource path="{path}">' in said


# ----------------------------------------------------------------------------------------------------------- who may do what


def test_who_may_look_may_watch_and_who_may_act_may_ask(tmp_path: Path) -> None:
    """Viewers and `worklist.read` search, retrieve and subscribe; operators and `worklist.write` do the rest, in their own name."""
    site = load_site(None, node={"storage": tmp_path / "data", "disk_reserve_mb": 0})
    store = Store.of(site.config.node)
    now = time.time()
    for name, role in (("program", "service"), ("anna", "admin")):
        store.people.add(name, role, who="test", now=now)
    tokens = {
        scope: store.people.token("program", [scope], expires_at=now + 600, who="test", now=now)
        for scope in ("worklist.read", "worklist.write", "dicomweb.write")
    }
    with TestClient(build(context(site, store, time.time)), base_url=BASE) as http:
        may = {scope: Client(http, Authorization=f"Bearer {token}") for scope, token in tokens.items()}
        assert Client(http).ask("GET", "/workitems").status_code == 401
        assert [one.ask("GET", "/workitems").status_code for one in may.values()] == [204, 403, 403]
        assert [one.ask("POST", "/workitems", whole()).status_code for one in may.values()] == [403, 201, 403]
        subscribed = [one.ask("POST", f"/workitems/{GLOBAL_SUBSCRIPTION}/subscribers/ME").status_code for one in may.values()]
        assert subscribed == [201, 403, 403]
    ((_, item),) = store.workitems.newest()
    assert item.requester == "program"
    store.close()
