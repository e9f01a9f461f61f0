"""Bytes on disk: flushed before their name is given away, whole or not there, and found again after a power cut."""

import contextlib
import os
import resource
import shutil
import sqlite3
import threading
import time

import pytest
from sqlalchemy import text

from dicom_node.domain import ConfigError, Transient
from dicom_node.store import Archive, Recorded, Store, instance_name
from dicom_node.store import archive as archive_module
from dicom_node.store import keeper as keeper_module
from tests.contracts.arrange import NOW, STUDY, arrive, in_quarantine, recover, written


@pytest.fixture
def archive(tmp_path):
    opened = Archive(tmp_path / "storage")
    yield opened
    opened.close()


@pytest.fixture
def flushed(monkeypatch):
    """What was flushed, in order: the real fsync is called."""
    paths = []

    def fsync(descriptor):
        paths.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    real = os.fsync
    monkeypatch.setattr(archive_module.os, "fsync", fsync)
    return paths


def test_an_instance_s_name_is_durable_before_its_bytes_which_are_flushed_before_it_has_a_row(archive, flushed):
    """The folder once for many names, then each file once: one flush an image; and the receipt is written before it."""
    draft = archive.draft()
    assert flushed == [str(archive.incoming)]
    assert len(list(archive.incoming.iterdir())) == archive.stocked + 1 > 16
    waiting = archive.incoming / draft.waiting
    draft.write(b"he")
    draft.write(memoryview(b"ad...."))
    name = draft.seal(b"seal", 4, STUDY, received_at=NOW)
    assert flushed[1:] == [str(waiting)]
    assert waiting.read_bytes() == b"headseal"
    assert name == instance_name(draft.waiting, STUDY, NOW)
    assert archive.path(name) == waiting
    assert (draft.size_bytes, draft.descriptor) == (8, -1)


def test_empty_files_are_used_up_before_more_are_made(archive, flushed):
    """What is at hand is given out once each; when there is none, more are made at once, their names durable again."""
    archive.stock_up(3)
    drafts = [archive.draft() for _ in range(3)]
    assert (flushed, archive.stocked) == ([str(archive.incoming)], 0)
    drafts.append(archive.draft())
    assert flushed == [str(archive.incoming)] * 2
    assert len({draft.waiting for draft in drafts}) == 4
    archive.stock_up(archive.stocked)
    assert flushed == [str(archive.incoming)] * 2, "nothing to make, nothing to flush"
    for draft in drafts:
        draft.close()


def test_many_threads_that_want_an_empty_file_get_one_each(archive):
    """Whoever stocks up shares it with all."""
    found = []

    def want():
        for _ in range(50):
            draft = archive.draft()
            draft.write(b"x")
            draft.finish()
            draft.close()
            found.append(draft.waiting)

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len({*found}) == 400
    assert all((archive.incoming / one).read_bytes() == b"x" for one in found)


def test_a_file_that_is_given_back_is_empty_and_is_used_again(archive):
    """A sender that broke off, an instance that was there already: their files hold something else next."""
    archive.stock_up(1)
    draft = archive.draft()
    draft.write(b"x" * 10_000)
    draft.finish()
    assert (archive.incoming / draft.waiting).stat().st_size == 10_000
    draft.drop()
    draft.drop()
    assert (archive.stocked, (archive.incoming / draft.waiting).stat().st_size) == (1, 0)
    again = archive.draft()
    again.write(b"whole")
    name = again.seal(b"", 0, STUDY, received_at=NOW)
    assert again.waiting == draft.waiting
    assert archive.path(name).read_bytes() == b"whole"
    archive.discard(name)
    assert (archive.stocked, archive.path(name).read_bytes()) == (1, b"")
    archive.discard("instances/2027/01/15/0/none.dcm")
    assert archive.stocked == 1, "what is not there is not at hand"


