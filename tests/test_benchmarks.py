"""What `make bench` says of a benchmark is what the benchmark said. How fast anything is is no matter of this suite."""

from pathlib import Path

import numpy as np
import pytest

import tests.benchmarks
from dicom_node.config import bundled, load_model
from tests import phantoms
from tests.benchmarks import analyses, frame
from tests.benchmarks.images import shared_out, write_series
from tests.benchmarks.measure import Measure
from tests.benchmarks.receivers import limit, send, storescp

HERE = {"cpu": "A processor", "cores": 2, "memory_gb": 24, "system": "Linux 6", "python": "3.11.2"}
FAST = Measure(name="fast", ours=900.0, peer=1000.0, unit="images/s", ratio=0.9, bar=0.6, aim=0.85)
SLOW = Measure(name="slow", ours=100.0, peer=1000.0, unit="images/s", ratio=0.1, bar=0.6)
TOLD = Measure(name="told", ours=0.0512, unit="s")
MEMORY = Measure(name="memory", ours=180.0, unit="MB", ratio=180.0, bar=250.0, aim=150.0, at_most=True)


def recorded(*outcomes, before=None, machine=HERE, today="2026-01-02"):
    return frame.recorded(before or {}, outcomes, machine=machine, peers={"DCMTK": "3.6.7"}, today=today)


def outcome(benchmark, *measures, failure=""):
    return frame.Outcome(benchmark=benchmark, measures=measures, failure=failure)


@pytest.fixture
def benchmark(tmp_path, monkeypatch):
    """Make a function that adds a benchmark with a body to the package."""
    monkeypatch.setattr(tests.benchmarks, "__path__", [*tests.benchmarks.__path__, str(tmp_path)])

    def write(name, body, arguments="folder"):
        (tmp_path / f"{name}.py").write_text(f"from tests.benchmarks.measure import Measure\ndef measures({arguments}):\n    {body}\n")
        return name

    return write


def test_each_measure_is_judged_by_its_bar_and_its_aim():
    rows = recorded(outcome("one", FAST, SLOW, TOLD, MEMORY))["measures"]
    assert [frame.verdict(row) for row in rows] == ["aim reached", "**missed**", "", "met"]
    assert [row["measure"] for row in frame.missed({"measures": rows}, ["one"])] == ["slow"]
    assert frame.missed({"measures": rows}, ["another"]) == []


def test_a_table_shows_what_a_measure_says():
    row, ceiling = recorded(outcome("one", FAST, MEMORY))["measures"]
    assert frame.cells(row) == ("fast", "900", "1000", "images/s", "0.90", "≥ 0.6", "≥ 0.85", "aim reached", "")
    assert frame.cells(ceiling) == ("memory", "180", "", "MB", "180", "≤ 250", "≤ 150", "met", "")
    assert [frame.figure(value) for value in (None, 1234.5, 12.34, 1.234, 0.0512)] == ["", "1234", "12.3", "1.23", "0.051"]


def test_a_table_has_no_column_in_which_nothing_stands():
    head, line = frame.lines(recorded(outcome("one", TOLD))["measures"])
    assert list(zip(head, line, strict=True)) == [("measure", "told"), ("ours", "0.051"), ("unit", "s")]


def test_what_other_benchmarks_said_before_stays():
    before = recorded(outcome("one", FAST), outcome("two", TOLD), today="2026-01-01")
    now = recorded(outcome("one", SLOW), before=before)
    assert [(row["benchmark"], row["measure"], row["date"]) for row in now["measures"]] == [
        ("one", "slow", "2026-01-02"),
        ("two", "told", "2026-01-01"),
    ]


def test_what_another_machine_said_does_not_stay():
    """Its figures would stand under the name of this one."""
    before = recorded(outcome("two", TOLD), machine={**HERE, "cores": 64})
    assert [row["benchmark"] for row in recorded(outcome("one", FAST), before=before)["measures"]] == ["one"]


def test_measures_of_a_benchmark_that_cannot_run_count_as_missed():
    before = recorded(outcome("one", FAST, MEMORY, TOLD))
    now = recorded(outcome("one", FAST, failure="Orthanc is not installed"), before=before)
    assert [(row["measure"], row["met"], row["note"]) for row in now["measures"]] == [
        ("fast", True, ""),
        ("memory", False, "not measured: Orthanc is not installed"),
    ]


