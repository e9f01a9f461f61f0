"""Searches by HTTP: as dicomweb-client and OHIF ask them, and compared with Orthanc, which holds the same (PS3.18 10.6)."""

import json
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom import dcmread

from tests.orthanc import ask, orthanc
from tests.walks import hospital
from tests.walks.questions import UNIQUE, VR, Question, Row, questions
from tests.walks.test_query_oracle import EXPLAINED, literally, row_of
from tests.walks.webs import Web, stow, web

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
QUESTIONS = 250
RESOURCES = {"STUDY": "studies", "SERIES": "series", "IMAGE": "instances"}
OHIF = "limit=101&offset=0&fuzzymatching=false&includefield=00081030,00080060,00080090,00100030"


@dataclass(frozen=True, slots=True, kw_only=True)
class Both:
    """The node and Orthanc."""

    node: Web
    orthanc: str  # the URL that its DICOMweb is below
    rows: Sequence[Row]

    @property
    def client(self) -> DICOMwebClient:
        """Who asks the node."""
        return DICOMwebClient(self.node.dicomweb)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("qido")
    files = hospital.write(folder / "hospital")
    if not PLUGIN.exists():
        pytest.fail("Orthanc's DICOMweb plug-in is not there")
    with (
        web(folder / "node") as node,
        orthanc(folder / "orthanc", Plugins=[str(PLUGIN)], DicomWeb={"Enable": True, "Root": "/dicom-web/"}) as (_, url),
    ):
        for start in range(0, len(files), 50):
            status, said = stow(node.dicomweb, [path.read_bytes() for path in files[start : start + 50]])
            assert status == 200, said
        for path in files:
            ask(f"{url}/instances", path.read_bytes())
        yield Both(node=node, orthanc=f"{url}/dicom-web", rows=[row_of(dcmread(path)) for path in files])


