"""How slices lie: plane, number, spacing and extent, as plain numbers, and what a model's input has against them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dicom_node.config import Input
from dicom_node.domain import Instance, Series

_PLANES = ("sagittal", "coronal", "axial")  # whose normals are x, y, z of the patient (LPS, PS3.3 C.7.6.2.1.1)
_PLANE_WITHIN = math.cos(math.radians(30))
_SAME_PLACE_MM = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What is known of a stack of slices; None where the header does not say."""

    slices: int
    plane: str | None = None  # axial, coronal, sagittal, or oblique: further than 30 degrees from each of them
    spacing_mm: float | None = None  # between slices

    @property
    def extent_mm(self) -> float | None:
        """Across all slices, each counted with its full spacing."""
        return None if self.spacing_mm is None else self.slices * self.spacing_mm


def plane_of(normal: Sequence[float]) -> str:
    """Return the plane that slices with this normal (LPS) lie in."""
    length = math.hypot(*normal) or 1.0
    return next((name for name, part in zip(_PLANES, normal, strict=True) if abs(part) / length >= _PLANE_WITHIN), "oblique")


def misfits(shape: Shape, wanted: Input) -> tuple[str, ...]:
    """Return what a model's input has against a stack of this shape, one sentence each; what is not known is not held against it."""
    said = []
    if wanted.plane and shape.plane and shape.plane != wanted.plane:
        said.append(f"slices are {shape.plane}, not {wanted.plane}")
    if shape.slices < wanted.min_slices:
        said.append(f"{shape.slices} {'slice' if shape.slices == 1 else 'slices'}, at least {wanted.min_slices} are needed")
    if wanted.max_slice_spacing_mm and shape.spacing_mm and shape.spacing_mm > wanted.max_slice_spacing_mm + _SAME_PLACE_MM:
        said.append(f"slices are {shape.spacing_mm:.4g} mm apart, at most {wanted.max_slice_spacing_mm:g} mm is allowed")
    if wanted.min_extent_mm and shape.extent_mm is not None and shape.extent_mm < wanted.min_extent_mm - _SAME_PLACE_MM:
        said.append(f"slices cover {shape.extent_mm:.0f} mm, at least {wanted.min_extent_mm:g} mm is needed")
    return tuple(said)


def shape_of(series: Series) -> Shape | None:
    """Return the shape of a series by its headers alone; None when its single-frame images carry no position.

    The headers kept of a multi-frame image hold no positions (they are in its functional groups): only its number of frames is known.
    """
    frames = [max(1, int(number(instance.header.get("NumberOfFrames")) or 1)) for instance in series.instances]
    if max(frames, default=1) > 1:
        return Shape(slices=max(frames), spacing_mm=number(series.header.get("SpacingBetweenSlices")))
    stacks: dict[tuple[float, ...], list[tuple[float, ...]]] = {}
    for instance in series.instances:
        placed = _placed(instance)
        if placed:
            stacks.setdefault(placed[0], []).append(placed[1])
    if not stacks:
        return None
    orientation, positions = max(stacks.items(), key=lambda stack: (len(stack[1]), stack[0]))
    normal = _cross(orientation[:3], orientation[3:])
    length = math.hypot(*normal)
    if not length:
        return None
    places = _distinct(sum(p * n for p, n in zip(position, normal, strict=True)) / length for position in positions)
    steps = sorted(after - before for before, after in zip(places, places[1:], strict=False))
    stated_mm = number(series.header.get("SpacingBetweenSlices")) or number(series.header.get("SliceThickness"))
    return Shape(slices=len(places), plane=plane_of(normal), spacing_mm=steps[len(steps) // 2] if steps else stated_mm)


def number(value: object) -> float | None:
    """Return a header's value as a finite number; None when it is not one."""
    try:
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def _placed(instance: Instance) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return orientation (rounded, so that slices that differ in the last digit stay together) and position, if it has both."""
    orientation = _numbers(instance.header.get("ImageOrientationPatient"), 6)
    position = _numbers(instance.header.get("ImagePositionPatient"), 3)
    return (tuple(round(part, 2) + 0.0 for part in orientation), position) if orientation and position else None


def _numbers(value: object, count: int) -> tuple[float, ...] | None:
    if not isinstance(value, list | tuple) or len(value) != count:
        return None
    found = [number(part) for part in value]
    return None if None in found else tuple(part for part in found if part is not None)


def _cross(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float]:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def _distinct(places: Iterable[float]) -> list[float]:
    """Return places along the normal in order, those that are the same place once."""
    found: list[float] = []
    for place in sorted(places):
        if not found or place - found[-1] > _SAME_PLACE_MM:
            found.append(place)
    return found
