"""The ledger under several processes at once, which is real life: `serve`, `work` and the verbs."""

import subprocess
import sys
from pathlib import Path

import pytest

from dicom_node.domain import JobState
from dicom_node.store import Recorded, Store
from tests.contracts.arrange import NOW, STUDY, arrive, judged, recover, waiting

ROOT = Path(__file__).parents[2]


@pytest.fixture
def begin(storage, address):
    """Start processes, and end those that a test leaves."""
    started = []

    def begun(*arguments):
        command = [sys.executable, "-m", "tests.contracts.writer", str(storage), address, *map(str, arguments)]
        started.append(subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield begun
    for process in started:
        process.kill()
        process.communicate()


def said(process):
    """Return what a process printed, after it has ended well and silently."""
    out, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    return out.strip()


def test_processes_that_start_at_once_make_one_ledger(begin, storage, address):
    """Whoever is first migrates; the others find it done; and Alembic neither prints, nor logs, nor sets up logging."""
    assert [said(process) for process in [begin("open", number) for number in range(5)]] == ["True"] * 5
    store = Store.open(storage, address)
    assert store.studies.counts() == {}
    store.close()


def test_several_processes_write_at_once_and_none_is_turned_away(begin, storage, address):
    """No "database is locked" within the time-outs; every instance recorded is there; every job is done once."""
    store = Store.open(storage, address)
    jobs = [waiting(store, study=f"{STUDY}.w{number}") for number in range(12)]
    senders = [begin("send", number, 15) for number in (1, 2)]
    workers = [begin("work", f"worker-{number}", len(jobs)) for number in (1, 2)]
    for number in range(15):
        arrive(store, 9000 + number)
        judged(store)
    assert [said(process) for process in senders] == ["15", "15"]
    done = [int(number) for process in workers for number in said(process).split(",") if number]
    completed = store.jobs.list(state=JobState.COMPLETED)
    assert sorted(done) == sorted({*done}), "none was done twice"
    assert {job.id for job in jobs} <= {job.id for job in store.jobs.list()}
    assert len(completed) == len(done) >= len(jobs)
    assert len(store.studies.view(STUDY).instances) == 15 + 2 * 15
    assert [len(store.studies.view(f"{STUDY}.{number}").instances) for number in (1, 2)] == [15, 15]
    store.close()


def test_a_start_does_not_sweep_away_what_another_process_is_receiving(begin, store):
    """`import` runs beside `serve`: its file has no row yet, and is no rubbish of a crash."""
    importing = begin("write", "import")
    path = importing.stdout.readline().strip()
    assert store.instances.sweep(recover) == (0, 0, 0)
    assert store.archive.path(path).exists()
    importing.stdin.write("\n")
    assert said(importing) == "new"
    assert store.archive.path(path).read_bytes() == f"pixels of {STUDY} 1".encode()


@pytest.mark.parametrize("how", ["write", "begin"])
def test_what_a_killed_process_left_is_recorded_if_it_is_whole_and_else_swept_away(begin, store, how):
    """The lock ends with its process; its empty files go too."""
    importing = begin(how, "import")
    path = importing.stdout.readline().strip()
    importing.kill()
    importing.wait()
    moved, recorded, removed = store.instances.sweep(recover)
    assert (moved, recorded, removed > 1) == (0, 1 if how == "write" else 0, True)
    assert list(store.archive.incoming.iterdir()) == []
    assert store.archive.path(path).exists() == (how == "write")
    assert arrive(store, 1, at=NOW) is (Recorded.IDENTICAL if how == "write" else Recorded.NEW)
