"""Workitems, whatever is asked of them in whatever order: what a plain model says, every event told once and in order, and no key told."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule
from pydicom import Dataset

from dicom_node.config import NodeConfig
from dicom_node.domain import FILTERED_SUBSCRIPTION, GLOBAL_SUBSCRIPTION, Channel, Refused
from dicom_node.store import Store
from dicom_node.worklist.ups import Manager
from dicom_node.worklist.ups.events import information
from tests.workitems import STATES, becoming, but, cells, finishing, progress, setting, step, transaction, unspoken

NOW = 1_800_000_000.0
RECEIVERS = ("W1", "W2")
CELLS = {(one.wish, one.given, one.state): one for one in cells()}
PRIORITIES = ("HIGH", "LOW")

receivers = st.sampled_from(RECEIVERS)
claims = st.sampled_from(["right", "wrong", "absent"])


class Model:
    """What a workitem should be: a state, the claim's key, what it says that its end requires."""

    def __init__(self, priority: str) -> None:
        self.state: str | None = "SCHEDULED"
        self.key = ""
        self.priority = priority
        self.said: set[str] = set()
        self.watched: dict[str, bool] = {}  # by whom, and whether with a lock

    def given(self, which: str) -> tuple[str, str]:
        """Return a Transaction UID, and what it is: before a claim every one is right."""
        if which == "absent":
            return "", "absent"
        if not self.key:
            return transaction(), "right"
        return (self.key, "right") if which == "right" else (transaction(), "wrong")


