"""Where a frame lies in the patient, and where the pixels of one plane are in another (PS3.3 C.7.6.2.1.1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom import Dataset

from dicom_node.coding.unreadable import UNREADABLE
from dicom_node.web.rendering.grey import group

Array = np.ndarray[Any, Any]
_STRAIGHT = 0.05  # pixels that a row may wander from one side of an image to the other
_PARALLEL = 0.999  # cosine between normals: planes closer than 2.6 degrees


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plane:
    """A plane of pixels in the patient (LPS)."""

    position_mm: Array  # of the first pixel's centre
    along_row: Array  # unit vector from column to column
    along_column: Array  # unit vector from row to row
    spacing_mm: tuple[float, float]  # between rows, between columns
    thickness_mm: float

    @property
    def normal(self) -> Array:
        """Unit vector across the plane."""
        found: Array = np.cross(self.along_row, self.along_column)
        return found

    def point(self, row: Any, column: Any) -> Array:
        """Return where in the patient pixels are; half numbers are pixels' edges."""
        rows, columns = np.asarray(row, float)[..., None], np.asarray(column, float)[..., None]
        found: Array = self.position_mm + rows * self.spacing_mm[0] * self.along_column + columns * self.spacing_mm[1] * self.along_row
        return found

    def pixel(self, point_mm: Array) -> tuple[Array, Array]:
        """Return the row and column at which points of the patient are, when one looks along the normal."""
        away = point_mm - self.position_mm
        return away @ self.along_column / self.spacing_mm[0], away @ self.along_row / self.spacing_mm[1]

    def distance_mm(self, point_mm: Array) -> float:
        """Return how far a point is from the plane."""
        return abs(float((point_mm - self.position_mm) @ self.normal))

    def is_parallel(self, other: "Plane") -> bool:
        """Say whether another plane runs the same way."""
        return abs(float(self.normal @ other.normal)) > _PARALLEL


def plane(header: Dataset, index: int = 0) -> Plane | None:
    """Return where a frame lies, None where its header does not say it."""
    try:
        position = group(header, index, "PlanePositionSequence") or header
        orientation = group(header, index, "PlaneOrientationSequence") or header
        measures = group(header, index, "PixelMeasuresSequence") or header
        at = np.array([float(one) for one in position.ImagePositionPatient])
        cosines = np.array([float(one) for one in orientation.ImageOrientationPatient])
        between_rows, between_columns = (float(one) for one in measures.PixelSpacing)
        thickness = float(measures.get("SpacingBetweenSlices") or measures.get("SliceThickness") or 0)
        return _plane(at, cosines, (between_rows, between_columns), abs(thickness))
    except UNREADABLE:
        return None


def _plane(at: Array, cosines: Array, spacing_mm: tuple[float, float], thickness_mm: float) -> Plane | None:
    lengths = float(np.linalg.norm(cosines[:3])), float(np.linalg.norm(cosines[3:]))
    sound = at.shape == (3,) and cosines.shape == (6,) and np.isfinite(at).all() and np.isfinite(cosines).all()
    if not sound or min(*lengths, *spacing_mm) <= 0 or not np.isfinite(spacing_mm).all():
        return None
    row, column = cosines[:3] / lengths[0], cosines[3:] / lengths[1]
    return Plane(position_mm=at, along_row=row, along_column=column, spacing_mm=spacing_mm, thickness_mm=thickness_mm)


def moved(mask: Array, its: Plane, onto: Plane, shape: Sequence[int]) -> Array:
    """Return a mask of one plane on the pixels of a parallel one: each takes the value of the nearest pixel, and nothing beyond its edges."""
    found = np.zeros(tuple(shape), mask.dtype)
    down, across = its.pixel(onto.point(np.arange(shape[0]), 0)), its.pixel(onto.point(0, np.arange(shape[1])))
    if max(np.ptp(down[1]), np.ptp(across[0])) < _STRAIGHT:  # rows lie on rows: nearly always
        at_row, at_column = np.rint(down[0]).astype(np.int64), np.rint(across[1]).astype(np.int64)
        rows, columns = _within(at_row, mask.shape[0]), _within(at_column, mask.shape[1])
        found[np.ix_(rows, columns)] = mask[np.ix_(at_row[rows], at_column[columns])]
        return found
    at_row, at_column = (np.rint(one).astype(np.int64) for one in its.pixel(onto.point(*np.indices(tuple(shape)))))
    inside = _within(at_row, mask.shape[0]) & _within(at_column, mask.shape[1])
    found[inside] = mask[at_row[inside], at_column[inside]]
    return found


def _within(at: Array, size: int) -> Array:
    found: Array = (at >= 0) & (at < size)
    return found
