"""What the Task Performer makes of a workitem before a job performs it: taken up, put off or given up, without a thread or a peer."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset

from dicom_node.config import NodeConfig, Site
from dicom_node.domain import JobState, Priority, Workitem
from dicom_node.serve.performing import Performing
from dicom_node.store import Change, Store
from dicom_node.worklist.ups import Manager
from dicom_node.worklist.ups.attributes import model_of
from tests.contracts.arrange import NOW
from tests.workitems import code, given, step

REMOTES = {"far": {"ae": "FAR@10.0.0.1:104", "retrieve": "get"}}
OURS = {"ScheduledWorkitemCodeSequence": [code("lung-ct", "99DICOMNODE")]}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "storage")
    yield opened
    opened.close()


def performing(store: Store, now: float = NOW, models: tuple[str, ...] = ("lung-ct",)) -> Performing:
    said = {"remotes": REMOTES, "models": {name: {"folder": "/models"} for name in models}}
    site = Site(config=NodeConfig.model_validate(said), models={})
    return Performing(site, store, Manager(site.config, {}, store, lambda: now), lambda: now)


def managing(store: Store) -> Manager:
    return Manager(NodeConfig.model_validate({"remotes": REMOTES}), {}, store, lambda: NOW)


def order() -> Dataset:
    """Return a step that names its order alone: which study it is will be seen when the study comes."""
    item = Dataset()
    item.AccessionNumber = "A1"
    return step(StudyInstanceUID="", InputInformationSequence=[], ReferencedRequestSequence=[item], **OURS)


def test_an_order_waits_for_its_images_whatever_else_is_fetched(store: Store) -> None:
    """A retrieval of another study says nothing of an order whose study nobody knows yet."""
    managing(store).create(order(), uid="1.2.3", requester="RIS")
    other = store.retrievals.ask("far", "1.2.99", who="anna", why="a person asks for it", now=NOW + 1)
    store.retrievals.cancel(other.id, who="anna", now=NOW + 2)
    performing(store, NOW + 3).take_turn()
    item = store.workitems.get("1.2.3")
    assert item is not None
    assert item.state is JobState.SCHEDULED, item.reason


@pytest.mark.parametrize(("waited_s", "again_s"), [(3, 2), (200, 10), (7200, 30)])
def test_what_waits_for_long_is_looked_at_seldom(store: Store, waited_s: float, again_s: float) -> None:
    """A day's orders wait for their images, and each look is a transaction."""
    managing(store).create(order(), uid="1.2.3", requester="RIS")
    performing(store, NOW + waited_s).take_turn()
    assert store.workitems.next_due() == NOW + waited_s + again_s


def test_what_a_retrieval_brings_at_the_last_moment_counts(store: Store) -> None:
    """It has ended after this node looked what is here: so it looks again before it says that nothing came."""
    wanted = step(InputInformationSequence=[given("1.2.3", DICOMRetrievalSequence=[_way("FAR")])], **OURS)
    managing(store).create(wanted, uid="1.2.3", requester="RIS")
    one, view = store.retrievals.ask("far", "1.2.3", who="node", why="it is asked for", now=NOW + 1), store.studies.view

    def seen(uid: str) -> object:
        found = view(uid)
        store.retrievals.cancel(one.id, who="anna", now=NOW + 2)
        return found

    store.studies.view = seen  # type: ignore[method-assign,assignment]  # the moment between two looks
    performing(store, NOW + 3).take_turn()
    item = store.workitems.get("1.2.3")
    assert item is not None
    assert item.state is JobState.SCHEDULED, item.reason


def test_a_step_that_was_claimed_for_a_model_that_is_gone_is_given_up(store: Store) -> None:
    """At its manager nobody else may perform it: it is told, and does not stay in progress for ever."""
    said = {"state": JobState.SCHEDULED, "priority": Priority.HIGH, "attributes": model_of(step(**OURS)), "study_instance_uid": "1.2.3"}
    assert store.workitems.create(Workitem(uid="1.2.4", manager="far", requester="far", transaction_uid="2.25.1", **said), now=NOW)
    store.workitems.change("1.2.4", lambda _: Change(state=JobState.IN_PROGRESS, who="far", why="claimed"), now=NOW)
    performing(store, models=()).take_turn()
    item = store.workitems.get("1.2.4")
    assert item is not None
    assert item.state is JobState.CANCELED
    assert "none of this node's models" in item.reason
    assert [one.uid for one, _ in store.workitems.mirrored()] == ["1.2.4"]  # until its manager was told


def _way(title: str) -> Dataset:
    way = Dataset()
    way.RetrieveAETitle = title
    return way
