"""What the node writes into its objects, found by experiment: one thing is changed at a time, and whatever changes with it comes from there."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import highdicom
import numpy as np
from pydicom import Dataset
from pydicom.datadict import dictionary_description, dictionary_VR, tag_for_keyword
from pydicom.tag import Tag

from dicom_node.domain import Findings, Mark, Order, Presentation, Reference, derived_uid
from dicom_node.report import Observer, build, verified
from tests import findings as made
from tests import phantoms
from tests.documents.text import table

_STANDARD = Path(highdicom.__file__).parent / "_standard"  # PS3.3's modules and attributes, as highdicom ships them
_COPIED_MODULES = ("patient", "clinical-trial-subject", "general-study", "patient-study", "clinical-trial-study")
_NO_DESCENT = frozenset({"ContentSequence"})  # Annex B shows it
_LONGEST = 60

# What may be changed, in the order in which a source is named.
FACETS = ("COPY", "IMAGES", "MODEL", "FINDINGS", "JOB", "TIME", "CONFIG", "LEDGER")

_OTHER_MODEL = {  # every word of the phantom's model.toml that an object may repeat
    'version = "1.2.0"': 'version = "2.0.1"\nfamily = ["FAM", "99OTHER", "Family"]\nprocedure = ["PROC", "99OTHER", "Scan"]',
    "[inputs.ct]": 'intended_use = "To look at."\n\n[inputs.ct]',
    "lung-phantom": "other-phantom",
    "Phantom Works": "Another maker",
    "Finds the marker": "Looks for the marker",
    "Left lung": "Sinister",
    "Right lung": "Dexter",
    '"SCT.Lung"': '["TYPE", "99OTHER", "Type"]',
    '"SCT.Left"': '["SIDE", "99OTHER", "Side"]',
    '"SCT.AnatomicalStructure"': '["CAT", "99OTHER", "Category"]',
    "[0, 151, 206]": "[10, 20, 30]",
    '"SCT.Volume"': '["SIZE", "99OTHER", "Size"]',
    "digits = 0": "digits = 2",
    '"SCT.Mean"': '["MID", "99OTHER", "Middle"]',
    '"SCT.Present"': '["YES", "99OTHER", "Yes"]',
    '"SCT.Absent"': '["NO", "99OTHER", "No"]',
    "99PHANTOM": "99OTHER",
    'unit = "%"': 'unit = "1"',
    'unit = "mL"': 'unit = "mm3"',
}

_PLAIN_MODEL = """
name = "plain"
version = "1"
task = "Finds the marker."

[inputs.ct]
Modality = "CT"

[[segments]]
number = 1
label = "Lung"
category = "SCT.AnatomicalStructure"
type = "SCT.Lung"

[measurements.volume]
concept = "SCT.Volume"
unit = "mL"
segment = 1
"""

_IMAGE_MODEL = """
name = "smoother"
version = "1"
task = "Smooths."

[inputs.ct]
Modality = "CT"

[images.smooth]
description = "Smoothed"
derivation = ["DCM.Smoothing"]
image_type = "SMOOTHED"
"""

_OTHER_IMAGE_MODEL = (
    _IMAGE_MODEL.replace("smoother", "softener")
    .replace("Smoothed", "Softened")
    .replace('"DCM.Smoothing"', '["SOFT", "99OTHER", "Softening"]')
    .replace("SMOOTHED", "SOFTENED")
    .replace('version = "1"', 'version = "2"\nmanufacturer = "Another maker"\nintended_use = "To look at."')
)

_POINTING_MODEL = """
name = "pointer"
version = "1"
task = "Points."

[inputs.ct]
Modality = "CT"

[maps.heat]
description = "Where it looked"
quantity = ["130403", "DCM", "Gradient-weighted class activation"]
unit = "1"

[presentations.marks]
label = "MARKS"
description = "What was found"

