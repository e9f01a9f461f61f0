"""Calcification in the region of the heart on CT without contrast medium: Agatston, volume and mass score.

Where to look is found on a coarse grid of about 2 mm (lungs, spine, breastbone), what counts on the scan's own grid and in its own slices.
Everything works on a view whose axes run to the patient's head, back and left, so that "slice" below is axial however the scan was stored.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicom_node import Findings, Unsuitable
from dicom_node.methods.body import ROOM_HU, enclosed, solid
from dicom_node.methods.coarse import Box, Grid, Image, Mask, block_maxima, block_means, box, clean, spread
from dicom_node.methods.lungs import CLOSE_MM, LUNG_HU, is_gas
from dicom_node.methods.morphology import closed, not_smaller, opened

Progress = Callable[[float, str], None]

CALCIUM, REGION = 1, 2  # the manifest's segments

# The method's own constants (Agatston 1990).
THRESHOLD_HU = 130.0
WEIGHTS_FROM_HU = (200.0, 300.0, 400.0)  # a lesion's greatest value in the slice at or above each of these adds one to its weight of one
LEAST_MM2 = 1.0  # of a lesion in a slice
STANDARD_MM = 3.0  # between slices
CALIBRATION_MG_PER_ML_HU = 1.0  # no calibration: a site's phantom gives the factor to multiply the mass with
QUIET_HU = 20.0  # standard deviation: the noise that the consensus standard (McCollough 2007) allows

# Where the heart is.
GRID_MM = 2.0  # of the coarse grid; a direction sampled more coarsely stays as it is
THICK_MM = 5.05  # slices further apart than this average small lesions away
SHORT_MM = 80.0  # along the body; less does not hold a heart
LUNG_PART_ML = 50.0
LUNG_SIDE_ML = 100.0  # of one lung in the field of view, which may cut it
BONE_ML = 8.0  # a connected piece above the threshold larger than this is bone: one as large in calcium would score above 2500
NEAR_MIDDLE_MM = 20.0  # spine and breastbone reach this far to either side
SPINE_MM = 40.0  # wide, at least
ALONG_MM = 30.0  # of the body: spine and breastbone do not come and go within it
FRONT = 2  # percentile of the lungs' rows that stands for their front
OPEN_MM = 4.0  # half as thick again as the fat between both lungs in front of the heart
LUNG_SHARE = 0.4  # of the largest cross-section of the lungs: slices with less lie above or below the heart
REGION_ML = 100.0  # less holds no heart
CONTRAST_HU = 100.0  # blood without contrast medium is well below
CONTRAST_ML = 100.0  # so much above it is blood: more than the breastbone holds, less than the chambers
METAL_HU = 1500.0
HOMOGENEOUS = 25  # percentile of the blocks' standard deviations that stands for noise
BLOCK_MM = 8.0

NO_HEART = "No heart between two lungs was found in this volume."
WANTED = "Send a CT of the heart or chest without contrast medium, in Hounsfield units."
NOT_CORONARY = (
    "Counted is every calcification between the lungs, the breastbone and the spine: coronary arteries, valves, aorta, lymph nodes, stents. "
    "This is not a coronary calcium score."
)
UNCALIBRATED = (
    "The mass is not calibrated: 1 HU is taken as 1 mg/mL. Multiply it with the factor that a phantom gives for this scanner and tube voltage."
)


def load(folder: Path, device: str) -> Callable[..., Findings]:
    """Return the analysis; it needs neither files nor an accelerator."""
    return analyse


def analyse(ct: Any, progress: Progress = lambda fraction, sentence: None) -> Findings:
    """Score the calcification in the region of the heart.

    ct: a volume in HU with an affine to patient coordinates (LPS), in any orientation.

    Raises
    ------
    Unsuitable: no heart between two lungs is found, contrast medium is in it, or the volume is cut too coarsely.
    """
    axial = ct.to_patient_orientation("HPL")
    spacing_mm = tuple(float(s) for s in axial.spacing)
    _check_geometry(axial.array.shape, spacing_mm)
    grid = Grid.about(spacing_mm, GRID_MM)
    progress(0.05, "looking for the lungs")
    hu = block_means(axial.array, grid)
    lungs = _lungs(hu, grid)
    progress(0.3, "looking for the heart")
    bone = not_smaller(block_maxima(axial.array, grid) >= THRESHOLD_HU, grid, BONE_ML)
    region = _region(hu, lungs, bone, grid)
    progress(0.5, "looking for calcification")
    where = _box(region, grid, axial.array.shape)
    inside, bony = spread(region, grid, where), spread(bone, grid, where)
    values = clean(axial.array[where])
    calcium = _lesions(values, inside, bony, spacing_mm)
    progress(0.8, "scoring")
    segments = np.zeros(axial.array.shape, np.uint8)
    segments[where] = np.where(calcium, CALCIUM, np.where(inside, REGION, 0))
    measurements = scores(values, calcium, spacing_mm) | {"region": float(np.count_nonzero(segments == REGION) * np.prod(spacing_mm) / 1000)}
    return Findings(segments=axial.with_array(segments), measurements=measurements, notes=_notes(values, calcium, inside, spacing_mm))


def _check_geometry(shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> None:
    if max(spacing_mm) > THICK_MM:
        raise Unsuitable(f"The slices are {max(spacing_mm):.1f} mm apart; calcium cannot be scored on more than 5 mm.", hint="Send 3 mm slices.")
    if min(shape) < 8 or shape[0] * spacing_mm[0] < SHORT_MM:
        raise Unsuitable(
            f"The series covers {shape[0] * spacing_mm[0]:.0f} mm of the body, which cannot hold the heart.", hint="Send the whole heart."
        )


# --------------------------------------------------------------------------------------------------------- where to look


def _lungs(hu: Image, grid: Grid) -> Mask:
    """Return both lungs with their vessels, as far as the field of view goes.

    A scan of the heart cuts the chest at its sides, so that nothing closes there: lung is what is dark with body in front of it and behind.

    Raises
    ------
    Unsuitable: there is no body, or nothing in it is as large and as dense as lung.
    """
    body = solid(hu, WANTED)
    body[:, [0, -1]] |= hu[:, [0, -1]] > ROOM_HU
    pieces, count = ndimage.label((hu < LUNG_HU) & enclosed(body, 1))
    lung = np.zeros(count + 1, bool)
    size_ml = np.bincount(pieces.ravel(), minlength=count + 1) * grid.ml
    for number in np.flatnonzero(size_ml[1:] >= LUNG_PART_ML) + 1:
        lung[number] = not is_gas(hu[pieces == number])
    if not lung.any():
        raise Unsuitable(NO_HEART, hint=WANTED)
    return closed(lung[pieces], grid.radius(CLOSE_MM))


def _region(hu: Image, lungs: Mask, bone: Mask, grid: Grid) -> Mask:
    """Return the region of the heart: between lungs, breastbone and spine, without them.

    Raises
    ------
    Unsuitable: one of them is not there, what they enclose is too small for a heart, or it holds contrast medium.
    """
    of_lung = np.nonzero(lungs)[1]
    middle = int(of_lung.mean())  # row: half way from front to back
    quarter = int(np.percentile(of_lung, FRONT) + middle) // 2  # the breastbone lies in front of it, the spine, however bent, behind
    centre = _spine_column(bone, middle, grid)
    between = _between(lungs, centre, grid)
    _check_blood(hu[:, :middle][between[:, :middle]], grid)
    rows = np.arange(hu.shape[1])[:, None]
    front, back = _breastbone(bone, quarter, centre, grid), _spine(bone, quarter, centre, grid)
    thorax = between & (rows > front[:, None, None]) & (rows < back[:, None, None]) & ~ndimage.binary_dilation(bone)
    pieces, _ = ndimage.label(opened(thorax, grid.radius(OPEN_MM)))
    sizes = np.bincount(pieces.ravel(), minlength=2)[1:]
    if sizes.max() * grid.ml < REGION_ML:
        raise Unsuitable(NO_HEART, hint=WANTED)
    return np.asarray(pieces == sizes.argmax() + 1)


def _spine_column(bone: Mask, middle: int, grid: Grid) -> int:
    """Return the column of the spine's middle: where most bone lies in the back half of the chest."""
    columns = bone[:, middle:].sum((0, 1)).astype(float)
    if not columns.any():
        raise Unsuitable("No spine was found behind the lungs.", hint=WANTED)
    return int(ndimage.uniform_filter1d(columns, grid.voxels(SPINE_MM, 2), mode="constant").argmax())


