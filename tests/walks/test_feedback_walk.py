"""A reader accepts a result in the browser's form, and the archive has a report that names who verified it."""

import time
from pathlib import Path

from pydicom import dcmread
from starlette.testclient import TestClient

from dicom_node.config import load_site
from dicom_node.domain import DeliveryState
from dicom_node.serve.web import context
from dicom_node.web import build
from tests import phantoms
from tests.dcmtk import storescp
from tests.orthanc import free_ports
from tests.walks.node import serving, wait_for

MODEL = Path(__file__).parents[1] / "models" / "good"


def test_an_accepted_result_arrives_as_a_verified_report(tmp_path: Path) -> None:
    """DCMTK's storescp holds SEG, SR, and then the SR again: VERIFIED, with its observer, the first one as its predecessor (PS3.3 C.17.2)."""
    images = phantoms.write(phantoms.series(phantoms.marked(value=2000), seed="walk"), tmp_path / "in")
    uid = str(dcmread(images[0]).StudyInstanceUID)
    with storescp(tmp_path / "pacs") as pacs:
        remotes = {"scanner": {"ae": "SCANNER@127.0.0.1:104", "may": ["send"]}, "pacs": {"ae": str(pacs), "may": ["receive"]}}
        rules = [{"name": "every CT", "when.Modality": "CT", "analyse": ["good"], "deliver": ["pacs"]}]
        (port,) = free_ports(1)
        said = {"organization": "Klinikum Nord"}
        with serving(tmp_path / "node", remotes=remotes, rules=rules, models={"good": MODEL}, port=port, feedback=said) as node:
            node.send(images)
            (job,) = node.settled(uid)
            report = dcmread(node.file(node.results(job)["SR"]))
            site = load_site(node.config)
            with TestClient(build(context(site, node.store, time.time)), base_url="http://127.0.0.1:8080", follow_redirects=False) as client:
                form = {"verdict": "accepted", "name": "Anna Berg"}
                assert client.post(f"/jobs/{job.id}/feedback", data=form).status_code == 303
            wait_for(lambda: "VSR" in node.results(job), says=lambda: node.log[-3000:])
            made = node.results(job)["VSR"]
            states = lambda: [one.state for one in node.store.deliveries.list(job_id=job.id) if one.result.kind == "VSR"]  # noqa: E731
            wait_for(lambda: states() == [DeliveryState.SENT], says=states)
            arrived = [dcmread(path) for path in (tmp_path / "pacs").iterdir()]
            verified = next(one for one in arrived if one.SOPInstanceUID == made.sop_instance_uid)
            assert len(arrived) == 3
            assert (verified.VerificationFlag, verified.PreliminaryFlag) == ("VERIFIED", "FINAL")
            (observer,) = verified.VerifyingObserverSequence
            assert (str(observer.VerifyingObserverName), observer.VerifyingOrganization) == ("Berg^Anna", "Klinikum Nord")
            (study,) = verified.PredecessorDocumentsSequence
            assert study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == report.SOPInstanceUID
            assert verified.ContentSequence == report.ContentSequence
            assert "Anna" not in node.log
