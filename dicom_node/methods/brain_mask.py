"""Brain on T1-weighted head MR: its mask, by the two networks of deepbet.

The steps and their constants are those that deepbet 1.0.2 (MIT licence, doi:10.1016/j.compbiomed.2024.108845) was trained and published with:
one network finds the box about the brain in the whole image at 128³, the other draws the brain in that box at 256³.
Everything works on arrays whose axes run to the patient's right, front and head (RAS+), however the scan was cut.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn.functional import interpolate

from dicom_node.domain import Unsuitable

Mask = NDArray[np.bool_]
Box = tuple[slice, slice, slice]
Progress = Callable[[float, str], None]

SMALL, LARGE = (128, 128, 128), (256, 256, 256)  # grids on which the networks were trained
LOW, HIGH = 0.005, 0.995  # quantiles between which brightness is kept
MEAN, SD = 0.449, 0.226  # of the brightness that the networks expect
MARGIN = 0.1  # of the box's size, on each side
IN_BOX = 0.02  # of a plane, that must be brain for the plane to count
PROBABLE = 0.5

THICK_MM = 3.05  # thicker slices are 2-D spin echo as a rule, on which the networks were not tried
SMALL_FIELD_MM = 100.0  # no adult head fits into less
NEAR_MM = 5.0  # from an end of the volume: where the brain is cut, the networks round it off over the last slices
CUT_OFF = 0.1  # of the largest cross-section, near an end of the volume: more is not a whole brain
CUT_OFF_STEM = 0.3  # the same at the lower end, where the brain goes on into the spinal cord
STEM_MM2 = 1500.0  # of the brain's stem and what lies beside it in the lowest slice
EDGES = (("left", "right"), ("back", "front"), ("lower", "upper"))  # of the axes R, A, H
WANTED = "Send a 3-D T1-weighted series of the whole head."
PLAUSIBLE_ML = (600.0, 2500.0)


@dataclass(frozen=True, slots=True)
class Brain:
    """What was drawn: a mask (right, front, head), its volume, and sentences on where it reaches an end of the image."""

    mask: Mask
    volume_ml: float
    notes: tuple[str, ...]


def drawing(weights: Path, device: str) -> Callable[..., Brain]:
    """Return the function that draws a brain, with both networks (`bbox_model.pt`, `model.pt`) on the device."""
    finder, drawer = (_network(weights / name, device) for name in ("bbox_model.pt", "model.pt"))

    @torch.inference_mode()
    def draw(image: NDArray[Any], spacing_mm: Any, progress: Progress = lambda fraction, sentence: None) -> Brain:
        """Draw the brain on a T1-weighted image (right, front, head) in any unit.

        Raises
        ------
        Unsuitable: the slices are too thick, or no brain of a plausible size is seen.
        """
        _check_geometry(image.shape, spacing_mm)
        progress(0.05, "finding the head")
        seen = torch.nan_to_num(torch.from_numpy(np.ascontiguousarray(image, np.float32)).to(device))
        box, limits = _where(seen, finder)
        progress(0.35, "drawing the brain")
        probable = _probability(seen, box, limits, drawer)
        progress(0.9, "measuring")
        mask = np.zeros(image.shape, bool)
        mask[box] = ndimage.binary_fill_holes(_largest(probable > PROBABLE))
        volume_ml = _plausible(float(np.count_nonzero(mask)) * float(np.prod(spacing_mm)) / 1000)
        return Brain(mask, volume_ml, _check_edges(mask, spacing_mm))

    return draw


def _network(path: Path, device: str) -> Any:
    """Return a TorchScript network; that torch will one day stop reading these is not news at each start."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*torch\.jit\.load.* is deprecated", category=DeprecationWarning)
        return torch.jit.load(path, map_location=device).eval()


def _check_geometry(shape: tuple[int, ...], spacing_mm: Any) -> None:
    if max(spacing_mm) > THICK_MM:
        raise Unsuitable(
            f"The slices are {max(spacing_mm):.1f} mm apart; the brain cannot be measured on more than 3 mm.",
            hint=WANTED,
        )
    extent_mm = min(n * mm for n, mm in zip(shape, spacing_mm, strict=True))
    if extent_mm < SMALL_FIELD_MM:
        raise Unsuitable(f"The series covers only {extent_mm:.0f} mm in one direction: the head is not whole.", hint=WANTED)


