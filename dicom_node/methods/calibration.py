"""Scores of a classifier made into probabilities, and the score from which an answer is yes; both chosen on cases that taught it nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit
from sklearn.metrics import brier_score_loss, roc_auc_score, roc_curve

Numbers = NDArray[np.float64]

COOL, HOT = 0.05, 20.0  # temperatures that are looked among


def probabilities(logits: Sequence[float] | Numbers, temperature: float = 1.0) -> Numbers:
    """Return the logistic function of the scores, flattened by the temperature."""
    return np.asarray(expit(np.asarray(logits, np.float64) / temperature))


def temperature(logits: Sequence[float] | Numbers, truth: Sequence[bool] | NDArray[np.bool_]) -> float:
    """Return the temperature with which the scores' probabilities suit the truth best (least log loss); the order of the scores stays.

    After Guo et al., On Calibration of Modern Neural Networks, ICML 2017. What is wanted of n cases of a kind is a probability of
    (n + 1) / (n + 2), after Platt (1999): a few cases that are told apart without an error are no reason to be certain.

    Raises
    ------
    ValueError: all cases are of one kind.
    """
    yes = np.asarray(truth, bool)
    if yes.all() or not yes.any():
        raise ValueError("a temperature needs cases of both kinds")
    wanted = np.where(yes, (yes.sum() + 1) / (yes.sum() + 2), 1 / ((~yes).sum() + 2))
    scores = np.asarray(logits, np.float64)

    def loss(log: float) -> float:
        cooled = scores / np.exp(log)
        return float(np.mean(np.logaddexp(0, cooled) - wanted * cooled))  # the log loss, where no probability has to be 0 or 1

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(COOL), np.log(HOT)), method="bounded").x))


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """From which probability on the answer is yes, and what that gave on the cases it was chosen on."""

    threshold: float
    sensitivity: float
    specificity: float


def operating_point(
    likely: Sequence[float] | Numbers, truth: Sequence[bool] | NDArray[np.bool_], *, sensitivity: float | None = None
) -> OperatingPoint:
    """Return the threshold with the greatest sensitivity + specificity (Youden's index), or the best specificity at a least sensitivity.

    The threshold lies half way between the least probability that is called positive and the next below it.

    Raises
    ------
    ValueError: all cases are of one kind.
    """
    if len(set(map(bool, truth))) < 2:
        raise ValueError("an operating point needs cases of both kinds")
    false_rate, true_rate, thresholds = roc_curve(truth, likely, drop_intermediate=False)
    merit = true_rate - false_rate if sensitivity is None else np.where(true_rate >= sensitivity, -false_rate, -np.inf)
    best = int(np.argmax(merit))
    lowest = min(float(thresholds[best]), 1.0)  # of all cases that are called positive
    below = max((float(one) for one in likely if one < lowest), default=0.0)
    return OperatingPoint((lowest + below) / 2, float(true_rate[best]), float(1 - false_rate[best]))


@dataclass(frozen=True, slots=True)
class Trust:
    """How far probabilities can be believed: their order, their error, and how often a said probability comes true."""

    auc: float
    brier: float
    calibration_error: float  # expected calibration error: mean distance between said and seen, over bins of equal width


def trust(likely: Sequence[float] | Numbers, truth: Sequence[bool] | NDArray[np.bool_]) -> Trust:
    """Return how far probabilities agree with the truth of cases of both kinds."""
    said, seen = np.asarray(likely, np.float64), np.asarray(truth, bool)
    return Trust(float(roc_auc_score(seen, said)), float(brier_score_loss(seen, said)), calibration_error(said, seen))


def calibration_error(likely: Sequence[float] | Numbers, truth: Sequence[bool] | NDArray[np.bool_], *, bins: int = 10) -> float:
    """Return the expected calibration error: in bins of equal width, how far the mean probability is from the share of yes, by their cases."""
    said, seen = np.asarray(likely, np.float64), np.asarray(truth, bool)
    which = np.minimum((said * bins).astype(int), bins - 1)
    apart = np.bincount(which, said, minlength=bins) - np.bincount(which, seen, minlength=bins)
    return float(np.abs(apart).sum() / len(said))
