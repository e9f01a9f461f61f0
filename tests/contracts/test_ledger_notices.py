"""Notifications of availability in the ledger: each once, told to its study, and weighed against what is here."""

import pytest

from dicom_node.domain import Availability, Available, Notification, Refused
from dicom_node.store import Topic, notices
from tests.contracts.arrange import NOW, STUDY, arrive, finished, last


def said(uid="1.2.7", *instances, study=STUDY, how=Availability.ONLINE):
    named = tuple(Available(sop_instance_uid=one, availability=how, retrieve_aes=("PACS",)) for one in instances)
    return Notification(sop_instance_uid=uid, study_instance_uid=study, series={f"{study}.1": named})


def test_a_notification_is_kept_once(store):
    """PS3.7 10.1.5: a second N-CREATE of one instance is a duplicate."""
    ear = store.bell.listen(Topic.STUDIES)
    assert store.notices.record(said("1.2.7", "1.1", "1.2"), "RIS", now=NOW)
    assert ear.wait(10.0)
    ear.close()
    assert not store.notices.record(said("1.2.7", "1.3"), "RIS", now=NOW)
    (notice,) = store.notices.of_study(STUDY)
    assert (notice.instances, notice.at) == ({"1.1", "1.2"}, NOW)
    assert last(store, "notice") == ("RIS", "2 instances are said to be available, or not")


def test_the_last_word_of_several_notifications_counts(store):
    """By the order in which they came."""
    store.notices.record(said("1.2.9", "1.1", "1.2"), "RIS", now=NOW)
    store.notices.record(said("1.2.8", "1.1", how=Availability.UNAVAILABLE), "RIS", now=NOW + 1)
    (notice,) = store.notices.of_study(STUDY)
    assert notice.instances == {"1.2"}


def test_what_the_node_has_or_made_is_not_absent(store):
    """An archive that tells of the node's own results makes it wait for nothing."""
    arrive(store, 7)
    job = finished(store)
    (made, *_) = store.jobs.results(job.id)
    assert store.notices.absent(STUDY, [f"{STUDY}.1.7", made.sop_instance_uid, "1.1"]) == {"1.1"}
    store.notices.record(said("1.2.7", made.sop_instance_uid), "RIS", now=NOW)
    assert store.notices.of_study(STUDY) == ()


def test_notifications_of_one_study_are_bounded(store, monkeypatch):
    """A peer is not to fill the ledger."""
    monkeypatch.setattr(notices, "_MOST", 1)
    store.notices.record(said("1.2.7", "1.1"), "RIS", now=NOW)
    with pytest.raises(Refused) as refused:
        store.notices.record(said("1.2.8", "1.1"), "RIS", now=NOW)
    assert refused.value.status == 0x0213


def test_a_notification_whose_study_never_came_does_not_stay_for_ever(store):
    """It is forgotten when another comes, a month later; that of a study that is here goes with it."""
    arrive(store)
    store.notices.record(said("1.2.6", "1.1"), "RIS", now=NOW)
    store.notices.record(said("1.2.7", "2.1", study=f"{STUDY}.2"), "RIS", now=NOW)
    store.notices.record(said("1.2.8", "3.1", study=f"{STUDY}.3"), "RIS", now=NOW + 31 * 86400)
    assert store.notices.of_study(f"{STUDY}.2") == ()
    assert store.notices.of_study(STUDY)
    store.studies.purge(STUDY, who="clock", why="old", now=NOW)
    assert store.notices.of_study(STUDY) == ()
