"""The reader of many headers: it says what the reader of one says, whatever comes one after another."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.domain import Refused
from dicom_node.receive import series as series_module
from dicom_node.receive.header import checked_header
from dicom_node.receive.series import SeriesReader
from tests import phantoms
from tests.properties.test_header_laws import damaged
from tests.test_receive import written

SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]


def images(count=6, **more):
    return phantoms.series(phantoms.marked((count, 2, 2), (0, 0, 0)), **more)


def alone(data, uid):
    """Return what one header's reader says: a header, or why not."""
    try:
        return checked_header(data, uid, beginning=True)
    except Refused as refusal:
        return refusal.status, str(refusal)


def after_others(reader, data, uid):
    try:
        return reader.read(data, uid)
    except Refused as refusal:
        return refusal.status, str(refusal)


@pytest.mark.parametrize("uid", SYNTAXES)
def test_images_of_a_series_are_read_as_each_alone(uid):
    """Instance UIDs, numbers and positions differ; an element that is there or not, and a longer value, make another layout."""
    reader = SeriesReader()
    for changed in (
        {},
        {"PatientName": "Another^Name"},
        {"SeriesDescription": ""},
        {"SpecificCharacterSet": "ISO_IR 192", "PatientName": "Grüße"},
        {},
    ):
        for image in images(**changed):
            assert reader.read(written(image, uid), uid) == alone(written(image, uid), uid)


def test_another_character_set_of_the_same_length_changes_what_names_say():
    """(0008,0005) rules how the others are read: PS3.3 C.12.1.1.2."""
    reader, names = SeriesReader(), []
    for charset in ("ISO_IR 100", "ISO_IR 101"):
        [image] = images(1, SpecificCharacterSet="ISO_IR 100")
        data = (
            written(image, ExplicitVRLittleEndian)
            .replace(str(image.PatientName).encode()[:4], b"\xa3\xa3\xa3\xa3")
            .replace(b"ISO_IR 100", charset.encode())
        )
        assert reader.read(data, ExplicitVRLittleEndian) == alone(data, ExplicitVRLittleEndian)
        names.append(reader.read(data, ExplicitVRLittleEndian)["PatientName"])
    assert names[0] != names[1]


def test_a_uid_that_is_none_is_refused_after_good_ones_too():
    """C002, though it lies where the last one's was."""
    reader = SeriesReader()
    [image] = images(1)
    good = written(image, ExplicitVRLittleEndian)
    bad = good.replace(str(image.StudyInstanceUID).encode(), b"x" * len(image.StudyInstanceUID))
    for data in (good, bad, good):
        assert after_others(reader, data, ExplicitVRLittleEndian) == alone(data, ExplicitVRLittleEndian)


def test_values_of_ever_other_lengths_are_read_without_layouts(monkeypatch):
    """Where each image is laid out in its own way, remembering costs more than it saves."""
    made = []
    monkeypatch.setattr(series_module, "_Layout", lambda *of: made.append(of) or layout(*of))
    reader = SeriesReader()
    for number in range(150):
        [image] = images(1, SeriesDescription="x" * 2 * (number % 30), StudyDescription="x" * 2 * (number // 30))
        data = written(image, ExplicitVRLittleEndian)
        assert reader.read(data, ExplicitVRLittleEndian) == alone(data, ExplicitVRLittleEndian)
    assert len(made) < 20


layout = series_module._Layout


@given(st.lists(damaged(), min_size=2, max_size=4), st.data())
@settings(max_examples=150, deadline=None)
def test_whatever_comes_one_after_another_is_read_as_each_alone(cases, data):
    """Also bytes changed in place, so that heads stay what they were and values do not."""
    reader = SeriesReader()
    for case, uid in cases:
        for _ in range(3):
            changed = bytearray(case)
            for _ in range(data.draw(st.integers(0, 3))):
                if changed:
                    changed[data.draw(st.integers(0, min(len(changed), 3000) - 1))] = data.draw(st.integers(0, 255))
            assert after_others(reader, bytes(changed), uid) == alone(bytes(changed), uid)
