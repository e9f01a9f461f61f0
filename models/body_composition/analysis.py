"""Subcutaneous fat, visceral fat, skeletal muscle and bone on CT of the abdomen: volumes, mean areas, density of muscle.

Where each tissue may lie is found on a coarse grid of about 2 mm (body, bone, trunk within the subcutaneous fat, how thick its wall is);
what lies there is read from the scan's own voxels by their Hounsfield units.
Everything works on a view whose axes run to the patient's head, back and left, so that "slice" below is axial however the scan was cut.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from dicom_node import Findings, Unsuitable

Mask = NDArray[np.bool_]
Image = NDArray[np.float32]
Labels = NDArray[np.uint8]
Progress = Callable[[float, str], None]

BONE, MUSCLE, SUBCUTANEOUS, VISCERAL = 1, 2, 3, 4
NAMES = {BONE: "bone", MUSCLE: "muscle", SUBCUTANEOUS: "subcutaneous_fat", VISCERAL: "visceral_fat"}

FAT_HU = (-190, -30)
MUSCLE_HU = (-29, 150)
FATTY_HU = 29  # muscle up to here is of low attenuation: it holds fat
BONE_HU = 200  # above soft tissue with contrast medium in its capillaries; what is brighter within vessels is told apart by its shape
CORTEX_HU = 300  # a bone has a cortex as dense as this within reach, also in blocks of 2 mm
DENSEST_HU = 350  # a twentieth of a bone is denser than this; of a kidney, a spleen or a vein with contrast medium it is not
SURE_HU = 500  # behind fat that may end the wall only what is as dense is bone, such as the pelvis; a kidney is not
VESSEL_HU = 600  # the most within vessels once the contrast medium has mixed with blood; what is even and denser is cortex
MARROW_HU = 80  # a space within the spine that is denser is marrow; cord and fluid of the spinal canal are below
AIR_HU = -300
BODY_HU = -500

GRID_MM = 1.9  # of the coarse grid, at least: finer ones are too noisy to tell bone from vessels
THICK_MM = 10.0  # slices further apart lose the wall between two of them
SKIN_MM = 2.0
FASCIA_HU = -75  # a block of 2 mm that is denser than fat holds some fascia: that stops the flood
GAP_MM = 4.0  # half of the widest gap in the muscular wall
THIN_MM = 10.0  # fat as near as this to the outside is subcutaneous
WALL_MM = (6.0, 30.0)  # the muscular wall of the trunk is at least and at most this thick
BACK_MM = 110.0  # and beside the spine, with its muscles, at most this
PELVIS_MM = 80.0  # of muscle, at most, lie on the pelvis
BACK_DEGREES = (35.0, 60.0)  # from straight back: as far as the spine reaches; as far as its muscles reach
BONE_GAP_MM = (12.0, 40.0)  # elsewhere, through the spine: between two bones on a ray; what lies deeper, such as a kidney, is no bone
MUCH = (2.5, 1.5)  # behind, elsewhere: times as thick as the wall about it, the wall is not: an organ touches it
PSOAS_MM = 25.0  # from a vertebra to either side, behind its front: soft tissue there is psoas, crus of the diaphragm or its like
DISC_MM = 8.0  # half of the height of the highest disc
SHALLOW_MM = 40.0  # bone that ends above this depth is a rib, the sternum or flat like them: muscle lines it; deeper, the spine or the pelvis
BEHIND_RIB_MM = 4.0  # muscle that lines the ribs
NEAR_WALL_MM = 20.0  # every bone comes as near as this to the surface of the trunk's wall
BESIDE_AIR_MM = 3.0  # next to air a voxel of the lung's or the bowel's edge has the Hounsfield units of fat
CRUMB_ML = 0.2  # a speck smaller than this is no bone
TO_CORTEX_MM = 10.0  # from bone to its cortex, except in the spine; spongy bone that is deeper is found as what the cortex encloses
RING_MM = 3.0  # half of the widest gap in a cortex that slices blur
CANAL_MM = 30.0  # from the middle of the trunk to either side: what bone encloses there, behind, may be the spinal canal
LARGE_HOLE_MM2 = 2500.0  # within bone: the pelvis, not a vertebra

FULL = 0.95  # of the volume
TORSO_CM2 = 250.0  # of a cross-section: a thigh, an arm, a neck or a head has less
SKULL = 0.4  # of a cross-section within a ring of bone: more is a head
LUNG_HU = (-930, -500)  # gas in the bowel is darker
LUNG = 0.1  # of a cross-section: more lung is chest, not abdomen
ABDOMEN_MM = 50.0  # along the body: less says nothing about its composition
WANTED = "Send a CT of the abdomen in Hounsfield units."

FEW = 8  # voxels of the coarse grid, in which no vessel is looked for
ANGLES, STEP_MM = 180, 2.0  # of the map of the wall: rays from the middle of the trunk, samples along each


@dataclass(frozen=True, slots=True)
class Grid:
    """The coarse grid: blocks of `factors` voxels of the scan, shape and spacing as (slice, row, column) and (z, y, x) in mm."""

    factors: tuple[int, ...]
    spacing_mm: tuple[float, ...]

    @property
    def ml(self) -> float:
        """The volume of one voxel."""
        return float(np.prod(self.spacing_mm)) / 1000

    def voxels(self, mm: float, *, flat: bool = False) -> list[int]:
        """Return a radius in voxels, in SimpleITK's order (x, y, z); flat: within slices only."""
        x, y, z = (max(0, round(mm / s)) for s in self.spacing_mm[::-1])
        return [x, y, 0 if flat else z]


