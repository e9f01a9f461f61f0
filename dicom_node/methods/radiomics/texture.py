"""What levels are like: their histogram, and the texture that they make, by the definitions of the IBSI.

Levels are whole numbers from 1, and 0 for what does not belong to the region, (slice, row, column); the functions of a family take levels, so that
a reference object that is given in levels goes in as it is. What is undefined on a region is left out.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[Any]
Features = dict[str, float]
Matrix = tuple[Array, Array, Array]  # level, extent, count

PIECE_VOXELS = 2**20  # so many are looked at in one go: memory stays flat
MOST_COARSE = 1e6  # of a texture without differences, where coarseness has no limit (IBSI)
FORWARD = [step for step in np.ndindex(3, 3, 3) if step > (1, 1, 1)]  # 13 of 26 neighbours, counted from 1: the others are their opposites
TOUCHING = np.ones((3, 3, 3), bool)


def texture_of(levels: Array, mask: Array) -> dict[str, Features]:
    """Return the features of every family: its prefix -> name -> value. mask: the region, whose edge distances are counted from."""
    sizes, distances = zones(levels, mask)
    tones, dependences = neighbourhoods(levels)
    voxels = int(np.count_nonzero(levels))
    return {
        "ih": histogram(levels),
        "cm": co_occurrence(levels),
        "rlm": emphases(*runs(levels), len(FORWARD) * voxels),
        "szm": emphases(*sizes, voxels),
        "dzm": emphases(*distances, voxels),
        "ngt": tone_differences(*tones),
        "ngl": emphases(*dependences, voxels) | {"energy": float(np.square(dependences[2] / voxels).sum())},
    }


# ----------------------------------------------------------------------------------------------------------- histogram


# Longer than other functions, as is `co_occurrence`: each feature is one line, and they share the moments above them.
def histogram(levels: Array) -> Features:
    """Return the features of the levels' histogram. Its gradient runs over all bins from the first to the highest level, empty ones too."""
    x = levels[levels > 0].astype(np.float64)
    counts = np.bincount(levels[levels > 0])[1:]
    low, quarter, median, three_quarters, high = np.percentile(x, [10, 25, 50, 75, 90])
    mean, variance = x.mean(), x.var()
    middle = x[(x >= low) & (x <= high)]
    gradient = np.gradient(counts.astype(np.float64)) if counts.size > 1 else np.zeros(1)
    commonest = 1 + np.flatnonzero(counts == counts.max())
    share = counts[counts > 0] / x.size
    return {
        "mean": mean,
        "variance": variance,
        "skewness": ((x - mean) ** 3).mean() / variance**1.5 if variance else 0.0,
        "kurtosis": ((x - mean) ** 4).mean() / variance**2 - 3 if variance else 0.0,
        "median": median,
        "minimum": x.min(),
        "perc10": low,
        "perc90": high,
        "maximum": x.max(),
        "mode": commonest[np.abs(commonest - mean).argmin()],
        "interquartile_range": three_quarters - quarter,
        "range": np.ptp(x),
        "mean_deviation": np.abs(x - mean).mean(),
        **({"robust_mean_deviation": np.abs(middle - middle.mean()).mean()} if middle.size else {}),
        "median_deviation": np.abs(x - median).mean(),
        "variation": np.sqrt(variance) / mean,
        "quartile_dispersion": (three_quarters - quarter) / (three_quarters + quarter),
        "entropy": entropy(share),
        "uniformity": np.square(share).sum(),
        "maximum_gradient": gradient.max(),
        "maximum_gradient_level": 1 + gradient.argmax(),
        "minimum_gradient": gradient.min(),
        "minimum_gradient_level": 1 + gradient.argmin(),
    }


def entropy(share: Array) -> float:
    """Return the entropy of probabilities above 0, in bits."""
    return max(0.0, -float(share @ np.log2(share)))


# ------------------------------------------------------------------------------------------------- neighbours on a line


class Line(NamedTuple):
    """Levels laid out in one line with a border of 0 about the box, so that a neighbour lies a fixed step away and never round a corner."""

    levels: Array
    inside: Array  # where the region's voxels are
    steps: list[int]  # to the 13 neighbours ahead

    def pieces(self) -> Iterator[Array]:
        """Give where the region's voxels are, piece by piece."""
        return (self.inside[start : start + PIECE_VOXELS] for start in range(0, self.inside.size, PIECE_VOXELS))


def laid_out(levels: Array) -> Line:
    """Return levels in one line."""
    padded = np.pad(levels, 1)
    strides = padded.shape[1] * padded.shape[2], padded.shape[2], 1
    line = padded.ravel()
    return Line(line, np.flatnonzero(line), [sum((n - 1) * stride for n, stride in zip(step, strides, strict=True)) for step in FORWARD])


