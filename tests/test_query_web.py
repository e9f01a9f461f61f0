"""What asking archives over HTTP decides: what is asked, what an answer's status means, and whom a workitem's URL means."""

import pytest

from dicom_node.config import Remote
from dicom_node.domain import Rejected, Transient
from dicom_node.query.qido import question, refused
from dicom_node.store import Level
from dicom_node.worklist.ups.ours import can_bring, is_beneath

STUDY, SERIES = "1.2.3", "1.2.3.4"


@pytest.mark.parametrize(
    ("level", "asked", "path", "said"),
    [
        ("STUDY", {"StudyInstanceUID": "", "PatientID": "P1"}, "/studies", [("PatientID", "P1")]),
        ("STUDY", {"StudyInstanceUID": "1.2\\1.3", "StudyDate": ""}, "/studies", [("StudyInstanceUID", "1.2,1.3"), ("includefield", "StudyDate")]),
        (
            "STUDY",
            {"StudyDate": "20200101-", "PatientID": "", "ModalitiesInStudy": ""},
            "/studies",
            [("StudyDate", "20200101-"), ("includefield", "PatientID,ModalitiesInStudy")],
        ),
        ("SERIES", {"StudyInstanceUID": STUDY, "SeriesInstanceUID": "", "Modality": "CT"}, "/studies/1.2.3/series", [("Modality", "CT")]),
        (
            "IMAGE",
            {"StudyInstanceUID": STUDY, "SeriesInstanceUID": SERIES, "SOPClassUID": ""},
            "/studies/1.2.3/series/1.2.3.4/instances",
            [("includefield", "SOPClassUID")],
        ),
        (
            "IMAGE",
            {"StudyInstanceUID": STUDY, "SeriesInstanceUID": "", "SOPInstanceUID": ""},
            "/studies/1.2.3/instances",
            [("includefield", "SeriesInstanceUID")],
        ),
    ],
)
def test_a_question_is_a_resource_and_its_parameters(level: str, asked: dict[str, str], path: str, said: list[tuple[str, str]]) -> None:
    """PS3.18 10.6.1, and 8.3.4.1 for several UIDs."""
    assert question(Level(level), asked) == (path, said)


@pytest.mark.parametrize(
    ("level", "asked"),
    [
        ("PATIENT", {"PatientID": "P1"}),
        ("SERIES", {"SeriesInstanceUID": ""}),
        ("SERIES", {"StudyInstanceUID": "1.2\\1.3"}),
        ("IMAGE", {"StudyInstanceUID": "../..", "SeriesInstanceUID": ""}),
        ("IMAGE", {"StudyInstanceUID": STUDY, "SeriesInstanceUID": "1?x=1"}),
    ],
)
def test_what_is_no_question_over_http_is_refused(level: str, asked: dict[str, str]) -> None:
    with pytest.raises(Rejected, match="not asked such a question"):
        question(Level(level), asked)


@pytest.mark.parametrize(
    ("status", "error", "says"),
    [
        (401, Rejected, "not authorised"),
        (403, Rejected, "not authorised"),
        (301, Rejected, "elsewhere"),
        (308, Rejected, "elsewhere"),
        (400, Rejected, "does not take this"),
        (415, Rejected, "does not take this"),
        (501, Rejected, "does not take this"),
        (408, Transient, "408"),
        (500, Transient, "500"),
        (102, Transient, "102"),
    ],
)
def test_what_would_be_refused_again_is_told_from_what_is_tried_again(status: int, error: type[Exception], says: str) -> None:
    """PS3.18 8.5."""
    found = refused("https://archive.example/dicom-web", status, "a query")
    assert type(found) is error and says in str(found) and found.hint


@pytest.mark.parametrize(
    ("url", "is_so"),
    [
        ("https://far.example/dicom-web/studies/1.2", True),
        ("https://FAR.example:443/dicom-web/studies/1.2/series/1.3/instances/1.4", True),
        ("https://far.example./dicom-web/studies/1.2", True),
        ("http://far.example/dicom-web/studies/1.2", False),
        ("https://far.example:8443/dicom-web/studies/1.2", False),
        ("https://far.example.evil.example/dicom-web/studies/1.2", False),
        ("https://evil.example/https://far.example/dicom-web/studies/1.2", False),
        ("https://far.example@evil.example/dicom-web/studies/1.2", False),
        ("https://user:word@far.example/dicom-web/studies/1.2", False),
        ("https://far.example/dicom-web-2/studies/1.2", False),
        ("https://far.example/dicom-web/../studies/1.2", False),
        ("https://far.example/dicom-web/studies/../../admin", False),
        ("https://far.example/studies/1.2", False),
        ("https://far.example:x/dicom-web/studies/1.2", False),
        ("https://[far.example/dicom-web/studies/1.2", False),
        ("file:///dicom-web/studies/1.2", False),
        ("", False),
    ],
)
def test_a_url_means_a_remote_that_it_is_beneath(url: str, is_so: bool) -> None:
    """Nothing of a workitem is ever asked, but the services of remotes that the site names."""
    assert is_beneath(url, "https://far.example/dicom-web") is is_so
    assert is_beneath(url, "https://far.example:443/dicom-web/") is is_so


def test_only_remotes_that_are_fetched_from_can_bring_something() -> None:
    said = {"ae": "FAR@10.0.4.12:104", "web_url": "https://far.example/dicom-web"}
    url = "https://far.example/dicom-web/studies/1.2"
    for retrieve, is_so in (("none", False), ("get", True), ("web", True)):
        far = Remote.model_validate({**said, "retrieve": retrieve})
        assert can_bring(far, ["FAR"], []) is can_bring(far, (), [url]) is is_so
        assert not can_bring(far, ["NEAR"], ["https://near.example/studies/1.2"])
