"""Radiographs through the whole node: each is a job of its own, and the second that comes takes nothing from the first."""

from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.config import bundled
from dicom_node.domain import JobState
from dicom_node.report import check
from dicom_node.simulate.pacs import Pacs
from tests import phantoms, projections
from tests.orthanc import free_ports
from tests.walks.node import serving

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


def test_each_radiograph_of_a_study_is_analysed_once_and_delivered(tmp_path: Path) -> None:
    """A frontal view; when it is done a lateral one comes: two jobs, neither in the other's place, each with two states and a report."""
    images = [projections.image("DX", seed="projection walk", number=number, ViewPosition=view) for number, view in ((1, "PA"), (2, "LL"))]
    uid, files = images[0].StudyInstanceUID, phantoms.write(images, tmp_path / "in")
    with Pacs(tmp_path / "pacs", ae_title="PACS") as pacs:
        remotes = {"room": {"ae": "SCANNER@127.0.0.1:104", "may": ["send"]}, "pacs": {"ae": str(pacs.ae), "may": ["send", "receive"]}}
        rules = [{"name": "radiographs get windows", "when": {"Modality": "DX"}, "analyse": ["contrast-window"], "deliver": ["pacs"]}]
        models = {"contrast-window": bundled("models") / "contrast_window"}
        with serving(tmp_path / "node", remotes=remotes, rules=rules, models=models, port=free_ports(1)[0]) as node:
            node.send(files[:1])
            (frontal,) = node.settled(uid)
            node.send(files[1:])
            jobs = node.settled(uid, revision=2)
            assert [job.state for job in jobs] == [JobState.COMPLETED] * 2, [job.reason for job in jobs]
            assert jobs[0].id == frontal.id and [job.predecessor_id for job in jobs] == [None, None]
            assert len({job.inputs["images"] for job in jobs}) == 2 and all(len(job.inputs["images"]) == 1 for job in jobs)
            made = [one for job in jobs for one in node.store.jobs.results(job.id)]
            assert [one.kind for one in made] == ["PR", "PR", "SR"] * 2
            arrived = {dcmread(path).SOPInstanceUID: path for path in pacs.folder.rglob("*.dcm")}
            assert set(arrived) == {one.sop_instance_uid for one in made}
            assert [problem for path in arrived.values() for problem in check(path)] == []
