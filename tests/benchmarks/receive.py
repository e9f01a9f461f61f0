"""How fast images come in: the node beside the limit, DCMTK's `storescp` and Orthanc.

The sender is `storescu` (DCMTK) with TCP_NODELAY=1, and once with Nagle's algorithm on, as it is by default and as many modalities have it.
Each round measures every load on every receiver in turn, each time on a newly started receiver with a new folder, once nothing is left unwritten.
`python -m tests.benchmarks.receive --profile` says where the node's time goes.
"""

import argparse
import os
import re
import shutil
import signal
import statistics
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks import progress
from tests.benchmarks.frame import scratch
from tests.benchmarks.images import shared_out, write_series
from tests.benchmarks.measure import Measure
from tests.benchmarks.receivers import RECEIVERS, Receiver, memory_mb, ours, send

ROUNDS = 5
ROUND_GB = 6  # nothing is deleted between rounds
SERIES = {"CT": (64, 40), "MR": (4, 300)}  # series, images of each; enough for every load


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is sent: so many images over each of so many associations at once."""

    name: str
    receivers: tuple[str, ...]
    modality: str = "CT"
    associations: int = 1
    each: int = 300
    nagle: bool = False


ALL = ("ours", "limit", "storescp", "Orthanc")
INSTALLED = ("storescp as installed", "Orthanc as installed")
SEVERAL = "ours in two processes"
LOADS = (
    Load(name="CT 1", receivers=ALL),
    Load(name="CT 1", receivers=INSTALLED, each=40),  # they may take two seconds for these
    Load(name="CT 4", receivers=(*ALL, SEVERAL), associations=4, each=150),
    Load(name="CT 16", receivers=("ours",), associations=16, each=60),
    Load(name="CT 64", receivers=("ours",), associations=64, each=40),
    Load(name="Nagle", receivers=("ours",), nagle=True),
    Load(name="Nagle", receivers=(*INSTALLED, "storescp", "Orthanc"), each=40, nagle=True),
    Load(name="MR 4", receivers=ALL, modality="MR", associations=4),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Two of the rates that are set beside each other; each is named by its load and its receiver."""

    name: str
    one: tuple[str, str]
    other: tuple[str, str]
    bar: float | None = None
    aim: float | None = None


def _ours(what: str, load: str, peer: str, bar: float | None = None, aim: float | None = None) -> Row:
    return Row(name=f"{what}: ours ÷ {peer}", one=(load, "ours"), other=(load, peer), bar=bar, aim=aim)


_AT_4 = ("CT 4", "ours")
ROWS = (
    _ours("receive CT, 1 association", "CT 1", "limit", 0.6, 0.85),
    _ours("receive CT, 4 associations", "CT 4", "limit", 0.55, 0.85),
    _ours("receive CT, 1 association", "CT 1", "storescp", 0.4, 0.6),
    _ours("receive CT, 4 associations", "CT 4", "storescp", 0.4, 0.8),
    _ours("receive CT, 1 association", "CT 1", "Orthanc", 2.2, 3.5),
    _ours("receive CT, 4 associations", "CT 4", "Orthanc", 2.2, 3.5),
    _ours("receive CT, sender with Nagle on", "Nagle", "storescp as installed", 30.0, 50.0),
    _ours("receive CT, sender with Nagle on", "Nagle", "Orthanc as installed", 30.0, 50.0),
    _ours("receive MR, 4 associations", "MR 4", "Orthanc", 1.5, 3.0),
    Row(name="receive CT, 16 associations: rate ÷ rate at 4", one=("CT 16", "ours"), other=_AT_4, bar=0.9, aim=1.0),
    Row(name="receive CT, 64 associations: rate ÷ rate at 4", one=("CT 64", "ours"), other=_AT_4, bar=0.9, aim=1.0),
    _ours("receive MR, 4 associations", "MR 4", "limit"),
    _ours("receive MR, 4 associations", "MR 4", "storescp"),
    _ours("receive CT, 1 association", "CT 1", "storescp as installed"),
    _ours("receive CT, 1 association", "CT 1", "Orthanc as installed"),
    _ours("receive CT, sender with Nagle on", "Nagle", "storescp"),
    _ours("receive CT, sender with Nagle on", "Nagle", "Orthanc"),
    Row(name="receive CT, 4 associations: ours in two processes ÷ in one", one=("CT 4", SEVERAL), other=_AT_4),
)

Rates = Mapping[tuple[str, str], list[float]]  # images a second, of (load, receiver) in each round


