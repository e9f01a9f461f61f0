"""Orders and performed steps: Modality Worklist, Modality Performed Procedure Step, Instance Availability Notification (PS3.4 Annexes K, F, R).

Orders also come by HL7 v2.
"""

from dicom_node.worklist.folder import Folder
from dicom_node.worklist.hl7 import Hl7Listener
from dicom_node.worklist.inquirer import Inquirer
from dicom_node.worklist.notifier import Notifier
from dicom_node.worklist.service import Worklist

__all__ = ["Folder", "Hl7Listener", "Inquirer", "Notifier", "Worklist"]
