"""Who waits for work is told of it at once, across processes, and a ring neither waits nor fails, whoever listens."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import text

from dicom_node.domain import Transient
from dicom_node.store import Store, Topic
from tests.contracts.arrange import NOW, arrive, claimed, finished, judged, sending, waiting

ROOT = Path(__file__).parents[2]
PATIENCE_S = 30.0

RING = """
import sys
from pathlib import Path
from dicom_node.store import Store, Topic
store = Store.open(Path(sys.argv[1]), sys.argv[2])
store.bell.ring(Topic.JOBS)
store.close()
"""


@pytest.fixture
def listen(store):
    """Listen to topics of the store's bell; nothing has rung yet."""
    listeners = []

    def listening(topic, bell=store.bell):
        listeners.append(bell.listen(topic))
        return listeners[-1]

    yield listening
    for listener in listeners:
        listener.close()


def test_a_ring_reaches_all_who_wait_for_its_topic_and_nobody_else(store, listen):
    """Each listener hears each topic once, however often it rang meanwhile."""
    first, second, other = listen(Topic.JOBS), listen(Topic.JOBS), listen(Topic.STUDIES)
    for _ in range(1000):
        store.bell.ring(Topic.JOBS)
    assert first.wait(PATIENCE_S)
    assert second.wait(PATIENCE_S)
    assert not other.wait(0)


def test_a_ring_reaches_another_process(storage, address, listen):
    """The verbs are processes of their own: what `retry` asks for is not found by looking again and again."""
    listener = listen(Topic.JOBS)
    subprocess.run([sys.executable, "-c", RING, str(storage), address], check=True, cwd=ROOT, timeout=PATIENCE_S)
    assert listener.wait(PATIENCE_S)


def test_one_listener_hears_several_topics_and_no_others(store):
    ear = store.bell.listen(Topic.JOBS, Topic.STUDIES)
    store.bell.ring(Topic.DELIVERIES)
    assert not ear.wait(0.05)
    for topic in (Topic.STUDIES, Topic.JOBS):
        store.bell.ring(topic)
        assert ear.wait(PATIENCE_S)
    ear.close()


def test_nobody_has_to_listen(store):
    """Most commands run while no node does."""
    for topic in Topic:
        store.bell.ring(topic)


def test_a_wait_ends_when_it_is_asked_to(listen):
    """A thread that stops wakes the one that waits; asked before the wait, it does not wait at all."""
    listener = listen(Topic.JOBS)
    listener.wake()
    assert listener.wait(PATIENCE_S)
    assert not listener.wait(0)
    waits = threading.Thread(target=listener.wait, args=(PATIENCE_S,))
    waits.start()
    listener.wake()
    waits.join(PATIENCE_S / 2)
    assert not waits.is_alive()


def _running(store):
    waiting(store)
    return claimed(store)


def _reopen(store, job):
    store.studies.reopen(job.study_instance_uid, who="me", why="asked", now=NOW)


def _send(store, job):
    store.deliveries.send(job.id, "elsewhere", who="me", now=NOW)


