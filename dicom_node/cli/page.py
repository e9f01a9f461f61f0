"""How a verb shows things: a table where a person looks, JSON where a program reads."""

import json
import logging
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dicom_node.domain import Rejected, plain
from dicom_node.domain.words import ago, moment, step_of

if TYPE_CHECKING:
    from dicom_node.config import Site
    from dicom_node.store import Event, Store

__all__ = [
    "ConfigOption",
    "JsonOption",
    "LimitOption",
    "StorageOption",
    "ago",
    "is_job",
    "log_to_stderr",
    "moment",
    "one_study",
    "person",
    "plain",
    "silence_libraries",
    "site_of",
    "step",
    "table",
    "write",
]

ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", envvar="DICOM_NODE_CONFIG", help="The site's node.toml; none: the defaults.")]
StorageOption = Annotated[
    Path | None, typer.Option("--storage", envvar="DICOM_NODE_STORAGE", help="The storage folder, instead of the configured one.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
LimitOption = Annotated[int, typer.Option("--limit", "-n", help="How many at most.")]


def site_of(config: Path | None, storage: Path | None, **node: Any) -> "Site":
    """Load the site that a verb's options name."""
    from dicom_node.config import load_site  # it needs pydicom's dictionaries, a third of a second

    said = {key: value for key, value in {"storage": storage, **node}.items() if value is not None}
    return load_site(config, node=said) if said else load_site(config)


def write(rows: Sequence[Mapping[str, Any]] | Mapping[str, Any]) -> None:
    """Print rows, or one thing, as JSON."""
    typer.echo(json.dumps(plain(rows), indent=2, ensure_ascii=False))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], empty: str = "nothing") -> None:
    """Print a table; columns that begin with `#` hold numbers and stand to the right."""
    from rich.console import Console
    from rich.table import Table

    # A pipe has no width of its own: wide enough that nothing a script greps for is cut.
    console = Console(width=None if sys.stdout.isatty() else 200)
    if not rows:
        console.print(f"{title}: {empty}", highlight=False)
        return
    console.print(title, style="italic", highlight=False, markup=False, soft_wrap=True)  # a table's own title is folded to the table's width
    shown = Table(header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        shown.add_column(column.lstrip("#"), justify="right" if column.startswith("#") else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(str(cell) for cell in row))
    console.print(shown, highlight=False, markup=False)


def step(event: "Event") -> str:
    """Name what happened; of a delivery also what went where."""
    return step_of(event.kind, event.detail)


def one_study(found: Sequence[str], text: str) -> str:
    """Return the one study that a person meant by a UID or its end.

    Raises
    ------
    Rejected: no study, or more than one, ends with it.
    """
    if len(found) == 1:
        return found[0]
    if not found:
        raise Rejected(f"no study's UID is or ends with '{text}'", hint="dicom-node studies lists them.")
    raise Rejected(f"{len(found)} studies end with '{text}'", hint="Type more of the UID.")


def is_job(store: "Store", what: str) -> bool:
    """Say whether a person means a job: by a number that a job has, or that is the end of no study's UID either."""
    return what.isdecimal() and len(what) < 10 and (store.jobs.exists(int(what)) or not store.studies.find(what))


def person() -> str:
    """Name the person at the keyboard, for the journal."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "operator"


def silence_libraries() -> None:
    """Let no library speak for itself: pydicom warns of odd values by quoting them, and a value may be a patient's name."""
    warnings.simplefilter("ignore")
    for library in ("pydicom", "pynetdicom", "highdicom", "apscheduler"):
        logging.getLogger(library).setLevel(logging.CRITICAL)


def log_to_stderr(level: int) -> None:
    """One event a line: JSON, or coloured where a person looks."""
    import pydicom
    import structlog

    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    shown: Any = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            shown,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
