"""An archive notifies the node over a real socket of what is available; pynetdicom is the archive."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pydicom import Dataset
from pynetdicom import AE as ApplicationEntity
from pynetdicom.association import Association

from dicom_node.config import NodeConfig
from dicom_node.receive import Receiver
from dicom_node.store import Store
from dicom_node.worklist import Worklist
from dicom_node.worklist.ian import SOP_CLASS
from tests.notified import available

STUDY, UID = "1.2.3", "1.2.3.9"
REMOTES = {
    "ris": {"ae": "RIS@10.0.4.20:104", "may": ["worklist"]},
    "pacs": {"ae": "PACS@10.0.4.10:104", "may": ["send"], "retrieve": "move", "fetch_notified": True},
}


@pytest.fixture
def store(tmp_path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "storage")
    yield opened
    opened.close()


@contextmanager
def notifying(store: Store, title: str, wanted: list[tuple[str, str, str]]) -> Iterator[Association]:
    """Associate with a node of this ledger; wanted: what it asks to be fetched."""
    config = NodeConfig.model_validate({"node": {"host": "127.0.0.1", "port": 0, "storage": str(store.archive.root)}, "remotes": REMOTES})
    room = Worklist(config, store, lambda: 1_800_000_000.0, wanted=lambda *what: wanted.append(what))
    receiver = Receiver(config, store, services=room.services())
    receiver.start()
    entity = ApplicationEntity(title)
    entity.add_requested_context(SOP_CLASS)
    association = entity.associate("127.0.0.1", receiver.port, ae_title=config.node.ae_title)
    try:
        assert association.is_established
        yield association
    finally:
        association.release()
        receiver.stop()


def created(association: Association, attributes: Dataset, uid: str | None = UID) -> Dataset:
    return association.send_n_create(attributes, SOP_CLASS, uid)[0]


def test_what_is_available_elsewhere_is_kept_and_fetched(store: Store) -> None:
    """PS3.4 R.3: 0000, 0111 for what is there already, 0120 for what lacks an attribute; a UID that is not named is given."""
    wanted: list[tuple[str, str, str]] = []
    said = available(STUDY, {"1.2.3.1": ["1.2.3.1.1", "1.2.3.1.2"]})
    with notifying(store, "RIS", wanted) as association:
        assert created(association, said).Status == 0x0000
        assert created(association, said).Status == 0x0111
        status, answer = association.send_n_create(said, SOP_CLASS, None)
        assert (status.Status, answer is not None) == (0x0000, True)
        del said.StudyInstanceUID
        assert created(association, said, "1.2.3.10").Status == 0x0120
    (notice,) = store.notices.of_study(STUDY)
    assert notice.instances == {"1.2.3.1.1", "1.2.3.1.2"}
    assert wanted == [("pacs", STUDY, "RIS notifies that pacs has 2 instances that are not here")] * 3, "of a duplicate too: the node may have died"


def test_who_may_not_worklist_may_not_notify(store: Store) -> None:
    """PS3.7 10.1.5.1.6: 0124, not authorised; nothing is kept."""
    wanted: list[tuple[str, str, str]] = []
    with notifying(store, "PACS", wanted) as association:
        assert created(association, available(STUDY, {"1.2.3.1": ["1.2.3.1.1"]})).Status == 0x0124
    assert (store.notices.of_study(STUDY), wanted) == ((), [])
