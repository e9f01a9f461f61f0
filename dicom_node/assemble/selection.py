"""Which series of a study a model gets, and why that one.

What a model's input asks for parts the series into those that suit and those that do not; its preferences, in order, then put the former in
order. Only headers are read. The sentences name series by number and technical facts, never by free text, which may name a patient.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from dicom_node.assemble.recognition import recognised
from dicom_node.assemble.shape import Shape, misfits, number, shape_of
from dicom_node.config import Input, objections, unrecognised
from dicom_node.domain import DERIVED_MODALITIES, DRAWN_ON, Header, Series

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # and its multi-frame relatives, .7.1 to .7.4
_NO_AGENT = {"no", "n", "none", "without", "no contrast", "non contrast", "0"}  # written where ContrastBolusAgent should be empty
_REGIONS = frozenset({"SEG", "RTSTRUCT"})
_NAMED = 3  # so many of the others are named in a sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The series chosen for an input (or none), why, and for every other series the reason it was not."""

    series: Series | None
    why: str
    rejected: Mapping[str, str] = field(default_factory=dict)  # series UID -> reason


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """A series that suits, with the facts that preferences look at."""

    series: Series
    shape: Shape
    original: bool
    contrast: bool
    kernel: str
    thickness_mm: float  # what limits resolution across slices: their thickness or their spacing, whichever is larger; 0 if unknown

    @property
    def facts(self) -> str:
        if self.series.projection:
            stated = number(self.series.instances[0].header.get("InstanceNumber"))
            return ("one image" if stated is None else f"image {stated:.0f}") + (", original" if self.original else "")
        said = [self.shape.plane or "", "original" if self.original else "derived", f"{self.thickness_mm:.4g} mm" if self.thickness_mm else ""]
        said += [f"{self.shape.slices} {'slice' if self.shape.slices == 1 else 'slices'}", f"kernel {self.kernel}" if self.kernel else ""]
        return ", ".join(fact for fact in said if fact)


def select(candidates: Sequence[Series], wanted: Input) -> Selection:
    """Return the best of some series for a model's input; the same series give the same answer in whatever order they are named.

    For an input of kind regions: the first object that says what it was drawn on. A projection is taken by itself: a series of one image.

    Ties are broken by the number of slices, then by SeriesNumber and UID.
    """
    if wanted.kind == "regions":
        return _select_regions(candidates, wanted)
    rejected: dict[str, str] = {}
    suitable = []
    apart = [one for series in candidates for one in (series.each if series.projection else (series,))]
    for series in sorted(apart, key=_by_number):
        shape = Shape(slices=1) if series.projection else shape_of(series)
        reasons = _unfit(series, shape, wanted)
        if reasons or shape is None:
            rejected[series.series_instance_uid] = "; ".join(reasons)
        else:
            suitable.append(_candidate(series, shape))
    if not suitable:
        return Selection(series=None, why=_none_suits(candidates, rejected), rejected=rejected)
    best, *others = sorted(suitable, key=lambda candidate: _rank(candidate, wanted))
    worse = [(other, _weakness(other, best, wanted)) for other in others]
    rejected |= {other.series.series_instance_uid: f"suits, but {named(best.series)} is better: this one is {weakness}" for other, weakness in worse}
    better_than = _listed([f"{named(other.series)}: {weakness}" for other, weakness in worse])
    why = f"{named(best.series)}: {best.facts}; " + (f"better than {better_than}" if worse else "the only one that suits")
    return Selection(series=best.series, why=why, rejected=rejected)


def _select_regions(candidates: Sequence[Series], wanted: Input) -> Selection:
    rejected: dict[str, str] = {}
    for series in sorted(candidates, key=_by_number):
        said = objections(wanted.when, series.header)
        if str(series.header.get("Modality")) not in _REGIONS:
            said = ("it is neither a segmentation nor a structure set",)
        elif not series.header.get(DRAWN_ON):
            said += ("it does not say which series it was drawn on",)
        if not said:
            kind = "segmentation" if series.header.get("Modality") == "SEG" else "structure set"
            return Selection(series=series, why=f"{named(series)}: a {kind}", rejected=rejected)
        rejected[series.series_instance_uid] = "; ".join(said)
    return Selection(series=None, why=_none_suits(candidates, rejected), rejected=rejected)


def named(series: Series) -> str:
    """Return a name for a series that tells nothing of the patient."""
    stated = number(series.header.get("SeriesNumber"))
    return "a series without number" if stated is None else f"series {stated:.0f}"


# ------------------------------------------------------------------------------------------------------- what must hold


def _unfit(series: Series, shape: Shape | None, wanted: Input) -> tuple[str, ...]:
    """Return why a series does not suit an input; the first reason that makes all others pointless stands alone."""
    header = series.header
    if str(header.get("Modality")) in DERIVED_MODALITIES or not number(header.get("Rows")):
        return ("holds no images",)
    said = objections(wanted.when, header) + _not_recognised(series, wanted)
    if not wanted.allow_derived:
        said += _not_acquired(series)
    if (number(header.get("SamplesPerPixel")) or 1) > 1 and not (series.projection and wanted.projections):
        said += ("its images are in colour",)
    if said:
        return said
    if series.projection:
        return _unfit_projection(header, wanted)
    if wanted.kind == "projection":
        return ("its images are slices, not projections",)
    return ("its images carry no position in the patient",) if shape is None else misfits(shape, wanted)


