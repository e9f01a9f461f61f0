"""A manifest that measures regions, as it reads for those that were drawn: they are its segments."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydicom import Dataset
from pydicom.sr.codedict import codes

from dicom_node.config import VALUE, Code, Model, Segment, unit_code
from dicom_node.domain import Assembled, Region, Term, Unsuitable

_SIDES = frozenset({"7771000", "24028007", "51440002"})  # SCT: left, right, right and left
_COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
_BY_CHANNEL = 4  # dimensions of a volume that holds a part for each region


def reading(model: Model, inputs: Mapping[str, Assembled]) -> Model:
    """Return a model with its manifest as it reads for these inputs.

    Raises
    ------
    Unsuitable: a region is described by codes that are none.
    """
    manifest = model.manifest
    if manifest.regions is None:
        return model
    drawn = inputs[manifest.regions]
    overlap = drawn.volume.array.ndim == _BY_CHANNEL
    quantities = {name: quantity_of(inputs[name].sources[0]) for name, one in manifest.inputs.items() if one.kind == "image"}
    return model.reading(manifest.of_regions(segments(drawn.regions), quantities, overlap=overlap))


def segments(regions: Sequence[Region]) -> tuple[Segment, ...]:
    """Return regions as a manifest describes segments."""
    try:
        return tuple(_segment(number, region) for number, region in enumerate(regions, start=1))
    except ValidationError as error:
        raise Unsuitable("a region is described by codes that are none", hint="Look at the object with a validator such as dciodvfy.") from error


def quantity_of(image: Dataset) -> tuple[Code, Code]:
    """Return what an image's values are, and their unit: Hounsfield units of CT, activity of PET (PS3.3 C.8.9.1), signal of MR."""
    modality = image.get("Modality")
    if modality == "CT":
        return _named(codes.DCM.AttenuationCoefficient), unit_code("[hnsf'U]")
    if modality == "PT" and image.get("Units") == "BQML":
        return _named(codes.DCM.NuclearMedicineTomographicActivity), unit_code("Bq/ml")
    return (_named(codes.DCM.MRSignalIntensity) if modality == "MR" else VALUE), unit_code("1")


def _named(term: Any) -> Code:
    return Code(value=term.value, scheme=term.scheme_designator, meaning=term.meaning)


def _segment(number: int, region: Region) -> Segment:
    side = region.modifier if region.modifier and region.modifier[0] in _SIDES else None
    return Segment(
        number=number,
        label=region.label,
        category=_code(region.category),
        type=_code(region.type),
        laterality=_code(side) if side else None,
        colour=_COLOURS[(number - 1) % len(_COLOURS)],
    )


def _code(term: Term) -> Code:
    value, scheme, meaning = term
    return Code(value=value, scheme=scheme, meaning=meaning)
