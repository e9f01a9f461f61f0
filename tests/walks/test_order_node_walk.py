"""A whole node between a RIS that knows the order, an archive that gets the results, and a RIS that is told where they are."""

from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pynetdicom import AE as ApplicationEntity
from pynetdicom import evt

from dicom_node.domain import AE, AnnouncementState, OrderState
from dicom_node.simulate.pacs import Pacs
from dicom_node.worklist.ian import SOP_CLASS, noticed
from tests import phantoms
from tests.orthanc import free_ports
from tests.walks.node import serving, wait_for
from tests.worklists import entry, wlmscpfs, write

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


def test_a_study_comes_back_with_its_order_and_the_ris_is_told(tmp_path: Path) -> None:
    """The images know of no order, the results do; nothing is told twice."""
    told: list[tuple[str, Dataset]] = []

    def take(event: Any) -> tuple[int, None]:
        uid = str(event.request.AffectedSOPInstanceUID)
        told.append((uid, event.attribute_list))
        return (0x0000 if [one for one, _ in told].count(uid) == 1 else 0x0111), None

    images = phantoms.series(BodyPartExamined="PELVIS", AccessionNumber=None)
    order = entry(1, patient=str(images[0].PatientID), accession="A42")
    order.StudyInstanceUID = images[0].StudyInstanceUID
    write(tmp_path / "lists" / "RIS", "1", order)
    entity, port = ApplicationEntity("HIS"), free_ports(1)[0]
    entity.add_supported_context(SOP_CLASS)
    his = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_N_CREATE, take)])
    try:
        with wlmscpfs(tmp_path / "lists") as ris, Pacs(tmp_path / "pacs", ae_title="PACS") as pacs:
            _walk(tmp_path, images, ris, pacs, AE("HIS", "127.0.0.1", port))
    finally:
        his.shutdown()
    ((uid, attributes),) = told
    said = noticed(uid, attributes)
    assert said.study_instance_uid == str(images[0].StudyInstanceUID)
    assert {one.retrieve_aes for one in said.instances} == {("PACS",)}


def _walk(folder: Path, images: list[Dataset], ris: AE, pacs: Pacs, his: AE) -> None:
    remotes = {
        "scanner": {"ae": "SCANNER@127.0.0.1:104", "may": ["send"]},
        "pacs": {"ae": str(pacs.ae), "may": ["receive"]},
        "ris": {"ae": str(ris), "orders": True},
        "his": {"ae": str(his), "notify": True},
    }
    rule = {"name": "pelvis", "when": {"BodyPartExamined": "PELVIS"}, "analyse": ["waits"], "deliver": ["pacs"]}
    models = {"waits": Path(__file__).parent / "models" / "waits"}
    uid = str(images[0].StudyInstanceUID)
    with serving(folder / "node", remotes=remotes, rules=[rule], models=models, port=free_ports(1)[0]) as node:
        node.gate(shut=True)
        node.send(phantoms.write(images, folder / "images"))
        wait_for(lambda: node.store.orders.state(uid) is OrderState.KNOWN, says=lambda: node.log[-3000:])
        node.gate(shut=False)
        (job,) = node.settled(uid)
        for result in node.results(job).values():
            dataset = dcmread(node.file(result))
            requests = dataset.get("ReferencedRequestSequence") or dataset.RequestAttributesSequence
            assert (dataset.AccessionNumber, requests[0].RequestedProcedureID) == ("A42", "RP1")
        wait_for(lambda: node.store.announcements.list(state=AnnouncementState.TOLD), says=lambda: node.log[-3000:])
        assert {"order found", "notified"} <= set(node.kinds(uid))
        assert "A42" not in node.log
