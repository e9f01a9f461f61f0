"""What the program can say of its configuration, its verbs, its log, its folder and its refusals."""

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal, get_args, get_origin

import highdicom
import numpy as np
import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from dicom_node.analyse.contract import settle
from dicom_node.cli import app
from dicom_node.config import (
    Code,
    Condition,
    DerivedImage,
    Evaluation,
    FoundSegments,
    Input,
    KeyImages,
    Manifest,
    Measurement,
    Oidc,
    ParametricMap,
    PresentationState,
    Segment,
    Weights,
    load_model,
)
from dicom_node.config.model import Resources
from dicom_node.config.node import (
    Complete,
    Deliver,
    Feedback,
    Hl7,
    ModelChoice,
    Node,
    NodeConfig,
    PriorsWanted,
    Rule,
    Tls,
    Web,
    WebTls,
    Work,
    Worklists,
)
from dicom_node.config.notify import FindingWanted, Mail, Notify
from dicom_node.config.remotes import Remote, RemoteTls, User
from dicom_node.config.triage import Triage
from dicom_node.domain import AE, ConfigError, Findings, Mark, ModelFailed, Presentation, Priority
from dicom_node.export import COLUMNS
from dicom_node.store import Store
from tests import findings as made
from tests.documents.meanings import FOLDERS, KEYS
from tests.documents.text import code, table

ROOT = Path(__file__).parents[2]

# --------------------------------------------------------------------------------------------------------- configuration


def node_keys() -> str:
    """Every key of node.toml."""
    sections = {"[node]": Node, "[node.tls]": Tls, "[remotes.NAME]": Remote, "[remotes.NAME.tls]": RemoteTls}
    sections |= {"[remotes.NAME.user], [remotes.NAME.must_show]": User, "[models.NAME]": ModelChoice}
    sections |= {
        "[[rules]]": Rule,
        "[rules.priors]": PriorsWanted,
        "[complete]": Complete,
        "[worklist]": Worklists,
        "[hl7]": Hl7,
        "[work]": Work,
        "[deliver]": Deliver,
        "[web]": Web,
        "[web.tls]": WebTls,
        "[web.oidc]": Oidc,
        "[feedback]": Feedback,
        "[mail]": Mail,
        "[[notify]]": Notify,
        "[[notify.findings]]": FindingWanted,
        "[[triage]]": Triage,
        "[[triage.findings]]": FindingWanted,
    }
    known = {field for field in NodeConfig.model_fields} - {name.strip("[]").partition(".")[0] for name in sections}
    if known:
        raise KeyError(f"sections without a table: {known}")
    return _sections(sections)


def manifest_keys() -> str:
    """Every key of model.toml."""
    return _sections(
        {
            "model.toml": Manifest,
            "[inputs.NAME]": Input,
            "[[segments]]": Segment,
            "[measurements.NAME]": Measurement,
            "[evaluations.NAME]": Evaluation,
            "[found]": FoundSegments,
            "[images.NAME]": DerivedImage,
            "[maps.NAME]": ParametricMap,
            "[presentations.NAME]": PresentationState,
            "[keys.NAME]": KeyImages,
            "[[weights]]": Weights,
            "[resources]": Resources,
        }
    )


def _sections(sections: Mapping[str, type[BaseModel]]) -> str:
    return "\n\n".join(f"**`{title}`**\n\n{_keys(title, model)}" for title, model in sections.items())


def _keys(title: str, model: type[BaseModel]) -> str:
    meanings = KEYS[title]
    if stray := set(meanings) - set(model.model_fields):
        raise KeyError(f"{title}: no such keys: {stray}")
    rows = []
    for name, field in model.model_fields.items():
        bounds = ", ".join(_bound(constraint) for constraint in field.metadata if _bound(constraint))
        kind = _kind(field.annotation) + (f", {bounds}" if bounds else "")
        rows.append((code(name), kind, _default(field.default, field.default_factory), meanings[name]))
    return table(("key", "type", "default", "meaning"), rows)


_NAMES = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Path: "path",
    AE: "TITLE@host:port",
    Code: "code",
    Condition: "condition",
    Priority: "HIGH, MEDIUM or LOW",
    Any: "anything",
}


