"""Storage commitment with real peers: Orthanc, and an archive of pynetdicom's that reports in each of the ways that the standard lets it."""

import contextlib
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, FileMetaDataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE as ApplicationEntity
from pynetdicom import build_role, evt

from dicom_node.config import NodeConfig
from dicom_node.deliver import Committer, Deliverer, Reports
from dicom_node.domain import AE, CommitmentRole, CommitmentState, Delivery, DeliveryState, Job, Result, derived_uid
from dicom_node.receive import Promises, Receiver, Reporter
from dicom_node.store import Store
from dicom_node.store.moving import insert_job
from dicom_node.wire.commitment import SOP_CLASS, SOP_INSTANCE, Asked, Said, read_report, read_request, report, request
from tests.orthanc import ask, free_ports, orthanc

CT = "1.2.840.10008.5.1.4.1.1.2"
STUDY = derived_uid("test", "study")
PATIENCE_S = 30.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "node")
    yield opened
    opened.close()


def wait_for(what: Callable[[], Any]) -> Any:
    """Wait until something is so, and return it."""
    until = time.monotonic() + PATIENCE_S
    while not (found := what()):
        assert time.monotonic() < until, "it did not come to be in time"
        time.sleep(0.02)
    return found


def written(number: int, series: str = "results") -> bytes:
    """Return the bytes of a small CT image."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = CT, derived_uid(series, number)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, derived_uid(series)
    dataset.PatientID, dataset.PatientName, dataset.Modality, dataset.InstanceNumber = "MARKED", "Marked^Patient", "CT", number
    dataset.Rows = dataset.Columns = 2
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.SamplesPerPixel, dataset.PixelRepresentation, dataset.PhotometricInterpretation = 1, 0, "MONOCHROME2"
    dataset.PixelData = bytes(8)
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def made(store: Store, number: int) -> None:
    """Let a job make so many objects, to be delivered to `pacs`."""
    identity = sha256(b"job").hexdigest()
    wanted = Job(
        study_instance_uid=STUDY,
        model="lung-ct",
        model_version="1",
        device_uid="2.25.9",
        identity=identity,
        inputs={},
        why="test",
        deliver=("pacs",),
        created_at=0.0,
    )
    with store.database.write() as connection:
        insert_job(connection, wanted)
    held = store.jobs.claim("worker", ["lung-ct"], now=0.0, lease_s=60.0)
    assert held is not None
    assert store.jobs.complete(held, [_result(store, held, index) for index in range(number)], now=0.0, why="done")


def _result(store: Store, job: Job, number: int) -> Result:
    data = written(number)
    return Result(
        job_id=job.id,
        kind="DER",
        sop_class_uid=CT,
        sop_instance_uid=derived_uid("results", number),
        series_instance_uid=derived_uid("results"),
        study_instance_uid=STUDY,
        path=store.archive.write_result(data, job.identity, f"DER-{number}", made_at=0.0),
        digest=sha256(data).hexdigest(),
    )


def on_pacs(store: Store, number: int = 3) -> None:
    """Let so many results be on the PACS, as far as the ledger knows."""
    made(store, number)
    for one in store.deliveries.claim("pacs", "sender", now=time.time(), lease_s=60.0):
        assert store.deliveries.sent(one, "sender", now=time.time() - 5, status=0)


def configured(pacs: AE, port: int = 0, **deliver: Any) -> NodeConfig:
    """Return a configuration of one destination that is asked to keep what it took."""
    remote = {"ae": str(pacs), "may": ["receive"], "storage_commitment": True, "timeout_s": 5.0}
    wanted = {"backoff_s": 0.05, "poll_s": 0.05, "commit_hold_s": 10.0, **deliver}
    return NodeConfig.model_validate({"node": {"port": port, "disk_reserve_mb": 1}, "remotes": {"pacs": remote}, "deliver": wanted})


@contextlib.contextmanager
def committing(config: NodeConfig, store: Store) -> Iterator[Receiver]:
    """Run what asks, and the port to which reports may come."""
    receiver = Receiver(config, store, services=Reports(config, store, time.time).services())
    committer = Committer(config, store)
    receiver.start()
    committer.start()
    try:
        yield receiver
        assert committer.alive
    finally:
        committer.stop()
        receiver.stop()


def all_in(store: Store, state: DeliveryState) -> tuple[Delivery, ...]:
    found = store.deliveries.list()
    return found if all(one.state is state for one in found) else ()


class Archive:
    """A storage commitment SCP of pynetdicom's; `answer` is given each request, and says by `send` what it reports."""

    def __init__(self, answer: "Callable[[Archive, Any, Said], None]", *, status: int = 0x0000, port: int = 0) -> None:
        self.requests: list[Said] = []
        self.answers: list[int] = []  # statuses that its reports were answered with
        self.node: AE | None = None
        self._answer = answer
        self._status = status
        self._port = port
        self._threads: list[threading.Thread] = []
        self._entity = ApplicationEntity("PACS")
        self._entity.add_supported_context(SOP_CLASS)
        self._server: Any = None

    def __enter__(self) -> "Archive":
        self._server = self._entity.start_server(("127.0.0.1", self._port), block=False, evt_handlers=[(evt.EVT_N_ACTION, self._on_action)])
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join(PATIENCE_S)
        self._entity.shutdown()

    @property
    def ae(self) -> AE:
        return AE("PACS", *self._server.server_address[:2])

    def _on_action(self, event: evt.Event) -> tuple[int, None]:
        asked = read_request(event.action_information)
        said = Said(transaction_uid=asked.transaction_uid, outcomes=dict.fromkeys(asked.named, 0))
        self.requests.append(said)
        if self._status == 0x0000:
            self._threads.append(threading.Thread(target=self._later, args=(event.assoc, said)))
            self._threads[-1].start()
        return self._status, None

    def _later(self, association: Any, said: Said) -> None:
        time.sleep(0.3)  # after the answer to the request
        self._answer(self, association, said)

    def send(self, association: Any, said: Said) -> int:
        """Report over an association."""
        event_type, dataset = report(said)
        status, _ = association.send_n_event_report(dataset, event_type, SOP_CLASS, SOP_INSTANCE)
        self.answers.append(status.get("Status", -1))
        return self.answers[-1]

    def call(self, said: Said, *roles: Any, title: str = "PACS") -> int:
        """Report over an association that it requests."""
        assert self.node is not None
        caller = ApplicationEntity(title)
        caller.add_requested_context(SOP_CLASS)
        association = caller.associate(self.node.host, self.node.port, ae_title=self.node.title, ext_neg=list(roles))
        assert association.is_established
        try:
            return self.send(association, said)
        finally:
            association.release()


