"""What a model returned, settled against what its manifest says: the grid, the segments, the names and the numbers.

The decision is made here and nowhere else, so `report` may rely on it.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from highdicom import Volume

from dicom_node.analyse import wire
from dicom_node.config import FOUND, Manifest, Measurement
from dicom_node.domain import FRACTION_HALF, MARK_POINTS, SEGMENT_AXIS, Findings, Mark, ModelFailed, Presentation

_TEXT_MAX = 256  # characters beside a mark
_OFF_GRID_VOXELS = 0.01  # how far a corner of the mask may lie from a voxel's centre: rounding, not resampling


def settle(findings: Findings, manifest: Manifest, inputs: Mapping[str, Volume]) -> Findings:
    """Return the findings as the manifest promises them.

    segments: a Volume of segment numbers (uint8, or uint16 above 255 segments) on the exact grid of the manifest's first input, with its frame
    of reference; flips, permutations, crops and pads are undone. None only where the manifest describes no segments. Where it says `fractional`,
    a Volume of fractions (uint8, 255 being 1.0): (slice, row, column, segment), the last axis also where there is one segment.
    measurements: every name of the manifest; finite; a measurement on several segments is a mapping segment number -> value.
    What could not be measured because its segment is empty, or what is undefined on a region that others drew, stays None; what belongs to a
    presentation that is not made is left out.
    evaluations: every name of the manifest, with a known answer.
    images, maps: every name of the manifest, a Volume of finite numbers on the exact grid of its input; flips and permutations are undone.
    presentations, keys: every name of the manifest; what they point at lies in their input.
    Where the manifest says `found`, the segments are numbered from 1 without holes, and it is to be read by `of_found` of their number.

    Raises
    ------
    ModelFailed: the findings and the manifest do not agree; the message says in which point.
    """
    given = findings.segments
    if manifest.regions is not None:  # what was measured on is what was drawn, whatever the model makes of it
        if given is not None:
            raise ModelFailed("the model gave segments, though its input brings them", hint="Return measurements of the regions, and no segments.")
        given = inputs[manifest.regions]
    manifest, findings = _as_made(*_as_found(manifest, findings))
    volume, notes = _segments(given, manifest, inputs[next(iter(manifest.inputs))])
    empty = _Empty(volume, manifest)
    _same_names("measurement", findings.measurements, manifest.measurements)
    _same_names("evaluation", findings.evaluations, manifest.evaluations)
    for kind in ("images", "maps", "presentations", "keys"):
        _same_names(kind.removesuffix("s"), getattr(findings, kind), getattr(manifest, kind))
    measured = {name: _measured(name, findings.measurements[name], m, empty) for name, m in manifest.measurements.items()}
    return Findings(
        segments=volume,
        measurements=measured,
        evaluations={name: _answer(name, findings.evaluations[name], e.answers) for name, e in manifest.evaluations.items()},
        images={name: _image(f"image '{name}'", findings.images[name], inputs[manifest.input_of(one)]) for name, one in manifest.images.items()},
        maps={name: _image(f"map '{name}'", findings.maps[name], inputs[manifest.input_of(one)]) for name, one in manifest.maps.items()},
        presentations={
            name: _presentation(name, findings.presentations[name], inputs[manifest.input_of(one)]) for name, one in manifest.presentations.items()
        },
        keys={name: _key_slices(name, findings.keys[name], inputs[manifest.input_of(one)]) for name, one in manifest.keys.items()},
        notes=(*findings.notes, *notes),
    )


# ------------------------------------------------------------------------------------------------------------- segments


def _as_found(manifest: Manifest, findings: Findings) -> tuple[Manifest, Findings]:
    """Return the manifest as it reads for as many segments as were found, and findings without what would be measured on none."""
    if manifest.found is None:
        return manifest, findings
    if findings.segments is None:
        raise ModelFailed(
            "the model gave no segments, though its manifest describes what is found", hint="Where nothing is found, give an empty mask."
        )
    array = findings.segments.array
    array = _numbers(array.view(np.uint8) if array.dtype == bool else array, manifest.found.most)
    numbers = np.flatnonzero(sum(np.bincount(plane[plane != 0], minlength=256) for plane in array))
    if not np.array_equal(numbers, np.arange(1, len(numbers) + 1)):
        hint = "Number them 1, 2, … without holes, the most probable first, and leave the others out."
        raise ModelFailed(f"the model numbered what it found {_list(numbers)}", hint=hint)
    settled = manifest.of_found(len(numbers))
    unmeasured = {name for name, one in manifest.measurements.items() if one.of == FOUND} - set(settled.measurements)
    for name in unmeasured & set(findings.measurements):
        if findings.measurements[name] not in ({}, None):
            raise ModelFailed(f"measurement '{name}' has values, though nothing was found", hint="Give an empty mapping.")
    measured = {name: value for name, value in findings.measurements.items() if name not in unmeasured}
    return settled, replace(findings, measurements=measured)


def _as_made(manifest: Manifest, findings: Findings) -> tuple[Manifest, Findings]:
    """Return the manifest as it reads for the presentations that are made, and findings without what belongs to the others."""
    settled = manifest.of_made([name for name, one in findings.presentations.items() if one is not None])
    unmade = set(manifest.measurements) - set(settled.measurements)
    for name in unmade & set(findings.measurements):
        if findings.measurements[name] is not None:
            of = manifest.measurements[name].of
            raise ModelFailed(f"measurement '{name}' has a value, though the presentation '{of}' is not made", hint="Give None.")
    return settled, replace(findings, measurements={name: value for name, value in findings.measurements.items() if name not in unmade})


def _segments(mask: Volume | None, manifest: Manifest, grid: Volume) -> tuple[Volume | None, tuple[str, ...]]:
    count = len(manifest.segments)
    if mask is None:
        if count:
            raise ModelFailed("the model gave no segments, though its manifest describes them", hint="Where nothing is found, give an empty mask.")
        return None, ()
    if not count:
        raise ModelFailed("the model gave segments, though its manifest describes none", hint="Describe them as [[segments]] in model.toml.")
    if manifest.fractional is None and mask.array.ndim != 3:
        raise ModelFailed(f"the model gave segments of {mask.array.ndim} dimensions", hint="Give (slice, row, column) with segment numbers.")
    array, outside = on_grid(mask, grid)
    notes = (f"{outside} voxels of the segmentation lay outside the image and were left out.",) if outside else ()
    if manifest.fractional is None:
        return grid.with_array(_numbers(array, count)), notes
    return grid.with_array(_fractions(mask, array, count), {SEGMENT_AXIS: range(1, count + 1)}), notes


def _numbers(array: Any, count: int) -> Any:
    """Return an array of segment numbers in the smallest type that its manifest needs, or raise when it holds a number nobody described."""
    if array.dtype.kind == "b":
        if count > 1:
            raise ModelFailed(f"the model gave a boolean mask, but its manifest describes {count} segments", hint="Give segment numbers.")
        return array.view(np.uint8)
    if array.dtype.kind not in "iu":
        hint = "Give a boolean mask or whole segment numbers; values from 0 to 1 need `fractional` in model.toml."
        raise ModelFailed(f"the model gave segments of type {array.dtype}", hint=hint)
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > count:
        wrong = low if low < 0 else high
        raise ModelFailed(f"the model's mask holds the number {wrong}; its manifest describes segments 1 to {count}")
    return array.astype(np.uint8 if count <= 255 else np.uint16, copy=False)


def _fractions(mask: Volume, array: Any, count: int) -> Any:
    """Return an array of values from 0 to 1 as bytes (slice, row, column, segment), or raise when it is not one for each segment."""
    given, described = mask.get_channel_values(SEGMENT_AXIS) if array.ndim == 4 else [1], list(range(1, count + 1))
    if given != described:
        raise ModelFailed(
            f"the model gave fractions of the segments {_list(given)}; its manifest describes {_list(described)}",
            hint=f'Of several give ct.with_array(values, channels={{"{SEGMENT_AXIS}": {described}}}), by slice, row, column and segment.',
        )
    try:
        return wire.fractions(array).reshape(*array.shape[:3], count)
    except ValueError as error:
        raise ModelFailed(f"the model {error}", hint="Give floating point numbers from 0 to 1, or their 255-fold as uint8.") from error


def on_grid(mask: Volume, grid: Volume) -> tuple[Any, int]:
    """Return the mask's array on another volume's grid, and how many voxels above 0 did not fit there.

    Only what loses nothing is undone: permuted and flipped axes, a crop (the rest becomes 0), a pad. highdicom's `match_geometry` also
    leaves out every second voxel of a finer mask and does not cut a pad at the end of an axis (0.28), hence this.

    Raises
    ------
    ModelFailed: the mask was resampled, shifted by part of a voxel, or turned.
    """
    try:
        array, start = _turned_back(mask, grid)
    except ValueError as error:
        raise ModelFailed(
            f"the model's mask is not on its input's grid: {error}",
            hint="Bring the mask back to the input's grid (nearest neighbour) before returning it; flips, crops and pads are undone here.",
        ) from error
    return _placed(array, start, grid.spatial_shape)


def _turned_back(given: Volume, grid: Volume) -> tuple[Any, Any]:
    """Return a volume's array with its axes as those of another volume, and the index there of its first voxel.

    Raises
    ------
    ValueError: it was resampled, shifted by part of a voxel, or turned; the text says so.
    """
    to_grid = np.nan_to_num(np.linalg.inv(grid.affine) @ given.affine, nan=0.5)  # index given -> index in the grid; 0.5 is on no grid
    turn, shift = np.rint(to_grid[:3, :3]).astype(int), np.rint(to_grid[:3, 3]).astype(int)
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, n - 1) for n in given.spatial_shape))]).T
    off = np.abs(to_grid[:3] @ corners - (turn @ corners[:3] + shift[:, None])).max()
    is_permutation = (np.abs(turn).sum(axis=0) == 1).all() and (np.abs(turn).sum(axis=1) == 1).all()
    if off > _OFF_GRID_VOXELS or not is_permutation:
        raise ValueError("it was resampled, shifted by part of a voxel, or turned")
    axes = np.abs(turn).argmax(axis=1)  # of what is given, in the grid's order
    array = np.transpose(given.array, (*axes, *range(3, given.array.ndim)))
    backward = turn[range(3), axes] < 0
    start = shift - np.where(backward, np.array(array.shape[:3]) - 1, 0)
    return np.flip(array, tuple(np.flatnonzero(backward))), start


def _placed(array: Any, start: Any, shape: tuple[int, ...]) -> tuple[Any, int]:
    """Return zeros of `shape` with the array laid in at `start`, and how many of its voxels above 0 fell outside."""
    if array.shape[:3] == tuple(shape) and not start.any():
        return array, 0
    spans = [(max(s, 0), max(min(s + n, full), s, 0)) for s, n, full in zip(start, array.shape[:3], shape, strict=True)]
    inner = array[tuple(slice(low - s, high - s) for (low, high), s in zip(spans, start, strict=True))]
    of_segments = array.ndim - 3  # their axis, where there is one, comes last, and in memory first
    placed = np.moveaxis(np.zeros((*array.shape[3:], *shape), array.dtype), range(of_segments), range(3, array.ndim))
    placed[tuple(slice(low, high) for low, high in spans)] = inner
    return placed, int(np.count_nonzero(array)) - int(np.count_nonzero(inner))


class _Empty:
    """Which segments have no voxel; looked up only when a measurement is missing."""

    def __init__(self, volume: Volume | None, manifest: Manifest) -> None:
        self._volume = volume
        self._fractional = manifest.fractional is not None
        self._all = tuple(range(1, len(manifest.segments) + 1))

    def any_of(self, numbers: tuple[int, ...]) -> bool:
        """Say whether one of these segments is empty; with no number, one of all."""
        return self._volume is not None and any(not self._voxels(self._volume.array, n).any() for n in numbers or self._all)

    def _voxels(self, array: Any, number: int) -> Any:
        return array[..., number - 1] >= FRACTION_HALF if self._fractional else array == number


# --------------------------------------------------------------------------------------------------------------- images


def _image(what: str, image: Volume, grid: Volume) -> Volume:
    """Return an image or a map on its input's grid, with its frame of reference; none of its slices is missing, none of its values is no number."""
    if image.array.ndim != 3 or image.array.dtype.kind not in "iuf":
        said = f"{image.array.dtype} of {image.array.ndim} dimensions"
        raise ModelFailed(f"the model gave as {what} {said}", hint="Give numbers by slice, row and column: ct.with_array(values).")
    hint = "An image lies where its input lies, slice for slice: resample it inside the model; only flips and permuted axes are undone here."
    try:
        array, start = _turned_back(image, grid)
    except ValueError as error:
        raise ModelFailed(f"the model's {what} is not on its input's grid: {error}", hint=hint) from error
    if array.shape != tuple(grid.spatial_shape) or start.any():
        raise ModelFailed(f"the model's {what} does not cover its input: it was cropped, padded or shifted", hint=hint)
    if array.dtype.kind == "f" and not all(np.isfinite(plane).all() for plane in array):
        raise ModelFailed(f"the model's {what} holds values that are not finite", hint="Give each pixel a number in the input's unit.")
    return grid.with_array(array)