def measures(folder: Path, rounds: int = ROUNDS) -> Iterator[Measure]:
    """Say how fast the node receives beside each of the others, how it does with many associations, and how much memory it takes."""
    free_gb, need_gb = shutil.disk_usage(folder).free / 1e9, 2 + ROUND_GB * rounds
    if free_gb < need_gb:
        raise RuntimeError(f"the disk has {free_gb:.0f} GB free and {rounds} rounds take {need_gb:.0f}")
    rates, peaks = _measured(folder, rounds)
    yield from (_compared(rates, row) for row in ROWS)
    yield _memory(peaks)


def _measured(folder: Path, rounds: int) -> tuple[Rates, list[tuple[float, float]]]:
    """Return the rates, and of each round the most memory at 64 associations (MB) and what was left of it at their end."""
    progress.say("making images")
    files = {modality: write_series(folder / modality, modality, series=many, count=each) for modality, (many, each) in SERIES.items()}
    rates: dict[tuple[str, str], list[float]] = defaultdict(list)
    memory = []
    for number in range(rounds):
        for load in LOADS:
            for name in load.receivers:
                progress.say(f"round {number + 1} of {rounds}: {load.name}, {name}")
                here = folder / f"{number}-{load.name}-{name}".replace(" ", "-")
                with RECEIVERS[name](here / "receiver") as receiver:
                    rates[load.name, name].append(_rate(receiver, load, files[load.modality], here / "senders"))
                    if load.associations == 64:
                        memory.append(memory_mb(receiver.pid))
    return rates, memory


def _rate(receiver: Receiver, load: Load, files: Sequence[Path], folder: Path) -> float:
    shares = shared_out(files, load.associations, load.each)
    os.sync()  # what others have left unwritten is not waited for in this one's time
    return load.associations * load.each / send(receiver, shares, folder, nagle=load.nagle)


def _compared(rates: Rates, row: Row) -> Measure:
    """Return the median of the rounds' ratios: what drifts from one round to the next drifts for both."""
    ours, others = rates[row.one], rates[row.other]
    ratio = statistics.median(one / other for one, other in zip(ours, others, strict=True))
    note = f"{_spread(ours)} beside {_spread(others)}"
    return Measure(
        name=row.name,
        ours=statistics.median(ours),
        peer=statistics.median(others),
        unit="images/s",
        ratio=ratio,
        bar=row.bar,
        aim=row.aim,
        note=note,
    )


def _spread(values: Sequence[float]) -> str:
    return f"{min(values):.0f}–{max(values):.0f}"


def _memory(peaks: Sequence[tuple[float, float]]) -> Measure:
    peak, now = (statistics.median(column) for column in zip(*peaks, strict=True))
    name = "RSS of the receiving process at 64 associations"
    note = f"at most; {now:.0f} MB when they had ended"
    return Measure(name=name, ours=peak, unit="MB", ratio=peak, bar=250.0, aim=150.0, at_most=True, note=note)


# ------------------------------------------------------------------------------------------------------------- profile


def _profile() -> None:
    """Print, for one and for four associations, the functions of the node that took most of its time (py-spy, which has to be installed)."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--profile", action="store_true", required=True)
    options.add_argument("--lines", type=int, default=20, help="how many functions are told of")
    chosen = options.parse_args()
    with scratch() as folder:
        files = write_series(folder / "CT", "CT", series=4, count=600)
        for associations in (1, 4):
            load = Load(name=f"CT {associations}", receivers=("ours",), associations=associations, each=len(files) // associations)
            print(f"\n{load.name}\n\n" + _profiled(load, files, folder / str(associations), chosen.lines))


def _profiled(load: Load, files: Sequence[Path], folder: Path, lines: int) -> str:
    stacks = folder / "stacks"
    with ours(folder / "receiver") as receiver:
        command = ["py-spy", "record", "--rate", "200", "--format", "raw", "--function", "--output", str(stacks), "--pid", str(receiver.pid)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as spy:
            rate = _rate(receiver, load, files, folder / "senders")
            spy.send_signal(signal.SIGINT)  # it writes when it is interrupted
    return f"{rate:.0f} images/s while watched\n\n" + _by_self_time(stacks.read_text(), lines)


_WAITING = re.compile(r"Condition\.wait |\.select |_worker |run_reactor ")  # py-spy takes some threads that wait for ones that run


def _by_self_time(stacks: str, lines: int) -> str:
    """Return a table of the functions at the end of collapsed stacks ("outer;inner count"), most samples first, those that only wait aside."""
    own: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        if (function := stack.rpartition(";")[2]) and not _WAITING.search(function):
            own[function] += int(count)
    rows = [f"| `{name}` | {100 * count / own.total():.1f} |" for name, count in own.most_common(lines)]
    return "\n".join(["| function | % of the samples in which a thread ran |", "| --- | --- |", *rows])


if __name__ == "__main__":
    _profile()
