"""What a workitem may say and must say: at its creation, when it is changed, and before it ends (PS3.4 Table CC.2.5-3).

Pure: data sets in, data sets out; what is missing or wrong is refused with the status of PS3.7.
"""

import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone
from io import BytesIO
from typing import Any

from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_VR
from pydicom.tag import Tag

from dicom_node.domain import JobState, Priority, Readiness, Refused, is_uid
from dicom_node.worklist.attributes import INVALID_VALUE, MISSING_ATTRIBUTE, MISSING_VALUE, items, needed, needed_items, text, uid

SOP_CLASS = "1.2.840.10008.5.1.4.34.6.1"  # of every workitem, whatever context it came by (PS3.4 CC.3.1)
CREATED_WITH_CHANGES = 0xB300
_NOT_SCHEDULED = 0xC309

_ITEMS_MAX = 1_000  # of a sequence; a study has fewer series
_REFERENCES_MAX = 100_000
_DEPTH_MAX = 16  # of sequences within sequences; the standard has four
_CODE_CHARACTERS = 16  # of a Code Value; a longer one is a Long Code Value (PS3.3 8.1)

# Attributes that are there, with or without a value, when a step is created (types 2 and 2C); the ones that must have none are below.
_MAY_BE_EMPTY = (
    *("ScheduledProcessingParametersSequence", "ScheduledStationNameCodeSequence", "ScheduledStationClassCodeSequence"),
    *("ScheduledStationGeographicLocationCodeSequence", "CommentsOnTheScheduledProcedureStep", "ScheduledWorkitemCodeSequence"),
    *("InputInformationSequence", "PatientName", "PatientBirthDate", "PatientSex", "AdmissionID", "ReferencedRequestSequence"),
)
_MUST_BE_EMPTY = ("TransactionUID", "ProcedureStepProgressInformationSequence", "UnifiedProcedureStepPerformedProcedureSequence")
# What the manager says and nobody else, or what names the step itself: passed over in an N-SET.
_NOT_SET = frozenset(
    {
        *("TransactionUID", "SOPClassUID", "SOPInstanceUID", "ProcedureStepState", "ScheduledProcedureStepModificationDateTime"),
        *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "AdmissionID"),
    }
)
HIDDEN = Tag("TransactionUID")
# DT: what is left out is left out from the right (PS3.5 Table 6.2-1). `strptime` takes one digit for two, and reads other moments.
_MOMENT = re.compile(
    r"([0-9]{4})(?:([0-9]{2})(?:([0-9]{2})(?:([0-9]{2})(?:([0-9]{2})(?:([0-5][0-9]|60)(?:\.([0-9]{1,6}))?)?)?)?)?)?(?:([+-])([0-9]{2})([0-9]{2}))?"
)


def created(said: Dataset, *, uid_given: str, now: float, worklist_label: str) -> tuple[Dataset, bool]:
    """Return a new step as the manager keeps it, and whether it filled in or left out anything (B300).

    Raises
    ------
    Refused: what must be there is missing, empty or wrong.
    """
    _check_kinds(said)
    if "ProcedureStepState" in said and text(said, "ProcedureStepState") not in ("", JobState.SCHEDULED):
        raise Refused("a step begins SCHEDULED", status=_NOT_SCHEDULED)
    needed(said, "ProcedureStepState")
    priority_of(said)
    needed(said, "ProcedureStepLabel")
    start_of(said)
    readiness_of(said)
    for keyword in _MUST_BE_EMPTY:
        if said.get(keyword):
            raise Refused(f"{keyword} has a value before anybody performs the step", status=INVALID_VALUE)
    _check_sequences(said)
    kept = Dataset()
    kept.update({element.tag: element for element in said if element.tag.group > 0x0002 and element.tag != HIDDEN})
    changed = _fill(kept, worklist_label)
    kept.SOPClassUID, kept.SOPInstanceUID, kept.ProcedureStepState = SOP_CLASS, uid_given, JobState.SCHEDULED.value
    kept.ScheduledProcedureStepModificationDateTime = moment(now)
    return kept, changed


