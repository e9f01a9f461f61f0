"""What a region's shape is like, as the IBSI defines it: by its voxels, by the mesh about them, and by how values lie in it. Lengths are mm."""

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.spatial import ConvexHull
from scipy.spatial.distance import cdist
from scipy.special import eval_legendre
from skimage.measure import marching_cubes, mesh_surface_area

Array = NDArray[Any]
Features = dict[str, float]
Spacing = tuple[float, ...]

MOST_BOX_VOXELS = 2**20  # of the box about a region: above it Moran's and Geary's measures, of all pairs of voxels, are left out
_PIECE = 512  # of the hull's corners are compared with all others in one go


def shape_of(mask: Array, spacing_mm: Spacing) -> Features:
    """Return the shape of a region: mesh and hull, and the axes of the ellipsoid with the same second moments. mask: (slice, row, column)."""
    corners, faces = mesh(mask, spacing_mm)
    volume, area = mesh_volume(corners, faces), float(mesh_surface_area(corners, faces))
    hull = ConvexHull(corners)
    sides = np.ptp(corners, axis=0)
    round_area = (36 * np.pi * volume**2) ** (1 / 3)  # of the ball with this volume
    return {
        "volume": np.count_nonzero(mask) * float(np.prod(spacing_mm)),
        **axes(mask, spacing_mm, volume, area),
        "mesh_volume": volume,
        "mesh_area": area,
        "surface_to_volume": area / volume,
        "compactness_1": volume / (np.sqrt(np.pi) * area**1.5),
        "compactness_2": 36 * np.pi * volume**2 / area**3,
        "spherical_disproportion": area / round_area,
        "sphericity": round_area / area,
        "asphericity": area / round_area - 1,
        "maximum_diameter": diameter(corners[hull.vertices]),
        "box_volume_density": volume / float(np.prod(sides)),
        "box_area_density": area / float(2 * sum(a * b for a, b in [*pairwise(sides), (sides[0], sides[2])])),
        "hull_volume_density": volume / hull.volume,
        "hull_area_density": area / hull.area,
    }


def mesh(mask: Array, spacing_mm: Spacing) -> tuple[Array, Array]:
    """Return corners (corner, 3) in mm and faces (face, 3) of the surface half way between the voxels' centres in and out of a region."""
    corners, faces, _, _ = marching_cubes(np.pad(mask, 1).astype(np.float32), 0.5, spacing=spacing_mm, method="lorensen")
    return corners.astype(np.float64), faces


def mesh_volume(corners: Array, faces: Array) -> float:
    """Return what a closed mesh encloses: the sum of the signed tetrahedra between its faces and one point."""
    a, b, c = np.moveaxis((corners - corners[0])[faces], 1, 0)
    return abs(float(np.einsum("ij,ij->", a, np.cross(b, c)))) / 6


def diameter(points: Array) -> float:
    """Return the greatest distance between two of the points."""
    return max(float(cdist(points[start : start + _PIECE], points).max()) for start in range(0, len(points), _PIECE))


def axes(mask: Array, spacing_mm: Spacing, mesh_mm3: float, mesh_mm2: float) -> Features:
    """Return the axes of the ellipsoid with a region's second moments, and what of it the mesh fills."""
    least, minor, major = 4 * np.sqrt(np.clip(np.linalg.eigvalsh(covariance_mm2(mask, spacing_mm)), 0, None))
    found = {"major_axis": major, "minor_axis": minor, "least_axis": least}
    found |= {"elongation": minor / major, "flatness": least / major} if major else {}
    a, b, c = major / 2, minor / 2, least / 2
    if c > 0:
        found |= {"ellipsoid_volume_density": mesh_mm3 / (4 / 3 * np.pi * a * b * c), "ellipsoid_area_density": mesh_mm2 / ellipsoid_mm2(a, b, c)}
    return found


