"""Which slices of a result are worth a look, and what is said below them: decided here, drawn elsewhere."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicom_node.config import PALETTE, Manifest, Measurement, Segment
from dicom_node.domain import Assembled, Findings
from dicom_node.picture.scene import AXIAL, CORONAL, Colour, Mask, Plane
from dicom_node.picture.stage import Drawn, Stage, stage

PANELS = 4  # at most
_LINES = 14  # of text, at most
_SERVES = 0.7  # a slice that shows so much of a segment's largest area is as good as the one with the largest
_COARSEST = 4.0  # a plane across the slices is shown where voxels are not longer than this many times their width
_FEWEST = 8  # slices
_UNITS = {"1": "", "[hnsf'U]": "HU"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Heat:
    """A quantity laid over a slice."""

    values: NDArray[np.float32]  # 0 to 1, as it is shown
    low: float
    high: float
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One panel."""

    grey: NDArray[np.uint8]  # (row, column), as it is shown
    size_mm: tuple[float, float]  # width and height
    caption: str
    letters: tuple[str, str, str, str] = ("", "", "", "")  # of the left, top, right and bottom edge
    measured: bool = True  # whether it has a scale bar
    outlines: tuple[tuple[Mask, Colour], ...] = ()
    marks: tuple[Drawn, ...] = ()
    heat: Heat | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line below the panels."""

    text: str
    values: str = ""
    colour: Colour | None = None


def views(findings: Findings, inputs: Mapping[str, Assembled], manifest: Manifest) -> tuple[View, ...]:
    """Return what to show of findings: of each kind of them something, at most `PANELS` in all; nothing of no findings.

    manifest: as it reads for these inputs and findings.
    """
    if not _anything(findings):
        return ()
    seen = _Seen(findings, inputs, manifest)
    kinds = [kind for kind in (seen.segments(), seen.marks(), seen.images(), seen.maps(), seen.keys()) if kind]
    shown: list[View] = []
    for turn in range(PANELS):
        for kind in kinds:
            group = kind[turn] if turn < len(kind) else ()
            shown += group if len(shown) + len(group) <= PANELS else ()
    return tuple(shown) or (seen.middle(),)


def _anything(findings: Findings) -> bool:
    keys = any(len(indices) for indices in findings.keys.values())
    shown = any(one is not None for one in findings.presentations.values())
    return findings.segments is not None or keys or shown or any((findings.measurements, findings.evaluations, findings.images, findings.maps))


Groups = list[tuple[View, ...]]  # panels that stand together


class _Seen:
    """Findings on the inputs that they lie on."""

    def __init__(self, findings: Findings, inputs: Mapping[str, Assembled], manifest: Manifest) -> None:
        self._findings = findings
        self._inputs = inputs
        self._manifest = manifest
        self._first = next(iter(manifest.inputs))
        self._stages: dict[str, Stage] = {}
        self._segments = tuple((one.number, colour_of(one, manifest)) for one in manifest.segments)

    def _stage(self, name: str) -> Stage:
        if name not in self._stages:
            labels = None
            if name == self._first:
                drawn = self._manifest.regions
                labels = self._inputs[drawn].volume if drawn else self._findings.segments
            self._stages[name] = stage(self._inputs[name], labels, self._window(name))
        return self._stages[name]

    def _window(self, name: str) -> tuple[float, float] | None:
        """Return the window in which the analysis wants an input to be seen."""
        of_input = (self._findings.presentations.get(one) for one, of in self._manifest.presentations.items() if self._manifest.input_of(of) == name)
        return next((one.window for one in of_input if one is not None and one.window), None)

    def _view(self, name: str, index: int, caption: str, plane: Plane | None = None, **more: Any) -> View:
        on, plane = self._stage(name), plane or self._stage(name).home
        outlines = self._outlines(on, plane, index) if name == self._first and "grey" not in more else ()
        given: dict[str, Any] = {"grey": on.grey(plane, index), "outlines": outlines} | more
        return View(size_mm=on.size_mm(plane), letters=on.letters(plane), measured=on.measured, caption=caption, **given)

    def _outlines(self, on: Stage, plane: Plane, index: int) -> tuple[tuple[Mask, Colour], ...]:
        masks = ((on.mask(number, plane, index), colour) for number, colour in self._segments)
        return tuple((mask, colour) for mask, colour in masks if mask.any())

    def middle(self) -> View:
        """Return the middle slice of the first input, for what has no place."""
        on = self._stage(self._first)
        index = on.array.shape[on.home.axis] // 2
        return self._view(self._first, index, self._place(on, index), marks=self._marks_on(self._first, index))

    # --------------------------------------------------------------------------------------------------------- each kind

    def segments(self) -> Groups:
        """Return the slices with the largest area of each of the largest segments, and one across them."""
        on = self._stage(self._first)
        areas = on.areas(on.home, len(self._segments))[:, 1:] if on.labels is not None and self._segments else np.zeros((0, 0), np.int64)
        if not areas.any():
            return []
        chosen = _largest(areas, PANELS)
        groups: Groups = [(self._view(self._first, index, self._place(on, index), marks=self._marks_on(self._first, index)),) for index in chosen]
        across = self._across(on)
        return [*groups[: PANELS - len(across)], *across]

    def _across(self, on: Stage) -> Groups:
        plane = CORONAL if on.home is AXIAL else AXIAL
        spacing = on.volume.spacing
        if not on.placed or max(spacing) / min(spacing) > _COARSEST or on.array.shape[on.home.axis] < _FEWEST:
            return []
        areas = on.areas(plane, len(self._segments))[:, 1:]
        index = int((areas / np.maximum(areas.max(axis=0), 1)).sum(axis=1).argmax())
        return [(self._view(self._first, index, plane.name, plane),)]

    def marks(self) -> Groups:
        """Return the slices with most marks."""
        found: Groups = []
        for name in dict.fromkeys(self._manifest.input_of(one) for one in self._manifest.presentations.values()):
            on, marked = self._stage(name), self._marked(name)
            for index in sorted(marked, key=lambda index: (-len(marked[index]), index)):
                found.append((self._view(name, index, self._place(on, index), marks=self._marks_on(name, index)),))
        return found[:PANELS]

    def _marked(self, name: str) -> dict[int, list[Drawn]]:
        on = self._stage(name)
        found: dict[int, list[Drawn]] = {}
        for one, of in self._manifest.presentations.items():
            state = self._findings.presentations.get(one)
            for mark in state.marks if state is not None and self._manifest.input_of(of) == name else ():
                found.setdefault(on.index_of(mark.slice), []).append(on.drawn(mark))
        return found

    def _marks_on(self, name: str, index: int) -> tuple[Drawn, ...]:
        return tuple(self._marked(name).get(index, ())) if self._manifest.presentations else ()

    def images(self) -> Groups:
        """Return of each series of derived images a slice before and after, in one window."""
        groups: Groups = []
        for name, described in self._manifest.images.items():
            if name in self._findings.images:
                of = self._manifest.input_of(described)
                on = self._stage(of)
                after, index = self._findings.images[name].match_geometry(on.volume).array, on.array.shape[on.home.axis] // 2
                place = self._place(on, index)
                after = self._view(of, index, f"after: {described.description}", grey=on.grey(on.home, index, after))
                groups.append((self._view(of, index, f"before, {place}" if place else "before", outlines=()), after))
        return groups

    def maps(self) -> Groups:
        """Return of each map the slice on which its highest values are highest."""
        groups: Groups = []
        for name, described in self._manifest.maps.items():
            if name in self._findings.maps:
                of = self._manifest.input_of(described)
                on = self._stage(of)
                values = self._findings.maps[name].match_geometry(on.volume).array
                index, heat = _heat(on, values, _unit(described.unit.value))
                groups.append((self._view(of, index, described.description, outlines=(), heat=heat),))
        return groups

    def keys(self) -> Groups:
        """Return the images that a person should look at."""
        groups: Groups = []
        for name, described in self._manifest.keys.items():
            of = self._manifest.input_of(described)
            on = self._stage(of)
            for index in (on.index_of(number) for number in list(self._findings.keys.get(name, ()))[:PANELS]):
                caption = f"{described.title.meaning}, {self._place(on, index)}".removesuffix(", ")
                groups.append((self._view(of, index, caption, marks=self._marks_on(of, index)),))
        return groups

    def _place(self, on: Stage, index: int) -> str:
        """Say which slice it is, in the patient's coordinates."""
        if not on.placed:
            return ""
        height = (on.volume.affine @ _along(on.home.axis, index))[:3] @ on.volume.unit_vectors()[on.home.axis]
        return f"{on.home.name}, {height:+.0f} mm"


