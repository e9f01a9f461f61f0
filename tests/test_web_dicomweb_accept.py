"""What a client accepts, compared with what there is: no server, no socket."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.web.dicomweb.accept import Choice, MediaType, choices, negotiate, ranges

JSON, PLAIN_JSON = MediaType(name="application/dicom+json"), MediaType(name="application/json")
XML = MediaType(name="application/dicom+xml", multipart=True)
DICOM, ONE_DICOM = MediaType(name="application/dicom", multipart=True), MediaType(name="application/dicom")
METADATA = (JSON, PLAIN_JSON, XML)


@pytest.mark.parametrize(
    ("header", "query", "expected"),
    [
        (None, None, JSON),
        ("", None, JSON),
        ("*/*", None, JSON),
        ("application/*", None, JSON),
        ("application/json", None, PLAIN_JSON),
        ("APPLICATION/DICOM+JSON", None, JSON),
        ("application/dicom+json, application/json", None, JSON),
        ("application/json;q=0.5, application/dicom+json;q=0.7", None, JSON),
        ('multipart/related; type="application/dicom+xml"', None, XML),
        ("multipart/related; type=application/dicom+xml", None, XML),
        ('multipart/related;type="application/dicom+xml";q=0.9, application/dicom+json;q=.1', None, XML),
        ("multipart/related", None, XML),
        ('multipart/related; type="*/*"', None, XML),
        ("application/dicom+xml", None, None),
        ("text/html", None, None),
        ("text/html, */*;q=0.1", None, JSON),
        ("application/dicom+json;q=0, */*", None, PLAIN_JSON),
        ("text/html", "application/dicom+json", JSON),
        ("text/html", "application/dicom json", JSON),  # a plus sign in a query is a space
        ("application/dicom+json", "text/html", None),
        ("nonsense", None, None),
        ("application/dicom+json; q=many", None, None),
        (',,;";', None, None),
    ],
)
def test_the_best_of_what_is_offered_is_chosen(header: str | None, query: str | None, expected: MediaType | None) -> None:
    """PS3.18 8.7.4 and 8.3.3.1, RFC 9110 12.5.1."""
    assert negotiate(header, query, METADATA) == expected


def test_transfer_syntaxes_are_alternatives_of_one_media_type() -> None:
    """PS3.18 8.7.3.5.2: quoted or not, `*` for any, and by their quality."""
    header = (
        'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.4.90;q=0.5, '
        'multipart/related; type=application/dicom; transfer-syntax="*", application/dicom;q=0.1'
    )
    assert choices(header, None, (DICOM, ONE_DICOM)) == (
        Choice(media_type=DICOM, transfer_syntax_uid="*"),
        Choice(media_type=DICOM, transfer_syntax_uid="1.2.840.10008.1.2.4.90"),
        Choice(media_type=ONE_DICOM),
    )
    assert choices("application/dicom; transfer-syntax=none", None, (ONE_DICOM,)) == ()


@given(st.text(alphabet=st.sampled_from('aq/*;,="\\ .01-+multipart') | st.characters(), max_size=200))
def test_whatever_is_said_is_read(text: str) -> None:
    for one in ranges(text):
        assert 0 <= one.quality <= 1
    assert negotiate(text, None, METADATA) in (None, *METADATA)
