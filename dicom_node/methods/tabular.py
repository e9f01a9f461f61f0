"""Classifiers of rows of features: trained by scikit-learn, kept as plain numbers in JSON, and run by NumPy alone.

Nothing is pickled: a file that is read can hold numbers and nothing that runs. Training knows two classes, 0 and 1; x is (sample, feature).
"""

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

SEED = 42
FOLDS = 5  # of which one is held out for the test: a fifth
LAYERS = (64, 32)  # of the network, before the one that gives the probability
EPOCHS, BATCH = 10, 32
STEPS = 500  # of few samples there are as many epochs as make so many steps
_FORMAT = "dicom-node feature classifier 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Classifier:
    """A trained classifier as numbers: features are standardised, scored, and the score is turned into a probability (Platt)."""

    kind: str  # one of SCORES
    features: tuple[str, ...]  # in the order of x
    mean: Array  # (feature,) of the training data
    deviation: Array  # (feature,)
    parameters: tuple[Array, ...]  # of the kind: see SCORES
    calibration: tuple[float, float]  # probability = 1 / (1 + exp(slope * score + intercept))
    operating_point: float  # from this probability on the class is 1

    def probabilities(self, x: Array) -> Array:
        """Return the probability of class 1 of each sample. x: (sample, feature), finite."""
        slope, intercept = self.calibration
        return logistic(-(slope * SCORES[self.kind]((x - self.mean) / self.deviation, *self.parameters) + intercept))

    def write(self, file: Path) -> None:
        """Write it as JSON, every number as it is."""
        numbers = {"mean": self.mean.tolist(), "deviation": self.deviation.tolist(), "parameters": [one.tolist() for one in self.parameters]}
        said = {"format": _FORMAT, "kind": self.kind, "features": list(self.features), "calibration": list(self.calibration)}
        file.write_text(json.dumps(said | numbers | {"operating_point": self.operating_point}, indent=1) + "\n")

    @classmethod
    def read(cls, file: Path) -> "Classifier":
        """Read what `write` wrote, and see that its numbers fit together.

        Raises
        ------
        ValueError: the file holds something else.
        """
        try:
            said = json.loads(file.read_text())
            if said["format"] != _FORMAT:
                raise ValueError(f"its format is {said['format']!r}")
            read = cls(
                kind=said["kind"],
                features=tuple(said["features"]),
                mean=np.array(said["mean"], float),
                deviation=np.array(said["deviation"], float),
                parameters=tuple(np.array(one, float) for one in said["parameters"]),
                calibration=(float(said["calibration"][0]), float(said["calibration"][1])),
                operating_point=float(said["operating_point"]),
            )
            read._fit_together()
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise ValueError(f"{file.name} is no classifier that can be read here: {error}") from error
        return read

    def _fit_together(self) -> None:
        number = (len(self.features),)
        if self.mean.shape != number or self.deviation.shape != number:
            raise ValueError("mean and deviation are not one number for each feature")
        numbers = (self.mean, self.deviation, *self.parameters, np.array([*self.calibration, self.operating_point]))
        if not all(np.isfinite(one).all() for one in numbers) or (self.deviation <= 0).any():
            raise ValueError("a number is not finite, or a deviation is not above 0")
        if self.probabilities(self.mean[None]).shape != (1,):
            raise ValueError("its parameters do not give one probability for each sample")


def logistic(score: Array) -> Array:
    """Return 1 / (1 + e^-score), without overflow."""
    return np.exp(-np.logaddexp(0, -score))


def _linear(z: Array, weights: Array, intercept: Array) -> Array:
    return z @ weights + intercept


def _bayes(z: Array, mean: Array, variance: Array, prior: Array) -> Array:
    """Return P(1|z) by Bayes' rule of features that are Gaussian and independent within a class. mean, variance: (class, feature)."""
    log_joint = np.log(prior) - 0.5 * (np.log(2 * np.pi * variance) + (z[:, None] - mean) ** 2 / variance).sum(axis=2)
    return logistic(log_joint[:, 1] - log_joint[:, 0])


def _network(z: Array, *layers: Array) -> Array:
    """Return P(1|z) of dense layers, weights and intercepts in turn: rectified but for the last."""
    *hidden, weights, intercept = layers
    for w, b in zip(hidden[::2], hidden[1::2], strict=True):
        z = np.maximum(z @ w + b, 0)
    return logistic((z @ weights + intercept)[:, 0])