def test_a_file_in_quarantine_is_flushed_with_every_folder_above_it(archive, flushed):
    """It is moved when its bytes are durable, and the folder that it comes to is flushed then."""
    draft = archive.draft()
    draft.write(b"junk")
    waiting, before = archive.incoming / draft.waiting, len(flushed)
    name = archive.put_in_quarantine(draft, at=NOW)
    assert name.startswith("quarantine/2027/01/15/")
    assert flushed[before] == str(waiting)
    assert flushed[-1] == str((archive.root / name).parent)
    assert (archive.path(name).read_bytes(), waiting.exists(), draft.descriptor) == (b"junk", False, -1)


def test_a_closed_archive_leaves_no_empty_files_and_another_finds_itself_alone(tmp_path):
    """While it writes, no other may sweep; and what it is writing stays."""
    first, second = Archive(tmp_path), Archive(tmp_path)
    draft = first.draft()
    draft.write(b"half")
    with second.alone() as alone:
        assert not alone
    with first.alone() as alone:
        assert alone, "it is not in its own way"
    first.close()
    assert [path.name for path in first.incoming.iterdir()] == [draft.waiting]
    with second.alone() as alone:
        assert alone
    draft.close()


def test_a_result_is_flushed_with_every_folder_above_it(archive, flushed):
    """A file survives a power cut only if its folder does."""
    name = archive.write_result(b"segmentation", "f" * 64, "1-SEG", made_at=NOW)
    year, day = archive.root / "results" / "2027", archive.root / "results" / "2027" / "01" / "15"
    assert [*map(str, (year.parent, year, day.parent))] == flushed[:3]
    assert flushed[3].endswith(".part")
    assert flushed[4:] == [str(day)]
    assert (archive.root / name).read_bytes() == b"segmentation"
    assert [path.name for path in day.iterdir()] == [name.rsplit("/", 1)[1]], "nothing half written has a result's name"


def test_the_storage_folder_itself_is_flushed(tmp_path, flushed):
    """A new node's first study lies in folders that are seconds old."""
    Archive(tmp_path / "var" / "node")
    assert [*map(str, (tmp_path, tmp_path / "var", tmp_path / "var" / "node"))] == flushed[:3]


def test_the_same_result_has_the_same_name_and_another_never_takes_its_place(archive):
    """A worker that lost its lease may still write: what is being delivered stays as it is."""
    first = archive.write_result(b"0.1", "a" * 64, "SEG", made_at=NOW)
    assert archive.write_result(b"0.1", "a" * 64, "SEG", made_at=NOW) == first
    assert archive.write_result(b"0.2", "a" * 64, "SEG", made_at=NOW) != first
    assert archive.path(first).read_bytes() == b"0.1"


def test_a_uid_never_becomes_a_path(archive):
    """No name comes from a peer."""
    name = lay(archive, b"", "../../etc/passwd")
    assert ".." not in name
    assert archive.path(name).parent == archive.incoming


def test_an_instance_is_found_before_and_after_it_is_moved(archive):
    """Between the commit and the move a reader may come."""
    name = lay(archive, b"x")
    assert archive.path(name).parent == archive.incoming
    for _ in range(2):
        archive.settle(name)
        assert archive.path(name) == archive.root / name
    archive.remove(name)
    archive.remove(name)
    assert not archive.path(name).exists()
    assert list((archive.root / "instances").iterdir()) == [], "the folders that it leaves empty go with it"


def test_folders_that_are_not_empty_stay(archive):
    """Removing one instance of a study leaves the others."""
    first, second = (lay(archive, b"x") for _ in range(2))
    archive.settle(first)
    archive.settle(second)
    archive.remove(first)
    assert archive.path(second).exists()


def test_a_disk_that_takes_no_more_is_said_to_be_tried_again_later(tmp_path):
    """A700 follows of it, and the next instance is taken when there is room again."""
    store = Store.open(tmp_path)
    arrive(store, 1)
    with file_size_limit(4096):
        for write in (
            lambda: lay(store.archive, b"x" * 30000),
            lambda: store.archive.write_result(b"x" * 30000, "a" * 64, "SEG", made_at=NOW),
            lambda: in_quarantine(store, b"x" * 30000),
            lambda: arrive(store, 2),  # its file is small: the ledger is what does not grow
        ):
            with pytest.raises(Transient) as caught:
                write()
            assert caught.value.hint
    [recorded] = store.studies.view(STUDY).instances
    assert arrive(store, 2) is Recorded.NEW
    store.instances.settle()
    assert store.archive.path(recorded.path).read_bytes() == f"pixels of {STUDY} 1".encode()
    assert not list(tmp_path.rglob("*.part"))
    store.close()


