"""The wall of the trunk, seen along rays from the middle of each axial slice: how deep muscle and bone reach under its surface.

On the coarse grid (slice, row, column), axes to the patient's head, back and left; what is known of each ray is an array (slice, ray).
"""

import numpy as np
from scipy import ndimage

from dicom_node.methods.coarse import Grid, Image, Mask

SURE_HU = 500  # behind fat that may end the wall only what is as dense is bone, such as the pelvis; a kidney is not
WALL_MM = (6.0, 30.0)  # the muscular wall of the trunk is at least and at most this thick
BACK_MM = 110.0  # and beside the spine, with its muscles, at most this
PELVIS_MM = 80.0  # of muscle, at most, lie on the pelvis
BACK_DEGREES = (35.0, 60.0)  # from straight back: as far as the spine reaches; as far as its muscles reach
BONE_GAP_MM = (12.0, 40.0)  # elsewhere, through the spine: between two bones on a ray; what lies deeper, such as a kidney, is no bone
MUCH = (2.5, 1.5)  # behind, elsewhere: times as thick as the wall about it, the wall is not: an organ touches it
SHALLOW_MM = 40.0  # bone that ends above this depth is a rib, the sternum or flat like them: muscle lines it; deeper, the spine or the pelvis
BEHIND_RIB_MM = 4.0  # muscle that lines the ribs
CANAL_MM = 30.0  # from the middle of the trunk to either side: what bone encloses there, behind, may be the spinal canal
ANGLES, STEP_MM = 180, 2.0  # rays from the middle of the trunk, samples along each


def wall_of(hu: Image, trunk: Mask, bone: Mask, open_space: Mask, grid: Grid) -> tuple[Mask, Mask]:
    """Return the trunk's wall: along rays from the middle, from the surface to the first fat or air, or to the last of the bone; and its bone.

    Where an organ touches the wall no ray sees its end: there it is as thick as around that place.
    open_space: fat and air, at which a ray ends.
    """
    middle = _middles(trunk)
    reach_mm, thick_mm = _thickness(hu, trunk, bone, open_space, middle, grid)
    depth_over_mm = np.full(trunk.shape, np.inf, np.float32)  # how much deeper than the wall
    rows, columns = (np.arange(n, dtype=np.float32) for n in trunk.shape[1:])
    for k in np.flatnonzero(trunk.any(axis=(1, 2))):
        y = (rows[:, None] - middle[k, 0]) * grid.spacing_mm[1]
        x = (columns[None] - middle[k, 1]) * grid.spacing_mm[2]
        ray = np.rint((np.arctan2(y, x) / (2 * np.pi) % 1) * ANGLES).astype(int) % ANGLES
        depth_over_mm[k] = reach_mm[k][ray] - np.hypot(y, x) - thick_mm[k][ray]
    return trunk & (depth_over_mm < 0), bone & (depth_over_mm < 2 * BEHIND_RIB_MM)


def _thickness(hu: Image, trunk: Mask, bone: Mask, open_space: Mask, middle: Image, grid: Grid) -> tuple[Image, Image]:
    """Return by (slice, ray) how far in mm the trunk's surface lies from the middle, and how thick the wall is there."""
    angle = np.arange(ANGLES) * 2 * np.pi / ANGLES
    longest_mm = np.hypot(trunk.shape[1] * grid.spacing_mm[1], trunk.shape[2] * grid.spacing_mm[2])
    far_mm = np.arange(0, longest_mm, STEP_MM)
    dy, dx = (np.outer(f(angle), far_mm) / s for f, s in ((np.sin, grid.spacing_mm[1]), (np.cos, grid.spacing_mm[2])))
    first_mm, end_mm = (
        np.where(np.sin(angle) > np.cos(np.radians(wide)), BACK_MM, rest) for wide, rest in zip(BACK_DEGREES, (PELVIS_MM, WALL_MM[1]), strict=True)
    )
    gap_mm = np.where(first_mm == BACK_MM, BONE_GAP_MM[1], BONE_GAP_MM[0])
    reach_mm, seen_mm, bone_mm = (np.zeros((len(trunk), ANGLES), np.float32) for _ in range(3))
    for k, (row, column) in enumerate(middle):
        y, x = np.rint(row + dy).astype(int), np.rint(column + dx).astype(int)
        within = (y >= 0) & (y < trunk.shape[1]) & (x >= 0) & (x < trunk.shape[2])
        y, x = y.clip(0, trunk.shape[1] - 1), x.clip(0, trunk.shape[2] - 1)
        reach_mm[k] = ((trunk[k, y, x] & within) * (far_mm + STEP_MM / 2)).max(1)
        depth_mm = reach_mm[k][:, None] - far_mm
        end = open_space[k, y, x] & within & (depth_mm >= WALL_MM[0])
        hidden = np.logical_or.accumulate(end[:, ::-1], 1)[:, ::-1] & (depth_mm > WALL_MM[1]) & (first_mm < BACK_MM)[:, None]
        bones = bone[k, y, x] & within & (depth_mm >= 0) & (~hidden | (hu[k, y, x] >= SURE_HU))
        bone_mm[k] = _last_bone(bones, depth_mm, first_mm, gap_mm)
        seen_mm[k] = np.where(end, depth_mm - STEP_MM / 2, np.inf).min(1)
    much = np.where(end_mm == BACK_MM, *MUCH)
    through = (seen_mm > end_mm) | (seen_mm > much * _usual(seen_mm, grid) + BEHIND_RIB_MM)  # an organ that touches the wall
    return reach_mm, _joined(np.where(through, np.nan, seen_mm), bone_mm, grid)