def _fill(kept: Dataset, worklist_label: str) -> bool:
    """Put in what the requester left out and the manager may fill (types 2 of Table CC.2.5-3); say whether anything was."""
    missing = [keyword for keyword in (*_MAY_BE_EMPTY, *_MUST_BE_EMPTY[1:]) if keyword not in kept]
    for keyword in missing:
        setattr(kept, keyword, [] if keyword.endswith("Sequence") else "")
    if not kept.get("WorklistLabel"):
        kept.WorklistLabel = worklist_label
        return True
    return bool(missing)


def changed(held: Dataset, said: Dataset, now: float) -> Dataset:
    """Return a step as an N-SET leaves it: attributes and whole sequences are replaced (PS3.4 CC.2.6).

    Raises
    ------
    Refused: it changes the state, or a value is wrong.
    """
    _check_kinds(said)
    if "ProcedureStepState" in said:
        raise Refused("the state is changed by an action, not by N-SET", status=INVALID_VALUE)
    for keyword, check in (
        ("ScheduledProcedureStepPriority", priority_of),
        ("InputReadinessState", readiness_of),
        ("ScheduledProcedureStepStartDateTime", start_of),
    ):
        if keyword in said:
            check(said)
    _check_sequences(said)
    merged = Dataset()
    merged.update({element.tag: element for element in held})
    merged.update({element.tag: element for element in said if element.tag.group > 0x0002 and element.keyword not in _NOT_SET})
    if "SpecificCharacterSet" in said and said.SpecificCharacterSet != held.get("SpecificCharacterSet"):
        merged.SpecificCharacterSet = "ISO_IR 192"  # what is there was written in another one, and is to be read too
    merged.ScheduledProcedureStepModificationDateTime = moment(now)
    return merged


def unfinished(held: Dataset, to: JobState, now: float) -> tuple[str, ...]:
    """Return what a final state requires and the step does not say, as names of attributes; what the manager fills is filled."""
    if to is JobState.CANCELED:
        progress = held.get("ProcedureStepProgressInformationSequence") or []
        if not progress:
            progress = held.ProcedureStepProgressInformationSequence = [Dataset()]
        if not progress[0].get("ProcedureStepCancellationDateTime"):
            progress[0].ProcedureStepCancellationDateTime = moment(now)
        reasons = codes_of(progress[0], "ProcedureStepDiscontinuationReasonCodeSequence")
        return () if reasons and all(value for value, _, _ in reasons) else ("ProcedureStepDiscontinuationReasonCodeSequence",)
    performed = held.get("UnifiedProcedureStepPerformedProcedureSequence") or []
    if not performed:
        return ("UnifiedProcedureStepPerformedProcedureSequence",)
    wanted = ("PerformedStationNameCodeSequence", "PerformedProcedureStepStartDateTime", "PerformedWorkitemCodeSequence")
    missing = [keyword for keyword in (*wanted, "PerformedProcedureStepEndDateTime") if not performed[0].get(keyword)]
    return (*missing, *(() if "OutputInformationSequence" in performed[0] else ("OutputInformationSequence",)))


def discontinue(progress: Dataset, why: str, code: tuple[str, str, str], at: str) -> Dataset:
    """Put into an item of progress when and why its step was canceled, in words and as a code, and return it (PS3.4 Table CC.2.5-3)."""
    progress.ProcedureStepCancellationDateTime = at
    progress.ReasonForCancellation = why
    progress.ProcedureStepDiscontinuationReasonCodeSequence = [coded(*code)]
    return progress


def priority_of(said: Dataset) -> Priority:
    """Return how urgent a step is.

    Raises
    ------
    Refused: it does not say, or says what is none.
    """
    named = needed(said, "ScheduledProcedureStepPriority")
    if named not in Priority.__members__:
        raise Refused("ScheduledProcedureStepPriority is none of HIGH, MEDIUM, LOW", status=INVALID_VALUE)
    return Priority[named]


