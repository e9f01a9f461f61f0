"""Where each tissue of the abdomen may lie: within the skin, in the bone, in the wall of the trunk, in its cavity.

On a coarse grid of about 2 mm (slice, row, column), axes to the patient's head, back and left.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from dicom_node import Unsuitable
from dicom_node.methods.coarse import Grid, Image, Mask
from dicom_node.methods.morphology import closed, depth_mm, dilated, filled, largest

from .wall import WALL_MM, behind, wall_of

Progress = Callable[[float, str], None]

FAT_HU = (-190, -30)
BONE_HU = 200  # above soft tissue with contrast medium in its capillaries; what is brighter within vessels is told apart by its shape
CORTEX_HU = 300  # a bone has a cortex as dense as this within reach, also in blocks of 2 mm
DENSEST_HU = 350  # a twentieth of a bone is denser than this; of a kidney, a spleen or a vein with contrast medium it is not
VESSEL_HU = 600  # the most within vessels once the contrast medium has mixed with blood; what is even and denser is cortex
AIR_HU = -300

GRID_MM = 1.9  # of the coarse grid, at least: finer ones are too noisy to tell bone from vessels
SKIN_MM = 2.0
FASCIA_HU = -75  # a block of 2 mm that is denser than fat holds some fascia: that stops the flood
GAP_MM = 4.0  # half of the widest gap in the wall wall
THIN_MM = 10.0  # fat as near as this to the outside is subcutaneous
PSOAS_MM = 25.0  # from a vertebra to either side, behind its front: soft tissue there is psoas, crus of the diaphragm or its like
DISC_MM = 8.0  # half of the height of the highest disc
NEAR_WALL_MM = 20.0  # every bone comes as near as this to the surface of the trunk's wall
BESIDE_AIR_MM = 3.0  # next to air a voxel of the lung's or the bowel's edge has the Hounsfield units of fat
CRUMB_ML = 0.2  # a speck smaller than this is no bone
TO_CORTEX_MM = 10.0  # from bone to its cortex, except in the spine; spongy bone that is deeper is found as what the cortex encloses
SKULL = 0.4  # of a cross-section within a ring of bone: more is a head
FEW = 8  # voxels of the coarse grid, in which no vessel is looked for
WANTED = "Send a CT of the abdomen in Hounsfield units."


@dataclass(frozen=True, slots=True)
class Zones:
    """Where each tissue may lie, on the coarse grid; each reaches one voxel over its edge where the scan's voxels shall decide."""

    outside: Mask  # of the body's core: where air is the room's
    bone: Mask
    canal: Mask  # what bone encloses here may be the spinal canal
    muscle: Mask
    subcutaneous: Mask
    visceral: Mask


def zones_of(hu: Image, body: Mask, grid: Grid, progress: Progress) -> Zones:
    """Return where each tissue may lie.

    Raises
    ------
    Unsuitable: there is no trunk, or it is a head.
    """
    progress(0.15, "looking for the trunk within the fat")
    trunk = _trunk(hu, body, grid)
    progress(0.3, "telling bone from vessels")
    vessels = _vessels(hu, trunk)
    bone = _bone(hu, trunk, vessels, grid)
    _check_no_head(bone, body, grid)
    progress(0.45, "measuring the wall of the trunk")
    open_space = ndimage.binary_opening(trunk & (((hu >= FAT_HU[0]) & (hu <= FAT_HU[1])) | (hu < AIR_HU)) & ~bone)
    wall, bone = wall_of(hu, trunk, bone, open_space, grid)
    beside = _beside_spine(bone, trunk, grid) & ~wall
    under_skin, cavity = body & ~trunk, trunk & ~wall
    near_air = dilated(trunk & (hu < AIR_HU), grid.radius(BESIDE_AIR_MM))
    return Zones(
        outside=~ndimage.binary_erosion(body, iterations=2, border_value=1),
        bone=ndimage.binary_dilation(bone) & ~vessels & trunk,
        canal=behind(trunk, grid),
        muscle=(wall | beside | (ndimage.binary_dilation(wall) & under_skin)) & ~_column(bone, trunk, grid),
        subcutaneous=ndimage.binary_dilation(under_skin) & body,
        visceral=(ndimage.binary_dilation(cavity) & trunk | beside) & ~near_air,
    )


