"""Which class a place of the lung belongs to: Bayes' rule with a normal distribution of the features of each class."""

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import multivariate_normal

from .features import NAMES as FEATURES
from .textures import NAMES as CLASSES

LEARNED = Path(__file__).with_name("classes.toml")


def learned(path: Path = LEARNED) -> dict[str, Any]:
    """Return prior, mean and covariance of each class, as `learn.py` wrote them."""
    return tomllib.loads(path.read_text())


def posteriors(values: NDArray[np.float32], classes: dict[str, Any]) -> NDArray[np.float64]:
    """Return the probability of each class for each place: (place, class), in the order of `textures.NAMES`. values: (place, feature)."""
    log = np.stack(
        [np.log(classes[name]["prior"]) + multivariate_normal(classes[name]["mean"], classes[name]["covariance"]).logpdf(values) for name in CLASSES],
        axis=-1,
    ).reshape(len(values), len(CLASSES))
    log -= log.max(axis=1, keepdims=True)
    return np.asarray(np.exp(log) / np.exp(log).sum(axis=1, keepdims=True))


def written(values: dict[str, NDArray[np.float32]], priors: dict[str, float], floors: NDArray[np.float64]) -> str:
    """Return `classes.toml` for the features of pieces of each class; no feature varies less than its floor."""
    lines = ["# Written by learn.py from drawn lung. Features: " + ", ".join(FEATURES) + ".", ""]
    for name in CLASSES:
        covariance = np.cov(values[name], rowvar=False) + np.diag(floors**2)
        lines += [f"[{name}]", f"prior = {priors[name]}", f"mean = {_list(values[name].mean(0))}", "covariance = ["]
        lines += [f"    {_list(row)}," for row in covariance] + ["]", ""]
    return "\n".join(lines[:-1]) + "\n"


def _list(row: NDArray[Any]) -> str:
    return "[" + ", ".join(f"{float(value):.5g}" for value in row) + "]"