# ---------------------------------------------------------------------------------------------- presentations and keys


def _presentation(name: str, shown: Presentation | None, grid: Volume) -> Presentation | None:
    """Return a presentation whose window is one and whose marks lie in the input."""
    if shown is None:
        return None
    center_width = shown.window
    if center_width is not None and not (math.isfinite(center_width[0]) and math.isfinite(center_width[1]) and center_width[1] > 0):
        raise ModelFailed(f"the window of presentation '{name}' is {center_width}", hint="Give a centre and a width above 0 in the input's unit.")
    if center_width is None and not shown.marks:
        raise ModelFailed(f"presentation '{name}' has neither window nor marks", hint="Give None where there is nothing to present.")
    for mark in shown.marks:
        problem = _unmarkable(mark, grid.spatial_shape)
        if problem:
            raise ModelFailed(f"a mark of presentation '{name}' {problem}", hint="Give (row, column) in pixels of one slice of the input.")
    return shown


def _unmarkable(mark: Mark, shape: tuple[int, ...]) -> str:
    """Return why a mark cannot be drawn over an input of (slice, row, column), continuing "a mark …"; empty when it can."""
    fewest, most = MARK_POINTS.get(mark.kind, (0, -1))
    if not fewest <= len(mark.points) <= most:
        return f"is a {mark.kind} of {len(mark.points)} points"
    if not 0 <= mark.slice < shape[0]:
        return f"lies in slice {mark.slice} of {shape[0]}"
    row, column = mark.points[0]
    if not (-0.5 <= row <= shape[1] - 0.5 and -0.5 <= column <= shape[2] - 0.5):
        return f"begins at row {row:g}, column {column:g}, outside of {shape[1]} x {shape[2]} pixels"
    if not all(math.isfinite(number) for point in mark.points for number in point):
        return "has a point that is not finite"
    return "" if len(mark.text) <= _TEXT_MAX and mark.text.isprintable() else "has a text that is too long or not printable"


