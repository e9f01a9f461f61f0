"""What a modality says of the steps that it performs, as data sets."""

from collections.abc import Mapping, Sequence

from pydicom import Dataset

STUDY = "1.2.826.0.1.3680043.8.498.1"
STEP = "1.2.826.0.1.3680043.8.498.7"
_CT = "1.2.840.10008.5.1.4.1.1.2"


def in_progress(*studies: str) -> Dataset:
    """Return the attributes of an N-CREATE."""
    said = Dataset()
    said.ScheduledStepAttributesSequence = []
    for uid in studies or (STUDY,):
        item = Dataset()
        item.StudyInstanceUID = uid
        said.ScheduledStepAttributesSequence.append(item)
    said.PerformedProcedureStepID = "P1"
    said.PerformedStationAETitle = "CT_ER"
    said.PerformedProcedureStepStartDate = "20260110"
    said.PerformedProcedureStepStartTime = "101500"
    said.PerformedProcedureStepStatus = "IN PROGRESS"
    said.Modality = "CT"
    said.PerformedSeriesSequence = []
    return said


def ended(status: str, series: Mapping[str, Sequence[str]]) -> Dataset:
    """Return the modifications of an N-SET; the last instance of each series is no image."""
    said = Dataset()
    if status:
        said.PerformedProcedureStepStatus = status
        said.PerformedProcedureStepEndDate = "20260110"
        said.PerformedProcedureStepEndTime = "103000"
    said.PerformedSeriesSequence = [_series(uid, instances) for uid, instances in series.items()]
    return said


def _series(uid: str, instances: Sequence[str]) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID = uid
    item.ReferencedImageSequence = [_reference(one) for one in instances[:-1]]
    item.ReferencedNonImageCompositeSOPInstanceSequence = [_reference(one) for one in instances[-1:]]
    return item


def _reference(uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = _CT
    item.ReferencedSOPInstanceUID = uid
    return item
