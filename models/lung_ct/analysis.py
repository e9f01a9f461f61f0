"""Left and right lung on chest CT, without trachea and main bronchi: volume and densities.

The shape is found on a coarse grid of about 2 mm (body, airways, what is lung, where the lungs part), the edge on the scan's own grid.
Everything works on a view whose axes run to the patient's head, back and left, so that "slice" below is axial however the scan was cut.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from dicom_node import Findings, Unsuitable

Mask = NDArray[np.bool_]
Image = NDArray[np.float32]
Labels = NDArray[np.uint8]
Progress = Callable[[float, str], None]

LEFT, RIGHT, OTHER = 1, 2, 3  # OTHER: airways, other gas; it never leaves this file
SIDES = {LEFT: "left", RIGHT: "right"}

GRID_MM = 2.0  # of the coarse grid; a direction sampled more coarsely stays as it is
THICK_MM = 5.05  # slices further apart than this blur the walls between lung and airways
SHORT_MM = 80.0  # along the body; fewer centimetres cannot hold both lungs of an adult
LUNG_HU = -400.0  # half way between lung and soft tissue: below is lung or air
BODY_HU = -500.0
GAS_HU = (-965.0, -900.0)  # median and 95th percentile below these: free gas in bowel, stomach or the room; lung has vessels
ROOM_HU = -940.0  # at the edge of the image: above is more than the air about the patient
AIRWAY_HU = -800.0
AIRWAY_MM2 = (40.0, 700.0)  # of one airway in an axial slice, from a lobar bronchus to a wide trachea
AIRWAY_LENGTH_MM = 25.0
AIRWAY_OFF_CENTRE_MM = 50.0  # of the trachea from the middle of the body
ONE_LUNG_ML = 150.0  # less is no adult lung
PART_ML = 60.0  # a piece of lung that stands alone, behind a thick fissure or an effusion
CRUMB_ML = 1.0  # a speck smaller than this is no lung
BESIDE_MM = 60.0  # between the middles of left and right lung
APART_MM = (2.5, 4.0, 6.0, 8.0, 10.0, 13.0)  # how much is peeled off before both lungs stand apart
CLOSE_MM = 8.0  # vessels up to about twice this wide are part of the lung
NOISY_HU = 40.0  # standard deviation in air
FEW = 100  # voxels, from which no noise is estimated
NO_LUNGS = "No lungs were found in this volume."
WANTED = "Send a CT of the chest in Hounsfield units."
CUT_OFF = 0.5  # of the largest cross-section, on the first or last slice: more is not a whole lung


@dataclass(frozen=True, slots=True)
class Grid:
    """The coarse grid: blocks of `factors` voxels of the scan, shape and spacing as (slice, row, column) and (z, y, x) in mm."""

    factors: tuple[int, ...]
    spacing_mm: tuple[float, ...]

    @property
    def ml(self) -> float:
        """The volume of one voxel."""
        return float(np.prod(self.spacing_mm)) / 1000

    def voxels(self, mm: float) -> list[int]:
        """Return a radius in voxels, in SimpleITK's order (x, y, z)."""
        return [max(0, round(mm / s)) for s in self.spacing_mm[::-1]]


def load(folder: Path, device: str) -> Callable[..., Findings]:
    """Return the analysis; it needs neither files nor an accelerator."""
    return analyse


def analyse(ct: Any, progress: Progress = lambda fraction, sentence: None) -> Findings:
    """Segment both lungs and measure them.

    ct: a volume in HU with an affine to patient coordinates (LPS), in any orientation.

    Raises
    ------
    Unsuitable: the volume shows no lungs, not enough of them, or is cut too coarsely.
    """
    axial = ct.to_patient_orientation("HPL")
    spacing_mm = tuple(float(s) for s in axial.spacing)
    _check_geometry(axial.array.shape, spacing_mm)
    grid = Grid(factors := tuple(max(1, round(GRID_MM / s)) for s in spacing_mm), tuple(f * s for f, s in zip(factors, spacing_mm, strict=True)))
    progress(0.05, "looking for the body")
    hu = _coarse(axial.array, grid)
    sides, notes = _find(hu, grid, progress)
    progress(0.5, "drawing the edge of the lungs")
    segments = _refine(axial.array, sides, grid)
    progress(0.8, "measuring")
    notes += _check_ends(segments) + _check_noise(axial.array, sides == OTHER, grid)
    measurements = _measure(axial.array, segments, float(np.prod(spacing_mm)) / 1000)
    return Findings(segments=axial.with_array(segments), measurements=measurements, notes=notes)


