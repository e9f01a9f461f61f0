"""One frame as a picture for a screen, as large and as bright as it was asked for (PS3.18 8.3.5)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset

from dicom_node.coding.unreadable import UNREADABLE
from dicom_node.domain import Unsuitable
from dicom_node.web.rendering.colour import from_palette
from dicom_node.web.rendering.grey import Window, look, shown
from dicom_node.web.rendering.segments import coloured, is_segmentation, segmentation
from dicom_node.web.rendering.source import Source, stored

_LONGEST_TEXT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewport:
    """How large a picture is, and which part of the image it shows (PS3.18 8.3.5.1.3)."""

    width: int
    height: int
    left: float = 0.0  # columns of the image
    top: float = 0.0
    across: float | None = None  # columns; below 0: mirrored
    down: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a frame is wanted."""

    window: Window | None = None  # none: as its header says
    automatic: bool = False  # without a window: whether one is chosen by the values, whatever the header says
    viewport: Viewport | None = None  # none: a pixel for a pixel
    patient: bool = False  # whether the picture names the patient
    technique: bool = False  # whether it says how the image was made


def drawn(source: Source, index: int, options: Options) -> Image.Image:
    """Return a frame as a picture, grey or in colour.

    index: from 0.

    Raises
    ------
    Unsuitable: the object has no pixels, or none that can be shown.
    FileNotFoundError: the file is gone.
    """
    try:
        picture = Image.fromarray(_pixels(source, index, options))
    except FileNotFoundError:
        raise
    except UNREADABLE as error:
        raise Unsuitable("an image cannot be shown as its header says", hint="Retrieve the object itself.") from error
    picture = _fitted(picture, options.viewport) if options.viewport else picture
    return _annotated(picture, [*_lines(source.header, index, options)])


def frames_of(source: Source) -> int:
    """Return how many frames an object shows."""
    return source.frames


def tile(text: str, side: int = 128) -> Image.Image:
    """Return a picture in the place of an object that is no image: what kind it is."""
    picture = Image.new("L", (side, side), 24)
    ImageDraw.Draw(picture).text((side / 2, side / 2), text[:8] or "?", fill=200, anchor="mm", font=_font(side // 5))
    return picture


def _pixels(source: Source, index: int, options: Options) -> np.ndarray[Any, Any]:
    if is_segmentation(source.header):
        return coloured(segmentation(source.path), index)
    values = stored(source, index)
    if values.ndim == 3:
        return values.astype(np.uint8) if source.stored <= 8 else (values >> (source.stored - 8)).astype(np.uint8)
    if source.header.get("PhotometricInterpretation") == "PALETTE COLOR":
        return from_palette(values, source.header)
    modality = str(source.header.get("Modality") or "")
    how = look(source.header, index)
    how = replace(how, windows=(), of_interest=None) if options.automatic else how
    return shown(values, how, options.window, modality="" if options.automatic else modality, bits=64 if source.floats else source.stored)


def _fitted(picture: Image.Image, viewport: Viewport) -> Image.Image:
    """Cut the wanted part out, and scale it until it touches two sides of the viewport (PS3.18 8.3.5.1.3)."""
    across = viewport.across if viewport.across is not None else picture.width - viewport.left
    down = viewport.down if viewport.down is not None else picture.height - viewport.top
    box = viewport.left, viewport.top, viewport.left + abs(across), viewport.top + abs(down)
    inside = box[0] >= 0 and box[1] >= 0 and box[2] <= picture.width and box[3] <= picture.height and min(abs(across), abs(down)) >= 1
    if not inside:
        raise Unsuitable("the part of the image that is asked for is not in it", hint=f"It has {picture.width} columns and {picture.height} rows.")
    scale = min(viewport.width / abs(across), viewport.height / abs(down))
    size = max(1, round(abs(across) * scale)), max(1, round(abs(down) * scale))
    picture = picture.resize(size, Image.Resampling.BILINEAR, box=box)
    picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if across < 0 else picture
    return picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if down < 0 else picture


def _lines(header: Dataset, index: int, options: Options) -> Iterator[str]:
    """Give what the picture is to say (PS3.18 8.3.5.1.1)."""
    if options.patient:
        yield from (str(header.get(name) or "") for name in ("PatientName", "PatientID", "PatientBirthDate"))
    if options.technique:
        number = f"frame {index + 1}" if header.get("NumberOfFrames") else f"image {header.get('InstanceNumber') or ''}"
        yield f"{header.get('Modality') or ''} {header.get('SeriesDescription') or ''}"
        yield number


def _annotated(picture: Image.Image, lines: list[str]) -> Image.Image:
    size = max(10, picture.height // 32)
    draw = ImageDraw.Draw(picture)
    bright: Any = 255 if picture.mode == "L" else (255, 255, 255)
    for place, line in enumerate(lines):
        draw.text((4, 4 + place * (size + 2)), line[:_LONGEST_TEXT], fill=bright, font=_font(size))
    return picture


@lru_cache(maxsize=8)
def _font(size: int) -> Any:
    return ImageFont.load_default(size)  # comes with pillow, so that every machine draws the same
