"""Fluid, grey and white matter of the brain on T1-weighted head MR: the probability of each in every voxel, and their volumes.

The brain is drawn as brain-mr draws it (`dicom_node.methods.brain_mask`), the tissues in it by Bayes' rule (`dicom_node.methods.brain_tissue`).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dicom_node import Findings, Unsuitable
from dicom_node.methods.brain_mask import drawing
from dicom_node.methods.brain_tissue import GREY, WANTED, Bytes, Mask, tissues

Progress = Callable[[float, str], None]

THICK_MM = 2.55  # the cortex is 2 to 4 mm thick: slices further apart than 2.5 mm mix it with what lies beside it


def load(folder: Path, device: str, weights: Path) -> Callable[..., Findings]:
    """Return the analysis; only drawing the brain uses the device."""
    draw = drawing(weights, device)

    def analyse(mr: Any, progress: Progress = lambda fraction, sentence: None) -> Findings:
        """Measure fluid, grey and white matter within the brain.

        mr: a T1-weighted volume with an affine to patient coordinates (LPS), in any orientation and any unit.

        Raises
        ------
        Unsuitable: no whole brain is seen, the slices are too thick, or the brightnesses are not those of T1.
        """
        _check_spacing(mr.spacing)
        ras = mr.to_patient_orientation("RAH")
        brain = draw(ras.array, ras.spacing, lambda fraction, sentence: progress(0.3 * fraction, sentence))
        found = measured(ras, brain.mask, progress)
        return Findings(segments=found.segments, measurements=found.measurements, notes=brain.notes)

    return analyse


def _check_spacing(spacing_mm: Any) -> None:
    if max(spacing_mm) > THICK_MM:
        raise Unsuitable(f"The slices are {max(spacing_mm):.1f} mm apart; grey and white matter cannot be measured on more than 2.5 mm.", hint=WANTED)


def measured(mr: Any, brain: Mask, progress: Progress = lambda fraction, sentence: None) -> Findings:
    """Return the probabilities of fluid, grey and white matter within a brain that is known, and the measurements of the manifest.

    mr: a volume; brain: a mask on its grid.

    Raises
    ------
    Unsuitable: the brightnesses are not those of T1.
    """
    box, probable = tissues(mr.array, brain, tuple(float(s) for s in mr.spacing), progress)
    cut = mr[box].with_array(np.moveaxis(probable, 0, -1), channels={"ReferencedSegmentNumber": [1, 2, 3]})
    return Findings(segments=cut, measurements=_measure(probable, float(mr.voxel_volume) / 1000))


def _measure(probable: Bytes, voxel_ml: float) -> dict[str, Any]:
    """Return the measurements of the manifest: each voxel counts for a tissue as much as it is probable."""
    volume_ml = probable.sum(axis=(1, 2, 3), dtype=np.float64) / 255 * voxel_ml
    share = 100 * volume_ml / volume_ml.sum()
    return {
        "volume": {segment: float(ml) for segment, ml in enumerate(volume_ml, start=1)},
        "share": {segment: float(percent) for segment, percent in enumerate(share, start=1)},
        "parenchyma": float(volume_ml[GREY:].sum()),
        "parenchymal_share": float(share[GREY:].sum()),
    }