def _check_geometry(shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> None:
    coarsest = max(spacing_mm)
    if coarsest > THICK_MM:
        raise Unsuitable(
            f"The slices are {coarsest:.1f} mm apart; the lungs cannot be measured on more than 5 mm.", hint="Send the series with thin slices."
        )
    if min(shape) < 8 or shape[0] * spacing_mm[0] < SHORT_MM:
        raise Unsuitable(
            f"The series covers {shape[0] * spacing_mm[0]:.0f} mm of the body, which cannot hold both lungs.",
            hint="Send the whole chest, not a part of it.",
        )


# ------------------------------------------------------------------------------------------------------- the coarse shape


def _clean(hu: Any) -> Image:
    """Return values between air and dense bone; what is no number counts as air outside the patient."""
    return np.clip(np.nan_to_num(hu, nan=-1024), -1024, 1024).astype(np.float32, copy=False)


def _coarse(hu: Any, grid: Grid) -> Image:
    """Return block means on the coarse grid, made slab by slab to bound the memory; the last block of a row may be short."""
    deep, *factors = grid.factors
    starts = [np.arange(0, length, factor) for length, factor in zip(hu.shape[1:], factors, strict=True)]
    sizes = [np.diff(start, append=length).astype(np.float32) for start, length in zip(starts, hu.shape[1:], strict=True)]
    slabs = (_clean(hu[k : k + deep]).mean(0) for k in range(0, hu.shape[0], deep))
    sums = (np.add.reduceat(np.add.reduceat(slab, starts[0], axis=0), starts[1], axis=1) for slab in slabs)
    return np.stack([total / np.outer(*sizes) for total in sums])


def _find(hu: Image, grid: Grid, progress: Progress) -> tuple[Labels, tuple[str, ...]]:
    """Return LEFT, RIGHT and, within the airways, OTHER on the coarse grid; and what was noticed."""
    body = _body(hu)
    middle = float(np.median(np.nonzero(body)[2]))  # of the patient, from right to left
    box = _box((hu < LUNG_HU) & body)  # the rest holds no air: it need not be searched
    sides = np.zeros(hu.shape, np.uint8)
    sides[box], notes = _part(hu[box], body[box], middle - box[2].start, grid, progress)
    return sides, notes


def _box(mask: Mask) -> tuple[slice, slice, slice]:
    """Return the smallest box about a mask.

    Raises
    ------
    Unsuitable: the mask of air, or of lung, is empty.
    """
    ends = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))[[0, -1]] for axis in range(3)] if mask.any() else []
    if not ends:
        raise Unsuitable(NO_LUNGS, hint=WANTED)
    z, y, x = (slice(int(first), int(last) + 1) for first, last in ends)
    return z, y, x


def _part(hu: Image, body: Mask, middle: float, grid: Grid, progress: Progress) -> tuple[Labels, tuple[str, ...]]:
    """Return LEFT and RIGHT, parted from one another, from the airways (within them, OTHER) and from other gas; and what was noticed."""
    progress(0.2, "following the airways")
    airways = _airways((hu < AIRWAY_HU) & body, middle, grid)
    walls = ndimage.binary_dilation(airways)  # a bronchus' wall is about a voxel thick
    air = (hu < LUNG_HU) & body
    progress(0.3, "parting left from right")
    cores = _cores(hu, air & ~walls, middle, grid)
    sides = _flooded(air, np.where(airways, OTHER, cores).astype(np.uint8))
    sides[walls & air] = OTHER
    progress(0.4, "closing the vessels")
    notes = tuple(f"No {name} lung was found: only the other one is measured." for side, name in SIDES.items() if not (cores == side).any())
    if not airways.any():
        notes += ("No trachea was found: if there is one, it is counted as lung.",)
    lungs = _closed(sides, grid)
    lungs[ndimage.binary_erosion(airways) & (lungs == 0)] = OTHER
    return lungs, notes


