"""The analysing room: processes that fail in every way a model can, and findings that break every rule of the contract.

The fakes in tests/models are whole models, each with one fault.
"""

import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from highdicom import Volume
from structlog.testing import capture_logs

from dicom_node.analyse import Pool, fetch_weights, settle
from dicom_node.analyse.forkserver import libraries_of
from dicom_node.config import Manifest, Model, load_model
from dicom_node.domain import Canceled, Findings, ModelFailed, Transient, Unsuitable

MODELS = Path(__file__).parent / "models"
SHAPE = (4, 5, 6)  # (slice, row, column)
FRAME_OF_REFERENCE = "1.2.826.0.1.3680043.8.498.1"


def image() -> Volume:
    """An oblique, anisotropic image with an asymmetric object above 0."""
    turn = np.array([[0.0, 0.6, 0.8], [0.0, -0.8, 0.6], [1.0, 0.0, 0.0]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([2.5, 0.7, 0.9])
    affine[:3, 3] = [-100.5, 33.25, 7.125]
    array = np.full(SHAPE, -1000, np.float32)
    array[1, 2:4, 3:] = 50
    return Volume(array, affine, coordinate_system="PATIENT", frame_of_reference_uid=FRAME_OF_REFERENCE)


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(1) as pool:
        yield pool


def fake(name: str) -> Model:
    return load_model(MODELS / name)


def run(pool: Pool, name: str, *, timeout_s=60.0, memory_mb=4096, progress=lambda *_: None, canceled=lambda: False, ct=None) -> Findings:
    inputs = {"ct": image() if ct is None else ct}
    return pool.run(fake(name), "cpu", inputs, timeout_s=timeout_s, memory_mb=memory_mb, progress=progress, canceled=canceled)


def ended(pid: int, within_s: float = 10) -> bool:
    """Whether a process ends within a time; of one that is gone already, yes."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], within_s)[0])
    finally:
        os.close(handle)


# ------------------------------------------------------------------------------------------------------- a model that works


def test_findings_come_back_on_the_inputs_grid_with_its_frame_of_reference(pool: Pool) -> None:
    """PS3.3 C.7.4.1: what is derived from an image stays in its frame of reference. The caller's array is never written to."""
    ct, said = image(), []
    found = run(pool, "good", ct=ct, progress=lambda fraction, sentence: said.append((fraction, sentence)))
    assert found.segments.array.dtype == np.uint8
    assert (found.segments.array == (image().array > 0)).all()
    assert found.segments.geometry_equal(ct)
    assert found.segments.frame_of_reference_uid == FRAME_OF_REFERENCE
    assert found.measurements["volume"] == pytest.approx(6 * 2.5 * 0.7 * 0.9 / 1000)
    assert found.notes == ("a note",)
    assert said == [(0.5, "half of it")]
    assert (ct.array == image().array).all()


def test_a_model_stays_warm_between_jobs(pool: Pool) -> None:
    """Weights are loaded once, not once for each study."""
    assert seen(pool)["pid"] == seen(pool)["pid"]


def test_a_view_of_the_input_that_lost_nothing_is_turned_back(pool: Pool) -> None:
    """Design: a mask may be a flip, a permutation, a crop or a pad of its input."""
    assert (run(pool, "flipped").segments.array == (image().array > 0)).all()


def test_fractions_come_back_as_bytes_on_the_inputs_grid(pool: Pool) -> None:
    """PS3.3 C.8.20.2.3: 255 is 1.0. They leave the model's process as bytes, segment after segment, from whatever view of the image."""
    ct = image()
    found = run(pool, "unsure", ct=ct)
    liver = (ct.array - ct.array.min()) / (ct.array.max() - ct.array.min())
    expected = np.rint(np.stack([liver, liver / 4], -1) * 255)  # (slice, row, column, segment)
    assert found.segments.array.dtype == np.uint8
    assert (found.segments.array == expected).all()
    assert found.segments.get_channel_values("ReferencedSegmentNumber") == [1, 2]
    assert found.segments.geometry_equal(ct)
    assert found.segments.array[..., 0].flags.c_contiguous


NO_FRACTIONS = {  # the number that the fake is given in the first voxel, and what is said
    1: "the model gave segments that hold nan, not values from 0 to 1",
    2: "the model gave segments that hold -0.1, not values from 0 to 1",
    3: "the model gave segments that hold 1.91048, not values from 0 to 1",
    4: "the model gave segments that hold inf, not values from 0 to 1",
    5: "the model gave segments of type int16, not values from 0 to 1, nor uint8 from 0 to 255",
    6: "the model gave fractions of the segments 1; its manifest describes 1, 2",
    7: "the model gave fractions of the segments 2, 1; its manifest describes 1, 2",
    8: "by slice, row, column and OpticalPathIdentifier: name the axis of the segments ReferencedSegmentNumber, and give no other",
    9: "gave as segments a ndarray, not a Volume",
}


@pytest.mark.parametrize("fault", NO_FRACTIONS)
def test_what_is_no_fraction_of_a_segment_is_refused_by_name(pool: Pool, fault: int) -> None:
    """Nothing is clipped, nothing guessed: a network without its last layer gives numbers that look like something."""
    ct = image()
    ct.array[0, 0, 0] = fault
    with pytest.raises(ModelFailed) as refused:
        run(pool, "unsure", ct=ct)
    assert NO_FRACTIONS[fault] in str(refused.value)


def test_two_files_of_a_model_find_each_other_and_no_other_models_files(pool: Pool) -> None:
    """Every model has an analysis.py; each gets its own, its neighbours, and its weights folder if it asks."""
    assert run(pool, "neighbour").measurements == {"volume": 42.0}
    assert run(pool, "good").notes == ("a note",)


def test_a_model_that_declines_is_asked_again_by_the_same_process(pool: Pool) -> None:
    """To decline is no failure."""
    with pytest.raises(Unsuitable, match="^The spleen is not in the image.$"):
        run(pool, "declines")


def seen(pool: Pool) -> dict[str, str]:
    return dict(note.rsplit(" ", 1) if "shape" not in note else (note, "") for note in run(pool, "looks_around").notes)


def test_a_model_sees_an_array_an_affine_and_nothing_of_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """No UID, no password, no input from the terminal; threads bounded; hubs offline."""
    monkeypatch.setenv("DICOM_NODE_PASSWORD", "secret")
    with Pool(3) as pool:
        notes = run(pool, "looks_around").notes
    assert notes[:-1] == (
        "password None",
        "threads 3",
        "offline 1",
        "stdin ''",
        "frame of reference None",
        f"float32 {SHAPE}",
        "device cpu",
    )


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's filter is Linux's")
def test_a_model_has_no_network(pool: Pool) -> None:
    """Never downloaded during an analysis: Python code hears why, compiled code gets EACCES."""
    found = run(pool, "calls_home")
    assert "has no network" in found.notes[0]
    assert found.measurements == {"volume": 13.0}


def test_a_model_that_prints_more_than_a_pipe_holds_is_not_held_up(pool: Pool) -> None:
    """Its first lines are logged under its name, without control characters; the rest is read and dropped."""
    with capture_logs() as logs:
        run(pool, "chatty")
    lines = [entry for entry in logs if entry["event"] == "model_said"]
    assert 0 < len(lines) <= 200
    assert {entry["model"] for entry in lines} == {"chatty"}
    assert not any("\x1b" in entry["line"] for entry in lines)


# ------------------------------------------------------------------------------------------------------ a model that fails

FAULTS = {
    "raises": r"^the model raised LinAlgError: Singular matrix at analysis.py:8$",
    "exits": r"^the model called sys.exit\(3\) at analysis.py:8$",
    "vanishes": r"^the model's process ended itself with exit code 0$",
    "crashes": r"^the model's process was killed by signal 11 \(SIGSEGV\) at analysis.py:8$",
    "killed": r"^the model's process was killed by signal 9 \(SIGKILL\), probably by the system for lack of memory$",
    "import_error": r"^the model raised ModuleNotFoundError: No module named 'a_library_that_nobody_has_written' at analysis.py:3$",
    "unspeakable": r"^the model gave for measurement 'volume' a lock, not a number$",
    "forgets": r"^the model returned a NoneType, not Findings$",
    "nan": r"^measurement 'volume' is nan$",
    "off_grid": r"^the model's mask is not on its input's grid",
    "unfetched": r"^the model's weights have not been fetched: net.safetensors$",
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_costs_its_job_only_and_is_named(pool: Pool, name: str) -> None:
    """Issue: a model that raises, exits or is killed costs that job only and says so; its neighbour works on in the same process."""
    before = seen(pool)["pid"]
    with pytest.raises(ModelFailed, match=FAULTS[name]):
        run(pool, name)
    assert seen(pool)["pid"] == before


def test_a_model_works_again_after_it_died(pool: Pool) -> None:
    """Restarted on death, also when it died while idle."""
    before = int(seen(pool)["pid"])
    os.kill(before, signal.SIGKILL)
    assert ended(before)
    assert int(seen(pool)["pid"]) != before


def test_a_model_that_hangs_is_stopped_with_all_that_it_started(pool: Pool) -> None:
    """Per-model time-out; its whole process group ends."""
    others = []
    with pytest.raises(ModelFailed, match=r"^the model did not finish within its 4 s; its process was stopped$"):
        run(pool, "hangs", timeout_s=4, progress=lambda _, sentence: others.append(int(sentence)))
    assert ended(others[0])


def test_a_model_that_is_never_loaded_is_stopped(pool: Pool) -> None:
    """The time to load is limited too, and the message tells the two apart."""
    with pytest.raises(ModelFailed, match="was not loaded within its 1 s"):
        run(pool, "slow_load", timeout_s=1)


def test_a_canceled_job_stops_at_once(pool: Pool) -> None:
    """A person's wish to stop ends the process, not only the wait for it."""
    started = threading.Event()
    others = []

    def progress(_: float, sentence: str) -> None:
        others.append(int(sentence))
        started.set()

    with pytest.raises(Canceled):
        run(pool, "hangs", progress=progress, canceled=started.is_set)
    assert ended(others[0])


def test_a_job_that_waits_for_its_model_can_be_canceled(pool: Pool) -> None:
    """Jobs of one model wait for each other; waiting, too, ends on request."""
    started, stop = threading.Event(), threading.Event()
    refused = []

    def first() -> None:
        with pytest.raises(Canceled):
            run(pool, "hangs", progress=lambda *_: started.set(), canceled=stop.is_set)
        refused.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    assert started.wait(30)
    with pytest.raises(Canceled, match="while it waited"):
        run(pool, "hangs", canceled=lambda: True)
    stop.set()
    thread.join()
    assert refused == ["first"]


def test_a_wait_that_breaks_off_leaves_no_process_at_work(pool: Pool) -> None:
    """An error in the caller's own progress report ends the analysis it belongs to."""
    others = []

    def progress(_: float, sentence: str) -> None:
        others.append(int(sentence))
        raise KeyError("the lease is lost")

    with pytest.raises(KeyError):
        run(pool, "hangs", progress=progress)
    assert ended(others[0])


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_a_model_that_takes_too_much_memory_is_stopped_before_the_machine_suffers(pool: Pool) -> None:
    """Per-model memory limit; the message names what was used and what was allowed."""
    with pytest.raises(ModelFailed, match=r"^the model used \d+ MB, more than its 400 MB; its process was stopped$"):
        run(pool, "hogs", memory_mb=400)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_a_model_that_leaks_is_replaced_before_a_job_dies_of_it(pool: Pool) -> None:
    """A process that keeps a quarter of its limit more than after its first job makes way for a fresh one; no job fails."""
    counts = [int(run(pool, "leaks", memory_mb=400).measurements["volume"]) for _ in range(7)]
    assert counts[:4] == [1, 2, 3, 4]
    assert counts.count(1) > 1


def test_models_run_side_by_side(pool: Pool) -> None:
    """One at a time of each model, different models at once."""
    started, stop = threading.Event(), threading.Event()

    def hang() -> None:
        with pytest.raises(Canceled):
            run(pool, "hangs", progress=lambda *_: started.set(), canceled=stop.is_set)

    thread = threading.Thread(target=hang)
    thread.start()
    assert started.wait(30)
    assert run(pool, "good").notes == ("a note",)
    stop.set()
    thread.join()


def test_a_closed_pool_ends_what_runs_and_takes_no_more() -> None:
    """The node is stopping: the job may be tried again later, so the model is not blamed."""
    pool, others, outcome = Pool(1), [], []
    started = threading.Event()

    def progress(_: float, sentence: str) -> None:
        others.append(int(sentence))
        started.set()

    def hang() -> None:
        with pytest.raises(Transient, match="stopping"):
            run(pool, "hangs", progress=progress)
        outcome.append("transient")

    thread = threading.Thread(target=hang)
    thread.start()
    assert started.wait(30)
    pool.close()
    thread.join()
    assert outcome == ["transient"]
    assert ended(others[0])
    with pytest.raises(Transient):
        run(pool, "good")


NODE = """
from pathlib import Path
from tests.test_analyse import Pool, run


def descendants(pid):
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in path.read_text().split():
            yield child
            yield from descendants(child)


def tell():
    print("processes", *descendants("self"), flush=True)


with Pool(1) as pool:
    run(pool, "good")
    run(pool, "slow_load", canceled=tell)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends them only on Linux; elsewhere they look each half second")
def test_a_node_that_is_killed_leaves_no_process_and_no_memory_behind() -> None:
    """kill -9 of the node ends idle and working processes and those that fork; shared arrays have no name that could stay."""
    before = set(os.listdir("/dev/shm"))
    root = Path(__file__).parents[1]
    with subprocess.Popen([sys.executable, "-c", NODE], stdout=subprocess.PIPE, text=True, cwd=root) as node:
        assert node.stdout is not None
        told = next(line for line in node.stdout if line.startswith("processes"))
        node.kill()
    pids = [int(pid) for pid in told.split()[1:]]
    assert len(pids) >= 3  # one idle, one at work, and the one that forked them
    assert all(ended(pid) for pid in pids)
    assert not {name for name in set(os.listdir("/dev/shm")) - before if "dicom" in name or "psm" in name}


# ------------------------------------------------------------------------------------------------ processes that are forked


def noted(pool: Pool, name: str) -> dict[str, int]:
    return {what: int(number) for what, number in (note.split() for note in run(pool, name).notes)}


def eventually(what: Callable[[], Any]) -> Any:
    """Return what comes to be, within half a minute."""
    until = time.monotonic() + 30
    while not (found := what()):
        assert time.monotonic() < until
        time.sleep(0.01)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody tells the node that an idle process died")
def test_a_model_that_died_is_back_before_anybody_asks_for_it(pool: Pool) -> None:
    """The process and the model in it, ready for the next job."""
    before = noted(pool, "draws")["pid"]
    with capture_logs() as logs:
        os.kill(before, signal.SIGKILL)
        back = eventually(lambda: [entry["pid"] for entry in logs if entry["event"] == "model_loaded"])
    assert noted(pool, "draws")["pid"] == back[0] != before


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")
def test_processes_of_one_pool_draw_different_numbers(pool: Pool) -> None:
    """What is forked has its parent's memory, but not its luck."""
    first = run(pool, "draws")
    before = noted(pool, "draws")["pid"]
    os.kill(before, signal.SIGKILL)
    assert ended(before)
    assert run(pool, "draws").measurements != first.measurements


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")
def test_the_process_that_forks_is_replaced_when_it_dies(pool: Pool) -> None:
    """Its children die with it, and the models come back from its successor."""
    before = noted(pool, "draws")
    os.kill(before["parent"], signal.SIGKILL)
    assert ended(before["pid"])
    after = noted(pool, "draws")
    assert {before["parent"], before["pid"]}.isdisjoint(after.values())


def test_torch_works_with_its_threads_in_a_forked_process() -> None:
    """OpenMP's threads do not survive a fork: none had been started, and the child starts its own."""
    with Pool(2) as pool:
        assert run(pool, "convolves").measurements == {"volume": 2.0}


def test_a_library_that_does_not_bear_a_fork_gets_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It started a thread when it was imported, as those do that speak with a graphics processor."""
    (tmp_path / "starts_a_thread.py").write_text("import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    shutil.copytree(MODELS / "draws", tmp_path / "draws")
    with (tmp_path / "draws" / "model.toml").open("a") as manifest:
        manifest.write('[resources]\nlibraries = ["starts_a_thread"]\n')
    with Pool(1) as pool:
        asked = {"timeout_s": 60.0, "memory_mb": 4096, "progress": lambda *_: None, "canceled": lambda: False}
        notes = pool.run(load_model(tmp_path / "draws"), "cpu", {"ct": image()}, **asked).notes
    assert f"parent {os.getpid()}" in notes


def test_a_models_libraries_are_read_from_its_code_without_running_it(tmp_path: Path) -> None:
    """What all models have anyway and what is the model's own is left out; what it does not say can be listed."""
    (tmp_path / "analysis.py").write_text("import os, numpy, other\nfrom scipy import ndimage\n\ndef load(*_):\n    import torch.nn\n    exit(7)\n")
    (tmp_path / "other.py").write_text("from . import analysis\nimport SimpleITK as sitk\n")
    (tmp_path / "broken.py").write_text("import (")
    assert libraries_of(tmp_path, ("onnxruntime",), "1") == ("SimpleITK", "onnxruntime", "scipy", "scipy.ndimage", "torch.nn")


CLOSED = """
import os
from pathlib import Path
from tests.test_analyse import ModelFailed, Pool, run


def held():
    children = [child for path in Path("/proc/self/task").glob("*/children") for child in path.read_text().split()]  # of every thread
    return children, len(os.listdir("/proc/self/fd"))


before = held()
with Pool(1) as pool:
    for name in ("good", "draws", "good"):
        run(pool, name)
    try:
        run(pool, "killed")
    except ModelFailed:
        print("failed")
assert held() == before, (held(), before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="children are read from /proc")
def test_a_closed_pool_leaves_no_process_and_no_open_file() -> None:
    """Neither living, nor dead and unreaped."""
    said = subprocess.run([sys.executable, "-c", CLOSED], capture_output=True, text=True, cwd=Path(__file__).parents[1], timeout=60, check=False)
    assert said.returncode == 0, said.stderr
    assert "failed" in said.stdout


def test_weights_are_fetched_into_the_models_folder(tmp_path: Path) -> None:
    """A model without weights needs nothing; nothing is downloaded for it."""
    said: list[str] = []
    fetch_weights(fake("good"), said.append)
    assert said == []


# ---------------------------------------------------------------------------------------------------------- the contract


def manifest(**changes: object) -> Manifest:
    """Two segments, one measurement on each of both, one on the first, one on the whole, one evaluation."""
    term = {"category": "SCT.AnatomicalStructure", "type": "SCT.Lung"}
    said = {
        "name": "two",
        "version": "1",
        "task": "for the tests",
        "inputs": {"ct": {}},
        "segments": [{"number": 1, "label": "Left", **term}, {"number": 2, "label": "Right", **term}],
        "measurements": {
            "volume": {"concept": "SCT.Volume", "unit": "mL", "segments": [1, 2]},
            "left": {"concept": "SCT.Volume", "unit": "mL", "segment": 1},
            "whole": {"concept": "SCT.Volume", "unit": "mL"},
        },
        "evaluations": {"finding": {"concept": ["1", "99TEST", "Finding"], "answers": {"yes": ["2", "99TEST", "Yes"], "no": ["3", "99TEST", "No"]}}},
    }
    return Manifest.model_validate(said | changes)


def labels() -> Volume:
    array = np.zeros(SHAPE, np.int64)
    array[1, 2:4, 3:] = 1
    array[2, 1:, 0] = 2
    return image().with_array(array)


def found(**changes: object) -> Findings:
    given = {
        "segments": labels(),
        "measurements": {"volume": {1: 5.0, 2: 6.0}, "left": 5.0, "whole": 11.0},
        "evaluations": {"finding": "no"},
    }
    return Findings(**(given | changes))


def measured(**changes: object) -> dict[str, object]:
    return {"volume": {1: 5.0, 2: 6.0}, "left": 5.0, "whole": 11.0} | changes


def test_settled_findings_are_what_the_manifest_promises() -> None:
    """Small unsigned numbers on the grid; a measurement on several segments by number."""
    settled = settle(found(), manifest(), {"ct": image()})
    assert settled.segments.array.dtype == np.uint8
    assert settled.measurements == measured()
    assert settled.evaluations == {"finding": "no"}


VIEWS = {
    "the same": lambda v: v,
    "flipped": lambda v: v.flip_spatial([0]),
    "flipped twice": lambda v: v.flip_spatial([1, 2]),
    "permuted": lambda v: v.permute_spatial_axes([2, 0, 1]),
    "padded before": lambda v: v.pad([(2, 0), (1, 0), (3, 0)]),
    "padded after": lambda v: v.pad([(0, 2), (0, 1), (0, 3)]),
    "cropped to the object": lambda v: v[1:3],
    "cropped and padded": lambda v: v[1:, 1:].pad([(0, 2), (3, 0), (1, 1)]),
    "all at once": lambda v: v.permute_spatial_axes([1, 2, 0]).flip_spatial([0, 2]).pad([(0, 2), (1, 0), (3, 4)])[:, 1:, 1:],
    "rounded to float32": lambda v: Volume(v.array, v.affine.astype(np.float32), coordinate_system="PATIENT"),
}


@pytest.mark.parametrize("view", VIEWS)
def test_every_lossless_view_comes_back_to_the_same_voxels(view: str) -> None:
    """Flip, permutation, crop, pad, and any of them together."""
    settled = settle(found(segments=VIEWS[view](labels())), manifest(), {"ct": image()})
    assert (settled.segments.array == labels().array).all()
    assert settled.segments.geometry_equal(image())
    assert settled.notes == ()


def moved(change: np.ndarray) -> Volume:
    return Volume(labels().array, image().affine @ change, coordinate_system="PATIENT")


def shift(*by: float) -> np.ndarray:
    change = np.eye(4)
    change[:3, 3] = by
    return change


OFF_GRID = {
    "finer": np.diag([0.5, 0.5, 0.5, 1]),
    "coarser": np.diag([2, 1, 1, 1]),
    "shifted by a third of a voxel": shift(0, 1 / 3, 0),
    "turned a little": np.array([[1, 0, 0, 0], [0, 0.998, -0.06, 0], [0, 0.06, 0.998, 0], [0, 0, 0, 1]]),
    "flat": np.diag([1, 1, 0, 1]),
    "nowhere": np.full((4, 4), np.nan),
}


@pytest.mark.parametrize("case", OFF_GRID)
def test_a_mask_that_lost_or_invented_voxels_is_refused(case: str) -> None:
    """Resampling is the model's business: only it knows how."""
    affine = image().affine @ OFF_GRID[case]

    class Claimed:  # highdicom itself refuses to build the last two
        array, spatial_shape = labels().array, SHAPE

    Claimed.affine = affine
    with pytest.raises(ModelFailed, match="not on its input's grid"):
        settle(found(segments=Claimed), manifest(), {"ct": image()})


def test_what_a_model_found_in_its_own_padding_is_left_out_and_said() -> None:
    """A voxel outside the image can stand in no segmentation of it; the reader is told."""
    padded = labels().pad([(1, 0), (0, 0), (0, 0)])
    padded.array[0, 0, :3] = 1
    settled = settle(found(segments=padded), manifest(), {"ct": image()})
    assert settled.notes == ("3 voxels of the segmentation lay outside the image and were left out.",)


def test_a_mask_wholly_outside_the_image_is_empty_and_said() -> None:
    """Moved by whole voxels is still a view, however far."""
    settled = settle(found(segments=moved(shift(100, 0, 0))), manifest(), {"ct": image()})
    assert not settled.segments.array.any()
    assert "outside the image" in settled.notes[0]


def mask(array: np.ndarray) -> Volume:
    return image().with_array(array)


EMPTY = mask(np.zeros(SHAPE, np.uint8))
NONE_EMPTY = {"volume": {1: None, 2: None}, "left": None, "whole": None}

BREACHES = {
    "the number 3; its manifest describes segments 1 to 2": {"segments": mask(np.full(SHAPE, 3))},
    "the number -1": {"segments": mask(np.full(SHAPE, -1))},
    "a boolean mask, but its manifest describes 2 segments": {"segments": mask(np.ones(SHAPE, bool))},
    "segments of type float32": {"segments": mask(np.ones(SHAPE, np.float32))},
    "gave no segments": {"segments": None},
    "measurement 'extra', which its manifest does not describe": {"measurements": measured(extra=1.0)},
    "no measurement 'whole'": {"measurements": {"volume": {1: 5.0, 2: 6.0}, "left": 5.0}},
    "'left' is nan": {"measurements": measured(left=float("nan"))},
    "'volume' of segment 2 is inf": {"measurements": measured(volume={1: 5.0, 2: float("inf")})},
    "'volume' is given for segments 1, but is described on 1, 2": {"measurements": measured(volume={1: 5.0})},
    "'volume' is one number, but is described on segments 1, 2": {"measurements": measured(volume=5.0)},
    "'whole' is given for segments 1, but is described on none": {"measurements": measured(whole={1: 5.0})},
    "'left' has no value, though no segment it depends on is empty": {"measurements": measured(left=None)},
    "evaluation 'finding' is 'perhaps', which is none of its answers: yes, no": {"evaluations": {"finding": "perhaps"}},
    "no evaluation 'finding'": {"evaluations": {}},
    "evaluation 'other', which": {"evaluations": {"finding": "no", "other": "no"}},
}


@pytest.mark.parametrize("breach", BREACHES)
def test_findings_that_the_manifest_does_not_cover_are_refused_by_name(breach: str) -> None:
    """Nothing invalid ever leaves: the first gate is the model's own contract."""
    with pytest.raises(ModelFailed) as refused:
        settle(found(**BREACHES[breach]), manifest(), {"ct": image()})
    assert breach in str(refused.value)


# ------------------------------------------------------------------------------------------------------ the contract: images


def smoothing() -> Manifest:
    """A manifest whose only output is an image."""
    described = {"description": "Smoothed", "derivation": ["DCM.Smoothing"], "image_type": "SMOOTHED"}
    return manifest(segments=[], measurements={}, evaluations={}, images={"smooth": described})


NUMBERED = image().with_array(np.arange(120, dtype=np.float32).reshape(SHAPE))
WHOLE_VIEWS = ("the same", "flipped", "flipped twice", "permuted", "rounded to float32")


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("view", WHOLE_VIEWS)
def test_an_image_comes_back_on_the_exact_grid(view: str, dtype: type) -> None:
    """Flips and permutations are undone, of any numeric type; the frame of reference is the input's."""
    given = VIEWS[view](NUMBERED.with_array(NUMBERED.array.astype(dtype)))
    settled = settle(Findings(images={"smooth": given}), smoothing(), {"ct": image()}).images["smooth"]
    assert (settled.array == NUMBERED.array).all()
    assert settled.geometry_equal(image())
    assert settled.frame_of_reference_uid == FRAME_OF_REFERENCE


def with_a_hole() -> Volume:
    array = NUMBERED.array.copy()
    array[2, 3, 4] = np.nan
    return NUMBERED.with_array(array)


ONE_CHANNEL = {"ReferencedSegmentNumber": [1]}
IMAGE_BREACHES = {
    "gave no image 'smooth', though": {},
    "gave image 'other', which its manifest does not describe": {"smooth": NUMBERED, "other": NUMBERED},
    "image 'smooth' does not cover its input: it was cropped": {"smooth": NUMBERED[1:]},
    "image 'smooth' does not cover": {"smooth": NUMBERED.pad([(1, 0), (0, 0), (0, 0)])},
    "image 'smooth' does not cover its": {"smooth": NUMBERED[1:].pad([(0, 1), (0, 0), (0, 0)])},  # as many slices, another place
    "image 'smooth' is not on its input's grid: it was resampled": {
        "smooth": Volume(NUMBERED.array, image().affine @ np.diag([1, 2.0, 1, 1]), coordinate_system="PATIENT")
    },
    "image 'smooth' holds values that are not finite": {"smooth": with_a_hole()},
    "gave as image 'smooth' bool of 3 dimensions": {"smooth": NUMBERED.with_array(NUMBERED.array > 5)},
    "gave as image 'smooth' float32 of 4 dimensions": {"smooth": image().with_array(np.zeros((*SHAPE, 1), np.float32), ONE_CHANNEL)},
}


@pytest.mark.parametrize("breach", IMAGE_BREACHES)
def test_images_that_the_manifest_does_not_cover_are_refused_by_name(breach: str) -> None:
    """A picture in the wrong place, or with a hole in it, never leaves."""
    with pytest.raises(ModelFailed) as refused:
        settle(Findings(images=IMAGE_BREACHES[breach]), smoothing(), {"ct": image()})
    assert breach in str(refused.value)


def test_an_image_is_settled_on_the_input_that_it_is_a_copy_of() -> None:
    """Of several inputs the manifest names one."""
    other = Volume(np.zeros((2, 3, 4), np.float32), np.diag([3.0, 1.0, 1.0, 1.0]), coordinate_system="PATIENT")
    described = {"description": "Smoothed", "derivation": ["DCM.Smoothing"], "image_type": "SMOOTHED", "of": "pet"}
    two = manifest(inputs={"ct": {}, "pet": {}}, segments=[], measurements={}, evaluations={}, images={"smooth": described})
    settled = settle(Findings(images={"smooth": other}), two, {"ct": image(), "pet": other})
    assert settled.images["smooth"].geometry_equal(other)


def test_images_leave_the_models_process_in_as_few_bytes_as_a_stored_image_needs(pool: Pool) -> None:
    """float32 of 64 bits, 16 bits of whole numbers; the other way round would hold twice the memory on both sides."""
    found = run(pool, "smooths")
    assert {name: volume.array.dtype for name, volume in found.images.items()} == {"same": np.float32, "half": np.int16}
    assert (found.images["same"].array == image().array).all()
    assert (found.images["half"].array == np.rint(image().array / 2)).all()


def fractions(*of: float, dtype: type = np.float32) -> Volume:
    """The first value where the first segment is, the second where the second is."""
    array = np.stack([np.where(labels().array == number, value, 0) for number, value in enumerate(of, start=1)], -1).astype(dtype)
    return image().with_array(array, {"ReferencedSegmentNumber": range(1, len(of) + 1)})


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_fractions_of_any_width_are_rounded_to_bytes(dtype: type) -> None:
    """The nearest 255th; what rounding left beyond 0 and 1 is 0 and 1."""
    settled = settle(found(segments=fractions(0.5, 0.25, dtype=dtype)), manifest(fractional="OCCUPANCY"), {"ct": image()})
    assert [settled.segments.array[..., n].max() for n in (0, 1)] == [128, 64]
    values = np.where(np.arange(120).reshape(SHAPE) % 2, 1 + 5e-6, -5e-6)
    one = manifest(fractional="OCCUPANCY", segments=manifest().model_dump()["segments"][:1], measurements={}, evaluations={})
    settled = settle(Findings(segments=image().with_array(values)), one, {"ct": image()})
    assert (settled.segments.array[..., 0] == np.where(values > 0.5, 255, 0)).all()


def test_bytes_are_fractions_as_they_are() -> None:
    """A model that has them as bytes spares itself the numbers."""
    settled = settle(found(segments=fractions(255, 3, dtype=np.uint8)), manifest(fractional="PROBABILITY"), {"ct": image()})
    assert [settled.segments.array[..., n].max() for n in (0, 1)] == [255, 3]


@pytest.mark.parametrize("view", VIEWS)
def test_a_lossless_view_of_fractions_comes_back_too(view: str) -> None:
    """The axis of the segments is none of space."""
    given = fractions(0.75, 1.0)
    if view == "rounded to float32":
        given = Volume(given.array, given.affine.astype(np.float32), "PATIENT", channels={"ReferencedSegmentNumber": [1, 2]})
    settled = settle(found(segments=VIEWS[view](given) if view != "rounded to float32" else given), manifest(fractional="OCCUPANCY"), {"ct": image()})
    assert (settled.segments.array == np.rint(given.array * 255)).all()


def test_a_segment_below_a_half_everywhere_may_go_unmeasured() -> None:
    """It counts as empty, in the contract as in the report."""
    given = found(segments=fractions(0.5, 0.49), measurements=measured(volume={1: 5.0, 2: None}))
    assert settle(given, manifest(fractional="PROBABILITY"), {"ct": image()}).measurements["volume"] == {1: 5.0, 2: None}
    with pytest.raises(ModelFailed, match="'volume' of segment 1 has no value"):
        settle(
            found(segments=fractions(0.5, 0.49), measurements=measured(volume={1: None, 2: 1.0})), manifest(fractional="PROBABILITY"), {"ct": image()}
        )


def test_a_mask_with_an_axis_of_segments_is_refused() -> None:
    """Without `fractional` a mask holds segment numbers."""
    with pytest.raises(ModelFailed, match="segments of 4 dimensions"):
        settle(found(segments=fractions(1, 1, dtype=np.uint8)), manifest(), {"ct": image()})


def test_fractions_of_no_segments_are_no_manifest() -> None:
    """It could only be a mistake."""
    with pytest.raises(ValueError, match="is fractional and describes no segments"):
        manifest(fractional="PROBABILITY", segments=[], measurements={"whole": {"concept": "SCT.Volume", "unit": "mL"}})


def test_segments_that_no_manifest_describes_are_refused() -> None:
    """A mask without a coded term would be a segmentation of nothing."""
    bare = manifest(segments=[], measurements={"whole": {"concept": "SCT.Volume", "unit": "mL"}})
    with pytest.raises(ModelFailed, match="describes none"):
        settle(found(measurements={"whole": 1.0}), bare, {"ct": image()})


def test_what_an_empty_segment_leaves_unmeasured_stays_none() -> None:
    """A negative result is a result: an empty mask has no mean, but a volume of 0."""
    settled = settle(found(segments=EMPTY, measurements=NONE_EMPTY | {"whole": 0.0}), manifest(), {"ct": image()})
    assert settled.measurements == NONE_EMPTY | {"whole": 0.0}


def test_of_two_segments_the_empty_one_goes_without() -> None:
    """The other keeps its value."""
    left_only = mask(np.where(labels().array == 2, 0, labels().array))
    settled = settle(found(segments=left_only, measurements=measured(volume={1: 5.0, 2: None})), manifest(), {"ct": image()})
    assert settled.measurements["volume"] == {1: 5.0, 2: None}


def test_a_measurement_on_one_segment_may_come_as_a_number_or_by_segment() -> None:
    """Both mean the same."""
    assert settle(found(measurements=measured(left={1: 5.0})), manifest(), {"ct": image()}).measurements["left"] == 5.0