def but(said: Said, failure: int, number: int = 1) -> Said:
    """Return a report in which the first so many failed."""
    failed = sorted(said.outcomes)[:number]
    return Said(transaction_uid=said.transaction_uid, outcomes=said.outcomes | dict.fromkeys(failed, failure))


def on_the_same(archive: Archive, association: Any, said: Said) -> None:
    archive.send(association, said)


# ----------------------------------------------------------------------------------------------------- the node asks


def test_a_report_on_the_same_association_commits_every_result(store: Store) -> None:
    """PS3.4 J.3.3: the association is held open for it, and released after its answer."""
    on_pacs(store)
    with Archive(on_the_same) as archive, committing(configured(archive.ae), store):
        wait_for(lambda: all_in(store, DeliveryState.COMMITTED))
        wait_for(lambda: archive.answers)
    assert archive.answers == [0x0000]
    [asked] = archive.requests
    assert len(asked.outcomes) == 3
    assert {item.outcome for item in store.commitments.list()[0].items} == {0}


@pytest.mark.parametrize("roles", [(), (False, True), (True, True)])
def test_a_report_on_a_new_association_commits_every_result(store: Store, roles: tuple[bool, bool] | tuple[()]) -> None:
    """PS3.7 D.3.3.4: archives that call back propose the SCP role, both roles or none; they report twice, and that changes nothing."""
    on_pacs(store)
    proposed = [build_role(SOP_CLASS, scu_role=roles[0], scp_role=roles[1])] if roles else []

    def call_back(archive: Archive, _: Any, said: Said) -> None:
        archive.call(said, *proposed)
        archive.call(said, *proposed)

    with Archive(call_back) as archive, committing(configured(archive.ae, commit_hold_s=0.0), store) as receiver:
        archive.node = AE("DICOM_NODE", "127.0.0.1", receiver.port)
        wait_for(lambda: len(archive.answers) == 2)
        assert archive.answers == [0x0000, 0x0000]
        assert all_in(store, DeliveryState.COMMITTED)


