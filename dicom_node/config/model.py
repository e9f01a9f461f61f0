"""What a model says of itself: `model.toml`, read without importing the model's code."""

import copy
import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from dicom_node.config.conditions import Conditions, RecognisedConditions
from dicom_node.config.outputs import (
    Code,
    CodeValue,
    DerivedImage,
    Evaluation,
    FoundSegments,
    Fractional,
    KeyImages,
    Measurement,
    OutputName,
    ParametricMap,
    Part,
    PresentationState,
    Segment,
)
from dicom_node.domain import DRAWN_ON, RECOGNITION_KEYWORDS, derived_uid

FOUND = "found"  # what a measurement is of that is measured on each segment found
_METHODS = Path(__file__).parents[1] / "methods"


def _input_from(value: Any) -> Any:
    """Part PascalCase keys (DICOM keywords, conditions) from snake_case keys (ours)."""
    if not isinstance(value, dict) or "when" in value:
        return value
    ours = {key: v for key, v in value.items() if key[:1].islower()}
    return ours | {"when": {key: v for key, v in value.items() if not key[:1].islower()}}


# What may decide between series that all suit; `assemble.selection` gives each its meaning.
Preference = Literal["original", "axial", "coronal", "sagittal", "thin", "kernel", "contrast", "no-contrast", "most-slices", "largest-extent"]


class Input(Part):
    """What one argument of `analyse` accepts: one image series, one projection image, or the regions that somebody drew on a series.

    kind: "image" is a series of slices. "projection" is one image that is no slice, such as a radiograph or an ultrasound image; "either" is one or
    the other. "regions" is a segmentation or a structure set that refers to the series of the input named by `of`. Each projection image, and each
    object with regions, is analysed by itself.
    """

    kind: Literal["image", "projection", "either", "regions"] = "image"
    of: str | None = None  # of regions: the image input that they lie on
    prior: bool = False  # whether it takes a series of an earlier study of the patient, or nothing where there is none
    when: Conditions = Field(default_factory=dict)
    recognised: RecognisedConditions = Field(default_factory=dict)  # of what headers, and at last pixels, say that it shows; absent: not recognised
    plane: Literal["axial", "coronal", "sagittal"] | None = None  # of the slices, within 30 degrees; none: any
    min_slices: int = 1
    max_slice_spacing_mm: float | None = None
    min_extent_mm: float | None = None  # across all slices
    photometric: Literal["MONOCHROME2"] | None = None  # of projections: MONOCHROME2 turns values so that higher is brighter; none: as they are
    units: Literal["HU"] | None = None  # of the values; none: as the real-world value mapping or the rescale gives them
    dtype: Literal["float32", "int16"] = "float32"  # of the values; int16 takes half the memory, and an input whose values do not fit is unsuitable
    allow_derived: bool = False
    allow_gaps: bool = False  # whether a missing slice may be tolerated (the volume then has it interpolated): never silently
    max_tilt_deg: float = 0.5  # of the gantry; above it the input is unsuitable
    prefer: tuple[Preference, ...] = ("original", "axial", "thin")  # order of preference among what is left
    prefer_kernel: str | None = None  # a regular expression over ConvolutionKernel, for "kernel" in `prefer`

    @model_validator(mode="after")
    def _regions_lie_on_something(self) -> Self:
        if (self.kind == "regions") is (self.of is None):
            raise ValueError("is of kind regions and names no `of`, or the other way about: regions lie on the image input that `of` names")
        return self

    @model_validator(mode="after")
    def _asks_of_a_projection_what_it_has(self) -> Self:
        odd = {
            "plane",
            "min_slices",
            "max_slice_spacing_mm",
            "min_extent_mm",
            "units",
            "allow_gaps",
            "max_tilt_deg",
            "prefer",
        } & self.model_fields_set
        if self.kind == "projection" and odd:
            raise ValueError(f"is a projection, which has neither slices nor Hounsfield units: leave out {', '.join(sorted(odd))}")
        if self.photometric and not self.projections:
            raise ValueError("names photometric, which is of projections only: leave it out")
        return self

    @model_validator(mode="after")
    def _prior_is_a_series(self) -> Self:
        if self.prior and self.kind != "image":
            raise ValueError(f"is a prior of kind {self.kind}: of earlier studies a series of slices is taken")
        return self

    @model_validator(mode="after")
    def _kernel_is_named(self) -> Self:
        if "kernel" in self.prefer and self.prefer_kernel is None:
            raise ValueError("prefers a kernel but does not name one: give prefer_kernel, a regular expression")
        try:
            re.compile(self.prefer_kernel or "")
        except re.error as error:
            raise ValueError(f"prefer_kernel '{self.prefer_kernel}' is not a regular expression: {error}") from error
        return self

    @property
    def projections(self) -> bool:
        """Whether it takes projection images."""
        return self.kind in ("projection", "either")


