"""Findings read with the manifest beside them: what each number, mask and answer means, what is missing, what is implausible."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dicom_node.config import Code, Evaluation, Manifest, Measurement, Segment
from dicom_node.domain import FRACTION_HALF, Assembled, Findings, ModelFailed
from dicom_node.report.words import spelled

_SAME = 1e-3  # relative: how far a spacing may be off and still be the same
_VOLUME_UNITS = {"mL": 1.0, "ml": 1.0, "cm3": 1.0, "mm3": 0.001, "L": 1000.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One number, and what it was measured on."""

    name: str
    meaning: Measurement
    segment: int | None  # the manifest's number
    value: float  # in the manifest's unit; not finite when there was nothing to measure


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """All that is to be said."""

    # On the grid of the first input (slice, row, column) the manifest's segment numbers, or where it says `fractional`
    # (segment, slice, row, column) bytes, 255 being 1.0; none: not segmented.
    voxels: np.ndarray | None
    shown: np.ndarray  # (slice, the manifest's segment number) whether there is anything to show
    present: tuple[Segment, ...]  # segments with at least one voxel; of fractions, one that reaches 0.5
    absent: tuple[Segment, ...]  # segments that were looked for and not found
    volumes_ml: Mapping[int, str]  # of each present segment, as it is written
    readings: tuple[Reading, ...]
    answers: tuple[tuple[Evaluation, Code], ...]
    missing: tuple[str, ...]  # outputs that the manifest describes and the analysis did not give
    remarks: tuple[str, ...]  # sentences for the reader


def interpret(findings: Findings, inputs: Mapping[str, Assembled], manifest: Manifest) -> Outcome:
    """Read findings with the manifest beside them.

    Raises
    ------
    ModelFailed: the findings hold something that the manifest does not describe, or a mask that is not on the input's grid.
    """
    _known(findings, manifest)
    assembled = inputs[next(iter(manifest.inputs))]
    voxels = _voxels(findings, assembled, manifest)
    shown, counts = (_counted_fractions if manifest.fractional else _counted_numbers)(voxels, len(manifest.segments))
    readings = tuple(reading for name in manifest.measurements for reading in _readings(name, findings, manifest))
    present = tuple(s for s in manifest.segments if counts[s.number])
    voxel_ml = float(assembled.volume.voxel_volume) / 1000
    return Outcome(
        voxels=voxels,
        shown=shown,
        present=present,
        absent=() if voxels is None else tuple(s for s in manifest.segments if not counts[s.number]),
        volumes_ml={s.number: _volume(readings, s.number, counts[s.number] * voxel_ml) for s in present},
        readings=readings,
        answers=tuple(_answer(name, findings, evaluation) for name, evaluation in manifest.evaluations.items() if name in findings.evaluations),
        missing=_missing(findings, manifest, readings),
        remarks=(*findings.notes, *(note for a in inputs.values() for note in a.notes), *_implausible(readings, manifest)),
    )


def _known(findings: Findings, manifest: Manifest) -> None:
    for kind, given, described in (
        ("measurements", findings.measurements, manifest.measurements),
        ("evaluations", findings.evaluations, manifest.evaluations),
        *((kind, getattr(findings, kind), getattr(manifest, kind)) for kind in ("images", "maps", "presentations", "keys")),
    ):
        unknown = [name for name in given if name not in described]
        if unknown:
            raise ModelFailed(f"the analysis returned {kind} '{unknown[0]}', unknown to its model.toml", hint=f"Describe it under [{kind}].")
    if findings.segments is not None and not manifest.segments:
        raise ModelFailed("the analysis returned segments, and its model.toml describes none", hint="Describe them under [[segments]].")


def _voxels(findings: Findings, assembled: Assembled, manifest: Manifest) -> np.ndarray | None:
    """Return segment numbers or fractions on the input's grid: flips, crops and padding are undone, nothing is resampled."""
    segments, count = findings.segments, len(manifest.segments)
    if segments is None:
        return None
    segments = _fractions(segments, count) if manifest.fractional else _numbers(segments, count)
    if not np.allclose(sorted(segments.spacing), sorted(assembled.volume.spacing), rtol=_SAME):
        raise ModelFailed("the segments have another voxel size than the input", hint="Resample them to the input's grid inside the model.")
    try:
        array = segments.match_geometry(assembled.volume).array
    except RuntimeError as error:
        raise ModelFailed(f"the segments do not lie on the input's grid: {error}", hint="Return them with `volume.with_array`.") from error
    return np.moveaxis(array, 3, 0) if manifest.fractional else np.ascontiguousarray(array)


def _numbers(segments: Any, count: int) -> Any:
    if segments.array.ndim != 3:
        raise ModelFailed(f"the segments have {segments.array.ndim} dimensions", hint="Return segment numbers by slice, row and column.")
    low, high = segments.array.min(initial=False), segments.array.max(initial=False)
    whole = segments.array.dtype.kind in "biu" or np.array_equal(segments.array, np.trunc(segments.array))
    if not whole or low < 0 or high > count:
        described = f"model.toml describes 1 to {count}"
        raise ModelFailed(f"the segments hold values from {low} to {high}; {described}", hint="Return whole numbers; 0 is background.")
    return segments.with_array(segments.array.astype(np.uint8 if high < 256 else np.uint16, copy=False))


