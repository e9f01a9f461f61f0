"""What a header says of a series: each attribute that speaks is a piece of evidence, with how far such an attribute is to be believed.

Only headers are read, as plain values by keyword; nothing is quoted of what a person may have typed.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from dicom_node.assemble.sequences import contrast_evidence, times_evidence
from dicom_node.assemble.shape import number, plane_of
from dicom_node.assemble.wording import named, named_in
from dicom_node.methods.recognition import Evidence, stating, worded

Read = Callable[[str], Any]  # DICOM keyword -> its value, None without it

# How often a source states the truth, where it states anything. Body Part Examined was found wrong in 15 % (Gueld MO et al. Quality of DICOM header
# information for image categorization. Proc SPIE 4685:280-287, 2002). The others are judged, not measured: a device errs more rarely than a person.
RELIABLE = {
    "device": 0.98,  # what the device knows of itself: SOP Class, Modality, orientation
    "protocol": 0.95,  # what the device was told to do
    "text": 0.9,  # descriptions that a person chose or typed
    "BodyPartExamined": 0.85,
    "study": 0.8,  # the study's description, where the series' own say nothing: a study may hold several regions
}

_SOP_CLASSES = {  # what follows 1.2.840.10008.5.1.4.1.1.
    "CT": ("2", "2.1", "2.2"),
    "MR": ("4", "4.1", "4.2", "4.3", "4.4"),
    "PT": ("128", "128.1", "130"),
    "NM": ("20",),
    "US": ("6.1", "3.1", "6.2"),
    "DX": ("1", "1.1", "1.1.1"),
    "MG": ("1.2", "1.2.1", "13.1.3"),
    "XA": ("12.1", "12.1.1", "12.2", "12.2.1", "13.1.1", "13.1.2"),
}
_BY_UID = {f"1.2.840.10008.5.1.4.1.1.{end}": modality for modality, ends in _SOP_CLASSES.items() for end in ends}
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_SAME_AS = {"CR": "DX", "RG": "DX", "RF": "XA"}
_MODALITIES = frozenset(_SOP_CLASSES)
_SIDES = {"L": "left", "R": "right", "B": "both"}
_VIEWS = {"PA": "PA", "AP": "AP", "LL": "lateral", "RL": "lateral", "LAT": "lateral", "LATERAL": "lateral"}
_OBLIQUE_VIEWS = frozenset({"RLD", "LLD", "RLO", "LLO", "RAO", "LAO", "RPO", "LPO", "OBL"})
_NO_AGENT = frozenset({"no", "n", "none", "without", "no contrast", "non contrast", "0"})  # written where ContrastBolusAgent should be empty

# Convolution kernels by vendor: what is known to be smooth or sharp. Numbers of Siemens' kernels count up with sharpness.
_SIEMENS = re.compile(r"^(?:[a-z]{1,2})(\d\d)[a-z]{0,2}\b")
_SMOOTH = re.compile(r"^(standard|std\+?|soft|body|[ab]|[ab]-?ipr|fc0?\d|fc1\d|smooth.*)$")
_SHARP = re.compile(r"^(bone.*|lung|edge|ultra|hd.*sharp|sharp.*|[ely]|y[a-e]|fc[358]\d)$")


def header_evidence(read: Read) -> tuple[Evidence, ...]:
    """Return what a header says, facet by facet; an attribute that is missing or says nothing gives none.

    read: DICOM keyword -> text, number, a list of them, or None.
    """
    modality = _modality_of(read)
    found: list[Evidence] = []
    for part in (_modality, _kind, _body_part, _plane, _laterality, _contrast, _annotation):
        found += part(read)
    if modality == "MR":
        found += _sequence(read)
    if modality == "CT":
        found += _kernel(read)
    if modality == "DX":
        found += _projection(read)
    return tuple(found)


def texts(value: Any) -> tuple[str, ...]:
    """Return a header's value as texts; none where it is missing or empty."""
    values = value if isinstance(value, list | tuple) or (hasattr(value, "__iter__") and not isinstance(value, str)) else (value,)
    return tuple(text for one in values if one is not None and (text := str(one).strip()))


