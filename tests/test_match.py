"""Attribute matching (PS3.4 C.2.2.2), case by case."""

import pytest

from dicom_node.store.match import matches


@pytest.mark.parametrize(
    ("keyword", "key", "value", "expected"),
    [
        ("PatientID", "A1", "A1 ", True),  # trailing padding is no part of a value
        ("PatientID", "A1", "a1", False),
        ("PatientID", "", "A1", True),
        ("PatientID", None, "A1", True),
        ("PatientID", "*", "A1", True),
        ("PatientID", "A1", "", False),  # unique, not required: another patient's study is not given
        ("PatientID", "*1", "", False),
        ("AccessionNumber", "A1", "", True),
        ("AccessionNumber", "A1", None, True),
        ("StudyDescription", "A*", None, False),
        ("StudyDescription", "*", None, True),
        ("StudyDescription", "100% _x[a]", "100% _x[a]", True),
        ("StudyDescription", "100% ?x[*]", "100% _x[a]", True),
        ("StudyDescription", "A?", "A", False),
        ("StudyDescription", "A*C*", "ABC", True),
        ("StudyDescription", "A*B*B", "AB", False),
        ("StudyDescription", "A*\nB", "A\nB", True),
        ("StudyInstanceUID", "1.2\\1.3", "1.3", True),
        ("StudyInstanceUID", ["1.2", "1.3\0"], "1.3", True),
        ("StudyInstanceUID", "1.?", "1.3", False),
        ("ModalitiesInStudy", "MR", ["CT", "MR"], True),
        ("ModalitiesInStudy", "CT\\MR", ["PT", "MR"], True),
        ("ModalitiesInStudy", "M?", ["CT", "MR"], True),
        ("StudyComments", "a\\b", "a", False),  # of LT a backslash is a character
        ("SeriesNumber", "03", 3, True),
        ("SeriesNumber", "3*", 3, False),
        ("SliceThickness", "1", 1.0, True),
        ("PatientAge", "04?Y", "042Y", False),
        # dates and times are values
        ("StudyDate", "20240131", "2024.01.31", True),
        ("StudyDate", "2024.01.31", "20240131", True),
        ("StudyDate", "20240101-20240131", "20240131", True),
        ("StudyDate", "20240201-", "20240131", False),
        ("StudyDate", "-20240131", "20240131", True),
        ("StudyDate", "-", "20240131", True),
        ("StudyDate", "202401*", "20240131", False),
        ("StudyDate", "2024", "2024", True),  # malformed alike
        ("StudyDate", "20240101-", "soon", False),
        ("StudyTime", "10", "103059.5", True),
        ("StudyTime", "1030", "10", True),
        ("StudyTime", "10:30:59", "103059.25", True),
        ("StudyTime", "103059.3", "103059.25", False),
        ("StudyTime", "0900-1030", "103059.999999", True),
        ("StudyTime", "0900-1029", "103000", False),
        ("StudyTime", "2300-0100", "2330", False),  # not across midnight
        ("AcquisitionDateTime", "20240131", "20240131101500", True),
        ("AcquisitionDateTime", "20240131-20240201", "20240201235959.5", True),
        ("AcquisitionDateTime", "202401311015+0100", "202401310915", True),
        ("AcquisitionDateTime", "20240131090000+0000-20240131093000+0000", "20240131101500+0100", True),
        ("AcquisitionDateTime", "20240131-0500", "20240201030000", True),  # an offset from UTC, no range
        ("AcquisitionDateTime", "20241301", "20240131", False),
        # names
        ("PatientName", "DOE^JOHN", "Doe^John^^", True),
        ("PatientName", "doe", "Doe^John", False),
        ("PatientName", "doe*", "Doe^John", True),
        ("PatientName", "doe^*", "Doe", True),
        ("PatientName", "*^j?hn", "Doe^John", True),
        ("PatientName", "muller^jorg", "Müller^Jörg", True),
        ("PatientName", "STRASSE", "Straße", True),
        ("PatientName", "山田^太郎", "Yamada^Tarou=山田^太郎=やまだ^たろう", True),
        ("PatientName", "Yamada^Tarou=山田*", "Yamada^Tarou=山田^太郎=やまだ^たろう", True),
        ("PatientName", "=山田^次郎", "Yamada^Tarou=山田^太郎=やまだ^たろう", False),
        ("PatientName", "^^", "Doe", True),
        ("NoSuchKeyword", "a*", "abc", True),
    ],
)
def test_a_key_matches_as_its_vr_says(keyword, key, value, expected):
    assert matches({keyword: key}, {keyword: value}) is expected


@pytest.mark.parametrize(
    ("key", "expected"),
    [([], True), ([{}], True), ([{"CodeValue": ""}], True), ([{"CodeValue": "b"}], True), ({"CodeValue": "b", "CodeMeaning": "A"}, False)],
)
def test_a_sequence_matches_if_one_item_does(key, expected):
    """C.2.2.2.6: whole items, each by itself; an empty item asks for nothing."""
    items = [{"CodeValue": "a", "CodeMeaning": "A"}, {"CodeValue": "b", "CodeMeaning": "B"}]
    assert matches({"ProcedureCodeSequence": key}, {"ProcedureCodeSequence": items}) is expected
    assert matches({"ProcedureCodeSequence": [{"CodeValue": "b"}]}, {}) is False


def test_an_offset_is_taken_from_the_entity_where_a_time_has_none():
    """Timezone Offset From UTC (0008,0201)."""
    entity = {"AcquisitionDateTime": "20240131101500", "TimezoneOffsetFromUTC": "+0100"}
    assert matches({"AcquisitionDateTime": "20240131091500+0000"}, entity)
    assert not matches({"AcquisitionDateTime": "20240131101500+0000"}, entity)


def test_no_pattern_takes_for_ever():
    """Whoever may query must not be able to keep the node busy: of each star only the nearest place is tried."""
    assert not matches({"StudyDescription": "*a" * 500 + "b"}, {"StudyDescription": "a" * 1024})
    assert not matches({"StudyDescription": "*a?" * 300 + "b"}, {"StudyDescription": "a" * 1024})
    assert not matches({"StudyDescription": "*" * 100_000 + "?" * 2000}, {"StudyDescription": "a" * 1024})
