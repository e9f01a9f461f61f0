"""The files of one series in, one volume in the patient's millimetres out, with its sources in the same order.

Geometry is `highdicom.Volume`'s: array (slice, row, column), affine to LPS, right-handed, so that the first slice of an axial series is the
highest. One array is set aside and filled slice by slice, in no certain order.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from pydicom.uid import UID

from dicom_node.assemble.headers import Frame, Image, frames_of, read
from dicom_node.assemble.pixels import check, same_pixels, take_all
from dicom_node.assemble.projection import is_projection, projection
from dicom_node.assemble.shape import Shape, misfits, plane_of
from dicom_node.assemble.stack import Stack, stack
from dicom_node.assemble.values import FLOATS, TOO_WIDE, Scale, noticed, scale_of
from dicom_node.config import Input
from dicom_node.domain import Assembled, Cause, Unsuitable

_MAX_VOXELS = 2**30  # 4 GiB as float32: 1024 slices of 1024 x 1024


def assemble(paths: Sequence[Path], wanted: Input) -> Assembled:
    """Return the volume that the files of one series make, in the order that geometry gives, whatever the order of the paths.

    Where the input takes projections and the file holds one: that image alone, as `projection` makes a volume of it.

    Values are Hounsfield units where the input asks for them, else real-world values where the images map them, else as rescaled; float32, or
    int16 where the input asks for that.
    A missing slice is interpolated only if the input allows gaps; it then has no source. Pixel padding is left as it is.

    Raises
    ------
    Unsuitable: the files make no such volume; the message says what is wrong, and where.
    """
    images = read(paths)
    if wanted.kind == "projection" or (wanted.projections and is_projection(images)):
        return projection(images, wanted)
    frames, notes = _slices(images)
    found = stack(frames, wanted, same_pixels)
    _meets(found, wanted)
    scales = {frame: scale_of(frame, wanted) for frame in found.present}
    notes += [*found.notes, *noticed(found.present[0], scales.values())]
    array = _allocated(found, wanted)
    notes += _fill(array, found, scales)
    volume = _placed(array, found)
    sources = dict.fromkeys(frame.image for frame in found.present)
    return Assembled(volume=volume, sources=tuple(image.header for image in sources), notes=tuple(notes))


def _slices(images: Sequence[Image]) -> tuple[list[Frame], list[str]]:
    """Return the frames that may be slices, and a note on images that cannot be."""
    if not images:
        raise Unsuitable("the series holds no images", hint="Choose a series of slices.", cause=Cause.INCOMPLETE)
    if any(UID(image.sop_class_uid).is_private for image in images):
        hint = "Ask the scanner's maker for standard DICOM objects."
        raise Unsuitable("the images are of a private SOP class, which a segmentation or report cannot refer to", hint=hint)
    grey = [image for image in images if image.samples == 1]
    parts = [frames_of(image) for image in grey]
    frames = [frame for part in parts for frame in part]
    if not frames:
        why = "its images carry no position in the patient" if grey else "its images are in colour"
        raise Unsuitable(f"the series cannot be stacked: {why}", hint="Choose a series of slices.")
    left_out = len(images) - sum(1 for part in parts if part)
    return frames, [f"{left_out} objects left out: in colour, or without a position in the patient"] if left_out else []


def _meets(found: Stack, wanted: Input) -> None:
    first = found.present[0]
    spacing_mm = found.spacing_mm
    said = misfits(Shape(slices=len(found.frames), plane=plane_of(tuple(first.normal)), spacing_mm=spacing_mm), wanted)
    if said:
        raise Unsuitable("; ".join(said), hint="Choose another series, or change what the model's manifest asks for.")


def _allocated(found: Stack, wanted: Input) -> np.ndarray[Any, Any]:
    """Set the array aside, once it is known that the files have the pixels for it."""
    image = found.present[0].image
    shape = (len(found.frames), image.rows, image.columns)
    if shape[0] * shape[1] * shape[2] > _MAX_VOXELS:
        said = f"the volume is too large: {shape[0]} slices of {shape[2]} x {shape[1]} pixels"
        raise Unsuitable(said, hint="Send a smaller reconstruction.", cause=Cause.RESOURCE)
    for one in {frame.image for frame in found.present}:
        check(one)
    return np.empty(shape, dtype=wanted.dtype)


def _fill(array: np.ndarray[Any, Any], found: Stack, scales: dict[Frame, Scale]) -> list[str]:
    """Write every slice into its place, then what is missing from its neighbours."""
    slots = {(frame.image, frame.index): (slot, frame) for slot, frame in enumerate(found.frames) if frame is not None}
    wanted: dict[Image, list[int]] = {}
    for image, index in slots:
        wanted.setdefault(image, []).append(index)
    outside: list[int] = []

    def take(image: Image, index: int, stored: np.ndarray[Any, Any]) -> None:
        slot, frame = slots[image, index]
        try:
            scales[frame].apply(stored, array[slot])
        except OverflowError as error:
            raise Unsuitable(f"the values of {frame.name} {TOO_WIDE}", hint=FLOATS) from error
        if not scales[frame].covers(stored):
            outside.append(slot)

    take_all({image: sorted(indices) for image, indices in wanted.items()}, take)
    _interpolate(array, [slot for slot, frame in enumerate(found.frames) if frame is None])
    return [f"{len(outside)} slices hold values that the real-world value mapping is not defined for"] if outside else []


def _interpolate(array: np.ndarray[Any, Any], missing: Sequence[int]) -> None:
    """Write the missing slices as the weighted mean of the nearest slices there are."""
    for slot in missing:
        before = next(index for index in range(slot, -1, -1) if index not in missing)
        after = next(index for index in range(slot, len(array)) if index not in missing)
        weight = (slot - before) / (after - before)
        between = array[before] * (1 - weight) + array[after] * weight
        array[slot] = between if array.dtype.kind == "f" else np.rint(between)


def _placed(array: np.ndarray[Any, Any], found: Stack) -> Any:
    first = found.present[0]
    return hd.Volume.from_attributes(
        array=array,
        image_position=first.position,
        image_orientation=first.orientation,
        pixel_spacing=first.spacing_mm,
        spacing_between_slices=found.spacing_mm,
        coordinate_system="PATIENT",
        frame_of_reference_uid=first.get("FrameOfReferenceUID"),
    )