def found(url: str, query: str) -> list[dict[str, Any]]:
    """Search, and return what was answered."""
    request = urllib.request.Request(f"{url}{query}", headers={"Accept": "application/dicom+json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read() or b"[]")


# ------------------------------------------------------------------------------------------------------------- by clients


def test_dicomweb_client_finds_each_level_page_by_page(both: Both) -> None:
    """Its own paging: until nothing is left."""
    client = both.client
    studies = client.search_for_studies(limit=7, get_remaining=True)
    uids = [one["0020000D"]["Value"][0] for one in studies]
    assert len(uids) == len({*uids}) == hospital.STUDIES and {*uids} == {row["StudyInstanceUID"] for row in both.rows}
    dates = [one["00080020"].get("Value", [""])[0] for one in studies]
    assert dates == sorted(dates, reverse=True)
    series = client.search_for_series(limit=25, get_remaining=True)
    assert {one["0020000E"]["Value"][0] for one in series} == {row["SeriesInstanceUID"] for row in both.rows}
    instances = client.search_for_instances(limit=100, get_remaining=True)
    assert sorted(one["00080018"]["Value"][0] for one in instances) == sorted(row["SOPInstanceUID"] for row in both.rows)
    of_one = client.search_for_instances(uids[0], fields=["PatientName"], search_filters={"InstanceNumber": 1})
    assert of_one and all(one["0020000D"]["Value"] == [uids[0]] and "00100010" in one for one in of_one)
    assert client.search_for_studies(search_filters={"PatientID": "nobody"}) == []


def test_the_addresses_of_ohif_are_answered(both: Both) -> None:
    """Its study list with each of its filters, and its series panel; the answers have what it shows."""
    row = next(row for row in both.rows if row["StudyDate"] and row["PatientName"].startswith("Smith"))
    base, name = both.node.dicomweb, urllib.parse.quote("*smith*")
    for filters in (
        "",
        f"&PatientName={name}",
        f"&00100020=*{row['PatientID']}*",
        f"&StudyDate={row['StudyDate']}-{row['StudyDate']}",
        "&ModalitiesInStudy=CT%5CMR%5CCR%5CUS%5COT",
        f"&StudyInstanceUID={row['StudyInstanceUID']}%5C1.2.3",
    ):
        answers = found(base, f"/studies?{OHIF}{filters}")
        assert row["StudyInstanceUID"] in {one["0020000D"]["Value"][0] for one in answers}, filters
        assert all({"00100010", "00100020", "00080020", "00080061", "00201208", "00081030"} <= one.keys() for one in answers)
    series = found(base, f"/studies/{row['StudyInstanceUID']}/series?includefield=0008103E,00080021")
    assert all({"0020000E", "00080060", "00200011", "00201209", "0008103E", "00080021"} <= one.keys() for one in series)
    with urllib.request.urlopen(series[0]["00081190"]["Value"][0].split("/studies/")[0] + "/studies?limit=1", timeout=60) as answer:
        assert answer.status == 200, "where things are retrieved is an address of this node"


# -------------------------------------------------------------------------------------------------------- beside Orthanc


def quoted(value: str) -> str:
    """Return a value as an address has it; what need not be encoded is not, for Orthanc's sake."""
    return urllib.parse.quote(value.replace("\\", ",").rstrip(), safe="*?^,=")


def address(question: Question) -> str:
    """Return a question as an address."""
    return f"/{RESOURCES[question.level]}?" + "&".join(f"{keyword}={quoted(value)}" for keyword, value in question.keys.items() if value)


def uids(answers: Sequence[Mapping[str, Any]], level: str) -> set[str]:
    tag = {"STUDY": "0020000D", "SERIES": "0020000E", "IMAGE": "00080018"}[level]
    return {one[tag]["Value"][0] for one in answers}


def encoded(_keyword: str, wanted: str, _held: str) -> bool:
    return quoted(wanted) != wanted.rstrip().replace("\\", ",")


def as_text(keyword: str, wanted: str, held: str) -> bool:
    """Compare as Orthanc does, by the letters of dates and times."""
    if VR.get(keyword) not in ("DA", "TM"):
        return literally(keyword, wanted, held)
    first, dash, last = wanted.partition("-")
    return (held >= first and (not last or held <= last)) if dash else held == wanted


def other_case(keyword: str, wanted: str, held: str) -> bool:
    return keyword not in VR and literally(keyword, wanted.casefold(), held.casefold())


def no_date(keyword: str, wanted: str, held: str) -> bool:
    return VR.get(keyword) == "DA" and not held and wanted.startswith("-")


# What the node finds and Orthanc does not.
ONLY_NODE = {
    "percent-encoded": encoded,  # RFC 3986 2.1: the plug-in compares %20 as three letters; the node is right
    **EXPLAINED,  # as DCMTK does: a required key without a value, names, numbers, parts of a time, each of which the node is right about
}
# What Orthanc finds and the node does not.
ONLY_ORTHANC = {
    "other letters of texts": other_case,  # PS3.4 C.2.2.2.1: only names may be compared without regard to case; the node is right
    "no date": no_date,  # C.2.2.2.5: what has no date is not before one; the node is right
}


def reason(question: Question, row: Row, compare: Callable[[str, str, str], bool], classes: Mapping[str, Callable[[str, str, str], bool]]) -> str:
    """Return why one finds what the other rejects by its way of comparing: of the first key that it rejects."""
    for keyword, wanted in question.keys.items():
        if wanted and (not compare(keyword, wanted, row[keyword]) or (classes is ONLY_NODE and quoted(wanted) != wanted.rstrip().replace("\\", ","))):
            return next((name for name, means in classes.items() if means(keyword, wanted, row[keyword])), "")
    return ""


def test_orthanc_finds_the_same(both: Both) -> None:
    """What is answered differently is of a class that has a name."""
    of: dict[str, Row] = {row[UNIQUE[level]]: row for row in both.rows for level in RESOURCES}
    explained, unexplained, same = Counter[str](), [], 0
    for question in (one for one in questions(both.rows, QUESTIONS) if one.level in RESOURCES):
        where = address(question)
        ours, theirs = (uids(found(url, where), question.level) for url in (both.node.dicomweb, both.orthanc))
        same += bool(ours & theirs)
        for uid in ours ^ theirs:
            name = reason(question, of[uid], *((as_text, ONLY_NODE) if uid in ours else (literally, ONLY_ORTHANC)))
            explained[name] += bool(name)
            if not name:
                unexplained.append((where, {key: of[uid][key] for key in question.keys}, "node" if uid in ours else "orthanc"))
    assert not unexplained, unexplained[:5]
    assert same > QUESTIONS // 4, explained
