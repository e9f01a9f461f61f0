"""Which entries of a worklist an identifier means, what is answered of them, and what becomes of files that cannot be used."""

import os
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from structlog.testing import capture_logs

from dicom_node.domain import Refused
from dicom_node.worklist import folder as folder_module
from dicom_node.worklist.folder import Folder
from dicom_node.worklist.mwl import asked, entries
from tests.worklists import asking, entry, write


def means(identifier: Dataset, *, date: str = "20260110", time: str = "101500", **other: str) -> bool:
    """Say whether an entry that begins then is meant."""
    (one,) = entries(entry(ScheduledProcedureStepStartDate=date, ScheduledProcedureStepStartTime=time, **other))
    return asked(identifier).matches(one.attributes)


@pytest.mark.parametrize(
    ("keyword", "value", "expected"),
    [
        ("PatientName", "doe*", True),
        ("PatientName", "Roe*", False),
        ("PatientID", "P1", True),
        ("PatientID", "P", False),
        ("Modality", "CT", True),
        ("Modality", "MR", False),
        ("ScheduledStationAETitle", "CT_ER", True),
        ("ScheduledStationAETitle", "CT_2", False),
        ("ScheduledPerformingPhysicianName", "PER*", True),
        ("ScheduledProcedureStepStartDate", "20260110", True),
        ("ScheduledProcedureStepStartDate", "20260111-", False),
        ("ScheduledProcedureStepStartTime", "1000-1100", True),
        ("ScheduledProcedureStepStartTime", "1100-", False),
        ("StudyInstanceUID", "1.2.3", False),
        ("AccessionNumber", "A1", True),
    ],
)
def test_each_key_has_to_match(keyword: str, value: str, expected: bool) -> None:
    """PS3.4 Table K.6-1."""
    assert means(asking(**{keyword: value})) is expected


@pytest.mark.parametrize(
    ("dates", "times", "date", "time", "expected"),
    [
        ("20260705-20260707", "100000-180000", "20260706", "230000", True),
        ("20260705-20260707", "100000-180000", "20260705", "095900", False),
        ("20260705-20260707", "100000-180000", "20260707", "180000", True),
        ("20260705-20260707", "100000-180000", "20260707", "180001", False),
        ("20260705-", "100000-", "20260706", "080000", True),
        ("20260705-", "100000-", "20260705", "080000", False),
        ("-20260707", "-1800", "20260707", "1900", False),
        ("-20260707", "-1800", "20260101", "1900", True),
        ("20260705", "100000-180000", "20260705", "230000", False),
        ("20260705-20260707", "", "20260706", "230000", True),
        ("20260705-20260707", "100000-180000", "20260706", "", True),
        ("20260705-20260707", "100000-180000", "", "", True),
    ],
)
def test_ranges_of_date_and_time_are_one_range(dates: str, times: str, date: str, time: str, expected: bool) -> None:
    """Table K.6-1: from the 5th at 10 h to the 7th at 18 h; not from 10 to 18 h of each day."""
    keys = asking(ScheduledProcedureStepStartDate=dates, ScheduledProcedureStepStartTime=times)
    assert means(keys, date=date, time=time) is expected


def test_an_empty_sequence_asks_for_everything_of_it() -> None:
    """PS3.4 C.2.2.2.6: zero items match all, and the whole item is answered."""
    identifier = Dataset()
    identifier.PatientID = ""
    identifier.ScheduledProcedureStepSequence = []
    identifier.RequestedProcedureCodeSequence = []
    (one,) = entries(entry())
    answer, whole = asked(identifier).answer(one)
    assert asked(identifier).matches(one.attributes)
    assert whole
    assert answer.ScheduledProcedureStepSequence[0].ScheduledProcedureStepID == "SPS1"
    assert answer.RequestedProcedureCodeSequence[0].CodeValue == "CTCHEST"
    assert "PatientName" not in answer