def test_a_benchmark_that_never_ran_is_missed_too():
    (row,) = frame.missed(recorded(outcome("one", failure="no module")), ["one"])
    assert frame.verdict(row) == "**missed**"


def test_every_module_that_measures_is_a_benchmark(benchmark):
    assert {"receive", "walk", benchmark("another", "yield")} <= set(frame.discover())
    assert frame.discover(["another"]) == ["another"]
    with pytest.raises(LookupError, match="there is no benchmark frame"):
        frame.discover(["frame"])


def test_a_benchmark_is_told_of_its_rounds_and_tells_its_measures(benchmark, tmp_path):
    told = []
    name = benchmark("in_rounds", "yield Measure(name=folder.name, ours=rounds)", arguments="folder, rounds=5")
    assert frame.run(name, tmp_path, rounds=2, told=told.append).measures == (Measure(name=tmp_path.name, ours=2),)
    assert told == [Measure(name=tmp_path.name, ours=2)]
    assert frame.run(name, tmp_path).measures[0].ours == 5


@pytest.mark.parametrize("body", ["yield 1 / 0", "import pytest; pytest.skip('division by zero'); yield"])
def test_why_a_benchmark_did_not_run_is_said(benchmark, tmp_path, body):
    """Be it an error, or a peer that is not installed."""
    failed = frame.run(benchmark("failing" if "/" in body else "skipping", body), tmp_path)
    assert failed.failure == "division by zero"


def test_a_document_gets_its_tables_and_keeps_its_prose():
    record = recorded(outcome("one", FAST, SLOW))
    once = frame.with_tables("Before.\n\n<!-- measured -->\nold\n<!-- end of measured -->\n\nAfter.\n", record)
    assert once.startswith("Before.\n\n<!-- measured -->\n\nMeasured on A processor, 2 cores, 24 GB, Linux 6, Python 3.11.2.\nBeside DCMTK 3.6.7.\n")
    assert once.endswith("<!-- end of measured -->\n\nAfter.\n")
    assert "| slow | 100 | 1000 | images/s | 0.10 | ≥ 0.6 |  | **missed** |\n" in once
    assert "old" not in once
    assert frame.with_tables(once, record) == once


def test_the_document_has_the_tables_of_its_record():
    """`make bench` writes both."""
    assert frame.with_tables(frame.DOCUMENT.read_text(), frame.read_record()) == frame.DOCUMENT.read_text()


def test_a_model_is_timed_on_what_it_takes_and_says_why_it_declines_the_rest(tmp_path):
    """In its own process; of further studies none is tried where one of the first was taken."""
    model = load_model(Path(analyses.__file__).parent / "models" / "tiny")
    ct, mr = (phantoms.write(phantoms.series(np.zeros((6, 16, 16), np.int16), modality=kind), tmp_path / kind) for kind in ("CT", "MR"))
    wall, cpu, memory = analyses.of_model(model, {"a CT": ct, "an MR": mr}, {"another CT": ct}, 2)
    assert [one.name.partition(":")[0] for one in (wall, cpu, memory)] == ["tiny, a CT"] * 3
    assert wall.ours > 0 and cpu.ours >= 0 and memory.met
    assert [one.name.partition(":")[0] for one in analyses.of_model(model, {"an MR": mr}, {"another CT": ct}, 1)] == ["tiny, another CT"] * 3
    (declined,) = analyses.of_model(model, {"an MR": mr}, {}, 1)
    assert declined.name == "tiny" and declined.note == "declines: an MR: no series for 'ct': Modality is MR, not CT"


def test_a_slot_that_is_empty_is_told_and_not_judged() -> None:
    """Nobody has put a network into the folder that the program brings."""
    (empty,) = analyses.of_model(load_model(bundled("models") / "image_classifier"), {}, {}, 1)
    assert (empty.ours, empty.bar) == (None, None) and empty.note == "a slot that is empty: classifier.toml, network.pt"


@pytest.mark.parametrize("start", [limit, storescp])
def test_senders_that_wait_at_a_gate_send_every_image_once(start, tmp_path):
    """The plain ones and `storescu`, each over an association of its own."""
    files = write_series(tmp_path / "images", "MR", series=2, count=3)
    with start(tmp_path / "receiver") as receiver:
        assert send(receiver, shared_out(files, 2, 2), tmp_path / "senders") > 0
        kept = sorted(file.stat().st_size for file in (tmp_path / "receiver" / "kept").iterdir())
    assert len(kept) == 4
    assert min(kept) > 256 * 256 * 2
