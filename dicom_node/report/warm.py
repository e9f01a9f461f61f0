"""What every process that writes reports loads once."""

from highdicom import SOPClass
from pydicom.uid import SegmentationStorage


def warm() -> None:
    """Read the tables of the standard that highdicom consults for every object, which takes the first object of a process half a second.

    May run in a thread of its own, and more than once.
    """
    SOPClass(
        study_instance_uid="1.2.3",
        series_instance_uid="1.2.3",
        series_number=1,
        sop_instance_uid="1.2.3",
        sop_class_uid=SegmentationStorage,
        instance_number=1,
        modality="SEG",
    )
