"""Modalities ask the node for their worklist over a real socket: DCMTK's `findscu`, and pynetdicom; DCMTK's `wlmscpfs` answers beside it."""

import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pynetdicom import AE as ApplicationEntity
from pynetdicom.association import Association

from dicom_node.config import NodeConfig
from dicom_node.domain import AE
from dicom_node.query import services as query_services
from dicom_node.receive import Receiver
from dicom_node.store import Store
from dicom_node.worklist import Worklist, mwl
from dicom_node.worklist.mwl import SOP_CLASS
from tests.peers import need
from tests.worklists import asking, entry, wlmscpfs, write

REMOTES = {"ct": {"ae": "CT_ER@10.0.4.21:104", "may": ["worklist"]}, "pacs": {"ae": "PACS@10.0.4.10:104", "may": ["query"]}}


@pytest.fixture
def store(tmp_path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "storage")
    yield opened
    opened.close()


@contextmanager
def serving(store: Store, folder: Path, **node: Any) -> Iterator[AE]:
    """Answer with the worklist of a folder, beside queries."""
    said: Mapping[str, Any] = {"node": {"port": 0, **node}, "remotes": REMOTES, "worklist": {"folder": str(folder)}}
    config = NodeConfig.model_validate(said)
    rooms = (*query_services(config, store, store.holdings, lambda: 0.0), *Worklist(config, store, lambda: 0.0).services())
    receiver = Receiver(config, store, services=rooms)
    receiver.start()
    try:
        yield AE(config.node.ae_title, "127.0.0.1", receiver.port)
    finally:
        receiver.stop()


@contextmanager
def associated(to: AE, title: str = "CT_ER") -> Iterator[Association]:
    entity = ApplicationEntity(title)
    entity.add_requested_context(SOP_CLASS)
    association = entity.associate(to.host, to.port, ae_title=to.title)
    try:
        assert association.is_established
        yield association
    finally:
        association.release()


def found(association: Association, identifier: Dataset) -> tuple[list[Dataset], list[int]]:
    """Return what is answered, and every status."""
    answers = [(int(status.Status), data) for status, data in association.send_c_find(identifier, SOP_CLASS)]
    return [data for _, data in answers if data is not None], [status for status, _ in answers]


def findscu(to: AE, folder: Path, *keys: str) -> list[Dataset]:
    """Ask as DCMTK does, and return the answers that it wrote."""
    folder.mkdir(parents=True)
    asked = [word for key in keys for word in ("-k", key)]
    command = [need("findscu"), "-W", "-X", "-od", str(folder), "-aet", "CT_ER", "-aec", to.title, *asked, to.host, str(to.port)]
    subprocess.run(command, check=True, timeout=60, capture_output=True)
    return [dcmread(path, force=True) for path in sorted(folder.glob("*.dcm"))]


def planned(folder: Path) -> None:
    write(folder, "1", entry(1, patient="P1", name="Müller^Zoë"))
    write(folder, "2", entry(2, patient="P2", name="Doe^John", accession="A2", ScheduledProcedureStepStartDate="20260111"))
    write(folder, "3", entry(3, patient="P3", name="Doe^Jane", accession="A3", Modality="MR", ScheduledStationAETitle="MR_1"))


STEP = "ScheduledProcedureStepSequence[0]."
QUESTIONS = {
    "all": (),
    "modality": (f"{STEP}Modality=MR",),
    "station": (f"{STEP}ScheduledStationAETitle=CT_ER",),
    "day": (f"{STEP}ScheduledProcedureStepStartDate=20260111",),
    "days": (f"{STEP}ScheduledProcedureStepStartDate=20260110-20260111", f"{STEP}Modality=CT"),
    "name": ("PatientName=Doe*",),
    "patient": ("PatientID=P2",),
    "nobody": ("PatientID=P9",),
}


