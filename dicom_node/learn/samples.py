"""Rows of measurements and a table of labels as samples: one for each region, with its features, its class and its patient."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicom_node.config import Manifest
from dicom_node.domain import ConfigError

_REGION = ("sop_instance_uid", "segmentation_sop_instance_uid", "segment_number", "tracking_uid")  # what tells regions apart
_FEATURE = ("concept_code", "concept_scheme", "derivation", "method")  # what tells features apart
_PATIENT, _LABEL = "patient", "label"

Row = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """What a classifier learns from."""

    features_of: str  # the model whose features they are
    names: tuple[str, ...]  # of the features, as that model's manifest has them
    x: NDArray[Any]  # (sample, feature)
    y: NDArray[Any]  # (sample,), 1 for the positive label
    patients: NDArray[Any]  # (sample,), the labels' `patient`, else the study
    positive: str
    negative: str
    unlabelled: int  # regions that no label names: left out
    dropped: tuple[str, ...]  # features that are undefined on some region, or the same on all: left out


def samples_of(rows: Iterable[Row], labels: Iterable[Row], manifests: Mapping[str, Manifest], *, positive: str = "") -> Samples:
    """Join measurements with labels.

    rows: as `dicom-node export` writes them, of one of the models in `manifests`. labels: rows with a `label`, with columns of that table that say
    which regions are meant, such as `study_instance_uid` and `tracking_uid`, and with `patient` where a patient may have several studies.
    positive: the label of class 1; none: the last of the two in alphabetical order.

    Raises
    ------
    ConfigError: the tables do not fit together, there are not two labels, or the features are of several models.
    """
    regions, features_of = _regions(rows, manifests)
    wanted = _Labels(labels)
    found = [(one, label) for one in regions if (label := wanted.of(one.row)) is not None]
    if not found:
        raise ConfigError("no label names a region of the table", hint=f"The columns that both have are {', '.join(wanted.columns)}.")
    kinds = sorted({row[_LABEL] for _, row in found})
    if len(kinds) != 2 or (positive and positive not in kinds):
        raise ConfigError(f"the regions have the labels {', '.join(kinds)}", hint="Two are needed, and the positive is one of them.")
    positive = positive or kinds[1]
    names = tuple(manifests[features_of].measurements)
    x = np.array([[one.values.get(name, np.nan) for name in names] for one, _ in found])
    kept = np.isfinite(x).all(axis=0) & (x.max(axis=0) - x.min(axis=0) > 0)
    return Samples(
        features_of=features_of,
        names=tuple(np.array(names)[kept]),
        x=x[:, kept],
        y=np.array([row[_LABEL] == positive for _, row in found], int),
        patients=np.array([row.get(_PATIENT) or one.row.get("study_instance_uid", "") for one, row in found]),
        positive=positive,
        negative=next(kind for kind in kinds if kind != positive),
        unlabelled=len(regions) - len(found),
        dropped=tuple(np.array(names)[~kept]),
    )


@dataclass(slots=True)
class _Region:
    row: Row  # one of its rows: what it says of the region they all say
    values: dict[str, float]


def _regions(rows: Iterable[Row], manifests: Mapping[str, Manifest]) -> tuple[list[_Region], str]:
    """Return the regions that were described by one of the models, and its name."""
    known = {model: _features(manifest) for model, manifest in manifests.items()}
    regions: dict[tuple[str, ...], _Region] = {}
    for row in rows:
        name = known.get(row.get("model", ""), {}).get(tuple(row.get(column, "") for column in _FEATURE))
        if name and row.get("value"):
            _same_version(row, manifests[row["model"]])
            regions.setdefault(tuple(row.get(column, "") for column in _REGION), _Region(row, {})).values[name] = float(row["value"])
    models = sorted({one.row["model"] for one in regions.values()})
    if len(models) != 1:
        listed = ", ".join(manifests)
        raise ConfigError(
            f"the table holds features of {' and '.join(models)}" if models else f"the table holds no features of {listed}",
            hint=f"Export those of one: dicom-node export --measurements FILE --model {next(iter(manifests))}.",
        )
    return list(regions.values()), models[0]


def _features(manifest: Manifest) -> dict[tuple[str, ...], str]:
    """Return what a row says of each feature -> its name."""
    return {
        (m.concept.value, m.concept.scheme, m.derivation.meaning if m.derivation else "", m.method.meaning if m.method else ""): name
        for name, m in manifest.measurements.items()
    }


def _same_version(row: Row, manifest: Manifest) -> None:
    if row.get("model_version") != manifest.version:
        raise ConfigError(
            f"the table holds features of {manifest.name} {row.get('model_version')}, and this program has {manifest.version}",
            hint="Have the regions measured again: dicom-node retry JOB.",
        )


class _Labels:
    """The labels, found by the columns that they share with the measurements."""

    def __init__(self, rows: Iterable[Row]) -> None:
        given = list(rows)
        if not given or _LABEL not in given[0]:
            raise ConfigError("the labels have no column 'label'", hint="Give one row for each region: columns that name it, and label.")
        self.columns = tuple(name for name in given[0] if name not in (_LABEL, _PATIENT))
        self._found: dict[tuple[str, ...], Row] = {}
        for row in given:
            before = self._found.setdefault(self._key(row), row)
            if before[_LABEL] != row[_LABEL]:
                raise ConfigError(f"one region has the labels {before[_LABEL]} and {row[_LABEL]}", hint="Name regions by their tracking_uid too.")

    def of(self, region: Row) -> Row | None:
        """Return a region's row among the labels, if it has one.

        Raises
        ------
        ConfigError: the labels have a column that the measurements have not.
        """
        strange = [column for column in self.columns if column not in region]
        if strange:
            raise ConfigError(f"the labels have a column '{strange[0]}', which the measurements have not", hint="Leave it out.")
        return self._found.get(self._key(region))

    def _key(self, row: Row) -> tuple[str, ...]:
        return tuple(row[column] for column in self.columns)
