"""A classifier trained on four fifths of the patients, and judged on the last."""

from dataclasses import dataclass, replace

import numpy as np

from dicom_node.domain import ConfigError
from dicom_node.learn.samples import Samples
from dicom_node.methods.tabular import Classifier, figures, split, train


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A classifier, what it learnt from, and how well it does on patients that it has not seen."""

    classifier: Classifier
    samples: Samples
    trained_on: tuple[int, int]  # regions, patients
    tested_on: tuple[int, int]
    figures: dict[str, float]  # on the held-out patients, at the operating point


def learn(kind: str, samples: Samples) -> Trained:
    """Train a classifier. No patient is in training and test, and the figures are the test's, which nothing was chosen by.

    Raises
    ------
    ConfigError: there are too few patients of one class.
    """
    try:
        known, held_out = split(samples.y, samples.patients)[0]
        varies = np.ptp(samples.x[known], axis=0) > 0
        some = replace(samples, names=tuple(np.array(samples.names)[varies]), x=samples.x[:, varies])
        _, classifier = train(kind, some.names, some.x[known], some.y[known], some.patients[known])
    except ValueError as error:
        raise ConfigError(str(error), hint="Label more regions, of more patients.") from error
    probability = classifier.probabilities(some.x[held_out])
    return Trained(
        classifier=classifier,
        samples=some,
        trained_on=_counted(some, known),
        tested_on=_counted(some, held_out),
        figures=figures(some.y[held_out], probability, classifier.operating_point),
    )


def _counted(samples: Samples, chosen: np.ndarray) -> tuple[int, int]:
    return len(chosen), len(set(samples.patients[chosen]))