# -------------------------------------------------------------------------------------------------------- co-occurrence


def co_occurrence(levels: Array) -> Features:
    """Return the features of the grey level co-occurrence matrix, one for all 13 directions, at distance 1; none where no two voxels touch.

    Where the level is the same everywhere its neighbours cannot but agree: correlation is 1, and there is no information to share.
    """
    i, j, count = pairs(levels)
    if not count.size:
        return {}
    p, most = count / count.sum(), int(levels.max())
    apart, together = np.abs(i - j), i + j
    of_level, of_difference, of_sum = np.bincount(i, p), np.bincount(apart, p), np.bincount(together, p)
    mean = float(p @ i)
    variance = float(p @ (i - mean) ** 2)
    joint, single = entropy(p), entropy(of_level[of_level > 0])
    shared = max(0.0, 2 * single - joint)
    difference = float(p @ apart)
    return {
        "joint_maximum": p.max(),
        "joint_average": mean,
        "joint_variance": variance,
        "joint_entropy": joint,
        "difference_average": difference,
        "difference_variance": p @ (apart - difference) ** 2,
        "difference_entropy": entropy(of_difference[of_difference > 0]),
        "sum_average": 2 * mean,
        "sum_variance": p @ (together - 2 * mean) ** 2,
        "sum_entropy": entropy(of_sum[of_sum > 0]),
        "angular_second_moment": p @ p,
        "contrast": p @ apart**2,
        "dissimilarity": difference,
        "inverse_difference": p @ (1 / (1 + apart)),
        "inverse_difference_normalised": p @ (1 / (1 + apart / most)),
        "inverse_difference_moment": p @ (1 / (1 + apart**2)),
        "inverse_difference_moment_normalised": p @ (1 / (1 + (apart / most) ** 2)),
        "inverse_variance": p[apart > 0] @ (1 / apart[apart > 0] ** 2),
        "correlation": p @ ((i - mean) * (j - mean)) / variance if variance else 1.0,
        "autocorrelation": p @ (i * j),
        "cluster_tendency": p @ (together - 2 * mean) ** 2,
        "cluster_shade": p @ (together - 2 * mean) ** 3,
        "cluster_prominence": p @ (together - 2 * mean) ** 4,
        "information_correlation_1": -shared / single if single else 0.0,
        "information_correlation_2": np.sqrt(1 - np.exp(-2 * shared)),
    }


def pairs(levels: Array) -> tuple[Array, Array, Array]:
    """Return the two levels of touching voxels and how often they touch, either way round; each pair of levels that occurs is there once."""
    line, most = laid_out(levels), int(levels.max()) + 1
    counts = np.zeros(most * most, np.int64)
    for piece in line.pieces():
        here = line.levels[piece].astype(np.int64) * most
        for step in line.steps:
            there = line.levels[piece + step]
            counts += np.bincount((here + there)[there > 0], minlength=counts.size)
    matrix = counts.reshape(most, most) + counts.reshape(most, most).T
    i, j = np.nonzero(matrix)
    return i, j, matrix[i, j]


# ------------------------------------------------------------------------- runs, zones and dependences: level and extent


def emphases(level: Array, extent: Array, count: Array, potential: int) -> Features:
    """Return the features of a matrix of levels and extents, such as the lengths of runs or the sizes of zones.

    level, extent, count: one entry for each element, repeated ones add up. potential: how many there could be.
    """
    number = count.sum()
    p = count / number
    i, j = level.astype(np.float64), extent.astype(np.float64)
    by_level, by_extent = np.bincount(level, p), np.bincount(np.unique(extent, return_inverse=True)[1], p)
    element = np.bincount(np.unique(level * (int(extent.max()) + 1) + extent, return_inverse=True)[1], p)
    return {
        "small": p @ j**-2,
        "large": p @ j**2,
        "low": p @ i**-2,
        "high": p @ i**2,
        "small_low": p @ (i * j) ** -2,
        "small_high": p @ (i / j) ** 2,
        "large_low": p @ (j / i) ** 2,
        "large_high": p @ (i * j) ** 2,
        "level_nonuniformity": number * (by_level @ by_level),
        "level_nonuniformity_normalised": by_level @ by_level,
        "extent_nonuniformity": number * (by_extent @ by_extent),
        "extent_nonuniformity_normalised": by_extent @ by_extent,
        "percentage": number / potential,
        "level_variance": p @ (i - p @ i) ** 2,
        "extent_variance": p @ (j - p @ j) ** 2,
        "entropy": entropy(element[element > 0]),
    }


