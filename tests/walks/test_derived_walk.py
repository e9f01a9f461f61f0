"""A study goes in, a series of derived images comes out beside it: through the whole node, and back into it, where it starts nothing."""

from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.domain import DeliveryState, JobState
from dicom_node.report import check
from dicom_node.simulate.pacs import Pacs
from tests import phantoms
from tests.orthanc import free_ports
from tests.walks.node import serving

MODEL = Path(__file__).parents[1] / "models" / "smooths"

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


def test_derived_series_are_delivered_whole_and_do_not_come_round_again(tmp_path: Path) -> None:
    """Two series of eight images and a report: each stored, checked, sent once; sent back, they are kept and no job is made."""
    images = phantoms.series(seed="derived walk")
    uid, files = images[0].StudyInstanceUID, phantoms.write(images, tmp_path / "in")
    with Pacs(tmp_path / "pacs", ae_title="PACS") as pacs:
        remotes = {"scanner": {"ae": "SCANNER@127.0.0.1:104", "may": ["send"]}, "pacs": {"ae": str(pacs.ae), "may": ["send", "receive"]}}
        rules = [{"name": "every CT is smoothed", "when": {"Modality": "CT"}, "analyse": ["smooths"], "deliver": ["pacs"]}]
        with serving(tmp_path / "node", remotes=remotes, rules=rules, models={"smooths": MODEL}, port=free_ports(1)[0]) as node:
            node.send(files)
            (job,) = node.settled(uid)
            assert job.state is JobState.COMPLETED, job.reason
            results = node.store.jobs.results(job.id)
            assert sorted(one.kind for one in results) == ["DER"] * 16 + ["SR"]
            sent = node.store.deliveries.list(study_instance_uid=uid, limit=100)
            assert [one.state for one in sent] == [DeliveryState.SENT] * 17
            assert any("made 16 DER, SR (" in event.why for event in node.store.journal.of_study(uid))
            arrived = {dcmread(path).SOPInstanceUID: path for path in pacs.folder.rglob("*") if path.is_file() and path.suffix == ".dcm"}
            assert set(arrived) == {one.sop_instance_uid for one in results}
            assert [problem for path in arrived.values() for problem in check(path)] == []
            node.send([path for path in arrived.values() if dcmread(path).Modality == "CT"], calling_ae="PACS")
            assert len(node.settled(uid, revision=2)) == 1
