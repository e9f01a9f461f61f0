"""A FLAIR made for a real T1 from maps of its tissues, as another scan of that head could look: moved, noisy, shaded, with lesions of known size."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from highdicom import Volume
from scipy import ndimage

from tests.models_proof import volume
from tests.models_proof.drawn_brain import FLAIR, LESION, occupied, places
from tests.phantoms import affine

SPACING_MM, SHAPE = (3.0, 1.0, 1.0), (60, 240, 200)  # axial
WITHIN = 3  # places in each slice whose mean it shows
APART_MM = 12.0  # between the middles of lesions, beyond their radii
SCALP = 500.0  # brightness of what is as bright on T1 as white matter, outside the brain
SHADING, NOISE = 0.2, 0.03  # from the middle to each end; standard deviation as a share of grey matter's brightness


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two series of one head."""

    t1: Volume
    flair: Volume
    lesions: Any  # mask on the FLAIR's grid: voxels of which a lesion takes half or more


def pair(t1: Volume, shares: Any, balls: Any, moved: Any, seed: int = 0) -> Pair:
    """Return a T1 with balls as bright as its grey matter, and a FLAIR of the same head.

    shares: of fluid, grey and white matter from 0 to 1, (tissue, slice, row, column) on the T1's grid. balls: middle (mm, LPS) and radius (mm).
    moved: a rigid motion (4, 4) of the head between the series.
    """
    at_mm = places(t1.affine, t1.array.shape)
    sick = sum((occupied(at_mm - np.array(middle, np.float32), radius, 1.0) for middle, radius in balls), np.float32(0))
    grey, white = (float(np.median(t1.array[one > 0.95])) for one in shares[1:])
    still = sum(one * value for one, value in zip(shares, FLAIR, strict=True)) + (1 - shares.sum(axis=0)) * t1.array * (SCALP / white)
    still = still + sick * (LESION["flair"] - FLAIR[2])
    matrix = affine("axial", SPACING_MM, (0, 0, 0))
    matrix[:3, 3] = _middle(t1, shares) - matrix[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    return Pair(
        t1=volume(t1.array + sick * (grey - white), t1.affine),
        flair=volume(_scanned(still, t1, matrix, np.linalg.inv(moved), seed), matrix),
        lesions=_scanned_share(balls, matrix, np.linalg.inv(moved)) >= 0.5,
    )


def balls(t1: Volume, shares: Any, radii_mm: tuple[float, ...]) -> list[tuple[Any, float]]:
    """Return a ball for each radius, the largest first, each where white matter of the upper half is deepest of what is left."""
    at_mm = places(t1.affine, t1.array.shape)
    depth = ndimage.distance_transform_edt(shares[2] > 0.9, t1.spacing) * (at_mm[..., 2] > _middle(t1, shares)[2])
    chosen = []
    for radius in sorted(radii_mm, reverse=True):
        place = np.unravel_index(depth.argmax(), depth.shape)
        if depth[place] < radius + 1:
            raise ValueError(f"no white matter holds a ball of {radius} mm: {depth[place]:.1f} mm deep")
        middle = at_mm[place]
        chosen.append((middle, radius))
        depth[np.linalg.norm(at_mm - middle, axis=-1) < radius + APART_MM] = 0
    return chosen


def _middle(t1: Volume, shares: Any) -> Any:
    """Return the brain's middle, mm (LPS), rounded."""
    inside = shares.sum(axis=0) > 0.5
    return np.round((t1.affine @ [*ndimage.center_of_mass(inside), 1])[:3])


def _scanned(still: Any, t1: Volume, matrix: Any, back: Any, seed: int) -> Any:
    """Return the FLAIR: each slice the mean over its thickness, shaded, with the noise of a magnitude."""
    fine = matrix.copy()
    fine[:3, 0] /= WITHIN
    fine[:3, 3] -= fine[:3, 0] * (WITHIN - 1) / 2
    to_index = np.linalg.inv(t1.affine) @ back @ fine
    shape = (SHAPE[0] * WITHIN, *SHAPE[1:])
    seen = ndimage.affine_transform(still.astype(np.float32), to_index[:3, :3], to_index[:3, 3], shape, order=1)
    image = seen.reshape(SHAPE[0], WITHIN, *SHAPE[1:]).mean(axis=1)
    image *= 1 + SHADING * np.sin((places(matrix, SHAPE) - matrix[:3, 3]) / 60).mean(axis=-1)
    real, imaginary = np.random.default_rng(seed).normal(0, NOISE * FLAIR[1], (2, *SHAPE))
    return np.hypot(image + real, imaginary)


def _scanned_share(balls: Any, matrix: Any, back: Any) -> Any:
    at_mm = places(back @ matrix, SHAPE)
    voxel_mm = float(np.prod(SPACING_MM)) ** (1 / 3)
    return sum((occupied(at_mm - np.array(middle, np.float32), radius, voxel_mm) for middle, radius in balls), np.float32(0))