def _fractions(segments: Any, count: int) -> Any:
    given = segments.array
    if given.dtype != np.uint8 or given.shape[3:] != (count,):
        raise ModelFailed(
            f"the segments are {given.dtype} of shape {given.shape}; model.toml describes fractions of {count}",
            hint="Return uint8, 255 being 1.0, by slice, row, column and segment.",
        )
    return segments


def _counted_numbers(labels: np.ndarray | None, segments: int) -> tuple[np.ndarray, np.ndarray]:
    """Return whether there is anything to show by slice and segment number, and the number of voxels by segment number.

    Counted slice by slice: at once, a large volume would be copied to 64 bits.
    """
    by_slice = [np.bincount(plane[plane != 0], minlength=segments + 1) for plane in (() if labels is None else labels)]
    counts = np.array(by_slice, np.int64).reshape(-1, segments + 1)
    return counts > 0, counts.sum(axis=0)


def _counted_fractions(fractions: np.ndarray | None, segments: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the same for fractions, of which any above 0 is shown, and those that are at least a half are counted."""
    shown = np.zeros((0 if fractions is None else fractions.shape[1], segments + 1), bool)
    counts = np.zeros(segments + 1, np.int64)
    for number, planes in enumerate(() if fractions is None else fractions, start=1):
        for index, plane in enumerate(planes):
            highest = plane.max()
            shown[index, number] = highest > 0
            counts[number] += np.count_nonzero(plane >= FRACTION_HALF) if highest >= FRACTION_HALF else 0
    return shown, counts


def _readings(name: str, findings: Findings, manifest: Manifest) -> list[Reading]:
    if name not in findings.measurements:
        return []
    meaning, given = manifest.measurements[name], findings.measurements[name]
    if isinstance(given, Mapping):
        strange = [number for number in given if number not in meaning.on]
        if strange:
            raise ModelFailed(f"measurement '{name}' is given for segment {strange[0]}, unlike in model.toml", hint="See [measurements].")
        return [Reading(name=name, meaning=meaning, segment=number, value=_number(given[number])) for number in meaning.on if number in given]
    if len(meaning.on) > 1:
        raise ModelFailed(f"measurement '{name}' is one number for {len(meaning.on)} segments", hint="Return a mapping: segment number to value.")
    return [Reading(name=name, meaning=meaning, segment=meaning.on[0] if meaning.on else None, value=_number(given))]


def _number(given: float | None) -> float:
    return math.nan if given is None else float(given)


def _answer(name: str, findings: Findings, evaluation: Evaluation) -> tuple[Evaluation, Code]:
    answer = findings.evaluations[name]
    if answer not in evaluation.answers:
        listed = ", ".join(evaluation.answers)
        raise ModelFailed(f"evaluation '{name}' is answered '{answer}'; model.toml lists {listed}", hint="Return one of these.")
    return evaluation, evaluation.answers[answer]


def _missing(findings: Findings, manifest: Manifest, readings: tuple[Reading, ...]) -> tuple[str, ...]:
    given = {(reading.name, reading.segment) for reading in readings}
    missing = ["segments"] if manifest.segments and findings.segments is None else []
    for name, meaning in manifest.measurements.items():
        for number in meaning.on or (None,):
            if (name, number) not in given:
                missing.append(name if number is None else f"{name} of segment {number}")
    missing += [name for name in manifest.evaluations if name not in findings.evaluations]
    for kind in ("images", "maps", "presentations", "keys"):
        missing += [name for name in getattr(manifest, kind) if name not in getattr(findings, kind)]
    return tuple(missing)


def _volume(readings: tuple[Reading, ...], number: int, counted_ml: float) -> str:
    """Write a segment's volume: as the model measured it, so that two places never disagree; else as its voxels count."""
    for reading in readings:
        factor = _VOLUME_UNITS.get(reading.meaning.unit.value)
        if reading.segment == number and factor is not None and math.isfinite(reading.value):
            return f"{spelled(reading.value, reading.meaning.digits)} {reading.meaning.unit.value}"
    return f"{spelled(counted_ml, 0 if counted_ml >= 100 else 1)} mL"


def _implausible(readings: tuple[Reading, ...], manifest: Manifest) -> list[str]:
    said = []
    for reading in readings:
        limits, digits = reading.meaning.plausible, reading.meaning.digits
        if limits is not None and math.isfinite(reading.value) and not limits[0] <= reading.value <= limits[1]:
            where = "" if reading.segment is None else f" of {manifest.segments[reading.segment - 1].label}"
            said.append(
                f"{reading.meaning.concept.meaning}{where} is {spelled(reading.value, digits)} {reading.meaning.unit.value}, outside of what is "
                f"plausible ({spelled(limits[0], digits)} to {spelled(limits[1], digits)}): the input or the result may be at fault."
            )
    return said
