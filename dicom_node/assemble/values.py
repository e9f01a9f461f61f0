"""What stored values mean: real-world value mapping, modality look-up table or rescale, by slice, and the unit that results.

Presentation (MONOCHROME1, Presentation LUT Shape, windows) changes how values look, never what they are: it is not applied, but where an input
asks for projections that are bright where their values are high (`projection`).
"""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.pixels import apply_modality_lut

from dicom_node.assemble.headers import SEND_AGAIN, Frame
from dicom_node.coding.unreadable import UNREADABLE
from dicom_node.config import Input
from dicom_node.domain import Cause, Unsuitable

TOO_WIDE, FLOATS = "are not whole numbers of 16 bits, which the model asks for", 'Ask for dtype = "float32" in the model\'s manifest.'

_HU = "[hnsf'U]"  # UCUM
_EXACT = 2**22  # below this, whole numbers times and plus whole numbers are exact in float32
_INT16 = np.iinfo(np.int16)
_BLOCK_PIXELS = 2**15  # what is made on the way stays in the processor's cache
_MULTI_ENERGY = "MultienergyCTAcquisition"

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scale:
    """From the stored values of one slice to values with a unit."""

    slope: float = 1.0
    intercept: float = 0.0
    unit: str = ""  # HU, a UCUM code or a DICOM defined term; empty: not stated
    table: Array | None = None  # a real-world value for each stored value from `first` on
    first: int = 0
    modality_table: Any = None  # the header that holds a Modality LUT Sequence
    mapped: tuple[float, float] | None = None  # the stored values that a real-world value mapping is defined for

    def apply(self, stored: Array, out: Array) -> None:
        """Write the values of stored ones (row, column) into `out`, rounded once: float32, or int16 where they fit.

        Raises
        ------
        OverflowError: `out` is int16, and a value is not a whole number or is beyond it.
        """
        if out.dtype == np.int16:
            self._apply_whole(stored, out)
        elif self._linear and self._exact(stored):
            scaled = stored if self.slope == 1 else np.multiply(stored, np.float32(self.slope), out=out)
            np.add(scaled, np.float32(self.intercept), out=out)
        else:
            for rows in _blocks(stored):
                out[rows] = self._precise(stored[rows])

    @property
    def _linear(self) -> bool:
        return self.modality_table is None and self.table is None

    def _exact(self, stored: Array) -> bool:
        """Say whether float32 holds every product and every sum on the way."""
        return stored.dtype.kind in "iu" and stored.dtype.itemsize < 4 and _whole(self.slope, 64) and _whole(self.intercept, _EXACT)

    def _precise(self, stored: Array) -> Array:
        if self.modality_table is not None:
            return apply_modality_lut(stored, self.modality_table)
        if self.table is not None:
            return self.table[np.clip(stored.astype(np.int64) - self.first, 0, len(self.table) - 1)]
        values = np.multiply(stored, self.slope, dtype=np.float64)
        values += self.intercept
        return values

    def _apply_whole(self, stored: Array, out: Array) -> None:
        """Write values as int16, whose arithmetic is exact modulo 2^16 once it is known that the values fit."""
        if self._linear and self._exact(stored):
            ends = [int(end) * int(self.slope) + int(self.intercept) for end in (stored.min(), stored.max())]
            if min(ends) < _INT16.min or max(ends) > _INT16.max:
                raise OverflowError
            out[...] = stored.astype(np.int16, copy=False)
            out *= np.int16(int(self.slope))
            out += np.int64(int(self.intercept)).astype(np.int16)
            return
        for rows in _blocks(stored):
            values = self._precise(stored[rows])
            if not (np.array_equal(values, np.rint(values)) and values.min() >= _INT16.min and values.max() <= _INT16.max):
                raise OverflowError
            out[rows] = values

    def covers(self, stored: Array) -> bool:
        """Say whether every stored value lies where the real-world value mapping is defined."""
        return self.mapped is None or bool(stored.min() >= self.mapped[0] and stored.max() <= self.mapped[1])


def scale_of(frame: Frame, wanted: Input) -> Scale:
    """Return how the stored values of one slice become the values that an input asks for.

    Raises
    ------
    Unsuitable: Hounsfield units are asked for and the image does not have them.
    """
    try:
        return _hounsfield(frame) if wanted.units == "HU" else _as_stated(frame)
    except UNREADABLE as error:
        raise Unsuitable(f"what the values of {frame.name} mean cannot be understood from its header", hint=SEND_AGAIN, cause=Cause.FORMAT) from error


def noticed(first: Frame, scales: Collection[Scale], *, turned: bool = False) -> list[str]:
    """Return what a reader of the result should know about the values; turned: whether those of MONOCHROME1 were.

    Raises
    ------
    Unsuitable: they are of different units.
    """
    units = {scale.unit for scale in scales}
    if len(units) > 1:
        raise Unsuitable(f"slices state different units: {', '.join(sorted(unit or 'none' for unit in units))}", hint=SEND_AGAIN)
    said = [f"values are in {unit}" for unit in units if unit]
    kernel = first.get("ConvolutionKernel", "CTReconstructionSequence")
    if kernel:
        said.append(f"reconstruction kernel {kernel if isinstance(kernel, str) else '/'.join(map(str, kernel))}")
    padding = first.get("PixelPaddingValue")
    if padding is not None:
        said.append(f"stored values of {padding} are padding outside of what was imaged; they are left as they are")
    if first.get("PhotometricInterpretation") == "MONOCHROME1":
        said.append(f"the images are meant to be shown inverted (MONOCHROME1); values are {'inverted' if turned else 'not inverted'}")
    if first.get("LossyImageCompression") == "01":
        said.append("the images were compressed with loss")
    return said