SCORES: dict[str, Callable[..., Array]] = {"logistic": _linear, "bayes": _bayes, "network": _network}

# --------------------------------------------------------------------------------------------------------------- training


def pipeline(kind: str, epochs: int = EPOCHS) -> Any:
    """Return an untrained scikit-learn pipeline: standardise, then classify. "boosting" is for comparison: it has no form as plain numbers.

    epochs: of the network's training.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    estimators = {
        "logistic": lambda: LogisticRegression(max_iter=1000, random_state=SEED),
        "bayes": GaussianNB,
        "network": lambda: MLPClassifier(LAYERS, batch_size=BATCH, max_iter=epochs, random_state=SEED),
        "boosting": lambda: HistGradientBoostingClassifier(random_state=SEED),
    }
    return make_pipeline(StandardScaler(), estimators[kind]())


def split(y: Array, groups: Array, folds: int = FOLDS) -> list[tuple[Array, Array]]:
    """Return training and held-out samples by fold: no group, such as a patient, is in both, and each has both classes in like shares.

    Raises
    ------
    ValueError: a class has fewer groups than there are folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    fewest = min(len(set(groups[y == one])) for one in (0, 1))
    if fewest < folds:
        raise ValueError(f"one class has {fewest} patients, and {folds} are needed: one for each fold")
    return list(StratifiedGroupKFold(folds, shuffle=True, random_state=SEED).split(y, y, groups))


def train(kind: str, names: Sequence[str], x: Array, y: Array, groups: Array) -> tuple[Any, Classifier]:
    """Return the trained estimator of scikit-learn and the same classifier as numbers.

    Probabilities are calibrated, and the operating point is chosen, on samples whose patients were held out (cross-validation): where sensitivity
    and specificity add up to most. Features that do not vary must not be among them.
    """
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import cross_val_predict

    from dicom_node.methods.calibration import operating_point

    folds = split(y, groups)
    method = "decision_function" if kind == "logistic" else "predict_proba"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a network trains for its epochs, and the held-out figures say what came of it
        untrained = pipeline(kind, max(EPOCHS, -(-STEPS * BATCH // len(y))))
        fitted = CalibratedClassifierCV(untrained, method="sigmoid", cv=folds, ensemble=False).fit(x, y)
        scores = cross_val_predict(untrained, x, y, cv=folds, method=method)
    inner = fitted.calibrated_classifiers_[0]
    slope, intercept = float(inner.calibrators[0].a_), float(inner.calibrators[0].b_)
    held_out = logistic(-(slope * (scores if scores.ndim == 1 else scores[:, 1]) + intercept))
    scaler, estimator = inner.estimator[0], inner.estimator[-1]
    return fitted, Classifier(
        kind=kind,
        features=tuple(names),
        mean=scaler.mean_,
        deviation=scaler.scale_,
        parameters=_parameters(kind, estimator),
        calibration=(slope, intercept),
        operating_point=operating_point(held_out, y).threshold,
    )


def _parameters(kind: str, estimator: Any) -> tuple[Array, ...]:
    if kind == "logistic":
        return estimator.coef_[0], estimator.intercept_
    if kind == "bayes":
        return estimator.theta_, estimator.var_, estimator.class_prior_
    return tuple(one for layer in zip(estimator.coefs_, estimator.intercepts_, strict=True) for one in layer)


# ------------------------------------------------------------------------------------------------------------- evaluation


def figures(y: Array, probability: Array, threshold: float) -> dict[str, float]:
    """Return how well probabilities do on held-out samples; recall is sensitivity, precision the positive predictive value."""
    from sklearn import metrics

    from dicom_node.methods.calibration import trust

    found = trust(probability, y)
    called = (probability >= threshold).astype(int)
    negative, false_positive, false_negative, positive = (int(n) for n in metrics.confusion_matrix(y, called, labels=[0, 1]).ravel())
    return {
        "accuracy": float(metrics.accuracy_score(y, called)),
        "recall": float(metrics.recall_score(y, called, zero_division=0)),
        "specificity": negative / (negative + false_positive) if negative + false_positive else 0.0,
        "precision": float(metrics.precision_score(y, called, zero_division=0)),
        "f1": float(metrics.f1_score(y, called, zero_division=0)),
        "auc": found.auc,
        "brier": found.brier,
        "calibration_error": found.calibration_error,
        "true_positive": positive,
        "false_positive": false_positive,
        "false_negative": false_negative,
        "true_negative": negative,
    }
