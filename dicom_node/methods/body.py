"""The patient on CT, without the table and the air about him."""

import numpy as np
from scipy import ndimage

from dicom_node.domain import Unsuitable
from dicom_node.methods.coarse import Image, Mask
from dicom_node.methods.morphology import filled, largest

BODY_HU = -500.0  # half way between air and soft tissue
ROOM_HU = -940.0  # at the edge of the image: above is more than the air about the patient


def solid(hu: Image, wanted: str) -> Mask:
    """Return the largest solid on a grid of about 2 mm (slice, row, column), opened to part it from thin shells such as the table.

    wanted: what to send instead, in a sentence.

    Raises
    ------
    Unsuitable: there is nothing but air.
    """
    found = largest(ndimage.binary_opening(hu > BODY_HU))
    if not found.any():
        raise Unsuitable("The volume is empty: no body was found in it.", hint=wanted)
    return found


def whole(hu: Image, wanted: str) -> Mask:
    """Return the patient with what he encloses: the solid, its spaces filled in each axial slice; axes to head, back and left.

    Where the image ends inside the lungs, with the chest wall on both sides, its edge closes them.

    Raises
    ------
    Unsuitable: there is nothing but air.
    """
    walls = solid(hu, wanted)
    for edge in (np.s_[:, 0], np.s_[:, -1], np.s_[:, :, 0], np.s_[:, :, -1]):
        line = walls[edge]  # (slice, place along the edge)
        line |= enclosed(line, 1) & (hu[edge] > ROOM_HU)
    return filled(walls)


def enclosed(mask: Mask, axis: int) -> Mask:
    """Return what has the mask on both sides along an axis, and the mask itself."""
    before = np.logical_or.accumulate(mask, axis)
    after = np.flip(np.logical_or.accumulate(np.flip(mask, axis), axis), axis)
    return np.asarray(before & after)
