"""Left and right lung on chest CT, without trachea and main bronchi, and their thirds.

The shape is found on a coarse grid of about 2 mm (body, airways, what is lung, where the lungs part), the edge on the scan's own grid.
Every array's axes run to the patient's head, back and left, so that "slice" below is axial however the scan was cut.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from dicom_node.domain import Progress, Unsuitable
from dicom_node.methods.body import whole
from dicom_node.methods.coarse import Grid, Image, Labels, Mask, block_means, box, clean, smooth_slices
from dicom_node.methods.morphology import as_image, closed, depth_mm

LEFT, RIGHT = 1, 2
SIDES = {LEFT: "left", RIGHT: "right"}
_OTHER = 3  # airways, other gas

GRID_MM = 2.0  # of the coarse grid
THICK_MM = 5.05  # slices further apart than this blur the walls between lung and airways
SHORT_MM = 80.0  # along the body; fewer centimetres cannot hold both lungs of an adult
LUNG_HU = -400.0  # half way between lung and soft tissue: below is lung or air
BONE_HU = 1024.0  # what is denser counts as this: the lungs' edge does not depend on it
GAS_HU = (-965.0, -900.0)  # median and 95th percentile below these: free gas in bowel, stomach or the room; lung has vessels
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
CUT_OFF = 0.5  # of the largest cross-section, on the first or last slice: more is not a whole lung
NO_LUNGS = "No lungs were found in this volume."
WANTED = "Send a CT of the chest in Hounsfield units."


@dataclass(frozen=True, slots=True)
class Lungs:
    """What was found, on the scan's own grid and on the coarse one; notes: sentences for the reader."""

    segments: Labels  # (slice, row, column) of the scan: LEFT, RIGHT, 0 elsewhere; with the vessels and what else they enclose
    airways: Mask  # (slice, row, column) of `grid`: trachea and large bronchi, down to where they open into lung; empty where none was found
    grid: Grid
    notes: tuple[str, ...]


def find(hu: Any, spacing_mm: tuple[float, ...], progress: Progress = lambda fraction, sentence: None) -> Lungs:
    """Return both lungs of a chest CT.

    hu: (slice, row, column), axes to the patient's head, back and left. progress: of this search alone, from 0 to 1.

    Raises
    ------
    Unsuitable: the volume shows no lungs, cannot hold them, or is cut too coarsely.
    """
    _check_geometry(hu.shape, spacing_mm)
    grid = Grid.about(spacing_mm, GRID_MM)
    progress(0.05, "looking for the body")
    coarse = block_means(hu, grid, BONE_HU)
    body = whole(coarse, WANTED)
    middle = float(np.median(np.nonzero(body)[2]))  # of the patient, from right to left
    where = box((coarse < LUNG_HU) & body)  # the rest holds no air: it need not be searched
    if where is None:
        raise Unsuitable(NO_LUNGS, hint=WANTED)
    sides, airways = np.zeros(coarse.shape, np.uint8), np.zeros(coarse.shape, bool)
    sides[where], airways[where], notes = _part(coarse[where], body[where], middle - where[2].start, grid, progress)
    progress(0.7, "drawing the edge of the lungs")
    return Lungs(_refine(hu, sides, grid), airways, grid, notes)


def check_ends(segments: Labels) -> tuple[str, ...]:
    """Return notes on lungs that reach the first or last slice, or the edge of the image.

    Raises
    ------
    Unsuitable: so much is cut off that the rest says nothing about the lungs.
    """
    lung = segments > 0
    area = np.array([np.count_nonzero(plane) for plane in lung])
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


def thirds(segments: Labels) -> NDArray[np.int8]:
    """Return for each axial slice in which third of both lungs' volume it lies: 0 the lower, 1 the middle, 2 the upper one.

    The planes between them are common to both lungs; each third is the others' equal to within a slice.
    """
    below = np.cumsum([np.count_nonzero(plane) for plane in segments], dtype=np.float64)
    if not below[-1]:
        raise Unsuitable(NO_LUNGS, hint=WANTED)
    middle_of_slice = (below + np.concatenate(([0.0], below[:-1]))) / 2
    return np.minimum(3 * middle_of_slice / below[-1], 2).astype(np.int8)


def air_hu(hu: Any, lungs: Lungs) -> NDArray[np.float32]:
    """Return the scan's values well inside the airways, one of each block: all of one density, so that their spread is the image's noise."""
    places = np.argwhere(ndimage.binary_erosion(lungs.airways)) * lungs.grid.factors + np.array(lungs.grid.factors) // 2
    return clean(hu[tuple(np.minimum(places, np.array(hu.shape) - 1).T)])


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


