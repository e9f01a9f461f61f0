"""Images that a model made, as a series of their own: one image for each source image, of its class, in its place, in its stored unit.

What is said of patient, study, place and technique is the source's, copied as it stands there. The values are stored as the source stores its
own, so that rescale, window and padding keep their meaning; a stored value is never further from the model's value than half a stored unit, but
for those of a radiograph that its own bits do not hold: these become black or white.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.config import RAISE
from pydicom.datadict import dictionary_VR
from pydicom.dataset import FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.sr.codedict import codes
from pydicom.tag import Tag
from pydicom.uid import UID
from pydicom.valuerep import validate_value

from dicom_node.config import DerivedImage
from dicom_node.domain import Assembled, ModelFailed, Unsuitable
from dicom_node.report.grid import planes
from dicom_node.report.header import copy_elements, settle
from dicom_node.report.run import Run
from dicom_node.report.side import state_side
from dicom_node.report.technique import ACQUIRED, TECHNIQUE, TYPE_2, X_RAYS
from dicom_node.report.words import Words

# Copied as they stand, whatever they hold: where the image lies, how its pixels are laid out, what its values mean (PS3.3 C.7.4.1, C.7.6.2,
# C.7.6.3, C.11.1, C.11.2).
_KEPT = (
    "Modality",
    "PatientPosition",
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
    "InstanceNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SliceLocation",
    "SpacingBetweenSlices",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "PresentationLUTShape",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "WindowCenter",
    "WindowWidth",
    "WindowCenterWidthExplanation",
    "VOILUTFunction",
    "BurnedInAnnotation",
    "RecognizableVisualFeatures",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
_BINARY = ("US", "SS", "UL", "SL", "FL", "FD")
_RANGES = {0: (0, 65535), 1: (-32768, 32767)}  # of stored values, by Pixel Representation


def derived(name: str, values: Any, assembled: Assembled, run: Run) -> tuple[Dataset, ...]:
    """Return one image of a derived series for each slice of the volume that has an image, in the order of the slices.

    values: a Volume (slice, row, column) on the grid of the input, in its unit.

    Raises
    ------
    Unsuitable: the source images are of a class that no derived image is written for, or their values are no linear function of stored ones.
    ModelFailed: the values are not on the grid of the input, or too large for 16 bits in its stored unit.
    """
    before = assembled.volume.array
    if values.array.shape != before.shape or not np.allclose(values.affine, assembled.volume.affine, atol=1e-6):
        raise ModelFailed(f"the image '{name}' is not on its input's grid", hint="Return it with `volume.with_array`.")
    wants_hu = run.model.manifest.inputs[run.model.manifest.input_of(run.model.manifest.images[name])].units == "HU"
    sources = {source.SOPInstanceUID: (source, _scale(source, assembled.turned, wants_hu=wants_hu)) for source in assembled.sources}
    slices = [(plane.slice_index, *sources[plane.sop_instance_uid]) for plane in planes(assembled)]
    signed = _signed(name, values.array, [(index, scale) for index, _, scale in slices])
    return tuple(_image(name, source, index, scale.stored(values.array[index], before[index], signed), scale, run) for index, source, scale in slices)


def _kind(name: str) -> str:
    """Return what the header calls a derived series: its number, its description and its UIDs are told apart by it."""
    return f"DER {name}"


# ----------------------------------------------------------------------------------------------------------------- values


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    """What the stored values of one source image mean, as `assemble` read them, to be undone."""

    slope: float
    intercept: float
    mapped: bool  # by a real-world value mapping, which speaks of stored values by their sign
    signed: int  # Pixel Representation
    padding: tuple[int, int] | None  # stored values from and to
    bits: int | None  # of a radiograph: no stored value needs more; None: of 16 bits all are used
    turned: float | None  # the model's values are this number less the image's own

    def of(self, values: Any) -> Any:
        """Return stored values, not yet rounded."""
        return ((values if self.turned is None else self.turned - values) - self.intercept) / self.slope

    def stored(self, values: Any, of_source: Any, signed: int) -> np.ndarray:
        """Return the stored values (row, column) of a slice, rounded; what is padding in the source is the same padding (PS3.3 C.7.5.1.1.2)."""
        found = np.rint(self.of(values.astype(np.float64)))
        if self.padding is not None:
            before = np.rint(self.of(of_source.astype(np.float64)))
            found = np.where((before >= min(self.padding)) & (before <= max(self.padding)), before, found)
        if self.bits is not None:
            low = -(2 ** (self.bits - 1)) if signed else 0
            found = np.clip(found, low, low + 2**self.bits - 1)
        return found.astype("<i2" if signed else "<u2")


def _scale(source: Dataset, turned: float | None, *, wants_hu: bool) -> _Scale:
    """Return how the values of an image follow from its stored values.

    Raises
    ------
    Unsuitable: its class is not one of those that are written here, or a table stands between both.
    """
    if source.SOPClassUID not in TECHNIQUE:
        raise Unsuitable(
            f"the images are {UID(source.SOPClassUID).name} objects; derived images are made of single-frame CT, MR, CR, DX and MG images only",
            hint="Send the series as objects of one of these classes.",
        )
    mapping: Dataset = next(iter(source.get("RealWorldValueMappingSequence") or ()), Dataset())
    mapped = len(mapping) > 0 and not (wants_hu and source.get("RescaleType", "HU") in ("HU", "US", ""))
    if "RealWorldValueSlope" not in mapping if mapped else source.get("ModalityLUTSequence"):
        raise Unsuitable(
            "a table says what the stored values of the images mean; derived images are made only of those that are rescaled",
            hint="Send the series with rescale slope and intercept.",
        )
    slope, intercept = (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) if mapped else _rescale(source)
    return _Scale(
        slope=float(slope),
        intercept=float(intercept),
        mapped=mapped,
        signed=int(source.PixelRepresentation),
        padding=_padding(source),
        bits=min(int(source.BitsStored), 16) if source.SOPClassUID in X_RAYS else None,
        turned=turned,
    )


def _rescale(source: Dataset) -> tuple[float, float]:
    """Return slope and intercept of an image; without them a value is what is stored (PS3.3 C.11.1)."""
    slope, intercept = source.get("RescaleSlope"), source.get("RescaleIntercept")
    return (1.0, 0.0) if slope is None or intercept is None else (float(slope), float(intercept))


def _signed(name: str, array: Any, scales: Sequence[tuple[int, _Scale]]) -> int:
    """Return the Pixel Representation for the whole series: the source's if all values fit, else the other one."""
    own = scales[0][1].signed
    if scales[0][1].bits is not None:
        return own
    low, high = 0.0, 0.0
    for index, scale in scales:
        ends = [scale.of(float(end)) for end in (array[index].min(), array[index].max())]
        low, high = min(low, *ends, *(scale.padding or ())), max(high, *ends, *(scale.padding or ()))
    for representation in (own,) if scales[0][1].mapped else (own, 1 - own):
        if _RANGES[representation][0] <= round(low) and round(high) <= _RANGES[representation][1]:
            return representation
    raise ModelFailed(
        f"the image '{name}' needs stored values from {low:.0f} to {high:.0f}, which 16 bits do not hold",
        hint="Return values in the unit and about the range of the input.",
    )


