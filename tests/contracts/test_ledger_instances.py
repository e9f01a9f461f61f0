"""Instances in the ledger: what `record` acknowledged is there, once, whatever happens around it."""

import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest
from sqlalchemy import text

from dicom_node.domain import StudyState, Transient
from dicom_node.store import Recorded, Store
from dicom_node.store.recording import ADDITION, record_group, row_of, totals
from tests.contracts.arrange import NOW, STUDY, arrive, kinds, last, recover, unsettled, written


def test_a_new_instance_is_current_in_its_study_and_lies_in_its_place(store):
    """Success means: bytes flushed, row committed; the file moves when the row is durable too."""
    assert arrive(store, 1) is Recorded.NEW
    study = store.studies.view(STUDY)
    [instance] = study.instances
    assert store.archive.path(instance.path).read_bytes() == f"pixels of {STUDY} 1".encode()
    assert instance.path.startswith("instances/2027/01/15/")
    assert unsettled(store) == []
    assert store.archive.path(instance.path) == store.archive.root / instance.path
    assert (instance.version, instance.header["PatientID"], study.changes) == (1, "MARKED", 1)
    assert kinds(store) == ["first instance"]


def test_an_identical_instance_makes_no_new_work(store):
    """A sender that lost our answer sends again; it is told Success and nothing else happens."""
    arrive(store, 1)
    before = store.studies.view(STUDY)
    assert arrive(store, 1) is Recorded.IDENTICAL
    assert store.studies.view(STUDY) == before
    assert unsettled(store) == []


def test_other_content_under_a_known_uid_is_kept_beside_it_and_is_current(store):
    """The default policy for a UID that comes with other content: both versions are kept, the newest is current, and it is on record."""
    arrive(store, 1)
    assert arrive(store, 1, content=b"other") is Recorded.NEW_VERSION
    assert arrive(store, 1, content=b"third") is Recorded.NEW_VERSION
    study = store.studies.view(STUDY)
    [instance] = study.instances
    assert (instance.version, study.changes) == (3, 3)
    assert store.archive.path(instance.path).read_bytes() == b"third"
    first, second, third = store.instances.by_ids(range(1, 10))
    assert [store.archive.path(one.path).exists() for one in (first, second, third)] == [True] * 3
    assert last(store, "new version")[0] == "CT_ER"
    assert arrive(store, 1, content=b"other") is Recorded.IDENTICAL


def test_versions_that_come_in_one_commit_are_told_apart(store):
    """A group is decided in the order of its arrival."""
    several = [written(store, 1), written(store, 1, content=b"other"), written(store, 1), written(store, 2)]
    outcomes, _ = record_group(store.database, several)
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
    """One commit serves every association that waits; and a group's order does not matter to its studies."""
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
    assert unsettled(store) == [], "its file is not left behind: its sender was told a failure"
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


def test_a_start_after_a_crash_moves_what_has_a_row_records_what_is_whole_and_removes_the_rest(storage, address):
    """A file with a row, or whole without one, may have been acknowledged; what is not whole was not: its sender sends it again."""
    store = Store.open(storage, address)
    kept, whole, torn = written(store, 1), written(store, 2), written(store, 3, content=b"pixels of")
    arrive(store, 4)
    assert record_group(store.database, [kept])[0] == [(Recorded.NEW, kept.path)]  # the process dies after the commit, before the file is moved
    store.close()
    again = Store.open(storage, address)
    assert again.archive.path(kept.path).parent == again.archive.incoming, "it is found where it lies"
    assert again.instances.sweep(recover) == (1, 1, 1)
    assert list(again.archive.incoming.iterdir()) == []
    assert again.instances.sweep(recover) == (0, 0, 0)
    for one, content in ((kept, f"pixels of {STUDY} 1"), (whole, f"pixels of {STUDY} 2")):
        assert again.archive.path(one.path) == again.archive.root / one.path
        assert again.archive.path(one.path).read_bytes() == content.encode()
    assert not again.archive.path(torn.path).exists()
    assert [one.header["InstanceNumber"] for one in again.studies.view(STUDY).instances] == [1, 2, 4]
    assert [arrive(again, number) for number in (1, 2, 4, 3)] == [Recorded.IDENTICAL] * 3 + [Recorded.NEW]
    again.close()


