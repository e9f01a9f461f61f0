"""Binary morphology in millimetres: masks (slice, row, column) on a grid, closed, opened, dilated, filled, measured from their surface."""

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from dicom_node.methods.coarse import Grid, Image, Mask


def as_image(mask: Mask) -> sitk.Image:
    """Return a mask as SimpleITK takes it, without spacing."""
    return sitk.GetImageFromArray(mask.view(np.uint8))


def as_mask(image: sitk.Image) -> Mask:
    """Return what SimpleITK gives as a mask."""
    return sitk.GetArrayFromImage(image).astype(bool)


def closed(mask: Mask, radius: list[int], kernel: int = sitk.sitkBall) -> Mask:
    """Return a mask closed by a kernel of a radius in voxels (x, y, z); the edge of the array adds nothing and takes nothing."""
    return as_mask(sitk.BinaryMorphologicalClosing(as_image(mask), radius, kernel, 1, True))


def opened(mask: Mask, radius: list[int]) -> Mask:
    """Return a mask opened by a ball of a radius in voxels (x, y, z)."""
    return as_mask(sitk.BinaryMorphologicalOpening(as_image(mask), radius, sitk.sitkBall))


def dilated(mask: Mask, radius: list[int]) -> Mask:
    """Return a mask dilated by a ball of a radius in voxels (x, y, z)."""
    return as_mask(sitk.BinaryDilate(as_image(mask), radius))


def eroded(mask: Mask, radius: list[int]) -> Mask:
    """Return a mask eroded by a ball of a radius in voxels (x, y, z); the edge of the array takes nothing."""
    return ~as_mask(sitk.BinaryDilate(as_image(~mask), radius))


def depth_mm(mask: Mask, grid: Grid) -> Image:
    """Return how deep each voxel lies under the mask's outermost voxels; zero in these and outside."""
    return _signed_mm(mask, grid, inside_is_positive=True).clip(min=0)


def distance_mm(mask: Mask, grid: Grid) -> Image:
    """Return each voxel's distance from the nearest one in the mask; zero in it, infinite where the mask is empty."""
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    return _signed_mm(mask, grid, inside_is_positive=False).clip(min=0)


def _signed_mm(mask: Mask, grid: Grid, *, inside_is_positive: bool) -> Image:
    image = as_image(mask)
    image.SetSpacing(grid.spacing_mm[::-1])
    return sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(image, inside_is_positive, squaredDistance=False, useImageSpacing=True))


def filled(mask: Mask) -> Mask:
    """Return a mask without holes in its slices."""
    return np.stack([ndimage.binary_fill_holes(one) for one in mask])


def largest(mask: Mask) -> Mask:
    """Return the largest piece of a mask; empty where there is none."""
    pieces, count = ndimage.label(mask)
    return np.asarray(pieces == np.bincount(pieces.ravel())[1:].argmax() + 1) if count else mask


def not_smaller(mask: Mask, grid: Grid, least_ml: float) -> Mask:
    """Return the pieces of a mask that have at least a volume."""
    pieces, count = ndimage.label(mask)
    large = np.bincount(pieces.ravel(), minlength=count + 1) * grid.ml >= least_ml
    large[0] = False
    return np.asarray(large[pieces])
