"""Colours: palettes (PS3.3 C.7.6.3.1.5, C.7.9.2), and the CIELab values that segments name, as what a screen takes (sRGB)."""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydicom import Dataset

from dicom_node.web.rendering.grey import table

Array = np.ndarray[Any, Any]
Colour = tuple[int, int, int]

PALETTE: tuple[Colour, ...] = ((255, 178, 56), (86, 190, 255), (120, 220, 130), (240, 110, 140), (190, 140, 255))  # where nothing names a colour
_PLANES = ("Red", "Green", "Blue")
_WHITE = (0.95047, 1.0, 1.08883)  # D65, by which those who write and who show such values convert them
_TO_SRGB = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])  # from XYZ (IEC 61966-2-1)
_LINEAR_UPTO = 0.0031308  # IEC 61966-2-1


def from_palette(stored: Array, header: Dataset) -> Array:
    """Return red, green and blue of 8 bits (row, column, 3) of the indices into a palette.

    Raises
    ------
    ValueError, TypeError, LookupError, AttributeError, struct.error: the palette is none.
    """
    planes = []
    for name in _PLANES:
        descriptor = list(header[f"{name}PaletteColorLookupTableDescriptor"].value)
        segmented = header.get(f"Segmented{name}PaletteColorLookupTableData")
        data = _expanded(segmented, int(descriptor[2])) if segmented else header[f"{name}PaletteColorLookupTableData"].value
        one = table(descriptor, data, signed=bool(header.get("PixelRepresentation")))
        wide = one.values.max(initial=0) > 255 or one.highest > 255
        entries = (one.values >> 8 if wide else one.values).astype(np.uint8)
        planes.append(entries[np.clip(stored.astype(np.int64) - one.first, 0, len(entries) - 1)])
    return np.stack(planes, axis=-1)


def _expanded(data: bytes, bits: int) -> Array:
    """Return the entries that segments stand for: some values, or a line from the last value to another (PS3.3 C.7.9.2.1, C.7.9.2.2)."""
    numbers: Sequence[int] = list(data) if bits == 8 else struct.unpack(f"<{len(data) // 2}H", data[: len(data) // 2 * 2])
    found: list[int] = []
    at = 0
    while at + 2 < len(numbers) and len(found) < 65536:
        kind, length = numbers[at], numbers[at + 1]
        if kind == 0:
            found += numbers[at + 2 : at + 2 + length]
            at += 2 + length
        elif kind == 1 and found:
            found += [round(one) for one in np.linspace(found[-1], numbers[at + 2], length + 1)[1:]]
            at += 3
        else:
            raise ValueError("a palette in segments of a kind that is not read")
    return np.array(found)


def from_lab(value: Sequence[int]) -> Colour:
    """Return the colour of a Recommended Display CIELab Value (PS3.3 C.10.7.1.1: L* of 0 to 100, a* and b* of -128 to 127, as 0 to 65535)."""
    light, a, b = (float(one) for one in list(value)[:3])
    y = (light / 65535 * 100 + 16) / 116
    x, z = y + (a / 65535 * 255 - 128) / 500, y - (b / 65535 * 255 - 128) / 200
    xyz = [white * (one**3 if one > 6 / 29 else 3 * (6 / 29) ** 2 * (one - 4 / 29)) for one, white in zip((x, y, z), _WHITE, strict=True)]
    linear = np.clip(_TO_SRGB @ xyz, 0, 1)
    gamma = np.where(linear <= _LINEAR_UPTO, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    red, green, blue = (int(one) for one in np.rint(gamma * 255))
    return red, green, blue
