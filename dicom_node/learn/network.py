"""A network that somebody taught becomes a model that the node can run, whole in one folder.

The folder is the bundled slot `image_classifier` with the network's weights, what the network has to be told of itself, and a manifest that
says in coded terms what its labels mean. All three come from a description: a TOML file, or the same as a mapping.
"""

import json
import shutil
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dicom_node.config import Model, bundled, load_model
from dicom_node.domain import ConfigError

if TYPE_CHECKING:
    from dicom_node.methods.classification import Description

_SLOT, _INPUT = "image_classifier", "image"
_TOLD = ("network", "image", "labels")  # what the network's code reads; everything else is the manifest's
_MEANING = ("concept", "site", "yes", "no")  # of a label, for the manifest
_OF_THE_SLOT = ("performance",)  # was measured on another network
_YES, _NO, _ANYWHERE = "SCT.Present", "SCT.Absent", "SCT.EntireBody"
_PLANE = 2  # dimensions of a single image, over which no parametric map is laid: it names no frame of reference
_HINT = "The card of models/image_classifier shows a description."

Said = Mapping[str, Any]


def description_of(path: Path) -> Said:
    """Read a description.

    Raises
    ------
    ConfigError: it is not TOML, or lacks what a classifier needs.
    """
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}", hint=_HINT) from error
    missing = [key for key in ("name", *_TOLD) if key not in said]
    if missing:
        raise ConfigError(f"the description lacks {', '.join(missing)}", hint=_HINT)
    if not (isinstance(said["labels"], list) and _is_table(said["labels"])):
        raise ConfigError("the description's labels are no tables [[labels]]", hint=_HINT)
    return said


def told_of(said: Said) -> "Description":
    """Return what the network's code is told of a description.

    Raises
    ------
    ConfigError: it is no description of a classifier.
    """
    from dicom_node.methods.classification import Description  # late: it loads torch

    try:
        return Description.model_validate(_told(said))
    except ValueError as error:
        raise _cannot_run(error) from error


def package(said: Said, network: Path, out: Path) -> Model:
    """Write a model's folder of a description and its network's weights, a state dictionary that torch saved, and return the model.

    Raises
    ------
    ConfigError: `out` exists already, the description says something that cannot run, or the weights are not those of its network.
    """
    from dicom_node.methods.classification import Classifier

    if out.exists():
        raise ConfigError(f"{out} exists already", hint="Name a new folder: a model that is in use is never changed in place.")
    try:
        Classifier(told_of(said), network)
    except ValueError as error:
        raise _cannot_run(error) from error
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        made = write(said, Path(folder) / "made").folder
        shutil.copyfile(network, made / "network.pt")
        made.rename(out)
    return load_model(out)


def write(said: Said, out: Path) -> Model:
    """Write a model's folder without the network's weights, and return the model, which lacks them.

    Raises
    ------
    ConfigError: the description says something that no manifest may.
    """
    shutil.copytree(bundled("models") / _SLOT, out, ignore=shutil.ignore_patterns("__pycache__", "README.md"))
    slot = tomllib.loads((out / "model.toml").read_text(encoding="utf-8"))
    (out / "model.toml").write_text(_toml(_manifest(said, slot)), encoding="utf-8")
    (out / "classifier.toml").write_text(_toml(_told(said)), encoding="utf-8")
    return load_model(out)


def _told(said: Said) -> dict[str, Any]:
    """Return what the code is told: network, image and labels without what the labels mean."""
    labels = [{key: value for key, value in label.items() if key not in _MEANING} for label in said["labels"]]
    return {"network": said["network"], "image": said["image"], "labels": labels}


def _cannot_run(error: ValueError) -> ConfigError:
    lines = [line.strip() for line in str(error).splitlines() if not line.strip().startswith("For further information")]
    return ConfigError(f"the classifier cannot run: {'; '.join(lines)}", hint=_HINT)


# --------------------------------------------------------------------------------------------------------- the manifest


def _manifest(said: Said, slot: Said) -> dict[str, Any]:
    """Return the slot's manifest with what the description says in its place, and for each label a probability, an answer and a map."""
    of_slot = {key: value for key, value in slot.items() if key not in _OF_THE_SLOT}
    manifest = of_slot | {key: value for key, value in said.items() if key not in _TOLD}
    if set(manifest["inputs"]) != {_INPUT}:
        raise ConfigError(f"a classifier has one input, [inputs.{_INPUT}], not {', '.join(manifest['inputs'])}", hint=_HINT)
    labels = {label.get("name", ""): label for label in said["labels"]}
    concepts = {name: _concept(name, label) for name, label in labels.items()}
    manifest["measurements"] = {
        name: {"concept": _likely(name, concepts), "unit": "1", "site": label.get("site", _ANYWHERE), "plausible": [0, 1], "digits": 3}
        for name, label in labels.items()
    }
    manifest["evaluations"] = {
        name: {
            "concept": concepts[name],
            "site": label.get("site", _ANYWHERE),
            "answers": {"yes": label.get("yes", _YES), "no": label.get("no", _NO)},
        }
        for name, label in labels.items()
    }
    map_of_slot = next(iter(slot["maps"].values()))
    in_space = said["network"].get("arguments", {}).get("spatial_dims") != _PLANE
    manifest["maps"] = {name: map_of_slot | {"description": f"What speaks for {concept[2]}"[:64]} for name, concept in concepts.items() if in_space}
    return manifest


def _concept(name: str, label: Said) -> list[str]:
    concept = label.get("concept")
    if not (isinstance(concept, list) and len(concept) == 3):
        raise ConfigError(f"label '{name}' has no concept [value, scheme, meaning]: what is asked of the image", hint=_HINT)
    return concept


def _likely(name: str, concepts: Mapping[str, list[str]]) -> str | list[str]:
    """Return the term for a label's probability: of several labels in one report each needs its own to be told apart."""
    if len(concepts) == 1:
        return "DCM.Probability"
    return [f"P_{name}"[:16].upper(), "99DICOMNODE", f"Probability of {concepts[name][2]}"[:64]]


# --------------------------------------------------------------------------------------------------------------- TOML


def _toml(said: Said) -> str:
    """Return nested mappings as TOML: values first, then tables, and lists of mappings as tables of their own."""
    return "\n".join(_lines(said, ())).strip() + "\n"


def _lines(said: Said, place: tuple[str, ...]) -> Iterator[str]:
    tables = {key: value for key, value in said.items() if _is_table(value)}
    yield from (f"{_key(key)} = {json.dumps(value, ensure_ascii=False)}" for key, value in said.items() if key not in tables)
    for key, value in tables.items():
        name = ".".join(_key(one) for one in (*place, key))
        for one in value if isinstance(value, list) else [value]:
            yield f"\n[[{name}]]" if isinstance(value, list) else f"\n[{name}]"
            yield from _lines(one, (*place, key))


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list) and bool(value) and all(isinstance(one, Mapping) for one in value))


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else json.dumps(key)