[keys.best]
title = "DCM.OfInterest"
description = "Slices of interest."
"""

_OTHER_POINTING_MODEL = (
    _POINTING_MODEL.replace("pointer", "pointing")
    .replace("Where it looked", "Where it searched")
    .replace("MARKS", "OTHERS")
    .replace("What was", "That was")
    .replace("Slices of", "Images of")
    .replace('"DCM.OfInterest"', '"DCM.ForResearch"')
    .replace('["130403", "DCM", "Gradient-weighted class activation"]', '["HEAT", "99OTHER", "Heat"]')
    .replace('unit = "1"', 'unit = "%"')
    .replace('version = "1"', 'version = "2"\nmanufacturer = "Another maker"\nintended_use = "To look at."')
)

_FIRST_MODEL = made.MANIFEST.replace('unit = "%"', 'unit = "%"\nmethod = ["METHOD", "99PHANTOM", "Method"]')

Path_ = tuple[str, ...]  # keywords from the top of the object


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """The objects of one run, and the images that they were made of."""

    changed: str  # which facet differs from the first run; empty: presence is looked at, not origin
    image: Dataset
    objects: Mapping[str, Dataset]
    family: str = ""  # a run is compared with the first of its family


@dataclass(slots=True)
class Attribute:
    """What was seen of one attribute."""

    vr: str
    values: list[tuple[str, ...] | None] = field(default_factory=list)  # in each run; None: the attribute was not there


# ------------------------------------------------------------------------------------------------------------ the runs


@cache
def runs() -> tuple[Made, ...]:
    """Build the objects of a phantom, again and again, each time with one thing changed."""
    rich = _images(phantoms.series(TimezoneOffsetFromUTC="+0100", PositionReferenceIndicator="XY"), "1")
    other = _images(_another(), "2")
    bare = phantoms.series(StudyID=None, AccessionNumber=None, ReferringPhysicianName=None, BodyPartExamined=None, Manufacturer=None)
    return (
        _made("", rich),
        _made("IMAGES", other),
        _made("IMAGES", bare),
        _made("IMAGES", phantoms.series(modality="MR", rescale=None)),
        _made("IMAGES", [phantoms.enhanced()]),
        _made("MODEL", rich, manifest=_manifest()),
        _made("FINDINGS", rich, found=_other_findings),
        _made("FINDINGS", rich, found=_nothing),
        _made("FINDINGS", rich, found=_incomplete),
        _made("JOB", rich, identity="b" * 64),
        _made("TIME", rich, made_at=1_710_000_000.0),
        _made("CONFIG", rich, station="OTHER_NODE"),
        _made("LEDGER", rich, predecessors=(_PREDECESSOR,), order=ORDER),
        _made("", rich, manifest=_PLAIN_MODEL, found=_plain_findings),
        *(replace(one, family="images") for one in _image_runs(rich, other, bare)),
        *(replace(one, family="pointing") for one in _pointing_runs(rich, other, bare)),
    )


def _image_runs(rich: list[Dataset], other: list[Dataset], bare: list[Dataset]) -> Iterator[Made]:
    """Build a derived series of a phantom again and again, each time with one thing changed."""
    manifest, found = _IMAGE_MODEL, _image_findings
    yield _made("", rich, manifest=manifest, found=found)
    yield _made("IMAGES", other, manifest=manifest, found=found)
    yield _made("IMAGES", bare, manifest=manifest, found=found)
    yield _made("IMAGES", phantoms.series(PixelPaddingValue=-2000, WindowCenter=40, WindowWidth=400), manifest=manifest, found=found)
    yield _made("MODEL", rich, manifest=_OTHER_IMAGE_MODEL, found=found)
    yield _made("FINDINGS", rich, manifest=manifest, found=_other_image_findings)
    yield _made("JOB", rich, manifest=manifest, found=found, identity="b" * 64)
    yield _made("TIME", rich, manifest=manifest, found=found, made_at=1_710_000_000.0)
    yield _made("CONFIG", rich, manifest=manifest, found=found, station="OTHER_NODE")
    yield _made("LEDGER", rich, manifest=manifest, found=found, order=ORDER)


def _pointing_runs(rich: list[Dataset], other: list[Dataset], bare: list[Dataset]) -> Iterator[Made]:
    """Build a map, a presentation state and key objects of a phantom again and again, each time with one thing changed."""
    manifest, found = _POINTING_MODEL, _pointing_findings
    yield _made("", rich, manifest=manifest, found=found)
    yield _made("IMAGES", other, manifest=manifest, found=found)
    yield _made("IMAGES", bare, manifest=manifest, found=found)
    yield _made("IMAGES", phantoms.series(modality="MR", rescale=None), manifest=manifest, found=found)
    yield _made("IMAGES", [phantoms.enhanced()], manifest=manifest, found=found)
    yield _made("MODEL", rich, manifest=_OTHER_POINTING_MODEL, found=found)
    yield _made("FINDINGS", rich, manifest=manifest, found=_other_pointing_findings)
    yield _made("JOB", rich, manifest=manifest, found=found, identity="b" * 64)
    yield _made("TIME", rich, manifest=manifest, found=found, made_at=1_710_000_000.0)
    yield _made("CONFIG", rich, manifest=manifest, found=found, station="OTHER_NODE")
    yield _made("LEDGER", rich, manifest=manifest, found=found, order=ORDER)


_PREDECESSOR = Reference(
    sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34",
    sop_instance_uid=derived_uid("earlier"),
    series_instance_uid=derived_uid("earlier series"),
    study_instance_uid=derived_uid("phantom", "study"),
)

ORDER = Order(  # all that a worklist may tell
    study_instance_uid=derived_uid("phantom", "study"),
    accession_number=phantoms.STUDY["AccessionNumber"],
    requested_procedure_id="RP1",
    requested_procedure_description="CT chest",
    requested_procedure_code=("CTCHEST", "99RIS", "CT of the chest"),
    reason="Cough",
    scheduled_procedure_step_id="SPS1",
    placer_order_number="P1",
    filler_order_number="F1",
)


def _made(changed: str, images: list[Dataset], *, manifest: str = _FIRST_MODEL, found: Callable[..., Any] = made.findings, **of_run: Any) -> Made:
    with TemporaryDirectory() as folder:
        model = made.model(Path(folder) / "model", manifest)
        inputs = {"ct": made.assembled(images)}
        drafts = build(found(inputs["ct"]), inputs, made.run(model, **({"station": "DICOM_NODE"} | of_run)))
    objects: dict[str, Dataset] = {}
    for draft in drafts:
        objects.setdefault(draft.kind, draft.dataset)  # of a derived series the first image, which is of the first image here
    return Made(changed=changed, image=images[0], objects=objects)


def _images(images: list[Dataset], mark: str) -> list[Dataset]:
    """Write into images whatever else they may say of patient and study."""
    for keyword in _may_be_copied():
        for image in images:
            if keyword not in image:
                setattr(image, keyword, _value(keyword, mark))
    return images


def _another() -> list[Dataset]:
    patient = {keyword: value + "x" for keyword, value in {**phantoms.PATIENT, **phantoms.STUDY}.items() if dictionary_VR(keyword) in _TEXT}
    patient |= {"PatientBirthDate": "19600102", "PatientSex": "M", "StudyDate": "20240206", "StudyTime": "111500", "PatientAge": "060Y"}
    device = {"Manufacturer": "Other works", "ManufacturerModelName": "Other", "DeviceSerialNumber": "2", "SoftwareVersions": "2"}
    place = {"spacing_mm": (3.0, 0.9, 0.6), "origin_mm": (-11.0, -12.0, 13.0), "orientation": "coronal"}
    more = {"BodyPartExamined": "ABDOMEN", "SpecificCharacterSet": "ISO_IR 192", "TimezoneOffsetFromUTC": "+0200", "PositionReferenceIndicator": "SN"}
    return phantoms.series(phantoms.marked((10, 26, 22)), seed="other", **place, **device, **more, **patient)


_TEXT = frozenset({"PN", "LO", "SH", "LT", "ST", "UT", "UC"})


def _value(keyword: str, mark: str) -> Any:
    plain = {
        "DA": f"2023010{mark}",
        "TM": f"10100{mark}",
        "DT": f"2023010{mark}101010",
        "CS": f"CODE{mark}",
        "AS": f"03{mark}Y",
        "UI": f"2.25.{mark}",
    }
    numbers = {"DS": f"1.{mark}", "IS": mark, "US": int(mark), "FD": float(mark), "FL": float(mark)}
    vr = dictionary_VR(keyword)
    if vr != "SQ":
        return (plain | numbers).get(vr, f"text {mark}")
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = mark, "99TEST", f"meaning {mark}"
    return [item]


def _manifest() -> str:
    text = _FIRST_MODEL
    for old, new in _OTHER_MODEL.items():
        text = text.replace(old, new)
    return text


def _other_findings(given: Any) -> Any:
    labels = np.zeros(given.volume.shape, np.uint8)
    labels[1:3, 4:9, 5:9] = 1
    labels[4:7, 10:12, 2:8] = 2
    labels[7, 10:12, 2:8] = 3
    measured = {"volume": {1: 1.5, 2: 2.5, 3: 0.5}, "mean": {1: -1.0, 2: -2.0}, "ratio": 0.1, "quality": 10.0}
    return made.findings(
        given, segments=given.volume.with_array(labels), measurements=measured, evaluations={"emphysema": "yes"}, notes=("Another note.",)
    )


def _nothing(given: Any) -> Any:
    return made.findings(given, segments=given.volume.with_array(np.zeros(given.volume.shape, np.uint8)))


def _incomplete(given: Any) -> Any:
    return made.findings(given, measurements={"ratio": float("nan"), "quality": 97.0}, evaluations={})


def _plain_findings(given: Any) -> Any:
    labels = np.zeros(given.volume.shape, np.uint8)
    labels[phantoms.block(made.LEFT)] = 1
    return Findings(segments=given.volume.with_array(labels), measurements={"volume": 2310.04})


def _image_findings(given: Any, change: float = 1.0) -> Any:
    return Findings(images={"smooth": given.volume.with_array(given.volume.array + np.float32(change))})


def _other_image_findings(given: Any) -> Any:
    return _image_findings(given, change=2.0)


def _pointing_findings(given: Any, index: int = 1, width: float = 400.0, factor: float = 1.0) -> Any:
    mark = Mark(slice=index, kind="CIRCLE", points=((4 * factor, 5), (4 * factor, 8)), text=f"{factor:g}")
    return Findings(
        maps={"heat": given.volume.with_array(np.linspace(0, factor, given.volume.array.size, dtype=np.float32).reshape(given.volume.shape))},
        presentations={"marks": Presentation(window=(40 * factor, width), marks=(mark,))},
        keys={"best": (index,)},
    )


def _other_pointing_findings(given: Any) -> Any:
    return _pointing_findings(given, index=2, width=0.5, factor=2.0)


def _may_be_copied() -> list[str]:
    modules = json.loads((_STANDARD / "module_attribute_map.json").read_text())
    said = [one["keyword"] for name in _COPIED_MODULES for one in modules[name] if not one["path"]]
    return [keyword for keyword in dict.fromkeys(said) if tag_for_keyword(keyword) is not None]


# ----------------------------------------------------------------------------------------------------------- attributes


def attributes(kind: str) -> dict[Path_, Attribute]:
    """Return every attribute of one kind of object, with its values in each run that made one."""
    found: dict[Path_, Attribute] = {}
    seen = [dict(_flat(one.objects[kind])) if kind in one.objects else None for one in runs()]
    for flat in seen:
        for path, (vr, _) in (flat or {}).items():
            found.setdefault(path, Attribute(vr))
    for path, attribute in found.items():
        attribute.values = [flat[path][1] if path in flat else None for flat in seen if flat is not None]
    return found


def _flat(dataset: Dataset, above: Path_ = ()) -> Iterator[tuple[Path_, tuple[str, tuple[str, ...]]]]:
    """Yield each attribute with all its values, those of a sequence's items together."""
    merged: dict[Path_, tuple[str, tuple[str, ...]]] = {}
    for element in dataset:
        path = (*above, element.keyword)
        if element.VR == "SQ":
            merged[path] = ("SQ", ("items",) if element.value else ())
            for item in element.value if element.keyword not in _NO_DESCENT else ():
                for below, (vr, values) in _flat(item, path):
                    merged[below] = (vr, tuple(dict.fromkeys(merged.get(below, (vr, ()))[1] + values)))
        elif element.VR in ("OB", "OW", "OF"):
            value = element.value.getvalue() if element.is_buffered else element.value
            merged[path] = (element.VR, (value.hex(),))
        else:
            merged[path] = (element.VR, () if element.value in (None, "") else (_written(element.value),))
    yield from merged.items()


