"""Notifications of availability, those that come and those that go out: decided without a socket, a row or the clock (PS3.4 Annex R)."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from pydicom import Dataset
from pydicom.multival import MultiValue

from dicom_node.config import Remote
from dicom_node.domain import Availability, Available, Notification, Refused, Result, is_ae_title, is_uid
from dicom_node.worklist.attributes import (
    DUPLICATE,
    INVALID_VALUE,
    MISSING_ATTRIBUTE,
    MISSING_VALUE,
    RESOURCE_LIMITATION,
    needed,
    needed_items,
    uid,
    value,
)

SOP_CLASS = "1.2.840.10008.5.1.4.33"

_SERIES_MAX = 2_000
_INSTANCES_MAX = 100_000
_TITLES_MAX = 16  # of one instance
_WARNINGS = frozenset({0x0001, 0x0107, 0x0116})  # PS3.7 Annex C: it is done, and something about it was odd


def noticed(sop_instance_uid: str, attributes: Dataset) -> Notification:
    """Return what an N-CREATE says (PS3.4 Table R.3.2-1).

    Referenced Performed Procedure Step Sequence, which may be empty, is not asked for; of attributes that do not belong here nothing is made.

    Raises
    ------
    Refused: an attribute that it must have is missing, empty or wrong, or there is more than is kept.
    """
    if not is_uid(sop_instance_uid):
        raise Refused("Affected SOP Instance UID is no UID", status=INVALID_VALUE)
    study_instance_uid = uid(attributes, "StudyInstanceUID")
    series: dict[str, dict[str, Available]] = {}
    for item in needed_items(attributes, "ReferencedSeriesSequence"):
        of_series = series.setdefault(uid(item, "SeriesInstanceUID"), {})
        of_series |= {one.sop_instance_uid: one for one in map(_available, needed_items(item, "ReferencedSOPSequence"))}
        if len(series) > _SERIES_MAX or sum(map(len, series.values())) > _INSTANCES_MAX:
            raise Refused(f"more than {_SERIES_MAX} series or {_INSTANCES_MAX} instances are not kept", status=RESOURCE_LIMITATION)
    kept = {key: tuple(instances.values()) for key, instances in series.items()}
    return Notification(sop_instance_uid=sop_instance_uid, study_instance_uid=study_instance_uid, series=kept)


def _available(item: Dataset) -> Available:
    uid(item, "ReferencedSOPClassUID")
    sop_instance_uid, said = uid(item, "ReferencedSOPInstanceUID"), needed(item, "InstanceAvailability")
    if said not in tuple(Availability):
        raise Refused("Instance Availability is none that PS3.3 knows", status=INVALID_VALUE)
    return Available(sop_instance_uid=sop_instance_uid, availability=Availability(said), retrieve_aes=_titles(item))


def _titles(item: Dataset) -> tuple[str, ...]:
    if "RetrieveAETitle" not in item:
        raise Refused("RetrieveAETitle is missing", status=MISSING_ATTRIBUTE)
    said: Any = value(item, "RetrieveAETitle")
    given = said if isinstance(said, MultiValue | list) else [said]
    titles = tuple(text for one in given if one is not None and (text := str(one).strip()))
    if not titles:
        raise Refused("RetrieveAETitle is empty", status=MISSING_VALUE)
    if len(titles) > _TITLES_MAX or not all(map(is_ae_title, titles)):
        raise Refused("RetrieveAETitle is no AE title, or too many", status=INVALID_VALUE)
    return titles


def sources(said: Notification, absent: Collection[str], remotes: Mapping[str, Remote]) -> dict[str, int]:
    """Return the names of the remotes from which to fetch, each with how many of the absent instances it has.

    Only a remote of which the site wants it is asked, and each instance of the first that has it.
    """
    fetchable = {remote.ae.title: name for name, remote in reversed(list(remotes.items())) if remote.fetch_notified}
    counts: dict[str, int] = {}
    for one in said.instances:
        name = next((fetchable[title] for title in one.retrieve_aes if title in fetchable), None)
        if name is not None and one.at_hand and one.sop_instance_uid in absent:
            counts[name] = counts.get(name, 0) + 1
    return counts


def notification(study_instance_uid: str, results: Iterable[Result], titles: Sequence[str]) -> Dataset:
    """Return what is said of results that are to be had from these AE titles (PS3.4 Table R.3.2-1)."""
    series: dict[str, list[Dataset]] = {}
    for one in results:
        series.setdefault(one.series_instance_uid, []).append(_reference(one, titles))
    said = Dataset()
    said.ReferencedPerformedProcedureStepSequence = []
    said.StudyInstanceUID = study_instance_uid
    said.ReferencedSeriesSequence = []
    for uid_of_series, references in series.items():
        item = Dataset()
        item.SeriesInstanceUID = uid_of_series
        item.ReferencedSOPSequence = references
        said.ReferencedSeriesSequence.append(item)
    return said


def _reference(one: Result, titles: Sequence[str]) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = one.sop_class_uid, one.sop_instance_uid
    item.InstanceAvailability = Availability.ONLINE.value
    item.RetrieveAETitle = list(titles) if len(titles) > 1 else titles[0]
    return item


def is_taken(status: int) -> bool:
    """Say whether an answer means that the remote has the notification: success, a warning, or that it was there already."""
    return status in (0x0000, DUPLICATE) or status in _WARNINGS