def test_a_sweep_finds_what_it_recorded_before_and_does_it_no_second_time(storage, address):
    """A power cut within the sweep: everything that it had done is done again without harm, and what came twice is kept once."""
    store = Store.open(storage, address)
    arrive(store, 1)
    store.instances.settle()
    again = [written(store, number) for number in (1, 2, 2)]  # sent once more before the cut, and never told of
    store.close()
    after = Store.open(storage, address)
    assert after.instances.sweep(recover) == (0, 3, 0)
    assert unsettled(after) == []
    first, second = after.studies.view(STUDY).instances
    assert first.path not in {one.path for one in again} and second.path in {one.path for one in again[1:]}
    assert after.studies.view(STUDY).changes == 2
    after.close()


def test_a_file_that_is_lost_comes_back_when_its_sender_sends_it_again(store):
    """Identical is no excuse to throw away the only copy."""
    arrive(store, 1)
    [instance] = store.studies.view(STUDY).instances
    store.archive.path(instance.path).unlink()
    assert arrive(store, 1) is Recorded.IDENTICAL
    assert store.archive.path(instance.path).read_bytes() == f"pixels of {STUDY} 1".encode()
    assert unsettled(store) == []


def test_whoever_gave_up_waiting_is_told_so_and_what_it_had_is_forgotten(store):
    """A follower's patience ends while the leader is stuck; the leader's instance is recorded all the same, and nobody's file is left behind."""
    under_way, behind = written(store, 1), written(store, 2)
    leading = Answer(store, under_way)
    with held(store):
        leading.start()
        assert eventually(lambda: store.instances._led)
        assert eventually(lambda: not store.instances._waiting), "the leader has taken its group"
        with pytest.raises(Transient, match=r"within 0.05 s"):
            store.instances.record(behind, timeout_s=0.05)
    assert leading.outcome is Recorded.NEW
    assert unsettled(store) == []
    [recorded] = store.studies.view(STUDY).instances
    assert recorded.path == under_way.path
    assert store.archive.path(under_way.path).exists()
    assert not [file for file in store.archive.root.rglob("*.dcm") if file.read_bytes() == f"pixels of {STUDY} 2".encode()]
    assert [arrive(store, 1), arrive(store, 2)] == [Recorded.IDENTICAL, Recorded.NEW]


def test_those_that_wait_are_led_by_the_first_of_them(store):
    """While the leader is stuck the others wait; then one of them commits for all, and each is woken once."""
    stuck, followers = Answer(store, written(store, 1)), [Answer(store, written(store, number)) for number in (2, 3, 4)]
    with held(store):
        stuck.start()
        assert eventually(lambda: store.instances._led and not store.instances._waiting)
        for follower in followers:
            follower.start()
        assert eventually(lambda: len(store.instances._waiting) == 3)
        waiting = [*store.instances._waiting]
    assert [one.outcome for one in (stuck, *followers)] == [Recorded.NEW] * 4
    assert [one.leads for one in waiting] == [True, False, False]
    assert all(one._turn.locked() for one in waiting), "nobody was woken twice"


def test_the_lead_is_handed_on_and_every_outcome_is_delivered_once(store):
    """Many threads, patience of every length, the ledger held now and then: each is told one thing, and told the truth."""
    instances = [written(store, number, study=f"{STUDY}.{number % 3}") for number in range(60)]
    answers = [Answer(store, one, 0.02 if number % 5 == 4 else 30.0) for number, one in enumerate(instances)]
    for start in range(0, 60, 15):
        with held(store):
            for answer in answers[start : start + 15]:
                answer.start()
            assert eventually(lambda start=start: sum(one.ended for one in answers[start : start + 15]) >= 2)
    outcomes = [answer.outcome for answer in answers]
    assert {type(one) for one in outcomes} <= {Recorded, Transient}
    told = {one.path for one, outcome in zip(instances, outcomes, strict=True) if outcome is Recorded.NEW}
    recorded = {one.path for number in range(3) for one in store.studies.view(f"{STUDY}.{number}").instances}
    assert len(told) >= 48, "who had patience was recorded"
    assert told <= recorded
    assert all(store.archive.path(path).exists() for path in recorded)
    assert not store.instances._led and not store.instances._waiting
    assert unsettled(store) == []
    assert [arrive(store, 100), arrive(store, 101)] == [Recorded.NEW] * 2