def runs(levels: Array) -> tuple[Array, Array, Array]:
    """Return level, length and number of the runs of one level, along all 13 directions (grey level run length matrix)."""
    line, most = laid_out(levels), int(levels.max()) + 1
    ended: dict[int, Array] = {}  # length -> how many runs of each level
    for piece in line.pieces():
        for step in line.steps:
            last, length = piece[line.levels[piece] != line.levels[piece - step]], 1  # where a run begins
            while last.size:
                goes_on = line.levels[last + step] == line.levels[last]
                ended[length] = ended.get(length, 0) + np.bincount(line.levels[last[~goes_on]], minlength=most)
                last, length = last[goes_on] + step, length + 1
    matrix = np.stack([ended[length] for length in sorted(ended)])
    row, level = np.nonzero(matrix)
    return level, np.array(sorted(ended))[row], matrix[row, level]


def zones(levels: Array, mask: Array) -> tuple[Matrix, Matrix]:
    """Return level and size of the zones of one level, and their distance from the edge (grey level size and distance zone matrices).

    Voxels that touch, by a corner too, are of one zone. Its distance is that of its nearest voxel to what is outside of the mask, in steps over
    the voxels' faces, 1 at the edge.
    """
    edge = ndimage.distance_transform_cdt(np.pad(mask, 1), metric="taxicab")[1:-1, 1:-1, 1:-1]
    level, size, distance = [], [], []
    for number, box in enumerate(ndimage.find_objects(levels), start=1):
        if box is None:
            continue
        labels, count = ndimage.label(levels[box] == number, TOUCHING)
        inside = labels > 0
        zone, nearest = labels[inside] - 1, np.full(count, np.iinfo(np.int32).max, np.int32)
        np.minimum.at(nearest, zone, edge[box][inside])
        level.append(np.full(count, number))
        size.append(np.bincount(zone))
        distance.append(nearest)
    of_zone = np.concatenate(level)
    each = np.ones(of_zone.size)
    return (of_zone, np.concatenate(size), each), (of_zone, np.concatenate(distance), each)


# ------------------------------------------------------------------------------------------------------ neighbourhoods


def neighbourhoods(levels: Array) -> tuple[Matrix, Matrix]:
    """Return what the 26 neighbours of each voxel are like, as far as they belong to the region.

    First, for each level that has any: the level, the sum of differences from the neighbours' mean, the number of voxels (neighbourhood grey
    tone difference matrix). Then level, dependence and number of voxels, dependence being how many of the neighbours and the voxel itself have its
    level (neighbouring grey level dependence matrix, coarseness 0).
    """
    line, most = laid_out(levels), int(levels.max()) + 1
    differences, met, dependence = np.zeros(most), np.zeros(most, np.int64), np.zeros(most * 28, np.int64)
    for piece in line.pieces():
        here = line.levels[piece].astype(np.int64)
        total, count, alike = np.zeros(piece.size, np.int64), np.zeros(piece.size, np.int64), np.ones(piece.size, np.int64)
        for step in [*line.steps, *(-step for step in line.steps)]:
            there = line.levels[piece + step]
            total += there
            count += there > 0
            alike += there == here
        near = count > 0
        differences += np.bincount(here[near], np.abs(here[near] - total[near] / count[near]), minlength=most)
        met += np.bincount(here[near], minlength=most)
        dependence += np.bincount(here * 28 + alike, minlength=dependence.size)
    present, element = np.flatnonzero(met), np.flatnonzero(dependence)
    return (present, differences[present], met[present]), (element // 28, element % 28, dependence[element])


def tone_differences(level: Array, difference: Array, count: Array) -> Features:
    """Return the features of the neighbourhood grey tone difference matrix; none where no two voxels touch."""
    if not count.size:
        return {}
    p = count / count.sum()
    weighted, total = float(p @ difference), float(difference.sum())
    apart = np.abs(level[:, None] - level[None])
    varied = np.abs((level * p)[:, None] - (level * p)[None]).sum()
    found = {
        "coarseness": min(1 / weighted, MOST_COARSE) if weighted else MOST_COARSE,
        "contrast": 0.0,
        "busyness": 0.0,
        "complexity": (apart * ((p * difference)[:, None] + (p * difference)[None]) / (p[:, None] + p[None])).sum() / count.sum(),
        "strength": ((p[:, None] + p[None]) * apart**2).sum() / total if total else 0.0,
    }
    if level.size > 1:
        found["contrast"] = p @ apart**2 @ p / (level.size * (level.size - 1)) * total / count.sum()
        found["busyness"] = weighted / varied if varied else None
    return {name: value for name, value in found.items() if value is not None}
