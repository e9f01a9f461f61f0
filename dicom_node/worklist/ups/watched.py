"""The workitems as others see them: read, searched, and watched (PS3.4 CC.2.3, CC.2.7, CC.2.8)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydicom import Dataset
from pydicom.tag import Tag

from dicom_node.config import Model, NodeConfig
from dicom_node.domain import FILTERED_SUBSCRIPTION, GLOBAL_SUBSCRIPTION, Channel, JobState, Refused, Subscription, Workitem, is_ae_title, is_uid
from dicom_node.store import Store
from dicom_node.worklist.attributes import INVALID_VALUE, MISSING_ATTRIBUTE, RESOURCE_LIMITATION
from dicom_node.worklist.ups import search
from dicom_node.worklist.ups.attributes import dataset_of, hidden, model_of
from dicom_node.worklist.ups.presented import INPUTS, Evidence, Station, presented
from dicom_node.worklist.ups.states import NO_SUCH_WORKITEM, SUCCESS

_PAGE = 200
_SUBSCRIPTIONS_MAX = 1_000  # to worklists, of all receivers
_INPUT_TAG = Tag(INPUTS)
_INPUTS_KEY = f"{_INPUT_TAG:08X}"  # as the DICOM JSON Model writes it

_SAYS: Mapping[int, str] = {
    0x0111: "there is such a step already",
    0xC300: "the step may no longer be updated",
    0xC301: "the Transaction UID is missing, or is not the one that the step was claimed with",
    0xC302: "the step is in progress already",
    0xC303: "the state may become SCHEDULED by N-CREATE alone",
    0xC304: "the step does not say what its final state requires",
    0xC307: "there is no such step",
    0xC310: "the step is not in progress",
    0xC311: "the step is completed",
}


class Watched:
    """The workitems of this node, for whoever may look."""

    def __init__(self, config: NodeConfig, models: Mapping[str, Model], store: Store, clock: Callable[[], float]) -> None:
        self._config = config
        self._models = models
        self._store = store
        self._clock = clock
        web = config.worklist.address.rstrip("/")
        self.station = Station(
            ae_title=config.node.ae_title,
            worklist_label=config.worklist.label,
            retrieve_url=f"{web}/dicom-web" if web else "",
            contact_url=f"{web}/jobs/" if web else "",
        )

    def get(self, uid: str, wanted: Sequence[int] = ()) -> Dataset:
        """Return a step; wanted: tags of the attributes that are asked for, all where there are none (PS3.4 CC.2.7).

        Raises
        ------
        Refused: there is none (C307).
        """
        whole = hidden(self._presented([self._found(uid)], with_inputs=not wanted or _INPUT_TAG in wanted)[0])
        if not wanted:
            return whole
        asked = Dataset()
        asked.update({tag: whole[tag] for tag in wanted if tag in whole})
        if "SpecificCharacterSet" in whole:
            asked.SpecificCharacterSet = whole.SpecificCharacterSet
        return asked

    def _found(self, uid: str) -> Workitem:
        item = self._store.workitems.get(uid) if is_uid(uid) else None
        if item is None or item.manager:  # another manager's is to be asked for there
            raise refused(NO_SUCH_WORKITEM)
        return item

    # ------------------------------------------------------------------------------------------------------------ the worklist

    def find(self, keys: Dataset) -> Iterator[tuple[Dataset, bool]]:
        """Yield what is asked for of every step that matches, and whether all keys are supported (PS3.4 CC.2.8).

        A data set without any key matches nothing.

        Raises
        ------
        Refused: the keys cannot be read.
        """
        asked = search.asked(keys)
        if asked is None:
            return
        for _, whole in self._matching(asked):
            yield asked.answer(whole)

    def matching(self, keys: Dataset) -> Iterator[Dataset]:
        """Yield every step that matches, whole."""
        asked = search.asked(keys)
        if asked is not None:
            for _, whole in self._matching(asked):
                yield whole

    def _matching(self, asked: search.Asked) -> Iterator[tuple[Workitem, Dataset]]:
        after = 0
        while page := self._store.workitems.page(*asked.conditions, after=after, limit=_PAGE):
            after = page[-1][0]
            items = [item for _, item in page]
            for item, whole in zip(items, map(hidden, self._presented(items, with_inputs=asked.with_inputs)), strict=True):
                if asked.matches(whole):
                    yield item, whole

    def _presented(self, items: Sequence[Workitem], *, with_inputs: bool = True) -> list[Dataset]:
        """Return steps as others see them; with_inputs: with every instance of their inputs, of which there may be thousands."""
        if not with_inputs:
            items = [replace(item, attributes={tag: said for tag, said in item.attributes.items() if tag != _INPUTS_KEY}) for item in items]
        ids: dict[str, list[int]] = {item.uid: [i for of in item.job.inputs.values() for i in of] for item in items if item.job is not None}
        wanted = {i for of in ids.values() for i in (of if with_inputs else of[:1])}
        instances = {one.id: one for one in self._store.instances.by_ids(sorted(wanted))} if wanted else {}
        shown = []
        for item in items:
            inputs = [instances[i] for i in ids.get(item.uid, ()) if i in instances]
            header = inputs[0].header if inputs else {}
            outputs = self._outputs(item.uid) if item.job is not None and item.job.state is JobState.COMPLETED else ()
            evidence = Evidence(header=header, inputs=inputs if with_inputs else (), outputs=outputs)
            shown.append(presented(item, self.station, evidence, self._models))
        return shown

    def _outputs(self, uid: str) -> list[tuple[Any, list[str]]]:
        remotes = self._config.remotes
        made = self._store.workitems.outputs(uid)
        return [(one, [remotes[name].ae.title for name in names if name in remotes]) for one, names in made]

    # ------------------------------------------------------------------------------------------------------------ subscribers

    def subscribe(
        self, uid: str, receiver: str, *, channel: Channel, deletion_lock: bool = False, keys: Dataset | None = None, owner: str = ""
    ) -> int:
        """Let an AE be told of a step, of all, or of all that match (PS3.4 CC.2.3); return the status.

        Raises
        ------
        Refused: there is no such step, or the receiver is no AE title.
        """
        if not is_ae_title(receiver):
            raise Refused("ReceivingAE is no AE title", status=INVALID_VALUE)
        is_filtered = uid == FILTERED_SUBSCRIPTION
        if is_filtered and (keys is None or search.asked(keys) is None):
            raise Refused("a filtered subscription has keys", status=MISSING_ATTRIBUTE)
        is_worklist = is_filtered or uid == GLOBAL_SUBSCRIPTION
        if is_worklist and len(self._store.subscriptions.list(uid=uid)) >= _SUBSCRIPTIONS_MAX:
            raise Refused("too many subscribe to the worklist", status=RESOURCE_LIMITATION)
        now = self._clock()
        wanted = Subscription(
            receiver=receiver,
            channel=channel,
            workitem_uid=uid,
            deletion_lock=deletion_lock,
            keys=model_of(keys) if is_filtered and keys is not None else {},
            owner=owner,
            created_at=now,
        )
        if not is_worklist:
            self._found(uid)
        self._store.subscriptions.subscribe(wanted, now=now)
        asked = search.asked(keys) if is_filtered and keys is not None else None
        meant = [item.uid for item, _ in self._matching(asked)] if asked is not None else []
        for start in range(0, len(meant), _PAGE):
            self._store.subscriptions.match(wanted, meant[start : start + _PAGE], now=now)
        return SUCCESS

    def unsubscribe(self, uid: str, receiver: str) -> None:
        """End a subscription; of the worklist: every one of the receiver's (PS3.4 CC.2.3.3)."""
        if uid not in (GLOBAL_SUBSCRIPTION, FILTERED_SUBSCRIPTION):
            self._found(uid)
        self._store.subscriptions.unsubscribe(receiver, uid)

    def suspend(self, uid: str, receiver: str) -> None:
        """Subscribe an AE to no further steps; what it is told of it goes on being told of.

        Raises
        ------
        Refused: it is not the worklist that is named (C314).
        """
        if uid not in (GLOBAL_SUBSCRIPTION, FILTERED_SUBSCRIPTION):
            raise Refused("only a subscription to the worklist is suspended", status=0xC314)
        self._store.subscriptions.suspend(receiver)

    def compare(self) -> int:
        """Compare new steps with the filters of those who watch only some; return how many steps were compared."""
        new = self._store.subscriptions.to_compare()
        filters = [(one, search.asked(dataset_of(one.keys))) for one in self._store.subscriptions.list(uid=FILTERED_SUBSCRIPTION)] if new else []
        for _, uid in new:
            item = self._store.workitems.get(uid)
            if item is None or item.manager:
                continue
            whole = hidden(self._presented([item])[0])
            for one, asked in filters:
                if asked is not None and asked.matches(whole):
                    self._store.subscriptions.match(one, [uid], now=self._clock())
        self._store.subscriptions.told([key for key, _ in new])
        return len(new)


def refused(status: int) -> Refused:
    """Return what is raised for a status of the table of states."""
    return Refused(_SAYS.get(status, "it cannot be done"), status=status)
