"""Runs benchmarks one after another, judges what they say against their bars, and keeps it: a table to look at, JSON, and the documents.

It knows no benchmark by name: each module of this package with a function `measures(folder)` is one, and those that measure in rounds take a
keyword `rounds` too. A benchmark that cannot run says why, and the measures it is known for count as missed.
"""

import importlib
import inspect
import json
import os
import platform
import re
import subprocess
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

import tests.benchmarks
from tests.benchmarks.measure import Measure
from tests.peers import need

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "performance.md"
RECORD = DOCUMENT.with_suffix(".json")
COLUMNS = ("measure", "ours", "peer", "unit", "ratio", "bar", "aim", "verdict", "note")
_SCRATCH = ROOT / ".benchmarks"
_PART = re.compile(r"(<!-- measured -->\n)(.*?)(<!-- end of measured -->)", re.DOTALL)
_PACKAGES = ("numpy", "pydicom", "pynetdicom", "highdicom", "SQLAlchemy", "SimpleITK", "dcmqi", "torch")

Row = dict[str, Any]  # a measure as docs/performance.json has it
Record = dict[str, Any]  # docs/performance.json


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one benchmark."""

    benchmark: str
    measures: tuple[Measure, ...]
    failure: str = ""  # why it did not run to its end


def discover(names: Sequence[str] = ()) -> list[str]:
    """Return the names of the benchmarks that were asked for, or of all: a module need not be importable to be one, and missed.

    Raises
    ------
    LookupError: there is no benchmark of that name.
    """
    files = (file for folder in tests.benchmarks.__path__ for file in sorted(Path(folder).glob("*.py")))
    there = [file.stem for file in files if re.search(r"^def measures\(", file.read_text(), re.MULTILINE)]
    if missing := [name for name in names if name not in there]:
        raise LookupError(f"there is no benchmark {', '.join(missing)}: there are {', '.join(there)}")
    return list(names) or there


@contextmanager
def scratch() -> Iterator[Path]:
    """Lend a new folder on the disk of the sources, because a temporary folder may be memory, on which flushing costs nothing.

    It goes away at the end, all at once: ext4 is slow to create files for minutes after others were deleted.
    """
    _SCRATCH.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=_SCRATCH) as folder:
        yield Path(folder)


def run(name: str, folder: Path, *, rounds: int | None = None, told: Callable[[Measure], None] = lambda measure: None) -> Outcome:
    """Run one benchmark in a folder of its own; each measure is told as it comes."""
    found: list[Measure] = []
    failure = ""
    try:
        measures = importlib.import_module(f"tests.benchmarks.{name}").measures
        takes_rounds = "rounds" in inspect.signature(measures).parameters
        for measure in measures(folder, **({"rounds": rounds} if rounds and takes_rounds else {})):
            found.append(measure)
            told(measure)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the outermost frame of a benchmark; what skips a test, when a peer is not installed, is no Exception
        failure = str(error).splitlines()[0] if str(error) else type(error).__name__
    return Outcome(benchmark=name, measures=tuple(found), failure=failure)


def recorded(before: Record, outcomes: Sequence[Outcome], *, machine: Mapping[str, Any], peers: Mapping[str, str], today: str) -> Record:
    """Return the record with what was measured now, beside what other benchmarks said before on the same machine.

    What a benchmark that failed is known for stays in the list, as not measured.
    """
    same = all(before.get("machine", {}).get(key) == machine[key] for key in ("cpu", "cores", "memory_gb"))
    kept = before.get("measures", []) if same else []
    now = {outcome.benchmark for outcome in outcomes}
    rows = [row for row in kept if row["benchmark"] not in now]
    for outcome in outcomes:
        rows += [_row(outcome.benchmark, measure, today) for measure in outcome.measures]
        said = {measure.name for measure in outcome.measures}
        if outcome.failure:
            known = [row for row in kept if row["benchmark"] == outcome.benchmark and row["measure"] not in said and row["bar"] is not None]
            rows += [_lost(row, outcome.failure, today) for row in known or [_nothing(outcome.benchmark)]]
    rows.sort(key=lambda row: row["benchmark"])  # stable: in the order in which a benchmark says them
    return {"date": today, "machine": dict(machine), "peers": {**(before.get("peers", {}) if same else {}), **peers}, "measures": rows}


def missed(record: Record, benchmarks: Sequence[str]) -> list[Row]:
    """Return the rows of some benchmarks whose bar is missed."""
    return [row for row in record["measures"] if row["benchmark"] in benchmarks and not row["met"]]


def _row(benchmark: str, measure: Measure, today: str) -> Row:
    return {
        "benchmark": benchmark,
        "measure": measure.name,
        **{key: _rounded(getattr(measure, key)) for key in ("ours", "peer", "unit", "ratio", "bar", "aim", "at_most", "met", "aimed", "note")},
        "date": today,
    }


def _lost(row: Row, failure: str, today: str) -> Row:
    return {**row, "ours": None, "peer": None, "ratio": None, "met": False, "aimed": False, "note": f"not measured: {failure}", "date": today}


def _nothing(benchmark: str) -> Row:
    nothing = Measure(name="everything that it measures", ours=None)
    return _row(benchmark, nothing, "")


def _rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def lines(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Return a table of rows, its head first, without the columns in which nothing stands."""
    columns = zip(COLUMNS, *map(cells, rows), strict=True)
    return list(zip(*(column for column in columns if any(column[1:])), strict=True))