def _part(hu: Image, body: Mask, middle: float, grid: Grid, progress: Progress) -> tuple[Labels, Mask, tuple[str, ...]]:
    """Return LEFT and RIGHT, parted from one another, from the airways (within them, _OTHER) and from other gas; the airways; and notes."""
    progress(0.25, "following the airways")
    airways = _airways((hu < AIRWAY_HU) & body, middle, grid)
    walls = ndimage.binary_dilation(airways)  # a bronchus' wall is about a voxel thick
    air = (hu < LUNG_HU) & body
    progress(0.4, "parting left from right")
    cores = _cores(hu, air & ~walls, middle, grid)
    sides = _flooded(air, np.where(airways, _OTHER, cores).astype(np.uint8))
    sides[walls & air] = _OTHER
    progress(0.55, "closing the vessels")
    notes = tuple(f"No {name} lung was found: only the other one is measured." for side, name in SIDES.items() if not (cores == side).any())
    if not airways.any():
        notes += ("No trachea was found: if there is one, it is counted as lung.",)
    lungs = _closed(sides, grid)
    lungs[ndimage.binary_erosion(airways) & (lungs == 0)] = _OTHER
    return lungs, airways, notes


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
    for number, sides in enumerate(ndimage.find_objects(tubes), start=1):
        long = (sides[0].stop - sides[0].start) * grid.spacing_mm[0]
        if long >= length and _top_is_central(tubes[sides] == number, sides, middle, grid):
            best, length = number, long
    return np.asarray(tubes == best) if best else np.zeros(dark.shape, bool)


def _top_is_central(tube: Mask, sides: tuple[slice, ...], middle: float, grid: Grid) -> bool:
    column = float(np.nonzero(tube[-1])[1].mean()) + sides[2].start
    return abs(column - middle) * grid.spacing_mm[2] <= AIRWAY_OFF_CENTRE_MM


def _cores(hu: Image, air: Mask, middle: float, grid: Grid) -> Labels:
    """Return the hearts of both lungs and of other gas: air peeled until two large pieces stand beside each other.

    Raises
    ------
    Unsuitable: nothing in the body is as large and as dense as a lung.
    """
    deep_mm = depth_mm(air, grid)
    first = np.zeros(0, np.uint8)
    for peel_mm in APART_MM:
        pieces, count = ndimage.label(deep_mm > peel_mm)
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
    markers = sitk.GetImageFromArray(cores)
    flooded = sitk.GetArrayFromImage(sitk.MorphologicalWatershedFromMarkers(as_image(~air), markers, False, False))
    joined = sitk.BinaryReconstructionByDilation(markers > 0, as_image(air), 0, 1, False)
    return flooded * sitk.GetArrayFromImage(joined)


def _kinds(hu: Image, pieces: NDArray[Any], count: int, middle: float, grid: Grid) -> Labels:
    """Return for each piece LEFT or RIGHT where it is lung, _OTHER where it holds gas, 0 where a neighbour shall have it."""
    kind = np.zeros(count + 1, np.uint8)
    size_ml = np.bincount(pieces.ravel(), minlength=count + 1) * grid.ml
    column = {}  # of each piece of lung: how far to the patient's left its middle lies
    for number, sides in enumerate(ndimage.find_objects(pieces), start=1):
        inside = pieces[sides] == number
        if is_gas(hu[sides][inside]):
            kind[number] = _OTHER
        elif size_ml[number] >= PART_ML:
            column[number] = float(np.nonzero(inside)[2].mean()) + sides[2].start
    largest = max(column, key=lambda n: size_ml[n], default=0)
    if not largest or size_ml[largest] < ONE_LUNG_ML:
        return kind
    across = [n for n in column if abs(column[n] - column[largest]) * grid.spacing_mm[2] > BESIDE_MM]
    if across:
        middle = (column[largest] + column[max(across, key=lambda n: size_ml[n])]) / 2
    for number, place in column.items():
        kind[number] = LEFT if place > middle else RIGHT
    return kind


def is_gas(hu: NDArray[np.float32]) -> bool:
    """Return whether these values of one space are those of free gas, which holds no vessels; lung does."""
    return bool(all(np.percentile(hu, (50, 95)) < GAS_HU))


def _closed(sides: Labels, grid: Grid) -> Labels:
    """Return both lungs with their vessels: closed each by itself, and never over an airway or the other lung."""
    result = np.zeros_like(sides)
    for side in SIDES:
        result[closed(sides == side, grid.radius(CLOSE_MM)) & (result == 0) & ((sides == 0) | (sides == side))] = side
    return result


# ---------------------------------------------------------------------------------------------------- the edge, in detail


def _refine(hu: Any, sides: Labels, grid: Grid) -> Labels:
    """Return the lungs on the scan's grid: deep inside as found, in a shell about the surface as the scan itself shows it."""
    segments = np.zeros(hu.shape, np.uint8)
    for side in SIDES:
        lung = sides == side
        outer = ndimage.binary_dilation(lung) & ((sides == 0) | lung)
        inner = ndimage.binary_erosion(lung, border_value=1)
        for k, (may, must) in enumerate(zip(smooth_slices(outer, grid, hu.shape), smooth_slices(inner, grid, hu.shape), strict=True)):
            if may.any():
                segments[k][must | (may & (clean(hu[k]) < LUNG_HU) & (segments[k] == 0))] = side
    return _without_crumbs(segments, grid)


def _without_crumbs(segments: Labels, grid: Grid) -> Labels:
    """Return the lungs without specks of air that stand alone, such as along the wall of the trachea."""
    where = box(segments > 0)
    if where is None:
        raise Unsuitable(NO_LUNGS, hint=WANTED)
    inside = segments[where]
    pieces, _ = ndimage.label(inside)
    small = np.bincount(pieces.ravel()) * grid.ml / np.prod(grid.factors) < CRUMB_ML
    inside[small[pieces]] = 0
    return segments
