"""What one bad step at another manager does to the others there: nothing."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydicom import Dataset

from dicom_node.config import NodeConfig
from dicom_node.domain import JobState
from dicom_node.store import Store
from dicom_node.worklist.ups import Manager
from dicom_node.worklist.ups.asking import Answer, Verdict
from dicom_node.worklist.ups.pulling import Pulling
from tests.contracts.arrange import NOW
from tests.workitems import code, given, step


class Theirs:
    """A manager with these steps, that grants every claim."""

    listens = True

    def __init__(self, steps: dict[str, Dataset]) -> None:
        self.steps, self.claimed = steps, list[str]()

    def search(self, codes: Iterable[tuple[str, str]]) -> tuple[Dataset, ...]:
        for uid, one in self.steps.items():
            one.SOPInstanceUID = uid
        return tuple(self.steps.values())

    def get(self, uid: str) -> Dataset | None:
        return self.steps.get(uid)

    def update(self, uid: str, transaction_uid: str, said: Dataset) -> Answer:
        return Answer(verdict=Verdict.DONE)

    def change_state(self, uid: str, transaction_uid: str, to: JobState) -> Answer:
        self.claimed.append(uid)
        return Answer(verdict=Verdict.DONE)

    def subscribe(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    cut = close


def test_a_step_that_cannot_be_kept_keeps_nobody_from_the_next(tmp_path: Path) -> None:
    """It is declined, and those behind it are claimed (IHE AIW-I 4.82.4.1.1)."""
    way = Dataset()
    way.RetrieveAETitle = "FAR"
    said: dict[str, Any] = {"ScheduledWorkitemCodeSequence": [code("lung-ct", "99DICOMNODE")]}
    said |= {"InputInformationSequence": [given(DICOMRetrievalSequence=[way])]}
    bad, good = step(**said, ScheduledProcedureStepPriority="HIGH"), step(**said)
    bad.CommentsOnTheScheduledProcedureStep = "a\0b"
    far = {"ae": "FAR@10.0.0.1:104", "retrieve": "get", "tasks": "pull"}
    config = NodeConfig.model_validate({"remotes": {"far": far}, "models": {"lung-ct": {"folder": "/models"}}})
    store = Store.open(tmp_path / "storage")
    (puller,) = Pulling(config, Manager(config, {}, store, lambda: NOW), store, lambda: NOW)._pullers
    theirs = Theirs({"1.2.3.1": bad, "1.2.3.2": good})
    puller._theirs = puller._mirror._theirs = theirs
    puller.turn()
    store.close()
    assert theirs.claimed == ["1.2.3.2"]
