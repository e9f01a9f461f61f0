"""What there is to see: images and segments on one grid, turned the way radiologists look, cut to the body, windowed.

Nothing here draws, and nothing here keeps a patient's identity.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.domain import Unsuitable

Colour = tuple[int, int, int]  # sRGB
Mask = NDArray[np.bool_]
Box = tuple[slice, slice, slice]

PALETTE: tuple[Colour, ...] = ((255, 178, 56), (86, 190, 255), (120, 220, 130), (240, 110, 140), (190, 140, 255))  # where a segment names no colour
LUNG_WINDOW_HU, SOFT_TISSUE_WINDOW_HU = (-1350.0, 150.0), (-160.0, 240.0)
_AIR_HU = -400.0
_AROUND = 6  # voxels kept around the body


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One segment."""

    label: str
    colour: Colour
    mask: Mask  # (slice, row, column)
    volume_ml: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """One direction of looking at an array whose slices count up towards the head, rows towards the back, columns towards the left."""

    axis: int  # that is looked along
    name: str

    @property
    def shown(self) -> tuple[int, int]:
        """The array's axes that run along the picture's height and its width."""
        first, second = (axis for axis in range(3) if axis != self.axis)
        return first, second

    def cut(self, array: NDArray[Any], index: int) -> NDArray[Any]:
        """Return one slice as it is shown: the patient's front up in axial slices, the head up in the others."""
        piece = np.take(array, index, axis=self.axis)
        return piece if self.axis == 0 else piece[::-1]