@dataclass(frozen=True, slots=True)
class Zones:
    """Where each tissue may lie, on the coarse grid; each reaches one voxel over its edge where the scan's voxels shall decide."""

    outside: Mask  # of the body's core: where air is the room's
    bone: Mask
    canal: Mask  # what bone encloses here may be the spinal canal
    muscle: Mask
    subcutaneous: Mask
    visceral: Mask


def load(folder: Path, device: str) -> Callable[..., Findings]:
    """Return the analysis; it needs neither files nor an accelerator."""
    return analyse


def analyse(ct: Any, progress: Progress = lambda fraction, sentence: None) -> Findings:
    """Segment bone, muscle and both fats, and measure them over the scanned range.

    ct: a volume in HU with an affine to patient coordinates (LPS), in any orientation.

    Raises
    ------
    Unsuitable: the volume shows no abdomen, too little of it, or is cut too coarsely.
    """
    axial = ct.to_patient_orientation("HPL")
    spacing_mm = tuple(float(s) for s in axial.spacing)
    _check_geometry(axial.array.shape, spacing_mm)
    grid = Grid(factors := tuple(math.ceil(GRID_MM / s) for s in spacing_mm), tuple(f * s for f, s in zip(factors, spacing_mm, strict=True)))
    progress(0.05, "looking for the body")
    hu = _coarse(axial.array, grid)
    body = _body(hu)
    part = _abdomen(hu, body, grid)
    zones = _zones(hu[part], body[part], grid, progress)
    progress(0.6, "reading the tissues")
    segments = np.zeros(axial.array.shape, np.uint8)
    fine = slice(part.start * grid.factors[0], part.stop * grid.factors[0])
    segments[fine] = _tissues(axial.array[fine], zones, grid, spacing_mm)
    progress(0.9, "measuring")
    measurements = _measure(axial.array[fine], segments[fine], spacing_mm)
    notes = _notes(segments, fine, body[part], spacing_mm[0])
    return Findings(segments=axial.with_array(segments), measurements=measurements, notes=notes)


