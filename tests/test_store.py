"""Bytes on disk: flushed before their name is given away, whole or not there, and found again after a power cut."""

import contextlib
import os
import resource
import shutil
import sqlite3

import pytest

from dicom_node.domain import ConfigError, Transient
from dicom_node.store import Archive, Recorded, Store
from dicom_node.store import archive as archive_module
from tests.contracts.arrange import NOW, STUDY, arrive, written


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


def test_an_instance_is_flushed_before_it_has_a_name(archive, flushed):
    """The file by itself, the folder once for many: two promises before the row, and the row before Success."""
    name = archive.write_instance([b"he", b"ad"], STUDY, received_at=NOW)
    waiting = archive.incoming / name.replace("/", "_")
    assert waiting.read_bytes() == b"head"
    assert flushed == [str(waiting)]
    archive.flush_incoming()
    assert flushed[1:] == [str(archive.incoming)]


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
    name = archive.write_instance([b""], "../../etc/passwd", received_at=NOW)
    assert ".." not in name
    assert archive.path(name).parent == archive.incoming


def test_an_instance_is_found_before_and_after_it_is_moved(archive):
    """Between the commit and the move a reader may come."""
    name = archive.write_instance([b"x"], STUDY, received_at=NOW)
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
    first, second = (archive.write_instance([b"x"], STUDY, received_at=NOW) for _ in range(2))
    archive.settle(first)
    archive.settle(second)
    archive.remove(first)
    assert archive.path(second).exists()


def test_a_sender_that_breaks_off_leaves_nothing_behind(archive):
    """Its error is its own: the disk is not blamed for a connection."""

    def parts():
        yield b"half"
        raise ConnectionResetError("the peer is gone")

    with pytest.raises(ConnectionResetError):
        archive.write_instance(parts(), STUDY, received_at=NOW)
    assert list(archive.incoming.iterdir()) == []


def test_a_disk_that_takes_no_more_is_said_to_be_tried_again_later(tmp_path):
    """A700 follows of it, and the next instance is taken when there is room again."""
    store = Store.open(tmp_path)
    arrive(store, 1)
    with file_size_limit(4096):
        for write in (
            lambda: store.archive.write_instance([b"x" * 3000, b"x" * 30000], STUDY, received_at=NOW),
            lambda: store.archive.write_result(b"x" * 30000, "a" * 64, "SEG", made_at=NOW),
            lambda: store.archive.write_quarantine([b"x" * 30000], at=NOW),
            lambda: arrive(store, 2),  # its file is small: the ledger is what does not grow
        ):
            with pytest.raises(Transient) as caught:
                write()
            assert caught.value.hint
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix in (".dcm", ".part")] == [
        store.archive.path(store.studies.view(STUDY).instances[0].path)
    ]
    assert arrive(store, 2) is Recorded.NEW
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
        ends.append((tmp_path / "node" / "ledger.sqlite-wal").stat().st_size)
    assert sorted({*ends}) == ends, "each commit is in the log when it is acknowledged"
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
    os.truncate(tmp_path / "incoming" / torn.path.replace("/", "_"), 3)
    (tmp_path / kept.path).rename(tmp_path / "incoming" / kept.path.replace("/", "_"))  # the move was not flushed
    (tmp_path / "incoming" / "what is this").write_text("?")
    after = Store.open(tmp_path)
    assert after.archive.path(kept.path).exists()
    assert after.instances.sweep() == (1, 2)
    assert list(after.archive.incoming.iterdir()) == []
    assert (tmp_path / kept.path).exists()
    after.close()


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