def _first(value: Any) -> str:
    return next(iter(texts(value)), "")


def _descriptions(read: Read) -> list[tuple[str, str]]:
    """Return what people named the series, its own description first."""
    return [(keyword, " ".join(texts(read(keyword)))) for keyword in ("SeriesDescription", "ProtocolName", "StudyDescription")]


def _described(facet: str, read: Read, *, with_study: bool = True) -> Iterator[Evidence]:
    """Give one piece of evidence of all descriptions: the next is copied from the one before more often than not."""
    keyword, classes = named_in(facet, _descriptions(read)[: 3 if with_study else 2])
    if keyword:
        reliable = RELIABLE["study" if keyword == "StudyDescription" else "text"]
        yield stating(facet, keyword, f"names {' or '.join(sorted(map(worded, classes)))}", classes, reliable)


# ------------------------------------------------------------------------------------------------------------- facets


def _modality_of(read: Read) -> str:
    stated = _first(read("Modality")).upper()
    return _BY_UID.get(_first(read("SOPClassUID")), _SAME_AS.get(stated, stated))


def _modality(read: Read) -> Iterator[Evidence]:
    uid, stated = _first(read("SOPClassUID")), _first(read("Modality")).upper()
    if uid in _BY_UID:
        yield stating("modality", "SOPClassUID", f"is of {_BY_UID[uid]}", [_BY_UID[uid]], RELIABLE["device"])
    stated = _SAME_AS.get(stated, stated)
    if stated in _MODALITIES:
        yield stating("modality", "Modality", f"is {stated}", [stated], RELIABLE["protocol"])
    if number(read("MagneticFieldStrength")) or number(read("EchoTime")):
        yield stating("modality", "MagneticFieldStrength, EchoTime", "are those of MR", ["MR"], RELIABLE["protocol"])
    if number(read("KVP")) and texts(read("ConvolutionKernel")):
        yield stating("modality", "KVP, ConvolutionKernel", "are those of CT", ["CT"], RELIABLE["protocol"])


def _kind(read: Read) -> Iterator[Evidence]:
    if _first(read("SOPClassUID")).startswith(_SECONDARY_CAPTURE):
        yield stating("kind", "SOPClassUID", "is of screen captures", ["capture"], RELIABLE["device"])
        return
    image_type = [part.upper() for part in texts(read("ImageType"))]
    if {"LOCALIZER", "SCOUT"} & set(image_type):
        yield stating("kind", "ImageType", "has LOCALIZER", ["localizer"], RELIABLE["device"])
    elif image_type[:1] == ["DERIVED"]:
        yield stating("kind", "ImageType", "begins with DERIVED", ["derived"], RELIABLE["protocol"])
    elif image_type[:1] == ["ORIGINAL"]:
        yield stating("kind", "ImageType", "begins with ORIGINAL", ["original"], RELIABLE["protocol"])
    yield from _described("kind", read, with_study=False)


def _body_part(read: Read) -> Iterator[Evidence]:
    classes = named("body_part", " ".join(texts(read("BodyPartExamined"))))
    if classes:
        yield stating("body_part", "BodyPartExamined", f"is {' or '.join(sorted(classes))}", classes, RELIABLE["BodyPartExamined"])
    yield from _described("body_part", read)


def _plane(read: Read) -> Iterator[Evidence]:
    cosines = [number(part) for part in texts(read("ImageOrientationPatient"))]
    if len(cosines) == 6 and None not in cosines:
        along_row, along_column = cosines[:3], cosines[3:]
        plane = plane_of(_cross(along_row, along_column))
        yield stating("plane", "ImageOrientationPatient", f"is {plane}", [plane], RELIABLE["device"])
    else:
        yield from _described("plane", read, with_study=False)