def _trunk(hu: Image, body: Mask, grid: Grid) -> Mask:
    """Return what the subcutaneous fat encloses.

    That fat is flooded from the skin. It stops at muscle and fascia, also where they leave a gap of less than twice GAP_MM.
    """
    deep_mm = depth_mm(body, grid)
    fat = body & (hu >= FAT_HU[0]) & (hu <= FASCIA_HU)
    near = fat & (deep_mm <= THIN_MM)
    flooded = ndimage.binary_propagation(near, mask=near | (depth_mm(fat, grid) > GAP_MM))
    spread = dilated(flooded, grid.radius(GAP_MM + GRID_MM))
    under_skin = (spread & fat) | flooded
    whole = closed(under_skin, grid.radius(GAP_MM))  # over its strands
    core = largest(ndimage.binary_opening(body & ~whole & (deep_mm > SKIN_MM + grid.spacing_mm[1])))
    if not core.any():
        raise Unsuitable("No trunk was found within the body: there is only one tissue.", hint=WANTED)
    return filled(core)


# ------------------------------------------------------------------------------------------------------------------- bone


def _vessels(hu: Image, trunk: Mask) -> Mask:
    """Return vessels, heart and bowel that are filled with contrast medium: even, and not brighter at their rim than inside, as bone is."""
    mean = ndimage.uniform_filter(hu, 3)
    spread = np.sqrt(np.maximum(ndimage.uniform_filter(hu * hu, 3) - mean * mean, 0))
    even = (ndimage.minimum_filter(hu, 3) > 0.75 * BONE_HU) & (spread < 0.15 * mean) & (mean >= 0.75 * BONE_HU) & (mean <= VESSEL_HU) & trunk
    pieces, _ = ndimage.label(even)
    result = np.zeros(hu.shape, bool)
    voxels = np.bincount(pieces.ravel())
    for number, box in enumerate(ndimage.find_objects(pieces), start=1):
        if voxels[number] < FEW:
            continue
        wide = tuple(slice(max(0, side.start - 4), side.stop + 4) for side in box)
        core, here = pieces[wide] == number, hu[wide]
        inside = float(here[core].mean())
        rim = ndimage.binary_dilation(core, iterations=3) & ~ndimage.binary_dilation(core)
        if np.mean(here[rim] > 1.2 * inside) < 0.15:
            result[wide] |= ndimage.binary_dilation(core, iterations=3) & (here < 1.3 * inside) & (here > 0.5 * BONE_HU)
    return result


def _bone(hu: Image, trunk: Mask, vessels: Mask, grid: Grid) -> Mask:
    """Return bone on the coarse grid: dense pieces that come near the surface of the trunk, have a cortex and are no vessel."""
    dense = (hu >= 0.75 * BONE_HU) & trunk & ~vessels  # a block that holds a thin cortex has a lower mean than it
    pieces, count = ndimage.label(dense, np.ones((3, 3, 3)))
    if not count:
        return dense
    near = np.bincount(pieces[dense & (depth_mm(trunk, grid) <= NEAR_WALL_MM)], minlength=count + 1) > 0
    size = np.bincount(pieces.ravel(), minlength=count + 1)
    cortical = np.bincount(pieces[dense & (hu >= DENSEST_HU)], minlength=count + 1) >= size / 20
    keep = near & cortical & (size * grid.ml >= CRUMB_ML)
    keep[0] = False
    bone = keep[pieces]
    far = depth_mm(~(bone & (hu >= CORTEX_HU)), grid) > TO_CORTEX_MM
    return np.asarray(bone & (~far | behind(trunk, grid)))


def _check_no_head(bone: Mask, body: Mask, grid: Grid) -> None:
    ring = closed(bone, grid.radius(6.0, flat=True))
    share = np.count_nonzero(filled(ring), axis=(1, 2)) / np.count_nonzero(body, axis=(1, 2)).clip(1)
    if np.median(share) > SKULL:
        raise Unsuitable("Bone encloses most of each cross-section: this is a head, not an abdomen.", hint=WANTED)


def _column(bone: Mask, trunk: Mask, grid: Grid) -> Mask:
    """Return the spine with its discs: what lies between bone above and bone below."""
    spine = filled(bone & behind(trunk, grid))
    return closed(spine, [0, 0, grid.voxels(DISC_MM, 0)], sitk.sitkBox)


def _beside_spine(bone: Mask, trunk: Mask, grid: Grid) -> Mask:
    """Return what lies to the left and right of the vertebrae, behind their front."""
    spine = bone & behind(trunk, grid)
    result = np.zeros(bone.shape, bool)
    wide = round(PSOAS_MM / grid.spacing_mm[2])
    for k in np.flatnonzero(spine.any(axis=(1, 2))):
        rows = np.flatnonzero(spine[k].any(axis=1))
        for row in range(rows[0] + round(WALL_MM[0] / grid.spacing_mm[1]), rows[-1] + 1):
            columns = np.flatnonzero(spine[k, row])
            if columns.size:
                result[k, row, max(0, columns[0] - wide) : columns[-1] + wide + 1] = True
    return result & trunk
