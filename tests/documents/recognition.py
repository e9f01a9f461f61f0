"""What recognising a series rests on: its facets, whom it believes how far, and where times and bodies lie; read from the program itself."""

from collections.abc import Mapping

from dicom_node.assemble.evidence import RELIABLE
from dicom_node.assemble.sequences import KINDS
from dicom_node.domain import FACETS
from dicom_node.methods import appearance
from tests.documents.text import code, table

_MEANINGS = {
    "modality": "What made it. CR counts as DX, RF as XA.",
    "body_part": "What it shows: `head` with the neck, `abdomen` with the pelvis, `trunk` is chest and abdomen.",
    "plane": "How its slices lie, within 30 degrees.",
    "laterality": "Which side of a paired part.",
    "projection": "How a radiograph was taken.",
    "contrast": "Whether contrast agent was given, and in which phase; `given`: the phase is not said.",
    "kernel": "How a CT was reconstructed.",
    "sequence": "How an MR is weighted.",
    "kind": "Acquired, made from images, for planning the scan, or captured from a screen.",
    "photometric": "Whether a radiograph of the chest is shown inverted.",
    "way_up": "Whether a radiograph of the chest stands on its head.",
    "annotation": "Whether text is drawn into the pixels.",
}
_SOURCES = {
    "device": "what a device knows of itself: SOP Class, orientation, a localizer's Image Type",
    "protocol": "what a device was told: Modality, Image Type, View Position, Laterality, contrast agent, kernel",
    "text": "Series Description, else Protocol Name, as people choose and type them",
    "BodyPartExamined": "Body Part Examined",
    "study": "Study Description, where the series' own descriptions name nothing",
}


def facets() -> str:
    """Every facet and its classes."""
    return table(("facet", "classes", "meaning"), [(code(name), ", ".join(map(code, FACETS[name])), _MEANINGS[name]) for name in FACETS])


def sources() -> str:
    """How far each kind of source is believed."""
    return table(("source", "states the truth"), [(_SOURCES[name], f"{share:.0%}") for name, share in RELIABLE.items()])


def sequences() -> str:
    """Where the times of each kind of MR sequence lie."""
    rows = [(kind.name, kind.scanning, *(_around(times) for times in (kind.te, kind.tr, kind.ti))) for kind in KINDS]
    return table(("sequence", "Scanning Sequence", "TE, ms", "TR, ms", "TI, ms"), rows)


def bodies() -> str:
    """Where each part of the body lies in what is measured on pixels."""
    sized, shared = (appearance.WIDTH_MM, appearance.LENGTH_MM), (appearance.LUNG_SLICES, appearance.SKULL)
    rows = [(code(name), *(_around(of.get(name)) for of in sized), *(_about(of, name) for of in shared)) for name in FACETS["body_part"]]
    return table(("body part", "width, mm", "length, mm", "slices through lung", "bone below the skin"), rows)


def _around(times: tuple[float, float] | None) -> str:
    return "" if times is None else f"{times[0]:g} ×÷ {times[1]:g}"


def _about(of: Mapping[str, tuple[float, float]], name: str) -> str:
    return f"{of[name][0]:.0%} ± {of[name][1]:.0%}" if name in of else ""
