"""A quantity at each voxel, as a Parametric Map (PS3.3 A.75): 32-bit floating point numbers on the planes of their source images."""

from io import BytesIO
from typing import Any

import numpy as np
from highdicom import VOILUTTransformation
from highdicom.pm import ParametricMap, RealWorldValueMapping
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.tag import Tag

from dicom_node.domain import Assembled, ModelFailed, Unsuitable
from dicom_node.report.frames import Frame, functional_groups, in_space, spacing_mm
from dicom_node.report.grid import Plane, planes
from dicom_node.report.header import serial_number, settle
from dicom_node.report.multiframe import name_dimensions, name_sources, space, standin
from dicom_node.report.run import Run
from dicom_node.report.side import state_part, state_side
from dicom_node.report.words import Words

_CALCULATED = codes.DCM.UnspecifiedMethodOfCalculation  # Derivation Code: CID 7203 has none for what a model computes
_PER_FRAME, _PIXELS = Tag("PerFrameFunctionalGroupsSequence"), Tag("FloatPixelData")


def parametric_map(name: str, values: Any, assembled: Assembled, run: Run) -> Dataset:
    """Return one frame for each slice of the volume that has an image, in the order of space.

    values: a Volume (slice, row, column) on the grid of the input, finite, in the manifest's unit.

    Raises
    ------
    Unsuitable: the images name no frame of reference.
    ModelFailed: the values are not on the grid of the input.
    """
    source, words = assembled.sources[0], Words.of(assembled.sources[0])
    if not source.get("FrameOfReferenceUID"):
        raise Unsuitable("the images name no frame of reference, so that a map cannot be laid over them")
    if values.array.shape != assembled.volume.array.shape or not np.allclose(values.affine, assembled.volume.affine, atol=1e-6):
        raise ModelFailed(f"the map '{name}' is not on its input's grid", hint="Return it with `volume.with_array`.")
    shown = planes(assembled)
    built = Dataset()  # no longer highdicom's own class, which knows the frames that it was built with
    over_one_plane = _built(name, values.array, assembled, shown[0], run, words)
    built.update(over_one_plane)
    built.file_meta = over_one_plane.file_meta
    built.ContentCreatorName = None  # type 2, and no person made it
    name_sources(built, shown, source.SeriesInstanceUID)
    name_dimensions(built, run.uid(f"PM {name} dimensions"))
    _put_frames(built, values.array, shown)
    settle(built, source, run, f"PM {name}")
    state_part(built, source)
    state_side(built, source)
    return built


def _built(name: str, values: np.ndarray, assembled: Assembled, plane: Plane, run: Run, words: Words) -> ParametricMap:
    """Let highdicom build the object over one row of pixels in one plane: all that is said once for the whole object."""
    manifest, described = run.model.manifest, run.model.manifest.maps[name]
    low, high = float(values.min()), float(values.max())
    meaning = RealWorldValueMapping(
        lut_label=name.upper()[:16],
        lut_explanation=words.say(described.description, 64),
        unit=words.concept(described.unit),
        value_range=(low, high),
        slope=1.0,
        intercept=0.0,
        quantity_definition=words.concept(described.quantity),
    )
    return ParametricMap(
        source_images=[standin(plane, assembled, columns=1)],
        pixel_array=np.zeros((1, 1, 1), np.float32),
        series_instance_uid=run.uid(f"PM {name} series"),
        series_number=1,
        sop_instance_uid=run.uid(f"PM {name}"),
        instance_number=1,
        manufacturer=words.say(manifest.manufacturer, 64),
        manufacturer_model_name=manifest.name,
        software_versions=words.say(manifest.version, 64),
        device_serial_number=serial_number(run),
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[meaning],
        voi_lut_transformations=[_window(low, high)],
        content_label="AI_RESEARCH",
        content_description=words.say(f"{described.description}: AI, research use", 64),
        derivation=_CALCULATED,
    )


def _window(low: float, high: float) -> VOILUTTransformation:
    """Return a window over all values (PS3.3 C.11.2.1.3): to see it is a start, what to look for nobody knows better."""
    width = max(high - low, 1e-6)
    return VOILUTTransformation(window_center=(low + high) / 2, window_width=width, voi_lut_function="LINEAR_EXACT")


def _put_frames(built: Dataset, values: np.ndarray, shown: list[Plane]) -> None:
    """Put the frames, and what depends on them, in the place of the one that highdicom was given (PS3.3 C.7.6.16, C.7.6.17, C.7.6.24)."""
    frames = [Frame(plane=plane, place=place) for place, plane in enumerate(in_space(shown), start=1)]
    space(built.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0], shown)
    built.pop("DimensionOrganizationType", None)
    if len(frames) > 1 and spacing_mm([frame.plane for frame in frames], sort=False):
        built.DimensionOrganizationType = "3D"
    built.NumberOfFrames = len(frames)
    built.Rows, built.Columns = values.shape[1:]
    built[_PER_FRAME] = functional_groups(frames, _CALCULATED)
    data = BytesIO()  # which pydicom writes as it is: of bytes it would make more copies
    for frame in frames:
        data.write(np.ascontiguousarray(values[frame.plane.slice_index], "<f4").data)
    data.seek(0)
    built.add_new(_PIXELS, "OF", data)
