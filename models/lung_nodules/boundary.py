"""The boundary of one candidate, and the features by which a nodule is told from a vessel, a fork of vessels, a fold of the pleura.

The boundary is the watershed of the gradient between a marker in the blob's heart and one in the lung about it; along a vessel there is no gradient,
so that what is thinner than half of the blob is then opened away.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import ball
from skimage.segmentation import watershed

from dicom_node.methods.coarse import Box, Image, Mask
from dicom_node.methods.coarse import box as box_about

from .candidates import STEP_MM, Blob, Field, Point, blobs, halved

REACH = 2.0  # how far from its middle a blob is looked at, in radii
HEART = 0.5  # of the radius: the marker within
THIN = 0.5  # of the inscribed ball's radius: what is thinner is a vessel or a spicule
EDGE = 0.5  # between lung and the blob's heart: where the edge of an even body lies after any blur
FEATURES = ("size", "contrast", "least", "second", "long", "flat", "compact", "joined", "walled", "deep")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One candidate on the grid of cubes: its voxels, where they lie, its edge's density, and its features in the order of FEATURES."""

    box: Box
    mask: Mask
    edge_hu: float
    features: NDArray[np.float64]

    @property
    def middle(self) -> Point:
        """The mean of its cubes' places."""
        return np.argwhere(self.mask).mean(0) + [side.start for side in self.box]

    @property
    def volume_ml(self) -> float:
        """Of its cubes."""
        return float(self.mask.sum()) * STEP_MM**3 / 1000


def candidates(view: Field) -> list[Candidate]:
    """Return the candidates in the lungs, the most distinct first; some may overlap."""
    pleura_mm = ndimage.distance_transform_edt(halved(view.inside) > 0.5, 2 * STEP_MM).astype(np.float32)
    each = (outlined(view, blob, pleura_mm) for blob in blobs(view))
    return [one for one in each if one is not None]


def outlined(view: Field, blob: Blob, pleura_mm: Image) -> Candidate | None:
    """Return the candidate about a blob, None where nothing stands out of the lung.

    pleura_mm: the depth under the closed lungs' surface, of cubes twice as wide.
    """
    radius = blob.radius_mm / STEP_MM
    reach = int(np.ceil(REACH * radius)) + 3
    z, y, x = (slice(max(0, round(m) - reach), min(n, round(m) + reach + 1)) for m, n in zip(blob.middle, view.hu.shape, strict=True))
    box = (z, y, x)
    hu, inside = view.hu[box], view.inside[box]
    far = _distance(hu.shape, blob.middle - [side.start for side in box])
    heart = (far <= max(1.0, HEART * radius)) & inside
    if not heart.any():
        return None
    heart_hu = float(np.percentile(hu[heart], 75))
    edge_hu = view.lung_hu + EDGE * (heart_hu - view.lung_hu)
    mask = _without_tails(_basin(hu, inside, heart & (hu > edge_hu), far > REACH * radius + 1, edge_hu, view.lung_hu), heart)
    if not mask.any():
        return None
    size, long, flat, compact = _shape(mask)
    joined, walled = _surroundings(mask, hu > edge_hu, inside)
    places = np.minimum((np.argwhere(mask) + [side.start for side in box]) // 2, np.array(pleura_mm.shape) - 1)
    deep = float(pleura_mm[tuple(places.T)].mean()) / (size / 2)
    contrast = (heart_hu - view.lung_hu) / 100
    shape = (np.log(size), contrast, blob.least, blob.second, long, flat, compact)
    return Candidate(box, mask, edge_hu, np.array([*shape, _logit(joined), _logit(walled), np.log(0.1 + deep)]))


def _distance(shape: tuple[int, ...], middle: Point) -> Image:
    return np.sqrt(sum((axis - m) ** 2 for axis, m in zip(np.ogrid[tuple(slice(n) for n in shape)], middle, strict=True))).astype(np.float32)


def _basin(hu: Image, inside: Mask, heart: Mask, far: Mask, edge_hu: float, lung_hu: float) -> Mask:
    """Return the basin of the heart: up to the ridge of the gradient towards the lung, or to what is too far away."""
    lung = (hu < (edge_hu + lung_hu) / 2) | ~inside | far
    if not heart.any():
        return heart
    steep = ndimage.gaussian_gradient_magnitude(hu, 0.7)
    return watershed(steep, np.where(heart, 1, np.where(lung, 2, 0)).astype(np.int8)) == 1


def _without_tails(mask: Mask, heart: Mask) -> Mask:
    """Return the piece in the heart without what is much thinner."""
    result = np.zeros_like(mask)
    where = box_about(mask)
    if where is None:
        return result
    inner = ndimage.distance_transform_edt(np.pad(mask[where], 1))[1:-1, 1:-1, 1:-1]
    widest = float(inner[heart[where]].max(initial=0.0))
    if widest < 1:
        return result
    thin = THIN * widest
    core, _ = ndimage.label(inner > thin)
    number = core[np.unravel_index(np.argmax(np.where(heart[where], inner, 0)), core.shape)]
    if number:
        result[where] = mask[where] & (ndimage.distance_transform_edt(core != number) <= thin + 1)
    return result


def _shape(mask: Mask) -> tuple[float, float, float, float]:
    """Return the diameter in mm of the ball of its volume; second and third of its axes over the longest; how much of the ball about it it fills."""
    places = np.argwhere(mask) * STEP_MM
    size = (6 * len(places) * STEP_MM**3 / np.pi) ** (1 / 3)
    away = places - places.mean(0)
    spread = np.sqrt(np.linalg.eigvalsh(away.T @ away / len(places) + np.eye(3) * STEP_MM**2 / 12))
    around = float(np.linalg.norm(away, axis=1).max()) + STEP_MM / 2
    return size, spread[1] / spread[2], spread[0] / spread[2], float((size / 2 / around) ** 3)


def _surroundings(mask: Mask, bright: Mask, inside: Mask) -> tuple[float, float]:
    """Return the shares of its shell that are as bright as itself, and that lie outside of the closed lungs; the mask is not empty."""
    where = box_about(mask, (2, 2, 2)) or ()
    shell = ndimage.binary_dilation(np.pad(mask[where], 2), ball(2))[2:-2, 2:-2, 2:-2] & ~ndimage.binary_dilation(mask[where])
    total = max(1, int(shell.sum()))
    return float((shell & bright[where] & inside[where]).sum()) / total, float((shell & ~inside[where]).sum()) / total


def _logit(share: float) -> float:
    return float(np.log((share + 0.02) / (1 - share + 0.02)))
