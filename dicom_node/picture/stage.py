"""One input of an analysis, turned the way radiologists look: what lies on which slice, and where a mark is.

Nothing is resampled and hardly anything is copied: a slice is windowed when it is shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from dicom_node.domain import FRACTION_HALF, Assembled, Mark
from dicom_node.picture.scene import AIR_HU, AXIAL, CORONAL, SAGITTAL, Box, Mask, Plane, body, edges, window_of

_PLANES = (AXIAL, CORONAL, SAGITTAL)
_STEP = 2  # areas are compared on every second row and column
_COLOURS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A mark as it is shown on its slice."""

    kind: str
    points: tuple[tuple[float, float], ...]  # (down, across), 0 to 1 of the panel's height and width
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """An input on its grid, whose slices count up towards the head, rows towards the back, columns towards the left; of a projection, as it is."""

    volume: Any  # highdicom.Volume
    array: NDArray[Any]  # (slice, row, column)
    labels: NDArray[Any] | None  # segment numbers (slice, row, column), or fractions (slice, row, column, segment); none: nothing was segmented
    window: tuple[float, float]  # lowest and highest value that are told apart
    dark_is_high: bool
    box: Box  # what is shown
    home: Plane  # the plane that the images were acquired in
    to_stage: NDArray[np.float64]  # 4 x 4, from an index of the input's volume to one of `array`
    placed: bool  # whether it has a place in the patient
    measured: bool  # whether lengths in mm are known

    # ---------------------------------------------------------------------------------------------------------- one slice

    def cut(self, array: NDArray[Any], plane: Plane, index: int) -> NDArray[Any]:
        """Return one slice of an array on this grid, as it is shown."""
        high, wide = plane.shown
        piece = plane.slice(array, index)[self.box[high], self.box[wide]]
        return piece if plane.axis == 0 else piece[::-1]

    def grey(self, plane: Plane, index: int, array: NDArray[Any] | None = None) -> NDArray[np.uint8]:
        """Return a slice of the images, or of others on the same grid, in shades of grey."""
        low, high = self.window
        values = self.cut(self.array if array is None else array, plane, index).astype(np.float32)
        shades = ((np.nan_to_num(values, nan=low).clip(low, high) - low) * (255 / (high - low))).astype(np.uint8)
        return 255 - shades if self.dark_is_high else shades

    def mask(self, number: int, plane: Plane, index: int) -> Mask:
        """Return where a segment is on a slice."""
        if self.labels is None:
            return np.zeros(self.cut(self.array, plane, index).shape, bool)
        if self.labels.ndim == self.array.ndim:
            return self.cut(self.labels, plane, index) == number
        return self.cut(self.labels[..., number - 1], plane, index) >= FRACTION_HALF

    def size_mm(self, plane: Plane) -> tuple[float, float]:
        """Return the width and height of what is shown of a plane."""
        high, wide = ((self.box[axis].stop - self.box[axis].start) * float(self.volume.spacing[axis]) for axis in plane.shown)
        return wide, high

    def letters(self, plane: Plane) -> tuple[str, str, str, str]:
        """Return the letters of the left, top, right and bottom edge; none of what has no place in the patient."""
        if not self.placed:
            return "", "", "", ""
        return edges(np.stack(self.volume.unit_vectors()), plane)

    def index_of(self, number: int) -> int:
        """Return which slice of the home plane the input's slice of this number is."""
        return int(np.rint((self.to_stage @ (number, 0, 0, 1))[self.home.axis]))

    def drawn(self, mark: Mark) -> Drawn:
        """Return a mark as it is shown on the slice of the home plane that it lies on."""
        high, wide = self.home.shown
        points = []
        for row, column in mark.points:
            place = self.to_stage @ (mark.slice, row, column, 1)
            down, across = ((place[axis] + 0.5 - self.box[axis].start) / (self.box[axis].stop - self.box[axis].start) for axis in (high, wide))
            points.append((down if self.home.axis == 0 else 1 - down, across))
        return Drawn(kind=mark.kind, points=tuple(points), text=mark.text)

    # -------------------------------------------------------------------------------------------------------- all slices

    def areas(self, plane: Plane, segments: int) -> NDArray[np.int64]:
        """Return (slice of a plane, segment number) about how much of each segment a slice shows, for comparison."""
        found = np.zeros((self.array.shape[plane.axis], segments + 1), np.int64)
        if self.labels is None:
            return found
        thin = tuple(slice(None) if axis == plane.axis else slice(None, None, _STEP) for axis in range(3))
        moved = np.moveaxis(self.labels[thin], plane.axis, 0)
        for index, piece in enumerate(moved):
            if self.labels.ndim == self.array.ndim:
                found[index] = np.bincount(piece[piece > 0], minlength=segments + 1)[: segments + 1] if piece.any() else 0
            else:
                found[index, 1:] = (piece >= FRACTION_HALF).sum(axis=(0, 1))[:segments]
        for number in range(1, segments + 1):
            if not found[:, number].any():  # so small that it lies between the rows and columns that were looked at
                inside = self.labels == number if self.labels.ndim == self.array.ndim else self.labels[..., number - 1] >= FRACTION_HALF
                found[:, number] = inside.sum(axis=plane.shown)
        return found


