"""A coarse grid laid over a scan: blocks of its voxels, on which a shape is found quickly, and the way back to the scan's own voxels."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Image = NDArray[np.float32]
Labels = NDArray[np.uint8]
Box = tuple[slice, slice, slice]

AIR_HU, METAL_HU = -1024.0, 3071.0  # the ends of the scale that a scanner of 12 bits writes


@dataclass(frozen=True, slots=True)
class Grid:
    """A grid whose voxels are blocks of `factors` voxels of a finer one; spacing in mm, both as (slice, row, column)."""

    factors: tuple[int, ...]
    spacing_mm: tuple[float, ...]

    @classmethod
    def of(cls, spacing_mm: tuple[float, ...], factors: tuple[int, ...]) -> "Grid":
        """Return the grid of blocks of so many voxels of a finer grid's spacing."""
        return cls(factors, tuple(f * s for f, s in zip(factors, spacing_mm, strict=True)))

    @classmethod
    def about(cls, spacing_mm: tuple[float, ...], wanted_mm: float) -> "Grid":
        """Return the grid whose voxels come closest to a width; a direction that is sampled more coarsely stays as it is."""
        return cls.of(spacing_mm, tuple(max(1, round(wanted_mm / s)) for s in spacing_mm))

    @property
    def ml(self) -> float:
        """The volume of one voxel."""
        return float(np.prod(self.spacing_mm)) / 1000

    def voxels(self, mm: float, axis: int) -> int:
        """Return a length along one axis in voxels, at least one."""
        return max(1, round(mm / self.spacing_mm[axis]))

    def radius(self, mm: float, *, flat: bool = False) -> list[int]:
        """Return a radius in voxels, zero where it is less than half of one, in SimpleITK's order (x, y, z); flat: within slices only."""
        x, y, z = (max(0, round(mm / s)) for s in self.spacing_mm[::-1])
        return [x, y, 0 if flat else z]

    def fine(self, box: Box, shape: tuple[int, ...]) -> Box:
        """Return a box of this grid on the finer one, which has this shape."""
        z, y, x = (slice(side.start * f, min(side.stop * f, length)) for side, f, length in zip(box, self.factors, shape, strict=True))
        return z, y, x


def clean(hu: Any, highest_hu: float = METAL_HU) -> Image:
    """Return values from air to a highest one; what is no number counts as air."""
    return np.clip(np.nan_to_num(hu, nan=AIR_HU), AIR_HU, highest_hu).astype(np.float32, copy=False)


# ------------------------------------------------------------------------------------------------------- to the coarse grid


def block_means(hu: Any, grid: Grid, highest_hu: float = METAL_HU) -> Image:
    """Return the mean of each block of a scan (slice, row, column), cleaned; of a mask, the share of each block."""
    starts = _starts(hu, grid)
    sizes = np.outer(*(np.diff(start, append=length) for start, length in zip(starts, hu.shape[1:], strict=True))).astype(np.float32)
    return np.stack([_reduced(np.add, slab.mean(0), starts) / sizes for slab in _slabs(hu, grid, highest_hu)])


def block_maxima(hu: Any, grid: Grid, highest_hu: float = METAL_HU) -> Image:
    """Return the greatest value of each block of a scan (slice, row, column), cleaned: what is thin stays joined."""
    starts = _starts(hu, grid)
    return np.stack([_reduced(np.maximum, slab.max(0), starts) for slab in _slabs(hu, grid, highest_hu)])


def _starts(hu: Any, grid: Grid) -> list[NDArray[np.intp]]:
    """Return at which rows and at which columns blocks begin; the last block of a row may be short."""
    return [np.arange(0, length, factor) for length, factor in zip(hu.shape[1:], grid.factors[1:], strict=True)]


def _slabs(hu: Any, grid: Grid, highest_hu: float) -> Iterator[Image]:
    """Yield one layer of blocks after the other, which bounds the memory."""
    deep = grid.factors[0]
    return (clean(hu[k : k + deep], highest_hu) for k in range(0, hu.shape[0], deep))


def _reduced(ufunc: np.ufunc, plane: Image, starts: list[NDArray[np.intp]]) -> Image:
    return np.asarray(ufunc.reduceat(ufunc.reduceat(plane, starts[0], axis=0), starts[1], axis=1))


# ------------------------------------------------------------------------------------------------------------ and back


def box(mask: Mask, margins: tuple[int, ...] = (0, 0, 0)) -> Box | None:
    """Return the smallest box about a mask, so many voxels wider to either side as the array allows; None where the mask is empty."""
    if not mask.any():
        return None
    ends = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))[[0, -1]] for axis in range(3)]
    z, y, x = (
        slice(max(0, int(first) - more), min(length, int(last) + 1 + more))
        for (first, last), more, length in zip(ends, margins, mask.shape, strict=True)
    )
    return z, y, x


def spread(mask: Mask, grid: Grid, where: Box) -> Mask:
    """Return a box of the finer grid of a coarse mask: each voxel as its block."""
    for axis, (side, factor) in enumerate(zip(where, grid.factors, strict=True)):
        first, last = side.start // factor, -(-side.stop // factor)
        blocks = mask[(slice(None),) * axis + (slice(first, last),)]
        blocks = blocks.repeat(factor, axis) if factor > 1 else blocks
        start = side.start - first * factor
        mask = blocks[(slice(None),) * axis + (slice(start, start + side.stop - side.start),)]
    return np.ascontiguousarray(mask)


def smooth_slices(mask: Mask, grid: Grid, shape: tuple[int, ...]) -> Iterator[Mask]:
    """Yield a coarse mask's slices on the finer grid, which has this shape, its surface interpolated linearly."""
    planes = mask.astype(np.float32)
    z, y, x = (np.maximum(0, (np.arange(n, dtype=np.float32) + 0.5) / f - 0.5) for n, f in zip(shape, grid.factors, strict=True))
    for place in z:
        low = min(int(place), len(planes) - 1)
        pair = planes[low : low + 2]
        if pair.any():
            plane = _between(pair, place[None] - low, 0)[0]
            yield _between(_between(plane, y, 0), x, 1) > 0.5
        else:
            yield np.zeros(shape[1:], bool)


def _between(blocks: Image, where: NDArray[np.float32], axis: int) -> Image:
    """Return linear interpolation along one axis at positions counted in blocks, the first and last value held beyond the ends."""
    low = np.minimum(where.astype(np.intp), blocks.shape[axis] - 1)
    high = np.minimum(low + 1, blocks.shape[axis] - 1)
    share = (where - low).reshape((-1, *(1,) * (blocks.ndim - 1 - axis)))
    first = blocks.take(low, axis)
    return first + share * (blocks.take(high, axis) - first)
