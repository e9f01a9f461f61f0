"""Volume, axes, surface and values of every region that somebody drew."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from dicom_node import Findings

Mask = NDArray[np.bool_]
Box = tuple[slice, ...]
Progress = Callable[[float, str], None]

HALF = 128  # of fractions as bytes: from here on a voxel counts as the region's
HALF_PIXEL = np.array([[-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5], [0.5, 0.5]])  # the corners of a pixel about its centre
NAMES = ("volume", "long_axis", "short_axis", "surface", "mean", "sd", "median", "minimum", "maximum", "perc5", "perc95")


def load(folder: Path, device: str) -> Callable[..., Findings]:
    """Return the analysis; it needs neither files nor an accelerator."""
    return analyse


def analyse(image: Any, regions: Any, progress: Progress = lambda fraction, sentence: None) -> Findings:
    """Measure every region.

    image: a volume of values (slice, row, column). regions: on the same grid the numbers of regions, 0 elsewhere, or where some overlap bytes
    (slice, row, column, region), 255 being inside.

    A region without a voxel gets no values.
    """
    measured: dict[str, dict[int, float]] = {name: {} for name in NAMES}
    found = list(boxes(regions.array))
    for done, (number, box) in enumerate(found):
        progress(done / len(found), f"region {number}")
        for name, value in one(image, mask_of(regions.array, number, box), box).items():
            measured[name][number] = value
    return Findings(measurements=measured)


def boxes(regions: NDArray[Any]) -> Iterator[tuple[int, Box]]:
    """Give each region's number and the box about it."""
    if regions.ndim == 3:
        yield from ((number, box) for number, box in enumerate(ndimage.find_objects(regions), start=1) if box is not None)
        return
    for number in range(1, regions.shape[3] + 1):
        inside = ndimage.find_objects((regions[..., number - 1] >= HALF).view(np.uint8))
        if inside:
            yield number, inside[0]


def mask_of(regions: NDArray[Any], number: int, box: Box) -> Mask:
    """Return which voxels of the box are a region's."""
    return regions[box] == number if regions.ndim == 3 else regions[(*box, number - 1)] >= HALF


def one(image: Any, mask: Mask, box: Box) -> dict[str, float]:
    """Return what is measured on one region. Values: the sample standard deviation, and percentiles between ranks linearly."""
    values = image.array[box][mask].astype(np.float64)
    long_axis_mm, short_axis_mm = axes_mm(mask, image.spacing[1], image.spacing[2])
    low, middle, high = np.percentile(values, [5, 50, 95])
    return {
        "volume": values.size * image.voxel_volume / 1000,
        "long_axis": long_axis_mm,
        "short_axis": short_axis_mm,
        "surface": surface_mm2(mask, image.spacing),
        "mean": values.mean(),
        "sd": values.std(ddof=1) if values.size > 1 else 0.0,
        "median": middle,
        "minimum": values.min(),
        "maximum": values.max(),
        "perc5": low,
        "perc95": high,
    }


def axes_mm(mask: Mask, row_mm: float, column_mm: float) -> tuple[float, float]:
    """Return the greatest extent within one slice, between the outer corners of pixels, and the extent at right angles to it in that slice."""
    best = 0.0, 0.0
    for plane in mask:
        corners = outline_mm(plane, row_mm, column_mm)
        if len(corners):
            apart = corners[:, None] - corners[None]
            length = np.hypot(apart[..., 0], apart[..., 1])
            first, second = np.unravel_index(length.argmax(), length.shape)
            if length[first, second] > best[0]:
                along = (corners[second] - corners[first]) / length[first, second]
                across = corners @ np.array([-along[1], along[0]])
                best = float(length[first, second]), float(np.ptp(across))
    return best


def outline_mm(plane: Mask, row_mm: float, column_mm: float) -> NDArray[np.float64]:
    """Return the corners of the convex hull about a mask's pixels, in mm (corner, row and column); none of an empty one."""
    pixels = np.argwhere(plane & ~ndimage.binary_erosion(plane))
    corners = (pixels[:, None] + HALF_PIXEL).reshape(-1, 2) * (row_mm, column_mm)
    try:
        return corners[ConvexHull(corners).vertices] if len(corners) else corners
    except QhullError:  # a numerical accident of very thin pixels: all corners do as well
        return corners


def surface_mm2(mask: Mask, spacing_mm: tuple[float, ...]) -> float:
    """Return the area of a region's surface as SimpleITK estimates it (LabelShapeStatistics, from crossings in thirteen directions)."""
    labels = sitk.GetImageFromArray(np.pad(mask, 1).astype(np.uint8))
    labels.SetSpacing([float(s) for s in spacing_mm[::-1]])
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.ComputePerimeterOn()
    shape.Execute(labels)
    return float(shape.GetPerimeter(1))
