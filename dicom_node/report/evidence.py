"""Source images as an object refers to them: who they are, and nothing of the patient.

highdicom copies patient and study from what it is given; the header is settled afterwards, and what is odd or missing in a source then cannot
stop the building.
"""

from pydicom import Dataset

_IDENTITY = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime")


def nobody() -> Dataset:
    """Return what highdicom asks of a source's patient and study, empty."""
    item = Dataset()
    for keyword in _PATIENT:
        setattr(item, keyword, None)
    return item


def identified(instance: Dataset, *also: str) -> Dataset:
    """Return what names an instance, with nobody as its patient, and with further attributes of it that are there."""
    item = nobody()
    for keyword in _IDENTITY:
        setattr(item, keyword, instance.get(keyword))
    for keyword in also:
        if keyword in instance:
            setattr(item, keyword, instance[keyword].value)
    return item