def _kind(annotation: Any) -> str:
    """Say in words what a key takes."""
    origin, arguments = get_origin(annotation), [one for one in get_args(annotation) if one is not type(None)]
    if origin is None:
        return _NAMES.get(annotation, "table, see below")
    if origin is Literal:
        return " or ".join(code(json.dumps(one)) for one in arguments)
    if origin is dict:
        return f"table: name → {_kind(arguments[1])}"
    if origin is frozenset or (origin is tuple and arguments[-1] is Ellipsis):
        return f"list of {_kind(arguments[0])}"
    if origin is tuple:
        return f"list of {len(arguments)}: {_kind(arguments[0])}"
    return " or ".join(dict.fromkeys(_kind(one) for one in (arguments[:1] if origin is Annotated else arguments)))


def _bound(constraint: Any) -> str:
    words = (
        ("ge", "at least"),
        ("gt", "above"),
        ("le", "at most"),
        ("lt", "below"),
        ("min_length", "length at least"),
        ("max_length", "length at most"),
    )
    said = [f"{word} {getattr(constraint, name)}" for name, word in words if getattr(constraint, name, None) is not None]
    pattern = getattr(constraint, "pattern", None)
    return ", ".join(said + ([f"matches `{pattern}`"] if pattern else []))


def _default(default: Any, factory: Any) -> str:
    if default is PydanticUndefined and factory is None:
        return "**required**"
    if default is None:
        return "none"
    if isinstance(default, Code):
        return f"({default.value}, {default.scheme}, {default.meaning})"
    if factory is not None or isinstance(default, BaseModel | frozenset) or default == ():
        return "empty"
    said = default.name if isinstance(default, Priority) else str(default) if isinstance(default, Path) else default
    return code(json.dumps(said))


# ------------------------------------------------------------------------------------------------------------ conditions

_CONDITIONS: Sequence[tuple[str, Mapping[str, Any]]] = (
    ('"CT"', {"equals": "CT"}),
    ('{ any = ["CT", "PT"] }', {"any": ["CT", "PT"]}),
    ('{ any = ["CT"], absent = true }', {"any": ["CT"], "absent": True}),
    ('{ none = ["PT"] }', {"none": ["PT"]}),
    ("{ min = 1, max = 3 }", {"min": 1, "max": 3}),
    ('{ matches = "^c" }', {"matches": "^c"}),
    ('{ contains = "t" }', {"contains": "t"}),
    ("{ absent = true }", {"absent": True}),
    ("{ absent = false }", {"absent": False}),
)
_VALUES: Sequence[tuple[str, Any]] = (("missing or empty", None), ("`CT`", "CT"), ("`ct\\PT`", ["ct", "PT"]), ("`2`", 2.0), ("`2\\5`", [2.0, 5.0]))


def conditions() -> str:
    """What each kind of condition makes of each kind of value: asked of the conditions themselves."""
    rows = []
    for written, said in _CONDITIONS:
        condition = Condition.model_validate(said)
        rows.append((code(written), *(_meets(condition, value) for _, value in _VALUES)))
    return table(("`when.X =`", *(f"X is {name}" for name, _ in _VALUES)), rows)


def _meets(condition: Condition, value: Any) -> str:
    return condition.objection("X", value) or "**yes**"


# ----------------------------------------------------------------------------------------------------------------- verbs


def commands() -> Mapping[str, Any]:
    """Return each verb as typer's own click has it."""
    return typer.main.get_command(app).commands  # type: ignore[attr-defined]


def verbs() -> str:
    """Every verb with its arguments and options."""
    rows = []
    for name, command in commands().items():
        takes = [_argument(one) for one in command.params if one.param_type_name == "argument"]
        options = [_option(one) for one in command.params if one.param_type_name == "option" and not one.hidden]
        rows.append((code(" ".join([name, *takes])), (command.help or "").strip(), ", ".join(options)))
    return table(("verb", "what it does", "options"), rows)


def measurement_columns() -> str:
    """Every column of the table that `export` writes."""
    kinds = {str: "text", int: "whole number", float: "number"}
    return table(("column", "type", "is"), [(code(column.name), kinds[column.kind], column.meaning) for column in COLUMNS])