def _key_slices(name: str, indices: Sequence[int], grid: Volume) -> tuple[int, ...]:
    """Return the slices of key images in order, each once."""
    strange = next((index for index in indices if not 0 <= index < grid.spatial_shape[0]), None)
    if strange is not None:
        raise ModelFailed(f"keys '{name}' name slice {strange} of {grid.spatial_shape[0]}", hint="Give indices of slices of the input, from 0.")
    return tuple(sorted(set(indices)))


# --------------------------------------------------------------------------------------------------- names and numbers


def _same_names(kind: str, given: Mapping[str, Any], described: Mapping[str, Any]) -> None:
    for name in given:
        if name not in described:
            raise ModelFailed(f"the model gave {kind} '{name}', which its manifest does not describe", hint=f"Describe it as [{kind}s.{name}].")
    for name in described:
        if name not in given:
            raise ModelFailed(f"the model gave no {kind} '{name}', though its manifest describes it")


def _measured(name: str, value: Any, described: Measurement, empty: _Empty) -> Any:
    on, drawn = described.on, bool(described.on) and described.of not in (None, FOUND)
    if drawn and isinstance(value, Mapping):
        value = {n: None for n in on} | dict(value)  # of a region without a pixel a model knows nothing
    if not isinstance(value, Mapping):
        if len(on) > 1:
            raise ModelFailed(f"measurement '{name}' is one number, but is described on segments {_list(on)}", hint="Give {segment number: value}.")
        return _finite(f"measurement '{name}'", value, on, empty)
    if set(value) != set(on):
        raise ModelFailed(f"measurement '{name}' is given for segments {_list(value)}, but is described on {_list(on) or 'none'}")
    undefined = {n for n in on if drawn and value[n] is None}  # on what others drew not everything can be measured
    each = {n: None if n in undefined else _finite(f"measurement '{name}' of segment {n}", value[n], (n,), empty) for n in on}
    return each if len(on) > 1 else each[on[0]]


def _finite(what: str, value: float | None, on: tuple[int, ...], empty: _Empty) -> float | None:
    if value is None:
        if empty.any_of(on):
            return None
        raise ModelFailed(f"{what} has no value, though no segment it depends on is empty")
    if not math.isfinite(value):
        raise ModelFailed(f"{what} is {value}", hint="Where an empty segment leaves nothing to measure, give None.")
    return float(value)


def _answer(name: str, given: str, answers: Mapping[str, Any]) -> str:
    if given not in answers:
        raise ModelFailed(f"evaluation '{name}' is '{given}', which is none of its answers: {', '.join(answers)}")
    return given


def _list(numbers: Any) -> str:
    return ", ".join(str(n) for n in numbers)