def _near_middle(bone: Mask, centre: int, grid: Grid) -> Mask:
    """Return for each slice and row whether there is bone about the middle of the body."""
    wide = grid.voxels(NEAR_MIDDLE_MM, 2)
    return bone[:, :, max(0, centre - wide) : centre + wide + 1].any(2)


def _spine(bone: Mask, quarter: int, centre: int, grid: Grid) -> NDArray[np.intp]:
    """Return for each slice the row where the spine begins."""
    near = _near_middle(bone, centre, grid)[:, quarter:]
    found = np.flatnonzero(near.any(1))
    rows = np.interp(np.arange(len(bone)), found, near[found].argmax(1) + quarter)
    return ndimage.minimum_filter1d(rows, grid.voxels(ALONG_MM, 0)).astype(np.intp)


def _breastbone(bone: Mask, quarter: int, centre: int, grid: Grid) -> NDArray[np.intp]:
    """Return for each slice the last row of the breastbone; in front of the image where none is found."""
    near = _near_middle(bone, centre, grid)[:, :quarter][:, ::-1]
    found = np.flatnonzero(near.any(1))
    if not found.size:
        return np.full(len(bone), -1)
    rows = np.interp(np.arange(len(bone)), found, quarter - 1 - near[found].argmax(1))
    return ndimage.maximum_filter1d(np.ceil(rows), grid.voxels(ALONG_MM, 0)).astype(np.intp)