def test_what_the_archive_does_not_keep_is_sent_again(store: Store) -> None:
    """PS3.3 C.14.1.1: 0112, no such object instance; the others are committed."""
    on_pacs(store)

    def fail_one(archive: Archive, association: Any, said: Said) -> None:
        archive.send(association, but(said, 0x0112))

    with Archive(fail_one) as archive, committing(configured(archive.ae), store):
        wait_for(lambda: any(one.state is DeliveryState.PENDING for one in store.deliveries.list()))
        wait_for(lambda: archive.answers)
    found = sorted(store.deliveries.list(), key=lambda one: one.state)
    assert [one.state for one in found] == [DeliveryState.COMMITTED, DeliveryState.COMMITTED, DeliveryState.PENDING]
    assert found[2].reason == "pacs does not commit itself to it: 0112 (no such object instance); it is sent again"


def test_reports_that_cannot_be_meant_change_nothing(store: Store) -> None:
    """Unknown transactions, strangers, and lists that lack an instance or name another are answered 0115 (PS3.7 Annex C)."""
    on_pacs(store)
    done = threading.Event()

    def nonsense(archive: Archive, _: Any, said: Said) -> None:
        archive.call(Said(transaction_uid="2.25.404", outcomes=said.outcomes))
        archive.call(Said(transaction_uid=said.transaction_uid, outcomes=dict(list(said.outcomes.items())[1:])))
        archive.call(Said(transaction_uid=said.transaction_uid, outcomes={**said.outcomes, (CT, "2.25.404"): 0}))
        done.set()

    with Archive(nonsense) as archive, committing(configured(archive.ae, commit_hold_s=0.0), store) as receiver:
        archive.node = AE("DICOM_NODE", "127.0.0.1", receiver.port)
        assert done.wait(PATIENCE_S)
        assert archive.answers == [0x0115, 0x0115, 0x0115]
        assert all_in(store, DeliveryState.SENT)
        assert archive.call(archive.requests[0]) == 0x0000
        assert all_in(store, DeliveryState.COMMITTED)


def test_without_a_report_it_is_asked_again_under_another_transaction_and_then_a_person_must(store: Store) -> None:
    """The delivery stays SENT, and says so; a report that comes at last is believed."""
    on_pacs(store, 1)
    silent = configured(AE("PACS", "127.0.0.1", 104), commit_hold_s=0.0, commit_after_s=0.3, commit_attempts=2)
    with Archive(lambda *_: None) as archive:
        config = silent.model_copy(update={"remotes": configured(archive.ae).remotes})
        with committing(config, store) as receiver:
            archive.node = AE("DICOM_NODE", "127.0.0.1", receiver.port)
            wait_for(lambda: "not asked again" in store.deliveries.list()[0].reason)
            assert len({said.transaction_uid for said in archive.requests}) == 2
            assert [one.state for one in store.commitments.list()] == [CommitmentState.OVERDUE] * 2
            assert all_in(store, DeliveryState.SENT)
            assert archive.call(archive.requests[1]) == 0x0000
    assert all_in(store, DeliveryState.COMMITTED)


def test_an_archive_that_refuses_the_request_or_the_service_is_named(store: Store) -> None:
    """The delivery stays SENT, with what was answered."""
    on_pacs(store, 1)
    with Archive(lambda *_: None, status=0x0213) as archive, committing(configured(archive.ae, commit_attempts=1), store):
        wait_for(lambda: store.deliveries.list()[0].reason)
    assert "pacs answered a request for storage commitment with 0213 (request 1 of 1); it is not asked again" in store.deliveries.list()[0].reason


def test_a_report_after_a_restart_is_known(tmp_path: Path) -> None:
    """The process that asked is gone; the ledger knows the transaction."""
    before = Store.open(tmp_path / "node")
    on_pacs(before, 2)
    with Archive(lambda *_: None) as archive:
        with committing(configured(archive.ae, commit_hold_s=0.0), before):
            wait_for(lambda: archive.requests)
        before.close()
        after = Store.open(tmp_path / "node")
        with committing(configured(archive.ae), after) as receiver:
            archive.node = AE("DICOM_NODE", "127.0.0.1", receiver.port)
            assert archive.call(archive.requests[0], build_role(SOP_CLASS, scu_role=False, scp_role=True)) == 0x0000
            assert all_in(after, DeliveryState.COMMITTED)
            assert len(archive.requests) == 1
        after.close()


def test_an_archive_that_is_away_is_asked_when_it_is_back_and_that_costs_no_request(store: Store) -> None:
    """An unreachable peer says nothing of the objects."""
    on_pacs(store, 1)
    with Archive(on_the_same) as away:
        gone = away.ae
    with committing(configured(gone, backoff_max_s=0.2), store):
        time.sleep(0.5)
        assert store.commitments.list() == ()
        with Archive(on_the_same, port=gone.port) as archive:
            wait_for(lambda: all_in(store, DeliveryState.COMMITTED))
            wait_for(lambda: archive.answers)
    assert store.commitments.list()[0].attempts == 1


