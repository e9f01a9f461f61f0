"""Orders, workitems and performed steps: Modality Worklist, UPS, MPPS, Instance Availability Notification (PS3.4 Annexes K, CC, F, R).

Orders also come by HL7 v2.
"""

from dicom_node.worklist.folder import Folder
from dicom_node.worklist.hl7 import Hl7Listener
from dicom_node.worklist.inquirer import Inquirer
from dicom_node.worklist.notifier import Notifier
from dicom_node.worklist.service import Worklist
from dicom_node.worklist.ups import Hearing, Manager, Pulling, Reporting, WorkitemService

__all__ = ["Folder", "Hearing", "Hl7Listener", "Inquirer", "Manager", "Notifier", "Pulling", "Reporting", "WorkitemService", "Worklist"]
