"""How probable it is that a candidate is a nodule: Bayes' rule over what it can be, each feature normally distributed within each class.

The numbers were learnt from simulated chests (`chest.py`) by `python -m models.lung_nodules.learn`, which prints this table.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, logsumexp

Numbers = NDArray[np.float64]

PRIOR = 0.05  # of a candidate, before it is looked at: a chest with a nodule or two has some tens of blobs that are not small twigs
LEAST = 0.1  # what is less probable is not shown
CLASSES = ("nodule", "nodule at the pleura", "vessel", "fold of the pleura")
NODULES = 2  # the first so many classes are nodules
SHARES = np.array((0.6602, 0.3398, 0.6418, 0.3582))
MEANS = np.array(
    (
        (2.3412, 8.0852, 0.6679, 0.8381, 0.8735, 0.7661, 0.4513, -2.9701, -3.9075, 1.4064),
        (2.3076, 7.7892, 0.4833, 0.6318, 0.8626, 0.6550, 0.3644, -2.2796, -1.0602, -0.0329),
        (1.2791, 5.7753, 0.2895, 0.7051, 0.7005, 0.5663, 0.2543, -1.9175, -3.9165, 2.1527),
        (1.0983, 5.7771, 0.3051, 0.5330, 0.6435, 0.4203, 0.2579, -1.8929, -0.1823, -0.2399),
    )
)
DEVIATIONS = np.array(
    (
        (0.6526, 1.7575, 0.1592, 0.1098, 0.0982, 0.1235, 0.1364, 0.8743, 0.1481, 0.6799),
        (0.6633, 1.8691, 0.1652, 0.1800, 0.1024, 0.1287, 0.1056, 0.6956, 0.4480, 0.3076),
        (0.2767, 1.8951, 0.0788, 0.1500, 0.1946, 0.1882, 0.1237, 0.5578, 0.1193, 0.6767),
        (0.3808, 1.4377, 0.0938, 0.1632, 0.1968, 0.1513, 0.1368, 0.6147, 0.5226, 1.1233),
    )
)
SLOPE, OFFSET = 0.2376, -0.0041


def log_likelihood_ratio(features: Numbers, shares: Numbers, means: Numbers, deviations: Numbers) -> Numbers:
    """Return for each candidate log P(features | nodule) - log P(features | something else).

    features: (candidate, feature). shares: of each class among nodules, or among other things. means, deviations: (class, feature).
    """
    away = (features[:, None] - means) / deviations  # (candidate, class, feature)
    each = np.log(shares) - (away**2 / 2 + np.log(deviations)).sum(2)
    return np.asarray(logsumexp(each[:, :NODULES], axis=1) - logsumexp(each[:, NODULES:], axis=1))


def calibrated(ratio: Numbers, slope: float, offset: float) -> Numbers:
    """Return probabilities of log likelihood ratios, which naive Bayes makes too large, by Platt's curve and the prior."""
    return np.asarray(expit(slope * ratio + offset + logit(PRIOR)))


def probability(features: Numbers) -> Numbers:
    """Return P(nodule | features) of each candidate, calibrated on simulated chests; features: (candidate, feature)."""
    return calibrated(log_likelihood_ratio(features, SHARES, MEANS, DEVIATIONS), SLOPE, OFFSET)
