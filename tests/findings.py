"""A small model's manifest, and findings on a phantom as an analysis would return them."""

from collections.abc import Sequence
from pathlib import Path

import highdicom
import numpy as np
from pydicom import Dataset

from dicom_node.config import Model, load_model
from dicom_node.domain import SEGMENT_AXIS, Assembled, Findings
from dicom_node.report import Run
from tests import phantoms

MANIFEST = """
name = "lung-phantom"
version = "1.2.0"
task = "Finds the marker of a phantom and measures it."
manufacturer = "Phantom Works"

[inputs.ct]
Modality = "CT"

[[segments]]
number = 1
label = "Left lung"
category = "SCT.AnatomicalStructure"
type = "SCT.Lung"
laterality = "SCT.Left"
colour = [0, 151, 206]

[[segments]]
number = 2
label = "Right lung"
category = "SCT.AnatomicalStructure"
type = "SCT.Lung"
laterality = "SCT.Right"
colour = [216, 101, 79]

[[segments]]
number = 3
label = "Nodule"
category = "SCT.MorphologicallyAbnormalStructure"
type = "SCT.Nodule"
site = "SCT.Lung"

[measurements.volume]
concept = "SCT.Volume"
unit = "mL"
segments = [1, 2, 3]
plausible = [0.01, 5000]

[measurements.mean]
concept = ["112031", "DCM", "Attenuation Coefficient"]
unit = "[hnsf'U]"
derivation = "SCT.Mean"
segments = [1, 2]
digits = 0

[measurements.ratio]
concept = ["RATIO", "99PHANTOM", "Left to right ratio"]
unit = "1"
site = "SCT.Lung"
digits = 3

[measurements.quality]
concept = ["QUALITY", "99PHANTOM", "Image quality"]
unit = "%"

[evaluations.emphysema]
concept = ["EMPH", "99PHANTOM", "Emphysema"]
site = "SCT.Lung"
answers.yes = "SCT.Present"
answers.no = "SCT.Absent"
"""

FRACTIONAL_MANIFEST = f'fractional = "PROBABILITY"\n{MANIFEST}'

LEFT, RIGHT = (2, 5, 14), (3, 12, 3)  # first voxels of the two marked blocks


def model(folder: Path, manifest: str = MANIFEST) -> Model:
    """Write a model's folder and load it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.toml").write_text(manifest)
    (folder / "analysis.py").write_text("")
    return load_model(folder)


def run(model: Model, **more: object) -> Run:
    """Return a run of a model at a fixed moment."""
    return Run(**{"identity": "a" * 64, "made_at": 1_700_000_000.0, "model": model, "utc_offset": "+0100", **more})  # type: ignore[arg-type]


def assembled(images: Sequence[Dataset], *, notes: tuple[str, ...] = ()) -> Assembled:
    """Put phantom images together without the node's own room for it: the slices in the order given, headers without pixels."""
    if "PerFrameFunctionalGroupsSequence" in images[0]:
        volume = highdicom.Volume(images[0].pixel_array.astype(np.float32), _affine_of_frames(images[0]), "PATIENT")
    else:
        volume = highdicom.Volume(np.stack([i.pixel_array for i in images]).astype(np.float32), _affine_of(images), "PATIENT")
    return Assembled(volume=volume, sources=tuple(_without_pixels(i) for i in images), notes=notes)


def findings(given: Assembled, **more: object) -> Findings:
    """Return what the phantom's model finds: both blocks as segments 1 and 2, no nodule, and numbers for everything."""
    labels = np.zeros(given.volume.shape, np.uint8)
    labels[phantoms.block(LEFT)] = 1
    labels[phantoms.block(RIGHT)] = 2
    said = {
        "segments": given.volume.with_array(labels),
        "measurements": {"volume": {1: 2310.04, 2: 2754.96, 3: 0.0}, "mean": {1: -812.4, 2: -806.6}, "ratio": 0.83850, "quality": 97.0},
        "evaluations": {"emphysema": "no"},
        "notes": ("The base of the lungs is cut off.",),
    }
    return Findings(**{**said, **more})  # type: ignore[arg-type]


def fractions(labels: np.ndarray, segments: int = 3) -> np.ndarray:
    """Return float32 (slice, row, column, segment): from 0.5 to 1 where the labels say so, 0.3 beside it, 0.2 in the slices above and below."""
    values = np.zeros((*labels.shape, segments), np.float32)
    for number in range(1, segments + 1):
        inside = labels == number
        for axis, beside in ((0, 0.2), (2, 0.3)):
            for step in (-1, 1):
                values[np.roll(inside, step, axis), number - 1] = beside
        values[inside, number - 1] = np.linspace(0.5, 1, np.count_nonzero(inside))
    return values


def as_bytes(given: Assembled, values: np.ndarray) -> highdicom.Volume:
    """Return fractions as an analysis that is settled has them."""
    numbers = range(1, values.shape[3] + 1)
    return given.volume.with_array(np.rint(values * 255).astype(np.uint8), {SEGMENT_AXIS: numbers})


def _affine_of(images: Sequence[Dataset]) -> np.ndarray:
    first = images[0]
    positions = np.array([i.ImagePositionPatient for i in images], float)
    cosines, spacing = np.array(first.ImageOrientationPatient, float), first.PixelSpacing
    matrix = np.eye(4)
    matrix[:3, 0] = positions[1] - positions[0] if len(images) > 1 else np.cross(cosines[:3], cosines[3:]) * float(first.SliceThickness)
    matrix[:3, 1], matrix[:3, 2] = cosines[3:] * float(spacing[0]), cosines[:3] * float(spacing[1])
    matrix[:3, 3] = positions[0]
    return matrix


def _affine_of_frames(image: Dataset) -> np.ndarray:
    shared = image.SharedFunctionalGroupsSequence[0]
    planes = []
    for frame in image.PerFrameFunctionalGroupsSequence[:2]:
        plane = Dataset()
        plane.ImagePositionPatient = frame.PlanePositionSequence[0].ImagePositionPatient
        plane.ImageOrientationPatient = shared.PlaneOrientationSequence[0].ImageOrientationPatient
        plane.PixelSpacing = shared.PixelMeasuresSequence[0].PixelSpacing
        planes.append(plane)
    return _affine_of(planes)


def _without_pixels(image: Dataset) -> Dataset:
    header = Dataset()
    for tag in image.keys():  # noqa: SIM118 - iterating a Dataset decodes it, and what was read from a file shall stay as read
        if tag != "PixelData":
            header[tag] = image.get_item(tag)
    return header
