"""Brain on T1-weighted head MR: mask and volume, by the two networks of deepbet (see `dicom_node.methods.brain_mask`)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dicom_node import Findings
from dicom_node.methods.brain_mask import drawing

Progress = Callable[[float, str], None]


def load(folder: Path, device: str, weights: Path) -> Callable[..., Findings]:
    """Return the analysis with both networks on the device."""
    draw = drawing(weights, device)

    def analyse(mr: Any, progress: Progress = lambda fraction, sentence: None) -> Findings:
        """Segment the brain and measure its volume.

        mr: a T1-weighted volume with an affine to patient coordinates (LPS), in any orientation and any unit.

        Raises
        ------
        Unsuitable: the slices are too thick, or no brain of a plausible size is seen.
        """
        ras = mr.to_patient_orientation("RAH")
        brain = draw(ras.array, ras.spacing, progress)
        return Findings(segments=ras.with_array(brain.mask), measurements={"volume": brain.volume_ml}, notes=brain.notes)

    return analyse
