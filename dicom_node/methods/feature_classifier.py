"""A trained classifier put to work: the features of each region, its probability, and the sentences that say how far to trust it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dicom_node.domain import Findings
from dicom_node.methods.radiomics import CT_BINS, NAMES, RELATIVE_BINS, Binning, boxes, features, mask_of
from dicom_node.methods.tabular import Classifier

BINNINGS: dict[str, Binning] = {"radiomics": CT_BINS, "radiomics-mr": RELATIVE_BINS}  # of the models whose features it may have learnt

Progress = Callable[[float, str], None]


def classifier_of_regions(file: Path, *, features_of: str, positive: str, calibration: str) -> Callable[..., Findings]:
    """Return the analysis of a model's folder: the probability of each region, and whether one reaches the operating point.

    file: the classifier. features_of: the model whose features it was trained on. positive: what class 1 is called. calibration: a sentence on how
    well its probabilities were calibrated on held-out patients, which every report repeats.

    Raises
    ------
    ValueError: the file cannot be read, or asks for features that are not known.
    """
    classifier = Classifier.read(file)
    unknown = set(classifier.features) - set(NAMES)
    if unknown:
        raise ValueError(f"{file.name} asks for the feature {min(unknown)}, which is not known")

    def analyse(image: Any, regions: Any, progress: Progress = lambda fraction, sentence: None) -> Findings:
        probability: dict[int, float | None] = {}
        notes = []
        found = list(boxes(regions.array))
        for done, (number, box) in enumerate(found):
            progress(done / len(found), f"region {number}")
            measured = features(image.array, mask_of(regions.array, number, box), box, image.spacing, BINNINGS[features_of])
            probability[number], said = _one(classifier, measured, positive)
            notes.append(f"Region {number}: {said}.")
        return Findings(
            measurements={"probability": probability},
            evaluations={"found": _answer(list(probability.values()), classifier.operating_point)},
            notes=(*notes, calibration),
        )

    return analyse


def _answer(probabilities: Sequence[float | None], threshold: float) -> str:
    """Say whether a region reaches the operating point: of regions without a probability nobody knows."""
    if any(p is not None and p >= threshold for p in probabilities):
        return "present"
    return "undetermined" if None in probabilities else "absent"


def _one(classifier: Classifier, measured: dict[str, float], positive: str) -> tuple[float | None, str]:
    """Return the probability of one region and what is said of it; None where a feature is undefined on it."""
    missing = [name for name in classifier.features if name not in measured]
    if missing:
        return None, f"no probability, since {len(missing)} features are undefined on it"
    x = np.array([[measured[name] for name in classifier.features]])
    probability = float(classifier.probabilities(x)[0])
    far = np.abs((x - classifier.mean) / classifier.deviation).max()
    called = positive if probability >= classifier.operating_point else f"not {positive}"
    doubt = f"; a feature lies {far:.0f} standard deviations from the training data's mean" if far > 10 else ""
    return probability, f"{called}, probability {probability:.3f}, operating point {classifier.operating_point:.3f}{doubt}"
