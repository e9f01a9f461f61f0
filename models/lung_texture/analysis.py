"""What lung looks like from place to place on CT: as it should, or like emphysema, ground glass, a net of lines, consolidation; shares by thirds.

Everything works on a view whose axes run to the patient's head, back and left, so that "slice" below is axial however the scan was cut.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from dicom_node import Findings, Unsuitable
from dicom_node.methods.coarse import Box, Grid, Labels, Mask, box, spread
from dicom_node.methods.lungs import NO_LUNGS, SIDES, WANTED, Lungs, check_ends, find, thirds
from dicom_node.methods.morphology import filled, not_smaller, opened

from .classes import learned, posteriors
from .features import features, smoothed
from .textures import NAMES

Progress = Callable[[float, str], None]

THIRDS = ("lower", "middle", "upper")
FEW = 100  # voxels in the airways, from which no noise is estimated
LOUD_HU = 30.0  # after smoothing; more looks like structure
CRUMB_ML = 0.5  # a speck smaller than this is no pattern
THIN_MM = 6.0  # and what is nowhere as thick as this is none
NOWHERE = 255  # outside of the lung, or too little of it to be judged: counts with the normal
CUT_MM = 3.05  # slices further apart than this average septa away


def load(folder: Path, device: str) -> Callable[..., Findings]:
    """Return the analysis with the classes that were learned; it needs no accelerator."""
    classes = learned()

    def analyse(ct: Any, progress: Progress = lambda fraction, sentence: None) -> Findings:
        return analysed(ct, classes, progress)

    return analyse


def analysed(ct: Any, classes: dict[str, Any], progress: Progress) -> Findings:
    """Map the classes over both lungs.

    ct: a volume in HU with an affine to patient coordinates (LPS), in any orientation.

    Raises
    ------
    Unsuitable: the volume shows no lungs, not enough of them, or is cut too coarsely or too noisy for lines of 1 to 2 mm.
    """
    axial = ct.to_patient_orientation("HPL")
    spacing_mm = tuple(float(s) for s in axial.spacing)
    if spacing_mm[0] > CUT_MM:
        raise Unsuitable(f"The slices are {spacing_mm[0]:.1f} mm apart; texture is lost above 3 mm.", hint="Send the series with thin slices.")
    lungs = find(axial.array, spacing_mm, lambda fraction, sentence: progress(0.4 * fraction, sentence))
    notes = lungs.notes + check_ends(lungs.segments)
    noise_hu = _noise_hu(axial.array, lungs, spacing_mm)
    notes += _check_noise(noise_hu)
    progress(0.45, "filling what the lungs enclose")
    where = _box(lungs.segments)
    lung = _with_enclosed(lungs.segments, where)
    progress(0.55, "measuring the texture")
    patterns = _patterns(axial.array[where], lung > 0, spacing_mm, noise_hu or 0.0, classes)
    progress(0.95, "counting")
    segments = np.zeros(axial.array.shape, np.uint8)
    segments[where] = patterns
    return Findings(segments=axial.with_array(segments), measurements=_measure(patterns, lung, float(np.prod(spacing_mm)) / 1000), notes=notes)


def _box(segments: Labels) -> Box:
    found = box(segments > 0)
    if found is None:
        raise Unsuitable(NO_LUNGS, hint=WANTED)
    return found


def _noise_hu(hu: Any, lungs: Lungs, spacing_mm: tuple[float, ...]) -> float | None:
    """Return the standard deviation that the smoothing of the features leaves of air in the airways; None where too little is seen."""
    places = np.argwhere(ndimage.binary_erosion(lungs.airways, iterations=2)) * lungs.grid.factors + np.array(lungs.grid.factors) // 2
    if len(places) < FEW:
        return None
    values = [smoothed(hu[k], spacing_mm)[tuple(places[places[:, 0] == k, 1:].T)] for k in np.unique(places[:, 0])]
    return float(np.concatenate(values).std())


def _check_noise(noise_hu: float | None) -> tuple[str, ...]:
    """Return a note where the noise is not known.

    Raises
    ------
    Unsuitable: noise would be taken for lines.
    """
    if noise_hu is None:
        return ("Too little air was seen in the airways to measure the noise: a noisy image shows more lines than there are.",)
    if noise_hu > LOUD_HU:
        raise Unsuitable(
            f"After smoothing the noise is still {noise_hu:.0f} HU: it cannot be told from fine lines.", hint="Send a series with a smooth kernel."
        )
    return ()


def _with_enclosed(segments: Labels, where: Box) -> Labels:
    """Return both lungs with what they enclose in a slice, such as consolidation amid air."""
    result = segments[where].copy()
    for side in SIDES:
        result[filled(result == side) & (result == 0)] = side
    return result


def _patterns(hu: Any, lung: Mask, spacing_mm: tuple[float, ...], noise_hu: float, classes: dict[str, Any]) -> Labels:
    """Return the number of the pattern of each voxel of the lung (slice, row, column), 0 where it is normal; specks left out."""
    found = features(hu, lung, spacing_mm, noise_hu)
    kinds = np.full(found.places.shape, NOWHERE, np.uint8)
    kinds[found.places] = posteriors(found.values, classes).argmax(axis=1)
    kinds[found.solid] = NAMES.index("consolidation")
    kinds = _without_rims(kinds, found.grid)
    z, y, x = (slice(0, length) for length in lung.shape)
    return np.where(lung, spread(kinds, found.grid, (z, y, x)), 0).astype(np.uint8)


def _without_rims(kinds: Labels, grid: Grid) -> Labels:
    """Return the classes on the grid with all that is too thin or too small to be judged given to what is nearest; 0 outside of the places.

    Where two classes meet a window sees both, and takes them for a third one.
    """
    sure = np.zeros(kinds.shape, bool)
    for kind in range(len(NAMES)):
        sure |= not_smaller(opened(kinds == kind, grid.radius(THIN_MM / 2)), grid, CRUMB_ML)
    if not sure.any():
        return np.where(kinds == NOWHERE, 0, kinds).astype(np.uint8)
    nearest = ndimage.distance_transform_edt(~sure, sampling=grid.spacing_mm, return_distances=False, return_indices=True)
    return np.where(kinds == NOWHERE, 0, kinds[tuple(nearest)]).astype(np.uint8)


def _measure(patterns: Labels, lungs: Labels, voxel_ml: float) -> dict[str, Any]:
    """Return the manifest's figures: volumes, and shares in % of both lungs, of each lung and of each third of both."""
    counts = np.zeros((3, 3, len(NAMES)))  # (LEFT or RIGHT, third, class)
    third = thirds(lungs)
    for k, of_slice in enumerate(third):
        for side in SIDES:
            counts[side, of_slice] += np.bincount(patterns[k][lungs[k] == side], minlength=len(NAMES))
    whole = counts.sum((0, 1))
    result: dict[str, Any] = {"lung_volume": float(whole.sum() * voxel_ml), "normal": float(100 * whole[0] / whole.sum())}
    result["volume"] = {kind: float(whole[kind] * voxel_ml) for kind in range(1, len(NAMES))}
    parts = {"share": whole} | {f"share_{name}": counts[:, place].sum(0) for place, name in enumerate(THIRDS)}
    return result | {name: {kind: float(100 * part[kind] / part.sum()) for kind in range(1, len(NAMES))} for name, part in parts.items()}