def test_orthanc_commits_itself_to_what_it_holds_and_gets_again_what_it_lost(store: Store, tmp_path: Path) -> None:
    """Orthanc reports on a new association, to the address that it has for the node's title."""
    made(store, 3)
    (port,) = free_ports(1)
    with orthanc(tmp_path / "orthanc", remotes={"node": AE("DICOM_NODE", "127.0.0.1", port)}) as (ae, url):
        config = configured(ae, port, commit_hold_s=0.5)
        deliverer = Deliverer(config, store)
        deliverer.start()
        try:
            wait_for(lambda: all_in(store, DeliveryState.SENT))
            _forget(url, derived_uid("results", 1))
            with committing(config, store):
                wait_for(lambda: all_in(store, DeliveryState.COMMITTED))
        finally:
            deliverer.stop()
        assert len(ask(f"{url}/instances")) == 3
    assert sorted(one.attempts for one in store.deliveries.list()) == [1, 1, 2]
    asked = store.commitments.list(role=CommitmentRole.SCU)  # how many results go into one request is a matter of when each was sent
    assert len(asked) >= 2 and {one.state for one in asked} == {CommitmentState.REPORTED}


def _forget(url: str, sop_instance_uid: str) -> None:
    """Let Orthanc lose an instance."""
    (key,) = ask(f"{url}/tools/find", {"Level": "Instance", "Query": {"SOPInstanceUID": sop_instance_uid}})
    with urllib.request.urlopen(urllib.request.Request(f"{url}/instances/{key}", method="DELETE"), timeout=30):
        pass


# ----------------------------------------------------------------------------------------------------- the node is asked


class Scanner:
    """A storage commitment SCU of pynetdicom's, which also listens."""

    def __init__(self) -> None:
        self.said: list[Said] = []
        self.status = 0x0000
        self._entity = ApplicationEntity("CT_ER")
        self._entity.add_requested_context(CT, ExplicitVRLittleEndian)
        self._entity.add_requested_context(SOP_CLASS)
        self._entity.add_supported_context(SOP_CLASS, scu_role=True, scp_role=True)
        self._server: Any = None

    def __enter__(self) -> "Scanner":
        self._server = self._entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._on_report)])
        return self

    def __exit__(self, *_: object) -> None:
        self._entity.shutdown()

    @property
    def ae(self) -> AE:
        return AE("CT_ER", *self._server.server_address[:2])

    def associate(self, to: AE) -> Any:
        association = self._entity.associate(to.host, to.port, ae_title=to.title, evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._on_report)])
        assert association.is_established
        return association

    def _on_report(self, event: evt.Event) -> tuple[int, None]:
        if self.status == 0x0000:
            self.said.append(read_report(event.request.EventTypeID, event.event_information))
        return self.status, None


def names(*numbers: int, sop_class: str = CT) -> tuple[tuple[str, str], ...]:
    return tuple((sop_class, derived_uid("scan", number)) for number in numbers)


def store_images(association: Any, *numbers: int) -> None:
    for number in numbers:
        assert association.send_c_store(dcmread(BytesIO(written(number, "scan")))).Status == 0x0000


def ask_to_keep(association: Any, *named: tuple[str, str], uid: str = "2.25.77") -> int:
    asked = request(Asked(transaction_uid=uid, named=named))
    status, _ = association.send_n_action(asked, 1, SOP_CLASS, SOP_INSTANCE)
    return int(status.Status)


@contextlib.contextmanager
def keeping(store: Store, scanner: AE, **node: Any) -> Iterator[AE]:
    """Run a port that takes images and requests to keep them."""
    remote = {"ae": str(scanner), "may": ["send", "commit"], "timeout_s": 5.0}
    config = NodeConfig.model_validate({"node": {"port": 0, "disk_reserve_mb": 1, **node}, "remotes": {"ct": remote}})
    receiver = Receiver(config, store, services=Promises(config, store, time.time).services())
    reporter = Reporter(config, store)
    receiver.start()
    reporter.start()
    try:
        yield AE("DICOM_NODE", "127.0.0.1", receiver.port)
        assert reporter.alive
    finally:
        receiver.stop()
        reporter.stop()