def ellipsoid_mm2(a: float, b: float, c: float) -> float:
    """Return the area of an ellipsoid with half axes a >= b >= c > 0 by the series of the IBSI, up to its 20th term.

    Its second eccentricity is of c and a, where the series in the literature has that of c and b: of an ellipsoid with three different axes it is
    a few percent below the true area. The reference value holds the former, and so does this.
    """
    first, second = (max(np.sqrt(1 - (short / a) ** 2), 1e-6) for short in (b, c))  # of a ball they are 0, and their quotient is undefined
    orders = np.arange(21)
    terms = (first * second) ** orders / (1 - 4 * orders**2) * eval_legendre(orders, (first**2 + second**2) / (2 * first * second))
    return float(4 * np.pi * a * b * terms.sum())


def covariance_mm2(mask: Array, spacing_mm: Spacing) -> Array:
    """Return the sample covariance of the places of a region's voxels, (3, 3); of one voxel 0. Sums by planes: no list of voxels is made."""
    found = np.zeros((3, 3))
    count = np.count_nonzero(mask)
    place = [(np.arange(n) - c) * s for n, c, s in zip(mask.shape, centre(mask), spacing_mm, strict=True)]
    for first, second in [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]:
        plane = mask.sum(axis=tuple({0, 1, 2} - {first, second}))
        total = plane @ place[first] ** 2 if first == second else place[first] @ plane @ place[second]
        found[first, second] = found[second, first] = total / max(count - 1, 1)
    return found


def centre(weights: Array) -> Array:
    """Return the weighted mean of the voxels' places, in voxels."""
    along = [weights.sum(axis=tuple({0, 1, 2} - {axis}), dtype=np.float64) for axis in range(3)]
    return np.array([sums @ np.arange(sums.size) for sums in along]) / along[0].sum()


# ------------------------------------------------------------------------------------------------------- values in a shape


def values_in_place(values: Array, counted: Array, mask: Array, spacing_mm: Spacing, mesh_mm3: float) -> Features:
    """Return how the values lie in a region's shape. counted: its voxels whose values count, at least one; values: (slice, row, column)."""
    found = {"integrated_intensity": float(values[counted].mean(dtype=np.float64)) * mesh_mm3}
    weights = np.where(counted, values, 0)
    if weights.sum(axis=(1, 2), dtype=np.float64).sum():  # else there is no weighted centre
        found["centre_shift"] = float(np.linalg.norm((centre(weights) - centre(mask)) * spacing_mm))
    return found | (autocorrelation(values, counted, spacing_mm) if mask.size <= MOST_BOX_VOXELS else {})


def autocorrelation(values: Array, counted: Array, spacing_mm: Spacing) -> Features:
    """Return Moran's I and Geary's C, each pair of voxels weighted by the inverse of its distance; nothing where values do not differ.

    The sums over all pairs are two convolutions with the weights.
    """
    x = np.where(counted, values - values[counted].mean(dtype=np.float64), 0.0)
    number, spread = np.count_nonzero(counted), float((x**2).sum())
    if number < 2 or not np.ptp(values[counted]):
        return {}
    size = [fft.next_fast_len(2 * n - 1, real=True) for n in counted.shape]
    kernel = fft.rfftn(_inverse_distance(counted.shape, size, spacing_mm))
    weight, neighbours = (
        fft.irfftn(fft.rfftn(one.astype(np.float32), size) * kernel, size)[tuple(slice(0, n) for n in counted.shape)] for one in (counted, x)
    )
    total = float(weight[counted].sum(dtype=np.float64))
    together = float((x * neighbours).sum())
    return {
        "moran_i": number / total * together / spread,
        "geary_c": (number - 1) / total * (float((x**2 * weight).sum()) - together) / spread,
    }


def _inverse_distance(shape: tuple[int, ...], size: list[int], spacing_mm: Spacing) -> Array:
    """Return 1/mm for every step between two voxels of a box, steps back being counted from the end, and 0 for no step."""
    steps = [np.minimum(np.arange(n), n - np.arange(n)) * s for n, s in zip(size, spacing_mm, strict=True)]
    squared = np.asarray(sum(one.astype(np.float32) ** 2 for one in np.ix_(*steps)))
    squared[0, 0, 0] = np.inf
    return 1 / np.sqrt(squared)
