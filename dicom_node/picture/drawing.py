"""The picture of a segmentation over its images, as a PNG file: three planes, a strip of slices, a legend."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from dicom_node.picture import canvas as ink
from dicom_node.picture.canvas import font, place
from dicom_node.picture.files import scene
from dicom_node.picture.scene import AXIAL, CORONAL, SAGITTAL, Colour, Plane, Scene

# In pixels.
_WIDTH, _MARGIN, _GAP = 1800, 40, 16
_HEADER, _TALLEST, _ROW = 124, 660, 44
_STRIP = 8  # axial slices below the three planes
_BAR_MM = 50


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
    canvas = Image.new("RGB", (_WIDTH, legend_top + len(rows) * _ROW + _MARGIN // 2), ink.BACKGROUND)
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
    outlines = ((plane.cut(segment.mask, index), segment.colour) for segment in shown.segments)
    return ink.shaded(plane.cut(shown.grey, index), (round(wide * scale), round(high * scale)), outlines)


def _draw_planes(canvas: Image.Image, shown: Scene, scale: float, bottom: int) -> None:
    planes = (AXIAL, CORONAL, SAGITTAL)
    chosen = {plane.axis: shown.best(plane) for plane in planes}
    widths = [round(shown.size_mm(plane)[0] * scale) for plane in planes]
    left = (_WIDTH - sum(widths) - 2 * _GAP) // 2
    for plane, width in zip(planes, widths, strict=True):
        panel = _slice(shown, plane, chosen[plane.axis], scale)
        _draw_ticks(panel, shown, plane, chosen)
        ink.draw_letters(panel, shown.letters(plane))
        ink.draw_scale_bar(panel, scale, _BAR_MM)
        ink.write(panel, (14, 12), plane.name, 20)
        place(canvas, panel, (left, (_HEADER + bottom - panel.height) // 2))
        left += width + _GAP


def _draw_strip(canvas: Image.Image, shown: Scene, scale: float, top: int) -> None:
    left = _MARGIN
    for index in shown.spread(_STRIP):
        thumbnail = _slice(shown, AXIAL, index, scale)
        place(canvas, thumbnail, (left, top))
        left += thumbnail.width + _GAP


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
        draw.line(line, fill=ink.AMBER, width=2)


# ----------------------------------------------------------------------------------------------------- header and legend


def _draw_header(canvas: Image.Image, shown: Scene) -> None:
    draw = ImageDraw.Draw(canvas)
    draw.text((_MARGIN, 34), shown.title, font=font(36), fill=ink.TEXT)
    draw.text((_MARGIN, 82), shown.subtitle, font=font(20), fill=ink.MUTED)
    right = _WIDTH - _MARGIN
    ink.draw_banner(canvas, right, 30, 24)
    draw.text((right, 82), shown.credit, font=font(20), fill=ink.MUTED, anchor="ra")


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
    return 36 + font(24).getlength(entry[1]) + 12 + font(24).getlength(entry[2]) + 48


def _millilitres(volume_ml: float) -> str:
    return f"{volume_ml:,.0f} ml".replace(",", " ") if volume_ml >= 10 else f"{volume_ml:.2g} ml"


def _draw_legend(canvas: Image.Image, rows: list[list[Entry]], top: int) -> None:
    draw = ImageDraw.Draw(canvas)
    shown = font(24)
    for number, row in enumerate(rows):
        left, middle = float(_MARGIN), top + number * _ROW + _ROW / 2
        for entry in row:
            colour, label, volume = entry
            draw.rounded_rectangle((left, middle - 11, left + 22, middle + 11), radius=6, fill=colour)
            draw.text((left + 36, middle), label, font=shown, fill=ink.TEXT, anchor="lm")
            draw.text((left + 48 + shown.getlength(label), middle), volume, font=shown, fill=ink.MUTED, anchor="lm")
            left += _width(entry)
