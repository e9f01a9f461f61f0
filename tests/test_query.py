"""What an identifier asks for, what is refused, and what answers it; which contexts sub-operations propose, and how they add up."""

from dataclasses import dataclass, replace
from io import BytesIO

import pytest
from pydicom import Dataset
from pynetdicom.dsutils import decode, encode

from dicom_node.query import identifier
from dicom_node.query.identifier import PATIENT_ROOT, STUDY_ROOT, Encoding, Query, Refusal
from dicom_node.query.suboperations import Outcome, Tally, choose, contexts, shares
from dicom_node.store import Level

IMPLICIT, EXPLICIT, BIG = Encoding(implicit=True), Encoding(implicit=False), Encoding(implicit=False, little=False)
CT, LITTLE, JPEG, JPEG_LOSSLESS = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.70"


@dataclass(frozen=True)
class Here:
    """An instance that the node holds."""

    sop_instance_uid: str = "1.2.3"
    sop_class_uid: str = CT
    transfer_syntax_uid: str = LITTLE
    study_instance_uid: str = "1.2"
    path: str = ""


def asked(**values: object) -> Dataset:
    """Return an identifier."""
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.mark.parametrize(
    ("levels", "said", "fits"),
    [
        (STUDY_ROOT, {}, False),
        (STUDY_ROOT, {"QueryRetrieveLevel": "PATIENT"}, False),
        (PATIENT_ROOT, {"QueryRetrieveLevel": "PATIENT"}, True),
        (PATIENT_ROOT, {"QueryRetrieveLevel": "FRAME"}, False),
        (PATIENT_ROOT, {"QueryRetrieveLevel": "STUDY"}, False),
        (PATIENT_ROOT, {"QueryRetrieveLevel": "STUDY", "PatientID": "4*"}, False),
        (PATIENT_ROOT, {"QueryRetrieveLevel": "STUDY", "PatientID": "47"}, True),
        (STUDY_ROOT, {"QueryRetrieveLevel": "STUDY"}, True),
        (STUDY_ROOT, {"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": ["1.2", "1.3"]}, False),
        (STUDY_ROOT, {"QueryRetrieveLevel": "IMAGE", "StudyInstanceUID": "1.2"}, False),
        (STUDY_ROOT, {"QueryRetrieveLevel": "IMAGE", "StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.1"}, True),
    ],
)
def test_a_query_names_its_level_and_one_thing_of_each_level_above(levels: tuple[Level, ...], said: dict[str, object], fits: bool) -> None:
    """PS3.4 C.4.1.2.1, hierarchical search; PS3.4 Table C.4-1: A900."""
    read = identifier.query(asked(**said), levels)
    assert isinstance(read, Query) if fits else isinstance(read, Refusal) and read.status == 0xA900


def test_a_relational_query_needs_no_key_of_a_higher_level() -> None:
    """PS3.4 C.4.1.2.2."""
    read = identifier.query(asked(QueryRetrieveLevel="IMAGE", Modality="CT"), STUDY_ROOT, relational=True)
    assert isinstance(read, Query)
    assert read.keys == {"Modality": "CT"}


@pytest.mark.parametrize(
    ("said", "keys"),
    [
        ({"QueryRetrieveLevel": "STUDY"}, None),
        ({"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": ""}, None),
        ({"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": ["1.2", "1.3"], "Modality": "CT"}, {"StudyInstanceUID": "1.2\\1.3"}),
        ({"QueryRetrieveLevel": "SERIES", "SeriesInstanceUID": "1.2.1"}, None),
    ],
)
def test_a_retrieval_says_by_unique_keys_what_is_wanted(said: dict[str, object], keys: dict[str, str] | None) -> None:
    """PS3.4 C.4.2.1.4.1."""
    read = identifier.retrieval(asked(**said), STUDY_ROOT)
    assert (read.keys if isinstance(read, Query) else None) == keys