@pytest.mark.parametrize("obstacle", ["a file", "below a file"])
def test_a_storage_folder_that_cannot_be_used_is_an_error_of_the_configuration(tmp_path, obstacle):
    """It says which setting."""
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" if obstacle == "a file" else tmp_path / "file" / "node"
    with pytest.raises(ConfigError, match="the storage folder .* cannot be used") as caught:
        Store.open(folder)
    assert "node.storage" in caught.value.hint


def test_a_storage_folder_may_have_any_name(tmp_path):
    """Alembic reads its own folder through a ConfigParser, SQLAlchemy the ledger's through an address."""
    store = Store.open(tmp_path / "100% räum #1?a=b")
    assert arrive(store, 1) is Recorded.NEW
    store.close()
    assert (tmp_path / "100% räum #1?a=b" / "ledger.sqlite").is_file()


def test_after_a_power_cut_the_ledger_holds_every_commit_that_was_flushed(tmp_path):
    """The disk is copied as a power cut leaves it: the write-ahead log ends within a transaction."""
    store = Store.open(tmp_path / "node")
    ends = []
    for number in range(1, 6):
        arrive(store, number)
        store.database.harden()
        ends.append((tmp_path / "node" / "ledger.sqlite-wal").stat().st_size)
    assert sorted({*ends}) == ends, "each commit is in the log when it is flushed"
    store.instances.settle()  # so that no file moves while the folder is copied
    for flushed, torn in ((3, 0), (3, 100), (4, 5000)):
        cut = tmp_path / f"cut-{flushed}-{torn}"
        shutil.copytree(tmp_path / "node", cut)
        (cut / "ledger.sqlite-shm").unlink()
        os.truncate(cut / "ledger.sqlite-wal", ends[flushed - 1])
        with (cut / "ledger.sqlite-wal").open("ab") as log:
            log.write(os.urandom(torn))
        after = Store.open(cut)
        assert len(after.studies.view(STUDY).instances) == after.studies.view(STUDY).changes == flushed
        assert arrive(after, 9) is Recorded.NEW
        after.close()
        with contextlib.closing(sqlite3.connect(cut / "ledger.sqlite")) as plain:
            assert plain.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    store.close()


def test_after_a_power_cut_files_and_rows_are_put_in_order(tmp_path):
    """A torn file has no row; a row's file lies in one place or the other."""
    store = Store.open(tmp_path)
    arrive(store, 1)
    [kept] = store.studies.view(STUDY).instances
    torn = written(store, 2)
    store.close()
    os.truncate(store.archive.path(torn.path), 3)
    (tmp_path / kept.path).rename(tmp_path / "incoming" / kept.path.rpartition("/")[2])  # the move was not flushed
    (tmp_path / "incoming" / "what is this").write_text("?")
    after = Store.open(tmp_path)
    assert after.archive.path(kept.path).exists()
    assert after.instances.sweep(recover) == (1, 0, 2)
    assert list(after.archive.incoming.iterdir()) == []
    assert (tmp_path / kept.path).exists()
    after.close()


# ------------------------------------------------------------------------------------------------ what is durable, and when


def test_a_row_is_committed_without_a_flush_and_flushed_before_its_file_is_moved(tmp_path, flushed):
    """One flush an image: its own. The log's comes later, for many; only then do files leave the folder that a start looks through."""
    store = Store.open(tmp_path)
    store.instances._keeper.add = store.instances._keeper._recorded.append  # only when asked
    store.archive.stock_up()
    del flushed[:]
    for number in range(1, 6):
        arrive(store, number)
    paths = [one.path for one in store.studies.view(STUDY).instances]
    assert flushed == [str(store.archive.incoming / path.rpartition("/")[2]) for path in paths]
    del flushed[:]
    store.archive.settle = flushed.append
    store.instances.settle()
    assert flushed == [str(tmp_path / "ledger.sqlite-wal"), *paths]
    store.instances.settle()
    assert len(flushed) == 6, "what is settled is not settled again"
    store.close()


