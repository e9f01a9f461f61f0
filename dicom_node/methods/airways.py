"""Trachea and large bronchi on chest CT: their lumen on the scan's own grid, and how wide the trachea is."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicom_node.methods.coarse import Mask, box, clean, smooth_slices
from dicom_node.methods.lungs import Lungs
from dicom_node.methods.morphology import largest

WALL_HU = -500.0  # half way between air and the wall
ONE_PIECE = 0.9  # of a slice's lumen lies in one piece: trachea; in two, the main bronchi
CARINA_MM = 10.0  # above it the trachea has its own width again
SHORT_MM = 20.0  # of what is left above: less does with the carina


def lumen(hu: Any, lungs: Lungs) -> Mask:
    """Return the air in trachea and large bronchi on the scan's grid (slice, row, column): up to half way to the wall's density.

    hu: the scan in which `lungs` were found.
    """
    found = np.zeros(hu.shape, bool)
    near = ndimage.binary_dilation(lungs.airways)
    coarse = box(near, (1, 1, 1))
    if coarse is None:
        return found
    where = lungs.grid.fine(coarse, hu.shape)
    here = found[where]
    for k, may in enumerate(smooth_slices(near[coarse], lungs.grid, here.shape)):
        here[k] = may & (clean(hu[where][k]) < WALL_HU) & (lungs.segments[where][k] == 0)
    found[where] = largest(here)
    return found


def trachea_mm2(air: Mask, spacing_mm: tuple[float, ...], highest: int) -> NDArray[np.float64]:
    """Return the trachea's cross-sections in mm2 from below to above, across its own axis; none where there is no air.

    air: of trachea and bronchi (slice, row, column), axes to the patient's head, back and left. highest: the slice at which the neck begins, such
    as that of the lungs' apex. Left out are the neck and CARINA_MM above the carina, where they leave anything.
    """
    slices = trachea(air[: highest + 1] if air[: highest + 1].any() else air)
    margin = round(CARINA_MM / spacing_mm[0])
    if (len(slices) - margin) * spacing_mm[0] >= SHORT_MM:
        slices = slices[margin:]
    areas_mm2 = np.array([np.count_nonzero(air[k]) for k in slices]) * spacing_mm[1] * spacing_mm[2]
    if len(slices) < 2:
        return areas_mm2
    middles_mm = np.array([[places.mean() for places in np.nonzero(air[k])] for k in slices]) * spacing_mm[1:]  # (slice, row and column)
    per_mm = np.polyfit(slices * spacing_mm[0], middles_mm, 1)[0]  # how far its axis moves back and left on its way up
    return areas_mm2 / np.sqrt(1 + (per_mm**2).sum())


def trachea(air: Mask) -> NDArray[np.intp]:
    """Return the slices of the trachea: from the highest with air down to the carina, below which the lumen has parted; all where it never has."""
    slices = np.flatnonzero(air.any(axis=(1, 2)))
    for k in slices[:-1][::-1]:
        sizes = np.bincount(ndimage.label(air[k])[0].ravel())[1:]
        if sizes.max() < ONE_PIECE * sizes.sum():
            return slices[slices > k]
    return slices
