"""A manifest as it reads for one set of inputs or findings: the regions that were drawn, or the segments that were found, are its segments."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydicom import Dataset
from pydicom.sr.codedict import codes

from dicom_node.config import PALETTE, VALUE, Code, Model, Segment, unit_code
from dicom_node.domain import Assembled, Findings, Region, Term, Unsuitable

_SIDES = frozenset({"7771000", "24028007", "51440002"})  # SCT: left, right, right and left
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
    quantities = {name: quantity_of(inputs[name].sources[0]) for name, one in manifest.inputs.items() if one.kind == "image" and name in inputs}
    return model.reading(manifest.of_regions(segments(drawn.regions), quantities, overlap=overlap))


def settled(model: Model, findings: Findings) -> Model:
    """Return a model with its manifest as it reads for what came of it: as many segments as were found, the presentations that are made."""
    manifest = model.manifest
    count = 0 if findings.segments is None or manifest.found is None else int(findings.segments.array.max(initial=0))
    return model.reading(manifest.of_found(count).of_made([name for name, one in findings.presentations.items() if one is not None]))


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
        colour=PALETTE[(number - 1) % len(PALETTE)],
    )


def _code(term: Term) -> Code:
    value, scheme, meaning = term
    return Code(value=value, scheme=scheme, meaning=meaning)