CHANGES = {
    "a study judged": (Topic.JOBS, arrive, lambda store, _: judged(store)),
    "a study opened again": (Topic.STUDIES, waiting, _reopen),
    "a job done": (
        Topic.DELIVERIES,
        lambda store: (waiting(store), claimed(store))[1],
        lambda store, job: store.jobs.complete(job, (), now=NOW, why=""),
    ),
    "a job given back": (Topic.JOBS, _running, lambda store, job: store.jobs.release(job, now=NOW, why="")),
    "a job asked for again": (Topic.JOBS, finished, lambda store, job: store.jobs.again(job.id, who="me", now=NOW)),
    "results sent elsewhere": (Topic.DELIVERIES, finished, _send),
    "a circuit closed": (Topic.DELIVERIES, lambda store: None, lambda store, _: store.deliveries.reached("pacs", now=NOW)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_commit_is_told_to_those_who_can_do_something_about_it(store, listen, change):
    """The walk goes on without anybody looking for work."""
    topic, before, act = CHANGES[change]
    given = before(store)
    listener = listen(topic)
    act(store, given)
    assert listener.wait(PATIENCE_S)


def test_what_was_not_committed_is_not_told(store, listen):
    """A ring after a change that was rolled back would be a lie, if a harmless one."""
    arrive(store)
    seen = store.studies.view(store.studies.find("")[0])
    listener = listen(Topic.JOBS)
    with pytest.raises(Transient):
        store.studies.complete(seen, why="quiet", jobs=[], detail={}, now=text("no number"))
    assert not listener.wait(0)


def test_the_ledger_says_when_the_next_thing_is_due(store):
    """Who waits sleeps until then."""
    assert (store.studies.next_due(), store.jobs.next_due(["lung-ct"]), store.deliveries.next_due("pacs")) == (None, None, None)
    arrive(store)
    store.studies.look_again(store.studies.find("")[0], NOW + 7)
    assert store.studies.next_due() == NOW + 7
    judged(store)
    assert store.studies.next_due() is None
    assert (store.jobs.next_due(["lung-ct"]), store.jobs.next_due(["other"])) == (0.0, None)
    job = claimed(store)
    store.jobs.fail(job, now=NOW, why="", retry_at=NOW + 9)
    assert store.jobs.next_due(["lung-ct"]) == NOW + 9
    finished(store, study="1.2.3.4", kinds=("SR",))
    assert store.deliveries.next_due("pacs") == NOW
    (one,) = sending(store)
    store.deliveries.put_off(one, "sender-1", now=NOW, until=NOW + 5, reason="")
    assert store.deliveries.next_due("pacs") == NOW + 5


# ------------------------------------------------------------------------------------------------- sockets on one host


def test_a_listener_that_was_killed_is_forgotten(tmp_path):
    """Its socket stays behind, refuses, and is removed by who rings next."""
    store = Store.open(tmp_path)
    store.bell.listen(Topic.JOBS).close()
    dead = "import os, signal; from pathlib import Path; from dicom_node.store import Store, Topic\n"
    dead += f"listener = Store.open(Path({str(tmp_path)!r})).bell.listen(Topic.JOBS); os.kill(os.getpid(), signal.SIGKILL)"
    subprocess.run([sys.executable, "-c", dead], check=False, cwd=ROOT, timeout=PATIENCE_S)
    assert len(list((tmp_path / "bells").iterdir())) == 1
    store.bell.ring(Topic.JOBS)
    assert not list((tmp_path / "bells").iterdir())
    store.close()


def test_a_storage_with_a_long_name_has_a_bell_too(tmp_path):
    """A socket's name holds 107 bytes, a path 4096."""
    store = Store.open(tmp_path / ("long" * 30))
    listener = store.bell.listen(Topic.STUDIES)
    store.bell.ring(Topic.STUDIES)
    assert listener.wait(PATIENCE_S)
    listener.close()
    store.close()


def test_nobody_else_may_ring(tmp_path):
    """The folder is this user's alone."""
    store = Store.open(tmp_path)
    store.bell.listen(Topic.JOBS).close()
    assert (tmp_path / "bells").stat().st_mode & 0o777 == 0o700
    store.close()


def test_where_no_socket_can_be_listening_goes_on_by_looking(tmp_path):
    """Some shared folders hold no sockets: waits last as long as they are asked to, and end when asked to."""
    store = Store.open(tmp_path)
    (tmp_path / "bells").write_text("in the way")
    listener = store.bell.listen(Topic.JOBS)
    store.bell.ring(Topic.JOBS)
    assert not listener.wait(0)
    listener.wake()
    assert listener.wait(PATIENCE_S)
    listener.close()
    store.close()


# --------------------------------------------------------------------------------------------------------- PostgreSQL


@pytest.mark.parametrize("backend", ["postgresql"])
def test_a_bell_whose_connections_broke_is_heard_again(store, listen, backend):
    """A server that was started again: both sides connect anew, and what rang meanwhile counts as rung."""
    listener = listen(Topic.JOBS)
    store.bell.ring(Topic.JOBS)
    assert listener.wait(PATIENCE_S)
    with store.database.write() as connection:
        others = "datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'dicom_node bell'"
        ended = connection.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")).all()
    assert len(ended) == 2
    assert listener.wait(PATIENCE_S)  # it broke
    assert listener.wait(PATIENCE_S)  # it is whole again, and something may have rung
    for _ in range(2):  # the ringer finds its connection broken by losing one ring
        store.bell.ring(Topic.JOBS)
        if listener.wait(1.0):
            break
    else:
        pytest.fail("nothing was heard")
