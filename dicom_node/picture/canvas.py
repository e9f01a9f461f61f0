"""What every picture is drawn with: slices with outlines, letters, a scale bar, the banner."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from dicom_node.picture.scene import Colour, Mask

BANNER = "AI · unverified · research use"

BACKGROUND: Colour = (13, 17, 23)
EDGE: Colour = (48, 56, 66)
TEXT: Colour = (236, 240, 245)
MUTED: Colour = (146, 156, 168)
AMBER: Colour = (255, 184, 64)
_BLACK: Colour = (0, 0, 0)
_FILL, _OUTLINE_PX = 0.14, 1.3  # opacity inside an outline; half of the outline's width
_BARS_MM = (500, 200, 100, 50, 20, 10, 5, 2, 1)

Point = tuple[int, int]


def font(size: int) -> Any:
    """Return the font that comes with pillow, so that every machine draws the same."""
    return ImageFont.load_default(size)


def shaded(grey: NDArray[np.uint8], size: Point, outlines: Iterable[tuple[Mask, Colour]] = ()) -> Image.Image:
    """Draw one slice, as it is shown, to a size (width, height) in pixels, with the outlines of masks on it."""
    shown = np.asarray(Image.fromarray(np.ascontiguousarray(grey)).resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0))
    colours = np.repeat(shown[..., None], 3, axis=2).astype(np.float32)
    for mask, colour in outlines:
        opacity = _opacity(mask, size)[..., None]
        colours += opacity * (np.asarray(colour, np.float32) - colours)
    return Image.fromarray(colours.round().clip(0, 255).astype(np.uint8))


def _opacity(mask: Mask, size: Point) -> NDArray[np.float32]:
    """Return how much of a segment's colour each pixel takes: a smooth line where the mask ends, a little inside."""
    if not mask.any():
        return np.zeros(size[::-1], np.float32)
    soft = Image.fromarray(np.ascontiguousarray(mask).astype(np.uint8) * 255).resize(size, Image.Resampling.BICUBIC)
    level: Any = np.asarray(soft.filter(ImageFilter.GaussianBlur(1.2)), np.float32) / 255
    steep = np.hypot(*np.gradient(level))
    from_edge = np.abs(level - 0.5) / np.maximum(steep, 1e-3)  # pixels
    return np.maximum(np.clip(_OUTLINE_PX + 0.5 - from_edge, 0, 1), _FILL * (level > 0.5)).astype(np.float32)


def place(canvas: Image.Image, panel: Image.Image, at: Point) -> None:
    """Put a panel on a canvas, with an edge around it."""
    canvas.paste(panel, at)
    left, top = at
    ImageDraw.Draw(canvas).rectangle((left - 1, top - 1, left + panel.width, top + panel.height), outline=EDGE)


def write(panel: Image.Image, at: tuple[float, float], text: str, size: int, anchor: str = "la", colour: Colour = TEXT) -> None:
    """Write on an image, so that it can be read on black and on white."""
    ImageDraw.Draw(panel).text(at, text, font=font(size), fill=colour, anchor=anchor, stroke_width=2, stroke_fill=_BLACK)


def draw_letters(panel: Image.Image, letters: tuple[str, str, str, str], size: int = 24) -> None:
    """Write where left, top, right and bottom of a panel are in the patient."""
    middle, centre, inset = panel.height / 2, panel.width / 2, size * 0.7
    places = ((inset, middle, "lm"), (centre, inset, "mt"), (panel.width - inset, middle, "rm"), (centre, panel.height - inset, "mb"))
    for letter, (across, down, anchor) in zip(letters, places, strict=True):
        write(panel, (across, down), letter, size, anchor)


def bar_mm(width_mm: float) -> float:
    """Return how long the scale bar of a panel is: at most two fifths of what the panel shows."""
    return next((length for length in _BARS_MM if length <= 0.4 * width_mm), _BARS_MM[-1])


def draw_scale_bar(panel: Image.Image, scale: float, length_mm: float, size: int = 17) -> None:
    """Draw a bar of so many mm at the bottom left; scale: pixels per mm."""
    draw = ImageDraw.Draw(panel)
    left, down, length = size, panel.height - round(1.3 * size), round(length_mm * scale)
    draw.rectangle((left - 1, down - 2, left + length, down + 2), fill=_BLACK)
    draw.rectangle((left, down - 1, left + length - 1, down + 1), fill=TEXT)
    write(panel, (left + length / 2, down - size / 2), f"{length_mm:g} mm", size, "mb")


def draw_banner(canvas: Image.Image, right: float, top: float, size: int) -> None:
    """Say whose work this is, in a frame that ends at `right`."""
    draw, shown, high = ImageDraw.Draw(canvas), font(size), round(size * 1.84)
    left = right - shown.getlength(BANNER) - 2 * high / 2
    draw.rounded_rectangle((left, top, right, top + high), radius=high // 2, outline=AMBER, width=2)
    draw.text(((left + right) / 2, top + high / 2), BANNER, font=shown, fill=AMBER, anchor="mm")
