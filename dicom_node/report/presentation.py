"""How images are to be shown, as a Grayscale Softcopy Presentation State (PS3.3 A.33.1): a window, marks on slices, and no pixel of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from highdicom import ModalityLUTTransformation, PresentationLUTTransformation, ReferencedImageSequence
from highdicom.color import CIELabColor
from highdicom.pr import GraphicAnnotation, GraphicLayer, GraphicObject, GrayscaleSoftcopyPresentationState, SoftcopyVOILUTTransformation, TextObject
from pydicom import Dataset
from pydicom.valuerep import DSfloat

from dicom_node.domain import Assembled, Mark, ModelFailed, Presentation, Unsuitable
from dicom_node.report.evidence import identified
from dicom_node.report.grid import Plane, group_of, images, planes
from dicom_node.report.header import serial_number, settle
from dicom_node.report.run import Run
from dicom_node.report.side import state_part, state_side
from dicom_node.report.words import Words

_LAYER = GraphicLayer("AI", order=1, description="AI, research use, unverified", display_color=CIELabColor.from_rgb(255, 204, 0))
_FINEST_RATIO = 1000
_HALF = 0.5  # in GSPS coordinates the corner of the first pixel is 0\0, and its centre lies half a pixel further (PS3.3 C.10.5)


def presentation(name: str, wanted: Presentation, assembled: Assembled, run: Run) -> Dataset:
    """Return the presentation state of an input.

    It applies to all images of the input. A slice that was interpolated shows no mark: there is no image to draw it on.

    Raises
    ------
    Unsuitable: the images are in colour, or have different rescales, so that no single state can present them.
    """
    described, words = run.model.manifest.presentations[name], Words.of(assembled.sources[0])
    sources = list(images(assembled))
    scale = _one_scale(name, sources)
    standins = [_standin(source) for source in sources]
    marked = _annotations(wanted.marks, assembled, words) if wanted.marks else []
    built = GrayscaleSoftcopyPresentationState(
        referenced_images=standins,
        series_instance_uid=run.uid("PR series"),
        series_number=1,
        sop_instance_uid=run.uid(f"PR {name}"),
        instance_number=1 + list(run.model.manifest.presentations).index(name),
        manufacturer=words.say(run.model.manifest.manufacturer, 64),
        manufacturer_model_name=run.model.name,
        software_versions=words.say(run.model.manifest.version, 64),
        device_serial_number=serial_number(run),
        content_label=described.label,
        content_description=words.say(f"{described.description}: AI, research use", 64),
        graphic_annotations=marked or None,
        graphic_layers=[_LAYER] if marked else None,
        modality_lut_transformation=scale.transformation,
        voi_lut_transformations=_windows(_as_stored(wanted, assembled), sources, scale, words.say(described.description, 64)),
        presentation_lut_transformation=_polarity(sources[0]),
    )
    built.ContentCreatorName = None  # type 2, and no person made it
    built.PresentationCreationDate, built.PresentationCreationTime = run.moment(str(sources[0].get("TimezoneOffsetFromUTC") or ""))
    _keep_aspect(built, planes(assembled)[0], assembled)
    settle(built, sources[0], run, "PR")
    state_part(built, sources[0])
    state_side(built, sources[0])
    return built


def _standin(source: Dataset) -> Dataset:
    """Return an image as the state refers to it; its windows, of which highdicom would take all frames', are said by `_windows`."""
    item = identified(source, "Rows", "Columns", "SamplesPerPixel")
    if source.get("PerFrameFunctionalGroupsSequence"):
        item.SharedFunctionalGroupsSequence, item.PerFrameFunctionalGroupsSequence = [Dataset()], []
    return item


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    """The modality LUT of the images, as their headers state it; without one a value is what is stored (PS3.3 C.11.1)."""

    slope: float
    intercept: float
    type: str | None  # Rescale Type; None: no rescale

    @property
    def transformation(self) -> ModalityLUTTransformation | None:
        if self.type is None:
            return None
        return ModalityLUTTransformation(rescale_intercept=self.intercept, rescale_slope=self.slope, rescale_type=self.type)


