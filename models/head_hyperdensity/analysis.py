"""Hyperdense candidates inside the skull on head CT without contrast agent: their mask, number, volume and density.

Everything works on a view whose axes run to the patient's head, back and left, so that "slice" below is axial however the scan was cut.
The skull's inside is found on a grid of about 2 mm, the candidates on one of about 1 mm; the mask comes back on the scan's own grid.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicom_node import Findings, Unsuitable
from dicom_node.methods.coarse import Box, Grid, Image, Mask, block_means, box, clean, spread
from dicom_node.methods.morphology import closed, distance_mm, not_smaller

Progress = Callable[[float, str], None]

WORK_MM, COARSE_MM = 1.0, 2.0  # of the two grids; a direction sampled more coarsely stays as it is
THICK_MM = 6.05  # slices further apart than this mix brain with bone everywhere near the skull
SHORT_MM = 100.0  # in each direction; no adult skull fits into less

BONE_HU = 300.0
SOFT_HU = -50.0  # below: fat or air, of which the skull's inside holds none
BONE_ML = 5.0  # a piece of bone smaller than this closes no skull: calcified pineal gland, plexus, tooth
CLOSE_MM = 5.0  # gaps of the skull up to twice this wide are closed: sutures, fissures, small foramina
CORE_MM = 12.0  # what is further than this from bone lies in the skull or in the neck, and is parted at the foramen magnum
CORNER_MM = 6.0  # beyond that: how far the inside goes on into corners
INSIDE_ML = (400.0, 2500.0)  # less or more is no inside of a skull
CLOSED, NEARLY_CLOSED = (
    0.8,
    0.9,
)  # of the inside's surface that is bone; two real heads have 0.93, the rest being foramina and the air cells of the base
CUT_OFF = 0.5  # of the largest cross-section, on the first or last slice: more is not a whole head

SHELL_MM = 3.0  # beside bone and calcification: partial volume and the scanner's blur
CALCIUM_HU = 130.0  # no clot is as dense; a calcification's rim is
HYPER_HU = (50.0, 100.0)  # clotted blood; grey matter is below 45, calcification above
LIFT_HU = 15.0  # over its surroundings; half of what parts fresh blood (65) from brain (35)
CEILING_HU = 60.0  # what is denser is a candidate whatever surrounds it
LAYERS_MM = (0.0, 5.0, 8.0, 12.0, 20.0)  # of depth under the bone, over which a hardened beam brightens the brain less and less
SLAB_MM, LAYER_ML = 10.0, 1.0  # height of the surroundings; a layer that holds less has no median worth trusting
SMALL_ML = 0.5
SHEET_MM = 4.0  # of width in the axial plane: what is thinner everywhere is a sheet such as the falx
SINUS_MM = 12.0  # of depth under the bone, which the sinuses of the convexity and of the base do not leave
SMOOTH_MM = (1.0, 1.5, 2.0, 2.5)  # standard deviations that are tried, the first that leaves little noise is taken
CALM_HU, LOUD_HU = 3.0, 6.0  # noise that may be left after smoothing: the aim; above this grey matter reaches 50 HU by chance
PAIRS = 24  # of neighbouring slices, on which noise is measured

NO_SKULL = "No closed skull was found in this volume."
WANTED = "Send a CT of the whole head, in Hounsfield units, from the skull base to the vertex."


def load(folder: Path, device: str) -> Callable[..., Findings]:
    """Return the analysis; it needs neither files nor an accelerator."""
    return analyse


def analyse(ct: Any, progress: Progress = lambda fraction, sentence: None) -> Findings:
    """Mark and measure what is as dense as clotted blood inside the skull.

    ct: a volume in HU with an affine to patient coordinates (LPS), in any orientation.

    Raises
    ------
    Unsuitable: the volume shows no closed skull, not enough of it, or is cut too coarsely or too noisy.
    """
    axial = ct.to_patient_orientation("HPL")
    spacing_mm = tuple(float(s) for s in axial.spacing)
    _check_geometry(axial.array.shape, spacing_mm)
    progress(0.05, "averaging to 1 mm")
    grid = _grid(spacing_mm, WORK_MM)
    hu = block_means(axial.array, grid)
    progress(0.2, "looking for the skull")
    inside, notes = _inside(hu, grid)
    where = _box(inside, grid)
    progress(0.5, "looking for what is dense")
    candidates, more = _candidates(hu[where], inside[where], grid)
    progress(0.9, "measuring")
    segments = np.zeros(hu.shape, bool)
    segments[where] = candidates
    segments = spread(segments, grid, _all_of(axial.array.shape))
    measurements = _measure(axial.array, segments, float(np.prod(spacing_mm)) / 1000, _sizes_ml(candidates, grid))
    measurements["intracranial_volume"] = float(np.count_nonzero(inside)) * grid.ml
    answer = "present" if measurements["count"] else "absent"
    return Findings(segments=axial.with_array(segments), measurements=measurements, evaluations={"hyperdense": answer}, notes=notes + more)


def _grid(spacing_mm: tuple[float, ...], wanted_mm: float) -> Grid:
    """Return the grid of blocks that are about, and at least half, as wide as wanted."""
    return Grid.of(spacing_mm, tuple(max(1, int(wanted_mm / s + 0.1)) for s in spacing_mm))


def _all_of(shape: tuple[int, ...]) -> Box:
    z, y, x = (slice(0, length) for length in shape)
    return z, y, x


def _box(inside: Mask, grid: Grid) -> Box:
    """Return the box about the skull's inside, and a little more, so that the bone beside it is seen."""
    found = box(inside, tuple(int(2 * SHELL_MM / s) + 2 for s in grid.spacing_mm))
    if found is None:
        raise Unsuitable(NO_SKULL, hint=WANTED)
    return found


