"""A classifier taught on labelled cases: a table names folders of DICOM files, and says of each what is true."""

import csv
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dicom_node.assemble.selection import select
from dicom_node.config import Manifest, Model
from dicom_node.domain import ConfigError, Progress, Unsuitable
from dicom_node.receive import study_of
from dicom_node.route import takings
from dicom_node.work.reading import assembled

if TYPE_CHECKING:
    from dicom_node.learn.images import Cases
    from dicom_node.methods.classification import Description

Figures = Mapping[str, Mapping[str, float]]  # label -> figure on the patients that were kept back

_ANSWERS = {"1": True, "yes": True, "true": True, "0": False, "no": False, "false": False}


def teach_on(
    description: Path, table: Path, out: Path, *, steps: int, rate: float, device: str = "cpu", say: Progress = lambda *_: None
) -> tuple[Model, Figures]:
    """Teach the classifier of a description on the cases of a table, write it as a model's folder, and return the model and its figures.

    Raises
    ------
    ConfigError: the description or the table cannot be used, or `out` exists already. Unsuitable: no series of a folder suits the input.
    """
    import torch  # late: who only tries a model needs none of this here

    from dicom_node.learn.images import teach
    from dicom_node.learn.network import description_of, package, told_of, write

    if out.exists():
        raise ConfigError(f"{out} exists already", hint="Name a new folder: a model that is in use is never changed in place.")
    said = description_of(description)
    told = told_of(said)
    with tempfile.TemporaryDirectory() as folder:
        cases = read_cases(table, write(said, Path(folder) / "model").manifest, told, lambda done, what: say(done / 2, what))
        say(0.5, f"teaching on {len(cases.patients)} cases")
        command = f"dicom-node train-images {description.name} {table.name} --steps {steps} --rate {rate}"
        taught = teach(said, told, cases, steps=steps, rate=rate, device=device, command=command)
        torch.save(dict(taught.state), Path(folder) / "network.pt")
        return package(taught.description, Path(folder) / "network.pt", out), taught.figures


def read_cases(table: Path, manifest: Manifest, told: "Description", say: Progress = lambda *_: None) -> "Cases":
    """Read the cases of a table with the columns `folder`, `patient` and one for each label, which says yes or no (or 1, 0).

    Folders are named from the table's own; without `patient`, each folder is one.

    Raises
    ------
    ConfigError: a column is missing, or an answer is none. Unsuitable: no series of a folder suits the input.
    """
    import torch

    from dicom_node.learn.images import Cases
    from dicom_node.methods.classification import taken

    with table.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise ConfigError(f"{table.name} names no cases", hint="Its columns are folder, patient and one for each label.")
    truth = np.array([[_answer(table, row, label.name) for label in told.labels] for row in rows])
    images = []
    for n, row in enumerate(rows):
        say(n / len(rows), f"reading case {n + 1} of {len(rows)}")
        images.append(taken(_volume(table.parent / _cell(table, row, "folder"), manifest), told).ready)
    return Cases(images=torch.cat(images), truth=truth, patients=[row.get("patient") or row["folder"] for row in rows])


def _volume(folder: Path, manifest: Manifest) -> object:
    """Return the volume that an analysis of this folder would see."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    study = study_of(files, manifest.keywords)
    ways = list(takings(study.series, study.series, manifest, select))
    found = next((way.series for way in ways if way.series is not None), None)
    if found is None:
        raise Unsuitable(f"no series of {folder.name} suits the classifier: {ways[0].why if ways else 'it holds no images'}")
    paths: dict[str, Sequence[Path]] = {name: [Path(instance.path) for instance in series.instances] for name, series in found.items()}
    (volume,) = (one.volume for one in assembled(manifest, paths.__getitem__).values())
    return volume


def _answer(table: Path, row: dict[str, str], label: str) -> bool:
    said = _cell(table, row, label).strip().casefold()
    if said not in _ANSWERS:
        raise ConfigError(f"{table.name}: '{said}' is no answer to '{label}'", hint="Write yes or no.")
    return _ANSWERS[said]


def _cell(table: Path, row: dict[str, str], column: str) -> str:
    if not row.get(column):
        raise ConfigError(f"{table.name} has no '{column}' in each row", hint="Its columns are folder, patient and one for each label.")
    return row[column]
