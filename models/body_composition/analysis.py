"""Subcutaneous fat, visceral fat, skeletal muscle and bone on CT of the abdomen: volumes, mean areas, density of muscle.

Where each tissue may lie is found on a coarse grid of about 2 mm (body, bone, trunk within the subcutaneous fat, how thick its wall is);
what lies there is read from the scan's own voxels by their Hounsfield units.
Everything works on a view whose axes run to the patient's head, back and left, so that "slice" below is axial however the scan was cut.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from dicom_node import Findings, Unsuitable
from dicom_node.methods.body import BODY_HU, solid
from dicom_node.methods.coarse import Grid, Image, Labels, Mask, block_means, clean, spread
from dicom_node.methods.morphology import as_image, as_mask, dilated, filled

from .zones import BONE_HU, FAT_HU, GRID_MM, SKIN_MM, WANTED, Zones, zones_of

Progress = Callable[[float, str], None]

BONE, MUSCLE, SUBCUTANEOUS, VISCERAL = 1, 2, 3, 4
NAMES = {BONE: "bone", MUSCLE: "muscle", SUBCUTANEOUS: "subcutaneous_fat", VISCERAL: "visceral_fat"}

MUSCLE_HU = (-29, 150)
FATTY_HU = 29  # muscle up to here is of low attenuation: it holds fat
MARROW_HU = 80  # a space within the spine that is denser is marrow; cord and fluid of the spinal canal are below

THICK_MM = 10.0  # slices further apart lose the wall between two of them
RING_MM = 3.0  # half of the widest gap in a cortex that slices blur
LARGE_HOLE_MM2 = 2500.0  # within bone: the pelvis, not a vertebra

FULL = 0.95  # of the volume
TORSO_CM2 = 250.0  # of a cross-section: a thigh, an arm, a neck or a head has less
LUNG_HU = (-930, -500)  # gas in the bowel is darker
LUNG = 0.1  # of a cross-section: more lung is chest, not abdomen
ABDOMEN_MM = 50.0  # along the body: less says nothing about its composition


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
    grid = Grid.of(spacing_mm, tuple(math.ceil(GRID_MM / s) for s in spacing_mm))
    progress(0.05, "looking for the body")
    hu = block_means(axial.array, grid)
    body = _body(hu)
    part = _abdomen(hu, body, grid)
    zones = zones_of(hu[part], body[part], grid, progress)
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


def _body(hu: Image) -> Mask:
    """Return the patient without the table: the largest solid, opened to part it from thin shells, its spaces filled slice by slice.

    Raises
    ------
    Unsuitable: there is no body, or nothing but body.
    """
    core = solid(hu, WANTED)
    if core.mean() > FULL:
        raise Unsuitable("There is no air about the body: it is cut off, or the values are not Hounsfield units.", hint=WANTED)
    return filled(core)


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


# ------------------------------------------------------------------------------------------------- the scan's own voxels


def _tissues(hu: Any, zones: Zones, grid: Grid, spacing_mm: tuple[float, ...]) -> Labels:
    """Return the tissues on the scan's grid: in each zone the voxels with the Hounsfield units of its tissue."""
    segments = np.zeros(hu.shape, np.uint8)
    skin_voxels = [max(1, round(SKIN_MM / s)) for s in spacing_mm[:0:-1]]
    for k in range(hu.shape[0]):
        here = slice(k, k + 1), slice(0, hu.shape[1]), slice(0, hu.shape[2])
        of = {name: spread(getattr(zones, name), grid, here)[0] for name in Zones.__slots__}
        values = np.rint(clean(hu[k]))
        skin = dilated(of["outside"] & (values < BODY_HU), skin_voxels)
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


def _filled_bone(hu: Image, zone: Mask, canal: Mask, spacing_mm: tuple[float, ...]) -> tuple[Mask, Mask]:
    """Return a slice's bone with its marrow, and all that bone encloses, which is the spinal canal too."""
    bone = zone & (hu >= BONE_HU)
    if not bone.any():
        return bone, bone
    rows, columns = (np.flatnonzero(bone.any(axis=axis)) for axis in (1, 0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    ring = sitk.BinaryMorphologicalClosing(as_image(bone[box]), [max(1, round(RING_MM / s)) for s in spacing_mm[:0:-1]])
    spaces, count = ndimage.label(as_mask(sitk.BinaryFillhole(ring)) & ~bone[box])
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
        values = np.rint(clean(hu[k][segments[k] == MUSCLE]))
        total, low = total + float(values.sum(dtype=np.float64)), low + np.count_nonzero(values <= FATTY_HU)
    found = counts[MUSCLE] > 0
    result["muscle_density"] = total / counts[MUSCLE] if found else None
    result["muscle_low_attenuation"] = 100 * low / float(counts[MUSCLE]) if found else None
    return result
