"""A draft: whatever the pieces and the file system, the file holds the head with its receipt, then the data set."""

import errno
import os

import pytest
from blake3 import blake3

from dicom_node.domain import Transient
from dicom_node.store import Archive
from dicom_node.store import draft as draft_module
from dicom_node.store.draft import BUFFER_BYTES, DIRECT, PAGE_BYTES

HEAD = b"head, and room for a receipt: ....... and some more"
RECEIPT, RECEIPT_AT = b"receipt", HEAD.index(b".......")
SEALED = HEAD.replace(b".......", RECEIPT)
SIZES = sorted(
    {0, 1, 4000, BUFFER_BYTES, 3 * BUFFER_BYTES + 5}
    | {around + one - len(HEAD) for around in (PAGE_BYTES, 2 * PAGE_BYTES, BUFFER_BYTES, 2 * BUFFER_BYTES) for one in (-1, 0, 1)}
)


@pytest.fixture
def archive(tmp_path):
    opened = Archive(tmp_path)
    yield opened
    opened.close()


def data_of(size):
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def poured(draft, data, piece):
    """Put bytes in as a socket does: into the room that is given, as much as fits."""
    left = memoryview(data)
    while left:
        place = draft.room(min(piece, len(left)))
        place[:] = left[: len(place)]
        draft.took(len(place))
        left = left[len(place) :]


def sealed(archive, data, piece=131_066):
    """Return what the file of a data set holds in the end, once its digest was looked at."""
    draft = archive.draft(HEAD)
    poured(draft, data, piece)
    assert draft.digest == blake3(data).digest()
    name = draft.seal(RECEIPT, RECEIPT_AT, "1.2.3", received_at=0.0)
    assert draft.size_bytes == len(HEAD) + len(data)
    return archive.path(name).read_bytes()


@pytest.mark.parametrize("size", SIZES)
def test_a_file_holds_what_came_whatever_its_size(archive, size):
    """Sizes around pages and buffers: what fills a page goes past the cache, the rest does not, and the receipt is in the first page."""
    assert sealed(archive, data_of(size)) == SEALED + data_of(size)


@pytest.mark.parametrize("piece", [1000, PAGE_BYTES, BUFFER_BYTES - 1, BUFFER_BYTES, 5 * BUFFER_BYTES])
def test_a_file_holds_what_came_whatever_its_pieces(archive, piece):
    """A piece may be longer than any buffer: it comes in several."""
    data = data_of(2 * BUFFER_BYTES + 777)
    assert sealed(archive, data, piece) == SEALED + data


@pytest.mark.parametrize("size", [10, 2 * BUFFER_BYTES + 777])
def test_the_data_set_can_be_read_before_it_is_whole_on_the_disk(archive, size):
    """A header longer than the first fragment is looked for in all that came; more may come after that."""
    data = data_of(size)
    draft = archive.draft(HEAD)
    poured(draft, data, 10_000)
    assert bytes(draft.data_set()) == data
    poured(draft, data, 10_000)
    assert bytes(draft.data_set()) == data + data
    name = draft.seal(RECEIPT, RECEIPT_AT, "1.2.3", received_at=0.0)
    assert archive.path(name).read_bytes() == SEALED + data + data


def test_only_the_beginning_that_is_in_memory_is_looked_at(archive):
    """Once it has gone to the disk there is none: the header is read from the whole then."""
    draft = archive.draft(HEAD)
    poured(draft, data_of(100), 100)
    assert bytes(draft.beginning(100)) == data_of(100)
    poured(draft, data_of(BUFFER_BYTES), 5000)
    assert not draft.beginning(100)
    draft.drop()


@pytest.mark.skipif(not DIRECT, reason="no O_DIRECT on this system")
@pytest.mark.parametrize("refuses", ["open", "pwrite"])
def test_a_file_system_without_o_direct_is_written_the_usual_way(archive, monkeypatch, refuses):
    """Some do not open a file so, some open it and then refuse our pieces (EINVAL, open(2) and write(2))."""
    real = {"open": os.open, "pwrite": os.pwrite}
    refused = []

    def refusing(first, *rest):
        direct = rest[0] & DIRECT if refuses == "open" else refused.append(first) or len(refused) == 1
        if direct:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real[refuses](first, *rest)

    monkeypatch.setattr(draft_module.os, refuses, refusing)
    data = data_of(2 * BUFFER_BYTES)
    assert sealed(archive, data) == SEALED + data
    assert sealed(archive, data) == SEALED + data


def test_a_short_write_is_gone_on_with(archive, monkeypatch):
    """write(2) may take less than it was given, and then not end at a page."""
    real = os.pwrite
    monkeypatch.setattr(draft_module.os, "pwrite", lambda descriptor, data, at: real(descriptor, data[: max(PAGE_BYTES, len(data) // 3 & -512)], at))
    data = data_of(2 * BUFFER_BYTES + 3)
    assert sealed(archive, data) == SEALED + data


def test_a_disk_that_fails_is_told_of_and_the_next_draft_is_whole(archive, monkeypatch):
    """ENOSPC while it comes: the file is given back empty."""

    def failing(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    draft = archive.draft(HEAD)
    with monkeypatch.context() as patch, pytest.raises(Transient, match="the disk did not take a file: No space left on device"):
        patch.setattr(draft_module.os, "pwrite", failing)
        poured(draft, data_of(BUFFER_BYTES), 50_000)
    draft.drop()
    assert (archive.incoming / draft.waiting).stat().st_size == 0
    assert sealed(archive, b"x") == SEALED + b"x"


def test_nothing_of_one_instance_is_in_the_file_of_the_next(archive):
    """Buffers are used again."""
    sealed(archive, b"MARKED" * 50_000)
    for size in (0, 1, 5000, 100_000):
        assert b"MARKED" not in sealed(archive, bytes(size))
