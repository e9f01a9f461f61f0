"""What archives say of instances that are available, as data sets."""

from collections.abc import Mapping, Sequence

from pydicom import Dataset

_CT = "1.2.840.10008.5.1.4.1.1.2"


def available(study: str, series: Mapping[str, Sequence[str]], *, how: str = "ONLINE", titles: str | list[str] = "PACS") -> Dataset:
    """Return the attributes of an N-CREATE; series: its instances by Series Instance UID."""
    said = Dataset()
    said.ReferencedPerformedProcedureStepSequence = []
    said.StudyInstanceUID = study
    said.ReferencedSeriesSequence = []
    for uid, instances in series.items():
        item = Dataset()
        item.SeriesInstanceUID = uid
        item.ReferencedSOPSequence = [_reference(one, how, titles) for one in instances]
        said.ReferencedSeriesSequence.append(item)
    return said


def _reference(uid: str, how: str, titles: str | list[str]) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = _CT
    item.ReferencedSOPInstanceUID = uid
    item.InstanceAvailability = how
    item.RetrieveAETitle = titles
    return item
