"""The images under a volume: which image, or frame of an image, each slice came from."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from pydicom import Dataset

from dicom_node.domain import Assembled, Rejected

_NEAR = 0.1  # of a slice: how far an image may lie from where the volume has it
_PARALLEL = 0.999  # cosine between the image's and the volume's axes


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """One slice of the volume as the image shows it."""

    slice_index: int  # in the volume
    sop_class_uid: str
    sop_instance_uid: str
    frame_number: int | None  # of a multi-frame image, from 1
    position_mm: tuple[float, ...]  # ImagePositionPatient
    orientation: tuple[float, ...]  # ImageOrientationPatient
    spacing_mm: tuple[float, ...]  # between rows, between columns
    thickness_mm: float | None


def planes(assembled: Assembled) -> list[Plane]:
    """Return the planes of a volume in the order of its slices; a slice that was interpolated has none, a projection has one.

    Raises
    ------
    Rejected: the volume is not on the grid of its images, so that a mask on it could not be laid over them.
    """
    if assembled.projection:
        return [_flat(assembled)]
    affine = np.asarray(assembled.volume.affine)
    step = affine[:3, 0]
    found: dict[int, Plane] = {}
    for source in assembled.sources:
        for plane in _planes_of(source):
            place = float((np.array(plane.position_mm) - affine[:3, 3]) @ step / (step @ step))
            index = round(place)
            inside = abs(place - index) < _NEAR and 0 <= index < assembled.volume.shape[0]
            if not inside and plane.frame_number is None:
                raise Rejected(f"an image lies {place:.2f} slices from the first slice of the volume", hint="This is a fault of the node: report it.")
            if inside:
                _same_axes(plane, affine)
                found.setdefault(index, replace(plane, slice_index=index))
    if not found:
        raise Rejected("no image lies in the volume that was made of them", hint="This is a fault of the node: report it.")
    return [found[index] for index in sorted(found)]


def images(assembled: Assembled) -> Iterator[Dataset]:
    """Return each source image once."""
    seen = set()
    for source in assembled.sources:
        if source.SOPInstanceUID not in seen:
            seen.add(source.SOPInstanceUID)
            yield source


def _same_axes(plane: Plane, affine: np.ndarray) -> None:
    for axis, cosines in ((2, plane.orientation[:3]), (1, plane.orientation[3:])):
        direction = affine[:3, axis] / np.linalg.norm(affine[:3, axis])
        if direction @ np.array(cosines) < _PARALLEL:
            raise Rejected("the rows and columns of the volume are not those of its images", hint="This is a fault of the node: report it.")


def _flat(assembled: Assembled) -> Plane:
    """Return the plane of a projection: it lies where its volume lies, in a system of its own."""
    source = assembled.sources[0]
    return Plane(
        slice_index=0,
        sop_class_uid=source.SOPClassUID,
        sop_instance_uid=source.SOPInstanceUID,
        frame_number=None,
        position_mm=(0.0, 0.0, 0.0),
        orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        spacing_mm=assembled.volume.spacing[1:],
        thickness_mm=None,
    )


def _planes_of(source: Dataset) -> Iterator[Plane]:
    frames = source.get("PerFrameFunctionalGroupsSequence")
    if not frames:
        yield _plane(source, None, source, source, source)
        return
    shared = source.SharedFunctionalGroupsSequence[0] if source.get("SharedFunctionalGroupsSequence") else Dataset()
    for number, frame in enumerate(frames, start=1):
        position, orientation = (group_of(frame, shared, f"Plane{name}Sequence") for name in ("Position", "Orientation"))
        if position and orientation:
            yield _plane(source, number, position, orientation, group_of(frame, shared, "PixelMeasuresSequence"))


def group_of(frame: Dataset, shared: Dataset, keyword: str) -> Dataset:
    """Return what a functional group says of a frame: the frame's own, else the shared one, else nothing."""
    sequence = frame.get(keyword) or shared.get(keyword)
    return sequence[0] if sequence else Dataset()


def _plane(source: Dataset, frame_number: int | None, position: Dataset, orientation: Dataset, measures: Dataset) -> Plane:
    thickness = measures.get("SliceThickness")
    return Plane(
        slice_index=0,
        sop_class_uid=source.SOPClassUID,
        sop_instance_uid=source.SOPInstanceUID,
        frame_number=frame_number,
        position_mm=tuple(float(v) for v in position.ImagePositionPatient),
        orientation=tuple(float(v) for v in orientation.ImageOrientationPatient),
        spacing_mm=tuple(float(v) for v in measures.PixelSpacing),
        thickness_mm=float(thickness) if thickness else None,
    )
