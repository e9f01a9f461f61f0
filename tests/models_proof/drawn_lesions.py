"""Images in 2 or 3 dimensions with lesions that are balls, and look-alikes that are as bright but long: a threshold cannot tell them apart."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

TISSUE_HU, BRIGHT_HU, NOISE_HU = 40.0, 110.0, 12.0


@dataclass(frozen=True)
class Drawn:
    """One image in HU (float32), where its lesions are (bool), and their boxes (lesion, lower and upper corner in voxels)."""

    image: np.ndarray
    lesion: np.ndarray
    boxes: np.ndarray


def drawn(rng: np.random.Generator, shape: tuple[int, ...], *, lesions: int, tubes: int = 3, radii: tuple[float, float] = (3.5, 8.0)) -> Drawn:
    """Return an image with so many lesions of these radii (voxels), none near another or the edge, and so many tubes across it."""
    places = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1).astype(np.float32)
    image, lesion = np.full(shape, TISSUE_HU, np.float32), np.zeros(shape, bool)
    for _ in range(tubes):
        image[_tube(rng, places, shape)] = BRIGHT_HU
    balls: list[tuple[np.ndarray, float]] = []
    for _ in range(200 * lesions):
        radius = rng.uniform(*radii)
        middle = np.array([rng.uniform(radius + 1, n - radius - 1) for n in shape])
        if len(balls) < lesions and all(np.linalg.norm(middle - other) > radius + far + 3 for other, far in balls):
            balls.append((middle, radius))
            lesion |= ((places + 0.5 - middle) ** 2).sum(-1) <= radius**2
    image[lesion] = BRIGHT_HU
    image = ndimage.gaussian_filter(image, 0.7) + rng.normal(0, NOISE_HU, shape).astype(np.float32)
    boxes = [np.concatenate([middle - radius, middle + radius]) for middle, radius in balls]
    return Drawn(image, lesion, np.array(boxes, np.float32).reshape(len(balls), 2 * len(shape)))


def _tube(rng: np.random.Generator, places: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return a straight tube through the image, as thick as a small lesion."""
    way = rng.normal(size=len(shape))
    way /= np.linalg.norm(way)
    off = places - np.array([rng.uniform(0, n) for n in shape])
    along = off @ way
    return ((off**2).sum(-1) - along**2) <= rng.uniform(2.0, 4.5) ** 2


def several(seed: int, count: int, shape: tuple[int, ...], **how: object) -> list[Drawn]:
    """Return so many images, with 0 to 3 lesions each."""
    rng = np.random.default_rng(seed)
    return [drawn(rng, shape, lesions=int(rng.integers(0, 4)), **how) for _ in range(count)]


def scaled(images: list[Drawn]) -> np.ndarray:
    """Return images as networks like them, (image, channel, *grid): tissue at 0, what is bright at 1."""
    return np.stack([(one.image - TISSUE_HU) / (BRIGHT_HU - TISSUE_HU) for one in images])[:, None]
