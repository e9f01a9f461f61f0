"""What a model's outputs mean, as its manifest says: coded terms, segments, measurements, answers, images, maps, presentations, key images."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydicom.sr.codedict import codes


class Part(BaseModel):
    """One table of a manifest: frozen, and without keys that nobody reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Code(Part):
    """A coded term (PS3.3 §8): value, scheme, meaning."""

    value: str = Field(min_length=1, max_length=16)
    scheme: str = Field(min_length=1, max_length=16)
    meaning: str = Field(min_length=1, max_length=64)

    @property
    def private(self) -> bool:
        """Whether the scheme is local (PS3.16 §8: it begins with 99) and has to be declared where it is used."""
        return self.scheme.startswith("99")


def _code_from(value: Any) -> Any:
    """Read "SCT.Spleen" (a keyword of pydicom's code dictionary) or ["value", "scheme", "meaning"]."""
    if isinstance(value, str):
        scheme, dot, keyword = value.partition(".")
        try:
            if not dot:
                raise AttributeError
            found = getattr(getattr(codes, scheme), keyword)
        except AttributeError:
            raise ValueError(f"'{value}' is not in pydicom's code dictionary; write it in full: [value, scheme, meaning]") from None
        return {"value": found.value, "scheme": found.scheme_designator, "meaning": found.meaning}
    if isinstance(value, list | tuple) and len(value) == 3:
        return dict(zip(("value", "scheme", "meaning"), value, strict=True))
    return value


CodeValue = Annotated[Code, BeforeValidator(_code_from)]

_UNIT_MEANINGS = {
    "1": "no units",
    "%": "percent",
    "mL": "milliliter",
    "mm": "millimeter",
    "cm2": "square centimeter",
    "mm2": "square millimeter",
    "Bq/ml": "Becquerels/milliliter",
    "[hnsf'U]": "Hounsfield unit",
}


def unit_code(ucum: str) -> Code:
    """Return a unit of UCUM as a coded term."""
    return Code(value=ucum, scheme="UCUM", meaning=_UNIT_MEANINGS.get(ucum, ucum))


def _unit_from(value: Any) -> Any:
    return unit_code(value) if isinstance(value, str) else value


UnitValue = Annotated[Code, BeforeValidator(_unit_from)]


OutputName = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9_-]{0,15}$")]  # it stands in the series' description

Fractional = Literal["PROBABILITY", "OCCUPANCY"]  # Segmentation Fractional Type (PS3.3 C.8.20.2.3)


# Told apart by people who see colours differently, too (Wong B. Points of view: color blindness. Nat Methods 8:441, 2011); sRGB.
PALETTE = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))


class Segment(Part):
    """One segment of the segmentation (PS3.3 C.8.20.4)."""

    number: int = Field(ge=1, le=65535)
    label: str = Field(min_length=1, max_length=64)
    category: CodeValue
    type: CodeValue
    laterality: CodeValue | None = None  # Segmented Property Type Modifier
    site: CodeValue | None = None  # finding site, where it is not the type itself
    colour: tuple[int, int, int] = (255, 204, 0)  # sRGB, 0 to 255
    description: str = ""


VALUE = Code(value="VALUE", scheme="99DICOMNODE", meaning="Value of the image")  # of images whose values have no name of their own


