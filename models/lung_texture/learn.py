"""Learn what parts the classes from drawn lung: mean and covariance of the features of each, written as `classes.toml`.

`cd models && python -m lung_texture.learn > /tmp/classes.toml`, then put it in the place of the old one.
"""

import sys

import numpy as np
from numpy.typing import NDArray

from .classes import written
from .features import features, smoothed
from .textures import NAMES, drawn, noise

SEED, PIECES, PER_PIECE = 1, 40, 60  # of each class; places taken of each piece
SIZE_MM = 36.0
PIXEL_MM, SLICE_MM, NOISE_HU = (0.6, 0.9), (1.0, 2.5), (10.0, 60.0)  # of the scans that are drawn
PRIORS = {"normal": 0.8, "emphysema": 0.05, "ground_glass": 0.05, "reticular": 0.05, "consolidation": 0.05}  # stated, not learned
FLOORS = np.array([30.0, 0.15, 0.12, 0.05])  # standard deviations that are added: depth of breath; healthy lungs with some voxels below -950 HU


def learn(seed: int = SEED, pieces: int = PIECES) -> str:
    """Return the text of `classes.toml`; the same seed gives the same text."""
    rng = np.random.default_rng(seed)
    values = {name: np.concatenate([_piece(kind, rng) for _ in range(pieces)]) for kind, name in enumerate(NAMES)}
    return written(values, PRIORS, FLOORS)


def _piece(kind: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the features of some places in the middle of one drawn piece."""
    pixel_mm = rng.uniform(*PIXEL_MM)
    spacing_mm = (rng.uniform(*SLICE_MM), pixel_mm, pixel_mm)
    shape = tuple(int(SIZE_MM / s) for s in spacing_mm)
    noise_hu = rng.uniform(*NOISE_HU)
    hu = drawn(kind, shape, spacing_mm, rng, noise_hu)
    left_hu = float(np.std([smoothed(plane, spacing_mm) for plane in noise(shape, spacing_mm, rng, noise_hu)]))
    found = features(hu, np.ones(shape, bool), spacing_mm, left_hu)
    middle = np.zeros(found.places.shape, bool)
    middle[tuple(slice(n // 4, n - n // 4) for n in middle.shape)] = True
    inside = found.values[middle[found.places]]
    return inside[rng.choice(len(inside), min(PER_PIECE, len(inside)), replace=False)]


if __name__ == "__main__":
    sys.stdout.write(learn())