def _resized(image: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    return interpolate(image[None, None], shape, mode="nearest-exact")[0, 0]


def _normal(image: torch.Tensor, limits: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Return the brightness that the networks know, with a batch and a channel axis in front."""
    low, high = limits
    image = ((image - low) / (high - low)).clamp(0, 1)
    return (SD * (image - image.mean()) / image.std() + MEAN)[None, None]


def _where(image: torch.Tensor, finder: Any) -> tuple[Box, tuple[torch.Tensor, torch.Tensor]]:
    """Return the box about the brain with a margin, and the brightness limits of the whole image.

    Raises
    ------
    Unsuitable: the image shows nothing, or nothing like a brain.
    """
    small = _resized(image, SMALL)
    limits = small.quantile(LOW), small.quantile(HIGH)
    if not limits[0] < limits[1]:
        raise Unsuitable("The volume is empty: all of it is equally bright.", hint=WANTED)
    seen = _largest((finder(_normal(small, limits))[0, 1] > PROBABLE).cpu().numpy())
    return _box(seen, tuple(image.shape)), limits


def _box(seen: Mask, shape: tuple[int, ...]) -> Box:
    """Return the box about what was seen on the small grid, in voxels of the image, larger by the margin and cut at the image's edges."""
    spans = []
    for axis, length in enumerate(shape):
        planes = np.flatnonzero(seen.mean(axis=tuple({0, 1, 2} - {axis})) > IN_BOX)
        if not planes.size:
            raise Unsuitable("No brain was found in this volume.", hint=WANTED)
        scale = length / seen.shape[axis]
        centre = round(scale * (planes[-1] + 1 + planes[0]) / 2)
        size = round((1 + 2 * MARGIN) * scale * (planes[-1] + 1 - planes[0]))
        spans.append(slice(max(0, int(centre - size / 2)), min(length, int(centre + size / 2))))
    return spans[0], spans[1], spans[2]


def _probability(image: torch.Tensor, box: Box, limits: tuple[torch.Tensor, torch.Tensor], drawer: Any) -> NDArray[np.float32]:
    """Return the probability of brain within the box, on the image's own grid."""
    inside = image[box]
    drawn = drawer(_normal(_resized(inside, LARGE), limits))[0, 1]
    return _resized(drawn, tuple(inside.shape)).float().cpu().numpy()


def _largest(mask: Mask) -> Mask:
    """Return the largest piece, where voxels hang together by faces, edges or corners; of an empty mask, the empty mask."""
    pieces, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    return np.asarray(pieces == np.bincount(pieces.ravel())[1:].argmax() + 1) if count else mask


def _plausible(volume_ml: float) -> float:
    """Return the volume if it can be that of a brain.

    Raises
    ------
    Unsuitable: it cannot, so that what was drawn is not a brain, or not the whole of one.
    """
    low, high = PLAUSIBLE_ML
    if not low <= volume_ml <= high:
        raise Unsuitable(
            f"What was found measures {volume_ml:.0f} mL, which is no whole brain ({low:.0f} to {high:.0f} mL).",
            hint=WANTED,
        )
    return volume_ml


def _check_edges(brain: Mask, spacing_mm: Any) -> tuple[str, ...]:
    """Return a note where the brain reaches an edge of the volume; its stem does so at the lowest slice in many a scan of the head.

    Raises
    ------
    Unsuitable: so much is cut off that the rest says nothing about the brain.
    """
    notes = []
    for axis, ends in enumerate(EDGES):
        area_mm2 = np.count_nonzero(brain, axis=tuple({0, 1, 2} - {axis})) * np.prod(spacing_mm) / spacing_mm[axis]
        near = int(np.ceil(NEAR_MM / spacing_mm[axis]))
        for areas, name in zip((area_mm2[:near], area_mm2[: -near - 1 : -1]), ends, strict=True):
            if areas.max() > (CUT_OFF_STEM if name == "lower" else CUT_OFF) * area_mm2.max():
                raise Unsuitable(f"The {name} end of the volume cuts through the brain: it does not show the whole head.", hint=WANTED)
            if areas[0] > (STEM_MM2 if name == "lower" else 0):
                notes.append(f"The brain reaches the {name} end of the volume: its volume is a lower bound.")
    return tuple(notes)