def _written(value: Any) -> str:
    return "\\".join(map(str, value)) if isinstance(value, list | tuple) or type(value).__name__ == "MultiValue" else str(value)


def presence(attribute: Attribute) -> str:
    """Say whether it is always there, and always with a value (PS3.2 Annex N)."""
    if not any(attribute.values):
        return "EMPTY"
    if None in attribute.values:
        return "ANAP"
    return "ALWAYS" if all(attribute.values) else "VNAP"


def origin(kind: str, path: Path_, attribute: Attribute) -> str:
    """Say where the value comes from; a value that never changes is shown."""
    shown = [one for one in runs() if kind in one.objects]
    firsts = first_of_families(shown)
    first = attribute.values[0]
    from_ = {o.changed for o, v in zip(shown, attribute.values, strict=True) if o.changed and v != attribute.values[firsts[o.family]]}
    if attribute.vr == "SQ":
        from_ = from_ if None in attribute.values else set()  # where its items come from is said of what they hold
    elif "IMAGES" in from_ and first and first == (_in_image(shown[0].image, path),):
        from_ = from_ - {"IMAGES"} | {"COPY"}
    if from_ or attribute.vr == "SQ" or not any(attribute.values):
        return ", ".join(facet for facet in FACETS if facet in from_)
    value = " / ".join(next(values for values in attribute.values if values))
    return f"FIXED {value}" if len(value) <= _LONGEST else "FIXED"


