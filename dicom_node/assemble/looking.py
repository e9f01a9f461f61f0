"""What a series is recognised as by its headers and a few of its slices, whether they lie in a volume or still in files."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from dicom_node.assemble.evidence import Read, header_evidence
from dicom_node.assemble.headers import Image, functional_group, read
from dicom_node.assemble.pixels import check, take_all
from dicom_node.assemble.recognition import warnings
from dicom_node.assemble.shape import number, shape_of
from dicom_node.coding.unreadable import UNREADABLE
from dicom_node.config import Input, unrecognised
from dicom_node.domain import DERIVED_MODALITIES, Assembled, Series, Unsuitable
from dicom_node.methods.glance import body_evidence, spread, text_evidence, volume_evidence
from dicom_node.methods.radiograph import frontal_chest_evidence
from dicom_node.methods.recognition import Evidence, Recognised, recognise

_ELSEWHERE = {"EchoTime": "EffectiveEchoTime", "InversionTime": "InversionTimes"}  # how enhanced images name it

Planes = NDArray[np.float32]


def checked(assembled: Assembled, wanted: Input) -> Assembled:
    """Return an input with what a reader should be warned of among its notes.

    Raises
    ------
    Unsuitable: by its headers and pixels together it is none of what the model asks for; the message says why.
    """
    found = seen(assembled)
    against = unrecognised(wanted.recognised, found)
    if against:
        said = "; ".join(f"{said} ({found.answers[facet].why})" if facet in found.answers else said for facet, said in against.items())
        raise Unsuitable(said, hint="Send the series that the model asks for, or correct its header.")
    return replace(assembled, notes=(*assembled.notes, *warnings(found)))


def seen(assembled: Assembled) -> Recognised:
    """Return what the headers and some slices of an assembled series say that it shows."""
    said = header_evidence(_reader(assembled.sources[0]))
    return recognise([*said, *volume_evidence(said, assembled.volume)])


def look(series: Series, paths: Sequence[Path]) -> Recognised:
    """Return what the headers and some images of a series say that it shows. Of colour images only the headers are asked.

    paths: the files of its instances, in their order.

    Raises
    ------
    Unsuitable: one of the files that are looked at cannot be read.
    """
    said = header_evidence(series.header.get)
    if str(series.header.get("Modality")) in DERIVED_MODALITIES:
        return recognise(said)
    grey = [image for image in read([paths[index] for index in spread(len(paths))]) if image.samples == 1]
    planes = _planes(grey)
    if not planes:
        return recognise(said)
    header = _reader(grey[0].header)
    if not grey[0].single:
        said = header_evidence(header)  # what lies in functional groups is not kept by the ledger
    return recognise([*said, *_looked(series, recognise(said), said, planes, header)])


def _looked(series: Series, known: Recognised, said: Sequence[Evidence], planes: list[Planes], header: Read) -> list[Evidence]:
    """Return what some images of a series say, whatever their modality; slices that are not axial are asked for text alone."""
    if known.get("modality") == "DX":
        return [*_radiograph(known, planes[0], header), *text_evidence(planes)]
    spacing_mm = [number(part) or 0.0 for part in header("PixelSpacing") or ()]
    if known.get("plane") not in ("axial", None) or len(spacing_mm) != 2 or not all(spacing_mm):
        return text_evidence(planes)
    shape = shape_of(series)
    return [*body_evidence(said, planes, (spacing_mm[0], spacing_mm[1]), shape.extent_mm if shape else None), *text_evidence(planes)]


def _radiograph(said: Recognised, plane: Planes, header: Read) -> tuple[Evidence, ...]:
    if said.get("body_part") not in ("chest", None) or said.get("projection") == "lateral":
        return ()
    return frontal_chest_evidence(-plane if header("PhotometricInterpretation") == "MONOCHROME1" else plane)


# --------------------------------------------------------------------------------------------------------------- files


def _planes(images: Sequence[Image]) -> list[Planes]:
    """Return some frames of some images, rescaled: those of the first one's size, one of each image or several of one that has many."""
    wanted = {image: [0] for image in images} if len(images) > 1 else {image: spread(image.frames) for image in images}
    for image in wanted:
        check(image)
    kept: dict[tuple[int, int], Planes] = {}
    order = {image: place for place, image in enumerate(wanted)}

    def take(image: Image, index: int, stored: NDArray[Any]) -> None:
        slope, intercept = _rescale(image, index)
        kept[order[image], index] = stored.astype(np.float32) * slope + intercept

    take_all(wanted, take)
    planes = [kept[place] for place in sorted(kept)]
    return [plane for plane in planes if plane.shape == planes[0].shape]


def _rescale(image: Image, index: int) -> tuple[float, float]:
    place: Any = None if image.single else functional_group(image.header, index, "PixelValueTransformationSequence")
    read_ = _reader(image.header if place is None else place)
    slope, intercept = number(read_("RescaleSlope")), number(read_("RescaleIntercept"))
    return 1.0 if slope is None else slope, 0.0 if intercept is None else intercept


# ------------------------------------------------------------------------------------------------------------- headers


def _reader(header: Dataset) -> Read:
    """Return what reads attributes at the top of a data set or, of a multi-frame one, in the functional groups of its first frame."""

    def reading(keyword: str) -> Any:
        try:
            value = header.get(keyword)
            return value if value not in (None, "") else _grouped(header, keyword, _ELSEWHERE.get(keyword, keyword))
        except UNREADABLE:
            return None  # it counts as missing: nothing is asked of a header but evidence

    return reading


def _grouped(header: Dataset, *names: str) -> Any:
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in (header.get(groups) or ())[:1]:
            for element in group:
                for item in (element.value if element.VR == "SQ" else ())[:1]:
                    for name in names:
                        if item.get(name) not in (None, ""):
                            return item[name].value
    return None
