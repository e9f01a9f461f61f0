"""Orthanc asks the node what it holds, and fetches it: by C-FIND, and by C-MOVE to itself."""

import time
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from dicom_node.domain import AE
from tests.orthanc import ask, free_ports, orthanc
from tests.walks.held import Keeping, keeping

NAMES = ("CT_small.dcm", "MR_small.dcm")


def sample(name: str) -> Path:
    return Path(str(get_testdata_file(name, download=False)))


def done(url: str, job: Any) -> dict[str, Any]:
    """Wait until a job of Orthanc's has ended, and return what it says of it."""
    until = time.monotonic() + 60
    while (said := ask(f"{url}/jobs/{job['ID']}"))["State"] in ("Pending", "Running"):
        assert time.monotonic() < until, said
        time.sleep(0.05)
    return dict(said)


def held_there(url: str) -> set[str]:
    return {ask(f"{url}/instances/{one}/simplified-tags")["SOPInstanceUID"] for one in ask(f"{url}/instances")}


@pytest.mark.parametrize("path", ["fast", "stock"])
def test_orthanc_finds_and_fetches_what_the_node_holds(tmp_path: Path, path: str) -> None:
    """PS3.4 C.4.1 and C.4.2, by the REST API that its users click on: query, look at the answers, retrieve."""
    port = free_ports(1)[0]
    with orthanc(tmp_path / "orthanc", remotes={"node": AE("DICOM_NODE", "127.0.0.1", port)}) as (there, url):
        may = {"ae": str(there), "may": ["query", "move", "receive"]}
        with keeping(tmp_path, path, {"orthanc": may}, port=port) as node:
            node.take([sample(name) for name in NAMES])
            assert ask(f"{url}/modalities/node/echo", {}) == {}
            found = query(url, {"PatientName": "compressedsamples^*", "StudyDate": "", "ModalitiesInStudy": ""}, level="Study")
            answers = [ask(f"{url}/queries/{found}/answers/{one}/content?simplify") for one in ask(f"{url}/queries/{found}/answers")]
            assert {one["ModalitiesInStudy"] for one in answers} == {"CT", "MR"}
            series = query(url, {"StudyInstanceUID": dcmread(sample("MR_small.dcm")).StudyInstanceUID, "SeriesInstanceUID": ""}, level="Series")
            ended = done(url, ask(f"{url}/queries/{series}/retrieve", {"TargetAet": there.title, "Synchronous": False}))
            assert ended["State"] == "Success", ended
            assert held_there(url) == {dcmread(sample("MR_small.dcm")).SOPInstanceUID}
            ended = done(url, ask(f"{url}/queries/{found}/retrieve", {"TargetAet": there.title, "Synchronous": False}))
            assert ended["State"] == "Success", ended
            assert held_there(url) == {dcmread(sample(name)).SOPInstanceUID for name in NAMES}
            told(node)


def query(url: str, keys: dict[str, str], *, level: str) -> str:
    """Have Orthanc query the node, and return its name for the answers."""
    return str(ask(f"{url}/modalities/node/query", {"Level": level, "Query": keys})["ID"])


def told(node: Keeping) -> None:
    """See that the journal of each study tells who fetched it."""
    for name in NAMES:
        assert node.retrievals(dcmread(sample(name)).StudyInstanceUID)[-1].who == "ORTHANC"
