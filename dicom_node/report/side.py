"""The body part that an object shows, and its side, which the General Series Module demands where a part may be paired (PS3.3 C.7.3.1)."""

from pydicom import Dataset
from pydicom.tag import Tag

from dicom_node.report.header import copy_elements, is_sound

# Body parts without sides (PS3.16 Annex L): of any other, and of one that is not stated, Laterality is required.
_WITHOUT_SIDES = """
ABDOMEN ABDOMENPELVIS AORTA BACK BLADDER BRAIN CEREBELLUM CERVIX CHEST CHESTABDOMEN CHESTABDPELVIS CIRCLEOFWILLIS COCCYX COLON
CORONARYARTERY CSPINE CTSPINE DUODENUM ESOPHAGUS FACE GALLBLADDER HEAD HEADNECK HEART ILEUM ILIUM JAW JEJUNUM LARYNX LIVER LSPINE LSSPINE
MAXILLA MEDIASTINUM MOUTH NECK NECKCHEST NECKCHESTABDOMEN NECKCHESTABDPELV NOSE PANCREAS PELVIS PENIS PHARYNX PROSTATE RECTUM SCALP SKULL
SPINE SPLEEN SSPINE STERNUM STOMACH THYMUS THYROID TLSPINE TONGUE TRACHEA TSPINE URETER URETHRA UTERUS VAGINA VULVA WHOLEBODY
"""
_UNPAIRED = frozenset(_WITHOUT_SIDES.split())


def state_part(built: Dataset, source: Dataset) -> None:
    """State the body part that a source states, where that is a valid text."""
    copy_elements(source, built, [Tag("BodyPartExamined")] if is_sound(source, "BodyPartExamined") else [])


def state_side(built: Dataset, source: Dataset) -> None:
    """State the side that a source states, unless the body part of what was built has none; empty where it is not known (type 2C)."""
    if built.get("BodyPartExamined") not in _UNPAIRED:
        side = source.get("Laterality")
        built.Laterality = side if side in ("L", "R") else None
