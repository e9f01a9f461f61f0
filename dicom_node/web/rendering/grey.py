"""From stored values to what a screen shows: modality LUT, values of interest, polarity (PS3.3 C.11, PS3.4 N.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from pydicom import Dataset

Array = np.ndarray[Any, Any]
_MOST_ENTRIES = 65536  # of a table (PS3.3 C.11.1.1)
_TAILS_PERCENT = 0.5, 99.5  # where nothing says what is of interest
_SAMPLED = 2**18  # pixels that are looked at for it
_AT_ONCE = 2**18  # pixels that are worked out at a time


class Shape(StrEnum):
    """VOI LUT Function (0028,1056)."""

    LINEAR = "LINEAR"
    LINEAR_EXACT = "LINEAR_EXACT"
    SIGMOID = "SIGMOID"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The values that are told apart."""

    center: float
    width: float
    function: Shape = Shape.LINEAR


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """A look-up table (PS3.3 C.11.1.1, C.11.2.1.1)."""

    first: int  # value that its first entry is for
    values: Array
    highest: int  # that an entry may be


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Look:
    """What a header says of how a frame is to be shown."""

    slope: float
    intercept: float
    modality: Table | None
    windows: tuple[Window, ...]
    of_interest: Table | None
    inverse: bool  # whether low values are bright
    padding: tuple[float, float] | None  # stored values, from and to, that are no part of the image


def group(header: Dataset, index: int, name: str) -> Dataset | None:
    """Return a frame's functional group, its own or the one that all share (PS3.3 C.7.6.16)."""
    for frames, at in ((header.get("PerFrameFunctionalGroupsSequence"), index), (header.get("SharedFunctionalGroupsSequence"), 0)):
        if frames and at < len(frames) and frames[at].get(name):
            found: Dataset = frames[at][name].value[0]
            return found
    return None


def look(header: Dataset, index: int) -> Look:
    """Return how a header says that a frame is to be shown.

    Raises
    ------
    ValueError, TypeError, LookupError: it says something that cannot be.
    """
    scaled = group(header, index, "PixelValueTransformationSequence") or header
    interest = group(header, index, "FrameVOILUTSequence") or header
    slope = _number(scaled, "RescaleSlope", 1.0)
    shape = str(header.get("PresentationLUTShape") or "")
    bright_low = header.get("PhotometricInterpretation") == "MONOCHROME1"
    return Look(
        slope=slope or 1.0,
        intercept=_number(scaled, "RescaleIntercept", 0.0),
        modality=_table(header, "ModalityLUTSequence"),
        windows=tuple(_windows(interest)),
        of_interest=_table(interest, "VOILUTSequence"),
        inverse=shape == "INVERSE" if shape in ("IDENTITY", "INVERSE") else bright_low,
        padding=_padding(header),
    )


