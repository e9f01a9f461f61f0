"""Where in an image a template lies: normalised cross-correlation, each pixel of the template with a weight, each of the image known or not.

    sum(w I T) / (sqrt(sum(w I^2)) sqrt(sum(w T^2)))

over the pixels of the template, for every place where it fits. In two dimensions or three.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import oaconvolve

Field = NDArray[np.float64]  # (row, column) or (slice, row, column)

LEAST_KNOWN = 0.5  # of the template's weight: where less of it lies on known pixels, nothing is said
_NOTHING = 1e-10  # of the largest energy (sum of weighted squares) of any place: less is not told from rounding


@dataclass(frozen=True, slots=True)
class Match:
    """Where a template matches best, and how well."""

    place: tuple[float, ...]  # of the template's first pixel, in pixels of the image from its first one, with fractions
    score: float  # from -1 to 1, at the nearest whole pixel


def correlation(image: Any, template: Any, *, weights: Any = None, known: Any = None, mean_free: bool = False) -> Field:
    """Return how well a template matches an image at each place where it lies inside, from -1 to 1.

    image, template: finite numbers (row, column) or (slice, row, column), in whatever unit; float64 is calculated with, some 40 bytes for each pixel
    of the image: give the part in which the template may lie.
    weights: how much each pixel of the template counts, not negative; none: all alike.
    known: which pixels of the image are known; none: all. The others count nowhere, as if the template's weights were 0 there.
    mean_free: whether the weighted means of template and image are first taken away, so that an offset makes no difference, either.

    The result is smaller than the image by the template less one pixel; each value stands where the template's first pixel lies. It is 0 where
    nothing can be said: all that counts is 0 (or, with `mean_free`, alike), or less than half of the template's weight lies on known pixels.

    Raises
    ------
    ValueError: the shapes do not go together, a weight is negative, or all are 0.
    """
    weight = np.ones(np.shape(template)) if weights is None else np.asarray(weights, np.float64)
    _check(image, template, weight, known)
    there, wanted = (np.asarray(given, np.float64) for given in (image, template))
    there = there if known is None else np.where(known, there, 0)
    least = [weight.sum() * (4 * np.spacing(np.abs(values).max())) ** 2 for values in (there, wanted)]
    if mean_free:  # of large offsets, which would cost digits; what is left of the means goes below
        there, wanted = _without_mean(there, known), wanted - np.average(wanted, weights=weight)
    count, shared = _known(known, weight), _slid(there, weight * wanted)
    of_image, of_template = _slid(there**2, weight), _known(known, weight * wanted**2)
    enough = count >= LEAST_KNOWN * weight.sum()
    if mean_free:
        count, sum_there, sum_wanted = np.where(enough, count, 1), _slid(there, weight), _known(known, weight * wanted)
        shared = shared - sum_there * sum_wanted / count
        of_image, of_template = of_image - sum_there**2 / count, of_template - sum_wanted**2 / count
    told = enough & _told(of_image, least[0]) & _told(of_template, least[1])
    return np.where(told, np.clip(shared / np.sqrt(np.where(told, of_image * of_template, 1)), -1, 1), 0)


def match(image: Any, template: Any, *, weights: Any = None, known: Any = None, mean_free: bool = True) -> Match:
    """Return the place at which a template matches best, refined between pixels by a parabola along each axis.

    A score of 0 says that no place matches at all, or that nothing could be said of any. The arguments and errors are those of
    `correlation`.
    """
    scores = correlation(image, template, weights=weights, known=known, mean_free=mean_free)
    best = np.unravel_index(int(scores.argmax()), scores.shape)
    return Match(tuple(int(at) + _summit(scores, best, axis) for axis, at in enumerate(best)), float(scores[best]))


def _check(image: Any, template: Any, weights: Field, known: Any) -> None:
    room, size = np.shape(image), np.shape(template)
    if len(room) not in (2, 3) or len(size) != len(room) or any(wanted > there for wanted, there in zip(size, room, strict=True)) or 0 in size:
        raise ValueError(f"a template of {size} pixels does not lie in an image of {room}")
    if weights.shape != size or (known is not None and np.shape(known) != room):
        raise ValueError("weights have the template's shape, and what is known the image's")
    if weights.min() < 0 or not weights.max() > 0:
        raise ValueError("weights are not negative, and one at least is above 0")


def _without_mean(image: Field, known: Any) -> Field:
    """Return an image less the mean of what is known of it; the rest stays 0."""
    return image - image.mean() if known is None else np.where(known, image - image.sum() / max(np.count_nonzero(known), 1), 0)


def _slid(field: Any, kernel: Field) -> Field:
    """Return the sum of the products of field and kernel, the kernel at each place where it lies inside (by FFT, part after part)."""
    return np.asarray(oaconvolve(field, np.flip(kernel), mode="valid"))


def _known(known: Any, kernel: Field) -> Any:
    """Return the sum of the kernel over known pixels at each place: one number where all are known."""
    return float(kernel.sum()) if known is None else _slid(np.asarray(known, np.float64), kernel)


def _told(energy: Any, least: float) -> Any:
    """Say where an energy is more than rounding: of the largest one by FFT, and of the values themselves."""
    return energy > max(_NOTHING * np.max(energy), least)


def _summit(scores: Field, best: tuple[Any, ...], axis: int) -> float:
    """Return how far from the best pixel, along an axis, the parabola through it and its neighbours is highest: within half a pixel."""
    line = scores[tuple(slice(None) if at == axis else best[at] for at in range(scores.ndim))]
    at = int(best[axis])
    if not 0 < at < len(line) - 1:
        return 0.0
    before, here, after = (float(value) for value in line[at - 1 : at + 2])
    bend = before - 2 * here + after
    return 0.5 * (before - after) / bend if bend < 0 else 0.0
