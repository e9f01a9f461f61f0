"""How likely a finding is, by a network that the site supplies, and which parts of the image speak for it.

`classifier.toml` says which network it is, how an image is made ready for it, and for each label the temperature of its score and from which
probability the answer is yes; `network.pt` holds the weights. `dicom-node package` writes both beside this file.
"""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dicom_node import Findings
from dicom_node.methods.classification import Classifier, Description, Label, Taken, laid_back, taken

Progress = Callable[[float, str], None]


def load(folder: Path, device: str) -> Callable[..., Findings]:
    """Return the analysis with the network on the device."""
    said = Description.model_validate(tomllib.loads((folder / "classifier.toml").read_text(encoding="utf-8")))
    classifier = Classifier(said, folder / "network.pt", device)

    def analyse(image: Any, progress: Progress = lambda fraction, sentence: None) -> Findings:
        """Say of each label how likely it is, and whether that is above its operating point.

        image: a volume with an affine to patient coordinates (LPS), in any orientation; of a projection, one slice.

        Raises
        ------
        Unsuitable: the image is no volume, though the network asks for one, or shows nothing.
        """
        progress(0.1, "preparing the image")
        one = taken(image, said, device)
        progress(0.4, "asking the network")
        likely = classifier.probabilities(one.ready)
        answers = {label.name: "yes" if likely[label.name] >= label.threshold else "no" for label in said.labels}
        notes = tuple(_said(label, likely[label.name]) for label in said.labels)
        if said.network.dims == 2:
            return Findings(measurements=likely, evaluations=answers, notes=notes)
        progress(0.6, "mapping what speaks for it")
        maps = {label.name: one.grid.with_array(_map(classifier, one, n)) for n, label in enumerate(said.labels)}
        return Findings(measurements=likely, evaluations=answers, maps=maps, notes=notes)

    return analyse


def _map(classifier: Classifier, one: Taken, number: int) -> Any:
    """Return on the volume's grid (slice, row, column) what speaks for a label, from 0 to 1."""
    values = classifier.activation(one.ready, number)
    return np.clip(laid_back(values, one.shape, one.spacing_mm, classifier.said.image), 0, 1)


def _said(label: Label, likely: float) -> str:
    """Return what the reader has to know of a probability: where the answer turns, and on what that was chosen."""
    turn = f"{label.name}: probability {likely:.3f}; the answer is yes from {label.threshold:.3f} on (score divided by {label.temperature:.2f})."
    return f"{turn} {label.validation}".strip()
