"""What is asked of an archive by C-FIND, and what its answers say: written, read and compared; no I/O (PS3.4 C.2.2.2 and C.4.1)."""

import contextlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pydicom
from pydicom import Dataset, uid
from pydicom.datadict import tag_for_keyword

from dicom_node.domain import is_uid
from dicom_node.store import UNIQUE_KEYS, Level
from dicom_node.store.match import matches

Answer = dict[str, Any]  # keyword -> text, or a list of texts, of what one response says

PENDING, PENDING_UNSUPPORTED = 0xFF00, 0xFF01  # PS3.4 Table C.4-1

_TEXT = 4096  # characters of a value that are kept
_VALUES = 1000  # of one attribute that are kept
_DEMANDED = frozenset({"PatientID"})


def printable(comment: object) -> str:
    """Return a peer's comment as one line of at most 64 printable characters (an LO, PS3.5 6.2)."""
    return "".join(character if character.isprintable() else " " for character in str(comment or "")).strip()[:64]


def readable(identifier: Dataset, *, is_decoded: bool = False) -> Answer:
    """Return what an identifier says, in whatever character set, without its sequences and private attributes.

    An attribute whose value is none of its VR is left out, too. is_decoded: whether its texts are texts already, as those of JSON.
    """
    said: Answer = {}
    for tag in list(identifier.keys()):
        with contextlib.suppress(Exception):  # whatever pydicom raises on bytes that anybody may send
            element = identifier[tag]
            if not is_decoded:
                pydicom.charset.decode_element(element, identifier.get("SpecificCharacterSet") or "ISO_IR 6")
            if element.keyword and element.VR not in ("SQ", "OB", "OW", "UN"):
                values = [str(value)[:_TEXT] for value in _values(element.value)[:_VALUES]]
                said[element.keyword] = values if len(values) > 1 else values[0] if values else ""
    return said


def texts_of(answer: Mapping[str, Any], *keywords: str) -> tuple[str, ...]:
    """Return the values of some attributes of an answer, each once."""
    values = [value for keyword in keywords for value in _values(answer.get(keyword))]
    return tuple(dict.fromkeys(text for value in values for text in str(value).split("\\") if text))


def texts_of_all(answers: Collection[Mapping[str, Any]], *keywords: str) -> tuple[str, ...]:
    """Return the values of some attributes of several answers, each once."""
    return tuple(dict.fromkeys(text for answer in answers for text in texts_of(answer, *keywords)))


def _values(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    if isinstance(value, str | bytes) or hasattr(value, "components") or not hasattr(value, "__iter__"):
        return [value]
    return [one for one in value if one is not None]


def identifier_of(level: Level, asked: Mapping[str, str]) -> Dataset:
    """Return the data set of a question; in Unicode where the default character set does not do."""
    identifier = Dataset()
    for keyword, wanted in asked.items():
        if tag_for_keyword(keyword) is None:
            raise ValueError(f"{keyword} is no keyword")
        setattr(identifier, keyword, wanted or None)
    identifier.QueryRetrieveLevel = str(level)
    if not all(wanted.isascii() for wanted in asked.values()):
        identifier.SpecificCharacterSet = "ISO_IR 192"
    return identifier


def is_meant(level: Level, asked: Mapping[str, str], answer: Answer, status: int) -> bool:
    """Say whether a response is an answer to the question (see the top of this file)."""
    unique = texts_of(answer, UNIQUE_KEYS[level])
    if len(unique) != 1 or (level is not Level.PATIENT and not is_uid(unique[0])):
        return False
    if any(asked.get(keyword) and not texts_of(answer, keyword) for keyword in _DEMANDED):
        return False
    there = {keyword for keyword in asked if keyword in answer and (status == PENDING or answer[keyword] != "")}
    return matches({keyword: asked[keyword] for keyword in there}, answer)


def number_of(answers: Sequence[Mapping[str, Any]], keyword: str) -> int | None:
    """Return the sum of what answers count, None where one does not."""
    said = [texts_of(answer, keyword) for answer in answers]
    if not said or not all(len(one) == 1 and one[0].isdecimal() and len(one[0]) < 10 for one in said):
        return None
    return sum(int(one[0]) for one in said)


_ANY = (
    *(uid.SecondaryCaptureImageStorage, uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage),
    *(uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage, uid.MultiFrameTrueColorSecondaryCaptureImageStorage),
    *(uid.GrayscaleSoftcopyPresentationStateStorage, uid.KeyObjectSelectionDocumentStorage, uid.EncapsulatedPDFStorage),
    *(uid.BasicTextSRStorage, uid.EnhancedSRStorage, uid.ComprehensiveSRStorage, uid.Comprehensive3DSRStorage),
    *(uid.XRayRadiationDoseSRStorage, uid.SegmentationStorage),
)
_BY_MODALITY: Mapping[str, tuple[str, ...]] = {
    "CT": (uid.CTImageStorage, uid.EnhancedCTImageStorage, uid.LegacyConvertedEnhancedCTImageStorage),
    "MR": (uid.MRImageStorage, uid.EnhancedMRImageStorage, uid.EnhancedMRColorImageStorage, uid.LegacyConvertedEnhancedMRImageStorage),
    "PT": (uid.PositronEmissionTomographyImageStorage, uid.EnhancedPETImageStorage, uid.LegacyConvertedEnhancedPETImageStorage),
    "NM": (uid.NuclearMedicineImageStorage,),
    "CR": (uid.ComputedRadiographyImageStorage,),
    "DX": (uid.DigitalXRayImageStorageForPresentation, uid.DigitalXRayImageStorageForProcessing),
    "MG": (
        *(uid.DigitalMammographyXRayImageStorageForPresentation, uid.DigitalMammographyXRayImageStorageForProcessing),
        *(uid.BreastTomosynthesisImageStorage, uid.MammographyCADSRStorage),
    ),
    "US": (uid.UltrasoundImageStorage, uid.UltrasoundMultiFrameImageStorage),
    "XA": (uid.XRayAngiographicImageStorage, uid.EnhancedXAImageStorage, uid.XRay3DAngiographicImageStorage),
    "RF": (uid.XRayRadiofluoroscopicImageStorage, uid.EnhancedXRFImageStorage),
    "OP": (uid.OphthalmicPhotography8BitImageStorage, uid.OphthalmicPhotography16BitImageStorage),
    "OPT": (uid.OphthalmicTomographyImageStorage,),
    "SM": (uid.VLWholeSlideMicroscopyImageStorage,),
    "RTSTRUCT": (uid.RTStructureSetStorage,),
}


def likely_classes(modalities: Collection[str]) -> tuple[str, ...]:
    """Return the storage SOP classes that a study of these modalities may hold; of every modality where it names none."""
    named = [classes for modality, classes in _BY_MODALITY.items() if modality in modalities] or list(_BY_MODALITY.values())
    return tuple(str(one) for one in (*(one for classes in named for one in classes), *_ANY))
