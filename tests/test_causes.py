"""What was in the way of a job that came to nothing: each error says it, the job keeps it, and the workitem tells it by a code (CID 9300)."""

import errno
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from highdicom import Volume

from dicom_node.analyse import Pool
from dicom_node.assemble.volume import assemble
from dicom_node.config import Input, load_model, load_site
from dicom_node.domain import (
    Cause,
    Discontinuation,
    JobState,
    ModelFailed,
    NodeError,
    PeerUnavailable,
    Rejected,
    Transient,
    Unsuitable,
    cause_of,
)
from dicom_node.store import Store
from dicom_node.work.worker import Worker, _Running
from dicom_node.worklist.ups.reasons import reason_of
from tests import phantoms
from tests.contracts.arrange import NOW, claimed, waiting

MODELS = Path(__file__).parent / "models"


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (Unsuitable("of another kind"), Cause.TYPES),
        (Unsuitable("a slice is missing", cause=Cause.INCOMPLETE), Cause.INCOMPLETE),
        (ModelFailed("it died"), Cause.EQUIPMENT),
        (ModelFailed("it was late", cause=Cause.RESOURCE), Cause.RESOURCE),
        (Rejected("images are gone"), Cause.INCOMPLETE),
        (Transient("no process could be started"), Cause.RESOURCE),
        (PeerUnavailable("away"), Cause.RESOURCE),
        (MemoryError(), Cause.RESOURCE),
        (OSError(errno.ENOSPC, "no space left"), Cause.RESOURCE),
        (OSError(errno.EACCES, "not allowed"), Cause.EQUIPMENT),
        (ValueError("a fault of the program"), Cause.EQUIPMENT),
        (NodeError("whatever"), Cause.EQUIPMENT),
    ],
)
def test_an_error_says_what_was_in_the_way(error: BaseException, cause: Cause) -> None:
    assert cause_of(error) is cause


def refused(images: list, folder: Path, wanted: Input | None = None) -> Cause:
    with pytest.raises(Unsuitable) as caught:
        assemble(phantoms.write(images, folder), wanted or Input(units="HU"))
    return caught.value.cause


def test_an_input_that_cannot_be_put_together_says_why(tmp_path: Path) -> None:
    """Missing slices, a header that contradicts itself, another modality, colour: each is another reason of CID 9300."""
    whole = phantoms.series(phantoms.marked())
    assert refused([*whole[:3], *whole[4:]], tmp_path / "gap") is Cause.INCOMPLETE
    cut = phantoms.series(phantoms.marked())
    cut[0].PixelData = cut[0].PixelData[:10]
    assert refused(cut, tmp_path / "cut") is Cause.FORMAT
    assert refused(phantoms.series(phantoms.marked(), Modality="MR"), tmp_path / "mr") is Cause.TYPES
    assert refused(phantoms.series(phantoms.marked()[:1], PhotometricInterpretation="PALETTE COLOR"), tmp_path / "colour") is Cause.TYPES
    (tmp_path / "no.dcm").write_bytes(b"no DICOM")
    with pytest.raises(Unsuitable) as caught:
        assemble([tmp_path / "no.dcm"], Input())
    assert caught.value.cause is Cause.FORMAT
    with pytest.raises(Unsuitable) as caught:
        assemble([], Input())
    assert caught.value.cause is Cause.INCOMPLETE


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(1) as pool:
        yield pool


@pytest.mark.parametrize(
    ("name", "limits", "cause"),
    [
        ("declines", {}, Cause.TYPES),
        ("raises", {}, Cause.EQUIPMENT),
        ("hangs", {"timeout_s": 1.0}, Cause.RESOURCE),
        ("hogs", {"memory_mb": 300}, Cause.RESOURCE),
        ("killed", {}, Cause.RESOURCE),
        ("exits", {}, Cause.EQUIPMENT),
    ],
)
def test_a_model_that_comes_to_nothing_says_why(pool: Pool, name: str, limits: dict, cause: Cause) -> None:
    """Memory and time that ran out are resources; whatever else ends its process is equipment."""
    array = np.zeros((4, 5, 6), np.float32)
    ct = Volume(array, np.eye(4), coordinate_system="PATIENT", frame_of_reference_uid="1.2.826.0.1.3680043.8.498.1")
    asked = {"timeout_s": 60.0, "memory_mb": 4096} | limits
    with pytest.raises((Unsuitable, ModelFailed)) as caught:
        pool.run(load_model(MODELS / name), "cpu", {"ct": ct}, progress=lambda *_: None, canceled=lambda: False, **asked)
    assert caught.value.cause is cause, caught.value


@pytest.mark.parametrize(
    ("error", "how", "cause", "code"),
    [
        (Unsuitable("a slice is missing", cause=Cause.INCOMPLETE), Discontinuation.DECLINED, "incomplete", "110523"),
        (Unsuitable("it is no chest"), Discontinuation.DECLINED, "types", "110522"),
        (Rejected("images are gone"), Discontinuation.FAILED, "incomplete", "110523"),
        (ModelFailed("it used too much memory", cause=Cause.RESOURCE), Discontinuation.FAILED, "resource", "110527"),
        (RuntimeError("a fault"), Discontinuation.FAILED, "equipment", "110501"),
    ],
)
def test_a_job_keeps_what_was_in_the_way(tmp_path: Path, error: Exception, how: Discontinuation, cause: str, code: str) -> None:
    """The last attempt's error; a person reads the sentence, a worklist the code (PS3.4 CC.2.1.3)."""
    (tmp_path / "node.toml").write_text("[work]\nattempts = 1\n")
    store = Store.open(tmp_path / "data")
    waiting(store)
    job = claimed(store)
    worker = Worker(load_site(tmp_path / "node.toml"), store, clock=lambda: NOW)
    worker._record_failure(job, _Running(job=job), error)
    ended = store.jobs.get(job.id)
    store.close()
    assert (ended.state, ended.discontinuation, ended.cause) == (JobState.CANCELED, how, cause)
    assert reason_of({"discontinuation": ended.discontinuation, "cause": ended.cause})[0] == code
