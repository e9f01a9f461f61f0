"""The door: what is promised for each data set, and the status that says why not. No sockets here; those are in walks/test_receive_walk.py."""

import json
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from blake3 import blake3
from pydicom import Dataset, dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from dicom_node.config import Node
from dicom_node.domain import HEADER_KEYWORDS, Refused
from dicom_node.receive import Door, import_file, read_header, recovered
from dicom_node.receive.header import split_file
from dicom_node.store import PAGE_BYTES, Recorded, Store
from tests import phantoms
from tests.files import size_bytes

CHARSETS = Path(pydicom.__file__).parent / "data" / "charset_files"
FILES = Path(pydicom.__file__).parent / "data" / "test_files"


@dataclass
class House:
    """A store with a door, and the shorthand of these tests."""

    store: Store
    door: Door

    def take(self, data_set: bytes, *, sop_class_uid="", sop_instance_uid="", transfer_syntax_uid=ExplicitVRLittleEndian, at=1_700_000_000.0):
        """Take a data set as a sender would announce it that told the truth, unless told otherwise."""
        return self.door.take(
            data_set,
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            transfer_syntax_uid=str(transfer_syntax_uid),
            calling_ae="CT_ER",
            received_at=at,
        )

    def refusal(self, data_set: bytes, **said) -> Refused:
        with pytest.raises(Refused) as refused:
            self.take(data_set, **said)
        return refused.value

    @property
    def files(self) -> dict[str, list[Path]]:
        """Every file below the archive, by kind, when all is settled; but for the empty ones, which are there for what is to come."""
        self.store.instances.settle()
        found = {kind: sorted((self.store.archive.root / kind).rglob("*.dcm")) for kind in ("incoming", "instances", "quarantine")}
        return {kind: [path for path in paths if size_bytes(path)] for kind, paths in found.items()}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    store = Store.open(tmp_path)
    yield House(store, Door(store, Node(disk_reserve_mb=1)))
    store.close()


def image(**attributes) -> Dataset:
    """Return one CT image; attributes given None are absent from it."""
    return phantoms.series(phantoms.marked((1, 6, 4), (0, 0, 0)), **attributes)[0]


def written(dataset: Dataset, transfer_syntax_uid=ExplicitVRLittleEndian) -> bytes:
    """Return the bytes of a data set, without preamble and meta information."""
    file = BytesIO()
    dataset.file_meta.TransferSyntaxUID = transfer_syntax_uid
    little = transfer_syntax_uid != ExplicitVRBigEndian
    dataset.save_as(file, implicit_vr=transfer_syntax_uid == ImplicitVRLittleEndian, little_endian=little, enforce_file_format=True)
    return file.getvalue()[split_file(file.getvalue())[1] :]


