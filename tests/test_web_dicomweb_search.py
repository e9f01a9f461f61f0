"""The Search Transaction without a socket: what an address asks for, and what is answered (PS3.18 10.6)."""

import json
import re
import time
from collections.abc import Iterator
from email.parser import BytesParser
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from starlette.testclient import TestClient

from dicom_node.config import load_site
from dicom_node.serve.web import context
from dicom_node.store import Level, Store
from dicom_node.web import build
from dicom_node.web.dicomweb import criteria, model
from tests.contracts.arrange import STUDY, arrive

BASE = "http://127.0.0.1:8080"
DOE = {"PatientName": "Müller^Jörg=山田^太郎", "PatientID": "MARKED_1", "StudyDate": "20240131", "StudyTime": "101500", "AccessionNumber": "A1"}
ROE = {"PatientName": "Roe^Richard", "PatientID": "MARKED<2>&", "StudyDate": "20240201", "StudyDescription": "Chest", "Modality": "MR"}
OHIF = "limit=101&offset=0&fuzzymatching=false&includefield=00081030%2C00080060%2C00080090%2C00100030"  # as its study list asks


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A node that holds two studies: of two CT images, and of one MR image."""
    site = load_site(None, node={"storage": tmp_path_factory.mktemp("search") / "data", "disk_reserve_mb": 0})
    store = Store.of(site.config.node)
    for number in (1, 2):
        arrive(store, number, study=f"{STUDY}.1", SeriesDescription="lung", Rows=512, Columns=512, SliceThickness=2.5, SeriesNumber=4, **DOE)
    arrive(store, 1, study=f"{STUDY}.2", TimezoneOffsetFromUTC="+0100", **ROE)
    with TestClient(build(context(site, store, time.time)), base_url=BASE) as one:
        yield one
    store.close()


def found(client: TestClient, address: str, accept: str = "application/dicom+json") -> list[Dataset]:
    """Search, and return what a client makes of the answer."""
    answer = client.get(f"/dicom-web{address}", headers={"Accept": accept})
    assert answer.status_code in (200, 204), answer.text
    return [Dataset.from_json(one) for one in answer.json()] if answer.status_code == 200 else []


def studies(client: TestClient, query: str) -> str:
    """Return the last figures of the studies that are found."""
    return "".join(str(one.StudyInstanceUID)[-1] for one in found(client, f"/studies?{query}"))


@pytest.mark.parametrize(
    ("query", "meant"),
    [
        ("", "21"),
        (OHIF, "21"),
        (f"{OHIF}&PatientName=*roe*", "2"),
        (f"{OHIF}&00100020=*MARKED*", "21"),
        (f"{OHIF}&StudyDate=20240101-20240131&ModalitiesInStudy=CT", "1"),
        (f"StudyInstanceUID={STUDY}.1%5C{STUDY}.2", "21"),  # a backslash, as OHIF parts them
        (f"StudyInstanceUID={STUDY}.1,{STUDY}.3", "1"),
        ("PatientName=muller%5Ejorg", "1"),
        ("PatientID=MARKED_1&limit=5", "1"),
        ("StudyDate=&AccessionNumber=A1", "21"),  # the other has none: a required key
        ("0020000d=1.2.3", ""),
        ("limit=1", "2"),
        ("limit=1&offset=1", "1"),
        ("offset=2", ""),
        ("StudyDescription=Chest&includefield=all", "2"),
        ("ModalitiesInStudy=CT%5CSR&multiplevaluematching=true", "1"),
    ],
)
def test_studies_are_found_by_keywords_and_tags(client: TestClient, query: str, meant: str) -> None:
    """PS3.18 8.3.4 and 10.6.1.2; the addresses of OHIF's study list among them."""
    assert studies(client, query) == meant


@pytest.mark.parametrize(
    ("address", "meant"),
    [
        ("/series", 2),
        ("/series?Modality=CT", 1),
        ("/series?SeriesNumber=4&includefield=0008103E", 2),  # the other has none: a required key
        ("/series?SeriesNumber=5&Modality=CT", 0),
        ("/instances", 3),
        ("/instances?InstanceNumber=1", 2),
        (f"/studies/{STUDY}.1/series?includefield=0008103E,00080021", 1),
        (f"/studies/{STUDY}.1/instances", 2),
        (f"/studies/{STUDY}.1/series/{STUDY}.1.1/instances?InstanceNumber=2", 1),
        (f"/studies/{STUDY}.2/series/{STUDY}.1.1/instances", 0),
        (f"/studies/{STUDY}.7/series", 0),
    ],
)
def test_each_resource_can_be_searched(client: TestClient, address: str, meant: int) -> None:
    """PS3.18 Table 10.6.1-1."""
    assert len(found(client, address)) == meant


