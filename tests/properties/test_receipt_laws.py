"""Laws of the receipt: a file that it shows to be whole is whole, and gives the instance back as it was recorded; any other gives none."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.config import Node
from dicom_node.domain import Instance
from dicom_node.receive import Door, recovered
from dicom_node.store import Recorded, Store
from tests import phantoms
from tests.test_receive import written

PAGE_BYTES = 4096
SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian]
IMAGES = {uid: written(phantoms.enhanced(phantoms.marked((3, 60, 40), (0, 0, 0))), uid) for uid in SYNTAXES}


class Sealed:
    """A store that has received the images, and the files as they were when they were answered."""

    def __init__(self, folder: Path) -> None:
        self.store = Store.open(folder)
        self.door = Door(self.store, Node(disk_reserve_mb=0))
        self.scratch = folder / f"{0:032x}.dcm"
        self.rows: dict[str, Instance] = {}
        self.files: dict[str, bytes] = {}
        for number, (uid, data) in enumerate(IMAGES.items(), 1):
            assert self.take(data, uid, f"SENDER_{number}", 1e9 + number / 3) in (Recorded.NEW, Recorded.NEW_VERSION)
            (self.rows[uid],) = self.store.instances.by_ids([number])
            self.files[uid] = self.store.archive.path(self.rows[uid].path).read_bytes()

    def take(self, data: bytes, uid: str, calling_ae: str, at: float) -> Recorded:
        return self.door.take(data, sop_class_uid=None, sop_instance_uid=None, transfer_syntax_uid=uid, calling_ae=calling_ae, received_at=at)

    def found(self, data: bytes) -> Instance | None:
        """Return what a start would find in a file of these bytes."""
        self.scratch.write_bytes(data)
        return recovered(self.scratch)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sealed]:
    one = Sealed(tmp_path_factory.mktemp("node"))
    yield one
    one.store.close()


UIDS = st.sampled_from(SYNTAXES)


@pytest.mark.parametrize("uid", SYNTAXES)
def test_a_whole_file_gives_back_the_row_that_was_made_when_it_came(sealed: Sealed, uid: str) -> None:
    """Every value: header, calling AE, time to the last bit, size, digest, name."""
    row = sealed.rows[uid]
    file = sealed.scratch.with_name(row.path.rpartition("/")[2])
    file.write_bytes(sealed.files[uid])
    found = recovered(file)
    assert found is not None
    assert {name: getattr(found, name) for name in Instance.__slots__ if name not in ("id", "version")} == {
        name: getattr(row, name) for name in Instance.__slots__ if name not in ("id", "version")
    }


@given(UIDS, st.integers(0), st.integers(1, 255))
@settings(max_examples=300, deadline=None)
@example(SYNTAXES[0], -1, 1)
def test_a_file_with_any_byte_changed_is_not_whole(sealed: Sealed, uid: str, at: int, change: int) -> None:
    file = bytearray(sealed.files[uid])
    file[at % len(file)] ^= change
    assert sealed.found(bytes(file)) is None


@given(UIDS, st.integers(0, 1000), st.integers(1, 255))
@settings(max_examples=300, deadline=None)
def test_a_file_with_any_byte_of_its_first_part_changed_is_not_whole(sealed: Sealed, uid: str, at: int, change: int) -> None:
    """The File Meta Information names the sender, the receipt the time: they are covered too."""
    file = bytearray(sealed.files[uid])
    file[at] ^= change
    assert sealed.found(bytes(file)) is None


@given(UIDS, st.integers(0))
@settings(max_examples=200, deadline=None)
def test_a_file_cut_off_anywhere_is_not_whole(sealed: Sealed, uid: str, at: int) -> None:
    file = sealed.files[uid]
    assert sealed.found(file[: at % len(file)]) is None


@given(UIDS, st.binary(min_size=1, max_size=10_000))
@settings(max_examples=50, deadline=None)
def test_a_file_that_something_follows_is_not_whole(sealed: Sealed, uid: str, more: bytes) -> None:
    """An earlier, longer content of the same file, of which the end is still there."""
    assert sealed.found(sealed.files[uid] + more) is None


@given(UIDS, st.sets(st.integers(0, 30), min_size=1))
@settings(max_examples=200, deadline=None)
def test_a_file_of_which_pages_are_zero_is_not_whole(sealed: Sealed, uid: str, pages: set[int]) -> None:
    """A file system may make a file as long as it should be, and never write some of its pages."""
    file = bytearray(sealed.files[uid])
    for page in pages:
        start = page * PAGE_BYTES % len(file) // PAGE_BYTES * PAGE_BYTES
        file[start : start + PAGE_BYTES] = bytes(len(file[start : start + PAGE_BYTES]))
    assert bytes(file) == sealed.files[uid] or sealed.found(bytes(file)) is None


@given(UIDS, UIDS, st.lists(st.booleans(), min_size=8, max_size=8))
@settings(max_examples=100, deadline=None)
def test_a_file_of_which_some_pages_are_another_s_is_not_whole(sealed: Sealed, uid: str, other: str, kept: list[bool]) -> None:
    """The file was used before: pages of what it held then may be there."""
    file, old = sealed.files[uid], sealed.files[other]
    mixed = b"".join((file if keep else old)[page * PAGE_BYTES : (page + 1) * PAGE_BYTES] for page, keep in zip(range(64), kept * 8, strict=True))
    assert mixed in (file, old) or sealed.found(mixed) is None


@given(st.binary(max_size=2000))
@settings(max_examples=200, deadline=None)
@example(b"")
def test_any_other_file_is_not_whole(sealed: Sealed, data: bytes) -> None:
    for start in (b"", b"\0" * 128 + b"DICM", sealed.files[SYNTAXES[0]][:200]):
        assert sealed.found(start + data) is None


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="\\"), max_size=16), st.floats(0, 4e9), UIDS)
@settings(max_examples=40, deadline=None)
def test_whoever_sent_it_and_whenever_it_is_recovered_as_it_was_recorded(sealed: Sealed, calling_ae: str, at: float, uid: str) -> None:
    """PS3.5 6.2, AE: 16 characters of the default repertoire; leading and trailing spaces are not significant."""
    image = phantoms.series(phantoms.marked((1, 6, 4), (0, 0, 0)), seed=f"{calling_ae} {at} {uid}")[0]
    before = sealed.store.studies.view(image.StudyInstanceUID)
    outcome = sealed.take(written(image, uid), uid, calling_ae.strip(), at)
    if outcome is Recorded.IDENTICAL:
        assert before is not None
        return
    study = sealed.store.studies.view(image.StudyInstanceUID)
    assert study is not None
    (row,) = study.instances
    found = recovered(sealed.store.archive.path(row.path))
    assert found is not None
    assert (found.calling_ae, found.received_at, found.path, found.header) == (calling_ae.strip(), at, row.path, row.header)


def test_big_endian_files_are_recovered_too(sealed: Sealed) -> None:
    """PS3.5 A.3, retired."""
    image = phantoms.series(phantoms.marked((1, 6, 4), (0, 0, 0)), seed="big endian")[0]
    del image.PixelData  # pydicom swaps no pixels
    assert sealed.take(written(image, ExplicitVRBigEndian), ExplicitVRBigEndian, "CT", 1e9) is Recorded.NEW
    study = sealed.store.studies.view(image.StudyInstanceUID)
    assert study is not None
    (row,) = study.instances
    found = recovered(sealed.store.archive.path(row.path))
    assert found is not None and found.header == row.header


def test_a_data_set_that_begins_like_a_file_is_recovered_too(sealed: Sealed) -> None:
    """Some devices send File Meta Information with the data set (PS3.7 9.3.1.1 has no place for it): it is kept as it came."""
    image = phantoms.series(phantoms.marked((1, 6, 4), (0, 0, 0)), seed="with meta")[0]
    uid = ExplicitVRLittleEndian
    data = b"\x02\x00\x10\x00UI\x12\x001.2.840.10008.1.2\0" + written(image, uid)
    assert sealed.take(data, uid, "CT", 1e9) is Recorded.NEW
    study = sealed.store.studies.view(image.StudyInstanceUID)
    assert study is not None
    (row,) = study.instances
    found = recovered(sealed.store.archive.path(row.path))
    assert found is not None
    assert (found.header, found.digest, found.transfer_syntax_uid) == (row.header, row.digest, uid)