def _last_bone(bone: Mask, depth_mm: Image, first_mm: Image, gap_mm: Image) -> Image:
    """Return for each ray the depth of its last bone, before the first gap that is too wide; zero without bone.

    bone, depth_mm: (ray, place from the middle outwards). first_mm, gap_mm: how deep the first bone may be, how far apart two.
    """
    inward = bone[:, ::-1]
    at_mm = np.where(inward, depth_mm[:, ::-1], 0)
    before_mm = np.maximum.accumulate(at_mm, 1)[:, :-1]
    gap = inward[:, 1:] & (at_mm[:, 1:] - before_mm > np.where(before_mm > 0, gap_mm[:, None], first_mm[:, None]))
    too_deep = np.concatenate((np.zeros((len(bone), 1), bool), np.logical_or.accumulate(gap, 1)), 1)
    return np.where(too_deep, 0, at_mm).max(1)


def _joined(seen_mm: Image, bone_mm: Image, grid: Grid) -> Image:
    """Return one thickness for every ray from where its end was seen and where bone was; between two ribs the bone's depth counts on."""
    ribs = 2 * round(15 / grid.spacing_mm[0]) + 1
    bone_mm = np.maximum(bone_mm, ndimage.grey_closing(_round(bone_mm), (ribs, 7), mode="nearest")[:, 8:-8])
    lined_mm = np.where(bone_mm <= SHALLOW_MM, bone_mm + BEHIND_RIB_MM, bone_mm)
    thick_mm = np.where(bone_mm > 0, lined_mm, seen_mm)
    around = _round(_completed(thick_mm, grid))
    return ndimage.median_filter(around, (3, 5), mode="nearest")[:, 8:-8]


def _usual(values: Image, grid: Grid) -> Image:
    """Return a low value of each ray's surroundings; infinity where none is known."""
    size = (2 * round(30 / grid.spacing_mm[0]) + 1, 15)
    return ndimage.percentile_filter(_round(np.where(np.isfinite(values), values, np.inf)), 25, size, mode="nearest")[:, 8:-8]


def _round(values: Image) -> Image:
    """Return values by (slice, ray) with eight rays repeated on each side, so that a filter sees no seam."""
    return np.concatenate((values[:, -8:], values, values[:, :8]), 1)


def _completed(values: Image, grid: Grid) -> Image:
    """Return values by (slice, ray) with what is not known set to a mean of its surroundings, the nearer the heavier."""
    known, result = np.isfinite(values), np.where(np.isfinite(values), values, np.nan)
    if not known.any():
        return np.full(values.shape, WALL_MM[0], np.float32)
    for spread_mm in (8, 16, 32, 64, 128):
        sigma = (spread_mm / grid.spacing_mm[0], spread_mm / 4)  # 4 mm to a ray of 2 degrees
        weight = ndimage.gaussian_filter(known.astype(np.float32), sigma, mode=("nearest", "wrap"))
        total = ndimage.gaussian_filter(np.where(known, values, 0), sigma, mode=("nearest", "wrap"))
        result = np.where(np.isnan(result) & (weight > 0.05), total / weight.clip(1e-6), result)
    return np.nan_to_num(result, nan=float(np.median(values[known]))).astype(np.float32)


def _middles(trunk: Mask) -> Image:
    """Return for each slice the row and column from which the rays start: in front of the spine, half way from right to left."""
    places = np.zeros((len(trunk), 2), np.float32)
    for k, one in enumerate(trunk):
        if one.any():
            rows, columns = (np.flatnonzero(one.any(axis=axis)) for axis in (1, 0))
            places[k] = rows[0] + 0.4 * (rows[-1] - rows[0]), (columns[0] + columns[-1]) / 2
    return places


def behind(trunk: Mask, grid: Grid) -> Mask:
    """Return the part of each slice behind the middle of the trunk and near its midline."""
    rows, columns = np.indices(trunk.shape[1:], sparse=True)
    return np.stack([(rows > row) & (abs(columns - column) * grid.spacing_mm[2] <= CANAL_MM) for row, column in _middles(trunk)])