def _unfit_projection(header: Header, wanted: Input) -> tuple[str, ...]:
    if not wanted.projections:
        return ("its images carry no position in the patient",)
    frames = number(header.get("NumberOfFrames")) or 1
    return (f"it has {frames:.0f} frames, and only single images are taken",) if frames > 1 else ()


def _not_recognised(series: Series, wanted: Input) -> tuple[str, ...]:
    """Return what the headers' words and times have against a series, with the evidence for it."""
    if not wanted.recognised:
        return ()
    found = recognised(series)
    against = unrecognised(wanted.recognised, found)
    return tuple(f"{said} ({found.answers[facet].why})" if facet in found.answers else said for facet, said in against.items())


def _not_acquired(series: Series) -> tuple[str, ...]:
    if str(series.header.get("SOPClassUID") or "").startswith(_SECONDARY_CAPTURE):
        return ("its images are screen captures",)
    if {"LOCALIZER", "SCOUT"} & set(_image_type(series)):
        return ("it is a localizer",)
    return ("it was derived from other images",) if series.derived else ()


def _image_type(series: Series) -> tuple[str, ...]:
    stated = series.header.get("ImageType") or ()
    return (stated,) if isinstance(stated, str) else tuple(map(str, stated))


def _candidate(series: Series, shape: Shape) -> _Candidate:
    agent = str(series.header.get("ContrastBolusAgent") or "").strip()
    kernel = series.header.get("ConvolutionKernel") or ""
    return _Candidate(
        series=series,
        shape=shape,
        original=_image_type(series)[:1] == ("ORIGINAL",),
        contrast=bool(agent) and agent.casefold() not in _NO_AGENT,
        kernel=str(kernel) if isinstance(kernel, str) else "\\".join(map(str, kernel)),
        thickness_mm=max(shape.spacing_mm or 0.0, number(series.header.get("SliceThickness")) or 0.0),
    )


# ---------------------------------------------------------------------------------------------------- what is preferred

# Each preference of config.Input: how good a candidate is (lower is better), and what to say of one that is worse.
_PREFERENCES: dict[str, tuple[Callable[[_Candidate, Input], float], Callable[[_Candidate], str]]] = {
    "original": (lambda c, _: not c.original, lambda c: "not original"),
    "axial": (lambda c, _: c.shape.plane != "axial", lambda c: c.shape.plane or "of unknown plane"),
    "coronal": (lambda c, _: c.shape.plane != "coronal", lambda c: c.shape.plane or "of unknown plane"),
    "sagittal": (lambda c, _: c.shape.plane != "sagittal", lambda c: c.shape.plane or "of unknown plane"),
    # To a tenth of a millimetre: positions are written rounded. Unknown is worst.
    "thin": (
        lambda c, _: round(c.thickness_mm, 1) or 1e9,
        lambda c: f"thicker ({c.thickness_mm:.4g} mm)" if c.thickness_mm else "of unknown thickness",
    ),
    "kernel": (
        lambda c, wanted: not re.search(wanted.prefer_kernel or "", c.kernel, re.IGNORECASE),
        lambda c: f"of kernel {c.kernel}" if c.kernel else "of unknown kernel",
    ),
    "contrast": (lambda c, _: not c.contrast, lambda c: "without contrast agent"),
    "no-contrast": (lambda c, _: c.contrast, lambda c: "with contrast agent"),
    "most-slices": (lambda c, _: -c.shape.slices, lambda c: f"of fewer slices ({c.shape.slices})"),
    "largest-extent": (
        lambda c, _: -round(c.shape.extent_mm or 0),
        lambda c: f"shorter ({c.shape.extent_mm:.0f} mm)" if c.shape.extent_mm else "of unknown extent",
    ),
}


def _rank(candidate: _Candidate, wanted: Input) -> tuple[object, ...]:
    preferred = tuple(float(_PREFERENCES[word][0](candidate, wanted)) for word in wanted.prefer)
    return preferred, -candidate.shape.slices, _by_number(candidate.series)


def _weakness(other: _Candidate, best: _Candidate, wanted: Input) -> str:
    """Return by what one candidate lost to the best: the first preference in which they differ."""
    for word in (*wanted.prefer, "most-slices"):
        merit, weakness = _PREFERENCES[word]
        if merit(other, wanted) != merit(best, wanted):
            return weakness(other)
    return "equal, and comes later"


def _by_number(series: Series) -> tuple[float, str]:
    stated = number(series.header.get("SeriesNumber"))
    return float("inf") if stated is None else stated, series.series_instance_uid


# ------------------------------------------------------------------------------------------------------------ sentences


def _none_suits(candidates: Sequence[Series], rejected: Mapping[str, str]) -> str:
    if not candidates:
        return "no series suits: there is none"
    said = [f"{named(series)}: {rejected[series.series_instance_uid]}" for series in sorted(candidates, key=_by_number)]
    return f"no series suits; {_listed(said)}"


def _listed(sentences: Sequence[str]) -> str:
    more = len(sentences) - _NAMED
    return "; ".join(sentences[:_NAMED]) + (f"; and {more} more" if more > 0 else "")