class Weights(Part):
    """One file the model needs: taken out of a package of the Python index, by hash, or, where none is named, put into its folder by the site."""

    file: str  # its name in the model's weights folder, or in its own where the site puts it
    package: str | None = None  # name==version
    package_sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    member: str | None = None  # path inside the package
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    sdist: bool = False

    @property
    def local(self) -> bool:
        """Whether the site puts it into the model's folder."""
        return self.package is None

    @model_validator(mode="after")
    def _whole_package_or_none(self) -> Self:
        said = [self.package, self.package_sha256, self.member, self.sha256]
        if None in said and (self.sdist or said != [None] * 4):
            raise ValueError(f"file '{self.file}' needs package, package_sha256, member and sha256, or none of them: the site then puts it there")
        return self

    @model_validator(mode="after")
    def _plain_name(self) -> Self:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", self.file):
            raise ValueError(f"file '{self.file}' is not a plain file name")
        return self


class Resources(Part):
    """What one analysis may use; the site's configuration may override."""

    memory_mb: int = Field(default=4096, ge=64)
    timeout_s: float = Field(default=600.0, gt=0)
    bf16: bool = False  # bfloat16 autocast where the processor has it
    libraries: tuple[str, ...] = ()  # imported once before the first analysis, such as torch


class Manifest(Part):
    """All that `model.toml` says."""

    name: str = Field(pattern="^[a-z0-9][a-z0-9-]{0,39}$")
    version: str = Field(min_length=1, max_length=16)
    task: str = Field(min_length=1)
    manufacturer: str = Field(default="dicom-node project", max_length=64)
    intended_use: str = "Research use only; not for diagnosis."
    not_for: tuple[str, ...] = ()
    licence: str = "Apache-2.0"
    citations: tuple[str, ...] = ()
    family: CodeValue = Code(value="123110", scheme="DCM", meaning="Artificial Intelligence")  # CID 7162
    runner: Literal["python"] = "python"
    inputs: dict[str, Annotated[Input, BeforeValidator(_input_from)]] = Field(min_length=1)
    segments: tuple[Segment, ...] = ()
    fractional: Fractional | None = None  # what a value from 0 to 1 of a segment says; none: a label map, which has no such values
    measurements: dict[str, Measurement] = Field(default_factory=dict)
    evaluations: dict[str, Evaluation] = Field(default_factory=dict)
    found: FoundSegments | None = None  # in the place of `segments`, where their number is not known beforehand
    images: dict[OutputName, DerivedImage] = Field(default_factory=dict)
    maps: dict[OutputName, ParametricMap] = Field(default_factory=dict)
    presentations: dict[OutputName, PresentationState] = Field(default_factory=dict)
    keys: dict[OutputName, KeyImages] = Field(default_factory=dict)
    weights: tuple[Weights, ...] = ()
    resources: Resources = Resources()
    performance: tuple[dict[str, Any], ...] = ()  # figures measured, with data set and command
    procedure: CodeValue = Code(value="363679005", scheme="SCT", meaning="Imaging procedure")  # procedure reported

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        unfit = [name for name in self.inputs if not name.isidentifier() or name == "progress"]
        if unfit:
            raise ValueError(f"inputs.{unfit[0]} cannot be an argument of `analyse`: use letters, digits and _, and not `progress`")
        numbers = [segment.number for segment in self.segments]
        if numbers != list(range(1, len(numbers) + 1)):
            raise ValueError(f"segments are numbered {numbers}; number them from 1 without holes")
        if self.fractional and not numbers:
            raise ValueError("is fractional and describes no segments: describe them, or leave fractional out")
        for name, measurement in self.measurements.items():
            missing = [n for n in measurement.on if n not in numbers]
            if missing:
                raise ValueError(f"measurements.{name} names segment {missing[0]}, which is not described")
        outputs = (self.segments, self.found, self.measurements, self.evaluations, self.images, self.maps, self.presentations, self.keys)
        if not any(outputs):
            raise ValueError("has no output: describe segments, measurements, evaluations, images, maps, presentations or keys")
        return self

    @model_validator(mode="after")
    def _outputs_are_of_inputs(self) -> Self:
        pictured = [name for name, one in self.inputs.items() if one.kind != "regions" and not one.prior]
        for kind in ("images", "maps", "presentations", "keys"):
            for name, one in getattr(self, kind).items():
                if one.of not in (None, *pictured):
                    raise ValueError(f"{kind}.{name} is of input '{one.of}', which is not described")
        if self.found and (self.segments or self.fractional):
            raise ValueError("describes both found and segments, or fractions of what is found; keep one")
        if self.found and FOUND in self.inputs:
            raise ValueError(f"inputs.{FOUND} has the name of what is found: call it otherwise")
        if named := {FOUND, *self.inputs} & set(self.presentations):
            raise ValueError(f"presentations.{min(named)} has the name of an input or of what is found: call it otherwise")
        return self

    @model_validator(mode="after")
    def _regions_are_inputs(self) -> Self:
        first = next(iter(self.inputs))
        if self.inputs[first].prior:
            raise ValueError(f"inputs.{first} is a prior: the first input is of the study that is analysed")
        drawn = [name for name, one in self.inputs.items() if one.kind == "regions"]
        if len(drawn) > 1 or first in drawn:
            raise ValueError("the first input is an image, and one of the others at most is of kind regions")
        if drawn and (self.segments or self.fractional or self.found):
            raise ValueError(f"describes segments, though inputs.{drawn[0]} brings them: leave them out")
        if drawn and self.inputs[drawn[0]].of != first:
            raise ValueError(f"inputs.{drawn[0]}.of is not '{first}': regions lie on the first input")
        for name, measurement in self.measurements.items():
            if measurement.of is not None and measurement.of not in [*drawn, *([FOUND] if self.found else []), *self.presentations]:
                said = f"measurements.{name}.of is '{measurement.of}', which is no input of kind regions, nor what [{FOUND}] describes"
                raise ValueError(f"{said}, nor a presentation")
            if measurement.unit_of is not None and measurement.unit_of not in self.inputs:
                raise ValueError(f"measurements.{name}.unit_of is '{measurement.unit_of}', which is no input")
        return self

    @model_validator(mode="after")
    def _projections_stand_alone(self) -> Self:
        name = next((name for name, one in self.inputs.items() if one.projections), None)
        if name and len(self.inputs) > 1:
            raise ValueError(f"inputs.{name} takes projection images, each by itself: it is the only input")
        if name and (self.segments or self.found or self.maps):
            said = f"describes segments or maps, but projection images, which inputs.{name} takes, have no frame of reference"
            raise ValueError(f"{said}: leave them out")
        return self

    @property
    def keywords(self) -> frozenset[str]:
        """The DICOM keywords that its inputs ask for."""
        asked = {keyword for one in self.inputs.values() for keyword in (*one.when, *(RECOGNITION_KEYWORDS if one.recognised else ()))}
        return frozenset(asked | ({DRAWN_ON} if self.regions else set()))

    @property
    def priors(self) -> tuple[str, ...]:
        """The inputs that take series of earlier studies."""
        return tuple(name for name, one in self.inputs.items() if one.prior)

    @property
    def regions(self) -> str | None:
        """The input of kind regions, if there is one."""
        return next((name for name, one in self.inputs.items() if one.kind == "regions"), None)

    def of_regions(self, segments: Sequence[Segment], quantities: Mapping[str, tuple[Code, Code]], *, overlap: bool) -> "Manifest":
        """Return the manifest as it reads for one set of regions: these are its segments, and what is measured on each names them.

        quantities: what the values of each image input are, and their unit. overlap: whether some lie on others, so that no label map can hold them.
        """
        numbers = tuple(segment.number for segment in segments)
        measurements = {name: one.on_regions(numbers if one.of == self.regions else (), quantities) for name, one in self.measurements.items()}
        return self.model_copy(update={"segments": tuple(segments), "measurements": measurements, "fractional": "OCCUPANCY" if overlap else None})

    def of_found(self, count: int) -> "Manifest":
        """Return the manifest as it reads where so many segments were found: these are its segments, and what is measured on each names them.

        Of none it describes one, which was looked for, and nothing that is measured on it.
        """
        if self.found is None:
            return self
        numbers = tuple(range(1, count + 1))
        measured = {
            name: one.model_copy(update={"segments": numbers}) if one.of == FOUND else one
            for name, one in self.measurements.items()
            if count or one.of != FOUND
        }
        return self.model_copy(update={"segments": self.found.segments(count) or (self.found.absent,), "measurements": measured, "found": None})

    def of_made(self, presentations: Collection[str]) -> "Manifest":
        """Return the manifest as it reads where these presentations are made: without the measurements that belong to others."""
        unmade = set(self.presentations) - set(presentations)
        return self.model_copy(update={"measurements": {name: one for name, one in self.measurements.items() if one.of not in unmade}})

    def input_of(self, output: DerivedImage | ParametricMap | PresentationState | KeyImages) -> str:
        """Return the name of the input that an output belongs to."""
        return output.of or next(iter(self.inputs))


