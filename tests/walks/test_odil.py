"""odil, a library of its own in C++, asks the node for what it holds."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file

from dicom_node.domain import AE
from tests.dcmtk import storescp
from tests.peers import need
from tests.walks.holding import holding

MOVER = Path(__file__).with_name("odil_mover.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """A node that listens, and a workstation that may be sent to."""

    node: AE
    folder: Path
    sources: tuple[Dataset, ...]

    def odil(self, verb: str, *words: object) -> str:
        """Run one of odil's commands."""
        return _said([need("odil"), verb, self.node.host, str(self.node.port), "ASKER", self.node.title, *map(str, words)])

    def move(self, root: str, *keys: str) -> None:
        """Let odil's library ask for a C-MOVE."""
        interpreter = Path(need("odil")).read_text().splitlines()[0].removeprefix("#!").strip()
        _said([interpreter, str(MOVER), self.node.host, str(self.node.port), self.node.title, root, "WS", *keys])


def _said(command: list[str]) -> str:
    said = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False)
    assert said.returncode == 0, said.stdout
    return said.stdout


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    need("odil")
    files = [Path(str(get_testdata_file(name, download=False))) for name in ("CT_small.dcm", "MR_small.dcm")]
    with storescp(tmp_path / "workstation", title="WS") as workstation, holding(tmp_path / "node", files, workstation) as node:
        yield Here(node=node, folder=tmp_path, sources=tuple(map(dcmread, files)))


def held(folder: Path) -> set[str]:
    """Return the SOP Instance UIDs of the files below a folder."""
    return {str(dcmread(path, force=True).SOPInstanceUID) for path in folder.rglob("*") if path.is_file()}


def test_odil_reaches_the_node_and_finds(here: Here) -> None:
    """PS3.4 Annex A and C.4.1, in both models."""
    here.odil("echo")
    ct, mr = here.sources
    said = here.odil("find", "study", "QueryRetrieveLevel=STUDY", "StudyInstanceUID", "PatientName", "StudyDate", "NumberOfStudyRelatedInstances")
    assert "2 answers" in said and str(ct.PatientName) in said and mr.StudyInstanceUID in said
    assert "1 answer\n" in here.odil("find", "patient", "QueryRetrieveLevel=PATIENT", f"PatientID={mr.PatientID}", "PatientName")
    images = here.odil(
        *("find", "patient", "QueryRetrieveLevel=IMAGE", f"PatientID={ct.PatientID}", f"StudyInstanceUID={ct.StudyInstanceUID}"),
        *(f"SeriesInstanceUID={ct.SeriesInstanceUID}", "SOPInstanceUID", "InstanceNumber"),
    )
    assert "1 answer\n" in images and ct.SOPInstanceUID in images


def test_odil_retrieves(here: Here) -> None:
    """PS3.4 C.4.2 and C.4.3: by C-GET in the Study Root model, by C-MOVE in both."""
    ct, mr = here.sources
    got = here.folder / "got"
    got.mkdir()
    here.odil("get", "-d", got, "study", "QueryRetrieveLevel=STUDY", f"StudyInstanceUID={ct.StudyInstanceUID}")
    assert held(got) == {ct.SOPInstanceUID}
    here.move("Study", "QueryRetrieveLevel=STUDY", f"StudyInstanceUID={ct.StudyInstanceUID}")
    assert held(here.folder / "workstation") == {ct.SOPInstanceUID}
    here.move("Patient", "QueryRetrieveLevel=PATIENT", f"PatientID={mr.PatientID}")
    assert held(here.folder / "workstation") == {ct.SOPInstanceUID, mr.SOPInstanceUID}
