"""A few slices of a series as evidence: which of them are looked at, how coarsely, and what is asked of which modality."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicom_node.methods.appearance import body_part_evidence, brightness_evidence, features, hu_evidence
from dicom_node.methods.lettering import lettering_evidence
from dicom_node.methods.recognition import Evidence, recognise

SLICES = 9  # of a series so many are looked at, from end to end
LETTERED = 3  # and so many for text, at full resolution
GRID_MM = 3.0  # bodies are measured no finer than this
_MARGIN = 0.06  # of the series, at each end: the outermost slices are often cut

Planes = Sequence[NDArray[Any]]


def spread(count: int, most: int = SLICES) -> list[int]:
    """Return the numbers of some of `count` slices, evenly from end to end."""
    ends = (_MARGIN * (count - 1), (1 - _MARGIN) * (count - 1))
    return sorted({round(float(place)) for place in np.linspace(*ends, min(count, most))})


def body_evidence(before: Sequence[Evidence], axial: Planes, spacing_mm: tuple[float, float], length_mm: float | None) -> list[Evidence]:
    """Return what some axial slices (row, column) of CT or MR say; of what emits its own light the body has no edge.

    before: what is known already. spacing_mm: between rows, between columns. length_mm: of the whole series along the body, if that is known.
    """
    steps = [max(1, round(GRID_MM / mm)) for mm in spacing_mm]
    planes = np.stack([plane[:: steps[0], :: steps[1]] for plane in axial]).astype(np.float32)
    coarse_mm = (spacing_mm[0] * steps[0], spacing_mm[1] * steps[1])
    modality = recognise(before).get("modality")
    in_hu = hu_evidence(planes) if modality in ("CT", None) else None
    if modality != "MR" and in_hu is None:
        return []
    found = features(planes, coarse_mm, hu=in_hu is not None, length_mm=length_mm)
    said = [*([in_hu] if in_hu else []), *(body_part_evidence(found) if found else ())]
    if modality == "MR" and recognise([*before, *said]).get("body_part") == "head":
        bright = brightness_evidence(planes, coarse_mm)
        said += [bright] if bright else []
    return said


def text_evidence(planes: Planes) -> list[Evidence]:
    """Return whether text is drawn into some of all slices (row, column) of a series."""
    found = lettering_evidence([planes[index] for index in spread(len(planes), LETTERED)])
    return [found] if found else []


def volume_evidence(before: Sequence[Evidence], volume: Any) -> list[Evidence]:
    """Return what the slices of a volume say.

    volume: a highdicom.Volume with an affine to patient coordinates (LPS), in any orientation; no copy is made of it.
    """
    axial = volume.to_patient_orientation("HPL")  # slice, row and column count up to the head, the back and the left
    planes = [axial.array[index] for index in spread(len(axial.array))]
    between_mm, *spacing_mm = (float(mm) for mm in axial.spacing)
    return [*body_evidence(before, planes, (spacing_mm[0], spacing_mm[1]), len(axial.array) * between_mm), *text_evidence(volume.array)]
