"""What a CT or MR series shows, by Bayes' rule over a few of its slices: modality, body part, plane, text in the pixels.

The model sees no header: its answers are those of the pixels and of the affine alone. That a header says otherwise is noticed by the node, for this
model as for any other, and stands in the report.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dicom_node import Findings, Unsuitable
from dicom_node.methods.appearance import hu_evidence
from dicom_node.methods.glance import spread, volume_evidence
from dicom_node.methods.recognition import PIXELS, Recognised, recognise, stating, worded

ASKED = ("modality", "body_part", "annotation")
WITHIN_DEG = 30.0  # slices further than this from each of the patient's planes are oblique
PLANES = ("sagittal", "coronal", "axial")  # whose normals are x, y, z of the patient (LPS)
NOT_HU = 0.9  # how often values of MR are unlike Hounsfield units: the input is CT or MR
WANTED = "Send a CT or MR series that shows something."


def load(folder: Path, device: str) -> Callable[..., Findings]:
    """Return the analysis; it needs neither files nor an accelerator."""
    return analyse


def analyse(image: Any) -> Findings:
    """Say what a volume shows.

    image: a volume with an affine to patient coordinates (LPS), in HU where it is CT.

    Raises
    ------
    Unsuitable: all pixels are alike.
    """
    middle = np.stack([image.array[index] for index in spread(len(image.array))])
    if middle.min() == middle.max():
        raise Unsuitable("The images are empty: all pixels that were looked at are alike.", hint=WANTED)
    is_ct = hu_evidence(middle[:, ::4, ::4]) is not None
    other = () if is_ct else (stating("modality", PIXELS, "values are unlike Hounsfield units", ["MR"], NOT_HU),)
    found = recognise([*other, *volume_evidence(other, image)])
    answers = {facet: found.get(facet) or "unknown" for facet in ASKED}
    return Findings(evaluations=answers | {"plane": _plane(image)}, notes=_said(found))


def _plane(image: Any) -> str:
    normal = np.asarray(image.affine)[:3, 0] / image.spacing[0]  # from slice to slice
    steep = np.abs(normal) >= np.cos(np.deg2rad(WITHIN_DEG))
    return PLANES[int(np.argmax(steep))] if steep.any() else "oblique"


def _said(found: Recognised) -> tuple[str, ...]:
    return tuple(f"{worded(facet)}: {found.answers[facet].sentence}." for facet in ASKED if facet in found.answers)
