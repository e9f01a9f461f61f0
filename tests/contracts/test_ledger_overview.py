"""What a person sees at a glance: how far studies came, lists that are searched, how long models take, and whether anything has changed."""

import pytest
from sqlalchemy import event

from dicom_node.domain import DeliveryState, JobState, StudyState
from dicom_node.store import Listing, Step
from tests.contracts.arrange import NOW, STUDY, arrive, claimed, finished, judged, sending, waiting

EARLIER, OTHER, THIRD = (f"{STUDY}.{n}" for n in (7, 8, 9))


def funnel(store, since=NOW - 1, committing=()):
    return {one.step: (one.reached, one.waiting) for one in store.overview.funnel(since, committing)}


def listed(store, **wanted):
    store.holdings.refresh()
    return [row["study_instance_uid"] for row in store.overview.studies(Listing(**wanted), limit=10)]


def test_a_study_is_counted_at_every_step_that_it_came_to(store):
    """And waits at the last: until it is judged, until a worker begins, until its results are there, until that is committed."""
    assert set(funnel(store).values()) == {(0, 0)}
    arrive(store)
    assert funnel(store)[Step.RECEIVED] == (1, 1) and funnel(store)[Step.COMPLETE] == (0, 0)
    seen = store.studies.view(STUDY)
    store.studies.complete(seen, why="quiet", jobs=[], detail={}, now=NOW)
    assert funnel(store)[Step.RECEIVED] == (1, 0) and funnel(store)[Step.COMPLETE] == (1, 1)
    waiting(store, study=OTHER)
    assert funnel(store)[Step.MATCHED] == (1, 1) and funnel(store)[Step.COMPLETE] == (2, 1)
    claimed(store)
    assert funnel(store)[Step.MATCHED] == (1, 0) and funnel(store)[Step.RUNNING] == (1, 1)


def test_a_result_that_was_taken_waits_for_its_commitment_where_one_is_asked_for(store):
    finished(store, kinds=("SEG",))
    assert funnel(store)[Step.RUNNING] == (1, 1), "nothing is there yet"
    (one,) = sending(store)
    store.deliveries.sent(one, "sender-1", now=NOW, status=0)
    assert funnel(store)[Step.RUNNING] == (1, 0)
    assert funnel(store, committing=("pacs",))[Step.DELIVERED] == (1, 1)
    assert funnel(store, committing=())[Step.DELIVERED] == (1, 0)
    assert funnel(store)[Step.COMMITTED] == (0, 0)


def test_what_is_counted_is_what_is_listed(store):
    """Every number links to its list."""
    finished(store)
    waiting(store, study=OTHER)
    arrive(store, study=THIRD)
    arrive(store, study=EARLIER, at=NOW - 1000)
    for step, (reached, waits) in funnel(store).items():
        assert len(listed(store, step=step, received_since=NOW - 1)) == reached
        assert len(listed(store, step=step, received_since=NOW - 1, waiting=True)) == waits
        assert store.overview.count(Listing(step=step, received_since=NOW - 1)) == reached


def test_what_is_asked_every_second_is_looked_up_by_study_and_not_by_state(store):
    """An index of states leads to the rows of all studies: 1000 studies of a day, asked of 200,000 deliveries so, took five minutes (SQLite)."""
    if not store.database.is_sqlite:
        pytest.skip("PostgreSQL plans by what it knows of the rows")
    asked = []
    event.listen(store.database.engine, "before_cursor_execute", lambda _c, _cursor, said, values, *_: asked.append((said, values)))
    store.overview.funnel(NOW, ("pacs",))
    store.overview.pulse()
    with store.database.engine.connect() as connection:
        plans = [
            row[3] for said, values in asked if said.startswith("SELECT") for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {said}", values)
        ]
    assert not [one for one in plans if "ix_delivery" in one or one == "SCAN retrieval"]
    assert sum("ix_job_state_due" in one for one in plans) == 1, "the jobs that run, for the pulse"
    assert sum("ix_study_state_look_at" in one for one in plans) == 1, "the studies that are open, for the pulse"