AXIAL, CORONAL, SAGITTAL = Plane(axis=0, name="axial"), Plane(axis=1, name="coronal"), Plane(axis=2, name="sagittal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """All that a picture shows."""

    grey: NDArray[np.uint8]  # the windowed images, (slice, row, column)
    segments: tuple[Shown, ...]
    spacing_mm: tuple[float, float, float]
    axes: NDArray[np.float64]  # rows: where slices, rows and columns count up to, unit vectors in LPS
    title: str
    subtitle: str
    credit: str  # the algorithm

    def size_mm(self, plane: Plane) -> tuple[float, float]:
        """Return the width and height of a plane."""
        high, wide = plane.shown
        return self.grey.shape[wide] * self.spacing_mm[wide], self.grey.shape[high] * self.spacing_mm[high]

    def letters(self, plane: Plane) -> tuple[str, str, str, str]:
        """Return the letters of the left, top, right and bottom edge (PS3.3 C.7.6.1.1.1: L R A P H F, two where the stack is oblique)."""
        high, wide = plane.shown
        right = self.axes[wide]
        down = self.axes[high] if plane.axis == 0 else -self.axes[high]
        return _letters(-right), _letters(-down), _letters(right), _letters(down)

    def best(self, plane: Plane) -> int:
        """Return the slice that shows most of all segments, each counted by its own largest cross-section."""
        score = np.zeros(self.grey.shape[plane.axis])
        for segment in self.segments:
            area = segment.mask.sum(axis=plane.shown)
            score += area / max(int(area.max()), 1)
        return int(score.argmax())

    def spread(self, count: int) -> tuple[int, ...]:
        """Return axial slices at equal steps through the segments, from head to foot."""
        seen = np.flatnonzero(sum((segment.mask.any(axis=(1, 2)) for segment in self.segments), np.zeros(len(self.grey), bool)))
        low, high = (int(seen[0]), int(seen[-1])) if seen.size else (0, len(self.grey) - 1)
        return tuple(round(high - (high - low) * (step + 0.5) / count) for step in range(count))


def scene(sources: Sequence[Path], seg_path: Path, window: tuple[float, float] | None = None) -> Scene:
    """Read a segmentation and the images that it refers to; window: center and width, None: chosen by what the segments lie in.

    Raises
    ------
    Unsuitable: an image that it refers to is not among the sources, or images and segments do not share a grid.
    """
    seg = highdicom.seg.segread(seg_path)
    images = _referenced(sources, seg)
    try:
        volume = _volume(images).to_patient_orientation("HPL")
        masks = _masks(seg).match_geometry(volume)  # (slice, row, column, segment)
    except (RuntimeError, ValueError) as error:
        raise Unsuitable(f"images and segmentation cannot be put on one grid: {error}") from error
    anywhere = masks.array.any(axis=3)
    modality = str(images[0].get("Modality", ""))
    low, high = (window[0] - window[1] / 2, window[0] + window[1] / 2) if window else _window(modality, volume.array, anywhere)
    box = _body(volume.array > (_AIR_HU if modality == "CT" else low + 0.1 * (high - low)), anywhere)
    return Scene(
        grey=((np.clip(volume.array[box], low, high) - low) * (255 / (high - low))).astype(np.uint8),
        segments=tuple(_segments(seg, masks, box)),
        spacing_mm=volume.spacing,
        axes=np.stack(volume.unit_vectors()),
        title="  ·  ".join(filter(None, (modality, str(images[0].get("SeriesDescription", ""))))),
        subtitle=_technique(images, volume.spacing, (low, high)),
        credit=_algorithm(seg),
    )


def _technique(images: list[Dataset], spacing_mm: Sequence[float], window: tuple[float, float]) -> str:
    count = max(len(images), int(images[0].get("NumberOfFrames") or 1))
    resolution = " x ".join(f"{mm:.2f}" for mm in reversed(spacing_mm))
    unit = " HU" if images[0].get("Modality") == "CT" else ""
    return f"{count} images  ·  {resolution} mm  ·  window {window[0]:.0f} to {window[1]:.0f}{unit}"


def _referenced(sources: Sequence[Path], seg: Dataset) -> list[Dataset]:
    wanted = {
        str(instance.ReferencedSOPInstanceUID) for series in seg.get("ReferencedSeriesSequence", []) for instance in series.ReferencedInstanceSequence
    }
    images = {}
    for path in sources:
        uid = str(dcmread(path, specific_tags=["SOPInstanceUID"], stop_before_pixels=True).get("SOPInstanceUID", ""))
        if uid in wanted and uid not in images:
            images[uid] = dcmread(path)
    if not images or len(images) < len(wanted):
        raise Unsuitable(
            f"of {len(wanted)} images that the segmentation refers to, {len(images)} are here", hint="Give all files of its source series."
        )
    return list(images.values())


def _volume(images: list[Dataset]) -> Any:
    if len(images) == 1 and "NumberOfFrames" in images[0]:
        return highdicom.Image.from_dataset(images[0]).get_volume(dtype=np.float32)
    return highdicom.get_volume_from_series(images, dtype=np.float32)


def _window(modality: str, values: NDArray[Any], segments: Mask) -> tuple[float, float]:
    """Return the lowest and highest value that are told apart: by tissue for CT, by what is there for anything else."""
    if modality == "CT":
        return LUNG_WINDOW_HU if segments.any() and values[segments].mean() < _AIR_HU else SOFT_TISSUE_WINDOW_HU
    low, high = np.percentile(values[::2, ::2, ::2], (1, 99.7))
    return float(low), float(max(high, low + 1))


def _body(foreground: Mask, segments: Mask) -> Box:
    """Return the box around what is not air, and around every segment."""
    sides = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        kept = np.flatnonzero((foreground.mean(axis=others) > 0.01) | segments.any(axis=others))
        first, last = (kept[0], kept[-1]) if kept.size else (0, foreground.shape[axis] - 1)
        sides.append(slice(max(int(first) - _AROUND, 0), int(last) + 1 + _AROUND))
    return sides[0], sides[1], sides[2]


def _masks(seg: Any) -> Any:
    """Return the segments' voxels; of fractions those that are at least a half."""
    stored = seg.get_volume(rescale_fractional=False)
    return stored.with_array(stored.array > seg.get("MaximumFractionalValue", 1) // 2)


def _segments(seg: Any, masks: Any, box: Box) -> Iterator[Shown]:
    for index, description in enumerate(seg.SegmentSequence):
        mask = masks.array[..., index].astype(bool)
        lab = description.get("RecommendedDisplayCIELabValue")
        yield Shown(
            label=str(description.SegmentLabel),
            colour=highdicom.color.CIELabColor.from_dicom_value(lab).to_rgb() if lab else PALETTE[index % len(PALETTE)],
            mask=mask[box],
            volume_ml=float(mask.sum() * masks.voxel_volume / 1000),  # mm3 -> mL
        )


def _algorithm(seg: Dataset) -> str:
    for description in seg.SegmentSequence:
        for item in description.get("SegmentationAlgorithmIdentificationSequence", []):
            return f"{item.AlgorithmName} {item.AlgorithmVersion}"
    return str(seg.get("ManufacturerModelName", ""))


def _letters(direction: NDArray[np.float64]) -> str:
    named = sorted(zip(direction, ("LR", "PA", "HF"), strict=True), key=lambda pair: -abs(pair[0]))
    return "".join(names[0 if part > 0 else 1] for part, names in named[:2] if abs(part) > 0.2)  # less than 12 degrees off is not worth a letter