def test_the_node_answers_findscu_as_wlmscpfs_does(store: Store, tmp_path: Path) -> None:
    """PS3.4 Annex K: the same files, the same questions, the same entries."""
    planned(tmp_path / "lists" / "RIS")
    returned = ("PatientName", "PatientID", "AccessionNumber", "StudyInstanceUID", f"{STEP}ScheduledProcedureStepID")
    with serving(store, tmp_path / "lists" / "RIS") as node, wlmscpfs(tmp_path / "lists") as ris:
        for name, keys in QUESTIONS.items():
            asked = [key for key in returned if not any(one.startswith(f"{key}=") for one in keys)]
            ours, theirs = (findscu(ae, tmp_path / f"{ae.title} {name}", *asked, *keys) for ae in (node, ris))
            assert sorted(map(summary, ours)) == sorted(map(summary, theirs)), name


def summary(answer: Dataset) -> tuple[str, ...]:
    step = answer.ScheduledProcedureStepSequence[0].ScheduledProcedureStepID
    return str(answer.PatientName), answer.PatientID, answer.AccessionNumber, answer.StudyInstanceUID, step


@pytest.mark.parametrize("path", ["fast", "stock"])
def test_a_modality_gets_its_worklist(store: Store, tmp_path: Path, path: str) -> None:
    """FF00 for each entry, FF01 where a key is not supported; names keep their characters."""
    planned(tmp_path / "lists")
    with serving(store, tmp_path / "lists", store_path=path) as node, associated(node) as association:
        answers, statuses = found(association, asking(PatientName="Müller*"))
        assert ([str(one.PatientName) for one in answers], statuses) == (["Müller^Zoë"], [0xFF00, 0x0000])
        strange = asking(Modality="MR")
        strange.KVP = None
        answers, statuses = found(association, strange)
        assert ([one.PatientID for one in answers], statuses) == (["P3"], [0xFF01, 0x0000])


def test_who_may_not_worklist_gets_none(store: Store, tmp_path: Path) -> None:
    """0124, not authorised."""
    planned(tmp_path / "lists")
    with serving(store, tmp_path / "lists") as node, associated(node, "PACS") as association:
        assert found(association, asking()) == ([], [0x0124])


def test_what_cannot_be_answered_says_why(store: Store, tmp_path: Path) -> None:
    """A900 for an identifier of two steps, A700 while the folder is away; the association goes on."""
    two = asking()
    two.ScheduledProcedureStepSequence = [Dataset(), Dataset()]
    with serving(store, tmp_path / "lists") as node, associated(node) as association:
        assert found(association, asking())[1] == [0xA700]
        planned(tmp_path / "lists")
        assert found(association, two)[1] == [0xA900]
        assert len(found(association, asking())[0]) == 3


def test_a_modality_may_cancel(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PS3.7 9.1.2.2: FE00, and no more entries. Entries take a moment each, so that the wish comes before the last."""
    quick = mwl.Asked.answer

    def answer(asked: mwl.Asked, entry: mwl.Entry) -> tuple[Dataset, bool]:
        time.sleep(0.002)
        return quick(asked, entry)

    monkeypatch.setattr(mwl.Asked, "answer", answer)
    long = entry(patient="LONG")
    long.ScheduledProcedureStepSequence = [entry(number).ScheduledProcedureStepSequence[0] for number in range(500)]
    for name in ("a", "b", "c", "d"):
        write(tmp_path / "lists", name, long)
    write(tmp_path / "lists", "e", entry(patient="LAST"))
    with serving(store, tmp_path / "lists") as node, associated(node) as association:
        statuses = []
        for status, _ in association.send_c_find(asking(), SOP_CLASS, msg_id=7):
            statuses.append(int(status.Status))
            if len(statuses) == 1:
                association.send_c_cancel(7, query_model=SOP_CLASS)
        assert statuses[-1] == 0xFE00
        assert len(statuses) < 2001
        assert len(found(association, asking(PatientID="LAST"))[0]) == 1


def test_a_node_without_a_folder_offers_no_worklist(store: Store) -> None:
    """The presentation context is refused."""
    config = NodeConfig.model_validate({"node": {"port": 0}, "remotes": REMOTES})
    offered = [uid for service in Worklist(config, store, lambda: 0.0).services() for uid in service.abstract_syntaxes]
    assert SOP_CLASS not in offered