def first_of_families(some: Sequence[Made]) -> dict[str, int]:
    """Return the index of the first run of each family."""
    families = [one.family for one in some]
    return {family: families.index(family) for family in families}


def _in_image(image: Dataset, path: Path_) -> str:
    return _written(image[path[0]].value) if len(path) == 1 and path[0] in image else ""


# --------------------------------------------------------------------------------------------------------------- tables


def iod(kind: str, name: str) -> str:
    """Return the tables of one kind of object, module by module."""
    modules = json.loads((_STANDARD / "module_attribute_map.json").read_text())
    left = attributes(kind)
    parts = []
    for module in json.loads((_STANDARD / "iod_module_map.json").read_text())[name]:
        types = {(*one["path"], one["keyword"]): one["type"] for one in modules.get(module["key"], ())}
        mine = [path for path in sorted(left, key=_order) if path[:1] in types]
        rows = _rows(kind, {path: left.pop(path) for path in mine}, types, collapse=module["key"] in _COPIED_MODULES)
        if mine:
            parts.append(f"**{_title(module['key'])}** ({module['ie']}, {module['usage'][:1]})\n\n{rows}")
    if left:
        parts.append(f"**Beside the modules**\n\n{_rows(kind, {path: left[path] for path in sorted(left, key=_order)}, {}, collapse=False)}")
    return "\n\n".join(parts)


