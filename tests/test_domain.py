"""The nouns cannot be wrong once built."""

import dataclasses
import inspect
import re

import pytest

from dicom_node import domain
from dicom_node.domain import (
    AE,
    DELIVERY_TRANSITIONS,
    HEADER_KEYWORDS,
    JOB_TRANSITIONS,
    DeliveryState,
    Instance,
    JobState,
    NodeError,
    Series,
    Study,
    derived_uid,
    is_ae_title,
    is_uid,
    job_identity,
)


def instance(number, *, uid="", series="1.2.1", digest="", **header):
    """Return an instance with a header of one's own."""
    return Instance(
        sop_instance_uid=uid or f"1.2.1.{number}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        study_instance_uid="1.2",
        series_instance_uid=series,
        path=f"instances/{number}.dcm",
        size_bytes=1,
        digest=digest or f"{number}",
        calling_ae="CT",
        received_at=0.0,
        header={"InstanceNumber": number} | header,
    )


@pytest.mark.parametrize("text", ["1", "0.0", "1.2.840.10008.1.1", "2.25." + "9" * 38, "1." * 31 + "12"])
def test_a_uid_is_digits_and_dots_of_at_most_64_characters(text):
    """PS3.5 §9.1."""
    assert is_uid(text)


@pytest.mark.parametrize("text", ["", ".", "1.", ".1", "1..2", "01.2", "1.02", "1.2a", "1.2\n", "1.2 ", "../1", "1." * 32 + "1", "１.2"])
def test_what_is_no_uid(text):
    """PS3.5 §9.1: no empty component, no leading zero, nothing else; and no path."""
    assert not is_uid(text)


def test_a_derived_uid_is_the_same_always_and_everywhere():
    """PS3.5 B.2: a UUID as an integer below 2.25. This very UID is in archives."""
    assert derived_uid("segmentation", 1) == "2.25.333313381987858808920806889878229052070"
    assert derived_uid("segmentation", 1) != derived_uid("segmentation", 2)
    assert derived_uid("ab", "c") != derived_uid("a", "bc")


def test_an_address_is_written_as_it_is_read():
    """TITLE@host:port, IPv6 in brackets."""
    assert AE.parse("CT_ER@10.0.4.21:104") == AE("CT_ER", "10.0.4.21", 104)
    assert AE.parse("PACS@[::1]:11112") == AE("PACS", "::1", 11112)
    assert str(AE.parse("PACS@[::1]:11112")) == "PACS@[::1]:11112"
    assert AE.parse(" TWO WORDS @host:1").title == "TWO WORDS"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("PACS", "not TITLE@host:port"),
        ("PACS@host", "not TITLE@host:port"),
        ("PACS@:104", "not TITLE@host:port"),
        ("PACS@[]:104", "'[]' is not a host"),
        ("@host:104", "'' is not an AE title"),
        ("SEVENTEEN_LETTERS@host:104", "'SEVENTEEN_LETTERS' is not an AE title"),
        ("A\\B@host:104", "is not an AE title"),
        ("PACS@host:0", "'0' is not a port"),
        ("PACS@host:65536", "'65536' is not a port"),
        ("PACS@host:dicom", "'dicom' is not a port"),
        ("PACS@ho st:104", "'ho st' is not a host"),
    ],
)
def test_an_address_that_is_none_says_which_part_is_wrong(text, said):
    """The message stands in front of whoever wrote the configuration."""
    with pytest.raises(ValueError, match=re.escape(said)):
        AE.parse(text)


def test_an_ae_title_has_up_to_16_characters_and_not_only_spaces():
    """PS3.5 Table 6.2-1, AE."""
    assert all(map(is_ae_title, ["A", "SIXTEEN_LETTERS_", "WITH SPACE"]))
    assert not any(map(is_ae_title, ["", " ", "   ", "A\\B", "A\n", "Ä", "SEVENTEEN_LETTERS"]))


def test_a_series_header_is_what_its_images_have_in_common():
    """Of each keyword the most frequent value, of a tie the first in order of InstanceNumber."""
    series = Study(
        study_instance_uid="1.2",
        instances=(instance(3, KVP=120, Manufacturer="B"), instance(1, KVP=100, Manufacturer="A"), instance(2, KVP=120)),
    ).series[0]
    assert [one.header["InstanceNumber"] for one in series.instances] == [1, 2, 3]
    assert (series.header["KVP"], series.header["Manufacturer"]) == (120, "A")
    assert "PatientName" not in series.header