@pytest.mark.parametrize("path", ["fast", "stock"])
def test_a_scanner_that_waits_hears_on_the_same_association_what_is_kept(store: Store, path: str) -> None:
    """PS3.4 J.3.3: what is here byte by byte is kept; the rest is named with its reason (PS3.3 C.14.1.1)."""
    with Scanner() as scanner, keeping(store, scanner.ae, store_path=path) as node:
        association = scanner.associate(node)
        store_images(association, 1, 2, 3)
        [damaged] = store.commitments.instances([derived_uid("scan", 3)])
        (file,) = store.instances.bring([damaged])
        file.write_bytes(file.read_bytes()[:-1] + b"!")
        others = (*names(4), *names(2, sop_class="1.2.840.10008.5.1.4.1.1.4"), *names(5, sop_class="1.2.840.10008.5.1.4.1.2.2.1"))
        assert ask_to_keep(association, *names(1, 3), *others) == 0x0000
        wait_for(lambda: scanner.said)
        assert association.is_established
        association.release()
        [said] = scanner.said
        [done] = wait_for(lambda: store.commitments.list(state=CommitmentState.REPORTED))
    assert list(said.outcomes.values()).count(0) == 1
    assert said.outcomes == dict(zip((*names(1, 3), *others), (0, 0x0110, 0x0112, 0x0119, 0x0122), strict=True))
    assert done.role is CommitmentRole.SCP
    assert [event.why for event in store.journal.of_study(STUDY) if event.kind == "commitment given"] == [
        "1 of 5 instances of a request are kept for it"
    ]


def test_a_scanner_that_releases_at_once_is_called(store: Store) -> None:
    """PS3.7 D.3.3.4: the node proposes the SCP role for itself; the same request again is reported again, another under its UID fails with 0131."""
    with Scanner() as scanner, keeping(store, scanner.ae) as node:
        association = scanner.associate(node)
        store_images(association, 1, 2)
        assert ask_to_keep(association, *names(1, 2)) == 0x0000
        association.release()
        wait_for(lambda: len(scanner.said) == 1)
        wait_for(lambda: store.commitments.list(state=CommitmentState.REPORTED))
        for number, wanted in enumerate((names(2, 1), names(1)), 2):
            association = scanner.associate(node)
            assert ask_to_keep(association, *wanted) == 0x0000
            association.release()
            wait_for(lambda number=number: len(scanner.said) == number)
    first, again, other = scanner.said
    assert first == again == Said(transaction_uid="2.25.77", outcomes=dict.fromkeys(names(1, 2), 0))
    assert other.outcomes == dict.fromkeys(names(1), 0x0131)


def test_a_report_that_nobody_takes_is_sent_again_after_a_restart(tmp_path: Path) -> None:
    """The request is in the ledger before it is answered."""
    clock_ahead_s = 3600.0
    before = Store.open(tmp_path / "node")
    with Scanner() as scanner:
        scanner.status = 0x0110
        with keeping(before, scanner.ae) as node:
            association = scanner.associate(node)
            store_images(association, 1)
            assert ask_to_keep(association, *names(1)) == 0x0000
            association.release()
            wait_for(lambda: before.commitments.list()[0].attempts == 1)
        before.close()
        assert scanner.said == []
        scanner.status = 0x0000
        after = Store.open(tmp_path / "node")
        assert "with 0110" in after.commitments.list()[0].reason
        remote = {"ae": str(scanner.ae), "may": ["commit"], "timeout_s": 5.0}
        reporter = Reporter(NodeConfig.model_validate({"remotes": {"ct": remote}}), after, lambda: time.time() + clock_ahead_s)
        reporter.start()
        wait_for(lambda: scanner.said)
        wait_for(lambda: after.commitments.list()[0].state is CommitmentState.REPORTED)
        reporter.stop()
        after.close()
    assert scanner.said[0].outcomes == dict.fromkeys(names(1), 0)


def test_what_nobody_may_ask_is_refused(store: Store) -> None:
    """PS3.7 Annex C: 0124 not authorised, 0115 invalid argument, 0112 no such instance, 0123 no such action."""
    with Scanner() as scanner, keeping(store, AE("OTHER", "127.0.0.1", 104), accept_unknown=True) as node:
        association = scanner.associate(node)
        assert ask_to_keep(association, *names(1)) == 0x0124
        association.release()
    with Scanner() as scanner, keeping(store, scanner.ae) as node:
        association = scanner.associate(node)
        assert ask_to_keep(association) == 0x0115
        asked = request(Asked(transaction_uid="2.25.77", named=names(1)))
        assert association.send_n_action(asked, 1, SOP_CLASS, "2.25.1")[0].Status == 0x0112
        assert association.send_n_action(asked, 2, SOP_CLASS, SOP_INSTANCE)[0].Status == 0x0123
        association.release()
    assert store.commitments.list() == ()