def _cross(a: Sequence[Any], b: Sequence[Any]) -> tuple[float, float, float]:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def _laterality(read: Read) -> Iterator[Evidence]:
    for keyword in ("ImageLaterality", "Laterality"):
        side = _SIDES.get(_first(read(keyword)).upper())
        if side:
            yield stating("laterality", keyword, f"is {side}", [side], RELIABLE["protocol"])
            break
    yield from _described("laterality", read)


def _projection(read: Read) -> Iterator[Evidence]:
    view = _first(read("ViewPosition")).upper()
    stated = _VIEWS.get(view, "oblique" if view in _OBLIQUE_VIEWS else "")
    if stated:
        yield stating("projection", "ViewPosition", f"is {stated}", [stated], RELIABLE["protocol"])
    along_row = [part[:1].upper() for part in texts(read("PatientOrientation"))][:1]
    if along_row in (["L"], ["R"]):
        yield stating("projection", "PatientOrientation", "has rows from side to side", ["PA", "AP"], RELIABLE["protocol"])
    elif along_row in (["A"], ["P"]):
        yield stating("projection", "PatientOrientation", "has rows from front to back", ["lateral"], RELIABLE["protocol"])
    yield from _described("projection", read, with_study=False)


def _contrast(read: Read) -> Iterator[Evidence]:
    agent = _first(read("ContrastBolusAgent")).casefold()
    if agent in _NO_AGENT:
        yield stating("contrast", "ContrastBolusAgent", "says that none was given", ["none"], RELIABLE["protocol"])
    elif agent:
        given = ["given", "arterial", "portal-venous", "delayed"]
        yield stating("contrast", "ContrastBolusAgent", "names an agent", given, RELIABLE["protocol"])
    yield from _described("contrast", read)


def _kernel(read: Read) -> Iterator[Evidence]:
    kernel = _first(read("ConvolutionKernel")).casefold()
    siemens = _SIEMENS.match(kernel)
    if _SMOOTH.match(kernel) or (siemens and int(siemens[1]) <= 45):
        yield stating("kernel", "ConvolutionKernel", "is a smooth one", ["smooth"], RELIABLE["protocol"])
    elif _SHARP.match(kernel) or (siemens and int(siemens[1]) >= 50):
        yield stating("kernel", "ConvolutionKernel", "is a sharp one", ["sharp"], RELIABLE["protocol"])


def _sequence(read: Read) -> Iterator[Evidence]:
    image_type = [part.upper() for part in texts(read("ImageType"))]
    if "ADC" in image_type:
        yield stating("sequence", "ImageType", "has ADC", ["ADC"], RELIABLE["device"])
    elif "DIFFUSION" in image_type:
        yield stating("sequence", "ImageType", "has DIFFUSION", ["DWI"], RELIABLE["protocol"])
    acquired = contrast_evidence(_first(read("AcquisitionContrast")))
    if acquired:
        yield acquired
    keyword, classes = named_in("sequence", [*_descriptions(read)[:2], ("SequenceName", _first(read("SequenceName")))])
    if keyword:
        yield stating("sequence", keyword, f"names {' or '.join(sorted(classes))}", classes, RELIABLE["text"])
    te, tr, ti = (number(_first(read(keyword))) for keyword in ("EchoTime", "RepetitionTime", "InversionTime"))
    measured = times_evidence(te, tr, ti, [part.upper() for part in texts(read("ScanningSequence"))])
    if measured and "ADC" not in image_type:
        yield measured


def _annotation(read: Read) -> Iterator[Evidence]:
    stated = _first(read("BurnedInAnnotation")).upper()
    if stated in ("YES", "NO"):
        said = "burned-in" if stated == "YES" else "none"
        yield stating("annotation", "BurnedInAnnotation", f"is {stated}", [said], RELIABLE["device" if stated == "YES" else "BodyPartExamined"])
    if _first(read("SOPClassUID")).startswith(_SECONDARY_CAPTURE) or _modality_of(read) == "US":
        yield stating("annotation", "SOPClassUID, Modality", "are of images that carry text as a rule", ["burned-in"], RELIABLE["protocol"])