def readiness_of(said: Dataset) -> Readiness:
    """Return whether a step's inputs are there.

    Raises
    ------
    Refused: it does not say, or says what is none.
    """
    named = needed(said, "InputReadinessState")
    if named not in tuple(Readiness):
        raise Refused("InputReadinessState is none of INCOMPLETE, UNAVAILABLE, READY", status=INVALID_VALUE)
    return Readiness(named)


def start_of(said: Dataset) -> float:
    """Return when a step is to start, in seconds since the epoch.

    Raises
    ------
    Refused: it does not say, or it is no moment.
    """
    found = _MOMENT.fullmatch(needed(said, "ScheduledProcedureStepStartDateTime"))
    try:
        if found is not None:
            return _seconds(*found.groups(default=""))
    except (ValueError, OverflowError, OSError):  # there is no such day, or the machine's clock knows none
        pass
    raise Refused("ScheduledProcedureStepStartDateTime is no moment", status=INVALID_VALUE)


def _seconds(year: str, month: str, day: str, hour: str, minute: str, second: str, fraction: str, sign: str, hours: str, minutes: str) -> float:
    ahead = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    zone = timezone(-ahead if sign == "-" else ahead) if sign else None  # without one it is this node's local time
    seconds = min(int(second or 0), 59)  # 60: a leap second
    micros = int(f"{fraction:0<6}")
    return datetime(int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0), seconds, micros, zone).timestamp()


def moment(at: float) -> str:
    """Write a moment as DT, with its offset from UTC (PS3.5 6.2)."""
    return datetime.fromtimestamp(at).astimezone().strftime("%Y%m%d%H%M%S.%f%z")


def code(item: Dataset) -> tuple[str, str, str]:
    """Return a coded term of an item: value, scheme designator, meaning; empty texts where it has none."""
    value = str(item.get("CodeValue") or item.get("LongCodeValue") or item.get("URNCodeValue") or "")
    return value, str(item.get("CodingSchemeDesignator") or ""), str(item.get("CodeMeaning") or "")


def coded(value: str, scheme: str, meaning: str) -> Dataset:
    """Return a coded term as an item (PS3.3 §8)."""
    item = Dataset()
    if len(value) > _CODE_CHARACTERS:
        item.LongCodeValue = value
    else:
        item.CodeValue = value
    item.CodingSchemeDesignator, item.CodeMeaning = scheme, meaning[:64]
    return item


def codes_of(said: Dataset, keyword: str) -> tuple[tuple[str, str, str], ...]:
    """Return the coded terms of a sequence."""
    return tuple(code(item) for item in said.get(keyword) or ())


def inputs_of(said: Dataset) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return the inputs of a step: study → series → instances; a series that names none means all of it, and a study without series too."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for item in said.get("InputInformationSequence") or ():
        study = str(item.get("StudyInstanceUID") or "")
        if not is_uid(study):
            continue
        series = found.setdefault(study, {})
        if key := str(item.get("SeriesInstanceUID") or ""):
            named = (str(one.get("ReferencedSOPInstanceUID") or "") for one in item.get("ReferencedSOPSequence") or ())
            series[key] = (*series.get(key, ()), *(one for one in named if is_uid(one)))
    return found


def study_of(said: Dataset) -> str:
    """Return the study that a step is about; empty where it does not say, or names several."""
    named = str(said.get("StudyInstanceUID") or "")
    of_inputs = list(inputs_of(said))
    of_requests = [str(item.get("StudyInstanceUID") or "") for item in said.get("ReferencedRequestSequence") or ()]
    candidates: Iterable[str] = dict.fromkeys(one for one in ([named] if named else of_inputs or of_requests) if is_uid(one))
    only = list(candidates)
    return only[0] if len(only) == 1 else ""