def _one_scale(name: str, sources: Sequence[Dataset]) -> _Scale:
    """Return the rescale that all images have.

    Raises
    ------
    Unsuitable: they have different ones, a table in its place, or colours.
    """
    if any(source.get("SamplesPerPixel", 1) != 1 for source in sources):
        raise Unsuitable(f"presentation '{name}' is of images in colour, which have no window", hint="Send images in shades of grey.")
    if any(source.get("ModalityLUTSequence") for source in sources):
        raise Unsuitable(f"presentation '{name}' is of images whose values a table gives", hint="Send images with rescale slope and intercept.")
    found = {scale for source in sources for scale in _scales(source)}
    if len(found) != 1:
        hint = "Send images with one rescale slope and intercept."
        raise Unsuitable(f"presentation '{name}' is of images with {len(found)} different rescales, which one state cannot present", hint=hint)
    return found.pop()


def _scales(source: Dataset) -> list[_Scale]:
    frames = source.get("PerFrameFunctionalGroupsSequence")
    if not frames:
        return [_scale(source)]
    shared = source.SharedFunctionalGroupsSequence[0] if source.get("SharedFunctionalGroupsSequence") else Dataset()
    return [_scale(group_of(frame, shared, "PixelValueTransformationSequence")) for frame in frames]


def _scale(place: Dataset) -> _Scale:
    slope, intercept = place.get("RescaleSlope"), place.get("RescaleIntercept")
    if slope is None or intercept is None:
        return _Scale(slope=1.0, intercept=0.0, type=None)
    return _Scale(slope=float(slope), intercept=float(intercept), type=str(place.get("RescaleType") or "US"))


def _as_stored(wanted: Presentation, assembled: Assembled) -> Presentation:
    """Return the window for the image's own values where the model's are turned: what is shown, once inverted, is the same (PS3.3 C.11.2.1.2)."""
    if wanted.window is None or assembled.turned is None:
        return wanted
    center, width = wanted.window
    return replace(wanted, window=(assembled.turned - center + (1 if width >= 1 else 0), width))


def _windows(wanted: Presentation, sources: Sequence[Dataset], scale: _Scale, explanation: str) -> list[SoftcopyVOILUTTransformation] | None:
    """Return the window for all images, in what the modality LUT gives (PS3.3 C.11.2, C.11.8); without one, each image's own, where it has one."""
    if wanted.window is not None:
        return [_voi(*_through(sources[0], scale, *wanted.window), explanation)]
    own: dict[tuple[float, float], list[Dataset]] = {}
    for source in sources:
        window = _own_window(source)
        if window is not None:
            own.setdefault(window, []).append(identified(source))
    everywhere = len(own) == 1 and len(next(iter(own.values()))) == len(sources)
    return [_voi(*window, "of the images", () if everywhere else shown) for window, shown in own.items()] or None


def _through(source: Dataset, scale: _Scale, center: float, width: float) -> tuple[float, float]:
    """Return a window in the model's values as one in what the modality LUT gives: the same, unless a real-world value mapping gave the values."""
    mapping: Dataset = next(iter(source.get("RealWorldValueMappingSequence") or ()), Dataset())
    if scale.type == "HU" or "RealWorldValueSlope" not in mapping:
        return center, width
    ratio = scale.slope / float(mapping.RealWorldValueSlope)
    return (center - float(mapping.RealWorldValueIntercept)) * ratio + scale.intercept, width * abs(ratio)