class WorkitemLife(RuleBasedStateMachine):
    """Requesters, performers and watchers act, and the node is started anew; after each step it is what the model says."""

    uids = Bundle("uids")

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dicom-node-workitem-life-"))
        self.config = NodeConfig.model_validate({"node": {}})
        self.items: dict[str, Model] = {}
        self.secrets: set[str] = set()
        self.all_of: dict[str, bool] = {}  # who subscribes to all, and whether with a lock
        self.filters: dict[str, str] = {}  # who subscribes to a priority
        self.expected: dict[str, list[tuple[str, int, str]]] = {one: [] for one in RECEIVERS}
        self.now = NOW
        self.begin()

    def begin(self) -> None:
        self.store = Store.open(self.folder)
        self.manager = Manager(self.config, {}, self.store, lambda: self.now)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.folder)

    def tell(self, uid: str, kind: int, gist: str) -> None:
        for receiver in self.items[uid].watched:
            self.expected[receiver].append((uid, kind, gist))

    def does(self, act: Any) -> int:
        try:
            return int(act())
        except Refused as error:
            unspoken([but(Dataset(), ErrorComment=str(error)[:64])], self.secrets)
            return error.status

    # ------------------------------------------------------------------------------------------------------ what happens

    @rule(target=uids, priority=st.sampled_from(PRIORITIES))
    def create(self, priority: str) -> Any:
        uid = transaction()
        assert self.does(lambda: self.manager.create(step(ScheduledProcedureStepPriority=priority), uid=uid, requester="R")[1]) == 0x0000
        self.items[uid] = one = Model(priority)
        one.watched = dict(self.all_of)
        self.tell(uid, 1, "SCHEDULED")
        self.manager.compare()
        for receiver, wanted in self.filters.items():
            if wanted == priority:
                one.watched[receiver] = False
                self.expected[receiver].append((uid, 1, "SCHEDULED"))
        return uid if len(self.items) < 8 else multiple()

    @rule(uid=uids)
    def create_again(self, uid: str) -> None:
        assert self.does(lambda: self.manager.create(step(), uid=uid, requester="R")[1]) == 0x0111

    @rule(uid=uids, to=st.sampled_from(STATES[1:]), which=claims)
    def change_state(self, uid: str, to: str, which: str) -> None:
        one = self.items[uid]
        given, is_given = one.given(which)
        self.secrets.add(given)
        cell = CELLS.get((to, is_given, one.state)) or CELLS[to, "absent", one.state]
        is_missing = cell.status == 0 and to in ("COMPLETED", "CANCELED") and to not in one.said
        status = self.does(lambda: self.manager.change_state(uid, becoming(to, given or None), who="P"))
        assert status == (0xC304 if is_missing else cell.status)
        if status == 0:
            one.state = cell.then
            one.key = given
            self.tell(uid, 1, to)

    @rule(uid=uids, which=claims, what=st.sampled_from(["COMPLETED", "CANCELED", "progress", "nothing"]))
    def set(self, uid: str, which: str, what: str) -> None:
        one = self.items[uid]
        given, is_given = one.given(which)
        self.secrets.add(given)
        wanted = {"progress": setting(ProcedureStepProgressInformationSequence=[progress()]), "nothing": setting(ProcedureStepLabel="x")}
        said = but(wanted.get(what) or finishing(what, ""), TransactionUID=given or None)
        status = self.does(lambda: self.manager.set(uid, said, who="P"))
        if one.state in ("COMPLETED", "CANCELED"):
            expected = 0xC300
        elif one.state == "SCHEDULED":
            expected = 0xC310 if given else 0x0000
        else:
            expected = 0x0000 if is_given == "right" else 0xC301
        assert status == expected
        if status == 0:
            one.said = (one.said - {"CANCELED"} if what == "progress" else one.said) | ({what} & {"COMPLETED", "CANCELED"})
            if what in ("progress", "CANCELED"):
                self.tell(uid, 3, "50")

    @rule(uid=uids)
    def ask_to_cancel(self, uid: str) -> None:
        one = self.items[uid]
        cell = CELLS["request cancel", "absent", one.state]
        assert self.does(lambda: self.manager.ask_to_cancel(uid, but(Dataset(), ReasonForCancellation="why"), who="R")) == cell.status
        if cell.status:
            return
        for kind, gist in [(2, "R")] if one.state == "IN PROGRESS" else [(1, "IN PROGRESS"), (1, "CANCELED")]:
            self.tell(uid, kind, gist)
        one.state = cell.then

    @rule(uid=uids, receiver=receivers, lock=st.booleans())
    def subscribe(self, uid: str, receiver: str, lock: bool) -> None:
        assert self.does(lambda: self.manager.subscribe(uid, receiver, channel=Channel.DIMSE, deletion_lock=lock)) == 0
        self.items[uid].watched[receiver] = lock
        self.expected[receiver].append((uid, 1, str(self.items[uid].state)))

    @rule(receiver=receivers, lock=st.booleans())
    def subscribe_to_all(self, receiver: str, lock: bool) -> None:
        assert self.does(lambda: self.manager.subscribe(GLOBAL_SUBSCRIPTION, receiver, channel=Channel.DIMSE, deletion_lock=lock)) == 0
        self.all_of[receiver] = lock
        for uid, one in self.items.items():
            one.watched[receiver] = lock
            if lock:
                self.expected[receiver].append((uid, 1, str(one.state)))

    @rule(receiver=receivers, priority=st.sampled_from(PRIORITIES))
    def subscribe_to_some(self, receiver: str, priority: str) -> None:
        keys = but(Dataset(), ScheduledProcedureStepPriority=priority)
        assert self.does(lambda: self.manager.subscribe(FILTERED_SUBSCRIPTION, receiver, channel=Channel.DIMSE, keys=keys)) == 0
        self.filters[receiver] = priority
        for uid, one in self.items.items():
            if one.priority == priority:
                one.watched[receiver] = False
                self.expected[receiver].append((uid, 1, str(one.state)))

    @rule(uid=uids, receiver=receivers)
    def unsubscribe(self, uid: str, receiver: str) -> None:
        self.manager.unsubscribe(uid, receiver)
        self.items[uid].watched.pop(receiver, None)
        self.expected[receiver] = [one for one in self.expected[receiver] if one[0] != uid]  # what waits is not told any more

    @rule(receiver=receivers)
    def suspend(self, receiver: str) -> None:
        self.manager.suspend(GLOBAL_SUBSCRIPTION, receiver)
        self.all_of.pop(receiver, None)
        self.filters.pop(receiver, None)

    @rule(receiver=receivers)
    def deliver(self, receiver: str) -> None:
        """Everything that waits is told, in order."""
        assert self.waiting(receiver) == self.expected[receiver]
        self.store.subscriptions.told([one.id for one in self.store.subscriptions.waiting(receiver, Channel.DIMSE, limit=10_000)])
        self.expected[receiver] = []

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.begin()
        self.store.subscriptions.restarted(now=self.now)

    @rule(seconds=st.sampled_from([60.0, 3600.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    # ----------------------------------------------------------------------------------------------- what is true always

    def waiting(self, receiver: str) -> list[tuple[str, int, str]]:
        found = []
        for one in self.store.subscriptions.waiting(receiver, Channel.DIMSE, limit=10_000):
            said = information(one)
            unspoken([said], self.secrets)
            if one.kind != 4:
                gist = {1: said.get("ProcedureStepState"), 2: said.get("RequestingAE"), 3: "50"}[int(one.kind)]
                found.append((one.workitem_uid, int(one.kind), str(gist)))
        return found

    @invariant()
    def it_is_what_the_model_says(self) -> None:
        if not hasattr(self, "store"):
            return
        answers = {str(said.SOPInstanceUID): said for said, _ in self.manager.find(but(Dataset(), SOPInstanceUID="", ProcedureStepState=""))}
        assert set(answers) == set(self.items)
        for uid, one in self.items.items():
            whole = self.manager.get(uid)
            unspoken([whole, answers[uid]], self.secrets)
            assert whole.ProcedureStepState == answers[uid].ProcedureStepState == one.state
            held = {sub.receiver: sub.deletion_lock for sub in self.store.subscriptions.list(uid=uid)}
            assert held == one.watched
        for receiver in RECEIVERS:
            assert self.waiting(receiver) == self.expected[receiver]


TestWorkitemLife = WorkitemLife.TestCase
TestWorkitemLife.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
