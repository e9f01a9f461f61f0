"""Laws of the worklist room: whatever a peer says is answered or refused, and an answer has the keys that were asked for."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.config import disable_value_validation
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement

from dicom_node.domain import Order, Refused
from dicom_node.worklist.ian import noticed
from dicom_node.worklist.mwl import STEP, asked, entries, plain
from dicom_node.worklist.requests import read
from tests.worklists import entry

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom remarks on odd values, which the node does not let it print

WORDS = st.text("AB1*?^\\-=. é\n", max_size=70) | st.none()
TEXTS = ("PatientName", "PatientID", "AccessionNumber", "RequestedProcedureID", "StudyInstanceUID", "PatientComments", "KVP", "ProtocolName")
OF_STEP = ("Modality", "ScheduledStationAETitle", "ScheduledProcedureStepStartDate", "ScheduledProcedureStepStartTime", "SliceThickness")
OF_NOTICE = ("StudyInstanceUID", "SeriesInstanceUID", "ReferencedSOPClassUID", "ReferencedSOPInstanceUID", "InstanceAvailability", "RetrieveAETitle")


def built(keywords: tuple[str, ...], **sequences: st.SearchStrategy[list[Dataset]]) -> st.SearchStrategy[Dataset]:
    """Return data sets that hold some of these attributes, each with any text."""
    texts = st.dictionaries(st.sampled_from(keywords), WORDS, max_size=len(keywords))
    return st.builds(_dataset, texts, st.fixed_dictionaries({}, optional=sequences))


def _dataset(texts: dict[str, Any], sequences: dict[str, list[Dataset]]) -> Dataset:
    one = Dataset()
    with disable_value_validation():
        for keyword, value in texts.items():
            tag = tag_for_keyword(keyword)
            assert tag is not None
            vr = dictionary_VR(tag)
            one[tag] = DataElement(tag, vr, value if vr != "DS" else None, already_converted=vr != "PN")
    for keyword, items in sequences.items():
        setattr(one, keyword, items)
    return one


identifiers = built(TEXTS, **{STEP: st.lists(built(OF_STEP), max_size=2)})
references = st.lists(built(OF_NOTICE), max_size=2)
notifications = built(OF_NOTICE, ReferencedSeriesSequence=st.lists(built(OF_NOTICE, ReferencedSOPSequence=references), max_size=2))


@given(identifiers)
def test_an_identifier_is_answered_or_refused(identifier: Dataset) -> None:
    """PS3.4 K.4.1.1.3.2: an answer has each key that was asked for, or says by its status that it does not."""
    (one,) = entries(entry())
    try:
        wanted = asked(identifier)
    except Refused as refused:
        assert refused.status == 0xA900
        return
    assert wanted.matches(one.attributes) in (True, False)
    answer, whole = wanted.answer(one)
    keys, given_back = set(plain(identifier)), set(plain(answer)) - {"SpecificCharacterSet"}
    assert given_back <= keys
    step = plain(answer).get(STEP) or [{}]
    inner = (plain(identifier).get(STEP) or [{}])[0]
    assert whole == (given_back == keys and (not inner or set(step[0]) == set(inner)))


@given(notifications)
def test_a_notification_is_taken_or_refused(attributes: Dataset) -> None:
    """With a status of PS3.7 Annex C; nothing else leaves the decision."""
    try:
        said = noticed("1.2.3", attributes)
    except Refused as refused:
        assert refused.status in (0x0106, 0x0120, 0x0121, 0x0213)
        return
    assert all(one.retrieve_aes for one in said.instances)


@given(identifiers)
def test_what_a_ris_says_becomes_an_order_or_nothing(answer: Dataset) -> None:
    """An order never has a value that its VR would not allow."""
    found = read(answer)
    if found is not None:
        assert isinstance(found.order, Order)
        assert len(found.order.accession_number) <= 16
        assert found.order.accession_number.isprintable()
        assert found.order.accession_number or found.order.requested_procedure_id
