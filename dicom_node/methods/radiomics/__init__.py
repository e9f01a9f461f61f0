"""What the image inside a region is like, in numbers.

Shape, histogram and texture are as the Image Biomarker Standardisation Initiative (IBSI) defines them, and there are responses to filters.
A feature's name is its family's prefix and its own, as the manifest of `models/radiomics` lists and codes them.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicom_node.domain import FRACTION_HALF, Findings
from dicom_node.methods.radiomics.filters import filtered, surroundings
from dicom_node.methods.radiomics.levels import CT_BINS, RELATIVE_BINS, Binning, FixedNumber, FixedSize
from dicom_node.methods.radiomics.shape import MOST_BOX_VOXELS, shape_of, values_in_place
from dicom_node.methods.radiomics.texture import texture_of

__all__ = ["CT_BINS", "NAMES", "RELATIVE_BINS", "Binning", "FixedNumber", "FixedSize", "boxes", "describe", "features", "mask_of"]

Array = NDArray[Any]
Box = tuple[slice, ...]
Progress = Callable[[float, str], None]


def describe(image: Any, regions: Any, binning: Binning, progress: Progress = lambda fraction, sentence: None) -> Findings:
    """Describe every region, in the measurements of a manifest that names all features.

    image: a volume (slice, row, column). regions: on the same grid the numbers of regions, 0 elsewhere, or where some overlap bytes
    (slice, row, column, region), 255 being inside.
    """
    measured: dict[str, dict[int, float | None]] = {name: {} for name in NAMES}
    notes = []
    found = list(boxes(regions.array))
    for done, (number, box) in enumerate(found):
        progress(done / len(found), f"region {number}")
        mask = mask_of(regions.array, number, box)
        for name, value in features(image.array, mask, box, image.spacing, binning).items():
            measured[name][number] = value
        below = np.count_nonzero(mask & (image.array[box] < binning.lowest)) if isinstance(binning, FixedSize) else 0
        if below:
            where = f"below {binning.lowest:g} HU" if isinstance(binning, FixedSize) else ""
            notes.append(f"{below} voxels of region {number} lie {where}: they count for its shape, and not for its histogram and texture.")
        if mask.size > MOST_BOX_VOXELS:
            notes.append(f"The box about region {number} has {mask.size} voxels: too many for Moran's and Geary's measures, which are left out.")
    return Findings(measurements=measured, notes=tuple(notes))


def features(values: Array, mask: Array, box: Box, spacing_mm: tuple[float, ...], binning: Binning) -> dict[str, float]:
    """Return all features of one region by name; what is undefined on it is left out.

    values: the whole image (slice, row, column), since filters look beyond the region. mask: the region's voxels in the box. Where bins are of a
    fixed number values have no unit: filters then see them as standard deviations from the region's mean.
    """
    inside = values[box]
    levels = binning.levels(inside, mask)
    found = {"morph": shape_of(mask, spacing_mm)}
    if levels.any():
        counted = levels > 0
        found["morph"] |= values_in_place(inside, counted, mask, spacing_mm, found["morph"]["mesh_volume"])
        found |= texture_of(levels, mask)
        found["filter"] = _filtered(values, counted, box, spacing_mm, binning)
    return {f"{family}_{name}": float(value) for family, some in found.items() for name, value in some.items()}


def _filtered(values: Array, counted: Array, box: Box, spacing_mm: tuple[float, ...], binning: Binning) -> dict[str, float]:
    about, inner = surroundings(box, spacing_mm)
    near = values[about].astype(np.float32)
    if isinstance(binning, FixedSize):
        return filtered(np.maximum(near, np.float32(binning.lowest)), inner, counted, spacing_mm)
    x = near[inner][counted].astype(np.float64)
    deviation = x.std()
    return filtered(((near - x.mean()) / deviation).astype(np.float32), inner, counted, spacing_mm) if deviation else {}


def boxes(regions: Array) -> Iterator[tuple[int, Box]]:
    """Give each region's number and the box about it."""
    if regions.ndim == 3:
        yield from ((number, box) for number, box in enumerate(ndimage.find_objects(regions), start=1) if box is not None)
        return
    for number in range(1, regions.shape[3] + 1):
        inside = ndimage.find_objects((regions[..., number - 1] >= FRACTION_HALF).view(np.uint8))
        if inside:
            yield number, inside[0]


def mask_of(regions: Array, number: int, box: Box) -> Array:
    """Return which voxels of the box are a region's."""
    return regions[box] == number if regions.ndim == 3 else regions[..., number - 1][box] >= FRACTION_HALF


def _all_names() -> tuple[str, ...]:
    """Return the names in order, from a region on which every feature is defined."""
    values = np.zeros((2, 3, 3), np.float32)
    values[0, 1, 1] = 100.0
    return tuple(features(values, np.ones(values.shape, bool), (slice(0, 2), slice(0, 3), slice(0, 3)), (1.0, 1.0, 1.0), CT_BINS))


NAMES = _all_names()
