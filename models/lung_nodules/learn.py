"""Learns the numbers of `posterior.py` from simulated chests and prints them: `python -m models.lung_nodules.learn`.

Naive Bayes counts features that go together more than once, which makes it too sure. So the odds that it gives in chests that it has not seen (each
is left out in turn) go through a logistic regression, whose slope and offset make probabilities of them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.naive_bayes import GaussianNB

from dicom_node.methods.lungs import find

from .boundary import FEATURES, candidates
from .candidates import field
from .chest import Chest, Scanner, chest
from .posterior import LEAST, calibrated, log_likelihood_ratio

CHESTS, FIRST, EACH = 14, 100, 20  # how many chests, the first one's seed, how many nodules in each
WIDTHS_MM = (4.0, 30.0)  # of nodules: as many from 4 to 8 mm as from 8 to 16
NEAR_MM = 2.0  # beyond a nodule's surface: a candidate there is neither the nodule nor something else
AT_PLEURA = -2.5  # of the feature "walled": from 6 % of the shell outside of the lungs
NODULE, NODULE_AT_PLEURA, VESSEL, FOLD, UNSURE = range(5)

Features = NDArray[np.float64]  # (candidate, feature)
Kinds = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Observed:
    """The candidates of one chest: their features, what each is, and of each nodule the candidate that is it, -1 where it was not seen."""

    features: Features
    kinds: Kinds
    seen_as: NDArray[np.intp]


def drawn(seed: int) -> Chest:
    """Return one chest of the training set, as one of many scanners shows it."""
    random = np.random.default_rng(seed)
    slice_mm, pixel_mm = float(random.choice([1.0, 1.25, 2.0, 2.5])), float(random.uniform(0.7, 0.95))
    blur_mm, noise_hu, tilt_rad = random.uniform(0.4, 0.7), random.uniform(10, 35), random.uniform(-0.15, 0.15)
    scanner = Scanner((slice_mm, pixel_mm, pixel_mm), float(blur_mm), float(noise_hu), float(tilt_rad))
    return chest(seed, scanner, np.exp(random.uniform(*np.log(WIDTHS_MM), EACH)))


def observed(one: Chest) -> Observed:
    """Return the candidates that the analysis finds in a chest, and what they are."""
    spacing_mm = one.spacing_mm
    view = field(one.hu, find(one.hu, spacing_mm).segments, spacing_mm)
    found = candidates(view)
    places_mm = np.array([view.in_scan(candidate.middle) for candidate in found]) * spacing_mm
    nodules_mm = np.array([one.voxel(nodule) for nodule in one.nodules]) * spacing_mm
    away_mm = np.linalg.norm(places_mm[:, None] - nodules_mm, axis=2)  # (candidate, nodule)
    radii_mm = np.array([nodule.diameter_mm / 2 for nodule in one.nodules])
    features = np.array([candidate.features for candidate in found])
    kinds = np.where(features[:, FEATURES.index("walled")] > AT_PLEURA, FOLD, VESSEL)
    kinds[(away_mm < radii_mm + NEAR_MM).any(1)] = UNSURE
    seen_as = np.full(len(one.nodules), -1)
    for number, nodule in enumerate(one.nodules):
        inside = np.flatnonzero(away_mm[:, number] <= radii_mm[number])
        if len(inside):  # of several within one nodule, the one whose volume is the nodule's
            best = inside[np.argmin([abs(np.log(found[k].volume_ml / nodule.volume_ml)) for k in inside])]
            seen_as[number] = best
            kinds[best] = NODULE_AT_PLEURA if features[best, FEATURES.index("walled")] > AT_PLEURA else NODULE
    return Observed(features, kinds, seen_as)


def likelihoods(chests: list[Observed]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return of each class its share among nodules or among other things, the means and the deviations of its features."""
    features, kinds = (np.concatenate([getattr(one, name) for one in chests]) for name in ("features", "kinds"))
    model = GaussianNB().fit(features[kinds != UNSURE], kinds[kinds != UNSURE])
    nodules, others = model.class_count_[:VESSEL], model.class_count_[VESSEL:]
    return np.concatenate([nodules / nodules.sum(), others / others.sum()]), model.theta_, np.sqrt(model.var_)


def left_out(chests: list[Observed]) -> list[Features]:
    """Return each chest's log likelihood ratios by what was learnt from all others."""
    return [log_likelihood_ratio(one.features, *likelihoods([*chests[:k], *chests[k + 1 :]])) for k, one in enumerate(chests)]


def learnt(chests: list[Observed]) -> dict[str, Any]:
    """Return all numbers of `posterior.py`."""
    ratio, kinds = np.concatenate(left_out(chests)), np.concatenate([one.kinds for one in chests])
    sure = kinds != UNSURE
    curve = LogisticRegression(class_weight="balanced", C=1e6).fit(ratio[sure, None], kinds[sure] < VESSEL)
    shares, means, deviations = likelihoods(chests)
    return {"SHARES": shares, "MEANS": means, "DEVIATIONS": deviations, "SLOPE": curve.coef_[0, 0], "OFFSET": curve.intercept_[0]}


def judged(chests: list[Observed], slope: float, offset: float, least: float) -> dict[str, float]:
    """Return how chests fare by what was learnt from the others, where candidates from a probability on are shown."""
    shown = [calibrated(ratio, slope, offset) >= least for ratio in left_out(chests)]
    found = [bool(k >= 0 and which[k]) for one, which in zip(chests, shown, strict=True) for k in one.seen_as]
    false = [int((which & np.isin(one.kinds, (VESSEL, FOLD))).sum()) for one, which in zip(chests, shown, strict=True)]
    kinds, ratio = np.concatenate([one.kinds for one in chests]), np.concatenate(left_out(chests))
    area = roc_auc_score(kinds[kinds != UNSURE] < VESSEL, ratio[kinds != UNSURE])
    return {"sensitivity": float(np.mean(found)), "false candidates in a chest": float(np.mean(false)), "area under the curve": float(area)}


if __name__ == "__main__":
    observations = [observed(drawn(FIRST + number)) for number in range(CHESTS)]
    numbers = learnt(observations)
    with np.printoptions(precision=4, suppress=True, linewidth=150, floatmode="fixed"):
        for name, value in numbers.items():
            print(f"{name} = {np.array2string(np.asarray(value), separator=', ')}")
    print(judged(observations, numbers["SLOPE"], numbers["OFFSET"], LEAST))
