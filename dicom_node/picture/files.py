"""A segmentation and its images, read from files: what `picture` draws."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.config import PALETTE
from dicom_node.domain import Unsuitable
from dicom_node.picture.scene import AIR_HU, Box, Scene, Shown, body, window_of


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
    low, high = (window[0] - window[1] / 2, window[0] + window[1] / 2) if window else window_of(modality, volume.array, anywhere)
    box = body(volume.array > (AIR_HU if modality == "CT" else low + 0.1 * (high - low)), anywhere)
    return Scene(
        grey=((np.clip(volume.array[box], low, high) - low) * (255 / (high - low))).astype(np.uint8),
        segments=tuple(_segments(seg, masks, box)),
        spacing_mm=volume.spacing,
        axes=np.stack(volume.unit_vectors()),
        title=modality,
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
