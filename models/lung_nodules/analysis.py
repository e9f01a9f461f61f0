"""Candidates for lung nodules on chest CT: blobs of every size within the closed lungs, outlined, and how probable each is to be a nodule.

`candidates.py` finds blobs, `boundary.py` outlines them and says what each looks like, `posterior.py` holds Bayes' rule and its numbers,
`learn.py` learns those from the chests that `chest.py` draws. Arrays run to the patient's head, back and left, however the scan was cut.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import regionprops

from dicom_node import Findings, Mark, Presentation, Unsuitable
from dicom_node.methods.coarse import Box, Mask, clean
from dicom_node.methods.lungs import air_hu, check_ends, find

from .boundary import Candidate, candidates
from .candidates import STEP_MM, Field, field
from .posterior import LEAST, probability

Progress = Callable[[float, str], None]

THICK_MM = 3.05  # slices further apart than 3 mm hold the smallest nodules in one slice, where nothing tells them from a vessel
MOST = 20
NOISY_HU = 40.0  # standard deviation in the airways' air
FEW = 100  # voxels, from which no noise is estimated
LUNG_WINDOW = (-600.0, 1500.0)
CIRCLE_MORE_MM = 3.0  # of a circle's radius, beyond the candidate that it is about


@dataclass(frozen=True, slots=True)
class Nodule:
    """One candidate as it is reported: its voxels in a box of the scan, and how probable it is to be a nodule."""

    box: Box
    mask: Mask
    probability: float


def load(folder: Path, device: str) -> Callable[..., Findings]:
    """Return the analysis; it needs neither files nor an accelerator."""
    return analyse


def analyse(ct: Any, progress: Progress = lambda fraction, sentence: None) -> Findings:
    """Look for nodules in both lungs.

    ct: a volume in HU with an affine to patient coordinates (LPS), in any orientation.

    Raises
    ------
    Unsuitable: the volume shows no lungs, not the whole of them, or is cut too coarsely.
    """
    axial = ct.to_patient_orientation("HPL")
    spacing_mm = tuple(float(s) for s in axial.spacing)
    _check_spacing(spacing_mm)
    lungs = find(axial.array, spacing_mm, lambda fraction, sentence: progress(0.4 * fraction, sentence))
    notes = lungs.notes + check_ends(lungs.segments) + _check_noise(air_hu(axial.array, lungs))
    progress(0.4, "looking for blobs in the lungs")
    nodules = _nodules(axial.array, field(axial.array, lungs.segments, spacing_mm), progress)
    progress(0.9, "measuring")
    return _findings(ct, axial, nodules, notes)


def _check_spacing(spacing_mm: tuple[float, ...]) -> None:
    if max(spacing_mm) > THICK_MM:
        raise Unsuitable(
            f"The slices are {max(spacing_mm):.1f} mm apart; small nodules cannot be told from vessels on more than 3 mm.",
            hint="Send the series with thin slices.",
        )


def _check_noise(air: NDArray[np.float32]) -> tuple[str, ...]:
    """Return a note where air in the airways, which is all of one density, varies much; air: its values in HU."""
    if len(air) < FEW or air.std() <= NOISY_HU:
        return ()
    return (f"The image is noisy (air in the trachea varies by {air.std():.0f} HU, as with a sharp kernel): small nodules may be missed.",)


def _nodules(hu: Any, view: Field, progress: Progress) -> list[Nodule]:
    """Return the candidates worth showing, the most probable first, none of which overlap; hu: the scan (slice, row, column)."""
    found = candidates(view)
    progress(0.8, "weighing candidates")
    chances = probability(np.array([one.features for one in found])) if found else np.zeros(0)
    taken, cubes = np.zeros(hu.shape, bool), np.zeros(view.hu.shape, bool)
    nodules: list[Nodule] = []
    for number in np.argsort(-chances, kind="stable"):
        one = found[number]
        if chances[number] < LEAST or len(nodules) == MOST:
            break
        if (cubes[one.box] & one.mask).any():
            continue
        box, mask = _on_scan(hu, view, one)
        mask &= ~taken[box]
        if mask.any():
            cubes[one.box] |= one.mask
            taken[box] |= mask
            nodules.append(Nodule(box, mask, float(chances[number])))
    return nodules


def _on_scan(hu: Any, view: Field, one: Candidate) -> tuple[Box, Mask]:
    """Return a candidate in a box of the scan: within a cube of its surface, each voxel as dense as the edge or denser is its own."""
    wider = tuple(slice(max(0, side.start - 2), min(n, side.stop + 2)) for side, n in zip(one.box, view.hu.shape, strict=True))
    start = np.array([side.start for side in wider])
    cubes = np.zeros([side.stop - side.start for side in wider], bool)
    cubes[tuple(slice(side.start - first, side.stop - first) for side, first in zip(one.box, start, strict=True))] = one.mask
    low, high = view.in_scan(start), view.in_scan(start + cubes.shape)
    z, y, x = (slice(max(0, int(a)), min(n, int(b) + 1)) for a, b, n in zip(low, high, hu.shape, strict=True))
    scale = view.spacing_mm / STEP_MM
    offset = ((z.start, y.start, x.start) - view.start) * scale - start
    shape = (z.stop - z.start, y.stop - y.start, x.stop - x.start)

    def sampled(mask: Mask) -> Mask:
        return ndimage.affine_transform(mask.astype(np.float32), scale, offset, shape, order=1) > 0.5

    may, must = sampled(ndimage.binary_dilation(cubes)), sampled(ndimage.binary_erosion(cubes))
    mask = (must | (may & (clean(hu[z, y, x]) > one.edge_hu))) & sampled(view.inside[wider])
    return (z, y, x), mask


# ------------------------------------------------------------------------------------------------------- what is reported


def _findings(ct: Any, axial: Any, nodules: list[Nodule], notes: tuple[str, ...]) -> Findings:
    """Return what was found in the manifest's terms; axial: the view of `ct` that the nodules' boxes are of."""
    segments = np.zeros(axial.array.shape, np.uint8)
    for number, one in enumerate(nodules, 1):
        segments[one.box][one.mask] = number
    each = [_measured(axial, one) for one in nodules]
    names = ("probability", "diameter", "volume", "density")
    measurements: dict[str, Any] = {name: {number: values[name] for number, values in enumerate(each, 1)} for name in names}
    marks = [mark for number, (one, values) in enumerate(zip(nodules, each, strict=True), 1) for mark in _marks(ct, axial, one, number, values)]
    return Findings(
        segments=axial.with_array(segments),
        measurements=measurements | {"count": len(nodules)},
        presentations={"candidates": Presentation(window=LUNG_WINDOW, marks=tuple(marks)) if marks else None},
        keys={"candidates": tuple(sorted({mark.slice for mark in marks if mark.text}))},
        notes=notes,
    )


def _measured(axial: Any, one: Nodule) -> dict[str, float]:
    """Return a nodule's measurements: its probability, its longest axis in an axial slice in mm, its volume in mL, its mean density in HU."""
    planes = (plane.astype(np.uint8) for plane in one.mask if plane.any())
    return {
        "probability": one.probability,
        "diameter": float(max(regionprops(plane, spacing=axial.spacing[1:])[0].feret_diameter_max for plane in planes)),
        "volume": float(one.mask.sum()) * axial.voxel_volume / 1000,
        "density": float(clean(axial.array[one.box])[one.mask].mean()),
    }


def _marks(ct: Any, axial: Any, one: Nodule, number: int, measured: dict[str, float]) -> list[Mark]:
    """Return a circle about a nodule in each slice of `ct` that it reaches; beside the middle one, its number, probability and diameter."""
    places = np.argwhere(one.mask) + [side.start for side in one.box]
    places = places @ (turn := np.linalg.inv(ct.affine) @ axial.affine)[:3, :3].T + turn[:3, 3]  # in voxels of `ct`
    slices = np.rint(places[:, 0]).astype(int)
    row, column = places[:, 1:].mean(0)
    away_mm = np.linalg.norm((places[:, 1:] - (row, column)) * ct.spacing[1:], axis=1).max() + CIRCLE_MORE_MM
    inwards = 1 if column < ct.array.shape[2] / 2 else -1
    points = (float(row), float(column)), (float(row), float(column + inwards * away_mm / ct.spacing[2]))
    middle = int(np.rint(slices.mean()))
    text = f"{number}: {measured['probability']:.2f}, {measured['diameter']:.0f} mm"
    reached = range(int(slices.min()), int(slices.max()) + 1)
    return [Mark(slice=k, kind="CIRCLE", points=points, text=text if k == middle else "") for k in reached]