def _body(hu: Image) -> Mask:
    """Return the patient without the table: the largest solid, opened to part it from thin shells, its spaces filled slice by slice.

    Where the image ends inside the lungs, with the chest wall on both sides, its edge closes them.
    """
    pieces, count = ndimage.label(ndimage.binary_opening(hu > BODY_HU))
    if not count:
        raise Unsuitable("The volume is empty: no body was found in it.", hint=WANTED)
    walls = pieces == np.bincount(pieces.ravel())[1:].argmax() + 1
    for edge in (np.s_[:, 0], np.s_[:, -1], np.s_[:, :, 0], np.s_[:, :, -1]):
        line = walls[edge]  # (slice, place along the edge)
        between = np.logical_or.accumulate(line, 1) & np.logical_or.accumulate(line[:, ::-1], 1)[:, ::-1]
        line |= between & (hu[edge] > ROOM_HU)
    return np.stack([ndimage.binary_fill_holes(one) for one in walls])


def _airways(dark: Mask, middle: float, grid: Grid) -> Mask:
    """Return trachea and main bronchi: dark spots of an airway's size in axial slices that stand on one another along the body.

    A bronchus that opens into lung joins a spot too large for an airway, so that this cannot leak into the lung.
    """
    in_slice = np.zeros((3, 3, 3), bool)
    in_slice[1] = ndimage.generate_binary_structure(2, 1)
    spots, _ = ndimage.label(dark, structure=in_slice)
    area_mm2 = np.bincount(spots.ravel()) * grid.spacing_mm[1] * grid.spacing_mm[2]
    fits = (area_mm2 >= AIRWAY_MM2[0]) & (area_mm2 <= AIRWAY_MM2[1])
    fits[0] = False
    tubes, _ = ndimage.label(fits[spots])
    best, length = 0, AIRWAY_LENGTH_MM
    for number, box in enumerate(ndimage.find_objects(tubes), start=1):
        long = (box[0].stop - box[0].start) * grid.spacing_mm[0]
        if long >= length and _top_is_central(tubes[box] == number, box, middle, grid):
            best, length = number, long
    return np.asarray(tubes == best) if best else np.zeros(dark.shape, bool)


def _top_is_central(tube: Mask, box: tuple[slice, ...], middle: float, grid: Grid) -> bool:
    column = float(np.nonzero(tube[-1])[1].mean()) + box[2].start
    return abs(column - middle) * grid.spacing_mm[2] <= AIRWAY_OFF_CENTRE_MM


def _cores(hu: Image, air: Mask, middle: float, grid: Grid) -> Labels:
    """Return the hearts of both lungs and of other gas: air peeled until two large pieces stand beside each other.

    Raises
    ------
    Unsuitable: nothing in the body is as large and as dense as a lung.
    """
    depth_mm = _depth(air, grid)
    first = np.zeros(0, np.uint8)
    for peel_mm in APART_MM:
        pieces, count = ndimage.label(depth_mm > peel_mm)
        kind = _kinds(hu, pieces, count, middle, grid)
        cores = kind[pieces]
        if {LEFT, RIGHT} <= set(kind.tolist()):
            return cores
        first = cores if not first.size else first
    if not np.isin(first, (LEFT, RIGHT)).any():
        raise Unsuitable(NO_LUNGS, hint=WANTED)
    return first


def _flooded(air: Mask, cores: Labels) -> Labels:
    """Return the air that is joined to a core, each voxel given to the core that reaches it first."""
    markers, tissue = sitk.GetImageFromArray(cores), sitk.GetImageFromArray((~air).astype(np.uint8))
    flooded = sitk.GetArrayFromImage(sitk.MorphologicalWatershedFromMarkers(tissue, markers, False, False))
    joined = sitk.BinaryReconstructionByDilation(markers > 0, sitk.GetImageFromArray(air.astype(np.uint8)), 0, 1, False)
    return flooded * sitk.GetArrayFromImage(joined)