def _check_kinds(said: Dataset) -> None:
    """Raise Refused where a sequence belongs and is none, or the other way round: with Explicit VR a peer says what a value is."""
    for element in said.iterall():
        if element.keyword and (dictionary_VR(element.tag) == "SQ") is not (element.VR == "SQ"):
            raise Refused(f"{element.keyword} is of another kind", status=INVALID_VALUE)


def _check_sequences(said: Dataset) -> None:
    """Raise Refused where a sequence is out of bounds, or its items lack what they must have (Tables CC.2.5-2b to 2d)."""
    for element in said:
        if element.VR == "SQ" and len(element.value or ()) > _ITEMS_MAX:
            raise Refused(f"{element.keyword or element.tag} has more than {_ITEMS_MAX} items", status=INVALID_VALUE)
    for keyword in ("ScheduledWorkitemCodeSequence", "ScheduledStationNameCodeSequence", "ScheduledStationClassCodeSequence"):
        for item in items(said, keyword) or ():
            if not all(code(item)[:2]) and not item.get("URNCodeValue"):  # a URN names its scheme by itself
                raise Refused(f"an item of {keyword} has no code", status=MISSING_VALUE)
    count = 0
    for item in items(said, "InputInformationSequence") or ():
        _check_input(item)
        count += len(item.get("ReferencedSOPSequence") or ())
    if count > _REFERENCES_MAX:
        raise Refused(f"the inputs name more than {_REFERENCES_MAX} instances", status=INVALID_VALUE)


def _check_input(item: Dataset) -> None:
    """Raise Refused where an item of the inputs lacks what Table CC.2.5-2c demands."""
    needed(item, "TypeOfInstances")
    if text(item, "TypeOfInstances") == "DICOM":
        uid(item, "StudyInstanceUID")
        if "SeriesInstanceUID" in item:
            uid(item, "SeriesInstanceUID")
    for one in needed_items(item, "ReferencedSOPSequence"):
        uid(one, "ReferencedSOPClassUID")
        uid(one, "ReferencedSOPInstanceUID")
    ways = ("DICOMRetrievalSequence", "DICOMMediaRetrievalSequence", "WADORetrievalSequence", "XDSRetrievalSequence", "WADORSRetrievalSequence")
    if not any(items(item, keyword) for keyword in ways):
        raise Refused("an input does not say from where it is to be had", status=MISSING_ATTRIBUTE)


def hidden(said: Dataset) -> Dataset:
    """Return a step without what is shown to nobody: the Transaction UID, at any depth (PS3.4 CC.2.7)."""
    shown = Dataset()
    for element in said:
        if element.VR == "SQ" and element.value:
            shown[element.tag] = DataElement(element.tag, "SQ", [hidden(item) for item in element.value])
        elif element.tag != HIDDEN:
            shown[element.tag] = element
    return shown


def _depth(said: Dataset) -> int:
    """Return how deep sequences lie within one another."""
    deepest, layer = 0, [said]
    while layer := [item for one in layer for element in one if element.VR == "SQ" for item in element.value or ()]:
        deepest += 1
    return deepest


def model_of(said: Dataset) -> Mapping[str, Any]:
    """Return a data set in the DICOM JSON Model, as the ledger keeps it.

    Raises
    ------
    Refused: a value is of no form that can be told again; one such step would end every search that comes to it.
    """
    try:
        _check_kinds(said)
        model = dict(said.to_json_dict())
        json.dumps(model, allow_nan=False)
        dataset_of(model).save_as(BytesIO(), implicit_vr=False, little_endian=True)
        if _depth(said) > _DEPTH_MAX:
            raise ValueError("sequences within sequences are read by going into them, and that has an end")
        if any("\0" in str(element.value) for element in said.iterall() if element.VR != "SQ"):
            raise ValueError("PostgreSQL takes no text with a NUL in it")
    except Exception as error:  # whatever pydicom raises on what anybody may send
        raise Refused("a value cannot be kept", status=INVALID_VALUE) from error
    return model


def dataset_of(model: Mapping[str, Any]) -> Dataset:
    """Return the data set of a model that this node wrote."""
    return Dataset.from_json(dict(model))
