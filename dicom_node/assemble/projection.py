"""One projection image in, a volume of one slice out: a radiograph, an ultrasound image, a screen capture, a photograph.

It shows the patient by itself and has no place in the patient's coordinates: the volume lies in a system of its own, with its first pixel at 0,
columns along x and rows along y, one millimetre thick. Where the image does not say how large its pixels are they count as 1 mm, and a note says so.
"""

import math
from collections.abc import Sequence
from typing import Any

import highdicom as hd
import numpy as np

from dicom_node.assemble.headers import SEND_AGAIN, Frame, Image
from dicom_node.assemble.pixels import check, take_all
from dicom_node.assemble.values import FLOATS, TOO_WIDE, Scale, noticed, scale_of
from dicom_node.coding.unreadable import UNREADABLE
from dicom_node.config import Input
from dicom_node.domain import PROJECTIONS, Assembled, Cause, Unsuitable

GREY = (0.2125, 0.7154, 0.0721)  # how bright red, green and blue are (ITU-R BT.709): together 1

_MAX_PIXELS = 2**28  # 1 GiB as float32
_HEAD_ON = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
_PALETTE = "{}PaletteColorLookupTable{}"
_TABLE_BITS = (8, 16)
_INT16 = np.iinfo(np.int16)
_X_RAYS = frozenset({"CR", "DX", "MG", "XA", "RF", "IO", "PX", "RG"})  # modalities

Array = np.ndarray[Any, Any]


def is_projection(images: Sequence[Image]) -> bool:
    """Say whether images are no slices: of a class of projections, and without a place."""
    return all(image.sop_class_uid in PROJECTIONS and "ImagePositionPatient" not in image.header for image in images)


def projection(images: Sequence[Image], wanted: Input) -> Assembled:
    """Return one image as a volume (1, row, column).

    Values are as the modality look-up table or the rescale gives them; of an image in colour they are its grey, from 0 to 255. Where the input asks
    for MONOCHROME2, those of a MONOCHROME1 image are turned within the range that its bits can hold.

    Raises
    ------
    Unsuitable: it is not one image of one frame that is a projection, or it cannot be read.
    """
    image = _only(images)
    spacing_mm, said = _spacing_mm(image)
    frame = Frame(image=image, index=0, position=(0.0, 0.0, 0.0), orientation=_HEAD_ON, spacing_mm=spacing_mm)
    check(image, colour=True)
    array = np.empty((1, image.rows, image.columns), dtype=wanted.dtype)
    turned, notes = _fill(array[0], frame, wanted)
    volume = hd.Volume.from_attributes(
        array=array,
        image_position=frame.position,
        image_orientation=frame.orientation,
        pixel_spacing=spacing_mm,
        spacing_between_slices=1.0,
        coordinate_system="PATIENT",
    )
    return Assembled(volume=volume, sources=(image.header,), notes=(*said, *notes), turned=turned)


def _only(images: Sequence[Image]) -> Image:
    if len(images) != 1:
        raise Unsuitable(f"{len(images)} images; a projection is taken by itself", hint="Choose one image.")
    image = images[0]
    if not is_projection(images):
        raise Unsuitable(f"{image.name} is a slice, not a projection", hint="Choose a radiograph, an ultrasound image or another projection.")
    if image.frames > 1:
        raise Unsuitable(f"{image.name} has {image.frames} frames; only single images are taken", hint="Choose an image of one frame.")
    if image.rows * image.columns > _MAX_PIXELS:
        raise Unsuitable(f"{image.name} is too large: {image.columns} x {image.rows} pixels", hint="Send it smaller.", cause=Cause.RESOURCE)
    return image


# ------------------------------------------------------------------------------------------------------------- pixel size


def _spacing_mm(image: Image) -> tuple[tuple[float, float], tuple[str, ...]]:
    """Return the distance between rows and between columns, and what it is: of the patient if it was calibrated, else of the detector.

    PS3.3 10.7.1.3: Pixel Spacing of an X-ray image is of the patient where it names its calibration, or differs from Imager Pixel Spacing.
    """
    stated, detector = (_two(image, keyword) for keyword in ("PixelSpacing", "ImagerPixelSpacing"))
    found = stated or detector
    size = " x ".join(f"{each:.4g}" for each in found or ())
    if stated and (_text(image, "PixelSpacingCalibrationType") or (detector and stated != detector)):
        return stated, ()
    if detector:
        return detector, (f"pixels are {size} mm at the detector: what lies before it in the patient is smaller than it measures",)
    if stated and _text(image, "Modality") in _X_RAYS:
        return stated, (f"pixels are {size} mm by the image, which does not say whether in the patient or at the detector",)
    if stated:
        return stated, ()
    return (1.0, 1.0), ("the image does not say how large its pixels are: a length in mm is a number of pixels",)