def test_a_study_has_its_series_by_number():
    """SeriesNumber, then UID; a series without one comes last."""
    found = Study(
        study_instance_uid="1.2",
        instances=(instance(1, series="1.9"), instance(2, series="1.3", SeriesNumber=10), instance(3, series="1.4", SeriesNumber=2)),
        more={"1.4": {"StationName": "CT1"}},
    ).series
    assert [one.series_instance_uid for one in found] == ["1.4", "1.3", "1.9"]
    assert found[0].header["StationName"] == "CT1"


def test_two_patients_in_one_study_are_seen():
    """The identity is PatientID with its issuer; a missing one is an identity too."""
    same = (instance(1, PatientID="A"), instance(2, PatientID="A"))
    assert len(Study(study_instance_uid="1.2", instances=same).patients) == 1
    assert len(Study(study_instance_uid="1.2", instances=(*same, instance(3, PatientID="A", IssuerOfPatientID="X"))).patients) == 2
    assert len(Study(study_instance_uid="1.2", instances=(*same, instance(3))).patients) == 2


@pytest.mark.parametrize(
    ("header", "derived"),
    [
        ({"Modality": "CT", "ImageType": ["ORIGINAL", "PRIMARY"]}, False),
        ({"Modality": "CT", "ImageType": ["DERIVED", "SECONDARY"]}, True),
        ({"Modality": "CT", "ImageType": "DERIVED"}, True),
        ({"Modality": "SEG", "ImageType": ["ORIGINAL", "PRIMARY"]}, True),
        ({"Modality": "SR"}, True),
        ({"Modality": "CT"}, False),
    ],
)
def test_what_was_made_from_images_is_derived(header, derived):
    """The loop guard: the node's own results do not start an analysis."""
    assert Series(series_instance_uid="1", instances=(instance(1, **header),)).derived is derived


def test_an_analysis_is_named_by_what_it_is_of():
    """Content, build and repeat; not the order of arrival, nor which row or file."""
    one, two = instance(1), instance(2)
    name = job_identity({"ct": [one, two]}, "1.2.3")
    assert name == job_identity({"ct": [dataclasses.replace(two, id=9, path="elsewhere", received_at=5.0), one]}, "1.2.3")
    others = [
        job_identity({"mr": [one, two]}, "1.2.3"),
        job_identity({"ct": [one]}, "1.2.3"),
        job_identity({"ct": [one, two]}, "1.2.4"),
        job_identity({"ct": [one, two]}, "1.2.3", repeat=1),
        job_identity({"ct": [one, dataclasses.replace(two, digest="other")]}, "1.2.3"),
        job_identity({"ct": [one], "prior": [two]}, "1.2.3"),
    ]
    assert len({name, *others}) == 7


@pytest.mark.parametrize("table", [JOB_TRANSITIONS, DELIVERY_TRANSITIONS])
def test_every_state_is_in_its_table_and_can_be_reached(table):
    """A state is a line in a table."""
    states = type(next(iter(table)))
    assert set(table) == set(states)
    first = next(iter(states))
    reached = {first}
    for _ in states:
        reached |= {to for state in reached for to in table[state]}
    assert reached == set(states)


def test_a_job_ends_for_good_and_a_delivery_only_when_it_arrived():
    """PS3.4 Table CC.1.1-2: COMPLETED and CANCELED are final."""
    assert {state for state, to in JOB_TRANSITIONS.items() if not to} == {JobState.COMPLETED, JobState.CANCELED}
    assert {state for state, to in DELIVERY_TRANSITIONS.items() if not to} == {DeliveryState.COMMITTED}


def test_the_tree_of_errors_is_the_one_drawn():
    """Each error says when it is raised, and has a hint."""
    for _, error in inspect.getmembers(domain, inspect.isclass):
        if issubclass(error, NodeError):
            assert error.__name__ in domain.__doc__
            assert error.__doc__.startswith("Raised ") or error is NodeError
    assert NodeError("what", hint="do").hint == "do"
    assert domain.Refused("no", status=0xA700).status == 0xA700


def test_header_keywords_are_each_once():
    """What the ledger keeps of each instance."""
    assert len(set(HEADER_KEYWORDS)) == len(HEADER_KEYWORDS)