def element(group: int, number: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """Return an element in explicit VR little endian, with another length than it has if asked."""
    length = len(value) if length is None else length
    size = b"\0\0" + length.to_bytes(4, "little") if vr in (b"SQ", b"UN", b"OB") else length.to_bytes(2, "little")
    return group.to_bytes(2, "little") + number.to_bytes(2, "little") + vr + size + value


# --------------------------------------------------------------------------------------------------------- what is kept


def test_the_data_set_is_kept_byte_for_byte_behind_a_meta_header_of_our_own(house):
    """PS3.10 7.1; R4.1 and R4.9: bytes as received, our implementation, who sent it to whom."""
    ct = image()
    data_set = written(ct)
    assert house.take(data_set, sop_class_uid=ct.SOPClassUID, sop_instance_uid=ct.SOPInstanceUID) is Recorded.NEW
    (path,) = house.files["instances"]
    file = path.read_bytes()
    said, start = split_file(file)
    assert file[:132] == b"\0" * 128 + b"DICM"
    assert file[start:] == data_set
    meta = dcmread(path).file_meta
    assert meta.FileMetaInformationGroupLength == start - 144
    assert said == {
        "MediaStorageSOPClassUID": ct.SOPClassUID,
        "MediaStorageSOPInstanceUID": ct.SOPInstanceUID,
        "TransferSyntaxUID": ExplicitVRLittleEndian,
        "SourceApplicationEntityTitle": "CT_ER",
    }
    assert (meta.ImplementationVersionName, meta.SourceApplicationEntityTitle, meta.ReceivingApplicationEntityTitle) == (
        "DICOM_NODE_0.1",
        "CT_ER",
        "DICOM_NODE",
    )
    assert meta.ImplementationClassUID.startswith("2.25.")
    (row,) = house.store.instances.by_ids([1])
    assert (row.digest, row.size_bytes, row.calling_ae, row.received_at) == (blake3(data_set).hexdigest(), len(file), "CT_ER", 1_700_000_000.0)
    assert house.store.archive.path(row.path) == path
    assert (row.header["Rows"], row.header["SliceThickness"], row.header["ImageType"]) == (6, 2.5, ["ORIGINAL", "PRIMARY", "AXIAL"])


def test_the_same_bytes_again_are_success_and_make_no_file_and_no_work(house):
    data_set = written(image())
    house.take(data_set)
    before, changes = house.files, house.store.studies.view(image().StudyInstanceUID).changes
    assert house.take(data_set) is Recorded.IDENTICAL
    assert house.files == before
    assert house.store.studies.view(image().StudyInstanceUID).changes == changes


def test_the_same_uid_with_other_content_is_kept_beside_the_first(house):
    house.take(written(image()))
    assert house.take(written(image(SeriesDescription="other"))) is Recorded.NEW_VERSION
    assert len(house.files["instances"]) == 2
    assert [i.version for i in house.store.instances.by_ids([1, 2])] == [1, 2]


# ------------------------------------------------------------------------------------------------------------- statuses


def broken(**attributes) -> bytes:
    with pytest.warns(UserWarning):  # pydicom knows better than to write them
        return written(image(**attributes))


REFUSED = {
    "no study": (0xC002, lambda: written(image(StudyInstanceUID=None)), "StudyInstanceUID is missing"),
    "an empty series": (0xC002, lambda: written(image(SeriesInstanceUID="")), "SeriesInstanceUID is missing"),
    "a study that is a path": (0xC002, lambda: broken(StudyInstanceUID="../../etc/passwd"), "StudyInstanceUID is not a UID"),
    "a UID of 65 characters": (0xC002, lambda: broken(SeriesInstanceUID="1." + "2" * 63), "SeriesInstanceUID is not a UID"),
    "two UIDs in one": (0xC002, lambda: written(image(SeriesInstanceUID=["1.2", "1.3"])), "SeriesInstanceUID is not a UID"),
    "a part without digits": (0xC002, lambda: broken(StudyInstanceUID="1..2"), "StudyInstanceUID is not a UID"),
    "nothing at all": (0xC002, lambda: b"", "SOPClassUID is missing"),
    "the end cut off before the image": (0xC001, lambda: written(image())[:400], "Not parsable: a length reaches past its end"),
    "a page of the web": (0xC001, lambda: b"\x08\x00<!DOCTYPE html><html>", "Not parsable: a length reaches past its end"),
    "a bad deflate": (0xC001, lambda: b"\xff" * 64, "Not parsable: it is not deflated"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_refused_and_kept_in_quarantine_with_its_reason(house, case):
    """PS3.4 Table B.2-1: C000-CFFF, Error: Cannot understand; the bytes are never dropped."""
    status, data_set, reason = REFUSED[case]
    sent = data_set()
    syntax = DeflatedExplicitVRLittleEndian if "deflate" in case else ExplicitVRLittleEndian
    refusal = house.refusal(sent, transfer_syntax_uid=syntax, sop_instance_uid="1.2.3")
    assert (refusal.status, str(refusal)) == (status, reason)
    assert len(reason) <= 64  # Error Comment (0000,0902) is LO
    (kept,) = house.files["quarantine"]
    assert kept.read_bytes().endswith(sent)
    (row,) = house.store.instances.quarantined()
    assert (row["reason"], row["source"], row["sop_instance_uid"]) == (f"{status:04X} {reason}", "CT_ER", "1.2.3")
    assert not house.files["instances"] and not house.files["incoming"]


def test_leading_zeros_in_a_uid_are_tolerated_because_real_devices_write_them(house):
    with pytest.warns(UserWarning):
        data_set = written(image(StudyInstanceUID="1.02.003"))
    assert house.take(data_set) is Recorded.NEW
    assert house.store.instances.by_ids([1])[0].study_instance_uid == "1.02.003"


@pytest.mark.parametrize("said", [{"sop_class_uid": "1.2.840.10008.5.1.4.1.1.4"}, {"sop_instance_uid": "1.2.3"}])
def test_what_is_not_what_was_announced_is_refused(house, said):
    """PS3.4 Table B.2-1: A900, Error: Data Set does not match SOP Class."""
    assert house.refusal(written(image()), **said).status == 0xA900
    assert not house.files["instances"] and not house.files["quarantine"]


def test_padding_of_an_announced_uid_is_not_a_difference(house):
    ct = image()
    assert house.take(written(ct), sop_class_uid=f"{ct.SOPClassUID}\0", sop_instance_uid=f"{ct.SOPInstanceUID} ") is Recorded.NEW


def test_a_transfer_syntax_that_is_no_uid_is_refused(house):
    assert house.refusal(written(image()), transfer_syntax_uid="../x").status == 0xC001


@pytest.mark.parametrize("data_set", [written(image()), b"junk of any kind"])
def test_below_the_disk_reserve_everything_is_to_be_sent_again_and_nothing_is_written(house, data_set):
    """A700, Refused: Out of resources; junk neither, so that quarantine cannot fill the disk."""
    poor = House(house.store, Door(house.store, Node(disk_reserve_mb=1 << 40)))
    refusal = poor.refusal(data_set)
    assert refusal.status == 0xA700 and "disk_reserve_mb" in refusal.hint
    assert not any(house.files.values()) and house.store.instances.quarantined() == ()


@pytest.mark.parametrize("data_set", [written(image()), written(image(StudyInstanceUID=None))])
def test_a_disk_that_does_not_take_the_bytes_is_out_of_resources(house, data_set):
    for folder in (house.store.archive.incoming, house.store.archive.root / "quarantine"):
        folder.rmdir()
        folder.write_text("in the way")
    assert house.refusal(data_set).status == 0xA700


def test_a_ledger_that_does_not_answer_in_time_is_out_of_resources_and_the_instance_may_come_again(tmp_path):
    """A700 after the site's patience, while another instance's commit is stuck; that one is recorded when the ledger answers again."""
    store = Store.open(tmp_path)
    house, patient = (House(store, Door(store, Node(disk_reserve_mb=1, dimse_timeout_s=patience_s))) for patience_s in (0.2, 60.0))
    with ThreadPoolExecutor(1) as pool:
        with store.database.write():  # somebody holds the ledger
            stuck = pool.submit(patient.take, written(image(seed="stuck")))
            while not store.instances._led or store.instances._waiting:
                time.sleep(0.005)
            assert house.refusal(written(image())).status == 0xA700
        assert stuck.result(60) is Recorded.NEW
    assert not house.files["incoming"]
    assert patient.take(written(image())) is Recorded.NEW
    assert all(store.instances.bring([one])[0].stat().st_size == one.size_bytes for one in store.instances.by_ids([1, 2]))
    store.close()


def test_an_instance_that_comes_in_pieces_is_the_one_that_comes_whole(house):
    """Fragments end anywhere, within the header too: what is read of the first is read again of all when it was not enough."""
    data_set = written(image())
    for size in (1, 7, 100, 1000, len(data_set)):
        arrival = house.door.open(sop_class_uid=None, sop_instance_uid=None, transfer_syntax_uid=str(ExplicitVRLittleEndian), calling_ae="CT_ER")
        for start in range(0, len(data_set), size):
            arrival.write(memoryview(data_set)[start : start + size])
        assert arrival.close(1_700_000_000.0) is (Recorded.NEW if size == 1 else Recorded.IDENTICAL)
    (path,) = house.files["instances"]
    assert path.read_bytes().endswith(data_set)
    (row,) = house.store.instances.by_ids([1])
    assert row.header == read_header(data_set, ExplicitVRLittleEndian)


def test_an_arrival_that_is_dropped_leaves_its_file_to_another(house):
    """Its sender has gone: the next instance is written where it was, and nothing of it is left there."""
    data_set = written(image())
    stocked = None
    for number in range(100):
        arrival = house.door.open(sop_class_uid=None, sop_instance_uid=None, transfer_syntax_uid=str(ExplicitVRLittleEndian), calling_ae="CT_ER")
        arrival.write(bytes(1 << 16))
        arrival.drop()
        arrival.drop()
        stocked = stocked or house.store.archive.stocked
        assert house.store.archive.stocked == stocked, number
    assert not house.files["incoming"]
    assert house.take(data_set) is Recorded.NEW
    (path,) = house.files["instances"]
    assert path.read_bytes().endswith(data_set) and path.stat().st_size < 1 << 16


def test_no_reason_names_the_patient(house):
    for data_set in (written(image(StudyInstanceUID=None)), written(image())[:400]):
        refusal = house.refusal(data_set)
        said = f"{refusal} {refusal.hint} {house.store.instances.quarantined()}"
        assert not any(mark in said for mark in phantoms.PATIENT.values())


# --------------------------------------------------------------------------------------------------------------- header


def headers_of(dataset: Dataset) -> dict[str, dict]:
    forms = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
    return {uid.name: read_header(written(dataset, uid), uid) for uid in forms if uid != ExplicitVRBigEndian} | {
        ExplicitVRBigEndian.name: read_header(written(without_pixels(dataset), ExplicitVRBigEndian), ExplicitVRBigEndian)
    }


def without_pixels(dataset: Dataset) -> Dataset:
    del dataset.PixelData  # pydicom swaps no pixels; the header does not look at them
    return dataset


def test_every_way_of_writing_a_data_set_gives_the_same_header():
    """PS3.5 Annex A: implicit, explicit, big endian, deflated."""
    ct = image(ReferencedImageSequence=[Dataset()], ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    first, *others = headers_of(ct).values()
    assert all(other == first for other in others)
    assert first["PatientName"] == "Marked^Patient" and first["ImageOrientationPatient"] == [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    assert set(first) <= set(HEADER_KEYWORDS)
    assert json.loads(json.dumps(first)) == first


@pytest.mark.parametrize(("agreed", "sent"), [(ImplicitVRLittleEndian, ExplicitVRLittleEndian), (RLELossless, ImplicitVRLittleEndian)])
def test_a_data_set_written_otherwise_than_agreed_is_read_as_it_is(agreed, sent):
    assert read_header(written(image(), sent), agreed)["Modality"] == "CT"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("chrGerm", "Äneas^Rüdiger"),
        ("chrH31", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("chrH32", "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
        ("chrI2", "Hong^Gildong=洪^吉洞=홍^길동"),
        ("chrX1", "Wang^XiaoDong=王^小東="),
        ("chrX2", "Wang^XiaoDong=王^小东="),
        ("chrRuss", "Люкceмбypг"),
        ("chrArab", "قباني^لنزار"),
    ],
)
def test_character_sets_are_understood(file, name):
    """PS3.3 C.12.1.1.2, PS3.5 6.1.2.5: the examples of PS3.5 Annexes H to K."""
    data = (CHARSETS / f"{file}.dcm").read_bytes()
    said, start = split_file(data)
    assert read_header(data[start:], said["TransferSyntaxUID"])["PatientName"] == name


@pytest.mark.parametrize(
    ("charset", "raw", "name"),
    [
        (b"", "Müller".encode(), "Müller"),  # undeclared, and is UTF-8
        (b"", "Müller".encode("latin-1"), "Müller"),  # undeclared, and is not
        (b"ISO_IR 999 ", "Müller".encode("latin-1"), "Müller"),
        (b"ISO_IR 192", b"M\xfcller", "M\ufffdller"),
        (b"iso-ir 100", b"M\xfcller", "Müller"),
        (b"GB18030 ", "王^小东".encode("gb18030"), "王^小东"),
        (b"\\ISO 2022 IR 87 ", b"\x1b$B\xff\xff", "\ufffd\ufffd"),
        (b"\\ISO 2022 IR 87 ", b"A\x1b%xB", "AB"),  # no such escape sequence
    ],
)
def test_a_wrong_or_missing_character_set_costs_no_more_than_characters(charset, raw, name):
    data_set = element(8, 5, b"CS", charset) + element(0x10, 0x10, b"PN", raw)
    assert read_header(data_set, ExplicitVRLittleEndian)["PatientName"] == name


@pytest.mark.parametrize(
    ("tag", "vr", "raw", "value"),
    [
        ((0x10, 0x10), b"PN", b"A\0B\x07C^D\x85E \0", "AB C^D E"),
        ((0x10, 0x20), b"LO", b"  \0 ", None),
        ((0x08, 0x08), b"CS", b"ORIGINAL\\\\AXIAL ", ["ORIGINAL", "", "AXIAL"]),
        ((0x18, 0x50), b"DS", b" 2.50", 2.5),
        ((0x18, 0x50), b"DS", b"2,5", None),
        ((0x18, 0x50), b"DS", b"nan", None),
        ((0x18, 0x50), b"DS", b"1e999", None),
        ((0x18, 0x50), b"DS", b"1_0", None),
        ((0x18, 0x50), b"FD", b"\0\0\0\0\0\0\x04@", 2.5),
        ((0x18, 0x50), b"FD", b"\0\0\0\0\0\0\xf0\x7f", None),
        ((0x18, 0x50), b"SQ", b"2.5 ", None),
        ((0x20, 0x13), b"IS", b"+007", 7),
        ((0x20, 0x13), b"IS", b"7.0 ", 7),
        ((0x20, 0x13), b"IS", b"7a", None),
        ((0x20, 0x13), b"IS", b"9" * 40, None),
        ((0x20, 0x13), b"UN", b"7 ", 7),
        ((0x20, 0x32), b"DS", b"1\\2\\", None),
        ((0x20, 0x32), b"DS", b"1\\-2\\.5", [1.0, -2.0, 0.5]),
        ((0x28, 0x10), b"US", b"\0\2", 512),
        ((0x28, 0x10), b"UN", b"\0\2", 512),
        ((0x28, 0x10), b"IS", b"512 ", 512),
        ((0x28, 0x10), b"US", b"\1", None),
        ((0x08, 0x60), b"US", b"CT", None),
    ],
)
def test_a_value_is_read_as_it_was_meant_or_counts_as_absent(tag, vr, raw, value):
    found = read_header(element(*tag, vr, raw), ExplicitVRLittleEndian)
    assert list(found.values()) == ([] if value is None else [value])


def test_no_value_is_longer_than_a_screen():
    found = read_header(element(0x08, 0x1030, b"UN", b"x" * 100_000) + element(8, 8, b"UN", b"A\\" * 2000), ExplicitVRLittleEndian)
    assert len(found["StudyDescription"]) == 1024 and len(found["ImageType"]) == 64


OPEN = element(0x08, 0x1140, b"SQ", b"", 0xFFFFFFFF)
ITEM = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
ITEM_END, SEQUENCE_END = b"\xfe\xff\x0d\xe0\0\0\0\0", b"\xfe\xff\xdd\xe0\0\0\0\0"
MODALITY = element(0x08, 0x60, b"CS", b"CT")
LATER = element(0x10, 0x20, b"LO", b"ID")


@pytest.mark.parametrize(
    "data_set",
    [
        OPEN + SEQUENCE_END + LATER,
        OPEN + ITEM + MODALITY + ITEM_END + ITEM + OPEN + SEQUENCE_END + ITEM_END + SEQUENCE_END + LATER,
        OPEN + b"\xfe\xff\x00\xe0\x08\0\0\0" + b"anything" + SEQUENCE_END + LATER,
        element(9, 0x1001, b"UN", b"", 0xFFFFFFFF) + ITEM + b"\x08\0\x60\0\2\0\0\0CT" + ITEM_END + SEQUENCE_END + LATER,  # implicit inside
        element(8, 0x1140, b"SQ", ITEM + MODALITY + ITEM_END) + LATER,
    ],
)
def test_sequences_are_passed_over_and_nothing_in_them_is_taken_for_the_image_s(data_set):
    """PS3.5 7.5, 6.2.2: defined and undefined lengths, nested, UN."""
    assert read_header(data_set, ExplicitVRLittleEndian) == {"PatientID": "ID"}


@pytest.mark.parametrize(
    "data_set", [OPEN * 100_000, (OPEN + ITEM) * 100_000, OPEN + ITEM + MODALITY, OPEN, LATER[:-1], element(9, 1, b"UN", b"", 1 << 31)]
)
def test_what_never_ends_is_refused_soon(data_set):
    with pytest.raises(Refused, match="Not parsable"):
        read_header(data_set, ExplicitVRLittleEndian)


def test_a_deflate_bomb_is_looked_at_no_further_than_a_header_may_reach():
    """2 GB of zeros in 2 MB: refused from its first 16 MB."""
    packer = zlib.compressobj(9, wbits=-15)
    bomb = packer.compress(element(9, 1, b"OB", b"", 0x7FFFFFFE)) + b"".join(packer.compress(bytes(1 << 24)) for _ in range(4)) + packer.flush()
    with pytest.raises(Refused, match="past its end"):
        read_header(bomb, DeflatedExplicitVRLittleEndian)


def test_a_million_elements_are_not_walked_to_their_end():
    with pytest.raises(Refused, match="more than 1000000 elements"):
        read_header(element(9, 1, b"LO", b"") * 1_000_001, ExplicitVRLittleEndian)


# --------------------------------------------------------------------------------------------------------------- import


def test_a_file_comes_in_by_the_same_door_with_or_without_preamble_and_meta_information(house, tmp_path):
    """PS3.10 7.1; what old archives hold besides."""
    (whole,) = phantoms.write([image()], tmp_path / "in")
    data = whole.read_bytes()
    _, start = split_file(data)
    forms = {"whole": data, "no preamble": data[128:], "no prefix": data[132:], "no meta": data[start:]}
    outcomes = {}
    for name, form in forms.items():
        whole.write_bytes(form)
        outcomes[name] = import_file(house.door, whole, received_at=5.0)
    assert outcomes == {"whole": Recorded.NEW, "no preamble": Recorded.IDENTICAL, "no prefix": Recorded.IDENTICAL, "no meta": Recorded.IDENTICAL}
    (row,) = house.store.instances.by_ids([1])
    assert (row.calling_ae, row.received_at, row.transfer_syntax_uid) == ("import", 5.0, ExplicitVRLittleEndian)


@pytest.mark.parametrize("name", ["ExplVR_BigEndNoMeta.dcm", "ExplVR_LitEndNoMeta.dcm"])
def test_a_missing_transfer_syntax_is_told_by_the_first_element(name):
    data = (FILES / name).read_bytes()
    said, start = split_file(data)
    assert read_header(data[start:], said["TransferSyntaxUID"])


def test_a_file_whose_meta_information_names_another_instance_is_refused(house, tmp_path):
    ct = image()
    ct.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    path = tmp_path / "one.dcm"
    pydicom.filewriter.dcmwrite(path, ct, enforce_file_format=False)
    with pytest.raises(Refused) as refused:
        import_file(house.door, path, received_at=0.0)
    assert refused.value.status == 0xA900


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\0" * 200, b"\0" * 128 + b"DIC", b"\0" * 128 + b"DICM\x02\0\x10\0UI\xff\xff1."])
def test_what_is_no_dicom_file_is_refused_and_stays_where_it_is(house, tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(Refused):
        import_file(house.door, path, received_at=0.0)
    assert path.read_bytes() == content and not house.files["quarantine"]


def test_a_file_that_cannot_be_read_is_refused(house, tmp_path):
    with pytest.raises(Refused, match="Not readable: Is a directory"):
        import_file(house.door, tmp_path, received_at=0.0)


def test_the_room_itself_loads_no_arrays_and_no_pixels():
    """It decodes nothing; pydicom loads numpy by itself where it is installed, so only what this room names is looked at."""
    code = "import sys, dicom_node.receive; print(sorted({'torch', 'highdicom', 'SimpleITK', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    assert not any("numpy" in path.read_text() for path in Path(sys.modules["dicom_node.receive"].__file__).parent.glob("*.py"))


@pytest.mark.parametrize("more_bytes", [0, 2, -2, 1])
def test_a_data_set_that_is_as_long_as_was_expected_ends_with_a_page_and_any_other_is_whole_too(house, more_bytes):
    """PS3.10 §7.1: the Private Information takes up what fills the page; a length that was not foreseen only costs another write."""
    data_set = written(image())
    arrival = house.door.open(
        sop_class_uid=None,
        sop_instance_uid=None,
        transfer_syntax_uid=str(ExplicitVRLittleEndian),
        calling_ae="CT_ER",
        expected_bytes=len(data_set) + more_bytes,
    )
    arrival.write(data_set)
    assert arrival.close(1_700_000_000.0) is Recorded.NEW
    (path,) = house.files["instances"]
    assert path.read_bytes().endswith(data_set)
    assert (path.stat().st_size % PAGE_BYTES == 0) is (more_bytes == 0)
    assert dcmread(path).SOPInstanceUID == image().SOPInstanceUID
    (row,) = house.store.instances.by_ids([1])
    found = recovered(path)
    assert found is not None and (found.digest, found.size_bytes, found.header) == (row.digest, row.size_bytes, row.header)
