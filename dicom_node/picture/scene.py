"""What there is to see: images and segments on one grid, turned the way radiologists look, cut to the body, windowed.

Nothing here draws, and nothing here keeps a patient's identity.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]  # sRGB
Mask = NDArray[np.bool_]
Box = tuple[slice, slice, slice]

LUNG_WINDOW_HU, SOFT_TISSUE_WINDOW_HU = (-1350.0, 150.0), (-160.0, 240.0)
AIR_HU = -400.0
_AROUND = 6  # voxels kept around the body


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One segment."""

    label: str
    colour: Colour
    mask: Mask  # (slice, row, column)
    volume_ml: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """One direction of looking at an array whose slices count up towards the head, rows towards the back, columns towards the left."""

    axis: int  # that is looked along
    name: str

    @property
    def shown(self) -> tuple[int, int]:
        """The array's axes that run along the picture's height and its width."""
        first, second = (axis for axis in range(3) if axis != self.axis)
        return first, second

    def slice(self, array: NDArray[Any], index: int) -> NDArray[Any]:
        """Return one slice as it lies in the array, without a copy."""
        return array[(slice(None),) * self.axis + (index,)]

    def cut(self, array: NDArray[Any], index: int) -> NDArray[Any]:
        """Return one slice as it is shown: the patient's front up in axial slices, the head up in the others."""
        piece = self.slice(array, index)
        return piece if self.axis == 0 else piece[::-1]


AXIAL, CORONAL, SAGITTAL = Plane(axis=0, name="axial"), Plane(axis=1, name="coronal"), Plane(axis=2, name="sagittal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """All that a picture shows."""

    grey: NDArray[np.uint8]  # the windowed images, (slice, row, column)
    segments: tuple[Shown, ...]
    spacing_mm: tuple[float, float, float]
    axes: NDArray[np.float64]  # rows: where slices, rows and columns count up to, unit vectors in LPS
    title: str
    subtitle: str
    credit: str  # the algorithm

    def size_mm(self, plane: Plane) -> tuple[float, float]:
        """Return the width and height of a plane."""
        high, wide = plane.shown
        return self.grey.shape[wide] * self.spacing_mm[wide], self.grey.shape[high] * self.spacing_mm[high]

    def letters(self, plane: Plane) -> tuple[str, str, str, str]:
        """Return the letters of the left, top, right and bottom edge (PS3.3 C.7.6.1.1.1: L R A P H F, two where the stack is oblique)."""
        return edges(self.axes, plane)

    def best(self, plane: Plane) -> int:
        """Return the slice that shows most of all segments, each counted by its own largest cross-section."""
        score = np.zeros(self.grey.shape[plane.axis])
        for segment in self.segments:
            area = segment.mask.sum(axis=plane.shown)
            score += area / max(int(area.max()), 1)
        return int(score.argmax())

    def spread(self, count: int) -> tuple[int, ...]:
        """Return axial slices at equal steps through the segments, from head to foot."""
        seen = np.flatnonzero(sum((segment.mask.any(axis=(1, 2)) for segment in self.segments), np.zeros(len(self.grey), bool)))
        low, high = (int(seen[0]), int(seen[-1])) if seen.size else (0, len(self.grey) - 1)
        return tuple(round(high - (high - low) * (step + 0.5) / count) for step in range(count))


def edges(axes: NDArray[np.float64], plane: Plane) -> tuple[str, str, str, str]:
    """Return the letters of the left, top, right and bottom edge of a plane; axes: where slices, rows and columns count up to, in LPS."""
    high, wide = plane.shown
    down = axes[high] if plane.axis == 0 else -axes[high]
    return _letter(-axes[wide]), _letter(-down), _letter(axes[wide]), _letter(down)


def _letter(direction: NDArray[np.float64]) -> str:
    named = sorted(zip(direction, ("LR", "PA", "HF"), strict=True), key=lambda pair: -abs(pair[0]))
    return "".join(names[0 if part > 0 else 1] for part, names in named[:2] if abs(part) > 0.2)  # less than 12 degrees off is not worth a letter


def window_of(modality: str, values: NDArray[Any], segments: Mask) -> tuple[float, float]:
    """Return the lowest and highest value that are told apart: by tissue for CT, by what is there for anything else."""
    if modality == "CT":
        return LUNG_WINDOW_HU if segments.any() and values[segments].mean() < AIR_HU else SOFT_TISSUE_WINDOW_HU
    low, high = np.percentile(values[::2, ::2, ::2], (1, 99.7))
    return float(low), float(max(high, low + 1))


def body(foreground: Mask, segments: Mask, around: int = _AROUND) -> Box:
    """Return the box around what is not air, and around every segment; around: voxels kept beside it."""
    sides = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        kept = np.flatnonzero((foreground.mean(axis=others) > 0.01) | segments.any(axis=others))
        first, last = (kept[0], kept[-1]) if kept.size else (0, foreground.shape[axis] - 1)
        sides.append(slice(max(int(first) - around, 0), int(last) + 1 + around))
    return sides[0], sides[1], sides[2]