def _argument(argument: Any) -> str:
    name = str(argument.name).upper() + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _option(option: Any) -> str:
    return code("/".join(sorted(option.opts, key=len, reverse=True)))


# ------------------------------------------------------------------------------------------------------------------- log


@dataclass(frozen=True, slots=True, order=True)
class Event:
    """One line that the node may log."""

    source: str
    level: str
    name: str
    keys: tuple[str, ...]


def log_events() -> str:
    """Every event that the program logs, read from its source."""
    rows = [(event.source, event.level, code(event.name), ", ".join(f"`{key}`" for key in event.keys)) for event in sorted(set(_events()))]
    return table(("part", "level", "event", "with"), rows)


def _events() -> list[Event]:
    found = []
    for path in sorted((ROOT / "dicom_node").rglob("*.py")):
        part = path.relative_to(ROOT / "dicom_node").parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _is_log(node.func):
                found.append(Event(part, node.func.attr, _text(node.args[0]), tuple(one.arg or "…" for one in node.keywords)))
    return [event for event in found if event.level != "debug"]


def _is_log(function: ast.Attribute) -> bool:
    on_log = isinstance(function.value, ast.Name) and function.value.id in ("log", "_log")
    return on_log and function.attr in ("debug", "info", "warning", "error")


def _text(name: ast.expr) -> str:
    if isinstance(name, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in name.values)
    return str(name.value) if isinstance(name, ast.Constant) else "…"


# ---------------------------------------------------------------------------------------------------------------- folder


def storage() -> str:
    """What lies in the storage folder: made, and looked at while it is in use."""
    with TemporaryDirectory() as folder:
        store = Store.open(Path(folder))
        store.archive.draft().drop()
        with store.database.write():
            names = {path.name for path in Path(folder).iterdir()}
        store.close()
    if stray := names ^ set(FOLDERS):
        raise KeyError(f"the storage folder and what is said of it differ in {stray}")
    return table(("name", "holds"), [(code(name), meaning) for name, meaning in FOLDERS.items()])


# -------------------------------------------------------------------------------------------------------------- refusals


def refused_findings() -> str:
    """What becomes of findings that are not what the manifest says: each tried on the contract."""
    with TemporaryDirectory() as folder:
        manifest = made.model(Path(folder) / "model").manifest
    grid = highdicom.Volume(np.zeros((4, 6, 8), np.float32), np.diag([2.0, 1.0, 1.0, 1.0]), "PATIENT")
    array = np.zeros(grid.spatial_shape, np.uint8)
    array[1, 2:4, 2:4], array[2, 2:4, 5:7], array[3, 0, 0] = 1, 2, 3
    good: dict[str, Any] = {
        "segments": grid.with_array(array),
        "measurements": {"volume": {1: 1.0, 2: 2.0, 3: 3.0}, "mean": {1: 0.0, 2: 0.0}, "ratio": 0.5, "quality": 97.0},
        "evaluations": {"emphysema": "no"},
    }
    half = grid.affine.copy()
    half[0, 3] += 1.0  # of 2 mm
    measured = good["measurements"]
    cases: list[tuple[str, Mapping[str, Any]]] = [
        ("what the manifest says", {}),
        ("a mask that is flipped, cropped or padded", {"segments": grid.with_array(array).flip_spatial(0)[1:]}),
        ("a mask that is shifted by half a voxel, turned or resampled", {"segments": highdicom.Volume(array, half, "PATIENT")}),
        ("a segment number that is not described", {"segments": grid.with_array(array * 2)}),
        ("a boolean mask for several segments", {"segments": grid.with_array(array > 0)}),
        ("no mask, though segments are described", {"segments": None}),
        ("a measurement that is not described", {"measurements": measured | {"area": 1.0}}),
        ("a measurement that is missing", {"measurements": {name: value for name, value in measured.items() if name != "ratio"}}),
        ("a number that is not finite", {"measurements": measured | {"ratio": float("nan")}}),
        ("`None`, though the segment has voxels", {"measurements": measured | {"mean": {1: None, 2: 0.0}}}),
        ("one number for several segments", {"measurements": measured | {"volume": 6.0}}),
        ("an answer that is not listed", {"evaluations": {"emphysema": "perhaps"}}),
        ("an image that is not described", {"images": {"smooth": grid}}),
    ]
    rows = [(what, _settled(Findings(**(good | said)), manifest, grid)) for what, said in cases]
    return table(("returned", "what becomes of it"), [*rows, *_refused_images(manifest, good, grid), *_refused_pointers(manifest, good, grid)])


