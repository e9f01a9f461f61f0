"""DCMTK's findscu, movescu and getscu against the node."""

import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pynetdicom.dsutils import split_dataset

from dicom_node.config import NodeConfig
from dicom_node.query import services
from dicom_node.receive import Receiver
from dicom_node.store import Store
from tests.dcmtk import storescp, storescu
from tests.peers import need

NAMES = ("CT_small.dcm", "MR_small.dcm")
UNIQUE = {"PATIENT": "PatientID", "STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}


@dataclass
class Here:
    """A node that listens, and a workstation that may be sent to."""

    store: Store
    port: int
    folder: Path
    sources: dict[str, Path]

    def run(self, program: str, *words: object) -> "subprocess.CompletedProcess[str]":
        """Ask the node."""
        command = [need(program), "-d", "-aet", "RIS", "-aec", "DICOM_NODE", *map(str, words), "127.0.0.1", str(self.port)]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False, cwd=self.folder)

    def held(self, uid: str) -> bytes:
        """Return the data set of an instance as the node keeps it."""
        (path,) = (self.store.archive.path(one.path) for one in self.store.holdings.files("IMAGE", {"SOPInstanceUID": uid}))
        return path.read_bytes()[split_dataset(path)[1] :]

    def find(self, *keys: str, model: str = "-S") -> list[Dataset]:
        """Return the responses of a C-FIND."""
        folder = self.folder / "responses"
        folder.mkdir()
        said = self.run("findscu", model, "-X", "-od", folder, *(word for key in keys for word in ("-k", key)))
        assert said.returncode == 0, said.stdout
        found = [dcmread(path, force=True) for path in sorted(folder.iterdir())]
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        return found


@pytest.fixture(params=["fast", "stock"])
def here(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Here]:
    store = Store.open(tmp_path / "node")
    with storescp(tmp_path / "workstation", title="WS") as workstation:
        remotes = {
            "ris": {"ae": "RIS@127.0.0.1:1", "may": ["send", "query", "move"]},
            "other": {"ae": "OTHER@127.0.0.1:1", "may": ["send"]},
            "workstation": {"ae": str(workstation), "may": ["receive"]},
        }
        node = {"port": 0, "disk_reserve_mb": 1, "store_path": request.param}
        config = NodeConfig.model_validate({"node": node, "remotes": remotes})
        receiver = Receiver(config, store, services=services(config, store, store.holdings, time.time))
        receiver.start()
        try:
            sources = [Path(str(get_testdata_file(name, download=False))) for name in NAMES]
            with_address = type(workstation)("DICOM_NODE", "127.0.0.1", receiver.port)
            sent = storescu(sources, with_address, calling_ae="RIS")
            assert sent.returncode == 0, sent.stdout
            yield Here(store, receiver.port, tmp_path, {dcmread(path).SOPInstanceUID: path for path in sources})
        finally:
            receiver.stop()
            store.close()


def data_sets(folder: Path) -> dict[str, bytes]:
    """Return the data set of each file of a folder, by its SOP Instance UID."""
    return {dcmread(path).SOPInstanceUID: path.read_bytes()[split_dataset(path)[1] :] for path in folder.iterdir()}


def test_findscu_finds_what_the_node_holds(here: Here) -> None:
    """PS3.4 C.4.1: studies, by a wildcard; a key that is not supported; a level that the model lacks; a missing unique key."""
    studies = here.find("QueryRetrieveLevel=STUDY", "StudyInstanceUID", "PatientName", "StudyDate")
    assert {str(one.PatientName) for one in studies} == {"CompressedSamples^CT1", "CompressedSamples^MR1"}
    assert {(one.QueryRetrieveLevel, one.RetrieveAETitle) for one in studies} == {("STUDY", "DICOM_NODE")}
    (only,) = here.find("QueryRetrieveLevel=STUDY", "StudyInstanceUID", "PatientName=*MR1", "PatientComments")
    assert "PatientComments" not in only
    (patient,) = here.find("QueryRetrieveLevel=PATIENT", "PatientID=4MR1", model="-P")
    assert patient.PatientID == "4MR1"
    assert "0xa900" in here.run("findscu", "-S", "-k", "QueryRetrieveLevel=PATIENT").stdout.lower()
    assert "0xa900" in here.run("findscu", "-S", "-k", "QueryRetrieveLevel=IMAGE", "-k", "SOPInstanceUID").stdout.lower()
    assert "0x0124" in here.run("findscu", "-aet", "OTHER", "-S", "-k", "QueryRetrieveLevel=STUDY").stdout.lower()


def test_movescu_has_studies_sent_as_they_lie(here: Here) -> None:
    """PS3.4 C.4.2: to a remote that may receive, else A801; the journal tells of it."""
    for uid, source in here.sources.items():
        study = dcmread(source).StudyInstanceUID
        said = here.run("movescu", "-S", "-aem", "WS", "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}")
        assert said.returncode == 0, said.stdout
        assert data_sets(here.folder / "workstation")[uid] == here.held(uid)
        assert "retrieved" in [event.kind for event in here.store.journal.of_study(study)]
    assert "0xa801" in here.run("movescu", "-S", "-aem", "NOBODY", "-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID=1.2").stdout.lower()
    assert "0x0124" in here.run("movescu", "-aet", "OTHER", "-S", "-aem", "WS", "-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID=1").stdout


def test_getscu_has_studies_sent_over_its_own_association(here: Here) -> None:
    """PS3.4 C.4.3, and the roles of PS3.7 D.3.3.4."""
    folder = here.folder / "got"
    folder.mkdir()
    for source in here.sources.values():
        study = dcmread(source).StudyInstanceUID
        said = here.run("getscu", "+B", "-S", "-od", folder, "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}")
        assert said.returncode == 0, said.stdout
    assert data_sets(folder) == {uid: here.held(uid) for uid in here.sources}
