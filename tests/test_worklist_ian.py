"""What a notification may say, with which status it is refused, and which remotes are asked for what it names."""

import pytest
from pydicom import Dataset
from pydicom.config import disable_value_validation

from dicom_node.config import NodeConfig
from dicom_node.domain import Availability, Refused, standing
from dicom_node.worklist.ian import noticed, sources
from tests.notified import available

STUDY, UID = "1.2.3", "1.2.3.9"


def test_a_notification_says_of_each_instance_where_it_is() -> None:
    """PS3.4 Table R.3.2-1; Retrieve AE Title may have several values."""
    said = noticed(UID, available(STUDY, {"1.2.3.1": ["1.2.3.1.1"], "1.2.3.2": ["1.2.3.2.1"]}, how="NEARLINE", titles=["PACS", "VNA"]))
    assert (said.sop_instance_uid, said.study_instance_uid, list(said.series)) == (UID, STUDY, ["1.2.3.1", "1.2.3.2"])
    assert [(one.sop_instance_uid, one.availability, one.retrieve_aes) for one in said.instances] == [
        ("1.2.3.1.1", Availability.NEARLINE, ("PACS", "VNA")),
        ("1.2.3.2.1", Availability.NEARLINE, ("PACS", "VNA")),
    ]


def at(attributes: Dataset, place: str) -> Dataset:
    """Return the study, its series or its instance."""
    found = {"study": attributes, "series": attributes.ReferencedSeriesSequence[0]}
    return found.get(place) or found["series"].ReferencedSOPSequence[0]


@pytest.mark.parametrize(
    ("place", "keyword"),
    [
        ("study", "StudyInstanceUID"),
        ("study", "ReferencedSeriesSequence"),
        ("series", "SeriesInstanceUID"),
        ("series", "ReferencedSOPSequence"),
        ("instance", "ReferencedSOPClassUID"),
        ("instance", "ReferencedSOPInstanceUID"),
        ("instance", "InstanceAvailability"),
        ("instance", "RetrieveAETitle"),
    ],
)
def test_what_a_notification_must_have_and_lacks_is_told(place: str, keyword: str) -> None:
    """PS3.7 10.1.5.1.6: 0120 for what is missing, 0121 for what is empty."""
    for empty, status in ((False, 0x0120), (True, 0x0121)):
        attributes = available(STUDY, {"1.2.3.1": ["1.2.3.1.1"]})
        if empty:
            setattr(at(attributes, place), keyword, [] if keyword.endswith("Sequence") else "")
        else:
            delattr(at(attributes, place), keyword)
        with pytest.raises(Refused) as refused:
            noticed(UID, attributes)
        assert refused.value.status == status


@pytest.mark.parametrize(
    ("keyword", "wrong"),
    [
        ("ReferencedSOPInstanceUID", "no uid"),
        ("InstanceAvailability", "SOMEWHERE"),
        ("RetrieveAETitle", "A TITLE THAT IS TOO LONG"),
        ("RetrieveAETitle", ["A"] * 17),
    ],
)
def test_a_value_that_is_wrong_is_refused(keyword: str, wrong: str | list[str]) -> None:
    """0106; nothing of the notification is kept."""
    attributes = available(STUDY, {"1.2.3.1": ["1.2.3.1.1"]})
    delattr(at(attributes, "instance"), keyword)
    with disable_value_validation():
        setattr(at(attributes, "instance"), keyword, wrong)
    with pytest.raises(Refused) as refused:
        noticed(UID, attributes)
    assert refused.value.status == 0x0106


def test_a_notification_of_more_than_is_kept_is_refused() -> None:
    """A peer is not to fill the ledger with one message."""
    with pytest.raises(Refused) as refused:
        noticed(UID, available(STUDY, {f"1.2.3.{number}": [f"1.2.3.{number}.1"] for number in range(2001)}))
    assert refused.value.status == 0x0213


def test_the_last_word_on_an_instance_counts() -> None:
    """What has become UNAVAILABLE is not waited for; nor is what the node made itself."""
    first = noticed("1.1", available(STUDY, {"1.2.3.1": ["1.2.3.1.1", "1.2.3.1.2", "1.2.3.1.3"]}))
    later = noticed("1.2", available(STUDY, {"1.2.3.1": ["1.2.3.1.2"]}, how="UNAVAILABLE"))
    (notice,) = standing([first, later], ours={"1.2.3.1.3"})
    assert notice.instances == {"1.2.3.1.1"}
    assert standing([later]) == standing([]) == ()


@pytest.mark.parametrize(
    ("how", "titles", "expected"),
    [
        ("ONLINE", "PACS", {"pacs": 1}),
        ("NEARLINE", ["ELSEWHERE", "VNA"], {"vna": 1}),
        ("ONLINE", ["VNA", "PACS"], {"vna": 1}),
        ("OFFLINE", "PACS", {}),
        ("UNAVAILABLE", "PACS", {}),
        ("ONLINE", "TAPE", {}),
        ("ONLINE", "CT", {}),
        ("ONLINE", "NOBODY", {}),
    ],
)
def test_what_is_not_here_is_fetched_from_the_remote_that_has_it(how: str, titles: str | list[str], expected: dict[str, int]) -> None:
    """Only where the site wants it, only what is at hand, and only what is absent."""
    remotes = {
        "pacs": {"ae": "PACS@h:104", "may": ["send"], "retrieve": "move", "fetch_notified": True},
        "vna": {"ae": "VNA@h:104", "retrieve": "get", "fetch_notified": True},
        "tape": {"ae": "TAPE@h:104", "may": ["send"], "retrieve": "move"},
        "ct": {"ae": "CT@h:104"},
    }
    config = NodeConfig.model_validate({"remotes": remotes})
    said = noticed(UID, available(STUDY, {"1.2.3.1": ["1.2.3.1.1", "1.2.3.1.2"]}, how=how, titles=titles))
    assert sources(said, {"1.2.3.1.2"}, config.remotes) == expected
    assert sources(said, set(), config.remotes) == {}