def stage(assembled: Assembled, labels: Any = None, window: tuple[float, float] | None = None) -> Stage:
    """Return an input as it is shown.

    labels: the segments on its grid, a highdicom.Volume; window: centre and width, None: chosen by what the segments lie in.
    """
    given = assembled.volume
    volume = given if assembled.projection else given.to_patient_orientation("HPL")
    array = volume.array
    array = array.mean(axis=_COLOURS) if array.ndim > _COLOURS else array
    on_grid = None if labels is None else labels.match_geometry(volume).array
    source = assembled.sources[0]
    thin = tuple(slice(None, None, max(1, size // 128)) for size in array.shape)
    inside = np.zeros(array[thin].shape, bool) if on_grid is None else _anywhere(on_grid[thin])
    low, high = _window(source, array[thin], inside, window)
    air = AIR_HU if source.get("Modality") == "CT" else low + 0.1 * (high - low)
    home = AXIAL if assembled.projection else _PLANES[int(np.argmax(np.abs(np.stack(volume.unit_vectors()) @ given.unit_vectors()[0])))]
    return Stage(
        volume=volume,
        array=array,
        labels=on_grid,
        window=(low, high),
        dark_is_high=source.get("PhotometricInterpretation") == "MONOCHROME1" and assembled.turned is None,
        box=_whole(array) if assembled.projection else _cropped(array, thin, inside, air),
        home=home,
        to_stage=np.linalg.inv(volume.affine) @ given.affine,
        placed=not assembled.projection,
        measured=not assembled.projection or "PixelSpacing" in source,
    )


def _anywhere(labels: NDArray[Any]) -> Mask:
    return np.asarray(labels > 0 if labels.ndim == _COLOURS else (labels >= FRACTION_HALF).any(axis=3))


def _whole(array: NDArray[Any]) -> Box:
    return slice(0, array.shape[0]), slice(0, array.shape[1]), slice(0, array.shape[2])


def _cropped(array: NDArray[Any], thin: Sequence[slice], inside: Mask, above: float) -> Box:
    """Return the box around the body, found on a thinned grid."""
    coarse = body(array[tuple(thin)] > above, inside, around=2)
    steps = [one.step or 1 for one in thin]
    sized = zip(coarse, steps, array.shape, strict=True)
    sides = [slice(min(side.start * step, size - 1), min(side.stop * step, size)) for side, step, size in sized]
    return sides[0], sides[1], sides[2]


def _window(source: Dataset, values: NDArray[Any], inside: Mask, wanted: tuple[float, float] | None) -> tuple[float, float]:
    """Return the lowest and highest value that are told apart: as the analysis wants it, by tissue, or as the images of a CT say."""
    if wanted:
        return wanted[0] - wanted[1] / 2, wanted[0] + max(wanted[1], 1e-6) / 2
    own = _own_window(source)
    if source.get("Modality") == "CT" and not inside.any() and own:
        return own
    return window_of(str(source.get("Modality", "")), values, inside)


def _own_window(source: Dataset) -> tuple[float, float] | None:
    """Return the first window that an image names, if it is one (PS3.3 C.11.2.1.2)."""
    try:
        centre, width = (float(np.atleast_1d(source[keyword].value)[0]) for keyword in ("WindowCenter", "WindowWidth"))
    except (KeyError, TypeError, ValueError, IndexError):
        return None
    return (centre - width / 2, centre + width / 2) if np.isfinite(centre) and 1 <= width < 1e6 else None