def _padding(source: Dataset) -> tuple[int, int] | None:
    """Return Pixel Padding Value and Range Limit, the value twice where there is no limit; None without padding."""
    found = [_whole(source, keyword) for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    return None if found[0] is None else (found[0], found[0] if found[1] is None else found[1])


def _whole(source: Dataset, keyword: str) -> int | None:
    """Return a number whose VR, US or SS, Pixel Representation decides: some headers leave it as bytes, some as the wrong one of both."""
    value = source.get(keyword)
    if value is None or value == b"":
        return None
    number = int.from_bytes(value[:2], "little") if isinstance(value, bytes) else int(value)
    return number - 65536 if source.PixelRepresentation == 1 and number > _RANGES[1][1] else number


# ------------------------------------------------------------------------------------------------------------- one image


def _image(name: str, source: Dataset, index: int, stored: np.ndarray, scale: _Scale, run: Run) -> Dataset:
    described, words = run.model.manifest.images[name], Words.of(source)
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = UID(source.SOPClassUID)
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = UID(run.uid(_kind(name), index + 1))
    for keyword in TYPE_2[image.SOPClassUID]:
        setattr(image, keyword, None)
    valid = [keyword for keyword in (*ACQUIRED, *TECHNIQUE[image.SOPClassUID]) if _is_valid(source, keyword)]
    copied = (*_KEPT, *(("RealWorldValueMappingSequence",) if scale.mapped else ()), *valid)
    copy_elements(source, image, [Tag(keyword) for keyword in copied if keyword in source and not _is_without_size(source, keyword)])
    _say_how_it_was_made(image, source, described, run, words)
    _put_pixels(image, source, stored, scale.bits or 16)
    settle(image, source, run, _kind(name))
    if "ImageLaterality" not in image:
        state_side(image, source)
    return image


def _is_valid(source: Dataset, keyword: str) -> bool:
    """Say whether an attribute is there with values that its VR allows (PS3.5 Table 6.2-1): technique is copied because it is useful."""
    if keyword not in source:
        return False
    vr = dictionary_VR(keyword)
    try:
        value = source[keyword].value
        for one in value if isinstance(value, list | tuple | MultiValue) else [value]:
            validate_value(vr, one if vr in _BINARY else str("" if one is None else one), RAISE)
    except (ValueError, TypeError, OverflowError):
        return False
    return True


def _is_without_size(source: Dataset, keyword: str) -> bool:
    """Say whether an attribute says of pixels that they are of no size, as some radiographs do that were never calibrated."""
    return keyword in ("PixelSpacing", "ImagerPixelSpacing") and not all(float(each) > 0 for each in source.get(keyword) or (0,))


def _say_how_it_was_made(image: Dataset, source: Dataset, described: DerivedImage, run: Run, words: Words) -> None:
    """Write the derivation (PS3.3 C.7.6.1.1.2 to 4, C.12.4). Value 3 of Image Type stays the source's: its class gives it a meaning."""
    own = list(source.ImageType) if _is_valid(source, "ImageType") else []
    unstated = "" if source.SOPClassUID in X_RAYS else {"CT": "AXIAL"}.get(str(source.get("Modality")), "OTHER")
    kind = own[2] if len(own) > 2 else unstated
    image.ImageType = ["DERIVED", "SECONDARY", kind, described.image_type]
    image.DerivationDescription = words.say(f"{described.description} ({run.model.name} {run.model.manifest.version})", 1024)
    image.DerivationCodeSequence = [words.concept(code) for code in described.derivation]
    item, purpose = Dataset(), codes.DCM.SourceImageForImageProcessingOperation
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    item.SpatialLocationsPreserved = "YES"
    coded = Dataset()
    coded.CodeValue, coded.CodingSchemeDesignator, coded.CodeMeaning = purpose.value, purpose.scheme_designator, purpose.meaning
    item.PurposeOfReferenceCodeSequence = [coded]
    image.SourceImageSequence = [item]


def _put_pixels(image: Dataset, source: Dataset, stored: np.ndarray, bits: int) -> None:
    signed = int(stored.dtype.kind == "i")
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, bits, bits - 1, signed
    for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        number = _whole(source, keyword)
        if number is not None:
            image.add_new(Tag(keyword), "SS" if signed else "US", number)
    image.add_new(Tag("PixelData"), "OW", stored.tobytes())
