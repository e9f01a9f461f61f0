"""What objects of a SOP class are to somebody who looks (PS3.4 Table B.5-1): as far as the class says it, before a file is opened."""

from dicom_node.domain import SEGMENTATIONS

IMAGES, SEGMENTS, REPORT, OTHER = "images", "segments", "report", "other"

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_REPORTS = f"{_STORAGE}88."
_RT = tuple(f"{_STORAGE}481.{one}" for one in (1, 2, 23, 24))  # RT Image, RT Dose and the enhanced images: no others of radiotherapy have pixels
_NO_PIXELS = tuple(
    _STORAGE + one for one in ("4.2", "9.", "11.", "66", "67", "68.", "78.", "79.", "80.", "90.", "91.", "104.", "131", "200.", "201.")
)


def kind_of(sop_class_uid: str) -> str:
    """Return what objects of a class are: `IMAGES`, `SEGMENTS`, `REPORT` or `OTHER`."""
    if sop_class_uid in SEGMENTATIONS:
        return SEGMENTS
    if sop_class_uid.startswith(_REPORTS):
        return REPORT
    if sop_class_uid.startswith(f"{_STORAGE}481."):
        return IMAGES if sop_class_uid in _RT else OTHER
    return OTHER if sop_class_uid.startswith(_NO_PIXELS) else IMAGES


def has_pixels(sop_class_uid: str) -> bool:
    """Say whether objects of a class have pixels."""
    return kind_of(sop_class_uid) in (IMAGES, SEGMENTS)