def test_a_study_says_what_the_standard_requires(client: TestClient) -> None:
    """PS3.18 Table 10.6.3-3; what was asked for is told, too, and of it what is not known is left out."""
    one = found(client, "/studies?PatientID=MARKED_1&includefield=StudyDescription")[0]
    required = (
        "00080020 00080030 00080050 00080056 00080061 00080090 00081190 00100010 00100020 00100030 00100040 0020000D 00200010 00201206 00201208"
    )
    assert [f"{element.tag:08X}" for element in one if f"{element.tag:08X}" != "00081030"] == required.split()
    assert (one.PatientName.ideographic, one.NumberOfStudyRelatedInstances, one.InstanceAvailability) == ("山田^太郎", 2, "ONLINE")
    assert one.RetrieveURL == f"{BASE}/dicom-web/studies/{STUDY}.1"
    assert found(client, "/studies?PatientID=MARKED%3C2%3E%26")[0].TimezoneOffsetFromUTC == "+0100"


def test_series_and_instances_say_what_the_standard_requires(client: TestClient) -> None:
    """PS3.18 Tables 10.6.3-4 and -5; attributes of levels above where the address does not name them."""
    of_study, anywhere = found(client, f"/studies/{STUDY}.1/series")[0], found(client, "/series?Modality=CT")[0]
    assert (of_study.SeriesDescription, of_study.SeriesNumber, of_study.NumberOfSeriesRelatedInstances) == ("lung", 4, 2)
    assert "PatientName" not in of_study and (anywhere.PatientID, anywhere.StudyDate) == ("MARKED_1", "20240131")
    assert of_study.RetrieveURL == anywhere.RetrieveURL == f"{BASE}/dicom-web/studies/{STUDY}.1/series/{STUDY}.1.1"
    image = found(client, f"/studies/{STUDY}.1/series/{STUDY}.1.1/instances?includefield=SliceThickness")[1]
    assert (image.InstanceNumber, image.Rows, image.SliceThickness, image.SOPClassUID.name) == (2, 512, 2.5, "CT Image Storage")
    assert image.RetrieveURL == f"{BASE}/dicom-web/studies/{STUDY}.1/series/{STUDY}.1.1/instances/{STUDY}.1.1.2"
    assert "Modality" not in image and found(client, f"/studies/{STUDY}.1/instances")[0].Modality == "CT"
    assert found(client, "/instances?includefield=all&InstanceNumber=2")[0].AvailableTransferSyntaxUID == "1.2.840.10008.1.2.1"


def test_what_is_behind_the_page_and_what_was_not_done_is_said(client: TestClient) -> None:
    """PS3.18 8.3.4.1, 8.3.4.4: Warning 299."""
    answer = client.get("/dicom-web/studies?limit=1&fuzzymatching=true&RequestAttributesSequence.ScheduledProcedureStepID=7")
    service = f"299 {BASE}/dicom-web: "
    assert answer.headers.get_list("Warning") == [
        f"{service}The fuzzymatching parameter is not supported. Only literal matching has been performed.",
        f"{service}The following attributes were not matched: RequestAttributesSequence.ScheduledProcedureStepID",
        f"{service}There are 1 additional results that can be requested",
    ]
    assert "Warning" not in client.get("/dicom-web/studies?limit=2").headers
    none = client.get("/dicom-web/instances?limit=0")
    assert none.status_code == 204 and "There are 3 additional" in none.headers["Warning"]


def test_no_more_than_so_many_are_in_one_answer() -> None:
    """A client that asks for more, or for all, asks for the next page."""
    assert criteria.criteria(Level.STUDY, {}, [("limit", "999999999")]).limit == criteria.criteria(Level.STUDY, {}, []).limit == criteria.MOST_RESULTS


