"""The table on disk: CSV, or Parquet where pyarrow is installed. Rows are written as they come, and the memory that it takes stays flat."""

import csv
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from dicom_node.domain import ConfigError
from dicom_node.export.measured import COLUMNS, Row, rows_of
from dicom_node.store import Report, Store, reports

RESEARCH_USE = "Research use only; not for diagnosis."
_GROUP_ROWS = 16384  # of a row group

Write = Callable[[Iterable[Row]], int]  # returns how many rows there were


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What a table was made of."""

    file: Path
    rows: int
    reports: int
    replaced: int  # reports that a later one replaces: left out
    unreadable: tuple[int, ...]  # jobs whose report is gone or cannot be read


class _Reports:
    """The reports as they are gone through, newest first, and what was met on the way."""

    def __init__(self, store: Store, own_labels: Collection[str]) -> None:
        self._store = store
        self._own_labels = own_labels
        self._replaced: set[str] = set()
        self.read = self.left_out = 0
        self.unreadable: list[int] = []

    def rows(self, wanted: Iterable[Report]) -> Iterator[Row]:
        for one in wanted:
            try:
                report = dcmread(self._store.archive.path(one.path))
            except (OSError, InvalidDicomError):
                self.unreadable.append(one.job_id)
                continue
            self._replaced |= {uid for item in report.get("PredecessorDocumentsSequence") or () for uid in _references(item)}
            if report.SOPInstanceUID in self._replaced:
                self._replaced.discard(report.SOPInstanceUID)
                self.left_out += 1
                continue
            self.read += 1
            yield from rows_of(report, _of_job(one), labels=one.model in self._own_labels)


def export_measurements(
    store: Store, file: Path, *, own_labels: Collection[str], say: Callable[[int], None] = lambda reports: None, **which: Any
) -> Exported:
    """Write every number of the node's reports into a table; a report that a later one replaces is left out.

    file: its ending decides, .csv or .parquet; it appears once it is whole. own_labels: the models whose regions' labels may be told: those that
    name their regions themselves. which: `study_instance_uid`, `model`, `since`, as `store.reports` takes them.

    Raises
    ------
    ConfigError: the ending is another, or pyarrow is missing.
    """
    met = _Reports(store, own_labels)
    with _appearing(file) as part, _opened(part, file.suffix.lower()) as write:
        count = write(_told(met, reports(store.database, **which), say))
    return Exported(file=file, rows=count, reports=met.read, replaced=met.left_out, unreadable=tuple(met.unreadable))


def _told(met: _Reports, wanted: Iterable[Report], say: Callable[[int], None]) -> Iterator[Row]:
    for row in met.rows(wanted):
        say(met.read)
        yield row


def _of_job(report: Report) -> Row:
    return {
        "job_id": report.job_id,
        "completed_at": datetime.fromtimestamp(report.ended_at, UTC).isoformat(timespec="seconds"),
        "model": report.model,
        "model_version": report.model_version,
        "device_uid": report.device_uid,
        "use": RESEARCH_USE,
    }


def _references(item: Dataset) -> Iterator[str]:
    for series in item.ReferencedSeriesSequence:
        yield from (str(one.ReferencedSOPInstanceUID) for one in series.ReferencedSOPSequence)


@contextmanager
def _appearing(file: Path) -> Iterator[Path]:
    """Give a file to write to that takes the place of the wanted one when all went well, and is gone when it did not."""
    part = file.with_name(f".{file.name}.part")
    try:
        yield part
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _opened(file: Path, ending: str) -> Iterator[Write]:
    if ending == ".csv":
        with file.open("w", newline="", encoding="utf-8") as opened:
            writer = csv.DictWriter(opened, [column.name for column in COLUMNS])
            writer.writeheader()
            yield lambda rows: sum(1 for row in rows if writer.writerow(row))
    elif ending == ".parquet":
        pyarrow, parquet = _pyarrow()
        kinds = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64()}
        fields = [pyarrow.field(c.name, kinds[c.kind], metadata={"meaning": c.meaning}) for c in COLUMNS]
        schema = pyarrow.schema(fields, metadata={"use": RESEARCH_USE})
        with parquet.ParquetWriter(file, schema, compression="zstd") as opened:
            yield lambda rows: _in_groups(iter(rows), lambda group: opened.write_table(pyarrow.Table.from_pylist(group, schema=schema)))
    else:
        raise ConfigError(f"'{ending}' is no table that can be written", hint="Name the file .csv or .parquet.")


def _in_groups(rows: Iterator[Row], write: Callable[[list[Row]], None]) -> int:
    count = 0
    while group := list(islice(rows, _GROUP_ROWS)):
        write(group)
        count += len(group)
    return count


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow  # an extra: a node that writes no Parquet does without its hundred megabytes
        from pyarrow import parquet
    except ImportError as error:
        hint = "pip install 'dicom-node[parquet]', or name the file .csv."
        raise ConfigError("Parquet needs pyarrow, which is not installed", hint=hint) from error
    return pyarrow, parquet


def read_table(file: Path) -> Iterator[Row]:
    """Give the rows of a table, CSV or Parquet, with every value a text; what is missing is an empty one.

    Raises
    ------
    ConfigError: the ending is another, the file cannot be read as a table, or pyarrow is missing.
    """
    ending = file.suffix.lower()
    if ending not in (".csv", ".parquet"):
        raise ConfigError(f"{file} is neither .csv nor .parquet", hint="Give a table as `dicom-node export` writes it.")
    try:
        for row in _csv_rows(file) if ending == ".csv" else _parquet_rows(file):
            yield {str(name): "" if value is None else str(value) for name, value in row.items() if name}
    except (ValueError, csv.Error) as error:
        raise ConfigError(f"{file} cannot be read as a table: {error}", hint="Give a table as `dicom-node export` writes it.") from error


def _csv_rows(file: Path) -> Iterator[Row]:
    with file.open(newline="", encoding="utf-8-sig") as opened:
        yield from csv.DictReader(opened)


def _parquet_rows(file: Path) -> Iterator[Row]:
    _, parquet = _pyarrow()
    for batch in parquet.ParquetFile(file).iter_batches(_GROUP_ROWS):
        yield from batch.to_pylist()
