"""If it loads, it can run.

What the site decides (`node.toml`) and what each model says of itself (`model.toml`): read once, checked whole, frozen.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dicom_node.config.access import Oidc, RoleName, WebTls, is_loopback
from dicom_node.config.conditions import Condition, Conditions, objections, unrecognised
from dicom_node.config.listing import models_told
from dicom_node.config.model import FOUND, Input, Manifest, Model, Weights
from dicom_node.config.node import (
    Deliver,
    Hl7,
    Late,
    ModelChoice,
    Node,
    NodeConfig,
    PriorsWanted,
    Rule,
    Tls,
    Web,
    Work,
)
from dicom_node.config.notify import About, FindingWanted, Mail, Notify
from dicom_node.config.outputs import (
    PALETTE,
    VALUE,
    Code,
    DerivedImage,
    Evaluation,
    FoundSegments,
    KeyImages,
    Measurement,
    ParametricMap,
    PresentationState,
    Segment,
    unit_code,
)
from dicom_node.config.remotes import Encoding, Remote, RemoteTls, User
from dicom_node.config.rules import rules_from, rules_text
from dicom_node.config.triage import Triage
from dicom_node.domain import ConfigError

__all__ = [
    "FOUND",
    "PALETTE",
    "VALUE",
    "About",
    "Code",
    "Condition",
    "Conditions",
    "Deliver",
    "DerivedImage",
    "Encoding",
    "Late",
    "Evaluation",
    "FindingWanted",
    "FoundSegments",
    "Hl7",
    "Input",
    "KeyImages",
    "Mail",
    "Manifest",
    "Measurement",
    "Model",
    "ModelChoice",
    "Node",
    "NodeConfig",
    "Oidc",
    "Notify",
    "ParametricMap",
    "PresentationState",
    "PriorsWanted",
    "Remote",
    "RemoteTls",
    "RoleName",
    "Rule",
    "Segment",
    "Site",
    "Tls",
    "Triage",
    "User",
    "Web",
    "WebTls",
    "Weights",
    "Work",
    "bundled",
    "is_loopback",
    "load_model",
    "load_site",
    "models_told",
    "objections",
    "rules_from",
    "rules_text",
    "unit_code",
    "unrecognised",
    "weights_home",
]

_Checked = TypeVar("_Checked", bound=BaseModel)


@dataclass(frozen=True, kw_only=True)
class Site:
    """The configuration and the models it names, ready to run."""

    config: NodeConfig
    models: Mapping[str, Model]

    @property
    def keywords(self) -> frozenset[str]:
        """The DICOM keywords that rules and models ask for."""
        return self.config.keywords.union(*(model.manifest.keywords for model in self.models.values()))


def bundled(kind: str) -> Path:
    """Return the folder of `models` or `config` that comes with the program: in the installed package, or beside it in a clone."""
    package = Path(__file__).parents[1]
    installed = package / "share" / kind
    return installed if installed.is_dir() else package.parent / kind


def weights_home() -> Path:
    """Return where fetched weights and samples are kept: DICOM_NODE_CACHE, else the user's cache folder."""
    chosen = os.environ.get("DICOM_NODE_CACHE")
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dicom-node"


def load_model(folder: Path) -> Model:
    """Read a model's folder.

    Raises
    ------
    ConfigError: there is no `model.toml` or `analysis.py`, or the manifest says something that cannot run.
    """
    path = folder / "model.toml"
    manifest = _checked(Manifest, _read(path), path)
    if not (folder / "analysis.py").is_file():
        raise ConfigError(f"{folder} has no analysis.py", hint="A model is a folder with model.toml and analysis.py.")
    return Model(folder.resolve(), manifest, weights_home() / "weights" / manifest.name)


def load_site(path: Path | None = None, **overrides: Any) -> Site:
    """Read the site's configuration and every model it names; without a file, the default: every bundled model, on loopback.

    overrides: sections and keys that replace the file's, such as `node={"port": 0}`.

    Raises
    ------
    ConfigError: a file is missing, is not TOML, or breaks a rule; the message names the place, the value and the rule.
    """
    said = _read(path) if path else _default()
    for section, values in overrides.items():
        there = said.get(section, {})
        said[section] = {**there, **values} if isinstance(there, dict) else there  # what is no section is told below
    config = _checked(NodeConfig, said, path or Path("the built-in configuration"))
    base = path.parent if path else Path()
    models = {}
    for name, choice in config.models.items():
        folder = choice.folder if choice.folder.is_absolute() else base / choice.folder
        if not folder.is_dir():
            folder = bundled("models") / choice.folder.name
        models[name] = load_model(folder)
        if models[name].name != name:
            raise ConfigError(
                f"[models.{name}] points at {folder}, whose model.toml is named '{models[name].name}'", hint="Use the model's own name."
            )
    return Site(config=config, models=models)


def _default() -> dict[str, Any]:
    return _read(bundled("config") / "default.toml")


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", hint="Give the path of a file that exists.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8: byte {error.start + 1} is no character", hint="Save it as UTF-8.") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}", hint="Mend the line that it names.") from error


def _checked(kind: type[_Checked], said: dict[str, Any], path: Path) -> _Checked:
    try:
        return kind.model_validate(said)
    except ValidationError as error:
        lines = []
        for one in error.errors():
            place = ".".join(str(part) for part in one["loc"]) or "the whole"
            shown = f" (is {one['input']!r})" if isinstance(one["input"], str | int | float | bool) else ""
            rule = "there is no such key" if one["type"] == "extra_forbidden" else one["msg"].removeprefix("Value error, ")
            lines.append(f"{place}{shown}: {rule}")
        raise ConfigError(f"{path}: {'; '.join(lines)}", hint="Correct the keys named here; config/node.toml shows each of them.") from error