def cells(row: Row) -> tuple[str, ...]:
    """Return what a table shows of a row, in the order of COLUMNS."""
    sign = "≤" if row["at_most"] else "≥"
    limits = (f"{sign} {row[key]:g}" if row[key] is not None else "" for key in ("bar", "aim"))
    figures = (figure(row[key]) for key in ("ours", "peer"))
    return (row["measure"], *figures, row["unit"], figure(row["ratio"]), *limits, verdict(row), row["note"])


def figure(value: float | None) -> str:
    """Return a figure with as many digits as such a measurement is worth."""
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3f}"


def verdict(row: Row) -> str:
    """Return one word or two for how a row did: nothing where it is told without a bar."""
    if not row["met"]:
        return "**missed**"
    if row["bar"] is None:
        return ""
    return "aim reached" if row["aimed"] and row["aim"] is not None else "met"


def tables(record: Record) -> str:
    """Return the record as Markdown: where and when, then a table for each benchmark."""
    machine, peers = record["machine"], record["peers"]
    where = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}, Python {machine['python']}"
    beside = "Beside " + ", ".join(f"{name} {version}" for name, version in peers.items()) + "."
    said = [f"Measured on {where}.", *textwrap.wrap(beside, 120)]
    for benchmark in dict.fromkeys(row["benchmark"] for row in record["measures"]):
        rows = [row for row in record["measures"] if row["benchmark"] == benchmark]
        dates = sorted({row["date"] for row in rows if row["date"]})
        columns, *rest = lines(rows)
        said += ["", f"### {benchmark}", "", f"`make bench NAME={benchmark}`, {', '.join(dates)}.", ""]
        said += ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in (columns, ["---"] * len(columns), *rest)]
    return "\n".join(said)


def with_tables(document: str, record: Record) -> str:
    """Return the document with its measured part as the record has it; the prose around it stays."""
    return _PART.sub(lambda part: f"{part[1]}\n{tables(record)}\n\n{part[3]}", document)


def read_record() -> Record:
    """Return what was measured before; nothing when there is none."""
    return json.loads(RECORD.read_text()) if RECORD.exists() else {}


def write(record: Record) -> None:
    """Write the record, and its tables into the document."""
    RECORD.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    DOCUMENT.write_text(with_tables(DOCUMENT.read_text(), record))


def this_machine() -> dict[str, Any]:
    """Return what of this machine decides how fast things are; neither its name nor a place on it."""
    cpu = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "system": f"Linux {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
    }


def today() -> str:
    """Return the date as documents write it."""
    return date.today().isoformat()


def peer_versions() -> dict[str, str]:
    """Return the versions of the peers that are installed, and of the libraries that both sides stand on."""
    found = {}
    for name, program in (("DCMTK", "storescp"), ("Orthanc", "Orthanc")):
        with suppress(pytest.skip.Exception):  # it is not installed
            said = subprocess.run([need(program), "--version"], capture_output=True, text=True, check=False).stdout
            found[name] = re.search(r"\d+\.\d+\.\d+", said)[0]
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