@pytest.mark.parametrize(
    "address",
    [
        "/studies?PatientNam=x",
        "/studies?limit=-1",
        "/studies?limit=a",
        "/studies?limit=1&limit=2",
        "/studies?offset=1.5",
        "/studies?StudyDate=2024-13",
        "/studies?StudyTime=yesterday",
        "/studies?StudyInstanceUID=one",
        "/studies?PatientID=1&00100020=2",
        "/studies?fuzzymatching=perhaps",
        "/studies?includefield=Nothing",
        "/studies?0010=1",
        "/studies/one/series",
        "/instances?InstanceNumber=first",
        f"/studies/{STUDY}.1/series?StudyInstanceUID={STUDY}.2",
    ],
)
def test_what_is_no_search_is_refused(client: TestClient, address: str) -> None:
    """PS3.18 Table 10.6.3-1: 400; a parameter that is misspelt does not give everybody's studies."""
    assert client.get(f"/dicom-web{address}").status_code == 400


def test_xml_says_the_same_as_json(client: TestClient) -> None:
    """PS3.18 10.6.4: multipart/related of application/dicom+xml is required."""
    answer = client.get("/dicom-web/studies?includefield=all", headers={"Accept": 'multipart/related; type="application/dicom+xml"'})
    message = BytesParser().parsebytes(b"Content-Type: " + answer.headers["content-type"].encode() + b"\r\n\r\n" + answer.content)
    parts = [ElementTree.fromstring(part.get_payload(decode=True)) for part in message.get_payload()]
    assert [part.get_content_type() for part in message.get_payload()] == ["application/dicom+xml"] * 2
    name = "{http://dicom.nema.org/PS3.19/models/NativeDICOM}"
    texts = [{one.get("tag"): [value.text for value in one.iter(f"{name}Value")] for one in part} for part in parts]
    said = client.get("/dicom-web/studies?includefield=all").json()
    assert [[*one] for one in texts] == [[*one] for one in said]
    assert texts[0]["00100020"] == ["MARKED<2>&"] and texts[1]["00080061"] == ["CT"]
    assert [one.text for one in parts[1].iter(f"{name}GivenName")] == ["Jörg", "太郎"]


@pytest.mark.parametrize(
    ("accept", "status", "content_type"),
    [
        ("application/dicom+json, application/json", 200, "application/dicom+json"),
        ("application/json", 200, "application/json"),
        ("*/*", 200, "application/dicom+json"),
        ("text/html", 406, "application/json"),
    ],
)
def test_the_client_gets_what_it_accepts(client: TestClient, accept: str, status: int, content_type: str) -> None:
    """PS3.18 8.7."""
    answer = client.get("/dicom-web/studies", headers={"Accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (status, content_type)


def test_a_strange_host_is_no_fault_of_the_node(client: TestClient) -> None:
    """What is told to the client holds what it said itself, and breaks nothing."""
    for host in ("[::1", "a b", "x" * 300, '"<>', "node:99999", ":", "é"):
        assert client.get("/dicom-web/studies?limit=1", headers={"Host": host.encode("latin-1")}).status_code in (400, 421), host


_NAMES = ("PatientName", "StudyDate", "limit", "offset", "includefield", "fuzzymatching", "ModalitiesInStudy", "InstanceNumber", "00100020", "x")
_NAME = st.sampled_from(_NAMES)
_VALUE = st.one_of(st.sampled_from(["*", "1", "20240101-", "CT", "1.2", "all", "true", "\\", "1,2", "-", "a=b"]), st.text(max_size=12))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    resource=st.sampled_from(["/studies", "/series", "/instances", f"/studies/{STUDY}.1/instances", "/studies/%00/series"]),
    parameters=st.lists(st.tuples(st.one_of(_NAME, st.text(max_size=9)), _VALUE), max_size=4),
    accept=st.sampled_from(["*/*", 'multipart/related; type="application/dicom+xml"']),
)
def test_whatever_is_asked_is_answered_or_refused(client: TestClient, resource: str, parameters: list[tuple[str, str]], accept: str) -> None:
    """No request is a fault of the program, and what is answered can be read."""
    answer = client.get(f"/dicom-web{resource}", params=parameters, headers={"Accept": accept})
    assert answer.status_code in (200, 204, 400), answer.text
    if answer.status_code == 200 and accept == "*/*":
        assert all(re.fullmatch("[0-9A-F]{8}", tag) for one in answer.json() for tag in one)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=20), st.sampled_from(["PatientName", "StudyDescription", "InstanceNumber", "SliceThickness", "Rows", "SOPClassUID"]))
def test_whatever_a_header_holds_is_written_in_both_models(text: str, keyword: str) -> None:
    """Values come from anybody."""
    attributes = {keyword: [text, "", 3, float("nan")], "RequestAttributesSequence": [{keyword: text}]}
    assert json.loads(model.json_bytes([attributes]))
    assert ElementTree.fromstring(model.xml_of(attributes)) is not None
