"""Windows of MR images and radiographs, whose values have no unit: from what is seen of the patient, by percentiles, and not by the air about him.

The air is what is dark and reaches the edge of an image; a value that fills a part of the image by itself is padding or a shutter. The rest is the
patient: a window from his darkest to his brightest, and a narrower one for what lies between.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_multiotsu

from dicom_node import Findings, Presentation, Unsuitable
from dicom_node.methods.windows import Window, foreground

Image = NDArray[np.float32]  # (slice, row, column)
Progress = Callable[[float, str], None]

FULL, DETAIL = (0.5, 99.5), (5.0, 95.0)  # percentiles of the patient's values that are just black and just white
SHARE = 0.01  # of an image: a single value that fills more of it, at the end of the range, is padding or a shutter
LEAST = 0.05  # of the pixels must be the patient, else all of them are taken
CLASSES = 3  # that values are parted in (Otsu 1979): the darkest is air where it reaches the edge
SIDE, SLICES = 256, 64  # about so many pixels a side and slices are looked at
WANTED = "Send an original MR series, or a radiograph."


def load(folder: Path, device: str) -> Callable[..., Findings]:
    """Return the analysis; it needs neither files nor an accelerator."""
    return analyse


def analyse(images: Any, progress: Progress = lambda fraction, sentence: None) -> Findings:
    """Return two windows, and their centres and widths.

    images: a volume (slice, row, column) in whatever unit, bright where its values are high.

    Raises
    ------
    Unsuitable: all values are alike.
    """
    progress(0.1, "looking for the patient")
    values = patient(_thinned(images.array))
    made = {name: _window(values, ends) for name, ends in (("full", FULL), ("detail", DETAIL))}
    return Findings(
        presentations={name: Presentation(window=window) for name, window in made.items()},
        measurements={f"{name}_{key}": value for name, window in made.items() for key, value in zip(("center", "width"), window, strict=True)},
        notes=("The windows hold for these images alone: their values have no unit that another series shares.",),
    )


def _thinned(array: Any) -> Image:
    """Return every so many slices, rows and columns: values as they are, none mixed."""
    steps = [max(1, round(size / most)) for size, most in zip(array.shape, (SLICES, SIDE, SIDE), strict=True)]
    return np.nan_to_num(array[:: steps[0], :: steps[1], :: steps[2]].astype(np.float32), posinf=0, neginf=0)


def patient(array: Image) -> NDArray[np.float32]:
    """Return the values (value) of the patient: without padding, without the air that reaches the edge of a slice.

    Raises
    ------
    Unsuitable: all values are alike.
    """
    if array.min() == array.max():
        raise Unsuitable("All pixels are alike: there is nothing to see.", hint=WANTED)
    kept = _without_padding(array)
    air = float(threshold_multiotsu(array[kept], classes=CLASSES)[0])
    inside = kept & np.stack([foreground(plane, air) for plane in array])
    return array[inside] if inside.mean() >= LEAST else array[kept]


def _without_padding(array: Image) -> NDArray[np.bool_]:
    """Return what is neither the lowest nor the highest value where that one value fills a part of the images by itself."""
    kept = np.ones(array.shape, bool)
    for end in (array.min(), array.max()):
        filled = array == end
        if filled.mean() > SHARE:
            kept &= ~filled
    values = array[kept]
    return kept if values.size and values.min() < values.max() else np.ones(array.shape, bool)


def _window(values: NDArray[np.float32], ends: tuple[float, float]) -> Window:
    """Return the window whose black and white are these percentiles (PS3.3 C.11.2.1.2): narrower than two values, two."""
    low, high = (float(end) for end in np.percentile(values, ends))
    return (low + high) / 2 + 0.5, max(high - low + 1, 2.0)
