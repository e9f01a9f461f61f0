"""A trained classifier as a model's folder: manifest, code, numbers and card. It is installed like any other model."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from dicom_node.config import Manifest, load_model
from dicom_node.domain import ConfigError
from dicom_node.learn.trained import Trained

_SHOWN = ("auc", "accuracy", "recall", "specificity", "precision", "f1", "brier", "calibration_error")
_LONGEST = 40  # of what the positive class is called: it stands in a code's meaning

_MANIFEST = """# Made by `dicom-node train`. Figures: README.md beside this file, the model card.
name = {name}
version = {version}
task = {task}
intended_use = "Research use only; not for diagnosis."
not_for = ["a decision about a patient", "regions unlike those that it was trained on"]
licence = "as those who trained it say"
family = "DCM.ArtificialIntelligence"
citations = [
    "Zwanenburg A et al. The Image Biomarker Standardization Initiative. Radiology 295:328-338, 2020. doi:10.1148/radiol.2020191145 (the features).",
    "Pedregosa F et al. Scikit-learn: machine learning in Python. J Mach Learn Res 12:2825-2830, 2011 (the training).",
]

[inputs.image]
{modality}
allow_derived = true
prefer = ["most-slices"]

[inputs.regions]
kind = "regions"
of = "image"

[measurements.probability]
concept = "DCM.Probability"
unit = "1"
of = "regions"
plausible = [0, 1]
digits = 4

[evaluations.found]
concept = ["CLASS", "99DICOMNODE", {found}]
answers.present = "SCT.Present"
answers.absent = "SCT.Absent"
answers.undetermined = "SCT.Undetermined"

[resources]
memory_mb = 6144
timeout_s = 1800
libraries = ["scipy.ndimage", "scipy.signal", "skimage.measure"]
"""

_PERFORMANCE = """
[[performance]]
figure = {figure}
value = [{value}]
data = {data}
command = {command}
"""

_CODE = '''"""The probability that a region is {positive}, by its features."""

from collections.abc import Callable
from pathlib import Path

from dicom_node import Findings
from dicom_node.methods.feature_classifier import classifier_of_regions


def load(folder: Path, device: str) -> Callable[..., Findings]:
    """Return the analysis; classifier.json holds numbers and nothing that runs."""
    return classifier_of_regions(
        folder / "classifier.json",
        features_of={features_of},
        positive={positive_text},
        calibration={calibration},
    )
'''

_CARD = """# {name}: the probability that a region is {positive}

**Research use only; not for diagnosis. Not clinically evaluated. It was trained by `dicom-node train` and says what its table taught it.**

## How

{count} features of `{features_of}`, standardised, then {kind}; probabilities calibrated (Platt) on patients that were held out in cross-validation.
The operating point, a probability of {point:.3f}, is where sensitivity and specificity add up to most on them.
Left out, since undefined on some region or the same on all: {dropped} features.

## What it was measured on

Trained on {trained[0]} regions of {trained[1]} patients, tested on {tested[0]} regions of {tested[1]} others. `{command}`

| figure on the held-out patients | value |
|---|---|
{rows}

## Limits

- It knows {positive} and {negative} and nothing else: any region gets a probability, also one that is neither.
- Its probabilities hold where {positive} is as frequent as in training: {share:.0%} of the regions.
- Images with other voxels, kernels or sequences than in training have other features. A report says where a feature lies far from the training's.

## It declines

images that `{features_of}` declines. A region on which a feature is undefined gets no probability,
and unless another region reaches the operating point the answer is then undetermined.

Try it: `dicom-node try {folder} FOLDER`; test it: `python -m pytest` has no test of it until those who trained it write one.
"""


def write_model(folder: Path, name: str, trained: Trained, manifests: Mapping[str, Manifest], *, version: str, command: str) -> Path:
    """Write the model's folder and read it back as a site would; return it.

    Raises
    ------
    ConfigError: the folder is there already, or the name or the label cannot be used.
    """
    samples = trained.samples
    if folder.exists():
        raise ConfigError(f"{folder} is there already", hint="Name another folder, or remove it: a model is not changed in place.")
    if len(samples.positive) > _LONGEST or not samples.positive.isprintable():
        raise ConfigError(f"the label '{samples.positive}' is too long for a code's meaning", hint=f"At most {_LONGEST} characters.")
    folder.mkdir(parents=True)
    try:
        trained.classifier.write(folder / "classifier.json")
        (folder / "model.toml").write_text(_manifest(name, trained, manifests, version, command))
        (folder / "analysis.py").write_text(_code(trained))
        (folder / "README.md").write_text(_card(folder, name, trained, command))
        load_model(folder)
    except BaseException:
        shutil.rmtree(folder)
        raise
    return folder


def _manifest(name: str, trained: Trained, manifests: Mapping[str, Manifest], version: str, command: str) -> str:
    samples = trained.samples
    asked = manifests[samples.features_of].inputs["image"]
    modality = asked.when["Modality"]
    said = f"Modality = {_text(modality.equals)}" if modality.equals else f"Modality = {{ any = [{', '.join(map(_text, modality.any or ()))}] }}"
    told = _MANIFEST.format(
        name=_text(name),
        version=_text(version),
        task=_text(f"Gives the probability that a region is {samples.positive}, by {len(samples.names)} features of {samples.features_of}."),
        modality=said + ('\nunits = "HU"' if asked.units else ""),
        found=_text(f"A region is {samples.positive}"),
    )
    data = f"{trained.tested_on[0]} held-out regions of {trained.tested_on[1]} patients"
    return told + "".join(
        _PERFORMANCE.format(figure=_text(one), value=f"{trained.figures[one]:.4f}", data=_text(data), command=_text(command)) for one in _SHOWN
    )


def _code(trained: Trained) -> str:
    tested, said = trained.tested_on, trained.figures
    calibration = (
        f"Probabilities were calibrated; on {tested[0]} held-out regions of {tested[1]} patients the Brier score was {said['brier']:.3f}, "
        f"the expected calibration error {said['calibration_error']:.3f}, the AUC {said['auc']:.3f}."
    )
    positive = trained.samples.positive
    return _CODE.format(
        positive=_plain(positive), features_of=repr(trained.samples.features_of), positive_text=repr(positive), calibration=repr(calibration)
    )


def _card(folder: Path, name: str, trained: Trained, command: str) -> str:
    samples = trained.samples
    return _CARD.format(
        name=name,
        folder=folder.name,
        positive=samples.positive,
        negative=samples.negative,
        count=len(samples.names),
        features_of=samples.features_of,
        kind={"logistic": "logistic regression", "bayes": "naive Bayes", "network": "a network of 64, 32 and 1 neurons"}[trained.classifier.kind],
        point=trained.classifier.operating_point,
        dropped=len(samples.dropped),
        trained=trained.trained_on,
        tested=trained.tested_on,
        command=command,
        rows="\n".join(f"| {one.replace('_', ' ')} | {trained.figures[one]:.3f} |" for one in _SHOWN),
        share=float(samples.y.mean()),
    )


def _text(value: object) -> str:
    """Write a text as a TOML basic string, whose escapes are JSON's."""
    return json.dumps(str(value), ensure_ascii=False)


def _plain(text: str) -> str:
    """Return a text that can stand in a docstring."""
    return text.replace("\\", "/").replace('"', "'")
