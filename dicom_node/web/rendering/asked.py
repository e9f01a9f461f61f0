"""How a picture is wanted, read from a query (PS3.18 8.3.5): no request, no file."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from dicom_node.web.rendering.draw import Options, Viewport
from dicom_node.web.rendering.grey import Shape, Window

_LARGEST = 4096  # pixels along one side
_MOST_ASIDE = 1e6  # of columns and rows, in a text
_QUALITY = 85
_ANNOTATIONS = frozenset({"patient", "technique"})
_PROFILES = frozenset({"no", "yes", "srgb"})  # what is shown in colour is taken for sRGB, and named so by no profile


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a query says."""

    options: Options
    quality: int  # of JPEG, 1 to 100


def asked(query: Mapping[str, str], *, side: int | None = None) -> Asked:
    """Read what a query asks of a picture.

    side: the width and height of the viewport where none is asked for; none: the image's own.

    Raises
    ------
    ValueError: it is not as the standard has it; the text is for the client.
    """
    said = [one.strip().lower() for one in query.get("annotation", "").split(",") if one.strip()]
    if set(said) - _ANNOTATIONS:
        raise ValueError("annotation is patient, technique, or both")
    if query.get("iccprofile", "no").lower() not in _PROFILES:
        raise ValueError("iccprofile is no, yes or srgb")
    quality = query.get("quality", str(_QUALITY))
    if not (quality.isascii() and quality.isdigit()) or not 1 <= int(quality[:4]) <= 100:
        raise ValueError("quality is a number from 1 to 100")
    default = Viewport(width=side, height=side) if side else None
    options = Options(
        window=window(query["window"]) if "window" in query else None,
        viewport=viewport(query["viewport"]) if "viewport" in query else default,
        patient="patient" in said,
        technique="technique" in said,
    )
    return Asked(options=options, quality=int(quality))


def window(text: str) -> Window:
    """Read center, width and function (PS3.18 8.3.5.1.4).

    Raises
    ------
    ValueError: they are not as the standard has them.
    """
    parts = [one.strip() for one in text.split(",")]
    if len(parts) not in (2, 3):
        raise ValueError("window is center,width,function")
    function = (parts[2] if len(parts) == 3 else "linear").upper().replace("-", "_")
    center, width = (_number(one, "window") for one in parts[:2])
    if function not in Shape.__members__ or width <= 0 or (function == "LINEAR" and width < 1):
        raise ValueError("window is center,width,function: a width above 0 (of linear 1 or more), and linear, linear-exact or sigmoid")
    return Window(center=center, width=width, function=Shape(function))


def viewport(text: str) -> Viewport:
    """Read the size of a picture, and which part of the image is wanted (PS3.18 8.3.5.1.3).

    Raises
    ------
    ValueError: they are not as the standard has them, or too large.
    """
    parts = [one.strip() for one in text.split(",")]
    if len(parts) not in (2, 6):
        raise ValueError("viewport is width,height or width,height,x,y,columns,rows")
    width, height = (_number(one, "viewport") for one in parts[:2])
    if not (1 <= width <= _LARGEST and 1 <= height <= _LARGEST):
        raise ValueError(f"viewport has sides of 1 to {_LARGEST}")
    left, top, across, down = ([_number(one, "viewport") if one else None for one in parts[2:]] + [None] * 4)[:4]
    if across == 0 or down == 0 or any(abs(one or 0) > _MOST_ASIDE for one in (left, top, across, down)):
        raise ValueError("viewport shows no part of an image")
    return Viewport(width=int(width), height=int(height), left=left or 0.0, top=top or 0.0, across=across, down=down)


def frames(text: str) -> list[int]:
    """Read a list of frame numbers, each once and in the order asked for.

    Raises
    ------
    ValueError: it is none.
    """
    numbers = text.split(",")
    if len(text) > 65536 or not all(one.isascii() and one.isdigit() and len(one) < 8 and int(one) > 0 for one in numbers):
        raise ValueError("frames are numbers from 1, with commas between them")
    return list(dict.fromkeys(map(int, numbers)))


def _number(text: str, of: str) -> float:
    try:
        found = float(text) if len(text) < 40 else math.nan
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise ValueError(f"{of} has something that is no number")
    return found