def _refused_images(manifest: Manifest, good: Mapping[str, Any], grid: Any) -> list[tuple[str, str]]:
    """The same of a manifest that describes an image."""
    described = DerivedImage(description="Smoothed", derivation=("DCM.Smoothing",), image_type="SMOOTHED")  # type: ignore[arg-type]
    manifest = manifest.model_copy(update={"images": {"smooth": described}})
    values = grid.array.copy()
    values[0, 0, 0] = np.inf
    cases: list[tuple[str, dict[str, Any]]] = [
        ("an image that is flipped, or has its axes permuted", {"smooth": grid.flip_spatial(0)}),
        ("an image that is cropped, padded or lacks a slice", {"smooth": grid[1:]}),
        ("an image with a value that is not finite", {"smooth": grid.with_array(values)}),
        ("no image, though one is described", {}),
    ]
    return [(what, _settled(Findings(**good, images=images), manifest, grid)) for what, images in cases]


def _refused_pointers(manifest: Manifest, good: Mapping[str, Any], grid: Any) -> list[tuple[str, str]]:
    """The same of a manifest that describes a presentation and key images."""
    state = PresentationState(label="LUNG", description="Lung window")
    keys = KeyImages(title="DCM.OfInterest", description="Slices of interest.")  # type: ignore[arg-type]
    manifest = manifest.model_copy(update={"presentations": {"lung": state}, "keys": {"best": keys}})
    window = Presentation(window=(-600, 1500))
    outside = Presentation(marks=(Mark(slice=grid.shape[0], points=((1, 1),)),))
    cases: list[tuple[str, Any, tuple[int, ...]]] = [
        ("a window; key slices", window, (0, 2)),
        ("no presentation (`None`), no key slice", None, ()),
        ("a window without width", Presentation(window=(40, 0)), ()),
        ("a mark on a slice that is not there", outside, ()),
        ("a key slice that is not there", None, (-1,)),
    ]
    return [(what, _settled(Findings(**good, presentations={"lung": one}, keys={"best": slices}), manifest, grid)) for what, one, slices in cases]


def _settled(findings: Findings, manifest: Manifest, grid: Any) -> str:
    try:
        settle(findings, manifest, {"ct": grid})
    except ModelFailed as refused:
        return f"job fails: {refused}"
    return "taken"


_BROKEN: Sequence[tuple[str, str, str]] = (
    ("a key that is not known", 'name = "lung-phantom"', 'nmae = "lung-phantom"'),
    ("a DICOM keyword that is not known", 'Modality = "CT"', 'Modalty = "CT"'),
    ("a code that is not in the dictionary", '"SCT.Nodule"', '"SCT.Knoedel"'),
    ("segments with holes in their numbers", "number = 3", "number = 4"),
    ("a measurement on a segment that is not there", "segments = [1, 2, 3]", "segments = [1, 2, 4]"),
    ("a name that is no name", 'name = "lung-phantom"', 'name = "Lung Phantom"'),
)


def refused_manifests() -> str:
    """What is said of a manifest that cannot run: each tried."""
    rows = []
    for what, right, wrong in _BROKEN:
        assert right in made.MANIFEST
        with TemporaryDirectory() as folder:
            (Path(folder) / "model.toml").write_text(made.MANIFEST.replace(right, wrong, 1))
            (Path(folder) / "analysis.py").touch()
            try:
                load_model(Path(folder))
            except ConfigError as error:
                rows.append((what, code(wrong), str(error).removeprefix(f"{folder}/")))
            else:
                raise AssertionError(f"{what}: loads")
    return table(("what is wrong", "such as", "message"), rows)