def _between(lungs: Mask, centre: int, grid: Grid) -> Mask:
    """Return what lies in a row between right and left lung, in the slices where the lungs are wide; not what one lung encloses.

    Raises
    ------
    Unsuitable: one of the lungs is missing.
    """
    for part, name in ((lungs[:, :, :centre], "right"), (lungs[:, :, centre:], "left")):
        if np.count_nonzero(part) * grid.ml < LUNG_SIDE_ML:
            raise Unsuitable(f"No {name} lung was found beside the spine.", hint=WANTED)
    columns = np.arange(lungs.shape[2])
    last = np.maximum.accumulate(np.where(lungs, columns, -1), axis=2)  # the nearest column of lung to the right of the patient
    following = np.minimum.accumulate(np.where(lungs, columns, len(columns))[:, :, ::-1], axis=2)[:, :, ::-1]
    area = np.count_nonzero(lungs, axis=(1, 2))
    wide = area >= LUNG_SHARE * area.max()
    return (last >= 0) & (last < centre) & (following >= centre) & (following < len(columns)) & ~lungs & wide[:, None, None]


def _check_blood(hu: Image, grid: Grid) -> None:
    """Decline where more is bright in front of the middle of the chest than bone can be."""
    bright_ml = np.count_nonzero(hu > CONTRAST_HU) * grid.ml
    if bright_ml > CONTRAST_ML:
        raise Unsuitable(
            f"{bright_ml:.0f} mL between the lungs are brighter than {CONTRAST_HU:.0f} HU: contrast medium is in the blood, or these are no HU.",
            hint="Send the series without contrast medium.",
        )


# ----------------------------------------------------------------------------------------------------------- what counts


def _box(region: Mask, grid: Grid, shape: tuple[int, ...]) -> Box:
    """Return the box on the scan's own grid about a mask on the coarse one, a block wider on each side."""
    found = box(region, (1, 1, 1))
    if found is None:
        raise Unsuitable(NO_HEART, hint=WANTED)
    return grid.fine(found, shape)