def _depth(air: Mask, grid: Grid) -> Image:
    """Return each voxel's distance in mm from the nearest tissue; zero in tissue."""
    image = sitk.GetImageFromArray(air.astype(np.uint8))
    image.SetSpacing(grid.spacing_mm[::-1])
    return -sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True)).clip(max=0)


def _kinds(hu: Image, pieces: NDArray[Any], count: int, middle: float, grid: Grid) -> Labels:
    """Return for each piece LEFT or RIGHT where it is lung, OTHER where it holds gas, 0 where a neighbour shall have it."""
    kind = np.zeros(count + 1, np.uint8)
    size_ml = np.bincount(pieces.ravel(), minlength=count + 1) * grid.ml
    column = {}  # of each piece of lung: how far to the patient's left its middle lies
    for number, box in enumerate(ndimage.find_objects(pieces), start=1):
        inside = pieces[box] == number
        if all(np.percentile(hu[box][inside], (50, 95)) < GAS_HU):
            kind[number] = OTHER
        elif size_ml[number] >= PART_ML:
            column[number] = float(np.nonzero(inside)[2].mean()) + box[2].start
    largest = max(column, key=lambda n: size_ml[n], default=0)
    if not largest or size_ml[largest] < ONE_LUNG_ML:
        return kind
    across = [n for n in column if abs(column[n] - column[largest]) * grid.spacing_mm[2] > BESIDE_MM]
    if across:
        middle = (column[largest] + column[max(across, key=lambda n: size_ml[n])]) / 2
    for number, place in column.items():
        kind[number] = LEFT if place > middle else RIGHT
    return kind


def _closed(sides: Labels, grid: Grid) -> Labels:
    """Return both lungs with their vessels: closed each by itself, and never over an airway or the other lung."""
    result = np.zeros_like(sides)
    for side in SIDES:
        image = sitk.GetImageFromArray((sides == side).astype(np.uint8))
        closed = sitk.GetArrayFromImage(sitk.BinaryMorphologicalClosing(image, grid.voxels(CLOSE_MM), sitk.sitkBall, 1, True))
        result[(closed == 1) & (result == 0) & ((sides == 0) | (sides == side))] = side
    return result


# ---------------------------------------------------------------------------------------------------- the edge, in detail


def _between(blocks: Image, where: NDArray[np.float32], axis: int) -> Image:
    """Return linear interpolation along one axis at positions counted in blocks, the first and last value held beyond the ends."""
    low = np.minimum(where.astype(np.intp), blocks.shape[axis] - 1)
    high = np.minimum(low + 1, blocks.shape[axis] - 1)
    share = (where - low).reshape((-1, *(1,) * (blocks.ndim - 1 - axis)))
    first = blocks.take(low, axis)
    return first + share * (blocks.take(high, axis) - first)


def _fine(mask: Mask, shape: tuple[int, ...], grid: Grid) -> Iterator[Mask]:
    """Yield a coarse mask's slices on the scan's grid, its surface interpolated linearly."""
    planes = mask.astype(np.float32)
    z, y, x = (np.maximum(0, (np.arange(n, dtype=np.float32) + 0.5) / f - 0.5) for n, f in zip(shape, grid.factors, strict=True))
    for place in z:
        low = min(int(place), len(planes) - 1)
        pair = planes[low : low + 2]
        if pair.any():
            plane = _between(pair, place[None] - low, 0)[0]
            yield _between(_between(plane, y, 0), x, 1) > 0.5
        else:
            yield np.zeros(shape[1:], bool)