def _along(axis: int, index: int) -> NDArray[np.float64]:
    place = np.array([0.0, 0.0, 0.0, 1.0])
    place[axis] = index
    return place


def _largest(areas: NDArray[np.int64], most: int) -> list[int]:
    """Return the slices that show the largest segments at their largest, in order; areas: (slice, segment)."""
    chosen: list[int] = []
    for segment in np.argsort(-areas.sum(axis=0), kind="stable"):
        best = areas[:, segment].max()
        served = any(areas[index, segment] >= _SERVES * best for index in chosen)
        if best and not served and len(chosen) < most:
            chosen.append(int(areas[:, segment].argmax()))
    return chosen


def _heat(on: Stage, values: NDArray[Any], unit: str) -> tuple[int, Heat]:
    """Return the slice to show of a map, and its values there, of the whole map's range."""
    thin = values[tuple(slice(None) if axis == on.home.axis else slice(None, None, max(1, size // 128)) for axis, size in enumerate(values.shape))]
    known = np.nan_to_num(thin.astype(np.float32), nan=np.nanmin(thin) if np.isfinite(thin).any() else 0.0)
    low, high = (float(each) for each in np.percentile(known, (1, 99.8)))
    high = high if high > low else low + 1.0
    index = int(np.percentile(known, 99, axis=on.home.shown).argmax())
    shown = (np.nan_to_num(on.cut(values, on.home, index).astype(np.float32), nan=low) - low) / (high - low)
    return index, Heat(values=shown.clip(0, 1), low=low, high=high, unit=unit)


# ------------------------------------------------------------------------------------------------------------------- text


def lines(findings: Findings, manifest: Manifest) -> tuple[Line, ...]:
    """Return what was measured and answered: segment by segment, then of the whole; what a header may have worded is left out."""
    found = [*_of_segments(findings, manifest), *_of_whole(findings, manifest)]
    left = len(found) - _LINES
    return (*found[:_LINES], Line(text=f"… and {left} more in the report")) if left > 0 else tuple(found)


def _of_segments(findings: Findings, manifest: Manifest) -> Iterator[Line]:
    for segment in manifest.segments:
        values = []
        for name, meaning in manifest.measurements.items():
            given = findings.measurements.get(name)
            value = given.get(segment.number) if isinstance(given, Mapping) else given if meaning.on == (segment.number,) else None
            if value is not None:
                values.append(f"{_named(meaning)} {_number(value, meaning)}")
        drawn = findings.segments is not None or manifest.regions
        if drawn or values:
            yield Line(text=name_of(segment, manifest), values=", ".join(values), colour=colour_of(segment, manifest))


def _of_whole(findings: Findings, manifest: Manifest) -> Iterator[Line]:
    for name, meaning in manifest.measurements.items():
        given = findings.measurements.get(name)
        if not meaning.on and not isinstance(given, Mapping) and name in findings.measurements:
            where = f", {meaning.site.meaning}" if meaning.site else ""
            yield Line(text=f"{_named(meaning)}{where}", values="not measured" if given is None else _number(given, meaning))
    for name, evaluation in manifest.evaluations.items():
        answer = evaluation.answers.get(findings.evaluations.get(name, ""))
        if answer is not None:
            yield Line(text=evaluation.concept.meaning, values=answer.meaning)


def _named(meaning: Measurement) -> str:
    return f"{meaning.concept.meaning} ({meaning.derivation.meaning})" if meaning.derivation else meaning.concept.meaning


def _number(value: float, meaning: Measurement) -> str:
    return f"{value:.{meaning.digits}f} {_unit(meaning.unit.value)}".strip() if np.isfinite(value) else "not measured"


def _unit(ucum: str) -> str:
    return _UNITS.get(ucum, ucum)


def name_of(segment: Segment, manifest: Manifest) -> str:
    """Return what a segment is called: what others called the regions they drew is free text, and their numbers name them here."""
    return f"Region {segment.number}" if manifest.regions else segment.label


def colour_of(segment: Segment, manifest: Manifest) -> Colour:
    """Return a segment's colour: the manifest's, but one of its own for each of those that share it."""
    shared = sum(1 for one in manifest.segments if one.colour == segment.colour) > 1
    return PALETTE[(segment.number - 1) % len(PALETTE)] if shared else segment.colour


def modality_of(inputs: Mapping[str, Assembled], names: Sequence[str]) -> str:
    """Return the modalities of inputs, by their code (PS3.3 C.7.3.1.1.1): at most 16 capital letters and digits, or nothing."""
    said = (str(inputs[name].sources[0].get("Modality") or "") for name in names if name in inputs)
    return ", ".join(dict.fromkeys(one for one in said if one.isascii() and one.isalnum() and one.isupper() and len(one) <= 16))