class Measurement(Part):
    """What one number in `Findings.measurements` means."""

    concept: CodeValue = VALUE
    unit: UnitValue = Code(value="1", scheme="UCUM", meaning="no units")
    unit_of: str | None = None  # in the place of `unit`, and of `concept` if that is left out: the input whose values are measured
    of: str | None = None  # what it is measured on each of: the input of kind regions, or "found"; or the presentation that it belongs to
    segment: int | None = None  # the segment it was measured on
    segments: tuple[int, ...] = ()  # one value for each of these segments
    site: CodeValue | None = None  # where, when it belongs to no segment; otherwise in which part of it
    derivation: CodeValue | None = None  # such as SCT.Mean
    method: CodeValue | None = None
    plausible: tuple[float, float] | None = None  # outside of this the result says so
    digits: int = Field(default=1, ge=0, le=12)  # decimals in the report

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if sum((self.segment is not None, bool(self.segments), self.of is not None)) > 1:
            raise ValueError("names more than one of segment, segments and of; keep one")
        if (self.unit_of is not None) is ("unit" in self.model_fields_set):
            raise ValueError("names both unit and unit_of, or neither; keep one")
        if self.unit_of is None and "concept" not in self.model_fields_set:
            raise ValueError("names no concept")
        return self

    def on_regions(self, numbers: tuple[int, ...], quantities: Mapping[str, tuple[Code, Code]]) -> "Measurement":
        """Return the measurement as it reads for regions of these numbers, in the inputs' quantities."""
        changed: dict[str, Any] = {"segments": numbers} if numbers else {}
        if self.unit_of is not None:
            concept, changed["unit"] = quantities[self.unit_of]
            changed |= {} if "concept" in self.model_fields_set else {"concept": concept}
        return self.model_copy(update=changed)

    @property
    def on(self) -> tuple[int, ...]:
        """The segments it is measured on, none when it belongs to the whole input."""
        return self.segments or (() if self.segment is None else (self.segment,))


class Evaluation(Part):
    """What one answer in `Findings.evaluations` means."""

    concept: CodeValue
    answers: dict[str, CodeValue] = Field(min_length=1)
    site: CodeValue | None = None


class FoundSegments(Part):
    """What each segment is where nobody knows beforehand how many there are, such as candidates: the numbers from 1 to as many as were found."""

    most: int = Field(default=20, ge=1, le=255)  # more than these are a fault of the model
    label: str = Field(min_length=1, max_length=58)  # a number follows it
    category: CodeValue
    type: CodeValue
    laterality: CodeValue | None = None
    site: CodeValue | None = None
    description: str = ""

    def segments(self, count: int) -> tuple[Segment, ...]:
        """Return the segments of so many that were found, in the manifest's terms."""
        shared = {name: getattr(self, name) for name in ("category", "type", "laterality", "site", "description")}
        return tuple(
            Segment(number=number, label=f"{self.label} {number}", colour=PALETTE[(number - 1) % len(PALETTE)], **shared)
            for number in range(1, count + 1)
        )

    @property
    def absent(self) -> Segment:
        """What was looked for where nothing was found."""
        shared = {name: getattr(self, name) for name in ("label", "category", "type", "laterality", "site", "description")}
        return Segment(number=1, colour=PALETTE[0], **shared)


class DerivedImage(Part):
    """What one series of images in `Findings.images` is: a copy of an input's images with other values, in the same place and unit."""

    description: str = Field(min_length=1, max_length=64)  # what was done, for the reader
    derivation: tuple[CodeValue, ...] = Field(min_length=1)  # Derivation Code Sequence, of CID 7203
    image_type: str = Field(pattern="^[A-Z0-9][A-Z0-9_ ]{0,15}$")  # the last value of Image Type (a CS, PS3.5 Table 6.2-1), such as DENOISED
    of: str | None = None  # the input that it is a copy of; none: the first


class PresentationState(Part):
    """What one entry in `Findings.presentations` is: how the images of an input are to be shown, as a Grayscale Softcopy Presentation State."""

    label: str = Field(pattern="^[A-Z0-9][A-Z0-9_ ]{0,15}$")  # Content Label (a CS), such as LUNG: viewers list it
    description: str = Field(min_length=1, max_length=64)
    of: str | None = None  # the input that it presents; none: the first


class ParametricMap(Part):
    """What one entry in `Findings.maps` is: a quantity at each voxel of an input, as a Parametric Map."""

    description: str = Field(min_length=1, max_length=64)
    quantity: CodeValue
    unit: UnitValue
    of: str | None = None  # the input on whose grid it lies; none: the first


class KeyImages(Part):
    """What one entry in `Findings.keys` is: images of an input that a person should look at, as a Key Object Selection."""

    title: CodeValue  # Document Title, of CID 7010
    description: str = Field(min_length=1, max_length=1024)
    of: str | None = None  # the input whose slices they are; none: the first
