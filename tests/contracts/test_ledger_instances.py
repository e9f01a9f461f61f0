"""Instances in the ledger: what `record` acknowledged is there, once, whatever happens around it."""

import threading
from dataclasses import replace

import pytest
from sqlalchemy import text

from dicom_node.domain import StudyState, Transient
from dicom_node.store import Recorded, Store
from dicom_node.store.intake import record_group
from tests.contracts.arrange import NOW, STUDY, arrive, kinds, last, written


def test_a_new_instance_is_current_in_its_study_and_lies_in_its_place(store):
    """Success means: bytes flushed, row committed."""
    assert arrive(store, 1) is Recorded.NEW
    study = store.studies.view(STUDY)
    [instance] = study.instances
    assert store.archive.path(instance.path).read_bytes() == f"pixels of {STUDY} 1".encode()
    assert instance.path.startswith("instances/2027/01/15/")
    assert list(store.archive.incoming.iterdir()) == []
    assert (instance.version, instance.header["PatientID"], study.changes) == (1, "MARKED", 1)
    assert kinds(store) == ["first instance"]


def test_an_identical_instance_makes_no_new_work(store):
    """A sender that lost our answer sends again; it is told Success and nothing else happens."""
    arrive(store, 1)
    before = store.studies.view(STUDY)
    assert arrive(store, 1) is Recorded.IDENTICAL
    assert store.studies.view(STUDY) == before
    assert list(store.archive.incoming.iterdir()) == []
    assert store.instances.holds(STUDY, f"{STUDY}.1.1", before.instances[0].digest)
    assert not store.instances.holds(STUDY, f"{STUDY}.1.1", "0" * 64)


def test_other_content_under_a_known_uid_is_kept_beside_it_and_is_current(store):
    """The default policy for a UID that comes with other content: both versions are kept, the newest is current, and it is on record."""
    arrive(store, 1)
    assert arrive(store, 1, content=b"other") is Recorded.NEW_VERSION
    assert arrive(store, 1, content=b"third") is Recorded.NEW_VERSION
    study = store.studies.view(STUDY)
    [instance] = study.instances
    assert (instance.version, study.changes) == (3, 3)
    assert store.archive.path(instance.path).read_bytes() == b"third"
    first, second, third = store.instances.by_ids([1, 2, 3])
    assert [store.archive.path(one.path).exists() for one in (first, second, third)] == [True] * 3
    assert last(store, "new version")[0] == "CT_ER"
    assert arrive(store, 1, content=b"other") is Recorded.IDENTICAL


def test_versions_that_come_in_one_commit_are_told_apart(store):
    """A group is decided in the order of its arrival."""
    several = [written(store, 1), written(store, 1, content=b"other"), written(store, 1), written(store, 2)]
    with store.database.write() as connection:
        outcomes = record_group(connection, several)
    assert [what for what, _ in outcomes] == [Recorded.NEW, Recorded.NEW_VERSION, Recorded.IDENTICAL, Recorded.NEW]
    assert outcomes[2][1] == several[0].path
    assert sorted((one.sop_instance_uid[-1], one.version) for one in store.studies.view(STUDY).instances) == [("1", 2), ("2", 1)]


