"""A person or a program asks for an analysis of a study: a workitem that says so, which the node then takes up as any other (IHE AIW-I, RAD-80)."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydicom import Dataset

from dicom_node.config import Model
from dicom_node.domain import Priority, Rejected, Series, Study, Workitem
from dicom_node.web.context import Context

SCHEME = "99DICOMNODE"  # of the codes that name this node's analyses and stations

_OF_PATIENT = ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex")
_LABEL, _CODES = "00741204", "00404018"  # Procedure Step Label, Scheduled Workitem Code Sequence
TOLD = (_LABEL, _CODES)  # tags of the attributes by which a list tells one workitem from another
_CODE_CHARACTERS = 16  # of a Code Value; a longer one is a Long Code Value (PS3.3 8.1)
_EMPTY = (
    *("ScheduledProcessingParametersSequence", "ScheduledStationClassCodeSequence", "ScheduledStationGeographicLocationCodeSequence"),
    *("ProcedureStepProgressInformationSequence", "UnifiedProcedureStepPerformedProcedureSequence"),
)


def ask(context: Context, study_instance_uid: str, model: str, priority: Priority, *, who: str) -> str:
    """Ask for an analysis of a study, and return the UID of the workitem.

    Raises
    ------
    Rejected: there is no such model, or nothing of the study is here.
    Refused: the study is larger than a workitem may name.
    """
    known = context.site.models.get(model)
    if known is None:
        raise Rejected("that is not a model that the site runs", hint="Name it in [models].")
    study = context.store.studies.view(study_instance_uid)
    if study is None or not study.instances:
        raise Rejected("nothing of that study is here", hint="Fetch it, or send it.")
    wanted = workitem_for(study, known, model, context.site.config.node.ae_title, priority, context.clock())
    wanted.WorklistLabel = context.site.config.worklist.label
    uid, _ = context.worklist.create(wanted, requester=who)
    return uid


def workitem_for(study: Study, model: Model, name: str, ae_title: str, priority: Priority, now: float) -> Dataset:
    """Return the workitem that asks this node to run a model on a study (PS3.4 Table CC.2.5-3); pure."""
    header = study.instances[0].header
    one = Dataset()
    one.SpecificCharacterSet = "ISO_IR 192"
    one.ProcedureStepState, one.ScheduledProcedureStepPriority, one.InputReadinessState = "SCHEDULED", priority.name, "READY"
    one.ProcedureStepLabel = f"{name} {model.manifest.version}"[:64]
    one.ScheduledProcedureStepStartDateTime = datetime.fromtimestamp(now).astimezone().strftime("%Y%m%d%H%M%S.%f%z")
    one.ScheduledWorkitemCodeSequence = [_coded(name, model.manifest.task)]
    one.ScheduledStationNameCodeSequence = [_coded(ae_title, ae_title)]
    one.InputInformationSequence = [_input(series, study.study_instance_uid, ae_title) for series in study.series]
    one.StudyInstanceUID = study.study_instance_uid
    for keyword in _OF_PATIENT:
        setattr(one, keyword, str(header.get(keyword) or ""))
    one.ReferencedRequestSequence = [_request(study.study_instance_uid, str(header.get("AccessionNumber") or ""))]
    one.CommentsOnTheScheduledProcedureStep = one.AdmissionID = ""
    for keyword in _EMPTY:
        setattr(one, keyword, [])
    return one


def label_of(item: Workitem) -> str:
    """Return how a workitem is called."""
    return _first(item.attributes, _LABEL) or (f"{item.job.model} {item.job.model_version}" if item.job else "")


def code_of(item: Workitem) -> tuple[str, str]:
    """Return which kind of work a workitem is, as a code and in words; empty where it does not say."""
    if _CODES not in item.attributes and item.job is not None:
        return item.job.model, item.job.model
    for code in item.attributes.get(_CODES, {}).get("Value", ())[:1]:
        value = _first(code, "00080100") or _first(code, "00080119") or _first(code, "00080120")
        return value, _first(code, "00080104") or value
    return "", ""


def _first(attributes: Mapping[str, Any], tag: str) -> str:
    values: Sequence[Any] = attributes.get(tag, {}).get("Value", ())
    return str(values[0]) if values and isinstance(values[0], str) else ""


def _input(series: Series, study_instance_uid: str, ae_title: str) -> Dataset:
    """Return a series that lies here as an input (PS3.4 Table CC.2.5-2c)."""
    item, way = Dataset(), Dataset()
    item.TypeOfInstances, item.StudyInstanceUID, item.SeriesInstanceUID = "DICOM", study_instance_uid, series.series_instance_uid
    item.ReferencedSOPSequence = []
    for instance in series.instances:
        reference = Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = instance.sop_class_uid, instance.sop_instance_uid
        item.ReferencedSOPSequence.append(reference)
    way.RetrieveAETitle = ae_title
    item.DICOMRetrievalSequence = [way]
    return item


def _request(study_instance_uid: str, accession_number: str) -> Dataset:
    item = Dataset()
    item.StudyInstanceUID, item.AccessionNumber = study_instance_uid, accession_number[:16]
    item.RequestedProcedureID = item.RequestedProcedureDescription = ""
    item.RequestedProcedureCodeSequence = []
    return item


def _coded(value: str, meaning: str) -> Dataset:
    item = Dataset()
    if len(value) > _CODE_CHARACTERS:
        item.LongCodeValue = value
    else:
        item.CodeValue = value
    item.CodingSchemeDesignator, item.CodeMeaning = SCHEME, meaning[:64]
    return item