def test_while_the_ledger_is_not_flushed_no_file_is_moved(tmp_path, monkeypatch):
    """A disk that fails to flush: the files stay where a start finds them, and it is tried again."""
    store = Store.open(tmp_path)
    store.instances._keeper.add = store.instances._keeper._recorded.append
    arrive(store, 1)
    [one] = store.studies.view(STUDY).instances

    def failing(_descriptor):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(Transient, match="the ledger was not flushed: Input/output error"):
            store.instances.settle()
    assert store.archive.path(one.path).parent == store.archive.incoming
    store.instances.settle()
    assert store.archive.path(one.path) == tmp_path / one.path
    store.close()


def test_nobody_has_to_ask_for_the_files_to_be_moved_and_for_empty_ones_to_be_made(tmp_path):
    """The keeper's thread does so while instances come."""
    store = Store.open(tmp_path)
    for number in range(60):
        arrive(store, number)
    assert eventually(lambda: all(store.archive.path(one.path) == tmp_path / one.path for one in store.studies.view(STUDY).instances))
    arrive(store, 60)
    assert eventually(lambda: store.archive.stocked >= keeper_module._LOW_STOCK - 1)
    store.close()


def test_the_write_ahead_log_stays_small(tmp_path, monkeypatch):
    """Relaxed transactions never checkpoint by themselves: the keeper does, and the log begins anew."""
    monkeypatch.setattr(keeper_module, "_CHECKPOINT_EVERY", 100)
    store = Store.open(tmp_path)
    sizes = []
    for start in range(0, 1000, 50):
        for number in range(start, start + 50):
            arrive(store, number)
        store.instances.settle()
        sizes.append((tmp_path / "ledger.sqlite-wal").stat().st_size)
    assert max(sizes) <= 2.5 * sizes[2]
    assert (tmp_path / "ledger.sqlite").stat().st_size > 200_000
    store.close()


def test_a_reader_that_looks_at_an_older_state_does_not_keep_a_row_from_becoming_durable(tmp_path, flushed):
    """SQLite's checkpoint would find nothing to do: the log is flushed as a file."""
    store = Store.open(tmp_path)
    arrive(store, 1)
    with store.database.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM instance")).scalar() == 1
        arrive(store, 2)
        del flushed[:]
        store.instances.settle()
        assert str(tmp_path / "ledger.sqlite-wal") in flushed
        store.database.checkpoint()
        assert connection.execute(text("SELECT count(*) FROM instance")).scalar() == 1
    assert all(store.archive.path(one.path) == tmp_path / one.path for one in store.studies.view(STUDY).instances)
    store.close()


def test_a_transaction_that_is_not_relaxed_is_flushed_and_a_relaxed_one_is_not(tmp_path):
    """PRAGMA synchronous: 2 is FULL, 1 is NORMAL, which in WAL mode flushes at checkpoints alone."""
    store = Store.open(tmp_path)
    arrive(store, 1)
    for relaxed, synchronous in ((False, 2), (True, 1)):
        with store.database.write(relaxed=relaxed) as connection:
            assert connection.execute(text("PRAGMA synchronous")).scalar() == synchronous
            assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1
    arrive(store, 2)
    assert store.database._plain.execute("PRAGMA synchronous").fetchone() == (1,)
    assert store.database._plain.execute("PRAGMA foreign_keys").fetchone() == (1,)
    store.close()


# ------------------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def file_size_limit(size_bytes):
    """Let no file grow beyond a size: what a full disk does, to whoever writes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def lay(archive, data, study=STUDY):
    """Write and flush an instance; return its name."""
    draft = archive.draft()
    draft.write(data)
    return draft.seal(b"", 0, study, received_at=NOW)


def eventually(true, timeout_s=20.0):
    """Wait until something is true; say whether that came to be."""
    until = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True
