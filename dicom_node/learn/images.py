"""A classifier of images learns from labelled cases, is calibrated on others, and judged on patients that it has not met before.

One patient's cases are never parted. The description is that of `package`, without temperatures and operating points: those are what is chosen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import GroupShuffleSplit
from torch import Tensor

from dicom_node.domain import ConfigError
from dicom_node.methods.calibration import operating_point, probabilities, temperature, trust
from dicom_node.methods.classification import Classifier, Description
from dicom_node.methods.training import fit

SEED = 42
SHARE = 0.2  # of the patients: to choose on, and as many to judge by
BATCH = 8

Places = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cases:
    """Images made ready (case, 1, *size), what is true of each (case, label), and whose they are."""

    images: Tensor
    truth: NDArray[np.bool_]
    patients: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Taught:
    """A network's weights, and the description with what was chosen for each label and what was measured."""

    state: Mapping[str, Tensor]
    description: Mapping[str, Any]
    figures: Mapping[str, Mapping[str, float]]  # label -> figure on the patients that were kept back


def parts(patients: Sequence[str]) -> tuple[Places, Places, Places]:
    """Return which cases to learn from, to choose on and to judge by: patients are dealt out with a fixed seed, a fifth for each of the last two.

    Raises
    ------
    ConfigError: there are fewer than five patients.
    """
    if len(set(patients)) < round(1 / SHARE):
        raise ConfigError(f"{len(set(patients))} patients cannot be parted in three", hint="Label cases of more patients.")
    rest, judge = next(GroupShuffleSplit(1, test_size=SHARE, random_state=SEED).split(patients, groups=patients))
    of_rest = [patients[n] for n in rest]
    learn, choose = next(GroupShuffleSplit(1, test_size=SHARE / (1 - SHARE), random_state=SEED).split(of_rest, groups=of_rest))
    return rest[learn], rest[choose], judge


def teach(said: Mapping[str, Any], told: Description, cases: Cases, *, steps: int, rate: float, device: str = "cpu", command: str = "") -> Taught:
    """Teach the network of a description, choose temperature and operating point of each label, and measure both on patients kept back.

    said: the whole description; told: what of it the network is told. command: what stands beside the figures, to measure them again.

    Raises
    ------
    ConfigError: there are too few patients, or a part of them shows a label always or never.
    """
    learn, choose, judge = parts(cases.patients)
    _check_kinds(told, cases, {"to learn from": learn, "to choose on": choose, "to judge by": judge})
    classifier = Classifier(told, _taught(told, cases, learn, steps=steps, rate=rate, device=device), device)
    chosen_on, judged_by = (_logits(classifier, cases.images[places]) for places in (choose, judge))
    labels, figures = [], {}
    for n, label in enumerate(said["labels"]):
        heat = temperature(chosen_on[:, n], cases.truth[choose, n])
        point = operating_point(probabilities(chosen_on[:, n], heat), cases.truth[choose, n])
        figures[label["name"]] = _judged(probabilities(judged_by[:, n], heat), cases.truth[judge, n], point.threshold)
        labels.append(
            label | {"temperature": heat, "threshold": point.threshold, "validation": _said(figures[label["name"]], len(choose), len(judge))}
        )
    data = f"{len(judge)} images of {len({cases.patients[n] for n in judge})} patients that were kept back; taught on {len(learn)} images"
    performance = [
        {"figure": f"{figure}, {name}", "value": [round(value, 4)], "data": data, "command": command}
        for name, each in figures.items()
        for figure, value in each.items()
    ]
    return Taught(state=classifier.network.state_dict(), description={**said, "labels": labels, "performance": performance}, figures=figures)


def _check_kinds(told: Description, cases: Cases, named: Mapping[str, Places]) -> None:
    for n, label in enumerate(told.labels):
        for what, places in named.items():
            if len(set(cases.truth[places, n].tolist())) < 2:
                raise ConfigError(
                    f"the {len(places)} cases {what} all have the same answer to '{label.name}'", hint="Label more cases of both kinds."
                )


def _taught(told: Description, cases: Cases, learn: Places, *, steps: int, rate: float, device: str) -> Mapping[str, Tensor]:
    torch.manual_seed(SEED)
    network, rng, measure = told.network.build().to(device), np.random.default_rng(SEED), torch.nn.BCEWithLogitsLoss()
    wanted = torch.from_numpy(cases.truth).float()

    def loss(step: int) -> Tensor:
        chosen = rng.choice(learn, min(BATCH, len(learn)), replace=False)
        return measure(network(cases.images[chosen].to(device)), wanted[chosen].to(device))

    fit(network, loss, steps=steps, rate=rate)
    return network.state_dict()


def _logits(classifier: Classifier, images: Tensor) -> NDArray[np.float64]:
    said = [classifier.logits(few.to(classifier.device)).double().cpu().numpy() for few in images.split(BATCH)]
    return np.asarray(np.concatenate(said))


def _judged(likely: NDArray[np.float64], truth: NDArray[np.bool_], threshold: float) -> dict[str, float]:
    found = trust(likely, truth)
    yes = likely >= threshold
    rates = {"sensitivity": float(yes[truth].mean()), "specificity": float((~yes[~truth]).mean())}
    return {"AUC": found.auc, **rates, "Brier score": found.brier, "calibration error": found.calibration_error}


def _said(figures: Mapping[str, float], chosen_on: int, judged_by: int) -> str:
    rates = ", ".join(f"{name} {value:.2f}" for name, value in figures.items())
    return f"Both were chosen on {chosen_on} images; on {judged_by} of other patients: {rates}."