def _check_geometry(shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> None:
    coarsest = max(spacing_mm)
    if coarsest > THICK_MM:
        raise Unsuitable(
            f"The slices are {coarsest:.1f} mm apart; tissues cannot be told apart on more than {THICK_MM:.0f} mm.",
            hint="Send the series with thinner slices.",
        )
    if min(shape) < 5 or shape[0] * spacing_mm[0] < ABDOMEN_MM:
        raise Unsuitable(
            f"The series covers {shape[0] * spacing_mm[0]:.0f} mm of the body, which is too little for its composition.",
            hint="Send the whole abdomen, not single slices.",
        )


# ---------------------------------------------------------------------------------------------------------- the coarse grid


def _clean(hu: Any) -> Image:
    """Return values between air and metal; what is no number counts as air outside the patient."""
    return np.clip(np.nan_to_num(hu, nan=-1024, posinf=3071), -1024, 3071).astype(np.float32, copy=False)


def _coarse(hu: Any, grid: Grid) -> Image:
    """Return block means on the coarse grid, made slab by slab to bound the memory; the last block of a row may be short."""
    deep, *factors = grid.factors
    starts = [np.arange(0, length, factor) for length, factor in zip(hu.shape[1:], factors, strict=True)]
    sizes = [np.diff(start, append=length).astype(np.float32) for start, length in zip(starts, hu.shape[1:], strict=True)]
    slabs = (_clean(hu[k : k + deep]).mean(0) for k in range(0, hu.shape[0], deep))
    sums = (np.add.reduceat(np.add.reduceat(slab, starts[0], axis=0), starts[1], axis=1) for slab in slabs)
    return np.stack([total / np.outer(*sizes) for total in sums])


def _image(mask: Mask) -> sitk.Image:
    return sitk.GetImageFromArray(mask.view(np.uint8))


def _mask(image: sitk.Image) -> Mask:
    return sitk.GetArrayFromImage(image).astype(bool)


def _filled(mask: Mask) -> Mask:
    """Return a mask without holes in its slices."""
    return np.stack([ndimage.binary_fill_holes(one) for one in mask])


def _largest(mask: Mask) -> Mask:
    """Return the largest piece; empty where there is none."""
    pieces, count = ndimage.label(mask)
    return np.asarray(pieces == np.bincount(pieces.ravel())[1:].argmax() + 1) if count else mask


def _depth(mask: Mask, grid: Grid) -> Image:
    """Return each voxel's distance in mm from the nearest one outside the mask; zero outside."""
    image = _image(mask)
    image.SetSpacing(grid.spacing_mm[::-1])
    distance = sitk.SignedMaurerDistanceMap(image, insideIsPositive=True, squaredDistance=False, useImageSpacing=True)
    return sitk.GetArrayFromImage(distance).clip(min=0)


def _body(hu: Image) -> Mask:
    """Return the patient without the table: the largest solid, opened to part it from thin shells, its spaces filled slice by slice.

    Raises
    ------
    Unsuitable: there is no body, or nothing but body.
    """
    core = _largest(ndimage.binary_opening(hu > BODY_HU))
    if not core.any():
        raise Unsuitable("The volume is empty: no body was found in it.", hint=WANTED)
    if core.mean() > FULL:
        raise Unsuitable("There is no air about the body: it is cut off, or the values are not Hounsfield units.", hint=WANTED)
    return _filled(core)


def _abdomen(hu: Image, body: Mask, grid: Grid) -> slice:
    """Return which slices show the abdomen, pelvis included: the longest stack of trunk below the lungs.

    Raises
    ------
    Unsuitable: the body is no trunk, or its abdomen is not in the volume.
    """
    mm2 = grid.spacing_mm[1] * grid.spacing_mm[2]
    area_cm2 = np.count_nonzero(body, axis=(1, 2)) * mm2 / 100
    if np.median(area_cm2) < TORSO_CM2:
        raise Unsuitable(f"The body's cross-section is {np.median(area_cm2):.0f} cm2: this is no trunk of an adult.", hint=WANTED)
    lung = np.count_nonzero(body & (hu > LUNG_HU[0]) & (hu < LUNG_HU[1]), axis=(1, 2)) * mm2 / 100 / area_cm2.clip(1)
    below = np.arange(len(lung)) < (lung.argmax() if lung.max() > LUNG else len(lung))
    stacks, count = ndimage.label(below & (lung < LUNG) & (area_cm2 >= TORSO_CM2))
    part = (
        max((found[0] for found in ndimage.find_objects(stacks)), key=lambda one: one.stop - one.start, default=slice(0, 0)) if count else slice(0, 0)
    )
    if (long := (part.stop - part.start) * grid.spacing_mm[0]) < ABDOMEN_MM:
        raise Unsuitable(
            f"Only {long:.0f} mm of the volume show a trunk below the lungs: this is not a CT of the abdomen.",
            hint="Send a CT that holds at least the upper abdomen.",
        )
    return part


def _notes(segments: Labels, part: slice, body: Mask, slice_mm: float) -> tuple[str, ...]:
    """Return what the reader has to know: what was left out, what was cut off."""
    notes = ["The volumes are those of the slices that were scanned, not of a vertebral level: compare the areas of like ranges only."]
    if (above := len(segments) - part.stop) > 0:
        notes.append(f"The upper {above * slice_mm:.0f} mm of the scan show lungs and were left out.")
    if body[:, [0, -1]].any() or body[:, :, [0, -1]].any():
        notes.append("The body reaches the edge of the image: subcutaneous fat, and what else is cut off, is a lower bound.")
    return tuple(notes)


def _zones(hu: Image, body: Mask, grid: Grid, progress: Progress) -> Zones:
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
    wall, bone = _wall(hu, trunk, bone, grid)
    beside = _beside_spine(bone, trunk, grid) & ~wall
    under_skin, cavity = body & ~trunk, trunk & ~wall
    near_air = _mask(sitk.BinaryDilate(_image(trunk & (hu < AIR_HU)), grid.voxels(BESIDE_AIR_MM)))
    return Zones(
        outside=~ndimage.binary_erosion(body, iterations=2, border_value=1),
        bone=ndimage.binary_dilation(bone) & ~vessels & trunk,
        canal=_behind(trunk, grid),
        muscle=(wall | beside | (ndimage.binary_dilation(wall) & under_skin)) & ~_column(bone, trunk, grid),
        subcutaneous=ndimage.binary_dilation(under_skin) & body,
        visceral=(ndimage.binary_dilation(cavity) & trunk | beside) & ~near_air,
    )


def _trunk(hu: Image, body: Mask, grid: Grid) -> Mask:
    """Return what the subcutaneous fat encloses.

    That fat is flooded from the skin. It stops at muscle and fascia, also where they leave a gap of less than twice GAP_MM.
    """
    depth_mm = _depth(body, grid)
    fat = body & (hu >= FAT_HU[0]) & (hu <= FASCIA_HU)
    near = fat & (depth_mm <= THIN_MM)
    flooded = ndimage.binary_propagation(near, mask=near | (_depth(fat, grid) > GAP_MM))
    spread = _mask(sitk.BinaryDilate(_image(flooded), grid.voxels(GAP_MM + GRID_MM)))
    under_skin = (spread & fat) | flooded
    closed = sitk.BinaryMorphologicalClosing(_image(under_skin), grid.voxels(GAP_MM), sitk.sitkBall, 1, True)  # over its strands
    core = _largest(ndimage.binary_opening(body & ~_mask(closed) & (depth_mm > SKIN_MM + grid.spacing_mm[1])))
    if not core.any():
        raise Unsuitable("No trunk was found within the body: there is only one tissue.", hint=WANTED)
    return _filled(core)


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
    near = np.bincount(pieces[dense & (_depth(trunk, grid) <= NEAR_WALL_MM)], minlength=count + 1) > 0
    size = np.bincount(pieces.ravel(), minlength=count + 1)
    cortical = np.bincount(pieces[dense & (hu >= DENSEST_HU)], minlength=count + 1) >= size / 20
    keep = near & cortical & (size * grid.ml >= CRUMB_ML)
    keep[0] = False
    bone = keep[pieces]
    to_cortex_mm = _image(~(bone & (hu >= CORTEX_HU)))
    to_cortex_mm.SetSpacing(grid.spacing_mm[::-1])
    far = sitk.SignedMaurerDistanceMap(to_cortex_mm, insideIsPositive=True, squaredDistance=False, useImageSpacing=True) > TO_CORTEX_MM
    return np.asarray(bone & (~_mask(far) | _behind(trunk, grid)))


def _check_no_head(bone: Mask, body: Mask, grid: Grid) -> None:
    ring = _mask(sitk.BinaryMorphologicalClosing(_image(bone), grid.voxels(6.0, flat=True), sitk.sitkBall, 1, True))
    share = np.count_nonzero(_filled(ring), axis=(1, 2)) / np.count_nonzero(body, axis=(1, 2)).clip(1)
    if np.median(share) > SKULL:
        raise Unsuitable("Bone encloses most of each cross-section: this is a head, not an abdomen.", hint=WANTED)


# --------------------------------------------------------------------------------------------------- the wall of the trunk


def _wall(hu: Image, trunk: Mask, bone: Mask, grid: Grid) -> tuple[Mask, Mask]:
    """Return the trunk's wall: along rays from the middle, from the surface to the first fat or air, or to the last of the bone; and its bone.

    Where an organ touches the wall no ray sees its end: there it is as thick as around that place.
    """
    open_space = ndimage.binary_opening(trunk & (((hu >= FAT_HU[0]) & (hu <= FAT_HU[1])) | (hu < AIR_HU)) & ~bone)
    middle = _middles(trunk)
    reach_mm, thick_mm = _thickness(hu, trunk, bone, open_space, middle, grid)
    depth_over_mm = np.full(trunk.shape, np.inf, np.float32)  # how much deeper than the wall
    rows, columns = (np.arange(n, dtype=np.float32) for n in trunk.shape[1:])
    for k in np.flatnonzero(trunk.any(axis=(1, 2))):
        y = (rows[:, None] - middle[k, 0]) * grid.spacing_mm[1]
        x = (columns[None] - middle[k, 1]) * grid.spacing_mm[2]
        ray = np.rint((np.arctan2(y, x) / (2 * np.pi) % 1) * ANGLES).astype(int) % ANGLES
        depth_over_mm[k] = reach_mm[k][ray] - np.hypot(y, x) - thick_mm[k][ray]
    return trunk & (depth_over_mm < 0), bone & (depth_over_mm < 2 * BEHIND_RIB_MM)


def _column(bone: Mask, trunk: Mask, grid: Grid) -> Mask:
    """Return the spine with its discs: what lies between bone above and bone below."""
    spine = _filled(bone & _behind(trunk, grid))
    return _mask(sitk.BinaryMorphologicalClosing(_image(spine), [0, 0, max(1, round(DISC_MM / grid.spacing_mm[0]))], sitk.sitkBox, 1, True))


def _beside_spine(bone: Mask, trunk: Mask, grid: Grid) -> Mask:
    """Return what lies to the left and right of the vertebrae, behind their front."""
    spine = bone & _behind(trunk, grid)
    result = np.zeros(bone.shape, bool)
    wide = round(PSOAS_MM / grid.spacing_mm[2])
    for k in np.flatnonzero(spine.any(axis=(1, 2))):
        rows = np.flatnonzero(spine[k].any(axis=1))
        for row in range(rows[0] + round(WALL_MM[0] / grid.spacing_mm[1]), rows[-1] + 1):
            columns = np.flatnonzero(spine[k, row])
            if columns.size:
                result[k, row, max(0, columns[0] - wide) : columns[-1] + wide + 1] = True
    return result & trunk


def _middles(trunk: Mask) -> Image:
    """Return for each slice the row and column from which the rays start: in front of the spine, half way from right to left."""
    places = np.zeros((len(trunk), 2), np.float32)
    for k, one in enumerate(trunk):
        if one.any():
            rows, columns = (np.flatnonzero(one.any(axis=axis)) for axis in (1, 0))
            places[k] = rows[0] + 0.4 * (rows[-1] - rows[0]), (columns[0] + columns[-1]) / 2
    return places


def _behind(trunk: Mask, grid: Grid) -> Mask:
    """Return the part of each slice behind the middle of the trunk and near its midline."""
    rows, columns = np.indices(trunk.shape[1:], sparse=True)
    return np.stack([(rows > row) & (abs(columns - column) * grid.spacing_mm[2] <= CANAL_MM) for row, column in _middles(trunk)])


def _thickness(hu: Image, trunk: Mask, bone: Mask, open_space: Mask, middle: Image, grid: Grid) -> tuple[Image, Image]:
    """Return by (slice, ray) how far in mm the trunk's surface lies from the middle, and how thick the wall is there."""
    angle = np.arange(ANGLES) * 2 * np.pi / ANGLES
    longest_mm = np.hypot(trunk.shape[1] * grid.spacing_mm[1], trunk.shape[2] * grid.spacing_mm[2])
    far_mm = np.arange(0, longest_mm, STEP_MM)
    dy, dx = (np.outer(f(angle), far_mm) / s for f, s in ((np.sin, grid.spacing_mm[1]), (np.cos, grid.spacing_mm[2])))
    first_mm, end_mm = (
        np.where(np.sin(angle) > np.cos(np.radians(wide)), BACK_MM, rest) for wide, rest in zip(BACK_DEGREES, (PELVIS_MM, WALL_MM[1]), strict=True)
    )
    gap_mm = np.where(first_mm == BACK_MM, BONE_GAP_MM[1], BONE_GAP_MM[0])
    reach_mm, seen_mm, bone_mm = (np.zeros((len(trunk), ANGLES), np.float32) for _ in range(3))
    for k, (row, column) in enumerate(middle):
        y, x = np.rint(row + dy).astype(int), np.rint(column + dx).astype(int)
        within = (y >= 0) & (y < trunk.shape[1]) & (x >= 0) & (x < trunk.shape[2])
        y, x = y.clip(0, trunk.shape[1] - 1), x.clip(0, trunk.shape[2] - 1)
        reach_mm[k] = ((trunk[k, y, x] & within) * (far_mm + STEP_MM / 2)).max(1)
        depth_mm = reach_mm[k][:, None] - far_mm
        end = open_space[k, y, x] & within & (depth_mm >= WALL_MM[0])
        hidden = np.logical_or.accumulate(end[:, ::-1], 1)[:, ::-1] & (depth_mm > WALL_MM[1]) & (first_mm < BACK_MM)[:, None]
        bones = bone[k, y, x] & within & (depth_mm >= 0) & (~hidden | (hu[k, y, x] >= SURE_HU))
        bone_mm[k] = _last_bone(bones, depth_mm, first_mm, gap_mm)
        seen_mm[k] = np.where(end, depth_mm - STEP_MM / 2, np.inf).min(1)
    much = np.where(end_mm == BACK_MM, *MUCH)
    through = (seen_mm > end_mm) | (seen_mm > much * _usual(seen_mm, grid) + BEHIND_RIB_MM)  # an organ that touches the wall
    return reach_mm, _joined(np.where(through, np.nan, seen_mm), bone_mm, grid)


def _last_bone(bone: Mask, depth_mm: Image, first_mm: Image, gap_mm: Image) -> Image:
    """Return for each ray the depth of its last bone, before the first gap that is too wide; zero without bone.

    bone, depth_mm: (ray, place from the middle outwards). first_mm, gap_mm: how deep the first bone may be, how far apart two.
    """
    inward = bone[:, ::-1]
    at_mm = np.where(inward, depth_mm[:, ::-1], 0)
    before_mm = np.maximum.accumulate(at_mm, 1)[:, :-1]
    gap = inward[:, 1:] & (at_mm[:, 1:] - before_mm > np.where(before_mm > 0, gap_mm[:, None], first_mm[:, None]))
    too_deep = np.concatenate((np.zeros((len(bone), 1), bool), np.logical_or.accumulate(gap, 1)), 1)
    return np.where(too_deep, 0, at_mm).max(1)


def _joined(seen_mm: Image, bone_mm: Image, grid: Grid) -> Image:
    """Return one thickness for every ray from where its end was seen and where bone was; between two ribs the bone's depth counts on."""
    ribs = 2 * round(15 / grid.spacing_mm[0]) + 1
    bone_mm = np.maximum(bone_mm, ndimage.grey_closing(_round(bone_mm), (ribs, 7), mode="nearest")[:, 8:-8])
    lined_mm = np.where(bone_mm <= SHALLOW_MM, bone_mm + BEHIND_RIB_MM, bone_mm)
    thick_mm = np.where(bone_mm > 0, lined_mm, seen_mm)
    around = _round(_completed(thick_mm, grid))
    return ndimage.median_filter(around, (3, 5), mode="nearest")[:, 8:-8]


def _usual(values: Image, grid: Grid) -> Image:
    """Return a low value of each ray's surroundings; infinity where none is known."""
    size = (2 * round(30 / grid.spacing_mm[0]) + 1, 15)
    return ndimage.percentile_filter(_round(np.where(np.isfinite(values), values, np.inf)), 25, size, mode="nearest")[:, 8:-8]


def _round(values: Image) -> Image:
    """Return values by (slice, ray) with eight rays repeated on each side, so that a filter sees no seam."""
    return np.concatenate((values[:, -8:], values, values[:, :8]), 1)


def _completed(values: Image, grid: Grid) -> Image:
    """Return values by (slice, ray) with what is not known set to a mean of its surroundings, the nearer the heavier."""
    known, result = np.isfinite(values), np.where(np.isfinite(values), values, np.nan)
    if not known.any():
        return np.full(values.shape, WALL_MM[0], np.float32)
    for spread_mm in (8, 16, 32, 64, 128):
        sigma = (spread_mm / grid.spacing_mm[0], spread_mm / 4)  # 4 mm to a ray of 2 degrees
        weight = ndimage.gaussian_filter(known.astype(np.float32), sigma, mode=("nearest", "wrap"))
        total = ndimage.gaussian_filter(np.where(known, values, 0), sigma, mode=("nearest", "wrap"))
        result = np.where(np.isnan(result) & (weight > 0.05), total / weight.clip(1e-6), result)
    return np.nan_to_num(result, nan=float(np.median(values[known]))).astype(np.float32)


# ------------------------------------------------------------------------------------------------- the scan's own voxels


def _tissues(hu: Any, zones: Zones, grid: Grid, spacing_mm: tuple[float, ...]) -> Labels:
    """Return the tissues on the scan's grid: in each zone the voxels with the Hounsfield units of its tissue."""
    segments = np.zeros(hu.shape, np.uint8)
    deep, high, wide = grid.factors
    skin_voxels = [max(1, round(SKIN_MM / s)) for s in spacing_mm[:0:-1]]
    for k in range(hu.shape[0]):
        of = {name: _fine(getattr(zones, name)[k // deep], high, wide, hu.shape[1:]) for name in Zones.__slots__}
        values = np.rint(_clean(hu[k]))
        skin = _mask(sitk.BinaryDilate(_image(of["outside"] & (values < BODY_HU)), skin_voxels))
        bone, enclosed = _filled_bone(values, of["bone"], of["canal"], spacing_mm)
        fat = (values >= FAT_HU[0]) & (values <= FAT_HU[1]) & ~skin & ~enclosed
        muscle = (values >= MUSCLE_HU[0]) & (values <= MUSCLE_HU[1]) & ~skin & ~enclosed
        for number, mask in (
            (VISCERAL, fat & of["visceral"]),
            (SUBCUTANEOUS, fat & of["subcutaneous"]),
            (MUSCLE, muscle & of["muscle"]),
            (BONE, bone),
        ):
            segments[k][mask] = number
    return segments


def _fine(mask: Mask, high: int, wide: int, shape: tuple[int, ...]) -> Mask:
    """Return one slice of a coarse mask on the scan's grid."""
    return np.ascontiguousarray(mask.repeat(high, 0).repeat(wide, 1)[: shape[0], : shape[1]])


def _filled_bone(hu: Image, zone: Mask, canal: Mask, spacing_mm: tuple[float, ...]) -> tuple[Mask, Mask]:
    """Return a slice's bone with its marrow, and all that bone encloses, which is the spinal canal too."""
    bone = zone & (hu >= BONE_HU)
    if not bone.any():
        return bone, bone
    rows, columns = (np.flatnonzero(bone.any(axis=axis)) for axis in (1, 0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    closed = sitk.BinaryMorphologicalClosing(_image(bone[box].copy()), [max(1, round(RING_MM / s)) for s in spacing_mm[:0:-1]])
    spaces, count = ndimage.label(_mask(sitk.BinaryFillhole(closed)) & ~bone[box])
    small = np.bincount(spaces.ravel(), minlength=count + 1) * spacing_mm[1] * spacing_mm[2] <= LARGE_HOLE_MM2
    small[0] = False
    inside = small[spaces]
    dense = ndimage.gaussian_filter(hu[box], [1.5 / s for s in spacing_mm[1:]]) >= MARROW_HU
    marrow, enclosed = bone.copy(), bone.copy()
    marrow[box] |= inside & (dense | ~canal[box])
    enclosed[box] |= inside
    return marrow, enclosed


# ----------------------------------------------------------------------------------------------------------- the numbers


def _measure(hu: Any, segments: Labels, spacing_mm: tuple[float, ...]) -> dict[str, Any]:
    """Return the measurements of the manifest; the length is of all slices, the area of a tissue its volume over that length."""
    counts = np.bincount(segments.ravel(), minlength=5)
    length_mm = segments.shape[0] * spacing_mm[0]
    ml = float(np.prod(spacing_mm)) / 1000
    result: dict[str, Any] = {"length": length_mm, "volume": {n: float(counts[n] * ml) for n in NAMES}}
    result |= {f"{name}_area": float(counts[n] * ml / (length_mm / 10)) for n, name in NAMES.items()}
    total, low = 0.0, 0
    for k in range(len(segments)):
        values = np.rint(_clean(hu[k][segments[k] == MUSCLE]))
        total, low = total + float(values.sum(dtype=np.float64)), low + np.count_nonzero(values <= FATTY_HU)
    found = counts[MUSCLE] > 0
    result["muscle_density"] = total / counts[MUSCLE] if found else None
    result["muscle_low_attenuation"] = 100 * low / float(counts[MUSCLE]) if found else None
    return result