def test_of_several_that_cannot_be_recorded_each_is_told_and_the_others_are_not_held_up(store):
    """One poisoned row, or many: a group is tried again one by one."""
    instances = [written(store, number) for number in range(24)]
    poisoned = [replace(one, header={"Modality": object()}) if number % 6 == 5 else one for number, one in enumerate(instances)]
    with held(store):
        answers = [Answer(store, one) for one in poisoned]
        for answer in answers:
            answer.start()
        assert eventually(lambda: len(store.instances._waiting) >= 23)
    outcomes = [answer.outcome for answer in answers]
    assert [isinstance(one, Transient) for one in outcomes] == [number % 6 == 5 for number in range(24)]
    assert outcomes.count(Recorded.NEW) == 20 == len(store.studies.view(STUDY).instances) == store.studies.view(STUDY).changes
    assert unsettled(store) == []


def test_statements_that_do_not_fit_change_nothing(store):
    """The short way counts its rows: a study that is not there, or not open, or an instance that is, sends all of the group the long way."""
    arrive(store, 1)
    before = store.studies.view(STUDY)
    new, known, strange = written(store, 2), written(store, 1), written(store, 2, study="1.2.3")

    def added(*ones):
        return store.database.add(ADDITION, [row_of(one) for one in ones], totals(ones))

    assert not added(new, known)
    assert not added(strange)
    assert not added(new, strange)
    assert store.studies.view(STUDY) == before
    assert added(new)
    assert (len(store.studies.view(STUDY).instances), store.studies.view(STUDY).changes) == (2, 2)
    store.studies.complete(store.studies.view(STUDY), why="quiet", jobs=[], detail={}, now=NOW)
    assert not added(written(store, 3))
    assert store.studies.counts() == {StudyState.COMPLETE: 1}


def test_a_group_of_new_and_known_and_other_content_is_told_apart_on_an_open_study_too(store):
    """What the short way does not fit for goes the long way whole: none is recorded by halves."""
    arrive(store, 1)
    outcomes, _ = record_group(store.database, [written(store, 2), written(store, 1), written(store, 1, content=b"other")])
    assert [what for what, _ in outcomes] == [Recorded.NEW, Recorded.IDENTICAL, Recorded.NEW_VERSION]
    assert store.studies.view(STUDY).changes == 3


def test_recording_goes_on_after_the_ledger_was_closed_and_opened(store):
    """The keeper's thread ends and begins as it is needed."""
    arrive(store, 1)
    store.instances.close()
    assert arrive(store, 2) is Recorded.NEW
    [*_, second] = store.studies.view(STUDY).instances
    assert eventually(lambda: store.archive.path(second.path) == store.archive.root / second.path), "nobody had to ask"


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


class Answer(threading.Thread):
    """An association that records an instance, and what it is told."""

    def __init__(self, store, received, patience_s=30.0):
        super().__init__()
        self._store, self._received, self._patience_s = store, received, patience_s
        self._told = []

    def run(self):
        try:
            self._told.append(self._store.instances.record(self._received, timeout_s=self._patience_s))
        except Transient as error:
            self._told.append(error)

    @property
    def ended(self):
        return bool(self._told)

    @property
    def outcome(self):
        """What it was told, which is one thing."""
        self.join(60)
        [told] = self._told
        return told


def record_at_once(store, instances):
    """Record instances from as many threads; return what became of each."""
    answers = [Answer(store, one) for one in instances]
    for answer in answers:
        answer.start()
    return [answer.outcome for answer in answers]


@contextmanager
def held(store):
    """Hold the ledger, so that nobody else writes to it."""
    with store.database.write() as connection:
        if not store.database.is_sqlite:
            connection.execute(text("LOCK TABLE study"))
        yield


def eventually(true, timeout_s=20.0):
    """Wait until something is true; say whether that came to be."""
    until = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True
