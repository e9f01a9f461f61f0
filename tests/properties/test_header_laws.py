"""Laws of the header and the door: any bytes give a header or a refusal that is kept; what was written is what is read; nothing else ever."""

import json
import re
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.config import Node
from dicom_node.domain import HEADER_KEYWORDS, Refused
from dicom_node.receive import Door, import_file, read_header
from dicom_node.receive.header import split_file
from dicom_node.store import Recorded, Store
from tests import phantoms
from tests.contracts.arrange import unsettled
from tests.test_receive import written

SYNTAXES = st.sampled_from([ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, "1.2.3"])
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
NESTED = phantoms.enhanced(phantoms.marked((2, 6, 4), (0, 0, 0)))
IMAGES = {uid: written(NESTED, uid) for uid in (ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)}

# Pieces that a parser may trip over: tags, VRs, lengths that lie, delimiters, character sets, escape sequences.
PIECES = st.sampled_from(
    [b"\x08\0\x05\0", b"\x10\0\x10\0", b"\x28\0\x10\0", b"\x20\0\x0d\0", b"\x08\0\x40\x11", b"\x09\0\x01\x10", b"\xfe\xff\0\xe0", b"\xfe\xff\x0d\xe0"]
    + [
        b"\xfe\xff\xdd\xe0",
        b"SQ\0\0",
        b"UN\0\0",
        b"PN",
        b"CS",
        b"US",
        b"FD",
        b"DS",
        b"??",
        b"\xff\xff\xff\xff",
        b"\0\0\0\0",
        b"\x08\0",
        b"\x02\0\0\0",
    ]
    + [b"ISO_IR 13 ", b"\\ISO 2022 IR 87 ", b"ISO 2022 IR 149 ", b"\x1b$B", b"\x1b(J", b"\x1b$)C", b"\x1b-F", b"1.2.840 ", b"1e9\\nan", b"GB18030 "]
)
SCRAPS = st.lists(PIECES | st.binary(max_size=6), max_size=40).map(b"".join)


@st.composite
def damaged(draw: st.DrawFn) -> tuple[bytes, str]:
    """Return a real data set with some bytes of its header overwritten, inserted, repeated or cut off, and its transfer syntax."""
    uid = draw(st.sampled_from(list(IMAGES)))
    data = bytearray(IMAGES[uid])
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, min(len(data), 3000)))
        piece = draw(PIECES | st.binary(max_size=8))
        how = draw(st.sampled_from(["overwrite", "insert", "repeat", "cut"]))
        if how == "cut":
            del data[at:]
        else:
            data[at : at + (len(piece) if how == "overwrite" else 0)] = piece if how != "repeat" else data[at : at + 64]
    return bytes(data), uid


def assert_plain(header: dict) -> None:
    """Assert that a header holds nothing but what JSON and any database can: no control characters, no NaN, no bytes."""
    assert set(header) <= set(HEADER_KEYWORDS)
    for value in header.values():
        values = value if isinstance(value, list) else [value]
        assert values and len(values) <= 64
        assert all(type(v) in (str, int, float) for v in values)
        assert not any(CONTROL.search(v) or len(v) > 1024 for v in values if isinstance(v, str))
    assert json.loads(json.dumps(header, allow_nan=False).encode("utf-8")) == header


@given(SCRAPS, SYNTAXES)
@settings(max_examples=400, deadline=None)
@example(b"", ExplicitVRLittleEndian)
@example(b"\x08\0\x05\0CS\n\0ISO_IR 13 \x10\0\x10\0PN\4\0\\\\\\\\", ExplicitVRLittleEndian)
def test_any_bytes_give_a_plain_header_or_a_refusal(data, uid):
    try:
        assert_plain(read_header(data, uid))
    except Refused as refusal:
        assert refusal.status == 0xC001 and len(str(refusal)) <= 64


@given(damaged())
@settings(max_examples=400, deadline=None)
def test_a_damaged_data_set_gives_a_plain_header_or_a_refusal(case):
    data, uid = case
    try:
        assert_plain(read_header(memoryview(data), uid))
    except Refused as refusal:
        assert refusal.status == 0xC001


@given(st.sampled_from(list(IMAGES)), st.integers(min_value=0))
@settings(max_examples=100, deadline=None)
def test_a_data_set_cut_off_anywhere_gives_the_first_part_of_its_header_or_a_refusal(uid, at):
    whole = read_header(IMAGES[uid], uid)
    try:
        part = read_header(IMAGES[uid][: at % len(IMAGES[uid])], uid)
    except Refused:
        return
    assert part.items() <= whole.items()


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\\^="), min_size=1, max_size=20).map(str.strip)


@given(
    name=TEXT.filter(bool),
    number=st.integers(-(2**31), 2**31 - 1),
    position=st.lists(st.integers(-9999, 9999).map(lambda n: n / 8), min_size=3, max_size=3),
    rows=st.integers(0, 65535),
    uid=st.sampled_from(list(IMAGES)),
)
@settings(max_examples=100, deadline=None)
def test_what_was_written_is_what_is_read(name, number, position, rows, uid):
    """PS3.5: any text of UTF-8, any IS, DS, US, in any transfer syntax."""
    image = phantoms.series(phantoms.marked((1, 2, 2), (0, 0, 0)), SpecificCharacterSet="ISO_IR 192", InstanceNumber=number)[0]
    image.PatientName, image.ImagePositionPatient, image.Rows = name, [str(value) for value in position], rows
    header = read_header(written(image, uid), uid)
    assert (header["PatientName"], header["InstanceNumber"]) == (name, number)
    assert (header["ImagePositionPatient"], header["Rows"]) == (position, rows)


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Iterator[tuple[Store, Door]]:
    store = Store.open(tmp_path_factory.mktemp("node"))
    yield store, Door(store, Node(disk_reserve_mb=0))
    store.close()


@given(damaged() | st.tuples(SCRAPS, SYNTAXES))
@settings(max_examples=60, deadline=None)
def test_whatever_comes_to_the_door_is_recorded_or_refused_and_what_cannot_be_used_is_kept(house, case):
    """PS3.4 Table B.2-1, and nothing else: no other exception, no bytes lost, nothing left between."""
    store, door = house
    data, uid = case
    before = len(store.instances.quarantined(limit=10_000))
    try:
        outcome = door.take(data, sop_class_uid=None, sop_instance_uid=None, transfer_syntax_uid=str(uid), calling_ae="CT_ER", received_at=1e9)
    except Refused as refusal:
        assert refusal.status in (0xC001, 0xC002)
        rows = store.instances.quarantined(limit=10_000)
        assert len(rows) == before + 1
        assert any(store.archive.path(row["path"]).read_bytes().endswith(data) for row in rows)
    else:
        assert isinstance(outcome, Recorded)
    assert not unsettled(store)


@given(st.binary(max_size=4) | SCRAPS, st.sampled_from([b"", b"DICM", b"\0" * 128 + b"DICM", b"\x02\0\0\0UL\4\0\xff\0\0\0", b"\x08\0\x05\0"]))
@settings(max_examples=200, deadline=None)
def test_any_file_is_a_dicom_file_or_is_refused(rest, start):
    try:
        said, at = split_file(start + rest)
    except Refused as refusal:
        assert refusal.status == 0xC001
    else:
        assert 0 <= at <= len(start + rest) and said["TransferSyntaxUID"] is not None


@given(SCRAPS)
@settings(max_examples=30, deadline=None)
def test_any_file_is_imported_or_refused(house, tmp_path_factory, content):
    path = tmp_path_factory.mktemp("in") / "file"
    path.write_bytes(b"\0" * 128 + b"DICM" + content)
    try:
        import_file(house[1], path, received_at=1e9)
    except Refused as refusal:
        assert refusal.status in (0xC001, 0xC002, 0xA900)
