"""A node of workitems on a port of its own, and pynetdicom in the opposite roles: requester, performer, and a watcher that listens.

Whatever the node answers or reports is searched for Transaction UIDs, everywhere (`unspoken`).
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.tag import Tag
from pynetdicom import AE as ApplicationEntity
from pynetdicom import evt
from pynetdicom.association import Association

from dicom_node.config import NodeConfig
from dicom_node.receive import Receiver
from dicom_node.store import Store
from dicom_node.wire import Requestor
from dicom_node.worklist import Manager, Reporting, WorkitemService
from tests.orthanc import free_ports
from tests.workitems import but, unspoken

PUSH, WATCH, PULL, EVENT, QUERY = (f"1.2.840.10008.5.1.4.34.6.{last}" for last in range(1, 6))
ALL, FILTERED = "1.2.840.10008.5.1.4.34.5", "1.2.840.10008.5.1.4.34.5.1"
CHANGE_STATE, REQUEST_CANCEL, SUBSCRIBE, UNSUBSCRIBE, SUSPEND = range(1, 6)
NOW = 1_800_000_000.0

MAY = {
    "everybody": ("EVERYBODY", ["watch", "request", "perform"]),
    "requester": ("REQUESTER", ["request"]),
    "performer": ("PERFORMER", ["perform"]),
    "watcher": ("WATCHER", ["watch"]),
    "nobody": ("NOBODY", ["send"]),
}


@dataclass
class Peer:
    """One association, and what was heard over it."""

    association: Association
    secrets: set[str]
    commands: list[Dataset]  # of every message that came

    def create(self, said: Dataset, uid: str | None, *, to: str = PUSH, by: str | None = PUSH) -> tuple[int, Dataset]:
        """Ask for a step; return the status, and the command that it came with."""
        answer, attributes = self.association.send_n_create(said, to, uid, meta_uid=by)
        assert not attributes, "no attribute is asked for"
        return self._heard(answer, attributes), self.commands[-1] if self.commands else answer

    def set(self, said: Dataset, uid: str, *, to: str = PUSH, by: str | None = PULL) -> int:
        """Change a step."""
        self._hides(said)
        return self._heard(*self.association.send_n_set(said, to, uid, meta_uid=by))

    def get(self, uid: str, wanted: Sequence[str] = (), *, to: str = PUSH, by: str | None = PULL) -> tuple[int, Dataset]:
        """Read a step."""
        answer, said = self.association.send_n_get([Tag(one) for one in wanted], to, uid, meta_uid=by)
        return self._heard(answer, said), said or Dataset()

    def act(self, action: int, said: Dataset, uid: str, *, to: str = PUSH, by: str | None = None) -> int:
        """Ask for an action, on the context that has it unless another one is named."""
        self._hides(said)
        by = by or {CHANGE_STATE: PULL, REQUEST_CANCEL: PUSH}.get(action, WATCH)
        said = said or None  # an empty data set is announced and not sent
        return self._heard(*self.association.send_n_action(said, action, to, uid, meta_uid=by))

    def become(self, state: str | None, transaction_uid: str | None, uid: str) -> int:
        """Change the state of a step."""
        return self.act(CHANGE_STATE, but(Dataset(), ProcedureStepState=state, TransactionUID=transaction_uid), uid)

    def watch(self, uid: str, receiver: str = "WATCHER", *, lock: str | None = "FALSE", action: int = SUBSCRIBE, **keys: Any) -> int:
        """Subscribe, or no longer."""
        lock = lock if action == SUBSCRIBE else None
        return self.act(action, but(Dataset(), ReceivingAE=receiver or None, DeletionLock=lock, **keys), uid)

    def find(self, keys: Dataset, *, by: str = QUERY) -> tuple[list[Dataset], list[int]]:
        """Search the worklist; return what is answered, and every status."""
        answers = [(int(status.get("Status", -1)), said) for status, said in self.association.send_c_find(keys, by)]
        unspoken([said for _, said in answers], self.secrets)
        return [said for status, said in answers if status in (0xFF00, 0xFF01) and said is not None], [status for status, _ in answers]

    def _hides(self, said: Dataset) -> None:
        uid = str(said.get("TransactionUID") or "")
        if len(uid) > 20:  # not one of a test that names other things so, too
            self.secrets.add(uid)

    def _heard(self, answer: Dataset, said: Dataset | None) -> int:
        unspoken([answer, said, *self.commands[-1:]], self.secrets)
        return int(answer.get("Status", -1))


@dataclass
class Watcher:
    """An AE that is told of events."""

    port: int
    secrets: set[str]
    told: list[tuple[str, int, Dataset]] = field(default_factory=list)
    slow_s: float = 0.0
    status: int = 0x0000

    def hears(self, event: evt.Event) -> tuple[int, None]:
        """Take a report."""
        time.sleep(self.slow_s)
        said = event.event_information
        unspoken([said], self.secrets)
        assert str(event.request.AffectedSOPClassUID) == PUSH  # of every step (PS3.4 CC.3.1)
        self.told.append((str(event.request.AffectedSOPInstanceUID), int(event.request.EventTypeID), said))
        return self.status, None

    def of(self, uid: str) -> list[tuple[int, str]]:
        """Return what it was told of a step: the event, and the state or the per cent that it tells."""
        return [(kind, _gist(kind, said)) for of, kind, said in self.told if of == uid]

    def waits_for(self, uid: str, number: int, *, timeout_s: float = 8.0) -> list[tuple[int, str]]:
        """Wait until it was told so often of a step."""
        eventually(lambda: len(self.of(uid)) >= number, timeout_s)
        return self.of(uid)


def _gist(kind: int, said: Dataset) -> str:
    if kind == 3:
        return str(said.ProcedureStepProgressInformationSequence[0].ProcedureStepProgress)
    return str({1: said.get("ProcedureStepState"), 2: said.get("RequestingAE"), 4: said.get("SCPStatus")}.get(kind, ""))


def _listen(title: str, watcher: Watcher) -> Any:
    entity = ApplicationEntity(title)
    entity.add_supported_context(EVENT, scu_role=True, scp_role=True)
    return entity.start_server(("127.0.0.1", watcher.port), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, watcher.hears)])


@contextmanager
def listening(title: str, watcher: Watcher) -> Iterator[None]:
    """Let a watcher listen until the block ends."""
    server = _listen(title, watcher)
    try:
        yield
    finally:
        server.shutdown()


class Stepping:
    """A node that answers for workitems and tells of them, on a ledger that outlives it."""

    def __init__(self, folder: Path, *, address: str = "", watchers: Sequence[str] = ("WATCHER",), timeout_s: float = 5.0) -> None:
        self.folder, self.address, self.now = folder, address, NOW
        self.secrets: set[str] = set()
        ports = dict(zip(watchers, free_ports(len(watchers)), strict=True))
        self.watchers = {title: Watcher(port, self.secrets) for title, port in ports.items()}
        remotes = {
            name: {"ae": f"{title}@127.0.0.1:{ports.get(title, 104)}", "may": may, "timeout_s": timeout_s} for name, (title, may) in MAY.items()
        }
        for title, port in ports.items():
            remotes.setdefault(title.lower(), {"ae": f"{title}@127.0.0.1:{port}", "may": ["watch"], "timeout_s": timeout_s})
        said = {"node": {"host": "127.0.0.1", "port": 0}, "remotes": remotes, "deliver": {"backoff_s": 0.2, "backoff_max_s": 0.4}}
        self.config = NodeConfig.model_validate(said)
        self._listening: dict[str, Any] = {}
        self.begin()

    def begin(self) -> None:
        """Start the node."""
        self.store = Store.open(self.folder, self.address)
        self.manager = Manager(self.config, {}, self.store, lambda: self.now)
        self.receiver = Receiver(self.config, self.store, services=WorkitemService(self.config, self.manager).services())
        self.receiver.start()
        self.reporting: Reporting | None = None

    def report(self) -> None:
        """Begin to tell those who watch."""
        self.reporting = Reporting(self.config, self.manager, self.store, lambda: self.now)
        self.reporting.start()

    def end(self) -> None:
        """Stop the node."""
        if self.reporting is not None:
            self.reporting.stop()
        self.receiver.stop(grace_s=0.5)
        self.store.close()

    def close(self) -> None:
        """Stop everything."""
        self.end()
        for title in list(self._listening):
            self.deafen(title)

    def listen(self, title: str = "WATCHER") -> Watcher:
        """Let a watcher listen."""
        watcher = self.watchers[title]
        self._listening[title] = _listen(title, watcher)
        return watcher

    def deafen(self, title: str = "WATCHER") -> None:
        """Let a watcher listen no more."""
        self._listening.pop(title).shutdown()

    @contextmanager
    def peer(self, title: str = "EVERYBODY", contexts: Sequence[str] = (PUSH, WATCH, PULL, QUERY)) -> Iterator[Peer]:
        """Associate with the node."""
        entity = Requestor(title)
        for uid in contexts:
            entity.add_requested_context(uid)
        commands: list[Dataset] = []
        heard = [(evt.EVT_DIMSE_RECV, lambda event: commands.append(event.message.command_set))]
        association = entity.associate("127.0.0.1", self.receiver.port, ae_title=self.config.node.ae_title, evt_handlers=heard)
        assert association.is_established
        try:
            yield Peer(association, self.secrets, commands)
        finally:
            if association.is_established:
                association.release()


@contextmanager
def stepping(folder: Path, **how: Any) -> Iterator[Stepping]:
    """Run a node until the block ends."""
    node = Stepping(folder, **how)
    try:
        yield node
    finally:
        node.close()


def eventually(is_so: Callable[[], Any], timeout_s: float = 20.0) -> bool:
    """Wait until something is so; say whether that came to be."""
    until = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > until:
            return False
        threading.Event().wait(0.01)
    return True