def _check_geometry(shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> None:
    coarsest = max(spacing_mm)
    if coarsest > THICK_MM:
        raise Unsuitable(
            f"The slices are {coarsest:.1f} mm apart; small bleeding cannot be told from bone on more than 6 mm.",
            hint="Send the series with thinner slices.",
        )
    shortest = min(n * s for n, s in zip(shape, spacing_mm, strict=True))
    if shortest < SHORT_MM:
        raise Unsuitable(f"The series is {shortest:.0f} mm wide in one direction, which cannot hold a skull.", hint=WANTED)


# ------------------------------------------------------------------------------------------------------ the skull's inside


def _inside(hu: Image, grid: Grid) -> tuple[Mask, tuple[str, ...]]:
    """Return what lies inside the skull and is not bone, on the grid of 1 mm, and what was noticed.

    Raises
    ------
    Unsuitable: there is no closed skull, or too much of it is cut off.
    """
    coarse = _grid(grid.spacing_mm, COARSE_MM)
    bone = not_smaller(block_means(hu > BONE_HU, coarse) > 0, coarse, BONE_ML)  # wherever a block holds some: the temple is thin
    seal = closed(bone, coarse.radius(CLOSE_MM))
    found = _cavity(~seal & (block_means(hu, coarse) > SOFT_HU), coarse)
    notes = _check_closed(found, seal, coarse) + _check_ends(found)
    may = spread(ndimage.binary_dilation(found), coarse, _all_of(hu.shape)) & (hu < BONE_HU) & (hu > SOFT_HU)
    must = spread(ndimage.binary_erosion(found, border_value=1), coarse, _all_of(hu.shape))
    joined, _ = ndimage.label(may | must)
    return np.asarray(joined == np.bincount(joined[must]).argmax()), notes


def _cavity(soft: Mask, grid: Grid) -> Mask:
    """Return the largest space that is wide everywhere, with its corners: the inside of a skull, if there is one.

    Through a gap narrower than twice CORE_MM it does not reach out; the spinal canal is such a gap.
    """
    cores, count = ndimage.label(distance_mm(~soft, grid) > CORE_MM)
    if not count:
        raise Unsuitable(NO_SKULL, hint=WANTED)
    core = cores == np.bincount(cores.ravel())[1:].argmax() + 1
    near, _ = ndimage.label(soft & (distance_mm(core, grid) <= CORE_MM + CORNER_MM))
    return np.asarray(near == near[core][0])


def _check_closed(found: Mask, seal: Mask, grid: Grid) -> tuple[str, ...]:
    """Return a note on a gap in the skull.

    Raises
    ------
    Unsuitable: what was found is not enclosed by bone, or has not the size of a skull's inside.
    """
    shell = ndimage.binary_dilation(found) & ~found
    share = np.count_nonzero(shell & seal) / max(1, np.count_nonzero(shell))
    if share < CLOSED:
        raise Unsuitable(NO_SKULL, hint=WANTED)
    volume_ml = np.count_nonzero(found) * grid.ml
    if not INSIDE_ML[0] <= volume_ml <= INSIDE_ML[1]:
        raise Unsuitable(f"The space enclosed by bone measures {volume_ml:.0f} mL, which is no inside of an adult skull.", hint=WANTED)
    if share < NEARLY_CLOSED:
        return (f"Bone covers only {100 * share:.0f} % of the surface: the skull has a gap, and candidates may lie outside of it.",)
    return ()


def _check_ends(found: Mask) -> tuple[str, ...]:
    """Return notes where the volume ends inside the skull.

    Raises
    ------
    Unsuitable: so much is cut off that the rest says little about the head.
    """
    notes = []
    ends = ((0, 0, "lowest slice"), (0, -1, "highest slice"), (1, 0, "front edge"), (1, -1, "back edge"), (2, 0, "right edge"), (2, -1, "left edge"))
    for axis, end, name in ends:
        areas = np.count_nonzero(found, axis=tuple({0, 1, 2} - {axis}))
        if areas[end] > CUT_OFF * areas.max():
            raise Unsuitable(f"The {name} cuts through the middle of the skull: this is only a part of the head.", hint=WANTED)
        if areas[end]:
            notes.append(f"The inside of the skull reaches the {name}: what lies beyond was not seen, and its volume is a lower bound.")
    return tuple(notes)


# ------------------------------------------------------------------------------------------------------------ candidates


def _candidates(hu: Image, inside: Mask, grid: Grid) -> tuple[Mask, tuple[str, ...]]:
    """Return what is as dense as clotted blood, away from bone and calcification, neither small nor thin; and what was noticed.

    Raises
    ------
    Unsuitable: noise, even after smoothing, reaches the density that is looked for.
    """
    deep = inside & _away(hu > BONE_HU, grid)
    deep &= _away(deep & (_smooth(hu, deep, grid, SMOOTH_MM[0]) > CALCIUM_HU), grid)
    sigma_mm, noise_hu = _calming(hu, deep, grid)
    if noise_hu > LOUD_HU:
        raise Unsuitable(
            f"After smoothing the noise is still {noise_hu:.1f} HU: grey matter reaches {HYPER_HU[0]:.0f} HU by chance.",
            hint="Send a series with a smooth kernel or thicker slices.",
        )
    notes = (f"The image is noisy ({noise_hu:.1f} HU after smoothing): small candidates may be chance.",) if noise_hu > CALM_HU else ()
    smooth, depth_mm = _smooth(hu, deep, grid, sigma_mm), distance_mm(hu > BONE_HU, grid)
    dense = deep & (smooth >= _threshold(smooth, deep, depth_mm, grid)) & (smooth <= HYPER_HU[1])
    found = not_smaller(_without_sheets(dense, grid), grid, SMALL_ML)
    return found, notes + _beside_bone(found, depth_mm)


def _away(dense: Mask, grid: Grid) -> Mask:
    """Return what is further than SHELL_MM from something dense and from the slice beside it, which may hold a part of it unseen."""
    beside = dense.copy()
    beside[1:] |= dense[:-1]
    beside[:-1] |= dense[1:]
    return np.asarray(distance_mm(beside, grid) > SHELL_MM)


def _smooth(hu: Image, within: Mask, grid: Grid, sigma_mm: float) -> Image:
    """Return a Gaussian mean over voxels of the mask alone (normalised convolution), so that bone beside it adds nothing."""
    sigmas = [sigma_mm / s if sigma_mm > s / 2 else 0.0 for s in grid.spacing_mm]  # thick slices are mean values already
    total = ndimage.gaussian_filter(np.where(within, hu, 0), sigmas, truncate=3.0)
    weight = ndimage.gaussian_filter(within.astype(np.float32), sigmas, truncate=3.0)
    return total / np.maximum(weight, 1e-3)


def _threshold(smooth: Image, deep: Mask, depth_mm: Image, grid: Grid) -> Image:
    """Return above what each voxel is dense: LIFT_HU over the median of what lies as deep under the bone at the same height.

    A beam that the skull has hardened shows the brain beside it up to 15 HU too bright. Between CEILING_HU and the lower end of HYPER_HU, so
    that blood does not hide where it covers most of a layer.
    """
    layers = np.digitize(depth_mm, LAYERS_MM)
    result = np.full(smooth.shape, HYPER_HU[0], np.float32)
    thick = max(1, round(SLAB_MM / grid.spacing_mm[0]))
    for start in range(0, len(smooth), thick):
        slab = slice(start, start + thick)
        for layer in range(1, len(LAYERS_MM) + 1):
            where = deep[slab] & (layers[slab] == layer)
            if np.count_nonzero(where) * grid.ml >= LAYER_ML:
                result[slab][where] = np.clip(np.median(smooth[slab][where]) + LIFT_HU, HYPER_HU[0], CEILING_HU)
    return result


def _calming(hu: Image, within: Mask, grid: Grid) -> tuple[float, float]:
    """Return the smallest smoothing in mm that leaves little noise, and the noise that it leaves, in HU.

    Noise is the difference between neighbouring slices, smoothed in the plane as the image will be. Taken by its median, so that edges
    of the anatomy count little. Smoothing across slices lessens it further, by what independent noise would lose.
    """
    pairs = np.unique(np.linspace(0, len(hu) - 2, PAIRS).astype(int))
    both = within[pairs] & within[pairs + 1]
    if not both.any():
        raise Unsuitable("Nothing inside the skull lies far enough from bone to be judged.", hint=WANTED)
    difference = (hu[pairs + 1] - hu[pairs]) / np.float32(np.sqrt(2))
    in_plane = Grid(grid.factors, (np.inf, *grid.spacing_mm[1:]))
    left_hu = 0.0
    for sigma_mm in SMOOTH_MM:
        values = _smooth(difference, both, in_plane, sigma_mm)[both]
        left_hu = 1.4826 * float(np.median(np.abs(values - np.median(values)))) * _across(sigma_mm, grid)
        if left_hu <= CALM_HU:
            break
    return sigma_mm, left_hu


def _across(sigma_mm: float, grid: Grid) -> float:
    """Return by what factor smoothing across slices lessens noise that is independent between them."""
    between_mm = grid.spacing_mm[0]
    if sigma_mm <= between_mm / 2:
        return 1.0
    weights = np.exp(-0.5 * (np.arange(-20, 21) * between_mm / sigma_mm) ** 2)
    return float(np.sqrt((weights**2).sum()) / weights.sum())


def _without_sheets(dense: Mask, grid: Grid) -> Mask:
    """Return what is wider than SHEET_MM in the axial plane somewhere, with its rim: opened by a disc and grown back by as much."""
    _, *rows_columns = grid.spacing_mm
    radius = SHEET_MM / 2
    y, x = (np.arange(-int(radius / s), int(radius / s) + 1) * s for s in rows_columns)
    disc = (y[:, None] ** 2 + x[None] ** 2 <= radius**2)[None]
    opened = ndimage.binary_opening(dense, disc)
    return ndimage.binary_dilation(opened, disc) & dense


def _beside_bone(found: Mask, depth_mm: Image) -> tuple[str, ...]:
    """Return a note on candidates that lie wholly under the bone, as the venous sinuses do."""
    pieces, count = ndimage.label(found)
    shallow = sum(float(deepest) <= SINUS_MM for deepest in ndimage.maximum(depth_mm, pieces, range(1, count + 1))) if count else 0
    if not shallow:
        return ()
    return (f"{shallow} of {count} candidates lie wholly within {SINUS_MM:.0f} mm of bone, where the venous sinuses run, which are as dense.",)


# ----------------------------------------------------------------------------------------------------------- the numbers


def _sizes_ml(candidates: Mask, grid: Grid) -> NDArray[Any]:
    """Return the volume of each candidate."""
    pieces, count = ndimage.label(candidates)
    return np.bincount(pieces.ravel(), minlength=count + 1)[1:] * grid.ml


def _measure(hu: Any, segments: Mask, voxel_ml: float, sizes_ml: NDArray[Any]) -> dict[str, float | None]:
    """Return the manifest's figures of the candidates; without one there is no density."""
    values = clean(hu[segments])
    return {
        "count": float(len(sizes_ml)),
        "volume": float(values.size * voxel_ml),
        "largest": float(sizes_ml.max(initial=0.0)),
        "density": float(values.mean(dtype=np.float64)) if values.size else None,
    }
