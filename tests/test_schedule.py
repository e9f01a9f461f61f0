"""When attempts are tried again, and that the ticks tick."""

import threading
from dataclasses import replace

from dicom_node.config import Work
from dicom_node.domain import Job
from dicom_node.schedule import Ticks, retry_at

JOB = Job(
    study_instance_uid="1.2", model="m", model_version="1", device_uid="1", identity="x", inputs={}, why="", deliver=(), created_at=0.0, attempts=1
)


def test_attempts_are_spaced_by_doubling_up_to_an_hour_and_then_end():
    """A model that fails is not tried for ever, and not at once."""
    work = Work(attempts=12, backoff_s=10.0)
    waits = [retry_at(replace(JOB, attempts=n), work, 100.0) for n in range(1, 13)]
    assert [w - 100.0 for w in waits[:3]] == [10.0, 20.0, 40.0]
    assert waits[10] - 100.0 == 3600.0
    assert waits[11] is None


def test_a_tick_that_fails_is_called_again():
    """The next tick is the retry: what is to be done stands in the ledger."""
    called = threading.Semaphore(0)

    def act():
        called.release()
        raise ValueError("once more")

    ticks = Ticks()
    ticks.every(0.02, act, "failing")
    ticks.start()
    assert all(called.acquire(timeout=5) for _ in range(3))
    ticks.stop()
