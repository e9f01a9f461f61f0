"""What docs/connecting.md says of Orthanc is done as it stands there: images out, results back and kept, a prior fetched, questions both ways."""

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from dicom_node.domain import DeliveryState, JobState
from tests import phantoms
from tests.orthanc import ask, free_ports, orthanc
from tests.walks.node import ROOT, Node, serving, wait_for

FAKES = ROOT / "tests" / "models"
GUIDE = (ROOT / "docs" / "connecting.md").read_text()
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@dataclass(frozen=True)
class Pair:
    """The node and Orthanc, each entered at the other."""

    node: Node
    rest: str

    def keep(self, images: list[Dataset], folder: Path) -> str:
        """Let Orthanc hold a study, and return its name there."""
        answers = [ask(f"{self.rest}/instances", path.read_bytes()) for path in phantoms.write(images, folder)]
        return str(answers[0]["ParentStudy"])


def _block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    """Take the guide's two files, with free ports and a model that needs no lungs."""
    site, modality = tomllib.loads(_block("toml")), json.loads(_block("json"))
    (port,) = free_ports(1)
    here = modality["DicomModalities"]["dicom-node"]
    assert (here["AET"], here["Port"]) == (site["node"]["ae_title"], site["node"]["port"])
    here["Port"] = port
    title = modality.pop("DicomAet")
    modality.pop("DicomPort")
    with orthanc(tmp_path / "orthanc", title=title, **modality) as (ae, rest):
        assert site["remotes"]["orthanc"]["ae"].startswith(f"{title}@")
        site["remotes"]["orthanc"]["ae"] = str(ae)
        (rule,) = site["rules"]
        rule["analyse"] = ["compares"]
        models, asks = {"compares": FAKES / "compares"}, {"scanner": {"ae": "SCANNER@127.0.0.1:104", "may": ["send"]}}
        with serving(tmp_path / "node", remotes=site["remotes"] | asks, rules=[rule], models=models, port=port) as node:
            yield Pair(node, rest)


def _study(date: str, number: int) -> list[Dataset]:
    said = {"StudyDate": date, "StudyInstanceUID": f"2.25.{number}", "SeriesInstanceUID": f"2.25.{number}1", "FrameOfReferenceUID": f"2.25.{number}2"}
    made = phantoms.series(**said)
    for index, image in enumerate(made):
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"2.25.{number}3.{index}"
    return made


def test_orthanc_sends_gets_results_keeps_them_and_is_asked_for_the_earlier_study(pair: Pair, tmp_path: Path) -> None:
    """Steps 4 and 5 of the guide; `priors` of its rule; and what the node holds can be asked for."""
    pair.keep(_study("20230101", 71), tmp_path / "earlier")
    now = pair.keep(_study("20240101", 72), tmp_path / "now")
    ask(f"{pair.rest}/modalities/dicom-node/store", [now])
    (job,) = wait_for(lambda: [one for one in pair.node.jobs("2.25.72") if one.state is JobState.COMPLETED], says=lambda: pair.node.log[-6000:])
    assert job.priors is not None and [one.study_instance_uid for one in job.priors.studies] == ["2.25.71"] and job.priors.inputs["before"]
    assert "of 2023-01-01 (from orthanc)" in job.priors.why
    assert pair.node.jobs("2.25.71") == (), "what is fetched as a prior starts no rule"
    wait_for(lambda: {one.state for one in _sent(pair)} == {DeliveryState.COMMITTED}, says=lambda: f"{_sent(pair)}\n{pair.node.log[-6000:]}")
    made = ask(f"{pair.rest}/tools/find", {"Level": "Series", "Query": {"StudyInstanceUID": "2.25.72", "Modality": "SR"}})
    assert len(made) == 1
    asked = ask(f"{pair.rest}/modalities/dicom-node/query", {"Level": "Study", "Query": {"PatientID": "*", "StudyInstanceUID": "2.25.7*"}})
    assert len(ask(f"{pair.rest}/queries/{asked['ID']}/answers")) == 0, "a UID has no wildcards"
    asked = ask(f"{pair.rest}/modalities/dicom-node/query", {"Level": "Study", "Query": {"StudyInstanceUID": "2.25.71"}})
    assert len(ask(f"{pair.rest}/queries/{asked['ID']}/answers")) == 1


def _sent(pair: Pair) -> Any:
    return pair.node.store.deliveries.list(study_instance_uid="2.25.72", limit=100)


def test_check_finds_that_each_is_entered_at_the_other(pair: Pair) -> None:
    """Step 2 of the guide: the port is the serving node's, and everything else is right."""
    rows = pair.node.verb("check", "--json").json
    assert [row for row in rows if not row["ok"] and not row["what"].startswith("port")] == []
