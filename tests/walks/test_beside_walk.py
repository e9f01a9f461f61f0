"""A study goes in; a map, a presentation state, key images and what was found come out, through the node into Orthanc, and back, starting nothing."""

from pathlib import Path

import pytest

from dicom_node.domain import AE, DeliveryState, JobState
from tests import phantoms
from tests.orthanc import ask, free_ports, orthanc
from tests.walks.node import serving

MODEL = Path(__file__).parents[1] / "models" / "points"
KINDS = ["KO", "PM", "PR", "SEG", "SR"]

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


def test_what_points_at_images_reaches_the_archive_and_does_not_come_round_again(tmp_path: Path) -> None:
    """Five objects: each stored, checked, sent once and kept by Orthanc; sent back by it, they are kept and no job is made."""
    images = phantoms.series(seed="pointing walk")
    uid, files = images[0].StudyInstanceUID, phantoms.write(images, tmp_path / "in")
    port = free_ports(1)[0]
    with orthanc(tmp_path / "orthanc", remotes={"node": AE("DICOM_NODE", "127.0.0.1", port)}) as (archive, url):
        remotes = {"scanner": {"ae": "SCANNER@127.0.0.1:104", "may": ["send"]}, "pacs": {"ae": str(archive), "may": ["send", "receive"]}}
        rules = [{"name": "every CT is pointed at", "when": {"Modality": "CT"}, "analyse": ["points"], "deliver": ["pacs"]}]
        with serving(tmp_path / "node", remotes=remotes, rules=rules, models={"points": MODEL}, port=port) as node:
            node.send(files)
            (job,) = node.settled(uid)
            assert job.state is JobState.COMPLETED, job.reason
            results = node.store.jobs.results(job.id)
            assert sorted(one.kind for one in results) == KINDS
            assert {one.state for one in node.store.deliveries.list(study_instance_uid=uid, limit=100)} == {DeliveryState.SENT}
            held = {one["MainDicomTags"]["SOPInstanceUID"] for one in ask(f"{url}/instances?expand")}
            assert held == {one.sop_instance_uid for one in results}
            (study,) = ask(f"{url}/studies")
            ask(f"{url}/modalities/node/store", study)
            assert len(node.settled(uid, revision=2)) == 1
