"""The workitem by which a person or a program asks this node for an analysis of a study that is here (IHE AIW-I, RAD-80). Pure."""

from pydicom import Dataset

from dicom_node.config import Model
from dicom_node.domain import JobState, Priority, Readiness, Study
from dicom_node.worklist.ups.attributes import moment
from dicom_node.worklist.ups.presented import Station, information, workitem_code

_OF_PATIENT = ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex")


def analysis(study: Study, name: str, model: Model, station: Station, priority: Priority, now: float) -> Dataset:
    """Return a workitem that asks for a model by its name, on all of a study (PS3.4 Table CC.2.5-3); what it need not say the manager fills in."""
    header = study.instances[0].header
    said, request = Dataset(), Dataset()
    said.SpecificCharacterSet = "ISO_IR 192"
    said.ProcedureStepState, said.ScheduledProcedureStepPriority = JobState.SCHEDULED.value, priority.name
    said.InputReadinessState, said.ScheduledProcedureStepStartDateTime = Readiness.READY.value, moment(now)
    said.ProcedureStepLabel = f"{name} {model.manifest.version}"[:64]
    said.ScheduledWorkitemCodeSequence, said.ScheduledStationNameCodeSequence = [workitem_code(name, model)], [station.code]
    said.InputInformationSequence = information(((one, ()) for one in study.instances), station)
    said.StudyInstanceUID = request.StudyInstanceUID = study.study_instance_uid
    for keyword in _OF_PATIENT:
        setattr(said, keyword, str(header.get(keyword) or ""))
    request.AccessionNumber = str(header.get("AccessionNumber") or "")[:16]
    request.RequestedProcedureID = request.RequestedProcedureDescription = ""
    request.RequestedProcedureCodeSequence = []
    said.ReferencedRequestSequence = [request]
    return said
