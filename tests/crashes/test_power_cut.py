"""Power cuts at any moment while instances come: what was acknowledged is there, whole and once; what is torn is not.

The process goes on while pictures of its disk are taken (`tests.crashes.disk`); each is opened as a node opens its storage folder at a start.
"""

import os
import random
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from blake3 import blake3

from dicom_node.config import Node, NodeConfig
from dicom_node.receive import Door, Receiver, recovered
from dicom_node.receive.header import split_file
from dicom_node.store import Recorded, Store
from dicom_node.store import draft as draft_module
from dicom_node.store import keeper as keeper_module
from tests import phantoms
from tests.crashes.disk import Disk
from tests.files import size_bytes
from tests.peers import need
from tests.test_receive import element

CUTS = int(os.environ.get("DICOM_NODE_CUTS", "120"))
CUTS_A_STORE = 10  # before another is begun, so that there is not much in any
SENDERS, IMAGES_A_SENDER = 4, 30
SYNTAX = "1.2.840.10008.1.2.1"

Content = tuple[str, str]  # SOP Instance UID, digest of the data set


@pytest.fixture
def die() -> random.Random:
    """What decides everything that is left to chance; but for the turns that threads take."""
    seed = int(os.environ.get("DICOM_NODE_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
    print(f"DICOM_NODE_SEED={seed}")
    return random.Random(seed)


class Sender(threading.Thread):
    """Sends images of several studies, some again, some with other content, some broken off; notes what was acknowledged."""

    def __init__(self, number: int, door: Door, seed: float) -> None:
        super().__init__(daemon=True)
        self._number, self._door = number, door
        self._die = random.Random(seed)
        self._count = 0
        self.sent: set[Content] = set()
        self.acknowledged: list[Content] = []
        self.failure: BaseException | None = None

    def run(self) -> None:
        before: list[tuple[str, bytes]] = []
        try:
            for _ in range(IMAGES_A_SENDER):
                again = self._die.random() if before else 1.0
                uid, data = self._die.choice(before) if again < 0.3 else self._image()
                if 0.15 < again < 0.3:
                    uid, data = self._image(uid)
                before.append((uid, data))
                self._send(uid, data)
        except BaseException as error:  # a thread's outermost frame: the test raises it
            self.failure = error

    def _image(self, uid: str = "") -> tuple[str, bytes]:
        """Return a data set of its own, of a few bytes or of many pages."""
        self._count += 1
        study = f"1.2.3.{self._die.choice([1, 2, self._number + 10])}"
        uid = uid or f"{study}.{self._number}.{self._count}"
        study = ".".join(uid.split(".")[:4])
        texts = {0x16: "1.2.840.10008.5.1.4.1.1.2", 0x18: uid, 0x60: "CT"}
        head = b"".join(element(8, number, b"CS" if number == 0x60 else b"UI", _even(text)) for number, text in texts.items())
        head += element(0x20, 0x0D, b"UI", _even(study)) + element(0x20, 0x0E, b"UI", _even(f"{study}.1"))
        pixels = self._die.randbytes(self._die.choice([10, 2000, 10_000, 40_000]))
        return uid, head + element(0x7FE0, 0x10, b"OB", pixels)

    def _send(self, uid: str, data: bytes) -> None:
        arrival = self._door.open(sop_class_uid=None, sop_instance_uid=uid, transfer_syntax_uid=SYNTAX, calling_ae=f"SENDER_{self._number}")
        for start in range(0, len(data), 16384):
            arrival.write(memoryview(data)[start : start + 16384])
        if self._die.random() < 0.1:
            arrival.drop()
            return
        content = uid, blake3(data).hexdigest()
        self.sent.add(content)
        assert isinstance(arrival.close(time.time()), Recorded)
        self.acknowledged.append(content)


def _even(text: str) -> bytes:
    return text.encode() + b"\0" * (len(text) % 2)


def test_what_was_acknowledged_survives_a_power_cut_and_what_was_torn_does_not(tmp_path, die, monkeypatch):
    """Promise 1, for at least a hundred power cuts while four senders send; each a picture that the disk might have been left in."""
    monkeypatch.setattr(keeper_module, "_CHECKPOINT_EVERY", 40)  # so that the log begins anew, and within a picture's reach
    monkeypatch.setattr(draft_module, "BUFFER_BYTES", 4 * draft_module.PAGE_BYTES)  # so that some come in several buffers
    cuts = remade = looked_for = 0
    while cuts < CUTS:
        store = Store.open(tmp_path / "node")
        door = Door(store, Node(disk_reserve_mb=0))
        senders = [Sender(number, door, die.random()) for number in range(SENDERS)]
        pictures: list[tuple[Path, set[Content]]] = []
        with Disk(store, die).watched() as disk:
            for sender in senders:
                sender.start()
            while any(sender.is_alive() for sender in senders) and len(pictures) < CUTS_A_STORE:
                before = {content for sender in senders for content in [*sender.acknowledged]}
                pictures.append((tmp_path / f"cut-{cuts + len(pictures)}", before))
                disk.picture(pictures[-1][0])
                senders[0].join(die.uniform(0.0, 0.04))
            for sender in senders:
                sender.join()
                assert sender.failure is None, sender.failure
        store.close()
        sent = {content for sender in senders for content in sender.sent}
        for place, before in pictures:
            remade += after_the_cut(place, before, sent)
            looked_for += len(before)
        cuts += len(pictures)
        for path in tmp_path.iterdir():
            shutil.rmtree(path)
    print(f"{cuts} power cuts, {looked_for} acknowledged instances looked for, {remade} rows made again")
    assert remade, "no cut took a row: this tested too little"


def after_the_cut(place: Path, acknowledged: set[Content], sent: set[Content]) -> int:
    """Start on what a power cut left, and see that all is well; return how many rows were made again from files."""
    store = Store.open(place)
    _, recorded, _ = store.instances.sweep(recovered)
    rows = rows_of(store)
    contents = [(row.sop_instance_uid, row.digest) for row in rows]
    assert len(contents) == len({*contents}), "something is there twice"
    assert acknowledged <= {*contents}, f"{len(acknowledged - {*contents})} of {len(acknowledged)} acknowledged instances are lost"
    assert {*contents} <= sent, "something is there that nobody sent"
    for row in rows:
        path = store.archive.path(row.path)
        whole = recovered(path)
        assert whole is not None, "something torn has a row"
        assert all(getattr(whole, name) == getattr(row, name) for name in ROW), "the row is not its file's"
        data = path.read_bytes()
        assert blake3(data[split_file(data)[1] :]).hexdigest() == row.digest
    files = [path.relative_to(place).as_posix() for path in (place / "instances").rglob("*.dcm")]
    assert sorted(files) == sorted(row.path for row in rows), "a file without a row, or a row without its file"
    assert not [path for path in store.archive.incoming.iterdir() if size_bytes(path)]
    assert sum(study["changes"] for study in store.studies.list(limit=1000)) == len(rows)
    assert store.instances.sweep(recovered)[:2] == (0, 0)
    store.close()
    with closing(sqlite3.connect(place / "ledger.sqlite")) as plain:
        assert plain.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    return recorded


ROW = ("path", "size_bytes", "digest", "calling_ae", "received_at", "header", "study_instance_uid", "series_instance_uid", "sop_class_uid")


def rows_of(store: Store) -> list:
    """Return every version of every instance."""
    return [*store.instances.by_ids(range(1, 2000))]


# --------------------------------------------------------------------------------------------------------------- DCMTK's


def acknowledged_by(output: Iterator[str], files: list[Path], note: Callable[[Content], None]) -> None:
    """Read what storescu says, image by image in the order of the files."""
    waiting = iter(files)
    for line in output:
        if "Received Store Response (Success)" in line:
            note(content_of(next(waiting)))


def content_of(file: Path) -> Content:
    data = file.read_bytes()
    said, start = split_file(data)
    return said["MediaStorageSOPInstanceUID"], blake3(data[start:]).hexdigest()


def test_what_storescu_was_answered_success_for_survives_a_power_cut(tmp_path, die):
    """The same over a socket: Success (PS3.4 B.2.3) was read by the sender before the picture was taken."""
    store = Store.open(tmp_path / "node")
    receiver = Receiver(NodeConfig.model_validate({"node": {"port": 0, "disk_reserve_mb": 1}}), store)
    receiver.start()
    sent: set[Content] = set()
    said: list[Content] = []
    pictures: list[tuple[Path, set[Content]]] = []
    with Disk(store, die).watched() as disk:
        while len(pictures) < 12:
            series = phantoms.write(phantoms.series(phantoms.marked((20, 48, 40)), seed=f"{len(sent)}"), tmp_path / "series" / f"{len(sent)}")
            sent |= {content_of(path) for path in series}
            command = [need("storescu"), "-v", "-aec", "DICOM_NODE", "127.0.0.1", str(receiver.port), *map(str, series)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as sender:
                reading = threading.Thread(target=acknowledged_by, args=(sender.stdout, series, said.append))
                reading.start()
                while reading.is_alive():
                    pictures.append((tmp_path / f"cut-{len(pictures)}", {*said}))
                    disk.picture(pictures[-1][0])
                    reading.join(die.uniform(0.0, 0.03))
        receiver.stop()
    store.close()
    assert {*said} == sent
    for place, before in pictures:
        after_the_cut(place, before, sent)
