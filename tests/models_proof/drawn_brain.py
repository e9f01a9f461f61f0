"""A drawn brain: nested ellipsoids of fluid, grey and white matter about a ventricle, whose volumes are known exactly, in any grid."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from highdicom import Volume

from tests.models_proof import volume
from tests.phantoms import affine

SEMI_AXES_MM = {"brain": (68, 85, 62), "grey": (64, 81, 58), "white": (55, 72, 49), "ventricle": (14, 30, 12)}  # left-right, front-back, up-down
T1 = (300.0, 600.0, 900.0)  # brightness of fluid, grey and white matter; their order and distances are those of a T1
FLAIR = (60.0, 520.0, 400.0)  # the same on FLAIR: fluid is nulled, grey matter is brighter than white
LESION = {"t1": 600.0, "flair": 700.0}  # brightness of a lesion: as grey matter on T1
SHAPE = (96, 185, 160)
SPACING_MM = (1.6, 1.0, 1.1)


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A scan of the drawn brain."""

    scan: Volume
    brain: Any  # mask on the scan's grid
    true_ml: tuple[float, float, float]  # fluid, grey, white
    lesions: Any = None  # mask on the scan's grid: voxels of which a lesion takes half or more


def drawn(
    *,
    orientation: Any = "oblique",
    spacing_mm=SPACING_MM,
    shape=SHAPE,
    brightness=T1,
    noise=0.0,
    shading=0.0,
    lesions=(),
    lesion=600.0,
    moved=None,
    seed=0,
) -> Drawn:
    """Return a scan whose middle is the brain's middle.

    noise: standard deviation in units of the step from grey to white. shading: the brightness grows by this share from the middle to each end.
    lesions: middle (mm, LPS) and radius (mm) of balls within the white matter, as bright as `lesion`. moved: a rigid motion (4, 4) of the head.
    """
    matrix = affine(orientation, spacing_mm, (0, 0, 0))
    matrix[:3, 3] = -matrix[:3, :3] @ ((np.array(shape) - 1) / 2)
    place_mm = places(matrix if moved is None else np.linalg.inv(moved) @ matrix, shape)
    shares = {name: occupied(place_mm, np.array(axes, np.float32), np.prod(spacing_mm) ** (1 / 3)) for name, axes in SEMI_AXES_MM.items()}
    white = shares["white"] - shares["ventricle"]
    grey = shares["grey"] - shares["white"]
    fluid = shares["brain"] - shares["grey"] + shares["ventricle"]
    image = sum(share * value for share, value in zip((fluid, grey, white), brightness, strict=True))
    voxel_mm = float(np.prod(spacing_mm)) ** (1 / 3)
    sick = sum((occupied(place_mm - np.array(middle, np.float32), radius, voxel_mm) for middle, radius in lesions), 0.0)
    image = image + sick * (lesion - brightness[2])
    image *= 1 + shading * np.sin(place_mm / 60).sum(axis=-1) / 2
    image += noise * abs(brightness[2] - brightness[1]) * np.random.default_rng(seed).normal(size=shape)
    return Drawn(scan=volume(np.abs(image), matrix), brain=shares["brain"] > 0.5, true_ml=true_ml(), lesions=sick >= 0.5)


def true_ml() -> tuple[float, float, float]:
    """Return the volumes of fluid, grey and white matter: 4/3 pi abc."""
    brain, grey, white, ventricle = (4 / 3 * np.pi * np.prod(axes) / 1000 for axes in SEMI_AXES_MM.values())
    return float(brain - grey + ventricle), float(grey - white), float(white - ventricle)


def places(matrix: Any, shape: tuple[int, ...]) -> Any:
    """Return each voxel's place in the patient, mm: (slice, row, column, 3)."""
    along = [np.arange(n, dtype=np.float32)[:, None] * matrix[:3, axis].astype(np.float32) for axis, n in enumerate(shape)]
    return along[0][:, None, None] + along[1][None, :, None] + along[2][None, None] + matrix[:3, 3].astype(np.float32)


def occupied(place_mm: Any, semi_axes_mm: Any, voxel_mm: float) -> Any:
    """Return how much of each voxel lies within an ellipsoid: its surface is flat within a voxel, to first order."""
    unit = place_mm / semi_axes_mm
    radius = np.linalg.norm(unit, axis=-1) + 1e-6
    steep = np.linalg.norm(unit / semi_axes_mm, axis=-1) / radius + 1e-6
    return np.clip(0.5 - (radius - 1) / steep / voxel_mm, 0, 1)
