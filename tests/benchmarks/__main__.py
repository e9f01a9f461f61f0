"""`python -m tests.benchmarks`: runs the benchmarks, prints what they say, keeps it in `docs/`, and exits with 1 where a bar is missed."""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import structlog
from rich.console import Console
from rich.status import Status
from rich.table import Table

from tests.benchmarks import frame, progress
from tests.benchmarks.measure import Measure

_COLOURS = {"**missed**": "bold red", "met": "green", "aim reached": "bold green", "": "dim"}


def main() -> int:
    """Run, print, write; return 1 where a bar is missed."""
    chosen = _options()
    try:
        names = frame.discover(chosen.names)
    except LookupError as error:
        raise SystemExit(str(error)) from error
    screen = Console(stderr=True)
    # What the node logs in this process, as its scanner does, goes where the progress is shown: the answer is alone on the standard output.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr), wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with nullcontext(chosen.folder) if chosen.folder else frame.scratch() as folder:
        outcomes = _run(names, folder, chosen.rounds, screen)
    before = frame.read_record()
    record = frame.recorded(before, outcomes, machine=frame.this_machine(), peers=frame.peer_versions(), today=frame.today())
    if not chosen.no_write:
        frame.write(record)
    if chosen.json:
        print(json.dumps({**record, "measures": _of(record, names)}, indent=1, ensure_ascii=False))
    else:
        _print(record, names)
    for outcome in outcomes:
        if outcome.failure:
            screen.print(f"[bold red]{outcome.benchmark} did not run to its end:[/] {outcome.failure}", highlight=False)
    return 1 if frame.missed(record, names) else 0


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    options.add_argument("names", nargs="*", metavar="NAME", help="which benchmarks; none: all of them")
    options.add_argument("--rounds", type=int, help="how often each thing is measured; the median counts")
    options.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options.add_argument("--no-write", action="store_true", help="leave docs/performance.md and docs/performance.json as they are")
    options.add_argument("--folder", type=Path, help="a new folder to work in, which is left as it is")
    return options.parse_args()


def _run(names: Sequence[str], folder: Path, rounds: int | None, screen: Console) -> list[frame.Outcome]:
    outcomes = []
    for number, name in enumerate(names, 1):
        here = folder / name
        here.mkdir(parents=True)
        title = f"{number}/{len(names)} {name}"
        with screen.status(title) as status, progress.watched(partial(_show, status, title)):
            outcomes.append(frame.run(name, here, rounds=rounds, told=partial(_tell, screen, name)))
    return outcomes


def _show(status: Status, title: str, doing: str) -> None:
    status.update(f"{title} {doing}")


def _tell(screen: Console, benchmark: str, measure: Measure) -> None:
    screen.print(f"{benchmark}: {measure.name}: {frame.figure(measure.ours)} {measure.unit}", highlight=False)


def _of(record: frame.Record, names: Sequence[str]) -> list[frame.Row]:
    return [row for row in record["measures"] if row["benchmark"] in names]


def _print(record: frame.Record, names: Sequence[str]) -> None:
    console = Console(width=None if sys.stdout.isatty() else 200)
    for name in names:
        table = Table(title=name, title_justify="left")
        rows = _of(record, [name])
        columns, *lines = frame.lines(rows)
        for column in columns:
            table.add_column(column, justify="right" if column in ("ours", "peer", "ratio", "bar", "aim") else "left")
        for row, line in zip(rows, lines, strict=True):
            table.add_row(*(cell.strip("*") for cell in line), style=_COLOURS[frame.verdict(row)])
        console.print(table)


if __name__ == "__main__":
    sys.exit(main())