class Model:
    """One model's folder as it can run here: its manifest, its code and its weights, named by what they contain."""

    def __init__(self, folder: Path, manifest: Manifest, weights_folder: Path) -> None:
        self.folder = folder
        self.manifest = manifest
        self.weights_folder = weights_folder  # where the files of `manifest.weights` lie once fetched

    @property
    def name(self) -> str:
        """The manifest's name."""
        return self.manifest.name

    def reading(self, manifest: Manifest) -> "Model":
        """Return the same build with its manifest as it reads for one set of inputs."""
        read = copy.copy(self)  # with its build, if that was asked for already
        read.manifest = manifest
        return read

    @cached_property
    def build(self) -> str:
        """SHA-256 over manifest, code, other files of the folder and fetched weights' hashes: any change to one of them is another build.

        Of the build is also every method of dicom_node, where the code imports one. Not of it are documents (.md), hidden files and what Python
        compiles.
        """
        digest, methods = hashlib.sha256(), False
        for path in sorted(p for p in self.folder.rglob("*") if p.is_file() and _is_of_the_build(p.relative_to(self.folder))):
            content = path.read_bytes()
            digest.update(path.relative_to(self.folder).as_posix().encode() + b"\0" + content + b"\0")
            methods |= path.suffix == ".py" and b"dicom_node.methods" in content
        for path in sorted(_METHODS.rglob("*.py")) if methods else ():
            digest.update(path.relative_to(_METHODS).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
        for weights in self.manifest.weights:
            digest.update((weights.sha256 or "").encode())  # a local one is of the folder
        return digest.hexdigest()

    @property
    def device_uid(self) -> str:
        """The Device UID (0018,1002) of this build (IHE AIR: a new one for each change)."""
        return derived_uid("device", self.manifest.name, self.manifest.version, self.build)

    @property
    def missing_weights(self) -> tuple[Weights, ...]:
        """The weights that are not where the model will look for them."""
        return tuple(w for w in self.manifest.weights if not ((self.folder if w.local else self.weights_folder) / w.file).is_file())


def _is_of_the_build(path: Path) -> bool:
    return path.suffix != ".md" and "__pycache__" not in path.parts and not any(part.startswith(".") for part in path.parts)
