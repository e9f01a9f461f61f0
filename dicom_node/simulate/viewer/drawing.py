"""The picture of a segmentation over its images, as a PNG file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from dicom_node.simulate.viewer.scene import AXIAL, CORONAL, SAGITTAL, Colour, Mask, Plane, Scene, scene

BANNER = "AI · research use · unverified"

# In pixels.
_WIDTH, _MARGIN, _GAP = 1800, 40, 16
_HEADER, _TALLEST, _ROW = 124, 660, 44
_STRIP = 8  # axial slices below the three planes
_BACKGROUND: Colour = (13, 17, 23)
_EDGE: Colour = (48, 56, 66)
_TEXT: Colour = (236, 240, 245)
_MUTED: Colour = (146, 156, 168)
_AMBER: Colour = (255, 184, 64)
_FILL, _OUTLINE_PX = 0.14, 1.3  # opacity inside an outline; half of the outline's width

Point = tuple[int, int]


def picture(sources: Sequence[Path], seg: Path, into: Path, window: tuple[float, float] | None = None) -> Path:
    """Draw a segmentation over its source images and return `into`, a PNG file.

    Three planes to one scale, a strip of axial slices, a legend with each segment's volume; the patient's right is on the left. The picture shows
    no patient identity.

    sources: files of images; those that the segmentation refers to are taken, whatever else is among them.
    window: center and width of the values that are told apart; None: chosen by what the segments lie in.

    Raises
    ------
    Unsuitable: an image that it refers to is not among the sources, or images and segments do not share a grid.
    """
    shown = scene(sources, seg, window)
    sizes_mm = [shown.size_mm(plane) for plane in (AXIAL, CORONAL, SAGITTAL)]
    widest = (_WIDTH - 2 * _MARGIN - 2 * _GAP) / sum(wide for wide, _ in sizes_mm)
    scale = min(widest, _TALLEST / max(high for _, high in sizes_mm))  # pixels per mm
    strip_scale = (_WIDTH - 2 * _MARGIN - (_STRIP - 1) * _GAP) / _STRIP / sizes_mm[0][0]
    strip_top = _HEADER + round(max(high for _, high in sizes_mm) * scale) + _GAP
    legend_top = strip_top + round(sizes_mm[0][1] * strip_scale) + _GAP + 8
    rows = _legend(shown)
    canvas = Image.new("RGB", (_WIDTH, legend_top + len(rows) * _ROW + _MARGIN // 2), _BACKGROUND)
    _draw_header(canvas, shown)
    _draw_planes(canvas, shown, scale, strip_top - _GAP)
    _draw_strip(canvas, shown, strip_scale, strip_top)
    _draw_legend(canvas, rows, legend_top)
    into.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(into, format="PNG")
    return into


# ---------------------------------------------------------------------------------------------------------------- slices


def _slice(shown: Scene, plane: Plane, index: int, scale: float) -> Image.Image:
    """Draw one slice with its segments, to scale (pixels per mm)."""
    wide, high = shown.size_mm(plane)
    size = round(wide * scale), round(high * scale)
    grey = np.asarray(Image.fromarray(np.ascontiguousarray(plane.cut(shown.grey, index))).resize(size, Image.Resampling.BICUBIC))
    colours = np.repeat(grey[..., None], 3, axis=2).astype(np.float32)
    for segment in shown.segments:
        opacity = _opacity(plane.cut(segment.mask, index), size)[..., None]
        colours += opacity * (np.asarray(segment.colour, np.float32) - colours)
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


def _draw_planes(canvas: Image.Image, shown: Scene, scale: float, bottom: int) -> None:
    planes = (AXIAL, CORONAL, SAGITTAL)
    chosen = {plane.axis: shown.best(plane) for plane in planes}
    widths = [round(shown.size_mm(plane)[0] * scale) for plane in planes]
    left = (_WIDTH - sum(widths) - 2 * _GAP) // 2
    for plane, width in zip(planes, widths, strict=True):
        panel = _slice(shown, plane, chosen[plane.axis], scale)
        _draw_ticks(panel, shown, plane, chosen)
        _draw_letters(panel, shown.letters(plane))
        _draw_scale_bar(panel, scale)
        ImageDraw.Draw(panel).text((14, 12), plane.name, font=_font(20), fill=_TEXT, stroke_width=2, stroke_fill=(0, 0, 0))
        _place(canvas, panel, (left, (_HEADER + bottom - panel.height) // 2))
        left += width + _GAP


def _draw_strip(canvas: Image.Image, shown: Scene, scale: float, top: int) -> None:
    left = _MARGIN
    for index in shown.spread(_STRIP):
        thumbnail = _slice(shown, AXIAL, index, scale)
        _place(canvas, thumbnail, (left, top))
        left += thumbnail.width + _GAP


def _place(canvas: Image.Image, panel: Image.Image, at: Point) -> None:
    canvas.paste(panel, at)
    left, top = at
    ImageDraw.Draw(canvas).rectangle((left - 1, top - 1, left + panel.width, top + panel.height), outline=_EDGE)


def _draw_ticks(panel: Image.Image, shown: Scene, plane: Plane, chosen: dict[int, int]) -> None:
    """Mark at the edges where the two other planes cut this one."""
    draw = ImageDraw.Draw(panel)
    high, wide = plane.shown
    across = (chosen[wide] + 0.5) / shown.grey.shape[wide] * panel.width
    down = (chosen[high] + 0.5) / shown.grey.shape[high] * panel.height
    down = down if plane.axis == 0 else panel.height - down
    for line in (
        (across, 0, across, 10),
        (across, panel.height - 10, across, panel.height),
        (0, down, 10, down),
        (panel.width - 10, down, panel.width, down),
    ):
        draw.line(line, fill=_AMBER, width=2)


def _draw_letters(panel: Image.Image, letters: tuple[str, str, str, str]) -> None:
    draw = ImageDraw.Draw(panel)
    middle, centre = panel.height / 2, panel.width / 2
    places = ((18, middle, "lm"), (centre, 16, "mt"), (panel.width - 18, middle, "rm"), (centre, panel.height - 16, "mb"))
    for letter, (across, down, anchor) in zip(letters, places, strict=True):
        draw.text((across, down), letter, font=_font(24), fill=_TEXT, anchor=anchor, stroke_width=2, stroke_fill=(0, 0, 0))


def _draw_scale_bar(panel: Image.Image, scale: float) -> None:
    draw = ImageDraw.Draw(panel)
    left, down, length = 18, panel.height - 22, 50 * scale
    draw.rectangle((left - 1, down - 2, left + length + 1, down + 2), fill=(0, 0, 0))
    draw.rectangle((left, down - 1, left + length, down + 1), fill=_TEXT)
    draw.text((left + length / 2, down - 8), "50 mm", font=_font(17), fill=_TEXT, anchor="mb", stroke_width=2, stroke_fill=(0, 0, 0))


# ----------------------------------------------------------------------------------------------------- header and legend


def _draw_header(canvas: Image.Image, shown: Scene) -> None:
    draw = ImageDraw.Draw(canvas)
    draw.text((_MARGIN, 34), shown.title, font=_font(36), fill=_TEXT)
    draw.text((_MARGIN, 82), shown.subtitle, font=_font(20), fill=_MUTED)
    font = _font(24)
    right = _WIDTH - _MARGIN
    left = right - font.getlength(BANNER) - 44
    draw.rounded_rectangle((left, 30, right, 74), radius=22, outline=_AMBER, width=2)
    draw.text(((left + right) / 2, 52), BANNER, font=font, fill=_AMBER, anchor="mm")
    draw.text((right, 82), shown.credit, font=_font(20), fill=_MUTED, anchor="ra")


Entry = tuple[Colour, str, str]


def _legend(shown: Scene) -> list[list[Entry]]:
    """Part the segments into rows that fit the picture's width."""
    rows: list[list[Entry]] = [[]]
    used = 0.0
    for segment in shown.segments:
        entry = (segment.colour, segment.label, _millilitres(segment.volume_ml))
        if rows[-1] and used + _width(entry) > _WIDTH - 2 * _MARGIN:
            rows.append([])
            used = 0.0
        rows[-1].append(entry)
        used += _width(entry)
    return rows


def _width(entry: Entry) -> float:
    return 36 + _font(24).getlength(entry[1]) + 12 + _font(24).getlength(entry[2]) + 48


def _millilitres(volume_ml: float) -> str:
    return f"{volume_ml:,.0f} ml".replace(",", " ") if volume_ml >= 10 else f"{volume_ml:.2g} ml"


def _draw_legend(canvas: Image.Image, rows: list[list[Entry]], top: int) -> None:
    draw = ImageDraw.Draw(canvas)
    font = _font(24)
    for number, row in enumerate(rows):
        left, middle = float(_MARGIN), top + number * _ROW + _ROW / 2
        for entry in row:
            colour, label, volume = entry
            draw.rounded_rectangle((left, middle - 11, left + 22, middle + 11), radius=6, fill=colour)
            draw.text((left + 36, middle), label, font=font, fill=_TEXT, anchor="lm")
            draw.text((left + 48 + font.getlength(label), middle), volume, font=font, fill=_MUTED, anchor="lm")
            left += _width(entry)


def _font(size: int) -> Any:
    return ImageFont.load_default(size)  # comes with pillow, so that every machine draws the same