def _two(image: Image, keyword: str) -> tuple[float, float] | None:
    """Return two lengths of a header, None where it does not state them."""
    try:
        rows, columns = (float(each) for each in image.value(keyword) or ())
    except UNREADABLE:
        return None
    return (rows, columns) if 0 < rows < math.inf and 0 < columns < math.inf else None


def _text(image: Image, keyword: str) -> str:
    try:
        return str(image.value(keyword) or "")
    except UNREADABLE:
        return ""


# ----------------------------------------------------------------------------------------------------------------- values


def _fill(out: Array, frame: Frame, wanted: Input) -> tuple[float | None, list[str]]:
    """Write an image's values (row, column), and return what they were turned about and what is to be said of them."""
    kind = str(frame.get("PhotometricInterpretation"))
    if not kind.startswith("MONOCHROME"):
        _write(Scale(), _grey(frame.image), out, frame)
        return None, ["values are the grey, from 0 to 255, of an image in colour"]
    scale = scale_of(frame, wanted)
    _write(scale, _stored(frame.image), out, frame)
    turn = kind == "MONOCHROME1" and wanted.photometric == "MONOCHROME2"
    about = sum(_range(frame, scale)) if turn else None
    if about is not None:
        _turn(out, about, frame)
    return about, noticed(frame, [scale], turned=turn)


def _turn(out: Array, about: float, frame: Frame) -> None:
    """Write into an image's values what is as far from the other end of their range."""
    ends = [about - float(end) for end in (out.min(), out.max())]
    if out.dtype.kind == "i" and not (about.is_integer() and min(ends) >= _INT16.min and max(ends) <= _INT16.max):
        raise Unsuitable(f"the values of {frame.name}, once inverted, {TOO_WIDE}", hint=FLOATS)
    np.subtract(about, out, out=out, casting="unsafe")


def _write(scale: Scale, stored: Array, out: Array, frame: Frame) -> None:
    try:
        scale.apply(stored, out)
    except OverflowError as error:
        raise Unsuitable(f"the values of {frame.name} {TOO_WIDE}", hint=FLOATS) from error


def _range(frame: Frame, scale: Scale) -> tuple[float, float]:
    """Return the lowest and the highest value that an image's bits can hold."""
    bits, signed = int(frame.get("BitsStored")), bool(frame.get("PixelRepresentation"))
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    codes = np.arange(low, high + 1) if bits <= max(_TABLE_BITS) else np.array([low, high])
    values = np.empty((1, len(codes)), np.float32)
    scale.apply(codes[None], values)
    return float(values.min()), float(values.max())


def _stored(image: Image) -> Array:
    """Return the stored values (row, column), of colours (row, column, 3)."""
    kept: list[Array] = []
    take_all({image: [0]}, lambda image, index, stored: kept.append(stored.copy()))
    return kept[0]


# ----------------------------------------------------------------------------------------------------------------- colour


def _grey(image: Image) -> Array:
    """Return the grey (row, column) of an image in colour, float32 from 0 to 255."""
    stored = _stored(image)
    if image.samples == 1:
        return _grey_of_palette(image)[_places(image, stored)]
    return (stored @ np.array(GREY, np.float32)).astype(np.float32)


def _grey_of_palette(image: Image) -> Array:
    """Return the grey of each entry of an image's palette (PS3.3 C.7.6.3.1.5, C.7.6.3.1.6)."""
    try:
        return np.array(GREY, np.float32) @ np.stack([_table(image, name) for name in ("Red", "Green", "Blue")])
    except UNREADABLE as error:
        raise Unsuitable(f"the palette of {image.name} cannot be understood", hint=SEND_AGAIN, cause=Cause.FORMAT) from error


def _table(image: Image, colour: str) -> Array:
    entries, _, bits = _descriptor(image, colour)
    data = image.value(_PALETTE.format(colour, "Data"))
    little = image.header.original_encoding[1]
    bytes_each = 2 if len(data) >= 2 * entries else 1
    table = np.frombuffer(data, f"{'<' if little else '>'}u{bytes_each}", entries)
    return (table * (255 / (2**bits - 1))).astype(np.float32)


def _places(image: Image, stored: Array) -> Array:
    """Return where in the palette each stored value stands; what lies outside is given the nearest end."""
    entries, first, _ = _descriptor(image, "Red")
    return np.clip(stored.astype(np.int64) - first, 0, entries - 1)


def _descriptor(image: Image, colour: str) -> tuple[int, int, int]:
    """Return the number of a palette's entries, the stored value of the first and the bits of each."""
    entries, first, bits = (int(each) for each in image.value(_PALETTE.format(colour, "Descriptor")))
    if bits not in _TABLE_BITS or not 0 <= entries < 2**16:
        raise ValueError(f"a palette of {entries} entries of {bits} bits")
    return entries or 2**16, first, bits