def _lesions(hu: Image, inside: Mask, bony: Mask, spacing_mm: tuple[float, ...]) -> Mask:
    """Return the voxels that count: lesions of the least area in their slice, more than half inside the region, not joined to bone.

    Joined is what touches by a face, an edge or a corner (26 neighbours); in a slice, by an edge or a corner of a pixel (8 neighbours).
    """
    bright = hu >= THRESHOLD_HU
    pieces, count = ndimage.label(bright, structure=np.ones((3, 3, 3)))
    size = np.bincount(pieces.ravel(), minlength=count + 1)
    at_home = np.bincount(pieces[inside], minlength=count + 1) * 2 > size
    at_home[np.unique(pieces[bony])] = False
    at_home[size * np.prod(spacing_mm) / 1000 >= BONE_ML] = False
    at_home[0] = False
    spots, count, areas_mm2 = _in_slices(at_home[pieces], spacing_mm)
    enough = areas_mm2 >= LEAST_MM2 * (1 - 1e-6)  # one pixel of 1 mm is 1 mm2, whatever the rounding of its spacing
    enough[0] = False
    return np.asarray(enough[spots])


def _in_slices(mask: Mask, spacing_mm: tuple[float, ...]) -> tuple[NDArray[Any], int, NDArray[np.float64]]:
    """Return each slice's spots numbered from 1, how many there are, and their areas in mm2 by number."""
    in_slice = np.zeros((3, 3, 3))
    in_slice[1] = 1
    spots, count = ndimage.label(mask, structure=in_slice)
    return spots, count, np.bincount(spots.ravel(), minlength=count + 1) * spacing_mm[1] * spacing_mm[2]


def scores(hu: Image, calcium: Mask, spacing_mm: tuple[float, ...]) -> dict[str, float | None]:
    """Return the manifest's figures of the voxels that count, each slice standing for what lies up to the next one."""
    spots, count, areas_mm2 = _in_slices(calcium, spacing_mm)
    peaks_hu = np.asarray(ndimage.maximum(hu, spots, np.arange(1, count + 1))) if count else np.zeros(0)
    weights = 1 + sum((peaks_hu >= limit).astype(int) for limit in WEIGHTS_FROM_HU)
    volume_mm3 = float(np.count_nonzero(calcium) * np.prod(spacing_mm))
    mean_hu = float(hu[calcium].mean(dtype=np.float64)) if count else 0.0
    return {
        "agatston": float((areas_mm2[1:] * weights).sum() * spacing_mm[0] / STANDARD_MM),
        "volume": volume_mm3,
        "mass": volume_mm3 / 1000 * mean_hu * CALIBRATION_MG_PER_ML_HU,
        "lesions": float(ndimage.label(calcium, structure=np.ones((3, 3, 3)))[1]),
        "peak": float(peaks_hu.max()) if count else None,
        "threshold": THRESHOLD_HU,
    }


# --------------------------------------------------------------------------------------------------- what to know of them


def _notes(hu: Image, calcium: Mask, inside: Mask, spacing_mm: tuple[float, ...]) -> tuple[str, ...]:
    notes = [NOT_CORONARY, UNCALIBRATED]
    if abs(spacing_mm[0] - STANDARD_MM) > 0.1:
        notes.append(f"Not standard: slices every {spacing_mm[0]:.2f} mm; the Agatston score is defined for 3 mm and is scaled to it.")
    noise_hu = _noise_hu(hu, inside, spacing_mm)
    if noise_hu > QUIET_HU:
        notes.append(f"Not standard: noise of {noise_hu:.0f} HU (at most {QUIET_HU:.0f}; as of thin slices or a sharp kernel) can count as calcium.")
    if calcium.any() and hu[calcium].max() > METAL_HU:
        notes.append(f"Something is brighter than {METAL_HU:.0f} HU: metal such as a stent, lead or clip counts as calcium.")
    return tuple(notes)


def _noise_hu(hu: Image, inside: Mask, spacing_mm: tuple[float, ...]) -> float:
    """Return the standard deviation in blocks of one slice that lie in the region and are the most even ones; 0 where there is none."""
    tall, wide = (max(4, round(BLOCK_MM / s)) for s in spacing_mm[1:])
    rows, columns = hu.shape[1] // tall * tall, hu.shape[2] // wide * wide

    def blocks(array: NDArray[Any]) -> NDArray[Any]:
        return array[:, :rows, :columns].reshape(len(array), rows // tall, tall, columns // wide, wide)

    whole = blocks(inside).all(axis=(2, 4))
    return float(np.percentile(blocks(hu).std(axis=(2, 4))[whole], HOMOGENEOUS)) if whole.any() else 0.0