def test_many_associations_record_at_once_and_every_instance_is_there_once(store):
    """Commits are grouped over associations; what one sends twice, or two send alike, is one row."""
    outcomes = []

    def associate(sender: int) -> None:
        for number in range(12):
            study = f"{STUDY}.{number % 3}"
            outcomes.append(arrive(store, number if number % 4 else 1000 + sender, study=study))

    threads = [threading.Thread(target=associate, args=(sender,)) for sender in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 96
    recorded = [one for n in range(3) for one in store.studies.view(f"{STUDY}.{n}").instances]
    assert len(recorded) == outcomes.count(Recorded.NEW) == 9 + 3 * 8
    assert outcomes.count(Recorded.IDENTICAL) == 96 - len(recorded)
    assert all(store.archive.path(one.path).exists() for one in recorded)


def test_what_waits_is_committed_together(store):
    """One flush of the ledger serves every association that waits; and a group's order does not matter to its studies."""
    instances = [written(store, number, study=f"{STUDY}.{number % 4}", at=NOW + number) for number in range(40)]
    assert record_at_once(store, instances) == [Recorded.NEW] * 40
    studies = [store.studies.view(f"{STUDY}.{n}") for n in range(4)]
    assert [(len(one.instances), one.changes, one.last_received_at) for one in studies] == [(10, 10, NOW + 36 + n) for n in range(4)]


def test_an_instance_that_cannot_be_recorded_does_not_fail_its_neighbours(store):
    """One poisoned row is refused alone."""
    poison = replace(written(store, 2), header={"Modality": object()})
    outcomes = record_at_once(store, [written(store, 1), poison, written(store, 3)])
    assert [outcomes[0], outcomes[2]] == [Recorded.NEW, Recorded.NEW]
    assert isinstance(outcomes[1], Transient)
    assert list(store.archive.incoming.iterdir()) == [], "its file is not left behind: its sender was told a failure"
    assert arrive(store, 2) is Recorded.NEW


def test_numbers_that_are_none_and_texts_that_no_database_holds_are_recorded(store):
    """A header is as a peer wrote it: NaN is no JSON, NUL and half a surrogate are no text of PostgreSQL's."""
    header = {
        "SliceThickness": float("nan"),
        "ImagePositionPatient": [1.0, float("inf"), 0.0],
        "SeriesDescription": "a\0b\ud800",
        "PatientName": "Å^Ö",
    }
    assert arrive(store, 1, **header) is Recorded.NEW
    [instance] = store.studies.view(STUDY).instances
    assert (instance.header["SliceThickness"], instance.header["ImagePositionPatient"]) == (None, [1.0, None, 0.0])
    assert (instance.header["SeriesDescription"], instance.header["PatientName"]) == ("a\0b\ud800", "Å^Ö")
    store.instances.quarantine("quarantine/x", at=NOW, source="CT\0", reason="cannot be read: \ud800\0!")
    [row] = store.instances.quarantined()
    assert (row["source"], row["reason"]) == ("CT", "cannot be read: ?!")


def test_a_start_after_a_crash_keeps_what_has_a_row_and_removes_what_has_none(storage, address):
    """A file with a row was, or may have been, acknowledged; a file without one was not: its sender sends it again."""
    store = Store.open(storage, address)
    kept, lost = written(store, 1), written(store, 2)
    arrive(store, 3)
    with store.database.write() as connection:  # the process dies after the commit, before the file is moved
        record_group(connection, [kept])
    store.close()
    again = Store.open(storage, address)
    assert again.archive.path(kept.path).parent == again.archive.incoming, "it is found where it lies"
    assert again.instances.sweep() == (1, 1)
    assert again.instances.sweep() == (0, 0)
    assert again.archive.path(kept.path) == again.archive.root / kept.path
    assert again.archive.path(kept.path).read_bytes() == f"pixels of {STUDY} 1".encode()
    assert not again.archive.path(lost.path).exists()
    assert arrive(again, 1) is Recorded.IDENTICAL
    assert arrive(again, 2) is Recorded.NEW
    again.close()


def test_a_file_that_is_lost_comes_back_when_its_sender_sends_it_again(store):
    """Identical is no excuse to throw away the only copy."""
    arrive(store, 1)
    [instance] = store.studies.view(STUDY).instances
    store.archive.path(instance.path).unlink()
    assert arrive(store, 1) is Recorded.IDENTICAL
    assert store.archive.path(instance.path).read_bytes() == f"pixels of {STUDY} 1".encode()
    assert list(store.archive.incoming.iterdir()) == []


def test_whoever_gave_up_waiting_finds_no_row_without_a_file(store):
    """A sender that was told A700 sends again: what was under way is recorded with its file, what still waited is forgotten with it."""
    under_way, behind = written(store, 1), written(store, 2)
    with store.database.write() as connection:  # somebody holds the ledger
        if not store.database.is_sqlite:
            connection.execute(text("LOCK TABLE study"))
        for one, patience_s in ((under_way, 0.3), (behind, 0.05)):
            with pytest.raises(Transient, match=f"within {patience_s} s"):
                store.instances.record(one, timeout_s=patience_s)
    store.instances.close()
    [recorded] = store.studies.view(STUDY).instances
    assert recorded.path == under_way.path
    assert store.archive.path(under_way.path).exists()
    assert not store.archive.path(behind.path).exists()
    assert [arrive(store, 1), arrive(store, 2)] == [Recorded.IDENTICAL, Recorded.NEW]


def test_recording_goes_on_after_the_ledger_was_closed_and_opened(store):
    """The committing thread ends and begins as it is needed."""
    arrive(store, 1)
    store.instances.close()
    assert arrive(store, 2) is Recorded.NEW


def test_an_instance_after_the_judgement_opens_the_study_again(store):
    """A late instance leads to a new judgement; the journal says who sent it."""
    arrive(store, 1)
    seen = store.studies.view(STUDY)
    store.studies.complete(seen, why="quiet", jobs=[], detail={}, now=NOW)
    assert store.studies.counts() == {StudyState.COMPLETE: 1}
    arrive(store, 2, at=NOW + 90)
    assert store.studies.counts() == {StudyState.OPEN: 1}
    assert store.studies.due(NOW + 90) == (STUDY,)
    assert last(store, "reopened") == ("CT_ER", "an instance came after the study was judged")


def test_instances_are_read_back_in_the_order_asked(store):
    """A job's inputs name its slices in their order."""
    record_at_once(store, [written(store, number) for number in range(300)])
    ids = [one.id for one in store.studies.view(STUDY).instances]
    wanted = [*reversed(ids), 10**9]
    assert [one.id for one in store.instances.by_ids(wanted)] == wanted[:-1]


# ------------------------------------------------------------------------------------------------------------------------


def record_at_once(store, instances):
    """Record instances from as many threads; return what became of each."""
    outcomes = [None] * len(instances)

    def associate(index):
        try:
            outcomes[index] = store.instances.record(instances[index])
        except Transient as error:
            outcomes[index] = error

    threads = [threading.Thread(target=associate, args=(index,)) for index in range(len(instances))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes
