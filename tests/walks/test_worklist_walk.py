"""A modality tells the node of its steps over a real socket; pynetdicom is the modality."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pydicom import Dataset
from pynetdicom import AE as ApplicationEntity
from pynetdicom.association import Association

from dicom_node.config import NodeConfig
from dicom_node.domain import StepState
from dicom_node.receive import Receiver
from dicom_node.store import Store
from dicom_node.worklist import Worklist
from dicom_node.worklist.mpps import SOP_CLASS
from tests.performed import STEP, STUDY, ended, in_progress

REMOTES = {"ct": {"ae": "CT_ER@10.0.4.21:104", "may": ["worklist"]}, "mr": {"ae": "MR@10.0.4.22:104", "may": ["send"]}}


@pytest.fixture
def store(tmp_path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "storage")
    yield opened
    opened.close()


@contextmanager
def modality(store: Store, title: str) -> Iterator[Association]:
    """Associate with a node of this ledger."""
    config = NodeConfig.model_validate({"node": {"host": "127.0.0.1", "port": 0, "storage": str(store.archive.root)}, "remotes": REMOTES})
    receiver = Receiver(config, store, services=Worklist(config, store, lambda: 1_800_000_000.0).services())
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


def created(association: Association, attributes: Dataset, uid: str | None = STEP) -> Dataset:
    return association.send_n_create(attributes, SOP_CLASS, uid)[0]


def test_a_step_is_begun_and_ended(store: Store) -> None:
    """PS3.4 F.7.2: 0111 for what is there, 0112 for what is not, 0110 with Error ID A710 for what has ended."""
    final = ended("COMPLETED", {"1.2.1": ["1.2.1.1", "1.2.1.2"]})
    with modality(store, "CT_ER") as association:
        assert created(association, in_progress()).Status == 0x0000
        assert created(association, in_progress()).Status == 0x0111
        assert association.send_n_set(final, SOP_CLASS, "1.2.99")[0].Status == 0x0112
        assert association.send_n_set(final, SOP_CLASS, STEP)[0].Status == 0x0000
        late = association.send_n_set(final, SOP_CLASS, STEP)[0]
    assert (late.Status, late.ErrorID) == (0x0110, 0xA710)
    (step,) = store.steps.of_study(STUDY)
    assert (step.state, step.expected) == (StepState.COMPLETED, ("1.2.1.1", "1.2.1.2"))


def test_who_may_not_worklist_is_told_so(store: Store) -> None:
    """PS3.7 10.1.5.1.6: 0124, not authorised; nothing is kept."""
    with modality(store, "MR") as association:
        assert created(association, in_progress()).Status == 0x0124
        assert association.send_n_set(ended("COMPLETED", {}), SOP_CLASS, STEP)[0].Status == 0x0124
    assert store.steps.of_study(STUDY) == ()


def test_a_step_without_a_uid_gets_one_and_the_same_one_again(store: Store) -> None:
    """PS3.7 10.1.5.1.4; a retry is a duplicate."""
    with modality(store, "CT_ER") as association:
        assert created(association, in_progress(), None).Status == 0x0000
        assert created(association, in_progress(), None).Status == 0x0111
    (step,) = store.steps.of_study(STUDY)
    assert step.sop_instance_uid.startswith("2.25.")
