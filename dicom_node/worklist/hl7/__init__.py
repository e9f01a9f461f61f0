"""Orders come by HL7 v2 over MLLP, and each is answered: taken, or which field is wrong. No patient is named in an answer or a log line."""

from dicom_node.worklist.hl7.listening import Hl7Listener
from dicom_node.worklist.hl7.taking import Request

__all__ = ["Hl7Listener", "Request"]