def _as_stated(frame: Frame) -> Scale:
    """Return the first real-world value mapping, else the modality look-up table, else the rescale, else nothing (PS3.3 C.7.6.16.2.11, C.11.1)."""
    mapping = next(iter(_real_world(frame)), None)
    if mapping is not None:
        return mapping
    if frame.image.value("ModalityLUTSequence"):
        kind = frame.image.header.ModalityLUTSequence[0].get("ModalityLUTType", "")
        apply_modality_lut(np.zeros((1, 1), dtype=np.int64), frame.image.header)  # a table that cannot be read is found here
        return Scale(modality_table=frame.image.header, unit="" if kind == "US" else str(kind))
    return _rescale(frame) or Scale(unit=str(frame.get("Units") or ""))


def _hounsfield(frame: Frame) -> Scale:
    if frame.get("Modality") != "CT":
        raise Unsuitable(f"the images are {frame.get('Modality')}, not CT: they hold no Hounsfield units", hint="Choose a CT series.")
    rescale = _rescale(frame)
    if rescale is not None and rescale.unit == "HU":
        return rescale
    mapping = next((scale for scale in _real_world(frame) if scale.unit == _HU), None)
    if mapping is not None:
        return mapping
    if rescale is None:
        raise Unsuitable(
            f"{frame.name} is CT without rescale slope and intercept: its values are not Hounsfield units", hint="Send the original CT series."
        )
    raise Unsuitable(
        f"the values of {frame.name} are {rescale.unit or 'of no stated unit'}, not Hounsfield units", hint="Send the original CT series."
    )


def _rescale(frame: Frame) -> Scale | None:
    """Return the rescale of one slice; None without one."""
    group = "PixelValueTransformationSequence"
    slope, intercept = frame.get("RescaleSlope", group), frame.get("RescaleIntercept", group)
    if slope is None or intercept is None:
        return None
    if not (math.isfinite(slope) and math.isfinite(intercept)) or float(slope) == 0:
        raise ValueError("a rescale that maps everything to one value")
    return Scale(slope=float(slope), intercept=float(intercept), unit=_rescale_unit(frame, str(frame.get("RescaleType", group) or "")))


def _rescale_unit(frame: Frame, stated: str) -> str:
    """Return the unit that a rescale leads to.

    Of an original CT image that is no localizer and not multi-energy it is HU by definition (PS3.3 C.8.2.1.1), whether "US" (unspecified),
    another word for it or nothing is stated.
    """
    if frame.get("Modality") == "PT":
        return str(frame.get("Units") or "")
    if stated not in ("", "US"):
        return stated
    by_definition = frame.get("Modality") == "CT" and frame.image_type[:1] == ("ORIGINAL",) and frame.get(_MULTI_ENERGY) != "YES"
    # Without a type CT is HU (PS3.3 C.11.1.1.2: it is stated whenever it is another), with "US" only by definition.
    return "HU" if by_definition or (frame.get("Modality") == "CT" and not stated) else ""


def _real_world(frame: Frame) -> list[Scale]:
    """Return the real-world value mappings of one slice (PS3.3 C.7.6.16.2.11)."""
    found = []
    for item in _real_world_items(frame):
        unit = str(item.MeasurementUnitsCodeSequence[0].get("CodeValue", "")) if item.get("MeasurementUnitsCodeSequence") else ""
        first = item.get("RealWorldValueFirstValueMapped", item.get("DoubleFloatRealWorldValueFirstValueMapped"))
        last = item.get("RealWorldValueLastValueMapped", item.get("DoubleFloatRealWorldValueLastValueMapped"))
        mapped = None if first is None or last is None else (float(first), float(last))
        if "RealWorldValueSlope" in item:
            found.append(Scale(slope=float(item.RealWorldValueSlope), intercept=float(item.RealWorldValueIntercept), unit=unit, mapped=mapped))
        elif "RealWorldValueLUTData" in item and first is not None:
            table = np.atleast_1d(np.array(item.RealWorldValueLUTData, dtype=np.float64))
            found.append(Scale(table=table, first=int(first), unit=unit, mapped=mapped))
    return found


def _real_world_items(frame: Frame) -> list[Any]:
    """Return the items of Real World Value Mapping Sequence: a functional group of multi-frame images has all of them, not one."""
    keyword = "RealWorldValueMappingSequence"
    header = frame.image.header
    places = (
        [header]
        if frame.image.single
        else [header.PerFrameFunctionalGroupsSequence[frame.index], *(header.get("SharedFunctionalGroupsSequence") or ()), header]
    )
    return next((list(place[keyword].value) for place in places if place.get(keyword)), [])


def _blocks(stored: Array) -> Iterator[slice]:
    """Yield slices over the rows, some at a time."""
    rows, columns = stored.shape
    step = max(1, _BLOCK_PIXELS // max(1, columns))
    yield from (slice(start, start + step) for start in range(0, rows, step))


def _whole(number: float, below: float) -> bool:
    return float(number).is_integer() and abs(number) < below
