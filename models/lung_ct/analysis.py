"""Left and right lung, trachea and large bronchi on chest CT: volumes, densities of the lungs and of their thirds, width of the trachea.

Everything works on a view whose axes run to the patient's head, back and left, so that "slice" below is axial however the scan was cut.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicom_node import Findings
from dicom_node.methods.airways import lumen, trachea_mm2
from dicom_node.methods.coarse import Labels, Mask, clean
from dicom_node.methods.lungs import SIDES, Lungs, air_hu, check_ends, find, thirds

Progress = Callable[[float, str], None]

AIRWAYS = 3  # the manifest's segment
THIRDS = ("lower", "middle", "upper")
OF_THIRDS = ("laa950", "haa")  # their volumes say no more than where the planes lie
BONE_HU = 1024  # the histogram's end
NOISY_HU = 40.0  # standard deviation in air
FEW = 100  # voxels, from which no noise is estimated


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
    lungs = find(axial.array, spacing_mm, lambda fraction, sentence: progress(0.8 * fraction, sentence))
    progress(0.8, "following the airways")
    air = lumen(axial.array, lungs)
    progress(0.9, "measuring")
    notes = lungs.notes + check_ends(lungs.segments) + _check_noise(axial.array, lungs)
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    measurements = _measure(axial.array, lungs.segments, voxel_ml) | _measure_airways(air, lungs.segments, spacing_mm)
    lungs.segments[air] = AIRWAYS
    return Findings(segments=axial.with_array(lungs.segments), measurements=measurements, notes=notes)


def _check_noise(hu: Any, lungs: Lungs) -> tuple[str, ...]:
    """Return a note where air in the airways, which is all of one density, varies so much that the share of low attenuation is inflated."""
    values = air_hu(hu, lungs)
    if len(values) < FEW or values.std() <= NOISY_HU:
        return ()
    return (
        f"The image is noisy (air in the trachea varies by {values.std():.0f} HU, as with a sharp kernel): LAA-950 and Perc15 overstate emphysema.",
    )


def _measure(hu: Any, segments: Labels, voxel_ml: float) -> dict[str, Any]:
    """Return the manifest's figures of the lungs, from one histogram in steps of 1 HU for each third of each lung."""
    counts = np.zeros((3, 3, 2049))  # (LEFT or RIGHT, third, HU from -1024)
    third = thirds(segments)
    for k in np.flatnonzero(segments.any(axis=(1, 2))):
        whole_hu = np.rint(clean(hu[k], BONE_HU)).astype(np.int16) + 1024
        for side in SIDES:
            counts[side, third[k]] += np.bincount(whole_hu[segments[k] == side], minlength=2049)
    each = {side: _densities(counts[side].sum(0), voxel_ml) for side in SIDES}
    both = _densities(counts.sum((0, 1)), voxel_ml)
    result: dict[str, Any] = {f"{name}_by_side": {side: values[name] for side, values in each.items()} for name in both}
    for place, name in enumerate(THIRDS):
        of_third = {side: _densities(counts[side, place], voxel_ml) for side in SIDES}
        result |= {f"{name}_{what}": {side: values[what] for side, values in of_third.items()} for what in OF_THIRDS}
    return result | both


def _measure_airways(air: Mask, lungs: Labels, spacing_mm: tuple[float, ...]) -> dict[str, float | None]:
    """Return the manifest's figures of the airways, of the trachea below the lungs' apex; without air there is no width."""
    areas_mm2 = trachea_mm2(air, spacing_mm, int(np.flatnonzero(lungs.any(axis=(1, 2)))[-1]))
    seen = air.any()
    return {
        "airway_volume": float(np.count_nonzero(air) * np.prod(spacing_mm) / 1000),
        "trachea_area": float(areas_mm2.mean()) if seen else None,
        "trachea_narrowest": float(areas_mm2.min()) if seen else None,
    }


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