def _order(path: Path_) -> tuple[int, ...]:
    return tuple(int(Tag(keyword)) for keyword in path)


def _title(key: str) -> str:
    return key.replace("-", " ").capitalize().replace("Sr ", "SR ").replace("Sop ", "SOP ")


def _rows(kind: str, found: Mapping[Path_, Attribute], types: Mapping[Path_, str], *, collapse: bool) -> str:
    rows, also = [], []
    for path, attribute in found.items():
        from_ = origin(kind, path, attribute)
        if collapse and presence(attribute) == "ANAP":  # whatever the images say of patient and study
            if len(path) == 1:
                also.append(dictionary_description(Tag(path[0])))
            continue
        tag = Tag(path[-1])
        name = f"{'&gt;' * (len(path) - 1)} {dictionary_description(tag)}".strip()
        rows.append((name, f"({tag.group:04X},{tag.element:04X})", attribute.vr, types.get(path, ""), presence(attribute), from_))
    said = table(("attribute", "tag", "VR", "type", "presence", "value from"), rows) if rows else ""
    return "\n\n".join(part for part in (said, f"COPY, ANAP: {', '.join(also)}." if also else "") if part)


# ------------------------------------------------------------------------------------------------------ a verified report


def verified_report() -> str:
    """Return what a report that a person verified says otherwise than the report itself, and where that comes from."""
    first, *others = (one.objects["SR"] for one in runs() if one.changed in ("", "IMAGES", "MODEL", "JOB") and not one.family and "SR" in one.objects)
    anna, bo = (Observer(name=name, organization=where, at=at) for name, where, at in (("Anna Berg", "North", 1.71e9), ("Bo Dahl", "South", 1.8e9)))
    before, after, by_bo = (dict(_flat(one)) for one in (first, verified(first, anna).dataset, verified(first, bo).dataset))
    of_others = [dict(_flat(verified(one, anna).dataset)) for one in others]
    rows = []
    for path in sorted(after, key=_order):
        vr, values = after[path]
        if before.get(path) == after[path]:
            continue
        from_ = ["the reader"] * (by_bo.get(path) != after[path])
        from_ += ["the report"] * any(one.get(path) != after[path] for one in of_others)
        tag = Tag(path[-1])
        name = f"{'&gt;' * (len(path) - 1)} {dictionary_description(tag)}".strip()
        said = ", ".join(from_) or ("" if vr == "SQ" else f"FIXED {' / '.join(values)}".strip())
        rows.append((name, f"({tag.group:04X},{tag.element:04X})", vr, said or "EMPTY" if values == () else said))
    return table(("attribute", "tag", "VR", "value from"), rows)