def shown(stored: Array, how: Look, window: Window | None = None, *, modality: str = "", bits: int = 16) -> Array:
    """Return 8-bit greys (row, column) of stored values.

    window: in the place of what the header says; none: the header's first window, else its table, else what suits the modality.
    """
    chosen = window or (how.windows[0] if how.windows else None)
    if chosen is None and how.of_interest is None:
        meant = stored[_meant(stored, how)]
        sampled = meant[:: max(1, meant.size // _SAMPLED)]
        chosen = automatic(_scaled(sampled, how), modality=modality, bits=bits if how.slope == 1 else 16)
    found = np.empty(stored.shape, np.uint8)
    rows = max(1, _AT_ONCE // max(stored.shape[1], 1))
    for first in range(0, len(stored), rows):  # a large frame as 64-bit numbers would take eight times its own memory, several times over
        found[first : first + rows] = np.rint(_greys(stored[first : first + rows], how, chosen)).astype(np.uint8)
    return np.subtract(255, found, out=found) if how.inverse else found


def _scaled(stored: Array, how: Look) -> Array:
    """Return stored values as what they mean."""
    return _through(how.modality, stored) if how.modality else np.multiply(stored, how.slope, dtype=np.float64) + how.intercept


def _greys(stored: Array, how: Look, window: Window | None) -> Array:
    values = _scaled(stored, how)
    if window is None and how.of_interest is not None:
        return _through(how.of_interest, values) * (255 / how.of_interest.highest)
    return windowed(values, window or automatic(values))


def windowed(values: Array, window: Window) -> Array:
    """Return values from 0 to 255 through a window (PS3.3 C.11.2.1.2, C.11.2.1.3)."""
    center, width = window.center, window.width
    if window.function is Shape.SIGMOID:
        found: Array = 255 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))
        return found
    if window.function is Shape.LINEAR_EXACT:
        return np.clip(((values - center) / width + 0.5) * 255, 0, 255)
    if width <= 1:
        return np.where(values <= center - 0.5, 0.0, 255.0)
    return np.clip(((values - (center - 0.5)) / (width - 1) + 0.5) * 255, 0, 255)


def automatic(values: Array, *, modality: str = "", bits: int = 16) -> Window:
    """Return a window where nobody named one: soft tissue of CT, everything of 8 bits, else from the darkest to the brightest but for their tails."""
    if modality == "CT":
        return Window(center=40, width=400)
    if bits <= 8:
        return Window(center=2 ** (bits - 1), width=2**bits)
    if not values.size:
        return Window(center=0, width=2, function=Shape.LINEAR_EXACT)
    low, high = np.percentile(values.reshape(-1)[:: max(1, values.size // _SAMPLED)], _TAILS_PERCENT)
    width = float(high - low) or 1.0
    return Window(center=float(low) + width / 2, width=width, function=Shape.LINEAR_EXACT)


def table(descriptor: Sequence[Any], data: Any, *, signed: bool = False) -> Table:
    """Return a look-up table from its descriptor and its data (PS3.3 C.11.1.1).

    Raises
    ------
    ValueError, TypeError, LookupError: they do not fit together.
    """
    entries, first, bits = (int(one) for one in list(descriptor)[:3])
    entries = entries % _MOST_ENTRIES or _MOST_ENTRIES  # 0 stands for 65536, and a count may have been read as a negative number
    first = first - _MOST_ENTRIES if signed and first >= _MOST_ENTRIES // 2 else first
    if not 8 <= bits <= 16:
        raise ValueError("entries of an unknown size")
    if isinstance(data, bytes):
        values = np.frombuffer(data, np.uint8 if len(data) in (entries, entries + 1) else "<u2")
    else:
        values = np.asarray(data, np.int64) % _MOST_ENTRIES
    if len(values) < entries:
        raise ValueError("too few entries")
    highest = 2**bits - 1
    return Table(first=first, values=np.minimum(values[:entries].astype(np.int64), highest), highest=highest)


def _through(one: Table, values: Array) -> Array:
    """Return what a table has for values; beyond its ends its first and its last entry."""
    return one.values[np.clip(np.rint(values).astype(np.int64) - one.first, 0, len(one.values) - 1)].astype(np.float64)


def _table(header: Dataset, keyword: str) -> Table | None:
    items = header.get(keyword)
    if not items:
        return None
    return table(items[0].LUTDescriptor, items[0].LUTData, signed=bool(header.get("PixelRepresentation")))


def _windows(header: Dataset) -> list[Window]:
    centers, widths = (_numbers(header.get(name)) for name in ("WindowCenter", "WindowWidth"))
    said = str(header.get("VOILUTFunction") or "LINEAR").upper()
    function = Shape(said) if said in Shape.__members__ else Shape.LINEAR
    pairs = zip(centers, widths, strict=False)
    return [Window(center=center, width=width, function=function) for center, width in pairs if width > 0 and np.isfinite([center, width]).all()]


def _numbers(value: Any) -> list[float]:
    if value is None or value == "":
        return []
    return [float(one) for one in (value if isinstance(value, Sequence) and not isinstance(value, str) else [value])]


def _number(header: Dataset, keyword: str, default: float) -> float:
    found = _numbers(header.get(keyword))
    return found[0] if found and np.isfinite(found[0]) else default


def _padding(header: Dataset) -> tuple[float, float] | None:
    one, limit = _numbers(header.get("PixelPaddingValue")), _numbers(header.get("PixelPaddingRangeLimit"))
    if not one:
        return None
    ends = one[0], (limit or one)[0]
    return min(ends), max(ends)


def _meant(stored: Array, how: Look) -> Array:
    """Say which pixels are part of the image."""
    if how.padding is None:
        return np.ones(stored.shape, bool)
    low, high = how.padding
    return (stored < low) | (stored > high)