def _own_window(source: Dataset) -> tuple[float, float] | None:
    """Return the first window that an image, or the first frame of one, asks for; None without a sound one."""
    frames, shared = source.get("PerFrameFunctionalGroupsSequence"), source.get("SharedFunctionalGroupsSequence")
    place = group_of(frames[0], shared[0] if shared else Dataset(), "FrameVOILUTSequence") if frames else source
    try:
        center, width = (float(np.ravel(np.asarray(place.get(keyword), float))[0]) for keyword in ("WindowCenter", "WindowWidth"))
    except (ValueError, TypeError, IndexError):
        return None
    return (center, width) if np.isfinite(center) and width >= 1 else None


def _voi(center: float, width: float, explanation: str, shown: Sequence[Dataset] = ()) -> SoftcopyVOILUTTransformation:
    return SoftcopyVOILUTTransformation(
        window_center=center,
        window_width=width,
        window_explanation=explanation,
        voi_lut_function="LINEAR" if width >= 1 else "LINEAR_EXACT",
        referenced_images=ReferencedImageSequence(shown) if shown else None,
    )


def _polarity(source: Dataset) -> PresentationLUTTransformation:
    """Return what keeps an image in which low is white so (PS3.3 C.11.6)."""
    white_first = source.get("PhotometricInterpretation") == "MONOCHROME1" or source.get("PresentationLUTShape") == "INVERSE"
    return PresentationLUTTransformation(presentation_lut_shape="INVERSE" if white_first else "IDENTITY")


def _keep_aspect(built: Dataset, plane: Plane, assembled: Assembled) -> None:
    """State the pixels' size in place of a ratio of one to one; of a projection, where they have none in the patient, their ratio (PS3.3 C.10.4)."""
    area = built.DisplayedAreaSelectionSequence[0]
    if assembled.projection:
        ratio = Fraction(plane.spacing_mm[0] / plane.spacing_mm[1]).limit_denominator(_FINEST_RATIO)
        area.PresentationPixelAspectRatio = [ratio.numerator, ratio.denominator]
        return
    del area.PresentationPixelAspectRatio
    area.PresentationPixelSpacing = [DSfloat(number, auto_format=True) for number in plane.spacing_mm]


# ------------------------------------------------------------------------------------------------------------------ marks


def _annotations(marks: Sequence[Mark], assembled: Assembled, words: Words) -> list[GraphicAnnotation]:
    """Return one annotation for each image that is marked."""
    shown = {plane.slice_index: plane for plane in planes(assembled)}
    sources = {source.SOPInstanceUID: source for source in images(assembled)}
    by_slice: dict[int, list[Mark]] = {}
    for mark in marks:
        if mark.slice in shown:
            by_slice.setdefault(mark.slice, []).append(mark)
    return [
        GraphicAnnotation(
            referenced_images=[identified(sources[shown[index].sop_instance_uid], "Rows", "Columns", "NumberOfFrames")],
            referenced_frame_number=shown[index].frame_number,
            graphic_layer=_LAYER,
            graphic_objects=[_drawn(mark) for mark in drawn],
            text_objects=[_written(mark, words) for mark in drawn if mark.text.strip()] or None,
        )
        for index, drawn in sorted(by_slice.items())
    ]


def _drawn(mark: Mark) -> GraphicObject:
    points = np.array([(column + _HALF, row + _HALF) for row, column in mark.points])
    try:
        return GraphicObject(graphic_type=mark.kind, graphic_data=points, units="PIXEL")
    except ValueError as error:
        raise ModelFailed(f"a {mark.kind} of slice {mark.slice} cannot be drawn: {error}", hint="Give (row, column) in pixels.") from error


def _written(mark: Mark, words: Words) -> TextObject:
    """Return a mark's text, anchored at the rightmost of what is drawn: the circle's edge, not its centre."""
    (row, column), *rest = mark.points
    right = column + float(np.hypot(rest[0][0] - row, rest[0][1] - column)) if mark.kind == "CIRCLE" else max(c for _, c in mark.points)
    return TextObject(
        text_value=words.say(mark.text),
        units="PIXEL",
        anchor_point=(right + _HALF, row + _HALF),
        anchor_point_visible=False,
    )