def _refine(hu: Any, sides: Labels, grid: Grid) -> Labels:
    """Return the lungs on the scan's grid: deep inside as found, in a shell about the surface as the scan itself shows it."""
    segments = np.zeros(hu.shape, np.uint8)
    for side in SIDES:
        lung = sides == side
        outer = ndimage.binary_dilation(lung) & ((sides == 0) | lung)
        inner = ndimage.binary_erosion(lung, border_value=1)
        for k, (may, must) in enumerate(zip(_fine(outer, hu.shape, grid), _fine(inner, hu.shape, grid), strict=True)):
            if may.any():
                segments[k][must | (may & (_clean(hu[k]) < LUNG_HU) & (segments[k] == 0))] = side
    return _without_crumbs(segments, grid)


def _without_crumbs(segments: Labels, grid: Grid) -> Labels:
    """Return the lungs without specks of air that stand alone, such as along the wall of the trachea."""
    inside = segments[_box(segments > 0)]
    pieces, _ = ndimage.label(inside)
    small = np.bincount(pieces.ravel()) * grid.ml / np.prod(grid.factors) < CRUMB_ML
    inside[small[pieces]] = 0
    return segments


# ----------------------------------------------------------------------------------------------------------- the numbers


def _check_ends(segments: Labels) -> tuple[str, ...]:
    """Return notes on lungs that reach the first or last slice.

    Raises
    ------
    Unsuitable: so much is cut off that the rest says nothing about the lungs.
    """
    lung = segments > 0
    area = np.count_nonzero(lung, axis=(1, 2))
    notes = []
    for end, name in ((0, "lowest"), (-1, "highest")):
        if area[end] > CUT_OFF * area.max():
            raise Unsuitable(
                f"The {name} slice still cuts through the middle of the lungs: this is only a part of the chest.", hint="Send the whole chest."
            )
        if area[end]:
            notes.append(f"The lungs reach the {name} slice: their volume is a lower bound.")
    if lung[:, [0, -1]].any() or lung[:, :, [0, -1]].any():
        notes.append("The lungs reach the edge of the image: their volume is a lower bound.")
    return tuple(notes)


def _check_noise(hu: Any, air: Mask, grid: Grid) -> tuple[str, ...]:
    """Return a note where air in the airways, which is all of one density, varies so much that the share of low attenuation is inflated."""
    places = np.argwhere(air) * grid.factors
    values = _clean(hu[tuple(np.minimum(places + np.array(grid.factors) // 2, np.array(hu.shape) - 1).T)])
    if len(values) < FEW or values.std() <= NOISY_HU:
        return ()
    return (
        f"The image is noisy (air in the trachea varies by {values.std():.0f} HU, as with a sharp kernel): LAA-950 and Perc15 overstate emphysema.",
    )


def _measure(hu: Any, segments: Labels, voxel_ml: float) -> dict[str, Any]:
    """Return the measurements of the manifest, from one histogram in steps of 1 HU for each lung."""
    counts = {side: np.zeros(2049) for side in SIDES}  # from -1024 HU
    for k in np.flatnonzero(segments.any(axis=(1, 2))):
        whole_hu = np.rint(_clean(hu[k])).astype(np.int16) + 1024
        for side in SIDES:
            counts[side] += np.bincount(whole_hu[segments[k] == side], minlength=2049)
    each = {side: _densities(count, voxel_ml) for side, count in counts.items()}
    both = _densities(counts[LEFT] + counts[RIGHT], voxel_ml)
    return {f"{name}_by_side": {side: values[name] for side, values in each.items()} for name in both} | both


def _densities(counts: NDArray[Any], voxel_ml: float) -> dict[str, Any]:
    """Return the manifest's figures of a histogram that begins at -1024 HU; without a voxel there is a volume but no density."""
    hu, total = np.arange(-1024, 1025), counts.sum()
    if not total:
        return {"volume": 0.0, "density": None, "laa950": None, "perc15": None, "haa": None}
    return {
        "volume": float(total * voxel_ml),
        "density": float(counts @ hu / total),
        "laa950": float(100 * counts[hu < -950].sum() / total),
        "perc15": float(hu[np.searchsorted(np.cumsum(counts), 0.15 * total)]),
        "haa": float(100 * counts[(hu >= -600) & (hu <= -250)].sum() / total),
    }
