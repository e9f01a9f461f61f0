"""Regions that somebody drew, a person or a program: a Segmentation or an RT Structure Set, on the grid of the images that it refers to.

What lies on the images' own pixels is taken as it is, frame by frame. A segmentation with pixels of its own is brought to the images' by its nearest
pixel, and a note says so. Contours hold what lies inside by the even-odd rule, so that one contour cuts a hole into another (PS3.3 C.8.8.6.3).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import SimpleITK as sitk
from pydicom import Dataset, dcmread

from dicom_node.coding.unreadable import UNREADABLE
from dicom_node.domain import SEGMENTATIONS, Assembled, Cause, Region, Term, Unsuitable, drawn_on

STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
_INSIDE = 255
_NEAR = 0.1  # of a slice or pixel: so far a frame may lie off the image's grid and be taken as it is
_ON_SLICE = 0.5  # of a slice: a contour belongs to the nearest
_MAX_BYTES = 2**31  # of regions that overlap, one volume each
_TISSUE = ("85756007", "SCT", "Tissue")
_LABEL_CHARACTERS = 64
_SEND = "Send the series that the regions were drawn on, and the regions, to the same node."

Array = np.ndarray[Any, Any]
Mask = tuple[int, int, Array]  # region (its place among all, from 0), slice, and (row, column) whether it is inside


def assemble_regions(paths: Sequence[Path], image: Assembled) -> Assembled:
    """Return the regions in one object on the grid of an image's volume, with what each says of itself.

    The volume holds the numbers 1, 2, … of `regions`, 0 elsewhere; where some overlap, or are fractions, bytes for each.

    Raises
    ------
    Unsuitable: there is not one object, it cannot be read, was drawn on other images, or holds nothing that lies on these.
    """
    if len(paths) != 1:
        raise Unsuitable(
            f"the series holds {len(paths)} objects, and regions are measured one object at a time", hint="Send them as series of their own."
        )
    try:
        header = dcmread(paths[0], stop_before_pixels=True)
        kind = str(header.get("SOPClassUID"))
        if kind not in SEGMENTATIONS and kind != STRUCTURE_SET:
            raise Unsuitable("the object is neither a segmentation nor a structure set", hint=_SEND)
        _lies_on(header, image)
        drawn = _Segmentation(paths[0], image) if kind in SEGMENTATIONS else _Structures(header, image)
        volume = _laid(image, len(drawn.regions), drawn.masks)
    except UNREADABLE as error:
        raise Unsuitable(
            f"the regions cannot be read: {type(error).__name__}", hint="Look at the object with a validator such as dciodvfy.", cause=Cause.FORMAT
        ) from error
    if not volume.array.any():
        raise Unsuitable("none of the regions has a pixel on these images", hint=_SEND)
    return Assembled(volume=volume, sources=(header,), notes=tuple(drawn.notes), regions=drawn.regions)


def _lies_on(header: Dataset, image: Assembled) -> None:
    series, frame = image.sources[0].SeriesInstanceUID, image.sources[0].get("FrameOfReferenceUID")
    if series not in drawn_on(header):
        raise Unsuitable("the regions were drawn on another series", hint=_SEND)
    frames = {str(header.get("FrameOfReferenceUID") or "")} | {
        str(item.get("FrameOfReferenceUID") or "") for item in header.get("ReferencedFrameOfReferenceSequence") or ()
    }
    if frame not in frames:
        raise Unsuitable("the regions are in another frame of reference than the images", hint=_SEND)


def _laid(image: Assembled, count: int, masks: Callable[[], Iterator[Mask]]) -> Any:
    """Return a volume of numbers, or of bytes for each region where two claim a pixel: then they are gone through once more, none is kept."""
    numbers = np.zeros(image.volume.spatial_shape, np.uint8 if count <= 255 else np.uint16)
    for region, index, mask in masks():
        plane = numbers[index]
        if mask.dtype != bool or not np.isin(plane[mask], (0, region + 1)).all():  # another's number is there
            break
        plane[mask] = region + 1
    else:
        return image.volume.with_array(numbers)
    if count * numbers.size > _MAX_BYTES:
        said = f"{count} regions that overlap do not fit into memory on this grid"
        raise Unsuitable(said, hint="Measure them in smaller objects.", cause=Cause.RESOURCE)
    inside = np.zeros((count, *numbers.shape), np.uint8)
    for region, index, mask in masks():
        np.maximum(inside[region, index], mask * np.uint8(_INSIDE) if mask.dtype == bool else mask, out=inside[region, index])
    return image.volume.with_array(np.moveaxis(inside, 0, -1), channels={"ReferencedSegmentNumber": list(range(1, count + 1))})


# ---------------------------------------------------------------------------------------------------------- segmentations


class _Segmentation:
    """A Segmentation or Label Map Segmentation (PS3.3 A.51, A.90)."""

    def __init__(self, path: Path, image: Assembled) -> None:
        self._seg = hd.seg.segread(path)
        self._image = image
        self.regions = tuple(_segment(item) for item in self._seg.SegmentSequence if item.get("SegmentNumber"))  # 0: a label map's background
        self._slices = self._slices_of_frames()
        self.notes = [] if self._slices is not None else ["The regions have pixels of their own; they were measured on the image's, by the nearest."]
        self._most = int(self._seg.get("MaximumFractionalValue") or 1)
        self._fractional = str(self._seg.SegmentationType) == "FRACTIONAL"

    def masks(self) -> Iterator[Mask]:
        """Give what each frame holds of each region."""
        places = {region.number: place for place, region in enumerate(self.regions)}
        if self._slices is None:
            yield from self._resampled()
            return
        for number, (index, item) in enumerate(zip(self._slices, self._seg.PerFrameFunctionalGroupsSequence, strict=True), start=1):
            if index is None:
                continue
            plane = self._seg.get_stored_frame(number)  # one at a time: unpacked, all of them are eight times the file
            if str(self._seg.SegmentationType) == "LABELMAP":
                yield from ((places[int(label)], index, plane == label) for label in np.unique(plane) if int(label) in places)
            else:
                identified = item.get("SegmentIdentificationSequence") or self._seg.SharedFunctionalGroupsSequence[0].SegmentIdentificationSequence
                yield places[int(identified[0].ReferencedSegmentNumber)], index, self._inside(plane)

    def _inside(self, plane: Array) -> Array:
        if not self._fractional:
            return plane != 0
        return np.rint(plane * (_INSIDE / self._most)).astype(np.uint8)

    def _slices_of_frames(self) -> list[int | None] | None:
        """Return the image's slice that each frame lies on pixel for pixel, None for one beside the volume; None for all if some lie otherwise."""
        affine, shape = np.asarray(self._image.volume.affine), self._image.volume.spatial_shape
        if (self._seg.Rows, self._seg.Columns) != tuple(shape[1:]):
            return None
        shared, found = self._seg.SharedFunctionalGroupsSequence[0], []
        for frame in self._seg.PerFrameFunctionalGroupsSequence:
            position, orientation, measures = (
                (frame.get(name) or shared.get(name))[0] for name in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
            )
            to_patient = np.eye(4)
            cosines = np.array(orientation.ImageOrientationPatient, float).reshape(2, 3)
            spacing = [float(value) for value in measures.PixelSpacing]
            to_patient[:3, 0] = affine[:3, 0]
            to_patient[:3, 1], to_patient[:3, 2] = cosines[1] * spacing[0], cosines[0] * spacing[1]
            to_patient[:3, 3] = [float(value) for value in position.ImagePositionPatient]
            to_image = np.linalg.inv(affine) @ to_patient
            last = to_image @ [0, shape[1] - 1, shape[2] - 1, 1]
            index = round(float(to_image[0, 3]))
            if np.abs(to_image[:3, 3] - [index, 0, 0]).max() > _NEAR or np.abs(last[:3] - [index, shape[1] - 1, shape[2] - 1]).max() > _NEAR:
                return None
            found.append(index if 0 <= index < shape[0] else None)
        return found

    def _resampled(self) -> Iterator[Mask]:
        grid = self._image.volume.to_simpleitk()
        for place, region in enumerate(self.regions):
            own = self._seg.get_volume(segment_numbers=[region.number], combine_segments=True, dtype=np.uint8, skip_overlap_checks=True)
            moved = sitk.Resample(own.to_simpleitk(), grid, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
            array = hd.Volume.from_simpleitk(moved, coordinate_system="PATIENT").array
            for index in np.flatnonzero(array.any(axis=(1, 2))):
                yield place, int(index), array[index] != 0


def _segment(item: Dataset) -> Region:
    kind = item.SegmentedPropertyTypeCodeSequence[0]
    modifiers = kind.get("SegmentedPropertyTypeModifierCodeSequence")
    return Region(
        number=int(item.SegmentNumber),
        label=str(item.get("SegmentLabel") or f"Segment {item.SegmentNumber}")[:_LABEL_CHARACTERS],
        category=_term(item.SegmentedPropertyCategoryCodeSequence[0]),
        type=_term(kind),
        modifier=_term(modifiers[0]) if modifiers else None,
        tracking_uid=str(item.get("TrackingUID") or ""),
        tracking_id=str(item.get("TrackingID") or "")[:_LABEL_CHARACTERS],
        drawn=str(item.get("SegmentAlgorithmType") or ""),
    )


def _term(item: Dataset) -> Term:
    return str(item.get("CodeValue") or item.get("LongCodeValue")), str(item.CodingSchemeDesignator), str(item.CodeMeaning)[:64]


# --------------------------------------------------------------------------------------------------------- structure sets


@dataclass(slots=True)
class _Contour:
    """One closed contour in the image's index coordinates."""

    index: int  # of the slice
    corners: Array  # (corner, row and column), pixel centres are whole numbers


class _Structures:
    """An RT Structure Set (PS3.3 A.19): closed planar contours in the patient's millimetres."""

    def __init__(self, header: Dataset, image: Assembled) -> None:
        self._image = image
        self._to_image = np.linalg.inv(np.asarray(image.volume.affine))
        self.notes: list[str] = []
        contours = {int(item.ReferencedROINumber): item.get("ContourSequence") or () for item in header.get("ROIContourSequence") or ()}
        rois = {int(item.ROINumber): item for item in header.get("StructureSetROISequence") or ()}
        coded = {int(item.ReferencedROINumber): item for item in header.get("RTROIObservationsSequence") or ()}
        drawn = [number for number in rois if any(str(c.get("ContourGeometricType")) == "CLOSED_PLANAR" for c in contours.get(number, ()))]
        left_out = len(rois) - len(drawn)
        if left_out:
            self.notes.append(f"{left_out} structures without a closed planar contour were left out.")
        if not drawn:
            raise Unsuitable("the structure set holds no closed planar contour", hint="Send one with contours on image slices.")
        self.regions = tuple(_roi(number, rois[number], coded.get(number)) for number in drawn)
        self._contours = [[self._placed(c) for c in contours[n] if str(c.get("ContourGeometricType")) == "CLOSED_PLANAR"] for n in drawn]
        slices = image.volume.spatial_shape[0]
        if beside := sum(not 0 <= contour.index < slices for contours_of_one in self._contours for contour in contours_of_one):
            self.notes.append(f"{beside} contours lie beside the images and were left out.")

    def masks(self) -> Iterator[Mask]:
        """Give what lies inside the contours of each region on each slice."""
        shape = self._image.volume.spatial_shape
        for place, contours in enumerate(self._contours):
            planes: dict[int, Array] = {}
            for contour in contours:
                if 0 <= contour.index < shape[0]:
                    planes.setdefault(contour.index, np.zeros(shape[1:], bool))
                    planes[contour.index] ^= inside(contour.corners, shape[1:])
            yield from ((place, index, mask) for index, mask in sorted(planes.items()))

    def _placed(self, item: Dataset) -> _Contour:
        points = np.array(item.ContourData, float).reshape(-1, 3)
        corners = (self._to_image[:3, :3] @ points.T).T + self._to_image[:3, 3]
        index = round(float(np.median(corners[:, 0])))
        if np.abs(corners[:, 0] - index).max() > _ON_SLICE:
            raise Unsuitable("a contour does not lie on a slice of the images", hint="Contours that cross slices are not measured.")
        return _Contour(index, corners[:, 1:])


def inside(corners: Array, shape: Sequence[int]) -> Array:
    """Return which pixel centres lie inside a polygon, by the even-odd rule; a centre on an edge belongs to the side that it opens.

    corners: (corner, row and column) in pixels, the centre of the first pixel being (0, 0).
    """
    mask = np.zeros(tuple(shape), bool)
    ahead = np.roll(corners, -1, axis=0)
    first, last = max(0, int(np.ceil(corners[:, 0].min()))), min(shape[0] - 1, int(np.floor(corners[:, 0].max())))
    for row in range(first, last + 1):
        crosses = (corners[:, 0] <= row) != (ahead[:, 0] <= row)
        start, end = corners[crosses], ahead[crosses]
        columns = np.sort(start[:, 1] + (row - start[:, 0]) / (end[:, 0] - start[:, 0]) * (end[:, 1] - start[:, 1]))
        for left, right in zip(columns[::2], columns[1::2], strict=True):
            mask[row, max(0, int(np.ceil(left))) : max(0, int(np.ceil(right)))] ^= True
    return mask


def _roi(number: int, roi: Dataset, observed: Dataset | None) -> Region:
    """Describe an ROI by its code if it has one (RT ROI Identification Code Sequence), else as tissue under its name."""
    codes = observed.get("RTROIIdentificationCodeSequence") if observed is not None else None
    return Region(
        number=number,
        label=str(roi.get("ROIName") or "").strip()[:_LABEL_CHARACTERS] or f"ROI {number}",
        category=_TISSUE,
        type=_term(codes[0]) if codes else _TISSUE,
        drawn=str(roi.get("ROIGenerationAlgorithm") or ""),
    )
