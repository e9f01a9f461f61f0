"""The picture that a job keeps: a few panels, what was measured, and whose work it is, as a small PNG."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from dicom_node.config import Manifest
from dicom_node.domain import Assembled, Findings
from dicom_node.picture import canvas as ink
from dicom_node.picture.scene import Colour
from dicom_node.picture.stage import Drawn
from dicom_node.picture.views import Heat, Line, View, lines, modality_of, views

# In pixels.
_SIDE, _MARGIN, _GAP, _ROW = 360, 16, 8, 22
_HEADER, _CAPTION = 62, 24
_LETTERS, _TEXT = 15, 14
_MARK: Colour = (255, 204, 0)
_COLOURS = 160  # of the file: shades of grey, and what is drawn in colour
_LARGEST_BYTES = 150_000
_SCALES = (1.0, 0.8, 0.62, 0.45)  # of the panels, one after the other, until the file is small enough
# From black over red and yellow to white: where it is brighter it is more, on a screen and on paper.
_HEATS = np.array([(0, 0, 0), (90, 10, 60), (200, 30, 30), (250, 140, 20), (255, 230, 90), (255, 255, 230)], np.float32)
_MOST_HEAT = 0.75  # opacity of the highest values


def summary(findings: Findings, inputs: Mapping[str, Assembled], manifest: Manifest) -> bytes | None:
    """Draw what an analysis found and return a PNG file; None when there is nothing to draw.

    Of headers only modality and geometry are told; names come from the model's manifest, numbers and marks from the analysis.

    manifest: as it reads for these inputs and findings.
    """
    shown = views(findings, inputs, manifest)
    if not shown:
        return None
    said = lines(findings, manifest)
    title = f"{manifest.name} {manifest.version}", modality_of(inputs, list(manifest.inputs))
    for scale in _SCALES:
        file = _encoded(_sheet(shown, said, title, round(_SIDE * scale)))
        if len(file) <= _LARGEST_BYTES:
            break
    return file


def _encoded(sheet: Image.Image) -> bytes:
    file = BytesIO()
    sheet.quantize(_COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(file, format="PNG", compress_level=7)
    return file.getvalue()


def _sheet(shown: Sequence[View], said: Sequence[Line], title: tuple[str, str], side: int) -> Image.Image:
    panels = [_panel(view, side) for view in shown]
    columns = min(len(panels), 2)
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    heights = [max(panel.height for panel in row) + _CAPTION for row in rows]
    width = max(2 * _MARGIN + columns * side + (columns - 1) * _GAP, 560)
    sheet = Image.new("RGB", (width, _HEADER + sum(heights) + len(said) * _ROW + _MARGIN), ink.BACKGROUND)
    _draw_header(sheet, title)
    top = _HEADER
    left = (width - columns * side - (columns - 1) * _GAP) // 2
    for number, (row, height) in enumerate(zip(rows, heights, strict=True)):
        for column, panel in enumerate(row):
            at = left + column * (side + _GAP) + (side - panel.width) // 2
            ink.place(sheet, panel, (at, top))
            _draw_caption(sheet, shown[number * columns + column].caption, (at, top + panel.height + 4), side)
        top += height
    _draw_lines(sheet, said, top + _MARGIN // 2)
    return sheet


def _draw_header(sheet: Image.Image, title: tuple[str, str]) -> None:
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, 12), _fitting(title[0], 18, sheet.width - 2 * _MARGIN - 280), font=ink.font(18), fill=ink.TEXT)
    draw.text((_MARGIN, 36), title[1], font=ink.font(_TEXT), fill=ink.MUTED)
    ink.draw_banner(sheet, sheet.width - _MARGIN, 12, 15)


def _draw_caption(sheet: Image.Image, text: str, at: tuple[int, int], side: int) -> None:
    ImageDraw.Draw(sheet).text(at, _fitting(text, _TEXT, side), font=ink.font(_TEXT), fill=ink.MUTED)


def _draw_lines(sheet: Image.Image, said: Sequence[Line], top: int) -> None:
    draw, font = ImageDraw.Draw(sheet), ink.font(_TEXT)
    for number, line in enumerate(said):
        left, middle = float(_MARGIN), top + number * _ROW + _ROW / 2
        if line.colour:
            draw.rounded_rectangle((left, middle - 6, left + 12, middle + 6), radius=3, fill=line.colour)
            left += 20
        text = _fitting(line.text, _TEXT, sheet.width * 0.55)
        draw.text((left, middle), text, font=font, fill=ink.TEXT, anchor="lm")
        left += font.getlength(text) + 12
        draw.text((left, middle), _fitting(line.values, _TEXT, sheet.width - _MARGIN - left), font=font, fill=ink.MUTED, anchor="lm")


def _fitting(text: str, size: int, width: float) -> str:
    """Return a text, or the beginning of it that fits a width."""
    font = ink.font(size)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


# ------------------------------------------------------------------------------------------------------------------ panels


def _panel(view: View, side: int) -> Image.Image:
    wide, high = view.size_mm
    scale = side / max(wide, high)  # pixels per mm
    panel = ink.shaded(view.grey, (max(1, round(wide * scale)), max(1, round(high * scale))), view.outlines)
    if view.heat is not None:
        panel = _heated(panel, view.heat)
    for mark in view.marks:
        _draw_mark(panel, mark)
    if any(view.letters):
        ink.draw_letters(panel, view.letters, _LETTERS)
    if view.measured:
        ink.draw_scale_bar(panel, scale, ink.bar_mm(wide), 12)
    return panel


def _draw_mark(panel: Image.Image, mark: Drawn) -> None:
    draw = ImageDraw.Draw(panel)
    points = [(across * panel.width, down * panel.height) for down, across in mark.points]
    left, top = points[0]
    if mark.kind == "CIRCLE":
        radius = max(float(np.hypot(points[1][0] - left, points[1][1] - top)), 2.0)
        draw.ellipse((left - radius, top - radius, left + radius, top + radius), outline=_MARK, width=2)
        left += radius * 0.7
    elif mark.kind == "POLYLINE":
        draw.line(points, fill=_MARK, width=2, joint="curve")
    else:
        draw.line((left - 8, top, left - 3, top), fill=_MARK, width=2)
        draw.line((left + 3, top, left + 8, top), fill=_MARK, width=2)
        draw.line((left, top - 8, left, top - 3), fill=_MARK, width=2)
        draw.line((left, top + 3, left, top + 8), fill=_MARK, width=2)
    if mark.text:
        ink.write(panel, (left + 6, top - 4), _fitting(mark.text, 12, max(panel.width - left - 8, 24)), 12, "lb", _MARK)


def _heated(panel: Image.Image, heat: Heat) -> Image.Image:
    """Lay a quantity over a panel, and draw what its colours mean at the right edge."""
    values = np.asarray(Image.fromarray(np.ascontiguousarray(heat.values)).resize(panel.size, Image.Resampling.BILINEAR)).clip(0, 1)
    under = np.asarray(panel, np.float32)
    opacity = (np.minimum(values * 2, 1) * _MOST_HEAT)[..., None]
    mixed = Image.fromarray((under + opacity * (_colours(values) - under)).round().clip(0, 255).astype(np.uint8))
    high, wide = panel.height // 2, 8
    column = _colours(np.linspace(1, 0, high, dtype=np.float32)[:, None].repeat(wide, axis=1))
    left, top = panel.width - wide - 10, panel.height // 8
    ink.place(mixed, Image.fromarray(column.astype(np.uint8)), (left, top))
    ink.write(mixed, (left - 4, top), f"{heat.high:.3g} {heat.unit}".strip(), 12, "ra")
    ink.write(mixed, (left - 4, top + high), f"{heat.low:.3g}", 12, "rs")
    return mixed


def _colours(values: Any) -> Any:
    """Return (…, 3) the colours of values from 0 to 1."""
    at = np.linspace(0, 1, len(_HEATS))
    return np.stack([np.interp(values, at, _HEATS[:, channel]) for channel in range(3)], axis=-1).astype(np.float32)