def test_studies_are_searched(store):
    arrive(store, study=OTHER, AccessionNumber="ACC_1", StudyDate="20240105")
    arrive(store, study=THIRD, at=NOW + 1, AccessionNumber="ACC%2", StudyDate="20240301")
    arrive(store, study=EARLIER, at=NOW - 1000)
    judged(store, EARLIER)
    assert listed(store) == [THIRD, OTHER, EARLIER], "the latest first"
    assert listed(store, text="ACC_1") == [OTHER] and listed(store, text="ACC*") == [THIRD, OTHER] and listed(store, text="ACC?1") == [OTHER]
    assert listed(store, text=THIRD[-4:]) == [THIRD] and listed(store, text="%") == listed(store, text="_") == []
    assert listed(store, study_dates=("20240101", "20240131")) == [OTHER]
    assert listed(store, study_dates=("20240201", "")) == [THIRD] and listed(store, study_dates=("", "20240201")) == [OTHER]
    assert listed(store, state=StudyState.COMPLETE) == listed(store, model="lung-ct") == [EARLIER]
    assert listed(store, uids=()) == [] and listed(store, uids=(THIRD,)) == [THIRD]
    (row,) = store.overview.studies(Listing(uids=(EARLIER,)), limit=1)
    assert row["jobs"] == {JobState.SCHEDULED: 1} and row["attributes"]["PatientID"] == "MARKED" and row["instances"] == 1
    assert store.overview.entry(EARLIER)["state"] == StudyState.COMPLETE and store.overview.entry("1.2.3") == {}
    assert [row["study_instance_uid"] for row in store.overview.studies(Listing(), limit=1, offset=1)] == [OTHER]


def test_jobs_and_deliveries_are_listed_page_by_page(store):
    job = finished(store)
    other = waiting(store, study=OTHER)
    assert [one.id for one in store.overview.jobs(limit=10)] == [other.id, job.id]
    assert [one.id for one in store.overview.jobs(limit=1, offset=1)] == [job.id]
    assert [one.id for one in store.overview.jobs(limit=10, state=JobState.SCHEDULED, model="lung-ct")] == [other.id]
    first, second = (one.id for one in store.overview.deliveries(limit=10))
    assert [one.id for one in store.overview.deliveries(limit=1, offset=1, state=DeliveryState.PENDING, name="pacs")] == [second] and first != second
    assert store.overview.deliveries(limit=10, name="nobody") == ()


def test_what_waits_for_too_long_is_named(store):
    """A job that nobody claims for ten minutes or that runs for over an hour, a dead letter, a held study."""
    finished(store, kinds=("SEG",))
    (one,) = sending(store)
    store.deliveries.give_up(one, "sender-1", now=NOW, reason="refused")
    waiting(store, study=OTHER)
    claimed(store)
    waiting(store, study=THIRD)
    arrive(store, study=EARLIER)
    store.studies.hold(store.studies.view(EARLIER), why="two patients", now=NOW)
    assert [one.kind for one in store.overview.stuck(NOW + 600)] == ["delivery", "study"]
    assert [one.kind for one in store.overview.stuck(NOW + 601)] == ["job", "delivery", "study"]
    late = store.overview.stuck(NOW + 3601)
    assert [(one.kind, one.why) for one in late][1:] == [("job", "no worker has claimed it"), ("delivery", "refused"), ("study", "two patients")]
    assert late[0].why.startswith("still runs") and late[3].key == EARLIER


def test_it_is_told_how_long_a_model_takes(store):
    finished(store)
    job = waiting(store, study=OTHER)
    store.jobs.cancel(job.id, who="me", why="enough", now=NOW)
    assert store.overview.runs("lung-ct") == ((0.0,), {"COMPLETED": 1, "stopped": 1})
    assert store.overview.runs("nothing") == ((), {})


def test_it_is_told_how_much_is_held(store):
    finished(store)
    held = store.overview.held()
    assert (held["instances"], held["results"], held["quarantined"], held["oldest"]) == (1, 2, 0, NOW) and held["size_bytes"] > 0


@pytest.mark.parametrize("change", ["an image", "a claim", "progress", "a delivery", "a destination"])
def test_the_pulse_is_another_when_something_has_changed(store, change):
    """Also where no bell rings."""
    finished(store, kinds=("SEG",))
    waiting(store, study=OTHER)
    job = claimed(store) if change == "progress" else None
    arrive(store, study=THIRD)
    before = store.overview.pulse()
    assert store.overview.pulse() == before
    {
        "an image": lambda: arrive(store, 2, study=THIRD),
        "a claim": lambda: claimed(store),
        "progress": lambda: store.jobs.beat(job, now=NOW, lease_s=30, progress=0.5, note="half"),
        "a delivery": lambda: sending(store),
        "a destination": lambda: store.deliveries.unreachable("pacs", until=NOW, reason="away"),
    }[change]()
    assert store.overview.pulse() != before