def test_every_key_that_is_supported_is_answered() -> None:
    """PS3.4 K.4.1.1.3.2: of zero length where nothing is known; one that is not supported is left out, and the answer is FF01."""
    identifier = asking()
    identifier.PregnancyStatus = None
    identifier.ScheduledProcedureStepSequence[0].PreMedication = ""
    (one,) = entries(entry())
    answer, whole = asked(identifier).answer(one)
    assert whole
    assert (answer.PregnancyStatus, answer.ScheduledProcedureStepSequence[0].PreMedication) == (None, None)
    assert answer.SpecificCharacterSet == "ISO_IR 192"
    identifier.KVP = "120"
    identifier.ScheduledProcedureStepSequence[0].SliceThickness = None
    answer, whole = asked(identifier).answer(one)
    assert not whole
    assert "KVP" not in answer
    assert asked(identifier).matches(one.attributes), "a key that is not supported is not matched"


def test_a_key_that_the_files_alone_know_is_answered() -> None:
    """A RIS may tell more than Table K.6-1 has."""
    source = entry()
    source.StudyDescription = "Thorax"
    (one,) = entries(source)
    identifier = asking()
    identifier.StudyDescription = ""
    answer, whole = asked(identifier).answer(one)
    assert (answer.StudyDescription, whole) == ("Thorax", True)


def test_an_identifier_asks_for_one_step() -> None:
    """PS3.4 K.6.1.2.2: A900 for more."""
    identifier = asking()
    identifier.ScheduledProcedureStepSequence = [Dataset(), Dataset()]
    with pytest.raises(Refused) as refused:
        asked(identifier)
    assert refused.value.status == 0xA900


def test_a_file_of_several_steps_is_as_many_entries() -> None:
    """Each answer has one item."""
    both = entry()
    both.ScheduledProcedureStepSequence = [*both.ScheduledProcedureStepSequence, *entry(2).ScheduledProcedureStepSequence]
    assert [one.dataset.ScheduledProcedureStepSequence[0].ScheduledProcedureStepID for one in entries(both)] == ["SPS1", "SPS2"]


# ---------------------------------------------------------------------------------------------------------------- files


def names(folder: Folder) -> list[str]:
    return [str(one.dataset.PatientID) for one in folder.entries()]


def test_files_are_read_again_when_they_change(tmp_path: Path) -> None:
    """What the RIS writes, changes or takes away is seen at the next question."""
    folder = Folder(tmp_path)
    assert names(folder) == []
    write(tmp_path, "b", entry(patient="B"))
    write(tmp_path, "a", entry(patient="A"))
    assert names(folder) == ["A", "B"]
    assert folder.entries()[0] is folder.entries()[0], "one that has not changed is not read again"
    path = write(tmp_path, "b", entry(patient="CHANGED"))
    os.utime(path, ns=(1, 1))
    assert names(folder) == ["A", "CHANGED"]
    path.unlink()
    assert names(folder) == ["A"]


def test_a_file_that_cannot_be_used_is_named_and_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are answered all the same; it is told once."""
    whole = write(tmp_path, "good", entry())
    (tmp_path / "half.wl").write_bytes(whole.read_bytes()[:400])
    (tmp_path / "none.wl").write_bytes(b"")
    (tmp_path / "long.wl").write_bytes(bytes((1 << 18) + 1))
    (tmp_path / "folder.wl").mkdir()
    (tmp_path / "other.txt").write_bytes(b"")
    folder = Folder(tmp_path)
    with capture_logs() as logs:
        assert names(folder) == names(folder) == ["P1"]
    assert sorted(line["file"] for line in logs) == ["half.wl", "long.wl", "none.wl"]
    monkeypatch.setattr(folder_module, "_FILES_MAX", 1)
    for name in ("x", "y"):
        write(tmp_path, name, entry(patient=name))
    with capture_logs() as logs:
        assert len(Folder(tmp_path).entries()) == 1
    assert [line["event"] for line in logs] == ["worklist.too_many_files"]


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    """A700: the modality may ask again."""
    with pytest.raises(Refused) as refused:
        Folder(tmp_path / "none").entries()
    assert refused.value.status == 0xA700


def test_a_written_entry_is_read_as_it_was(tmp_path: Path) -> None:
    """Names in other alphabets keep their characters."""
    one = dcmread(write(tmp_path, "a", entry(name="Müller^Zoë=山田^太郎")))
    assert str(entries(one)[0].attributes["PatientName"]) == "Müller^Zoë=山田^太郎"