@pytest.mark.parametrize("encoding", [IMPLICIT, EXPLICIT, BIG])
def test_a_response_has_the_keys_that_were_asked_for_in_the_context_s_own_encoding(encoding: Encoding) -> None:
    """PS3.4 C.4.1.1.3.2: level, retrieve AE, every supported key, a character set where it is needed; FF01 where one is not supported."""
    query = asked(QueryRetrieveLevel="STUDY", PatientName="", StudyDate="20240101-", ModalitiesInStudy="", Rows=None, PatientComments="")
    raw = encode(query, encoding.implicit, encoding.little)
    assert raw is not None
    again = identifier.read(raw, encoding)
    assert isinstance(again, Dataset)
    read = identifier.query(again, STUDY_ROOT)
    assert isinstance(read, Query)
    found = {"PatientName": "Müller^Jörg", "StudyDate": "20240203", "ModalitiesInStudy": ["CT", "SEG"], "Rows": 512}
    data, supported = identifier.response(read, found, "NODE", encoding)
    answer = decode(BytesIO(data), encoding.implicit, encoding.little)
    assert not supported
    assert "PatientComments" not in answer
    assert answer.SpecificCharacterSet == "ISO_IR 192"
    assert (answer.QueryRetrieveLevel, answer.RetrieveAETitle, answer.PatientName) == ("STUDY", "NODE", "Müller^Jörg")
    assert (answer.StudyDate, list(answer.ModalitiesInStudy), answer.Rows) == ("20240203", ["CT", "SEG"], 512)


def test_a_key_in_simplified_chinese_loses_its_escape_sequence() -> None:
    """ISO 2022 IR 58 (PS3.5 Annex K)."""
    query = asked(QueryRetrieveLevel="STUDY", SpecificCharacterSet=["", "ISO 2022 IR 58"], PatientName="NAME")
    raw = encode(query, True, True)
    assert raw is not None
    read = identifier.read(raw.replace(b"\x04\0\0\0NAME", b"\x08\0\0\0\x1b$)A\xcd\xf5* "), IMPLICIT)
    assert isinstance(read, Dataset)
    found = identifier.query(read, STUDY_ROOT)
    assert isinstance(found, Query)
    assert found.keys == {"PatientName": "王*"}


@pytest.mark.parametrize("raw", [b"\x08", b"\x08\x00\x52\x00CS\xff\xffX", b"x" * 40])
def test_what_is_no_data_set_is_refused(raw: bytes) -> None:
    """Peers are never trusted."""
    read = identifier.read(raw, EXPLICIT)
    assert isinstance(read, Refusal) or isinstance(identifier.query(read, STUDY_ROOT), Refusal)


def test_an_instance_goes_out_as_it_lies_or_uncompressed_if_it_is() -> None:
    """A lossy image never becomes another one; what was compressed without loss is decoded for those who do not take it so."""
    assert [syntax for _, syntax in contexts(Here())] == [LITTLE, "1.2.840.10008.1.2"]
    assert [syntax for _, syntax in contexts(Here(transfer_syntax_uid=JPEG))] == [JPEG]
    assert [syntax for _, syntax in contexts(Here(transfer_syntax_uid=JPEG_LOSSLESS))] == [JPEG_LOSSLESS, LITTLE, "1.2.840.10008.1.2"]
    assert choose(Here(transfer_syntax_uid=JPEG_LOSSLESS), {(CT, LITTLE)}) == LITTLE
    assert choose(Here(), {(CT, "1.2.840.10008.1.2")}) == "1.2.840.10008.1.2"
    assert choose(Here(transfer_syntax_uid=JPEG), {(CT, LITTLE)}) is None


def test_more_contexts_than_one_association_takes_are_parted() -> None:
    """PS3.8 9.3.2.2: 128 of them."""
    many = [Here(sop_class_uid=f"1.2.3.{number}") for number in range(100)]
    parts = list(shares(many))
    assert [len(part.instances) for part in parts] == [64, 36]
    assert all(len(part.contexts) <= 128 for part in parts)


def test_the_last_response_says_whether_all_some_or_none_were_stored() -> None:
    """PS3.4 Table C.4-2."""
    stored, warned, failed = (Outcome(of=Here(), status=status) for status in (0x0000, 0xB000, 0xA700))
    for outcomes, status in (([stored], 0x0000), ([stored, warned], 0xB000), ([stored, failed], 0xB000), ([failed], 0xA702), ([], 0x0000)):
        tally = Tally(remaining=len(outcomes))
        for one in outcomes:
            tally.count(one)
        assert (tally.final(), tally.remaining) == (status, 0)
    assert replace(failed, status=None).warns is False
